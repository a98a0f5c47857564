"""The body round a heart: read from surfaces, or a phantom of average adult size when no torso was imaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from meshing import electrodes as chest
from solvers.ecg.boundary import MAX_NODES, BoundaryElements, Region
from solvers.ecg.closed import closed, inside, refined
from twin.errors import InputError
from twin.io.surfaces import Surface, read_surface
from twin.mesh import HeartMesh
from twin.params import Param

Array = NDArray[np.float64]

SIGMA_TORSO = Param(0.2, "S/m", 0.16, 0.25, "assumption: mean torso conductivity, between lung (about 0.05-0.1) and blood (about 0.6)")
SIGMA_LUNG = Param(0.05, "S/m", 0.03, 0.1, "inflated lung below 1 kHz (Gabriel 1996, Phys Med Biol 41:2251); read second-hand")
SIGMA_BLOOD = Param(
    0.65, "S/m", 0.5, 0.8, "blood of normal haematocrit at body temperature, 0.6-0.7 S/m (Gabriel 1996, Phys Med Biol 41:2251)"
)

_ANSUR = "US Army men, mean (Gordon 1989, NATICK/TR-89/044), to the nearest cm as remembered; range: 5th percentile of women to 95th of men"
BREADTH = Param(320.0, "mm", 250.0, 370.0, _ANSUR + "; chest breadth")
DEPTH = Param(240.0, "mm", 200.0, 290.0, _ANSUR + "; chest depth")
HEIGHT = Param(600.0, "mm", 510.0, 650.0, _ANSUR + "; acromion above the seat")
TOP = Param(200.0, "mm", 160.0, 240.0, "assumption: shoulders (acromion) above the centre of the ventricles")
ROUNDNESS = Param(3.0, "1", 2.0, 5.0, "assumption: exponent of the superellipsoid, between an ellipsoid (2) and a box")
COARSE_MM, FINE_MM = 60.0, 12.0
"""Longest edges of the phantom's skin: far from the heart, and at most so fine close to it."""
EDGE_PER_DISTANCE = 0.5
"""Edges are cut down to this share of the distance to the muscle: errors of 1 % on the sphere (`vtwin verify ecg`)."""

LUNG_LEFT = {"right_lung": -90.0, "left_lung": 90.0}
"""Centres of the phantom's lungs left of the midline, mm."""
LUNG_HALF_MM = (50.0, 75.0, 110.0)
LUNG_GAP_MM = 8.0
IN_INCLUSION = 0.03
"""Share of the muscle that may lie in an inclusion: what coarse surfaces cut off."""
FARTHEST_MM = {"chest": 60.0, "limb": 800.0}
"""An electrode farther from the skin is on another body or in another frame; arms and legs are not part of the body, and limb electrodes
act where the limb begins."""


@dataclass(frozen=True)
class Torso:
    """A body: closed skin, its mean conductivity, inclusions by name, and where each was taken from."""

    skin: Surface
    sigma_s_m: float = float(SIGMA_TORSO)
    inclusions: Mapping[str, Region] = field(default_factory=dict)
    source: str = "given"

    def conductor(self, mesh: HeartMesh) -> BoundaryElements:
        """Boundary elements of this body round this heart. Raises InputError if the muscle is not in the body or meets an inclusion."""
        out = BoundaryElements(Region(self.skin, self.sigma_s_m), list(self.inclusions.values()))
        some = mesh.centroids_mm[:: max(1, len(mesh.tets) // 500)]
        if not inside(out.body.surface, some).all():
            raise InputError("torso", "skin", "does not enclose the heart", "give both in the same frame (LPS, mm)")
        for name, region in zip(self.inclusions, out.inclusions, strict=True):
            # a coarsened cavity cuts off corners of the muscle
            if inside(region.surface, some).mean() > IN_INCLUSION:
                raise InputError("torso", name, "holds heart muscle", "cut the muscle out of it")
        return out

    def place(self, conductor: BoundaryElements, electrodes_mm: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        """Electrodes moved to the nearest skin, and their weights (k, n) on the conductor's nodes."""
        places, rows = {}, []
        for name, wanted in electrodes_mm.items():
            place, weight = conductor.electrode(np.asarray(wanted, np.float64))
            if (off := float(np.linalg.norm(place - wanted))) > FARTHEST_MM["chest" if name.startswith("V") else "limb"]:
                raise InputError(
                    "electrodes", name, f"lies {off:.0f} mm from the skin", "give electrodes and torso in the same frame (LPS, mm)"
                )
            places[name] = place
            rows.append(weight)
        return places, np.stack(rows)


def read_torso(
    skin: Path, inclusions: Mapping[str, tuple[Path, float]] | None = None, sigma_s_m: float | None = None, max_nodes: int = 2000
) -> Torso:
    """A torso from surface files (STL, PLY, VTP, OBJ; LPS mm); inclusions: name -> (file, S/m).

    Surfaces of more than `max_nodes` nodes are decimated. Raises InputError for unreadable, open or overlapping surfaces.
    """
    conductivity = float(SIGMA_TORSO) if sigma_s_m is None else sigma_s_m
    parts = {
        name: Region(closed(_coarse(closed(read_surface(path), str(path)), max_nodes), str(path)), sigma)
        for name, (path, sigma) in (inclusions or {}).items()
    }
    body = closed(_coarse(closed(read_surface(skin), str(skin)), max_nodes), str(skin))
    return Torso(body, conductivity, parts, str(skin.name))


def _coarse(surface: Surface, max_nodes: int) -> Surface:
    if len(surface.points_mm) <= min(max_nodes, MAX_NODES):
        return surface
    import pyvista

    mesh = pyvista.make_tri_mesh(surface.points_mm, surface.triangles.astype(np.int64))
    share = 1.0 - min(max_nodes, MAX_NODES) / len(surface.points_mm)
    # quadric: keeps triangles even, where decimate_pro makes slivers that cost ten times the error
    coarse = mesh.decimate(share)
    return Surface(np.asarray(coarse.points, np.float64), coarse.faces.reshape(-1, 4)[:, 1:].astype(np.int32))


def phantom(mesh: HeartMesh, lungs: bool = False, blood: bool = False) -> Torso:
    """A superellipsoid of average adult size round this heart, arms and legs left off, in the patient's axes (LPS).

    The heart lies in it as `meshing.electrodes` assumes, at the same scale; a heart that would come nearer to the skin than
    `CLEARANCE` gets a larger body. lungs, blood: with these as inclusions. Finer where the skin is near the muscle (about 700 nodes).
    """
    centre, scale = chest.frame(mesh)
    half = 0.5 * scale * np.array([float(BREADTH), float(DEPTH), float(HEIGHT)])
    middle = centre + scale * np.array(
        [-float(chest.HEART_LEFT), 0.5 * float(DEPTH) - float(chest.HEART_DEPTH), float(TOP) - 0.5 * float(HEIGHT)]
    )
    tree = cKDTree(mesh.points_mm)
    while _level((mesh.points_mm - middle) / (half - float(chest.CLEARANCE))).max() > 1.0:
        half = half * 1.05
    skin = icosphere(2)
    points = _onto(skin.points_mm, half)
    for _ in range(6):
        longest = np.clip(EDGE_PER_DISTANCE * tree.query(points + middle)[0], FINE_MM, COARSE_MM)
        finer = refined(Surface(points, skin.triangles), longest)
        if len(finer.points_mm) == len(points):
            break
        skin, points = finer, _onto(finer.points_mm, half)
    parts = {name: Region(_lung(mesh, middle, half, scale, name), float(SIGMA_LUNG)) for name in LUNG_LEFT} if lungs else {}
    parts |= cavities(mesh) if blood else {}
    return Torso(Surface(points + middle, skin.triangles), float(SIGMA_TORSO), parts, "phantom of average adult size")


def cavities(mesh: HeartMesh, max_nodes: int = 400) -> dict[str, Region]:
    """Blood in the ventricles, closed over the valves by flat lids, as inclusions of a torso; coarsened to `max_nodes` nodes each.

    Surfaces of the mesh that are missing are left out. Raises InputError for an endocardium that cannot be closed.
    """
    out = {}
    for name in ("lv_endo", "rv_endo"):
        if name in mesh.surfaces and len(mesh.surfaces[name]):
            lid = _lidded(mesh.points_mm, mesh.surfaces[name])
            out[name.replace("endo", "blood")] = Region(closed(_coarse(closed(lid, name), max_nodes), name), float(SIGMA_BLOOD))
    return out


def _lidded(points_mm: Array, triangles: NDArray[np.int32]) -> Surface:
    """A surface whose open rims are closed by fans of triangles to their centres."""
    edges = np.concatenate([triangles[:, [i, j]] for i, j in ((0, 1), (1, 2), (2, 0))]).astype(np.int64)
    key = edges[:, 0] * len(points_mm) + edges[:, 1]
    rim = edges[~np.isin(edges[:, 1] * len(points_mm) + edges[:, 0], key)]
    if len(rim) == 0:
        return Surface(points_mm, triangles)
    graph = sp.coo_array((np.ones(len(rim), np.int8), (rim[:, 0], rim[:, 1])), shape=(len(points_mm), len(points_mm)))
    _, label = connected_components(graph, directed=False)
    extra, fans = [], []
    for k, loop in enumerate(np.unique(label[rim[:, 0]])):
        mine = rim[label[rim[:, 0]] == loop]
        extra.append(points_mm[mine[:, 0]].mean(axis=0))
        # against the rim's own sense, so that every edge is run both ways
        fans.append(np.column_stack([mine[:, 1], mine[:, 0], np.full(len(mine), len(points_mm) + k)]))
    return Surface(np.concatenate([points_mm, extra]), np.concatenate([triangles, *fans]).astype(np.int32))


def _level(relative: Array) -> Array:
    return np.asarray((np.abs(relative) ** float(ROUNDNESS)).sum(axis=1) ** (1.0 / float(ROUNDNESS)), np.float64)


def _onto(points: Array, half: Array) -> Array:
    """Points moved along rays from the centre to the superellipsoid; directions are first taken from the sphere to the ellipsoid."""
    at = points * half if np.abs(points).max() <= 1.0 + 1e-9 else points
    return at / _level(at / half)[:, None]


def _lung(mesh: HeartMesh, middle: Array, half: Array, scale: float, name: str) -> Surface:
    """An ellipsoid beside the heart, pushed out of the muscle's way and kept in the body."""
    sphere = icosphere(2)
    points = sphere.points_mm * np.array(LUNG_HALF_MM) * scale + middle + scale * np.array([LUNG_LEFT[name], 0.0, 150.0])
    axis = np.array([middle[0] + scale * LUNG_LEFT[name], middle[1]])
    tree = cKDTree(mesh.points_mm)
    heart = mesh.points_mm.mean(axis=0)
    for _ in range(200):
        near, node = tree.query(points)
        wrong = (near < LUNG_GAP_MM) | inside(Surface(points, sphere.triangles), mesh.points_mm[node])
        if not wrong.any():
            break
        # dented, not moved: a lung fills what the heart leaves
        away = np.append(axis, heart[2] + scale * 50.0) - points[wrong]
        points[wrong] += 0.05 * away
    share = _level((points - middle) / (half - LUNG_GAP_MM))
    points = np.where(share[:, None] > 1.0, middle + (points - middle) / share[:, None], points)
    return Surface(points, sphere.triangles)


def icosphere(levels: int) -> Surface:
    """A unit sphere of 20 * 4^levels nearly equal triangles with outward normals."""
    g = (1.0 + np.sqrt(5.0)) / 2.0
    corners = np.array([[-1, g, 0], [1, g, 0], [-1, -g, 0], [1, -g, 0], [0, -1, g], [0, 1, g]], float)
    corners = np.concatenate([corners, [[0, -1, -g], [0, 1, -g], [g, 0, -1], [g, 0, 1], [-g, 0, -1], [-g, 0, 1]]])
    fans = [[0, 11, 5], [0, 5, 1], [0, 1, 7], [0, 7, 10], [0, 10, 11], [1, 5, 9], [5, 11, 4], [11, 10, 2], [10, 7, 6], [7, 1, 8]]
    caps = [[3, 9, 4], [3, 4, 2], [3, 2, 6], [3, 6, 8], [3, 8, 9], [4, 9, 5], [2, 4, 11], [6, 2, 10], [8, 6, 7], [9, 8, 1]]
    out = Surface(corners / np.linalg.norm(corners[0]), np.array(fans + caps, np.int32))
    for _ in range(levels):
        cut = refined(out, np.zeros(len(out.points_mm)))
        out = Surface(cut.points_mm / np.linalg.norm(cut.points_mm, axis=1, keepdims=True), cut.triangles)
    return out
