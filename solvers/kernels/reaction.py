"""Voltages from beats: one template look-up per node. Arrays in, arrays out."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def _course(
    course: NDArray[np.float64], kind: int, foot: float, pitch: float, spike: float, apd: float, wanted: float, since: float
) -> float:
    """Voltage `since` ms after activation of an action potential whose time after the spike is stretched to the wanted duration."""
    if since > spike:
        since = spike + (since - spike) * (apd - spike) / max(wanted - spike, 1.0)
    x = (since + foot) / pitch
    last = course.shape[1] - 1
    if x <= 0.0:
        return course[kind, 0]
    if x >= last:
        return course[kind, last]
    i = int(x)
    return course[kind, i] + (x - i) * (course[kind, i + 1] - course[kind, i])


@njit(cache=True, nogil=True)
def voltages(
    t: float,
    start: NDArray[np.int64],
    up: NDArray[np.float64],
    down: NDArray[np.float64],
    current: NDArray[np.int64],
    kind: NDArray[np.int8],
    course: NDArray[np.float64],
    foot: NDArray[np.float64],
    pitch: float,
    spike: float,
    apd: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Voltage (n,) at time t; `current` (n,) is the last beat of each node and moves on with ascending times.

    The foot of the next beat lies over the end of the last one: the higher voltage counts.
    """
    for v in range(len(out)):
        c = current[v]
        while c + 1 < start[v + 1] and up[c + 1] <= t:
            c += 1
        current[v] = c
        k = kind[v]
        value = course[k, 0]
        if c >= start[v]:
            value = _course(course, k, foot[k], pitch, spike, apd[v], down[c] - up[c], t - up[c])
        if c + 1 < start[v + 1] and t > up[c + 1] - foot[k]:
            value = max(value, _course(course, k, foot[k], pitch, spike, apd[v], down[c + 1] - up[c + 1], t - up[c + 1]))
        out[v] = value
