"""What an energy setting makes: radius and depth of a lesion, how much they vary, and how long one takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from planners.lesions.geometry import DEPTH, RADIUS
from twin.errors import InputError
from twin.params import Param
from twin.plan import PlanRequest

_TEXTBOOK = "RF endocardial lesions 3-7 mm deep, 3-5 mm in radius by power, force and time (shared/design/clinical.md; source not read)"
_CHOSEN = "chosen here: no measured value was read; set lesion_radius and lesion_depth in the case if you have one"

RF_DEPTH_PER_INDEX = Param(0.008, "mm per unit", 0.004, 0.015, f"slope of depth over the ablation index; {_CHOSEN}")
RF_INDEX = Param(550.0, "1", 350.0, 750.0, f"ablation index that goes with the usual depth; {_CHOSEN}")
RF_POWER = Param(40.0, "W", 20.0, 50.0, f"power that goes with the usual depth; {_CHOSEN}")
RF_TAU_S = Param(20.0, "s", 10.0, 40.0, f"a lesion grows as 1 - exp(-t / tau); {_CHOSEN}")
RF_DURATION = Param(60.0, "s", 10.0, 120.0, f"duration that goes with the usual depth; {_CHOSEN}")


@dataclass(frozen=True)
class Preset:
    """One energy source: usual radius and depth, standard deviation of the depth, and seconds per lesion with the way to the next."""

    radius: Param
    depth: Param
    depth_sd: Param
    seconds: Param


PRESETS: Mapping[str, Preset] = {
    "rf": Preset(RADIUS, DEPTH, Param(1.0, "mm", 0.5, 1.5, _CHOSEN), Param(75.0, "s", 40.0, 120.0, _CHOSEN)),
    "pfa": Preset(
        Param(4.5, "mm", 3.0, 5.0, _CHOSEN), Param(6.0, "mm", 3.0, 7.0, _CHOSEN), Param(0.8, "mm", 0.4, 1.2, _CHOSEN),
        Param(25.0, "s", 10.0, 60.0, _CHOSEN),
    ),
    "cryo": Preset(
        Param(4.5, "mm", 3.0, 5.0, _CHOSEN), Param(5.0, "mm", 3.0, 7.0, _CHOSEN), Param(1.0, "mm", 0.5, 1.5, _CHOSEN),
        Param(270.0, "s", 120.0, 360.0, _CHOSEN),
    ),
}  # fmt: skip
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
