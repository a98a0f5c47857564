"""`vtwin cohort`: an in-silico trial, begun, resumed, watched or verified."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from planners.app.console import Console
from planners.trials import cohort, protocol_file
from planners.trials.executors import EXECUTORS, Execution
from planners.trials.perform import machine_failures
from planners.trials.read_trial import read_trial
from planners.trials.scheduler import Progress
from planners.trials.trial import Trial
from twin.atomic import write_json
from twin.errors import InputError
from twin.io.source import did_you_mean
from twin.run import RunRecord

RECORD = "run.json"


def chosen(
    path: Path,
    out: Path | None,
    console: Console,
    changes: Mapping[str, Any],
    resumed: bool,
    asked: bool,
    verified: bool,
    share: float,
    seed: int,
    amend: str,
    again: bool,
    dry_run: bool,
) -> int:
    """What one command line asks for."""
    if resumed + asked + verified > 1:
        raise InputError("command line", "--resume, --status, --verify", "more than one was given", "choose one")
    folder = out or path
    if asked:
        return status(folder, console)
    if verified:
        return verify(folder, console, share, seed)
    if resumed:
        return resume(folder, console, changes, again)
    if path.is_dir():
        raise InputError("command line", "TRIAL", f"{path} is a folder", "name a trial file, or add --resume, --status or --verify")
    if out is None and not dry_run:
        raise InputError("command line", "-o", "is missing", "name a folder for the results")
    return run(path, out or Path(), console, changes, amend, again, dry_run)


def run(path: Path, out: Path, console: Console, changes: Mapping[str, Any], amend: str, again: bool, dry_run: bool) -> int:
    """Begin a trial, or go on with it; status 0 also where single twins failed, which the report counts."""
    trial, execution = read_trial(path)
    execution = _changed(execution, changes)
    cases = (path.parent / os.path.expandvars(trial.population.folder)).resolve()
    if dry_run:
        return _dry_run(trial, execution, console)
    with cohort.locked(out), machine_failures(out):
        record, begun = protocol_file.freeze(trial, out, cases, amend)
        console.progress(f"trial {trial.name}: protocol {'as frozen before' if begun else 'frozen'}, {record['hash']}")
        return _go(trial, execution, out, cases, console, again)


def resume(out: Path, console: Console, changes: Mapping[str, Any], again: bool) -> int:
    """Go on with the trial that a folder holds."""
    record = protocol_file.read(out)
    trial = protocol_file.frozen_trial(out)
    with cohort.locked(out), machine_failures(out):
        return _go(trial, _changed(Execution(), changes), out, Path(record["cases"]), console, again)


def _changed(execution: Execution, changes: Mapping[str, Any]) -> Execution:
    given = {key: value for key, value in changes.items() if value is not None}
    if "executor" in given and given["executor"] not in EXECUTORS:
        raise InputError("command line", "--executor", f"{given['executor']!r} is unknown", did_you_mean(given["executor"], EXECUTORS))
    if "cluster" in given:
        given["executor"] = "dask"
    return replace(execution, **given)


def _go(trial: Trial, execution: Execution, out: Path, cases: Path, console: Console, again: bool) -> int:
    from planners.trials.analysis import analyse, look_crossed
    from planners.trials.fields import write_fields
    from planners.trials.trial_report import write_report

    workers, threads = execution.shape()
    console.progress(f"{execution.executor}: {workers} workers with {threads} threads each")
    table, progress = cohort.run(
        trial,
        out,
        execution,
        cases,
        console.progress,
        _Teller(console),
        again,
        lambda jobs, look: look_crossed(jobs, trial, look),
    )
    try:
        console.progress("fields, analysis, report ...")
        write_fields(table, trial, out)
        found = analyse(table, trial)
        write_json(out / "analysis.json", found)
        write_report(out, trial, found, table)
        record = RunRecord("cohort", trial.seed, {"trial": trial.digest}, {"execution": vars(execution)})
        write_json(out / RECORD, {"status": "done", **record.as_dict()})
    finally:
        table.close()
    lines = [found["headline"], *_set_aside(found), f"report:  {out / 'report.html'}", f"results: {out / 'results.parquet'}"]
    console.result({**found, "progress": vars(progress), "report": str(out / "report.html")}, lines)
    return 0


def _set_aside(found: Mapping[str, Any]) -> list[str]:
    return [f"set aside: {f['job']}: {f['problem']}" for f in found["failures"][:10]]


class _Teller:
    """Progress as lines, no more often than every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console, self._next = console, 0.0

    def __call__(self, progress: Progress) -> None:
        import time

        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 10.0
        self._console.progress(describe(vars(progress)))


def describe(progress: Mapping[str, Any]) -> str:
    """Where a run stands, in one line."""
    parts = [f"{progress['finished']} jobs finished ({progress['reused']} from before)"]
    parts += [f"{progress['running']} running, {progress['waiting']} waiting"]
    if progress["retried"]:
        parts.append(f"{progress['retried']} tried again")
    if progress["set_aside"]:
        parts.append(f"{progress['set_aside']} set aside")
    left = progress.get("seconds_left")
    if left:
        parts.append(f"about {left / 60:.0f} min for these" if left > 90 else f"about {left:.0f} s for these")
    return ", ".join(parts)


def status(out: Path, console: Console) -> int:
    """Say where a trial stands, from another shell."""
    value = cohort.status(out)
    progress = value.get("progress", {})
    lines = [f"{out}: {'running' if value['running'] else 'not running'}"]
    if progress:
        lines.append(describe(progress))
    for kind, states in value["jobs"].items():
        lines.append(f"  {kind}: " + ", ".join(f"{number} {state}" for state, number in states.items()))
    console.result(value, lines)
    return 0


def verify(out: Path, console: Console, share: float, seed: int) -> int:
    """Compute a random part of a trial again and compare; status 1 if anything differs."""
    from planners.trials.verify import verify_trial

    checked, differing = verify_trial(out, share, seed, console.progress)
    lines = [f"{checked} jobs computed again, {len(differing)} differ"] + [f"  {d}" for d in differing]
    console.result({"checked": checked, "differing": differing}, lines)
    return 1 if differing else 0


def _dry_run(trial: Trial, execution: Execution, console: Console) -> int:
    from planners.trials.job import SECONDS

    workers, _ = execution.shape()
    twins = trial.population.virtual or len(trial.population.cases)
    prefix = "toy_" if trial.fidelity == "toy" else ""
    scale = (2.5 / trial.edge_mm) ** 4
    seconds = scale * twins * (1.4 * SECONDS[f"{prefix}twin"] + len(trial.arms) * trial.samples * SECONDS[f"{prefix}arm"])
    lines = [
        f"{trial.name}: protocol is right; {twins} twins x {len(trial.arms)} arms x {trial.samples} posterior samples",
        f"about {seconds / workers / 60:.0f} min with {workers} workers of one core each",
    ]
    console.result({"twins": twins, "arms": len(trial.arms), "seconds": round(seconds / workers), "hash": trial.digest}, lines)
    return 0
