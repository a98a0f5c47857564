"""Compiled parts of cutting any tetrahedral mesh by a surface: nodes moved onto it, edges halved where it crosses them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from meshing.smoothing_kernels import positive
from meshing.stuffing_kernels import smallest_dihedral_cosine


@njit(cache=True, nogil=True)
def _worst(points: NDArray[np.float64], tets: NDArray[np.int32], member: NDArray[np.int32], first: int, last: int) -> float:
    """Largest cosine of a dihedral angle in some tetrahedra; 2 if one is flat or inverted."""
    worst = -2.0
    for r in range(first, last):
        t = member[r]
        if not positive(points, tets[t, 0], tets[t, 1], tets[t, 2], tets[t, 3]):
            return 2.0
        worst = max(worst, smallest_dihedral_cosine(points, tets[t, 0], tets[t, 1], tets[t, 2], tets[t, 3]))
    return worst


@njit(cache=True, nogil=True)
def snap(
    points: NDArray[np.float64],
    sign: NDArray[np.int8],
    tets: NDArray[np.int32],
    edges: NDArray[np.int32],
    cut_points: NDArray[np.float64],
    share: NDArray[np.float64],
    limit: NDArray[np.float64],
    nodes: NDArray[np.int64],
    start: NDArray[np.int64],
    edge: NDArray[np.int32],
    ring_start: NDArray[np.int64],
    member: NDArray[np.int32],
    cosine: float,
) -> int:
    """Move every node that a cut comes too near to onto its nearest such cut (in place), with sign 0; returns how many moved.

    edges (e, 2); share (e, 2): distance of the cut from each end as a share of the edge; limit (e, 2): below it the end moves; nodes (k,)
    in turn, with their edges `edge[start[i]:start[i + 1]]` and tetrahedra `member[ring_start[i]:...]`. A node stays if a tetrahedron round
    it would get an angle of a larger cosine (and a larger one than any before).
    """
    moved = 0
    for i in range(len(nodes)):
        u = nodes[i]
        if sign[u] == 0:
            continue
        best, best_length = -1, np.inf
        for r in range(start[i], start[i + 1]):
            e = edge[r]
            if sign[edges[e, 0]] * sign[edges[e, 1]] >= 0:
                continue
            end = 0 if edges[e, 0] == u else 1
            if share[e, end] >= limit[e, end]:
                continue
            length = np.sqrt(((points[edges[e, end]] - cut_points[e]) ** 2).sum())
            if length < best_length:
                best, best_length = e, length
        if best < 0:
            continue
        here = points[u].copy()
        first, last = ring_start[i], ring_start[i + 1]
        before = max(_worst(points, tets, member, first, last), cosine)
        points[u] = cut_points[best]
        if _worst(points, tets, member, first, last) > before:
            points[u] = here
            continue
        sign[u] = 0
        moved += 1
    return moved


@njit(cache=True, nogil=True)
def halve(
    tets: NDArray[np.int32], edges: NDArray[np.int32], start: NDArray[np.int64], edge: NDArray[np.int32], first_new: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Tetrahedra (k, 4) with every edge of `edges` (e, 2) halved at node first_new + e, lower numbers first, and their parents (k,).

    start (n + 1,), edge: edges at each node; a triangle has -1 as its fourth node. Tetrahedra that share an edge halve it alike, so no node
    hangs.
    """
    count = 0
    stack = np.empty((64, 4), np.int32)
    mine = np.empty(6, np.int32)
    for fill in range(2):
        if fill == 1:
            out = np.empty((count, 4), np.int32)
            parent = np.empty(count, np.int32)
            count = 0
        for t in range(len(tets)):
            k = 0
            for x in range(3):
                u = tets[t, x]
                for r in range(start[u], start[u + 1]):
                    e = edge[r]
                    v = edges[e, 0] if edges[e, 1] == u else edges[e, 1]
                    for y in range(x + 1, 4):
                        if tets[t, y] == v:
                            mine[k] = e
                            k += 1
            mine[:k].sort()
            stack[0] = tets[t]
            size = 1
            for i in range(k):
                e = mine[i]
                for s in range(size):
                    x, y = -1, -1
                    for c in range(4):
                        if stack[s, c] == edges[e, 0]:
                            x = c
                        elif stack[s, c] == edges[e, 1]:
                            y = c
                    if x >= 0 and y >= 0:
                        stack[size] = stack[s]
                        stack[s, x] = first_new + e
                        stack[size, y] = first_new + e
                        size += 1
            if fill == 1:
                out[count : count + size] = stack[:size]
                parent[count : count + size] = t
            count += size
    return out, parent
