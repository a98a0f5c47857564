"""Compiled sums of the lead field: arrays in, arrays out, always in node order, so that results never depend on threads."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

REACH = 16.0
"""Widths from its middle at which a sigmoid is taken to be 0 or 1 (error 1e-7)."""


@njit(cache=True, nogil=True)
def sum_steps(
    weights: NDArray[np.float64], at_ms: NDArray[np.float64], width_ms: float, time_ms: NDArray[np.float64], out: NDArray[np.float64]
) -> None:
    """Add to out (t, l) the sum over nodes of weights (n, l) times a logistic step in time at at_ms (n,); not finite = no step."""
    n_times, n_leads = out.shape
    done = np.zeros((n_times + 1, n_leads))
    for node in range(len(at_ms)):
        middle = at_ms[node]
        if not np.isfinite(middle):
            continue
        first = np.searchsorted(time_ms, middle - REACH * width_ms)
        last = np.searchsorted(time_ms, middle + REACH * width_ms)
        for i in range(first, last):
            step = 1.0 / (1.0 + np.exp(-(time_ms[i] - middle) / width_ms))
            for lead in range(n_leads):
                out[i, lead] += weights[node, lead] * step
        for lead in range(n_leads):
            done[last, lead] += weights[node, lead]
    for lead in range(n_leads):
        total = 0.0
        for i in range(n_times):
            total += done[i, lead]
            out[i, lead] += total


@njit(cache=True, nogil=True)
def sum_potentials(weights: NDArray[np.float64], vm: NDArray[np.floating], out: NDArray[np.float64]) -> None:
    """Add to out (t, l) the products of vm (t, n) with weights (n, l)."""
    for i in range(vm.shape[0]):
        for node in range(vm.shape[1]):
            value = vm[i, node]
            for lead in range(weights.shape[1]):
                out[i, lead] += weights[node, lead] * value
