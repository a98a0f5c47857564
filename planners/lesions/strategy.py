"""What a lesion strategy is, and the registry of those that exist: one file each."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from planners.lesions.geometry import LesionMaker
from twin.errors import InputError
from twin.model import Twin
from twin.plan import Circuit, PlanRequest, Target

REGISTRY = {
    "isthmus_transection": "planners.lesions.isthmus_transection:IsthmusTransection",
    "border_homogenisation": "planners.lesions.border_homogenisation:BorderHomogenisation",
    "exit_site": "planners.lesions.exit_site:ExitSite",
    "dechannelling": "planners.lesions.dechannelling:Dechannelling",
    "core_isolation": "planners.lesions.core_isolation:CoreIsolation",
    "late_potential": "planners.lesions.late_potential:LatePotential",
    "deceleration_zone": "planners.lesions.deceleration_zone:DecelerationZone",
    "user_drawn": "planners.lesions.user_drawn:UserDrawn",
}


class Strategy(Protocol):
    """Proposes lesions for the circuits that were found; whether they suffice is for the re-test to say."""

    name: str

    def available(self, twin: Twin, request: PlanRequest) -> str:
        """Why this strategy cannot be used for this heart, empty if it can."""
        ...

    def propose(
        self, twin: Twin, circuits: Sequence[Circuit], request: PlanRequest, maker: LesionMaker, made: Sequence[Target]
    ) -> list[Target]:
        """Targets in addition to those already made; empty if this strategy has nothing to offer."""
        ...


def strategy(name: str) -> Strategy:
    """The strategy of that name; an unknown one raises InputError with the nearest name."""
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError("plan", "strategies", f"unknown strategy {name!r}", f"{hint}known are {', '.join(REGISTRY)}")
    module, kind = REGISTRY[name].split(":")
    return getattr(import_module(module), kind)()
