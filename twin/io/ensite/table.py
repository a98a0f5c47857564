"""Contact-mapping CSV of EnSite: points as columns (Precision, `DxL_*.csv`) or as rows (EnSite X, `Map_*.csv`, `Wave_*.csv`)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.archive import AGAIN
from twin.io.study_checks import words_of

Array = NDArray[np.float64]
MAX_HEADER_LINES = 500
MAX_LINE = 20_000_000
MAX_POINTS, MAX_SAMPLES = 1_000_000, 100_000
NAMES = {
    "point": ("ptnumber", "point", "pointnumber"),
    "electrodes": ("rovtrace",),
    "used": ("utilized", "used"),
    "x": ("rovingx",),
    "y": ("rovingy",),
    "z": ("rovingz",),
    "surface_x": ("surfptx", "surfacex"),
    "surface_y": ("surfpty", "surfacey"),
    "surface_z": ("surfptz", "surfacez"),
    "lat": ("lat", "correctedlat"),
    "rov_lat": ("rovlat",),
    "ref_lat": ("reflat",),
    "voltage": ("peak2peak", "pp", "p2p"),
    "group": ("freezegrp",),
    "left": ("leftcurtainms",),
    "right": ("rightcurtainms",),
}
"""What a field is, by its name without blanks, marks and case."""


def plain(name: str) -> str:
    """Letters and digits of a field's name in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def role(name: str) -> str:
    """The key of `NAMES` that a field's name stands for, or ""."""
    found = plain(name)
    return next((key for key, names in NAMES.items() if found in names), "")


@dataclass
class Header:
    """Lines before the data: version, counts, name of the map, sampling rate, quantity; names of studies are not kept."""

    element: str = ""
    version: float = float("nan")
    map_name: str = ""
    quantity: str = ""
    points: int = -1
    rows: int = -1
    waves: int = -1
    samples: int = -1
    rate_hz: float = float("nan")
    data_row: int = -1
    file_of: tuple[int, int] = (1, 1)
    study_words: frozenset[str] = frozenset()
    lines: int = 0


PATTERNS: tuple[tuple[str, str], ...] = (
    ("element", r"Export Data Element\s*:\s*(\w+)"),
    ("version", r"(?:File Revision|Export File Version)\s*:\s*([0-9]+(?:\.[0-9]+)?)"),
    ("points", r"(?:Total number of data points \(columns\)|# mapping pts)\s*:\s*,?\s*(\d{1,9})"),
    ("rows", r"# freeze groups\s*:\s*,?\s*(\d{1,9})"),
    ("waves", r"Number of waves \(columns\)\s*:\s*,?\s*(\d{1,9})"),
    ("samples", r"Number of samples \(rows\)\s*:\s*,?\s*(\d{1,9})"),
    ("rate_hz", r"Sample rate[^:,]*[:,]+\s*([0-9.]{1,12})"),
    ("data_row", r"Data starts in row\s*,?\s*(\d{1,6})"),
    ("map_name", r"Map name\s*:\s*,?\s*([^,]{1,80})"),
    ("quantity", r"Map type\s*:\s*,?\s*(\w{1,40})"),
)


def read_field(header: Header, line: str) -> None:
    """Take what one header line says."""
    for name, pattern in PATTERNS:
        if found := re.search(pattern, line):
            current = getattr(header, name)
            text = found[1].strip()
            try:
                setattr(header, name, type(current)(text))
            except ValueError:
                continue
    if found := re.match(r"\s*This is file (\d{1,6}) of (\d{1,6}) for map,?\s*([^,]{0,80})", line):
        header.file_of, header.map_name = (int(found[1]), int(found[2])), found[3].strip()
    if found := re.match(r"\s*Export (?:from )?Study\s*:\s*(.*)", line):
        header.study_words = words_of(found[1])


def number(text: str, where: Path, what: str) -> float:
    """A number of a cell, NaN for nothing or a mark of absence. Raises InputError for text."""
    text = text.strip()
    if text in ("", "-", "N/A", "NaN", "nan", "..", "...", "invalid"):
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        raise InputError(where, what, "holds text in place of a number", AGAIN) from None
    if not np.isfinite(value):
        raise InputError(where, what, "holds a value that is not finite", AGAIN)
    return value


def numbers(cells: list[str], where: Path, what: str) -> Array:
    """Numbers of a row of cells, fast where all are plain."""
    try:
        values = np.array(cells, np.float64)
        if np.isfinite(values).all():
            return values
    except ValueError:
        pass
    return np.array([number(cell, where, what) for cell in cells], np.float64)


@dataclass
class Points:
    """Columns of points by role; text columns (electrodes) apart. traces: name -> (points, samples) of mV, from Precision files."""

    header: Header
    values: dict[str, Array] = field(default_factory=dict)
    electrodes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values["x"]) if "x" in self.values else 0

    def column(self, name: str) -> Array:
        """Values of a role, NaN where the file has no such field."""
        return self.values.get(name, np.full(len(self), np.nan))

    def place(self, prefix: str = "") -> Array:
        """Positions (n, 3)."""
        return np.stack([self.column(f"{prefix}{axis}") for axis in "xyz"], axis=1)


def lines_of(handle: Iterator[bytes], where: Path) -> Iterator[str]:
    """Lines of a text as UTF-8 or cp1252, without line ends. Raises InputError for zero bytes and endless lines."""
    for raw in handle:
        if len(raw) > MAX_LINE:
            raise InputError(where, "CSV file", "has a line of more than 20 MB", AGAIN)
        if b"\0" in raw:
            raise InputError(where, "CSV file", "holds zero bytes, it is not text", AGAIN)
        try:
            line = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            line = raw.decode("cp1252", "replace")
        yield line.rstrip("\r\n")


def parse_columns(lines: Iterator[str], where: Path) -> Points:
    """The head of a Precision file up to its traces: one row per field, one column per point. Raises InputError."""
    header = Header()
    points = Points(header)
    begun = False
    for line in lines:
        header.lines += 1
        if header.lines > MAX_HEADER_LINES:
            raise InputError(where, "CSV file", f"has no points within {MAX_HEADER_LINES} lines", AGAIN)
        if not begun and not line.lower().startswith("pt number"):
            read_field(header, line)
            continue
        begun = True
        if line.lower().startswith("seg data len"):
            break
        name, *cells = line.split(",")
        if header.points >= 0 and len(cells) > header.points and not any(c.strip() for c in cells[header.points :]):
            cells = cells[: header.points]
        if header.points >= 0 and len(cells) != header.points:
            raise InputError(where, plain(name)[:20], f"has {len(cells)} values, the header says {header.points} points", AGAIN)
        header.points = header.points if header.points >= 0 else len(cells)
        kind = role(name)
        if kind in points.values or (kind == "electrodes" and points.electrodes):
            raise InputError(where, plain(name)[:20], "appears twice", AGAIN)
        if kind == "electrodes":
            points.electrodes = [cell.strip()[:40] for cell in cells]
        elif kind == "used":
            points.values[kind] = np.array([cell.strip().lower() in ("yes", "1", "true") for cell in cells], np.float64)
        elif kind:
            points.values[kind] = numbers(cells, where, name.strip()[:20])
    else:
        raise InputError(where, "CSV file", "ends before its points do: truncated", AGAIN)
    return _complete(points, where)


def parse_rows(lines: Iterator[str], where: Path) -> Points:
    """A table of EnSite X: one row per point, columns by name. Raises InputError."""
    header, rows = head_of(lines, where)
    roles = [role(name) for name in header[1]]
    doubled = {kind for kind in roles if kind and roles.count(kind) > 1}
    if doubled & {"x", "y", "z", "lat", "voltage"}:
        raise InputError(where, sorted(doubled)[0], "appears twice", AGAIN)
    columns: dict[str, list[float]] = {kind: [] for kind in roles if kind and kind != "electrodes"}
    points = Points(header[0])
    for count, cells in enumerate(rows):
        if count >= MAX_POINTS:
            raise InputError(where, "CSV file", f"has more than {MAX_POINTS} points", AGAIN)
        if len(cells) < len(roles):
            raise InputError(where, f"point {count + 1}", f"has {len(cells)} values, {len(roles)} columns are named", AGAIN)
        for kind, cell, name in zip(roles, cells, header[1], strict=False):
            if kind == "electrodes":
                points.electrodes.append(cell.strip()[:40])
            elif kind:
                columns[kind].append(number(cell, where, name.strip()[:20]))
    points.values = {kind: np.array(values, np.float64) for kind, values in columns.items()}
    if header[0].points >= 0 and header[0].points != len(points):
        raise InputError(where, "CSV file", f"has {len(points)} points, the header says {header[0].points}", AGAIN)
    return _complete(points, where)


def head_of(lines: Iterator[str], where: Path) -> tuple[tuple[Header, list[str]], Iterator[list[str]]]:
    """Header and column names of a file that says in which row its data start, and the rows after it."""
    header = Header()
    for line in lines:
        header.lines += 1
        if header.data_row >= 0 and header.lines >= header.data_row:
            names = next(csv.reader([line]))
            while names and names[-1].strip() in ("", "..."):
                names.pop()
            return (header, names), _cells(lines, where)
        if header.lines > MAX_HEADER_LINES:
            break
        read_field(header, line)
    raise InputError(where, "CSV file", "does not say where its data start, or ends before", AGAIN)


def _cells(lines: Iterator[str], where: Path) -> Iterator[list[str]]:
    try:
        for row in csv.reader(lines):
            if any(row) and row[0].strip() != "EOF":
                yield row
    except csv.Error:
        raise InputError(where, "CSV file", "its quotes do not end", AGAIN) from None


def _complete(points: Points, where: Path) -> Points:
    missing = [axis for axis in "xyz" if axis not in points.values]
    if missing or not len(points):
        problem = f"has no roving {' '.join(missing)}" if missing else "has no points"
        raise InputError(where, "CSV file", problem, "export contact mapping points with their positions")
    if len({len(values) for values in points.values.values()}) != 1:
        raise InputError(where, "CSV file", "its columns are of unequal length", AGAIN)
    return points


def lat_of(points: Mapping[str, Array] | Points) -> Array:
    """LAT: the column of this name, else roving minus reference annotation, else the roving one, which then is relative already."""
    values = points.values if isinstance(points, Points) else points
    if "lat" in values:
        return values["lat"]
    if "rov_lat" in values:
        return values["rov_lat"] - values["ref_lat"] if "ref_lat" in values else values["rov_lat"]
    return np.full(len(next(iter(values.values()))), np.nan)
