"""A problem on a fine mesh solved among the functions of a coarse grid: for fields that are smooth over millimetres.

The grid's trilinear functions, cut off at the mesh's surface, span a small space (Galerkin's method on a subspace; the integrals are those
of the fine mesh, exactly). Given values are asked for by a penalty, since no grid function vanishes on a surface that crosses cells.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from meshing.laplace import COUPLING, Dirichlet, Elements, unit

GRID_MM = 2.5
"""Spacing of the grid. Measured at a mean edge of 1.5 mm: the apicobasal coordinate differs from the mesh's own by 0.004 in the mean
(0.3 mm), 0.014 at the 99th percentile; 2 mm (0.0024) takes three times as long, 3 mm (0.0037) half."""
FINE_MM = 1.3
"""Meshes of shorter mean edges take the grid; on coarser ones it has nearly as many functions as there are nodes, and nothing is saved."""
PENALTY = 100.0


class Grid:
    """Trilinear functions on the cells of a grid that hold nodes; `weights` (n, k) takes their values to the mesh's nodes."""

    def __init__(self, points_mm: NDArray[np.float64], spacing_mm: float = GRID_MM) -> None:
        low = points_mm.min(axis=0) - 0.5 * spacing_mm
        place = (points_mm - low) / spacing_mm
        cell = np.floor(place).astype(np.int64)
        inside = place - cell
        shape = cell.max(axis=0) + 2
        rows, columns, values = [], [], []
        for corner in np.ndindex(2, 2, 2):
            at = cell + np.array(corner)
            columns.append((at[:, 0] * shape[1] + at[:, 1]) * shape[2] + at[:, 2])
            values.append(np.prod(np.where(np.array(corner) == 1, inside, 1.0 - inside), axis=1))
            rows.append(np.arange(len(points_mm)))
        used, number = np.unique(np.concatenate(columns), return_inverse=True)
        table = (np.concatenate(values), (np.concatenate(rows), number))
        self.weights = sp.coo_array(table, shape=(len(points_mm), len(used))).tocsr()

    def solve(
        self, coarse: sp.csr_array, fixed: NDArray[np.integer], load: NDArray[np.float64], scale: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Field (n,), zero at fixed nodes, for a matrix (k, k) of `restrict` and a load (n,); scale (n,): diagonal of the fine matrix."""
        held = self.weights[fixed]
        matrix = (coarse + PENALTY * (held.T @ (held * scale[fixed][:, None]))).tocsr()
        found = Dirichlet(matrix, np.zeros(0, np.int64)).solve(np.zeros(matrix.shape[0]), self.weights.T @ load)
        out = self.weights @ found
        out[fixed] = 0.0
        return out

    def restrict(self, matrix: sp.csr_array) -> sp.csr_array:
        """A matrix (n, n) among the grid's functions, (k, k)."""
        return (self.weights.T @ (matrix @ self.weights)).tocsr()


def coarse_fraction(
    elements: Elements, grid: Grid, field: NDArray[np.float64], start: NDArray[np.integer], end: NDArray[np.integer]
) -> NDArray[np.float64]:
    """As `meshing.laplace.trajectory_fraction`, (n,), among the functions of a grid. Raises RunFailed if a solve does not converge."""
    direction = unit(elements.slope(field))
    matrix = elements.matrix(direction) + COUPLING * elements.matrix()
    coarse, load, scale = grid.restrict(matrix), elements.divergence_load(direction), matrix.diagonal()
    from_start = np.maximum(grid.solve(coarse, start, load, scale), 0.0)
    from_end = np.maximum(grid.solve(coarse, end, -load, scale), 0.0)
    total = from_start + from_end
    return np.where(total > 0, from_start / np.maximum(total, 1e-300), np.clip(field, 0.0, 1.0))
