"""Exit-site ablation: the tissue where each wave leaves its isthmus for healthy muscle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planners.lesions.geometry import LesionMaker
from planners.lesions.rows import cover
from twin.model import Twin
from twin.params import Param
from twin.plan import Circuit, PlanRequest, Target

AROUND = Param(
    8.0, "mm", 5.0, 10.0, "chosen here: exits are found within 9.6 +- 2.6 mm from an ECG (Monaci 2023; the paper itself not read)"
)


class ExitSite:
    """A patch of lesions over the exit of every circuit."""

    name = "exit_site"

    def available(self, twin: Twin, request: PlanRequest) -> str:
        """Always: every circuit has an exit."""
        return ""

    def propose(
        self, twin: Twin, circuits: Sequence[Circuit], request: PlanRequest, maker: LesionMaker, made: Sequence[Target]
    ) -> list[Target]:
        """One target per circuit and surface, exits that a patch made already covers left out."""
        out: list[Target] = []
        for circuit in circuits:
            near = np.linalg.norm(maker.centres_mm - np.asarray(circuit.exit_mm, float), axis=1) <= float(AROUND)
            out += cover(maker, near, request, [circuit], f"covers the exit of {circuit.id} within {AROUND.value:g} mm", [*made, *out])
        return out
