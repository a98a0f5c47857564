"""Trains given again to a treated heart: of what the untreated heart did with them, only what lies behind lesions is made anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.pacing.protocol import Sustained
from planners.pacing.site import Reexcitable
from planners.pacing.trace import FIRST_MS, Part, captured, follow, join, last_cycles, reentered
from solvers.eikonal.reentrant import ReentrantEikonal, State
from solvers.kernels.reentrant import STIMULUS
from twin.errors import Interrupted
from twin.experiment import Activations

Nodes = NDArray[np.int32]
Mask = NDArray[np.bool_]

MOST_BEHIND, ROUNDS = 0.05, 3
"""Lesions that change more than this share of the nodes, or are not settled after so many rounds, are paced from rest."""


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
    """What stimuli did from rest up to a time: the state then, every activation, and whether no front met tissue that had not recovered."""

    state: State
    activations: Activations
    clean: bool

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        log = self.activations
        arrays = [*self.state.snapshot().values(), log.node, log.activation_ms, log.recovery_ms, log.parent]
        return sum(int(array.nbytes) for array in arrays)


def drive(model: ReentrantEikonal, train: Train) -> Drive:
    """The drive of a train from rest, until its first extrastimulus."""
    state, log = model.run(model.rest(), [(t, train.nodes) for t in train.beats_ms], train.extras_ms[0])
    return Drive(state, log.activations, not log.blocked and not log.waited)


def behind(untreated: ReentrantEikonal, treated: ReentrantEikonal, train: Train, known: Drive) -> State:
    """The state of the treated heart at the first extrastimulus, from what the untreated heart's drive was, else from rest."""
    found = changed_by(untreated, treated, train.nodes, train.beats_ms, train.extras_ms[0], known)
    return drive(treated, train).state if found is None else found


def changed_by(
    untreated: ReentrantEikonal, treated: ReentrantEikonal, nodes: Nodes, times_ms: Sequence[float], until_ms: float, known: Drive
) -> State | None:
    """The treated heart's state after stimuli at times_ms, to the last bit, from the untreated heart's `known` run until the same time.

    Nodes of the lesions and what was excited through them are run again, with the firings of everything around as given; a ring of nodes
    that the lesions should not have changed is run too, and joins the others where a single bit of it has changed. What is outside an
    unchanged ring cannot have. None where that cannot be told: the run or the changed part of it met block, lesions change it widely or
    at the electrode, or a beat would not have captured without what they change.
    """
    if not known.clean:
        return None
    away = untreated.geometry.conducting & ~treated.geometry.conducting
    n, tets = len(known.state.time_ms), untreated.mesh.tets
    log = known.activations
    beats = _beats(log, times_ms, n)
    if beats is None:
        return None
    lesions = _touched(tets, away, n)
    changed = lesions.copy()
    changed[log.node[_descended(log, lesions)]] = True
    electrode = np.zeros(n, bool)
    electrode[nodes] = True
    for _ in range(ROUNDS):
        if changed.mean() > MOST_BEHIND or any(np.isfinite(b[~changed]).sum() < 2 * len(nodes) for b in beats):
            return None
        free = _touched(tets, untreated.geometry.conducting & changed[tets].any(axis=1), n)
        part = None if (free & electrode).any() else _rerun(treated, free, times_ms, beats, until_ms)
        if part is None:
            return None
        ring = free & ~changed
        both = {name: (getattr(part, name), array) for name, array in known.state.snapshot().items() if array.shape[:1] == (n,)}
        moved = ring & np.any([(new != old).reshape(n, -1).any(axis=1) for new, old in both.values()], axis=0)
        if not moved.any():
            inside: dict[str, Any] = {
                name: np.where(changed.reshape(n, *[1] * (new.ndim - 1)), new, old) for name, (new, old) in both.items()
            }
            return replace(known.state, **inside)
        changed |= moved
    return None


def _touched(tets: NDArray[np.integer], chosen: Mask, n: int) -> Mask:
    """Nodes of the chosen tetrahedra, (n,)."""
    out = np.zeros(n, bool)
    out[tets[chosen].ravel()] = True
    return out


def _descended(log: Activations, nodes: Mask) -> Mask:
    """Rows of a log of these nodes, and of what was excited through them."""
    hit = nodes[log.node]
    up = np.where(log.parent >= 0, log.parent, np.arange(len(log.node)))
    # so many doublings reach every ancestor; firings that corrected one another may be each other's parents, so no root need be reached
    for _ in range(len(log.node).bit_length()):
        hit, up = hit | hit[up], up[up]
    return hit


def _beats(log: Activations, times_ms: Sequence[float], n: int) -> list[NDArray[np.float64]] | None:
    """Time at which each beat fired each node, inf where it did not, (n,) per beat; None if beats run into each other."""
    ends = (*times_ms[1:], np.inf)
    out = []
    for begin, end in zip(times_ms, ends, strict=True):
        mine = (log.activation_ms >= begin) & (log.activation_ms < end)
        if not _once(log.node[mine]):
            return None
        time = np.full(n, np.inf)
        time[log.node[mine]] = log.activation_ms[mine]
        out.append(time)
    return out


def _once(nodes: NDArray[np.integer]) -> bool:
    return len(np.unique(nodes)) == len(nodes)


def _rerun(
    model: ReentrantEikonal, free: Mask, times_ms: Sequence[float], beats: Sequence[NDArray[np.float64]], until_ms: float
) -> State | None:
    """The same beats in the tissue around the free nodes alone: all others fire when they are known to.

    None if anything was blocked, held, or fired twice in a beat.
    """
    near: Mask = np.any(free[model.mesh.tets], axis=1)
    small = model.with_blocked(~near)
    edge = _touched(model.mesh.tets, near & model.geometry.conducting, len(free)) & ~free
    state = model.rest()
    for k, beat in enumerate(beats):
        state.trial_ms[edge], state.cause[edge], state.trial_lag_ms[edge] = beat[edge], STIMULUS, 0.0
        last = k + 1 == len(beats)
        state, log = small.run(state, [], until_ms if last else np.nextafter(times_ms[k + 1], 0.0))
        if log.blocked or log.waited or not _once(log.activations.node):
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

    log, _, why = follow(go_on, state, part, taken[-1], until, rule)
    last = train.extras_ms[-1] in taken
    if not why or not reentered(log, taken[-1]):
        return Answer(last, False)
    return Answer(last, True, round(last_cycles(log)[1], 3))
