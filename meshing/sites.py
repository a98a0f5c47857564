"""Named places: pacing sites for programmed stimulation and landmarks for the registration of maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from meshing.coordinates import has_rv, long_axis, nearest, rim_centre
from meshing.laplace import unit
from meshing.segments import SEGMENTS
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.params import Param
from twin.site_name import place_of

MOVE_LIMIT = Param(10.0, "mm", 5.0, 15.0, "assumption: a catheter finds capture within about one segment's half width")
SEPTAL = (2, 3, 8, 9, 14)
"""Segments between the ventricles: they have no epicardium of their own."""
SEGMENT_CENTRES = tuple(f"aha{number:02d}" for number in SEGMENTS)
ENDOCARDIAL = (*SEGMENT_CENTRES, "rv_apex", "rv_outflow")
EPICARDIAL = tuple(f"epi_aha{number:02d}" for number in SEGMENTS if number not in SEPTAL)
NAMES = (*ENDOCARDIAL, *EPICARDIAL)
"""Every site that a heart may have."""


OUTFLOW_LEVEL = Param(0.85, "1", 0.75, 0.95, "assumption: RV outflow tract pacing below the valve plane, anterior septal side")


class PacingSites(dict[str, int]):
    """Site name -> node; `notes` says which sites were moved out of scar, by how far, and which were dropped."""

    def __init__(self, nodes: dict[str, int], notes: dict[str, str]) -> None:
        super().__init__(nodes)
        self.notes = notes


def conducting_nodes(mesh: HeartMesh) -> NDArray[np.bool_]:
    """Nodes (n,) from which a wave can reach the bulk of the muscle: in the largest connected set of conducting tetrahedra."""
    tets = mesh.tets[mesh.conducting()]
    if not len(tets):
        return np.zeros(mesh.n_points, bool)
    return main_body(tets, mesh.n_points)


def main_body(tets: NDArray[np.integer], n_points: int) -> NDArray[np.bool_]:
    """Nodes (n_points,) of the largest connected set of tetrahedra (m, 4)."""
    pairs = np.concatenate([tets[:, [0, 1]], tets[:, [0, 2]], tets[:, [0, 3]]])
    graph = sp.coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n_points, n_points))
    _, label = connected_components(graph, directed=False)
    return np.asarray(label == np.argmax(np.bincount(label[tets[:, 0]])))


def pacing_sites(mesh: HeartMesh) -> PacingSites:
    """Sites of programmed stimulation: "aha01".."aha17" (segment centres on the LV endocardium), "rv_apex", "rv_outflow".

    A site in muscle that cannot conduct moves to the nearest conducting node of its endocardium within MOVE_LIMIT, or is dropped;
    `notes` of the result says so. Needs coordinates and segments (`meshing.anatomy.complete`); raises InputError without them.
    """
    _need_coordinates(mesh)
    lv = mesh.surface_nodes("lv_endo")
    wanted = {f"aha{number:02d}": (lv, _segment_centre(mesh, lv, number)) for number in SEGMENTS if (mesh.aha_segment[lv] == number).any()}
    if has_rv(mesh):
        rv = mesh.surface_nodes("rv_endo")
        wanted |= {"rv_apex": (rv, _rv_apex(mesh, rv)), "rv_outflow": (rv, _rv_outflow(mesh, rv))}
    return _alive(mesh, wanted, "endocardium")


def epicardial_sites(mesh: HeartMesh) -> PacingSites:
    """The same on the epicardium: "epi_aha01".."epi_aha17" without the septum, centres of the segments' epicardium."""
    _need_coordinates(mesh)
    epi = mesh.surface_nodes("epi") if len(mesh.surfaces.get("epi", ())) else np.zeros(0, np.int32)
    wanted = {}
    for name in EPICARDIAL:
        mine = epi[mesh.aha_segment[epi] == int(name[-2:])]
        if len(mine):
            wanted[name] = (epi, nearest(mesh.points_mm, mine, mesh.points_mm[mine].mean(axis=0)))
    return _alive(mesh, wanted, "epicardium")


def sites_named(mesh: HeartMesh, names: Sequence[str]) -> PacingSites:
    """All of the heart's own endocardial sites, with the epicardial and the user's ones among `names`.

    A user's site is the nearest node that conducts, wherever in the wall, within MOVE_LIMIT, or is dropped.
    """
    out = pacing_sites(mesh)
    if any(name in EPICARDIAL for name in names):
        epi = epicardial_sites(mesh)
        out.update({name: node for name, node in epi.items() if name in names})
        out.notes.update({name: note for name, note in epi.notes.items() if name in names})
    places = {name: place for name in names if (place := place_of(name)) is not None}
    if places:
        alive = np.flatnonzero(conducting_nodes(mesh))
        tree = cKDTree(mesh.points_mm[alive])
        for name, place in places.items():
            gap, at = tree.query(place)
            if gap <= float(MOVE_LIMIT):
                out[name] = int(alive[at])
            else:
                out.notes[name] = f"dropped: {gap:.0f} mm from the nearest muscle that conducts"
    return out


def _alive(mesh: HeartMesh, wanted: dict[str, tuple[NDArray[np.int32], int]], where: str) -> PacingSites:
    """Each site at its node, or at the nearest of its surface that conducts."""
    alive = conducting_nodes(mesh)
    nodes: dict[str, int] = {}
    notes: dict[str, str] = {}
    for name, (surface, node) in wanted.items():
        if alive[node]:
            nodes[name] = node
            continue
        candidates = surface[alive[surface]]
        away, at = cKDTree(mesh.points_mm[candidates]).query(mesh.points_mm[node]) if len(candidates) else (np.inf, 0)
        if away <= float(MOVE_LIMIT):
            nodes[name] = int(candidates[at])
            notes[name] = f"in scar: moved by {away:.1f} mm"
        else:
            notes[name] = f"dropped: no conducting {where} within {float(MOVE_LIMIT):g} mm"
    return PacingSites(nodes, notes)


def site_nodes(mesh: HeartMesh, node: int, radius_mm: float) -> NDArray[np.int32]:
    """Conducting nodes within radius_mm of a node, ascending (k,) int32; the stimulus electrode. May be empty in scar."""
    near = np.linalg.norm(mesh.points_mm - mesh.points_mm[node], axis=1) <= radius_mm
    return np.flatnonzero(near & conducting_nodes(mesh)).astype(np.int32)


def landmarks(mesh: HeartMesh) -> dict[str, NDArray[np.float64]]:
    """Places that a map and a mesh can both name, (3,) mm each.

    lv_apex (endocardial), mitral_centre, and on the LV endocardium: mid_septum_lv, lateral_wall_lv (half way up), anterior_base_lv,
    inferior_base_lv (at the mitral ring); with an RV also rv_apex and tricuspid_centre (of the RV's whole open edge). Without an RV the
    four wall points lie where the rotational zero was put, arbitrarily.
    Needs coordinates (`meshing.anatomy.complete`); raises InputError without them.
    """
    _need_coordinates(mesh)
    axis = long_axis(mesh)
    lv = mesh.surface_nodes("lv_endo")
    places = {
        "mid_septum_lv": (0.5, 0.0),
        "lateral_wall_lv": (0.5, np.pi),
        "anterior_base_lv": (1.0, np.pi / 2.0),
        "inferior_base_lv": (1.0, -np.pi / 2.0),
    }
    out = {"lv_apex": axis.apex_endo_mm, "mitral_centre": axis.mitral_mm}
    out |= {name: mesh.points_mm[_at(mesh, lv, level, angle)] for name, (level, angle) in places.items()}
    if has_rv(mesh):
        out["rv_apex"] = mesh.points_mm[_rv_apex(mesh, mesh.surface_nodes("rv_endo"))]
        out["tricuspid_centre"] = rim_centre(mesh, "rv_endo")
    return out


def _need_coordinates(mesh: HeartMesh) -> None:
    if not mesh.coordinates or len(mesh.aha_segment) != mesh.n_points:
        raise InputError("mesh", "coordinates", "have not been computed", "pass it through meshing.anatomy.complete first")


def _segment_centre(mesh: HeartMesh, lv: NDArray[np.int32], number: int) -> int:
    """Endocardial node nearest to the centre of a segment's endocardium; of the apex, the tip of the cavity."""
    if number == 17:
        return long_axis(mesh).apex_node
    mine = lv[mesh.aha_segment[lv] == number]
    return nearest(mesh.points_mm, mine, mesh.points_mm[mine].mean(axis=0))


def _at(mesh: HeartMesh, nodes: NDArray[np.int32], level: float, angle: float) -> int:
    """Node of a surface whose coordinates come nearest to a level and an angle, both in mm."""
    apicobasal, rotational = mesh.coordinates["apicobasal"][nodes], mesh.coordinates["rotational"][nodes]
    length = long_axis(mesh).length_mm
    # a turn is about three half lengths of a left ventricle: good enough to weigh the two misses against each other
    miss = np.hypot((apicobasal - level) * length, np.angle(np.exp(1j * (rotational - angle))) * length / 3.0)
    return int(nodes[np.argmin(miss)])


def _rv_apex(mesh: HeartMesh, rv: NDArray[np.int32]) -> int:
    """RV endocardial node farthest from the RV's open edge along the LV's long axis."""
    return int(rv[np.argmin((mesh.points_mm[rv] - rim_centre(mesh, "rv_endo")) @ long_axis(mesh).direction)])


def _rv_outflow(mesh: HeartMesh, rv: NDArray[np.int32]) -> int:
    """Most anterior RV endocardial node near the level of the outflow tract."""
    level = mesh.coordinates["apicobasal"][rv]
    band = rv[np.abs(level - float(OUTFLOW_LEVEL)) <= 0.1]
    band = band if len(band) else rv
    axis = long_axis(mesh)
    # the same sense of rotation as the coordinate: apex->base x septum points to the anterior wall
    towards_rv = unit(mesh.points_mm[rv].mean(axis=0) - axis.apex_endo_mm)
    anterior = unit(np.cross(axis.direction, towards_rv))
    return int(band[np.argmax(mesh.points_mm[band] @ anterior)])
