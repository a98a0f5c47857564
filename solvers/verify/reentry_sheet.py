"""Monodomain on flat sheets: our tetrahedral operators on one layer of cubes, folded so that the two faces are one node.

A wave that does not vary through the layer obeys the folded equation exactly; it costs half the nodes and twice the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from meshing.box import box_mesh
from solvers.ionic import Cells
from solvers.ionic.model import IonicModel
from solvers.ionic.pacing import Cable
from solvers.ionic.restitution import STIMULUS_MV_MS, model_of
from solvers.monodomain.log import BeatLog
from solvers.monodomain.operators import Operators, build
from solvers.monodomain.schemes import Explicit
from solvers.monodomain.solver import THETA
from twin.errors import RunFailed
from twin.experiment import Activations
from twin.mesh import HeartMesh
from twin.tissue import Velocity

KINDS = ("healthy", "border_zone")
DT_MS = 0.1
PRODUCTS = 2
PULSE_MS = 2.0
THRESHOLD_MV, RECOVERY_MV = -40.0, -70.0
S1_MS = 600.0


@cache
def paced(kind: str, beats: int = 60, dt_ms: float = 0.02) -> IonicModel:
    """The cell model of a kind of tissue with the state after `beats` at 600 ms as its initial one."""
    model = model_of(kind)
    cell, period = Cable(model), round(S1_MS / dt_ms)
    cell.run(dt_ms, np.tile(np.arange(period) < round(PULSE_MS / dt_ms), beats), STIMULUS_MV_MS, every=period)
    return replace(model, initial_state=cell.state[0, :-2, 0].astype(float), rest_mv=float(cell.v[0]))


def sheet_mesh(size_mm: tuple[float, float], spacing_mm: float) -> HeartMesh:
    """One layer of cubes with fibres along y; node i + n/2 lies over node i."""
    return box_mesh((*size_mm, spacing_mm), spacing_mm, (0.0, 1.0, 0.0), "alternating")


def fold(ops: Operators, n: int) -> Operators:
    """Operators of the layer with every node and the one over it made one; `nodes` are those of the lower face."""
    k, m = ops.matrices()
    below = ops.nodes % (n // 2)
    nodes, column = np.unique(below, return_inverse=True)
    # rows stay in the order in which the build left them: neighbours lie close in memory
    first = np.full(len(nodes), len(below))
    np.minimum.at(first, column, np.arange(len(below)))
    order = np.argsort(first)
    place = np.argsort(order)[column]
    p = sp.csr_array((np.ones(len(below)), (np.arange(len(below)), place)), shape=(len(below), len(nodes)))
    lumped = np.asarray(p.T @ ops.lumped, np.float64)
    folded: list[sp.csr_array] = []
    for matrix in (k, m):
        f = (p.T @ matrix @ p).tocsr()
        f.setdiag(0.0)
        folded.append(f)
    pattern = (abs(folded[0]) + abs(folded[1])).tocsr()
    pattern.eliminate_zeros()
    pattern.sort_indices()
    rows = np.repeat(np.arange(len(nodes)), np.diff(pattern.indptr))
    values: list[NDArray[np.float64]] = [np.asarray(f[rows, pattern.indices]).ravel() / lumped[rows] for f in folded]
    start, columns = pattern.indptr.astype(np.int32), pattern.indices.astype(np.int32)
    return Operators(nodes[order].astype(np.int32), start, columns, values[0], values[1], lumped)


class Sheet:
    """Monodomain on a `sheet_mesh`; d_l, d_t (m,) mm^2/ms. Node numbers are those of the lower face."""

    def __init__(self, mesh: HeartMesh, d_l: NDArray[np.float64], d_t: NDArray[np.float64], dt_ms: float = DT_MS) -> None:
        self.mesh, self.dt_ms = mesh, dt_ms
        half = mesh.n_points // 2
        ops = fold(build(mesh.points_mm, mesh.tets, mesh.fibre, d_l, d_t, mesh.conducting()), mesh.n_points)
        self.nodes = ops.nodes
        self.row = np.full(half, -1, np.int32)
        self.row[self.nodes] = np.arange(len(self.nodes), dtype=np.int32)
        # a node belongs to the sicker tissue if most of its volume does
        volume = np.zeros((2, mesh.n_points))
        for place, sick in enumerate((mesh.in_region("healthy"), mesh.in_region("border_zone", "isthmus"))):
            np.add.at(volume[place], mesh.tets[sick].ravel(), np.repeat(mesh.tet_volumes_mm3[sick], 4))
        share = volume[:, :half] + volume[:, half:]
        self.cells = Cells([paced(kind) for kind in KINDS], (share[1] > share[0])[self.nodes].astype(np.int32), "float32")
        self.v = np.ascontiguousarray(self.cells.initial_v()).copy()
        self.current = np.zeros_like(self.v)
        self.log = BeatLog(self.nodes, THRESHOLD_MV, RECOVERY_MV)
        self.scheme = Explicit(ops, THETA.value, PRODUCTS, dt_ms, self.v.dtype)
        self.step, self.last = 0, 0

    def run(self, stimuli: Sequence[tuple[float, NDArray[np.integer]]], until_ms: float, quiet_ms: float | None = None) -> Activations:
        """Go on until a time, or until no node was activated for `quiet_ms`; everything activated since rest."""
        pulses = [(round(at / self.dt_ms), self.row[nodes]) for at, nodes in stimuli]
        long = round(PULSE_MS / self.dt_ms)
        self.last = max([self.last, *(at + long for at, _ in pulses)])
        rate = self.v.dtype.type(STIMULUS_MV_MS)
        while self.step < round(until_ms / self.dt_ms):
            self.cells.advance(self.v, self.dt_ms, self.current)
            for at, rows in pulses:
                if at <= self.step < at + long:
                    self.current[rows] -= rate
            self.scheme.advance(self.v, self.current, self.step * self.dt_ms, self.log)
            self.step += 1
            size = self.log.size
            _, wrong = self.log.collect()
            if wrong >= 0:
                raise RunFailed(f"sheet: diverged at {self.step * self.dt_ms:g} ms")
            if self.log.size > size:
                self.last = max(self.last, self.step)
            elif quiet_ms is not None and (self.step - self.last) * self.dt_ms > quiet_ms:
                break
        return self.log.activations()

    def snapshot(self) -> tuple[Any, ...]:
        """Copy of everything."""
        return self.step, self.last, self.v.copy(), self.cells.snapshot(), self.log.snapshot()

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go back to a copy."""
        self.step, self.last = state[:2]
        self.v[:] = state[2]
        self.cells.restore(state[3])
        self.log.restore(state[4])


@dataclass(frozen=True)
class Lattice:
    """Diffusion coefficients that give asked velocities on a lattice: kind -> (along, across) mm^2/ms, and the velocities they gave."""

    d: dict[str, tuple[float, float]]
    measured: dict[str, Velocity]


def tune(speeds: dict[str, Velocity], spacing_mm: float) -> Lattice:
    """Find by secant the diffusion coefficients with which plane waves at S1 600 ms run as asked, along and across the fibres."""
    d, measured = {}, {}
    for kind, speed in speeds.items():
        pairs = [_tuned(kind, axis, target, spacing_mm) for axis, target in ((1, speed.longitudinal_m_s), (0, speed.transverse_m_s))]
        d[kind] = (pairs[0][0], pairs[1][0])
        measured[kind] = Velocity(pairs[0][1], pairs[1][1])
    return Lattice(d, measured)


def _tuned(kind: str, axis: int, target: float, spacing_mm: float) -> tuple[float, float]:
    d = (target / 1.9) ** 2
    for _ in range(6):
        speed = strip_speed(kind, axis, d, spacing_mm)
        if abs(speed / target - 1.0) < 0.005:
            break
        d *= (target / speed) ** 1.6
    return d, speed


def strip_speed(kind: str, axis: int, d: float, spacing_mm: float) -> float:
    """Velocity of the second S1 along the axis of a strip of one kind of tissue with coefficient d that way, m/s."""
    long, wide = 20.0, 3 * spacing_mm
    mesh = sheet_mesh((long, wide) if axis == 0 else (wide, long), spacing_mm)
    mesh = mesh.with_region(np.ones(len(mesh.tets), bool), kind)
    other = 0.3 * d if axis == 1 else 3.0 * d
    along, across = (d, other) if axis == 1 else (other, d)
    sheet = Sheet(mesh, np.full(len(mesh.tets), along), np.full(len(mesh.tets), across))
    x = mesh.points_mm[: mesh.n_points // 2, axis]
    a = sheet.run([(0.0, np.flatnonzero(x <= 2.0)), (S1_MS, np.flatnonzero(x <= 2.0))], S1_MS + 400.0, quiet_ms=700.0)
    late = a.activation_ms > S1_MS
    times = np.full(len(x), np.nan)
    times[a.node[late]] = a.activation_ms[late]
    part = (x >= 6.0) & (x <= long - 4.0)
    return float(1.0 / np.polyfit(x[part], times[part], 1)[0])
