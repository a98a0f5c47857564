"""A mesh of tetrahedra as files of other programs hold it: regions with names, directions, values; and its readers and writers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.source import did_you_mean
from twin.mesh import REGIONS, HeartMesh, signed_volumes_mm3

REGION_NAMES = ("region", "gmsh:physical", "elemTag", "medit:ref", "cell_tags", "tag", "tags", "ObjectId")
FIBRE_NAMES = ("fibre", "fiber", "fibres", "fibers", "Fiber", "Fibre", "f0")
SHEET_NAMES = ("sheet", "sheets", "Sheet", "s0")
"""Names of cell arrays that programs give to regions and directions, ours first."""

MAX_EXTENT_MM = 2000.0
SUFFIXES = (".vtu", ".vtk", ".msh", ".exo", ".e", ".ex2", ".g", ".pts", ".elem", ".bpts", ".belem")


@dataclass(frozen=True)
class VolumeMesh:
    """points_mm (n, 3) float64; tets (m, 4) int32, oriented; region (m,) int32; names: region name -> number, as far as known.

    fibre, sheet: (m, 3) float64 or None. point_data, cell_data: name -> (n,) or (n, c), (m,) or (m, c) numbers. notes: what was changed.
    """

    points_mm: NDArray[np.float64]
    tets: NDArray[np.int32]
    region: NDArray[np.int32]
    names: Mapping[str, int] = field(default_factory=dict)
    fibre: NDArray[np.float64] | None = None
    sheet: NDArray[np.float64] | None = None
    point_data: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    cell_data: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def name_of(self, number: int) -> str:
        """A region's name, or `region_N`."""
        return next((name for name, value in self.names.items() if value == number), f"region_{number}")

    @property
    def tet_volumes_mm3(self) -> NDArray[np.float64]:
        """Signed volume of each tetrahedron, (m,) mm^3."""
        return signed_volumes_mm3(self.points_mm, self.tets)


def of_heart(mesh: HeartMesh) -> VolumeMesh:
    """A HeartMesh with its coordinates and segments as point data."""
    points: dict[str, NDArray[Any]] = dict(mesh.coordinates)
    if len(mesh.aha_segment):
        points["aha_segment"] = mesh.aha_segment.astype(np.int32)
    fibre, sheet = (v if len(v) and np.any(v) else None for v in (mesh.fibre, mesh.sheet))
    return VolumeMesh(mesh.points_mm, mesh.tets, mesh.region.astype(np.int32), dict(REGIONS), fibre, sheet, points)


def checked(mesh: VolumeMesh, where: Path) -> VolumeMesh:
    """The mesh with tetrahedra oriented and directions of unit length; InputError for one that no heart in mm can be."""
    points, tets = mesh.points_mm, mesh.tets
    if not len(points) or not len(tets):
        raise InputError(where, "tetrahedra", f"{len(points)} points and {len(tets)} tetrahedra", "give a mesh of tetrahedra")
    if tets.min() < 0 or tets.max() >= len(points):
        raise InputError(where, "tetrahedra", f"node numbers are outside 0 to {len(points) - 1}", "export it again")
    if not np.isfinite(points).all():
        raise InputError(where, "points", "coordinates are not finite", "export it again, in mm")
    extent = float(np.ptp(points, axis=0).max())
    if extent < 1.0:
        raise InputError(where, "points", f"the mesh is {extent:.2g} mm wide: it looks like metres", "multiply coordinates by 1000")
    if extent > MAX_EXTENT_MM:
        raise InputError(where, "points", f"the mesh is {extent:.0f} mm wide: it looks like micrometres", "divide coordinates by 1000")
    if len(mesh.region) != len(tets):
        raise InputError(where, "region", f"{len(mesh.region)} values for {len(tets)} tetrahedra", "export it again")
    volume = mesh.tet_volumes_mm3
    flat = np.flatnonzero(volume == 0)
    if len(flat):
        raise InputError(where, f"tetrahedron {flat[0]}", f"and {len(flat) - 1} others have no volume", "repair the mesh")
    notes = list(mesh.notes)
    if (volume < 0).any():
        notes.append(f"{int((volume < 0).sum())} of {len(tets)} tetrahedra were inside out and are turned")
        tets = np.where((volume < 0)[:, None], tets[:, [0, 2, 1, 3]], tets).astype(np.int32)
    fibre, sheet = (_unit(v, len(tets), where, name) for v, name in ((mesh.fibre, "fibre"), (mesh.sheet, "sheet")))
    return replace(mesh, tets=np.ascontiguousarray(tets, np.int32), fibre=fibre, sheet=sheet, notes=tuple(notes))


def _unit(v: NDArray[np.float64] | None, m: int, where: Path, name: str) -> NDArray[np.float64] | None:
    if v is None:
        return None
    if v.shape != (m, 3) or not np.isfinite(v).all():
        raise InputError(where, name, f"has the shape {v.shape} or is not finite; {m} x 3 are needed", "export it again")
    with np.errstate(over="ignore"):
        length = np.linalg.norm(v, axis=1, keepdims=True)
    # rounded unit vectors stay as they are, so that reading and writing again changes nothing
    return np.asarray(v / np.where((length > 0) & (np.abs(length - 1.0) > 1e-6), length, 1.0), np.float64)


def from_arrays(
    points: NDArray[Any],
    tets: NDArray[Any],
    cells: Mapping[str, NDArray[Any]],
    point_data: Mapping[str, NDArray[Any]],
    where: Path,
    names: Mapping[str, int] | None = None,
    notes: tuple[str, ...] = (),
) -> VolumeMesh:
    """A checked mesh of a file's arrays: regions, fibres and sheets are found among the cell arrays by their usual names."""
    cells = dict(cells)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or points.dtype.kind not in "fiu":
        raise InputError(where, "points", f"have the shape {points.shape}", "give three coordinates a point")
    if points.shape[1] == 2:
        raise InputError(where, "points", "are two-dimensional", "give a mesh of tetrahedra")
    region = np.zeros(len(tets), np.int32)
    found = next((name for name in REGION_NAMES if name in cells), None)
    if found is not None:
        values = cells.pop(found)
        if (
            values.shape != (len(tets),)
            or not np.isfinite(values).all()
            or (values != np.rint(values)).any()
            or np.abs(values).max() >= 2**31
        ):
            raise InputError(where, found, "is not one whole number per tetrahedron", "export the regions again")
        region = values.astype(np.int32)
    else:
        notes = (*notes, "no regions in the file: all tetrahedra are region 0")
    directions = {}
    for ours, known in (("fibre", FIBRE_NAMES), ("sheet", SHEET_NAMES)):
        there = next((name for name in known if name in cells and cells[name].shape == (len(tets), 3)), None)
        directions[ours] = None if there is None else cells.pop(there).astype(np.float64)
    mesh = VolumeMesh(
        np.ascontiguousarray(points, np.float64),
        np.ascontiguousarray(tets, np.int32),
        region,
        dict(names or {}),
        directions["fibre"],
        directions["sheet"],
        _values(point_data),
        _values(cells),
        notes,
    )
    return checked(mesh, where)


def _values(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Numbers that are the user's: what Gmsh keeps for itself is left out."""
    return {name: values for name, values in arrays.items() if values.dtype.kind in "fiu" and not name.startswith("gmsh:")}


def _read_carp(path: Path) -> VolumeMesh:
    from twin.io import opencarp

    binary = path.suffix.lower() in opencarp.BINARY
    carp = opencarp.read(opencarp.prefix_of(path), binary)
    fibre = carp.fibre if np.any(carp.fibre) else None
    return checked(VolumeMesh(carp.points_mm, carp.tets, carp.tag, {}, fibre, carp.sheet, notes=carp.notes), path)


def _write_carp(path: Path, mesh: VolumeMesh) -> tuple[str, ...]:
    from twin.io import opencarp

    fibre = np.zeros((len(mesh.tets), 3)) if mesh.fibre is None else mesh.fibre
    binary = path.suffix.lower() in opencarp.BINARY
    opencarp.write(opencarp.prefix_of(path), mesh.points_mm, mesh.tets, mesh.region, fibre, mesh.sheet, binary)
    lost = [f"values {', '.join((*mesh.point_data, *mesh.cell_data))}"] if mesh.point_data or mesh.cell_data else []
    lost += ["names of regions"] if mesh.names else []
    notes = (f"openCARP meshes cannot hold {' and '.join(lost)}: left out",) if lost else ()
    return notes if mesh.fibre is not None else (*notes, "no fibres: zero directions are written, which openCARP takes for a bath")


def readers() -> dict[str, Callable[[Path], VolumeMesh]]:
    """Reader by file suffix."""
    from twin.io.exodus import read_exodus
    from twin.io.gmsh import read_msh
    from twin.io.legacy_vtk import read_vtk
    from twin.io.vtu import read_vtu

    exodus = dict.fromkeys((".exo", ".e", ".ex2", ".g"), read_exodus)
    carp = dict.fromkeys((".pts", ".elem", ".bpts", ".belem"), _read_carp)
    return {".vtu": read_vtu, ".vtk": read_vtk, ".msh": read_msh, **exodus, **carp}


def writers() -> dict[str, Callable[[Path, VolumeMesh], tuple[str, ...]]]:
    """Writer by file suffix; each returns what the format could not hold."""
    from twin.io.exodus import write_exodus
    from twin.io.gmsh import write_msh
    from twin.io.legacy_vtk import write_vtk
    from twin.io.vtu import write_volume

    exodus = dict.fromkeys((".exo", ".e", ".ex2", ".g"), write_exodus)
    carp = dict.fromkeys((".pts", ".elem", ".bpts", ".belem"), _write_carp)
    return {".vtu": write_volume, ".vtk": write_vtk, ".msh": write_msh, **exodus, **carp}


def read_volume(path: Path) -> VolumeMesh:
    """Read a tetrahedral mesh by its suffix and check it. Raises InputError."""
    known = readers()
    if path.suffix.lower() not in known:
        raise InputError(path, "file", f"{path.suffix or 'no suffix'} is no mesh format", did_you_mean(path.suffix.lower(), known))
    return known[path.suffix.lower()](path)


def write_volume_mesh(path: Path, mesh: VolumeMesh) -> tuple[str, ...]:
    """Write a tetrahedral mesh by suffix; returns lines about what the format cannot hold. Raises InputError."""
    known = writers()
    if path.suffix.lower() not in known:
        raise InputError(path, "file", f"meshes are not written as {path.suffix or 'no suffix'}", did_you_mean(path.suffix.lower(), known))
    return known[path.suffix.lower()](path, mesh)


def boundary(tets: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Triangles (k, 3) that belong to one tetrahedron only, outward for oriented tetrahedra, and the tetrahedron of each (k,)."""
    corners = ((1, 2, 3), (0, 3, 2), (0, 1, 3), (0, 2, 1))
    faces = np.concatenate([tets[:, list(c)] for c in corners]).astype(np.int64)
    owner = np.tile(np.arange(len(tets)), 4)
    low, mid, high = np.sort(faces, axis=1).T
    n = int(tets.max()) + 1
    # two numbers name a face: a single one would not fit 64 bits for large meshes
    order = np.lexsort((low * n + mid, high))
    same = (low[order][1:] == low[order][:-1]) & (mid[order][1:] == mid[order][:-1]) & (high[order][1:] == high[order][:-1])
    alone = np.ones(len(faces), bool)
    alone[order[1:][same]] = False
    alone[order[:-1][same]] = False
    rows = np.flatnonzero(alone)
    return faces[rows].astype(np.int32), owner[rows]
