"""Lesions as shapes: a capsule from a surface point along the inward normal, and the tetrahedra that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from planners.lesions.avoid import Lines, allowed
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.params import Param
from twin.plan import PlanRequest, Target

RADIUS = Param(4.0, "mm", 3.0, 5.0, "RF endocardial lesions 3-5 mm in radius; shared/design/clinical.md (textbook range, source not read)")
DEPTH = Param(
    6.0,
    "mm",
    3.0,
    7.0,
    "RF endocardial lesions 3-7 mm deep by power, force and time; shared/design/clinical.md (textbook range, source not read)",
)
SPACING = Param(5.0, "mm", 4.0, 6.0, "5-6 mm at most from centre to centre for a continuous line; shared/design/clinical.md")
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


def shape_mask(
    centres_mm: NDArray[np.float64],
    tree: cKDTree,
    base_mm: NDArray[np.float64],
    inward: NDArray[np.float64],
    radius_mm: float,
    depth_mm: float,
) -> NDArray[np.int64]:
    """Points (of m, with their tree) in one lesion: a capsule that ends at `depth_mm`, a flat ellipsoid if depth < radius."""
    near = np.array(sorted(tree.query_ball_point(base_mm, max(radius_mm, depth_mm) + 1e-6)), np.int64)
    if not len(near):
        return near
    away = centres_mm[near] - base_mm
    deep = away @ inward
    if depth_mm >= radius_mm:
        on_axis = np.clip(deep, 0.0, depth_mm - radius_mm)
        inside = ((away - on_axis[:, None] * inward) ** 2).sum(axis=1) <= radius_mm**2
    else:
        aside2 = (away**2).sum(axis=1) - deep**2
        inside = aside2 / radius_mm**2 + (deep / depth_mm) ** 2 <= 1.0
    return near[inside]


class LesionMaker:
    """Turns positions into tetrahedra; keeps the trees of one mesh."""

    def __init__(self, mesh: HeartMesh, avoid: Mapping[str, Lines] | None = None) -> None:
        """avoid: structures from whose margins no strategy places a lesion (`planners.lesions.avoid`)."""
        self.mesh, self.avoid = mesh, avoid or {}
        self.centres_mm = mesh.centroids_mm
        self.tree = cKDTree(self.centres_mm)
        self.volumes_mm3 = mesh.tet_volumes_mm3
        self._access: dict[str, Access] = {}

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
        others = [n for n in ("lv_endo", "rv_endo", "epi") if n != target.surface and len(self.mesh.surfaces.get(n, ()))]
        access = self.access(target.surface)
        at = access.points_mm[access.snap(target.positions_mm)]
        if not others:
            return np.full(len(at), np.inf)
        nodes = np.unique(np.concatenate([self.mesh.surface_nodes(n) for n in others]))
        # surfaces share their nodes at the rims: those are no other side
        nodes = np.setdiff1d(nodes, access.nodes)
        return np.asarray(cKDTree(self.mesh.points_mm[nodes]).query(at)[0], np.float64)

    def at(self, access: Access, index: int, radius_mm: float, depth_mm: float) -> NDArray[np.int64]:
        """Tetrahedra of one lesion at a surface node."""
        return shape_mask(self.centres_mm, self.tree, access.points_mm[index], access.inward[index], radius_mm, depth_mm)

    def mask(self, targets: Sequence[Target]) -> NDArray[np.bool_]:
        """Tetrahedra taken by all targets, (m,) bool."""
        out = np.zeros(len(self.mesh.tets), bool)
        for target in targets:
            access = self.access(target.surface)
            for index in access.snap(target.positions_mm):
                out[self.at(access, int(index), target.radius_mm, target.depth_mm)] = True
        return out

    def volume_ml(self, mask: NDArray[np.bool_], *regions: str) -> float:
        """Volume of a mask, of the named regions alone if any are named, in mL."""
        chosen = mask & self.mesh.in_region(*regions) if regions else mask
        return float(self.volumes_mm3[chosen].sum()) / 1000.0


def lesion_tets(mesh: HeartMesh, positions_mm: ArrayLike, surface: str, radius_mm: float, depth_mm: float) -> NDArray[np.bool_]:
    """Tetrahedra (m,) bool whose centre lies in a lesion made at any of the positions (k, 3) mm, snapped to the surface.

    Raises InputError for a surface that this heart does not have, or a radius or depth that is not positive.
    """
    if not (radius_mm > 0 and depth_mm > 0):
        raise InputError(
            "plan", "lesion_radius_mm, lesion_depth_mm", "must be positive", f"for example {RADIUS.value:g} and {DEPTH.value:g}"
        )
    positions = [[float(v) for v in p] for p in np.asarray(positions_mm, float).reshape(-1, 3)]
    return LesionMaker(mesh).mask([Target("", positions, surface, radius_mm, depth_mm, 0, "")])


def lesion_count(targets: Sequence[Target]) -> int:
    """Number of single lesions."""
    return sum(len(t.positions_mm) for t in targets)


def check_request(request: PlanRequest) -> None:
    """Raise InputError for lesion sizes that no energy source makes."""
    for field, value, param in (
        ("lesion_radius_mm", request.lesion_radius_mm, RADIUS),
        ("lesion_depth_mm", request.lesion_depth_mm, DEPTH),
    ):
        if not param.contains(value):
            raise InputError("plan", field, f"{value:g} mm is outside {param.low:g}-{param.high:g} mm", f"for example {param.value:g}")
