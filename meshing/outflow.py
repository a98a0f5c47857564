"""Fibres with outflow tracts: longitudinal directions that run to each valve, and other angles towards the great arteries.

R. Doste et al., "A rule-based method to model myocardial fiber orientation in cardiac biventricular geometries with outflow tracts",
Int J Numer Meth Biomed Eng 35 (2019) e3185, doi 10.1002/cnm.3185. Frames are blended as in `meshing.fibres`: depth is a distance, and the
septum has no jump; angles and weights are those of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from meshing.coordinates import Wall, rim, wall
from meshing.fibres import Rule, turned_frames
from meshing.laplace import Dirichlet, unit
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.params import Param

_DOSTE = "Doste 2019, doi 10.1002/cnm.3185: as set in the authors' and others' programs (signs of this one; second-hand)"
LV_ENDO_DEG = Param(60.0, "deg", 40.0, 80.0, _DOSTE)
LV_EPI_DEG = Param(-60.0, "deg", -80.0, -40.0, _DOSTE)
RV_ENDO_DEG = Param(90.0, "deg", 60.0, 90.0, _DOSTE)
RV_EPI_DEG = Param(-25.0, "deg", -45.0, 0.0, _DOSTE)
OUTFLOW_ENDO_DEG = Param(90.0, "deg", 60.0, 90.0, _DOSTE)
OUTFLOW_EPI_DEG = Param(0.0, "deg", -30.0, 30.0, _DOSTE)
BETA_DEG = Param(0.0, "deg", -20.0, 20.0, f"{_DOSTE}; the paper also shows +-20 degrees")

VALVES = ("mitral", "aortic", "tricuspid", "pulmonary")


@dataclass(frozen=True)
class DosteAngles:
    """Helix angles of walls and outflow tracts, and the sheet angle, degrees."""

    lv_endo_deg: float = float(LV_ENDO_DEG)
    lv_epi_deg: float = float(LV_EPI_DEG)
    rv_endo_deg: float = float(RV_ENDO_DEG)
    rv_epi_deg: float = float(RV_EPI_DEG)
    outflow_endo_deg: float = float(OUTFLOW_ENDO_DEG)
    outflow_epi_deg: float = float(OUTFLOW_EPI_DEG)
    beta_endo_deg: float = float(BETA_DEG)
    beta_epi_deg: float = float(BETA_DEG)


def valves_of(mesh: HeartMesh, near_mm: Mapping[str, NDArray[np.float64]] | None = None) -> dict[str, NDArray[np.int64]]:
    """Nodes of the base that belong to each valve: mitral, aortic, tricuspid, pulmonary; those that can be told apart.

    near_mm: centres (3,) mm of valves; each base node goes to the nearest of its own ventricle. Without them, an endocardium with two
    open edges has two valves, the larger one for inflow; one with a single edge gets its inflow valve alone.
    Raises InputError for an unknown valve or one that no base node is nearest to.
    """
    base = mesh.surface_nodes("base")
    if not len(base):
        raise InputError("mesh", "surfaces/base", "is empty: there are no valves", "cut the labels at the valve planes")
    unknown = set(near_mm or {}) - set(VALVES)
    if unknown:
        raise InputError("valves", min(unknown), "is no valve", f"use {', '.join(VALVES)}")
    centres = _edges(mesh) if near_mm is None else {name: np.asarray(place, float) for name, place in near_mm.items()}
    rv = mesh.surface_nodes("rv_endo") if len(mesh.surfaces.get("rv_endo", ())) else np.zeros(0, np.int32)
    out: dict[str, NDArray[np.int64]] = {}
    to_lv = cKDTree(mesh.points_mm[mesh.surface_nodes("lv_endo")]).query(mesh.points_mm[base])[0]
    to_rv = cKDTree(mesh.points_mm[rv]).query(mesh.points_mm[base])[0] if len(rv) else np.full(len(base), np.inf)
    for names, mine in ((VALVES[:2], base[to_lv <= to_rv]), (VALVES[2:], base[to_lv > to_rv])):
        known = [name for name in names if name in centres]
        if known and len(mine):
            which = np.argmin([np.linalg.norm(mesh.points_mm[mine] - centres[name], axis=1) for name in known], axis=0)
            out |= {name: mine[which == i].astype(np.int64) for i, name in enumerate(known)}
    for name in centres:
        if not len(out.get(name, ())):
            raise InputError("valves", name, "no part of the base is near it", "check the place, in LPS mm")
    return out


def _edges(mesh: HeartMesh) -> dict[str, NDArray[np.float64]]:
    """Centres of the open edges of both endocardia, named by ventricle and size."""
    out = {}
    for surface, names in (("lv_endo", VALVES[:2]), ("rv_endo", VALVES[2:])):
        edges = (
            rim(mesh.surfaces.get(surface, np.zeros((0, 3), np.int32))) if len(mesh.surfaces.get(surface, ())) else np.zeros((0, 2), int)
        )
        if not len(edges):
            continue
        graph = sp.coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(mesh.n_points, mesh.n_points))
        label = connected_components(graph, directed=False)[1][edges[:, 0]]
        length = np.linalg.norm(mesh.points_mm[edges[:, 0]] - mesh.points_mm[edges[:, 1]], axis=1)
        loops = sorted(np.unique(label), key=lambda k: -float(length[label == k].sum()))
        whole = float(length[label == loops[0]].sum())
        for name, loop in zip(names, loops, strict=False):
            if length[label == loop].sum() > 0.3 * whole:  # smaller ones are flaws of the rim, not valves
                out[name] = mesh.points_mm[np.unique(edges[label == loop])].mean(axis=0)
    return out


def doste_fibres(
    mesh: HeartMesh, valves: Mapping[str, NDArray[np.int64]], angles: DosteAngles | None = None, fields: Wall | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fibre and sheet unit vectors of every tetrahedron, each (m, 3) float64, orthogonal to each other.

    valves: nodes of each, from `valves_of`; a ventricle without an outflow valve follows the angles of its wall up to the base.
    Helix angles are measured as in `meshing.fibres.fibres`, against the direction that blends apex-to-inflow and apex-to-outflow.
    Raises InputError if no inflow valve or a surface is missing, RunFailed if a solve does not converge.
    """
    fields = wall(mesh) if fields is None else fields
    angles = DosteAngles() if angles is None else angles
    if not any(len(valves.get(name, ())) for name in ("mitral", "tricuspid")):
        raise InputError("valves", "mitral", "and tricuspid are missing", "name at least one inflow valve")
    elements = fields.elements
    up_lv, in_lv = _longitudinal(fields, valves, "mitral", "aortic")
    up_rv, in_rv = _longitudinal(fields, valves, "tricuspid", "pulmonary")
    u_lv, u_rv = elements.mean(fields.lv), elements.mean(fields.rv)
    share = np.where(fields.right[mesh.tets].mean(axis=1) > 0.5, 1.0, np.clip(u_rv / np.maximum(u_lv + u_rv, 1e-12), 0.0, 1.0))
    upward = unit(up_lv * (1.0 - share)[:, None] + up_rv * share[:, None])
    a = angles
    helix = Rule(
        a.lv_endo_deg * in_lv + a.outflow_endo_deg * (1.0 - in_lv),
        a.lv_epi_deg * in_lv + a.outflow_epi_deg * (1.0 - in_lv),
        a.rv_endo_deg * in_rv + a.outflow_endo_deg * (1.0 - in_rv),
        a.rv_epi_deg * in_rv + a.outflow_epi_deg * (1.0 - in_rv),
    )
    return turned_frames(mesh, fields, upward, helix, Rule.same(a.beta_endo_deg, a.beta_epi_deg))


def _longitudinal(
    fields: Wall, valves: Mapping[str, NDArray[np.int64]], inflow: str, outflow: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Direction (m, 3) from the apex to a ventricle's valves, and weight (m,) of the inflow: 1 there and at the apex, 0 at the outflow."""
    elements = fields.elements
    m = len(elements.tets)
    inward, outward = (np.asarray(valves.get(name, np.zeros(0)), np.int64) for name in (inflow, outflow))
    if not len(outward) or not len(inward):
        return unit(elements.slope(fields.apex_base)), np.ones(m)
    laplace = elements.matrix()
    apex = fields.apex_nodes

    def rise(nodes: NDArray[np.int64], fixed: NDArray[np.int64]) -> NDArray[np.float64]:
        values = np.zeros(elements.n)
        values[nodes] = 1.0
        return Dirichlet(laplace, np.concatenate([nodes, fixed]), multigrid=True).solve(values)

    to_in, to_out = unit(elements.slope(rise(inward, apex))), unit(elements.slope(rise(outward, apex)))
    weight = np.clip(elements.mean(rise(np.concatenate([inward, apex]), outward)), 0.0, 1.0)
    return unit(to_in * weight[:, None] + to_out * (1.0 - weight)[:, None]), weight
