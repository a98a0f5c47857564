"""Where a point lies in the heart: apex to base, through the wall, around the long axis, left or right ventricle.

The septum belongs to the left ventricle through its whole thickness (as in Bayer 2018, UVC, doi 10.1016/j.media.2018.01.005):
the right ventricle's septal surface is an outer surface of the left ventricle, and the transmural coordinate there is 1.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from meshing.coarse import FINE_MM, Grid, coarse_fraction
from meshing.laplace import Dirichlet, Elements, trajectory_fraction, unit
from twin.errors import InputError, RunFailed
from twin.mesh import HeartMesh
from twin.params import Param

SEPTAL_SHARE = Param(
    1.0 / 3.0,
    "1",
    0.25,
    0.42,
    "two of six basal and mid AHA walls (Cerqueira 2002, Circulation 105:539); rt of Cobiveco (Schuler 2021) also 1/3",
)
"""Part of a full turn that the septum takes in the rotational coordinate."""
SEPTAL_THRESHOLD = Param(
    0.2,
    "1",
    0.15,
    0.35,
    "own measurement: harmonic field (LV endocardium 1, epicardium 0) at the RV insertion; the RV septal surface so found agrees with"
    " that whose normal points away from the LV axis on 98 % of the area (phantom, and the mean heart of Schuler 2021)",
)
INSERTION_LEVELS = (1.0 / 3.0, 0.95)
"""Apicobasal range in which the RV insertions set the septum's width: basal and mid level, without the base rim."""


@dataclass(frozen=True)
class Axis:
    """The left ventricle's own frame: endocardial apex, epicardial apex, mitral centre (3,) mm, and the unit vector apex -> base."""

    apex_endo_mm: NDArray[np.float64]
    apex_epi_mm: NDArray[np.float64]
    mitral_mm: NDArray[np.float64]
    apex_node: int

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vector from the endocardial apex to the mitral centre."""
        return unit(self.mitral_mm - self.apex_endo_mm)

    @property
    def length_mm(self) -> float:
        """Distance from the endocardial apex to the mitral centre."""
        return float(np.linalg.norm(self.mitral_mm - self.apex_endo_mm))


@dataclass(frozen=True)
class Turn:
    """How angles about the long axis are read: `zero` and `anterior` unit vectors (3,), insertions in radians (None without an RV).

    A positive angle turns from the septum to the anterior wall. In a heart of usual chirality that is apex->base x septum.
    """

    axis: Axis
    zero: NDArray[np.float64]
    anterior: NDArray[np.float64]
    insertions: tuple[float, float] | None

    def plain(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Geometric angle (k,) in -pi..pi of points (k, 3) mm about the long axis, zero at the mid septum."""
        r = points_mm - self.axis.apex_endo_mm
        return np.arctan2(r @ self.anterior, r @ self.zero)

    def angle(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rotational coordinate (k,): as `plain`, stretched so that the RV insertions lie at +-pi/3."""
        angle = self.plain(points_mm)
        if self.insertions is None:
            return angle
        half = np.pi * float(SEPTAL_SHARE)
        inferior, anterior = self.insertions
        return np.interp(angle, [-np.pi, inferior, 0.0, anterior, np.pi], [-np.pi, -half, 0.0, half, np.pi])


@dataclass(frozen=True)
class Wall:
    """Fields that fibres and coordinates share; nodal (n,) unless said otherwise.

    apex_base: harmonic, apex 0, base 1. lv, rv: harmonic, 1 on that endocardium, 0 on the other and on the epicardium.
    across: harmonic, 0 on the LV and RV free-wall endocardium, 1 on the epicardium and the RV's septal surface.
    transmural: `across` made linear in distance. right (n,) bool: nodes of the RV free wall. septal (k,) bool: triangles of rv_endo.
    """

    elements: Elements
    axis: Axis
    apex_nodes: NDArray[np.int64]
    apex_base: NDArray[np.float64]
    lv: NDArray[np.float64]
    rv: NDArray[np.float64]
    across: NDArray[np.float64]
    transmural: NDArray[np.float64]
    right: NDArray[np.bool_]
    septal: NDArray[np.bool_]


def has_rv(mesh: HeartMesh) -> bool:
    """True if the mesh has a right ventricle."""
    return len(mesh.surfaces.get("rv_endo", ())) > 0


def rim(triangles: NDArray[np.integer]) -> NDArray[np.int64]:
    """Edges (k, 2) of an open surface that belong to one triangle only."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return unique[count == 1].astype(np.int64)


def rim_centre(mesh: HeartMesh, surface: str) -> NDArray[np.float64]:
    """Centre (3,) mm of the area that the largest open edge of an endocardium encloses. Raises InputError if the surface is closed."""
    edges = rim(mesh.surfaces[surface])
    if not len(edges):
        raise InputError("mesh", f"surfaces/{surface}", "has no open edge at the base", "cut the labels at the base plane")
    graph = sp.coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(mesh.n_points, mesh.n_points))
    loop = connected_components(graph, directed=False)[1][edges[:, 0]]
    start, end = mesh.points_mm[edges[loop == np.argmax(np.bincount(loop))].T]
    middle = 0.5 * (start + end).mean(axis=0)
    # weighted by the area that each edge sweeps, not by its length: teeth in the rim then pull the centre nowhere
    area = np.linalg.norm(np.cross(start - middle, end - middle), axis=1)
    return np.asarray(np.average((start + end + middle) / 3.0, axis=0, weights=area))


def long_axis(mesh: HeartMesh) -> Axis:
    """Find the long axis of the left ventricle: mitral centre to the farthest endocardial node, and on to the epicardium.

    Raises InputError if a needed surface is missing.
    """
    for name in ("lv_endo", "epi", "base"):
        if not len(mesh.surfaces.get(name, ())):
            raise InputError("mesh", f"surfaces/{name}", "is empty", "label the LV blood pool and a base plane, then mesh again")
    mitral = rim_centre(mesh, "lv_endo")
    endo = mesh.surface_nodes("lv_endo")
    distance = np.linalg.norm(mesh.points_mm[endo] - mitral, axis=1)
    apex_node = int(endo[np.argmax(distance)])
    # the extreme node moves with every wiggle of the surface; the mean of the last few mm does not
    tip = mesh.points_mm[endo[distance > distance.max() - 1.0]].mean(axis=0)
    away = unit(tip - mitral)
    apex = mitral + away * distance.max()
    beyond = mesh.points_mm[mesh.surface_nodes("epi")] - apex
    ahead = beyond @ away
    aside = np.linalg.norm(beyond - ahead[:, None] * away, axis=1)
    outer = beyond[np.argmin(np.where(ahead > 0, aside, np.inf))]
    return Axis(apex, apex + max(float(outer @ away), 0.0) * away, mitral, apex_node)


def _apex_nodes(mesh: HeartMesh, axis: Axis, edge_mm: float) -> NDArray[np.int64]:
    """Nodes of the muscle between the endocardial and the epicardial apex."""
    towards = axis.apex_epi_mm - axis.apex_endo_mm
    share = np.clip((mesh.points_mm - axis.apex_endo_mm) @ towards / max(float(towards @ towards), 1e-12), 0.0, 1.0)
    distance = np.linalg.norm(mesh.points_mm - axis.apex_endo_mm - share[:, None] * towards, axis=1)
    column = np.flatnonzero(distance <= edge_mm)
    return np.union1d(column, [axis.apex_node]).astype(np.int64)


def wall(mesh: HeartMesh) -> Wall:
    """Solve the shared Laplace problems. Raises InputError if a surface is missing, RunFailed if a solve does not converge."""
    axis = long_axis(mesh)
    elements = Elements(mesh.points_mm, mesh.tets)
    laplace = elements.matrix()
    lv, epi, base = (mesh.surface_nodes(name) for name in ("lv_endo", "epi", "base"))
    apex = np.setdiff1d(_apex_nodes(mesh, axis, mean_edge_mm(elements)), base)
    zero = np.zeros(mesh.n_points)

    def marked(*groups: NDArray[np.integer]) -> NDArray[np.float64]:
        values = zero.copy()
        for nodes in groups:
            values[nodes] = 1.0
        return values

    apex_base = Dirichlet(laplace, np.concatenate([apex, base]), multigrid=True).solve(marked(base))
    if not has_rv(mesh):
        inner, outer = lv, np.setdiff1d(epi, lv)
        across = Dirichlet(laplace, np.concatenate([inner, outer])).solve(marked(outer))
        none = np.zeros(mesh.n_points, bool)
        depth = trajectory_fraction(elements, across, inner, outer)
        return Wall(elements, axis, apex, apex_base, 1.0 - across, zero, across, depth, none, np.zeros(0, bool))

    triangles = mesh.surfaces["rv_endo"]
    rv = mesh.surface_nodes("rv_endo")
    facing_lv = Dirichlet(laplace, np.concatenate([lv, epi])).solve(marked(lv))
    septal = facing_lv[triangles].mean(axis=1) > float(SEPTAL_THRESHOLD)
    free = np.unique(triangles[~septal])
    septum = np.setdiff1d(np.unique(triangles[septal]), free)
    inner = np.union1d(lv, free)
    outer = np.setdiff1d(np.union1d(epi, septum), inner)
    problem = Dirichlet(laplace, np.concatenate([inner, outer]))
    across, u_lv, u_rv = (problem.solve(marked(nodes)) for nodes in (outer, lv, np.setdiff1d(rv, lv)))
    side = Dirichlet(laplace, np.concatenate([lv, rv])).solve(marked(free))
    depth = trajectory_fraction(elements, across, inner, outer)
    return Wall(elements, axis, apex, apex_base, u_lv, u_rv, across, depth, side > 0.5, septal)


def turn(mesh: HeartMesh, fields: Wall, apicobasal: NDArray[np.float64]) -> Turn:
    """Find the zero of the rotational coordinate: the mid septum, between the RV insertions.

    Without an RV the zero is arbitrary: the patient's right and front, in which the septum of most hearts faces.
    """
    axis = fields.axis
    if not fields.septal.any():
        return _turn_towards(axis, np.array([-1.0, -1.0, 0.0]))
    triangles = mesh.surfaces["rv_endo"]
    corner = mesh.points_mm[triangles]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1) * fields.septal
    first = _turn_towards(axis, np.average(corner.mean(axis=1), axis=0, weights=area) - axis.apex_endo_mm)
    line = np.intersect1d(triangles[fields.septal], triangles[~fields.septal])
    level = apicobasal[line]
    line = line[(level > INSERTION_LEVELS[0]) & (level < INSERTION_LEVELS[1])]
    angles = first.plain(mesh.points_mm[line])
    if not (angles > 0).any() or not (angles < 0).any():
        return first
    anterior, inferior = float(np.median(angles[angles > 0])), float(np.median(angles[angles < 0]))
    middle = 0.5 * (anterior + inferior)
    shifted = _turn_towards(axis, np.cos(middle) * first.zero + np.sin(middle) * first.anterior)
    return Turn(axis, shifted.zero, shifted.anterior, (inferior - middle, anterior - middle))


def _turn_towards(axis: Axis, towards: NDArray[np.float64]) -> Turn:
    along = axis.direction
    zero = towards - (towards @ along) * along
    if np.linalg.norm(zero) <= 1e-6 * float(np.linalg.norm(towards)):
        zero = np.cross(along, [0.0, 0.0, 1.0]) if abs(along[2]) < 0.9 else np.cross(along, [1.0, 0.0, 0.0])
    zero = unit(zero)
    return Turn(axis, zero, np.cross(along, zero), None)


def coordinates(mesh: HeartMesh, fields: Wall | None = None) -> dict[str, NDArray[np.float64]]:
    """Ventricular coordinates of every node, each (n,) float64.

    apicobasal: 0 at the LV apex (the column of muscle between its two surfaces), 1 at the base, linear in the distance along the wall;
    transmural: 0 at the LV and RV free-wall endocardium, 1 at the epicardium and the RV's septal surface, linear in distance;
    rotational: radians in -pi..pi about the LV long axis, 0 at the mid septum, positive toward the anterior wall, RV insertions at
    +-pi/3, so the septum spans a third of the turn (without an RV: plain angle, zero where the patient's right and front lie: arbitrary);
    transventricular: 0 LV with the whole septum, 1 RV free wall.
    Raises InputError if a surface is missing, RunFailed if a solve does not converge.
    """
    fields = wall(mesh) if fields is None else fields
    base = mesh.surface_nodes("base")
    apicobasal = _along(mesh, fields, base)
    return {
        "apicobasal": apicobasal,
        "transmural": fields.transmural,
        "rotational": turn(mesh, fields, apicobasal).angle(mesh.points_mm),
        "transventricular": fields.right.astype(np.float64),
    }


def _along(mesh: HeartMesh, fields: Wall, base: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of the way from apex to base, (n,): of the mesh's own functions, or of a coarser grid's where the mesh is fine."""
    elements = fields.elements
    if mean_edge_mm(elements) < FINE_MM:
        # the mesh's own functions always serve, only later
        with suppress(RunFailed):
            return coarse_fraction(elements, Grid(mesh.points_mm), fields.apex_base, fields.apex_nodes, base)
    return trajectory_fraction(elements, fields.apex_base, fields.apex_nodes, base, multigrid=True)


def mean_edge_mm(elements: Elements) -> float:
    """Edge of the regular tetrahedron that has the mean volume, mm."""
    return float(np.cbrt(6.0 * np.sqrt(2.0) * elements.volume.mean()))


def nearest(points_mm: NDArray[np.float64], nodes: NDArray[np.integer], at_mm: NDArray[np.float64]) -> int:
    """Node of a set that lies nearest to a place (3,) mm."""
    return int(nodes[cKDTree(points_mm[nodes]).query(at_mm)[1]])
