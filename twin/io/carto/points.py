"""Points of a CARTO map: the table `_car.txt` and the files `_P<n>_Point_Export.xml`."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.archive import AGAIN, text_lines
from twin.io.carto.mesh import NO_VALUE

VERSION = re.compile(r"VERSION_(\d{1,2})_(\d{1,2})\b")
READ_VERSIONS = (4, 5, 6)
COLUMNS = 13
"""Columns that all versions share: P, -, point, -, x, y, z, three angles, unipolar, bipolar, LAT; 4 adds up to 21, 5 and 6 differ."""

POINT_TYPE = 14
LOCATION_ONLY, FLOATING = 1, 3
MAX_CAR_BYTES = 400_000_000


@dataclass(frozen=True)
class CarTable:
    """Rows of a `_car.txt`: ids (n,), points_mm (n, 3), unipolar_mv, bipolar_mv, lat_ms (n,) NaN = none, point_type (n,)."""

    version: tuple[int, int]
    ids: NDArray[np.int64]
    points_mm: NDArray[np.float64]
    unipolar_mv: NDArray[np.float64]
    bipolar_mv: NDArray[np.float64]
    lat_ms: NDArray[np.float64]
    point_type: NDArray[np.int64]


def parse_car(data: bytes, where: Path) -> CarTable:
    """The table of points of any version. Raises InputError."""
    lines = text_lines(data, where, "car.txt")
    head = VERSION.match(lines.readline().strip())
    if head is None:
        raise InputError(where, "car.txt", "does not begin with VERSION_x_y", AGAIN)
    version = int(head[1]), int(head[2])
    if version[0] not in READ_VERSIONS:
        raise InputError(where, "car.txt", f"is of version {head[1]}.{head[2]}", "export it with CARTO 3 (versions 4 to 6 are read)")
    rows: list[list[str]] = []
    width = 0
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        words = line.rstrip("\r\n").rstrip("\t").split("\t")
        words = words if len(words) > 1 else line.split()
        if words[0].strip() != "P" or len(words) < COLUMNS or (width and abs(len(words) - width) > 2):
            raise InputError(where, "car.txt", f"line {number} is not a row of a point", AGAIN)
        width = width or len(words)
        rows.append(words)
    return _table(rows, version, where)


def _table(rows: list[list[str]], version: tuple[int, int], where: Path) -> CarTable:
    n = len(rows)
    try:
        ids = np.array([row[2] for row in rows], np.float64)
        body = np.array([row[4:COLUMNS] for row in rows], np.float64).reshape(n, COLUMNS - 4)
        kind = np.array([row[POINT_TYPE] if len(row) > POINT_TYPE else "0" for row in rows], np.float64)
    except ValueError:
        raise InputError(where, "car.txt", "holds text in place of a number", AGAIN) from None
    if not (np.isfinite(body).all() and np.isfinite(ids).all() and np.isfinite(kind).all()):
        raise InputError(where, "car.txt", "holds a value that is not finite", "-10000 is the mark for no value")
    if n and ((ids != np.rint(ids)).any() or (kind != np.rint(kind)).any() or np.abs(ids).max() > 1e12 or np.abs(kind).max() > 1e6):
        raise InputError(where, "car.txt", "its numbers of points are not whole", AGAIN)
    values = np.where(body == NO_VALUE, np.nan, body)
    if not np.isfinite(values[:, :3]).all():
        raise InputError(where, "car.txt", "a point has no position", AGAIN)
    return CarTable(version, ids.astype(np.int64), values[:, :3].copy(), values[:, 6], values[:, 7], values[:, 8], kind.astype(np.int64))


@dataclass(frozen=True)
class PointExport:
    """One `Point_Export.xml`: annotations and window in ms (samples at 1 kHz), voltages in mV, the ECG file and mapped channels."""

    reference_ms: float
    map_ms: float
    window_ms: tuple[float, float]
    unipolar_mv: float
    bipolar_mv: float
    ecg_file: str
    unipolar: str
    bipolar: str
    reference: str
    says_ecg: bool = True
    """Whether the file has an ECG element at all; a point without recording names none in it."""

    @property
    def lat_ms(self) -> float:
        """Map annotation minus reference annotation, NaN if one is missing."""
        return self.map_ms - self.reference_ms


def parse_point(data: bytes, where: Path) -> PointExport:
    """One point file. Raises InputError."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise InputError(where, "Point_Export.xml", "holds XML entities", AGAIN)
    text = text_lines(data, where, "Point_Export.xml").read()
    try:
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except (ElementTree.ParseError, ValueError):
        raise InputError(where, "Point_Export.xml", "is not XML", AGAIN) from None
    notes, window, volts, ecg = (root.find(tag) for tag in ("Annotations", "WOI", "Voltages", "ECG"))
    if root.tag != "Point" or notes is None:
        raise InputError(where, "Point_Export.xml", "holds no annotations", AGAIN)

    def number(element: ElementTree.Element | None, key: str) -> float:
        found = "" if element is None else element.get(key, "")
        if not found.strip():
            return float("nan")
        try:
            value = float(found)
        except ValueError:
            value = float("inf")
        if not np.isfinite(value):
            raise InputError(where, f"Point_Export.xml {key}", f"{found[:12]!r} is not a number", AGAIN)
        return float("nan") if value == NO_VALUE else value

    channel = {} if ecg is None else ecg.attrib
    return PointExport(
        number(notes, "Reference_Annotation"),
        number(notes, "Map_Annotation"),
        (number(window, "From"), number(window, "To")),
        number(volts, "Unipolar"),
        number(volts, "Bipolar"),
        channel.get("FileName", ""),
        channel.get("UnipolarMappingChannel", ""),
        channel.get("BipolarMappingChannel", ""),
        channel.get("ReferenceChannel", ""),
        ecg is not None,
    )
