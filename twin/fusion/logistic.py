"""Ridge logistic regression by Newton steps; the evidence of the outcomes sets the penalty, five folds give the left-out logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]

GRID = tuple(10.0 ** np.arange(-3.0, 0.6, 0.5))
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


def newton(x1: Array, y: Array, penalty: Array, start: Array | None = None, steps: int = 60, close: float = 1e-9) -> Array:
    """Coefficients (p,) that minimise log loss + half penalty x coefficients squared, until a step gains less than `close` of it.

    `x1` (n, p) holds its own column of ones; a zero in `penalty` (p,) leaves that column free.
    """
    beta = np.zeros(x1.shape[1]) if start is None else start.copy()

    def cost(b: Array) -> float:
        return float(log_loss(y, x1 @ b).sum() + 0.5 * (penalty * b * b).sum())

    now = cost(beta)
    for _ in range(steps):
        p = expit(x1 @ beta)
        gradient = x1.T @ (p - y) + penalty * beta
        step = cho_solve(cho_factor(hessian(x1, p, penalty), overwrite_a=True, check_finite=False), gradient, check_finite=False)
        size = 1.0
        while (then := cost(beta - size * step)) > now + 1e-12 and size > 1e-4:
            size *= 0.5
        beta = beta - size * step
        if now - then < close * (1.0 + abs(now)):
            break
        now = then
    return beta


def hessian(x1: Array, p: Array, penalty: Array) -> Array:
    """Second derivative of the penalised log loss, (p, p)."""
    return _gram(x1, p) + np.diag(penalty + 1e-9)


def _gram(x1: Array, p: Array) -> Array:
    weighted = x1 * np.sqrt(p * (1 - p))[:, None]
    return np.asarray(weighted.T @ weighted)


def inner_folds(y: Array, folds: int = FOLDS) -> NDArray[np.int64]:
    """Fold of each case, (n,), events and others dealt out evenly; the same for the same outcomes."""
    order = np.random.default_rng(0).permutation(len(y))
    dealt = order[np.argsort(y[order], kind="stable")]
    out = np.empty(len(y), np.int64)
    out[dealt] = np.arange(len(y)) % folds
    return out


@dataclass
class RidgeLogistic:
    """Logistic regression with a free intercept; `c` fixes the penalty (scikit-learn's C), otherwise the largest evidence chooses it.

    Evidence: of the outcomes, coefficients integrated out by Laplace's method (MacKay, Neural Comput 1992;4:720). On the shipped sets it
    chooses as cross-validation does where events are many, and varies less between folds where they are few.
    """

    c: float | None = None
    beta: Array = field(default_factory=lambda: np.zeros(1))
    chosen_c: float = 1.0

    def fit(self, x: Array, y: Array) -> RidgeLogistic:
        """Fit to x (n, p) and y (n,) of zeros and ones."""
        x1 = np.column_stack([np.ones(len(x)), x])
        start = None
        self.chosen_c = self.c if self.c is not None else 1.0
        if self.c is None:
            self.chosen_c, start = _most_evident(x1, y)
        self.beta = newton(x1, y, _penalty(x1, self.chosen_c), start)
        self._taught = (x1, y)
        self.__dict__.pop("left_out_logit", None)
        return self

    @cached_property
    def left_out_logit(self) -> Array:
        """Logit of each training case by a fit without its fold, the same penalty, (n,).

        (One Newton step from the whole fit, the usual short cut to leave-one-out, is too hopeful where events are rare.)
        """
        x1, y = self._taught
        penalty, fold, p = _penalty(x1, self.chosen_c), inner_folds(y), expit(x1 @ self.beta)
        parts = [_gram(x1[fold == k], p[fold == k]) for k in range(FOLDS)]
        whole, out = np.sum(parts, axis=0) + np.diag(penalty + 1e-9), np.empty(len(y))
        for k in range(FOLDS):
            test = fold == k
            if test.any() and not test.all():
                out[test] = x1[test] @ _without(x1[~test], y[~test], penalty, self.beta, whole - parts[k])
        return out

    def logit(self, x: Array) -> Array:
        """Logit of each row."""
        return np.asarray(self.beta[0] + x @ self.beta[1:])


def _without(x1: Array, y: Array, penalty: Array, start: Array, curvature: Array) -> Array:
    """The fit to fewer rows: steps with the curvature (p, p) at the whole fit, which is near; Newton's where these do not settle."""
    factor, beta, last = cho_factor(curvature, check_finite=False), start, np.inf
    for _ in range(30):
        step = cho_solve(factor, x1.T @ (expit(x1 @ beta) - y) + penalty * beta, check_finite=False)
        size = float(np.abs(step).max())
        if size > last:
            break
        beta, last = beta - step, size
        if size < 1e-6:
            return beta
    return newton(x1, y, penalty, start)


def _most_evident(x1: Array, y: Array) -> tuple[float, Array]:
    """The C of the largest evidence, between the values tried by a parabola, and coefficients to start from."""
    found: list[tuple[float, Array]] = []
    beta, best = None, 0
    for k, c in enumerate(GRID):
        penalty = _penalty(x1, c)
        beta = newton(x1, y, penalty, beta, close=1e-6)
        found.append((_evidence(x1, y, penalty, beta), beta))
        best = k if found[k][0] > found[best][0] else best
        if k - best >= PATIENCE:
            break
    shift = 0.0
    if 0 < best < len(found) - 1:
        low, top, high = (found[best + j][0] for j in (-1, 0, 1))
        shift = 0.5 * (low - high) / min(low - 2 * top + high, -1e-12)
    return float(10.0 ** (np.log10(GRID[best]) + 0.5 * np.clip(shift, -0.5, 0.5))), found[best][1]


def _evidence(x1: Array, y: Array, penalty: Array, beta: Array) -> float:
    """Log evidence up to a constant: what the best coefficients explain, less what it took to find them."""
    z = x1 @ beta
    half_log_det = float(np.log(np.diag(np.linalg.cholesky(hessian(x1, expit(z), penalty)))).sum())
    free = penalty > 0
    return -float(log_loss(y, z).sum() + 0.5 * (penalty * beta * beta).sum()) + 0.5 * float(np.log(penalty[free]).sum()) - half_log_det


def _penalty(x1: Array, c: float) -> Array:
    return np.concatenate([[0.0], np.full(x1.shape[1] - 1, 1.0 / c)])


SLOPE_SD = 0.3
"""Prior spread of the calibration slope about 1 (chosen here): few events say little about it, and then it is left alone."""


def recalibration(z: Array, y: Array) -> tuple[float, float]:
    """Intercept and slope that make logits z (n,) right for y (n,), the slope held to 1 by SLOPE_SD."""
    line = weighting([z], y)
    return float(line[0]), float(np.clip(line[1], 0.05, 2.0))


def weighting(logits: Sequence[Array], y: Array) -> Array:
    """Intercept and a weight for each of k logits (n,) whose sum is right for y (n,), (k + 1,); weights are held to 1 / k by SLOPE_SD."""
    k = len(logits)
    x, middle = np.column_stack([np.ones(len(y)), *logits]), np.concatenate([[0.0], np.full(k, 1.0 / k)])
    precision = np.concatenate([[1e-9], np.full(k, SLOPE_SD**-2)])

    def cost(line: Array) -> float:
        return float(log_loss(y, x @ line).sum() + 0.5 * (precision * (line - middle) ** 2).sum())

    line = middle.copy()
    for _ in range(50):
        p = expit(x @ line)
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.diag(precision), x.T @ (p - y) + precision * (line - middle))
        size = 1.0
        # far off, where all probabilities are 0 or 1, a whole step overshoots
        while cost(line - size * step) > cost(line) and size > 1e-6:
            size *= 0.5
        line = line - size * step
        if np.abs(size * step).max() < 1e-8:
            break
    return line
