"""Which tetrahedron of a coarse mesh each tetrahedron of a body-centred lattice lies in."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

TOLERANCE = 1e-9
"""Of a barycentric coordinate: a centroid on a face belongs to the first of the two."""


@njit(cache=True, nogil=True)
def owners(
    corners: NDArray[np.float64],
    gradients: NDArray[np.float64],
    centroids: NDArray[np.float64],
    low: NDArray[np.float64],
    constant: float,
    shape: NDArray[np.int64],
    out: NDArray[np.int32],
) -> None:
    """Write into out (nx, ny, nz, 12) the coarse tetrahedron that holds the centroid of each lattice tetrahedron; others stay as they are.

    corners (m, 4, 3) mm; gradients (m, 3, 3): rows of the inverse of the edge matrix; centroids (12, 3) of one cell at the origin, mm;
    low (3,) mm: the grid's corner; constant: the lattice constant, mm; shape (3,).
    """
    reach = centroids.max()
    least = centroids.min()
    for m in range(len(corners)):
        p = corners[m]
        first = np.empty(3, np.int64)
        last = np.empty(3, np.int64)
        for x in range(3):
            lowest = min(min(p[0, x], p[1, x]), min(p[2, x], p[3, x]))
            highest = max(max(p[0, x], p[1, x]), max(p[2, x], p[3, x]))
            first[x] = max(0, math.floor((lowest - low[x] - reach) / constant))
            last[x] = min(shape[x] - 1, math.ceil((highest - low[x] - least) / constant))
        for i in range(first[0], last[0] + 1):
            for j in range(first[1], last[1] + 1):
                for k in range(first[2], last[2] + 1):
                    for t in range(12):
                        if out[i, j, k, t] >= 0:
                            continue
                        dx = low[0] + i * constant + centroids[t, 0] - p[0, 0]
                        dy = low[1] + j * constant + centroids[t, 1] - p[0, 1]
                        dz = low[2] + k * constant + centroids[t, 2] - p[0, 2]
                        inside, rest = True, 1.0
                        for b in range(3):
                            share = gradients[m, b, 0] * dx + gradients[m, b, 1] * dy + gradients[m, b, 2] * dz
                            rest -= share
                            inside = inside and share >= -TOLERANCE
                        if inside and rest >= -TOLERANCE:
                            out[i, j, k, t] = m
