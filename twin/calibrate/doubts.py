"""What looks wrong about the evidence once the model has done its best: sentences for people, none if nothing does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.calibrate.ecg import EcgFit
from twin.calibrate.velocity import VelocityFit
from twin.params import Param
from twin.patient import LEADS, Ecg

Array = NDArray[np.float64]

UNEXPLAINED = Param(0.35, "1", 0.25, 0.5, "residual over spread of the activation times above which a map is called unexplained (ours)")
MANY_OUTLIERS = Param(0.10, "1", 0.05, 0.2, "share of points beyond four times the noise that is called too many (ours)")
SURPRISE = Param(2.5, "1", 2.0, 3.0, "prior standard deviations at which a velocity contradicts what is known (ours)")
BETTER = Param(0.15, "1", 0.1, 0.3, "gain in mean lead correlation at which another order of leads is believed (ours)")


def electrode_swaps() -> dict[str, Array]:
    """What the twelve leads (12, 12) become when two cables are exchanged, by the name of the exchange."""
    # potentials of RA, LA, LL, V1-V6 up to a constant: Wilson's terminal is zero
    electrodes = np.zeros((9, 12))
    electrodes[0, 3], electrodes[1, 4], electrodes[2, 5] = 2 / 3, 2 / 3, 2 / 3
    electrodes[3:, 6:] = np.eye(6)
    rows = np.zeros((12, 9))
    rows[0, [1, 0]], rows[1, [2, 0]], rows[2, [2, 1]] = (1, -1), (1, -1), (1, -1)
    for lead, (one, others) in enumerate(((0, (1, 2)), (1, (0, 2)), (2, (0, 1)))):
        rows[3 + lead, one] = 1.0
        rows[3 + lead, list(others)] = -0.5
    rows[6:, 3:] = np.eye(6)
    rows[6:, :3] -= 1 / 3
    names = ("right arm", "left arm", "leg", "V1", "V2", "V3", "V4", "V5", "V6")
    out = {}
    for i, j in ((0, 1), (0, 2), (1, 2), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (3, 5), (3, 8)):
        order = list(range(9))
        order[i], order[j] = order[j], order[i]
        out[f"{names[i]} and {names[j]} exchanged"] = rows @ electrodes[order]
    reverse = [0, 1, 2, 8, 7, 6, 5, 4, 3]
    out["V1 to V6 in reverse order"] = rows @ electrodes[reverse]
    out["all leads upside down"] = -np.eye(12)
    return out


def lead_order(fit: EcgFit) -> str:
    """The exchange of cables under which the recording agrees clearly better with the model, or ""."""
    predicted = fit.predicted - fit.predicted.mean(axis=1, keepdims=True)
    best, name = fit.mean_correlation + BETTER.value, ""
    for swap, matrix in electrode_swaps().items():
        measured = matrix @ fit.measured
        measured = measured - measured.mean(axis=1, keepdims=True)
        norm = np.sqrt((measured**2).sum(axis=1) * (predicted**2).sum(axis=1))
        score = float(((measured * predicted).sum(axis=1) / np.maximum(norm, 1e-12)).mean())
        if score > best:
            best, name = score, swap
    return f"{name} would raise the mean correlation from {fit.mean_correlation:.2f} to {best:.2f}" if name else ""


def kirchhoff(ecg: Ecg) -> str:
    """Whether I + III = II holds, as it does in any recording; else what is wrong."""
    leads = ecg.array()
    leads = leads - np.median(leads, axis=1, keepdims=True)
    off = float(np.sqrt(np.mean((leads[0] + leads[2] - leads[1]) ** 2)))
    size = float(np.sqrt(np.mean(leads[:3] ** 2)))
    return f"I + III differs from II by {100 * off / size:.0f} % of their size" if size > 0 and off > 0.2 * size else ""


def doubts_about(fit: VelocityFit, numbers: Mapping[str, Any], ecg: EcgFit | None, recorded: Ecg | None) -> tuple[str, ...]:
    """Everything doubtful: activation times that no wave explains, outliers, velocities against the prior, the order of leads."""
    out = []
    spread, noise = numbers.get("lat_spread_ms"), numbers.get("lat_noise_ms")
    if spread and noise is not None and noise > UNEXPLAINED.value * spread:
        out.append(
            f"Activation times are not explained by one wave (residual {noise:g} ms of a spread of {spread:g} ms): a wrong registration, "
            "another rhythm, a reversed sign, or annotations of another beat."
        )
    share = numbers.get("lat_outlier_share", 0.0)
    if share > MANY_OUTLIERS.value:
        out.append(f"{100 * share:.0f} % of the map's points lie far from any wave that fits the others: check the annotations.")
    if numbers.get("map_points"):
        z = (fit.log_mode - fit.prior_log_mean) / fit.prior_log_sd
        for name, value, off in zip(fit.names, np.exp(fit.log_mode).tolist(), z.tolist(), strict=True):
            if abs(off) > SURPRISE.value:
                side = "above" if off > 0 else "below"
                out.append(
                    f"{name} of {value:.2f} m/s lies far {side} what is known of tissue: check scale and sign of the activation times."
                )
    if ecg is not None and (turned := numbers.get("ecg", {}).get("upside_down_correlation", -1.0)) > ecg.mean_correlation + BETTER.value:
        # not at the shift of the recording as it is: upside down another part of it is met best
        gain = f"from {ecg.mean_correlation:.2f} to {turned:.2f}"
        out.append(f"ECG: all leads upside down would raise the mean correlation {gain}; check the order and the sign of the leads.")
    elif ecg is not None and (swap := lead_order(ecg)):
        out.append(f"ECG: {swap}; check the order of the leads.")
    if recorded is not None and (broken := kirchhoff(recorded)):
        out.append(f"ECG: {broken}; check names and order of {', '.join(LEADS[:3])}.")
    return tuple(out)
