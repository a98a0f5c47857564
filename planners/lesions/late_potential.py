"""Late-potential ablation: surviving tissue of the scar that is activated after the end of the QRS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planners.lesions.geometry import LesionMaker
from planners.lesions.rhythm import activation_ms, nodes_of
from planners.lesions.rows import cover
from twin.model import Twin
from twin.params import Param
from twin.plan import Circuit, PlanRequest, Target

QRS_SHARE = Param(0.99, "1", 0.95, 1.0, "chosen here: the QRS ends when this share of healthy muscle has been activated")


def late(twin: Twin) -> tuple[NDArray[np.bool_], float, str]:
    """Surviving tetrahedra of the scar activated after the QRS, (m,) bool, its end in ms, and the rhythm."""
    mesh = twin.mesh
    time, rhythm = activation_ms(twin)
    end = float(np.nanquantile(time[nodes_of(mesh, "healthy")], float(QRS_SHARE)))
    after = np.nan_to_num(time[mesh.tets], nan=-1.0).mean(axis=1) > end
    return after & mesh.in_region("border_zone", "isthmus"), end, rhythm


class LatePotential:
    """Covers all late tissue that can be reached."""

    name = "late_potential"

    def available(self, twin: Twin, request: PlanRequest) -> str:
        """Needs velocities, and tissue that is late."""
        if not twin.tissue.names:
            return "conduction velocities are not known"
        return "" if late(twin)[0].any() else "no surviving tissue of the scar is activated after the QRS"

    def propose(
        self, twin: Twin, circuits: Sequence[Circuit], request: PlanRequest, maker: LesionMaker, made: Sequence[Target]
    ) -> list[Target]:
        """One target per accessible surface."""
        wanted, end, rhythm = late(twin)
        return cover(maker, wanted, request, circuits, f"covers tissue activated after the QRS ({end:.0f} ms, {rhythm})", made)
