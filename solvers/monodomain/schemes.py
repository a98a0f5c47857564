"""Two ways through a time step: the explicit one for work and the implicit one to check it against."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from solvers.kernels import sparse
from solvers.monodomain.interpolated import InterpolatedCurrent
from solvers.monodomain.log import BeatLog
from solvers.monodomain.operators import Diffusion, Operators
from twin.errors import RunFailed


class Scheme(Protocol):
    """Advances v by one step with the current of the same step and notes crossings in the log's step arrays."""

    def advance(self, v: NDArray[Any], current: NDArray[Any], t_ms: float, log: BeatLog) -> None:
        """v (n,) in place, mV; current (n,) mV/ms, stimulus subtracted."""

    def snapshot(self) -> Any:
        """What the scheme remembers between steps."""

    def restore(self, state: Any) -> None:
        """Go back to a snapshot."""


class Explicit:
    """V_t = -I - P(M_L^-1 M) M_L^-1 K V, forward Euler, unsplit: three passes over the matrix, the last fused with the update."""

    def __init__(self, ops: Operators, theta: float, products: int, dt_ms: float, dtype: Any) -> None:
        self.diffusion = Diffusion(ops, theta, products, dtype)
        self.dt = np.dtype(dtype).type(dt_ms)

    def advance(self, v: NDArray[Any], current: NDArray[Any], t_ms: float, log: BeatLog) -> None:
        """One step."""
        d = self.diffusion
        arrays = (log.levels_mv, log.step_node, log.step_ms, log.found, log.above, log.bad)
        matrix = (d.start, d.column, d.stiffness, d.mass_start, d.mass, d.factors, d.work)
        sparse.advance_explicit(*matrix, current, v, self.dt, t_ms, *arrays)

    def snapshot(self) -> None:
        """Nothing is remembered."""

    def restore(self, state: Any) -> None:
        """Nothing to go back to."""


class CrankNicolson:
    """(M + dt/2 K) dV = dt (-K V - M I), M = theta lumped + (1 - theta) full, by conjugate gradients with Jacobi in float64.

    between: state-variable interpolation of I in the elements of a front (None: I is interpolated from the nodes).
    """

    def __init__(
        self, ops: Operators, theta: float, dt_ms: float, tolerance: float = 1e-8, between: InterpolatedCurrent | None = None
    ) -> None:
        self.between = between
        stiffness, full = ops.matrices()
        self.stiffness = stiffness
        self.mass = ((1.0 - theta) * full + theta * sp.diags_array(ops.lumped)).tocsr()
        self.matrix = (self.mass + 0.5 * dt_ms * stiffness).tocsr()
        self.jacobi = 1.0 / self.matrix.diagonal()
        self.dt_ms, self.tolerance = dt_ms, tolerance
        self.increment = np.zeros(len(ops.lumped))

    def advance(self, v: NDArray[Any], current: NDArray[Any], t_ms: float, log: BeatLog) -> None:
        """One step; the last increment is the first guess. Raises RunFailed if conjugate gradients do not converge."""
        load = self.stiffness @ v.astype(float) + self.mass @ current.astype(float)
        if self.between is not None:
            load += self.between.excess(v)
        right = -self.dt_ms * load
        self.increment = self._solve(right, self.increment)
        arrays = (log.levels_mv, log.step_node, log.step_ms, log.found, log.above, log.bad)
        sparse.advance_increment(self.increment.astype(v.dtype), v, self.dt_ms, t_ms, *arrays)

    def _solve(self, right: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        # numpy's pairwise sums instead of BLAS dot products, whose result depends on the thread count
        residual = right - self.matrix @ x
        z = self.jacobi * residual
        direction, rz = z, float(np.sum(residual * z))
        goal = self.tolerance**2 * max(float(np.sum(right * self.jacobi * right)), 1e-300)
        for _ in range(1000):
            if rz <= goal:
                return x
            image = self.matrix @ direction
            step = rz / float(np.sum(direction * image))
            x = x + step * direction
            residual = residual - step * image
            z = self.jacobi * residual
            rz, old = float(np.sum(residual * z)), rz
            direction = z + (rz / old) * direction
        if not np.isfinite(rz):
            return np.full_like(x, np.nan)
        raise RunFailed(f"conjugate gradients did not reach {self.tolerance:g} in 1000 iterations; check the mesh for slivers")

    def snapshot(self) -> NDArray[np.float64]:
        """The last increment."""
        return self.increment.copy()

    def restore(self, state: Any) -> None:
        """Go back to a snapshot."""
        self.increment = state.copy()
