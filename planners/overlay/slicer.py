"""3D Slicer: markups (`.mrk.json`), the wall as `.seg.nrrd`, surfaces as models, and a scene (`.mrml`) that opens them all; LPS mm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meshing.tet_grid import mesh_labels
from planners.overlay.scene import write_scene
from planners.overlay.surfaces import shapes
from planners.report.palette import CIRCUIT, TARGET, TISSUE
from twin.atomic import write_json
from twin.io.nrrd import write_nrrd
from twin.io.surfaces import write_surface
from twin.mesh import HeartMesh
from twin.plan import Plan

SPACING_MM = 1.0
"""Voxels of the segmentation."""

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


def write_markups(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """Write `targets.mrk.json` and one curve per circuit and isthmus; returns the files."""
    return _written(_markups(plan), folder)


def _written(markups: dict[str, dict[str, Any]], folder: Path) -> list[Path]:
    for name, markup in markups.items():
        write_json(folder / name, {"@schema": SCHEMA, "markups": [markup]})
    return [folder / name for name in markups]


def _markups(plan: Plan) -> dict[str, dict[str, Any]]:
    spots = [(f"{t.id}.{n}", t.why, p) for t in plan.targets for n, p in enumerate(t.positions_mm, 1)]
    files = {"targets.mrk.json": _markup("Fiducial", TARGET, spots)}
    for circuit in plan.circuits:
        for name, path, colour in (("circuit", circuit.path_mm, CIRCUIT), ("isthmus", circuit.isthmus_mm, TISSUE["isthmus"])):
            points = [(f"{circuit.id} {name} {n}", "", p) for n, p in enumerate(path, 1)]
            files[f"{name}_{circuit.id}.mrk.json"] = _markup("Curve", colour, points)
    return files


def write(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """Write `scene.mrml` with all that it names: markups, `heart.seg.nrrd`, and a model per surface and for the lesions."""
    markups = _markups(plan)
    files = _written(markups, folder)
    segmentation = folder / "heart.seg.nrrd"
    write_nrrd(segmentation, mesh_labels(mesh, SPACING_MM))
    models: dict[str, tuple[str, Sequence[float], float]] = {}
    for name, surface in shapes(plan, mesh).items():
        path = folder / f"{name}.vtp"
        write_surface(path, surface)
        models[name] = (path.name, TARGET if name == "lesions" else TISSUE["healthy"], 0.3 if name == "epi" else 1.0)
        files.append(path)
    kinds = {name: str(markup["type"]) for name, markup in markups.items()}
    return [*files, segmentation, write_scene(folder / "scene.mrml", models, segmentation.name, kinds)]
