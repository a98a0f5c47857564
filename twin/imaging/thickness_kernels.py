"""Compiled part of the wall thickness: lines along a direction field to the two surfaces of the wall."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def _at(field: NDArray[np.float32], x: float, y: float, z: float) -> float:
    ni, nj, nk = field.shape
    x, y, z = min(max(x, 0.0), ni - 1.001), min(max(y, 0.0), nj - 1.001), min(max(z, 0.0), nk - 1.001)
    i, j, k = int(x), int(y), int(z)
    u, v, w = x - i, y - j, z - k
    low = (field[i, j, k] * (1 - w) + field[i, j, k + 1] * w) * (1 - v) + (field[i, j + 1, k] * (1 - w) + field[i, j + 1, k + 1] * w) * v
    high = (field[i + 1, j, k] * (1 - w) + field[i + 1, j, k + 1] * w) * (1 - v)
    high += (field[i + 1, j + 1, k] * (1 - w) + field[i + 1, j + 1, k + 1] * w) * v
    return low * (1 - u) + high * u


@njit(cache=True, nogil=True)
def _reach(
    start: NDArray[np.int64],
    sign: float,
    way: NDArray[np.float32],
    stop: NDArray[np.float32],
    spacing: NDArray[np.float64],
    step_mm: float,
    longest_mm: float,
) -> float:
    """Length along `sign` x way (3, ni, nj, nk; unit vectors) from a voxel to where `stop` (mm) rises through zero, mm; NaN: never."""
    x, y, z = float(start[0]), float(start[1]), float(start[2])
    length, value = 0.0, _at(stop, x, y, z)
    if value >= 0.0:
        return 0.0
    while length < longest_mm:
        a, b, c = _at(way[0], x, y, z), _at(way[1], x, y, z), _at(way[2], x, y, z)
        size = np.sqrt(a * a + b * b + c * c)
        if size < 1e-3:
            return np.nan
        half = 0.5 * sign * step_mm / size
        xm, ym, zm = x + half * a / spacing[0], y + half * b / spacing[1], z + half * c / spacing[2]
        a, b, c = _at(way[0], xm, ym, zm), _at(way[1], xm, ym, zm), _at(way[2], xm, ym, zm)
        size = np.sqrt(a * a + b * b + c * c)
        if size < 1e-3:
            return np.nan
        whole = sign * step_mm / size
        x, y, z = x + whole * a / spacing[0], y + whole * b / spacing[1], z + whole * c / spacing[2]
        after = _at(stop, x, y, z)
        if after >= 0.0:
            return length + step_mm * value / (value - after)
        value = after
        length += step_mm
    return np.nan


@njit(cache=True, nogil=True)
def lengths(
    starts: NDArray[np.int64],
    way: NDArray[np.float32],
    outside: NDArray[np.float32],
    inside: NDArray[np.float32],
    spacing: NDArray[np.float64],
    step_mm: float,
    longest_mm: float,
    out: NDArray[np.float64],
) -> None:
    """Lengths from voxels (n, 3) forward to `outside` >= 0 and backward to `inside` >= 0 (both mm, (ni, nj, nk)) into out (n, 2)."""
    for n in range(len(starts)):
        out[n, 0] = _reach(starts[n], 1.0, way, outside, spacing, step_mm, longest_mm)
        out[n, 1] = _reach(starts[n], -1.0, way, inside, spacing, step_mm, longest_mm)
