"""Where a place lies in a mesh: the tetrahedron around it, in space or in any three continuous coordinates."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree

STAGES = (6, 30)
"""Tetrahedra tried for each place, nearest centres first: a few, then many for those that are still outside."""

CHUNK = 100_000
INSIDE = -1e-9


@njit(cache=True, nogil=True)
def _best(
    points: NDArray[np.float64],
    tets: NDArray[np.int32],
    near: NDArray[np.int64],
    places: NDArray[np.float64],
    chosen: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> None:
    """For each place the candidate (k, c) in which its smallest barycentric weight is largest; stops at the first that holds it."""
    w = np.empty(4)
    for i in range(len(places)):
        best = -1e300
        for c in range(near.shape[1]):
            t = near[i, c]
            a, b, d, e = points[tets[t, 0]], points[tets[t, 1]], points[tets[t, 2]], points[tets[t, 3]]
            ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
            vx, vy, vz = d[0] - a[0], d[1] - a[1], d[2] - a[2]
            sx, sy, sz = e[0] - a[0], e[1] - a[1], e[2] - a[2]
            px, py, pz = places[i, 0] - a[0], places[i, 1] - a[1], places[i, 2] - a[2]
            volume = ux * (vy * sz - vz * sy) + uy * (vz * sx - vx * sz) + uz * (vx * sy - vy * sx)
            if abs(volume) < 1e-12:
                continue
            w[1] = (px * (vy * sz - vz * sy) + py * (vz * sx - vx * sz) + pz * (vx * sy - vy * sx)) / volume
            w[2] = (ux * (py * sz - pz * sy) + uy * (pz * sx - px * sz) + uz * (px * sy - py * sx)) / volume
            w[3] = (ux * (vy * pz - vz * py) + uy * (vz * px - vx * pz) + uz * (vx * py - vy * px)) / volume
            w[0] = 1.0 - w[1] - w[2] - w[3]
            lowest = min(min(w[0], w[1]), min(w[2], w[3]))
            if lowest > best:
                best = lowest
                chosen[i] = t
                weights[i] = w
                if lowest >= INSIDE:
                    break


def locate(
    points: NDArray[np.float64], tets: NDArray[np.int32], places: NDArray[np.float64], chosen_tets: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Tetrahedron (k,) and weights (k, 4) of its corners for places (k, 3) in the space of `points` (n, 3).

    chosen_tets (m,): only these are looked at. A place outside all takes the best of the tetrahedra near it, with weights cut off at
    zero and made to sum to one: about the value on the nearest boundary.
    """
    pool = np.arange(len(tets)) if chosen_tets is None else np.flatnonzero(chosen_tets)
    corners = np.ascontiguousarray(tets[pool])
    tree = cKDTree(points[corners].mean(axis=1))
    chosen, weights = np.zeros(len(places), np.int64), np.full((len(places), 4), -1.0)
    for start in range(0, len(places), CHUNK):
        left = np.arange(start, min(start + CHUNK, len(places)))
        for count in STAGES:
            near = np.asarray(tree.query(places[left], k=min(count, len(pool)))[1], np.int64).reshape(len(left), -1)
            found, weight = np.zeros(len(left), np.int64), np.full((len(left), 4), -1e9)
            weight[:, 0] = 1.0  # where every candidate is flat
            _best(np.ascontiguousarray(points), corners, near, np.ascontiguousarray(places[left]), found, weight)
            chosen[left], weights[left] = found, weight
            left = left[weight.min(axis=1) < INSIDE]
            if not len(left):
                break
    weights = np.clip(weights, 0.0, None)
    return pool[chosen], weights / weights.sum(axis=1, keepdims=True)


def interpolate(
    values: NDArray[np.float64], tets: NDArray[np.int32], where: tuple[NDArray[np.int64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Nodal values (n,) or (n, c) at places that `locate` found, (k,) or (k, c)."""
    tet, weight = where
    return np.asarray(np.einsum("ka,ka...->k...", weight, values[tets[tet]]))
