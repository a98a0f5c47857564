"""Paired binary endpoints: exact McNemar test, Wilson and Newcombe intervals, sample size and exact power."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


@dataclass(frozen=True)
class Pairs:
    """Counts of twins by outcome under two arms: both, only the first, only the second, neither."""

    both: int
    first_only: int
    second_only: int
    neither: int

    @classmethod
    def of(cls, first: ArrayLike, second: ArrayLike) -> Pairs:
        """Count from two boolean arrays of the same twins in the same order; raises ValueError where their lengths differ."""
        a, b = np.asarray(first, bool), np.asarray(second, bool)
        if a.shape != b.shape or a.ndim != 1:
            raise ValueError(f"paired outcomes need two vectors of one length, not {a.shape} and {b.shape}")
        return cls(int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))

    @property
    def n(self) -> int:
        """Number of twins."""
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def difference(self) -> float:
        """Proportion under the first arm minus that under the second."""
        return (self.first_only - self.second_only) / self.n


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of one proportion (Wilson, J Am Stat Assoc 1927;22:209); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    z = stats.norm.ppf(0.5 + level / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def mcnemar_exact(pairs: Pairs) -> float:
    """Two-sided exact p-value: discordant pairs are as likely one way as the other under the hypothesis of no difference."""
    discordant = pairs.first_only + pairs.second_only
    if discordant == 0:
        return 1.0
    return float(min(1.0, 2 * stats.binom.cdf(min(pairs.first_only, pairs.second_only), discordant, 0.5)))


def newcombe(pairs: Pairs, level: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of paired proportions (Newcombe, Stat Med 1998;17:2635, method 10)."""
    n, a, b, c, d = pairs.n, pairs.both, pairs.first_only, pairs.second_only, pairs.neither
    p1, p2 = (a + b) / n, (a + c) / n
    l1, u1 = wilson(a + b, n, level)
    l2, u2 = wilson(a + c, n, level)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    cross = a * d - b * c
    if cross > n / 2:
        cross_corrected = cross - n / 2
    else:
        cross_corrected = min(cross, 0.0)
    phi = cross_corrected / math.sqrt(margins) if margins else 0.0
    low = math.sqrt(max((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2, 0.0))
    high = math.sqrt(max((u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2, 0.0))
    return max(p1 - p2 - low, -1.0), min(p1 - p2 + high, 1.0)


def mcnemar_power(n: int, first_only: float, second_only: float, alpha: float = 0.05) -> float:
    """Exact unconditional power of the exact McNemar test with n twins, from the probabilities of the two discordant outcomes.

    Sums over the number of discordant pairs (binomial) and their split. Raises ValueError for probabilities that are none.
    """
    discordant = first_only + second_only
    if min(first_only, second_only) < 0 or not 0 < discordant <= 1:
        raise ValueError("probabilities of discordant outcomes must be at least 0 and sum to a number in (0, 1]")
    counts = np.arange(n + 1)
    weights = stats.binom.pmf(counts, n, discordant)
    return float(sum(w * _conditional_power(int(k), first_only / discordant, alpha) for k, w in zip(counts, weights) if w > 1e-14))


def _conditional_power(discordant: int, share: float, alpha: float) -> float:
    """Probability that the exact test rejects, given the number of discordant pairs."""
    critical = -1
    while critical + 1 <= (discordant - 1) // 2 and 2 * stats.binom.cdf(critical + 1, discordant, 0.5) <= alpha:
        critical += 1
    if critical < 0:
        return 0.0
    return float(stats.binom.cdf(critical, discordant, share) + stats.binom.sf(discordant - critical - 1, discordant, share))


def mcnemar_sample_size(first_only: float, second_only: float, power: float = 0.8, alpha: float = 0.05, most: int = 20_000) -> int:
    """Smallest number of twins from which the exact test keeps at least `power`; raises ValueError if `most` do not suffice.

    Started from Connor's normal approximation (Biometrics 1987;43:207), then settled with the exact power, which is a saw-tooth: the
    number returned is one from which the next ten also suffice.
    """
    discordant, difference = first_only + second_only, first_only - second_only
    if difference == 0:
        raise ValueError("no difference can be shown where none is assumed")
    za, zb = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)
    guess = (za * math.sqrt(discordant) + zb * math.sqrt(max(discordant - difference**2, 0.0))) ** 2 / difference**2
    n = max(int(0.7 * guess), 2)
    run = 0
    while n <= most:
        run = run + 1 if mcnemar_power(n, first_only, second_only, alpha) >= power else 0
        if run == 11:
            return n - 10
        n += 1
    raise ValueError(f"more than {most} twins would be needed")


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values of several hypotheses (Holm, Scand J Stat 1979;6:65), in the order given."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def non_inferior(pairs: Pairs, margin: float, alpha: float = 0.025) -> tuple[bool, float]:
    """True if the first arm is at most `margin` worse: the lower end of the interval at one-sided `alpha` is above -margin; and that end.

    Success must be the good outcome.
    """
    low, _ = newcombe(pairs, 1 - 2 * alpha)
    return low > -margin, low
