"""Delineation of 12-lead ECGs: QRS onset and end, T peak and end, P peak of every beat, from averages of beats that look alike.

All leads are used together (global onset and end, as electrocardiographs do): beats are averaged by kind, the average is reduced to
its principal components, and boundaries are where the speed of that vector comes down to the level beside the QRS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_coeffs, savgol_filter

from twin.params import Param
from twin.patient import Ecg
from twin.signals.beats import Kind, find_beats, group
from twin.signals.filters import Cleaned, clean

Array = NDArray[np.float64]

COMPONENTS = 4
SMOOTH_MS = 15
EDGE_SHARE = Param(0.07, "1", 0.03, 0.15, "chosen here on simulated beats: QRS begins and ends at this share of its fastest change")
NOISE_FACTOR = Param(5.0, "1", 3.0, 8.0, "chosen here: and above this multiple of the noise's own speed")
AWAY_SHARE = 0.5
QUIET_ACTIVITY = Param(
    0.25, "1", 0.15, 0.4, "chosen here: speed plus half the distance from the baseline, both relative to the QRS's largest"
)
BEYOND_MS = 60
QUIET_MS = 8
LONGEST_MS = Param(320.0, "ms", 250.0, 400.0, "chosen here: longest half of a QRS about its fastest part")
AFTER_QRS_MS = 40
WAVE_SHARE = Param(0.03, "1", 0.01, 0.06, "chosen here: a P or T wave below this share of the QRS is none")
NAN = float("nan")


@dataclass(frozen=True)
class Waves:
    """Times of one beat in ms; NaN where a wave is missing or cannot be told."""

    qrs_onset_ms: float
    qrs_end_ms: float
    t_peak_ms: float = NAN
    t_end_ms: float = NAN
    p_peak_ms: float = NAN

    @property
    def qrs_ms(self) -> float:
        """QRS duration."""
        return self.qrs_end_ms - self.qrs_onset_ms

    @property
    def qt_ms(self) -> float:
        """From QRS onset to the end of T."""
        return self.t_end_ms - self.qrs_onset_ms

    def moved(self, by_ms: float) -> Waves:
        """The same waves later."""
        return Waves(*(getattr(self, name) + by_ms for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Template:
    """Beats of one kind: mean (12, w) mV at 1 kHz with its waves on its own clock (0 at the first sample); places (k,) ms of the beats."""

    mean: Array
    waves: Waves
    places_ms: Array
    before_ms: float

    def qrs(self, margin_ms: int = 0) -> Array:
        """The QRS alone (12, t) mV, against its onset."""
        a, b = int(self.waves.qrs_onset_ms), int(np.ceil(self.waves.qrs_end_ms))
        part = self.mean[:, max(0, a - margin_ms) : b + margin_ms + 1]
        return part - self.mean[:, [a]]


@dataclass(frozen=True)
class Delineation:
    """places_ms (k,) of all beats in time order, their kinds (k,) (index in templates, the most frequent first) and waves."""

    places_ms: Array
    kinds: NDArray[np.int64]
    waves: tuple[Waves, ...]
    templates: tuple[Template, ...]
    cleaned: Cleaned

    @property
    def rr_ms(self) -> Array:
        """Intervals between beats (k - 1,)."""
        return np.diff(self.places_ms)


def delineate(ecg: Ecg) -> Delineation:
    """Find, group and delineate the beats of a recording at 100 Hz to 2 kHz. No beats: empty results."""
    cleaned = clean(ecg)
    kinds = group(cleaned.leads, find_beats(cleaned.leads))
    places = np.concatenate([kind.places for kind in kinds]) if kinds else np.zeros(0, np.int64)
    number = np.repeat(np.arange(len(kinds)), [len(kind.places) for kind in kinds])
    order = np.argsort(places, kind="stable")
    places, number = places[order], number[order]
    templates = tuple(_template(kind, places, cleaned.leads.shape[1]) for kind in kinds)
    waves = tuple(templates[k].waves.moved(float(p) - templates[k].before_ms) for p, k in zip(places, number, strict=True))
    return Delineation(places.astype(np.float64), number, waves, templates, cleaned)


def _template(kind: Kind, places: NDArray[np.int64], length: int) -> Template:
    """Waves of a kind's mean; the mean is cut where the neighbouring beats begin."""
    index = np.searchsorted(places, kind.places)
    ends = np.append(places, max(length, int(places[-1]) + 1000))
    starts = np.concatenate([[min(0, int(places[0]) - 1000)], places])
    gap_after = int(np.median(ends[index + 1] - kind.places))
    gap_before = int(np.median(kind.places - starts[index]))
    high = min(kind.mean.shape[1], kind.before + max(120, gap_after - 60))
    low = max(0, kind.before - max(120, gap_before - 60))
    waves = beat_waves(kind.mean[:, low:high], kind.before - low, gap_before).moved(low)
    return Template(kind.mean, waves, kind.places.astype(np.float64), float(kind.before))


def beat_waves(beat: Array, place: int, before_ms: float = 1000.0) -> Waves:
    """Waves of one averaged beat (12, w) mV at 1 kHz whose QRS is about sample `place`, the beat before it `before_ms` earlier."""
    vector = _components(beat)
    slope = savgol_filter(vector, SMOOTH_MS, 2, deriv=1, axis=1, mode="nearest")
    speed = np.sqrt((slope**2).sum(axis=0))
    a, b = max(0, place - 100), min(len(speed), place + 101)
    top = a + int(np.argmax(speed[a:b]))
    if not speed[top] > 0:
        return Waves(NAN, NAN)
    # where all is slow is the baseline; of a beat without one, the turn from one wave to the next
    near = slice(max(0, place - 300), place + 300)
    slow = speed[near] <= np.quantile(speed[near], 0.2)
    away = np.sqrt(((vector - np.median(vector[:, near][:, slow], axis=1, keepdims=True)) ** 2).sum(axis=0))
    activity = speed / speed[top] + AWAY_SHARE * away / away[a:b].max()
    noise = _noise(vector) / float(speed[top])
    relative = speed / speed[top]
    onset = top - _edge(relative[: top + 1][::-1], activity[: top + 1][::-1], noise)
    end = top + _edge(relative[top:], activity[top:], noise)
    t_peak, t_end = _t_wave(vector, onset, end)
    # no P wave is looked for in the T wave of the beat before
    earliest = onset - 250 if np.isnan(t_end) else int(max(onset - 250, t_end - before_ms + 20))
    return Waves(float(onset), float(end), t_peak, t_end, _p_peak(vector, onset, end, max(0, earliest)))


def _noise(vector: Array) -> float:
    """Typical speed (mV/ms) that noise alone has: from what smoothing leaves, scaled to the derivative's filter."""
    left = vector - savgol_filter(vector, SMOOTH_MS, 2, axis=1, mode="nearest")
    sigma = np.median(np.abs(left), axis=1) / 0.6745
    gain = float(np.linalg.norm(savgol_coeffs(SMOOTH_MS, 2, deriv=1)))
    return float(np.sqrt((sigma**2).sum())) * gain


def _components(beat: Array) -> Array:
    """The beat's first principal components (COMPONENTS, w): what all leads share; most of the noise is in the others."""
    centred = beat - np.median(beat, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.einsum("lt,kt->lk", centred, centred))
    return np.asarray(np.einsum("lk,lt->kt", vectors[:, np.argsort(values)[::-1][:COMPONENTS]], centred))


def _edge(speed: Array, activity: Array, noise: float) -> int:
    """Samples from the fastest one (the first) to where the QRS is over.

    First where activity (speed, and distance from the baseline) stays low, which passes over slow stretches inside a QRS; then where
    the speed comes down to a share above the lowest beyond, so that a steep ST segment or T wave does not belong to it.
    """
    speed, activity = speed[: int(LONGEST_MS.value)], activity[: int(LONGEST_MS.value)]
    quiet = np.flatnonzero(activity < float(QUIET_ACTIVITY))
    edge = int(quiet[0]) if len(quiet) else int(np.argmin(activity))
    beyond = speed[edge : edge + BEYOND_MS]
    level = float(np.quantile(beyond, 0.1)) if len(beyond) else 0.0
    threshold = max(level + float(EDGE_SHARE) * (1.0 - level), min(float(NOISE_FACTOR) * noise, 0.2))
    start = max(0, edge - 30)
    return min(start + _first_quiet(speed[start:] < threshold), len(speed) - 1)


def _first_quiet(below: NDArray[np.bool_]) -> int:
    """The first sample from which on QUIET_MS samples are all below."""
    count = np.convolve(below, np.ones(QUIET_MS), "full")[QUIET_MS - 1 :]
    found = np.flatnonzero(count >= min(QUIET_MS, len(below)))
    return int(found[0]) if len(found) else len(below)


def _t_wave(vector: Array, onset: int, end: int) -> tuple[float, float]:
    """T peak, and T end by the tangent at the steepest descent (Lepeschkin and Surawicz 1952, Circulation 6:378)."""
    level = np.median(vector[:, max(0, onset - 30) : max(1, onset - 4)], axis=1, keepdims=True)
    size = savgol_filter(np.sqrt(((vector - level) ** 2).sum(axis=0)), 41, 2, mode="nearest") if vector.shape[1] > 45 else np.zeros(0)
    start = end + AFTER_QRS_MS
    if start >= len(size) - 20:
        return NAN, NAN
    top = start + int(np.argmax(size[start:]))
    if top in (start, len(size) - 1) or size[top] < float(WAVE_SHARE) * size[onset:end].max():
        return NAN, NAN
    slope = np.gradient(size[top:])
    steep = int(np.argmin(slope[: min(len(slope), 200)]))
    floor = float(size[top + steep :].min())
    t_end = top + steep + (float(size[top + steep]) - floor) / max(-float(slope[steep]), 1e-12)
    return float(top), float(t_end) if t_end <= len(size) - 1 else NAN


def _p_peak(vector: Array, onset: int, end: int, a: int) -> float:
    """Peak of the P wave in the 250 ms before the QRS: a bump, from sample a on, above the line through its feet."""
    b = onset - 12
    if b - a < 80:
        return NAN
    part = savgol_filter(vector[:, a:b], 25, 2, axis=1, mode="nearest")
    line = np.linspace(part[:, :10].mean(axis=1), part[:, -10:].mean(axis=1), b - a, axis=1)
    size = np.sqrt(((part - line) ** 2).sum(axis=0))
    rough = float(np.median(np.abs(vector[:, a:b] - part))) * np.sqrt(len(vector)) / 0.67
    top = int(np.argmax(size))
    qrs = float(np.ptp(vector[:, onset : end + 1], axis=1).max())
    wide = int((size > 0.5 * size[top]).sum())
    if size[top] < max(float(WAVE_SHARE) * qrs, 2.0 * rough) or not 20 <= wide <= 140 or top < 15 or top > b - a - 15:
        return NAN
    return float(a + top)
