"""Fibrosis on a GPU: what it changes in the currents of the step, by the functions of `solvers.monodomain.fibrosis` themselves.

Few nodes are fibrotic, so their arithmetic stays float64 as on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from solvers.monodomain.fibrosis import FibroticCells, couple_one


@cuda.jit
def passive(rows, rate, rest_mv, v, y, weight, rest, control, step):  # type: ignore[no-untyped-def]
    """rest = rate (v - rest_mv) + weight y where a passive cell is in place of the myocyte."""
    if step >= control[0]:
        return
    k = cuda.grid(1)
    while k < rows.size:
        i = rows[k]
        rest[i] = rate[k] * (v[i] - rest_mv[k]) + weight * y[i]
        k += cuda.gridsize(1)


@cuda.jit
def coupled(rows, number, gap, fibroblast, v, dt_ms, rest, control, step):  # type: ignore[no-untyped-def]
    """rest += what the fibroblasts of each coupled row take."""
    if step >= control[0]:
        return
    k = cuda.grid(1)
    while k < rows.size:
        i = rows[k]
        taken, vf, r, s = couple_one(v[i], fibroblast[0, k], fibroblast[1, k], fibroblast[2, k], number[k], gap[k], dt_ms)
        fibroblast[0, k], fibroblast[1, k], fibroblast[2, k] = vf, r, s
        rest[i] += taken
        k += cuda.gridsize(1)


class DeviceFibrosis:
    """The fibrotic rows of a solver on the GPU; `position` (n,): place of each row there."""

    def __init__(self, cells: FibroticCells, position: NDArray[np.int32]) -> None:
        self.cells = cells
        self._passive = [cuda.to_device(a) for a in (position[cells.passive], cells.rate, cells.rest)]
        self._coupled = [cuda.to_device(a) for a in (position[cells.coupled], cells.number, cells.gap)]
        self._fibroblast = cuda.to_device(cells.fibroblast)

    def push(self) -> None:
        """Take over the host's fibroblasts."""
        self._fibroblast.copy_to_device(self.cells.fibroblast)

    def pull(self) -> None:
        """Bring the host's up to date."""
        self.cells.fibroblast[:] = self._fibroblast.copy_to_host()

    def change(
        self, shape: Callable[[int], tuple[int, int]], v: Any, y: Any, weight: Any, dt_ms: float, rest: Any, control: Any, step: int
    ) -> None:
        """Correct `rest` of a step, after the myocytes of all rows."""
        if count := len(self.cells.passive):
            passive[shape(count)](*self._passive, v, y, weight, rest, control, step)
        if count := len(self.cells.coupled):
            coupled[shape(count)](*self._coupled, self._fibroblast, v, dt_ms, rest, control, step)
