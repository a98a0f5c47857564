"""Commands of the floor `planners`: from a case to a plan, through the procedure, out to other systems; and trials of many twins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planners.app.cli_options import Dry, Fresh, Json, Out, Seed, Threads, set_threads
from planners.app.console import Console


def plan(
    case: Annotated[Path, typer.Argument(help="Case file (TOML), for example cases/demo/case.toml.")],
    out: Out,
    explain: Annotated[str | None, typer.Option(help="Name the source and stage of one number of plan.json, then stop.")] = None,
    seed: Seed = 0,
    threads: Threads = None,
    fresh: Fresh = False,
    dry_run: Dry = False,
    identified: Annotated[
        bool, typer.Option("--identified", help="Name the case and its files in outputs; else neither gets into any.")
    ] = False,
    json: Json = False,
) -> int:
    """Make an ablation plan: evidence, mesh, tissue, induction, lesions, outcome, report.

    Example: vtwin plan cases/demo/case.toml -o out/demo
    """
    set_threads(threads)
    from planners.app import plan_command

    console = Console(json)
    if explain is not None:
        return plan_command.explain(out, explain, console)
    return plan_command.plan(case, out, console, seed=seed, fresh=fresh, dry_run=dry_run, identified=identified)


def calibrate(
    case: Annotated[Path, typer.Argument(help="Case file.")],
    out: Out,
    sampler: Annotated[str, typer.Option(help="laplace (seconds) or ensemble (minutes: sites move too).")] = "laplace",
    seed: Seed = 0,
    threads: Threads = None,
    fresh: Fresh = False,
    dry_run: Dry = False,
    json: Json = False,
) -> int:
    """Evidence to posterior tissue: velocities, sites, voltage thresholds; what the data could not tell; what looks wrong.

    Example: vtwin calibrate cases/demo/case.toml -o out/calibrated
    """
    set_threads(threads)
    from planners.app import calibrate_command

    return calibrate_command.calibrate(case, out, Console(json), sampler=sampler, seed=seed, fresh=fresh, dry=dry_run)


def induce(
    source: Annotated[Path, typer.Argument(metavar="CASE_OR_OUT", help="Case file, or the folder of a finished plan or calibration.")],
    out: Out,
    seed: Seed = 0,
    threads: Threads = None,
    fresh: Fresh = False,
    dry_run: Dry = False,
    json: Json = False,
) -> int:
    """Programmed stimulation alone: which sites and intervals start VT.

    Example: vtwin induce cases/demo/case.toml -o out/induce
    """
    set_threads(threads)
    from planners.app import induce_command

    return induce_command.induce(source, out, Console(json), seed=seed, fresh=fresh, dry=dry_run)


def guide(
    out: Annotated[Path, typer.Argument(help="Folder of a finished plan.")],
    lesions: Annotated[Path | None, typer.Option(help="Delivered lesions: CSV with `# vtwin-lesions 1` as its first line.")] = None,
    eam: Annotated[Path | None, typer.Option(help="New map points: CSV with `# vtwin-eam 1`, or an export of a mapping system.")] = None,
    vt: Annotated[Path | None, typer.Option(help="12-lead ECG of a VT that came up: CSV, WFDB, DICOM, aECG.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder that holds lesions.csv, points.csv, vt.csv, as they come.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Watch the files and update at every change.")] = False,
    samples: Annotated[bool, typer.Option("--samples", help="Ask other samples of the tissue too; --follow does when idle.")] = False,
    accept: Annotated[list[str] | None, typer.Option(help="Code of a suspicious finding to accept.")] = None,
    json: Json = False,
) -> int:
    """During the procedure: which targets are done, which gap is left, what to do next.

    Example: vtwin guide out/demo --lesions lesions.csv
    """
    from planners.app import guide_command

    files = guide_command.chosen({"lesions": lesions, "eam": eam, "vt": vt}, folder)
    return guide_command.guide(out, files, follow, accept or [], Console(json), optional=folder is not None, samples=samples)


def view(
    out: Annotated[Path, typer.Argument(help="Folder of a finished plan.")],
    json: Json = False,
) -> int:
    """Open the report with its interactive 3-D view in the browser: one local file, no network.

    Example: vtwin view out/demo
    """
    from planners.app import leave_command

    return leave_command.view(out, Console(json))


def export(
    out: Annotated[Path, typer.Argument(help="Folder of a finished plan.")],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="stl, vtp, slicer, csv, ply, obj, dicom, markups, ensite, carto; the first four if not given."),
    ] = None,
    json: Json = False,
) -> int:
    """Write the overlays of a finished plan again.

    Example: vtwin export out/demo --format slicer
    """
    from planners.app import leave_command

    return leave_command.export(out, formats or [], Console(json))


def stream(
    out: Annotated[Path, typer.Argument(help="Folder of a finished plan.")],
    host: Annotated[str, typer.Option(help="Where the OpenIGTLink listener is.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port.")] = 18944,
    remote: Annotated[bool, typer.Option("--remote", help="Allow a host that is not this machine.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with the targets of every update of `vtwin guide`.")] = False,
    json: Json = False,
) -> int:
    """Send surfaces and targets of a finished plan to an OpenIGTLink listener, such as 3D Slicer.

    Example: vtwin stream out/demo --port 18944
    """
    from planners.app import leave_command

    return leave_command.stream(out, host, port, remote, Console(json), follow)


def cohort(
    trial: Annotated[Path, typer.Argument(help="Trial file (TOML); with --resume, --status or --verify the folder of a trial.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder of the trial; the same trial goes on where it was.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the trial in the folder TRIAL.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say where the trial in the folder TRIAL stands, and stop.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compute a random part of the trial in the folder TRIAL again and compare.")
    ] = False,
    share: Annotated[float, typer.Option(help="Which part --verify computes.", min=0.0, max=1.0)] = 0.05,
    seed: Seed = 0,
    amend: Annotated[str, typer.Option(help="Change a trial that has begun, and record why.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Try again what was set aside as failed.")] = False,
    executor: Annotated[str | None, typer.Option(help="in_process, processes or dask.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="How many jobs at once (default: one per core).")] = None,
    cluster: Annotated[str | None, typer.Option(help="For dask: local, slurm, pbs or the address of a scheduler.")] = None,
    dry_run: Dry = False,
    json: Json = False,
) -> int:
    """Run an in-silico trial: many twins, every arm in each; finished work is never computed again.

    Example: vtwin cohort cases/trial/trial.toml -o out/trial
    """
    from planners.app import cohort_command

    changes = {"executor": executor, "workers": workers, "cluster": cluster}
    return cohort_command.chosen(trial, out, Console(json), changes, resume, status, verify, share, seed, amend, again, dry_run)


COMMANDS = (plan, calibrate, induce, guide, view, export, stream, cohort)
