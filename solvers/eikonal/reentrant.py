"""Re-excitable eikonal: many beats, block and re-entry from arrival times and restitution alone; one run is one thread.

Repolarising tissue feels its neighbours: restitution is mixed over the distance that goes with its diffusion coefficient. A front that
runs into tissue which has not recovered is lost there, and so is what lies within reach of it (solvers/verify/reentry.py).
Curvature slows a front by D kappa where it is asked for. Not in the model: source-sink mismatch, memory, anisotropic block.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing import p1
from solvers.eikonal.mesh import EikonalMesh
from solvers.eikonal.regions import SICKNESS, blend, present, sickest, source_of
from solvers.eikonal.restitution import RestitutionTable
from solvers.kernels import reentrant as kernel
from solvers.kernels.heap import push
from solvers.monodomain.operators import fibre_tensor
from twin.errors import InputError
from twin.experiment import Activations
from twin.mesh import HeartMesh
from twin.tissue import Velocity

TABLE_SIZE = 1001
"""Entries of 1 ms: tissue that has rested for a second is at its steady value."""

Stimuli = Sequence[tuple[float, NDArray[np.integer]]]


@dataclass(frozen=True)
class Settings:
    """What the eikonal itself does not fix; the defaults are fitted to monodomain sheets (solvers/verify/reentry.py).

    wait_ms: a front may wait so long in all for nodes to recover (what it waited fades as it runs freely); it is blocked where more
    were needed. latency_ms: an electrode captures tissue that recovers within this time, then. extension_ms: a block lengthens by this,
    once per beat, the refractoriness of the node and of what the front would have reached next before it recovered: it lies beside
    depolarised tissue. correct: a node that fired may be moved back when a later simplex makes it earlier by more than threshold_ms
    (without: no convergence at velocity ratios of 4). blend_ms: tables are mixed across region borders over sqrt(D blend_ms), D the
    diffusion coefficient that goes with each tissue's velocity along and across the fibres; 0: each node takes the sickest tissue
    that it touches. curvature: share of D kappa that a front which diverges loses of its velocity (and gains where it converges): 1 is the
    continuum's, 0 leaves it out and costs nothing.
    """

    wait_ms: float = 5.0
    latency_ms: float = 20.0
    extension_ms: float = 100.0
    correct: bool = True
    threshold_ms: float = 0.02
    blend_ms: float = 150.0
    curvature: float = 0.0

    def __post_init__(self) -> None:
        for name in ("wait_ms", "latency_ms", "extension_ms", "threshold_ms", "blend_ms", "curvature"):
            if not getattr(self, name) >= 0.0:
                raise InputError("reentrant eikonal", name, f"{getattr(self, name)} is negative", "give 0 or more")


@dataclass(frozen=True)
class Sustained:
    """Stop when `laps` successive cycle lengths of one node, since the last stimulus, agree within `tolerance` of each other."""

    laps: int = 3
    tolerance: float = 0.05


@dataclass
class State:
    """Everything that decides the future: per node (n,) and the pending firings. A run never changes the state that it starts from.

    time_ms last firing, end_ms of its action potential, ready_ms from when on it can fire, end_before_ms, ready_before_ms the same before
    that firing; trial_ms time of the pending firing (inf: none), cause the node behind it (-1: a stimulus); lag_ms, trial_lag_ms how long
    the front of either had waited; held, stopped: a wait or a block was counted since the last firing; now_ms: until when this state is
    known; last_stimulus_ms; slope (n, 3), slowed (n,): gradient of the last arrival and what its curvature takes, empty without curvature.
    """

    time_ms: NDArray[np.float64]
    end_ms: NDArray[np.float64]
    ready_ms: NDArray[np.float64]
    end_before_ms: NDArray[np.float64]
    ready_before_ms: NDArray[np.float64]
    trial_ms: NDArray[np.float64]
    cause: NDArray[np.int32]
    lag_ms: NDArray[np.float64]
    trial_lag_ms: NDArray[np.float64]
    held: NDArray[np.bool_]
    stopped: NDArray[np.bool_]
    now_ms: float = -np.inf
    last_stimulus_ms: float = -np.inf
    slope: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    slowed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def snapshot(self) -> dict[str, NDArray]:
        """The state as plain arrays, for saving."""
        return {f.name: np.array(getattr(self, f.name)) for f in fields(self)}

    @staticmethod
    def restore(arrays: Mapping[str, NDArray]) -> State:
        """The state from what `snapshot` gave."""
        scalars = ("now_ms", "last_stimulus_ms")
        values: dict[str, Any] = {name: float(a) if name in scalars else np.array(a) for name, a in arrays.items()}
        return State(**values)


@dataclass(frozen=True)
class Log:
    """What happened in one run.

    activations: in time order, `parent` a row of the same log, -1 a stimulus, -2 a firing before this run; parent_node (k,) the node that
    each firing came from (-1 a stimulus); captured: nodes excited by each stimulus; blocked, waited: nodes at which a front was
    stopped or held (once per beat of the node); corrected: firings that were moved back; quiet: nothing is left to happen; sustained:
    the run was stopped for like cycles, at `lap_node` with its last cycle length.
    A firing just before the end of a run may still be corrected in the next one; this log keeps the time it had.
    """

    activations: Activations
    parent_node: NDArray[np.int32]
    captured: tuple[int, ...]
    blocked: int
    waited: int
    corrected: int
    quiet: bool
    sustained: bool = False
    lap_node: int = -1
    cycle_length_ms: float = float("nan")


@dataclass
class _Book:
    """Growing log of one run, as the kernel writes it."""

    node: NDArray[np.int32]
    time: NDArray[np.float64]
    end: NDArray[np.float64]
    parent: NDArray[np.int32]
    cause: NDArray[np.int32]
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))

    @staticmethod
    def of(size: int) -> _Book:
        return _Book(np.empty(size, np.int32), np.empty(size), np.empty(size), np.empty(size, np.int32), np.empty(size, np.int32))

    def grow(self) -> None:
        for name in ("node", "time", "end", "parent", "cause"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.empty_like(old)]))

    def sorted(self) -> tuple[Activations, NDArray[np.int32]]:
        k = int(self.counts[kernel.FIRED])
        node, time, end, parent = self.node[:k], self.time[:k], self.end[:k], self.parent[:k]
        order = np.lexsort((node, time))
        place = np.empty(k, np.int32)
        place[order] = np.arange(k, dtype=np.int32)
        linked = np.where(parent >= 0, place[np.maximum(parent, 0)] if k else parent, parent)[order]
        return Activations(node[order], time[order], end[order], linked.astype(np.int32)), self.cause[:k][order]


class ReentrantEikonal:
    """Re-excitable anisotropic eikonal on a HeartMesh.

    velocities: region -> steady velocity at a cycle of 600 ms; tables: region -> restitution; the isthmus takes the border zone's where
    it has none. Raises InputError when a region of the mesh has neither. Safe to run from several threads at once.
    """

    def __init__(
        self,
        mesh: HeartMesh,
        velocities: Mapping[str, Velocity],
        tables: Mapping[str, RestitutionTable],
        settings: Settings | None = None,
    ) -> None:
        self.mesh, self.settings = mesh, settings or Settings()
        self.geometry = EikonalMesh(mesh.points_mm, mesh.tets, mesh.fibre, mesh.conducting())
        along, across = np.ones(len(mesh.tets)), np.ones(len(mesh.tets))
        names = present(mesh)
        for name in names:
            speed, tets = velocities[source_of(name, set(velocities))], mesh.in_region(name)
            along[tets], across[tets] = speed.longitudinal_m_s, speed.transverse_m_s
        self._length2 = self.geometry.metric_lengths2(along, across)
        self._longest = np.sqrt(self._length2.max(axis=1))
        self._altitude = kernel.altitudes(self._length2)
        self._set_tables(names, tables, along, across)
        self._set_curvature(names, tables, along, across)

    def _set_curvature(
        self, names: Sequence[str], tables: Mapping[str, RestitutionTable], along: NDArray[np.float64], across: NDArray[np.float64]
    ) -> None:
        """What the kernel needs of places, velocities and diffusion: nothing where curvature is left out."""
        mesh, share = self.mesh, self.settings.curvature
        n = mesh.n_points if share > 0.0 else 0
        self._points, self._metric, self._reach = np.zeros((n, 3)), np.zeros((n, 6)), np.zeros(n)
        if not n:
            return
        used = list(dict.fromkeys(source_of(name, set(tables)) for name in names))
        self._points[:] = mesh.points_mm
        self._reach[:] = share * (self.weights @ np.array([1.0 / tables[name].cv_per_sqrt_d ** 2 for name in used]))
        volume = np.where(self.geometry.conducting, mesh.tet_volumes_mm3, 0.0)
        self._metric[:] = p1.nodal_mean(fibre_tensor(mesh.fibre, along**2, across**2), mesh.tets, volume, n)

    def _set_tables(
        self, names: Sequence[str], tables: Mapping[str, RestitutionTable], along: NDArray[np.float64], across: NDArray[np.float64]
    ) -> None:
        column = {name: source_of(name, set(tables)) for name in names}
        used = list(dict.fromkeys(column.values()))
        place = np.array([used.index(column[name]) if name in column else 0 for name in SICKNESS])
        mesh, conducting = self.mesh, self.geometry.conducting
        if self.settings.blend_ms > 0 and len(used) > 1:
            share, kind = np.ones(len(mesh.tets)), np.zeros((len(mesh.tets), len(used)))
            for name in names:
                tets = mesh.in_region(name)
                share[tets] = self.settings.blend_ms / tables[column[name]].cv_per_sqrt_d ** 2
                kind[tets, used.index(column[name])] = 1.0
            weights = blend(mesh, conducting, kind, share * along**2, share * across**2)
        else:
            weights = np.eye(len(used))[place[sickest(mesh, conducting)]]
        self.weights = np.ascontiguousarray(weights, np.float32)
        sampled = [tables[name].sampled(TABLE_SIZE) for name in used]
        self._apd, self._cv = (np.ascontiguousarray([pair[i] for pair in sampled]) for i in (0, 1))
        self._di_min = np.array([tables[name].di_min_ms for name in used])

    def with_blocked(self, tets: NDArray[np.bool_]) -> ReentrantEikonal:
        """The same heart in which the marked tetrahedra (m,) do not conduct any more (lesions); tables and metric are shared."""
        out = copy.copy(self)
        out.geometry = self.geometry.with_blocked(tets)
        return out

    def rest(self) -> State:
        """Tissue that has never been excited."""
        n = self.mesh.n_points
        return State(
            time_ms=np.full(n, kernel.NEVER_MS),
            end_ms=np.full(n, kernel.NEVER_MS),
            ready_ms=np.full(n, kernel.NEVER_MS),
            end_before_ms=np.full(n, kernel.NEVER_MS),
            ready_before_ms=np.full(n, kernel.NEVER_MS),
            trial_ms=np.full(n, np.inf),
            cause=np.full(n, kernel.STIMULUS, np.int32),
            lag_ms=np.zeros(n),
            trial_lag_ms=np.zeros(n),
            held=np.zeros(n, np.bool_),
            stopped=np.zeros(n, np.bool_),
        )

    def run(self, state: State, stimuli: Stimuli, until_ms: float, stop: Sustained | None = None) -> tuple[State, Log]:
        """Go on from a state until a time, or until nothing is left to happen, or until re-entry is `stop`.

        stimuli: (time_ms, nodes) in any order, none before the state's own time; tissue that has not recovered does not take them.
        Raises InputError for a stimulus in the past or on nodes that do not exist.
        """
        ordered = self._checked(state, stimuli, until_ms)
        run = _Run(self, state, stop)
        captured = []
        for at, nodes in ordered:
            run.advance(at, None)
            captured.append(run.stimulate(at, nodes))
        why, lap_node = run.advance(until_ms, stop)
        # tissue with nothing pending stays as it is, so the whole span is known
        run.state.now_ms = max(until_ms, state.now_ms) if why != kernel.SUSTAINED else float(run.state.time_ms[lap_node])
        activations, parent_node = run.book.sorted()
        blocked, waited, corrected, _ = (int(c) for c in run.book.counts)
        sustained = why == kernel.SUSTAINED
        cycle = float(run.lap_ms[lap_node]) if sustained else float("nan")
        quiet = why == kernel.QUIET
        return run.state, Log(activations, parent_node, tuple(captured), blocked, waited, corrected, quiet, sustained, lap_node, cycle)

    def _checked(self, state: State, stimuli: Stimuli, until_ms: float) -> list[tuple[float, NDArray[np.int32]]]:
        where = "reentrant eikonal"
        if len(state.time_ms) != self.mesh.n_points:
            raise InputError(where, "state", "belongs to another mesh", "start from this model's rest()")
        ordered = sorted(((float(at), np.unique(np.asarray(nodes)).astype(np.int32)) for at, nodes in stimuli), key=lambda s: s[0])
        for at, nodes in ordered:
            if not state.now_ms <= at <= until_ms:
                problem = f"{at:g} ms is outside {state.now_ms:g} to {until_ms:g} ms"
                raise InputError(where, "stimuli", problem, "stimulate between the state's time and the end")
            if len(nodes) and not (nodes[0] >= 0 and nodes[-1] < self.mesh.n_points):
                raise InputError(where, "stimuli", "node number out of range", f"use 0 to {self.mesh.n_points - 1}")
        return ordered


class _Run:
    """One run in progress: a private copy of the state, the queue, and the log."""

    def __init__(self, model: ReentrantEikonal, state: State, stop: Sustained | None) -> None:
        n = model.mesh.n_points
        self.model, self.state = model, copy.deepcopy(state)
        if model.settings.curvature > 0.0 and not len(state.slowed):
            self.state.slope, self.state.slowed = np.zeros((n, 3)), np.zeros(n)
        self.room = 3 * int(np.diff(model.geometry.start).max()) + 1
        self._heap(4 * n + 4 * self.room)
        self.size = 0
        for v in np.flatnonzero(np.isfinite(state.trial_ms)):
            self.size = push(self.heap_time, self.heap_node, self.size, state.trial_ms[v], v)
        self.factor = kernel.last_factors(model._cv, model._di_min, model.weights, state.time_ms, state.end_before_ms)
        self.row = np.full(n, -1, np.int32)
        self.asked, self.answer = np.full(n, -1, np.int64), np.empty(n)
        self.lap_ms, self.laps = np.zeros(n), np.zeros(n, np.int32)
        self.book = _Book.of(4 * n)

    def _heap(self, capacity: int) -> None:
        self.heap_time, self.heap_node = np.empty(capacity), np.empty(capacity, np.int32)

    def stimulate(self, at: float, nodes: NDArray[np.int32]) -> int:
        """Apply one stimulus; returns how many nodes took it."""
        s = self.state
        s.last_stimulus_ms = at
        if self.size + len(nodes) > len(self.heap_time):
            self._grow_heap(len(nodes))
        self.size, taken = kernel.stimulate(
            nodes, at, self.model.settings.latency_ms, self.model.geometry.start, s.ready_ms, s.trial_ms, s.cause, s.trial_lag_ms,
            self.heap_time, self.heap_node, self.size,
        )  # fmt: skip
        return int(taken)

    def _grow_heap(self, extra: int) -> None:
        time, node = self.heap_time[: self.size], self.heap_node[: self.size]
        self._heap(2 * len(self.heap_time) + extra)
        self.heap_time[: self.size], self.heap_node[: self.size] = time, node

    def advance(self, until: float, stop: Sustained | None) -> tuple[int, int]:
        """Run the kernel to a time, giving it larger arrays whenever it asks; returns why it ended and the node of the laps."""
        m, s, settings = self.model, self.state, self.model.settings
        geometry, threshold = m.geometry, settings.threshold_ms if settings.correct else -1.0
        laps, tolerance = (stop.laps, stop.tolerance) if stop else (0, 0.0)
        while True:
            book = self.book
            why, self.size, node = kernel.advance(
                geometry.start, geometry.around, geometry.tets, m._length2, m._longest, m._altitude, m._apd, m._cv, m._di_min, m.weights,
                s.time_ms, s.end_ms, s.ready_ms, s.end_before_ms, s.ready_before_ms, s.trial_ms, s.cause, s.lag_ms,
                s.trial_lag_ms, s.held, s.stopped, m._points, m._metric, m._reach, s.slope, s.slowed, self.factor, self.asked, self.answer,
                self.heap_time, self.heap_node, self.size, self.row, book.node, book.time, book.end, book.parent, book.cause, book.counts,
                self.lap_ms, self.laps, until, s.last_stimulus_ms, settings.wait_ms, settings.extension_ms, threshold,
                laps, tolerance, self.room,
            )  # fmt: skip
            if why == kernel.LOG_FULL:
                book.grow()
            elif why == kernel.HEAP_FULL:
                self._grow_heap(self.room)
            else:
                return int(why), int(node)
