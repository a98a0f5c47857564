"""Sequential looks: how much error each look may spend, and the boundary that spends it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats


def obrien_fleming(information: float, alpha: float) -> float:
    """Two-sided error spent at an information fraction, O'Brien-Fleming type, half on each side (Lan and DeMets, Biometrika 70:659)."""
    return float(4 * stats.norm.sf(stats.norm.isf(alpha / 4) / math.sqrt(information)))


def pocock(information: float, alpha: float) -> float:
    """Two-sided error spent at an information fraction, Pocock type (Lan and DeMets 1983)."""
    return float(alpha * math.log(1 + (math.e - 1) * information))


SPENDING: dict[str, Callable[[float, float], float]] = {"obrien_fleming": obrien_fleming, "pocock": pocock}


def boundaries(information: Sequence[float], alpha: float = 0.05, spending: str = "obrien_fleming") -> NDArray[np.float64]:
    """Critical |z| of each look at increasing information fractions up to 1, two-sided, total error `alpha`.

    The density of the statistic that has not stopped is carried from look to look on a grid (Armitage, McPherson and Rowe, J R Stat Soc A
    1969;132:235). Raises ValueError for fractions that do not increase within (0, 1] or an unknown way of spending.
    """
    times = np.asarray(information, float)
    if spending not in SPENDING:
        raise ValueError(f"unknown spending {spending!r}: {', '.join(SPENDING)}")
    if len(times) == 0 or times[0] <= 0 or times[-1] > 1 or np.any(np.diff(times) <= 0):
        raise ValueError("information fractions must increase within (0, 1]")
    spent = np.array([SPENDING[spending](t, alpha) for t in times])
    steps = np.diff(spent, prepend=0.0)
    critical = [float(stats.norm.isf(steps[0] / 2))]
    grid, density = _inside(critical[0] * math.sqrt(times[0]), lambda s: stats.norm.pdf(s, scale=math.sqrt(times[0])))
    for k in range(1, len(times)):
        scale = math.sqrt(times[k] - times[k - 1])
        exit_of = _exit(grid, density, scale)
        # the bracket's upper end is where nothing measurable is left to spend
        edge = optimize.brentq(lambda b, e=exit_of, want=steps[k]: e(b) - want, 1e-3, 12.0 * math.sqrt(times[k]), xtol=1e-10)
        critical.append(float(edge / math.sqrt(times[k])))
        grid, density = _inside(edge, _next_density(grid, density, scale))
    return np.array(critical)


def _inside(edge: float, density: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre points between the boundaries and the density there times their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(201)
    return edge * nodes, density(edge * nodes) * weights * edge


def _exit(grid: NDArray[np.float64], weighted: NDArray[np.float64], scale: float) -> Callable[[float], float]:
    """Probability of leaving (-b, b) at the next look, as a function of b."""
    return lambda b: float(weighted @ (stats.norm.sf((b - grid) / scale) + stats.norm.cdf((-b - grid) / scale)))


def _next_density(
    grid: NDArray[np.float64], weighted: NDArray[np.float64], scale: float
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Density of the statistic at the next look where it had not stopped before."""
    return lambda s: stats.norm.pdf((s[:, None] - grid[None, :]) / scale) @ weighted / scale
