"""Plane waves through an endless lattice of tetrahedra, exactly, as waves along a short chain.

All nodes of a lattice that lie in one plane across the wave do the same at the same time. So a plane wave along a rational direction
of a three-dimensional lattice is a wave along a chain with one cell per such plane, coupled to as many planes as the stencil reaches:
a few hundred cells in place of a block of some ten thousand, and no sides that could disturb it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.box import box_tets
from solvers.monodomain import operators
from solvers.monodomain.log import BeatLog
from solvers.monodomain.operators import SYMMETRIC, Operators
from solvers.monodomain.schemes import Explicit
from solvers.monodomain.solver import DT_MS, STABLE_SHARE, CellState, few_threads
from twin.params import Param

MakeCells = Callable[[NDArray[np.int32]], CellState]

THRESHOLD_MV = -40.0
PUSH_MV_MS, PUSH_MS, QUIET_MS = 35.7, 2.0, 8.0
CHAIN_SPACINGS = Param(14.0, "1", 10.0, 30.0, "length of a chain in mesh edges; measured: 28 changes no speed by more than 1 %")
ANGLE_DEG = Param(3.0, "degree", 1.0, 5.0, "chosen here: how far the rational direction of a chain may be from the one asked for")


@dataclass(frozen=True)
class Lattice:
    """One period of an endless mesh.

    periods (3, 3): rows, mm; places (c, 3): its nodes, mm; first, second (e,): node classes of each ordered pair of neighbours;
    shift (e, 3) int: periods from the first to the second; reach (e, 3): vector between them, mm; sharing (e,): tetrahedra round that
    edge; stiffness (e, 6): K_ij per component of the tensor (order of SYMMETRIC), mm; bend (e,): K_ij, mm, of a change of the edges'
    conductances that no linear field feels (zeros where there is none), longest edges gaining; mass (e,) mm^3; lumped (c,) mm^3;
    edge_mm: mean edge.
    """

    periods: NDArray[np.float64]
    places: NDArray[np.float64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    shift: NDArray[np.int64]
    reach: NDArray[np.float64]
    sharing: NDArray[np.int64]
    stiffness: NDArray[np.float64]
    bend: NDArray[np.float64]
    mass: NDArray[np.float64]
    lumped: NDArray[np.float64]
    edge_mm: float

    def weights(self, tensor: NDArray[np.float64], bend: NDArray[np.float64] | float = 0.0) -> NDArray[np.float64]:
        """K_ij (..., e) mm^3/ms for tensors (..., 6) mm^2/ms and bends (...,) mm^2/ms."""
        return tensor @ self.stiffness.T + np.asarray(bend)[..., None] * self.bend

    def lowest(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Smallest eigenvalue of K over the waves of the lattice as a share of the largest, (...,): negative means that one grows.

        For lattices whose nodes are all alike; others give 0.
        """
        if len(self.places) > 1:
            return np.zeros(weights.shape[:-1])
        phase = 2.0 * np.pi * np.stack(np.meshgrid(*(np.arange(12) / 12.0,) * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        value = -weights @ (1.0 - np.cos(self.shift @ phase.T))
        lowest: NDArray[np.float64] = value.min(axis=-1) / value.max(axis=-1)
        return lowest

    def match(self, points_mm: NDArray[np.float64], tets: NDArray[np.int32]) -> NDArray[np.int64]:
        """Which pair of neighbours each of the six edges of each tetrahedron is, (m, 6); -1 throughout where one is none."""
        edges = points_mm[tets[:, [a for a, _ in EDGES]]] - points_mm[tets[:, [b for _, b in EDGES]]]
        distance, nearest = cKDTree(self.reach).query(edges.reshape(-1, 3), distance_upper_bound=1e-3 * self.edge_mm)
        fits = np.asarray(np.isfinite(distance).reshape(-1, 6).all(axis=1))
        found: NDArray[np.int64] = np.where(fits[:, None], nearest.reshape(-1, 6), -1)
        return found

    def bend_tensors(self, points_mm: NDArray[np.float64], tets: NDArray[np.int32], volume: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tensors (m, 6) of unit bend: summed over the lattice they change nothing but the edges' shares; 0 outside the lattice."""
        found = self.match(points_mm, tets)
        inside = found[:, 0] >= 0
        out = np.zeros((len(tets), 6))
        gain = -self.bend / self.sharing
        moments = np.stack([gain * self.reach[:, x] * self.reach[:, y] for x, y in SYMMETRIC], axis=1)
        out[inside] = moments[found[inside]].sum(axis=1) / volume[inside, None]
        return out


EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))


def body_centred(constant_mm: float) -> Lattice:
    """The lattice of `meshing.stuffing` along the axes, by its lattice constant."""
    numbers: dict[tuple[int, ...], int] = {}

    def number(p: NDArray[np.int64]) -> int:
        return numbers.setdefault(tuple(p.tolist()), len(numbers))

    tets = []
    axes = np.eye(3, dtype=np.int64)
    for axis in range(3):
        # between two neighbouring centres lies a square of corners; each of its sides makes a tetrahedron with the two
        low, middle = np.ones(3, np.int64), np.ones(3, np.int64) + axes[axis]
        u, v = axes[(axis + 1) % 3], axes[(axis + 2) % 3]
        ring = [middle + u + v, middle - u + v, middle - u - v, middle + u - v]
        tets += [[number(low), number(low + 2 * axes[axis]), number(ring[k]), number(ring[(k + 1) % 4])] for k in range(4)]
    places = 0.5 * constant_mm * np.array(list(numbers), float)
    # half a cubic cell is a period: every node sees the same
    periods = 0.5 * constant_mm * np.array([[-1.0, 1, 1], [1, -1, 1], [1, 1, -1]])
    return _of_tets(places, np.array(tets, np.int32), periods, 0.5)


def box(spacing_mm: tuple[float, float, float], variant: str) -> Lattice:
    """The lattice of `meshing.box`, spacing per axis."""
    repeat = 1 if variant == "kuhn" else 2
    size = repeat * np.array(spacing_mm)
    points, tets = box_tets((float(repeat),) * 3, 1.0, variant)
    return _of_tets(points * np.array(spacing_mm), tets, np.diag(size), 1.0)


def _of_tets(points: NDArray[np.float64], tets: NDArray[np.int32], periods: NDArray[np.float64], share: float) -> Lattice:
    """Fold tetrahedra that fill 1 / `share` periods into one."""
    position = points @ np.linalg.inv(periods)
    whole = np.floor(position + 1e-9).astype(np.int64)
    folded, of_point = np.unique(np.round(position - whole, 9), axis=0, return_inverse=True)
    p = points[tets]
    jacobian = p[:, 1:] - p[:, :1]
    volume = np.abs(np.linalg.det(jacobian)) / 6.0 * share
    grad = np.zeros((len(tets), 4, 3))
    grad[:, 1:] = np.linalg.inv(jacobian).transpose(0, 2, 1)
    grad[:, 0] = -grad[:, 1:].sum(axis=1)
    keys, values = [], []
    for a, b in ((a, b) for a in range(4) for b in range(4) if a != b):
        i, j = tets[:, a], tets[:, b]
        keys.append(np.column_stack([of_point[i], of_point[j], whole[j] - whole[i]]))
        products = [volume * (grad[:, a, x] * grad[:, b, y] + (x != y) * grad[:, a, y] * grad[:, b, x]) for x, y in SYMMETRIC]
        values.append(np.column_stack([*products, volume / 20.0, np.full(len(tets), share)]))
    pairs, of_entry = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    total = np.zeros((len(pairs), 8))
    np.add.at(total, of_entry.ravel(), np.concatenate(values))
    lumped = np.bincount(of_point[tets].ravel(), np.repeat(volume / 4.0, 4), minlength=len(folded))
    places = folded @ periods
    reach = places[pairs[:, 1]] - places[pairs[:, 0]] + pairs[:, 2:] @ periods
    edge_mm = float(np.linalg.norm(reach, axis=1).mean())
    bend = _unfelt(reach) * lumped[0] / edge_mm**2 if len(folded) == 1 else np.zeros(len(pairs))
    sharing = np.rint(total[:, 7]).astype(np.int64)
    return Lattice(
        *(periods, places, pairs[:, 0], pairs[:, 1], pairs[:, 2:], reach, sharing),
        *(total[:, :6], bend, total[:, 6], np.asarray(lumped, np.float64), edge_mm),
    )


def _unfelt(reach: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stiffness of the 14 neighbours, opposite ones alike, whose second moment vanishes: largest size 1, the longest edges conduct more."""
    moments = np.stack([reach[:, x] * reach[:, y] for x, y in SYMMETRIC])
    half = np.flatnonzero([tuple(r) > (0.0, 0.0, 0.0) for r in np.round(reach, 9).tolist()])
    null = np.linalg.svd(moments[:, half])[2][-1]
    null /= -null[np.argmax(np.linalg.norm(reach[half], axis=1))]
    null /= np.abs(null).max()
    out = np.zeros(len(reach))
    for k, value in zip(half, null):
        out[k] = value
        out[np.argmin(np.linalg.norm(reach + reach[k], axis=1))] = value
    return out


@dataclass(frozen=True)
class Chain:
    """A wave to be run: its direction (3,) unit, planes per mm, integer steps of the lattice periods."""

    direction: NDArray[np.float64]
    plane_mm: float
    steps: NDArray[np.int64]


def chain_along(lattice: Lattice, direction: NDArray[np.float64]) -> Chain:
    """The chain of fewest planes within ANGLE_DEG of a direction."""
    inverse = np.linalg.inv(lattice.periods)
    toward = lattice.periods @ (direction / np.linalg.norm(direction))
    best: tuple[float, NDArray[np.int64]] | None = None
    for scale in np.arange(1.0, 40.0, 0.25):
        steps = np.rint(toward / np.abs(toward).max() * scale).astype(np.int64)
        steps //= math.gcd(*steps.tolist())
        normal = inverse @ steps
        size = float(np.linalg.norm(normal))
        off = math.degrees(math.acos(min(1.0, abs(float(normal @ direction)) / size)))
        if off <= ANGLE_DEG.value and (best is None or size < best[0]):
            best = size, steps
    assert best is not None, "a step of 1/40 is finer than the angle allowed"
    return Chain(inverse @ best[1] / best[0], 1.0 / best[0], best[1])


def wave_speeds(
    lattice: Lattice,
    waves: Sequence[tuple[Chain, NDArray[np.float64]]],
    cells: MakeCells,
    theta: float,
    spacings: float = CHAIN_SPACINGS.value,
) -> NDArray[np.float64]:
    """Speed of each plane wave (chain, K_ij (e,) of `Lattice.weights`) from rest, (w,) m/s; 0 where it is blocked.

    cells as for `Monodomain`; theta: mass blend. All waves run side by side with the step that the stiffest allows.
    """
    length = spacings * lattice.edge_mm
    start, column, stiffness, mass, lumped, at, wave = rows(lattice, waves, length)
    per_row = np.repeat(lumped, np.diff(start))
    ops = Operators(np.arange(len(at), dtype=np.int32), start, column, stiffness / per_row, mass / per_row, lumped)
    products = operators.products_needed(theta)
    dt_ms = min(DT_MS.value, STABLE_SHARE.value * operators.stability_limit_ms(ops, theta, products))
    state = cells(ops.nodes)
    v = np.ascontiguousarray(state.initial_v()).copy()
    current = np.zeros_like(v)
    log = BeatLog(len(v), THRESHOLD_MV, -1e3)
    scheme = Explicit(ops, theta, products, dt_ms, v.dtype)
    pushed = at <= 0.15 * length
    read = (at >= 0.45 * length) & (at <= 0.85 * length)
    rate = v.dtype.type(PUSH_MV_MS)
    last_new, seen, step = 0, 0, 0
    with few_threads(len(v)):
        while (step - last_new) * dt_ms < QUIET_MS:
            state.advance(v, dt_ms, current)
            if step * dt_ms < PUSH_MS:
                current[pushed] -= rate
            scheme.advance(v, current, step * dt_ms, log)
            log.collect()
            step += 1
            if log.size > seen:
                last_new, seen = step, log.size
    first = log.activations(ops.nodes).first_ms(len(at))
    speeds = np.zeros(len(waves))
    for w in range(len(waves)):
        mine = read & (wave == w)
        if np.isfinite(first[mine]).all():
            speeds[w] = 1.0 / np.polyfit(at[mine], first[mine], 1)[0]
    return speeds


def rows(lattice: Lattice, waves: Sequence[tuple[Chain, NDArray[np.float64]]], length: float) -> tuple[NDArray[Any], ...]:
    """All chains below one another as rows without diagonal: start, column, stiffness, mass, lumped, place along the wave, wave."""
    starts, columns, stiffness, mass, lumped, at, wave = ([] for _ in range(7))
    classes, offset, filled = len(lattice.places), 0, 0
    for w, (chain, weights) in enumerate(waves):
        planes = math.ceil(length / chain.plane_mm)
        jump = lattice.shift @ chain.steps
        other = (jump != 0) | (lattice.first != lattice.second)
        a, b, jump, k, m = (x[other] for x in (lattice.first, lattice.second, jump, weights, lattice.mass))
        order = np.lexsort((b, jump, a))
        plane = np.arange(planes)
        row = (plane[:, None] * classes + a[None, order]).ravel()
        target = plane[:, None] + jump[None, order]
        inside = ((target >= 0) & (target < planes)).ravel()
        column = (target * classes + b[None, order]).ravel()
        by_row = np.argsort(row[inside], kind="stable")
        count = np.bincount(row[inside], minlength=planes * classes)
        starts.append(filled + np.concatenate([[0], np.cumsum(count)[:-1]]))
        columns.append(offset + column[inside][by_row])
        stiffness.append(np.tile(k[order], planes)[inside][by_row])
        mass.append(np.tile(m[order], planes)[inside][by_row])
        lumped.append(np.tile(lattice.lumped, planes))
        at.append((plane[:, None] * chain.plane_mm + lattice.places @ chain.direction).ravel())
        wave.append(np.full(planes * classes, w))
        offset += planes * classes
        filled += int(count.sum())
    starts.append(np.array([filled]))
    return (
        np.concatenate(starts).astype(np.int32),
        np.concatenate(columns).astype(np.int32),
        *(np.concatenate(x) for x in (stiffness, mass, lumped, at, wave)),
    )
