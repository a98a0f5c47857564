"""Polynomial coefficients of the vector exp and log, fitted once per process at Chebyshev nodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np


@cache
def exp_tail_coefficients(degree: int) -> tuple[float, ...]:
    """Coefficients of p in e^r = 1 + r + r^2 p(r), |r| <= ln(2)/2; the constant term first."""
    half = 0.5 * np.log(2.0) * 1.001
    return _fit(lambda r: np.polynomial.polynomial.polyval(r, _inverse_factorials()), half, degree, even=False)


@cache
def log_tail_coefficients(degree: int) -> tuple[float, ...]:
    """Coefficients of p in log((1+s)/(1-s)) = 2s (1 + z p(z)), z = s^2, z <= (3 - 2 sqrt 2)^2; the constant term first."""
    limit = (3.0 - 2.0 * np.sqrt(2.0)) ** 2 * 1.001
    return _fit(lambda z: np.polynomial.polynomial.polyval(z, 1.0 / (2.0 * np.arange(30) + 3.0)), limit, degree, even=True)


def _inverse_factorials() -> np.ndarray:
    """1/2!, 1/3!, ...: the series of (e^r - 1 - r)/r^2."""
    return 1.0 / np.cumprod(np.arange(1.0, 25.0))[1:]


def _fit(function: Callable[..., Any], limit: float, degree: int, even: bool) -> tuple[float, ...]:
    """Interpolate at Chebyshev nodes of [0, limit] (even) or [-limit, limit]; near minimax, and the arithmetic is exact to 1e-15."""
    domain = [0.0 if even else -limit, limit]
    series = np.polynomial.Chebyshev.interpolate(function, degree, domain=domain)
    return tuple(float(c) for c in series.convert(kind=np.polynomial.Polynomial).coef)
