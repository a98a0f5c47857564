"""Tissue that lesions leave standing too thin to conduct: strands between a lesion and a scar, a surface, or the next lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from twin.mesh import HeartMesh
from twin.params import Param

GAP = Param(
    1.0,
    "mm",
    0.9,
    1.4,
    "strands beside laser lesions of 0.8 mm2 and less failed at short cycles, all larger ones conducted (residual isthmus of surviving "
    "tissue, J Interv Card Electrophysiol 2000;4:273, abstract); simulated gaps in a line up to 1.4 mm block (Ranjan 2011, Circ Arrhythm "
    "Electrophysiol 4:279); border zone blocks in wider gaps still, which is not counted on",
)
OPPOSITE = -0.5
"""Two walls face each other where the directions to them have at most this cosine: else a lesion's own rim on the surface would count."""

STRAIGHT = 0.8
"""A wall is met straight on where the direction to it has at least this cosine with the wall's own."""

_SPACING_MM = 0.4
_FACES = np.array(((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)))
_APEX = np.arange(4)


@dataclass(frozen=True)
class Shape:
    """One lesion: a capsule from `base_mm` along `inward` (unit) that ends at `depth_mm`, a flat ellipsoid if depth < radius."""

    base_mm: NDArray[np.float64]
    inward: NDArray[np.float64]
    radius_mm: float
    depth_mm: float

    @property
    def reach_mm(self) -> float:
        """No part of it is farther from its base."""
        return max(self.radius_mm, self.depth_mm)

    def outside_mm(self, points_mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Signed distance of points (k, 3) from its surface, negative within, (k,) mm, and the direction to it, (k, 3).

        Exact for the capsule; of the ellipsoid the first-order distance (value over gradient).
        """
        away = points_mm - self.base_mm
        deep = away @ self.inward
        if self.depth_mm >= self.radius_mm:
            off = away - np.clip(deep, 0.0, self.depth_mm - self.radius_mm)[:, None] * self.inward
            length = np.linalg.norm(off, axis=1)
            return length - self.radius_mm, -off / np.maximum(length, 1e-12)[:, None]
        aside = away - deep[:, None] * self.inward
        scaled = np.linalg.norm(aside / self.radius_mm + deep[:, None] * self.inward / self.depth_mm, axis=1)
        slope = aside / self.radius_mm**2 + deep[:, None] * self.inward / self.depth_mm**2
        steep = np.maximum(np.linalg.norm(slope, axis=1), 1e-12)
        return (scaled - 1.0) * np.maximum(scaled, 1e-12) / steep, -slope / steep[:, None]


class Walls:
    """Where conducting tissue ends - scar, blood, outside - as points of its boundary about `_SPACING_MM` apart."""

    def __init__(self, mesh: HeartMesh) -> None:
        tets = mesh.tets[mesh.conducting()]
        faces, apex = tets[:, _FACES].reshape(-1, 3), tets[:, _APEX].ravel()
        _, first, count = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
        outer = first[count == 1]
        self.corners_mm = corners = mesh.points_mm[faces[outer]]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        inside = np.einsum("fi,fi->f", normal, mesh.points_mm[apex[outer]] - corners[:, 0]) > 0
        self.outward = np.where(inside, -1.0, 1.0)[:, None] * normal / np.maximum(np.linalg.norm(normal, axis=1), 1e-12)[:, None]
        self.tree = cKDTree(corners.mean(axis=1))

    def near(self, shapes: Sequence[Shape]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Boundary points (k, 3) mm within reach of any of the lesions and twice GAP beyond, and the direction out of the tissue there."""
        found = [self.tree.query_ball_point(s.base_mm, s.reach_mm + 2.0 * float(GAP) + 1.0) for s in shapes]
        chosen = np.unique(np.concatenate([np.asarray(f, np.int64) for f in found]))
        corners = self.corners_mm[chosen]
        if not len(corners):
            return np.zeros((0, 3)), np.zeros((0, 3))
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max()
        n = max(2, int(np.ceil(longest / _SPACING_MM)) + 1)
        share = np.array([(i, j, n - 1 - i - j) for i in range(n) for j in range(n - i)], float) / (n - 1)
        return np.einsum("pc,fci->fpi", share, corners).reshape(-1, 3), np.repeat(self.outward[chosen], len(share), axis=0)


def strands(
    centres_mm: NDArray[np.float64], tree: cKDTree, walls: Walls, shapes: Sequence[Shape], conducting: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Which of the tetrahedra (their centres (m, 3) and their tree) lie in a gap narrower than GAP between a lesion and a wall facing it.

    conducting (m,) bool: tissue that is left after the lesions. The width of the gap at a place is its distance to the lesion plus that
    to the facing wall, so it does not depend on the mesh. Returns indices, ascending.
    """
    width = float(GAP)
    near = [np.asarray(tree.query_ball_point(s.base_mm, s.reach_mm + width), np.int64) for s in shapes]
    candidates = np.unique(np.concatenate(near)) if near else np.zeros(0, np.int64)
    candidates = candidates[conducting[candidates]]
    if not len(candidates):
        return candidates
    at = centres_mm[candidates]
    distance, toward = (np.array(a) for a in zip(*(s.outside_mm(at) for s in shapes), strict=True))
    beside = np.flatnonzero((distance < width).any(axis=0))
    points, outward = walls.near(shapes)
    around = cKDTree(points).query_ball_point(at[beside], width) if len(points) else [()] * len(beside)
    thin = []
    for k, found in zip(beside.tolist(), around, strict=True):
        wall = np.asarray(found, np.int64)
        thin.append(_thin(distance[:, k], toward[:, k], points[wall] - at[k], outward[wall], width))
    return candidates[beside[np.array(thin, bool)]]


def _thin(
    distance: NDArray[np.float64],
    toward: NDArray[np.float64],
    walls: NDArray[np.float64],
    outward: NDArray[np.float64],
    width: float,
) -> bool:
    """One place: distances (s,) from and directions (s, 3) to the lesions; offsets (w, 3) of wall points, outward directions there."""
    close = distance < width
    away = np.maximum(distance[close], 0.0)
    gap = np.linalg.norm(walls, axis=1)
    # only what lies straight across: a wall that runs along the lesion's rim is near too, but no gap
    straight = np.einsum("wi,wi->w", walls, outward) >= STRAIGHT * gap
    reach = np.concatenate([gap[straight], away])
    across = np.concatenate([outward[straight], toward[close]])
    facing = toward[close] @ across.T <= OPPOSITE
    return bool((facing & (away[:, None] + reach[None, :] < width)).any())
