"""Scar dechannelling: the entrances of every channel through the scar are closed, whether or not a circuit used it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from planners.circuits.channels import between_scar, find_channels
from planners.lesions.geometry import LesionMaker
from planners.lesions.rows import cover
from twin.model import Twin
from twin.params import Param
from twin.plan import Circuit, PlanRequest, Target

PLUG = Param(6.0, "mm", 4.0, 8.0, "chosen here: one and a half lesion radii of a channel from its mouth inwards are ablated")


class Dechannelling:
    """Closes each open channel at all of its mouths."""

    name = "dechannelling"

    def available(self, twin: Twin, request: PlanRequest) -> str:
        """Needs conducting tissue between dense scar."""
        return "" if between_scar(twin.mesh).any() else "the scar has no channel"

    def propose(
        self, twin: Twin, circuits: Sequence[Circuit], request: PlanRequest, maker: LesionMaker, made: Sequence[Target]
    ) -> list[Target]:
        """One target per channel and surface."""
        out: list[Target] = []
        for channel in find_channels(twin.mesh, twin.tissue.velocities() if twin.tissue.names else {}):
            if not channel.open:
                continue
            mouths = maker.centres_mm[np.concatenate(channel.mouths)]
            away = np.asarray(cKDTree(mouths).query(maker.centres_mm[channel.tets])[0])
            plug = np.zeros(len(twin.mesh.tets), bool)
            plug[channel.tets[away <= float(PLUG)]] = True
            why = f"closes {len(channel.mouths)} mouths of a channel of {channel.length_mm:.0f} mm"
            out += cover(maker, plug, request, _through(twin, channel.tets, circuits), why, [*made, *out])
        return out


def _through(twin: Twin, tets: np.ndarray, circuits: Sequence[Circuit]) -> list[Circuit]:
    """Circuits whose isthmus's middle lies in these tetrahedra (within an edge or two)."""
    tree = cKDTree(twin.mesh.centroids_mm[tets])
    return [c for c in circuits if float(tree.query(np.asarray(c.isthmus_mm, float)[len(c.isthmus_mm) // 2])[0]) <= 5.0]
