"""Activation logs of consecutive runs as one, and what pacing reads from them: capture, reentry, steadiness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planners.circuits.loop import mean_cycle_ms, typical_cycle_ms
from planners.pacing.protocol import Sustained
from twin.experiment import Activations

FIRST_MS, CHUNK_MS = 450.0, 250.0
"""The wave of an extrastimulus is looked at after the first, reentry after every further span."""

Part: TypeAlias = tuple[Activations, NDArray[np.integer]]
"""Log of one run and the node that each firing came from."""

KEPT_CYCLES = 3.2
"""Of a sustained reentry so many of the last cycles are kept: three whole ones, and what led into them."""

STIMULUS, UNKNOWN = -1, -2
"""Parents that are no row of the log: a stimulus, and an activation older than the log."""


def join(parts: Sequence[Part]) -> Activations:
    """Join logs of consecutive runs into one in time order, with parents as rows of it.

    parts: (log, parent_node (k,)) in the order of the runs; the log's parents are its own rows, STIMULUS, or UNKNOWN for a firing of an
    earlier run, of which parent_node is the node. A parent older than the joined log stays UNKNOWN.
    """
    nodes = [log.node for log, _ in parts]
    size = 1 + max((int(max(log.node.max(), p.max())) for log, p in parts if len(log.node)), default=0)
    last = np.full(size, UNKNOWN, np.int32)
    offset, parents = 0, []
    for log, parent_node in parts:
        inside = np.where(log.parent >= 0, log.parent + offset, log.parent)
        # a node's last firing before this run is the one whose wave was under way when it began
        parents.append(np.where(log.parent == UNKNOWN, last[np.maximum(parent_node, 0)], inside).astype(np.int32))
        # of repeated indices numpy keeps the last: rows are in time order
        last[log.node] = np.arange(offset, offset + len(log.node), dtype=np.int32)
        offset += len(log.node)
    return Activations(
        np.concatenate([*nodes, np.zeros(0, np.int32)]).astype(np.int32),
        np.concatenate([*(log.activation_ms for log, _ in parts), np.zeros(0)]),
        np.concatenate([*(log.recovery_ms for log, _ in parts), np.zeros(0)]),
        np.concatenate([*parents, np.zeros(0, np.int32)]).astype(np.int32),
    )


def roots(log: Activations) -> NDArray[np.int64]:
    """Row of the oldest known ancestor of each row, (k,): found by pointer doubling."""
    up = np.where(log.parent >= 0, log.parent, np.arange(len(log.node))).astype(np.int64)
    for _ in range(64):
        further = up[up]
        if (further == up).all():
            break
        up = further
    return up


def wave_of(log: Activations, stimulus_ms: float, within_ms: float = 25.0) -> NDArray[np.bool_]:
    """Rows of the wave that a stimulus started (it included), (k,) bool."""
    root = roots(log)
    born = (log.parent == STIMULUS) & (log.activation_ms >= stimulus_ms - 1e-6) & (log.activation_ms <= stimulus_ms + within_ms)
    return born[root]


def captured(log: Activations, stimulus_ms: float) -> bool:
    """True if a stimulus started a wave that left the stimulated nodes: it fired at least as many others."""
    wave = wave_of(log, stimulus_ms)
    own = int((wave & (log.parent == STIMULUS)).sum())
    return own > 0 and int(wave.sum()) >= 2 * own


def reentered(log: Activations, stimulus_ms: float) -> int:
    """How many extra times the wave of the last stimulus came back to the node that it visited most often."""
    nodes = log.node[wave_of(log, stimulus_ms)]
    return int(np.bincount(nodes).max()) - 1 if len(nodes) else 0


def steady_cycle_ms(log: Activations, since_ms: float, cycles: int, tolerance: float) -> float | None:
    """Cycle length if most nodes that fired lately have their last `cycles` intervals within `tolerance` of the median, else None."""
    rows = log.activation_ms >= since_ms
    node, time = log.node[rows], log.activation_ms[rows]
    order = np.lexsort((time, node))
    node, time = node[order], time[order]
    if len(node) <= cycles:
        return None
    full = np.flatnonzero(np.append(node[1:] != node[:-1], True))
    full = full[full >= cycles]
    full = full[node[full - cycles] == node[full]]
    active = len(np.unique(node[time > time.max() - 400.0]))
    if len(full) < 0.5 * active:
        return None
    laps = np.stack([time[full - k] - time[full - k - 1] for k in range(cycles)], axis=1)
    middle = float(np.median(laps))
    steady = (np.abs(laps - middle) <= tolerance * middle).all(axis=1)
    return middle if steady.sum() >= 0.5 * active else None


def follow(
    run: Callable[[Any, float], tuple[Any, Part]], state: Any, first: Part, since_ms: float, until_ms: float, rule: Sustained
) -> tuple[Activations, float | None, str]:
    """Go on with what a stimulus started until it is quiet, steady or has lasted for long enough.

    run: from a state to a time, the next state and what happened; first: what happened until `until_ms`; since_ms: the stimulus. Returns
    the whole log, the cycle length where it became steady, and why it counts as going on, empty where it ended.
    """
    parts, log = [first], join([first])
    while len(parts[-1][0].node):
        if until_ms - since_ms >= rule.after_ms:
            return log, None, f"reentry for {rule.after_ms:g} ms"
        if rule.identical_cycles and (cycle := steady_cycle_ms(log, since_ms, rule.identical_cycles, rule.tolerance)):
            return log, cycle, f"{rule.identical_cycles} identical cycles"
        until_ms = min(until_ms + CHUNK_MS, since_ms + rule.after_ms)
        state, part = run(state, until_ms)
        parts.append(part)
        log = join(parts)
    return log, None, ""


def kind_of(log: Activations, since_ms: float, sustained: bool, cycles: int = 2, tolerance: float = 0.1) -> str:
    """monomorphic if the last cycles are alike at most nodes, polymorphic if a sustained reentry never settles, else non-sustained."""
    if not sustained:
        return "non-sustained"
    return "monomorphic" if steady_cycle_ms(log, since_ms, cycles, tolerance) is not None else "polymorphic"


def last_cycles(log: Activations) -> tuple[Activations, float]:
    """The last KEPT_CYCLES of a reentry, and its cycle length (`mean_cycle_ms` of them). Raises ValueError where no node fired twice."""
    rough = typical_cycle_ms(log)
    if rough is None:
        raise ValueError("nothing was activated twice")
    kept = tail(log, float(log.activation_ms.max()) - KEPT_CYCLES * rough)
    return kept, mean_cycle_ms(kept) or rough


def tail(log: Activations, since_ms: float) -> Activations:
    """The rows from a time on, parents renumbered; older parents become UNKNOWN."""
    keep = np.flatnonzero(log.activation_ms >= since_ms)
    number = np.full(len(log.node), UNKNOWN, np.int32)
    number[keep] = np.arange(len(keep), dtype=np.int32)
    parent = log.parent[keep]
    return Activations(
        log.node[keep], log.activation_ms[keep], log.recovery_ms[keep], np.where(parent >= 0, number[np.maximum(parent, 0)], parent)
    )
