"""A study's points annotated anew from their electrograms, one block of points in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.params import Param
from twin.signals.delineate import delineate
from twin.signals.electrograms import BLOCK, RECOVERY_MS, Annotations, annotate, joined
from twin.study import MappingStudy, Progress, Recording

Array = NDArray[np.float64]

WINDOW_MS = (
    Param(-200.0, "ms", -300.0, -50.0, "chosen here: where an export names no window of interest, it begins so long before the reference"),
    Param(250.0, "ms", 100.0, 400.0, "chosen here: and ends so long after it"),
)
MARGIN_MS = 50.0
"""Around what is annotated, so that filters are settled where it begins."""


@dataclass(frozen=True)
class Reannotated:
    """points (k,): those with an electrogram; found: their annotations, times after the reference; qrs_end_ms: of the surface ECG, after
    the reference (NaN: no ECG); moved_ms (k,): new minus the system's time.
    """

    points: NDArray[np.int64]
    found: Annotations
    qrs_end_ms: float
    moved_ms: Array

    def study(self, old: MappingStudy) -> MappingStudy:
        """The study with the new times, voltages and recovery; points without an electrogram have none."""
        n = len(old)

        def spread(values: Array) -> Array:
            out = np.full(n, np.nan)
            out[self.points] = values
            return out

        found = self.found
        # a channel that was not recorded leaves the system's voltage
        bipolar, unipolar = (
            np.where(np.isfinite(new := spread(values)), new, kept)
            for values, kept in ((found.bipolar_mv, old.bipolar_mv), (found.unipolar_mv, old.unipolar_mv))
        )
        return replace(old, lat_ms=spread(found.lat_ms), bipolar_mv=bipolar, unipolar_mv=unipolar, ari_ms=spread(found.ari_ms))

    def summary(self) -> dict[str, float | int | None]:
        """Counts and medians for people."""
        found, moved = self.found, self.moved_ms[np.isfinite(self.moved_ms)]
        return {
            "points_with_electrogram": len(self.points),
            "with_time": int(np.isfinite(found.lat_ms).sum()),
            "late_potentials": int((found.late_ms > 0).sum()) if np.isfinite(self.qrs_end_ms) else None,
            "isolated_potentials": int(found.isolated.sum()),
            "fractionated": int(found.fractionated.sum()),
            "with_recovery": int(np.isfinite(found.ari_ms).sum()),
            "median_ari_ms": round(float(np.nanmedian(found.ari_ms)), 1) if np.isfinite(found.ari_ms).any() else None,
            "low_quality": int((found.quality < 0.3).sum()),
            "median_difference_ms": round(float(np.median(moved)), 2) if len(moved) else None,
            "differ_by_more_than_20_ms": int((np.abs(moved - np.median(moved)) > 20.0).sum()) if len(moved) else None,
        }


def reannotate(study: MappingStudy, where: str | Path = "study", progress: Progress | None = None) -> Reannotated:
    """Annotate every point that has an electrogram and a reference; times are after the reference.

    Raises InputError if no point has both, and as `study.recordings` does.
    """
    parts: list[Annotations] = []
    numbers: list[int] = []
    qrs_end = _qrs_end_ms(study)
    for rows, step, bipolar, unipolar, low, high, origin in _blocks(study, progress):
        window = (low - origin, high - origin)
        got = annotate(bipolar, unipolar, 1000.0 / step, window, qrs_end - origin)
        parts.append(replace(got, lat_unipolar_ms=got.lat_unipolar_ms + origin, lat_bipolar_ms=got.lat_bipolar_ms + origin))
        numbers += rows
    if not parts:
        remedy = "export electrograms with the map, or use the system's own times"
        raise InputError(where, "electrograms", "no point has an electrogram and a reference", remedy)
    order = np.argsort(numbers, kind="stable")
    found = joined(parts, order)
    points = np.array(numbers, np.int64)[order]
    return Reannotated(points, found, qrs_end, found.lat_ms - study.lat_ms[points])


def _qrs_end_ms(study: MappingStudy) -> float:
    """End of the QRS nearest to the reference, after the reference, on the first recording that has all leads; NaN without one."""
    for index, recording, ecg in study.recorded_leads():
        beats = delineate(ecg)
        reference = _reference_ms(study, index, recording)
        if len(beats.places_ms) and np.isfinite(reference):
            return float(beats.waves[int(np.abs(beats.places_ms - reference).argmin())].qrs_end_ms) - reference
    return float("nan")


def _reference_ms(study: MappingStudy, index: int, recording: Recording) -> float:
    """The system's annotation of the reference; where an export has none, the largest deflection of the reference channel."""
    for given in (recording.reference_ms, study.reference_ms[index]):
        if np.isfinite(given):
            return float(given)
    channel = recording.channels.get(recording.reference)
    if channel is None or not np.ptp(channel) > 0:
        return float("nan")
    return float(np.abs(channel - np.median(channel)).argmax()) * 1000.0 / recording.fs_hz


_Block = tuple[list[int], float, Array | None, Array | None, float, float, float]


def _blocks(study: MappingStudy, progress: Progress | None) -> Iterator[_Block]:
    """Points of one rate, window and set of channels together, aligned at their references: numbers, ms per sample, signals (k, samples),
    the window and the first sample's time, both after the reference.
    """
    waiting: dict[tuple[float, float, float, bool, bool], tuple[list[int], list[Array], list[Array]]] = {}
    for index, recording in study.electrograms(progress):
        bipolar, unipolar = (recording.channels.get(name) for name in (recording.bipolar, recording.unipolar))
        reference = _reference_ms(study, index, recording)
        if (bipolar is None and unipolar is None) or not np.isfinite(reference):
            continue
        low, high = study.window_ms[index]
        if not (np.isfinite(low) and np.isfinite(high) and high - low > 20.0):
            low, high = (float(p) for p in WINDOW_MS)
        key = (recording.fs_hz, float(low), float(high), bipolar is not None, unipolar is not None)
        numbers, bipolars, unipolars = waiting.setdefault(key, ([], [], []))
        step = 1000.0 / recording.fs_hz
        first = round((reference + low - MARGIN_MS) / step)
        count = round((high - low + 2.0 * MARGIN_MS + RECOVERY_MS.high) / step)
        numbers.append(index)
        for signal, kept in ((bipolar, bipolars), (unipolar, unipolars)):
            if signal is not None:
                kept.append(_cut(signal, first, count))
        # windows may differ from point to point: what waits is bounded all the same
        if sum(len(held[0]) for held in waiting.values()) == BLOCK:
            for key, held in waiting.items():
                yield _block(key, held)
            waiting.clear()
    for key, held in waiting.items():
        yield _block(key, held)


def _block(key: tuple[float, float, float, bool, bool], held: tuple[list[int], list[Array], list[Array]]) -> _Block:
    rate, low, high, _, _ = key
    numbers, bipolars, unipolars = held
    signals = [np.stack(kept) if kept else None for kept in (bipolars, unipolars)]
    return numbers, 1000.0 / rate, signals[0], signals[1], low, high, low - MARGIN_MS


def _cut(signal: Array, first: int, count: int) -> Array:
    """`count` samples from `first` on; beyond the recording its first or last value goes on, which makes no slope."""
    return np.asarray(signal[np.clip(np.arange(first, first + count), 0, len(signal) - 1)], np.float64)
