"""The reentry loop of an activation log: parents are followed back until the same place is met one turn earlier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.experiment import Activations

STARTS = 48
"""Late activations from which the way back is followed; the loop that most of them lead to is the circuit."""


@dataclass(frozen=True)
class Loop:
    """One turn of the wave: rows (k,) of the log in the order of the wave, first and last at the same place one cycle apart.

    cycle_length_ms: `mean_cycle_ms` of the log; variation_ms: how far the intervals at the loop's own nodes lie apart.
    """

    rows: NDArray[np.int64]
    cycle_length_ms: float
    variation_ms: float
    votes: int


def intervals(log: Activations) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """Time since the previous activation of the same node: node, activation_ms and interval_ms of every repeated activation."""
    order = np.lexsort((log.activation_ms, log.node))
    node, time = log.node[order], log.activation_ms[order]
    again = node[1:] == node[:-1]
    return node[1:][again], time[1:][again], np.diff(time)[again]


def typical_cycle_ms(log: Activations) -> float | None:
    """Median of each node's last interval, None if no node was activated twice."""
    node, _, interval = intervals(log)
    if not len(node):
        return None
    last = np.append(node[1:] != node[:-1], True)
    return float(np.median(interval[last]))


def mean_cycle_ms(log: Activations) -> float | None:
    """The cycle length of a reentry, wherever one is named: median over the nodes of each one's mean interval in a log of its last cycles.

    A mean over cycles, since many alternate; a median over nodes, since some are passed every other time. None if none was passed twice.
    """
    node, _, interval = intervals(log)
    if not len(node):
        return None
    _, first, count = np.unique(node, return_index=True, return_counts=True)
    return float(np.median(np.add.reduceat(interval, first) / count))


def ancestors(log: Activations, row: int) -> NDArray[np.int64]:
    """Rows from `row` back to the first whose parent the log does not hold."""
    chain = [row]
    seen = {row}
    while (parent := int(log.parent[chain[-1]])) >= 0 and parent not in seen:
        chain.append(parent)
        seen.add(parent)
    return np.array(chain)


def close(
    points_mm: NDArray[np.float64], log: Activations, chain: NDArray[np.int64], cycle_ms: float, near_mm: float
) -> NDArray[np.int64] | None:
    """The first part of the chain that returns to its own place (same node, else within `near_mm`), in the order of the wave."""
    time, place = log.activation_ms[chain], points_mm[log.node[chain]]
    nodes = log.node[chain]
    for exact in (True, False):
        for i in range(len(chain)):
            turn = np.flatnonzero((time[i] - time >= 0.5 * cycle_ms) & (time[i] - time <= 1.6 * cycle_ms))
            if not len(turn):
                continue
            if exact:
                hits = turn[nodes[turn] == nodes[i]]
            else:
                gap = np.linalg.norm(place[turn] - place[i], axis=1)
                hits = turn[[int(gap.argmin())]] if gap.min() <= near_mm else turn[:0]
            if len(hits):
                return chain[i : hits[0] + 1][::-1].copy()
    return None


def find_loops(points_mm: NDArray[np.float64], log: Activations, near_mm: float) -> list[Loop]:
    """Loops that the late activations lead back to, most frequent first (ties: the earlier start); empty if nothing reenters.

    points_mm (n, 3) mm; log with parents; near_mm: how close two places must be to count as one (about 1.5 edges).
    """
    cycle = typical_cycle_ms(log)
    if cycle is None:
        return []
    by_time = np.argsort(log.activation_ms, kind="stable")
    late = by_time[log.activation_ms[by_time] >= log.activation_ms.max() - cycle]
    starts = late[np.unique(np.linspace(0, len(late) - 1, STARTS).astype(int))][::-1]
    found: list[tuple[NDArray[np.int64], set[int], int]] = []
    for row in starts:
        rows = close(points_mm, log, ancestors(log, int(row)), cycle, near_mm)
        if rows is None:
            continue
        nodes = set(log.node[rows].tolist())
        for k, (first, known, votes) in enumerate(found):
            if len(nodes & known) > 0.5 * min(len(nodes), len(known)):
                found[k] = (first, known, votes + 1)
                break
        else:
            found.append((rows, nodes, 1))
    found.sort(key=lambda item: -item[2])
    length = mean_cycle_ms(log) or cycle
    return [Loop(rows, length, _variation_ms(log, rows), votes) for rows, _, votes in found]


def _variation_ms(log: Activations, rows: NDArray[np.int64]) -> float:
    """Spread (largest - smallest of the middle 90 %) of the intervals at the loop's nodes."""
    node, _, interval = intervals(log)
    on_loop = interval[np.isin(node, log.node[rows])]
    if not len(on_loop):
        return 0.0
    low, high = np.percentile(on_loop, [5, 95])
    return float(high - low)
