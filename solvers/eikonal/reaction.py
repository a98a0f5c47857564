"""Reaction-eikonal: transmembrane voltage from activation and recovery times, shaped by the cell model's own action potential.

A plane wave is a function of t - x/c only, and scaling its conductivity scales x alone, so the course in time at one place of a cable,
upstroke and foot included, holds at any velocity (Neic 2017, doi 10.1016/j.jcp.2017.06.020). Longer and shorter action potentials
are the same course with its time after the spike stretched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from solvers.eikonal.regions import SICKNESS, present, sickest, source_of
from solvers.ionic.model import IonicModel, ionic_model
from solvers.ionic.pacing import STIMULUS_MV_MS, Cable
from solvers.kernels import reaction as kernel
from twin.errors import InputError, RunFailed
from twin.experiment import Activations
from twin.mesh import HeartMesh
from twin.params import Param

Array = NDArray[np.float64]

ACTIVATION_MV, RECOVERY_MV = -40.0, -70.0
"""Levels of activation and recovery, those of the monodomain solver's log."""

SPIKE_MS = Param(5.0, "ms", 3.0, 10.0, "chosen here: upstroke and spike are over, later parts stretch with the duration")
DIFFUSION = Param(
    0.0953, "mm^2/ms", 0.05, 0.2, "Niederer 2011 (doi 10.1098/rsta.2011.0139) along the fibres; only the scale of x depends on it"
)
FRONT_M_S = Param(0.6, "m/s", 0.3, 0.8, "chosen here: usual velocity along the fibres of healthy ventricles")
SPACING_MM, CELLS, AT_CELL = 0.1, 120, 60
DT_MS, PITCH_MS = 0.02, 0.1
FOOT_MS = 30.0
PRE_BEATS, CABLE_BEATS = 50, 2


@dataclass(frozen=True, eq=False)
class ActionPotential:
    """Course of one action potential in tissue: v_mv (k,) at a pitch of `PITCH_MS`, from `foot_ms` before activation on.

    apd_ms: from activation (`ACTIVATION_MV` upward) to recovery (`RECOVERY_MV` downward). source: where it comes from.
    """

    v_mv: Array
    foot_ms: float
    apd_ms: float
    source: str

    def voltage_mv(self, since_ms: Array, apd_ms: float | None = None) -> Array:
        """Voltage at times after (negative: before) activation, for a duration of its own or another one."""
        wanted = self.apd_ms if apd_ms is None else apd_ms
        spike = float(SPIKE_MS)
        stretch = (self.apd_ms - spike) / max(wanted - spike, 1.0)
        at = np.where(since_ms > spike, spike + (since_ms - spike) * stretch, since_ms)
        times = PITCH_MS * np.arange(len(self.v_mv)) - self.foot_ms
        return np.interp(at, times, self.v_mv)

    def smeared(self, sd_ms: float) -> ActionPotential:
        """The same with its course blurred (Gaussian): a mesh coarser than the front needs as long as a wave takes over half an edge."""
        if sd_ms <= 0:
            return self
        blurred = gaussian_filter1d(self.v_mv, sd_ms / PITCH_MS, mode="nearest")
        return ActionPotential(blurred, self.foot_ms, self.apd_ms, f"{self.source}, blurred by {sd_ms:g} ms")


def action_potential(model: IonicModel, bcl_ms: float = 600.0) -> ActionPotential:
    """Action potential of a wave along a cable of this model, paced to near steady state.

    Raises RunFailed where the cable does not conduct or does not recover within a cycle.
    """
    return _measured(model.name, model.cell, tuple(model.parameters.items()), float(bcl_ms))


@cache
def _measured(name: str, cell: str, parameters: tuple[tuple[str, float], ...], bcl_ms: float) -> ActionPotential:
    model = replace(ionic_model(name, cell), parameters=dict(parameters))
    steps = round(bcl_ms / DT_MS)
    # two milliseconds at the strength of one cell's reference trace capture a cable's end
    train = np.arange(steps) < round(2.0 / DT_MS)
    strength = STIMULUS_MV_MS.get(name, 50.0)
    single = Cable(model)
    single.run(DT_MS, np.tile(train, PRE_BEATS), strength, every=steps)
    cable = Cable(model, CELLS, ratio=float(DIFFUSION) * DT_MS / SPACING_MM**2)
    cable.state[:, :-2] = single.state[:, :-2, :1]
    cable.v[:] = single.v
    every = round(PITCH_MS / DT_MS)
    for _ in range(CABLE_BEATS):
        trace = cable.run(DT_MS, train, strength, 20, every=every)[AT_CELL].astype(np.float64)
    above = np.flatnonzero((trace[:-1] < ACTIVATION_MV) & (trace[1:] >= ACTIVATION_MV))
    down = np.flatnonzero((trace[:-1] >= RECOVERY_MV) & (trace[1:] < RECOVERY_MV))
    if len(above) != 1 or len(down) == 0 or down[-1] <= above[0]:
        raise RunFailed(f"a cable of {name} ({cell}) does not conduct and recover at a cycle of {bcl_ms:g} ms")
    up_ms, down_ms = (_crossing(trace, int(i), level) for i, level in ((above[0], ACTIVATION_MV), (down[-1], RECOVERY_MV)))
    times = PITCH_MS * np.arange(len(trace))
    shifted = np.arange(-FOOT_MS, bcl_ms - up_ms - PITCH_MS, PITCH_MS)
    course = np.interp(shifted + up_ms, times, trace)
    # before the cable's beat began there was rest: the foot starts there
    course[shifted + up_ms < 0.0] = trace[0]
    return ActionPotential(course, FOOT_MS, down_ms - up_ms, f"cable of {name} {cell} at {bcl_ms:g} ms")


def _crossing(trace: Array, i: int, level: float) -> float:
    return PITCH_MS * (i + (level - trace[i]) / (trace[i + 1] - trace[i]))


def one_beat(arrival_ms: Array, apd_ms: Array | float) -> Activations:
    """The log of one beat: arrival (n,) ms, inf or NaN where no wave came; apd from activation to recovery."""
    node = np.flatnonzero(np.isfinite(arrival_ms)).astype(np.int32)
    node = node[np.argsort(arrival_ms[node], kind="stable")]
    recovery = arrival_ms + np.broadcast_to(np.asarray(apd_ms, np.float64), arrival_ms.shape)
    return Activations(node, arrival_ms[node], recovery[node])


def smear_for(mesh: HeartMesh) -> float:
    """Blur (standard deviation, ms) that suits a mesh: a front that passes one edge at `FRONT_M_S` evenly.

    Without it signals of coarse meshes are jagged: at 2 mm, four times the second differences of 0.5 mm and 3.9 % off; with it 2.9 %.
    """
    tets = mesh.tets[:: max(1, len(mesh.tets) // 2000)]
    p = mesh.points_mm[tets]
    edge_mm = np.mean([np.linalg.norm(p[:, j] - p[:, i], axis=1).mean() for i in range(4) for j in range(i)])
    # the mean edge of a cube cut into tetrahedra is longer than the cube's by about a quarter, which the front does not feel
    return float(0.8 * edge_mm / float(FRONT_M_S) / np.sqrt(12.0))


class ReactionEikonal:
    """Voltages of a mesh from a log of beats.

    templates: region -> action potential (the isthmus takes the border zone's where it has none); smear_ms: blur of the upstroke,
    None: as `smear_for` this mesh, 0 for the cell's own course (probes). Raises InputError when a region has no template.
    """

    def __init__(self, mesh: HeartMesh, templates: Mapping[str, ActionPotential], smear_ms: float | None = None) -> None:
        names = {region: source_of(region, set(templates)) for region in present(mesh)}
        blur_ms = smear_for(mesh) if smear_ms is None else smear_ms
        chosen = {name: templates[name].smeared(blur_ms) for name in dict.fromkeys(names.values())}
        order = list(chosen)
        place = np.array([order.index(names[region]) if region in names else 0 for region in SICKNESS], np.int8)
        conducting = mesh.conducting()
        self.n = mesh.n_points
        self.conducting = np.zeros(self.n, np.bool_)
        self.conducting[mesh.tets[conducting]] = True
        self._kind = place[sickest(mesh, conducting)]
        longest = max(len(t.v_mv) for t in chosen.values())
        self._course = np.stack([np.pad(t.v_mv, (0, longest - len(t.v_mv)), mode="edge") for t in chosen.values()])
        self._foot = np.array([t.foot_ms for t in chosen.values()])
        self.apd_ms = np.array([t.apd_ms for t in chosen.values()])[self._kind]
        """Duration (n,) of each node's own template, ms."""

    def frames(self, log: Activations, time_ms: Array) -> Iterator[tuple[float, Array]]:
        """Voltage (n,) mV at each of the ascending times, NaN where nothing conducts.

        A beat that the log has no recovery of lasts as its template.
        """
        start, up, down = self._sorted(log)
        if not (np.diff(time_ms) > 0).all():
            raise InputError("reaction", "time_ms", "is not ascending", "sort the times")
        current = start[:-1].copy() - 1
        for t in time_ms:
            out = np.empty(self.n)
            kernel.voltages(
                float(t), start, up, down, current, self._kind, self._course, self._foot, PITCH_MS, float(SPIKE_MS), self.apd_ms, out
            )
            out[~self.conducting] = np.nan
            yield float(t), out

    def probes(self, log: Activations, nodes: NDArray[np.integer], time_ms: Array) -> Array:
        """Voltage (t, k) mV of some nodes."""
        chosen = np.asarray(nodes, np.int64)
        return np.stack([v[chosen] for _, v in self.frames(log, time_ms)])

    def signals(self, log: Activations, weights: Array, time_ms: Array) -> Array:
        """Signals (l, t) mV of weights (n, l) mV per mV: leads of `LeadField.weights`, electrograms of `contact_weights`."""
        from solvers.ecg.kernels import sum_potentials

        out = np.zeros((len(time_ms), weights.shape[1]))
        rows = np.ascontiguousarray(weights)
        for k, (_, v) in enumerate(self.frames(log, time_ms)):
            v[~self.conducting] = 0.0
            sum_potentials(rows, v[None], out[k : k + 1])
        return np.ascontiguousarray(out.T)

    def _sorted(self, log: Activations) -> tuple[NDArray[np.int64], Array, Array]:
        """Beats by node, then time: start (n + 1,), activation and recovery (k,)."""
        if len(log.node) and not (log.node.min() >= 0 and log.node.max() < self.n):
            raise InputError("reaction", "log", "node numbers out of range", "use the mesh that the log was made on")
        order = np.lexsort((log.activation_ms, log.node))
        node, up, down = log.node[order], log.activation_ms[order], log.recovery_ms[order]
        start = np.searchsorted(node, np.arange(self.n + 1)).astype(np.int64)
        own = up + self.apd_ms[node]
        return start, np.ascontiguousarray(up, np.float64), np.where(np.isfinite(down), down, own)
