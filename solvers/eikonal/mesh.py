"""First arrival of an excitation wave in anisotropic tissue: tables that are built once per mesh, and the solve."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.kernels import eikonal as kernel
from twin.errors import InputError

PRECISIONS = ("float32", "float64")
TOLERANCE_MS = 1e-3
"""A node that fired is visited again only for a gain above this: arrivals move by 0.01 ms at most against 1e-6, at a fifth of its time."""

SWEEPS = 200
SCATTERED = 0.1
"""Mean span of node numbers in a tetrahedron, as a share of all nodes, above which the solve renumbers: its reads miss the cache."""
IN_CACHE = 20_000
"""Meshes of fewer nodes are solved in their own numbers, however scattered."""


@dataclass(frozen=True)
class Arrival:
    """One solve with what is needed to differentiate it.

    time_ms (n,) inf where unreached; via (n,) int32 the tetrahedron that a node was reached through (-1: source or unreached,
    -2 - t: over triangle t of a sheet, whose velocity is no parameter);
    origin (n, 3) int32 and weight (n, 3): nodes of the simplex it was reached from and their weights at the foot point;
    along, across (n,): parts of the last step's time that scale with the longitudinal and the transverse slowness, so that
    d time / d log v_l = -along for that step alone.
    """

    time_ms: NDArray[np.float64]
    via: NDArray[np.int32]
    origin: NDArray[np.int32]
    weight: NDArray[np.float64]
    along: NDArray[np.float64]
    across: NDArray[np.float64]

    def _order(self) -> NDArray[np.int64]:
        reached = np.flatnonzero(self.via != -1)
        return reached[np.argsort(self.time_ms[reached], kind="stable")]

    def tangent(self, group: NDArray[np.integer], n_groups: int) -> NDArray[np.float64]:
        """Derivative of every arrival by log velocity of each group of tetrahedra, (n, 2 * n_groups) ms.

        group (m,): number of the group of each tetrahedron. Columns: along, across of group 0, along, across of group 1, ...
        """
        own = np.zeros((len(self.time_ms), 2 * n_groups))
        nodes = np.flatnonzero(self.via >= 0)
        own[nodes, 2 * group[self.via[nodes]]] = -self.along[nodes]
        own[nodes, 2 * group[self.via[nodes]] + 1] = -self.across[nodes]
        return kernel.tangent(self._order(), self.origin, self.weight, own, 1e-9, SWEEPS)

    def nearest_source(self, source_nodes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Index in `source_nodes` of the source that each node's wave came from, (n,), -1 where none came; follows the heaviest origin."""
        up = np.arange(len(self.time_ms))
        nodes = self.via != -1
        up[nodes] = self.origin[nodes, self.weight[nodes].argmax(axis=1)]
        # pointer doubling: 2^20 steps are more than any path has; a loop of two obtuse neighbours would end unknown
        for _ in range(20):
            up = up[up]
        index = np.full(len(self.time_ms), -1, np.int32)
        index[source_nodes[::-1]] = np.arange(len(source_nodes), dtype=np.int32)[::-1]
        return np.where(np.isfinite(self.time_ms), index[up], -1).astype(np.int32)

    def adjoint(
        self, load: NDArray[np.float64], group: NDArray[np.integer], n_groups: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gradient of sum(load * time_ms) by log velocities (2 * n_groups,) and by the time of each node as a source (n,)."""
        carried = kernel.adjoint(self._order(), self.origin, self.weight, np.ascontiguousarray(load, np.float64), 1e-12, SWEEPS)
        nodes = np.flatnonzero(self.via >= 0)
        column, size = 2 * group[self.via[nodes]], 2 * n_groups
        along = np.bincount(column, carried[nodes] * self.along[nodes], minlength=size)
        across = np.bincount(column + 1, carried[nodes] * self.across[nodes], minlength=size)
        return np.asarray(-along - across, np.float64), np.where(self.via == -1, carried, 0.0)


class EikonalMesh:
    """Geometry tables for repeated solves on one mesh with other velocities.

    points_mm (n, 3); tets (m, 4); fibre (m, 3) unit vectors (zeros: every direction counts as across); conducting (m,) bool, None =
    all; precision of lengths and times, float32 halves the memory. Raises InputError when shapes disagree. Velocities may be scalars
    or one value per tetrahedron, in m/s.
    """

    def __init__(
        self,
        points_mm: NDArray[np.float64],
        tets: NDArray[np.integer],
        fibre: NDArray[np.float64],
        conducting: NDArray[np.bool_] | None = None,
        precision: str = "float64",
    ) -> None:
        if len(fibre) != len(tets):
            raise InputError("eikonal", "fibre", f"{len(fibre)} directions for {len(tets)} tetrahedra", "give one per tetrahedron")
        if precision not in PRECISIONS:
            raise InputError("eikonal", "precision", f"{precision!r} is not known", f"use one of {', '.join(PRECISIONS)}")
        self.points_mm = np.ascontiguousarray(points_mm, np.float64)
        self.tets = np.ascontiguousarray(tets, np.int32)
        self.fibre = np.ascontiguousarray(fibre, np.float64)
        self.conducting = np.ones(len(tets), np.bool_) if conducting is None else np.ascontiguousarray(conducting, np.bool_)
        self.dtype = np.dtype(precision)
        self.along2, self.across2 = (np.empty((len(self.tets), 6), self.dtype) for _ in range(2))
        kernel.edge_parts(self.points_mm, self.tets, self.fibre, self.along2, self.across2)
        self.triangles, self._triangle_owner = np.zeros((0, 3), np.int32), np.zeros(0, np.int32)
        self._sheet_length2 = np.zeros((0, 3), self.dtype)
        self._connect()

    def _connect(self) -> None:
        """Tables that follow from which tetrahedra conduct."""
        self.start, self.around = kernel.node_to_tets(self.tets, self.conducting, len(self.points_mm))
        kept = self.conducting[self._triangle_owner]
        self.triangles, self._triangle_owner = self.triangles[kept], self._triangle_owner[kept]
        self._sheet_length2 = self._sheet_length2[kept]
        self._order = _Order.of(self)

    def with_blocked(self, tets: NDArray[np.bool_]) -> EikonalMesh:
        """The same mesh in which the marked tetrahedra (m,) do not conduct, nor a sheet on them; the edge tables are shared."""
        out = copy.copy(self)
        out.conducting = self.conducting & ~np.asarray(tets, np.bool_)
        out._connect()
        return out

    def with_sheet(self, triangles: NDArray[np.integer], speed_m_s: ArrayLike) -> EikonalMesh:
        """The same mesh with a thin layer on some of its faces: triangles (k, 3), speed (k,) or one, m/s, the same in all directions.

        Faces of tetrahedra that do not conduct are left out. Raises InputError for speeds that are not positive.
        """
        faces = np.ascontiguousarray(triangles, np.int32).reshape(-1, 3)
        speed = np.broadcast_to(np.asarray(speed_m_s, np.float64), (len(faces),))
        if not (speed > 0).all():
            raise InputError("eikonal", "sheet velocity", "not positive", "give velocities above 0 m/s")
        owner = kernel.face_owners(self.start, self.around, self.tets, faces)
        kept = owner >= 0
        corner = self.points_mm[faces[kept]]
        length2 = np.stack([((corner[:, j] - corner[:, i]) ** 2).sum(axis=1) for i, j in ((0, 1), (0, 2), (1, 2))], axis=1)
        out = copy.copy(self)
        out.triangles, out._triangle_owner = faces[kept], owner[kept]
        out._sheet_length2 = np.ascontiguousarray(length2 / speed[kept, None] ** 2, self.dtype)
        out._connect()
        return out

    @property
    def reachable(self) -> NDArray[np.bool_]:
        """Nodes that touch conducting tissue, (n,) bool."""
        return np.diff(self.start) > 0

    def metric_lengths2(self, speed_l_m_s: ArrayLike, speed_t_m_s: ArrayLike) -> NDArray[np.floating]:
        """Squared travel times along the six edges of each tetrahedron, (m, 6) ms^2."""
        return kernel.metric_lengths2(self.along2, self.across2, self._per_tet(speed_l_m_s), self._per_tet(speed_t_m_s))

    def _per_tet(self, speed: ArrayLike) -> NDArray[np.float64]:
        values = np.ascontiguousarray(np.broadcast_to(np.asarray(speed, np.float64), (len(self.tets),)))
        if not (values[self.conducting] > 0).all():
            raise InputError("eikonal", "velocity", "not positive in conducting tissue", "give velocities above 0 m/s")
        return values

    def _run(self, speed_l: ArrayLike, speed_t: ArrayLike, nodes: ArrayLike, times_ms: ArrayLike) -> tuple[NDArray, ...]:
        return self._first_arrival(self.metric_lengths2(speed_l, speed_t), nodes, times_ms)

    def _first_arrival(self, length2: NDArray[np.floating], nodes: ArrayLike, times_ms: ArrayLike) -> tuple[NDArray, ...]:
        source = np.atleast_1d(np.asarray(nodes, np.int32))
        delay = np.ascontiguousarray(np.broadcast_to(np.asarray(times_ms, np.float64), source.shape))
        if source.size and not (source.min() >= 0 and source.max() < len(self.points_mm)):
            raise InputError("eikonal", "source_nodes", "node number out of range", f"use 0 to {len(self.points_mm) - 1}")
        if not np.isfinite(delay).all():
            raise InputError("eikonal", "source_times_ms", "not finite", "give one time per source")
        return self._order.solve(length2, self._sheet_length2, source, delay.astype(self.dtype))

    def solve(
        self, speed_l_m_s: ArrayLike, speed_t_m_s: ArrayLike, source_nodes: ArrayLike, source_times_ms: ArrayLike = 0.0
    ) -> NDArray[np.float64]:
        """First arrival at every node, (n,) ms in the mesh's precision, inf where no wave comes."""
        return self._run(speed_l_m_s, speed_t_m_s, source_nodes, source_times_ms)[0]

    def solve_many(
        self, speed_l_m_s: ArrayLike, speed_t_m_s: ArrayLike, sources: Sequence[tuple[ArrayLike, ArrayLike]], threads: int = 2
    ) -> NDArray[np.float64]:
        """First arrivals (k, n) ms of k sets of (source nodes, times), side by side in threads; the same bytes at any number of them."""
        length2 = self.metric_lengths2(speed_l_m_s, speed_t_m_s)

        def one(source: tuple[ArrayLike, ArrayLike]) -> NDArray[np.float64]:
            return self._first_arrival(length2, *source)[0]

        with ThreadPoolExecutor(max(1, threads)) as pool:
            rows = list(pool.map(one, sources))
        return np.stack(rows) if rows else np.zeros((0, len(self.points_mm)))

    def arrival(self, speed_l_m_s: ArrayLike, speed_t_m_s: ArrayLike, source_nodes: ArrayLike, source_times_ms: ArrayLike = 0.0) -> Arrival:
        """First arrival with its tree of origins, for derivatives."""
        time, via, origin, weight = self._run(speed_l_m_s, speed_t_m_s, source_nodes, source_times_ms)
        along, across = np.zeros(len(time)), np.zeros(len(time))
        nodes = np.flatnonzero(via >= 0)
        tets = via[nodes]
        step = self.points_mm[nodes] - np.einsum("ni,nij->nj", weight[nodes], self.points_mm[origin[nodes]])
        part_l = (np.einsum("nj,nj->n", step, self.fibre[tets]) / self._per_tet(speed_l_m_s)[tets]) ** 2
        perpendicular2 = np.einsum("nj,nj->n", step, step) - np.einsum("nj,nj->n", step, self.fibre[tets]) ** 2
        part_t = np.maximum(perpendicular2, 0.0) / self._per_tet(speed_t_m_s)[tets] ** 2
        length = np.sqrt(part_l + part_t)
        along[nodes], across[nodes] = part_l / length, part_t / length
        return Arrival(time, via, origin, weight, along, across)

    def ball(
        self, node: int, radius_mm: float, speed_l_m_s: ArrayLike, speed_t_m_s: ArrayLike
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Nodes within a radius of one node and their exact arrival from it in the tissue found there, (k,), (k,) ms.

        Seeding these instead of the node alone removes about a third of the error near a point source on edges up to a third of the
        radius; use it where fibres and velocity hardly change over the radius.
        """
        offset = self.points_mm - self.points_mm[node]
        nodes = np.flatnonzero((np.einsum("ij,ij->i", offset, offset) <= radius_mm**2) & self.reachable)
        home = self.around[self.start[node] : self.start[node + 1]]
        if len(home) == 0:
            raise InputError("eikonal", "node", f"node {node} does not conduct", "choose another node")
        tensor = np.einsum("mi,mj->ij", self.fibre[home], self.fibre[home])
        axis = np.linalg.eigh(tensor)[1][:, -1]
        slow_l, slow_t = 1.0 / self._per_tet(speed_l_m_s)[home].mean(), 1.0 / self._per_tet(speed_t_m_s)[home].mean()
        along2 = (offset[nodes] @ axis) ** 2
        across2 = np.maximum(np.einsum("ij,ij->i", offset[nodes], offset[nodes]) - along2, 0.0)
        return nodes.astype(np.int32), np.sqrt(along2 * slow_l**2 + across2 * slow_t**2)


@dataclass(frozen=True)
class _Order:
    """Numbers of nodes and tetrahedra that the solve uses: the mesh's own, or along a space-filling curve if those are scattered.

    node (n,) and tet (m,): the mesh's number of each of ours, empty if they are the same.
    """

    node: NDArray[np.int64]
    tet: NDArray[np.int64]
    start: NDArray[np.int32]
    around: NDArray[np.int32]
    tets: NDArray[np.int32]
    triangles: NDArray[np.int32]
    sheet_start: NDArray[np.int32]
    sheet_around: NDArray[np.int32]

    @staticmethod
    def of(mesh: EikonalMesh) -> _Order:
        n, none = len(mesh.points_mm), np.zeros(0, np.int64)
        span = float(np.ptp(mesh.tets, axis=1).mean()) if len(mesh.tets) else 0.0
        if span <= SCATTERED * n or n < IN_CACHE:
            sheet_start, sheet_around = kernel.nodes_to_triangles(mesh.triangles, n)
            return _Order(none, none, mesh.start, mesh.around, mesh.tets, mesh.triangles, sheet_start, sheet_around)
        node = np.argsort(_along_curve(mesh.points_mm), kind="stable")
        place = np.empty(n, np.int32)
        place[node] = np.arange(n, dtype=np.int32)
        tets = place[mesh.tets]
        tet = np.argsort(tets.min(axis=1), kind="stable")
        tets, triangles = np.ascontiguousarray(tets[tet]), place[mesh.triangles].reshape(-1, 3)
        start, around = kernel.node_to_tets(tets, mesh.conducting[tet], n)
        sheet_start, sheet_around = kernel.nodes_to_triangles(triangles, n)
        return _Order(node, tet, start, around, tets, triangles, sheet_start, sheet_around)

    def solve(
        self, length2: NDArray[np.floating], sheet_length2: NDArray[np.floating], source: NDArray[np.int32], delay: NDArray[np.floating]
    ) -> tuple[NDArray, ...]:
        """`kernel.first_arrival` in the mesh's own numbers."""
        ours = len(self.node) > 0
        if ours:
            place = np.empty(len(self.node), np.int32)
            place[self.node] = np.arange(len(self.node), dtype=np.int32)
            length2, source = length2[self.tet], place[source]
        sheet = (self.sheet_start, self.sheet_around, self.triangles, sheet_length2)
        found = kernel.first_arrival(self.start, self.around, self.tets, length2, *sheet, source, delay, TOLERANCE_MS)
        if not ours:
            return found
        time, via, origin, weight = (np.empty_like(values) for values in found)
        time[self.node], weight[self.node] = found[0], found[3]
        via[self.node] = np.where(found[1] >= 0, self.tet[found[1]], found[1])
        origin[self.node] = self.node[found[2]]
        return time, via, origin, weight


def _along_curve(points_mm: NDArray[np.float64]) -> NDArray[np.int64]:
    """Place (n,) of each point along a curve that fills the box (Morton order, 1024 steps per axis)."""
    low, extent = points_mm.min(axis=0), max(float(np.ptp(points_mm, axis=0).max()), 1e-300)
    cell = ((points_mm - low) / extent * 1023.0).astype(np.int64)
    key = np.zeros(len(points_mm), np.int64)
    for bit in range(10):
        for axis in range(3):
            key |= ((cell[:, axis] >> bit) & 1) << (3 * bit + axis)
    return key


def solve(
    points_mm: NDArray[np.float64],
    tets: NDArray[np.integer],
    fibre: NDArray[np.float64],
    speed_l_m_s: ArrayLike,
    speed_t_m_s: ArrayLike,
    source_nodes: ArrayLike,
    source_times_ms: ArrayLike = 0.0,
    conducting: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """First arrival at every node, (n,) ms, inf where unreached; see `EikonalMesh` for shapes, and use it for repeated solves."""
    return EikonalMesh(points_mm, tets, fibre, conducting).solve(speed_l_m_s, speed_t_m_s, source_nodes, source_times_ms)
