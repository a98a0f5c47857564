"""Lesions as they were delivered (`# vtwin-lesions 1`): place, size, energy and time, one row each.

Header: `frame: map` (the mapping system's, the default) or `frame: mesh` (LPS mm of the segmentation); `surface:` where the catheter was;
`map:` identity of the map, compared with the plan's if both are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.notes import Notes
from twin.io.source import did_you_mean
from twin.io.table import read_table, write_table
from twin.mesh import WALLS

COLUMNS = ("x_mm", "y_mm", "z_mm")
OPTIONAL = ("time_s", "radius_mm", "depth_mm", "power_w", "duration_s")
FRAMES = ("map", "mesh")
MOST = 5000
_RANGES = {"radius_mm": (0.5, 15.0), "depth_mm": (0.5, 20.0), "power_w": (0.0, 100.0), "duration_s": (0.0, 600.0)}


@dataclass(frozen=True)
class Delivered:
    """Lesions in the order of their rows.

    positions_mm (k, 3) in `frame`; time_s, radius_mm, depth_mm, power_w, duration_s (k,), NaN where not given; surface: "" if not said.
    """

    positions_mm: NDArray[np.float64]
    time_s: NDArray[np.float64]
    radius_mm: NDArray[np.float64]
    depth_mm: NDArray[np.float64]
    power_w: NDArray[np.float64]
    duration_s: NDArray[np.float64]
    frame: str = "map"
    surface: str = ""
    map_id: str = ""

    def __len__(self) -> int:
        return len(self.positions_mm)


def read_lesions(path: Path, notes: Notes) -> Delivered:
    """Read delivered lesions; rows that stand twice count once.

    Raises InputError for what cannot be right, Suspicious (through `notes`) for times that run backwards.
    """
    meta, table = read_table(path, "lesions", COLUMNS, OPTIONAL)
    for key in meta:
        if key not in ("frame", "surface", "map", "units"):
            raise InputError(path, key, "unknown header key", did_you_mean(key, ("frame", "surface", "map", "units")))
    frame, surface = meta.get("frame", "map"), meta.get("surface", "")
    if frame not in FRAMES:
        raise InputError(path, "frame", f"unknown frame {frame[:30]!r}", f"write one of {', '.join(FRAMES)}")
    if surface and surface not in WALLS:
        raise InputError(path, "surface", f"unknown surface {surface[:30]!r}", f"write one of {', '.join(WALLS)}")
    rows = np.stack([table[name] for name in (*COLUMNS, *OPTIONAL)], axis=1)
    if len(rows) > MOST:
        raise InputError(path, "rows", f"{len(rows)} lesions", f"no procedure has more than {MOST}: is this the map?")
    if np.isnan(rows[:, :3]).any():
        raise InputError(path, "x_mm, y_mm, z_mm", "a lesion has no place", "complete or remove the row")
    for name, (low, high) in _RANGES.items():
        bad = np.flatnonzero((table[name] < low) | (table[name] > high))
        if len(bad):
            raise InputError(path, f"row {bad[0] + 1}", f"{name} {table[name][bad[0]]:g} is outside {low:g}-{high:g}", "check the unit")
    _, first = np.unique(np.nan_to_num(rows, nan=-1e9), axis=0, return_index=True)
    if len(first) < len(rows):
        notes.add(f"{len(rows) - len(first)} lesions stand twice and count once")
    rows = rows[np.sort(first)]
    times = rows[:, 3][np.isfinite(rows[:, 3])]
    if (np.diff(times) < 0).any():
        notes.suspect("clock", path, "time_s", "runs backwards", "correct the clock or the order of the rows")
    time_s, radius, depth, power, duration = rows[:, 3:].T
    return Delivered(rows[:, :3], time_s, radius, depth, power, duration, frame, surface, meta.get("map", ""))


def write_lesions(path: Path, lesions: Delivered) -> None:
    """Write what `read_lesions` reads."""
    columns = dict(zip(COLUMNS, lesions.positions_mm.T)) | {name: getattr(lesions, name) for name in OPTIONAL}
    meta = {"frame": lesions.frame, "surface": lesions.surface, "map": lesions.map_id}
    write_table(path, "lesions", {k: v for k, v in meta.items() if v}, columns, 4)
