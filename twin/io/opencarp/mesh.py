"""openCARP meshes: points, elements and fibres, as text (.pts .elem .lon) or binary (.bpts .belem .blon).

Coordinates are micrometres on disk and millimetres here. Binary files start with 1024 bytes of text, zero padded: counts, then 0 for
little endian; points and fibres are float32, elements int32 records `kind nodes... tag`. Hexahedra, prisms and pyramids become
tetrahedra; surface and line elements beside them are left out, and that is noted.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes
from twin.errors import InputError
from twin.io.opencarp import text
from twin.io.opencarp.elements import BY_CODE, BY_WORD, ELEMENTS, Kind, split
from twin.io.opencarp.text import AGAIN as _AGAIN
from twin.io.source import file_size
from twin.mesh import signed_volumes_mm3

UM_PER_MM = 1000.0
HEADER_BYTES = 1024
CHECKSUM = 666
"""Third number of a binary header in every file seen; openCARP and meshtool do not look at it."""

ROUNDED = 1e-6
TEXT, BINARY = (".pts", ".elem", ".lon"), (".bpts", ".belem", ".blon")

Blocks = list[tuple[Kind, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]
"""Elements of one kind: which, nodes (n, k), tag (n,), place in the file (n,)."""


@dataclass(frozen=True)
class CarpMesh:
    """points_mm (n, 3) float64; tets (m, 4) int32, oriented; tag (m,) int32; fibre (m, 3) unit or zero; sheet the same or None.

    notes: what was changed on the way (elements cut into tetrahedra, surface elements left out), for the user.
    """

    points_mm: NDArray[np.float64]
    tets: NDArray[np.int32]
    tag: NDArray[np.int32]
    fibre: NDArray[np.float64]
    sheet: NDArray[np.float64] | None
    notes: tuple[str, ...] = ()


def exists(prefix: Path) -> bool:
    """True if `prefix` names an openCARP mesh (both kinds of points file are looked for)."""
    return any(_beside(prefix, suffix).exists() for suffix in (".pts", ".bpts"))


def prefix_of(path: Path) -> Path:
    """`heart` for `heart.pts`, `heart.belem` and the like; any other path as it is."""
    return path.with_suffix("") if path.suffix in TEXT + BINARY else path


def read(prefix: Path, binary: bool | None = None) -> CarpMesh:
    """Read the mesh whose files share `prefix`; binary: which kind (None: binary if it is there).

    Raises InputError for files that are missing, truncated, inconsistent or hold no volume.
    """
    if binary is None:
        binary = _beside(prefix, ".bpts").exists()
    if binary and _beside(prefix, ".bpts").exists():
        points, records, lon = (_beside(prefix, s) for s in BINARY)
        points_mm = _binary(points, "<f4", 3, 1).astype(float) / UM_PER_MM
        blocks = _binary_elements(records)
        directions = _binary_directions(lon)
    elif _beside(prefix, ".pts").exists():
        points, records, lon = (_beside(prefix, s) for s in TEXT)
        points_mm = text.counted_table(points, 3) / UM_PER_MM
        blocks = _text_elements(records)
        directions = _text_directions(lon)
    else:
        raise InputError(prefix, "mesh", "no .pts or .bpts file with this prefix", "check the path and the spelling")
    count = sum(len(tag) for _, _, tag, _ in blocks)
    if len(directions) != count:
        raise InputError(lon, "fibres", f"{len(directions)} rows for {count} elements", "export both from one mesh")
    return _assembled(points, records, lon, points_mm, blocks, directions)


def _beside(prefix: Path, suffix: str) -> Path:
    return prefix.parent / (prefix.name + suffix)


def _assembled(
    points: Path, records: Path, lon: Path, points_mm: NDArray[np.float64], blocks: Blocks, directions: NDArray[np.float64]
) -> CarpMesh:
    if not np.isfinite(points_mm).all():
        raise InputError(points, "points", "coordinates are not finite", _AGAIN)
    if not np.isfinite(directions).all():
        raise InputError(lon, "fibres", "directions are not finite", _AGAIN)
    n = len(points_mm)
    if any(nodes.min() < 0 or nodes.max() >= n for _, nodes, _, _ in blocks):
        raise InputError(records, "elements", f"node numbers outside 0..{n - 1}", "export points and elements from one mesh")
    notes: list[str] = []
    parts = []
    for kind, nodes, tag, place in blocks:
        if kind.word == "Oc":
            raise InputError(records, f"element {place[0]}", "is an octahedron", "convert the mesh to tetrahedra with meshtool")
        if not kind.solid:
            notes.append(f"{records.name}: {len(nodes)} {kind.name} left out: only volumes are simulated")
            continue
        tets, owner = split(kind.word, nodes, points_mm)
        if (tets < 0).any():
            element = int(place[owner[np.argmax(tets[:, 0] < 0)]])
            raise InputError(records, f"element {element}", f"of {kind.name} is folded in every known order of corners", "repair the mesh")
        if kind.word != "Tt":
            notes.append(f"{records.name}: {len(nodes)} {kind.name} cut into {len(tets)} tetrahedra")
        parts.append((tets, tag[owner], place[owner]))
    if not parts:
        raise InputError(records, "elements", "none has a volume (a surface mesh)", "give a mesh of tetrahedra, hexahedra or prisms")
    tets, tag, place = (np.concatenate([part[i] for part in parts]) for i in range(3))
    order = np.argsort(place, kind="stable")
    tets, tag, place = tets[order], tag[order], place[order]
    flat = signed_volumes_mm3(points_mm, tets) == 0
    if flat.any():
        raise InputError(records, f"element {int(place[np.argmax(flat)])}", "has no volume", "repair the mesh")
    if np.abs(tag).max() >= 2**31:
        raise InputError(records, "tags", "do not fit 32 bits", "renumber the regions")
    vectors = directions[place].reshape(len(tets), -1, 3)
    length = np.linalg.norm(vectors, axis=2, keepdims=True)
    # rounded unit vectors stay as they are, so that reading and writing again changes nothing
    unit = vectors / np.where((length > 0) & (np.abs(length - 1.0) > ROUNDED), length, 1.0)
    sheet = unit[:, 1].copy() if unit.shape[1] == 2 else None
    return CarpMesh(
        points_mm, np.ascontiguousarray(tets, np.int32), tag.astype(np.int32), np.ascontiguousarray(unit[:, 0]), sheet, tuple(notes)
    )


def _header(path: Path, counts: int) -> tuple[int, bytes]:
    """Rows and the header's bytes; `counts` says which number, from 1, holds the rows."""
    file_size(path)
    with open(path, "rb") as handle:
        head = handle.read(HEADER_BYTES)
    try:
        numbers = [int(word) for word in head.rstrip(b"\0 \n").decode("ascii").split()]
        rows, endian = numbers[counts - 1], numbers[counts]
    except (ValueError, UnicodeDecodeError, IndexError):
        raise InputError(path, "header", "is not an openCARP binary header (counts as text, zero padded)", _AGAIN) from None
    if endian != 0:
        raise InputError(path, "header", "says big endian", "convert the mesh with meshtool to little endian")
    return rows, head


def _body(path: Path, dtype: str) -> NDArray[Any]:
    size = file_size(path) - HEADER_BYTES
    if size < 0 or size % 4:
        raise InputError(path, "data", f"{size} bytes of data where numbers have 4 each", _AGAIN)
    return np.fromfile(path, dtype, offset=HEADER_BYTES)


def _binary(path: Path, dtype: str, width: int, counts: int) -> NDArray[Any]:
    rows, _ = _header(path, counts)
    size, expected = file_size(path), HEADER_BYTES + rows * width * 4
    if rows < 1 or size != expected:
        raise InputError(path, "data", f"{size} bytes where {rows} rows need {expected}", _AGAIN)
    return _body(path, dtype).reshape(rows, width)


def _binary_elements(path: Path) -> Blocks:
    rows, _ = _header(path, 1)
    size = file_size(path)
    if rows < 1 or HEADER_BYTES + rows * 4 * 4 > size or size > HEADER_BYTES + rows * 4 * 10:
        raise InputError(path, "data", f"{size} bytes where {rows} elements have 16 to 40 each", _AGAIN)
    stream = _body(path, "<i4")
    found: dict[int, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    at = row = 0
    while row < rows:
        kind = BY_CODE.get(int(stream[at])) if at < len(stream) else None
        if kind is None:
            raise InputError(path, f"element {row}", "has no kind that openCARP knows (damaged, or not .belem)", _AGAIN)
        width = kind.nodes + 2
        # a run of records of one kind has one width: it can be taken as a table
        most = min((len(stream) - at) // width, rows - row)
        if most < 1:
            raise InputError(path, f"element {row}", "is cut off", _AGAIN)
        run = stream[at : at + most * width].reshape(most, width)
        length = _run_length(run[:, 0], kind.code)
        found.setdefault(kind.code, []).append((run[:length], np.arange(row, row + length)))
        at, row = at + length * width, row + length
    if at != len(stream):
        raise InputError(path, "data", f"{4 * (len(stream) - at)} bytes after the last of {rows} elements", _AGAIN)
    out: Blocks = []
    for code, runs in found.items():
        table = np.concatenate([run for run, _ in runs]).astype(np.int64)
        out.append((BY_CODE[code], table[:, 1:-1], table[:, -1], np.concatenate([place for _, place in runs])))
    return out


def _run_length(kinds: NDArray[Any], code: int) -> int:
    """How many of the first entries are `code`; looks ahead in growing steps, so that short runs stay cheap."""
    step, start = 64, 0
    while start < len(kinds):
        other = kinds[start : start + step] != code
        if other.any():
            return start + int(np.argmax(other))
        start, step = start + step, step * 8
    return len(kinds)


def _binary_directions(path: Path) -> NDArray[np.float64]:
    file_size(path)
    with open(path, "rb") as handle:
        head = handle.read(2).strip()
    if head not in (b"1", b"2"):
        raise InputError(path, "header", "must start with 1 (fibres) or 2 (fibres and sheets)", _AGAIN)
    return _binary(path, "<f4", 3 * int(head), 2).astype(float)


def _text_elements(path: Path) -> Blocks:
    expected = text.count(path, 8)
    found: dict[str, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
    row = 0
    for number, words in text.rows(path):
        by_kind: dict[str, list[list[str]]] = {}
        places: dict[str, list[int]] = {}
        for line in words:
            kind = BY_WORD.get(line[0])
            if kind is None or len(line) not in (kind.nodes + 1, kind.nodes + 2):
                known = ", ".join(f"{k.word} with {k.nodes}" for k in ELEMENTS)
                text.refuse(path, f"element {row}", f"{' '.join(line)[:40]!r} is none of {known} nodes, and a tag")
            # an element without a tag is of region 0 (openCARP's manual)
            by_kind.setdefault(kind.word, []).append(line[1:] if len(line) == kind.nodes + 2 else [*line[1:], "0"])
            places.setdefault(kind.word, []).append(row)
            row += 1
        for word, lines in by_kind.items():
            found.setdefault(word, []).append((text.whole_numbers(path, lines, number), np.array(places[word])))
    if row != expected:
        text.refuse(path, "rows", f"{row} where the first line says {expected}")
    out: Blocks = []
    for word, chunks in found.items():
        table = np.concatenate([numbers for numbers, _ in chunks])
        out.append((BY_WORD[word], table[:, :-1], table[:, -1], np.concatenate([place for _, place in chunks])))
    return out


def _text_directions(path: Path) -> NDArray[np.float64]:
    first: list[str] = next((words[0] for _, words in text.rows(path, skip_first=False)), [])
    # a file without the leading count of directions is old style: one fibre per line
    if len(first) in (3, 6):
        return text.table(path, len(first), skip_first=False)
    if first not in (["1"], ["2"]):
        raise InputError(path, "line 1", "must be 1 (fibres) or 2 (fibres and sheets)", _AGAIN)
    return text.table(path, 3 * int(first[0]))


def write(
    prefix: Path,
    points_mm: NDArray[np.floating],
    tets: NDArray[np.integer],
    tag: NDArray[np.integer],
    fibre: NDArray[np.floating],
    sheet: NDArray[np.floating] | None = None,
    binary: bool = False,
) -> tuple[Path, Path, Path]:
    """Write points (n, 3) mm, tets (m, 4), tags (m,) and directions (m, 3), each file whole or absent; returns their paths.

    Text keeps 1e-6 um and seven decimals of a direction, binary what float32 holds.
    """
    directions = np.asarray(fibre, float) if sheet is None else np.hstack([fibre, sheet]).astype(float)
    kinds = 1 if sheet is None else 2
    paths = tuple(_beside(prefix, suffix) for suffix in (BINARY if binary else TEXT))
    um = np.asarray(points_mm, float) * UM_PER_MM
    if binary:
        records = np.column_stack([np.zeros(len(tets), np.int64), tets, tag]).astype("<i4")
        bodies = (
            (f"{len(um)} 0 {CHECKSUM}", um.astype("<f4")),
            (f"{len(tets)} 0 {CHECKSUM}", records),
            (f"{kinds} {len(tets)} 0 {CHECKSUM}", directions.astype("<f4")),
        )
        for path, (header, body) in zip(paths, bodies):
            write_bytes(path, header.encode().ljust(HEADER_BYTES, b"\0") + body.tobytes())
    else:
        write_bytes(paths[0], f"{len(um)}\n".encode() + _lines(um, "%.6f"))
        table = np.column_stack([tets, tag])
        write_bytes(paths[1], f"{len(tets)}\n".encode() + _lines(table, "%d", "Tt "))
        write_bytes(paths[2], f"{kinds}\n".encode() + _lines(directions, "%.7f"))
    return paths[0], paths[1], paths[2]


def _lines(table: NDArray[Any], number: str, start: str = "") -> bytes:
    buffer = io.BytesIO()
    np.savetxt(buffer, table + 0, fmt=start + " ".join([number] * table.shape[1]))
    return buffer.getvalue()
