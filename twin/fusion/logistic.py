"""Ridge logistic regression by Newton steps; the penalty and the left-out logits come from approximate leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]

GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Penalties tried, as scikit-learn's C (chosen here; each of the shipped sets has its best inside)."""


def expit(z: Array) -> Array:
    """Probability of a logit."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -500, 500))))


def logit(p: Array) -> Array:
    """Logit of a probability, probabilities clipped to 1e-6 from 0 and 1."""
    q = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(q / (1 - q)))


def log_loss(y: Array, z: Array) -> Array:
    """Negative log likelihood of each case from its logit, nats."""
    return np.asarray(np.logaddexp(0.0, z) - y * z)


def newton(x1: Array, y: Array, penalty: Array, start: Array | None = None, steps: int = 60) -> tuple[Array, Array]:
    """Coefficients (p,) that minimise log loss + half penalty x coefficients squared, and the factor of its Hessian's inverse use.

    `x1` (n, p) holds its own column of ones; a zero in `penalty` (p,) leaves that column free.
    """
    beta = np.zeros(x1.shape[1]) if start is None else start.copy()

    def cost(b: Array) -> float:
        return float(log_loss(y, x1 @ b).sum() + 0.5 * (penalty * b * b).sum())

    now = cost(beta)
    for _ in range(steps):
        p = expit(x1 @ beta)
        gradient = x1.T @ (p - y) + penalty * beta
        step = cho_solve(cho_factor(hessian(x1, p, penalty)), gradient)
        size = 1.0
        while (then := cost(beta - size * step)) > now + 1e-12 and size > 1e-4:
            size *= 0.5
        beta = beta - size * step
        if now - then < 1e-9 * (1.0 + abs(now)):
            break
        now = then
    return beta, hessian(x1, expit(x1 @ beta), penalty)


def hessian(x1: Array, p: Array, penalty: Array) -> Array:
    """Second derivative of the penalised log loss, (p, p)."""
    weight = p * (1 - p)
    return np.asarray((x1 * weight[:, None]).T @ x1 + np.diag(penalty + 1e-9))


def left_out(x1: Array, y: Array, beta: Array, second: Array) -> Array:
    """Logit of each training case as if it had been left out, one Newton step from the full fit (Rad and Maleki 2020)."""
    z = x1 @ beta
    p = expit(z)
    leverage = np.einsum("ij,ji->i", x1, cho_solve(cho_factor(second), x1.T))
    return np.asarray(z + leverage * (p - y) / np.maximum(1 - p * (1 - p) * leverage, 1e-6))


@dataclass
class RidgeLogistic:
    """Logistic regression with a free intercept; `grid` with one entry fixes C, otherwise leave-one-out log loss chooses it."""

    grid: tuple[float, ...] = GRID
    beta: Array = field(default_factory=lambda: np.zeros(1))
    chosen_c: float = 1.0
    left_out_logit: Array = field(default_factory=lambda: np.zeros(0))

    def fit(self, x: Array, y: Array) -> RidgeLogistic:
        """Fit to x (n, p) and y (n,) of zeros and ones."""
        x1 = np.column_stack([np.ones(len(x)), x])
        best, beta = np.inf, None
        for c in self.grid:
            penalty = np.r_[0.0, np.full(x.shape[1], 1.0 / c)]
            beta, second = newton(x1, y, penalty, beta)
            out = left_out(x1, y, beta, second)
            loss = float(log_loss(y, out).mean())
            if loss < best:
                best, self.beta, self.chosen_c, self.left_out_logit = loss, beta, c, out
        return self

    def logit(self, x: Array) -> Array:
        """Logit of each row."""
        return np.asarray(self.beta[0] + x @ self.beta[1:])
