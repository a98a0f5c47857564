"""Points and lines that people draw: inline in the case, as CSV (x, y, z and optionally surface), or as 3D Slicer markups."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twin.errors import InputError
from twin.io.source import check_keys, read_text

FARTHEST_MM = 2000.0
"""No scanner's frame reaches farther from its origin: a larger number is a mistake of units."""
SURFACE = "lv_endo"
Line = list[list[float]]


def line_of(value: object, path: Path, key: str) -> Line:
    """Points (k, 3) in LPS mm; raises InputError unless they are numbers within 2 m of the origin."""
    points: Line = []
    for point in value if isinstance(value, Sequence) and not isinstance(value, str) else ():
        if not isinstance(point, Sequence) or len(point) != 3 or not all(_place(x) for x in point):
            raise InputError(path, key, f"{point!r} is not a point", "write [x, y, z] in LPS mm")
        points.append([float(x) for x in point])
    if not points:
        raise InputError(path, key, "holds no points", "write [[x, y, z], ...] in LPS mm")
    return points


def _place(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < FARTHEST_MM


def lines_of(value: object, path: Path, key: str) -> list[Line]:
    """One polyline, or a list of polylines."""
    first = value[0] if isinstance(value, list) and value else None
    nested = isinstance(first, list) and bool(first) and isinstance(first[0], list)
    return [line_of(line, path, key) for line in (value if nested and isinstance(value, list) else [value])]


def drawn_of(row: Mapping[str, Any], path: Path, find: Any) -> list[dict[str, Any]]:
    """One entry of plan.drawn as lesions {surface, positions}; find(text) resolves a file's name."""
    check_keys(row, ("file", "surface", "positions"), path, "plan.drawn")
    if ("file" in row) == ("positions" in row):
        raise InputError(path, "plan.drawn", "needs a file, or positions", 'write { file = "lesions.csv" } or { surface, positions }')
    surface = str(row.get("surface", SURFACE))
    if "positions" in row:
        return [{"surface": surface, "positions": line_of(row["positions"], path, "plan.drawn.positions")}]
    return read_positions(find(row["file"]), surface)


def read_positions(path: Path, surface: str = SURFACE) -> list[dict[str, Any]]:
    """Read drawn lesions: `.csv` with columns x, y, z (LPS mm) and optionally surface, or Slicer `.json` markups; one entry per surface.

    Raises InputError for other files, missing columns and impossible numbers.
    """
    if path.suffix == ".json":
        return _markups(path, surface)
    if path.suffix != ".csv":
        raise InputError(path, "file", "is neither .csv nor .json", "export the points as CSV or as Slicer markups")
    rows = csv.DictReader(io.StringIO(read_text(path, 5_000_000)))
    if missing := {"x", "y", "z"} - set(rows.fieldnames or ()):
        raise InputError(path, "columns", f"{', '.join(sorted(missing))} is missing", "name the columns x,y,z in LPS mm")
    found: dict[str, Line] = {}
    for number, row in enumerate(rows, start=2):
        try:
            point = [float(row[axis]) for axis in "xyz"]
        except (TypeError, ValueError):
            raise InputError(path, f"line {number}", "is not x,y,z in numbers", "correct the line") from None
        found.setdefault((row.get("surface") or surface).strip(), []).extend(line_of([point], path, f"line {number}"))
    if not found:
        raise InputError(path, "lines", "there are no points", "write one line per lesion")
    return [{"surface": name, "positions": points} for name, points in found.items()]


def _markups(path: Path, surface: str) -> list[dict[str, Any]]:
    """Control points of 3D Slicer's markups; RAS files are turned to LPS."""
    try:
        markups = json.loads(read_text(path, 20_000_000))["markups"]
        points: Line = []
        for markup in markups:
            sign = -1.0 if markup.get("coordinateSystem", "LPS") == "RAS" else 1.0
            for point in markup["controlPoints"]:
                x, y, z = point["position"]
                points.append([sign * float(x), sign * float(y), float(z)])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(path, "markups", "are not those of 3D Slicer", "save them as .mrk.json") from None
    return [{"surface": surface, "positions": line_of(points, path, "markups")}]
