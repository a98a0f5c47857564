"""The command line `vtwin`. Imports of anything heavy happen inside the command that needs them."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from planners.app import segment_command
from planners.app.console import Console
from twin.errors import InputError, VtwinError

app = typer.Typer(
    name="vtwin",
    help="From a segmentation, a map and an ECG to a ventricular tachycardia ablation plan. Research software: not a medical device.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for the results; never overwritten unless it holds the same run.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads for compiled kernels (default: all cores).")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random draw.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Discard what an earlier run left in the output folder.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Check all inputs, say what would run and about how long, and stop.")]


def _threads(count: int | None) -> None:
    """Set the thread count before the first kernel runs."""
    if count is None:
        return
    import numba

    if count > numba.config.NUMBA_NUM_THREADS:
        raise InputError("command line", "--threads", f"{count} asked, {numba.config.NUMBA_NUM_THREADS} available", "ask for fewer")
    numba.set_num_threads(count)


@app.command()
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
    _threads(threads)
    from planners.app import plan_command

    console = Console(json)
    if explain is not None:
        return plan_command.explain(out, explain, console)
    return plan_command.plan(case, out, console, seed=seed, fresh=fresh, dry_run=dry_run, identified=identified)


@app.command()
def mesh(
    segmentation: Annotated[Path, typer.Argument(help="Label volume: NRRD or NIfTI.")],
    out: Out,
    edge: Annotated[str, typer.Option(help="Mean edge length, with unit.")] = "2.0 mm",
    labels: Annotated[str | None, typer.Option(help="Label numbers, lv_blood=1,rv_blood=2,myocardium=3.")] = None,
    fibres: Annotated[
        str, typer.Option(help="bayer, doste (outflow tracts), or a file of measured fibres: openCARP .lon, .csv, .npz (LPS mm).")
    ] = "bayer",
    valve: Annotated[list[str] | None, typer.Option(help="For doste: NAME=X,Y,Z in LPS mm, mitral, aortic, tricuspid, pulmonary.")] = None,
    helix: Annotated[str | None, typer.Option(help="For bayer: helix angles ENDO,EPI in degrees (default 60,-60).")] = None,
    optimise: Annotated[str | None, typer.Option(help="Program of others to improve the mesh, if installed: mmg, tetgen, gmsh.")] = None,
    accept: Annotated[list[str] | None, typer.Option(help="Code of a suspicious finding to accept.")] = None,
    threads: Threads = None,
    fresh: Fresh = False,
    json: Json = False,
) -> int:
    """Make a heart mesh with fibres and coordinates from labels or a closed surface; repairs are listed.

    Examples: vtwin mesh cases/demo/labels.nrrd -o out/mesh --edge "1.5 mm"
    vtwin mesh cases/demo/labels.nrrd -o out/doste --fibres doste --valve pulmonary=12,-60,40
    """
    _threads(threads)
    from planners.app import mesh_command

    choice = mesh_command.FibreChoice.parse(fibres, valve or [], helix)
    return mesh_command.mesh(segmentation, out, edge, labels, Console(json), choice, accept or [], fresh, optimise)


@app.command()
def transfer(
    what: Annotated[Path, typer.Argument(help="A map (any that is read), lesions (.csv, Slicer .json) or the folder of a plan.")],
    source: Annotated[Path, typer.Option("--from", help="Heart it belongs to: folder of vtwin mesh or plan, or an .npz of one.")],
    target: Annotated[Path, typer.Option("--to", help="Heart it is moved to: the same.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write (.csv).")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace the output file if it exists.")] = False,
    json: Json = False,
) -> int:
    """Move a map, lesions or a plan's targets from one heart to another through ventricular coordinates.

    Example: vtwin transfer out/plan --from out/plan --to out/mesh -o targets.csv
    """
    from planners.app import transfer_command

    return transfer_command.transfer(what, source, target, out, Console(json), fresh)


@app.command()
def calibrate(
    case: Annotated[Path, typer.Argument(help="Case file.")],
    out: Out,
    sampler: Annotated[str, typer.Option(help="laplace (seconds) or ensemble (minutes: sites move too).")] = "laplace",
    seed: Seed = 0,
    threads: Threads = None,
    fresh: Fresh = False,
    json: Json = False,
) -> int:
    """Evidence to posterior tissue: velocities, sites, voltage thresholds; what the data could not tell; what looks wrong.

    Example: vtwin calibrate cases/demo/case.toml -o out/calibrated
    """
    _threads(threads)
    from planners.app import calibrate_command

    return calibrate_command.calibrate(case, out, Console(json), sampler=sampler, seed=seed, fresh=fresh)


@app.command()
def induce(
    case: Annotated[Path, typer.Argument(help="Case file.")],
    out: Out,
    seed: Seed = 0,
    threads: Threads = None,
    fresh: Fresh = False,
    json: Json = False,
) -> int:
    """Programmed stimulation alone: which sites and intervals start VT.

    Example: vtwin induce cases/demo/case.toml -o out/induce
    """
    _threads(threads)
    from planners.app import plan_command

    return plan_command.induce(case, out, Console(json), seed=seed, fresh=fresh)


@app.command()
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
    _threads(threads)
    from planners.app import simulate_command

    return simulate_command.simulate(experiment, out, Console(json), fresh=fresh, dry_run=dry_run)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="File to read: labels, surface, mesh, experiment (.toml) or openCARP parameters (.par).")],
    target: Annotated[Path, typer.Argument(help="File to write; its ending names the format. A folder for an experiment.")],
    labels: Annotated[str | None, typer.Option(help="Label numbers, lv_blood=1,rv_blood=2,myocardium=3.")] = None,
    spacing: Annotated[str, typer.Option(help="Voxel size of labels made from a surface, with unit.")] = "1 mm",
    map_name: Annotated[str | None, typer.Option("--map", help="Which map of a mapping system's study: its name, or #2.")] = None,
    json: Json = False,
) -> int:
    """Convert between formats; a closed heart surface becomes labels, an experiment a folder that openCARP runs.

    Example: vtwin convert heart.vtp labels.nrrd
    """
    from planners.app import convert_command

    return convert_command.convert(source, target, Console(json), labels, spacing, map_name)


@app.command()
def annotate(
    study: Annotated[Path, typer.Argument(help="A mapping system's export with electrograms: CARTO, EnSite, OpenEP.")],
    out: Out,
    map_name: Annotated[str | None, typer.Option("--map", help="Which map of a study with several: its name, or #2.")] = None,
    surface: Annotated[str, typer.Option(help="What was mapped: lv_endo, rv_endo, epi.")] = "lv_endo",
    fresh: Fresh = False,
    json: Json = False,
) -> int:
    """Annotate a map anew from its electrograms: times, voltages, late and fractionated potentials, recovery, deceleration zones.

    Example: vtwin annotate study.zip -o out/annotated
    """
    from planners.app import annotate_command

    return annotate_command.annotate(study, out, Console(json), map_name, surface, fresh)


@app.command()
def image(
    source: Annotated[Path, typer.Argument(help="Case (.toml) with images under [evidence], or a segmentation.")],
    out: Out,
    lge: Annotated[Path | None, typer.Option(help="Late enhancement: DICOM folder or file, NRRD, NIfTI, MetaImage.")] = None,
    ct: Annotated[Path | None, typer.Option(help="CT angiography.")] = None,
    cine: Annotated[Path | None, typer.Option(help="Cine stack.")] = None,
    method: Annotated[str, typer.Option(help="Rule for scar labels: 40/60, 35/65, 45/55, fwhm, gray_zone, 5sd ...")] = "40/60",
    labels: Annotated[str | None, typer.Option(help="Label numbers, lv_blood=1,rv_blood=2,myocardium=3.")] = None,
    fresh: Fresh = False,
    json: Json = False,
) -> int:
    """Quantify images: scar by every rule, conducting channels, wall thickness, volumes, ejection fraction.

    Example: vtwin image labels.nrrd --lge lge.nrrd -o out/image
    """
    from planners.app import image_command

    return image_command.image(source, out, Console(json), {"lge": lge, "ct": ct, "cine": cine}, method, labels, fresh)


app.add_typer(segment_command.app, name="segment")


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="File or folder.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Picture (.png), or a folder for it.")] = None,
    json: Json = False,
) -> int:
    """Say what a file is, where it lies, what it holds and what is doubtful about it; write a picture.

    Example: vtwin inspect labels.nrrd
    """
    from planners.app import inspect_command

    return inspect_command.inspect(path, out, Console(json))


@app.command()
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


@app.command()
def risk(
    patient: Annotated[Path | None, typer.Argument(help="Patient's facts (JSON); see --template.")] = None,
    template: Annotated[bool, typer.Option("--template", help="Print a patient file to fill in, with units, and stop.")] = False,
    json: Json = False,
) -> int:
    """Published risk scores, each with the range over what is not known.

    Example: vtwin risk patient.json
    """
    from planners.app import risk_command

    return risk_command.template(Console(json)) if template else risk_command.risk(patient, Console(json))


@app.command()
def extract(
    reports: Annotated[Path, typer.Argument(help="Reports (.jsonl), FHIR bundle (.json), OMOP folder, or mapping (.toml).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Facts, one JSON object per line.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace the output file if it exists.")] = False,
    second_reader: Annotated[bool, typer.Option("--second-reader", help="Compare rules with a network taught by them.")] = False,
    json: Json = False,
) -> int:
    """Reports (English) and coded records to facts; each fact of a text with its place.

    Example: vtwin extract reports.jsonl -o facts.jsonl
    """
    from planners.app import extract_command

    return extract_command.extract(reports, out, fresh, Console(json), second_reader)


@app.command()
def view(
    out: Annotated[Path, typer.Argument(help="Folder of a finished plan.")],
    json: Json = False,
) -> int:
    """Open the report with its interactive 3-D view in the browser: one local file, no network.

    Example: vtwin view out/demo
    """
    from planners.app import leave_command

    return leave_command.view(out, Console(json))


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def fuse(
    study: Annotated[Path, typer.Argument(help="Study file (TOML): the table and the columns of each block; or a folder of them.")],
    out: Out,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the folds (default: the study's).")] = None,
    fresh: Fresh = False,
    json: Json = False,
) -> int:
    """Fit and evaluate fusion models of clinical and imaging blocks on a table, or on all tables that a folder has studies for.

    Example: vtwin fuse cases/fusion/cleveland.toml -o out/cleveland
    """
    from planners.app import fuse_command

    return fuse_command.fuse(study, out, seed, fresh, Console(json))


@app.command()
def doctor(json: Json = False) -> int:
    """Say what this machine has, what is missing and how to get it.

    Example: vtwin doctor
    """
    from planners.app.doctor import as_records, examine

    findings = examine()
    lines = [f"{f.status:9s}{f.name:14s}{f.found}" + (f"  ->  {f.remedy}" if f.remedy else "") for f in findings]
    Console(json).result(as_records(findings), lines)
    return 1 if any(f.status == "missing" for f in findings) else 0


@app.command()
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


@app.command()
def bench(
    name: Annotated[str | None, typer.Argument(help="Only timings whose name starts with this.")] = None,
    json: Json = False,
) -> int:
    """Time the kernels, each as a ratio to a plain reference in the same run.

    Example: vtwin bench ionic
    """
    from planners.app import checks

    return checks.bench(name, Console(json))


_OF_THE_USER = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name a place that you may read and write"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "check the path and the spelling"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "name a shorter path"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room and run the same command again: it resumes"),
}
"""What the system says of a path that the user gave, and what helps."""


def main(argv: list[str] | None = None) -> None:
    """Entry point: every expected failure is one line on standard error and an exit status (interface.md)."""
    sys.exit(run(argv))


def run(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit status: 0 done, 1 failed, 2 wrong input, 3 expectation missed, 130 interrupted."""
    try:
        result: Any = app(args=argv, standalone_mode=False, prog_name="vtwin")
    except VtwinError as error:
        sys.stderr.write(f"vtwin: {error}\n")
        return error.exit_status
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("vtwin: interrupted; what is finished is kept, the same command resumes\n")
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough: `vtwin verify | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None or error.errno not in _OF_THE_USER:
            raise
        sys.stderr.write(f"vtwin: {error.filename}: {(error.strerror or 'cannot be used').lower()}; {_OF_THE_USER[error.errno]}\n")
        return 1 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 2
    except Exception as error:
        # click's own complaints about the call (unknown option, missing argument) carry an exit code and a message
        if hasattr(error, "format_message") and type(error).__name__ == "NoArgsIsHelpError":
            sys.stdout.write(f"{error.format_message()}\n")
            return 2
        if hasattr(error, "format_message"):
            command = getattr(getattr(error, "ctx", None), "command_path", "vtwin")
            sys.stderr.write(f"vtwin: {error.format_message()} ({command} --help lists what there is)\n")
            return 2
        raise
    return result if isinstance(result, int) else 0
