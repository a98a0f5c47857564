"""A recorded VT of a virtual patient: the tachycardia of one true isthmus on the surface ECG, with noise, as a monitor would keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meshing.anatomy import complete
from meshing.electrodes import electrodes
from meshing.mesh_labels import mesh_heart
from planners.circuits import Reentry, collect
from planners.circuits.likeness import STEP_MS, ecg_of
from planners.circuits.loop import typical_cycle_ms
from planners.pacing.induce import PacingSettings, induce, model_of, stimuli_ms, stimulus_sites
from planners.pacing.protocol import load_protocol
from planners.virtual.measure import TORSO_GAIN, Array, MeasureSpec, electrode_noise
from solvers.ecg import LeadField
from twin.errors import RunFailed
from twin.model import Twin
from twin.patient import LEADS, Ecg
from twin.tissue import Tissue, Velocity
from twin.volume import LabelVolume

SETTLE_CYCLES, RECORDED_CYCLES = 6, 5


@dataclass(frozen=True)
class RecordedVtSpec:
    """isthmus: number of the true isthmus whose tachycardia is recorded; sites: paced in this order until it is induced; edge_mm of the
    mesh (of the truth: the plan makes its own).
    """

    isthmus: int = 0
    sites: Sequence[str] = ("rv_apex", "rv_outflow")
    edge_mm: float = 2.2


def recorded_vt(
    volume: LabelVolume, isthmuses: Sequence[Mapping[str, Any]], measured: MeasureSpec, spec: RecordedVtSpec, rng: np.random.Generator
) -> tuple[Ecg, dict[str, Any]]:
    """Induce the tachycardia with the true velocities, let it settle and record it; returns the ECG (500 Hz) and the truth about it.

    Raises RunFailed if no site induces a tachycardia through that isthmus.
    """
    mesh = complete(mesh_heart(volume, spec.edge_mm))
    speeds = {"healthy": Velocity(*measured.healthy_m_s), "border_zone": Velocity(*measured.border_zone_m_s)}
    twin = Twin(mesh, Tissue.known(speeds), np.eye(4))
    lines = [np.asarray(i["polyline_mm"], float) for i in isthmuses]
    protocol = load_protocol("quick")
    seen = []
    model = model_of(twin, PacingSettings())
    for site in spec.sites:
        run = induce(twin, protocol, [site])
        found = collect(Reentry.of(mesh), run.inductions, run.episodes)
        nodes = stimulus_sites(twin, protocol, [site])[site]
        for circuit in found.circuits:
            away = [float(np.linalg.norm(other - np.asarray(circuit.centre_mm), axis=1).min()) for other in lines]
            nearest, episode = int(np.argmin(away)), found.episodes[circuit.id]
            seen.append(f"{site}: {circuit.cycle_length_ms:.0f} ms through isthmus {nearest}")
            if nearest != spec.isthmus:
                continue
            times, lap = stimuli_ms(protocol, episode), episode.cycle_length_ms
            end = times[-1] + (SETTLE_CYCLES + RECORDED_CYCLES) * lap
            state, _ = model.run(model.rest(), [(t, nodes) for t in times], end - (RECORDED_CYCLES + 2) * lap)
            _, log = model.run(state, [], end)
            cycle = typical_cycle_ms(log.activations)
            if cycle is None or log.activations.activation_ms.max() < end - lap:
                seen[-1] += " that ended by itself"
                continue
            leads = ecg_of(LeadField(mesh, electrodes(mesh)), log.activations, end - RECORDED_CYCLES * lap, end)
            truth = {"isthmus": spec.isthmus, "site": site, "coupling_ms": list(episode.coupling_ms), "cycle_length_ms": round(cycle, 2)}
            return _noisy(leads, measured, rng), truth
    raise RunFailed(f"no site induced a tachycardia through isthmus {spec.isthmus} ({'; '.join(seen) or 'nothing was induced'})")


def _noisy(leads: Array, measured: MeasureSpec, rng: np.random.Generator) -> Ecg:
    time = STEP_MS * np.arange(leads.shape[1], dtype=np.float64)
    out = np.asarray(TORSO_GAIN.value * leads, np.float64) + electrode_noise(time, measured, rng)
    return Ecg({name: np.round(out[k], 4) for k, name in enumerate(LEADS)}, fs_hz=1000.0 / STEP_MS, rhythm="vt")
