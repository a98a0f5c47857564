"""Cutting any conforming tetrahedral mesh along {f = 0}: nodes near the surface move onto it, edges that cross it are halved there.

The way of isosurface stuffing (Labelle and Shewchuk 2007) for meshes of any shapes of tetrahedra. Halving edges one after the other, in one
order for all tetrahedra, gives their stencils and never a hanging node; what was whole stays on one side or the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meshing import cutting_kernels as kernels
from meshing.smoothing_kernels import rings
from meshing.stuffing import roots

Field = Callable[[NDArray[np.float64]], NDArray[np.float64]]
PAIRS = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])


@dataclass(frozen=True)
class Crossed:
    """Edges (e, 2) int32 that the surface crosses, and share (e, 2): distance of the crossing from each end, as a share of the edge."""

    edges: NDArray[np.int32]
    share: NDArray[np.float64]


@dataclass(frozen=True)
class Cut:
    """points (n, 3), tets (m, 4) int32; sign (n,) int8: of -f at each node, 0 on the surface; parent (m,): tetrahedron it is a part of;
    halved (k, 2) int32: ends of the edges whose halves meet in the last k nodes."""

    points: NDArray[np.float64]
    tets: NDArray[np.int32]
    sign: NDArray[np.int8]
    parent: NDArray[np.int32]
    halved: NDArray[np.int32]


def cut(
    points: NDArray[np.float64],
    tets: NDArray[np.int32],
    value: NDArray[np.float64],
    field: Field,
    limit: Callable[[Crossed], NDArray[np.float64]],
    least_deg: float,
    where: NDArray[np.bool_] | None = None,
) -> Cut:
    """Cut the tetrahedra (m, 4) along {field = 0}; value (n,): -field at the points.

    limit: edges to (e, 2), how near to an end, as a share of the edge, a crossing may come before that end moves onto it (0: it never
    moves). No node moves if a tetrahedron round it would get an angle below least_deg that it has not already. where (m,): only edges of
    these are cut; their neighbours are divided as these edges ask.
    """
    sign = np.sign(value).astype(np.int8)
    low, high = sign[tets].min(axis=1), sign[tets].max(axis=1)
    crossing = tets[(low < 0) & (high > 0) & (True if where is None else where)]
    pairs = np.sort(crossing[:, PAIRS].reshape(-1, 2), axis=1)
    pairs = pairs[sign[pairs[:, 0]] * sign[pairs[:, 1]] < 0]
    keys = np.unique(pairs[:, 0].astype(np.int64) * len(points) + pairs[:, 1])
    edges = np.stack([keys // len(points), keys % len(points)], axis=1).astype(np.int32)
    p, q = points[edges[:, 0]], points[edges[:, 1]]
    t = roots(field, p, q, value[edges[:, 0]], value[edges[:, 1]])
    crossed = Crossed(edges, np.stack([t, 1.0 - t], axis=1))
    cut_points = p + t[:, None] * (q - p)
    points = points.copy()
    _snap(points, sign, tets, crossed, cut_points, limit(crossed), float(np.cos(np.radians(least_deg))))
    left = np.flatnonzero(sign[edges[:, 0]] * sign[edges[:, 1]] < 0)
    ends = points[edges[left]]
    # the longest first, and of equal ones that with the longer part inside: faces get the diagonals with the better angles
    length = np.round(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1), 9)
    inside = np.where(sign[edges[left, 0]] > 0, 0, 1)
    part = np.round(np.linalg.norm(cut_points[left] - ends[np.arange(len(left)), inside], axis=1), 9)
    order = left[np.lexsort((left, -part, -length))]
    tets, parent = halve(tets, edges[order], len(points))
    sign = np.concatenate([sign, np.zeros(len(order), np.int8)])
    return Cut(np.concatenate([points, cut_points[order]]), tets, sign, parent, edges[order])


def _snap(
    points: NDArray[np.float64],
    sign: NDArray[np.int8],
    tets: NDArray[np.int32],
    crossed: Crossed,
    cut_points: NDArray[np.float64],
    limit: NDArray[np.float64],
    cosine: float,
) -> None:
    nodes = np.unique(crossed.edges).astype(np.int64)
    row = np.full(len(points), -1, np.int32)
    row[nodes] = np.arange(len(nodes))
    start, edge = _at_nodes(row[crossed.edges], len(nodes))
    ring_start, member = rings(tets, row, len(nodes))
    kernels.snap(points, sign, tets, crossed.edges, cut_points, crossed.share, limit, nodes, start, edge, ring_start, member, cosine)


def halve(tets: NDArray[np.int32], edges: NDArray[np.int32], first_new: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Simplices (m, 4) with the edges (e, 2) halved at nodes first_new, first_new + 1, ..., and where each part comes from (k,).

    Triangles are given with -1 as their fourth node.
    """
    return kernels.halve(tets, edges, *_at_nodes(edges, first_new), first_new)


def _at_nodes(edges: NDArray[np.int32], count: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Edges at each of `count` nodes in compressed rows, in rising order."""
    order = np.argsort(edges.ravel(), kind="stable")
    start = np.searchsorted(edges.ravel()[order], np.arange(count + 1)).astype(np.int64)
    return start, (order // 2).astype(np.int32)
