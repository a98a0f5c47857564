"""Commands of the floor `meshing`: a heart from labels, and places from one heart to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planners.app.cli_options import Dry, Fresh, Json, Out, Threads, set_threads
from planners.app.console import Console


def mesh(
    segmentation: Annotated[Path, typer.Argument(help="Label volume: NRRD or NIfTI.")],
    out: Out,
    edge: Annotated[str, typer.Option(help="Mean edge length, with unit.")] = "2.0 mm",
    near_scar: Annotated[str | None, typer.Option(help="Mean edge near scar, border zone and isthmus: half of --edge or less.")] = None,
    near: Annotated[str, typer.Option(help="How far from scar --near-scar holds.")] = "10 mm",
    regions: Annotated[
        str, typer.Option(help="sampled (each element takes the label at its centre), or conforming (boundaries are faces).")
    ] = "sampled",
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
    dry_run: Dry = False,
    json: Json = False,
) -> int:
    """Make a heart mesh with fibres and coordinates from labels or a closed surface; repairs are listed.

    Examples: vtwin mesh cases/demo/labels.nrrd -o out/mesh --edge "1.5 mm"
    vtwin mesh cases/demo/labels.nrrd -o out/fine --near-scar "1 mm" --regions conforming
    vtwin mesh cases/demo/labels.nrrd -o out/doste --fibres doste --valve pulmonary=12,-60,40
    """
    set_threads(threads)
    from planners.app import mesh_command

    finer = None if near_scar is None else (near_scar, near)
    choice = mesh_command.FibreChoice.parse(fibres, valve or [], helix)
    return mesh_command.mesh(segmentation, out, edge, labels, Console(json), choice, accept or [], fresh, optimise, dry_run, finer, regions)


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


COMMANDS = (mesh, transfer)
