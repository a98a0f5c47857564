"""One question for a solver, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Status(Enum):
    """How a simulation ended; the value is what to tell the user."""

    DONE = "done"
    STOPPED = "stopped"
    NO_CAPTURE = "no_capture"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Stimulus:
    """Current injected at nodes. start_ms holds every pulse of a train; duration and strength are those of the published slab benchmark
    (Niederer et al., Philos Trans A 2011;369:4331).
    """

    nodes: NDArray[np.int32]
    start_ms: tuple[float, ...]
    duration_ms: float = 2.0
    strength_uA_mm3: float = 50.0
    name: str = "stimulus"


@dataclass(frozen=True)
class Activations:
    """Every activation in time order: node (k,) int32, activation_ms (k,), recovery_ms (k,) NaN while still active."""

    node: NDArray[np.int32]
    activation_ms: NDArray[np.float64]
    recovery_ms: NDArray[np.float64]
    parent: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """Index into these arrays of the activation that caused each one (-1: stimulus); empty where the method does not know."""

    def first_ms(self, n_points: int) -> NDArray[np.float64]:
        """First activation of every node, (n,) ms, NaN where never activated."""
        first = np.full(n_points, np.inf)
        np.minimum.at(first, self.node, self.activation_ms)
        return np.where(np.isfinite(first), first, np.nan)


@dataclass(frozen=True)
class Result:
    """Answer of a solver: status, advice, activations, probe traces and numbers about the run itself."""

    status: Status
    message: str
    activations: Activations
    probes_time_ms: NDArray[np.float64]
    probes_mv: NDArray[np.float64]
    summary: Mapping[str, Any] = field(default_factory=dict)
