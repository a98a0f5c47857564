"""A part of a heart on a finer lattice: the muscle that a question is about, at a spacing that a wave front can be computed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.quality import tet_volumes
from meshing.sites import main_body
from meshing.stuffing import LATTICE_PER_EDGE
from planners.confirm.part_kernels import owners
from twin.errors import InputError
from twin.mesh import HeartMesh

Places = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """mesh: the conducting muscle of the part on a body-centred lattice, without surfaces; of_tet (m,): the tetrahedron of the coarse heart
    in which each of its own lies; coarse: that heart; keep: which of its tetrahedra are in the part.
    """

    mesh: HeartMesh
    of_tet: NDArray[np.int32]
    coarse: HeartMesh
    keep: NDArray[np.bool_]

    def electrode(self, nodes: NDArray[np.integer]) -> NDArray[np.int32]:
        """Nodes of the part whose nearest conducting node of the coarse heart is one of these, (k,)."""
        alive = np.unique(self.coarse.tets[self.coarse.conducting()])
        nearest = alive[np.asarray(cKDTree(self.coarse.points_mm[alive]).query(self.mesh.points_mm)[1])]
        return np.flatnonzero(np.isin(nearest, nodes)).astype(np.int32)

    def cut_nodes(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Nodes of the part beside the conducting muscle that was left out, (k,), and the coarse node there of each, (k,)."""
        outside = np.unique(self.coarse.tets[self.coarse.conducting() & ~self.keep])
        shared = np.intersect1d(outside, self.coarse.tets[self.keep])
        if not len(shared):
            return np.zeros(0, np.int32), np.zeros(0, np.int32)
        away, nearest = cKDTree(self.coarse.points_mm[shared]).query(self.mesh.points_mm)
        p = self.coarse.points_mm[self.coarse.tets]
        edge = float(np.median(np.linalg.norm(p[:, 1] - p[:, 0], axis=1)))
        mine = np.flatnonzero(away <= 0.6 * edge)
        return mine.astype(np.int32), shared[np.asarray(nearest)[mine]].astype(np.int32)

    def shares(self) -> tuple[NDArray[np.int32], Places]:
        """Coarse nodes (n, 4) round each node of the part, and their barycentric shares (n, 4), clipped where it sticks out."""
        of_node = np.zeros(self.mesh.n_points, np.int64)
        of_node[self.mesh.tets.ravel()] = np.repeat(self.of_tet, 4)
        nodes = self.coarse.tets[of_node]
        p = self.coarse.points_mm[nodes]
        edges = (p[:, 1:] - p[:, :1]).transpose(0, 2, 1)
        last = np.linalg.solve(edges, (self.mesh.points_mm - p[:, 0])[:, :, None])[:, :, 0]
        share = np.clip(np.concatenate([1.0 - last.sum(axis=1, keepdims=True), last], axis=1), 0.0, 1.0)
        return nodes, share / share.sum(axis=1, keepdims=True)


def active_region(mesh: HeartMesh, path_mm: Places, around: NDArray[np.bool_] | None, radius_mm: float) -> NDArray[np.bool_]:
    """Conducting tetrahedra within a distance of a circuit's path (k, 3) or of the marked tetrahedra (its scar, say), (m,) bool."""
    centres = mesh.centroids_mm
    seeds = [np.asarray(path_mm, float).reshape(-1, 3)] + ([] if around is None else [centres[around]])
    away = np.asarray(cKDTree(np.concatenate(seeds)).query(centres, distance_upper_bound=radius_mm)[0])
    return mesh.conducting() & np.isfinite(away)


def lattice_part(mesh: HeartMesh, keep: NDArray[np.bool_], edge_mm: float) -> Part:
    """Fill the kept tetrahedra (m,) with a body-centred lattice of this mean edge; regions and fibres are those of where each one lies.

    The border is that of whole lattice tetrahedra: no cut ones, so that the correction of the mesh (solvers.monodomain.correction) holds
    everywhere. Pieces that do not hang together with the largest are left out. Raises InputError if nothing is kept.
    """
    keep = keep & mesh.conducting()
    if not keep.any():
        raise InputError("confirmation", "active region", "holds no conducting muscle", "use a larger radius")
    constant = LATTICE_PER_EDGE * edge_mm
    corners = mesh.points_mm[mesh.tets[keep]]
    # cells are centred on the origin's multiples: the same lattice whatever is kept
    first = np.floor(corners.reshape(-1, 3).min(axis=0) / constant).astype(np.int64) - 2
    shape = np.ceil(corners.reshape(-1, 3).max(axis=0) / constant).astype(np.int64) + 2 - first
    places = _cell(constant)
    of = np.full((*shape, 12), -1, np.int32)
    gradients = np.linalg.inv((corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1))
    owners(corners, np.ascontiguousarray(gradients), places.mean(axis=1), first * constant, constant, shape, of)
    cell = np.argwhere(of >= 0)
    mine = of[of >= 0]
    half = np.rint(2.0 * places[cell[:, 3]] / constant).astype(np.int64) + 2 * (cell[:, None, :3] + first)
    unique, tets = np.unique(half.reshape(-1, 3), axis=0, return_inverse=True)
    tets, points = tets.reshape(-1, 4), 0.5 * constant * unique
    main = main_body(tets, len(points))[tets[:, 0]]
    tets, mine = tets[main], np.flatnonzero(keep)[mine[main]]
    used, tets = np.unique(tets, return_inverse=True)
    points, simplices = points[used], tets.reshape(-1, 4).astype(np.int32)
    flipped = tet_volumes(points, simplices) < 0
    simplices[flipped] = simplices[flipped][:, [0, 1, 3, 2]]
    fine = HeartMesh(points, simplices, mesh.region[mine], {}, mesh.fibre[mine], mesh.sheet[mine])
    return Part(fine, mine.astype(np.int32), mesh, keep)


def _cell(constant: float) -> Places:
    """The twelve lattice tetrahedra that belong to one cell, (12, 4, 3) mm: between its centre and the next one along each axis."""
    axes = np.eye(3)
    out: list[Sequence[Places]] = []
    for axis in range(3):
        u, v = axes[(axis + 1) % 3], axes[(axis + 2) % 3]
        centre = 0.5 * np.ones(3)
        middle = centre + 0.5 * axes[axis]
        ring = [middle + 0.5 * (a * u + b * v) for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))]
        out += [(centre, centre + axes[axis], ring[k], ring[(k + 1) % 4]) for k in range(4)]
    return constant * np.array(out)
