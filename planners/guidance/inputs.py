"""What a procedure leaves for guidance: delivered lesions, new map points, the ECG of a new VT; read, checked, kept without names.

New points: CSV as `# vtwin-eam 1` (any number of rows; `map:` and a column `time_s` too), or an export of a mapping system.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.eam import CARTO_NO_VALUE
from twin.io.ecg import read_ecg, write_ecg
from twin.io.lesions import Delivered, read_lesions, write_lesions
from twin.io.notes import Notes
from twin.io.source import did_you_mean
from twin.io.studies import read_study
from twin.io.table import read_table, write_table
from twin.patient import Ecg

Array = NDArray[np.float64]

KINDS = {"lesions": "lesions.csv", "eam": "points.csv", "vt": "vt.csv"}
"""Input by kind, and its name in a folder that is watched."""

HEADER = ("surface", "rhythm", "units", "map")
COLUMNS = ("x_mm", "y_mm", "z_mm", "lat_ms")
MOST = 200_000
EXTENT_MM = 400.0
"""No heart with its great vessels is larger: points farther apart are strays, or in another unit."""

DAY_S = 86_400.0
"""No procedure lasts longer: times farther apart are of two clocks."""

_NO = np.zeros(0)
NO_LESIONS = Delivered(np.zeros((0, 3)), _NO, _NO, _NO, _NO, _NO, "mesh")


@dataclass(frozen=True)
class NewPoints:
    """Points in the map's frame: points_mm (n, 3), lat_ms, bipolar_mv and time_s (n,), NaN where not measured; map_id: "" if not said."""

    points_mm: Array
    lat_ms: Array
    bipolar_mv: Array
    time_s: Array
    map_id: str = ""

    def __len__(self) -> int:
        return len(self.points_mm)


@dataclass(frozen=True)
class Events:
    """Everything that is known of a procedure at one moment; what is missing is None."""

    lesions: Delivered = field(default_factory=lambda: NO_LESIONS)
    points: NewPoints | None = None
    vt: Ecg | None = None


def read_points(path: Path, notes: Notes) -> NewPoints:
    """New map points; rows that stand twice count once. Raises InputError for what cannot be right."""
    if path.is_dir() or path.suffix.lower() != ".csv":
        study = read_study(path, notes=notes)
        found = NewPoints(study.points_mm, study.lat_ms, study.bipolar_mv, np.full(len(study), np.nan))
    else:
        meta, table = read_table(path, "eam", COLUMNS, ("bipolar_mv", "time_s"))
        for key in meta:
            if key not in HEADER and not key.startswith("landmark."):
                raise InputError(path, key, "unknown header key", did_you_mean(key, HEADER))
        if meta.get("units", "mm, ms, mV").replace(" ", "") != "mm,ms,mV":
            raise InputError(path, "units", f"{meta['units'][:40]!r}", "convert to mm, ms, mV")
        places = np.stack([table[name] for name in COLUMNS[:3]], axis=1)
        found = NewPoints(places, table["lat_ms"], table["bipolar_mv"], table["time_s"], meta.get("map", ""))
    return _checked(found, path, notes)


def _checked(points: NewPoints, path: Path, notes: Notes) -> NewPoints:
    if not 0 < len(points) <= MOST:
        raise InputError(path, "rows", f"{len(points)} points", f"give 1 to {MOST}")
    if not np.isfinite(points.points_mm).all():
        raise InputError(path, "x_mm", "a coordinate is missing or not finite", "remove the points that have no position")
    if (points.lat_ms == CARTO_NO_VALUE).any():
        raise InputError(path, "lat_ms", "-10000 is CARTO's mark for no value", "leave the field empty where there is no value")
    if np.ptp(points.points_mm, axis=0).max() > EXTENT_MM:
        raise InputError(path, "x_mm", f"points lie more than {EXTENT_MM:g} mm apart", "write coordinates in mm, leave stray points out")
    if np.isfinite(points.lat_ms).any() and np.nanmax(np.abs(points.lat_ms)) > 2000.0:
        raise InputError(path, "lat_ms", f"a time of {np.nanmax(np.abs(points.lat_ms)):.0f} ms", "give times in ms on the map's reference")
    if np.isfinite(points.bipolar_mv).any() and not 0.0 <= np.nanmin(points.bipolar_mv) <= np.nanmax(points.bipolar_mv) < 100.0:
        raise InputError(path, "bipolar_mv", "is not between 0 and 100 mV", "give peak-to-peak amplitudes in mV")
    rows = np.nan_to_num(np.column_stack([points.points_mm, points.lat_ms, points.bipolar_mv]), nan=-1e9)
    _, first = np.unique(rows, axis=0, return_index=True)
    if len(first) < len(points):
        notes.add(f"{len(points) - len(first)} map points stand twice and count once")
    keep = np.sort(first)
    return NewPoints(points.points_mm[keep], points.lat_ms[keep], points.bipolar_mv[keep], points.time_s[keep], points.map_id)


def read_events(files: Mapping[str, Path], notes: Notes, known_maps: tuple[str, ...] = ()) -> Events:
    """Read what is given by kind (`KINDS`) and check that all of it is of one map and one clock.

    known_maps: identities of the plan's map. Raises InputError; Suspicious (`map_identity`, `clock`) through `notes`.
    """
    events = Events(
        read_lesions(files["lesions"], notes) if "lesions" in files else NO_LESIONS,
        read_points(files["eam"], notes) if "eam" in files else None,
        read_ecg(files["vt"], notes) if "vt" in files else None,
    )
    said = {"lesions": events.lesions.map_id, "eam": events.points.map_id if events.points else ""}
    for kind, name in said.items():
        if name and known_maps and name not in known_maps:
            problem = f"is of map {name[:30]!r}, the plan's is {' or '.join(known_maps)}"
            notes.suspect("map_identity", files[kind], "map", problem, "give the file of this procedure, or plan again with the new map")
    if len({name for name in said.values() if name}) > 1:
        notes.suspect("map_identity", files["eam"], "map", "lesions and points name different maps", "export both from one map")
    _one_clock(events, files, notes)
    return events


def _one_clock(events: Events, files: Mapping[str, Path], notes: Notes) -> None:
    clocks = {"lesions": events.lesions.time_s, "eam": events.points.time_s if events.points else np.zeros(0)}
    seen = {kind: times[np.isfinite(times)] for kind, times in clocks.items()}
    seen = {kind: times for kind, times in seen.items() if len(times)}
    for kind, times in seen.items():
        if times.min() < 0 or np.ptp(times) > DAY_S:
            notes.suspect("clock", files[kind], "time_s", "is negative or spans more than a day", "give seconds on the procedure's clock")
    if len(seen) == 2 and abs(seen["lesions"].max() - seen["eam"].max()) > DAY_S:
        notes.suspect("clock", files["eam"], "time_s", "is more than a day from the lesions' clock", "give both on the procedure's clock")


def write_events(folder: Path, events: Events) -> None:
    """Keep what an update was made of, in vtwin's own layouts: no name of a patient, a study or a file gets in."""
    if len(events.lesions):
        write_lesions(folder / KINDS["lesions"], events.lesions)
    if events.points is not None:
        p = events.points
        table = dict(zip(COLUMNS[:3], p.points_mm.T)) | {"lat_ms": p.lat_ms, "bipolar_mv": p.bipolar_mv, "time_s": p.time_s}
        write_table(folder / KINDS["eam"], "eam", {"map": p.map_id} if p.map_id else {}, table, 4)
    if events.vt is not None:
        write_ecg(folder / KINDS["vt"], events.vt)
