"""Where lesions are made, and the tetrahedra that they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from planners.lesions.avoid import Lines, allowed
from planners.lesions.gaps import Shape, Walls, strands
from twin.errors import InputError
from twin.mesh import WALLS, HeartMesh
from twin.params import Param
from twin.plan import Target

SPACING = Param(5.0, "mm", 4.0, 6.0, "5-6 mm at most from centre to centre for a continuous line (common practice; no single source read)")
NORMAL_RADIUS_MM = 5.0
"""The wall's direction is the mean over this distance: about a catheter tip's footprint with its surroundings."""


class Access:
    """A surface from which lesions can be made: its nodes, the direction into the wall at each, and which of them keep clear of the
    structures to be spared (`open`, indices into `nodes`).
    """

    def __init__(self, mesh: HeartMesh, surface: str, avoid: Mapping[str, Lines] | None = None) -> None:
        if surface not in mesh.surfaces or not len(mesh.surfaces[surface]):
            raise InputError("plan", "access", f"this heart has no surface {surface!r}", f"use some of {', '.join(sorted(mesh.surfaces))}")
        self.name = surface
        self.nodes = mesh.surface_nodes(surface)
        self.points_mm = mesh.points_mm[self.nodes]
        self.tree = cKDTree(self.points_mm)
        self.is_open = allowed(self.points_mm, avoid or {})
        self.open = np.flatnonzero(self.is_open)
        self.open_tree = cKDTree(self.points_mm[self.open])
        self.inward = self._inward(mesh)

    def _inward(self, mesh: HeartMesh) -> NDArray[np.float64]:
        triangles = mesh.surfaces[self.name]
        p = mesh.points_mm[triangles]
        area_normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
        around = cKDTree(p.mean(axis=1)).query_ball_point(self.points_mm, NORMAL_RADIUS_MM)
        inward = np.array([-area_normal[np.sort(np.asarray(k, np.int64))].sum(axis=0) for k in around])
        return inward / np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), 1e-12)

    def distance_mm(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance of points (k, 3) from the nearest node that may be ablated, (k,) mm; inf if there is none."""
        return np.asarray(self.open_tree.query(points_mm)[0], np.float64)

    def snap(self, positions_mm: ArrayLike) -> NDArray[np.int64]:
        """Index (into `nodes`) of the nearest surface node of each position, (k,)."""
        return np.asarray(self.tree.query(np.asarray(positions_mm, float).reshape(-1, 3))[1], np.int64)

    def place(self, positions_mm: ArrayLike) -> NDArray[np.int64]:
        """Index (into `nodes`) of the nearest node that may be ablated, (k,); empty if there is none."""
        if not len(self.open):
            return np.zeros(0, np.int64)
        return self.open[np.asarray(self.open_tree.query(np.asarray(positions_mm, float).reshape(-1, 3))[1], np.int64)]


class LesionMaker:
    """Turns positions into tetrahedra; keeps the trees of one mesh."""

    def __init__(self, mesh: HeartMesh, avoid: Mapping[str, Lines] | None = None) -> None:
        """avoid: structures from whose margins no strategy places a lesion (`planners.lesions.avoid`)."""
        self.mesh, self.avoid = mesh, avoid or {}
        self.centres_mm = mesh.centroids_mm
        self.tree = cKDTree(self.centres_mm)
        self.volumes_mm3 = mesh.tet_volumes_mm3
        self._access: dict[str, Access] = {}
        self._walls: Walls | None = None

    def access(self, surface: str) -> Access:
        """The surface of that name; raises InputError if the heart has none."""
        if surface not in self._access:
            self._access[surface] = Access(self.mesh, surface, self.avoid)
        return self._access[surface]

    def surfaces(self, names: Sequence[str]) -> list[Access]:
        """Those of the named surfaces that this heart has and that structures to be spared leave open somewhere."""
        return [a for name in names if len(self.mesh.surfaces.get(name, ())) and len((a := self.access(name)).open)]

    def thickness_mm(self, target: Target) -> NDArray[np.float64]:
        """Wall thickness under each position of a target, (k,) mm: to the nearest other surface; inf where there is none."""
        others = [n for n in WALLS if n != target.surface and len(self.mesh.surfaces.get(n, ()))]
        access = self.access(target.surface)
        at = access.points_mm[access.snap(target.positions_mm)]
        if not others:
            return np.full(len(at), np.inf)
        nodes = np.unique(np.concatenate([self.mesh.surface_nodes(n) for n in others]))
        # surfaces share their nodes at the rims: those are no other side
        nodes = np.setdiff1d(nodes, access.nodes)
        return np.asarray(cKDTree(self.mesh.points_mm[nodes]).query(at)[0], np.float64)

    def shape(self, access: Access, index: int, radius_mm: float, depth_mm: float) -> Shape:
        """The lesion made at a surface node."""
        return Shape(access.points_mm[index], access.inward[index], radius_mm, depth_mm)

    def shapes(self, targets: Sequence[Target]) -> list[Shape]:
        """The lesions of all targets, each snapped to its surface."""
        out = []
        for target in targets:
            access = self.access(target.surface)
            out += [self.shape(access, int(i), target.radius_mm, target.depth_mm) for i in access.snap(target.positions_mm)]
        return out

    def within(self, shape: Shape) -> NDArray[np.int64]:
        """Tetrahedra of one lesion: those whose centre lies in it."""
        near = np.array(sorted(self.tree.query_ball_point(shape.base_mm, shape.reach_mm + 1e-6)), np.int64)
        return near[shape.outside_mm(self.centres_mm[near])[0] <= 0.0] if len(near) else near

    def taken(self, shapes: Sequence[Shape]) -> NDArray[np.bool_]:
        """Tetrahedra (m,) bool that lesions take, with the strands that they leave too thin to conduct (`planners.lesions.gaps`)."""
        out = np.zeros(len(self.mesh.tets), bool)
        for shape in shapes:
            out[self.within(shape)] = True
        if shapes:
            self._walls = self._walls or Walls(self.mesh)
            out[strands(self.centres_mm, self.tree, self._walls, shapes, self.mesh.conducting() & ~out)] = True
        return out

    def mask(self, targets: Sequence[Target]) -> NDArray[np.bool_]:
        """Tetrahedra taken by all targets, (m,) bool."""
        return self.taken(self.shapes(targets))

    def volume_ml(self, mask: NDArray[np.bool_], *regions: str) -> float:
        """Volume of a mask, of the named regions alone if any are named, in mL."""
        chosen = mask & self.mesh.in_region(*regions) if regions else mask
        return float(self.volumes_mm3[chosen].sum()) / 1000.0


def lesion_tets(mesh: HeartMesh, positions_mm: ArrayLike, surface: str, radius_mm: float, depth_mm: float) -> NDArray[np.bool_]:
    """Tetrahedra (m,) bool whose centre lies in a lesion made at any of the positions (k, 3) mm, snapped to the surface.

    Raises InputError for a surface that this heart does not have, or a radius or depth that is not positive.
    """
    if not (radius_mm > 0 and depth_mm > 0):
        raise InputError("plan", "lesion_radius_mm, lesion_depth_mm", "must be positive", "for example 4 and 6")
    positions = [[float(v) for v in p] for p in np.asarray(positions_mm, float).reshape(-1, 3)]
    return LesionMaker(mesh).mask([Target("", positions, surface, radius_mm, depth_mm, 0, "")])


def lesion_count(targets: Sequence[Target]) -> int:
    """Number of single lesions."""
    return sum(len(t.positions_mm) for t in targets)
