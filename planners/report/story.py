"""What a report tells: the plan, the twin, and the waves that its pictures show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.calibration import Calibration
from twin.mesh import HeartMesh
from twin.plan import Plan

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Wave:
    """One activation to show: node_ms (n,) NaN where no wave came; a reentrant one repeats every `period_ms`."""

    title: str
    node_ms: Array
    period_ms: float | None = None


@dataclass(frozen=True)
class Story:
    """Everything that goes into `report.html`. `mesh` carries the lesions as region "lesion"."""

    plan: Plan
    mesh: HeartMesh
    calibration: Calibration
    waves: Sequence[Wave]
    vt_ecgs: Mapping[str, Array] = field(default_factory=dict)
    """Circuit -> two cycles of its simulated 12-lead ECG, (12, t) mV every `planners.circuits.likeness.STEP_MS`."""
    recorded: Sequence[Mapping[str, Any]] = ()
    """Recorded VTs: name, cycle_length_ms, cycle (12, k) or None."""
    virtual: Sequence[str] = ()
    """What in this case is not from a patient (anatomy, infarct, map ...)."""
    substrate: bytes | None = None
    """Picture (PNG) of scar and border zone by source and where the sources disagree; None where there is one source."""
