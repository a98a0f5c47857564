"""The waves that a report shows: the VT as it circles, and the same stimulation after the lesions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from planners.calibration import Calibration
from planners.circuits.episode import Episode
from planners.lesions.result import LesionPlan
from planners.pacing.induce import PacingSettings, model_of, stimuli_ms, stimulus_sites
from planners.pacing.protocol import load_protocol
from planners.report.story import Wave
from twin.experiment import Activations
from twin.plan import PlanRequest

Array = NDArray[np.float64]


def last_cycle(log: Activations, n_points: int, cycle_ms: float) -> Array:
    """Time of each node within the last full cycle of a log, (n,) ms from 0, NaN where no wave came."""
    end = float(log.activation_ms.max())
    inside = log.activation_ms > end - cycle_ms
    times = np.full(n_points, np.nan)
    times[log.node[inside]] = log.activation_ms[inside] - (end - cycle_ms)
    return times


def same_beat_after(calibration: Calibration, episode: Episode, plan: LesionPlan, request: PlanRequest, settings: PacingSettings) -> Array:
    """First activation after the last extrastimulus of an induction, repeated in the treated heart, (n,) ms, NaN where none."""
    protocol = load_protocol(request.protocol)
    nodes = stimulus_sites(calibration.twin, protocol, [episode.site])[episode.site]
    model = model_of(calibration.twin, settings, blocked=plan.blocked)
    times = stimuli_ms(protocol, episode)
    last = times[-1]
    _, log = model.run(model.rest(), [(t, nodes) for t in times], last + 600.0)
    late = log.activations.activation_ms >= last - 1e-6
    kept = Activations(log.activations.node[late], log.activations.activation_ms[late] - last, log.activations.recovery_ms[late])
    return kept.first_ms(calibration.twin.mesh.n_points)


def waves(
    calibration: Calibration, episodes: Mapping[str, Episode], plan: LesionPlan, request: PlanRequest, settings: PacingSettings
) -> list[Wave]:
    """One wave per distinct circuit before, the first stimulation again after the lesions, and the recorded rhythm."""
    n = calibration.twin.mesh.n_points
    shown = [
        Wave(f"{name} induced from {e.site}, before ablation", last_cycle(e.log, n, e.cycle_length_ms), e.cycle_length_ms)
        for name, e in episodes.items()
    ]
    first = next(iter(episodes.values()), None)
    if first is not None and plan.targets:
        times = same_beat_after(calibration, first, plan, request, settings)
        shown.append(Wave(f"Same stimulation from {first.site} after ablation", times))
    rhythm = calibration.arrival_ms - float(np.nanmin(calibration.arrival_ms))
    shown.append(Wave("Recorded rhythm, as the twin has it", np.where(np.isfinite(rhythm), rhythm, np.nan)))
    return shown
