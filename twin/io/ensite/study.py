"""An EnSite export as one MappingStudy: geometry files of one shell merged, points of one map, traces when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.archive import AGAIN, StudyFiles, looks_packed, open_study
from twin.io.ensite.dif import MAX_BYTES as MAX_DIF_BYTES
from twin.io.ensite.dif import parse_dif, with_missing
from twin.io.ensite.table import Header, Points, lat_of, lines_of, parse_columns, parse_rows, read_field
from twin.io.ensite.waves import BlockWaves, RowWaves, parse_waves
from twin.io.notes import Notes
from twin.io.study_checks import check_recordings, check_study, choose_map, public_name, words_of
from twin.io.surfaces import Surface
from twin.study import MappingStudy, Progress, Recording, from_surface

Array = NDArray[np.float64]
SYSTEM = "EnSite"
HEAD_LINES = 300
SAME_MM = 0.01
GEOMETRY = ("dxlandmarkgeo", "contact_mapping_model", "modelgroups")
POINTS = ("dxl_", "map_", "ecg_raw", "ecg_filtered")
"""Beginnings of names of files that must be what their name says: an export holds many others."""


def is_ensite(path: Path) -> bool:
    """True for a DIF or contact-mapping CSV file, or a folder or archive that holds one. Reads first bytes alone."""
    try:
        if path.is_file():
            with open(path, "rb") as handle:
                start = handle.read(4096)
            if not looks_packed(start[:8]):
                return is_one(start)
        elif any(path.glob("*.mesh")):
            return False
        files = open_study(path, flat=False)
        return any(is_one(files.start(name)) for name in [*files.names(".xml"), *files.names(".csv")][:200])
    except (InputError, OSError):
        return False


def is_one(start: bytes) -> bool:
    """True for the first bytes of a DIF or an EnSite CSV."""
    head = start.lower()
    return b"<dif>" in head or b"st. jude medical" in head or (b"export data element" in head and b"export" in head[:400])


def read_ensite(path: Path, map_name: str | None = None, notes: Notes | None = None, progress: Progress | None = None) -> MappingStudy:
    """Read one map of an export: a folder, an archive, or one DIF or CSV file. Raises InputError; Suspicious for the improbable."""
    notes = notes or Notes()
    files = _files(path)
    shells, labels = _geometry(files, notes)
    tables, ecg = _tables(files, progress)
    words = {word for table in tables for word in table.points.header.study_words}
    labels = {label: place for label, place in labels.items() if not words & words_of(label)}
    by_map: dict[str, list[_Table]] = {}
    for table in tables:
        by_map.setdefault(table.points.header.map_name, []).append(table)
    raw = list(by_map) or list(shells)
    counts = [_count(group) for group in by_map.values()] or [len(shell.points_mm) for shell in shells.values()]
    names = [public_name(name, words, k) for k, name in enumerate(raw, start=1)]
    if not raw:
        raise InputError(path, "EnSite export", "holds neither a geometry nor contact mapping points", AGAIN)
    place = choose_map(names, raw, counts, map_name, path, notes)
    if by_map:
        study = _of_tables(list(by_map.values())[place], files, names[place], shells, labels, ecg, notes)
    else:
        study = from_surface(names[place], SYSTEM, shells[raw[place]], labels)
    check_study(study, path, notes)
    check_recordings(study, path, notes)
    return replace(study, notes=tuple(notes.lines))


def _files(path: Path) -> StudyFiles:
    if path.is_file():
        with open(path, "rb") as handle:
            packed = looks_packed(handle.read(8))
        if not packed:
            return StudyFiles(path, {path.name: path.name}, {path.name: path.stat().st_size}, folder=path.parent)
    return open_study(path, flat=False)


def _geometry(files: StudyFiles, notes: Notes) -> tuple[dict[str, Surface], dict[str, Array]]:
    """Volumes by name; files over the same vertices are merged, since each holds one quantity."""
    shells: dict[str, Surface] = {}
    labels: dict[str, Array] = {}
    for name in files.names(".xml"):
        if b"<dif>" not in files.start(name).lower():
            if PurePosixPath(name).name.lower().startswith(GEOMETRY):
                raise InputError(files.where, "geometry XML", "a file with the name of a geometry is no DIF", AGAIN)
            continue
        found = parse_dif(files.read(name, MAX_DIF_BYTES), files.where)
        labels |= found.labels
        for volume, raw in found.volumes.items():
            surface = with_missing(raw)
            if "map_data" in surface.point_data:
                problem = "has values, and no comment that says whether they are times or voltages"
                notes.suspect("eam_quantity", files.where, "Map_data", problem, "export the map again")
            same = next((key for key, shell in shells.items() if _same(shell, surface)), None)
            if same is None and any(_same_vertices(shell, surface) for shell in shells.values()):
                notes.suspect("eam_shells", files.where, "Polygons", "two files join the same vertices differently", "export the map again")
            if same is None:
                shells[volume if volume not in shells else f"{volume} #{len(shells) + 1}"] = surface
                continue
            known = shells[same].point_data
            doubled = [
                key for key in surface.point_data if key in known and key.endswith(("_mv", "_ms")) and not _equal(known, surface, key)
            ]
            if doubled:
                notes.suspect("eam_shells", files.where, doubled[0], "two files give different values on one shell", "give one map")
            shells[same] = replace(shells[same], point_data={**surface.point_data, **known})
    return shells, labels


def _equal(known: Mapping[str, Any], surface: Surface, key: str) -> bool:
    return bool(np.array_equal(known[key], surface.point_data[key], equal_nan=True))


def _same(a: Surface, b: Surface) -> bool:
    return np.array_equal(a.triangles, b.triangles) and _same_vertices(a, b)


def _same_vertices(a: Surface, b: Surface) -> bool:
    return a.points_mm.shape == b.points_mm.shape and float(np.abs(a.points_mm - b.points_mm).max()) < SAME_MM


@dataclass
class _Table:
    """Points of one CSV file, where it stands, and how it is laid out."""

    name: str
    points: Points
    transposed: bool

    @property
    def folder(self) -> str:
        return str(PurePosixPath(self.name).parent)


def _tables(files: StudyFiles, progress: Progress | None) -> tuple[list[_Table], Recording | None]:
    found: list[_Table] = []
    ecg: Recording | None = None
    names = files.names(".csv")
    for k, name in enumerate(names):
        header = _head(files, name)
        with files.open(name) as handle:
            lines = lines_of(iter(handle), files.where)
            if header.element.lower().startswith("ecg_") and ecg is None:
                ecg = parse_waves(lines, files.where)
            elif header.quantity and header.data_row > 0:
                found.append(_Table(name, parse_rows(lines, files.where), False))
            elif header.element.lower() == "dxldata" or (header.element.lower().startswith("dxl") and header.data_row < 0):
                found.append(_Table(name, parse_columns(lines, files.where), True))
            elif PurePosixPath(name).name.lower().startswith(POINTS):
                raise InputError(files.where, "CSV file", "a file with the name of one with points is none", AGAIN)
        if progress is not None:
            progress("files", k + 1, len(names))
    for table in found:
        at, of = table.points.header.file_of
        group = [t for t in found if t.transposed and t.folder == table.folder and t.points.header.map_name == table.points.header.map_name]
        if table.transposed and (not 1 <= at <= of or len(group) != of):
            problem = f"{len(group)} of {of} files of a map are there"
            raise InputError(files.where, "CSV files", problem, "give all files of the map")
    return found, ecg


def _head(files: StudyFiles, name: str) -> Header:
    header = Header()
    with files.open(name) as handle:
        for line in lines_of(iter(handle), files.where):
            header.lines += 1
            if header.lines > HEAD_LINES or line.startswith(("Begin data", "pt number:", "t_dws,")):
                break
            read_field(header, line)
    return header


def _count(group: list[_Table]) -> int:
    return sum(len(t.points) for t in group) if group[0].transposed else len(group[0].points)


def _of_tables(
    group: list[_Table],
    files: StudyFiles,
    name: str,
    shells: dict[str, Surface],
    labels: dict[str, Array],
    ecg: Recording | None,
    notes: Notes,
) -> MappingStudy:
    transposed = [t for t in group if t.transposed]
    if transposed and len(transposed) != len(group):
        raise InputError(files.where, "CSV files", "Precision and EnSite X files are mixed", "give the export of one system")
    if transposed:
        transposed.sort(key=lambda t: t.points.header.file_of[0])
        keys = set.intersection(*(set(t.points.values) for t in transposed))
        values = {key: np.concatenate([t.points.values[key] for t in transposed]) for key in keys}
        recordings: _BlockRecordings | _RowRecordings = _BlockRecordings([BlockWaves(files, t.name, len(t.points)) for t in transposed])
    else:
        values = _merge_rows(group, files.where)
        recordings = _row_recordings(group, values, files)
    n = len(values["x"])
    points = np.stack([values[axis] for axis in "xyz"], axis=1)

    def column(key: str) -> Array:
        return values.get(key, np.full(n, np.nan))

    used = column("used")
    lat = np.where(used == 0, np.nan, lat_of(values)) if "used" in values else lat_of(values)
    if "used" in values and (used == 0).any():
        notes.add(f"{int((used == 0).sum())} points that the map does not use keep their place and lose their times")
    shell = _nearest_shell(points, shells)
    numbers = column("point")
    if (numbers < 0).any() or (numbers > 1e12).any():
        raise InputError(files.where, "point number", "is negative or has too many digits", AGAIN)
    # several electrodes record one point number of Precision: its number is the beat's
    ids = np.arange(1, n + 1) if transposed or not np.isfinite(numbers).all() else numbers.astype(np.int64)
    return MappingStudy(
        name,
        SYSTEM + (" Precision" if transposed else " X"),
        points,
        lat,
        column("voltage"),
        column("unipolar"),
        ids.astype(np.int64),
        shell,
        np.stack([column(f"surface_{axis}") for axis in "xyz"], axis=1),
        window_ms=np.stack([column("left"), column("right")], axis=1),
        labels=labels,
        recordings=recordings,
        leads=None if ecg is None else ecg.ecg(),
    )


def _nearest_shell(points: Array, shells: dict[str, Surface]) -> Surface | None:
    if len(shells) < 2:
        return next(iter(shells.values()), None)
    from scipy.spatial import KDTree

    return min(shells.values(), key=lambda shell: float(np.median(KDTree(shell.points_mm).query(points)[0])))


def _merge_rows(group: list[_Table], where: Path) -> dict[str, Array]:
    """One table of several over the same points: LAT, bipolar and unipolar voltage come in files of their own."""
    first = group[0].points
    values = dict(first.values)
    values.pop("voltage", None)
    for table in group:
        found, quantity = table.points.values, table.points.header.quantity.lower()
        if len(table.points) != len(first) or np.abs(found["x"] - first.values["x"]).max() > SAME_MM:
            raise InputError(where, "CSV files", "files of one map list different points", "export them together")
        if "point" in found and (found["point"] != first.column("point")).any():
            raise InputError(where, "(Point #)", "files of one map number their points differently", "export them together")
        for key in ("lat", "left", "right"):
            if key in found and (key != "lat" or "lat" in quantity):
                values[key] = found[key]
        if "voltage" in found and "pp" in quantity:
            values["unipolar" if "uni" in quantity else "voltage"] = found["voltage"]
    return values


@dataclass
class _BlockRecordings:
    """Traces of Precision files, one file after the other."""

    parts: list[BlockWaves]

    def __len__(self) -> int:
        return sum(part.points for part in self.parts)

    def read(self, index: int) -> Recording | None:
        """One point's traces, by block: rovtrace, reftrace, ..."""
        for part in self.parts:
            if index < part.points:
                found = part.channels(index)
                if found is None:
                    return None
                rate, channels = found
                bipolar, reference = (name if name in channels else "" for name in ("rovtrace", "reftrace"))
                return Recording(rate, channels, bipolar, "", reference)
            index -= part.points
        raise IndexError(index)


@dataclass
class _RowRecordings:
    """Traces of EnSite X: roving by point, unipolar by point, references by freeze group."""

    n: int
    bipolar: RowWaves | None
    unipolar: RowWaves | None
    reference: RowWaves | None
    groups: NDArray[np.int64]
    rows: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.n

    def read(self, index: int) -> Recording | None:
        """One point's traces: rov, uni, ref, where the export has them."""
        channels: dict[str, Array] = {}
        rate = float("nan")
        for name, waves in (("rov", self.bipolar), ("uni", self.unipolar)):
            if waves is not None:
                channels[name], rate = waves.trace(index), waves.rate_hz
        row = self.rows.get(int(self.groups[index]), -1)
        if self.reference is not None:
            if row < 0:
                raise InputError(self.reference.files.where, "Wave_refs", "lacks the freeze group of a point", AGAIN)
            channels["ref"] = self.reference.trace(row)
        if not channels:
            return None
        bipolar, unipolar, reference = (name if name in channels else "" for name in ("rov", "uni", "ref"))
        return Recording(rate, channels, bipolar, unipolar, reference)


def _row_recordings(group: list[_Table], values: dict[str, Array], files: StudyFiles) -> _RowRecordings:
    folder, n = group[0].folder, len(values["x"])
    found: dict[str, RowWaves] = {}
    for name in files.names(".csv"):
        plain = PurePosixPath(name).name.lower()
        for kind, begin in (("bipolar", "wave_rov"), ("unipolar", "wave_uni_distal"), ("reference", "wave_refs")):
            if plain.startswith(begin) and str(PurePosixPath(name).parent) == folder:
                found[kind] = RowWaves.open(files, name)
    for kind in ("bipolar", "unipolar"):
        if kind in found and len(found[kind].offsets) != n:
            raise InputError(files.where, "wave file", f"has {len(found[kind].offsets)} rows for {n} points", AGAIN)
    groups = np.nan_to_num(values.get("group", np.full(n, -1.0)), nan=-1.0).astype(np.int64)
    reference = found.get("reference")
    rows = {number: k for k, number in enumerate(reference.groups)} if reference is not None else {}
    return _RowRecordings(n, found.get("bipolar"), found.get("unipolar"), reference, groups, rows=rows)
