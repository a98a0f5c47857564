"""Contact electrograms: voltages, activation times by unipolar slope and bipolar onset, late and fractionated potentials, quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.signal import savgol_coeffs

from twin.errors import InputError
from twin.params import Param

Array = NDArray[np.float64]
Samples = NDArray[np.floating]

BLOCK = 512
APART_MS, SECOND_RISE = 40.0, 0.6
"""Two rises of a T wave lie at least so far apart; the second must be lower than this share of the first."""

NEXT_BEAT_MS = 60.0
"""The search for a T wave ends so long before the next steep fall: an R wave leads up to it."""

FRACTIONATED_MV = Param(0.5, "mV", 0.5, 0.5, "Cassidy 1984 (Circulation 70:37): a fractionated electrogram has 0.5 mV or less,")
FRACTIONATED_MS = Param(133.0, "ms", 133.0, 133.0, "lasts 133 ms or more,")
FRACTIONATED_RATIO = Param(0.005, "mV/ms", 0.005, 0.005, "and has an amplitude over duration of 0.005 or less (Cassidy 1984)")
ISOLATED_MS = Param(20.0, "ms", 20.0, 50.0, "an isolated potential follows more than 20 ms below 0.05 mV (Bogun 2006, JACC 47:2013)")
SILENT_MV = Param(0.05, "mV", 0.03, 0.1, "Bogun 2006 (JACC 47:2013): low-voltage noise")
NOISE_FACTOR = Param(5.0, "1", 3.0, 8.0, "chosen here: activity stands out of the noise by this factor")
SLOPE_MS = Param(5.0, "ms", 3.0, 9.0, "chosen here: width over which a slope is measured")
MIN_SLOPE = Param(0.02, "mV/ms", 0.01, 0.1, "chosen here: a unipolar downstroke slower than this is far field and no local activation")
RECOVERY_MS = Param(
    350.0, "ms", 150.0, 500.0, "chosen here: ventricular activation-recovery intervals lie within these bounds, and are looked for there"
)
T_SLOPE_MS = Param(21.0, "ms", 11.0, 31.0, "chosen here: width over which the slope of the T wave is measured")
T_FACTOR = Param(4.0, "1", 3.0, 8.0, "chosen here: the T wave's slope stands out of the noise's by this factor")
AGREE_MS = Param(15.0, "ms", 8.0, 25.0, "chosen here: times by the two methods that differ by more halve the quality")


@dataclass(frozen=True)
class Annotations:
    """One value per point (n,); times in ms after the first sample, NaN where there is none.

    lat_unipolar_ms: steepest fall of the unipolar signal; lat_bipolar_ms: onset of the largest bipolar activity; bipolar_mv, unipolar_mv:
    peak to peak in the window; ari_ms: from the unipolar time to the steepest rise of the T wave; duration_ms: from the first to the last
    bipolar activity; deflections: separate bipolar potentials; late_ms: last activity after the end of QRS, 0 if none; isolated,
    fractionated: bool as defined by Bogun 2006 and Cassidy 1984;
    quality: 0 (noise) to 1, from signal to noise and from how well the two times agree.
    """

    lat_unipolar_ms: Array
    lat_bipolar_ms: Array
    bipolar_mv: Array
    unipolar_mv: Array
    duration_ms: Array
    deflections: NDArray[np.int64]
    late_ms: Array
    isolated: NDArray[np.bool_]
    fractionated: NDArray[np.bool_]
    quality: Array
    ari_ms: Array

    @property
    def lat_ms(self) -> Array:
        """The unipolar time where there is one, else the bipolar onset."""
        return np.where(np.isfinite(self.lat_unipolar_ms), self.lat_unipolar_ms, self.lat_bipolar_ms)


def joined(parts: Sequence[Annotations], order: NDArray[np.integer] | slice = slice(None)) -> Annotations:
    """Annotations of several sets of points as one, then in this order."""
    return Annotations(*(np.concatenate([getattr(part, f.name) for part in parts])[order] for f in fields(Annotations)))


def annotate(
    bipolar: Samples | None, unipolar: Samples | None, fs_hz: float, window_ms: tuple[float, float], qrs_end_ms: float = float("nan")
) -> Annotations:
    """Annotate electrograms, each (n, samples) mV at fs_hz or None, filtered as the mapping system exports them.

    window_ms: window of interest after the first sample; qrs_end_ms: end of the surface QRS on that clock (NaN: no late potentials).
    Blocks of points are worked on one at a time. Raises InputError for shapes that do not fit.
    """
    given = [signal for signal in (bipolar, unipolar) if signal is not None]
    if not given or any(signal.ndim != 2 or signal.shape != given[0].shape for signal in given):
        raise InputError("electrograms", "shape", "is not (points, samples), or differs", "give bipolar or unipolar signals, or both alike")
    n, samples = given[0].shape
    if n == 0:
        raise InputError("electrograms", "points", "there are none", "give at least one electrogram")
    low, high = (round(t * fs_hz / 1000.0) for t in window_ms)
    if not (0 <= low < high - 10 and high <= samples):
        raise InputError("electrograms", "window_ms", f"{window_ms} is not within {samples / fs_hz * 1000:.0f} ms", "give it in ms")
    parts = []
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        pair = [None if signal is None else np.nan_to_num(np.asarray(signal[rows], np.float64)) for signal in (bipolar, unipolar)]
        parts.append(_block(pair[0], pair[1], fs_hz, low, high, qrs_end_ms))
    return joined(parts)


def _block(bipolar: Array | None, unipolar: Array | None, fs_hz: float, low: int, high: int, qrs_end_ms: float) -> Annotations:
    some = bipolar if bipolar is not None else unipolar
    assert some is not None
    n = len(some)
    nan, step = np.full(n, np.nan), 1000.0 / fs_hz
    lat_u, uni, confident = (nan, nan, np.ones(n)) if unipolar is None else _unipolar(unipolar, step, low, high)
    interval = nan if unipolar is None else _recovery(unipolar, step, lat_u)
    if bipolar is None:
        none = np.zeros(n, bool)
        return Annotations(lat_u, nan, nan, uni, nan, np.zeros(n, np.int64), np.zeros(n), none, none, confident, interval)
    inside = bipolar[:, low:high]
    noise = _noise(bipolar)
    voltage = np.ptp(inside, axis=1)
    envelope = maximum_filter1d(np.abs(inside), max(1, round(8.0 / step)), axis=1)
    limit = np.maximum(float(NOISE_FACTOR) * noise, np.minimum(float(SILENT_MV), 0.1 * voltage))
    active = envelope > limit[:, None]
    first, last = (
        np.where(active.any(axis=1), place, 0) for place in (active.argmax(axis=1), active.shape[1] - 1 - active[:, ::-1].argmax(axis=1))
    )
    any_active = active.any(axis=1)
    duration = np.where(any_active, (last - first) * step, np.nan)
    # rising edges after a silence long enough are separate potentials
    gap = round(float(ISOLATED_MS) / step)
    closed = maximum_filter1d(active, gap, axis=1)
    deflections = (np.diff(closed.astype(np.int8), axis=1, prepend=0) == 1).sum(axis=1)
    onset = _onset_of_largest(inside, active)
    lat_b = np.where(any_active, (low + onset) * step, np.nan)
    end = (low + last) * step
    late = np.where(any_active & (end > qrs_end_ms), end - qrs_end_ms, 0.0) if np.isfinite(qrs_end_ms) else np.zeros(n)
    fractionated = (
        (voltage <= float(FRACTIONATED_MV))
        & (duration >= float(FRACTIONATED_MS))
        & (voltage / np.maximum(duration, 1e-9) <= float(FRACTIONATED_RATIO))
    )
    ratio = voltage / np.maximum(2.0 * noise, 1e-9)
    quality = np.clip((ratio - 3.0) / 12.0, 0.0, 1.0) * np.where(np.isfinite(lat_u), confident, 1.0)
    apart = np.abs(lat_u - lat_b)
    quality = quality * np.where(apart > float(AGREE_MS) + duration, 0.5, 1.0)
    fractionated &= any_active
    return Annotations(lat_u, lat_b, voltage, uni, duration, deflections, late, deflections > 1, fractionated, quality, interval)


def _noise(signal: Array) -> Array:
    """Standard deviation (n,) of the quiet parts: from the quietest quarter of pieces of 32 samples."""
    pieces = signal[:, : signal.shape[1] // 32 * 32].reshape(len(signal), -1, 32)
    spread = np.sort(pieces.std(axis=2), axis=1)
    return np.asarray(spread[:, : max(1, spread.shape[1] // 4)].mean(axis=1))


def _unipolar(signal: Array, step_ms: float, low: int, high: int) -> tuple[Array, Array, Array]:
    """Time of the steepest fall, peak to peak, and confidence 0-1: how much steeper it is than any other fall 20 ms away."""
    width = max(3, round(float(SLOPE_MS) / step_ms) | 1)
    kernel = savgol_coeffs(width, 2 if width > 3 else 1, deriv=1, delta=step_ms)
    slope = np.apply_along_axis(np.convolve, 1, signal, kernel, "same")[:, low:high]
    place = slope.argmin(axis=1)
    rows = np.arange(len(signal))
    steepest = -slope[rows, place]
    away = np.abs(np.arange(slope.shape[1])[None] - place[:, None]) > 20.0 / step_ms
    second = -np.where(away, slope, 0.0).min(axis=1)
    found = steepest >= float(MIN_SLOPE)
    confidence = np.clip(1.0 - second / np.maximum(steepest, 1e-12), 0.1, 1.0)
    return np.where(found, (low + place) * step_ms, np.nan), np.ptp(signal[:, low:high], axis=1), np.where(found, confidence, 0.1)


def _recovery(signal: Array, step_ms: float, lat_ms: Array) -> Array:
    """Activation-recovery interval (n,) ms, NaN where no T wave stands out: steepest rise after the activation, whatever the T wave's sign.

    Wyatt's method (1981), which Coronel 2006 (Heart Rhythm 3:1043) found to hold for positive T waves too. The search ends before the
    next activation, whose R wave rises faster than any T wave.
    """
    out = np.full(len(signal), np.nan)
    wide, narrow = (max(5, round(float(p) / step_ms) | 1) for p in (T_SLOPE_MS, SLOPE_MS))
    weights = savgol_coeffs(wide, 2, deriv=1, delta=step_ms)
    slope = np.apply_along_axis(np.convolve, 1, signal, weights, "same")
    sharp = np.apply_along_axis(np.convolve, 1, signal, savgol_coeffs(narrow, 2, deriv=1, delta=step_ms), "same")
    # what the filter makes of white noise: the noise's own spread times the length of its weights
    still = _noise(signal) * float(np.linalg.norm(weights))
    for k in np.flatnonzero(np.isfinite(lat_ms)):
        first = round((lat_ms[k] + RECOVERY_MS.low) / step_ms)
        last = min(round((lat_ms[k] + RECOVERY_MS.high) / step_ms), signal.shape[1] - wide)
        at = round(lat_ms[k] / step_ms)
        falls = np.flatnonzero(sharp[k, first:] < 0.4 * sharp[k, at])
        if len(falls):
            last = min(last, first + int(falls[0]) - round(NEXT_BEAT_MS / step_ms))
        if last - first < wide:
            continue
        rise = slope[k, first:last]
        place = int(rise.argmax())
        # a T wave with two humps has two rises: which is the recovery's cannot be told
        other = rise[np.abs(np.arange(len(rise)) - place) > APART_MS / step_ms]
        alone = not len(other) or float(other.max()) < SECOND_RISE * rise[place]
        # on the tail of the QRS, or where the window ends, it is no wave of its own: the slope must fall to half of it on either side
        both = 0 < place < len(rise) - 1 and max(rise[:place].min(), rise[place:].min()) < 0.5 * rise[place]
        if both and alone and rise[place] > float(T_FACTOR) * still[k]:
            out[k] = (first + place) * step_ms - lat_ms[k]
    return out


def _onset_of_largest(inside: Array, active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First sample (n,) of the run of activity that holds the largest deflection."""
    peak = np.abs(inside).argmax(axis=1)
    samples = np.arange(inside.shape[1])
    quiet_before = np.where(~active & (samples[None] < peak[:, None]), samples[None], -1).max(axis=1)
    # the envelope reaches half its width ahead of the signal
    return np.minimum(quiet_before + 1 + 4, peak)
