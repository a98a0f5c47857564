"""Exodus II meshes (.exo, .e, .ex2, .g): a block of tetrahedra for each region, directions and values as element and nodal variables.

Written as netCDF-3 with 64-bit offsets; read from netCDF-3 (scipy) and netCDF-4 (h5py), without the netCDF4 package that meshio asks for.
Format: Sandia report SAND92-2137, "EXODUS II: a finite element data model", and https://sandialabs.github.io/seacas-docs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.opencarp.elements import split
from twin.io.source import file_size
from twin.io.volume_mesh import VolumeMesh, from_arrays

AGAIN = "export or copy it again"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_BLOCKS = 10_000
MAX_BYTES = 3_000_000_000
STRING = 33
SOLIDS = {"TET": "Tt", "HEX": "Hx", "WED": "Pr", "PYR": "Py"}
NODES = {"Tt": 4, "Hx": 8, "Pr": 6, "Py": 5}
AXES = ("_x", "_y", "_z")
Arrays = Mapping[str, NDArray[Any]]


def read_exodus(path: Path) -> VolumeMesh:
    """Read the mesh, names of blocks, and the variables of the last time step. Raises InputError for damage or other elements."""
    size = file_size(path, MAX_BYTES)
    with open(path, "rb") as handle:
        start = handle.read(8)
    if start[:3] == b"CDF" and start[3:4] in (b"\1", b"\2"):
        arrays, types = _netcdf3(path, size)
    elif start == HDF5_MAGIC:
        arrays, types = _netcdf4(path)
    else:
        raise InputError(path, "magic", f"{start[:4]!r} is neither netCDF-3 nor netCDF-4", "give an Exodus II file")
    points = _points(arrays, path)
    numbers = arrays.get("eb_prop1")
    names = _texts(arrays.get("eb_names"))
    tets, region, owners, notes, labels = [], [], [], [], {}
    block = 1
    while f"connect{block}" in arrays and block <= MAX_BLOCKS:
        nodes = arrays[f"connect{block}"]
        kind = SOLIDS.get(types.get(f"connect{block}", "")[:3].upper())
        number = int(numbers[block - 1]) if numbers is not None and len(numbers) >= block else block
        name = names[block - 1] if len(names) >= block else ""
        if kind is None:
            what = types.get(f"connect{block}", "unknown")[:20]
            notes.append(f"block {number}: {len(nodes)} elements of kind {what} left out: only volumes are kept")
        else:
            cut, owner = _cut(nodes, kind, points, path, block)
            if kind != "Tt":
                notes.append(f"block {number}: {len(nodes)} elements cut into {len(cut)} tetrahedra")
            tets.append(cut)
            region.append(np.full(len(cut), number, np.int64))
            owners.append((block, owner))
            if name:
                labels[name] = number
        block += 1
    if not tets:
        raise InputError(path, "connect1", "no block of linear volumes", "convert the mesh to tetrahedra")
    cells: dict[str, NDArray[Any]] = {"region": np.concatenate(region)}
    cells |= _element_variables(arrays, owners, path)
    point_data = _vectors(_nodal_variables(arrays, len(points)))
    return from_arrays(points, np.concatenate(tets), _vectors(cells), point_data, path, labels, tuple(notes))


def _netcdf3(path: Path, size: int) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    from scipy.io import netcdf_file

    try:
        with netcdf_file(path, "r", mmap=False, maskandscale=False) as data:
            if sum(_claimed(v) for v in data.variables.values()) > 2 * size + 10_000_000:
                raise ValueError("it claims more data than it holds")
            arrays = {name: np.array(v.data) for name, v in data.variables.items()}
            types = {name: _text(getattr(v, "elem_type", b"")) for name, v in data.variables.items()}
    except InputError:
        raise
    except Exception as error:  # scipy raises many kinds on damage
        raise InputError(path, "file", f"is damaged netCDF-3 ({' '.join(str(error).split())[:120]})", AGAIN) from None
    return {name: v.astype(v.dtype.newbyteorder("=")) for name, v in arrays.items()}, types


def _claimed(variable: Any) -> int:
    return int(np.prod([int(n) for n in variable.data.shape], dtype=object)) * variable.data.dtype.itemsize


def _netcdf4(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    import h5py

    try:
        with h5py.File(path, "r") as data:
            sets = {name: v for name, v in data.items() if isinstance(v, h5py.Dataset)}
            if sum(int(v.size or 0) * v.dtype.itemsize for v in sets.values()) > MAX_BYTES:
                raise ValueError("it claims more than 3 GB of data")
            arrays = {name: np.asarray(v[()]) for name, v in sets.items() if v.dtype.kind in "fiuS"}
            types = {name: _text(v.attrs.get("elem_type", b"")) for name, v in sets.items()}
    except Exception as error:  # h5py raises many kinds on damage
        raise InputError(path, "file", f"is damaged netCDF-4 ({' '.join(str(error).split())[:120]})", AGAIN) from None
    return arrays, types


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.tobytes()
    return value.decode("latin-1").rstrip("\0 ") if isinstance(value, bytes) else str(value)


def _texts(rows: NDArray[Any] | None) -> list[str]:
    """Rows of single characters as texts."""
    if rows is None or rows.ndim != 2 or rows.dtype.kind != "S":
        return []
    return [b"".join(row.tolist()).split(b"\0")[0].decode("utf-8", "replace").strip() for row in rows]


def _points(arrays: Arrays, path: Path) -> NDArray[np.float64]:
    if all(name in arrays for name in ("coordx", "coordy", "coordz")):
        axes = [arrays[name] for name in ("coordx", "coordy", "coordz")]
        if len({v.shape for v in axes}) == 1 and axes[0].ndim == 1:
            return np.stack(axes, axis=1).astype(np.float64)
    if "coord" in arrays and arrays["coord"].ndim == 2 and arrays["coord"].shape[0] == 3:
        return np.ascontiguousarray(arrays["coord"].T, np.float64)
    raise InputError(path, "coord", "three coordinates a node are missing", "give an Exodus II file of a 3-D mesh")


def _cut(nodes: NDArray[Any], kind: str, points: NDArray[np.float64], path: Path, block: int) -> tuple[NDArray[Any], NDArray[Any]]:
    field = f"connect{block}"
    if nodes.ndim != 2 or nodes.shape[1] != NODES[kind] or nodes.dtype.kind not in "iu":
        raise InputError(path, field, f"has the shape {nodes.shape}", "convert the mesh to linear elements")
    nodes = nodes.astype(np.int64) - 1
    if nodes.size and (nodes.min() < 0 or nodes.max() >= len(points)):
        raise InputError(path, field, f"node numbers are outside 1 to {len(points)}", AGAIN)
    if not np.isfinite(points).all():
        raise InputError(path, "coord", "coordinates are not finite", AGAIN)
    cut, owner = split(kind, nodes, points)
    if (cut < 0).any():
        raise InputError(path, field, "an element is folded", "repair the mesh")
    return cut, owner


def _element_variables(arrays: Arrays, owners: list[tuple[int, NDArray[Any]]], path: Path) -> dict[str, NDArray[Any]]:
    """Variables that every kept block has, last time step."""
    out: dict[str, NDArray[Any]] = {}
    for index, name in enumerate(_texts(arrays.get("name_elem_var")), 1):
        parts = []
        for block, owner in owners:
            values = arrays.get(f"vals_elem_var{index}eb{block}")
            if values is None or values.ndim != 2 or not len(values) or (len(owner) and owner.max() >= values.shape[1]):
                break
            parts.append(values[-1][owner])
        if len(parts) == len(owners) and name:
            out[name] = np.concatenate(parts)
    return out


def _nodal_variables(arrays: Arrays, n: int) -> dict[str, NDArray[Any]]:
    out = {}
    whole = arrays.get("vals_nod_var")
    for index, name in enumerate(_texts(arrays.get("name_nod_var")), 1):
        values = arrays.get(f"vals_nod_var{index}")
        if values is None and whole is not None and whole.ndim == 3 and whole.shape[1] >= index:
            values = whole[:, index - 1]
        if values is not None and values.ndim == 2 and len(values) and values.shape[1] == n and name:
            out[name] = np.array(values[-1])
    return out


def _vectors(scalars: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """`fibre_x`, `fibre_y`, `fibre_z` put together as `fibre` (k, 3)."""
    out: dict[str, NDArray[Any]] = {}
    for name, values in scalars.items():
        stem = re.sub(r"_[xyz]$", "", name)
        if stem != name and all(stem + axis in scalars for axis in AXES):
            out[stem] = np.stack([scalars[stem + axis] for axis in AXES], axis=1)
        else:
            out[name] = values
    return out


def _scalars(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Vectors taken apart, as Exodus stores them."""
    out: dict[str, NDArray[Any]] = {}
    for name, values in arrays.items():
        if values.ndim == 1:
            out[name] = values
        else:
            ends = AXES if values.shape[1] == 3 else tuple(f"_{i}" for i in range(values.shape[1]))
            out |= {name + end: values[:, i] for i, end in enumerate(ends)}
    return out


def write_exodus(path: Path, mesh: VolumeMesh) -> tuple[str, ...]:
    """Write one block for each region (its number and name), atomically; tetrahedra are stored region by region."""
    from scipy.io import netcdf_file

    numbers = np.unique(mesh.region).tolist()
    if min(numbers) < 1:
        raise InputError(path, "region", f"number {min(numbers)}: blocks of Exodus are numbered from 1", "renumber the regions")
    directions = {name: v for name, v in (("fibre", mesh.fibre), ("sheet", mesh.sheet)) if v is not None}
    cells, points = _scalars({**directions, **mesh.cell_data}), _scalars(mesh.point_data)
    if long := [name for name in (*cells, *points, *(mesh.name_of(n) for n in numbers)) if len(name.encode()) >= STRING]:
        raise InputError(path, "names", f"{long[0]!r} is longer than {STRING - 1} bytes", "shorten it")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with netcdf_file(temporary, "w", version=2) as data:
            _write_arrays(data, mesh, numbers, cells, points)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return ()


def _write_arrays(data: Any, mesh: VolumeMesh, numbers: list[int], cells: Arrays, points: Arrays) -> None:
    data.title, data.version, data.api_version = b"vtwin mesh, mm", np.float32(5.1), np.float32(5.1)
    data.floating_point_word_size, data.file_size = np.int32(8), np.int32(1)
    sizes = {"len_string": STRING, "len_line": 81, "four": 4, "num_dim": 3, "num_nodes": len(mesh.points_mm), "num_elem": len(mesh.tets)}
    sizes |= {"num_el_blk": len(numbers), "num_nod_per_el": 4}
    sizes |= {name: len(v) for name, v in (("num_elem_var", cells), ("num_nod_var", points)) if v}
    data.createDimension("time_step", None)
    for name, size in sizes.items():
        data.createDimension(name, size)

    def variable(name: str, kind: str, dims: tuple[str, ...], values: Any) -> Any:
        v = data.createVariable(name, kind, dims)
        v[:] = values
        return v

    variable("time_whole", "d", ("time_step",), np.zeros(1))
    variable("eb_status", "i", ("num_el_blk",), np.ones(len(numbers), np.int32))
    variable("eb_prop1", "i", ("num_el_blk",), np.array(numbers, np.int32)).name = b"ID"
    variable("eb_names", "c", ("num_el_blk", "len_string"), _characters([mesh.name_of(n) for n in numbers]))
    for axis, name in enumerate(("coordx", "coordy", "coordz")):
        variable(name, "d", ("num_nodes",), mesh.points_mm[:, axis])
    variable("coor_names", "c", ("num_dim", "len_string"), _characters(["x", "y", "z"]))
    if cells:
        variable("name_elem_var", "c", ("num_elem_var", "len_string"), _characters(list(cells)))
    if points:
        variable("name_nod_var", "c", ("num_nod_var", "len_string"), _characters(list(points)))
    for block, number in enumerate(numbers, 1):
        rows = np.flatnonzero(mesh.region == number)
        data.createDimension(f"num_el_in_blk{block}", len(rows))
        data.createDimension(f"num_nod_per_el{block}", 4)
        dims = (f"num_el_in_blk{block}", f"num_nod_per_el{block}")
        variable(f"connect{block}", "i", dims, (mesh.tets[rows] + 1).astype(np.int32)).elem_type = b"TETRA4"
        for index, values in enumerate(cells.values(), 1):
            variable(f"vals_elem_var{index}eb{block}", "d", ("time_step", f"num_el_in_blk{block}"), values[rows].astype(float)[None])
    for index, values in enumerate(points.values(), 1):
        variable(f"vals_nod_var{index}", "d", ("time_step", "num_nodes"), values.astype(float)[None])


def _characters(texts: list[str]) -> NDArray[Any]:
    rows = [text.encode()[: STRING - 1].ljust(STRING, b"\0") for text in texts]
    return np.frombuffer(b"".join(rows), "S1").reshape(len(rows), STRING)
