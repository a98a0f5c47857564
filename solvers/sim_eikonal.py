"""Experiments by wavefronts: first arrival (`eikonal`) and many beats (`reentrant_eikonal`), with the outputs of the monodomain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.experiment import Experiment
from solvers.scene import Scene
from solvers.sim_output import probe_places
from twin.errors import InputError
from twin.experiment import Activations, Result, Status
from twin.mesh import REGIONS, HeartMesh
from twin.tissue import Velocity


def run_eikonal(experiment: Experiment, scene: Scene) -> Result:
    """First arrival of one wave; recovery by the shipped restitution tables after a long rest."""
    from solvers import eikonal

    if any(len(s.start_ms) > 1 for s in scene.stimuli):
        remedy = 'remove count, extra and burst, or use method = "reentrant_eikonal" or "monodomain"'
        raise InputError(experiment.where, "stimulus", "the eikonal method knows one wave, not a train", remedy)
    mesh = scene.mesh
    speeds = [np.array([getattr(t, name) for t in experiment.tissue], float)[scene.tissue] for name in ("speed_l_m_s", "speed_t_m_s")]
    sources = np.concatenate([s.nodes for s in scene.stimuli])
    times = np.concatenate([np.full(len(s.nodes), s.start_ms[0]) for s in scene.stimuli])
    arrival = eikonal.solve(mesh.points_mm, mesh.tets, mesh.fibre, speeds[0], speeds[1], sources, times, scene.conducting)
    node = np.flatnonzero(np.isfinite(arrival) & (arrival <= experiment.duration_ms)).astype(np.int32)
    node = node[np.argsort(arrival[node], kind="stable")]
    when = arrival[node]
    recovery = when + float(eikonal.load_tables()["healthy"].apd_ms[-1])
    beats = Activations(node, when, np.where(recovery <= experiment.duration_ms, recovery, np.nan))
    used = len(np.unique(mesh.tets[scene.conducting]))
    summary = {"nodes": used, "nodes_excluded": len(mesh.points_mm) - used, "scheme": "eikonal", "end_ms": experiment.duration_ms}
    message = f"{len(node)} of {used} nodes reached within {experiment.duration_ms:g} ms"
    return Result(Status.DONE, message, beats, np.zeros(0), np.zeros((0, 0)), summary)


def run_reentrant(experiment: Experiment, scene: Scene) -> Result:
    """Trains, block and re-entry by the re-excitable eikonal; regions by vtwin's names, tables the shipped ones."""
    from solvers.eikonal import ReentrantEikonal, Sustained, load_tables

    heart = scene.mesh.as_heart(scene.conducting)
    model = ReentrantEikonal(heart, _velocities(experiment, scene, heart), load_tables())
    stimuli = [(start, s.nodes) for s in scene.stimuli for start in s.start_ms if start <= experiment.duration_ms]
    stop = None if experiment.reentry_cycles is None else Sustained(experiment.reentry_cycles)
    state, log = model.run(model.rest(), stimuli, experiment.duration_ms, stop)
    beats = log.activations
    late = beats.recovery_ms > state.now_ms
    beats = replace(beats, recovery_ms=np.where(late, np.nan, beats.recovery_ms))
    captured = [count > 0 for count in log.captured]
    used = len(np.unique(heart.tets[heart.conducting()]))
    summary = {
        "nodes": used,
        "nodes_excluded": heart.n_points - used,
        "scheme": "reentrant_eikonal",
        "end_ms": state.now_ms,
        "captured": captured,
        "beats": len(beats.node),
        "blocked": log.blocked,
        "waited": log.waited,
        "stop": {},
    }
    status, message = Status.DONE, f"reached {experiment.duration_ms:g} ms"
    if log.sustained:
        status, message = (
            Status.STOPPED,
            f"re-entry: {experiment.reentry_cycles} laps of {log.cycle_length_ms:.1f} ms at node {log.lap_node}",
        )
        summary["stop"] = {"reason": "reentry", "node": log.lap_node, "cycle_length_ms": log.cycle_length_ms}
    elif captured and not any(captured):
        status, message = Status.NO_CAPTURE, "no pulse excited a node; pace later, or other tissue"
        summary["stop"] = {"reason": "no_capture", "pulses": len(captured)}
    elif log.quiet and experiment.quiet_ms is not None:
        status, message = Status.STOPPED, "quiet: nothing is left to happen"
        summary["stop"] = {"reason": "quiet"}
    return Result(status, message, beats, np.zeros(0), np.zeros((0, 0)), summary)


def _velocities(experiment: Experiment, scene: Scene, heart: HeartMesh) -> dict[str, Velocity]:
    """Velocity of each region that the heart has. Raises InputError where one region has two tissues."""
    out = {}
    conducting = heart.conducting()
    for name, number in REGIONS.items():
        tissues = np.unique(scene.tissue[(heart.region == number) & conducting])
        if len(tissues) > 1:
            problem = f"region {name} is made of {len(tissues)} tissues"
            raise InputError(experiment.where, "tissue.region", problem, "the re-excitable eikonal has one velocity per region")
        if len(tissues):
            t = experiment.tissue[int(tissues[0])]
            assert t.speed_l_m_s is not None
            assert t.speed_t_m_s is not None
            out[name] = Velocity(t.speed_l_m_s, t.speed_t_m_s)
    return out


def write_signals(experiment: Experiment, scene: Scene, result: Result, out: Path, weights: dict[str, NDArray[np.float64]]) -> None:
    """probes.csv and ecg.csv from voltages shaped by the cell model's action potential (reaction-eikonal)."""
    from solvers.eikonal.reaction import ReactionEikonal, action_potential
    from solvers.ionic import ionic_model
    from solvers.monodomain.record import EcgFile, ProbeFile

    places = probe_places(experiment)
    if not places and not weights:
        return
    heart = scene.mesh.as_heart(scene.conducting)
    # the wavefront methods know no cells: one action potential, stretched to each beat's duration, serves every region
    course = action_potential(ionic_model("ten_tusscher_panfilov_2006"))
    reaction = ReactionEikonal(heart, {"healthy": course, "border_zone": course})
    rows = np.array([scene.nearest.node(p)[0] for p in places], np.int64)
    end_ms = float(result.summary["end_ms"])
    files: list[ProbeFile | EcgFile] = []
    if places:
        files.append(ProbeFile(out / "probes.csv", rows, experiment.probe_every_ms))
    if weights and experiment.ecg is not None:
        files.append(EcgFile(out / "ecg.csv", weights, experiment.ecg.every_ms))
    for file in files:
        times: NDArray[np.float64] = np.arange(int(end_ms / file.every_ms + 1e-9) + 1, dtype=np.float64) * file.every_ms
        for time_ms, v in reaction.frames(result.activations, times):
            file.see(time_ms, np.nan_to_num(v))
        file.close()
