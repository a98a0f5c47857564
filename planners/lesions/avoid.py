"""Structures that lesions are to spare: distances where they were given, and places from which nothing is ablated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twin.params import Param
from twin.plan import Target

_CLINICAL = (
    "within 5 mm of coronary arteries and of the phrenic nerve nothing is ablated: Cronin et al., Europace 2019;21:1143 (from memory)"
)
_CHOSEN = "chosen here: the margin of coronary arteries; no published margin was read"
MARGIN: Mapping[str, Param] = {
    "coronary_arteries": Param(5.0, "mm", 5.0, 10.0, _CLINICAL),
    "phrenic_nerve": Param(5.0, "mm", 5.0, 10.0, _CLINICAL),
    "his_bundle": Param(5.0, "mm", 5.0, 10.0, _CHOSEN),
    "left_bundle": Param(5.0, "mm", 3.0, 10.0, _CHOSEN),
    "oesophagus": Param(5.0, "mm", 5.0, 10.0, _CHOSEN),
    "mitral_annulus": Param(3.0, "mm", 0.0, 10.0, _CHOSEN),
    "tricuspid_annulus": Param(3.0, "mm", 0.0, 10.0, _CHOSEN),
    "aortic_annulus": Param(3.0, "mm", 0.0, 10.0, _CHOSEN),
}
Lines = Sequence[Sequence[Sequence[float]]]


def distance_mm(points_mm: ArrayLike, lines: Lines) -> NDArray[np.float64]:
    """Distance of points (k, 3) from the nearest of some polylines (each (p, 3), one point allowed), (k,) mm."""
    points = np.asarray(points_mm, float).reshape(-1, 3)
    best = np.full(len(points), np.inf)
    for line in lines:
        at = np.asarray(line, float).reshape(-1, 3)
        start, step = (at[:-1], np.diff(at, axis=0)) if len(at) > 1 else (at, np.zeros_like(at))
        for a, s in zip(start, step, strict=True):
            t = np.clip((points - a) @ s / max(float(s @ s), 1e-12), 0.0, 1.0)
            best = np.minimum(best, np.linalg.norm(points - a - t[:, None] * s, axis=1))
    return best


def allowed(points_mm: NDArray[np.float64], avoid: Mapping[str, Lines]) -> NDArray[np.bool_]:
    """Points (k, 3) that keep every structure's margin, (k,) bool."""
    out = np.ones(len(points_mm), bool)
    for name, lines in avoid.items():
        out &= distance_mm(points_mm, lines) >= float(MARGIN[name])
    return out


def nearest(target: Target, avoid: Mapping[str, Lines]) -> dict[str, float]:
    """Distance of a target's nearest position from each structure, mm."""
    return {name: round(float(distance_mm(target.positions_mm, lines).min()), 2) for name, lines in avoid.items()}


def statements(avoid: Mapping[str, Lines], targets: Sequence[Target]) -> list[str]:
    """What is known of the distances, and what is not, as sentences for the plan."""
    said = []
    for name, param in MARGIN.items():
        if name not in avoid:
            continue
        gap = min((t.nearest[name] for t in targets if name in t.nearest), default=None)
        words = name.replace("_", " ")
        if gap is not None and gap < float(param):
            said.append(f"TOO NEAR: a lesion is {gap:.1f} mm from the {words}; {param.value:g} mm should be kept.")
        else:
            away = "" if gap is None else f"; the nearest lesion is {gap:.0f} mm away"
            said.append(f"Lesions keep {param.value:g} mm from the {words}{away}.")
    unknown = [name.replace("_", " ") for name in MARGIN if name not in avoid]
    if unknown:
        said.append(f"Not given, so distances are unknown: {', '.join(unknown)}.")
    return said
