"""Runs one experiment of `vtwin simulate`: sets it up on its mesh, runs it by its method, writes, and compares with what was expected."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.experiment import Experiment, load_experiment
from solvers.scene import Scene, set_up
from solvers.sim_eikonal import run_eikonal, run_reentrant, write_signals
from solvers.sim_mesh import SimMesh, load_mesh
from solvers.sim_monodomain import CHECKPOINT_S, MonodomainRun, build
from solvers.sim_output import write_outputs
from twin.atomic import write_json
from twin.errors import InputError, RunFailed
from twin.experiment import Status

__all__ = ["Experiment", "Scene", "SimMesh", "estimate", "load_experiment", "load_mesh", "run_experiment", "set_up"]

Progress = Callable[[str, float], None]


def run_experiment(
    experiment: Experiment, out: Path, progress: Progress | None = None, checkpoint_s: float = CHECKPOINT_S
) -> dict[str, Any]:
    """Run into `out`: summary.json, activation.npz, and what [record] asks for; with branches each in branches/NAME.

    Goes on from the checkpoint of an unfinished run of the same experiment in `out`; the result is the same, bit by bit. Returns the
    summary: status, message, expect (each with what was found) and expect_met, mesh and solver numbers. progress receives what is being
    done and the fraction of it. Raises InputError before computing, RunFailed (after writing) if the solver diverged.
    """
    tell = progress or (lambda _what, _fraction: None)
    tell("mesh", 0.0)
    scene = set_up(experiment)
    weights = _lead_weights(experiment, scene)
    if experiment.method == "monodomain":
        solver, correction = build(experiment, scene, tell)
        summary = MonodomainRun(experiment, scene, solver, out, weights, tell, correction, checkpoint_s).run()
        if experiment.branches:
            write_json(out / "summary.json", summary)
    else:
        tell(experiment.method, 0.0)
        result = run_eikonal(experiment, scene) if experiment.method == "eikonal" else run_reentrant(experiment, scene)
        write_signals(experiment, scene, result, out, weights)
        summary = write_outputs(experiment, scene, result, result.activations.first_ms(len(scene.mesh.points_mm)), out)
    if summary["status"] == Status.DIVERGED.value:
        raise RunFailed(summary["message"])
    return summary


def estimate(experiment: Experiment) -> dict[str, Any]:
    """What would run, and about how long on this machine as it is now (a few steps are timed). Raises what a run would raise."""
    scene = set_up(experiment)
    _lead_weights(experiment, scene)
    found: dict[str, Any] = {"method": experiment.method, "points": len(scene.mesh.points_mm), "tets": len(scene.mesh.tets)}
    if experiment.method != "monodomain":
        return found | {"seconds": 1.0}
    solver, _ = build(experiment, scene, lambda _what, _fraction: None)
    # the first steps load compiled code
    solver.run([], 3 * solver.dt_ms)
    count, start = 10, time.perf_counter()
    solver.run([], (3 + count) * solver.dt_ms)
    step_s = (time.perf_counter() - start) / count
    steps = _steps(experiment, solver.dt_ms)
    return found | {
        "nodes": len(solver.nodes),
        "dt_ms": solver.dt_ms,
        "steps": steps,
        "seconds": steps * step_s,
        "bytes": {"frames": _frame_bytes(experiment, scene), "per_beat": 20 * len(solver.nodes)},
        "limits": solver.limits(),
    }


def _steps(experiment: Experiment, dt_ms: float) -> int:
    """Steps at most: the train once, then every branch to the end."""
    whole = round(experiment.duration_ms / dt_ms)
    if not experiment.branches:
        return whole
    trunk = min(experiment.stimuli[b.stimulus].start_ms[-1] for b in experiment.branches)
    shared = min(round(trunk / dt_ms), whole)
    return shared + len(experiment.branches) * (whole - shared)


def _frame_bytes(experiment: Experiment, scene: Scene) -> int:
    if experiment.frames_every_ms is None:
        return 0
    frames = int(experiment.duration_ms / experiment.frames_every_ms) + 1
    return 4 * len(scene.mesh.points_mm) * frames * max(1, len(experiment.branches))


def _lead_weights(experiment: Experiment, scene: Scene) -> dict[str, NDArray[np.float64]]:
    """Lead -> weights (n,) of nodal voltages: the twelve leads, or the potential of each given electrode."""
    if experiment.ecg is None:
        return {}
    from meshing.electrodes import ELECTRODES
    from solvers.ecg import LeadField
    from solvers.ecg.field import unipolar_weights
    from twin.patient import LEADS

    heart = scene.mesh.as_heart(scene.conducting)
    given = {name: np.asarray(place) for name, place in experiment.ecg.electrodes_mm.items()}
    try:
        if not given or set(given) >= set(ELECTRODES):
            return dict(zip(LEADS, LeadField(heart, given or None).weights.T, strict=True))
        return dict(zip(given, unipolar_weights(heart, np.stack(list(given.values()))), strict=True))
    except InputError as error:
        raise InputError(experiment.where, f"record.ecg: {error.field}", error.problem, error.remedy) from None
