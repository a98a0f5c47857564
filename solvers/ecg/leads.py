"""From nine electrode potentials to twelve leads, and what is measured on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meshing.electrodes import ELECTRODES
from twin.errors import InputError
from twin.params import Param
from twin.patient import LEADS

ONSET_SHARE = Param(0.05, "1", 0.02, 0.1, "assumption: QRS is where the leads change faster than this share of the fastest change")
NOISE_FACTOR = Param(4.0, "1", 3.0, 6.0, "assumption: and faster than this multiple of the quiet parts' median change")
BRIDGE_MS = Param(20.0, "ms", 10.0, 40.0, "assumption: slower stretches up to this long inside a QRS belong to it")


def lead_matrix() -> NDArray[np.float64]:
    """Weights (12, 9) of the electrodes in the leads: Einthoven I-III, Goldberger aVR-aVF, Wilson V1-V6; every row sums to zero."""
    unit = dict(zip(ELECTRODES, np.eye(len(ELECTRODES)), strict=True))
    right, left, foot = unit["RA"], unit["LA"], unit["LL"]
    wilson = (right + left + foot) / 3.0
    rows = {
        "I": left - right,
        "II": foot - right,
        "III": foot - left,
        "aVR": right - 0.5 * (left + foot),
        "aVL": left - 0.5 * (right + foot),
        "aVF": foot - 0.5 * (right + left),
    }
    rows |= {name: unit[name] - wilson for name in ELECTRODES[3:]}
    return np.stack([rows[name] for name in LEADS])


def qrs_duration_ms(ecg: NDArray[np.float64], time_ms: NDArray[np.float64]) -> float:
    """Duration of the steepest complex, ms, over all leads together; NaN for a flat line. See `qrs_interval_ms`."""
    start, end = qrs_interval_ms(ecg, time_ms)
    return end - start


def qrs_interval_ms(ecg: NDArray[np.float64], time_ms: NDArray[np.float64]) -> tuple[float, float]:
    """Onset and end of the steepest complex, ms, over all leads together.

    ecg (l, t) mV; time_ms (t,) ascending. The speed is the root mean square over leads of |d/dt|; the complex is the stretch round its
    maximum above ONSET_SHARE of the maximum and above NOISE_FACTOR times the quiet half's median, bridging gaps of BRIDGE_MS.
    Both NaN for a flat line. Raises InputError if shapes differ or there are fewer than three samples.
    """
    if ecg.ndim != 2 or ecg.shape[1] != len(time_ms) or len(time_ms) < 3:
        raise InputError("ecg", "time_ms", "does not match the samples, or fewer than three", "give ecg (leads, t) and time_ms (t,)")
    speed = np.sqrt((np.gradient(ecg, time_ms, axis=1) ** 2).mean(axis=0))
    peak = int(np.argmax(speed))
    if not speed[peak] > 0:
        return float("nan"), float("nan")
    quiet = float(np.median(speed[speed <= np.median(speed)]))
    # a recording that holds little else than the complex has no quiet half: noise is then not what the median measures
    threshold = max(float(ONSET_SHARE) * speed[peak], min(float(NOISE_FACTOR) * quiet, 0.2 * speed[peak]))
    active = time_ms[speed >= threshold]
    gaps = np.flatnonzero(np.diff(active) > float(BRIDGE_MS))
    starts, ends = np.concatenate([[0], gaps + 1]), np.concatenate([gaps, [len(active) - 1]])
    mine = int(np.searchsorted(active[ends], time_ms[peak]))
    return float(active[starts[mine]]), float(active[ends[mine]])
