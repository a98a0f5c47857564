"""openCARP meshes: points, elements and fibres, as text (.pts .elem .lon) or binary (.bpts .belem .blon).

Coordinates are micrometres on disk and millimetres here. Binary files start with 1024 bytes of text, zero padded: counts, then 0 for
little endian; points and fibres are float32, elements int32 records `type nodes... tag`. Only tetrahedra (type 0, "Tt") are read.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.source import read_bytes, read_text

UM_PER_MM = 1000.0
HEADER_BYTES = 1024
TEXT, BINARY = (".pts", ".elem", ".lon"), (".bpts", ".belem", ".blon")
_AGAIN = "export or copy the mesh again"


@dataclass(frozen=True)
class CarpMesh:
    """points_mm (n, 3) float64; tets (m, 4) int32, oriented; tag (m,) int32; fibre (m, 3) unit or zero; sheet the same or None."""

    points_mm: NDArray[np.float64]
    tets: NDArray[np.int32]
    tag: NDArray[np.int32]
    fibre: NDArray[np.float64]
    sheet: NDArray[np.float64] | None


def exists(prefix: Path) -> bool:
    """True if `prefix` names an openCARP mesh (both kinds of points file are looked for)."""
    return any(_beside(prefix, suffix).exists() for suffix in (".pts", ".bpts"))


def read(prefix: Path) -> CarpMesh:
    """Read the mesh whose files share `prefix`; InputError for files missing, truncated, inconsistent or not tetrahedral."""
    if _beside(prefix, ".bpts").exists():
        points, records, lon = (_beside(prefix, s) for s in BINARY)
        points_um = _binary(points, "<f4", 3, 1)
        elements = _binary(records, "<i4", 6, 1)
        kinds, tets, tag = elements[:, 0], elements[:, 1:5], elements[:, 5]
        if (kinds != 0).any():
            raise InputError(records, f"element {int(np.argmax(kinds != 0))}", "is not a tetrahedron", "convert the mesh to tetrahedra")
        directions = _binary_directions(lon)
    elif _beside(prefix, ".pts").exists():
        points, records, lon = (_beside(prefix, s) for s in TEXT)
        points_um = _rows(points, 3)
        tets, tag = _text_elements(records)
        directions = _text_directions(lon)
    else:
        raise InputError(prefix, "mesh", "no .pts or .bpts file with this prefix", "check the path and the spelling")
    if len(directions) != len(tets):
        raise InputError(lon, "fibres", f"{len(directions)} rows for {len(tets)} elements", "export both from one mesh")
    return _checked(points, records, lon, points_um.astype(float) / UM_PER_MM, tets, tag.astype(np.int32), directions)


def _beside(prefix: Path, suffix: str) -> Path:
    return prefix.parent / (prefix.name + suffix)


def _checked(
    points: Path,
    records: Path,
    lon: Path,
    points_mm: NDArray[np.float64],
    tets: NDArray[np.integer],
    tag: NDArray[np.int32],
    directions: NDArray[np.float64],
) -> CarpMesh:
    if not np.isfinite(points_mm).all():
        raise InputError(points, "points", "coordinates are not finite", _AGAIN)
    if not np.isfinite(directions).all():
        raise InputError(lon, "fibres", "directions are not finite", _AGAIN)
    if len(tets) == 0 or tets.min() < 0 or tets.max() >= len(points_mm):
        raise InputError(records, "elements", f"node numbers outside 0..{len(points_mm) - 1}", "export points and elements from one mesh")
    p = points_mm[tets]
    volume = np.einsum("ij,ij->i", p[:, 1] - p[:, 0], np.cross(p[:, 2] - p[:, 0], p[:, 3] - p[:, 0]))
    if (volume == 0).any():
        raise InputError(records, f"element {int(np.argmin(np.abs(volume)))}", "has no volume", "repair the mesh")
    tets = np.where((volume < 0)[:, None], tets[:, [0, 2, 1, 3]], tets)
    length = np.linalg.norm(directions.reshape(len(tets), -1, 3), axis=2, keepdims=True)
    unit = directions.reshape(len(tets), -1, 3) / np.where(length > 0, length, 1.0)
    return CarpMesh(
        points_mm, np.ascontiguousarray(tets, np.int32), tag, unit[:, 0].copy(), unit[:, 1].copy() if unit.shape[1] == 2 else None
    )


def _binary(path: Path, dtype: str, width: int, counts: int) -> NDArray[Any]:
    """The records, (rows, width); `counts` says which header number, from 1, holds the rows."""
    data = read_bytes(path)
    try:
        header = [int(word) for word in data[:HEADER_BYTES].rstrip(b"\0 \n").decode("ascii").split()]
        rows, endian = header[counts - 1], header[counts]
    except (ValueError, UnicodeDecodeError, IndexError):
        raise InputError(path, "header", "is not an openCARP binary header (counts as text, zero padded)", _AGAIN) from None
    if endian != 0:
        raise InputError(path, "header", "says big endian", "convert the mesh with meshtool to little endian")
    expected = HEADER_BYTES + rows * width * 4
    if rows < 1 or len(data) != expected:
        raise InputError(path, "data", f"{len(data)} bytes where {rows} rows need {expected} (tetrahedra only)", _AGAIN)
    return np.frombuffer(data, dtype, offset=HEADER_BYTES).reshape(rows, width)


def _binary_directions(path: Path) -> NDArray[np.float64]:
    head = read_bytes(path)[:2].strip()
    if head not in (b"1", b"2"):
        raise InputError(path, "header", "must start with 1 (fibres) or 2 (fibres and sheets)", _AGAIN)
    return _binary(path, "<f4", 3 * int(head), 2).astype(float)


def _count(path: Path, lines: list[str]) -> int:
    try:
        return int(lines[0].split()[0])
    except (IndexError, ValueError):
        raise InputError(path, "line 1", "must hold the number of rows", _AGAIN) from None


def _table(path: Path, lines: list[str], width: int) -> NDArray[np.float64]:
    if not lines:
        raise InputError(path, "rows", "holds no rows", _AGAIN)
    try:
        values = np.loadtxt(io.StringIO("\n".join(lines)), ndmin=2)
    except ValueError as error:
        raise InputError(path, "rows", f"not a table of numbers ({error})", _AGAIN) from None
    if values.shape[1] != width:
        raise InputError(path, "rows", f"{values.shape[1]} numbers per row, {width} are needed", _AGAIN)
    return values


def _rows(path: Path, width: int) -> NDArray[np.float64]:
    lines = read_text(path, 4_000_000_000).split("\n")
    count, body = _count(path, lines), [line for line in lines[1:] if line.strip()]
    if count < 1 or len(body) != count:
        raise InputError(path, "rows", f"{len(body)} where the first line says {count}", _AGAIN)
    return _table(path, body, width)


def _text_elements(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lines = read_text(path, 4_000_000_000).split("\n")
    count, body = _count(path, lines), [line.split() for line in lines[1:] if line.strip()]
    if count < 1 or len(body) != count:
        raise InputError(path, "rows", f"{len(body)} where the first line says {count}", _AGAIN)
    for number, words in enumerate(body):
        if words[0] != "Tt" or len(words) not in (5, 6):
            remedy = "convert the mesh to tetrahedra"
            raise InputError(path, f"line {number + 2}", f"{' '.join(words)[:40]!r} is not 'Tt' with 4 nodes and a tag", remedy)
    try:
        numbers = np.array([[int(w) for w in words[1:]] + [0] * (6 - len(words)) for words in body])
    except ValueError as error:
        raise InputError(path, "rows", f"not whole numbers ({error})", _AGAIN) from None
    return numbers[:, :4], numbers[:, 4]


def _text_directions(path: Path) -> NDArray[np.float64]:
    lines = [line for line in read_text(path, 4_000_000_000).split("\n") if line.strip()]
    # a file without the leading count of directions is old style: one fibre per line
    first = lines[0].split() if lines else []
    if len(first) == 3:
        return _table(path, lines, 3)
    if first not in (["1"], ["2"]):
        raise InputError(path, "line 1", "must be 1 (fibres) or 2 (fibres and sheets)", _AGAIN)
    return _table(path, lines[1:], 3 * int(first[0]))
