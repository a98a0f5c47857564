"""What an energy setting makes: radius and depth of a lesion, how much they vary, and how long one takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from twin.errors import InputError
from twin.params import Param
from twin.plan import PlanRequest

_CHOSEN = "chosen here: no measured value was read; set lesion_radius and lesion_depth in the case if you have one"
_LESHEM = (
    "swine: depth within 1 mm of what the ablation index says for 92 % of lesions in healthy muscle, 31 % in scar (70 % within 3 mm), "
    "where lesions are shallower (Leshem and Anter, 68th conference of the Israel Heart Society; abstract read)"
)
_SHORT = (
    "porcine ventricle ex vivo, 50 W: 2.42 mm deep and 6.0 mm wide after 4 s, 4.49 and 9.1 mm after 15 s (doi 10.1038/s41598-025-06533-5; "
    "abstract read)"
)
_VITALI = "porcine ex vivo, irrigated, 40 W, 10 g: 5.5 mm deep at most (Vitali et al., Biology 2024;13:132; abstract read)"
_KAWAMURA = (
    "swine ventricle, lattice tip, three applications: 5.1 +- 1.3 mm deep, 10.6 mm wide; two: 4.2 and 10.5; four: 6.1 and 13.4 (Kawamura "
    "et al., Pulsed field ablation of the porcine ventricle, Circ Arrhythm Electrophysiol; abstract read)"
)
_SANDHU = "infarcted swine 5.3 +- 1.9 mm, healthy 7.2 +- 2.1 mm (Sandhu et al., Europace 2023;25:1503; abstract read)"
_CIRC_J = (
    "left ventricle, 6 mm tip, 240 s at -70 to -80 C: 5.1 +- 1.6 mm deep, 144 mm3, which as half an ellipsoid is 3.7 mm in radius; 9F, 8 "
    "mm tip: 8.4 +- 1.9 mm, 302 mm3, 4.1 mm (Circ J 2009;73:1619; abstract read)"
)

RF_DEPTH_PER_INDEX = Param(0.008, "mm per unit", 0.004, 0.015, f"slope of depth over the ablation index; {_CHOSEN}")
RF_INDEX = Param(550.0, "1", 350.0, 750.0, f"ablation index that goes with the usual depth; {_CHOSEN}")
RF_POWER = Param(40.0, "W", 20.0, 50.0, f"power that goes with the usual depth: {_VITALI}")
RF_TAU_S = Param(
    10.0,
    "s",
    5.0,
    15.0,
    "a lesion grows as 1 - exp(-t / tau): tissue warms with one exponential, 35 to 45 s approach its end (Haines, The biophysics of "
    f"radiofrequency catheter ablation in the heart, PACE 1993; abstract read), 15 s at most; 5.8 s fits {_SHORT}",
)
RF_DURATION = Param(60.0, "s", 10.0, 120.0, f"duration that goes with the usual depth; {_CHOSEN}")


@dataclass(frozen=True)
class Preset:
    """One energy source: usual radius and depth, standard deviation of the depth, and seconds per lesion with the way to the next."""

    radius: Param
    depth: Param
    depth_sd: Param
    seconds: Param


PRESETS: Mapping[str, Preset] = {
    "rf": Preset(
        Param(4.0, "mm", 3.0, 5.0, f"diameter at most twice that; {_SHORT}"),
        Param(
            6.0, "mm", 3.0, 7.0, f"{_VITALI}; left ventricular outflow tract ex vivo up to 6.1 mm (J Cardiovasc Electrophysiol 2022;33:551)"
        ),
        Param(2.0, "mm", 0.6, 2.9, f"between healthy muscle (0.6) and scar (2.5 to 2.9): {_LESHEM}"),
        Param(75.0, "s", 40.0, 120.0, f"a minute of energy and the way to the next place; {_CHOSEN}"),
    ),
    "pfa": Preset(
        Param(5.3, "mm", 4.7, 6.7, f"{_KAWAMURA}; 9.4 mm wide (Circ Arrhythm Electrophysiol 2022;15, CIRCEP.122.011110)"),
        Param(5.3, "mm", 4.2, 7.2, f"{_SANDHU}; {_KAWAMURA}"),
        Param(1.9, "mm", 1.0, 2.1, _SANDHU),
        Param(25.0, "s", 10.0, 60.0, f"a few seconds of pulses and the way to the next place; {_CHOSEN}"),
    ),
    "cryo": Preset(
        Param(3.7, "mm", 3.0, 4.1, _CIRC_J),
        Param(5.1, "mm", 4.2, 8.4, f"{_CIRC_J}; all tips 4.3 +- 2.1 mm in miniature swine (PMID 18554194)"),
        Param(1.6, "mm", 1.3, 2.5, _CIRC_J),
        Param(270.0, "s", 150.0, 360.0, f"240 s of cold (as in the source of its depth) and the way to the next place; {_CHOSEN}"),
    ),
}
RADIUS, DEPTH = PRESETS["rf"].radius, PRESETS["rf"].depth
"""Of the energy that is meant where a request names none."""
KEYS = {"rf": ("source", "ablation_index", "power_w", "duration_s"), "pfa": ("source",), "cryo": ("source",)}


def preset_of(request: PlanRequest) -> Preset:
    """The energy source of a request; radiofrequency where none is named. Raises InputError for an unknown one."""
    name = request.energy.get("source", "rf")
    if name not in PRESETS:
        raise InputError("plan", "energy.source", f"unknown energy {name!r}", f"use one of {', '.join(PRESETS)}")
    return PRESETS[name]


def with_energy(request: PlanRequest) -> PlanRequest:
    """The request with radius and depth of its energy setting; as it is where none was given. Raises InputError for impossible settings."""
    preset = preset_of(request)
    if not request.energy:
        return request
    known = KEYS[request.energy.get("source", "rf")]
    for key, value in request.energy.items():
        if key not in known:
            raise InputError("plan", f"energy.{key}", "is not known for this source", f"use {', '.join(known)}")
        if key != "source" and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError("plan", f"energy.{key}", f"{value!r} is not a number", "write a number")
    scale = _rf_share(request.energy) if "source" not in request.energy or request.energy["source"] == "rf" else 1.0
    radius = float(np.clip(preset.radius.value * scale, preset.radius.low, preset.radius.high))
    depth = float(np.clip(preset.depth.value * scale, preset.depth.low, preset.depth.high))
    return replace(request, lesion_radius_mm=round(radius, 2), lesion_depth_mm=round(depth, 2))


def check_request(request: PlanRequest) -> None:
    """Raise InputError for lesion sizes that the request's energy does not make."""
    preset = preset_of(request)
    for field, value, param in (
        ("lesion_radius_mm", request.lesion_radius_mm, preset.radius),
        ("lesion_depth_mm", request.lesion_depth_mm, preset.depth),
    ):
        if not param.contains(value):
            raise InputError("plan", field, f"{value:g} mm is outside {param.low:g}-{param.high:g} mm", f"for example {param.value:g}")


def _rf_share(energy: Mapping[str, Any]) -> float:
    """Size of an RF lesion relative to the usual one: by ablation index, or by power and duration."""
    if "ablation_index" in energy and {"power_w", "duration_s"} & set(energy):
        raise InputError("plan", "energy.ablation_index", "is given beside power or duration", "keep one of them")
    limits = {"ablation_index": RF_INDEX, "power_w": RF_POWER, "duration_s": RF_DURATION}
    for key, param in limits.items():
        if key in energy and not param.contains(float(energy[key])):
            problem = f"{energy[key]:g} is outside {param.low:g}-{param.high:g} {param.unit}"
            raise InputError("plan", f"energy.{key}", problem, f"for example {param.value:g}")
    if "ablation_index" in energy:
        return 1.0 + float(RF_DEPTH_PER_INDEX) * (float(energy["ablation_index"]) - float(RF_INDEX)) / DEPTH.value
    power, duration = float(energy.get("power_w", RF_POWER.value)), float(energy.get("duration_s", RF_DURATION.value))
    grown, usual = (1.0 - np.exp(-t / float(RF_TAU_S)) for t in (duration, float(RF_DURATION)))
    # heat falls with the square of the distance, so size goes with the root of the power
    return float(np.sqrt(power / float(RF_POWER)) * grown / usual)


def transmural_probability(thickness_mm: NDArray[np.float64], depth_mm: float, sd_mm: float) -> NDArray[np.float64]:
    """Probability that a lesion of mean depth crosses a wall of this thickness, (k,), for normally distributed depths."""
    return np.asarray(ndtr((depth_mm - thickness_mm) / sd_mm), np.float64)
