"""Continuous paired endpoints and endpoints over posterior samples: the twin stays the unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A value with its interval at `level`."""

    value: float
    low: float
    high: float
    level: float


def paired_bootstrap(first: ArrayLike, second: ArrayLike, rng: np.random.Generator, draws: int = 10_000, level: float = 0.95) -> Estimate:
    """Mean difference first - second with a bias-corrected accelerated interval over twins (Efron, J Am Stat Assoc 1987;82:171).

    first, second: (n,) finite, the same twins in the same order. Raises ValueError for unequal lengths or fewer than two twins.
    """
    x, y = np.asarray(first, float), np.asarray(second, float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"paired values need two vectors of one length of at least 2, not {x.shape} and {y.shape}")
    difference = x - y
    value = float(difference.mean())
    if np.ptp(difference) == 0:
        return Estimate(value, value, value, level)
    means = _resampled_means(difference, rng, draws)
    bias = stats.norm.ppf(np.clip((np.mean(means < value) + np.mean(means <= value)) / 2, 1 / draws, 1 - 1 / draws))
    spread = difference - value  # jackknife values of a mean are its deviations, up to a factor that cancels
    acceleration = (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
    z = bias + stats.norm.ppf([0.5 - level / 2, 0.5 + level / 2])
    low, high = np.quantile(means, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return Estimate(value, float(low), float(high), level)


def _resampled_means(values: NDArray[np.float64], rng: np.random.Generator, draws: int) -> NDArray[np.float64]:
    """Means of resamples, in blocks that keep memory flat."""
    n = len(values)
    block = max(1, 2_000_000 // n)
    return np.concatenate([values[rng.integers(0, n, (min(block, draws - at), n))].mean(axis=1) for at in range(0, draws, block)])


def over_posterior(
    first: ArrayLike, second: ArrayLike, rng: np.random.Generator, draws: int = 4_000, level: float = 0.95
) -> tuple[Estimate, float]:
    """Mean difference of two arms whose outcomes were computed for several posterior samples of each twin, and the share of its variance
    that comes from not knowing the twins' parameters.

    first, second: (twins, samples), sample k of a twin the same in both arms; NaN where a sample was not run. Twins are resampled, and
    within each resampled twin its samples: the interval holds both sources. Raises ValueError for shapes that differ or an empty twin.
    """
    x, y = np.asarray(first, float), np.asarray(second, float)
    if x.shape != y.shape or x.ndim != 2:
        raise ValueError(f"outcomes over the posterior need two (twins, samples) arrays, not {x.shape} and {y.shape}")
    difference = x - y
    known = np.isfinite(difference)
    counts = known.sum(axis=1)
    if len(x) < 2 or np.any(counts == 0):
        raise ValueError("every twin needs at least one sample that was run in both arms, and there must be two twins")
    packed = [row[mask] for row, mask in zip(difference, known)]
    per_twin = np.array([row.mean() for row in packed])
    value = float(per_twin.mean())
    means = np.empty(draws)
    for k in range(draws):
        chosen = rng.integers(0, len(packed), len(packed))
        means[k] = np.mean([row[rng.integers(0, len(row), len(row))].mean() for row in (packed[i] for i in chosen)])
    within = float(np.mean([row.var(ddof=1) / len(row) if len(row) > 1 else 0.0 for row in packed])) / len(packed)
    total = float(means.var(ddof=1))
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, float(low), float(high), level), min(within / total, 1.0) if total > 0 else 0.0
