"""Virtual candidates: drawn from the unit cube, each by its own number, so that the same trial meets the same people everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from planners.trials.parameters import MEASURES, PARAMETERS, Parameter
from planners.trials.trial import Population
from planners.virtual.anatomy import Anatomy
from planners.virtual.infarct import InfarctSpec, IsthmusSpec
from planners.virtual.statistics import LV_EDV_ML, LV_WALL_MM, RV_EDV_ML, TERRITORIES

CENTRE = {"LAD": (88.0, 0.46), "RCA": (-108.0, 0.46), "LCX": (188.0, 0.46)}
"""Angle round the long axis (degrees, 0 mid septum, 90 anterior) and depth of an infarct's centre, per territory."""
SIZE_SHARED = 0.8
"""Volumes of both ventricles go together: correlation of their normal scores; chosen here as in Anatomy.sample."""
POSTERIOR_HALF_WIDTH = 0.10
"""A mapped patient's velocities are known to about 10 % each way (95 %; measured on cases/demo: 0.563-0.693 about 0.623 m/s)."""
APART_MM = 11.0


def unit_cube(seed: int, candidate: int) -> dict[str, float]:
    """Coordinates of one candidate in the unit cube of the population's parameters."""
    values = np.random.default_rng([seed, 7, candidate]).random(len(PARAMETERS))
    return {p.name: float(u) for p, u in zip(PARAMETERS, values, strict=True)}


def _value(parameter: Parameter, u: float, given: tuple[float, float] | None) -> float:
    param = parameter.param
    if given is not None:
        return given[0] + u * (given[1] - given[0])
    if parameter.how == "uniform":
        return param.low + u * (param.high - param.low)
    if parameter.how == "normal":
        # the two halves have their own spread: published ranges are not symmetric
        z = float(stats.norm.ppf(0.0228 + u * 0.9544))
        return param.value + z / 2.0 * ((param.high - param.value) if z > 0 else (param.value - param.low))
    z = float(stats.norm.ppf(0.0228 + u * 0.9544))
    return float(param.value * np.exp(abs(z) / 2.0 * np.log((param.high if z > 0 else param.low) / param.value)))


def parameters_of(population: Population, seed: int, candidate: int) -> dict[str, float]:
    """Drawn parameters of one candidate, in their units."""
    cube = unit_cube(seed, candidate)
    female = _value(PARAMETERS[0], cube["female"], population.ranges.get("female")) >= 0.5
    cube["rv_edv_ml"] = float(
        stats.norm.cdf(SIZE_SHARED * stats.norm.ppf(cube["lv_edv_ml"]) + np.sqrt(1.0 - SIZE_SHARED**2) * stats.norm.ppf(cube["rv_edv_ml"]))
    )
    by_sex = {"lv_edv_ml": LV_EDV_ML, "rv_edv_ml": RV_EDV_ML}
    out = {}
    for parameter in PARAMETERS:
        if parameter.name in by_sex:
            parameter = Parameter(parameter.name, by_sex[parameter.name]["female" if female else "male"], parameter.how)
        out[parameter.name] = round(_value(parameter, cube[parameter.name], population.ranges.get(parameter.name)), 5)
    return out


@dataclass(frozen=True)
class Person:
    """One virtual patient before anything is computed: heart, infarct, velocities in m/s by Tissue name."""

    anatomy: Anatomy
    infarct: InfarctSpec
    velocities: Mapping[str, float]
    sex: str
    territory: str


def person(values: Mapping[str, float], seed: int, candidate: int) -> Person:
    """The virtual patient with these parameters."""
    sex = "female" if values["female"] >= 0.5 else "male"
    territory = ("LAD", "RCA", "LCX")[min(int(values["territory"]), 2)]
    rng = np.random.default_rng([seed, 8, candidate])
    walls = {k: p.value * values["wall_scale"] for k, p in LV_WALL_MM[sex].items()}
    walls |= {k: min(walls[k], values["infarct_wall_mm"]) for k in TERRITORIES[territory]}
    anatomy = Anatomy(
        sex=sex,
        lv_edv_ml=values["lv_edv_ml"],
        rv_edv_ml=values["rv_edv_ml"],
        sphericity=values["sphericity"],
        wall_mm=walls,
        oval=float(rng.uniform(0.02, 0.07)),
        oval_deg=float(rng.uniform(0.0, 180.0)),
        bend_mm=float(rng.uniform(1.0, 5.0)),
        conus_mm=float(rng.uniform(10.0, 17.0)),
    )
    theta, depth = CENTRE[territory]
    infarct = InfarctSpec(
        theta_deg=theta + float(rng.uniform(-6.0, 6.0)),
        depth=depth + float(rng.uniform(-0.03, 0.03)),
        circumferential_mm=values["scar_width_mm"],
        meridional_mm=values["scar_height_mm"],
        seed=int(rng.integers(1, 2**31)),
        isthmuses=_isthmuses(values, rng),
    )
    velocities = {
        "healthy/cv_longitudinal_m_s": values["healthy_along_m_s"],
        "healthy/cv_transverse_m_s": values["healthy_along_m_s"] / values["healthy_anisotropy"],
        "border_zone/cv_longitudinal_m_s": values["border_along_m_s"],
        "border_zone/cv_transverse_m_s": values["border_along_m_s"] / values["border_anisotropy"],
    }
    return Person(anatomy, infarct, velocities, sex, territory)


def _isthmuses(values: Mapping[str, float], rng: np.random.Generator) -> tuple[IsthmusSpec, ...]:
    """One corridor, or two beside each other."""
    count = 1 if values["isthmuses"] < 2.0 else 2
    width, angle, bow = values["isthmus_width_mm"], values["isthmus_angle_deg"], float(rng.uniform(0.5, 2.5))
    offsets = (0.0,) if count == 1 else (APART_MM, -APART_MM)
    return tuple(IsthmusSpec(offset_mm=o, angle_deg=angle, width_mm=width, flare=0.35, bow_mm=bow if o >= 0 else -bow) for o in offsets)


def given(velocities: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """What a map would leave of the uncertainty of these velocities: ranges for calibration."""
    return {name: (value * (1.0 - POSTERIOR_HALF_WIDTH), value * (1.0 + POSTERIOR_HALF_WIDTH)) for name, value in velocities.items()}


def implausible(measured: Mapping[str, Any], population: Population) -> list[str]:
    """Names of measures outside what is plausible: the trial's own limits, else the published ones."""
    out = []
    for name, measure in MEASURES.items():
        limit = measure.limit(measured.get("sex"))
        low, high = population.plausible.get(name, (limit.low, limit.high) if limit else (-np.inf, np.inf))
        value = measured.get(name)
        if measure.kind != "text" and value is not None and not low <= float(value) <= high:
            out.append(name)
    return out


def excluded(measured: Mapping[str, Any], population: Population) -> list[str]:
    """Names of measures that do not meet the inclusion rules; what could not be measured does not meet them."""
    out = []
    for name, (low, high) in population.include.items():
        value = measured.get(name)
        if value is None or not low <= float(value) <= high:
            out.append(name)
    return out
