"""`[expect]` of a case as far as it is about calibration; expectations of plans are left to `expect`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twin.case import Case

Posterior = Mapping[str, Any]


def _rms(posterior: Posterior, wanted: Any) -> str:
    found = posterior["fit"].get("held_out_rms_ms")
    return "" if found is not None and found <= wanted else f"held_out_rms_ms_at_most: expected {wanted:g}, found {found}"


def _ecg(posterior: Posterior, wanted: Any) -> str:
    found = posterior["fit"].get("ecg", {}).get("mean_lead_correlation")
    return "" if found is not None and found >= wanted else f"ecg_correlation_at_least: expected {wanted:g}, found {found}"


def _posed(posterior: Posterior, wanted: Any) -> str:
    # no pose was fitted where the leads were met well as they are
    fit = posterior["fit"]
    found = fit.get("ecg_pose", fit.get("ecg", {})).get("mean_lead_correlation")
    return "" if found is not None and found >= wanted else f"ecg_posed_correlation_at_least: expected {wanted:g}, found {found}"


def _doubts(posterior: Posterior, wanted: Any) -> str:
    found = len(posterior["doubts"])
    return "" if found <= wanted else f"doubts_at_most: expected {wanted}, found {found}: {' '.join(posterior['doubts'])}"


CHECKS: Mapping[str, Callable[[Posterior, Any], str]] = {
    "held_out_rms_ms_at_most": _rms,
    "ecg_correlation_at_least": _ecg,
    "ecg_posed_correlation_at_least": _posed,
    "doubts_at_most": _doubts,
}


def missed(case: Case, posterior: Posterior) -> list[str]:
    """Every expectation about calibration that the posterior does not meet."""
    found = [CHECKS[key](posterior, wanted) for key, wanted in case.expect.items() if key in CHECKS]
    return [line for line in found if line]
