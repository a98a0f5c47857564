"""3D Slicer markups (`.mrk.json`): targets as control points, circuits and isthmuses as curves, all in LPS mm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twin.atomic import write_json
from twin.mesh import HeartMesh
from twin.plan import Plan

SCHEMA = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"


def _markup(kind: str, colour: Sequence[float], points: Sequence[tuple[str, str, Sequence[float]]]) -> dict[str, Any]:
    controls = [
        {
            "id": str(number),
            "label": label,
            "description": description,
            "position": [float(x) for x in position],
            "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": True,
            "visibility": True,
            "positionStatus": "defined",
        }
        for number, (label, description, position) in enumerate(points, 1)
    ]
    display = {"visibility": True, "color": list(colour), "selectedColor": list(colour), "propertiesLabelVisibility": kind == "Fiducial"}
    return {
        "type": kind,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "labelFormat": "%N-%d",
        "controlPoints": controls,
        "display": display,
    }


def write(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """Write `targets.mrk.json` and one curve per circuit and isthmus; returns the files."""
    spots = [(f"{t.id}.{n}", t.why, p) for t in plan.targets for n, p in enumerate(t.positions_mm, 1)]
    files = {"targets.mrk.json": _markup("Fiducial", (0.0, 0.45, 0.70), spots)}
    for circuit in plan.circuits:
        for name, path, colour in (("circuit", circuit.path_mm, (0.84, 0.37, 0.0)), ("isthmus", circuit.isthmus_mm, (0.94, 0.89, 0.26))):
            points = [(f"{circuit.id} {name} {n}", "", p) for n, p in enumerate(path, 1)]
            files[f"{name}_{circuit.id}.mrk.json"] = _markup("Curve", colour, points)
    for name, markup in files.items():
        write_json(folder / name, {"@schema": SCHEMA, "markups": [markup]})
    return [folder / name for name in files]
