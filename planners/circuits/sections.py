"""Cross-sections of conducting tissue: the piece of a plane, through a point, that a wave passing there can use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from twin.mesh import HeartMesh

AT_POINT_MM = 3.0
"""Pieces of a plane this near to the asked point count as being there: one and a half edges of the mesh."""

_FACES = ((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2))


@dataclass(frozen=True)
class Section:
    """area_mm2; width and thickness in mm (of the rectangle of equal spread, along and across the wall); tets (k,): mesh tetrahedra cut."""

    area_mm2: float
    width_mm: float
    thickness_mm: float
    centre_mm: NDArray[np.float64]
    tets: NDArray[np.int64]


def face_pairs(tets: NDArray[np.integer]) -> NDArray[np.int64]:
    """Pairs of tetrahedra that share a face, (k, 2)."""
    faces = np.concatenate([np.sort(tets[:, f], axis=1) for f in _FACES])
    owner = np.tile(np.arange(len(tets)), 4)
    order = np.lexsort(faces.T)
    faces, owner = faces[order], owner[order]
    same = (faces[1:] == faces[:-1]).all(axis=1)
    return np.stack([owner[:-1][same], owner[1:][same]], axis=1)


class Sections:
    """Cuts the conducting tissue of one mesh by planes."""

    def __init__(self, mesh: HeartMesh, blocked: NDArray[np.bool_] | None = None, radius_mm: float = 30.0) -> None:
        keep = mesh.conducting() if blocked is None else mesh.conducting() & ~blocked
        self.ids = np.flatnonzero(keep)
        self.points = mesh.points_mm
        self.tets = mesh.tets[self.ids]
        self.centres = self.points[self.tets].mean(axis=1)
        self.radius_mm = radius_mm
        away = np.linalg.norm(self.points[self.tets] - self.centres[:, None], axis=2)
        self.reach_mm = float(away.max(initial=0.0)) * (1.0 + 1e-9)
        pairs = face_pairs(self.tets)
        n = len(self.ids)
        graph = sp.coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n)).tocsr()
        self.neighbours = (graph + graph.T).tocsr()

    def cut(
        self, point_mm: NDArray[np.float64], normal: NDArray[np.float64], across_wall: NDArray[np.float64] | None = None
    ) -> Section | None:
        """The connected piece of the plane nearest to the point, at most `radius_mm` away; None if there is no tissue near.

        across_wall (3,): the direction through the wall; without it the longer spread is called width.
        """
        # a tetrahedron whose centre lies farther from the plane than any corner from its centre is not cut: most need no closer look
        reach = self.reach_mm * float(np.linalg.norm(normal)) + 1e-6
        slab = np.flatnonzero(np.abs(self.centres @ normal - point_mm @ normal) <= reach)
        near = slab[((self.centres[slab] - point_mm) ** 2).sum(axis=1) < self.radius_mm**2]
        height = (self.points[self.tets[near]] - point_mm) @ normal
        near, height = near[crossed := (height.min(axis=1) < 0) & (height.max(axis=1) >= 0)], height[crossed]
        if not len(near):
            return None
        count, label = connected_components(self.neighbours[near][:, near], directed=False)
        area, centre = _cut_triangles(self.points[self.tets[near]], height)
        # single tetrahedra at a ragged scar edge are pieces too: of those at the point the largest is meant
        away = np.linalg.norm(self.centres[near] - point_mm, axis=1)
        nearest = np.full(count, np.inf)
        np.minimum.at(nearest, label, away)
        size = np.bincount(label, area.sum(axis=1), minlength=count)
        mine = label == int(np.where(nearest <= max(AT_POINT_MM, float(away.min())), size, -1.0).argmax())
        near, area, centre = near[mine], area[mine], centre[mine]
        total = float(area.sum())
        if total <= 0:
            return None
        mean = (area[..., None] * centre).sum(axis=(0, 1)) / total
        spread = centre - mean
        covariance = np.einsum("st,sti,stj->ij", area, spread, spread) / total
        width, thickness = _rectangle(covariance, normal, across_wall)
        return Section(total, width, thickness, mean, self.ids[near])


def _cut_triangles(corners: NDArray[np.float64], height: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Areas (m, 8) and centres (m, 8, 3) of small triangles that tile each tetrahedron's cut with the plane height = 0."""
    order = np.argsort(height, axis=1, kind="stable")
    h = np.take_along_axis(height, order, axis=1)
    p = np.take_along_axis(corners, order[..., None], axis=1)
    below = (h < 0).sum(axis=1)

    def at(a: int, b: int) -> NDArray[np.float64]:
        span = h[:, b] - h[:, a]
        share = np.where(span > 0, -h[:, a] / np.where(span > 0, span, 1.0), 0.0)
        return p[:, a] + share[:, None] * (p[:, b] - p[:, a])

    p01, p02, p03, p12, p13, p23 = at(0, 1), at(0, 2), at(0, 3), at(1, 2), at(1, 3), at(2, 3)
    one, two = (below == 1)[:, None], (below == 2)[:, None]
    a = np.where(one, p01, np.where(two, p02, p03))
    b = np.where(one, p02, np.where(two, p03, p13))
    c = np.where(one, p03, np.where(two, p13, p23))
    d = np.where(two, p12, c)
    triangles = np.concatenate([_quarters(a, b, c), _quarters(a, c, d)], axis=1)
    cross = np.cross(triangles[:, :, 1] - triangles[:, :, 0], triangles[:, :, 2] - triangles[:, :, 0])
    return 0.5 * np.linalg.norm(cross, axis=2), triangles.mean(axis=2)


def _quarters(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each triangle as its four quarters, (m, 4, 3, 3): their centres carry the spread of the whole well enough."""
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    return np.stack([np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))], axis=1)


def _rectangle(
    covariance: NDArray[np.float64], normal: NDArray[np.float64], across_wall: NDArray[np.float64] | None
) -> tuple[float, float]:
    """Width and thickness of the rectangle that has this covariance in the plane (variance of a side s is s^2 / 12)."""
    if across_wall is not None:
        wall = across_wall - (across_wall @ normal) * normal
        if (length := float(np.linalg.norm(wall))) > 0.3:
            wall = wall / length
            along = np.cross(normal, wall)
            width, thickness = (float(np.sqrt(12.0 * np.clip(side @ covariance @ side, 0.0, None))) for side in (along, wall))
            return width, thickness
    _, thickness, width = (float(np.sqrt(12.0 * value)) for value in np.clip(np.linalg.eigvalsh(covariance), 0.0, None))
    return width, thickness
