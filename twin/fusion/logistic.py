"""Ridge logistic regression by Newton steps; the penalty and the left-out logits come from an inner cross-validation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]

GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Penalties tried, as scikit-learn's C (chosen here; each of the shipped sets has its best inside)."""
FOLDS = 5
PATIENCE = 2
"""Weaker penalties are not tried once this many in a row were worse than the best."""


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


def newton(x1: Array, y: Array, penalty: Array, start: Array | None = None, steps: int = 60) -> Array:
    """Coefficients (p,) that minimise log loss + half penalty x coefficients squared.

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
    return beta


def hessian(x1: Array, p: Array, penalty: Array) -> Array:
    """Second derivative of the penalised log loss, (p, p)."""
    weight = p * (1 - p)
    return np.asarray((x1 * weight[:, None]).T @ x1 + np.diag(penalty + 1e-9))


def inner_folds(y: Array, folds: int = FOLDS) -> NDArray[np.int64]:
    """Fold of each case, (n,), events and others dealt out evenly; the same for the same outcomes."""
    order = np.random.default_rng(0).permutation(len(y))
    dealt = order[np.argsort(y[order], kind="stable")]
    out = np.empty(len(y), np.int64)
    out[dealt] = np.arange(len(y)) % folds
    return out


@dataclass
class RidgeLogistic:
    """Logistic regression with a free intercept; `grid` with one entry fixes C, otherwise cross-validated log loss chooses it.

    left_out_logit (n,): of each training case, by a fit without its fold; empty where C is fixed. (One Newton step from the whole fit, the
    usual short cut to leave-one-out, is too hopeful where events are rare: on the shipped sets its penalties were too weak.)
    """

    grid: tuple[float, ...] = GRID
    beta: Array = field(default_factory=lambda: np.zeros(1))
    chosen_c: float = 1.0
    left_out_logit: Array = field(default_factory=lambda: np.zeros(0))

    def fit(self, x: Array, y: Array) -> RidgeLogistic:
        """Fit to x (n, p) and y (n,) of zeros and ones."""
        x1 = np.column_stack([np.ones(len(x)), x])
        if len(self.grid) == 1:
            self.chosen_c = self.grid[0]
            self.beta = newton(x1, y, _penalty(x1, self.chosen_c))
            return self
        fold = inner_folds(y)
        best, worse = np.inf, 0
        warm: list[Array | None] = [None] * FOLDS
        for c in self.grid:
            out = self._left_out(x1, y, fold, c, warm)
            loss = float(log_loss(y, out).mean())
            worse = 0 if loss < best else worse + 1
            if loss < best:
                best, self.chosen_c, self.left_out_logit = loss, c, out
            if worse >= PATIENCE:
                break
        self.beta = newton(x1, y, _penalty(x1, self.chosen_c))
        return self

    def _left_out(self, x1: Array, y: Array, fold: NDArray[np.int64], c: float, warm: list[Array | None]) -> Array:
        """Logits by fits without each fold; `warm` holds where the last penalty's fits ended."""
        out = np.empty(len(y))
        for k in range(FOLDS):
            test = fold == k
            if test.any() and not test.all():
                warm[k] = newton(x1[~test], y[~test], _penalty(x1, c), warm[k])
                out[test] = x1[test] @ warm[k]
        return out

    def logit(self, x: Array) -> Array:
        """Logit of each row."""
        return np.asarray(self.beta[0] + x @ self.beta[1:])


def _penalty(x1: Array, c: float) -> Array:
    return np.concatenate([[0.0], np.full(x1.shape[1] - 1, 1.0 / c)])
