"""`vtwin simulate`: one solver experiment."""

from __future__ import annotations

from pathlib import Path

from planners.app.console import Console
from planners.app.output import claim, finish
from solvers.cell_experiment import is_cell_experiment, load_cell_experiment, run_cell_experiment
from solvers.experiment import load_experiment
from solvers.simulate import run_experiment
from twin.run import RunRecord, content_hash


def simulate(path: Path, out: Path, console: Console) -> int:
    """Run the experiment; status 3 if its [expect] was missed."""
    if is_cell_experiment(path):
        return _simulate_cell(path, out, console)
    experiment = load_experiment(path)
    inputs = {"experiment": content_hash(path)}
    if isinstance(experiment.mesh, Path):
        inputs["mesh"] = content_hash(*sorted(experiment.mesh.parent.glob(f"{experiment.mesh.stem}.*")))
    identity = {"command": "simulate", "inputs": inputs}
    claim(out, identity)
    shown = ""

    def progress(what: str, fraction: float) -> None:
        nonlocal shown
        console.bar(round(100 * fraction), 100, what) if what == shown else console.progress(f"{what} ...")
        shown = what

    summary = run_experiment(experiment, out, progress)
    finish(out, identity, RunRecord("simulate", 0, inputs, {}).as_dict())
    lines = [f"{summary['status']}: {summary['message']}", *(f"  expected {e}" for e in summary["expect"]), f"wrote {out}"]
    console.result(summary, lines)
    return 0 if summary["expect_met"] else 3


def _simulate_cell(path: Path, out: Path, console: Console) -> int:
    """Run a single-cell experiment; status 3 if its [expect] was missed, 1 if it diverged."""
    experiment = load_cell_experiment(path)
    inputs = {"experiment": content_hash(path)}
    identity = {"command": "simulate", "inputs": inputs}
    claim(out, identity)
    summary = run_cell_experiment(experiment, out, lambda what, fraction: console.bar(round(100 * fraction), 100, what))
    finish(out, identity, RunRecord("simulate", 0, inputs, {}).as_dict())
    lines = [f"{summary['status']}: {summary['message']}", *summary["notes"]]
    if summary["status"] == "done":
        shown = {name: summary.get(name) for name in ("apd90_ms", "apd50_ms", "rest_mv", "peak_mv", "ca_peak_nm", "cycle_length_ms")}
        lines.append("last beat: " + (", ".join(f"{name} {value:.2f}" for name, value in shown.items() if value is not None) or "none"))
    missed = (row for row in summary["expect"] if not row["met"])
    lines += [f"  expected {row['name']} {row['expected']:g} +- {row['within']:g}, found {row['found']}" for row in missed]
    console.result(summary, [*lines, f"wrote {out}"])
    return 1 if summary["status"] == "diverged" else 0 if summary["expect_met"] else 3
