"""Is a tachycardia of the reduced model one in monodomain? Started from its phase; where that dies, paced again as it was induced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.circuits.episode import Episode
from planners.confirm.bench import EDGE_MM, LEAST_MS, Bench, BenchSettings, Outcome, times_of
from planners.confirm.border import brought_in
from planners.confirm.part import active_region
from solvers.eikonal.reentrant import ReentrantEikonal
from solvers.eikonal.restitution import RestitutionTable
from twin.errors import RunFailed
from twin.model import Twin
from twin.params import Param
from twin.plan import Circuit

RADIUS_MM = Param(
    25.0, "mm", 15.0, 40.0, "chosen here: of muscle round the circuit and the scar; paced waves come in where it was cut (confirm.border)"
)
SPEED_ERROR = Param(0.15, "1", 0.1, 0.2, "chosen here: with velocities farther off than this, monodomain says nothing about this tissue")
ISTHMUS_MM = 4.0
SUSTAINED, DIED, UNDECIDED = "sustained", "not sustained", "undecided"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ConfirmSettings:
    """edge_mm: mean edge of the monodomain mesh; radius_mm: of the muscle computed; cycles: laps that make it sustained; minutes: of wall
    time for one run; replay: pace again where the start from the phase died.
    """

    edge_mm: float = EDGE_MM.value
    radius_mm: float = RADIUS_MM.value
    cycles: int = 3
    minutes: float = 20.0
    replay: bool = True


@dataclass(frozen=True)
class Confirmation:
    """verdict: "sustained", "not sustained" or "undecided", and why in words; by: "phase" or "pacing"; cycle_difference: monodomain's cycle
    length over the reduced model's, less 1; lasted_ms: last activation after the start (or the last stimulus); same_isthmus: the isthmus of
    the circuit is passed in every lap; predicted_error: of the velocities on this mesh.
    """

    verdict: str
    why: str
    by: str = ""
    cycle_length_ms: float | None = None
    cycle_difference: float | None = None
    laps: int = 0
    lasted_ms: float = 0.0
    same_isthmus: bool | None = None
    nodes: int = 0
    edge_mm: float = 0.0
    predicted_error: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For plan.json."""
        return asdict(self)


def bench_for(
    twin: Twin,
    circuit: Circuit,
    settings: ConfirmSettings | None = None,
    *,
    tables: Mapping[str, RestitutionTable] | None = None,
    blocked: NDArray[np.bool_] | None = None,
    tell: Tell | None = None,
) -> Bench:
    """Monodomain on the muscle round one circuit and the scar."""
    settings = settings or ConfirmSettings()
    keep = active_region(twin.mesh, np.asarray(circuit.path_mm, float), twin.mesh.in_region("scar"), settings.radius_mm)
    bench = BenchSettings(settings.edge_mm, settings.cycles, minutes=settings.minutes)
    return Bench(twin, keep, bench, tables=tables, blocked=blocked, tell=tell)


def confirm(
    twin: Twin,
    circuit: Circuit,
    episode: Episode,
    settings: ConfirmSettings | None = None,
    *,
    model: ReentrantEikonal | None = None,
    site: NDArray[np.int32] | None = None,
    tables: Mapping[str, RestitutionTable] | None = None,
    blocked: NDArray[np.bool_] | None = None,
    bench: Bench | None = None,
    tell: Tell | None = None,
) -> Confirmation:
    """Ask monodomain about one circuit, given by an episode of it.

    model, site: the reduced model and the nodes of the episode's site; without them nothing is paced again. blocked (m,) bool: lesions
    that are there from the start (the answer is then whether they end it). bench: a `bench_for` that is reused. Never raises RunFailed:
    what cannot be computed is undecided.
    """
    settings, say = settings or ConfirmSettings(), tell or (lambda _: None)
    try:
        bench = bench or bench_for(twin, circuit, settings, tables=tables, blocked=blocked, tell=tell)
        error = float(bench.report["predicted_error"])
        if error > SPEED_ERROR.value:
            return Confirmation(
                UNDECIDED, f"velocities on this mesh are off by up to {error:.0%}; use a smaller edge", predicted_error=error
            )
        say(f"{circuit.id}: from the reduced model's phase ...")
        found = _judged(bench, circuit, bench.start(episode.log, episode.cycle_length_ms), "phase", 0.0)
        if found.verdict == DIED and settings.replay and model is not None and site is not None:
            say(f"{circuit.id}: died after {found.lasted_ms:.0f} ms; paced again ...")
            times = times_of(episode.coupling_ms)
            outcome = bench.train(site, times, brought_in(model, bench.part, site, times))
            paced = _judged(bench, circuit, outcome, "pacing", times[-1])
            found = paced if paced.verdict != DIED else _both(found, paced)
        return found
    except RunFailed as failure:
        return Confirmation(UNDECIDED, str(failure))


def _both(phase: Confirmation, paced: Confirmation) -> Confirmation:
    why = f"from its phase it ended after {phase.lasted_ms:.0f} ms, paced as it was induced after {paced.lasted_ms:.0f} ms"
    return replace(phase, by="phase and pacing", why=why)


def _judged(bench: Bench, circuit: Circuit, outcome: Outcome, by: str, since_ms: float) -> Confirmation:
    """The verdict on one run."""
    cycle = outcome.cycle_length_ms
    numbers: dict[str, Any] = {
        "by": by,
        "laps": outcome.laps,
        "lasted_ms": outcome.lasted_ms,
        "nodes": len(bench.solver.nodes),
        "edge_mm": round(bench.solver.mean_edge_mm, 3),
        "predicted_error": round(float(bench.report["predicted_error"]), 4),
    }
    if cycle is not None and outcome.laps > 1:
        numbers |= {"cycle_length_ms": round(cycle, 1), "cycle_difference": round(cycle / circuit.cycle_length_ms - 1.0, 4)}
    how = {"phase": "started from the reduced model's phase", "pacing": "paced as it was induced"}[by]
    if outcome.sustained:
        assert cycle is not None
        through = _passes(bench, circuit, outcome, since_ms) >= outcome.laps
        where = "through the same isthmus" if through else "but not through this isthmus in every lap: another circuit"
        why = f"{how}, it circled {outcome.laps} times with {cycle:.0f} ms, {where}"
        return Confirmation(SUSTAINED, why, same_isthmus=through, **numbers)
    if outcome.ended == "quiet":
        return Confirmation(DIED, f"{how}, it ended after {outcome.lasted_ms:.0f} ms", **numbers)
    said = {
        "no capture": "the last stimulus captured nothing in monodomain",
        "time": f"still active after {outcome.lasted_ms:.0f} ms, but no place was passed {bench.settings.cycles} times more",
        "cut off": f"the {bench.settings.minutes:g} minutes given to it were over after {outcome.model_ms:.0f} ms of its time",
    }[outcome.ended]
    return Confirmation(UNDECIDED, f"{how}: {said}", **numbers)


def _passes(bench: Bench, circuit: Circuit, outcome: Outcome, since_ms: float) -> int:
    """Median over the nodes at the isthmus's centre of how often they were activated, upstrokes at once after another as one."""
    points = bench.part.mesh.points_mm
    near = np.flatnonzero(np.linalg.norm(points - np.asarray(circuit.centre_mm, float), axis=1) <= ISTHMUS_MM)
    rows = np.isin(outcome.log.node, near) & (outcome.log.activation_ms > since_ms)
    node, time_ms = outcome.log.node[rows], outcome.log.activation_ms[rows]
    order = np.lexsort((time_ms, node))
    node, time_ms = node[order], time_ms[order]
    fresh = np.ones(len(node), bool)
    fresh[1:] = (node[1:] != node[:-1]) | (np.diff(time_ms) >= LEAST_MS)
    counts = np.bincount(np.searchsorted(near, node[fresh]), minlength=len(near))
    return int(np.median(counts)) if len(counts) else 0
