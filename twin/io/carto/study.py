"""A CARTO 3 export as one MappingStudy: the map chosen by name, its shell, points and annotations; electrograms when asked for."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.archive import AGAIN, BROKEN, SEVEN_ZIP_MAGIC, ZIP_MAGIC, StudyFiles, open_study
from twin.io.carto.mesh import MAX_BYTES as MAX_MESH_BYTES
from twin.io.carto.mesh import parse_mesh
from twin.io.carto.points import FLOATING, LOCATION_ONLY, MAX_CAR_BYTES, CarTable, PointExport, parse_car, parse_point
from twin.io.carto.signals import MAX_BYTES as MAX_ECG_BYTES
from twin.io.carto.signals import RATE_HZ, parse_ecg
from twin.io.carto.xml import MAX_POINT_BYTES, MapEntry, StudyXml, find_study, read_study_xml
from twin.io.notes import Notes
from twin.io.study_checks import check_complete, check_recordings, check_study, choose_map, public_name, words_of
from twin.io.surfaces import Surface
from twin.study import MappingStudy, Progress, Recording

Array = NDArray[np.float64]
SYSTEM = "CARTO 3"
VOLTAGE_AGREES_MV = 0.02


def is_carto(path: Path) -> bool:
    """True for a folder with `.mesh` files, a zip that lists one or holds an archive alone, and 7-Zip. Reads names alone."""
    if path.is_dir():
        return any(path.glob("*.mesh")) or any(path.glob("*/*.mesh")) or any(path.glob("*/*/*.mesh"))
    try:
        with open(path, "rb") as handle:
            start = handle.read(8)
        if start.startswith(SEVEN_ZIP_MAGIC):
            return True
        if not start.startswith(ZIP_MAGIC):
            return False
        with zipfile.ZipFile(path) as archive:
            names = [name.lower() for name in archive.namelist()]
    except BROKEN:
        return False
    files = [name for name in names if not name.endswith("/")]
    return any(name.endswith((".mesh", "_car.txt")) for name in files) or (len(files) == 1 and files[0].endswith((".zip", ".7z")))


def list_maps(path: Path) -> list[tuple[str, int]]:
    """Names of the maps of an export, without words of the study's name, and how many points each has. Raises InputError."""
    files = open_study(path)
    study = read_study_xml(files, find_study(files))
    return [(public_name(entry.name, study.words, k), len(entry.ids)) for k, entry in enumerate(study.maps, start=1)]


def read_carto(path: Path, map_name: str | None = None, notes: Notes | None = None, progress: Progress | None = None) -> MappingStudy:
    """Read one map of an export; `map_name` (or "#2", its place in the list) is needed when several have points.

    Raises InputError for damage and for what contradicts itself; Suspicious for what reads well and is improbable.
    """
    notes = notes or Notes()
    files = open_study(path)
    study = read_study_xml(files, find_study(files))
    names = [public_name(entry.name, study.words, k) for k, entry in enumerate(study.maps, start=1)]
    place = choose_map(names, [entry.name for entry in study.maps], [len(entry.ids) for entry in study.maps], map_name, path, notes)
    entry = study.maps[place]
    stem = re.sub(r"\.mesh$", "", entry.mesh, flags=re.IGNORECASE) or entry.name
    surface = _surface(files, entry)
    car = _car(files, entry, stem, notes)
    exports = _exports(files, entry, stem, progress)
    _check_complete(files, exports, len(entry.ids), notes)
    made = _assemble(files, study, entry, names[place], surface, car, exports, notes)
    check_study(made, path, notes)
    check_recordings(made, path, notes)
    return replace(made, notes=tuple(notes.lines))


def _surface(files: StudyFiles, entry: MapEntry) -> Surface | None:
    name = files.find(entry.mesh)
    if not name:
        if entry.mesh:
            raise InputError(files.where, "mesh", "the map's mesh file is not in the export", AGAIN)
        return None
    return parse_mesh(files.read(name, MAX_MESH_BYTES), files.where)


def _car(files: StudyFiles, entry: MapEntry, stem: str, notes: Notes) -> CarTable | None:
    name = files.find(f"{stem}_car.txt") or files.find(f"{entry.name}_car.txt")
    if not name:
        notes.add("the export has no car.txt of this map: voltages and times are those of the point files")
        return None
    car = parse_car(files.read(name, MAX_CAR_BYTES), files.where)
    if len(car.ids) != len(entry.ids):
        raise InputError(files.where, "car.txt", f"has {len(car.ids)} points, the study XML {len(entry.ids)}", AGAIN)
    if (car.ids != np.array(entry.ids)).any():
        raise InputError(files.where, "car.txt", "its points are not those of the study XML", AGAIN)
    return car


def _exports(files: StudyFiles, entry: MapEntry, stem: str, progress: Progress | None) -> dict[int, PointExport]:
    """Point files by index of the point; those that the export lacks are left out."""
    found: dict[int, PointExport] = {}
    lowered = {name.lower(): name for name in files.members}
    words: dict[str, str] = {}
    for index, number in enumerate(entry.ids):
        names = (f"{stem}_P{number}_Point_Export.xml", f"{entry.name}_P{number}_Point_Export.xml")
        name = next((lowered[n.lower()] for n in names if n.lower() in lowered), "")
        if name:
            one = parse_point(files.read(name, MAX_POINT_BYTES), files.where)
            # channels are the same few words for all points
            same: dict[str, Any] = {
                key: words.setdefault(value, value) for key in ("unipolar", "bipolar", "reference") if (value := getattr(one, key))
            }
            found[index] = replace(one, **same)
        if progress is not None and (index % 500 == 499 or index + 1 == len(entry.ids)):
            progress("points", index + 1, len(entry.ids))
    return found


def _check_complete(files: StudyFiles, exports: dict[int, PointExport], n: int, notes: Notes) -> None:
    check_complete(np.array([k in exports for k in range(n)]), "Point_Export.xml", files.where, notes)
    if not exports:
        return
    found = list(exports.values())
    check_complete(np.array([np.isfinite(one.window_ms).all() for one in found]), "WOI", files.where, notes)
    check_complete(np.array([np.isfinite(one.reference_ms) for one in found]), "Reference_Annotation", files.where, notes)
    check_complete(np.array([one.says_ecg for one in found]), "ECG", files.where, notes)
    named = [one.ecg_file.lower() for one in found if one.ecg_file]
    known = {name.lower() for name in files.members}
    check_complete(np.array([name in known for name in named], np.bool_), "ECG_Export", files.where, notes)


def _assemble(
    files: StudyFiles,
    study: StudyXml,
    entry: MapEntry,
    name: str,
    surface: Surface | None,
    car: CarTable | None,
    exports: dict[int, PointExport],
    notes: Notes,
) -> MappingStudy:
    n = len(entry.ids)
    points = np.array(entry.places, np.float64).reshape(n, 3)
    of_export = {key: _column(exports, key, n) for key in ("lat_ms", "unipolar_mv", "bipolar_mv", "reference_ms", "map_ms")}
    window = np.full((n, 2), np.nan)
    for index, one in exports.items():
        window[index] = one.window_ms
    lat, unipolar, bipolar = of_export["lat_ms"], of_export["unipolar_mv"], of_export["bipolar_mv"]
    if car is not None:
        _same_places(points, car, files.where)
        car = _voltage_order(car, unipolar, bipolar, files.where, notes)
        _same_times(lat, car, files.where, notes)
        unipolar = np.where(np.isfinite(unipolar), unipolar, car.unipolar_mv)
        bipolar = np.where(np.isfinite(bipolar), bipolar, car.bipolar_mv)
        # where the table says that there is no value, an annotation left at its default is none
        lat = np.where(np.isfinite(car.lat_ms), np.where(np.isfinite(lat), lat, car.lat_ms), np.nan)
    keep, plain = _kinds(car, entry, study.tag_names, n)
    lat = np.where(plain, lat, np.nan)
    if not keep.all():
        notes.add(f"{int((~keep).sum())} floating points were left out")
    tags = [(study.tag_names.get(t, ""), points[index]) for index, found in entry.tags.items() for t in found]
    labels = {tag: place for tag, place in tags if tag and not study.words & words_of(tag)}
    recordings = CartoRecordings(files, [exports.get(int(k)) for k in np.flatnonzero(keep)], dict(_ecg_names(files)))
    return MappingStudy(
        name,
        SYSTEM,
        points[keep],
        lat[keep],
        bipolar[keep],
        unipolar[keep],
        np.array(entry.ids, np.int64)[keep],
        surface,
        reference_ms=of_export["reference_ms"][keep],
        map_ms=of_export["map_ms"][keep],
        window_ms=window[keep],
        labels=labels,
        recordings=recordings,
    )


def _column(exports: Mapping[int, PointExport], key: str, n: int) -> Array:
    out = np.full(n, np.nan)
    for index, one in exports.items():
        out[index] = getattr(one, key)
    return out


def _same_places(points: Array, car: CarTable, where: Path) -> None:
    off = np.linalg.norm(points - car.points_mm, axis=1)
    if len(off) and np.median(off) > 0.1:
        problem = f"positions differ between study XML and car.txt by {np.median(off):.3g} mm (median)"
        raise InputError(where, "points", problem, "units or axes of one of them are wrong: export again")


def _voltage_order(car: CarTable, unipolar: Array, bipolar: Array, where: Path, notes: Notes) -> CarTable:
    """The table as it is, or with its voltage columns exchanged where the point files show that they are (published notes disagree)."""
    both = np.isfinite(unipolar) & np.isfinite(bipolar) & np.isfinite(car.unipolar_mv) & np.isfinite(car.bipolar_mv)
    if both.sum() < 5:
        return car
    straight = np.median(np.abs(car.unipolar_mv - unipolar)[both] + np.abs(car.bipolar_mv - bipolar)[both])
    crossed = np.median(np.abs(car.bipolar_mv - unipolar)[both] + np.abs(car.unipolar_mv - bipolar)[both])
    if min(straight, crossed) > VOLTAGE_AGREES_MV + 0.05 * float(np.median(unipolar[both])):
        notes.suspect("eam_voltages", where, "car.txt", "its voltages are not those of the point files", "export the map again")
    if crossed < straight:
        notes.add("car.txt lists bipolar before unipolar voltages, as the point files show")
        return replace(car, unipolar_mv=car.bipolar_mv, bipolar_mv=car.unipolar_mv)
    return car


def _same_times(lat: Array, car: CarTable, where: Path, notes: Notes) -> None:
    both = np.isfinite(lat) & np.isfinite(car.lat_ms)
    if both.sum() < 5:
        return
    off = float(np.median(np.abs(lat - car.lat_ms)[both]))
    turned = float(np.median(np.abs(lat + car.lat_ms)[both]))
    if off > 2.0 and turned < 0.5 * off:
        problem = "times in car.txt have the other sign than map annotation - reference annotation"
        notes.suspect("eam_lat_sign", where, "LAT", problem, "export the map again")
    elif off > 2.0:
        problem = f"times in car.txt and annotations differ by {off:.0f} ms (median)"
        notes.suspect("eam_annotations", where, "LAT", problem, "export the map again")


def _kinds(car: CarTable | None, entry: MapEntry, tag_names: Mapping[int, str], n: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which points touched tissue, and which carry a time: not those marked as location only."""
    keep, plain = np.ones(n, bool), np.ones(n, bool)
    if car is not None:
        keep &= car.point_type != FLOATING
        plain &= car.point_type != LOCATION_ONLY
    for index, tags in entry.tags.items():
        if any(tag_names.get(tag, "").lower() == "location only" for tag in tags):
            plain[index] = False
    return keep, plain


def _ecg_names(files: StudyFiles) -> list[tuple[str, str]]:
    return [(name.lower(), name) for name in files.members if "ecg_export" in name.lower()]


@dataclass
class CartoRecordings:
    """ECG_Export files by point; several points may share one, the last file read is kept."""

    files: StudyFiles
    points: list[PointExport | None]
    known: dict[str, str]
    last: tuple[str, Recording] | None = field(default=None)
    samples: int = 0

    def __len__(self) -> int:
        return len(self.points)

    def read(self, index: int) -> Recording | None:
        """One point's window with its annotations. Raises InputError for damage and for channels that the file lacks."""
        point = self.points[index]
        name = self.known.get(point.ecg_file.lower(), "") if point is not None else ""
        if point is None or not name:
            return None
        if self.last is None or self.last[0] != name:
            self.last = name, parse_ecg(self.files.read(name, MAX_ECG_BYTES), self.files.where)
        window = self.last[1]
        mapped = {}
        for kind in ("bipolar", "unipolar", "reference"):
            channel = getattr(point, kind) or getattr(window, kind)
            if channel and channel not in window.channels:
                raise InputError(self.files.where, "ECG_Export", f"lacks the {kind} channel of its point", AGAIN)
            mapped[kind] = channel
        samples = len(next(iter(window.channels.values())))
        if self.samples not in (0, samples):
            raise InputError(self.files.where, "ECG_Export", f"holds {samples} samples, others {self.samples}: truncated", AGAIN)
        self.samples = samples
        for time in (point.reference_ms, point.map_ms):
            if np.isfinite(time) and not 0 <= time * RATE_HZ / 1000.0 <= samples:
                raise InputError(self.files.where, "Annotations", "lie outside the recording", AGAIN)
        return replace(window, reference_ms=point.reference_ms, map_ms=point.map_ms, **mapped)
