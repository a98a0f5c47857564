"""The same arrival on meshes of half and quarter the edge, their fibres interpolated: what the plan's mesh is late by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from meshing.quality import tet_volumes
from solvers.eikonal.mesh import EikonalMesh
from solvers.eikonal.regions import present, source_of
from twin.mesh import REGIONS, SURFACES, HeartMesh
from twin.params import Param
from twin.tissue import Velocity

Array = NDArray[np.float64]
Nodes = NDArray[np.int32]

EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
MOST_TETS = 4_800_000
"""Tetrahedra above which no finer mesh is made: it would not fit a small machine's memory, and the mesh is fine already."""
MOST_TWICE = 2_600_000
"""The same for halving twice, which every step of the fit pays for: half a minute at twice as many."""

ENOUGH_MM = 1.2
SHARPENINGS = 20
ENOUGH_ACROSS = Param(
    2.8,
    "1",
    2.1,
    2.9,
    "`edges_across` below which edges are halved twice: fibres turn too far in one. True sites and exact times given, the velocity across "
    "the fibres came out 9 % low at 2.1, 2 % high at 2.9 and 3.7; halved twice, both within 1 % at 2.1 (measured here on one heart)",
)
BEYOND = Param(
    1.5,
    "1",
    1.0,
    2.0,
    "share of (fine - coarse) that is added once more: fits to exact point-source times in uniform fibres then give both velocities within "
    "0.5 % at edges of 2 and 2.5 mm and anisotropies of 1.8 to 3 (measured here); without it up to 15 % too fast along the fibres",
)


class FinerForward:
    """First arrival at the nodes of a HeartMesh, extrapolated from edges of h and h/2, or h/2 and h/4 if the wall is few edges thick.

    Edges are halved (eight tetrahedra for one), fibres are the nodes' mean dyads interpolated, regions are inherited. The eikonal solver on
    tetrahedra of edge h is late by about h^0.6 (design/reentry.md 2); correcting that keeps it out of the velocities.
    """

    def __init__(self, mesh: HeartMesh) -> None:
        self.n = mesh.n_points
        self._present = present(mesh)
        level = _Level(mesh.points_mm, mesh.tets, nodal_dyads(mesh), np.asarray(mesh.region, np.int64), mesh.conducting())
        if edges_across(mesh) < ENOUGH_ACROSS.value and len(mesh.tets) * 64 <= MOST_TWICE:
            level = level.halved()
        # both of the pair have the same interpolated fibres: what is extrapolated is the mesh's error alone
        self._pair = [(one.solver(), one.region) for one in (level, level.halved())]

    @staticmethod
    def worth_it(mesh: HeartMesh) -> bool:
        """Whether a finer mesh says more and fits the memory."""
        return bool(_mean_edge_mm(mesh) > ENOUGH_MM and len(mesh.tets) * 8 <= MOST_TETS)

    def arrival_ms(self, velocities: Mapping[str, Velocity], source_nodes: Nodes, source_times_ms: Array) -> Array:
        """First activation at the coarse mesh's nodes, (n,) ms, inf where no wave comes: the limit of fine meshes."""
        along, across = np.ones(max(REGIONS.values()) + 1), np.ones(max(REGIONS.values()) + 1)
        for region in self._present:
            speed = velocities[source_of(region, set(velocities))]
            along[REGIONS[region]], across[REGIONS[region]] = speed.longitudinal_m_s, speed.transverse_m_s
        coarse, fine = (
            solver.solve(along[region], across[region], source_nodes, source_times_ms)[: self.n] for solver, region in self._pair
        )
        both = np.isfinite(fine) & np.isfinite(coarse)
        fine[both] += BEYOND.value * (fine[both] - coarse[both])
        return fine

    def offset_ms(self, coarse_ms: Array, velocities: Mapping[str, Velocity], source_nodes: Nodes, source_times_ms: Array) -> Array:
        """What is to be added to the coarse arrival (n,) ms, 0 where no wave comes."""
        limit = self.arrival_ms(velocities, source_nodes, source_times_ms)
        both = np.isfinite(limit) & np.isfinite(coarse_ms)
        gap = np.zeros(self.n)
        gap[both] = limit[both] - coarse_ms[both]
        return gap


@dataclass(frozen=True)
class _Level:
    """One mesh of the series: dyads (n, 3, 3) at its nodes, region (m,) and conducting (m,) of its tetrahedra; old nodes come first."""

    points_mm: Array
    tets: NDArray[np.int32]
    dyads: Array
    region: NDArray[np.int64]
    conducting: NDArray[np.bool_]

    def halved(self) -> _Level:
        """The next, of half the edge."""
        points, tets, owner, pairs = refined(self.points_mm, self.tets)
        dyads = np.concatenate([self.dyads, 0.5 * (self.dyads[pairs[:, 0]] + self.dyads[pairs[:, 1]])])
        return _Level(points, tets, dyads, self.region[owner], self.conducting[owner])

    def solver(self) -> EikonalMesh:
        """With the fibres that the dyads give."""
        return EikonalMesh(self.points_mm, self.tets, principal(self.dyads[self.tets].mean(axis=1)), self.conducting)


def _mean_edge_mm(mesh: HeartMesh) -> float:
    edges = np.concatenate([mesh.tets[:, list(pair)] for pair in EDGES])[:: max(1, len(mesh.tets) // 2000)]
    return float(np.linalg.norm(mesh.points_mm[edges[:, 0]] - mesh.points_mm[edges[:, 1]], axis=1).mean())


def edges_across(mesh: HeartMesh) -> float:
    """Mean thickness of the wall in mean edges, thin RV and apex included: twice its volume over its surfaces; infinite without those."""
    faces = [mesh.surfaces[name] for name in SURFACES if name != "base" and name in mesh.surfaces]
    if not faces:
        return float("inf")
    corner = mesh.points_mm[np.concatenate(faces)]
    area = 0.5 * float(np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1).sum())
    return 2.0 * float(mesh.tet_volumes_mm3.sum()) / max(area, 1e-9) / _mean_edge_mm(mesh)


def refined(points_mm: Array, tets: NDArray[np.int32]) -> tuple[Array, NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Points, tetrahedra, owner of each in the old ones, and the old end nodes (k, 2) of every new point; the old points come first.

    The inner octahedron is cut along its shortest diagonal.
    """
    n = len(points_mm)
    ends = np.concatenate([tets[:, list(pair)] for pair in EDGES]).astype(np.int64)
    key, inverse = np.unique(ends.min(axis=1) * n + ends.max(axis=1), return_inverse=True)
    pairs = np.stack([key // n, key % n], axis=1)
    points = np.concatenate([points_mm, 0.5 * (points_mm[pairs[:, 0]] + points_mm[pairs[:, 1]])])
    a, b, c, d = tets.astype(np.int64).T
    ab, ac, ad, bc, bd, cd = n + inverse.reshape(6, -1)
    corners = [np.stack(t, axis=1) for t in ((a, ab, ac, ad), (ab, b, bc, bd), (ac, bc, c, cd), (ad, bd, cd, d))]
    ways = [(ab, cd, ac, ad, bd, bc), (ac, bd, ab, bc, cd, ad), (ad, bc, ab, ac, cd, bd)]
    length = np.stack([np.linalg.norm(points[w[0]] - points[w[1]], axis=1) for w in ways])
    chosen = np.stack([np.stack(w, axis=1) for w in ways])[length.argmin(axis=0), np.arange(len(tets))]
    top, bottom, ring = chosen[:, 0], chosen[:, 1], chosen[:, 2:]
    inner = [np.stack([top, bottom, ring[:, k], ring[:, (k + 1) % 4]], axis=1) for k in range(4)]
    out = np.stack(corners + inner, axis=1).reshape(-1, 4).astype(np.int32)
    flipped = tet_volumes(points, out) < 0
    out[flipped] = out[flipped][:, [0, 2, 1, 3]]
    return points, out, np.repeat(np.arange(len(tets)), 8), pairs


def nodal_dyads(mesh: HeartMesh) -> Array:
    """Dyads (n, 3, 3) at the nodes whose linear interpolation gives every tetrahedron its own: least squares from the mean round each node.

    Means alone would turn the fibres at the surfaces towards those half an edge below: 10 degrees at 2.5 mm.
    """
    m, n = len(mesh.tets), mesh.n_points
    own = np.einsum("mi,mj->mij", mesh.fibre, mesh.fibre).reshape(-1, 9)
    average = sp.csr_array((np.full(4 * m, 0.25), (np.repeat(np.arange(m), 4), mesh.tets.ravel())), shape=(m, n))
    count = np.maximum(np.bincount(mesh.tets.ravel(), minlength=n), 1.0)
    values = (average.T @ own) * 4.0 / count[:, None]
    for _ in range(SHARPENINGS):
        # Landweber with the node's own count: each step adds what the interpolation lacks
        values = values + (average.T @ (own - average @ values)) * 4.0 / count[:, None]
    return np.asarray(values.reshape(-1, 3, 3), np.float64)


def principal(dyads: Array) -> Array:
    """Unit vector (m, 3) of the largest eigenvalue of each dyad (m, 3, 3), by squaring; zeros where there is no direction."""
    # sharpened dyads may have small negative eigenvalues: squares do not mind the sign, so they are moved up first
    power = dyads + 0.5 * np.eye(3)
    for _ in range(7):
        power = power @ power
        power = power / np.maximum(np.trace(power, axis1=1, axis2=2), 1e-300)[:, None, None]
    columns = np.linalg.norm(power, axis=1)
    vector = np.take_along_axis(power, columns.argmax(axis=1)[:, None, None], axis=2)[:, :, 0]
    return np.asarray(vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-12), np.float64)
