"""Pulses of a train on the solver's rows, and whether each was followed by an upstroke beside its electrode."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.monodomain.log import BeatLog
from solvers.monodomain.operators import Operators
from twin.experiment import Stimulus
from twin.params import Param

CAPTURE_MS = Param(20.0, "ms", 10.0, 40.0, "judgement: longest latency from the end of a pulse to an upstroke beside the electrode")


@dataclass
class Pulse:
    """One pulse: rows that get current, rows beside them, when, how much; captured None while it is too early to say no."""

    rows: NDArray[np.int32]
    beside: NDArray[np.int32]
    start_ms: float
    end_ms: float
    rate_mv_ms: float
    captured: bool | None = None

    def judged(self, now_ms: float) -> bool:
        """Whether what comes now cannot be this pulse's doing any more."""
        return self.end_ms + CAPTURE_MS.value <= now_ms


def pulses_of(s: Stimulus, row_of_node: NDArray[np.int32], ops: Operators, capacitance_uF_mm3: float) -> list[Pulse]:
    """Every pulse of a stimulus; nodes that do not conduct are left out."""
    rows = row_of_node[np.asarray(s.nodes, dtype=np.int64)]
    rows = np.unique(rows[rows >= 0])
    beside = np.concatenate([np.zeros(0, np.int32), *(ops.column[ops.start[r] : ops.start[r + 1]] for r in rows)])
    beside = np.setdiff1d(beside, rows)
    rate = s.strength_uA_mm3 / capacitance_uF_mm3
    return [Pulse(rows, beside, start, start + s.duration_ms, rate) for start in s.start_ms]


def still_open(pulses: Iterable[Pulse], log: BeatLog, now_ms: float) -> list[Pulse]:
    """The pulses of a run from now on: those to come, those that may still capture, and with their answer those that the log knows."""
    out = []
    for p in pulses:
        p.captured = log.captured.get((p.start_ms, int(p.rows[0])) if len(p.rows) else (p.start_ms, -1))
        if p.captured is not None or p.end_ms > now_ms + 1e-9 or not p.judged(now_ms):
            out.append(p)
    return out


def judge(pulses: Iterable[Pulse], log: BeatLog, now_ms: float) -> None:
    """Note in pulses and log which pulses have captured by now; to be called at least once in every CAPTURE_MS."""
    for p in pulses:
        if p.captured is not None or now_ms < p.start_ms:
            continue
        up_ms = log.latest_ms[p.beside]
        if ((up_ms >= p.start_ms) & (up_ms <= p.end_ms + CAPTURE_MS.value)).any():
            p.captured = True
        elif p.judged(now_ms):
            p.captured = False
        if p.captured is not None:
            log.captured[p.start_ms, int(p.rows[0]) if len(p.rows) else -1] = p.captured
