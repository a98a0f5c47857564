"""Surfaces, circuits and lesions as STL, PLY, OBJ and VTK polydata, mm in LPS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from planners.report.raster import sphere
from twin.atomic import replaced
from twin.io.surfaces import Surface, write_surface
from twin.mesh import SURFACES, HeartMesh
from twin.plan import Plan


def named(mesh: HeartMesh) -> dict[str, Surface]:
    """The mesh's named surfaces with the ventricular coordinates of their points."""
    out = {}
    for name in SURFACES:
        if len(mesh.surfaces[name]):
            used, index = np.unique(mesh.surfaces[name], return_inverse=True)
            data = {key: values[used] for key, values in mesh.coordinates.items()}
            out[name] = Surface(mesh.points_mm[used], index.reshape(-1, 3).astype(np.int32), data)
    return out


def lesion_balls(plan: Plan) -> Surface | None:
    """One ball per lesion, of its radius, centred on its place on the surface; cell data `order`. None without lesions."""
    balls = [
        (sphere(np.asarray(position, float), target.radius_mm, (0.0, 0.0, 0.0)), target.order)
        for target in plan.targets
        for position in target.positions_mm
    ]
    if not balls:
        return None
    starts = np.cumsum([0, *(len(ball.vertices_mm) for ball, _ in balls[:-1])])
    return Surface(
        np.concatenate([ball.vertices_mm for ball, _ in balls]),
        np.concatenate([ball.triangles + start for (ball, _), start in zip(balls, starts)]).astype(np.int32),
        {},
        {"order": np.concatenate([np.full(len(ball.triangles), order) for ball, order in balls])},
    )


def shapes(plan: Plan, mesh: HeartMesh) -> dict[str, Surface]:
    """The named surfaces, and `lesions` where there are any."""
    balls = lesion_balls(plan)
    return named(mesh) | ({} if balls is None else {"lesions": balls})


def _written(suffix: str, plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """Every named surface and the lesions in one format."""
    found = shapes(plan, mesh)
    folder.mkdir(parents=True, exist_ok=True)
    for name, surface in found.items():
        write_surface(folder / f"{name}{suffix}", surface)
    return [folder / f"{name}{suffix}" for name in found]


def write_stl(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """Binary STL of each named surface and of the lesions."""
    return _written(".stl", plan, mesh, folder)


def write_ply(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """PLY of each named surface and of the lesions."""
    return _written(".ply", plan, mesh, folder)


def write_obj(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """Wavefront OBJ of each named surface and of the lesions."""
    return _written(".obj", plan, mesh, folder)


def write_vtp(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """VTK polydata of each named surface with its coordinates, of the lesions with their order, and of circuits and isthmuses."""
    files = _written(".vtp", plan, mesh, folder)
    for circuit in plan.circuits:
        for kind, points in (("circuit", circuit.path_mm), ("isthmus", circuit.isthmus_mm)):
            if len(points) > 1:
                files.append(_line(folder / f"{kind}_{circuit.id}.vtp", points))
    return files


def _line(path: Path, points: Any) -> Path:
    """A polyline as VTK polydata."""
    import pyvista as pv

    with replaced(path, path.suffix) as temporary:
        pv.MultipleLines(np.asarray(points, float)).save(temporary)
    return path
