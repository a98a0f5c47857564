"""Laplace problems on tetrahedra with given boundary values, and distances along the lines that they make."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from meshing.p1 import gradients, nodal_mean
from twin.errors import RunFailed

TOLERANCE = 1e-7
"""Relative residual at which the iteration stops (the two preconditioners agree to this size)."""
MAX_ITERATIONS = 3000
BLOCK = 2_000_000
"""Tetrahedra that are assembled at once: some 700 bytes each."""
COUPLING = 1e-4
"""Share of isotropic diffusion in trajectory distances: shortens them by as much, which cancels in the fraction."""


class Elements:
    """Geometry of a tetrahedral mesh, computed once for every problem on it: gradients and volumes."""

    def __init__(self, points_mm: NDArray[np.float64], tets: NDArray[np.integer]) -> None:
        self.n = len(points_mm)
        self.tets = tets
        self.grad, self.volume = gradients(points_mm, tets)

    def matrix(self, direction: NDArray[np.float64] | None = None) -> sp.csr_array:
        """Laplace matrix (n, n), or that of diffusion along `direction` (m, 3) alone, the normal matrix of T . grad."""
        parts = (self._part(slice(start, start + BLOCK), direction) for start in range(0, len(self.tets), BLOCK))
        whole = next(parts)
        for part in parts:
            whole = whole + part
        return whole

    def _part(self, of: slice, direction: NDArray[np.float64] | None) -> sp.csr_array:
        """What some of the elements add to the matrix."""
        grad, tets = self.grad[of], self.tets[of]
        if direction is None:
            local = np.matmul(grad, grad.transpose(0, 2, 1))
        else:
            along = np.einsum("mai,mi->ma", grad, direction[of])
            local = along[:, :, None] * along[:, None, :]
        local *= self.volume[of, None, None]
        rows, cols = np.repeat(tets, 4, axis=1).ravel(), np.tile(tets, (1, 4)).ravel()
        return sp.coo_array((local.ravel(), (rows, cols)), shape=(self.n, self.n)).tocsr()

    def gradient(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gradient (m, 3) in 1/mm of a nodal field (n,)."""
        return np.einsum("mai,ma->mi", self.grad, values[self.tets])

    def slope(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gradient (m, 3) smoothed over neighbours: nodal means, averaged again; defined also in elements between equal boundary values."""
        return nodal_mean(self.gradient(values), self.tets, self.volume, self.n)[self.tets].mean(axis=1)

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Value at the element centres (m,) of a nodal field (n,)."""
        return values[self.tets].mean(axis=1)

    def divergence_load(self, direction: NDArray[np.float64]) -> NDArray[np.float64]:
        """Right-hand side (n,) of the least-squares problem T . grad d = 1."""
        along = np.einsum("mai,mi->ma", self.grad, direction) * self.volume[:, None]
        return np.bincount(self.tets.ravel(), along.ravel(), minlength=self.n).astype(np.float64)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors (..., 3) scaled to length 1; zero vectors stay zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-300, vectors / np.maximum(length, 1e-300), 0.0)


class Dirichlet:
    """A symmetric problem with values given at `fixed` nodes; one preconditioner serves every set of values.

    `multigrid` pays where information has far to travel (apex to base); across the wall the diagonal is enough.
    """

    def __init__(self, matrix: sp.csr_array, fixed: NDArray[np.integer], *, multigrid: bool = False) -> None:
        self.fixed = np.unique(fixed)
        mask = np.ones(matrix.shape[0], bool)
        mask[self.fixed] = False
        self.free = np.flatnonzero(mask)
        rows = matrix[self.free]
        self._inner, self._border = rows[:, self.free].tocsr(), rows[:, self.fixed].tocsr()
        diagonal = self._inner.diagonal()
        self._inverse_diagonal = 1.0 / np.where(diagonal > 0, diagonal, 1.0)
        self._multigrid = None
        # aggregates of a small mesh can make the coarsest matrix singular: the diagonal then serves
        with suppress(RuntimeError):
            self._multigrid = Multigrid(self._inner) if multigrid and len(self.free) else None

    def solve(self, values: NDArray[np.float64], load: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Solve for all nodes (n,); `values` (n,) is read at the fixed nodes, `load` (n,) at the free ones (zero if None).

        Raises RunFailed if neither preconditioner converges.
        """
        out = values.astype(np.float64)
        rhs = -(self._border @ out[self.fixed])
        if load is not None:
            rhs += load[self.free]
        found = None
        if self._multigrid is not None:
            found = self._conjugate_gradients(rhs, self._multigrid.cycle, limit=200)
        if found is None:
            found = self._conjugate_gradients(rhs, lambda r: self._inverse_diagonal * r, limit=MAX_ITERATIONS)
        if found is None:
            raise RunFailed(f"Laplace problem with {len(self.free)} unknowns did not converge in {MAX_ITERATIONS} iterations")
        out[self.free] = found
        return out

    def _conjugate_gradients(
        self, rhs: NDArray[np.float64], precondition: Callable[[NDArray[np.float64]], NDArray[np.float64]], *, limit: int
    ) -> NDArray[np.float64] | None:
        # own iteration: scipy's dot products go through threaded BLAS, whose last digits depend on the thread count
        x, r = np.zeros_like(rhs), rhs.copy()
        target = TOLERANCE**2 * (rhs * rhs).sum()
        rz_old, p = 1.0, np.zeros_like(rhs)
        for _ in range(limit):
            if (r * r).sum() <= target:
                return x
            z = precondition(r)
            rz = (r * z).sum()
            p = z + (rz / rz_old) * p
            q = self._inner @ p
            curvature = (p * q).sum()
            if not curvature > 0:
                return None
            x += (rz / curvature) * p
            r -= (rz / curvature) * q
            rz_old = rz
        return None


class Multigrid:
    """One symmetric V-cycle of smoothed aggregation (pyamg's levels and smoothers) as a preconditioner.

    `local` weights need no random vector and the cycle no threaded norms, so two runs give the same bytes.
    """

    def __init__(self, matrix: sp.csr_array) -> None:
        import pyamg

        smooth = ("jacobi", {"weighting": "local"})
        levels = pyamg.smoothed_aggregation_solver(sp.csr_matrix(matrix), smooth=smooth, improve_candidates=None, max_coarse=200).levels
        self._matrices = [level.A.tocsr() for level in levels]
        self._up = [level.P.tocsr() for level in levels[:-1]]
        self._down = [level.R.tocsr() for level in levels[:-1]]
        self._coarsest = splu(self._matrices[-1].tocsc())

    def cycle(self, rhs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Approximate solution (n,) for a right-hand side (n,)."""
        return self._cycle(0, rhs)

    def _cycle(self, level: int, rhs: NDArray[np.float64]) -> NDArray[np.float64]:
        from pyamg.relaxation.relaxation import gauss_seidel

        if level == len(self._up):
            return np.asarray(self._coarsest.solve(rhs))
        matrix = self._matrices[level]
        x = np.zeros_like(rhs)
        gauss_seidel(matrix, x, rhs, sweep="forward")
        x += self._up[level] @ self._cycle(level + 1, self._down[level] @ (rhs - matrix @ x))
        gauss_seidel(matrix, x, rhs, sweep="backward")
        return x


def trajectory_fraction(
    elements: Elements,
    field: NDArray[np.float64],
    start: NDArray[np.integer],
    end: NDArray[np.integer],
    *,
    multigrid: bool = False,
) -> NDArray[np.float64]:
    """Share of the way (n,) from `start` (0) to `end` (1) nodes along the gradient lines of a nodal field that rises between them.

    T . grad d = 1 in least squares, T the normalised gradient, from either side; the fraction is d_start / (d_start + d_end).
    Source: Schuler 2021 (doi 10.1016/j.media.2021.102247), transmural coordinate.
    """
    direction = unit(elements.slope(field))
    # neighbouring lines know of each other only through shared elements: a little isotropic diffusion makes the problem well-posed
    matrix = elements.matrix(direction) + COUPLING * elements.matrix()
    load = elements.divergence_load(direction)
    zero = np.zeros(elements.n)
    from_start = np.maximum(Dirichlet(matrix, start, multigrid=multigrid).solve(zero, load), 0.0)
    from_end = np.maximum(Dirichlet(matrix, end, multigrid=multigrid).solve(zero, -load), 0.0)
    from_start[start], from_end[end] = 0.0, 0.0
    total = from_start + from_end
    return np.where(total > 0, from_start / np.maximum(total, 1e-300), np.clip(field, 0.0, 1.0))
