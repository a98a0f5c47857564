"""`vtwin convert`: labels, surfaces and meshes between formats; a closed surface to labels; experiments to and from openCARP; maps."""

from __future__ import annotations

from pathlib import Path

from planners.app.console import Console
from twin.errors import InputError
from twin.io.convert import EXPERIMENT_SUFFIXES, convert_mesh, kind_of, mesh_to_surface
from twin.io.ecg import convert_ecg, is_ecg
from twin.io.volume_mesh import SUFFIXES as MESH_SUFFIXES


def convert(
    source: Path, target: Path, console: Console, labels: str | None = None, spacing: str = "1 mm", map_name: str | None = None
) -> int:
    """Convert one file; what was found, assumed and lost on the way is said."""
    lines = _study(source, target, console, map_name) or _lines(source, target, labels, spacing)
    console.result({"written": str(target), "notes": lines}, [*lines, f"wrote {target}"])
    return 0


MAP_TARGETS = (".csv", ".mat", ".xml", ".zip")


def _study(source: Path, target: Path, console: Console, map_name: str | None) -> list[str]:
    """A map of a mapping system (or a surface that is to become one) to another format; empty if `source` is no map."""
    from twin.io import studies
    from twin.io.ensite import write_dif
    from twin.io.surfaces import read_surface
    from twin.study import UNVERIFIED

    if not source.exists():
        return []
    found = studies.reader_of(source)
    own = source.suffix.lower() == ".csv" and studies.is_own(source)
    a_map = own or (found is not None and (source.suffix.lower() not in studies.SURFACES or target.suffix.lower() in MAP_TARGETS))
    if not a_map:
        if map_name is not None:
            raise InputError(source, "--map", "is asked, but the file is no study of a mapping system", "leave --map out")
        return []
    if _same(source, target):
        raise InputError(target, "file", "is the source itself", "name another file")
    try:
        study = studies.read_study(source, map_name, progress=lambda what, done, total: console.bar(done, total, what))
    except InputError as error:
        if source.suffix.lower() not in studies.SURFACES or target.suffix.lower() != ".xml" or error.field != "lat_ms":
            raise
        write_dif(target, read_surface(source))
        return ["a surface without times is written as geometry alone", UNVERIFIED]
    return [*studies.study_lines(study), *studies.write_study(target, study)]


def _lines(source: Path, target: Path, labels: str | None, spacing: str) -> list[str]:
    if is_ecg(source):
        if _same(source, target):
            raise InputError(target, "file", "is the source itself", "name another file")
        return convert_ecg(source, target)
    kind = kind_of(source)
    if kind == "experiment":
        return _experiment(source, target)
    if source.is_dir() and kind == "mesh":
        raise InputError(source, "file", "is a folder", "name a file")
    if _same(source, target):
        raise InputError(target, "file", "is the source itself", "name another file")
    kinds = kind, kind_of(target)
    if kinds == ("mesh", "mesh"):
        return convert_mesh(source, target)
    if kinds == ("mesh", "surface"):
        return mesh_to_surface(source, target)
    if "experiment" in kinds or kinds == ("mesh", "labels"):
        raise InputError(target, "file", f"a {kinds[0]} file does not become {kinds[1]}", "name another target")
    if kinds[1] == "mesh":
        raise InputError(target, "file", "is a mesh", f"`vtwin mesh {source.name} -o FOLDER` makes meshes of labels")
    from meshing import voxelise
    from planners.app.mesh_command import parse_labels
    from twin.units import quantity

    return voxelise.convert(source, target, parse_labels(labels), quantity(spacing, "mm", "command line", "--spacing"))


def _same(source: Path, target: Path) -> bool:
    return source.exists() and target.exists() and source.samefile(target)


def _experiment(source: Path, target: Path) -> list[str]:
    """An experiment file to a folder for openCARP, or openCARP's parameter file to an experiment file."""
    from solvers.cell_experiment import is_cell_experiment
    from solvers.exchange import experiment_toml, export_opencarp, import_opencarp
    from solvers.experiment import load_experiment
    from twin.atomic import write_text

    if source.suffix.lower() == ".toml":
        if target.suffix.lower() in (*EXPERIMENT_SUFFIXES, *MESH_SUFFIXES):
            raise InputError(target, "folder", f"has the suffix {target.suffix}", "an experiment becomes a folder that openCARP runs")
        if is_cell_experiment(source):
            raise InputError(source, "cell", "a single cell has no mesh to export", "run openCARP's `bench` with its model and protocol")
        made = export_opencarp(load_experiment(source), target)
        return [*made.notes, f"{len(made.files)} files; run there: openCARP +F experiment.par -simID out"]
    if target.suffix.lower() != ".toml":
        raise InputError(target, "file", f"{target.suffix or 'no suffix'} is no experiment file", "name it experiment.toml")
    if target.exists():
        raise InputError(target, "file", "exists", "name another file")
    experiment, notes = import_opencarp(source)
    text = experiment_toml(experiment, target.parent, [f"Read by vtwin from {source.name} (openCARP).", *notes])
    write_text(target, text)
    load_experiment(target)
    return list(notes)
