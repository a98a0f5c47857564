"""Trains that induced VT, given again to the treated heart: of the untreated heart's drive only what lies behind lesions is made anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.circuits.loop import typical_cycle_ms
from planners.pacing.protocol import Sustained
from planners.pacing.site import Reexcitable
from planners.pacing.trace import FIRST_MS, Part, captured, follow, join, reentered, steady_cycle_ms
from solvers.eikonal.reentrant import Log, ReentrantEikonal, State
from solvers.kernels.reentrant import STIMULUS
from twin.errors import Interrupted
from twin.experiment import Activations

Nodes = NDArray[np.int32]
Mask = NDArray[np.bool_]

MOST_BEHIND, ROUNDS = 0.05, 3
"""Lesions that change more than this share of the drive's nodes, or are not settled after so many rounds, are paced from rest."""


@dataclass(frozen=True)
class Train:
    """One drive and its extrastimuli from one set of nodes: beats_ms of the drive that are computed, extras_ms when the others come."""

    nodes: Nodes
    beats_ms: tuple[float, ...]
    extras_ms: tuple[float, ...]


@dataclass(frozen=True)
class Answer:
    """What a train did: captured, the last extrastimulus; inducible; the cycle where it was."""

    captured: bool
    inducible: bool
    cycle_length_ms: float | None = None


@dataclass(frozen=True)
class Drive:
    """A drive under way, at the time of the first extrastimulus: the state, and the log that led to it."""

    state: State
    log: Log


def drive(model: ReentrantEikonal, train: Train) -> Drive:
    """The drive of a train from rest."""
    return Drive(*model.run(model.rest(), [(t, train.nodes) for t in train.beats_ms], train.extras_ms[0]))


def behind(untreated: ReentrantEikonal, treated: ReentrantEikonal, train: Train, known: Drive) -> State:
    """The state of the treated heart at the first extrastimulus, from what the untreated heart's drive was.

    Nodes of the lesions and what was excited through them are run again, with the firings of everything around as given; a ring of nodes
    that the lesions should not have changed is run too, and joins the others where a single bit of it has changed. What is outside an
    unchanged ring cannot have. A drive with block, or one that lesions change widely or at its own electrode, is run from rest instead.
    """
    away = untreated.geometry.conducting & ~treated.geometry.conducting
    n, tets = len(known.state.time_ms), untreated.mesh.tets
    log = known.log.activations
    changed = np.zeros(n, bool)
    changed[log.node[_descended(log, _touched(tets, away, n))]] = True
    changed |= _touched(tets, away, n)
    electrode = np.zeros(n, bool)
    electrode[train.nodes] = True
    beats = _beats(log, train, n)
    for _ in range(ROUNDS):
        free = _touched(tets, untreated.geometry.conducting & changed[tets].any(axis=1), n)
        if known.log.blocked or known.log.waited or changed.mean() > MOST_BEHIND or (free & electrode).any() or beats is None:
            break
        part = _rerun(treated, free, train, beats)
        if part is None:
            break
        ring = free & ~changed
        both = {name: (getattr(part, name), array) for name, array in known.state.snapshot().items() if array.shape[:1] == (n,)}
        moved = ring & np.any([(new != old).reshape(n, -1).any(axis=1) for new, old in both.values()], axis=0)
        if not moved.any():
            inside: dict[str, Any] = {
                name: np.where(changed.reshape(n, *[1] * (new.ndim - 1)), new, old) for name, (new, old) in both.items()
            }
            return replace(known.state, **inside)
        changed |= moved
    return drive(treated, train).state


def _touched(tets: NDArray[np.integer], chosen: Mask, n: int) -> Mask:
    """Nodes of the chosen tetrahedra, (n,)."""
    out = np.zeros(n, bool)
    out[tets[chosen].ravel()] = True
    return out


def _descended(log: Activations, nodes: Mask) -> Mask:
    """Rows of a log of these nodes, and of what was excited through them."""
    hit = nodes[log.node]
    up = np.where(log.parent >= 0, log.parent, np.arange(len(log.node)))
    while not (up == (further := up[up])).all():
        hit, up = hit | hit[up], further
    return hit | hit[up]


def _beats(log: Activations, train: Train, n: int) -> list[NDArray[np.float64]] | None:
    """Time at which each beat fired each node, inf where it did not, (n,) per beat; None if beats run into each other."""
    ends = (*train.beats_ms[1:], np.inf)
    out = []
    for begin, end in zip(train.beats_ms, ends, strict=True):
        mine = (log.activation_ms >= begin) & (log.activation_ms < end)
        if len(np.unique(log.node[mine])) < mine.sum():
            return None
        time = np.full(n, np.inf)
        time[log.node[mine]] = log.activation_ms[mine]
        out.append(time)
    return out


def _rerun(model: ReentrantEikonal, free: Mask, train: Train, beats: Sequence[NDArray[np.float64]]) -> State | None:
    """The drive in the tissue around the free nodes alone: all others of it fire when they are known to; None if anything was blocked."""
    near: Mask = np.any(free[model.mesh.tets], axis=1)
    small = model.with_blocked(~near)
    edge = _touched(model.mesh.tets, near & model.geometry.conducting, len(free)) & ~free
    state = model.rest()
    for k, beat in enumerate(beats):
        state.trial_ms[edge], state.cause[edge], state.trial_lag_ms[edge] = beat[edge], STIMULUS, 0.0
        last = k + 1 == len(beats)
        state, log = small.run(state, [], train.extras_ms[0] if last else np.nextafter(train.beats_ms[k + 1], 0.0))
        if log.blocked or log.waited:
            return None
    return state


def extend(model: Reexcitable, state: State, train: Train, rule: Sustained, cancelled: Callable[[], bool] = lambda: False) -> Answer:
    """The extrastimuli of a train from the state of its drive, followed until it is quiet, steady or sustained for long enough.

    Reentry counts from the last extrastimulus that was captured. Raises Interrupted when `cancelled` says so.
    """
    until = train.extras_ms[-1] + FIRST_MS
    state, first = model.run(state, [(t, train.nodes) for t in train.extras_ms], until)
    part = (first.activations, first.parent_node)
    log = join([part])
    taken = [t for t in train.extras_ms if captured(log, t)]
    if not taken:
        return Answer(False, False)

    def go_on(state: Any, until_ms: float) -> tuple[Any, Part]:
        if cancelled():
            raise Interrupted("a repeated train was stopped")
        state, more = model.run(state, [], until_ms)
        return state, (more.activations, more.parent_node)

    log, cycle, why = follow(go_on, state, part, taken[-1], until, rule)
    last = train.extras_ms[-1] in taken
    if not why or not reentered(log, taken[-1]):
        return Answer(last, False)
    if cycle is None and rule.identical_cycles:
        # long enough and, at that moment, steady too
        cycle = steady_cycle_ms(log, taken[-1], rule.identical_cycles, rule.tolerance)
    cycle = cycle or typical_cycle_ms(log)
    return Answer(last, True, None if cycle is None else round(cycle, 3))
