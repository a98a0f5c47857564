"""The waves and the ECG that a report shows: the VT as it circles, and the same stimulation after the lesions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from meshing.electrodes import electrodes
from planners.calibration import Calibration
from planners.circuits.episode import Episode
from planners.lesions.result import LesionPlan
from planners.pacing.induce import PacingSettings, model_of, stimulus_sites
from planners.pacing.protocol import load_protocol
from planners.report.story import Wave
from solvers.ecg import LeadField
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
    drive = next(d for d in protocol.drives if d.cycle_ms == episode.cycle_ms)
    beats = [k * drive.cycle_ms for k in range(drive.computed_beats)]
    last = beats[-1]
    times = list(beats)
    for coupling in episode.coupling_ms:
        last += coupling
        times.append(last)
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


def vt_ecg(calibration: Calibration, episode: Episode) -> tuple[Array, Array]:
    """Simulated ECG over two cycles of a VT: time (t,) ms, leads (12, t) mV; beats add up, since the volume conductor is linear."""
    mesh = calibration.twin.mesh
    field = LeadField(mesh, electrodes(mesh))
    end = float(episode.log.activation_ms.max())
    time = np.arange(end - 2.0 * episode.cycle_length_ms, end, 2.0)
    total = np.zeros((12, len(time)))
    order = np.argsort(episode.log.activation_ms, kind="stable")
    node, at, off = (values[order] for values in (episode.log.node, episode.log.activation_ms, episode.log.recovery_ms))
    rank = np.zeros(len(node), np.int64)
    count = np.zeros(mesh.n_points, np.int64)
    for i, n in enumerate(node):
        rank[i] = count[n]
        count[n] += 1
    for beat in range(int(rank.max()) + 1):
        mine = rank == beat
        arrival, apd = np.full(mesh.n_points, np.inf), np.zeros(mesh.n_points)
        arrival[node[mine]] = at[mine]
        apd[node[mine]] = off[mine] - at[mine]
        total += field.qrst(arrival, apd, time)
    return time - time[0], total - total.mean(axis=1, keepdims=True)
