"""The part of a heart that a circuit uses, with every tetrahedron cut into eight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from twin.mesh import HeartMesh

_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
_CORNERS = ((0, 4, 5, 6), (4, 1, 7, 8), (5, 7, 2, 9), (6, 8, 9, 3))
# edge midpoints are 4 (01) .. 9 (23); the inner octahedron round each of its three diagonals
_DIAGONALS = (((4, 9), (5, 6, 8, 7)), ((5, 8), (4, 6, 9, 7)), ((6, 7), (4, 5, 9, 8)))


@dataclass(frozen=True)
class Part:
    """mesh: the part, without surfaces; ends (n, 2): the nodes of the whole heart that each node lies midway between (twice the same: it
    is one of them).
    """

    mesh: HeartMesh
    ends: NDArray[np.int64]


def active_region(mesh: HeartMesh, path_mm: NDArray[np.float64], radius_mm: float) -> NDArray[np.bool_]:
    """Conducting tetrahedra within a distance of a polyline's points, (m,) bool."""
    away = np.asarray(cKDTree(path_mm).query(mesh.centroids_mm)[0])
    return mesh.conducting() & (away <= radius_mm)


def refined(mesh: HeartMesh, keep: NDArray[np.bool_], times: int = 1) -> Part:
    """The kept tetrahedra (m,), each cut into eight as often as asked (at most once or twice is of use).

    The inner octahedron is cut along its shortest diagonal, which keeps the lattice of vtwin's mesher. With times > 1, `ends` are those
    of the coarse nodes nearest on the two sides.
    """
    ids = np.flatnonzero(keep)
    nodes, local = np.unique(mesh.tets[ids], return_inverse=True)
    points, tets = mesh.points_mm[nodes], local.reshape(-1, 4)
    region, fibre, sheet = mesh.region[ids], mesh.fibre[ids], mesh.sheet[ids]
    ends = np.stack([nodes, nodes], axis=1).astype(np.int64)
    for _ in range(times):
        edges = np.sort(np.concatenate([tets[:, e] for e in _EDGES]), axis=1)
        unique, which = np.unique(edges, axis=0, return_inverse=True)
        middle = len(points) + which.reshape(6, -1).T
        ends = np.concatenate([ends, np.stack([ends[unique[:, 0], 0], ends[unique[:, 1], 1]], axis=1)])
        points = np.concatenate([points, points[unique].mean(axis=1)])
        tets = _eight(points, np.concatenate([tets, middle], axis=1))
        region = np.repeat(region, 8)
        fibre, sheet = np.repeat(fibre, 8, axis=0), np.repeat(sheet, 8, axis=0)
    part = HeartMesh(points, tets.astype(np.int32), region, {}, fibre, sheet)
    part.check("refined mesh")
    return Part(part, ends)


def _eight(points: NDArray[np.float64], ten: NDArray[np.int64]) -> NDArray[np.int64]:
    """Eight tetrahedra of each ten-node one, (8 m, 4), grouped by parent, positively oriented."""
    lengths = np.stack([np.linalg.norm(points[ten[:, a]] - points[ten[:, b]], axis=1) for (a, b), _ in _DIAGONALS], axis=1)
    shortest = (lengths - 1e-9 * np.arange(3)[::-1]).argmin(axis=1)
    inner = np.empty((len(ten), 4, 4), np.int64)
    for k, ((a, b), ring) in enumerate(_DIAGONALS):
        mine = shortest == k
        for j in range(4):
            inner[mine, j] = ten[mine][:, [a, b, ring[j], ring[(j + 1) % 4]]]
    corners = np.stack([ten[:, c] for c in _CORNERS], axis=1)
    out = np.concatenate([corners, inner], axis=1).reshape(-1, 4)
    p = points[out]
    volume = np.einsum("ij,ij->i", p[:, 1] - p[:, 0], np.cross(p[:, 2] - p[:, 0], p[:, 3] - p[:, 0]))
    out[volume < 0] = out[volume < 0][:, [0, 1, 3, 2]]
    return out
