"""First arrival of an excitation wave in anisotropic tissue: tables that are built once per mesh, and the solve."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.kernels import eikonal as kernel
from twin.errors import InputError

LOCAL_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
TOLERANCE_MS = 1e-3
"""A node that fired is visited again only for a gain above this: arrivals move by 0.01 ms at most against 1e-6, at a fifth of its time."""

SWEEPS = 200


@dataclass(frozen=True)
class Arrival:
    """One solve with what is needed to differentiate it.

    time_ms (n,) inf where unreached; via (n,) int32 the tetrahedron that a node was reached through (-1: source or unreached);
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
        reached = np.flatnonzero(self.via >= 0)
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
        nodes = self.via >= 0
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
        return np.asarray(-along - across, np.float64), np.where(self.via < 0, carried, 0.0)


class EikonalMesh:
    """Geometry tables for repeated solves on one mesh with other velocities.

    points_mm (n, 3); tets (m, 4); fibre (m, 3) unit vectors (zeros: every direction counts as across); conducting (m,) bool, None =
    all. Raises InputError when shapes disagree. Velocities may be scalars or one value per tetrahedron, in m/s.
    """

    def __init__(
        self,
        points_mm: NDArray[np.float64],
        tets: NDArray[np.integer],
        fibre: NDArray[np.float64],
        conducting: NDArray[np.bool_] | None = None,
    ) -> None:
        if len(fibre) != len(tets):
            raise InputError("eikonal", "fibre", f"{len(fibre)} directions for {len(tets)} tetrahedra", "give one per tetrahedron")
        self.points_mm = np.ascontiguousarray(points_mm, np.float64)
        self.tets = np.ascontiguousarray(tets, np.int32)
        self.fibre = np.ascontiguousarray(fibre, np.float64)
        self.conducting = np.ones(len(tets), np.bool_) if conducting is None else np.ascontiguousarray(conducting, np.bool_)
        self.start, self.around = kernel.node_to_tets(self.tets, self.conducting, len(self.points_mm))
        edge = np.stack([self.points_mm[self.tets[:, j]] - self.points_mm[self.tets[:, i]] for i, j in LOCAL_EDGES], axis=1)
        self.along2 = np.einsum("mki,mi->mk", edge, self.fibre) ** 2
        self.across2 = np.maximum(np.einsum("mki,mki->mk", edge, edge) - self.along2, 0.0)

    def with_blocked(self, tets: NDArray[np.bool_]) -> EikonalMesh:
        """The same mesh in which the marked tetrahedra (m,) do not conduct; the edge tables are shared."""
        out = copy.copy(self)
        out.conducting = self.conducting & ~np.asarray(tets, np.bool_)
        out.start, out.around = kernel.node_to_tets(self.tets, out.conducting, len(self.points_mm))
        return out

    @property
    def reachable(self) -> NDArray[np.bool_]:
        """Nodes that touch conducting tissue, (n,) bool."""
        return np.diff(self.start) > 0

    def metric_lengths2(self, speed_l_m_s: ArrayLike, speed_t_m_s: ArrayLike) -> NDArray[np.float64]:
        """Squared travel times along the six edges of each tetrahedron, (m, 6) ms^2."""
        return kernel.metric_lengths2(self.along2, self.across2, self._per_tet(speed_l_m_s), self._per_tet(speed_t_m_s))

    def _per_tet(self, speed: ArrayLike) -> NDArray[np.float64]:
        values = np.ascontiguousarray(np.broadcast_to(np.asarray(speed, np.float64), (len(self.tets),)))
        if not (values[self.conducting] > 0).all():
            raise InputError("eikonal", "velocity", "not positive in conducting tissue", "give velocities above 0 m/s")
        return values

    def _run(self, speed_l: ArrayLike, speed_t: ArrayLike, nodes: ArrayLike, times_ms: ArrayLike) -> tuple[NDArray, ...]:
        source = np.atleast_1d(np.asarray(nodes, np.int32))
        delay = np.ascontiguousarray(np.broadcast_to(np.asarray(times_ms, np.float64), source.shape))
        if source.size and not (source.min() >= 0 and source.max() < len(self.points_mm)):
            raise InputError("eikonal", "source_nodes", "node number out of range", f"use 0 to {len(self.points_mm) - 1}")
        if not np.isfinite(delay).all():
            raise InputError("eikonal", "source_times_ms", "not finite", "give one time per source")
        length2 = self.metric_lengths2(speed_l, speed_t)
        return kernel.first_arrival(self.start, self.around, self.tets, length2, source, delay, TOLERANCE_MS)

    def solve(
        self, speed_l_m_s: ArrayLike, speed_t_m_s: ArrayLike, source_nodes: ArrayLike, source_times_ms: ArrayLike = 0.0
    ) -> NDArray[np.float64]:
        """First arrival at every node, (n,) ms, inf where no wave comes."""
        return self._run(speed_l_m_s, speed_t_m_s, source_nodes, source_times_ms)[0]

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
