"""Factors on the conductivities that give a mesh the velocities of the continuum, found by planar waves through a block of its lattice.

Coarse tetrahedra slow a wave, most of all across the fibres, by an amount that depends on the lattice and its angle to the fibres
(design/monodomain.md). So the lattice is asked: one wave along the fibres and two across, each held to the speed of a finely resolved bar.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meshing.box import box_tets
from solvers.monodomain.solver import CellState, Monodomain, Settings
from twin.errors import RunFailed
from twin.experiment import Stimulus
from twin.params import Param

MakeCells = Callable[[NDArray[np.int32]], CellState]

FINE_SPACING = Param(0.162, "ms^0.5", 0.05, 0.2, "spacing / sqrt(D) where theta 0.5 is within 0.2 % of the limit, design/monodomain.md")
LARGEST_FACTOR = Param(8.0, "1", 3.0, 10.0, "judgement: measured factors are 0.5 to 2.7 at 0.5 to 0.8 mm, design/monodomain.md")


@dataclass(frozen=True)
class Correction:
    """Factors kappa_l, kappa_t on d_l, d_t; speeds aimed at (m/s); relative errors without and with the factors: along, across, across."""

    kappa_l: float
    kappa_t: float
    speed_l_m_s: float
    speed_t_m_s: float
    errors_before: tuple[float, float, float]
    errors_after: tuple[float, float, float]


def calibrate(
    lattice: Callable[[float], tuple[NDArray[np.float64], NDArray[np.int32]]],
    spacing_mm: float,
    fibre: NDArray[np.float64],
    d_l: float,
    d_t: float,
    cells: MakeCells,
    settings: Settings,
) -> Correction:
    """Find kappa_l and kappa_t (geometric mean of two directions across) for one fibre direction.

    lattice(size) gives points (n, 3) mm and tets (m, 4) of a cube of the mesh's own lattice from the origin to `size`; d_l, d_t mm^2/ms;
    cells as for `Monodomain`. Raises RunFailed if no factor up to LARGEST_FACTOR restores the speed.
    """
    settings = Settings(theta=settings.theta, capacitance_uF_mm3=settings.capacitance_uF_mm3)
    speed_l = continuum_speed_m_s(d_l, cells, settings)
    speed_t = speed_l * math.sqrt(d_t / d_l)
    first = int(np.argmin(np.abs(fibre)))
    across = np.cross(fibre, np.eye(3)[first])
    across /= np.linalg.norm(across)
    directions = (fibre, across, np.cross(fibre, across))
    blocks = [_Block(lattice, spacing_mm, d, fibre, cells, settings) for d in directions]
    goals = (speed_l, speed_t, speed_t)
    before = _errors(blocks, goals, d_l, d_t)
    kappa_l = _solve(lambda k: blocks[0].speed(k * d_l, d_t), speed_l)
    first_side = _solve(lambda k: blocks[1].speed(kappa_l * d_l, k * d_t), speed_t)
    second_side = _solve(lambda k: blocks[2].speed(kappa_l * d_l, k * d_t), speed_t)
    kappa_t = math.sqrt(first_side * second_side)
    kappa_l = _solve(lambda k: blocks[0].speed(k * d_l, kappa_t * d_t), speed_l)
    after = _errors(blocks, goals, kappa_l * d_l, kappa_t * d_t)
    return Correction(kappa_l, kappa_t, speed_l, speed_t, before, after)


def _errors(blocks: list[_Block], goals: tuple[float, float, float], d_l: float, d_t: float) -> tuple[float, float, float]:
    along, side, other = (block.speed(d_l, d_t) / goal - 1.0 for block, goal in zip(blocks, goals))
    return along, side, other


def continuum_speed_m_s(d: float, cells: MakeCells, settings: Settings) -> float:
    """Speed of the first plane wave in the limit of a fine mesh, by a bar of cubes."""
    spacing = FINE_SPACING.value * math.sqrt(d)
    size = 200 * spacing
    points, tets = box_tets((size, spacing, spacing), spacing)
    m = len(tets)
    fibres = np.tile([1.0, 0.0, 0.0], (m, 1))
    # a plane wave does not feel the other axes; a low value keeps them from limiting the step
    fine = Settings(theta=0.5, capacitance_uF_mm3=settings.capacitance_uF_mm3)
    solver = Monodomain(points, tets, fibres, np.full(m, d), np.full(m, 0.1 * d), cells, fine)
    return _speed(solver, points[:, 0], size, np.ones(len(points), bool))


class _Block:
    """A rod of the lattice along one direction, through its middle."""

    def __init__(
        self,
        lattice: Callable[[float], tuple[NDArray[np.float64], NDArray[np.int32]]],
        spacing_mm: float,
        direction: NDArray[np.float64],
        fibre: NDArray[np.float64],
        cells: MakeCells,
        settings: Settings,
    ) -> None:
        self.length = max(16.0 * spacing_mm, 6.0)
        points, tets = lattice(1.1 * self.length)
        middle = points - 0.55 * self.length
        along = middle @ direction
        aside = np.abs(middle - along[:, None] * direction).max(axis=1)
        centre = aside[tets].mean(axis=1) <= 3.0 * spacing_mm
        keep = centre & (np.abs(along[tets].mean(axis=1)) <= 0.5 * self.length)
        used, inner = np.unique(tets[keep], return_inverse=True)
        self.points, self.tets = points[used], np.ascontiguousarray(inner.reshape(-1, 4), dtype=np.int32)
        self.at = along[used] + 0.5 * self.length
        self.inside = aside[used] <= 1.5 * spacing_mm
        self.fibres = np.tile(fibre, (len(self.tets), 1))
        self.cells, self.settings = cells, settings

    def speed(self, d_l: float, d_t: float) -> float:
        """Speed of a plane wave through the rod, m/s; 0 if it is blocked."""
        m = len(self.tets)
        solver = Monodomain(self.points, self.tets, self.fibres, np.full(m, d_l), np.full(m, d_t), self.cells, self.settings)
        return _speed(solver, self.at, self.length, self.inside)


def _speed(solver: Monodomain, at: NDArray[np.float64], length: float, inside: NDArray[np.bool_]) -> float:
    """Slope of place over activation time in the middle of the rod; 0 unless the wave passed it all."""
    part = inside & (at >= 0.35 * length) & (at <= 0.8 * length)

    def passed(this: Monodomain) -> str | None:
        return "passed" if np.isfinite(this.log.activations(this.nodes).first_ms(len(at))[part]).all() else None

    start = Stimulus(np.flatnonzero(at <= 0.15 * length).astype(np.int32), (0.0,))
    first = solver.run([start], 40.0 * length, quiet_ms=5.0, stop=passed).activations.first_ms(len(at))
    if not np.isfinite(first[part]).all():
        return 0.0
    return float(1.0 / np.polyfit(at[part], first[part], 1)[0])


def _solve(speed: Callable[[float], float], goal: float) -> float:
    """The factor at which `speed` meets `goal` within 0.5 %: secant in the logarithms, kept in a bracket."""
    low, high = 1.0 / LARGEST_FACTOR.value, LARGEST_FACTOR.value
    factor, power = 1.0, 0.5
    last: tuple[float, float] | None = None
    for _ in range(14):
        found = speed(factor)
        if abs(found / goal - 1.0) < 0.005:
            return factor
        low, high = (factor, high) if found < goal else (low, factor)
        proposal = 0.0
        if found > 0:
            if last is not None and last[1] > 0:
                power = min(max(math.log(found / last[1]) / math.log(factor / last[0]), 0.15), 2.0)
            # speed goes as a power of the conductivity: 1/2 in the continuum, less where the lattice leaks, more where it nearly blocks
            proposal = factor * (goal / found) ** (1.0 / power)
        last = (factor, found)
        factor = proposal if low < proposal < high else math.sqrt(low * high)
    raise RunFailed(
        f"no factor up to {LARGEST_FACTOR.value:g} either way on the conductivity gives this mesh the speed {goal:.3g} m/s in this"
        " direction: refine the mesh or leave the correction out"
    )
