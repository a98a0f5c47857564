"""Gmsh meshes (.msh): regions as physical volumes with names, fibres as element data; format 4.1 or 2.2, text.

Written here, because meshio 5.3 loses physical volumes in 4.1 and writes numbers that nothing reads under numpy 2.
Format: https://gmsh.info/doc/texinfo/gmsh.html#MSH-file-format
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes
from twin.errors import InputError
from twin.io.guarded import read_foreign
from twin.io.source import file_size
from twin.io.volume_mesh import VolumeMesh, from_arrays

VERSIONS = ("4.1", "2.2")


def read_msh(path: Path) -> VolumeMesh:
    """Read format 2.2, 4.0 or 4.1, text or binary; surface elements are left out and noted. Raises InputError."""
    file_size(path)
    with open(path, "rb") as handle:
        head = handle.read(200)
    found = re.match(rb"\s*(?:\$Comments.*?\$EndComments\s*)?\$MeshFormat\s+(\d+(?:\.\d+)?)\s", head, re.DOTALL)
    if found is None:
        raise InputError(path, "$MeshFormat", "is not at the start: no Gmsh mesh", "give a .msh file of format 2.2 or 4.1")
    if not found[1].startswith((b"2", b"4")):
        raise InputError(path, "$MeshFormat", f"version {found[1].decode()} is not read", "save it with Mesh.MshFileVersion = 4.1")
    foreign = read_foreign(path, "gmsh")
    # physical 0 is Gmsh's word for none
    return from_arrays(foreign.points, foreign.tets, foreign.cells, foreign.point_data, path, foreign.names, foreign.notes)


def write_msh(path: Path, mesh: VolumeMesh, version: str = "4.1") -> tuple[str, ...]:
    """Write a mesh; 4.1 keeps tetrahedra region by region. Returns lines about what was changed. Raises InputError for region 0 or less."""
    if version not in VERSIONS:
        raise InputError(path, "version", f"{version!r} is not written", f"use one of {', '.join(VERSIONS)}")
    numbers = np.unique(mesh.region).tolist()
    shift = 1 - min(numbers) if min(numbers) < 1 else 0
    notes = (f"Gmsh's physical volumes start at 1: {shift} is added to every region",) if shift else ()
    region = mesh.region + shift
    order = np.argsort(region, kind="stable")
    out = io.BytesIO()
    out.write(f"$MeshFormat\n{version} 0 8\n$EndMeshFormat\n".encode())
    labels = [(number + shift, mesh.name_of(number)) for number in numbers]
    out.write(f"$PhysicalNames\n{len(labels)}\n".encode())
    out.write("".join(f'3 {number} "{name.replace(chr(34), chr(39))}"\n' for number, name in labels).encode())
    out.write(b"$EndPhysicalNames\n")
    tets = mesh.tets[order] + 1
    if version == "4.1":
        _write_41(out, mesh, tets, region[order])
    else:
        _write_22(out, mesh, tets, region[order])
    ids = np.arange(1, len(tets) + 1)
    cells: dict[str, NDArray[Any]] = {k: v for k, v in (("fibre", mesh.fibre), ("sheet", mesh.sheet)) if v is not None}
    for name, values in {**cells, **mesh.cell_data}.items():
        _data(out, "ElementData", name, ids, values[order])
    for name, values in mesh.point_data.items():
        _data(out, "NodeData", name, np.arange(1, len(mesh.points_mm) + 1), values)
    write_bytes(path, out.getvalue())
    return notes


def _write_41(out: io.BytesIO, mesh: VolumeMesh, tets: NDArray[Any], region: NDArray[Any]) -> None:
    low, high = mesh.points_mm.min(axis=0), mesh.points_mm.max(axis=0)
    box = " ".join(f"{v!r}" for v in (*low.tolist(), *high.tolist()))
    numbers, counts = np.unique(region, return_counts=True)
    out.write(f"$Entities\n0 0 0 {len(numbers)}\n".encode())
    # one volume for each region: tag, bounding box, its physical tag, no bounding surfaces
    out.write("".join(f"{number} {box} 1 {number} 0\n" for number in numbers.tolist()).encode() + b"$EndEntities\n")
    n, m = len(mesh.points_mm), len(tets)
    out.write(f"$Nodes\n1 {n} 1 {n}\n3 {numbers[0]} 0 {n}\n".encode())
    np.savetxt(out, np.arange(1, n + 1), fmt="%d")
    np.savetxt(out, mesh.points_mm, fmt="%.17g")
    out.write(f"$EndNodes\n$Elements\n{len(numbers)} {m} 1 {m}\n".encode())
    start = 0
    for number, count in zip(numbers.tolist(), counts.tolist()):
        out.write(f"3 {number} 4 {count}\n".encode())
        np.savetxt(out, np.column_stack([np.arange(start + 1, start + count + 1), tets[start : start + count]]), fmt="%d")
        start += count
    out.write(b"$EndElements\n")


def _write_22(out: io.BytesIO, mesh: VolumeMesh, tets: NDArray[Any], region: NDArray[Any]) -> None:
    n, m = len(mesh.points_mm), len(tets)
    out.write(f"$Nodes\n{n}\n".encode())
    np.savetxt(out, np.column_stack([np.arange(1, n + 1), mesh.points_mm]), fmt="%d %.17g %.17g %.17g")
    out.write(f"$EndNodes\n$Elements\n{m}\n".encode())
    # number, type 4 (tetrahedron), two tags: physical and geometrical
    table = np.column_stack([np.arange(1, m + 1), np.full(m, 4), np.full(m, 2), region, region, tets])
    np.savetxt(out, table, fmt="%d")
    out.write(b"$EndElements\n")


def _data(out: io.BytesIO, kind: str, name: str, ids: NDArray[Any], values: NDArray[Any]) -> None:
    table = values.reshape(len(values), -1).astype(np.float64)
    width = table.shape[1]
    # views know scalars, vectors and tensors only
    padded = next((w for w in (1, 3, 9) if w >= width), width)
    table = np.pad(table, ((0, 0), (0, padded - width)))
    title = name.replace('"', "'")
    out.write(f'${kind}\n1\n"{title}"\n1\n0.0\n3\n0\n{padded}\n{len(table)}\n'.encode())
    np.savetxt(out, np.column_stack([ids, table]), fmt="%d" + " %.17g" * padded)
    out.write(f"$End{kind}\n".encode())
