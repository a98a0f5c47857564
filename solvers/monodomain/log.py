"""The log of beats: every upstroke of every node, and when it recovered; in memory, or streamed to disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.kernels import beats, sparse
from solvers.monodomain.store import BeatStore
from twin.experiment import Activations

KEPT_BEATS = 2
"""Rows per node that are kept in memory before they go to the store: open beats are then mostly closed when they leave."""

_PER_NODE = ("last", "first_ms", "latest_ms", "laps", "lap_ms")


class BeatLog:
    """Rows (mesh node, upstroke, recovery) in time order. With a store the memory stays that of KEPT_BEATS beats.

    nodes (n,): mesh node of each of the solver's rows, or how many rows there are (then rows are what is logged). Per row (n,):
    first_ms, latest_ms first and latest upstroke, NaN before the first; laps, lap_ms upstrokes since `since_ms` and the first of those.
    """

    def __init__(self, nodes: NDArray[np.int32] | int, threshold_mv: float, recovery_mv: float, store: BeatStore | None = None) -> None:
        self.nodes = np.arange(nodes, dtype=np.int32) if isinstance(nodes, int) else nodes
        self.store, n = store, len(self.nodes)
        self.levels_mv = np.array([threshold_mv, recovery_mv])
        chunks = (n + sparse.CHUNK - 1) // sparse.CHUNK
        self.step_node, self.step_ms = np.zeros(chunks * sparse.CHUNK, np.int32), np.zeros(chunks * sparse.CHUNK)
        self.found, self.above, self.bad = (np.zeros(chunks, np.int32) for _ in range(3))
        self.size, self.newest_ms, self.since_ms = 0, -np.inf, -np.inf
        self.last, self.laps = np.full(n, -1, np.int64), np.zeros(n, np.int32)
        self.first_ms, self.latest_ms, self.lap_ms = (np.full(n, np.nan) for _ in range(3))
        self.captured: dict[tuple[float, int], bool] = {}
        """By start and first row of a pulse, once it is known."""
        self._base = 0
        self._room((KEPT_BEATS + 1) * n)
        self._late_row, self._late_down = np.zeros(n, np.int64), np.zeros(n)

    def _room(self, rows: int) -> None:
        self._node, self._up, self._down = np.zeros(rows, np.int32), np.zeros(rows), np.zeros(rows)

    def collect(self) -> tuple[int, int]:
        """Take over what the last step found: nodes above the threshold, and a row gone wrong (-1: none)."""
        if self.size - self._base + len(self.last) > len(self._node):
            self._make_room()
        self.size, late, above, wrong, self.newest_ms = beats.collect(
            *(self.step_node, self.step_ms, self.found, self.above, self.bad, self.nodes),
            *(self.size, self._base, self._node, self._up, self._down, self._late_row, self._late_down),
            *(self.last, self.first_ms, self.latest_ms, self.laps, self.lap_ms, self.since_ms, self.newest_ms),
            sparse.CHUNK,
        )
        if late and self.store is not None:
            self.store.recover(self._late_row[:late], self._late_down[:late])
        return above, wrong

    def _make_room(self) -> None:
        if self.store is not None:
            self.flush()
        else:
            grow = len(self._node)
            self._node, self._up, self._down = (np.concatenate([a, np.zeros(grow, a.dtype)]) for a in (self._node, self._up, self._down))

    def flush(self) -> None:
        """Hand what is in memory to the store, if there is one."""
        if self.store is not None:
            self.store.append(*self._rows())
            self._base = self.size

    def _rows(self) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
        held = self.size - self._base
        return self._node[:held], self._up[:held], self._down[:held]

    def move(self, store: BeatStore) -> None:
        """Go on in another store, which holds a copy of this one's rows."""
        self.flush()
        if self.store is not None:
            self.store.close()
        self.store, self._base = store, min(self._base, store.size)

    def count_laps_from(self, since_ms: float) -> None:
        """Count laps from a later time on (the last pulse, say); a call with the same time changes nothing."""
        if since_ms != self.since_ms:
            self.since_ms = since_ms
            self.laps[:], self.lap_ms[:] = 0, np.nan

    def activations(self, nodes: NDArray[np.int32] | None = None) -> Activations:
        """Everything logged, in time order (ties by node); mapped from disk if there is a store. nodes: mesh nodes of a log of rows."""
        self.flush()
        if self.store is not None:
            return self.store.read()
        node, up, down = self._rows()
        return Activations(node.copy() if nodes is None else nodes[node], up.copy(), down.copy())

    def snapshot(self) -> dict[str, Any]:
        """A copy of what decides the future of the log; rows that a store holds are not in it."""
        self.flush()
        state: dict[str, Any] = {name: getattr(self, name).copy() for name in _PER_NODE}
        state |= {"size": self.size, "newest_ms": self.newest_ms, "since_ms": self.since_ms}
        state["pulses"] = np.array([(start, row, yes) for (start, row), yes in self.captured.items()]).reshape(-1, 3)
        if self.store is None:
            state["rows"] = tuple(a.copy() for a in self._rows())
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a copy made by this log, or by one whose store holds the same first rows.

        A copy without rows starts a log in memory, or an empty store, at the beats that were open then.
        """
        for name in _PER_NODE:
            getattr(self, name)[:] = state[name]
        self.newest_ms, self.since_ms = float(state["newest_ms"]), float(state["since_ms"])
        self.captured = {(float(start), int(row)): bool(yes) for start, row, yes in state["pulses"]}
        self.size = int(state["size"])
        if self.store is not None and self.store.size >= self.size:
            self._base = self.size
            self.store.cut(self.size)
            open_rows = self.last[self.last >= 0]
            self.store.recover(open_rows, np.full(len(open_rows), np.nan))
        elif "rows" in state:
            node, up, down = state["rows"]
            self._room(max(len(self._node), 2 * self.size + len(self.last)))
            self._base = 0
            self._node[: self.size], self._up[: self.size], self._down[: self.size] = node, up, down
            self.flush()
        else:
            self._begin_with_open()

    def _begin_with_open(self) -> None:
        """Number the open beats from 0: what came before them is not here."""
        rows = np.flatnonzero(self.last >= 0)
        rows = rows[np.argsort(self.last[rows])]
        self._base, self.size = 0, len(rows)
        self._node[: self.size], self._up[: self.size], self._down[: self.size] = self.nodes[rows], self.latest_ms[rows], np.nan
        self.last[rows] = np.arange(self.size)
        self.flush()
