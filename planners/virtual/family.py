"""Hearts drawn for cohorts: healthy, dilated and hypertrophic ones, each within published ranges and plausible as a whole.

What varies: LV and RV volume, sphericity, wall thickness per segment, how far the RV reaches and wraps round the LV, its outflow tract, the
direction of the long axis, the LV's oval and bend. Parameters are correlated through one body size; a combination that no heart has (an LV
of 90 mL with an RV of 250 mL, say) is drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planners.virtual.anatomy import Anatomy
from planners.virtual.statistics import (
    LV_EDV_ML,
    LV_LENGTH_MM,
    LV_MASS_G,
    LV_SPHERICITY,
    LV_WALL_MM,
    MUSCLE_G_PER_ML,
    RV_EDV_ML,
    RV_OVER_LV,
    RV_REACH,
    RV_SPAN_DEG,
    RV_WALL_MM,
)
from twin.errors import RunFailed
from twin.params import Param

TRIES = 200
OUTFLOW_MM = Param(14.0, "mm", 9.0, 18.0, "bulge of the RV's outflow tract; chosen here to look like real hearts")
RV_WALL_SD = Param(0.12, "1", 0.05, 0.2, "chosen here: spread of the RV's wall thickness")


@dataclass(frozen=True)
class Group:
    """Means as multiples of the healthy ones: LV volume, sphericity, wall; septal: of the septum's wall beyond that; SD of LV volume."""

    volume: float
    sphericity: float
    wall: float
    septal: float
    volume_sd: float
    source: str


GROUPS: Mapping[str, Group] = {
    "healthy": Group(1.0, 1.0, 1.0, 1.0, 0.16, "Hudsmith 2005, Kawel 2012 (planners.virtual.statistics)"),
    "dilated": Group(
        1.40,
        1.25,
        0.95,
        1.0,
        0.08,
        "chosen here: remodelled after infarction; rounder, as LV_SPHERICITY allows (planners.virtual.statistics)",
    ),
    "hypertrophic": Group(0.92, 0.95, 1.25, 1.12, 0.12, "chosen here: within the plausible range of each segment (LV_WALL_MM)"),
}
SEPTAL = (2, 3, 8, 9, 14)


def draw_anatomy(rng: np.random.Generator, sex: str | None = None, group: str = "healthy") -> Anatomy:
    """Draw one plausible heart; the same generator state gives the same heart.

    sex: "male", "female" or None (drawn); group: a key of GROUPS. Raises KeyError for an unknown group or sex, RunFailed if 200 draws in a
    row are implausible (the ranges then contradict each other).
    """
    kind = GROUPS[group]
    chosen = sex if sex is not None else str(rng.choice(["male", "female"]))
    for _ in range(TRIES):
        heart = _draw(rng, chosen, kind)
        if not implausible(heart):
            return heart
    raise RunFailed(f"no plausible {group} {chosen} heart in {TRIES} draws: the ranges contradict each other")


def _draw(rng: np.random.Generator, sex: str, kind: Group) -> Anatomy:
    size = rng.normal()
    lv = LV_EDV_ML[sex].value * kind.volume * (1.0 + kind.volume_sd * size)
    rv = RV_EDV_ML[sex].value * (1.0 + 0.16 * (0.8 * size + 0.6 * rng.normal()))
    wall = kind.wall * (1.0 + 0.03 * size + 0.09 * rng.normal())
    segments = {
        k: p.value * wall * (kind.septal if k in SEPTAL else 1.0) * float(1.0 + 0.04 * rng.normal()) for k, p in LV_WALL_MM[sex].items()
    }
    axis = np.array(Anatomy.apex_lps) + rng.normal(0.0, 0.08, 3)
    return Anatomy(
        sex=sex,
        lv_edv_ml=float(lv),
        rv_edv_ml=float(rv),
        sphericity=float(LV_SPHERICITY.value * kind.sphericity * (1.0 + 0.09 * rng.normal())),
        wall_mm={k: float(v) for k, v in segments.items()},
        rv_wall_mm=float(RV_WALL_MM.value * (1.0 + RV_WALL_SD.value * rng.normal())),
        apex_lps=(float(axis[0]), float(axis[1]), float(axis[2])),
        oval=float(rng.uniform(0.02, 0.07)),
        oval_deg=float(rng.uniform(0.0, 180.0)),
        bend_mm=float(rng.uniform(1.0, 5.0)),
        conus_mm=float(rng.normal(OUTFLOW_MM.value, 1.8)),
        rv_reach=float(rng.normal(RV_REACH.value, 0.03)),
        rv_span_deg=float(rng.normal(RV_SPAN_DEG.value, 5.0)),
    )


def lv_mass_g(anatomy: Anatomy) -> float:
    """Mass of the LV's wall with the septum below the base plane, from radii and thickness (no labels are made), g."""
    depth = (np.arange(80) + 0.5) / 80.0
    theta = (np.arange(24) + 0.5) / 24.0 * 2.0 * np.pi
    t, d = np.meshgrid(theta, depth)
    radius, thick = anatomy.cavity_radius_mm(t, d), anatomy.thickness_mm(t, d)
    # the wall is measured along the normal, so a ring of the cone-like lower part is wider than its thickness
    slope = np.gradient(radius, depth * anatomy.length_mm, axis=0)
    across = np.minimum(thick * np.sqrt(1.0 + slope**2), 2.5 * thick)
    ring = 0.5 * ((radius + across) ** 2 - radius**2)
    body = float(ring.mean()) * 2.0 * np.pi * anatomy.length_mm
    cap = 2.0 / 3.0 * np.pi * anatomy.wall_mm[17] * (0.3 * anatomy.radius_mm + anatomy.wall_mm[17]) ** 2
    return (body + cap) * MUSCLE_G_PER_ML.value / 1000.0


def implausible(anatomy: Anatomy) -> list[str]:
    """What no adult heart has, one line each: single values outside their range, and combinations."""
    a = anatomy
    ratio = a.rv_edv_ml / a.lv_edv_ml
    checks: list[tuple[str, float, Param]] = [
        ("LV volume", a.lv_edv_ml, LV_EDV_ML[a.sex]),
        ("RV volume", a.rv_edv_ml, RV_EDV_ML[a.sex]),
        ("sphericity", a.sphericity, LV_SPHERICITY),
        ("RV wall", a.rv_wall_mm, RV_WALL_MM),
        ("RV reach", a.rv_reach, RV_REACH),
        ("RV span", a.rv_span_deg, RV_SPAN_DEG),
        ("outflow tract", a.conus_mm, OUTFLOW_MM),
        ("RV over LV volume", ratio, RV_OVER_LV),
        *((f"wall of segment {k}", a.wall_mm[k], p) for k, p in LV_WALL_MM[a.sex].items()),
    ]
    out = [f"{name} {value:.3g} {p.unit} is outside {p.low:g} to {p.high:g}" for name, value, p in checks if not p.contains(value)]
    if out:
        return out
    whole = (("LV length", a.length_mm, LV_LENGTH_MM), ("LV mass", lv_mass_g(a), LV_MASS_G[a.sex]))
    return [f"{name} {value:.3g} {p.unit} is outside {p.low:g} to {p.high:g}" for name, value, p in whole if not p.contains(value)]
