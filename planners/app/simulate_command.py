"""`vtwin simulate`: one solver experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from planners.app.console import Console
from planners.app.output import claim, finish, finished
from solvers.cell_experiment import is_cell_experiment, load_cell_experiment, run_cell_experiment
from solvers.experiment import Experiment, load_experiment
from solvers.simulate import estimate, run_experiment
from twin.run import RunRecord, content_hash


def simulate(path: Path, out: Path, console: Console, fresh: bool = False, dry_run: bool = False) -> int:
    """Run the experiment, or go on with it, or only say what would run; status 3 if its [expect] was missed."""
    if is_cell_experiment(path):
        return _simulate_cell(path, out, console, fresh, dry_run)
    experiment = load_experiment(path)
    if dry_run:
        return _dry_run(experiment, console)
    inputs = {"experiment": content_hash(path)}
    for name, source in (("mesh", experiment.mesh), ("start", experiment.start_from)):
        if isinstance(source, Path):
            inputs[name] = content_hash(*sorted(source.parent.glob(f"{source.stem}.*")))
    identity = {"command": "simulate", "inputs": inputs}
    again = claim(out, identity, fresh)
    done = finished(out) if again else None
    if done is not None:
        console.progress("this run is finished already; --fresh would run it again")
        return _say(done, out, console)
    if again:
        console.progress("going on with what an earlier run left")
    shown = ("", 0)

    def progress(what: str, fraction: float) -> None:
        nonlocal shown
        now = (what, round(100 * fraction))
        if what != shown[0]:
            console.progress(f"{what} ...")
        elif now != shown:
            console.bar(now[1], 100, what)
        shown = now

    summary = run_experiment(experiment, out, progress)
    finish(out, identity, RunRecord("simulate", 0, inputs, {}).as_dict())
    return _say(summary, out, console)


def _say(summary: dict[str, Any], out: Path, console: Console) -> int:
    lines = [f"{summary['status']}: {summary['message']}"]
    lines += [f"  {b['name']}: {b['status']}: {b['message']}" for b in summary.get("branches", ())]
    for e in summary["expect"]:
        where = f" at {e['at_mm']} mm" if "at_mm" in e else ""
        within = f" +- {e['within']:g}" if "within" in e else ""
        lines.append(f"  {'met' if e['met'] else 'MISSED'}: {e['kind']}{where}: expected {e['expected']}{within}, found {e['found']}")
    console.result(summary, [*lines, f"wrote {out}"])
    return 0 if summary["expect_met"] else 3


def _dry_run(experiment: Experiment, console: Console) -> int:
    found = estimate(experiment)
    lines = [f"{found['method']} on {found['points']} points, {found['tets']} tetrahedra: nothing was run, all inputs are good"]
    if "steps" in found:
        lines.append(
            f"{found['nodes']} nodes, {found['steps']} steps of {found['dt_ms']:g} ms: about {found['seconds']:.0f} s on this machine"
        )
        lines.append(f"frames {found['bytes']['frames'] / 1e6:.1f} MB, each beat {found['bytes']['per_beat'] / 1e6:.2f} MB on disk")
        lines += found["limits"]
    console.result(found, lines)
    return 0


def _simulate_cell(path: Path, out: Path, console: Console, fresh: bool, dry_run: bool) -> int:
    """Run a single-cell experiment; status 3 if its [expect] was missed, 1 if it diverged."""
    experiment = load_cell_experiment(path)
    if dry_run:
        console.result({"method": "cell", "seconds": 1.0}, ["a single cell: nothing was run, all inputs are good; about 1 s"])
        return 0
    inputs = {"experiment": content_hash(path)}
    identity = {"command": "simulate", "inputs": inputs}
    claim(out, identity, fresh)
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
