"""The cells of a mesh: one state per node, several models and parameter sets side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ionic.model import IonicModel
from solvers.kernels.ionic import CHUNK_BLOCKS, LANES, Kernels, vector_kernels
from twin.errors import InputError


@dataclass
class _Group:
    """Cells of one model name, whatever their parameters: `state` (B, K + 2 + S, W), `index` (B*W,) node of each lane.

    A block holds cells of one parameter row. Lanes that pad the last block of a region repeat its last cell: they compute and write
    the same values to the same place, which needs no branch and is harmless.
    """

    model: IonicModel
    kernels: Kernels
    state: NDArray[Any]
    index: NDArray[np.int32]
    chunks: NDArray[np.int64]
    rows: NDArray[Any]
    scaled: tuple[str, ...]

    @property
    def states(self) -> NDArray[Any]:
        """The K state rows of every block, (B, K, W), a view."""
        return self.state[:, : len(self.model.state_names)]

    @property
    def factors(self) -> NDArray[Any]:
        """Factors of the parameters `scaled`, (B, S, W), a view."""
        return self.state[:, len(self.model.state_names) + 2 :]

    def advance(self, v: NDArray[Any], dt: Any, current: NDArray[Any]) -> None:
        self.kernels.advance(self.state.reshape(-1), self.index, self.chunks, self.rows, v, current, dt)

    def current_at(self, lane: NDArray[np.int64], weights: NDArray[np.float64], v: NDArray[Any], row: int) -> NDArray[Any]:
        """Current of cells with the weighted states and v (k, q) of other lanes (k, q) and one parameter row, (k,)."""
        lanes, (k, q) = self.kernels.lanes, lane.shape
        blocks = -(-k // lanes)
        state = np.zeros((blocks * lanes, self.state.shape[1]), self.state.dtype)
        for j in range(q):
            state[:k] += weights[:, j, None].astype(state.dtype) * self.state[lane[:, j] // lanes, :, lane[:, j] % lanes]
        index = np.minimum(np.arange(blocks * lanes), k - 1).astype(np.int32)
        state[k:] = state[k - 1]
        mixed = np.ascontiguousarray((weights * v).sum(axis=1), dtype=self.state.dtype)
        current = np.zeros_like(mixed)
        block = np.ascontiguousarray(state.reshape(blocks, lanes, -1).transpose(0, 2, 1)).reshape(-1)
        self.kernels.advance(block, index, np.array([[0, blocks, row]], np.int64), self.rows, mixed, current, state.dtype.type(0))
        return current


class Cells:
    """State of every cell of a mesh except V, which the caller holds.

    models: parameter sets; region_of_node (n,) integer: which of them each node has; precision "float32" or "float64";
    per_node: parameter name -> (n,) factors on top of the region's value (a gradient of border zone, a drug's local concentration),
    ignored by the models of a mesh that lack the parameter. Raises InputError for an unknown precision, a region that has no
    model, a parameter that no model has, or factors of another length or not finite.
    """

    def __init__(
        self,
        models: Sequence[IonicModel],
        region_of_node: NDArray[np.integer],
        precision: str = "float32",
        per_node: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        if precision not in LANES:
            raise InputError("cells", "precision", f"{precision!r} is not known", "write float32 or float64")
        region = np.ascontiguousarray(region_of_node, dtype=np.int64)
        if region.ndim != 1 or not len(models) or (region.size and not 0 <= region.min() <= region.max() < len(models)):
            raise InputError("cells", "region_of_node", f"needs one model index per node, 0 to {len(models) - 1}", "check the regions")
        self.models = tuple(models)
        self.precision = precision
        self.dtype = np.dtype(precision)
        self.n = int(region.size)
        self._region = region
        self._per_node = {name: self._factors(name, values) for name, values in (per_node or {}).items()}
        names = dict.fromkeys(m.name for m in models)
        groups = (self._group([i for i, m in enumerate(models) if m.name == name]) for name in names)
        self._groups = [g for g in groups if g.index.size]

    def _factors(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Factors of one parameter, checked."""
        if not any(name in m.parameters for m in self.models):
            known = dict.fromkeys(p for m in self.models for p in m.parameters)
            raise InputError("cells", f"per_node.{name}", "is a parameter of none of these models", f"known: {', '.join(known)}")
        factors = np.asarray(values, self.dtype)
        if factors.shape != (self.n,) or not np.isfinite(factors).all():
            raise InputError("cells", f"per_node.{name}", f"needs {self.n} finite factors", "give one for every node")
        return factors

    def _group(self, members: list[int]) -> _Group:
        """Collect the nodes of `members`, block by block, each block of one member."""
        first = self.models[members[0]]
        scaled = tuple(name for name in first.parameters if name in self._per_node)
        kernels = vector_kernels(first.name, first.step(), first.state_names, tuple(first.parameters), self.precision, scaled)
        lanes, index, chunks, initial = kernels.lanes, [], [], []
        start = 0
        for row, member in enumerate(members):
            nodes = np.flatnonzero(self._region == member)
            if not nodes.size:
                continue
            index.append(np.pad(nodes, (0, -nodes.size % lanes), mode="edge").astype(np.int32))
            blocks = index[-1].size // lanes
            ends = [*range(start + CHUNK_BLOCKS, start + blocks, CHUNK_BLOCKS), start + blocks]
            chunks += [(begin, end, row) for begin, end in zip([start, *ends[:-1]], ends, strict=True)]
            initial += [self.models[member].initial_state] * blocks
            start += blocks
        k = len(first.state_names)
        state = np.zeros((start, k + 2 + len(scaled), lanes), self.dtype)
        nodes_of_lanes = np.concatenate(index) if index else np.zeros(0, np.int32)
        if start:
            state[:, :k] = np.array(initial)[:, :, None]
        for i, name in enumerate(scaled):
            state[:, k + 2 + i] = self._per_node[name][nodes_of_lanes].reshape(-1, lanes)
        return _Group(
            first,
            kernels,
            state,
            nodes_of_lanes,
            np.array(chunks, np.int64).reshape(-1, 3),
            np.array([self.models[m].row() for m in members], self.dtype),
            scaled,
        )

    @property
    def groups(self) -> tuple[_Group, ...]:
        """The cells of each model, for who advances them elsewhere (on a GPU)."""
        return tuple(self._groups)

    def initial_v(self) -> NDArray[Any]:
        """V of every node at the start, (n,) mV."""
        return np.array([m.rest_mv for m in self.models], self.dtype)[self._region]

    def advance(self, v: NDArray[Any], dt_ms: float, current: NDArray[Any]) -> None:
        """Advance every state by `dt_ms` with V held, then write -dV/dt of the ionic currents (mV/ms) from the new gates.

        v (n,) mV is read, current (n,) is written; both contiguous, of the precision's dtype. The caller then does
        V += dt (-current + stimulus + diffusion). Raises ValueError for other arrays.
        """
        for name, array in (("v", v), ("current", current)):
            if array.shape != (self.n,) or array.dtype != self.dtype or not array.flags.c_contiguous:
                raise ValueError(f"{name}: needs a contiguous ({self.n},) {self.precision} array")
        dt = self.dtype.type(dt_ms)
        for group in self._groups:
            group.advance(v, dt, current)

    def model_of_node(self) -> NDArray[np.int64]:
        """Index into `models` of every node, (n,)."""
        return self._region

    def values(self, state: str) -> NDArray[np.float64]:
        """One state of every node, (n,); NaN where the node's model has no such state."""
        out = np.full(self.n, np.nan)
        for group in self._groups:
            if state in group.model.state_names:
                out[group.index] = group.state[:, group.model.state_names.index(state)].reshape(-1)
        return out

    def current_at(self, nodes: NDArray[np.integer], weights: NDArray[np.float64], v: NDArray[Any]) -> NDArray[Any]:
        """Ionic current (mV/ms) between nodes, from states and V interpolated there: (k, p) for nodes (k, q) and weights (p, q).

        The nodes of a row share one model name; point j has the parameters of node j. v (n,) mV; no state is changed.
        """
        out = np.zeros((len(nodes), len(weights)), self.dtype)
        for group in self._groups:
            lane = np.full(self.n, -1)
            lane[group.index] = np.arange(len(group.index))
            mine = np.flatnonzero(lane[nodes[:, 0]] >= 0)
            row_of_region = {int(self._region[group.index[begin * group.kernels.lanes]]): row for begin, _, row in group.chunks}
            regions = self._region[nodes[mine, : len(weights)]]
            for region, row in row_of_region.items():
                element, point = np.nonzero(regions == region)
                if len(element):
                    at = lane[nodes[mine[element]]]
                    out[mine[element], point] = group.current_at(at, weights[point], v[nodes[mine[element]]], row)
        return out

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copy of every state: model name -> (blocks, K, W) array."""
        return {g.model.name: g.states.copy() for g in self._groups}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Go back to a snapshot of cells with the same regions and precision, bit by bit. Raises ValueError if it does not fit."""
        for group in self._groups:
            saved = snapshot.get(group.model.name)
            if saved is None or saved.shape != group.states.shape or saved.dtype != self.dtype:
                raise ValueError(f"the snapshot is not of these cells ({group.model.name})")
        for group in self._groups:
            group.states[:] = snapshot[group.model.name]


def evaluate(model: IonicModel, v: Any, dt_ms: float, state: Any) -> tuple[Any, ...]:
    """One step as plain NumPy arithmetic: state (K, ...) and v of equal shape; returns (current, new states...)."""
    s = SimpleNamespace(**dict(zip(model.state_names, state, strict=True)))
    result: tuple[Any, ...] = model.step()(v, dt_ms, s, SimpleNamespace(**model.parameters))
    return result
