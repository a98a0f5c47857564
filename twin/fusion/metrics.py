"""How good a probability is: discrimination, calibration, use; with bootstrap intervals over patients."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from twin.fusion.logistic import RidgeLogistic, logit
from twin.fusion.ranking_kernels import areas

Array = NDArray[np.float64]
DRAWS = 2000


def weighted_auc(y: Array, p: Array, weight: Array) -> Array:
    """Area under the ROC curve for each row of weights (draws, n); ties count half; NaN where a draw lacks events or others."""
    order = np.argsort(p, kind="stable")
    _, start = np.unique(p[order], return_index=True)
    return np.asarray(areas(np.asarray(y, np.float64)[order], np.append(start, len(p)), order, np.ascontiguousarray(weight, np.float64)))


def auc(y: Array, p: Array) -> float:
    """Area under the ROC curve."""
    return float(weighted_auc(y, p, np.ones((1, len(y))))[0])


@lru_cache(maxsize=2)
def bootstrap_weights(n: int, draws: int = DRAWS, seed: int = 0) -> Array:
    """How often each of n patients is in each draw, (draws, n)."""
    rng = np.random.default_rng(seed)
    return np.array([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(draws)], np.float64)


def interval(draws: Array) -> list[float]:
    """Middle 95 % of draws, draws without a value left out."""
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return [float(low), float(high)]


def auc_draws(y: Array, repeats: Array, weight: Array) -> Array:
    """AUC of each draw, averaged over the repeats (repeats, n)."""
    return np.asarray(np.mean([weighted_auc(y, p, weight) for p in repeats], axis=0))


def ece(y: Array, p: Array, bins: int = 10) -> float:
    """Expected calibration error in bins of equal count."""
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    return float(sum(abs(y[i].mean() - p[i].mean()) * len(i) for i in parts if len(i)) / len(y))


def calibration(y: Array, p: Array) -> tuple[float, float]:
    """Intercept and slope of a logistic recalibration; 0 and 1 are right, a slope below 1 is overconfident."""
    z = logit(p)
    if np.ptp(z) < 1e-9:
        return float("nan"), float("nan")
    beta = RidgeLogistic(1e9).fit(z[:, None], y).beta
    return float(beta[0]), float(beta[1])


def calibration_curve(y: Array, p: Array, bins: int = 10) -> list[dict[str, float]]:
    """Predicted and observed in bins of equal count, with the Wilson 95 % interval of the observed."""
    out = []
    for i in np.array_split(np.argsort(p, kind="stable"), bins):
        n, seen = len(i), float(y[i].mean())
        centre, half = (seen + 1.92 / n) / (1 + 3.84 / n), 1.96 * np.sqrt(seen * (1 - seen) / n + 0.96 / n**2) / (1 + 3.84 / n)
        out.append({"predicted": float(p[i].mean()), "observed": seen, "low": float(centre - half), "high": float(centre + half), "n": n})
    return out


def average_precision(y: Array, p: Array) -> float:
    """Mean precision over the events, ties in one step."""
    order = np.argsort(-p, kind="stable")
    _, last = np.unique(-p[order], return_index=True)
    ends = np.r_[last[1:] - 1, len(p) - 1]
    hits = np.cumsum(y[order])[ends]
    return float((np.diff(np.r_[0.0, hits]) * hits / (ends + 1)).sum() / max(y.sum(), 1.0))


def net_benefit(y: Array, p: Array, thresholds: Array) -> Array:
    """Net benefit of treating above each threshold (Vickers and Elkin 2006), per patient."""
    return np.array([(y[p >= t].sum() - (1 - y[p >= t]).sum() * t / (1 - t)) / len(y) for t in thresholds])


def summary(y: Array, repeats: Array, draws: Array) -> dict[str, object]:
    """The figures of one model from its out-of-fold probabilities (repeats, n) and its `auc_draws`; means over repeats."""
    aucs = [auc(y, p) for p in repeats]
    lines = np.array([calibration(y, p) for p in repeats])
    return {
        "auc": float(np.mean(aucs)),
        "auc_interval": interval(draws),
        "auc_sd_over_repeats": float(np.std(aucs, ddof=1)) if len(aucs) > 1 else 0.0,
        "average_precision": float(np.mean([average_precision(y, p) for p in repeats])),
        "mean_prediction": float(repeats.mean()),
        "brier": float(((repeats - y) ** 2).mean()),
        "ece": float(np.mean([ece(y, p) for p in repeats])),
        "calibration_intercept": _finite(lines[:, 0].mean()),
        "calibration_slope": _finite(lines[:, 1].mean()),
    }


def gain(y: Array, repeats: Array, other: Array, draws: Array, other_draws: Array) -> dict[str, object]:
    """AUC over another model's, the same patients drawn for both."""
    value = float(np.mean([auc(y, p) - auc(y, q) for p, q in zip(repeats, other)]))
    return {"value": value, "interval": interval(draws - other_draws)}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
