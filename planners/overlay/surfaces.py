"""Surfaces, circuits and lesions as STL and VTK polydata, mm in LPS."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from planners.report.raster import sphere
from twin.mesh import SURFACES, HeartMesh
from twin.plan import Plan


def _saved(path: Path, save: Callable[[Path], None]) -> Path:
    """Write through a temporary name, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _polydata(mesh: HeartMesh, name: str) -> Any:
    import pyvista as pv

    used, index = np.unique(mesh.surfaces[name], return_inverse=True)
    surface = pv.PolyData.from_regular_faces(mesh.points_mm[used], index.reshape(-1, 3))
    for key, values in mesh.coordinates.items():
        surface.point_data[key] = values[used]
    return surface


def _lesions(plan: Plan) -> Any:
    """One ball per lesion, of its radius, centred on its place on the surface."""
    import pyvista as pv

    balls = []
    for target in plan.targets:
        for position in target.positions_mm:
            shape = sphere(np.asarray(position, float), target.radius_mm, (0.0, 0.0, 0.0))
            ball = pv.PolyData.from_regular_faces(shape.vertices_mm, shape.triangles)
            ball.cell_data["order"] = np.full(len(shape.triangles), target.order)
            balls.append(ball)
    return balls[0].append_polydata(*balls[1:]) if balls else None


def _line(points: Any) -> Any:
    import pyvista as pv

    return pv.MultipleLines(np.asarray(points, float))


def write_stl(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """Binary STL of each named surface and of the lesions."""
    files = [
        _saved(folder / f"{name}.stl", lambda p, n=name: _polydata(mesh, n).save(p))  # type: ignore[misc]
        for name in SURFACES
        if len(mesh.surfaces[name])
    ]
    lesions = _lesions(plan)
    return [*files, _saved(folder / "lesions.stl", lesions.save)] if lesions is not None else files


def write_vtp(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """VTK polydata of each named surface with its coordinates, of the lesions with their order, and of circuits and isthmuses."""
    objects = {name: _polydata(mesh, name) for name in SURFACES if len(mesh.surfaces[name])}
    lesions = _lesions(plan)
    if lesions is not None:
        objects["lesions"] = lesions
    for circuit in plan.circuits:
        for kind, points in (("circuit", circuit.path_mm), ("isthmus", circuit.isthmus_mm)):
            if len(points) > 1:
                objects[f"{kind}_{circuit.id}"] = _line(points)
    return [_saved(folder / f"{name}.vtp", data.save) for name, data in objects.items()]
