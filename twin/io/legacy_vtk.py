"""Tetrahedral meshes as legacy VTK (.vtk), the format of meshtool and older programs; names of regions do not fit in it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes
from twin.errors import InputError
from twin.io.guarded import read_foreign
from twin.io.source import file_size
from twin.io.volume_mesh import VolumeMesh, from_arrays

TETRA = 10


def read_vtk(path: Path) -> VolumeMesh:
    """Read an unstructured grid, text or binary. Raises InputError."""
    file_size(path)
    with open(path, "rb") as handle:
        head = handle.read(400)
    if not head.startswith(b"# vtk DataFile Version"):
        raise InputError(path, "magic", f"{head[:24]!r} is not legacy VTK", "give a .vtk file (or .vtu)")
    if b"UNSTRUCTURED_GRID" not in head.upper():
        raise InputError(path, "DATASET", "is not UNSTRUCTURED_GRID", "export the volume mesh")
    found = read_foreign(path, "vtk")
    return from_arrays(found.points, found.tets, found.cells, found.point_data, path, found.names, found.notes)


def write_vtk(path: Path, mesh: VolumeMesh) -> tuple[str, ...]:
    """Write version 3 binary, which every reader knows; returns what is lost."""
    n, m = len(mesh.points_mm), len(mesh.tets)
    out = io.BytesIO()
    out.write(b"# vtk DataFile Version 3.0\nvtwin mesh, mm\nBINARY\nDATASET UNSTRUCTURED_GRID\n")
    out.write(f"POINTS {n} double\n".encode() + mesh.points_mm.astype(">f8").tobytes() + b"\n")
    rows = np.column_stack([np.full(m, 4), mesh.tets]).astype(">i4")
    out.write(f"CELLS {m} {5 * m}\n".encode() + rows.tobytes() + b"\n")
    out.write(f"CELL_TYPES {m}\n".encode() + np.full(m, TETRA, ">i4").tobytes() + b"\n")
    cells: dict[str, NDArray[Any]] = {"region": mesh.region.astype(np.int32)}
    cells |= {name: v for name, v in (("fibre", mesh.fibre), ("sheet", mesh.sheet)) if v is not None}
    for title, count, arrays in (("CELL_DATA", m, {**cells, **mesh.cell_data}), ("POINT_DATA", n, dict(mesh.point_data))):
        if arrays:
            out.write(f"{title} {count}\nFIELD FieldData {len(arrays)}\n".encode())
        for name, values in arrays.items():
            code, word = (">i4", "int") if values.dtype.kind in "iub" and values.dtype.itemsize <= 4 else (">f8", "double")
            width = values.shape[1] if values.ndim > 1 else 1
            # names end at a space in this format
            out.write(f"{name.replace(' ', '_')} {width} {count} {word}\n".encode() + values.astype(code).tobytes() + b"\n")
    write_bytes(path, out.getvalue())
    return ("legacy VTK cannot hold names of regions: numbers only",) if mesh.names else ()
