"""Beats of a recording: where they are, which look alike, and their averages."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from twin.params import Param
from twin.signals.filters import banded, low_passed

Array = NDArray[np.float64]
Places = NDArray[np.int64]

INTEGRATION_MS = 100
REFRACTORY_MS = Param(180.0, "ms", 150.0, 250.0, "chosen here: no two ventricular beats follow each other faster (333 /min)")
FINDING_HZ = (
    Param(7.0, "Hz", 5.0, 8.0, "chosen here: T waves are slower; Pan and Tompkins 1985 (IEEE TBME 32:230) use 5 Hz"),
    Param(25.0, "Hz", 15.0, 40.0, "chosen here: most of a QRS and little of the muscles' noise lies below"),
)
END_MS = 50
"""A beat whose fastest part lies nearer to an end of the recording cannot be delineated, and filters are unsure there."""
DETECTION_SHARE = Param(0.3, "1", 0.2, 0.5, "chosen here: of the usual beat's speed")
T_WAVE_MS, T_WAVE_SHARE = 380.0, Param(0.5, "1", 0.4, 0.6, "chosen here, after Pan and Tompkins 1985 (IEEE TBME 32:230), who halve a slope")
SAME = Param(0.9, "1", 0.85, 0.97, "chosen here: correlation of all leads above which two beats are of one kind")
BEFORE_MS, AFTER_MS = 120, 220
"""The part of a beat, about its place, by which kinds are told apart."""
LAG_MS = 40


@dataclass(frozen=True)
class Kind:
    """Beats that look alike: places (k,) samples, aligned; mean (12, w) mV from `before` ms before to w - before after the place."""

    places: Places
    mean: Array
    before: int


def find_beats(leads: Array) -> Places:
    """Places (k,) of ventricular beats in cleaned leads (12, n) at 1 kHz: the middle of each QRS's fastest 100 ms.

    Root-mean-square speed over all leads, integrated; a threshold that follows the recording; T waves are told by their slope;
    of the two flanks of a sine-like beat one is kept.
    """
    speed = np.sqrt((np.gradient(banded(leads, FINDING_HZ[0].value, FINDING_HZ[1].value), axis=1) ** 2).mean(axis=0))
    # a running sum may fall below zero by rounding
    energy = np.sqrt(np.maximum(uniform_filter1d(speed**2, INTEGRATION_MS, mode="nearest"), 0.0))
    peaks = np.flatnonzero((energy == maximum_filter1d(energy, 2 * int(REFRACTORY_MS.value * 0.6) + 1)) & (energy > 0))
    if not len(peaks):
        return peaks
    inner = (peaks >= END_MS) & (peaks < len(energy) - END_MS)
    if inner.any():
        peaks = peaks[inner]
    usual = _usual(energy, peaks)
    peaks = peaks[energy[peaks] > float(DETECTION_SHARE) * usual]
    kept: list[int] = []
    for place in peaks.tolist():
        if kept and place - kept[-1] < float(REFRACTORY_MS):
            if energy[place] > energy[kept[-1]]:
                kept[-1] = place
        elif not (kept and place - kept[-1] < T_WAVE_MS and energy[place] < float(T_WAVE_SHARE) * energy[kept[-1]]):
            kept.append(place)
    return _one_flank(leads, np.array(kept, np.int64))


def _usual(energy: Array, peaks: Places) -> Array:
    """The typical height of beats around each peak: the median over 10 s of the highest in each second."""
    seconds = np.array([energy[start : start + 1000].max() for start in range(0, max(1, len(energy) - 300), 1000)])
    out = np.empty(len(peaks))
    for k, place in enumerate(peaks.tolist()):
        middle = place // 1000
        out[k] = np.median(seconds[max(0, middle - 5) : middle + 6])
    return out


def _one_flank(leads: Array, places: Places) -> Places:
    """Of places that alternate in polarity (up and down flank of sine-like beats) every second one."""
    if len(places) < 6 or np.median(np.diff(places)) > 300:
        return places
    slopes = np.gradient(low_passed(leads, 20.0), axis=1)
    half = 40
    inner = [p for p in places.tolist() if half <= p < leads.shape[1] - half]
    shapes = np.stack([slopes[:, p - half : p + half].ravel() for p in inner])
    shapes /= np.maximum(np.linalg.norm(shapes, axis=1, keepdims=True), 1e-12)
    near = float(np.median((shapes[1:] * shapes[:-1]).sum(axis=1)))
    next_but_one = float(np.median((shapes[2:] * shapes[:-2]).sum(axis=1)))
    if near < -0.3 and next_but_one > 0.6:
        return np.array(inner[::2], np.int64)
    return places


def group(leads: Array, places: Places, before: int = 350, after: int = 600) -> list[Kind]:
    """Kinds of beats, the most frequent first; each is aligned by correlation and averaged (by the median of five beats or more)."""
    signal = np.pad(low_passed(leads), ((0, 0), (BEFORE_MS + LAG_MS, AFTER_MS + LAG_MS)), mode="edge")
    patterns: list[Array] = []
    members: list[list[int]] = []
    for place in places.tolist():
        wide = signal[:, place : place + BEFORE_MS + AFTER_MS + 2 * LAG_MS]
        scores = [_best_lag(wide, pattern) for pattern in patterns]
        chosen = max(range(len(scores)), key=lambda k: scores[k][0], default=-1)
        if chosen >= 0 and scores[chosen][0] > float(SAME):
            members[chosen].append(place + scores[chosen][1])
            k = len(members[chosen])
            lag = scores[chosen][1] + LAG_MS
            patterns[chosen] = patterns[chosen] * ((k - 1) / k) + wide[:, lag : lag + BEFORE_MS + AFTER_MS] / k
        else:
            patterns.append(wide[:, LAG_MS : LAG_MS + BEFORE_MS + AFTER_MS].copy())
            members.append([place])
    kinds = [Kind(np.array(sorted(m), np.int64), _average(leads, sorted(m), before, after), before) for m in members]
    return sorted(kinds, key=lambda kind: -len(kind.places))


def _best_lag(wide: Array, pattern: Array) -> tuple[float, int]:
    """Highest correlation of a pattern (12, w) within wide (12, w + 2 LAG), and its lag in samples."""
    width = pattern.shape[1]
    centred = pattern - pattern.mean(axis=1, keepdims=True)
    best = (-1.0, 0)
    for lag in range(0, 2 * LAG_MS + 1, 2):
        part = wide[:, lag : lag + width]
        part = part - part.mean(axis=1, keepdims=True)
        score = float((part * centred).sum() / max(np.sqrt((part**2).sum() * (centred**2).sum()), 1e-12))
        if score > best[0]:
            best = (score, lag - LAG_MS)
    return best


def _average(leads: Array, places: list[int], before: int, after: int) -> Array:
    """Mean beat (12, before + after) mV; what lies outside the recording is left out of it."""
    padded = np.pad(leads, ((0, 0), (before, after)), constant_values=np.nan)
    stack = np.stack([padded[:, p : p + before + after] for p in places])
    # each beat's own level before the QRS, so that what is left of the wander does not widen the average
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        level = np.nanmedian(stack[:, :, max(0, before - 150) : before - 60], axis=2, keepdims=True)
    stack = stack - np.where(np.isfinite(level), level, 0.0)
    if len(places) < 5:
        count = np.isfinite(stack).sum(axis=0)
        return np.asarray(np.nansum(stack, axis=0) / np.maximum(count, 1), np.float64)
    known = np.isfinite(stack)
    mean = np.where(known, stack, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    ordered = np.sort(np.where(known, stack, mean), axis=0)
    cut = len(places) // 5
    return np.asarray(ordered[cut : len(places) - cut].mean(axis=0), np.float64)
