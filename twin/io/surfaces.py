"""Triangle surfaces in VTP, PLY, STL, OBJ and vtwin's .npz bundles: checked readers, and writers that need no VTK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.bundle import read_bundle
from twin.io.source import did_you_mean

MAX_TRIANGLES = 20_000_000


@dataclass(frozen=True)
class Surface:
    """Triangles in mm (LPS unless the source says otherwise).

    points_mm (n, 3) float64, triangles (m, 3) int32; point_data: name -> (n,) or (n, c); cell_data: name -> (m,) or (m, c).
    """

    points_mm: NDArray[np.float64]
    triangles: NDArray[np.int32]
    point_data: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    cell_data: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def volume_ml(self) -> float:
        """Enclosed (signed) volume, positive for outward normals, mL."""
        a, b, c = (self.points_mm[self.triangles[:, i]] for i in range(3))
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6000.0)

    @property
    def area_cm2(self) -> float:
        """Area, cm^2."""
        a, b, c = (self.points_mm[self.triangles[:, i]] for i in range(3))
        return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 200.0)


def checked(surface: Surface, where: Path) -> Surface:
    """The surface, if it has triangles, valid node numbers and finite coordinates in mm; InputError otherwise."""
    points, triangles = surface.points_mm, surface.triangles
    if not len(points) or not len(triangles):
        raise InputError(where, "triangles", f"{len(points)} points and {len(triangles)} triangles", "give a triangulated surface")
    if triangles.min() < 0 or triangles.max() >= len(points):
        raise InputError(where, "triangles", f"node numbers are outside 0 to {len(points) - 1}", "export it again")
    if not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise InputError(where, "points", "coordinates are not finite or out of range", "export it again, in mm")
    extent = float(np.ptp(points, axis=0).max())
    if extent < 1.0:
        raise InputError(where, "points", f"the surface is {extent:.2g} mm wide: it looks like metres", "multiply coordinates by 1000")
    for name, values in (*surface.point_data.items(), *surface.cell_data.items()):
        if len(values) not in (len(points), len(triangles)):
            raise InputError(where, name, f"{len(values)} values for {len(points)} points", "export it again")
    return surface


def _read_npz(path: Path) -> Surface:
    arrays = read_bundle(path)
    for name in ("vertices_mm", "faces"):
        if name not in arrays or arrays[name].ndim != 2 or arrays[name].shape[1] != 3 or arrays[name].dtype.kind not in "fiu":
            raise InputError(path, name, "is missing or not of shape (n, 3)", "a surface bundle holds vertices_mm and faces")
    points = arrays["vertices_mm"].astype(np.float64)
    data = {k: v for k, v in arrays.items() if v.ndim and len(v) == len(points) and k != "vertices_mm" and v.dtype.kind in "fiu"}
    return Surface(points, index_array(arrays["faces"], path), data)


def index_array(values: NDArray[Any], where: Path) -> NDArray[np.int32]:
    """Node numbers as int32; InputError if they do not fit or are too many."""
    if len(values) > MAX_TRIANGLES:
        raise InputError(where, "triangles", f"{len(values)} triangles, the limit is {MAX_TRIANGLES}", "decimate the surface")
    if values.size and not (np.isfinite(values).all() and values.min() >= 0 and values.max() < 2**31):
        raise InputError(where, "triangles", "node numbers are out of range", "export it again")
    return np.ascontiguousarray(values, np.int32)


def readers() -> dict[str, Callable[[Path], Surface]]:
    """Reader by file suffix."""
    from twin.io.ply import read_ply
    from twin.io.stl import read_obj, read_stl
    from twin.io.vtp import read_vtp

    return {".vtp": read_vtp, ".ply": read_ply, ".stl": read_stl, ".obj": read_obj, ".npz": _read_npz}


def read_surface(path: Path) -> Surface:
    """Read a surface by its suffix and check it. Raises InputError."""
    known = readers()
    suffix = path.suffix.lower()
    if suffix not in known:
        raise InputError(path, "file", f"{suffix or 'no suffix'} is not a surface format", did_you_mean(suffix, known))
    surface = checked(known[suffix](path), path)
    with open(path, "rb") as handle:
        ras = b"SPACE=RAS" in handle.read(1000)
    # 3D Slicer says in the header which way its coordinates run; everyone else's are taken as they are
    return replace(surface, points_mm=surface.points_mm * [-1.0, -1.0, 1.0]) if ras else surface


def write_surface(path: Path, surface: Surface) -> None:
    """Write .vtp (with data arrays), .stl or .ply by suffix."""
    from twin.io.ply import write_ply
    from twin.io.stl import write_obj, write_stl
    from twin.io.vtp import write_vtp

    writers = {".vtp": write_vtp, ".stl": write_stl, ".ply": write_ply, ".obj": write_obj}
    if path.suffix.lower() not in writers:
        raise InputError(path, "file", f"surfaces are not written as {path.suffix or 'no suffix'}", did_you_mean(path.suffix, writers))
    writers[path.suffix.lower()](path, surface)
