"""The experiment file of `vtwin simulate`: TOML to frozen nouns, everything checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from solvers.expected import Expected, expectations
from solvers.experiment_specs import (
    BoxSpec,
    Branch,
    EcgSpec,
    StimulusSpec,
    TissueSpec,
    branch_specs,
    ecg_spec,
    mesh_spec,
    stimulus_spec,
    tissue_spec,
)
from solvers.monodomain.device import DEVICES
from solvers.monodomain.solver import THETA
from solvers.toml_table import Table, read_table
from twin.errors import InputError
from twin.params import Param

__all__ = ["BoxSpec", "Branch", "EcgSpec", "Expected", "Experiment", "StimulusSpec", "TissueSpec", "load_experiment"]

METHODS = ("monodomain", "eikonal", "reentrant_eikonal")
SCHEMES = ("explicit", "reference", "svi")
CORRECTIONS = ("auto", "none", "planar", "premature")
"""auto: planar on a coarse mesh of vtwin's own lattices, else none; planar: tensors for the speed of a first wave; premature: also the
sodium conductance for those that follow soon (excitability)."""

QUIET = Param(50.0, "ms", 20.0, 200.0, "chosen here: longer than a wave can hide below the threshold between two nodes of a usable mesh")


@dataclass(frozen=True)
class Experiment:
    """One `simulate` run, checked and in internal units. `where` is the file, for messages."""

    where: Path
    mesh: BoxSpec | Path
    tissue: tuple[TissueSpec, ...]
    stimuli: tuple[StimulusSpec, ...]
    method: str
    dt_ms: float | None
    duration_ms: float
    theta: float = THETA.value
    scheme: str = "explicit"
    correction: str = "none"
    quiet_ms: float | None = None
    precision: str = "float32"
    device: str = "cpu"
    threshold_mv: float = -40.0
    recovery_mv: float = -70.0
    probes_mm: tuple[tuple[float, float, float], ...] = ()
    probe_every_ms: float = 1.0
    expected: tuple[Expected, ...] = field(default=())
    reentry_cycles: int | None = None
    frames_every_ms: float | None = None
    ecg: EcgSpec | None = None
    keep_state: bool = False
    start_from: Path | None = None
    branches: tuple[Branch, ...] = ()


def load_experiment(path: Path) -> Experiment:
    """Read and check an experiment file. Raises InputError: unknown keys, wrong units, impossible values, each in one line."""
    top = read_table(path)
    top.known("mesh", "tissue", "stimulus", "solver", "record", "stop", "start", "branch", "expect")
    solver, record, stop, start = (top.table(name) for name in ("solver", "record", "stop", "start"))
    solver.known("method", "dt", "duration", "theta", "scheme", "correction", "quiet", "precision", "device")
    record.known("activation", "probes", "probe_every", "frames", "ecg", "state")
    stop.known("reentry_cycles", "quiet")
    start.known("from")
    activation, frames = record.table("activation"), record.table("frames")
    activation.known("threshold", "recovery")
    frames.known("every")
    method, duration_ms = solver.choice("method", METHODS, "monodomain"), solver.positive("duration", "ms")
    stimuli = tuple(stimulus_spec(t) for t in top.tables("stimulus"))
    experiment = Experiment(
        where=path,
        mesh=mesh_spec(top.table("mesh")),
        tissue=tuple(tissue_spec(t, method) for t in top.tables("tissue")),
        stimuli=stimuli,
        method=method,
        dt_ms=solver.positive("dt", "ms") if "dt" in solver.values else None,
        duration_ms=duration_ms,
        theta=solver.number("theta", "", THETA.value, 0.0, 1.0),
        scheme=solver.choice("scheme", SCHEMES, "explicit"),
        # whoever gives a mass blend of his own wants the plain scheme
        correction=solver.choice("correction", CORRECTIONS, "none" if "theta" in solver.values else "auto"),
        quiet_ms=_quiet(solver, stop),
        precision=solver.choice("precision", ("float32", "float64"), "float32"),
        device=solver.choice("device", DEVICES, "cpu"),
        threshold_mv=activation.number("threshold", "mV", -40.0, -80.0, 30.0),
        recovery_mv=activation.number("recovery", "mV", -70.0, -90.0, 30.0),
        probes_mm=tuple(record.place(f"probes[{i}]", p) for i, p in enumerate(record.items("probes"))),
        probe_every_ms=record.positive("probe_every", "ms", 1.0),
        expected=expectations(top.table("expect")),
        reentry_cycles=stop.whole("reentry_cycles", 1, 1000) if "reentry_cycles" in stop.values else None,
        frames_every_ms=frames.positive("every", "ms") if "frames" in record.values else None,
        ecg=ecg_spec(record.table("ecg")) if "ecg" in record.values else None,
        keep_state=record.flag("state"),
        start_from=path.parent / start.text("from") if "from" in start.values else None,
        branches=branch_specs(top, stimuli, duration_ms),
    )
    if experiment.recovery_mv > experiment.threshold_mv:
        raise activation.error("recovery", "is above the threshold", "recovery is a level on the way down, below the upstroke's threshold")
    _check_together(experiment)
    return experiment


def _quiet(solver: Table, stop: Table) -> float | None:
    """`quiet = true` in [stop] waits for QUIET; a time says how long; [solver] quiet is its older place."""
    if isinstance(stop.values.get("quiet"), bool):
        return QUIET.value if stop.flag("quiet") else None
    if "quiet" in stop.values:
        return stop.positive("quiet", "ms")
    return solver.positive("quiet", "ms") if "quiet" in solver.values else None


def _check_together(experiment: Experiment) -> None:
    """What single keys cannot tell."""
    path, method = experiment.where, experiment.method
    if experiment.correction not in ("auto", "none") and (experiment.scheme != "explicit" or method != "monodomain"):
        raise InputError(path, "solver.correction", "is made for the explicit monodomain", "leave it out")
    membranes = {t.membrane.capacitance_uF_mm3 for t in experiment.tissue}
    if len(membranes) > 1:
        remedy = "use the same in every [[tissue]]; change conductivities instead"
        raise InputError(path, "tissue.capacitance", "surface_to_volume x capacitance differs between tissues", remedy)
    only = {
        "start.from": experiment.start_from is not None,
        "branch": bool(experiment.branches),
        "record.state": experiment.keep_state,
        "record.frames": experiment.frames_every_ms is not None,
        "expect.apd90_ms": any(e.kind == "apd90_ms" for e in experiment.expected),
    }
    for name, given in only.items():
        if given and method != "monodomain":
            raise InputError(path, name, f"is of the monodomain, not of method {method!r}", 'remove it or use method = "monodomain"')
    if method == "eikonal" and experiment.reentry_cycles:
        raise InputError(path, "stop.reentry_cycles", "an eikonal wave comes once", 'use method = "reentrant_eikonal"')
    if experiment.start_from is not None and experiment.branches:
        raise InputError(path, "start.from", "and branches do not go together", "compute the train here, or start each branch by itself")
