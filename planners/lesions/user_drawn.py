"""Lesions that the physician drew: tested like any other set, never moved and never added to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planners.lesions.geometry import LesionMaker
from twin.errors import InputError
from twin.model import Twin
from twin.params import Param
from twin.plan import Circuit, PlanRequest, Target

FARTHEST = Param(15.0, "mm", 10.0, 20.0, "chosen here: a drawn lesion farther than this from its surface is a mistake of frame or units")


class UserDrawn:
    """The lesions of the case's `plan.drawn`."""

    name = "user_drawn"

    def available(self, twin: Twin, request: PlanRequest) -> str:
        """Needs drawn lesions."""
        return "" if request.drawn else "no lesions were drawn in the case"

    def propose(
        self, twin: Twin, circuits: Sequence[Circuit], request: PlanRequest, maker: LesionMaker, made: Sequence[Target]
    ) -> list[Target]:
        """One target per entry; nothing more once they are made. Raises InputError for lesions far from the heart."""
        if made:
            return []
        out = []
        for row in request.drawn:
            access = maker.access(row["surface"])
            away = access.distance_mm(np.asarray(row["positions"], float))
            if away.max() > float(FARTHEST):
                worst = row["positions"][int(away.argmax())]
                problem = f"{worst} lies {away.max():.0f} mm from {row['surface']}"
                raise InputError("plan", "drawn", problem, "draw on the surface named, in LPS mm of the segmentation")
            size = request.lesion_radius_mm, request.lesion_depth_mm
            out.append(Target("", row["positions"], row["surface"], *size, 0, "drawn by the physician", tuple(c.id for c in circuits)))
        return out
