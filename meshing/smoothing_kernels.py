"""Compiled parts of mesh smoothing: who is round a node, and which of several places for it is best."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from meshing.stuffing_kernels import smallest_dihedral_cosine


@njit(cache=True, nogil=True)
def rings(tets: NDArray[np.int32], row: NDArray[np.int32], count: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Tetrahedra round the chosen nodes in compressed rows: start (count + 1,), members; `row` (n,) numbers the nodes, -1 for others."""
    start = np.zeros(count + 1, np.int64)
    for t in range(len(tets)):
        for x in range(4):
            if row[tets[t, x]] >= 0:
                start[row[tets[t, x]] + 1] += 1
    start = np.cumsum(start)
    member = np.empty(start[-1], np.int32)
    fill = start[:-1].copy()
    for t in range(len(tets)):
        for x in range(4):
            r = row[tets[t, x]]
            if r >= 0:
                member[fill[r]] = t
                fill[r] += 1
    return start, member


@njit(cache=True, nogil=True)
def poor(points: NDArray[np.float64], tets: NDArray[np.int32], cosine: float) -> NDArray[np.bool_]:
    """Tetrahedra (m,) whose smallest dihedral angle has a cosine above the given one."""
    out = np.zeros(len(tets), np.bool_)
    for t in range(len(tets)):
        out[t] = smallest_dihedral_cosine(points, tets[t, 0], tets[t, 1], tets[t, 2], tets[t, 3]) > cosine
    return out


@njit(cache=True, nogil=True)
def positive(p: NDArray[np.float64], a: int, b: int, c: int, d: int) -> bool:
    """True if a tetrahedron is positively oriented and not flat."""
    ux, uy, uz = p[b, 0] - p[a, 0], p[b, 1] - p[a, 1], p[b, 2] - p[a, 2]
    vx, vy, vz = p[c, 0] - p[a, 0], p[c, 1] - p[a, 1], p[c, 2] - p[a, 2]
    wx, wy, wz = p[d, 0] - p[a, 0], p[d, 1] - p[a, 1], p[d, 2] - p[a, 2]
    return ux * (vy * wz - vz * wy) + uy * (vz * wx - vx * wz) + uz * (vx * wy - vy * wx) > 0.0


@njit(cache=True, nogil=True)
def move(
    points: NDArray[np.float64],
    tets: NDArray[np.int32],
    nodes: NDArray[np.int64],
    start: NDArray[np.int64],
    member: NDArray[np.int32],
    candidates: NDArray[np.float64],
) -> int:
    """Put each node (in place, in turn) where the worst angle round it is best; returns how many moved.

    candidates (k, c, 3): places for each node; one that is not finite is left out. A node stays unless its worst angle grows.
    """
    moved = 0
    for i in range(len(nodes)):
        node = nodes[i]
        first, last = start[i], start[i + 1]
        worst, at = -2.0, first
        for r in range(first, last):
            t = member[r]
            cosine = smallest_dihedral_cosine(points, tets[t, 0], tets[t, 1], tets[t, 2], tets[t, 3])
            if cosine > worst:
                worst, at = cosine, r
        # the worst first: most candidates fail there and cost no more
        member[first], member[at] = member[at], member[first]
        here = points[node].copy()
        best = here.copy()
        found = worst - 1e-6
        for c in range(candidates.shape[1]):
            if not np.isfinite(candidates[i, c, 0]):
                continue
            points[node] = candidates[i, c]
            value = -2.0
            for r in range(first, last):
                t = member[r]
                if not positive(points, tets[t, 0], tets[t, 1], tets[t, 2], tets[t, 3]):
                    value = 2.0
                    break
                cosine = smallest_dihedral_cosine(points, tets[t, 0], tets[t, 1], tets[t, 2], tets[t, 3])
                value = max(value, cosine)
                if value >= found:
                    break
            if value < found:
                found = value
                best = candidates[i, c].copy()
        points[node] = best
        if (best != here).any():
            moved += 1
    return moved
