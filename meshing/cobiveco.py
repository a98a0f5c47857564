"""Symmetric and consistent ventricular coordinates after Cobiveco: each ventricle owns its half of the septum.

S. Schuler et al., "Cobiveco: consistent biventricular coordinates for precise and intuitive description of position in the heart",
Med Image Anal 74 (2021) 102247, doi 10.1016/j.media.2021.102247 (text and MATLAB code read). Built from the same parts (transventricular
Laplace, septal mid-surface, ridge, normalised trajectory distances), with three differences: the mid-surface and the ridge are not meshed
but carry boundary values by their distance to the nodes beside them; rotational trajectories follow the gradient of a Laplace solution
from ridge to ridge instead of grad tm x grad ab; the apicobasal coordinate is that of `meshing.coordinates` (trajectories of the
apex-base Laplace solution instead of contour lines).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meshing.coordinates import Wall, has_rv, turn, wall
from meshing.laplace import COUPLING, Dirichlet, Elements, trajectory_fraction, unit
from twin.errors import InputError
from twin.mesh import HeartMesh

FREE_SHARE = 2.0 / 3.0
"""Part of the rotational coordinate that the free wall takes (Schuler 2021)."""

Nodal = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class _Part:
    """Tetrahedra with a node of some region: nodes (k,) of the mesh, the elements on them, which of the nodes are `inside` the region."""

    nodes: NDArray[np.int64]
    elements: Elements
    inside: Mask

    def index(self, nodes: NDArray[np.integer]) -> NDArray[np.int64]:
        """Own numbers of those nodes of the mesh that lie in this part."""
        return np.flatnonzero(np.isin(self.nodes, nodes))


def _part(mesh: HeartMesh, region: Mask) -> _Part:
    tets = mesh.tets[region[mesh.tets].any(axis=1)]
    nodes, inverse = np.unique(tets, return_inverse=True)
    return _Part(nodes.astype(np.int64), Elements(mesh.points_mm[nodes], inverse.reshape(tets.shape).astype(np.int32)), region[nodes])


def _behind_mm(elements: Elements, field: Nodal, level: float) -> Nodal:
    """Distance (n,) mm, to first order, of nodes from the surface where a nodal field has a level."""
    slope = np.linalg.norm(elements.slope(field), axis=1)
    weight = np.bincount(elements.tets.ravel(), np.repeat(elements.volume, 4), minlength=elements.n)
    mean = np.bincount(elements.tets.ravel(), np.repeat(elements.volume * slope, 4), minlength=elements.n) / np.maximum(weight, 1e-300)
    return np.abs(field - level) / np.maximum(mean, 1e-3)


def _fraction(
    elements: Elements, field: Nodal, start: NDArray[np.int64], end: NDArray[np.int64], behind: Nodal, *, multigrid: bool = False
) -> Nodal:
    """As `trajectory_fraction`, with `start` and `end` nodes that lie `behind` (n,) mm beyond the surfaces meant."""
    direction = unit(elements.slope(field))
    matrix = elements.matrix(direction) + COUPLING * elements.matrix()
    load = elements.divergence_load(direction)
    from_start = Dirichlet(matrix, start, multigrid=multigrid).solve(-behind, load)
    from_end = Dirichlet(matrix, end, multigrid=multigrid).solve(-behind, -load)
    total = from_start + from_end
    return np.where(total > 1e-9, from_start / np.maximum(total, 1e-9), field)


def cobiveco(mesh: HeartMesh, fields: Wall | None = None) -> dict[str, Nodal]:
    """Coordinates of every node, each (n,) float64, under the same names as `meshing.coordinates.coordinates`.

    apicobasal: 0 apex, 1 base; transmural: 0 at the epicardium and the septal mid-surface, 1 at the endocardium of either ventricle;
    rotational: 2 pi rt in radians, -pi..pi, rt 0 at the posterior ridge, 2/3 at the anterior one through the free wall, back to 1 through
    the septum; transventricular: 0 LV with its half of the septum, 1 RV with its own.
    Raises InputError if a surface is missing or there is no RV, RunFailed if a solve does not converge.
    """
    if not has_rv(mesh):
        raise InputError("mesh", "surfaces/rv_endo", "is empty: these coordinates need both ventricles", "use meshing.coordinates")
    fields = wall(mesh) if fields is None else fields
    lv, rv, epi = (mesh.surface_nodes(name) for name in ("lv_endo", "rv_endo", "epi"))
    ones = np.zeros(mesh.n_points)
    ones[rv] = 1.0
    side = Dirichlet(fields.elements.matrix(), np.concatenate([lv, rv])).solve(ones)
    right = side >= 0.5
    apicobasal = trajectory_fraction(fields.elements, fields.apex_base, fields.apex_nodes, mesh.surface_nodes("base"), multigrid=True)
    transmural, ridge = np.zeros(mesh.n_points), np.zeros(mesh.n_points)
    for own, endo in ((~right, lv), (right, rv)):
        depth, wedge, part = _half(mesh, own, side, np.setdiff1d(endo, epi), epi)
        transmural[part.nodes[part.inside]] = depth[part.inside]
        ridge[part.nodes[part.inside]] = wedge[part.inside]
    rotation = _rotation(mesh, fields, apicobasal, right, ridge)
    angle = 2.0 * np.pi * rotation
    return {
        "apicobasal": apicobasal,
        "transmural": transmural,
        "rotational": np.arctan2(np.sin(angle), np.cos(angle)),
        "transventricular": right.astype(np.float64),
    }


def _half(mesh: HeartMesh, own: Mask, side: Nodal, endo: NDArray[np.integer], epi: NDArray[np.integer]) -> tuple[Nodal, Nodal, _Part]:
    """Depth and ridge field of one ventricle, on the nodes of its part."""
    part = _part(mesh, own)
    elements, beyond = part.elements, ~part.inside
    inner, outer = part.index(endo), part.index(epi)
    behind = np.where(beyond, _behind_mm(elements, side[part.nodes], 0.5), 0.0)
    behind[outer] = 0.0
    start = np.union1d(outer, np.flatnonzero(beyond))
    values = np.where(beyond, -np.abs(2.0 * side[part.nodes] - 1.0), 0.0)
    values[outer] = 0.0
    values[inner] = 1.0
    laplace = elements.matrix()
    field = Dirichlet(laplace, np.union1d(start, inner)).solve(values)
    depth = np.clip(_fraction(elements, field, start, inner, behind), 0.0, 1.0)
    wedge = Dirichlet(laplace, start).solve(np.where(beyond & ~np.isin(np.arange(elements.n), outer), 1.0, 0.0))
    return depth, wedge, part


def _rotation(mesh: HeartMesh, fields: Wall, apicobasal: Nodal, right: Mask, ridge: Nodal) -> Nodal:
    """rt (n,): from ridge to ridge through both free walls and the septum."""
    septal = ridge > 0.5
    front = turn(mesh, fields, apicobasal).angle(mesh.points_mm) > 0
    out = np.zeros(mesh.n_points)
    for region, low, high in ((septal, 1.0, FREE_SHARE), (~septal & ~right, 0.0, FREE_SHARE), (~septal & right, 0.0, FREE_SHARE)):
        part = _part(mesh, region)
        # nodes that are neither on the other side of the ridge nor of this region (the other free wall) bound nothing
        beyond = ~part.inside & (septal[part.nodes] != septal[part.nodes[part.inside][0]])
        posterior, anterior = (np.flatnonzero(beyond & (front[part.nodes] == way)) for way in (False, True))
        behind = np.where(beyond, _behind_mm(part.elements, ridge[part.nodes], 0.5), 0.0)
        values = np.zeros(part.elements.n)
        values[anterior] = 1.0
        field = Dirichlet(part.elements.matrix(), np.union1d(posterior, anterior), multigrid=True).solve(values)
        share = np.clip(_fraction(part.elements, field, posterior, anterior, behind, multigrid=True), 0.0, 1.0)
        out[part.nodes[part.inside]] = (low + (high - low) * share)[part.inside]
    return out
