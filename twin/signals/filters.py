"""Cleaning without moving a wave: resampling to 1 kHz, pacing spikes, mains and baseline, all without phase."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import median_filter
from scipy.signal import butter, resample_poly, sosfiltfilt

from twin.params import Param
from twin.patient import Ecg

Array = NDArray[np.float64]

RATE_HZ = 1000.0
BASELINE_HZ = Param(0.5, "Hz", 0.3, 0.67, "AHA 2007 (Kligfield, Circulation 115:1306): 0.67 Hz is the limit of a filter without phase")
MUSCLE_HZ = Param(45.0, "Hz", 35.0, 60.0, "chosen here, for comparing beats only; delineation uses averaged beats instead")
MAINS_HZ = (50.0, 60.0)
MAINS_WINDOW_S = 2.0
MAINS_RATIO = Param(
    4.0, "1", 2.0, 10.0, "chosen here: power at the mains' frequency against the strongest line beside it, above which it is removed"
)
SPIKE_MV = Param(0.2, "mV", 0.1, 0.5, "chosen here: smallest pacing spike, over 9 ms, that is looked for")
SPIKE_RATIO = Param(5.0, "1", 3.0, 10.0, "chosen here: a spike sticks out of what is 6-20 ms before and after by this factor")
SPIKE_HALF_MS = 4


@dataclass(frozen=True)
class Cleaned:
    """leads (12, n) mV at 1 kHz, time 0 as in the recording; spikes_ms: pacing spikes (k,); mains_hz: what was removed, NaN if nothing."""

    leads: Array
    spikes_ms: Array
    mains_hz: float


def clean(ecg: Ecg) -> Cleaned:
    """An ECG at 1 kHz without pacing spikes, mains and baseline wander; waves keep their place."""
    leads = at_rate(ecg.array(), ecg.fs_hz)
    spikes = np.zeros(0, np.int64)
    if ecg.fs_hz >= 400.0:
        leads, spikes = without_spikes(leads)
    leads, mains = without_mains(leads)
    return Cleaned(without_baseline(leads), spikes.astype(np.float64), mains)


def at_rate(leads: Array, fs_hz: float, rate_hz: float = RATE_HZ) -> Array:
    """Resampled (l, m): band-limited where the rates divide, cubic otherwise. The first sample keeps time 0."""
    if fs_hz == rate_hz:
        return np.asarray(leads, np.float64)
    n = leads.shape[1]
    ratio = Fraction(rate_hz / fs_hz).limit_denominator(100)
    if abs(float(ratio) * fs_hz / rate_hz - 1.0) < 1e-9:
        start = leads[:, :1]
        # the ends are held: resample_poly pads with zeros
        return np.asarray(resample_poly(leads - start, ratio.numerator, ratio.denominator, axis=1, padtype="line") + start, np.float64)
    times = np.arange(0.0, (n - 1) / fs_hz + 1e-12, 1.0 / rate_hz)
    return np.asarray(CubicSpline(np.arange(n) / fs_hz, leads, axis=1)(times), np.float64)


def without_spikes(leads: Array) -> tuple[Array, NDArray[np.int64]]:
    """Leads at 1 kHz with pacing spikes replaced by straight lines, and the samples at which the spikes were."""
    sharp = np.abs(leads - median_filter(leads, (1, 9), mode="nearest")).max(axis=0)
    candidates = np.flatnonzero(sharp > float(SPIKE_MV))
    found: list[int] = []
    for place in candidates.tolist():
        near = sharp[max(0, place - 3) : place + 4]
        if sharp[place] < near.max() or (found and place - found[-1] <= 2 * SPIKE_HALF_MS):
            continue
        around = np.concatenate([sharp[max(0, place - 20) : max(0, place - 5)], sharp[place + 6 : place + 21]])
        if len(around) and sharp[place] > float(SPIKE_RATIO) * around.max():
            found.append(place)
    out = leads.copy() if found else leads
    for place in found:
        a, b = max(0, place - SPIKE_HALF_MS), min(leads.shape[1] - 1, place + SPIKE_HALF_MS)
        out[:, a : b + 1] = np.linspace(out[:, a], out[:, b], b - a + 1, axis=1)
    return out, np.array(found, np.int64)


def without_mains(leads: Array) -> tuple[Array, float]:
    """Leads at 1 kHz without 50 or 60 Hz and its third harmonic, and the frequency that was found (NaN: none, nothing done).

    A sinusoid is fitted in overlapping windows to what is left after a high pass, weights low where a QRS is: unlike a notch it does
    not ring.
    """
    n = leads.shape[1]
    if n < 500:
        return leads, float("nan")
    spectrum = (np.abs(np.fft.rfft(leads - leads.mean(axis=1, keepdims=True), axis=1)) ** 2).sum(axis=0)
    freq = np.fft.rfftfreq(n, 1.0 / RATE_HZ)
    best, strength = float("nan"), float(MAINS_RATIO)
    for mains in MAINS_HZ:
        at, beside = np.abs(freq - mains) < 0.6, (np.abs(freq - mains) >= 1.5) & (np.abs(freq - mains) < 6.0)
        # the highest line beside it, since a regular rhythm makes lines of its own
        if at.any() and (ratio := spectrum[at].max() / max(float(spectrum[beside].max()), 1e-30)) > strength:
            best, strength = float(freq[at][np.argmax(spectrum[at])]), ratio
    if not np.isfinite(best):
        return leads, best
    nominal = min(MAINS_HZ, key=lambda mains: abs(mains - best))
    high = np.asarray(sosfiltfilt(butter(2, 30.0, "high", fs=RATE_HZ, output="sos"), leads, axis=1), np.float64)
    out, weight = np.zeros_like(leads), np.zeros(n)
    width = min(n, int(MAINS_WINDOW_S * RATE_HZ))
    for start in [*range(0, n - width, width // 2), n - width]:
        part = slice(start, start + width)
        taper = np.hanning(width + 2)[1:-1]
        out[:, part] += taper * _sinusoid(high[:, part], nominal)
        weight[part] += taper
    return leads - out / weight, nominal


def _sinusoid(part: Array, mains_hz: float) -> Array:
    """Mains in one window: best frequency within 0.3 Hz, weighted least squares with the third harmonic."""
    time = np.arange(part.shape[1]) / RATE_HZ
    loud = np.sqrt((part**2).mean(axis=0))
    weight = 1.0 / (1.0 + (loud / max(float(np.median(loud)), 1e-9) / 2.0) ** 4)
    best: tuple[float, Array] = (np.inf, part)
    for hz in mains_hz + np.linspace(-0.3, 0.3, 13):
        basis = np.stack([f(2 * np.pi * k * hz * time) for k in (1, 3) for f in (np.sin, np.cos)], axis=1)
        fit = np.linalg.solve(basis.T @ (basis * weight[:, None]), basis.T @ (part * weight).T)
        model = (basis @ fit).T
        left = float((weight * (part - model) ** 2).sum())
        if left < best[0]:
            best = (left, model)
    return best[1]


def without_baseline(leads: Array) -> Array:
    """Leads at 1 kHz without what is slower than BASELINE_HZ; a recording shorter than 3 s only loses its median."""
    if leads.shape[1] < 3000:
        return np.asarray(leads - np.median(leads, axis=1, keepdims=True), np.float64)
    sos = butter(2, float(BASELINE_HZ), "high", fs=RATE_HZ, output="sos")
    return np.asarray(sosfiltfilt(sos, leads, axis=1, padlen=min(leads.shape[1] - 1, 3000)), np.float64)


def low_passed(leads: Array, hz: float = MUSCLE_HZ.value) -> Array:
    """Leads at 1 kHz below a frequency, for finding beats."""
    pad = min(leads.shape[1] - 1, 150)
    return np.asarray(sosfiltfilt(butter(2, hz, fs=RATE_HZ, output="sos"), leads, axis=1, padlen=pad), np.float64)


def banded(leads: Array, low_hz: float, high_hz: float) -> Array:
    """Leads at 1 kHz between two frequencies."""
    pad = min(leads.shape[1] - 1, 400)
    return np.asarray(
        sosfiltfilt(butter(2, [low_hz, high_hz], "bandpass", fs=RATE_HZ, output="sos"), leads, axis=1, padlen=pad), np.float64
    )
