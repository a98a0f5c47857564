"""Core isolation: a closed ring of lesions round the dense scar with its channels, so that nothing inside can drive the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from planners.circuits.channels import between_scar
from planners.lesions.border_homogenisation import scar_of
from planners.lesions.geometry import LesionMaker
from planners.lesions.rows import cover
from twin.model import Twin
from twin.plan import Circuit, PlanRequest, Target


class CoreIsolation:
    """Ablates the conducting rim of the core that the circuits use, one lesion radius wide."""

    name = "core_isolation"

    def available(self, twin: Twin, request: PlanRequest) -> str:
        """Needs dense scar."""
        return "" if twin.mesh.in_region("scar").any() else "the heart has no dense scar"

    def propose(
        self, twin: Twin, circuits: Sequence[Circuit], request: PlanRequest, maker: LesionMaker, made: Sequence[Target]
    ) -> list[Target]:
        """One target per accessible surface."""
        mesh = twin.mesh
        core = (mesh.in_region("scar") & scar_of(mesh, circuits)) | between_scar(mesh)
        alive = mesh.conducting() & ~core
        away = np.asarray(cKDTree(maker.centres_mm[core]).query(maker.centres_mm)[0])
        ring = alive & (away <= request.lesion_radius_mm)
        # a ring with a gap isolates nothing: the last corner is covered too
        return cover(maker, ring, request, circuits, "rings the dense scar with its channels", made, least_gain=1e-6)
