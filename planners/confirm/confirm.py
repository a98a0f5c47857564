"""Monodomain confirmation of a VT: the reduced model's phase is turned into states, and the equation is left to itself.

confirmed: it goes on circling for `cycles` cycles through the same isthmus; refuted: it dies; undecided: neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.circuits.episode import Episode
from planners.confirm.membrane import Template, fitted
from planners.confirm.refine import Part, active_region, refined
from solvers.ionic import Cells
from solvers.monodomain.correction import diffusion_of_speed_mm2_ms, for_velocities
from solvers.monodomain.solver import Monodomain, Settings, Stop
from twin.errors import InputError, VtwinError
from twin.mesh import REGIONS
from twin.model import Twin
from twin.params import Param
from twin.plan import Circuit
from twin.tissue import Velocity

WIDTH = Param(25.0, "mm", 15.0, 40.0, "chosen here: muscle farther from the circuit than this is not computed")
DT = Param(0.1, "ms", 0.02, 0.1, "chosen here: a twelfth of the upstroke's time constant; less where stability asks for it")
STABLE_SHARE = 0.8
QUIET_MS = 60.0
SLOWER = 1.0
"""Cycles that are followed beyond those asked for: the monodomain's cycle may be longer."""

AT_ISTHMUS_MM = 4.0
LAP_TOLERANCE = Param(0.5, "1", 0.3, 0.6, "chosen here: intervals at the isthmus from half to one and a half cycles are laps")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class ConfirmSettings:
    """cycles to follow; refinements: how often tetrahedra are cut into eight; corrected: tensors by solvers.monodomain.correction."""

    cycles: float = 3.0
    refinements: int = 1
    corrected: bool = True


@dataclass(frozen=True)
class Confirmation:
    """verdict: confirmed, refuted, undecided or not run; laps through the isthmus, their cycle length; seconds of processor time."""

    verdict: str
    laps: int = 0
    cycle_length_ms: float | None = None
    lasted_ms: float = 0.0
    nodes: int = 0
    edge_mm: float = 0.0
    cpu_s: float = 0.0
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For plan.json; without the time it took, so that equal runs give equal bytes."""
        return {k: v for k, v in asdict(self).items() if k != "cpu_s"}


def confirm(
    twin: Twin,
    circuit: Circuit,
    episode: Episode,
    settings: ConfirmSettings | None = None,
    *,
    blocked: NDArray[np.bool_] | None = None,
    tell: Tell | None = None,
) -> Confirmation:
    """Start the tachycardia in monodomain at the end of the episode's log and follow it.

    blocked (m,) bool: lesions made at that moment. Raises InputError for tissue without velocities.
    """
    began = time.process_time()
    settings = settings or ConfirmSettings()
    say = tell or (lambda _: None)
    keep = active_region(twin.mesh, np.asarray(circuit.path_mm, float), float(WIDTH))
    keep = keep if blocked is None else keep & ~blocked
    if not keep.any():
        return Confirmation("not run", note="no conducting tissue along the circuit")
    part = refined(twin.mesh, keep, settings.refinements)
    cycle = episode.cycle_length_ms
    phase = phases(part, episode, twin.mesh.n_points)
    cells = _templates(twin, episode, part)
    solver, note = _solver(twin, part, cells, settings, say)
    _start(solver, cells, part, phase)
    say(f"{len(solver.nodes)} nodes of {solver.mean_edge_mm:.2f} mm, {settings.cycles:g} cycles of {cycle:.0f} ms")
    centre = np.asarray(circuit.centre_mm, float)
    near = np.flatnonzero(np.linalg.norm(part.mesh.points_mm - centre, axis=1) <= AT_ISTHMUS_MM)
    last = np.full(1, 0.0)

    def quiet(running: Monodomain) -> Stop | None:
        if running.log.newest_ms > last[0]:
            last[0] = running.log.newest_ms
        return Stop("nothing is activated any more", "quiet") if running.time_ms - last[0] > max(QUIET_MS, 0.4 * cycle) else None

    until = (settings.cycles + SLOWER) * cycle
    result = solver.run([], until, stop=quiet, every_ms=5.0)
    log = result.activations
    mine = np.isin(log.node, near) & (log.activation_ms > 2.0)
    laps, lap_ms = _laps(log.node[mine], log.activation_ms[mine], cycle)
    lasted = float(log.activation_ms.max(initial=0.0))
    wanted = int(settings.cycles) - 1
    going = lasted > until - max(QUIET_MS, 0.4 * cycle)
    verdict = "confirmed" if going and laps >= wanted else "undecided" if going else "refuted"
    spent = round(time.process_time() - began, 1)
    edge = round(solver.mean_edge_mm, 3)
    return Confirmation(verdict, laps, lap_ms, round(lasted, 1), len(solver.nodes), edge, spent, note)


def _laps(node: NDArray[np.int32], time_ms: NDArray[np.float64], cycle_ms: float) -> tuple[int, float | None]:
    """Median over the isthmus's nodes of how often each was passed (less one), and the median interval between."""
    order = np.lexsort((time_ms, node))
    node, time_ms = node[order], time_ms[order]
    gap, same = np.diff(time_ms), node[1:] == node[:-1]
    lap = same & (np.abs(gap - cycle_ms) <= float(LAP_TOLERANCE) * cycle_ms)
    if not len(node) or not lap.any():
        return 0, None
    counts = np.bincount(node[1:][lap], minlength=int(node.max()) + 1)[np.unique(node)]
    return int(np.median(counts)), round(float(np.median(gap[lap])), 2)


def phases(part: Part, episode: Episode, n_points: int) -> NDArray[np.float64]:
    """Time since the upstroke at every node of the part, (n,) ms, inf where the reduced model had none.

    Midway nodes get the mean of both ends; where a front is between them the later beat of the one counts with the earlier of the other.
    """
    log, cycle = episode.log, episode.cycle_length_ms
    end = float(log.activation_ms.max())
    latest = np.full(n_points, -np.inf)
    np.maximum.at(latest, log.node, log.activation_ms)
    a, b = latest[part.ends[:, 0]], latest[part.ends[:, 1]]
    with np.errstate(invalid="ignore"):
        a, b = np.where(b - a > cycle / 2, a + cycle, a), np.where(a - b > cycle / 2, b + cycle, b)
        middle = np.where(np.isfinite(a) & np.isfinite(b), (a + b) / 2, np.maximum(a, b))
    middle = np.where(middle > end, middle - cycle, middle)
    return np.asarray(end - middle, np.float64)


def _templates(twin: Twin, episode: Episode, part: Part) -> dict[str, Template]:
    """A fitted cell for every region of the part, by the reduced model's median duration there in its last cycle."""
    log = episode.log
    duration = np.full(twin.mesh.n_points, np.nan)
    duration[log.node] = log.recovery_ms - log.activation_ms
    out: dict[str, Template] = {}
    for name, number in REGIONS.items():
        if not (part.mesh.region == number).any():
            continue
        nodes = np.unique(twin.mesh.tets[twin.mesh.region == number])
        values = duration[nodes][np.isfinite(duration[nodes])]
        wanted = float(np.median(values)) if len(values) else 0.65 * episode.cycle_length_ms
        out[name] = fitted(min(wanted, 0.85 * episode.cycle_length_ms), episode.cycle_length_ms)
    return out


def _solver(twin: Twin, part: Part, cells: Mapping[str, Template], settings: ConfirmSettings, say: Tell) -> tuple[Monodomain, str]:
    """The monodomain on the part with the twin's velocities; corrected for the mesh where its lattice is known."""
    mesh = part.mesh
    velocities = _velocities(twin, list(cells))
    # the twin's velocities are those at its cycle: what this membrane has not recovered by then is made up for
    for name, t in cells.items():
        slow = float(np.sqrt(t.h[0]))
        velocities[name] = Velocity(velocities[name].longitudinal_m_s / slow, velocities[name].transverse_m_s / slow)
    models = {name: t.model for name, t in cells.items()}
    tensor, note = None, ""
    if settings.corrected:
        try:
            tensor = for_velocities(mesh, velocities, models, lambda what, _: say(what)).tensor
        except VtwinError as error:
            note = f"velocities are not corrected for the mesh: {error}"
    d_l, d_t = np.zeros(len(mesh.tets)), np.zeros(len(mesh.tets))
    for name, speed in velocities.items():
        mine = mesh.region == REGIONS[name]
        d_l[mine] = diffusion_of_speed_mm2_ms(speed.longitudinal_m_s, models[name])
        d_t[mine] = diffusion_of_speed_mm2_ms(speed.transverse_m_s, models[name])
    names = list(cells)
    kind = np.zeros(mesh.n_points, np.int32)
    for k, name in enumerate(names):
        kind[mesh.tets[mesh.region == REGIONS[name]].ravel()] = k
    chosen = [models[name] for name in names]

    def make(dt_ms: float) -> Monodomain:
        return Monodomain(
            mesh.points_mm, mesh.tets, mesh.fibre, d_l, d_t, lambda nodes: Cells(chosen, kind[nodes]), Settings(dt_ms=dt_ms), tensor=tensor
        )

    solver = make(float(DT))
    if solver.limit_ms * STABLE_SHARE < float(DT):
        solver = make(solver.limit_ms * STABLE_SHARE)
    return solver, note


def _velocities(twin: Twin, names: Sequence[str]) -> dict[str, Velocity]:
    known = twin.tissue.velocities()
    out = {}
    for name in names:
        source = name if name in known else "border_zone" if name == "isthmus" and "border_zone" in known else ""
        if not source:
            raise InputError("confirmation", name, "has no velocity", "calibrate it, or give it under [tissue]")
        out[name] = known[source]
    return out


def _start(solver: Monodomain, cells: Mapping[str, Template], part: Part, phase: NDArray[np.float64]) -> None:
    """Impose V and gates from the phase."""
    v, h = np.full(len(phase), -80.0), np.ones(len(phase))
    for name, template in cells.items():
        nodes = np.unique(part.mesh.tets[part.mesh.region == REGIONS[name]])
        v[nodes], h[nodes] = template.at(phase[nodes])
    solver.set_v_mv(v)
    for group in solver.cells.groups:  # type: ignore[attr-defined]
        group.states[:, 0] = h[solver.nodes[group.index]].reshape(group.states[:, 0].shape)


def confirm_all(
    twin: Twin,
    circuits: Sequence[Circuit],
    episodes: Mapping[str, Episode],
    settings: ConfirmSettings | None = None,
    tell: Tell | None = None,
) -> dict[str, Confirmation]:
    """Every circuit that has an episode; what fails is `not run`, with the reason."""
    out = {}
    for circuit in circuits:
        if circuit.id not in episodes:
            out[circuit.id] = Confirmation("not run", note="it was seen after a lesion set only")
            continue
        try:
            out[circuit.id] = confirm(twin, circuit, episodes[circuit.id], settings, tell=tell)
        except VtwinError as error:
            out[circuit.id] = Confirmation("not run", note=str(error))
        if tell:
            tell(f"{circuit.id}: {out[circuit.id].verdict}")
    return {name: replace(c, cpu_s=round(c.cpu_s, 1)) for name, c in out.items()}
