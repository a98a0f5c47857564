"""Targets out of a covering: what strategies that ablate an area have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planners.lesions.cover import greedy_cover
from planners.lesions.geometry import LesionMaker
from twin.plan import Circuit, PlanRequest, Target

MOST = 200
LEAST_GAIN = 0.1
"""A lesion must still cover this share of its own volume of what is wanted to be worth making."""


def cover(
    maker: LesionMaker,
    wanted: NDArray[np.bool_],
    request: PlanRequest,
    circuits: Sequence[Circuit],
    why: str,
    made: Sequence[Target] = (),
    least_gain: float = LEAST_GAIN,
) -> list[Target]:
    """Targets, one per accessible surface, that cover the wanted tetrahedra (m,) as far as they can be reached."""
    wanted = wanted & maker.mesh.conducting() & ~maker.mask(made)
    surfaces = maker.surfaces(request.access)
    if not wanted.any() or not surfaces:
        return []
    radius, depth = request.lesion_radius_mm, request.lesion_depth_mm
    chosen, left = greedy_cover(maker, surfaces, wanted, radius, depth, least_gain=least_gain, most=MOST, apart_mm=2.0)
    missed = maker.volume_ml(left) / max(maker.volume_ml(wanted), 1e-9)
    reason = f"{why}; {100 * missed:.0f} % of it is out of reach of {depth:g} mm lesions"
    targets = []
    for access in surfaces:
        positions = [np.round(access.points_mm[index], 3).tolist() for owner, index in chosen if owner is access]
        if positions:
            targets.append(Target("", positions, access.name, radius, depth, 0, reason, tuple(c.id for c in circuits)))
    return targets
