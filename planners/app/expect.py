"""`[expect]` of a case: what its author knows must come out of a plan, or of calibration alone; each miss is one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.case import Case
from twin.errors import InputError
from twin.io.source import did_you_mean, read_text
from twin.plan import Plan

Array = NDArray[np.float64]


def _truth(case: Case, key: str) -> Any:
    """One entry of the truth file. Raises InputError where the case names no file, or it holds no such entry."""
    if case.truth_path is None:
        raise InputError(case.path, "expect.truth", "is needed by the other keys of [expect]", "name the truth file")
    try:
        return json.loads(read_text(case.truth_path))[key]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(case.truth_path, key, f"cannot be read ({error})", "write it as the shipped cases' truth.json has it") from None


def _induced(plan: Plan, case: Case, wanted: Any) -> str:
    found = any(i.induced for i in plan.inductions)
    return "" if found == wanted else f"induced: expected {wanted}, found {found}"


def _targets(plan: Plan, case: Case, wanted: Any) -> str:
    return "" if len(plan.targets) <= wanted else f"targets_at_most: expected {wanted}, found {len(plan.targets)}"


def _isthmus(plan: Plan, case: Case, wanted: Any) -> str:
    """Mean distance from the middle half of every found isthmus to the true one that is nearest to it."""
    lines = [np.asarray(i["polyline_mm"], float) for i in _truth(case, "isthmuses")]
    for circuit in plan.circuits:
        found = np.asarray(circuit.isthmus_mm, float).reshape(-1, 3)
        if not len(found):
            return f"isthmus_within_mm: circuit {circuit.id} has no isthmus"
        middle = found[len(found) // 4 : max(len(found) // 4 + 1, 3 * len(found) // 4)]
        distance = min(float(_to_line(middle, line).mean()) for line in lines)
        if distance > wanted:
            return f"isthmus_within_mm: isthmus of {circuit.id} is {distance:.1f} mm from a true one, expected at most {wanted:g}"
    return "" if plan.circuits else "isthmus_within_mm: no circuit was found"


def _to_line(points: Array, line: Array) -> Array:
    """Distance of each point (n, 3) to a polyline (k, 3), (n,) mm."""
    start, step = line[:-1], np.diff(line, axis=0)
    length2 = np.maximum((step**2).sum(axis=1), 1e-12)
    t = np.clip(np.einsum("psk,sk->ps", points[:, None] - start, step) / length2, 0.0, 1.0)
    foot = start + t[..., None] * step
    return np.asarray(np.linalg.norm(points[:, None] - foot, axis=2).min(axis=1), np.float64)


def _non_inducible(plan: Plan, case: Case, wanted: Any) -> str:
    found = bool(plan.outcome["non_inducible_at_mode"])
    return "" if found == wanted else f"non_inducible_after: expected {wanted}, found {found}"


def _circuits(plan: Plan, case: Case, wanted: Any) -> str:
    return "" if len(plan.circuits) >= wanted else f"circuits_at_least: expected {wanted}, found {len(plan.circuits)}"


def _recorded(plan: Plan, case: Case, wanted: Any) -> str:
    """Whether every recorded VT of the case is like a simulated one."""
    unlike = [vt["name"] for vt in plan.clinical_vts if not vt["match"]]
    found = bool(plan.clinical_vts) and not unlike
    return "" if found == wanted else f"recorded_vts_matched: expected {wanted}, but these are not: {', '.join(unlike) or 'none was given'}"


def _volume(plan: Plan, case: Case, wanted: Any) -> str:
    found = plan.outcome["lesion_volume_ml"]
    return "" if found <= wanted else f"lesion_volume_ml_at_most: expected {wanted:g}, found {found:.2f}"


def _velocity(plan: Plan, case: Case, wanted: Any) -> str:
    """Truth inside the 95 % interval and the mode within `wanted` (a share) of it, along and across, healthy tissue."""
    for quantity, true in _truth(case, "velocities")["healthy"].items():
        found = plan.tissue["regions"]["healthy"][quantity]
        low, high = found["interval"]
        if not low <= true <= high:
            return f"healthy_velocity_within: true {quantity} {true:g} outside [{low:.3f}, {high:.3f}]"
        if abs(found["mode"] / true - 1.0) > wanted:
            return f"healthy_velocity_within: {quantity} {found['mode']:.3f} is more than {100 * wanted:g} % from {true:g}"
    return ""


def _rms(fit: Mapping[str, Any], wanted: Any) -> str:
    found = fit.get("held_out_rms_ms")
    return "" if found is not None and found <= wanted else f"held_out_rms_ms_at_most: expected {wanted:g}, found {found}"


def _ecg(fit: Mapping[str, Any], wanted: Any) -> str:
    found = fit.get("ecg", {}).get("mean_lead_correlation")
    return "" if found is not None and found >= wanted else f"ecg_correlation_at_least: expected {wanted:g}, found {found}"


def _posed(fit: Mapping[str, Any], wanted: Any) -> str:
    # no pose was fitted where the leads were met well as they are
    found = fit.get("ecg_pose", fit.get("ecg", {})).get("mean_lead_correlation")
    return "" if found is not None and found >= wanted else f"ecg_posed_correlation_at_least: expected {wanted:g}, found {found}"


def _doubts(fit: Mapping[str, Any], wanted: Any) -> str:
    found = fit.get("doubts", [])
    return "" if len(found) <= wanted else f"doubts_at_most: expected {wanted}, found {len(found)}: {' '.join(found)}"


OF_FIT: Mapping[str, tuple[type, Callable[[Mapping[str, Any], Any], str]]] = {
    "held_out_rms_ms_at_most": (float, _rms),
    "ecg_correlation_at_least": (float, _ecg),
    "ecg_posed_correlation_at_least": (float, _posed),
    "doubts_at_most": (int, _doubts),
}
"""What calibration alone can meet or miss, from how well the data were met (`Tissue.fit`)."""

OF_PLAN: Mapping[str, tuple[type, Callable[[Plan, Case, Any], str]]] = {
    "induced": (bool, _induced),
    "targets_at_most": (int, _targets),
    "isthmus_within_mm": (float, _isthmus),
    "circuits_at_least": (int, _circuits),
    "recorded_vts_matched": (bool, _recorded),
    "non_inducible_after": (bool, _non_inducible),
    "lesion_volume_ml_at_most": (float, _volume),
    "healthy_velocity_within": (float, _velocity),
}
OF_TRUTH = {"isthmus_within_mm": "isthmuses", "healthy_velocity_within": "velocities"}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


def check(case: Case) -> None:
    """Raise InputError for an expectation that nothing knows, of another kind, or without its truth: before minutes go into a run."""
    known = {**OF_PLAN, **OF_FIT}
    for key, wanted in case.expect.items():
        if key == "truth":
            continue
        if key not in known:
            raise InputError(case.path, f"expect.{key}", "is not known", did_you_mean(key, known))
        kind = known[key][0]
        if isinstance(wanted, bool) is not (kind is bool) or not isinstance(wanted, (kind, int)):
            raise InputError(case.path, f"expect.{key}", f"{wanted!r} is not {_KINDS[kind]}", f"write {_KINDS[kind]}")
        if key in OF_TRUTH:
            _truth(case, OF_TRUTH[key])


def missed_by_fit(case: Case, fit: Mapping[str, Any]) -> list[str]:
    """Every expectation about calibration that the fit does not meet."""
    return [line for key, wanted in case.expect.items() if key in OF_FIT and (line := OF_FIT[key][1](fit, wanted))]


def missed(case: Case, plan: Plan) -> list[str]:
    """Every expectation that the plan does not meet."""
    found = [line for key, wanted in case.expect.items() if key in OF_PLAN and (line := OF_PLAN[key][1](plan, case, wanted))]
    return [*found, *missed_by_fit(case, plan.tissue["fit"])]
