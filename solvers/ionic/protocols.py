"""Single-cell protocols: beats with their measures, and restitution by S1-S2 and by dynamic pacing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ionic.model import IonicModel
from solvers.ionic.pacing import STIMULUS_MV_MS, Cable, apd_ms

SAMPLE_MS = 0.1
"""Spacing of the samples of V that beats are measured on, as in the reference traces."""

CALCIUM = "Ca_i"
"""Name of intracellular calcium, mM, in the models that have it."""


@dataclass(frozen=True)
class Beat:
    """Measures of one beat; durations are NaN where it did not activate or did not repolarise, calcium where the model has none."""

    rest_mv: float
    peak_mv: float
    dvdt_max_mv_ms: float
    activation_ms: float
    apd50_ms: float
    apd90_ms: float
    ca_rest_nm: float = float("nan")
    ca_peak_nm: float = float("nan")


@dataclass(frozen=True)
class Trace:
    """time_ms (m,), v_mv (m,), states (m, K): what a stretch of pacing was like at each sample, the first at its start."""

    time_ms: NDArray[np.float64]
    v_mv: NDArray[np.float64]
    states: NDArray[np.float64]


class PacedCell:
    """One cell that is paced on; its state persists from call to call.

    dt_ms must divide SAMPLE_MS. stimulus_mv_ms None: the strength of the model's reference trace.
    """

    def __init__(
        self,
        model: IonicModel,
        dt_ms: float = 0.02,
        precision: str = "float64",
        stimulus_mv_ms: float | None = None,
        stimulus_ms: float = 1.0,
    ) -> None:
        self.model, self.dt_ms = model, dt_ms
        self.strength = STIMULUS_MV_MS[model.name] if stimulus_mv_ms is None else stimulus_mv_ms
        self.on_steps = round(stimulus_ms / dt_ms)
        self.every = round(SAMPLE_MS / dt_ms)
        self.cable = Cable(model, 1, precision)

    def voltage(self, bcl_ms: float, beats: int = 1) -> NDArray[np.float64]:
        """V of `beats` beats from their stimulus onsets, (beats, m) mV; the cycle is rounded to whole samples."""
        steps = self.every * round(bcl_ms / SAMPLE_MS)
        on = np.tile(np.arange(steps) < self.on_steps, beats)
        record = self.cable.run(self.dt_ms, on, self.strength, every=self.every)[0]
        return np.asarray(record, np.float64).reshape(beats, -1)

    def trace(self, bcl_ms: float, every_ms: float) -> tuple[NDArray[np.float64], Trace]:
        """One beat: V at all samples (m,), and V with the states every `every_ms` (rounded to whole samples)."""
        stride = max(1, round(every_ms / SAMPLE_MS))
        samples = round(bcl_ms / SAMPLE_MS)
        v, states = [], []
        for first in range(0, samples, stride):
            states.append(np.array(self.cable.state[0, : len(self.model.state_names), 0], np.float64))
            steps = np.arange(first, min(first + stride, samples)).size * self.every
            on = np.arange(first * self.every, first * self.every + steps) < self.on_steps
            v.append(self.cable.run(self.dt_ms, on, self.strength, every=self.every)[0])
        full = np.concatenate(v).astype(np.float64)
        return full, Trace(SAMPLE_MS * np.arange(0, samples, stride, dtype=np.float64), full[::stride], np.array(states))


def measure(v_mv: NDArray[np.float64], calcium_mm: NDArray[np.float64] | None = None) -> Beat:
    """Measures of a beat whose V is sampled every SAMPLE_MS from its stimulus onset."""
    time_ms = SAMPLE_MS * np.arange(v_mv.size, dtype=np.float64)
    slope = np.gradient(v_mv, SAMPLE_MS)
    calcium = (float("nan"), float("nan")) if calcium_mm is None else (1e6 * float(calcium_mm[0]), 1e6 * float(calcium_mm.max()))
    start = int(np.argmax(slope))
    return Beat(
        rest_mv=float(v_mv[0]),
        peak_mv=float(v_mv.max()),
        dvdt_max_mv_ms=float(slope[start]),
        activation_ms=float(time_ms[start]),
        apd50_ms=apd_ms(time_ms, v_mv, 0.5),
        apd90_ms=apd_ms(time_ms, v_mv, 0.9),
        ca_rest_nm=calcium[0],
        ca_peak_nm=calcium[1],
    )


def s1s2(cell: PacedCell, s1_ms: float, s1_beats: int, couplings_ms: Sequence[float], tail_ms: float = 1000.0) -> list[dict[str, Any]]:
    """S1 train, then one S2 after each coupling interval, from the same state.

    Rows: protocol, interval_ms, beat, di_ms from the S1 beat's 90 % repolarisation to S2, apd90_ms of the S2 beat at the S1 beat's
    level, captured. A beat counts as captured if it reaches half of the S1 beat's height.
    """
    if s1_beats > 1:
        cell.voltage(s1_ms, s1_beats - 1)
    start = cell.cable.snapshot()
    first = measure(cell.voltage(max(s1_ms, max(couplings_ms)))[0])
    level = first.peak_mv - 0.9 * (first.peak_mv - first.rest_mv)
    rows = []
    for coupling in couplings_ms:
        cell.cable.restore(start)
        before = cell.voltage(coupling)[0]
        after = cell.voltage(tail_ms)[0]
        di = coupling - _down(before, level)
        apd = _down(after, level) - SAMPLE_MS * int(np.argmax(np.gradient(after)))
        captured = bool(after.max() >= 0.5 * (first.peak_mv + first.rest_mv) and np.isfinite(di) and np.isfinite(apd))
        rows.append(_row("s1s2", coupling, 1, di, apd, captured))
    return rows


def dynamic(cell: PacedCell, cycles_ms: Sequence[float], beats: int) -> list[dict[str, Any]]:
    """Pace at each cycle in turn, from the longest, without a pause; the last two beats of each: alternans shows as two durations.

    Rows as of `s1s2`; ends after the first cycle at which one of the two is not captured.
    """
    rows: list[dict[str, Any]] = []
    height = None
    for cycle in sorted(cycles_ms, reverse=True):
        last = cell.voltage(cycle, beats)[-3:]
        measures = [measure(v) for v in last]
        height = height or measures[-1].peak_mv - measures[-1].rest_mv
        for i in (1, 2):
            before, beat = measures[i - 1], measures[i]
            di = cycle - before.activation_ms - before.apd90_ms
            captured = bool(beat.peak_mv - beat.rest_mv >= 0.5 * height and np.isfinite(beat.apd90_ms) and np.isfinite(di))
            rows.append(_row("dynamic", cycle, beats - 2 + i, di, beat.apd90_ms, captured))
        if not all(row["captured"] for row in rows[-2:]):
            break
    return rows


def last_cycle_ms(v_mv: NDArray[np.float64], level_mv: float = -40.0) -> float:
    """Interval between the last two upward crossings of a level in samples of V (m,); NaN for less than two."""
    ups = np.flatnonzero((v_mv[:-1] < level_mv) & (v_mv[1:] >= level_mv))
    return float(SAMPLE_MS * (ups[-1] - ups[-2])) if ups.size > 1 else float("nan")


def spontaneous_beats(v_mv: NDArray[np.float64], calcium_mm: NDArray[np.float64] | None = None, level_mv: float = -40.0) -> list[Beat]:
    """Measures of the beats of a cell that is not stimulated, each from the lowest V before its upstroke to the next such point.

    calcium_mm: at the samples of V. The part before the first and after the last such point is left out.
    """
    ups = np.flatnonzero((v_mv[:-1] < level_mv) & (v_mv[1:] >= level_mv))
    lows = [first + int(np.argmin(v_mv[first:last])) for first, last in zip([0, *ups[:-1]], ups, strict=True)]
    windows = [slice(first, last) for first, last in itertools.pairwise(lows)]
    return [measure(v_mv[w], None if calcium_mm is None else calcium_mm[w]) for w in windows]


def _down(v_mv: NDArray[np.float64], level_mv: float) -> float:
    """Time after the peak at which V falls through a level, linear between samples; NaN if it does not."""
    top = int(np.argmax(v_mv))
    below = np.flatnonzero(v_mv[top:] < level_mv)
    if not below.size or not below[0]:
        return float("nan")
    i = top + int(below[0])
    return float(SAMPLE_MS * (i - 1 + (v_mv[i - 1] - level_mv) / (v_mv[i - 1] - v_mv[i])))


def _row(protocol: str, interval: float, beat: int, di: float, apd: float, captured: bool) -> dict[str, Any]:
    return {"protocol": protocol, "interval_ms": interval, "beat": beat, "di_ms": di, "apd90_ms": apd, "captured": captured}
