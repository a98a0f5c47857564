"""`.mesh` of CARTO 3 (`#TriangulatedMeshVersion2.0`): sections of vertices, triangles and colours, the colours by named column."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.archive import AGAIN, text_lines
from twin.io.surfaces import Surface, checked

NO_VALUE = -10000.0
INACTIVE = -1_000_000
"""GroupID of vertices and triangles that are not part of the shell (fill)."""

MAX_BYTES = 500_000_000
MAX_ROWS = 5_000_000
COLOURS = {"unipolar": "unipolar_mv", "bipolar": "bipolar_mv", "lat": "lat_ms", "impedance": "impedance_ohm", "force": "force_g"}
"""Columns whose meaning and unit are known; others keep their own names."""
SECTION = re.compile(r"\[(\w+)\]")


def parse_mesh(data: bytes, where: Path) -> Surface:
    """The active shell with the colour columns that hold values (NaN = none). Raises InputError."""
    sections, attributes = _sections(data, where)
    n, m = (_count(attributes, key, where) for key in ("NumVertex", "NumTriangle"))
    vertices = _table(sections.get("VerticesSection", []), n, 7, "VerticesSection", where)
    triangles = _table(sections.get("TrianglesSection", []), m, 7, "TrianglesSection", where)
    nodes = triangles[:, :3]
    if not (np.isfinite(nodes).all() and (nodes == np.rint(nodes)).all() and nodes.min() >= 0 and nodes.max() < n):
        raise InputError(where, "TrianglesSection", f"vertex numbers are not whole numbers from 0 to {n - 1}", AGAIN)
    colours = _colours(sections.get("VerticesColorsSection", []), attributes, n, where)
    active = vertices[:, 6] != INACTIVE
    corners = nodes.astype(np.int64)
    kept = corners[(triangles[:, 6] != INACTIVE) & active[corners].all(axis=1)]
    if not len(kept):
        raise InputError(where, "mesh", "no triangle is active", AGAIN)
    used, renumbered = np.unique(kept, return_inverse=True)
    fields = {name: values[used] for name, values in colours.items() if np.isfinite(values[used]).any()}
    surface = Surface(vertices[used, :3], renumbered.reshape(-1, 3).astype(np.int32), fields)
    return checked(surface, where)


def _sections(data: bytes, where: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    lines = text_lines(data, where, "mesh")
    first = lines.readline().strip()
    if not first.startswith("#TriangulatedMeshVersion"):
        raise InputError(where, "mesh", "does not begin with #TriangulatedMeshVersion", AGAIN)
    if not first.startswith("#TriangulatedMeshVersion2"):
        raise InputError(where, "mesh", f"is of version {first[24:34]!r}, 2.0 is read", "export it from CARTO 3")
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        line = line.strip()
        if not line or line.startswith(";"):
            continue
        if line.startswith("[") and (found := SECTION.match(line)):
            if found[1] in sections:
                raise InputError(where, found[1], "appears twice", AGAIN)
            current = sections.setdefault(found[1], [])
        else:
            current.append(line)
    attributes = {}
    for line in sections.get("GeneralAttributes", []):
        key, _, value = line.partition("=")
        attributes[key.strip()] = value.strip()
    return sections, attributes


def _count(attributes: dict[str, str], key: str, where: Path) -> int:
    text = attributes.get(key, "")
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:12]) <= MAX_ROWS:
        raise InputError(where, key, f"{text[:20]!r} is not a count from 1 to {MAX_ROWS}", AGAIN)
    return int(text)


def _table(lines: list[str], rows: int, columns: int, name: str, where: Path) -> NDArray[np.float64]:
    """Rows `index = values`, each index once, as (rows, columns)."""
    if len(lines) != rows:
        raise InputError(where, name, f"has {len(lines)} rows, the header says {rows}", AGAIN)
    # one conversion for the whole section: a row of another length changes the total
    text = " ".join(lines).replace("=", " ")
    try:
        values = np.array(text.split(), np.float64)
    except ValueError:
        raise InputError(where, name, "holds text in place of a number", AGAIN) from None
    if values.size != rows * (columns + 1) or any(line.count("=") != 1 for line in lines):
        raise InputError(where, name, f"its rows do not all have {columns} values", AGAIN)
    table = values.reshape(rows, columns + 1)
    if not (table[:, 0] == np.arange(rows)).all():
        raise InputError(where, name, "its rows are not numbered 0, 1, 2, ...", AGAIN)
    if not np.isfinite(table).all():
        raise InputError(where, name, "holds a value that is not finite", AGAIN)
    return table[:, 1:]


def _colours(lines: list[str], attributes: dict[str, str], n: int, where: Path) -> dict[str, NDArray[Any]]:
    names = attributes.get("ColorsNames", "").split()
    if not lines or not names:
        return {}
    if len({name.lower() for name in names}) != len(names) or len(names) > 100:
        raise InputError(where, "ColorsNames", "names a column twice", AGAIN)
    table = _table(lines, n, len(names), "VerticesColorsSection", where)
    values = np.where(table == NO_VALUE, np.nan, table)
    return {COLOURS.get(name.lower(), name[:40]): np.ascontiguousarray(values[:, k]) for k, name in enumerate(names)}


def format_mesh(surface: Surface, normals: NDArray[np.float64], comment: str) -> str:
    """Text of a `.mesh` with colours Unipolar, Bipolar and LAT; three decimals, two for values."""
    n, m = len(surface.points_mm), len(surface.triangles)
    lines = [
        "#TriangulatedMeshVersion2.0",
        f"; {comment}",
        "",
        "[GeneralAttributes]",
        "MeshID                 = 1",
        "MeshName               =",
        f"NumVertex              = {n}",
        f"NumTriangle            = {m}",
        "TopologyStatus         = 0",
        "MeshColor              = 0.00000 1.00000 0.00000 1.00000",
        "Matrix                 = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        "NumVertexColors        = 3",
        "ColorsIDs              = 0 1 2",
        "ColorsNames            = Unipolar Bipolar LAT",
        "",
        "[VerticesSection]",
        ";  X Y Z NormalX NormalY NormalZ GroupID",
        "",
    ]
    for k, (p, q) in enumerate(zip(surface.points_mm, normals, strict=True)):
        lines.append(f"{k} = {p[0]:.3f} {p[1]:.3f} {p[2]:.3f} {q[0]:.5f} {q[1]:.5f} {q[2]:.5f} 0")
    lines += ["", "[TrianglesSection]", ";  Vertex0 Vertex1 Vertex2 NormalX NormalY NormalZ GroupID", ""]
    flat = surface.points_mm[surface.triangles]
    face = np.cross(flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0])
    face /= np.maximum(np.linalg.norm(face, axis=1, keepdims=True), 1e-12)
    for k, (t, q) in enumerate(zip(surface.triangles, face, strict=True)):
        lines.append(f"{k} = {t[0]} {t[1]} {t[2]} {q[0]:.5f} {q[1]:.5f} {q[2]:.5f} 0")
    lines += ["", "[VerticesColorsSection]", ";  Unipolar Bipolar LAT", ""]
    columns = [surface.point_data.get(name, np.full(n, np.nan)) for name in ("unipolar_mv", "bipolar_mv", "lat_ms")]
    for k, row in enumerate(np.nan_to_num(np.stack(columns, axis=1), nan=NO_VALUE)):
        lines.append(f"{k} = " + " ".join(f"{value:.3f}" for value in row))
    return "\r\n".join(lines) + "\r\n"


def vertex_normals(surface: Surface) -> NDArray[np.float64]:
    """Unit normals (n, 3), the mean of the triangles' by area."""
    corner = surface.points_mm[surface.triangles]
    face = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    out = np.zeros_like(surface.points_mm)
    for k in range(3):
        np.add.at(out, surface.triangles[:, k], face)
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12), np.float64)
