"""Commands of the floor `twin`: what evidence is, what it says, and what is made of it without a heart's physics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planners.app.cli_options import Dry, Fresh, Json, Out
from planners.app.console import Console


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


def fuse(
    study: Annotated[Path, typer.Argument(help="Study file (TOML): the table and the columns of each block; or a folder of them.")],
    out: Out,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the folds (default: the study's).")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes (default: one per core).")] = None,
    fresh: Fresh = False,
    dry_run: Dry = False,
    json: Json = False,
) -> int:
    """Fit and evaluate fusion models of clinical and imaging blocks on a table, or on all tables that a folder has studies for.

    Example: vtwin fuse cases/fusion/cleveland.toml -o out/cleveland
    """
    from planners.app import fuse_command

    if dry_run:
        return fuse_command.dry_run(study, out, seed, fresh, Console(json))
    return fuse_command.fuse(study, out, seed, fresh, Console(json), workers)


COMMANDS = (inspect, convert, annotate, image, extract, risk, fuse)
