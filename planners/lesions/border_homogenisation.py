"""Scar homogenisation: all surviving tissue in and around the scar that carries the circuits is covered by a grid of lesions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from planners.circuits.sections import face_pairs
from planners.lesions.geometry import LesionMaker
from planners.lesions.rows import cover
from twin.mesh import HeartMesh
from twin.model import Twin
from twin.plan import Circuit, PlanRequest, Target


class BorderHomogenisation:
    """Covers the border zone and the channels of every scar region that a circuit uses."""

    name = "border_homogenisation"

    def available(self, twin: Twin, request: PlanRequest) -> str:
        """Needs surviving tissue in a scar."""
        return "" if twin.mesh.in_region("border_zone", "isthmus").any() else "the heart has no border zone or isthmus"

    def propose(
        self, twin: Twin, circuits: Sequence[Circuit], request: PlanRequest, maker: LesionMaker, made: Sequence[Target]
    ) -> list[Target]:
        """One target per accessible surface."""
        wanted = scar_of(twin.mesh, circuits) & twin.mesh.in_region("border_zone", "isthmus") & ~maker.mask(made)
        return cover(maker, wanted, request, circuits, "covers the surviving tissue of the scar")


def scar_of(mesh: HeartMesh, circuits: Sequence[Circuit]) -> NDArray[np.bool_]:
    """Connected scar regions (scar, border zone, isthmus) that the isthmuses run through, (m,) bool; all if there are no circuits."""
    sick = mesh.in_region("scar", "border_zone", "isthmus")
    if not circuits or not sick.any():
        return sick
    ids = np.flatnonzero(sick)
    pairs = face_pairs(mesh.tets[ids])
    graph = sp.coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(ids), len(ids)))
    _, label = connected_components(graph, directed=False)
    axis = np.concatenate([np.asarray(c.isthmus_mm, float) for c in circuits])
    nearest = np.asarray(cKDTree(mesh.centroids_mm[ids]).query(axis)[1])
    out = np.zeros(len(mesh.tets), bool)
    out[ids[np.isin(label, label[nearest])]] = True
    return out
