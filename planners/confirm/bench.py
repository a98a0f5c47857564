"""Monodomain on a part of a twin: paced from sites or started from a phase, followed until it is quiet, circles, or its time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from planners.circuits.loop import intervals
from planners.confirm.membrane import Recovery, cells_of, recovery_of
from planners.confirm.part import Part, lattice_part
from solvers.eikonal.regions import present, source_of
from solvers.eikonal.restitution import RestitutionTable, load_tables
from solvers.ionic import Cells
from solvers.ionic.restitution import STIMULUS_MS, STIMULUS_MV_MS
from solvers.monodomain.correction import find_lattice, for_velocities
from solvers.monodomain.excitability import THETA, excitable
from solvers.monodomain.pulses import CAPTURE_MS
from solvers.monodomain.solver import STABLE_SHARE, Monodomain, Settings, Stop
from solvers.monodomain.state import Snapshot
from solvers.monodomain.stop import ReentryCycles
from twin.errors import RunFailed
from twin.experiment import Activations, Result, Status, Stimulus
from twin.model import Twin
from twin.params import Param

DT_MS = Param(0.1, "ms", 0.02, 0.1, "as the sheets of docs/reentry.md; velocity within 1 % of dt 0.005 (design/monodomain.md)")
EDGE_MM = Param(0.8, "mm", 0.4, 0.8, "mean edge up to which corrected velocities are predictive (solvers.monodomain)")
QUIET_MS = Param(
    150.0, "ms", 60.0, 300.0, "as the sheets: nothing activated for so long, nothing will be; a waiting front waits 60 ms at most"
)
LEAST_MS = 200.0
"""No tissue of the tables is excited again sooner (healthy: 194 ms and 35 of rest). What crosses the threshold again before that hovered
round it, as the edge of border zone does for up to 135 ms."""
LOOK_MS = 50.0
"""How often laps are counted from the whole log, once the solver's own count says that there are enough."""

FLOOR_MS = 200.0
"""No coupling interval that captures is shorter: so far is a prefix computed once for all trains that begin with it."""

Nodes = NDArray[np.int32]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class BenchSettings:
    """edge_mm: mean edge of the lattice; cycles: laps of one node that make reentry sustained; follow_ms: after the last stimulus (or the
    start) the question is then left open; minutes: of wall time for one run, None: no limit.
    """

    edge_mm: float = EDGE_MM.value
    cycles: int = 3
    follow_ms: float = 2000.0
    minutes: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How one run ended.

    ended: "sustained", "quiet", "no capture", "time" (still going when follow_ms were over) or "cut off" (minutes); lasted_ms: last
    activation after the last stimulus (or the start); laps of the node that had most; cycle_length_ms: median of the nodes' last
    intervals, None without reentry; cpu_s, model_ms: of what this run did not share with others; log: every activation of the part's
    nodes, from the first stimulus (or the start) on.
    """

    ended: str
    lasted_ms: float
    laps: int
    cycle_length_ms: float | None
    cpu_s: float
    model_ms: float
    log: Activations = field(repr=False)

    @property
    def sustained(self) -> bool:
        """Reentry that went on for as many laps as asked."""
        return self.ended == "sustained"


def laps_of(log: Activations, since_ms: float) -> tuple[int, float | None]:
    """Most returns to one node after a time, and the median of the last intervals of the nodes that were visited most (None: no return).

    A voltage that hovers round the threshold crosses it again at once: an upstroke within LEAST_MS of the last is none.
    """
    rows = log.activation_ms > since_ms
    node, at, recovered = log.node[rows], log.activation_ms[rows], log.recovery_ms[rows]
    order = np.lexsort((at, node))
    fresh = np.ones(len(order), bool)
    fresh[1:] = (np.diff(node[order]) != 0) | (np.diff(at[order]) >= LEAST_MS)
    kept = order[fresh]
    node, _, interval = intervals(Activations(node[kept], at[kept], recovered[kept]))
    if not len(node):
        return 0, None
    count = np.bincount(node)
    laps = int(count.max())
    last = np.append(node[1:] != node[:-1], True)
    return laps, float(np.median(interval[last & (count[node] >= max(1, laps - 1))]))


class _Watcher:
    """Ends a run that is sustained, that is quiet (no new upstroke for QUIET_MS), or that has had its minutes."""

    def __init__(self, settings: BenchSettings, since_ms: float, not_before_ms: float) -> None:
        self.reentry, self.cycles = ReentryCycles(settings.cycles), settings.cycles
        self.since_ms, self.not_before_ms, self.next_ms = since_ms, not_before_ms, 0.0
        self.ends_s = None if settings.minutes is None else time.monotonic() + 60.0 * settings.minutes

    def __call__(self, solver: Monodomain) -> Stop | None:
        if solver.time_ms >= self.next_ms and (found := self.reentry(solver)) is not None:
            if laps_of(solver.log.activations(), self.since_ms)[0] >= self.cycles:
                return found
            self.next_ms = solver.time_ms + LOOK_MS
        if solver.time_ms - max(solver.log.newest_ms, self.not_before_ms) > QUIET_MS.value:
            return Stop(f"nothing was activated for {QUIET_MS.value:g} ms", "quiet")
        if self.ends_s is not None and time.monotonic() > self.ends_s:
            return Stop("the time given is over", "cut off")
        return None


class Bench:
    """The monodomain equation on the conducting part `keep` (m,) of a twin's heart; cells and velocities agree with the reduced model's.

    blocked (m,) bool: lesions. tables: restitution of the reduced model (None: the shipped ones). `report` is the mesh's correction.
    Measuring a tissue for the correction takes half a minute the first time; it is cached. Raises InputError for regions without
    velocities or a part without muscle, RunFailed where no cell has a table's duration.
    """

    def __init__(
        self,
        twin: Twin,
        keep: NDArray[np.bool_],
        settings: BenchSettings | None = None,
        *,
        tables: Mapping[str, RestitutionTable] | None = None,
        tissue_sample: int = 0,
        blocked: NDArray[np.bool_] | None = None,
        tell: Tell | None = None,
    ) -> None:
        self.settings, say = settings or BenchSettings(), tell or (lambda _: None)
        mesh = twin.mesh if blocked is None else twin.mesh.with_region(blocked, "lesion")
        self.part: Part = lattice_part(mesh, keep, self.settings.edge_mm)
        cells = cells_of(present(self.part.mesh), load_tables() if tables is None else tables)
        known = twin.tissue.velocities(tissue_sample)
        speeds = {name: known[source_of(name, set(known))] for name in cells}
        lattice = find_lattice(self.part.mesh.points_mm, self.part.mesh.tets)[0]
        fitted = {}
        for name, cell in cells.items():
            say(f"excitability of {name} on this lattice")
            fitted[name] = excitable(lattice, (speeds[name].longitudinal_m_s, speeds[name].transverse_m_s), cell, THETA)
        self.models = {name: e.model for name, e in fitted.items()}
        correction = for_velocities(self.part.mesh, speeds, self.models, lambda what, _: say(what), THETA)
        self.report = correction.report | {"sodium_gain": {name: e.gain for name, e in fitted.items()}}
        self.kind = self._majority()
        self.solver = self._solver(correction.tensor)
        self._begin = self.solver.snapshot()
        self._prefixes: dict[tuple[bytes, tuple[float, ...]], tuple[Snapshot, list[Stimulus]]] = {}
        say(f"{len(self.solver.nodes)} nodes of {self.solver.mean_edge_mm:.2f} mm, dt {self.solver.dt_ms:g} ms")

    def _majority(self) -> Nodes:
        """Place in `models` of the tissue that fills most of the volume round each node, (n,)."""
        mesh = self.part.mesh
        volume = np.zeros((len(self.models), mesh.n_points))
        for k, name in enumerate(self.models):
            mine = mesh.in_region(name)
            np.add.at(volume[k], mesh.tets[mine].ravel(), np.repeat(mesh.tet_volumes_mm3[mine], 4))
        return np.argmax(volume, axis=0).astype(np.int32)

    def _solver(self, tensor: NDArray[np.float64]) -> Monodomain:
        mesh, models = self.part.mesh, list(self.models.values())
        # the tensor is in place of these
        unused = np.zeros(len(mesh.tets))

        def make(dt_ms: float) -> Monodomain:
            settings = Settings(dt_ms=dt_ms, theta=THETA)
            cells = lambda nodes: Cells(models, self.kind[nodes])  # noqa: E731
            return Monodomain(mesh.points_mm, mesh.tets, mesh.fibre, unused, unused, cells, settings, tensor=tensor)

        solver = make(DT_MS.value)
        bound = STABLE_SHARE.value * solver.limit_ms
        return solver if bound >= DT_MS.value else make(bound)

    def train(
        self, site: NDArray[np.integer], times_ms: Sequence[float], brought: Mapping[float, Sequence[Stimulus]] | None = None
    ) -> Outcome:
        """Pace from nodes of the twin's mesh at these times, ascending from 0, and follow the last; what trains share is computed once.

        brought: stimulus time -> what its wave brings in through the cut border (`planners.confirm.border`).
        """
        nodes = self.part.electrode(site)
        given = brought or {}
        train = [_Beat(t, _own(nodes, t), tuple(given.get(t, ()))) for t in times_ms]
        before = self._prefix(np.asarray(site, np.int32).tobytes(), train[:-1])
        began, start_ms = time.process_time(), self.solver.time_ms
        captured = self._capture(before, train[-1])
        pulses = [*before, *train[-1].stimuli(captured)]
        last = max((s.start_ms[-1] for s in pulses), default=times_ms[-1])
        watcher = _Watcher(self.settings, times_ms[-1], last + STIMULUS_MS)
        result = self.solver.run(pulses, times_ms[-1] + self.settings.follow_ms, stop=watcher)
        return self._outcome(result, times_ms[-1], captured, began, start_ms)

    def _prefix(self, site: bytes, train: list[_Beat]) -> list[Stimulus]:
        """Bring the solver to FLOOR_MS after the last of these beats; the stimuli that were given."""
        if not train:
            self.solver.restore(self._begin)
            return []
        key = site, tuple(b.at_ms for b in train)
        if key not in self._prefixes:
            before = self._prefix(site, train[:-1])
            pulses = [*before, *train[-1].stimuli(self._capture(before, train[-1]))]
            self.solver.run(pulses, train[-1].at_ms + FLOOR_MS)
            self._prefixes[key] = self.solver.snapshot(), pulses
        state, pulses = self._prefixes[key]
        self.solver.restore(state)
        return pulses

    def _capture(self, before: Sequence[Stimulus], beat: _Beat) -> bool:
        """Go on to where it is known whether a beat captures at the site; true where the site lies outside the part.

        What a beat brings in through the border belongs to a wave that is not there if the site did not capture.
        """
        until = beat.at_ms + STIMULUS_MS + CAPTURE_MS.value + 2.0
        mine = [s for s in beat.stimuli(True) if s.start_ms[0] < until]
        result = self.solver.run([*before, *mine], until)
        # pulses come back in the order of the stimuli; those of this beat are all open, the site's own is the first of them
        return not beat.own or bool(result.summary["captured"][-len(mine)])

    def start(self, log: Activations, cycle_ms: float) -> Outcome:
        """Give every cell the state that it has so long after its upstroke in the reduced model's log of a reentry, and let go.

        log: activations of the last cycles on the twin's mesh. Raises RunFailed for cells that do not recover within the cycle.
        """
        began = time.process_time()
        self.solver.restore(self._begin)
        phase = phase_of(self.part, log, cycle_ms)
        self._impose(phase, {name: recovery_of(model, cycle_ms) for name, model in self.models.items()})
        result = self.solver.run([], self.settings.follow_ms, stop=_Watcher(self.settings, 0.0, 0.0))
        return self._outcome(result, 0.0, True, began, 0.0)

    def _impose(self, phase_ms: NDArray[np.float64], recoveries: Mapping[str, Recovery]) -> None:
        """Voltage and states of every node by its phase (n,)."""
        v = np.zeros(len(phase_ms))
        states = np.zeros((len(phase_ms), next(iter(recoveries.values())).states.shape[1]))
        for k, name in enumerate(self.models):
            mine = self.kind == k
            v[mine], states[mine] = recoveries[name].at(phase_ms[mine])
        cells = self.solver.cells
        assert isinstance(cells, Cells)
        for group in cells.groups:
            blocks, count, lanes = group.states.shape
            group.states[:] = states[self.solver.nodes[group.index]].reshape(blocks, lanes, count).transpose(0, 2, 1)
        self.solver.set_v_mv(v)

    def _outcome(self, result: Result, since_ms: float, captured: bool, began_s: float, start_ms: float) -> Outcome:
        if result.status is Status.DIVERGED:
            raise RunFailed(f"confirmation: {result.message}")
        log = result.activations
        laps, cycle = laps_of(log, since_ms)
        reason = result.summary["stop"].get("reason", "") if result.status is Status.STOPPED else ""
        ended = {"reentry": "sustained", "quiet": "quiet" if captured else "no capture", "cut off": "cut off"}.get(reason, "time")
        lasted = max(0.0, float(log.activation_ms.max(initial=since_ms)) - since_ms)
        spent = time.process_time() - began_s
        return Outcome(ended, round(lasted, 1), laps, cycle, round(spent, 1), round(self.solver.time_ms - start_ms, 1), log)


@dataclass(frozen=True)
class _Beat:
    """One stimulus of a train: the site's own pulse, and what its wave brings in through the cut border."""

    at_ms: float
    own: list[Stimulus]
    brought: tuple[Stimulus, ...]

    def stimuli(self, captured: bool) -> list[Stimulus]:
        """Own pulse first; the rest only of a wave that is there."""
        return [*self.own, *(self.brought if captured else ())]


def times_of(coupling_ms: Sequence[float]) -> tuple[float, ...]:
    """When the stimuli of a train come: its last S1 at 0, then the extrastimuli by their intervals."""
    return tuple(float(t) for t in np.concatenate([[0.0], np.cumsum(coupling_ms)]))


def _own(nodes: Nodes, at_ms: float) -> list[Stimulus]:
    return [stimulus(nodes, at_ms)] if len(nodes) else []


def stimulus(nodes: Nodes, at_ms: float) -> Stimulus:
    """One pulse, as strong as those with which the restitution tables were measured."""
    capacitance = Settings().capacitance_uF_mm3
    return Stimulus(nodes, (float(at_ms),), STIMULUS_MS, STIMULUS_MV_MS * capacitance)


def phase_of(part: Part, log: Activations, cycle_ms: float) -> NDArray[np.float64]:
    """Time since the upstroke at every node of the part at the end of a log, (n,) ms; inf where the reduced model had none."""
    end = float(log.activation_ms.max())
    latest = np.full(part.coarse.n_points, -np.inf)
    np.maximum.at(latest, log.node, log.activation_ms)
    nodes, share = part.shares()
    at = latest[nodes]
    newest = at.max(axis=1, keepdims=True)
    # corners on both sides of a front: those behind it count as one cycle later, so that the front lies between
    at = np.where(at < newest - 0.5 * cycle_ms, at + cycle_ms, at)
    known = np.isfinite(at)
    weight = share * known
    total = weight.sum(axis=1)
    middle = np.full(len(at), -np.inf)
    np.divide((weight * np.where(known, at, 0.0)).sum(axis=1), total, out=middle, where=total > 1e-6)
    middle = np.where(middle > end, middle - cycle_ms, middle)
    return np.asarray(end - middle, np.float64)
