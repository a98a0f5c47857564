"""Deceleration-zone ablation: places of isochronal late activation mapping where more than three of eight isochrones crowd within 1 cm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from planners.lesions.geometry import LesionMaker
from planners.lesions.rhythm import activation_ms, nodes_of
from planners.lesions.rows import cover
from twin.model import Twin
from twin.params import Param
from twin.plan import Circuit, PlanRequest, Target

_ILAM = "isochronal late-activation mapping: Aziz et al., Circulation 2019;140:1383 (from memory)"
ISOCHRONES = Param(8.0, "1", 8.0, 8.0, f"equal isochrones of the whole activation; {_ILAM}")
CROWDED = Param(3.0, "1", 3.0, 3.0, f"more than so many within 1 cm are a deceleration zone; {_ILAM}")
ACROSS = Param(10.0, "mm", 10.0, 10.0, _ILAM)


def zones(twin: Twin, surfaces: Sequence[str]) -> tuple[NDArray[np.int64], str]:
    """Nodes of the mapped surfaces, touching surviving tissue, that lie in a deceleration zone, and the rhythm."""
    mesh = twin.mesh
    time, rhythm = activation_ms(twin)
    sick = nodes_of(mesh, "border_zone", "isthmus")
    found: list[NDArray[np.int64]] = []
    for surface in surfaces:
        if not len(mesh.surfaces.get(surface, ())):
            continue
        nodes = mesh.surface_nodes(surface)
        nodes = nodes[np.isfinite(time[nodes])]
        if not len(nodes):
            continue
        span = max(float(np.ptp(time[nodes])), 1e-9)
        which = np.minimum(((time[nodes] - time[nodes].min()) / span * ISOCHRONES.value).astype(int), int(ISOCHRONES.value) - 1)
        tree = cKDTree(mesh.points_mm[nodes])
        mine = np.flatnonzero(sick[nodes])
        around = tree.query_ball_point(mesh.points_mm[nodes[mine]], ACROSS.value / 2)
        crowded = np.array([len(np.unique(which[k])) > CROWDED.value for k in around], bool)
        found.append(nodes[mine[crowded]].astype(np.int64) if len(mine) else np.zeros(0, np.int64))
    return (np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)), rhythm


class DecelerationZone:
    """Covers the conducting tissue within half a centimetre of every deceleration zone."""

    name = "deceleration_zone"

    def available(self, twin: Twin, request: PlanRequest) -> str:
        """Needs velocities, and a zone on a surface in reach."""
        if not twin.tissue.names:
            return "conduction velocities are not known"
        return "" if len(zones(twin, request.access)[0]) else "isochrones crowd nowhere on the surfaces in reach"

    def propose(
        self, twin: Twin, circuits: Sequence[Circuit], request: PlanRequest, maker: LesionMaker, made: Sequence[Target]
    ) -> list[Target]:
        """One target per accessible surface."""
        nodes, rhythm = zones(twin, request.access)
        if not len(nodes):
            return []
        near = np.asarray(cKDTree(twin.mesh.points_mm[nodes]).query(maker.centres_mm)[0]) <= ACROSS.value / 2
        return cover(maker, near, request, circuits, f"covers deceleration zones of {rhythm}", made)
