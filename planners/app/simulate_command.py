"""`vtwin simulate`: one solver experiment."""

from __future__ import annotations

from pathlib import Path

from planners.app.console import Console
from planners.app.output import claim, finish
from solvers.experiment import load_experiment
from solvers.simulate import run_experiment
from twin.run import RunRecord, content_hash


def simulate(path: Path, out: Path, console: Console) -> int:
    """Run the experiment; status 3 if its [expect] was missed."""
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
