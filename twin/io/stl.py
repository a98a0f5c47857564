"""STL (binary and text) and OBJ surfaces."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes
from twin.errors import InputError
from twin.io.source import read_bytes, read_text
from twin.io.surfaces import MAX_TRIANGLES, Surface, index_array

MAX_BYTES = 1_000_000_000
RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def _merged(corners: NDArray[np.floating]) -> Surface:
    """Surface from corners (m, 3, 3): equal positions become one point, triangles that collapse are dropped."""
    points, inverse = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    triangles = inverse.reshape(-1, 3)
    a, b, c = triangles.T
    return Surface(points.astype(np.float64), triangles[(a != b) & (b != c) & (c != a)].astype(np.int32))


def _numbers(words: list[str], where: Path, field: str) -> NDArray[np.float64]:
    try:
        return np.array([float(word) for word in words])
    except ValueError:
        raise InputError(where, field, "text in place of a number", "export it again") from None


def read_stl(path: Path) -> Surface:
    """Read an STL file; points that coincide exactly are merged. Raises InputError."""
    data = read_bytes(path, MAX_BYTES)
    count = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    if count >= 0 and len(data) == 84 + 50 * count:
        corners = np.frombuffer(data, RECORD, offset=84)["corners"]
        if not np.isfinite(corners).all():
            raise InputError(path, "points", "coordinates are not finite", "export it again")
        return _merged(corners)
    if data[:5].lower() != b"solid":
        problem = f"{len(data)} bytes do not fit {count} triangles: truncated or not STL"
        raise InputError(path, "triangles", problem, "export or copy it again")
    text = data.decode("latin-1")
    if "endsolid" not in text[-2000:]:
        raise InputError(path, "endsolid", "is missing: truncated", "export or copy it again")
    rows = re.findall(r"^\s*vertex\s+(\S+)\s+(\S+)\s+(\S+)\s*$", text, re.MULTILINE)
    if len(rows) % 3 or len(rows) != text.count("vertex"):
        raise InputError(path, "vertex", "lines are incomplete", "export it again")
    return _merged(_numbers([word for row in rows for word in row], path, "vertex").reshape(-1, 3, 3))


def read_obj(path: Path) -> Surface:
    """Read positions and faces of an OBJ file; polygons are cut into fans. Raises InputError."""
    points: list[list[str]] = []
    faces: list[tuple[int, int, int]] = []
    for number, line in enumerate(read_text(path, MAX_BYTES).splitlines(), start=1):
        kind, *words = line.split() or [""]
        if kind == "v":
            if len(words) < 3:
                raise InputError(path, f"line {number}", "a position needs three numbers", "export it again")
            points.append(words[:3])
        elif kind == "f":
            nodes = [word.split("/")[0] for word in words]
            if len(nodes) < 3 or len(nodes) > 1000 or not all(re.fullmatch(r"-?\d{1,9}", node) for node in nodes):
                raise InputError(path, f"line {number}", "is not a face", "export it again")
            index = [int(node) - 1 if int(node) > 0 else len(points) + int(node) for node in nodes]
            faces += [(index[0], index[i], index[i + 1]) for i in range(1, len(index) - 1)]
            if len(faces) > MAX_TRIANGLES:
                raise InputError(path, "triangles", f"more than {MAX_TRIANGLES}", "decimate the surface")
    flat = [word for row in points for word in row]
    return Surface(_numbers(flat, path, "v").reshape(-1, 3), index_array(np.array(faces, np.int64).reshape(-1, 3), path))


def stl_bytes(surface: Surface) -> bytes:
    """Binary STL: single precision, normals by the right-hand rule, a header that does not start with `solid`."""
    corners = surface.points_mm[surface.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    records = np.zeros(len(corners), RECORD)
    records["normal"], records["corners"] = normal, corners
    return b"vtwin surface, LPS, mm".ljust(80) + len(corners).to_bytes(4, "little") + records.tobytes()


def write_stl(path: Path, surface: Surface) -> None:
    """Write binary STL."""
    write_bytes(path, stl_bytes(surface))


def write_obj(path: Path, surface: Surface) -> None:
    """Write Wavefront OBJ: vertices with six decimals, faces 1-based."""
    vertices = "".join(f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in surface.points_mm)
    faces = "".join(f"f {i} {j} {k}\n" for i, j, k in surface.triangles + 1)
    write_bytes(path, f"# vtwin surface, LPS, mm\n{vertices}{faces}".encode())
