"""`vtwin transfer`: a map, lesions or the targets of a plan from one heart to another, through ventricular coordinates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.heart_file import read_heart
from meshing.transfer import transfer_places
from planners.app.console import Console
from twin.atomic import write_text
from twin.errors import InputError
from twin.io.eam import read_map, write_eam
from twin.io.notes import Notes
from twin.io.positions import read_positions
from twin.io.source import read_text
from twin.mesh import HeartMesh
from twin.patient import ElectroanatomicalMap

FAR_MM = 10.0
"""A place farther from the muscle than this does not belong to the heart; catheters press the wall by a few mm."""


@dataclass(frozen=True)
class _Spots:
    """Places (k, 3) mm to be moved, and for each the rest of its row: surface, and what a plan says of it."""

    places_mm: NDArray[np.float64]
    rows: Sequence[dict[str, Any]]


def transfer(what: Path, source: Path, target: Path, out: Path, console: Console, fresh: bool = False) -> int:
    """Write the places of `what` in the target heart: a map as vtwin's CSV, lesions and targets as CSV for [plan] drawn."""
    if out.suffix.lower() != ".csv":
        raise InputError("command line", "-o", f"{out.name} is not called .csv", "name it OUT.csv")
    if out.exists() and not fresh:
        raise InputError("command line", "-o", f"{out} exists", "name another file or add --fresh")
    notes = Notes()
    found = _read(what, notes)
    console.progress("reading both hearts ...")
    one, other = read_heart(source), read_heart(target)
    places = found.points_mm if isinstance(found, ElectroanatomicalMap) else found.places_mm
    _check_near(what, one, places)
    moved = transfer_places(one, other, places)
    back = np.linalg.norm(transfer_places(other, one, moved) - places, axis=1)
    if isinstance(found, ElectroanatomicalMap):
        marks = {name: transfer_places(one, other, place[None])[0] for name, place in found.landmarks.items()}
        write_eam(out, replace(found, points_mm=moved, landmarks=marks))
    else:
        write_text(out, _csv(found, moved))
    value = {
        "places": len(places),
        "there_and_back_mm": {"median": round(float(np.median(back)), 3), "p95": round(float(np.percentile(back, 95)), 3)},
        "notes": notes.lines,
        "written": str(out),
    }
    lines = [
        f"{len(places)} places; there and back again {np.median(back):.2f} mm (median), {np.percentile(back, 95):.2f} mm (95 %), "
        "the distance from the wall included",
        *notes.lines,
        "same place in the wall is not same tissue: scar and fibres of the two hearts differ",
        f"wrote {out}",
    ]
    console.result(value, lines)
    return 0


def _read(path: Path, notes: Notes) -> ElectroanatomicalMap | _Spots:
    """A finished plan (folder or plan.json), lesions (.csv with x, y, z, Slicer .json) or a map. Raises InputError."""
    if path.is_dir() and (path / "plan.json").is_file():
        return _targets(path / "plan.json")
    if path.name == "plan.json":
        return _targets(path)
    if path.suffix.lower() in (".csv", ".json"):
        start = read_text(path)[:200].lstrip()
        if path.suffix.lower() == ".json" or (not start.startswith("#") and "x" in start.splitlines()[0].split(",")):
            rows = [(p, {"surface": part["surface"]}) for part in read_positions(path) for p in part["positions"]]
            return _Spots(np.array([p for p, _ in rows]), [row for _, row in rows])
    return read_map(path, notes)


def _targets(path: Path) -> _Spots:
    """Positions of every target of a plan."""
    try:
        targets = json.loads(read_text(path))["targets"]
        rows = [
            (place, {"surface": t["surface"], "id": t["id"], "radius_mm": t["radius_mm"], "depth_mm": t["depth_mm"], "order": t["order"]})
            for t in targets
            for place in t["positions_mm"]
        ]
        places = np.array([place for place, _ in rows], float).reshape(-1, 3)
    except (ValueError, KeyError, TypeError):
        raise InputError(path, "targets", "are not those of a plan", "name the folder of a finished plan") from None
    if not len(places):
        raise InputError(path, "targets", "there are none", "this plan proposes nothing that could be moved")
    return _Spots(places, [row for _, row in rows])


def _check_near(what: Path, heart: HeartMesh, places_mm: NDArray[np.float64]) -> None:
    """Raise InputError where places lie away from the heart that they are said to be of."""
    away = cKDTree(heart.points_mm).query(places_mm)[0]
    if np.median(away) > FAR_MM:
        problem = f"lies {np.median(away):.0f} mm (median) from the source heart"
        raise InputError(what, "place", problem, "register it first, or name the heart that it belongs to")


def _csv(spots: _Spots, moved_mm: NDArray[np.float64]) -> str:
    """Rows that [plan] drawn reads: x, y, z, surface, and what else was known."""
    names = list(spots.rows[0])
    lines = [",".join(["x", "y", "z", *names])]
    for place, row in zip(moved_mm, spots.rows):
        lines.append(",".join([*(f"{x + 0.0:.3f}" for x in place), *(str(row[name]) for name in names)]))
    return "\n".join(lines) + "\n"
