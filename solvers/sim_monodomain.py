"""Monodomain experiments: the solver of an experiment, its files, checkpoints, and branches that grow from one drive train."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.experiment import Branch, Experiment
from solvers.monodomain import excitability, wave_fit
from solvers.monodomain.correction import Correction, correct, diffusion_of_speed_mm2_ms, find_lattice
from solvers.monodomain.fibrosis import FibroticCells
from solvers.monodomain.record import EcgFile, FileObserver, Frames, ProbeFile
from solvers.monodomain.solver import STABLE_SHARE, CellState, Monodomain, Settings
from solvers.monodomain.state import Snapshot, load_state, save_state
from solvers.monodomain.stop import ReentryCycles
from solvers.monodomain.store import BeatStore
from solvers.scene import Scene
from solvers.sim_mesh import SimMesh
from solvers.sim_output import probe_places, write_outputs
from twin.errors import InputError
from twin.experiment import Result, Status, Stimulus
from twin.mesh import signed_volumes_mm3
from twin.params import Param

Progress = Callable[[str, float], None]
Weights = Mapping[str, NDArray[np.float64]]

CHECKPOINT_S = 60.0
"""Least time between two checkpoints: what a killed run loses, and longer than it takes to write one."""
CHECKPOINT_LOOK_MS = 1.0
FINE_EDGE = Param(
    0.35,
    "mm",
    0.25,
    0.4,
    "chosen here: mean edge of cubes of 0.25 mm, from which on plane waves are right without a correction (docs/solvers.md)",
)
WORK = "partial"
"""Folder of a run that is not finished: beats, checkpoint."""


def build(experiment: Experiment, scene: Scene, tell: Progress) -> tuple[Monodomain, dict[str, Any]]:
    """The solver of an experiment, and the report on the correction of its mesh. Raises InputError for cells or steps that cannot be."""
    experiment, why = _decided(experiment, scene)
    mesh, tissue = scene.mesh, scene.tissue
    models = _models(experiment)
    of_node = _majority(mesh, tissue, scene.conducting, len(models))
    diffusion = _diffusion(experiment, models)
    gains: dict[str, Any] = {}
    if experiment.correction == "premature":
        models, diffusion, gains = _excitable(experiment, scene, models, diffusion, tell)
    d_l, d_t = np.array(diffusion).T[:, tissue]
    settings = Settings(
        experiment.dt_ms,
        experiment.theta,
        scheme=experiment.scheme,
        device=experiment.device,
        threshold_mv=experiment.threshold_mv,
        recovery_mv=experiment.recovery_mv,
        capacitance_uF_mm3=experiment.tissue[0].membrane.capacitance_uF_mm3,
    )
    correction = _correction(experiment, scene, models, diffusion, tell)
    if correction is not None:
        settings = replace(settings, theta=_blend(experiment))
    tell("assembly", 0.0)
    solver = Monodomain(
        *(mesh.points_mm, mesh.tets, mesh.fibre, d_l, d_t, _cells(experiment, models, of_node), settings),
        conducting=scene.conducting,
        tensor=None if correction is None else correction.tensor,
    )
    if experiment.scheme == "explicit" and solver.dt_ms > solver.limit_ms:
        safe = STABLE_SHARE.value * solver.limit_ms
        problem = f"{solver.dt_ms:g} ms is above the stability limit of this mesh, {solver.limit_ms:.3g} ms"
        raise InputError(experiment.where, "solver.dt", problem, f"use {safe:.2g} ms or less, or leave dt out")
    return solver, {"predicted_error": None, "why": why} if correction is None else correction.report | gains


def _decided(experiment: Experiment, scene: Scene) -> tuple[Experiment, str]:
    """The experiment with what `correction = "auto"` means for its mesh, and why there is none where there is none."""
    if experiment.correction == "none":
        return experiment, "none was asked for"
    if experiment.correction != "auto":
        return experiment, ""
    why = f"is made for the explicit scheme, not for {experiment.scheme}" if experiment.scheme != "explicit" else ""
    if not why:
        try:
            lattice, _ = find_lattice(scene.mesh.points_mm, scene.mesh.tets)
        except InputError as error:
            why = f"the mesh {error.problem}"
        else:
            why = "the mesh is fine enough without" if lattice.edge_mm <= float(FINE_EDGE) else ""
    return replace(experiment, correction="none" if why else "planar"), why


def _models(experiment: Experiment) -> list[Any]:
    """The cell model of each tissue; passive cells get a cheap one that is never asked."""
    from solvers.ionic import ionic_model

    models = []
    for index, t in enumerate(experiment.tissue):
        try:
            name = "mitchell_schaeffer" if t.passive else t.ionic or ""
            models.append(ionic_model(name, cell=t.cell, scale=_scale(name, t.scale, t.drug)))
        except InputError as error:
            raise InputError(experiment.where, f"tissue[{index}]: {error.field}", error.problem, error.remedy) from None
    return models


def _scale(name: str, scale: Mapping[str, float], drug: Mapping[str, float]) -> Mapping[str, float]:
    if not drug:
        return scale
    from solvers.ionic.drugs import combined, drug_effect

    return combined(scale, *(drug_effect(name, d, concentration).scale for d, concentration in drug.items()))


def _cells(experiment: Experiment, models: list[Any], of_node: NDArray[np.int32]) -> Callable[[NDArray[np.int32]], CellState]:
    from solvers.ionic import Cells

    passive = {k: t.passive for k, t in enumerate(experiment.tissue) if t.passive is not None}
    fibroblasts = {k: t.fibroblasts for k, t in enumerate(experiment.tissue) if t.fibroblasts is not None}

    def make(nodes: NDArray[np.int32]) -> CellState:
        cells = Cells(models=models, region_of_node=of_node[nodes], precision=experiment.precision)
        return FibroticCells(cells, of_node[nodes], passive, fibroblasts) if passive or fibroblasts else cells

    return make


def _diffusion(experiment: Experiment, models: list[Any]) -> list[tuple[float, float]]:
    """d_l and d_t of each tissue, mm^2/ms; where speeds are asked for, what gives this cell model those speeds in the continuum."""
    out = []
    for t, model in zip(experiment.tissue, models):
        if t.speed_l_m_s is None or t.speed_t_m_s is None:
            out.append((t.d_l_mm2_ms, t.d_t_mm2_ms))
        else:
            out.append((diffusion_of_speed_mm2_ms(t.speed_l_m_s, model), diffusion_of_speed_mm2_ms(t.speed_t_m_s, model)))
    return out


def _blend(experiment: Experiment) -> float:
    """Mass blend of a corrected run."""
    return excitability.THETA if experiment.correction == "premature" else wave_fit.THETA


def _excitable(
    experiment: Experiment, scene: Scene, models: list[Any], diffusion: list[tuple[float, float]], tell: Progress
) -> tuple[list[Any], list[tuple[float, float]], dict[str, Any]]:
    """Cells that carry premature waves on this lattice as the tissue does, what gives them its speeds, and the factors for a report."""
    try:
        lattice = find_lattice(scene.mesh.points_mm, scene.mesh.tets)[0]
    except InputError as error:
        raise InputError(experiment.where, "solver.correction", f"{error.field} {error.problem}", error.remedy) from None
    cells, fitted, gains = list(models), list(diffusion), [1.0] * len(models)
    for k, (tissue, model, (d_l, d_t)) in enumerate(zip(experiment.tissue, models, diffusion, strict=True)):
        if tissue.passive is not None or min(d_l, d_t) <= 0.0:
            continue
        tell(f"excitability of tissue {k}", k / len(models))
        per_root = wave_fit.speed_per_sqrt_d(model)
        speeds = per_root * d_l**0.5, per_root * d_t**0.5
        found = excitability.excitable(lattice, speeds, model, excitability.THETA)
        cells[k], gains[k] = found.model, found.gain
        fitted[k] = diffusion_of_speed_mm2_ms(speeds[0], found.model), diffusion_of_speed_mm2_ms(speeds[1], found.model)
    return cells, fitted, {"sodium_gain": gains}


def _correction(
    experiment: Experiment, scene: Scene, models: list[Any], diffusion: list[tuple[float, float]], tell: Progress
) -> Correction | None:
    """What gives the mesh the velocities of the continuum; None unless the file asks for a correction."""
    if experiment.correction == "none":
        return None
    mesh = scene.mesh
    active = [None if t.passive is not None else model for t, model in zip(experiment.tissue, models)]
    try:
        return correct(mesh.points_mm, mesh.tets, mesh.fibre, scene.tissue, diffusion, active, scene.conducting, tell, _blend(experiment))
    except InputError as error:
        raise InputError(experiment.where, "solver.correction", f"{error.field} {error.problem}", error.remedy) from None


def _majority(mesh: SimMesh, tissue: NDArray[np.int32], conducting: NDArray[np.bool_], count: int) -> NDArray[np.int32]:
    """Tissue of each node, (n,): the one that fills most of the conducting volume around it."""
    volume = np.abs(signed_volumes_mm3(mesh.points_mm, mesh.tets))
    n = len(mesh.points_mm)
    share = [
        np.bincount(mesh.tets[conducting].ravel(), np.repeat(np.where(tissue == k, volume, 0.0)[conducting], 4), minlength=n)
        for k in range(count)
    ]
    return np.argmax(share, axis=0).astype(np.int32)


class Recording:
    """The files of one run in `folder`; goes on after `positions` (as `positions` gave them, at time_ms), or starts anew."""

    def __init__(
        self,
        experiment: Experiment,
        scene: Scene,
        solver: Monodomain,
        folder: Path,
        weights: Weights,
        positions: Mapping[str, int] | None = None,
        time_ms: float = 0.0,
    ) -> None:
        self.files: dict[str, FileObserver] = {}

        def after(name: str) -> tuple[int, float] | None:
            return None if positions is None else (int(positions[name]), time_ms)

        places = probe_places(experiment)
        row = np.full(len(scene.mesh.points_mm), -1, np.int64)
        row[solver.nodes] = np.arange(len(solver.nodes))
        if places:
            rows = row[[scene.nearest.node(p)[0] for p in places]]
            self.files["probes"] = ProbeFile(folder / "probes.csv", rows, experiment.probe_every_ms, after("probes"))
        if weights and experiment.ecg is not None:
            mine = {lead: np.ascontiguousarray(w[solver.nodes]) for lead, w in weights.items()}
            self.files["ecg"] = EcgFile(folder / "ecg.csv", mine, experiment.ecg.every_ms, after("ecg"))
        if experiment.frames_every_ms is not None:
            mesh = scene.mesh
            frames = Frames(folder, mesh.points_mm, mesh.tets, solver.nodes, experiment.frames_every_ms, after("frames"))
            self.files["frames"] = frames

    def positions(self) -> dict[str, int]:
        """How far each file is written."""
        return {name: file.position() for name, file in self.files.items()}

    def close(self) -> None:
        """Complete all files."""
        for file in self.files.values():
            file.close()


class _Checkpoints:
    """Saves the state now and then. Last of the observers, so that the files are written up to the same step."""

    every_ms = CHECKPOINT_LOOK_MS
    rows = np.zeros(0, np.int32)
    """It looks at no voltage itself, so none has to come from a device."""

    def __init__(self, solver: Monodomain, recording: Recording, path: Path, wait_s: float) -> None:
        self.solver, self.recording, self.path, self.wait_s = solver, recording, path, wait_s
        self._last_s = time.monotonic()

    def see(self, time_ms: float, v: NDArray[Any]) -> None:
        """Save if it is time."""
        if time.monotonic() - self._last_s >= self.wait_s:
            save_state(self.path, self.solver.snapshot(), {"positions": self.recording.positions(), "time_ms": time_ms})
            self._last_s = time.monotonic()


@dataclass
class MonodomainRun:
    """One experiment on its solver: runs it, or its branches, into `out`, and resumes what was begun there."""

    experiment: Experiment
    scene: Scene
    solver: Monodomain
    out: Path
    weights: Weights
    tell: Progress
    correction: Mapping[str, Any] = field(default_factory=dict)
    checkpoint_s: float = CHECKPOINT_S

    def run(self) -> dict[str, Any]:
        """The summary; with branches, one of all of them."""
        if not self.experiment.branches:
            return self._leaf(self._open(self.out), self.scene.stimuli, self.out, None)
        rest = self._open(self.out / WORK / _name("trunk", ()))
        leaves = self._grow((), list(self.experiment.branches), rest)
        shutil.rmtree(self.out / WORK, ignore_errors=True)
        return _together([leaves[b.name] for b in self.experiment.branches], self.experiment)

    def _open(self, folder: Path) -> Recording:
        """Files and beats of a run in `folder`: where its checkpoint left them, from the start state, or from rest."""
        checkpoint = folder / WORK / "checkpoint.npz"
        start = checkpoint if checkpoint.exists() else self.experiment.start_from
        if not checkpoint.exists():
            shutil.rmtree(folder / WORK, ignore_errors=True)
        self.solver.log.move(BeatStore(folder / WORK / "beats"))
        if start is None:
            return Recording(self.experiment, self.scene, self.solver, folder, self.weights)
        state, more = load_state(start, self.solver.fits())
        self.solver.restore(state)
        if self.solver.time_ms >= self.experiment.duration_ms and start != checkpoint:
            problem = f"is a state of {self.solver.time_ms:g} ms, the end is {self.experiment.duration_ms:g} ms"
            raise InputError(start, "time", problem, "raise solver.duration: times count from rest")
        positions = more["positions"] if start == checkpoint else None
        return Recording(self.experiment, self.scene, self.solver, folder, self.weights, positions, self.solver.time_ms)

    def _advance(self, recording: Recording, stimuli: Sequence[Stimulus], until_ms: float, folder: Path, trunk: bool) -> Result:
        checkpoints = _Checkpoints(self.solver, recording, folder / WORK / "checkpoint.npz", self.checkpoint_s)
        cycles = self.experiment.reentry_cycles
        try:
            return self.solver.run(
                stimuli,
                until_ms,
                observers=[*recording.files.values(), checkpoints],
                stop=ReentryCycles(cycles) if cycles is not None and not trunk else None,
                quiet_ms=None if trunk else self.experiment.quiet_ms,
                progress=lambda fraction: self.tell("monodomain", fraction),
            )
        except BaseException:
            # what is buffered must reach the files before a later run of this process cuts them
            recording.close()
            raise

    def _leaf(self, recording: Recording, stimuli: Sequence[Stimulus], folder: Path, status: str | None) -> dict[str, Any]:
        """Run to the end and write."""
        result = self._advance(recording, stimuli, self.experiment.duration_ms, folder, trunk=False)
        recording.close()
        result = replace(result, summary={**result.summary, "correction": dict(self.correction)})
        first = np.full(len(self.scene.mesh.points_mm), np.nan)
        first[self.solver.nodes] = self.solver.log.first_ms
        if self.experiment.keep_state:
            save_state(folder / "state.npz", self.solver.snapshot())
        summary = write_outputs(self.experiment, self.scene, result, first, folder, status)
        shutil.rmtree(folder / WORK, ignore_errors=True)
        return summary

    def _stimuli(self, extra: Sequence[tuple[int, float]]) -> list[Stimulus]:
        """The stimuli with extrastimuli (stimulus, coupling) behind their last pulses."""
        out = list(self.scene.stimuli)
        for k, coupling in extra:
            out[k] = replace(out[k], start_ms=(*out[k].start_ms, out[k].start_ms[-1] + coupling))
        return out

    def _grow(self, stem: tuple[tuple[int, float], ...], leaves: list[Branch], recording: Recording) -> dict[str, dict[str, Any]]:
        """Run what the leaves share, then each of them from there; extrastimuli that several share are computed once."""
        folder = self.out / WORK / _name("trunk", stem)
        done = {b.name: _summary(self.out / "branches" / b.name) for b in leaves}
        if all(done.values()):
            recording.close()
            return {name: summary for name, summary in done.items() if summary is not None}
        groups: dict[tuple[int, float] | None, list[Branch]] = {}
        for b in leaves:
            rest = b.extra_ms[len(stem) :]
            groups.setdefault((b.stimulus, rest[0]) if rest else None, []).append(b)
        stimuli = self._stimuli(stem)
        until = min([stimuli[g[0]].start_ms[-1] + g[1] for g in groups if g is not None], default=self.solver.time_ms)
        # whole steps, and none of the first pulse that a branch adds
        until = max(np.floor(until / self.solver.dt_ms - 1e-9), 0.0) * self.solver.dt_ms
        if until > self.solver.time_ms:
            self._advance(recording, stimuli, until, folder, trunk=True)
        state, positions = self.solver.snapshot(), recording.positions()
        recording.close()
        out: dict[str, dict[str, Any]] = {}
        for extra, group in groups.items():
            for part in [[b] for b in group] if extra is None else [group]:
                out |= self._branch(stem if extra is None else (*stem, extra), part, folder, state, positions)
        return out

    def _branch(
        self, stem: tuple[tuple[int, float], ...], leaves: list[Branch], trunk: Path, state: Snapshot, positions: Mapping[str, int]
    ) -> dict[str, dict[str, Any]]:
        """Go on from the trunk's state in a copy of its files."""
        last = len(leaves) == 1 and len(leaves[0].extra_ms) == len(stem)
        folder = self.out / "branches" / leaves[0].name if last else self.out / WORK / _name("trunk", stem)
        ready = _summary(folder)
        if ready is not None:
            return {leaves[0].name: ready}
        if not (folder / WORK / "checkpoint.npz").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(trunk, folder, ignore=shutil.ignore_patterns("checkpoint.npz"))
            self.solver.log.move(BeatStore(folder / WORK / "beats"))
            self.solver.restore(state)
            recording = Recording(self.experiment, self.scene, self.solver, folder, self.weights, positions, self.solver.time_ms)
        else:
            recording = self._open(folder)
        if last:
            return {leaves[0].name: self._leaf(recording, self._stimuli(stem), folder, leaves[0].status)}
        return self._grow(stem, leaves, recording)


def _name(head: str, stem: Sequence[tuple[int, float]]) -> str:
    return "_".join([head, *(f"{k}-{coupling:g}" for k, coupling in stem)])


def _summary(folder: Path) -> dict[str, Any] | None:
    """Summary of a finished branch; it is written last."""
    path = folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _together(leaves: Sequence[Mapping[str, Any]], experiment: Experiment) -> dict[str, Any]:
    """One summary of all branches; the whole is only as good as the worst."""
    rows = []
    for b, leaf in zip(experiment.branches, leaves):
        stop = leaf["solver"]["stop"]
        rows.append({"name": b.name, "extra_ms": list(b.extra_ms), "status": leaf["status"], "message": leaf["message"], "stop": stop})
    diverged = [r for r in rows if r["status"] == Status.DIVERGED.value]
    status = Status.DIVERGED if diverged else Status.DONE
    message = diverged[0]["message"] if diverged else f"{len(rows)} branches from one train"
    expect = [{"branch": b.name, **e} for b, leaf in zip(experiment.branches, leaves) for e in leaf["expect"]]
    return {
        "status": status.value,
        "message": message,
        "method": experiment.method,
        "mesh": leaves[0]["mesh"],
        "branches": rows,
        "expect": expect,
        "expect_met": all(e["met"] for e in expect),
    }
