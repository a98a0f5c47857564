"""PLY surfaces, text and binary (http://paulbourke.net/dataformats/ply/)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes
from twin.errors import InputError
from twin.io.source import read_bytes
from twin.io.surfaces import Surface, index_array

MAX_BYTES = 1_000_000_000
MAX_HEADER = 100_000
MAX_ROWS = 50_000_000
_TYPES = "char int8 i1,uchar uint8 u1,short int16 i2,ushort uint16 u2,int int32 i4,uint uint32 u4,float float32 f4,double float64 f8"
TYPES = {name: row.split()[2] for row in _TYPES.split(",") for name in row.split()[:2]}
FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
FACES = ("vertex_indices", "vertex_index")


@dataclass
class Element:
    """One element of the header: properties as (name, type) or (name, type of count, type of items)."""

    name: str
    count: int
    properties: list[tuple[str, ...]] = field(default_factory=list)


def _header(data: bytes, where: Path) -> tuple[str, list[Element], int]:
    """Byte order ("" for text), elements, and where the data start."""
    end = re.search(rb"end_header\r?\n", data[:MAX_HEADER])
    if not data.startswith(b"ply") or end is None:
        raise InputError(where, "header", "is not a PLY header", "export it again as PLY")
    order: str | None = None
    elements: list[Element] = []
    for line in data[: end.start()].decode("latin-1").splitlines()[1:]:
        words = line.split()
        if words[:1] == ["format"] and len(words) == 3 and words[1] in FORMATS:
            order = FORMATS[words[1]]
        elif words[:1] == ["element"] and len(words) == 3 and re.fullmatch(r"\d{1,9}", words[2]):
            elements.append(Element(words[1], int(words[2])))
        elif words[:2] == ["property", "list"] and len(words) == 5 and elements and words[2] in TYPES and words[3] in TYPES:
            elements[-1].properties.append((words[4], TYPES[words[2]], TYPES[words[3]]))
        elif words[:1] == ["property"] and len(words) == 3 and elements and words[1] in TYPES:
            elements[-1].properties.append((words[2], TYPES[words[1]]))
        elif words and words[0] not in ("comment", "obj_info"):
            raise InputError(where, "header", f"{line[:40]!r} is not understood", "export it again")
    if order is None or any(element.count > MAX_ROWS or not element.properties for element in elements):
        raise InputError(where, "header", "format, counts or properties are missing or absurd", "export it again")
    return order, elements, end.end()


def _layout(element: Element, order: str, where: Path) -> np.dtype:
    """Fixed record of an element: a list must be its only list, of triangles."""
    parts: list[tuple[Any, ...]] = []
    for prop in element.properties:
        if len(prop) == 2:
            parts.append((prop[0], order + prop[1]))
        else:
            parts += [(f"{prop[0]}#", order + prop[1]), (prop[0], order + prop[2], 3)]
    names = [part[0] for part in parts]
    if len(set(names)) != len(names):
        raise InputError(where, element.name, "a property appears twice", "export it again")
    return np.dtype(parts)


def _text(data: bytes, start: int, elements: list[Element], where: Path) -> dict[str, NDArray[Any]]:
    words = data[start:].split()
    out: dict[str, NDArray[Any]] = {}
    place = 0
    for element in elements:
        layout = _layout(element, "<", where)
        width = sum(int(np.prod(layout[name].shape, dtype=int)) for name in layout.names or ())
        chunk = words[place : place + width * element.count]
        place += len(chunk)
        try:
            table = np.array([float(word) for word in chunk]).reshape(element.count, width)
        except ValueError:
            raise InputError(
                where, element.name, "truncated, not triangles, or not numbers", "export a triangulated surface again"
            ) from None
        rows = np.zeros(element.count, layout)
        column = 0
        for name in layout.names or ():
            size = int(np.prod(layout[name].shape, dtype=int))
            part = table[:, column : column + size]
            if layout[name].base.kind in "iu" and not (np.abs(part) < 2**31).all():
                raise InputError(where, name, "a number does not fit its type", "export it again")
            rows[name] = part if layout[name].shape else part[:, 0]
            column += size
        out[element.name] = rows
    return out


def _binary(data: bytes, start: int, order: str, elements: list[Element], where: Path) -> dict[str, NDArray[Any]]:
    out: dict[str, NDArray[Any]] = {}
    for element in elements:
        layout = _layout(element, order, where)
        stop = start + layout.itemsize * element.count
        if stop > len(data):
            raise InputError(where, element.name, "truncated, or polygons that are not triangles", "export a triangulated surface again")
        out[element.name] = np.frombuffer(data[start:stop], layout)
        start = stop
    return out


def read_ply(path: Path) -> Surface:
    """Read a triangulated PLY surface with all scalar point properties. Raises InputError."""
    data = read_bytes(path, MAX_BYTES)
    order, elements, start = _header(data, path)
    tables = _binary(data, start, order, elements, path) if order else _text(data, start, elements, path)
    vertex, face = tables.get("vertex"), tables.get("face")
    if vertex is None or face is None or not {"x", "y", "z"} <= set(vertex.dtype.names or ()):
        raise InputError(path, "elements", "vertex (x, y, z) and face are needed", "export a surface")
    listed = [name for name in FACES if name in (face.dtype.names or ()) and f"{name}#" in (face.dtype.names or ())]
    for table in tables.values():
        for name in table.dtype.names or ():
            if name.endswith("#") and (table[name] != 3).any():
                raise InputError(path, "face", "not all polygons are triangles", "triangulate the surface")
    if not listed:
        raise InputError(path, "face", f"has no {FACES[0]}", "export a surface")
    points = np.stack([vertex[axis].astype(np.float64) for axis in "xyz"], axis=1)
    extra = {n: np.ascontiguousarray(vertex[n]) for n in vertex.dtype.names or () if n not in "xyz" and vertex.dtype[n].shape == ()}
    return Surface(points, index_array(face[listed[0]], path), extra)


def write_ply(path: Path, surface: Surface) -> None:
    """Write binary little-endian PLY, double precision, without data arrays."""
    n, m = len(surface.points_mm), len(surface.triangles)
    head = "ply\nformat binary_little_endian 1.0\ncomment vtwin, LPS, mm\n"
    head += f"element vertex {n}\nproperty double x\nproperty double y\nproperty double z\n"
    head += f"element face {m}\nproperty list uchar int vertex_indices\nend_header\n"
    faces = np.zeros(m, [("n", "u1"), ("nodes", "<i4", 3)])
    faces["n"], faces["nodes"] = 3, surface.triangles
    write_bytes(path, head.encode() + surface.points_mm.astype("<f8").tobytes() + faces.tobytes())
