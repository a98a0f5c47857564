"""`heart.vtu`: the mesh as interface.md lays it down, for ParaView, 3D Slicer, PyVista and `vtwin simulate`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from twin.mesh import REGIONS, HeartMesh


def write_vtu(path: Path, mesh: HeartMesh) -> None:
    """Write points (mm, LPS), regions with their names in field data, fibres, sheets and coordinates, atomically."""
    import pyvista as pv

    grid = pv.UnstructuredGrid({pv.CellType.TETRA: mesh.tets}, mesh.points_mm)
    grid.cell_data["region"] = mesh.region.astype(np.int32)
    grid.cell_data["fibre"] = mesh.fibre.astype(np.float32)
    grid.cell_data["sheet"] = mesh.sheet.astype(np.float32)
    for name, values in mesh.coordinates.items():
        grid.point_data[name] = values
    if len(mesh.aha_segment):
        grid.point_data["aha_segment"] = mesh.aha_segment.astype(np.int32)
    grid.field_data["region_names"] = [f"{number}={name}" for name, number in REGIONS.items()]
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.vtu")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        grid.save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
