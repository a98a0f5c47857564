"""The functions that cell models are written with, for NumPy arrays: the plain meaning of `solvers.kernels.simd`."""

from __future__ import annotations

from typing import Any

import numpy as np


def exp(x: Any) -> Any:
    """e^x."""
    return np.exp(x)


def log(x: Any) -> Any:
    """Natural logarithm."""
    return np.log(x)


def sqrt(x: Any) -> Any:
    """Square root."""
    return np.sqrt(x)


def relax(x: Any) -> Any:
    """1 - e^-x without cancellation."""
    return -np.expm1(-x)


def select(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds, else `no`."""
    return np.where(condition, yes, no)
