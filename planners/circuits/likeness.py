"""Twelve-lead electrocardiograms of tachycardias and of pacing, and how alike two of them are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from scipy.special import expit

from solvers.ecg.field import PLATEAU_MV, RECOVERY_MS, REST_MV, UPSTROKE_MS
from twin.experiment import Activations
from twin.params import Param

Array = NDArray[np.float64]
SAMPLES = 128
"""Per cycle, for comparisons."""

SAME_ECG = Param(0.90, "1", 0.80, 0.97, "chosen here: mean correlation of the leads above which two ECGs are called one morphology")
SAME_CYCLE_MS = Param(30.0, "ms", 20.0, 50.0, "chosen here: cycle lengths within this may be one tachycardia on another day")
CYCLES_MS = (180.0, 650.0)
"""Cycle lengths that a ventricular tachycardia can have."""

STEP_MS, FINE_MS = 2.0, 0.25
WIDTHS = 16.0
"""Widths from its middle at which a sigmoid has ended, as in `solvers.ecg`."""


class Leads(Protocol):
    """What is needed of `solvers.ecg.LeadField`: the weight of every node in every lead, (n, 12)."""

    weights: Array


def ecg_of(field: Leads, log: Activations, start_ms: float, end_ms: float) -> Array:
    """Twelve leads (12, t) mV of a log from one time to another every STEP_MS, each with mean 0.

    Every firing steps up when it comes and down when it recovers (as `LeadField.qrst`, whose sums these are with times rounded into bins
    of FINE_MS); beats add up, since the volume conductor is linear.
    """
    weights = (PLATEAU_MV.value - REST_MV.value) * field.weights[log.node]
    up = _steps(weights, log.activation_ms, UPSTROKE_MS.value, start_ms, end_ms)
    down = _steps(weights, log.recovery_ms, RECOVERY_MS.value, start_ms, end_ms)
    leads = (up - down)[:, :: round(STEP_MS / FINE_MS)]
    return np.asarray(leads - leads.mean(axis=1, keepdims=True), np.float64)


def _steps(weights: Array, at_ms: Array, width_ms: float, start_ms: float, end_ms: float) -> Array:
    """Sum over rows of weights (k, l) times a logistic step at at_ms (k,), (l, t) every FINE_MS; two neighbouring bins share each row."""
    reach = round(WIDTHS * width_ms / FINE_MS)
    count = round((end_ms - start_ms) / FINE_MS)
    size = count + 2 * reach + 2
    place = np.clip((at_ms - start_ms) / FINE_MS + reach, 0.0, None)
    rows = np.flatnonzero(place < size - 1)
    low = place[rows].astype(np.int64)
    part = place[rows] - low
    bins = np.stack(
        [np.bincount(low, w * (1.0 - part), size) + np.bincount(low + 1, w * part, size) for w in np.ascontiguousarray(weights[rows].T)]
    )
    # what came before the window is a constant in it
    offset = np.arange(-reach, reach + 1) * FINE_MS / width_ms
    # so that its running sum is the logistic function at the bins themselves
    kernel = np.diff(expit(np.append(offset[0] - FINE_MS / width_ms, offset)))
    risen = np.cumsum(bins, axis=1)
    smooth = fftconvolve(risen, kernel[None] / kernel.sum(), mode="valid", axes=1)
    return np.asarray(smooth[:, :count], np.float64)


def one_cycle(leads_mv: Array, fs_hz: float, cycle_ms: float) -> Array:
    """Mean cycle of a periodic record (12, t), resampled to SAMPLES, mean of every lead 0; whole cycles only.

    Raises ValueError for a record shorter than a cycle.
    """
    length = cycle_ms * fs_hz / 1000.0
    # a record of just one cycle ends one sample before it would repeat
    count = int((leads_mv.shape[1] + 1) // length)
    if count < 1:
        raise ValueError(f"the record is shorter than one cycle of {cycle_ms:g} ms")
    at = np.arange(SAMPLES) / SAMPLES * length
    index = np.arange(leads_mv.shape[1], dtype=float)
    laps = [np.stack([np.interp(at + k * length, index, lead) for lead in leads_mv]) for k in range(count)]
    mean = np.mean(laps, axis=0)
    return np.asarray(mean - mean.mean(axis=1, keepdims=True), np.float64)


def cycle_of(leads_mv: Array, fs_hz: float) -> float:
    """Cycle length of a periodic record (12, t) by its autocorrelation, ms. Raises ValueError for less than two cycles, or no rhythm."""
    x = leads_mv - leads_mv.mean(axis=1, keepdims=True)
    low, high = (round(c * fs_hz / 1000.0) for c in CYCLES_MS)
    high = min(high, x.shape[1] // 2)
    if high <= low:
        raise ValueError("the record is shorter than two cycles")
    lags = np.arange(low, high + 1)
    energy = np.concatenate([[0.0], np.cumsum((x**2).sum(axis=0))])
    score = np.empty(len(lags))
    for k, lag in enumerate(lags):
        both = np.sqrt((energy[-1] - energy[lag]) * energy[-1 - lag])
        score[k] = float((x[:, lag:] * x[:, :-lag]).sum()) / max(float(both), 1e-12)
    inside = (score[1:-1] >= score[:-2]) & (score[1:-1] >= score[2:])
    peaks = 1 + np.flatnonzero(inside & (score[1:-1] > LEAST_RHYTHM))
    if not len(peaks):
        raise ValueError("no rhythm repeats in it")
    # multiples of the cycle score as well: the first peak that is nearly as good as the best
    return float(lags[peaks[score[peaks] >= 0.95 * score[peaks].max()][0]]) * 1000.0 / fs_hz


LEAST_RHYTHM = 0.5
"""Correlation of a record with itself one cycle later, below which it is no regular tachycardia."""


def similarity(a: Array, b: Array) -> float:
    """Mean correlation over the leads of two cycles (12, SAMPLES), at the shift round the cycle where it is best."""
    norm = [np.sqrt((x**2).sum(axis=1, keepdims=True)) for x in (a, b)]
    x, y = (v / np.maximum(n, 1e-12) for v, n in zip((a, b), norm, strict=True))
    product = np.fft.irfft(np.fft.rfft(x, axis=1) * np.conj(np.fft.rfft(y, axis=1)), n=a.shape[1], axis=1)
    return float(product.mean(axis=0).max())


def lined_up(cycle: Array, leads: Array) -> Array:
    """A recorded cycle (12, SAMPLES) as two cycles (12, t) shifted and scaled to lie over two simulated ones (12, t), for a picture."""
    half = leads.shape[1] / 2.0
    at = np.arange(SAMPLES) / SAMPLES * half
    own = np.stack([np.interp(at, np.arange(leads.shape[1]), lead) for lead in leads])
    product = np.fft.irfft(np.fft.rfft(own, axis=1) * np.conj(np.fft.rfft(cycle, axis=1)), n=SAMPLES, axis=1)
    shifted = np.roll(cycle, int(product.sum(axis=0).argmax()), axis=1)
    size = np.sqrt((own**2).sum() / max(float((shifted**2).sum()), 1e-12))
    back = np.arange(leads.shape[1]) / half * SAMPLES
    return np.stack([np.interp(back, np.arange(SAMPLES), lead, period=SAMPLES) for lead in size * shifted])


def match(recorded: Sequence[Mapping[str, Any]], cycles: Mapping[str, Array], lengths_ms: Mapping[str, float]) -> list[dict[str, Any]]:
    """Which simulated tachycardia each recorded one is most like, for plan.json.

    recorded: name, cycle_length_ms (or None) and cycle (12, SAMPLES) or None. Best by ECG where there is one, else by cycle length;
    a candidate fits only within SAME_CYCLE_MS, and with an ECG from SAME_ECG on. `match` is the best that fits, None if none does;
    `verdict` says it in words.
    """
    return [_matched(vt, cycles, lengths_ms) for vt in recorded]


def _matched(vt: Mapping[str, Any], cycles: Mapping[str, Array], lengths_ms: Mapping[str, float]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for name, cycle in cycles.items():
        gap = None if vt["cycle_length_ms"] is None else round(abs(lengths_ms[name] - vt["cycle_length_ms"]), 1)
        alike = None if vt["cycle"] is None else round(similarity(cycle, vt["cycle"]), 3)
        fits = (gap is None or gap <= float(SAME_CYCLE_MS)) and (alike is None or alike >= float(SAME_ECG))
        rows.append({"circuit": name, "cycle_difference_ms": gap, "ecg_correlation": alike, "fits": fits})
    rows.sort(key=lambda r: (not r["fits"], -(r["ecg_correlation"] or 0.0), r["cycle_difference_ms"] or 0.0))
    best = rows[0] if rows else None
    return {
        "name": vt["name"],
        "cycle_length_ms": vt["cycle_length_ms"],
        "by": "12-lead ECG and cycle length" if vt["cycle"] is not None else "cycle length alone",
        "match": best["circuit"] if best and best["fits"] else None,
        "verdict": _verdict(best),
        "candidates": rows,
    }


def _verdict(best: Mapping[str, Any] | None) -> str:
    if best is None:
        return "no VT was simulated that it could be compared with"
    parts = [] if best["ecg_correlation"] is None else [f"ECG correlation {best['ecg_correlation']:.2f}"]
    parts += [] if best["cycle_difference_ms"] is None else [f"cycle lengths {best['cycle_difference_ms']:.0f} ms apart"]
    said = ", ".join(parts)
    return f"like {best['circuit']} ({said})" if best["fits"] else f"none matches; nearest is {best['circuit']} ({said})"
