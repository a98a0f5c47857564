"""Tetrahedral meshes as VTK XML (.vtu), without VTK: for ParaView, 3D Slicer, PyVista and `vtwin simulate`.

`heart.vtu` is the mesh as interface.md lays it down: points in mm (LPS), `region` with names in the field data, `fibre`, `sheet`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_text
from twin.errors import InputError
from twin.io.volume_mesh import VolumeMesh, from_arrays, of_heart
from twin.io.vtk_xml import Source, array, count, data_arrays, open_xml, packed_element, strings
from twin.mesh import HeartMesh

TETRA = 10
SURFACE_CELLS = {1: "vertices", 2: "vertices", 3: "lines", 4: "lines", 5: "triangles", 7: "polygons", 8: "pixels", 9: "quadrilaterals"}
MAX_CELL_NODES = 8


def write_vtu(path: Path, mesh: HeartMesh) -> None:
    """Write points (mm, LPS), regions with their names in field data, fibres, sheets and coordinates, atomically."""
    write_volume(path, of_heart(mesh))


def write_volume(path: Path, mesh: VolumeMesh) -> tuple[str, ...]:
    """Write everything a VolumeMesh holds; equal meshes give equal bytes. Returns (), as nothing is lost."""
    n, m = len(mesh.points_mm), len(mesh.tets)
    cells: dict[str, NDArray[Any]] = {"region": mesh.region.astype(np.int32)}
    for name, values in (("fibre", mesh.fibre), ("sheet", mesh.sheet)):
        if values is not None:
            cells[name] = values.astype(np.float32)
    cells |= mesh.cell_data

    def block(tag: str, arrays: Mapping[str, NDArray[Any]]) -> str:
        return f"<{tag}>" + "".join(packed_element(quoteattr(name)[1:-1], _plain(v)) for name, v in arrays.items()) + f"</{tag}>"

    # as meshio keeps names: an array of number and dimension under each; it refuses texts, so that they would lock it out
    names = "".join(
        f'<DataArray type="Int32" Name={quoteattr(name)} NumberOfTuples="2" format="ascii">{number} 3</DataArray>'
        for name, number in mesh.names.items()
    )
    fields = f"<FieldData>{names}</FieldData>" if names else ""
    connectivity: dict[str, NDArray[Any]] = {
        "connectivity": mesh.tets.ravel().astype(np.int32),
        "offsets": 4 * np.arange(1, m + 1, dtype=np.int64),
        "types": np.full(m, TETRA, np.uint8),
    }
    lines = [
        '<?xml version="1.0"?>',
        '<VTKFile type="UnstructuredGrid" version="1.0" byte_order="LittleEndian" header_type="UInt64" compressor="vtkZLibDataCompressor">',
        f'<UnstructuredGrid>{fields}<Piece NumberOfPoints="{n}" NumberOfCells="{m}">',
        block("PointData", mesh.point_data),
        block("CellData", cells),
        block("Points", {"Points": mesh.points_mm.astype(np.float64)}),
        block("Cells", connectivity),
        "</Piece></UnstructuredGrid></VTKFile>",
    ]
    write_text(path, "\n".join(lines) + "\n")
    return ()


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Types that VTK has: no booleans, no half or long double."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    return values if values.dtype.itemsize <= 8 and values.dtype != np.float16 else values.astype(np.float64)


def read_vtu(path: Path) -> VolumeMesh:
    """Read one piece with tetrahedra: text, base64 or raw, plain or zlib; surface cells beside them are left out and noted.

    Raises InputError for damage, several pieces, or volume cells of other kinds.
    """
    root, source = open_xml(path, "UnstructuredGrid", ".vtu")
    pieces = root.findall("UnstructuredGrid/Piece")
    if len(pieces) != 1:
        raise source.fail("Piece", f"{len(pieces)} pieces, one is needed")
    piece = pieces[0]
    n, m = count(piece, "NumberOfPoints", source), count(piece, "NumberOfCells", source)
    nodes = {node.get("Name"): node for node in piece.findall("Cells/DataArray")}
    place = piece.find("Points/DataArray")
    if place is None or not {"connectivity", "offsets", "types"} <= set(nodes):
        raise source.fail("Cells", "points or cells are missing")
    points = array(place, n, source, 3).reshape(n, 3)
    kinds = array(nodes["types"], m, source).reshape(m)
    offsets = array(nodes["offsets"], m, source).reshape(m).astype(np.int64)
    lengths = np.diff(offsets, prepend=0)
    if m and (lengths.min() < 1 or lengths.max() > MAX_CELL_NODES):
        raise source.fail("offsets", f"cells must have 1 to {MAX_CELL_NODES} nodes")
    connectivity = array(nodes["connectivity"], int(offsets[-1]) if m else 0, source).reshape(-1)
    tetra = kinds == TETRA
    notes = []
    for kind in sorted(set(kinds[~tetra].tolist())):
        if kind not in SURFACE_CELLS:
            raise InputError(path, "types", f"cells of VTK type {kind} are no tetrahedra", "convert the mesh to linear tetrahedra")
        notes.append(f"{int((kinds == kind).sum())} {SURFACE_CELLS[kind]} left out: only tetrahedra are kept")
    if (lengths[tetra] != 4).any():
        raise source.fail("offsets", "a tetrahedron has not 4 nodes")
    tets = connectivity[(offsets[tetra] - 4)[:, None] + np.arange(4)]
    if tets.size and (not np.isfinite(tets).all() or tets.min() < 0 or tets.max() >= n):
        raise InputError(path, "connectivity", f"node numbers are outside 0 to {n - 1}", "export it again")
    cells = {name: values[tetra] for name, values in data_arrays(piece, "CellData", m, source).items()}
    names = _names(root, source)
    return from_arrays(points, tets, cells, data_arrays(piece, "PointData", n, source), path, names, tuple(notes))


def _names(root: ElementTree.Element, source: Source) -> dict[str, int]:
    """Names of regions: as `write_volume` leaves them, or as the text of files before 0.4."""
    names: dict[str, int] = {}
    for node in root.findall("UnstructuredGrid/FieldData/DataArray"):
        name = node.get("Name") or ""
        if node.get("type") in ("Int32", "Int64") and node.get("NumberOfTuples") == "2" and 0 < len(name) <= 80:
            number, dimension = array(node, 2, source).ravel().tolist()
            if dimension == 3:
                names[name] = int(number)
    for node in root.findall("UnstructuredGrid/FieldData/Array"):
        if node.get("Name") == "region_names" and node.get("type") == "String":
            for text in strings(node, source):
                if found := re.fullmatch(r"(-?\d{1,9})=(.{1,80})", text):
                    names[found[2]] = int(found[1])
    return names
