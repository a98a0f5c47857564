"""A Gaussian over named unknowns, and what linear evidence does to it: the low-cost update during a procedure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    """names (q,), mean (q,), covariance (q, q); velocities as natural logarithms of m/s, times in ms."""

    names: tuple[str, ...]
    mean: Array
    covariance: Array

    @property
    def sd(self) -> Array:
        """Standard deviations (q,)."""
        return np.asarray(np.sqrt(np.diag(self.covariance)), np.float64)

    def given(self, jacobian: Array, residual: Array, weight: Array) -> Gaussian:
        """After evidence: residual (k,) is about jacobian (k, q) @ (x - mean) + noise of variance 1 / weight (k,)."""
        information = jacobian.T @ (weight[:, None] * jacobian)
        precision = np.linalg.inv(self.covariance)
        covariance = np.linalg.inv(precision + information)
        covariance = 0.5 * (covariance + covariance.T)
        return Gaussian(self.names, self.mean + covariance @ (jacobian.T @ (weight * residual)), covariance)

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Samples (count, q); row 0 is the mean."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        # einsum: the last digits of a threaded product depend on the number of threads
        out = self.mean + np.einsum("sk,qk->sq", rng.standard_normal((count, len(self.mean))), root)
        out[0] = self.mean
        return np.asarray(out, np.float64)
