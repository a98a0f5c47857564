"""Regions whose boundaries are faces of the mesh: the tetrahedra are cut where one tissue ends and the next begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from meshing.cutting import Crossed, Cut, cut, halve
from meshing.quality import tet_volumes
from meshing.region_fields import RegionFields
from meshing.smoothing import Field, smooth
from meshing.surfaces import EDGES, FACES
from twin.mesh import SURFACES
from twin.params import Param

SNAP = Param(0.35, "1", 0.2, 0.45, "chosen here: a node this near to the boundary, as a share of the edge that crosses it, moves onto it")
LEAST_DEG = Param(14.0, "degrees", 5.0, 20.0, "chosen here: but not if an angle round it becomes smaller than this")

ROUNDS = 6
"""Rounds of smoothing afterwards: twice as many as a mesh without inner boundaries gets."""

CORRECTIONS = 6
DAMPING = Param(
    0.4, "1", 0.2, 1.0, "chosen here: between thin layers the smoothed distances are flat, and boundaries move 2.5 times as far"
)
RELAXED_DEG = Param(13.0, "degrees", 10.7, 20.0, "chosen here: a little above the gate on the smallest angle")

ON_REGION = 4
"""Bits 0 to 3 of a node or edge tell the named surfaces that it lies on, the following ones the boundaries of regions."""


@dataclass(frozen=True)
class Conforming:
    """points (n, 3), tets (m, 4), region (m,) int16; surfaces: named triangles; cell_mm (n,); moves: of the smoothing."""

    points: NDArray[np.float64]
    tets: NDArray[np.int32]
    region: NDArray[np.int16]
    surfaces: dict[str, NDArray[np.int32]]
    cell_mm: NDArray[np.float64]
    moves: int


def conform(
    points: NDArray[np.float64],
    tets: NDArray[np.int32],
    surfaces: Mapping[str, NDArray[np.int32]],
    cell_mm: NDArray[np.float64],
    field: Field,
    fields: RegionFields,
) -> Conforming:
    """Cut a mesh along the boundaries of regions, one region after the other: each against all that are left; then smooth it.

    Nodes near a boundary move onto it, those of a surface within the surface, those of a rim or of another boundary along it. Flat faces
    cut corners of what is round: boundaries are moved until the regions have the volumes of their labels. cell_mm (n,): lattice constant at
    each node; field: the wall, as in `meshing.smoothing.smooth`. No tetrahedron is inverted; no bound on the angles is proven: where one
    stays below RELAXED_DEG, the nodes round it leave the function, and the faces with them.
    """
    made = _cut_all(points, tets, surfaces, cell_mm, fields)
    step = float(DAMPING)
    for _ in range(CORRECTIONS):
        moved = fields.grown(step * _missing_mm(made, fields))
        trial = _cut_all(points, tets, surfaces, cell_mm, moved)
        if _error(trial, fields) < _error(made, fields):
            made, fields = trial, moved
        else:
            step *= 0.5
    triangles = np.concatenate([made.surfaces[name] for name in SURFACES])
    inner = [(faces, partial(fields.between, one, two)) for one, two, faces in boundaries(made.tets, made.region)]
    points, moves = smooth(made.points, made.tets, triangles, field, made.cell_mm, inner, ROUNDS)
    points, last = smooth(points, made.tets, triangles, field, made.cell_mm, (), ROUNDS, float(RELAXED_DEG))
    return replace(made, points=points, moves=moves + last)


def _error(made: Conforming, fields: RegionFields) -> float:
    """Errors of the regions' volumes as shares of their labels', summed."""
    return float(np.abs(_volumes(made, fields)[1:] / fields.volumes_mm3[1:] - 1.0).sum())


def _volumes(made: Conforming, fields: RegionFields) -> NDArray[np.float64]:
    volume = tet_volumes(made.points, made.tets)
    return np.array([volume[made.region == number].sum() for number in fields.numbers])


def _missing_mm(made: Conforming, fields: RegionFields) -> NDArray[np.float64]:
    """How far the boundary of each region must move outward for its labels' volume, (k,) mm; 0 for healthy muscle."""
    area = np.zeros(len(fields.numbers))
    for one, two, faces in boundaries(made.tets, made.region):
        p = made.points[faces]
        size = 0.5 * float(np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1).sum())
        area[[fields.numbers.index(one), fields.numbers.index(two)]] += size
    missing = (fields.volumes_mm3 - _volumes(made, fields)) / np.maximum(area, 1e-9)
    missing[0] = 0.0
    return np.clip(missing, -0.1, 0.1) * float(made.cell_mm.min())


def _cut_all(
    points: NDArray[np.float64],
    tets: NDArray[np.int32],
    surfaces: Mapping[str, NDArray[np.int32]],
    cell_mm: NDArray[np.float64],
    fields: RegionFields,
) -> Conforming:
    region = np.full(len(tets), -1, np.int16)
    triangles = np.concatenate([surfaces[name] for name in SURFACES])
    name = np.repeat(np.arange(len(SURFACES)), [len(surfaces[one]) for one in SURFACES])
    sheets = [(triangles[name == number], 1 << number) for number in range(len(SURFACES))]
    for index in range(len(fields.numbers) - 1):
        marks = _Marks(len(points), sheets)
        apart = partial(fields.apart, index)
        made = cut(points, tets, -apart(points), apart, marks.limits, float(LEAST_DEG), region < 0)
        region = _sides(made, region[made.parent], apart, fields.numbers[index])
        if index + 2 == len(fields.numbers):
            region[region < 0] = fields.numbers[-1]
        parts, of = halve(np.column_stack([triangles, np.full(len(triangles), -1, np.int32)]), made.halved, len(points))
        triangles, name = np.ascontiguousarray(parts[:, :3]), name[of]
        cell_mm = np.concatenate([cell_mm, cell_mm[made.halved].min(axis=1)])
        points, tets = made.points, made.tets
        sheets = [(triangles[name == number], 1 << number) for number in range(len(SURFACES))]
        sheets += [(faces, 1 << (ON_REGION + k)) for k, (_, _, faces) in enumerate(boundaries(tets, region))]
    return Conforming(points, tets, region, {one: triangles[name == number] for number, one in enumerate(SURFACES)}, cell_mm, 0)


def boundaries(tets: NDArray[np.int32], region: NDArray[np.int16]) -> list[tuple[int, int, NDArray[np.int32]]]:
    """Faces (k, 3) between each two regions (the smaller number first), outward from the first."""
    mixed = np.zeros(int(tets.max()) + 1, bool)
    lowest, highest = np.full(len(mixed), 1000, np.int16), np.full(len(mixed), -1000, np.int16)
    np.minimum.at(lowest, tets.ravel(), np.repeat(region, 4))
    np.maximum.at(highest, tets.ravel(), np.repeat(region, 4))
    mixed = lowest < highest
    near = np.flatnonzero(mixed[tets].sum(axis=1) >= 3)
    faces = tets[near][:, FACES].reshape(-1, 3)
    owner = np.repeat(region[near], 4)
    whole = mixed[faces].all(axis=1)
    faces, owner = faces[whole], owner[whole]
    key = np.sort(faces, axis=1)
    order = np.lexsort((owner, key[:, 2], key[:, 1], key[:, 0]))
    same = (key[order][1:] == key[order][:-1]).all(axis=1)
    a, b = order[:-1][same], order[1:][same]
    out = []
    for one, two in np.unique(np.column_stack([owner[a], owner[b]]), axis=0):
        if one != two:
            out.append((int(one), int(two), faces[a[(owner[a] == one) & (owner[b] == two)]]))
    return out


@dataclass(frozen=True)
class _Marks:
    """What nodes and edges lie on, as bits."""

    nodes: NDArray[np.int64]
    keys: NDArray[np.int64]
    bits: NDArray[np.int64]

    def __init__(self, count: int, sheets: list[tuple[NDArray[np.int32], int]]) -> None:
        nodes = np.zeros(count, np.int64)
        keys, bits = [], []
        for faces, bit in sheets:
            nodes[faces] |= bit
            ends = np.sort(faces[:, EDGES].reshape(-1, 2), axis=1).astype(np.int64)
            mine = np.unique(ends[:, 0] * count + ends[:, 1])
            keys.append(mine)
            bits.append(np.full(len(mine), bit, np.int64))
        found, where = np.unique(np.concatenate(keys), return_inverse=True)
        of_edge = np.zeros(len(found), np.int64)
        np.bitwise_or.at(of_edge, where, np.concatenate(bits))
        object.__setattr__(self, "nodes", nodes)
        object.__setattr__(self, "keys", found)
        object.__setattr__(self, "bits", of_edge)

    def limits(self, crossed: Crossed) -> NDArray[np.float64]:
        """How near a crossing may come to each end of its edge: an end moves only along edges that lie on all that it lies on."""
        key = crossed.edges[:, 0].astype(np.int64) * len(self.nodes) + crossed.edges[:, 1]
        at = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        on = np.where(self.keys[at] == key, self.bits[at], 0)
        return np.where((self.nodes[crossed.edges] & ~on[:, None]) == 0, float(SNAP), 0.0)


def _sides(made: Cut, region: NDArray[np.int16], apart: partial[NDArray[np.float64]], number: int) -> NDArray[np.int16]:
    """Region of each tetrahedron after a cut: those still without one (-1) that lie inside get `number`."""
    sign = made.sign[made.tets]
    side = np.where(sign.max(axis=1) > 0, 1, np.where(sign.min(axis=1) < 0, -1, 0))
    unsure = np.flatnonzero((side == 0) & (region < 0))
    side[unsure] = -np.sign(apart(made.points[made.tets[unsure]].mean(axis=1)))
    out = region.copy()
    out[(region < 0) & (side > 0)] = number
    return out
