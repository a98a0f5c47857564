"""Surfaces in VTK's unstructured files (.vtu) and legacy files (.vtk): triangles with point data; of tetrahedra the outer surface."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.source import read_bytes
from twin.io.surfaces import Surface, checked, index_array
from twin.io.vtk_xml import array, count, data_arrays, open_xml

TRIANGLE, TETRA = 5, 10
MAX_BYTES = 1_000_000_000
AGAIN = "export or copy it again"
TYPES = {
    "unsigned_char": "u1",
    "char": "i1",
    "short": ">i2",
    "unsigned_short": ">u2",
    "int": ">i4",
    "unsigned_int": ">u4",
    "long": ">i8",
    "vtktypeint64": ">i8",
    "vtkidtype": ">i8",
    "float": ">f4",
    "double": ">f8",
}


def read_vtk_surface(path: Path) -> Surface:
    """Read a .vtu or legacy .vtk (polydata) as a surface with its point data. Raises InputError."""
    return _vtu(path) if path.suffix.lower() == ".vtu" else _legacy(path)


def _vtu(path: Path) -> Surface:
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
    kinds = array(nodes["types"], m, source).reshape(m)
    if not (kinds == TRIANGLE).all():
        return _skin(path)
    points = array(place, n, source, 3).reshape(n, 3).astype(np.float64)
    if not (array(nodes["offsets"], m, source).reshape(m) == 3 * np.arange(1, m + 1)).all():
        raise source.fail("offsets", "a triangle has not 3 nodes")
    triangles = array(nodes["connectivity"], 3 * m, source).reshape(m, 3)
    return checked(Surface(points, index_array(triangles, path), data_arrays(piece, "PointData", n, source)), path)


def _skin(path: Path) -> Surface:
    """The outer surface of a mesh of tetrahedra."""
    from twin.io.volume_mesh import boundary, read_volume

    mesh = read_volume(path)
    triangles, _ = boundary(mesh.tets)
    used, renumbered = np.unique(triangles, return_inverse=True)
    fields = {name: values[used] for name, values in mesh.point_data.items()}
    return checked(Surface(mesh.points_mm[used], renumbered.reshape(-1, 3).astype(np.int32), fields), path)


class _Reader:
    """A legacy file: lines of keywords, and after some of them numbers as text or big-endian bytes."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, read_bytes(path, MAX_BYTES), 0
        self.binary = False

    def fail(self, field: str, problem: str) -> InputError:
        return InputError(self.path, field, problem, AGAIN)

    def line(self) -> str | None:
        """The next line that is not empty, None at the end."""
        while self.at < len(self.data):
            end = self.data.find(b"\n", self.at, self.at + 10_000)
            end = min(len(self.data), self.at + 10_000) if end < 0 else end
            text = self.data[self.at : end].decode("latin-1").strip()
            self.at = end + 1
            if text:
                return text
        return None

    def values(self, amount: int, kind: str, field: str) -> NDArray[np.float64]:
        """The next numbers."""
        dtype = TYPES.get(kind.lower())
        if dtype is None or not 0 <= amount <= len(self.data):
            raise self.fail(field, "claims more than the file holds, or numbers of no known type")
        if self.binary:
            size = amount * np.dtype(dtype).itemsize
            if self.at + size > len(self.data):
                raise self.fail(field, "truncated")
            found = np.frombuffer(self.data, dtype, amount, self.at).astype(np.float64)
            self.at += size
            return found
        words: list[bytes] = []
        while len(words) < amount:
            if self.at >= len(self.data):
                raise self.fail(field, "truncated")
            end = self.data.find(b"\n", self.at)
            end = len(self.data) if end < 0 else end
            words += self.data[self.at : end].split()
            self.at = end + 1
        if len(words) != amount:
            raise self.fail(field, f"{len(words)} numbers, {amount} were announced")
        try:
            return np.array(words, np.float64)
        except ValueError:
            raise self.fail(field, "holds text in place of a number") from None


def _legacy(path: Path) -> Surface:
    reader = _Reader(path)
    if not (reader.line() or "").startswith("# vtk DataFile Version"):
        raise reader.fail("first line", "is not that of a VTK file")
    reader.line()
    reader.binary = (reader.line() or "").upper() == "BINARY"
    if (reader.line() or "").upper().split() != ["DATASET", "POLYDATA"]:
        return _skin(path)
    points: NDArray[np.float64] | None = None
    triangles: NDArray[Any] | None = None
    fields: dict[str, NDArray[Any]] = {}
    section = ""
    while (line := reader.line()) is not None:
        words = line.split()
        head = words[0].upper()
        if head == "POINTS" and len(words) == 3:
            points = reader.values(3 * _whole(words[1], reader), words[2], "POINTS").reshape(-1, 3)
        elif head in ("POLYGONS", "VERTICES", "LINES", "TRIANGLE_STRIPS") and len(words) == 3:
            found = _cells(reader, _whole(words[1], reader), _whole(words[2], reader), head)
            triangles = found if head == "POLYGONS" else triangles
        elif head in ("POINT_DATA", "CELL_DATA"):
            section = head
        elif head in ("SCALARS", "FIELD", "METADATA", "NORMALS", "VECTORS", "LOOKUP_TABLE"):
            found_fields = _data(reader, words, len(points) if points is not None else 0)
            fields |= found_fields if section == "POINT_DATA" else {}
        else:
            raise reader.fail("file", f"holds {head[:20]!r}, which is not read")
    if points is None or triangles is None:
        raise reader.fail("file", "has no points or no polygons")
    return checked(Surface(points, index_array(triangles, path), {k: v for k, v in fields.items() if len(v) == len(points)}), path)


def _whole(text: str, reader: _Reader) -> int:
    if not re.fullmatch(r"\d{1,10}", text):
        raise reader.fail("file", "a count is not a whole number")
    return int(text)


def _cells(reader: _Reader, cells: int, total: int, name: str) -> NDArray[Any] | None:
    """Triangles of a POLYGONS section in either layout (counts before nodes, or OFFSETS and CONNECTIVITY); None for other sections."""
    here = reader.at
    line = reader.line() or ""
    if line.upper().startswith("OFFSETS"):
        offsets = reader.values(cells, line.split()[-1], name)
        line = reader.line() or ""
        if not line.upper().startswith("CONNECTIVITY"):
            raise reader.fail(name, "has offsets without connectivity")
        nodes = reader.values(total, line.split()[-1], name)
        if name != "POLYGONS":
            return None
        if total != 3 * (cells - 1) or not (offsets == 3 * np.arange(cells)).all():
            raise reader.fail(name, "not all polygons are triangles")
        return nodes.reshape(-1, 3)
    reader.at = here
    table = reader.values(total, "int", name)
    if name != "POLYGONS":
        return None
    if total != 4 * cells or not (table[::4] == 3).all():
        raise reader.fail(name, "not all polygons are triangles")
    return table.reshape(-1, 4)[:, 1:]


def _data(reader: _Reader, words: list[str], n: int) -> dict[str, NDArray[Any]]:
    """Values of one attribute, by name."""
    head = words[0].upper()
    if head == "SCALARS" and len(words) in (3, 4):
        columns = _whole(words[3], reader) if len(words) == 4 else 1
        here = reader.at
        if not (reader.line() or "").upper().startswith("LOOKUP_TABLE"):
            reader.at = here
        values = reader.values(n * columns, words[2], words[1][:40])
        return {words[1][:80]: values if columns == 1 else values.reshape(n, columns)}
    if head in ("NORMALS", "VECTORS") and len(words) == 3:
        return {words[1][:80]: reader.values(3 * n, words[2], head).reshape(n, 3)}
    if head == "LOOKUP_TABLE" and len(words) == 3:
        reader.values(4 * _whole(words[2], reader), "unsigned_char" if reader.binary else "float", head)
        return {}
    if head == "METADATA":
        here = reader.at
        while (reader.line() or "").upper().startswith(("INFORMATION", "NAME ", "DATA ", "COMPONENT_NAMES")):
            here = reader.at
        reader.at = here
        return {}
    if head != "FIELD" or len(words) != 3:
        raise reader.fail(head, "is not as the format has it")
    out: dict[str, NDArray[Any]] = {}
    for _ in range(_whole(words[2], reader)):
        part = (reader.line() or "").split()
        if part[:1] == ["METADATA"]:
            _data(reader, part, n)
            part = (reader.line() or "").split()
        if len(part) != 4:
            raise reader.fail("FIELD", "truncated")
        columns, rows = _whole(part[1], reader), _whole(part[2], reader)
        values = reader.values(columns * rows, part[3], part[0][:40])
        out[part[0][:80]] = values if columns == 1 else values.reshape(rows, columns)
    return out
