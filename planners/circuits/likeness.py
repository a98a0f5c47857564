"""Twelve-lead ECGs of tachycardias, and how alike two of them are: for pace-maps, for doubles, and for a VT that was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from planners.circuits.episode import Episode
from twin.params import Param

Array = NDArray[np.float64]
SAMPLES = 128
"""Per cycle, for comparisons."""

SAME_ECG = Param(0.90, "1", 0.80, 0.97, "chosen here: mean correlation of the leads above which two ECGs are called one morphology")
SAME_CYCLE_MS = Param(30.0, "ms", 20.0, 50.0, "chosen here: cycle lengths within this may be one tachycardia on another day")
CYCLES_MS = (180.0, 650.0)
"""Cycle lengths that a ventricular tachycardia can have."""


class Leads(Protocol):
    """What is needed of `solvers.ecg.LeadField`."""

    def qrst(self, arrival_ms: Array, apd_ms: Array, time_ms: Array) -> Array:
        """Twelve leads, (12, t) mV."""
        ...


def ecg_of(field: Leads, n_points: int, episode: Episode, cycles: float = 2.0, step_ms: float = 2.0) -> tuple[Array, Array]:
    """ECG over the last cycles of an episode: time (t,) ms from 0, leads (12, t) mV; beats add up, since the volume conductor is linear."""
    log = episode.log
    end = float(log.activation_ms.max())
    time = np.arange(end - cycles * episode.cycle_length_ms, end, step_ms)
    total = np.zeros((12, len(time)))
    order = np.argsort(log.activation_ms, kind="stable")
    node, at, off = (values[order] for values in (log.node, log.activation_ms, log.recovery_ms))
    # rank of each activation among those of its node
    by_node = np.argsort(node, kind="stable")
    start = np.flatnonzero(np.append(True, node[by_node][1:] != node[by_node][:-1]))
    rank = np.empty(len(node), np.int64)
    rank[by_node] = np.arange(len(node)) - np.repeat(start, np.diff(np.append(start, len(node))))
    for beat in range(int(rank.max()) + 1):
        mine = rank == beat
        arrival, apd = np.full(n_points, np.inf), np.zeros(n_points)
        arrival[node[mine]] = at[mine]
        apd[node[mine]] = off[mine] - at[mine]
        total += field.qrst(arrival, apd, time)
    return time - time[0], total - total.mean(axis=1, keepdims=True)


def one_cycle(leads_mv: Array, fs_hz: float, cycle_ms: float) -> Array:
    """Mean cycle of a periodic record (12, t), resampled to SAMPLES, mean of every lead 0; whole cycles only."""
    length = cycle_ms * fs_hz / 1000.0
    count = int(leads_mv.shape[1] // length)
    if count < 1:
        raise ValueError(f"the record is shorter than one cycle of {cycle_ms:g} ms")
    at = np.arange(SAMPLES) / SAMPLES * length
    index = np.arange(leads_mv.shape[1], dtype=float)
    laps = [np.stack([np.interp(at + k * length, index, lead) for lead in leads_mv]) for k in range(count)]
    mean = np.mean(laps, axis=0)
    return np.asarray(mean - mean.mean(axis=1, keepdims=True), np.float64)


def cycle_of(leads_mv: Array, fs_hz: float) -> float:
    """Cycle length of a periodic record (12, t) by its autocorrelation, ms."""
    x = leads_mv - leads_mv.mean(axis=1, keepdims=True)
    low, high = (round(c * fs_hz / 1000.0) for c in CYCLES_MS)
    high = min(high, x.shape[1] // 2)
    if high <= low:
        raise ValueError("the record is shorter than two cycles")
    lags = np.arange(low, high + 1)
    score = np.array([float((x[:, lag:] * x[:, :-lag]).sum()) / (x.shape[1] - lag) for lag in lags])
    # multiples of the cycle score as well: the first lag that is nearly as good as the best
    good = np.flatnonzero(score >= 0.95 * score.max())
    first = good[0]
    while first + 1 < len(score) and score[first + 1] > score[first]:
        first += 1
    return float(lags[first]) * 1000.0 / fs_hz


def similarity(a: Array, b: Array) -> float:
    """Mean correlation over the leads of two cycles (12, SAMPLES), at the shift round the cycle where it is best."""
    norm = [np.sqrt((x**2).sum(axis=1, keepdims=True)) for x in (a, b)]
    x, y = (v / np.maximum(n, 1e-12) for v, n in zip((a, b), norm, strict=True))
    product = np.fft.irfft(np.fft.rfft(x, axis=1) * np.conj(np.fft.rfft(y, axis=1)), n=a.shape[1], axis=1)
    return float(product.mean(axis=0).max())


def doubles(cycles: Mapping[str, Array], lengths_ms: Mapping[str, float]) -> dict[str, list[str]]:
    """For each tachycardia the others that a 12-lead ECG would not tell from it, by shape and cycle length."""
    out: dict[str, list[str]] = {}
    for a in cycles:
        near = [b for b in cycles if b != a and abs(lengths_ms[a] - lengths_ms[b]) <= float(SAME_CYCLE_MS)]
        out[a] = [b for b in near if similarity(cycles[a], cycles[b]) >= float(SAME_ECG)]
    return out


def match(recorded: Sequence[Mapping[str, Any]], cycles: Mapping[str, Array], lengths_ms: Mapping[str, float]) -> list[dict[str, Any]]:
    """Which simulated tachycardia each recorded one is most like.

    recorded: name, cycle_length_ms (or None) and cycle (12, SAMPLES) or None. Best by ECG where there is one, else by cycle length;
    `matched` only within SAME_CYCLE_MS, and with an ECG from SAME_ECG on.
    """
    out = []
    for vt in recorded:
        rows: list[dict[str, Any]] = []
        for name, cycle in cycles.items():
            gap = None if vt["cycle_length_ms"] is None else round(abs(lengths_ms[name] - vt["cycle_length_ms"]), 1)
            alike = None if vt["cycle"] is None else round(similarity(cycle, vt["cycle"]), 3)
            fits = (gap is None or gap <= float(SAME_CYCLE_MS)) and (alike is None or alike >= float(SAME_ECG))
            rows.append({"circuit": name, "cycle_difference_ms": gap, "ecg_correlation": alike, "matched": fits})
        rows.sort(key=lambda r: (not r["matched"], -(r["ecg_correlation"] or 0.0), r["cycle_difference_ms"] or 0.0))
        out.append({"name": vt["name"], "cycle_length_ms": vt["cycle_length_ms"], "candidates": rows})
    return out
