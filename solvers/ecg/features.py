"""What a reader takes from one simulated beat: intervals, the frontal axis, amplitudes per lead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.ecg.leads import qrs_interval_ms
from twin.errors import InputError
from twin.params import Param
from twin.patient import LEADS
from twin.signals.features import axis_name, frontal_axis_degrees

Array = NDArray[np.float64]

AFTER_QRS_MS = Param(40.0, "ms", 20.0, 80.0, "chosen here: the T wave's peak is sought from so long after the end of QRS on")
T_SHARE = Param(0.02, "1", 0.01, 0.05, "chosen here: a wave below this share of the QRS is no T wave")


@dataclass(frozen=True)
class BeatFeatures:
    """One beat. Times in ms on the signal's own clock, NaN where the wave is missing; amplitudes by lead in mV.

    axis_degrees: frontal axis of the net QRS area, 0 to the left arm, 90 to the foot, in (-180, 180]; axis: "normal", "left", "right" or
    "extreme", "" if there is none. net_mv_ms: signed QRS area; r_mv, s_mv: largest and smallest value in the QRS against its onset.
    """

    qrs_onset_ms: float
    qrs_end_ms: float
    t_peak_ms: float
    t_end_ms: float
    axis_degrees: float
    axis: str
    net_mv_ms: Mapping[str, float]
    r_mv: Mapping[str, float]
    s_mv: Mapping[str, float]
    t_mv: Mapping[str, float]

    @property
    def qrs_ms(self) -> float:
        """QRS duration."""
        return self.qrs_end_ms - self.qrs_onset_ms

    @property
    def qt_ms(self) -> float:
        """From QRS onset to the end of T."""
        return self.t_end_ms - self.qrs_onset_ms

    @property
    def t_peak_to_end_ms(self) -> float:
        """From the peak to the end of T."""
        return self.t_end_ms - self.t_peak_ms


def beat_features(ecg: Array, time_ms: Array) -> BeatFeatures:
    """Intervals, axis and amplitudes of a simulated beat; ecg (12, t) mV in the order of LEADS, time_ms (t,) ascending.

    QRS from the speed of all leads (`qrs_interval_ms`); T from their root mean square: peak after the QRS, end where the steepest
    descent's tangent meets the baseline (Lepeschkin 1952). Baseline: the values at QRS onset. Raises InputError for other shapes.
    """
    if ecg.ndim != 2 or len(ecg) != len(LEADS) or ecg.shape[1] != len(time_ms):
        raise InputError("ecg", "leads", f"shape {ecg.shape} is not ({len(LEADS)}, {len(time_ms)})", "give twelve leads and their times")
    onset, end = qrs_interval_ms(ecg, time_ms)
    if not np.isfinite(onset):
        none = dict.fromkeys(LEADS, float("nan"))
        return BeatFeatures(onset, end, onset, onset, onset, "", none, none, none, none)
    signal = ecg - ecg[:, [int(np.searchsorted(time_ms, onset))]]
    inside = (time_ms >= onset) & (time_ms <= end)
    qrs = signal[:, inside]
    area = dict(zip(LEADS, np.asarray(np.trapezoid(qrs, time_ms[inside], axis=1), np.float64).tolist(), strict=True))
    peak, t_end, at_peak = _t_wave(signal, time_ms, end)
    degrees = frontal_axis_degrees(area)
    return BeatFeatures(
        onset,
        end,
        peak,
        t_end,
        degrees,
        axis_name(degrees),
        area,
        dict(zip(LEADS, qrs.max(axis=1).tolist(), strict=True)),
        dict(zip(LEADS, qrs.min(axis=1).tolist(), strict=True)),
        dict(zip(LEADS, at_peak.tolist(), strict=True)),
    )


def _t_wave(signal: Array, time_ms: Array, qrs_end_ms: float) -> tuple[float, float, Array]:
    """Peak and end (ms) of the T wave and the leads (l,) mV at its peak; NaN where there is none or it is not over."""
    nothing = float("nan"), float("nan"), np.full(len(signal), np.nan)
    rms = np.sqrt((signal**2).mean(axis=0))
    late = np.flatnonzero(time_ms >= qrs_end_ms + float(AFTER_QRS_MS))
    if len(late) < 5:
        return nothing
    top = int(late[np.argmax(rms[late])])
    if top in (int(late[0]), int(late[-1])) or rms[top] < float(T_SHARE) * rms.max():
        return nothing
    slope = np.gradient(rms, time_ms)[top:]
    steepest = top + int(np.argmin(slope))
    base = float(rms[top:].min())
    t_end = float(time_ms[steepest] + (rms[steepest] - base) / max(-slope[steepest - top], 1e-300))
    return float(time_ms[top]), t_end if t_end <= time_ms[-1] else float("nan"), signal[:, top]
