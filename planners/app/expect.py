"""`[expect]` of a case: what its author knows must come out; each miss is one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from twin.case import Case
from twin.errors import InputError
from twin.plan import Plan


def _truth(case: Case) -> dict[str, Any]:
    if case.truth_path is None:
        raise InputError(case.path, "expect.truth", "is needed by the other keys of [expect]", "name the truth file")
    value: dict[str, Any] = json.loads(case.truth_path.read_text(encoding="utf-8"))
    return value


def _induced(plan: Plan, case: Case, wanted: Any) -> str:
    found = any(i.induced for i in plan.inductions)
    return "" if found == wanted else f"induced: expected {wanted}, found {found}"


def _targets(plan: Plan, case: Case, wanted: Any) -> str:
    return "" if len(plan.targets) <= wanted else f"targets_at_most: expected {wanted}, found {len(plan.targets)}"


def _isthmus(plan: Plan, case: Case, wanted: Any) -> str:
    """Largest distance from the middle half of a found isthmus to the nearest true one, for the best circuit of each true isthmus."""
    lines = [np.asarray(i["polyline_mm"], float) for i in _truth(case)["isthmuses"]]
    for circuit in plan.circuits:
        found = np.asarray(circuit.isthmus_mm, float).reshape(-1, 3)
        if not len(found):
            return f"isthmus_within_mm: circuit {circuit.id} has no isthmus"
        middle = found[len(found) // 4 : max(len(found) // 4 + 1, 3 * len(found) // 4)]
        distance = min(float(_to_line(middle, line).mean()) for line in lines)
        if distance > wanted:
            return f"isthmus_within_mm: isthmus of {circuit.id} is {distance:.1f} mm from a true one, expected at most {wanted:g}"
    return "" if plan.circuits else "isthmus_within_mm: no circuit was found"


def _to_line(points: Any, line: Any) -> Any:
    """Distance of each point to a polyline, mm."""
    start, step = line[:-1], np.diff(line, axis=0)
    length2 = np.maximum((step**2).sum(axis=1), 1e-12)
    t = np.clip(np.einsum("psk,sk->ps", points[:, None] - start, step) / length2, 0.0, 1.0)
    foot = start + t[..., None] * step
    return np.linalg.norm(points[:, None] - foot, axis=2).min(axis=1)


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
    for quantity, true in _truth(case)["velocities"]["healthy"].items():
        found = plan.tissue["regions"]["healthy"][quantity]
        low, high = found["interval"]
        if not low <= true <= high:
            return f"healthy_velocity_within: true {quantity} {true:g} outside [{low:.3f}, {high:.3f}]"
        if abs(found["mode"] / true - 1.0) > wanted:
            return f"healthy_velocity_within: {quantity} {found['mode']:.3f} is more than {100 * wanted:g} % from {true:g}"
    return ""


def _fit(plan: Plan, case: Case, wanted: Any) -> str:
    found = plan.tissue["fit"].get("held_out_rms_ms")
    return "" if found is not None and found <= wanted else f"held_out_rms_ms_at_most: expected {wanted:g}, found {found}"


def _ecg(plan: Plan, case: Case, wanted: Any) -> str:
    found = plan.tissue["fit"].get("ecg", {}).get("mean_lead_correlation")
    return "" if found is not None and found >= wanted else f"ecg_correlation_at_least: expected {wanted:g}, found {found}"


def _posed(plan: Plan, case: Case, wanted: Any) -> str:
    # no pose was fitted where the leads were met well as they are
    fit = plan.tissue["fit"]
    found = fit.get("ecg_pose", fit.get("ecg", {})).get("mean_lead_correlation")
    return "" if found is not None and found >= wanted else f"ecg_posed_correlation_at_least: expected {wanted:g}, found {found}"


def _doubts(plan: Plan, case: Case, wanted: Any) -> str:
    found = plan.tissue["fit"].get("doubts", [])
    return "" if len(found) <= wanted else f"doubts_at_most: expected {wanted}, found {len(found)}: {' '.join(found)}"


CHECKS: Mapping[str, Callable[[Plan, Case, Any], str]] = {
    "induced": _induced,
    "targets_at_most": _targets,
    "isthmus_within_mm": _isthmus,
    "circuits_at_least": _circuits,
    "recorded_vts_matched": _recorded,
    "non_inducible_after": _non_inducible,
    "lesion_volume_ml_at_most": _volume,
    "healthy_velocity_within": _velocity,
    "held_out_rms_ms_at_most": _fit,
    "ecg_correlation_at_least": _ecg,
    "ecg_posed_correlation_at_least": _posed,
    "doubts_at_most": _doubts,
}


def missed(case: Case, plan: Plan) -> list[str]:
    """Every expectation that the plan does not meet; raises InputError for a key that no check knows."""
    out = []
    for key, wanted in case.expect.items():
        if key == "truth":
            continue
        if key not in CHECKS:
            raise InputError(case.path, f"expect.{key}", "is not known", f"use {', '.join(CHECKS)}")
        out.append(CHECKS[key](plan, case, wanted))
    return [line for line in out if line]
