"""Maps of any mapping system or of a surface with values, told apart by their content: one reader for cases, inspection and conversion."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_text
from twin.errors import InputError
from twin.io.carto import is_carto, read_carto, write_carto
from twin.io.eam import MAGIC, check_eam, read_eam, write_eam
from twin.io.ecg import check_ecg, is_ecg
from twin.io.ensite import is_ensite, read_ensite, write_dif, write_ensite
from twin.io.ensite.dif import COMMENTS
from twin.io.mat import is_mat
from twin.io.notes import Notes
from twin.io.openep import read_openep, write_openep
from twin.io.study_checks import check_study
from twin.io.surfaces import Surface, read_surface, write_surface
from twin.io.vtk_surface import read_vtk_surface
from twin.patient import Ecg
from twin.study import UNVERIFIED, MappingStudy, Progress, from_surface

FIELDS = {
    "lat_ms": ("latms", "lat", "activationms", "activation", "activationtime", "act", "activationtimesms"),
    "bipolar_mv": ("bipolarmv", "bipolar", "bip", "bipolarvoltage", "voltagebipolar"),
    "unipolar_mv": ("unipolarmv", "unipolar", "uni", "unipolarvoltage", "voltageunipolar"),
}
"""Names of point data, without marks and case, that are taken for times and voltages; times in ms, voltages in mV."""

SURFACES = (".vtp", ".vtu", ".vtk", ".ply")
Reader = Callable[..., MappingStudy]


def reader_of(path: Path) -> tuple[str, Reader] | None:
    """Kind and reader of a study by its content, None for what is none (vtwin's own CSV and bundles among them)."""
    if path.is_file():
        with open(path, "rb") as handle:
            start = handle.read(600)
        if is_mat(start):
            return "OpenEP study", read_openep
        if path.suffix.lower() in SURFACES:
            return "surface with values", read_surface_map
        if start.startswith(MAGIC):
            return None
    if is_carto(path):
        return "CARTO 3 study", read_carto
    if is_ensite(path):
        return "EnSite study", read_ensite
    return None


def is_own(path: Path) -> bool:
    """True for vtwin's own CSV."""
    with open(path, "rb") as handle:
        return handle.read(len(MAGIC)) == MAGIC


def read_study(path: Path, map_name: str | None = None, notes: Notes | None = None, progress: Progress | None = None) -> MappingStudy:
    """Read one map of whatever mapping system. Raises InputError, Suspicious."""
    if not path.exists():
        raise InputError(path, "file", "does not exist", "check the path and the spelling")
    notes_given = notes or Notes()
    if path.is_file() and is_own(path):
        return of_eam(path, notes_given)
    found = reader_of(path)
    if found is None:
        known = "CARTO 3 (folder, zip, 7-Zip), EnSite (folder, zip, DIF, CSV), OpenEP (.mat), .vtp/.vtu/.vtk with point data, vtwin's CSV"
        raise InputError(path, "map", "is no export of a mapping system", f"known: {known}")
    own = Notes(notes_given.accept)
    study = found[1](path, map_name, own, progress)
    # mapping systems put patients' names into the names of exports: what is noted calls it by its kind
    lines = [line.replace(path.name, f"{study.system} export") for line in own.lines]
    for line in lines:
        notes_given.add(line)
    return replace(study, notes=tuple(lines))


def is_study(path: Path) -> bool:
    """True if a file or folder is an export of a mapping system."""
    return path.is_dir() or (not is_own(path) and not is_ecg(path) and reader_of(path) is not None)


def study_ecg(path: Path, map_name: str | None, rhythm: str, notes: Notes) -> Ecg:
    """The 12-lead ECG that a mapping system exported with a map, checked. Raises InputError (also where there is none), Suspicious."""
    study = read_study(path, map_name, notes)
    ecg = study.ecg(rhythm)
    where = Path(f"{study.system} export")
    if ecg is None:
        raise InputError(where, "ecg", "holds no twelve leads", "export the surface ECG with the points, or give it as a file of its own")
    check_ecg(ecg, where, notes)
    notes.add(f"the ECG is the {study.system} export's own, {len(ecg.time_ms) / ecg.fs_hz:.1f} s at {ecg.fs_hz:g} Hz")
    return ecg


def of_eam(path: Path, notes: Notes) -> MappingStudy:
    """vtwin's own CSV as a study without shell."""
    eam = read_eam(path, notes)
    n = len(eam.points_mm)
    empty = np.full(n, np.nan)
    numbers = np.arange(1, n + 1, dtype=np.int64)
    return MappingStudy("map", "vtwin", eam.points_mm, eam.lat_ms, eam.bipolar_mv, empty, numbers, labels=dict(eam.landmarks))


def read_surface_map(path: Path, map_name: str | None = None, notes: Notes | None = None, progress: Progress | None = None) -> MappingStudy:
    """A surface whose point data hold times, and voltages if it has them. Raises InputError if no field is named like a time."""
    notes = notes or Notes()
    surface = read_vtk_surface(path) if path.suffix.lower() in (".vtu", ".vtk") else read_surface(path)
    data: dict[str, NDArray[Any]] = {}
    for key, names in FIELDS.items():
        found = [name for name in surface.point_data if re.sub(r"[^a-z0-9]", "", name.lower()) in names]
        if len(found) > 1:
            raise InputError(path, key, f"{len(found)} fields are named like it", f"keep one: {', '.join(sorted(found))[:100]}")
        if found:
            values = np.asarray(surface.point_data[found[0]], np.float64)
            if values.ndim != 1 or np.isinf(values).any():
                raise InputError(path, found[0][:40], "is not one finite number or NaN per point", "export it again")
            data[key] = values
    if "lat_ms" not in data:
        known = ", ".join(sorted(surface.point_data))[:120] or "none"
        raise InputError(path, "lat_ms", "no point data of this name", f"name the times lat_ms; point data there: {known}")
    study = from_surface("surface", "surface", replace(surface, point_data=data), {})
    check_study(study, path, notes)
    return study


def write_study(path: Path, study: MappingStudy, surface: str = "lv_endo", progress: Progress | None = None) -> list[str]:
    """Write by suffix: .csv (vtwin), .vtp (shell or points), .xml (DIF), .mat (OpenEP), .zip (CARTO), a folder (EnSite).

    Returns lines that say what the format loses and what is not verified. Raises InputError.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        write_eam(path, check_eam(study.eam(surface), path, Notes(("eam_extent", "eam_lat_span", "eam_duplicates"))))
        return ["CSV holds points, times and bipolar voltages: shell, unipolar voltages and electrograms are left out"]
    if suffix == ".vtp":
        return _write_vtp(path, study)
    if suffix == ".xml":
        return _write_dif(path, study)
    if suffix == ".mat":
        write_openep(path, study, progress)
        return ["labels are left out"] if study.labels else []
    if suffix == ".zip":
        write_carto(path, study, progress=progress)
        return [UNVERIFIED]
    if not suffix:
        write_ensite(path, study, progress)
        return [UNVERIFIED, "unipolar voltages are on the shell alone"]
    raise InputError(
        path, "file", f"a map is not written as {suffix}", "known: .csv, .vtp, .xml (DIF), .mat, .zip (CARTO), a folder (EnSite)"
    )


def _write_vtp(path: Path, study: MappingStudy) -> list[str]:
    if study.surface is not None:
        write_surface(path, study.surface)
        return ["the shell with its fields is written; the points are in .csv and .mat"]
    fields = {name: getattr(study, name) for name in ("lat_ms", "bipolar_mv", "unipolar_mv")}
    write_points_vtp(path, study.points_mm, {name: values for name, values in fields.items() if np.isfinite(values).any()})
    return ["the map has no shell: its points are written"]


def write_points_vtp(path: Path, points_mm: NDArray[np.float64], fields: dict[str, NDArray[Any]]) -> None:
    """Write points as vertices of a VTK polydata file, atomically."""
    from twin.io.vtk_xml import element

    n = len(points_mm)
    verts = {"connectivity": np.arange(n, dtype=np.int64), "offsets": np.arange(1, n + 1, dtype=np.int64)}
    lines = [
        '<?xml version="1.0"?>',
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">',
        f'<PolyData><Piece NumberOfPoints="{n}" NumberOfVerts="{n}" NumberOfLines="0" NumberOfStrips="0" NumberOfPolys="0">',
        "<PointData>" + "".join(element(name, values) for name, values in fields.items()) + "</PointData>",
        "<Points>" + element("Points", points_mm) + "</Points>",
        "<Verts>" + "".join(element(name, values) for name, values in verts.items()) + "</Verts>",
        "</Piece></PolyData></VTKFile>",
    ]
    write_text(path, "\n".join(lines) + "\n")


def _write_dif(path: Path, study: MappingStudy) -> list[str]:
    if study.surface is None:
        raise InputError(path, "surface", "the map has no shell, which DIF needs", "write CSV instead")
    known = [name for name in ("lat_ms", *COMMENTS) if name in study.surface.point_data]
    quantity = known[0] if known else ""
    write_dif(path, study.surface, quantity, dict(study.labels), study.name)
    return [f"DIF holds one quantity: {quantity or 'none'}; the points are left out", UNVERIFIED]


def study_lines(study: MappingStudy) -> list[str]:
    """What a map holds, for a person."""
    timed, volts = int(np.isfinite(study.lat_ms).sum()), int(np.isfinite(study.bipolar_mv).sum())
    lines = [f"{study.system}, map {study.name!r}: {len(study)} points, {timed} with a time, {volts} with a bipolar voltage"]
    if study.surface is not None:
        lines.append(_shell_line(study.surface))
    return [*lines, *study.notes]


def _shell_line(surface: Surface) -> str:
    fields = ", ".join(surface.point_data) or "no values"
    return f"shell: {len(surface.points_mm)} points, {len(surface.triangles)} triangles, {surface.area_cm2:.1f} cm2, {fields}"
