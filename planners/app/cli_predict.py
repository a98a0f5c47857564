"""Commands of the floor `solvers`: one experiment, what the solvers are checked and timed against, and what this machine has for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planners.app.cli_options import Dry, Fresh, Json, Out, Threads, set_threads
from planners.app.console import Console


def simulate(
    experiment: Annotated[Path, typer.Argument(help="Experiment file (TOML).")],
    out: Out,
    threads: Threads = None,
    fresh: Fresh = False,
    dry_run: Dry = False,
    json: Json = False,
) -> int:
    """Run one solver experiment; the same call goes on with one that was interrupted.

    Example: vtwin simulate cases/niederer/experiment.toml -o out/niederer
    """
    set_threads(threads)
    from planners.app import simulate_command

    return simulate_command.simulate(experiment, out, Console(json), fresh=fresh, dry_run=dry_run)


def verify(
    name: Annotated[str | None, typer.Argument(help="Only checks whose name starts with this.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for records.json, tables and pictures.")] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Those that take minutes too.")] = False,
    json: Json = False,
) -> int:
    """Run the analytic and published checks of the solvers.

    Example: vtwin verify niederer -o out/niederer
    """
    from planners.app import checks

    return checks.verify(name, Console(json), slow, out)


def bench(
    name: Annotated[str | None, typer.Argument(help="Only timings whose name starts with this.")] = None,
    json: Json = False,
) -> int:
    """Time the kernels, each as a ratio to a plain reference in the same run.

    Example: vtwin bench ionic
    """
    from planners.app import checks

    return checks.bench(name, Console(json))


def doctor(json: Json = False) -> int:
    """Say what this machine has, what is missing and how to get it.

    Example: vtwin doctor
    """
    from planners.app.doctor import as_records, examine

    findings = examine()
    lines = [f"{f.status:9s}{f.name:14s}{f.found}" + (f"  ->  {f.remedy}" if f.remedy else "") for f in findings]
    Console(json).result(as_records(findings), lines)
    return 1 if any(f.status == "missing" for f in findings) else 0


COMMANDS = (simulate, verify, bench, doctor)
