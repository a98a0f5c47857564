"""Meshes of experiments: boxes, and every file that holds tetrahedra with fibres."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meshing.box import box_mesh
from solvers.experiment import BoxSpec
from twin.errors import InputError
from twin.io import opencarp
from twin.io.volume_mesh import SUFFIXES, read_volume
from twin.mesh import NON_CONDUCTING, REGIONS, HeartMesh


@dataclass(frozen=True)
class SimMesh:
    """What a solver needs of a mesh: points_mm (n, 3), tets (m, 4), fibre (m, 3), region (m,); names: region name -> number."""

    points_mm: NDArray[np.float64]
    tets: NDArray[np.int32]
    fibre: NDArray[np.float64]
    region: NDArray[np.int32]
    names: dict[str, int]
    heart: HeartMesh | None = None
    """The whole of a HeartMesh, with coordinates and surfaces, where the file was one."""

    def as_heart(self, conducting: NDArray[np.bool_]) -> HeartMesh:
        """The mesh as lead fields and wavefront solvers want it: its own regions if it has vtwin's, else healthy tissue and scar."""
        own = self.names == REGIONS
        region = np.where(conducting, self.region if own else REGIONS["healthy"], REGIONS["scar"]).astype(np.int16)
        if self.heart is not None:
            return replace(self.heart, region=region)
        return HeartMesh(self.points_mm, self.tets, region, {}, self.fibre, self.fibre)

    def blocked(self) -> NDArray[np.bool_]:
        """Tetrahedra of scar and lesions by name, (m,) bool; files that only know numbers have none."""
        return np.isin(self.region, [self.names[name] for name in NON_CONDUCTING if name in self.names])


def load_mesh(source: BoxSpec | Path) -> SimMesh:
    """A box, a HeartMesh .npz, a .vtu, .msh, .exo or .vtk with fibres, or an openCARP prefix. Raises InputError."""
    if isinstance(source, BoxSpec):
        return _of_heart(box_mesh(source.size_mm, source.spacing_mm, source.fibre, source.variant))
    if source.suffix in SUFFIXES and source.suffix not in opencarp.TEXT + opencarp.BINARY:
        return _read_volume(source)
    if source.suffix == ".npz":
        if not source.is_file():
            raise InputError(source, "file", "does not exist", "check the path and the spelling")
        try:
            mesh = HeartMesh.load(source)
        except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(source, "file", f"is not a mesh saved by vtwin ({error})", "save it again") from None
        mesh.check(str(source))
        return _of_heart(mesh)
    if opencarp.exists(source):
        carp = opencarp.read(source)
        return SimMesh(carp.points_mm, carp.tets, carp.fibre, carp.tag, {})
    raise InputError(
        source,
        "mesh.file",
        "no .npz, .vtu, .msh, .exo, .vtk or openCARP mesh (.pts, .bpts) of this name",
        "check the path and the spelling",
    )


def _of_heart(mesh: HeartMesh) -> SimMesh:
    return SimMesh(mesh.points_mm, mesh.tets, mesh.fibre, mesh.region.astype(np.int32), dict(REGIONS), mesh)


def _read_volume(path: Path) -> SimMesh:
    mesh = read_volume(path)
    if mesh.fibre is None:
        raise InputError(path, "fibre", "is not in the file", "write the mesh with `vtwin mesh`, or convert it with its fibres")
    # a .vtu without names is one that was made for vtwin: its numbers are vtwin's
    names = dict(mesh.names) or (dict(REGIONS) if path.suffix == ".vtu" else {})
    return SimMesh(mesh.points_mm, mesh.tets, mesh.fibre, mesh.region, names)
