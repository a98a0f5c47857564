"""VTK XML polydata (.vtp) without VTK.

Format: https://docs.vtk.org/en/latest/vtk_file_formats/vtkxml_file_format.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_text
from twin.errors import InputError
from twin.io.surfaces import Surface, index_array
from twin.io.vtk_xml import array, count, data_arrays, element, open_xml


def read_vtp(path: Path) -> Surface:
    """Read one piece of triangles with its point and cell arrays: text, base64 or raw, plain or zlib. Raises InputError."""
    root, source = open_xml(path)
    pieces = root.findall("PolyData/Piece")
    if len(pieces) != 1:
        raise source.fail("Piece", f"{len(pieces)} pieces, one is needed")
    piece = pieces[0]
    n, m = count(piece, "NumberOfPoints", source), count(piece, "NumberOfPolys", source)
    if any(count(piece, f"NumberOf{kind}", source) for kind in ("Verts", "Lines", "Strips")):
        raise InputError(path, "Piece", "holds vertices, lines or strips beside polygons", "export triangles alone")
    polys = {node.get("Name"): node for node in piece.findall("Polys/DataArray")}
    place = piece.find("Points/DataArray")
    if place is None or not {"connectivity", "offsets"} <= set(polys):
        raise source.fail("Polys", "points or polygons are missing")
    points = array(place, n, source, 3).reshape(n, 3).astype(np.float64)
    if not (array(polys["offsets"], m, source) == 3 * np.arange(1, m + 1)).all():
        raise InputError(path, "Polys", "not all polygons are triangles", "triangulate the surface")
    nodes = array(polys["connectivity"], 3 * m, source).reshape(m, 3)
    return Surface(points, index_array(nodes, path), data_arrays(piece, "PointData", n, source), data_arrays(piece, "CellData", m, source))


def write_vtp(path: Path, surface: Surface) -> None:
    """Write VTK XML polydata with inline base64, double precision, all point and cell arrays; equal surfaces give equal bytes."""
    n, m = len(surface.points_mm), len(surface.triangles)

    def block(tag: str, arrays: Mapping[str, NDArray[Any]]) -> str:
        return f"<{tag}>" + "".join(element(name, values) for name, values in arrays.items()) + f"</{tag}>"

    polys = {"connectivity": surface.triangles.ravel().astype(np.int64), "offsets": 3 * np.arange(1, m + 1, dtype=np.int64)}
    lines = [
        '<?xml version="1.0"?>',
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">',
        f'<PolyData><Piece NumberOfPoints="{n}" NumberOfVerts="0" NumberOfLines="0" NumberOfStrips="0" NumberOfPolys="{m}">',
        block("PointData", surface.point_data),
        block("CellData", surface.cell_data),
        block("Points", {"Points": surface.points_mm.astype(np.float64)}),
        block("Polys", polys),
        "</Piece></PolyData></VTKFile>",
    ]
    write_text(path, "\n".join(lines) + "\n")
