"""The log of beats: every upstroke of every node, and when it recovered."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.kernels import sparse
from twin.experiment import Activations


class BeatLog:
    """Grows with the beats. Rows are numbered as in the solver; `activations` gives mesh nodes in time order."""

    def __init__(self, n: int, threshold_mv: float, recovery_mv: float) -> None:
        self.levels_mv = np.array([threshold_mv, recovery_mv])
        chunks = (n + sparse.CHUNK - 1) // sparse.CHUNK
        self.step_node, self.step_ms = np.zeros(chunks * sparse.CHUNK, np.int32), np.zeros(chunks * sparse.CHUNK)
        self.found, self.above, self.bad = (np.zeros(chunks, np.int32) for _ in range(3))
        self.size = 0
        self.last = np.full(n, -1, np.int64)
        self._node, self._up, self._down = np.zeros(2 * n, np.int32), np.zeros(2 * n), np.zeros(2 * n)

    def collect(self) -> tuple[int, int]:
        """Take over what the last step found: nodes above the threshold, and a row gone wrong (-1: none)."""
        if self.size + len(self.last) > len(self._node):
            grow = len(self._node)
            self._node, self._up, self._down = (np.concatenate([a, np.zeros(grow, a.dtype)]) for a in (self._node, self._up, self._down))
        self.size, above, wrong = sparse.collect(
            self.step_node, self.step_ms, self.found, self.above, self.bad, self.size, self._node, self._up, self._down, self.last
        )
        return above, wrong

    def since(self, first: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Rows and upstroke times (ms) logged from entry `first` on."""
        return self._node[first : self.size], self._up[first : self.size]

    def activations(self, nodes: NDArray[np.int32]) -> Activations:
        """Everything logged, in time order (ties by mesh node)."""
        mesh_node = nodes[self._node[: self.size]]
        order = np.lexsort((mesh_node, self._up[: self.size]))
        return Activations(mesh_node[order], self._up[: self.size][order], self._down[: self.size][order])

    def snapshot(self) -> tuple[Any, ...]:
        """A copy of the log."""
        used = slice(0, self.size)
        return self.size, self.last.copy(), self._node[used].copy(), self._up[used].copy(), self._down[used].copy()

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go back to a copy."""
        size, last, node, up, down = state
        if size > len(self._node):
            self._node, self._up, self._down = np.zeros(2 * size, np.int32), np.zeros(2 * size), np.zeros(2 * size)
        self.size = size
        self.last[:] = last
        self._node[:size], self._up[:size], self._down[:size] = node, up, down
