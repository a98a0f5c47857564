"""Between the formats of one noun: labels to labels, surface to surface, mesh to mesh. Surfaces become labels in `meshing.voxelise`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from twin.errors import InputError
from twin.io.dicom_files import is_dicom
from twin.io.labels import read_labels
from twin.io.nifti import write_nifti
from twin.io.nrrd import write_nrrd
from twin.io.source import file_size
from twin.io.surfaces import Surface, read_surface, write_surface
from twin.io.volume_mesh import SUFFIXES as MESH_SUFFIXES
from twin.io.volume_mesh import VolumeMesh, boundary, checked, of_heart, read_volume, write_volume_mesh
from twin.mesh import HeartMesh
from twin.volume import LabelVolume

LABEL_SUFFIXES = (".nrrd", ".nii", ".nii.gz", ".mha", ".dcm")
SURFACE_SUFFIXES = (".vtp", ".ply", ".stl", ".obj", ".npz")
EXPERIMENT_SUFFIXES = (".toml", ".par")


def kind_of(path: Path) -> str:
    """ "labels", "surface", "mesh" or "experiment", by suffix (of .npz, DICOM and folders by content). Raises InputError for any other."""
    name = path.name.lower()
    if path.is_dir() and surface_files(path):
        return "surface"
    if name.endswith(LABEL_SUFFIXES) or holds_dicom(path):
        return "labels"
    if name.endswith(".npz") and is_heart_mesh(path):
        return "mesh"
    for kind, suffixes in (("surface", SURFACE_SUFFIXES), ("mesh", MESH_SUFFIXES), ("experiment", EXPERIMENT_SUFFIXES)):
        if name.endswith(suffixes):
            return kind
    known = ", ".join((*LABEL_SUFFIXES, *SURFACE_SUFFIXES, *MESH_SUFFIXES, *EXPERIMENT_SUFFIXES))
    raise InputError(path, "file", f"{path.suffix or 'no suffix'} is not converted", f"known: {known}")


def surface_files(folder: Path) -> list[Path]:
    """Surfaces in a folder, one closed surface per label as 3D Slicer exports them, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".stl", ".ply", ".vtp", ".obj"))


def holds_dicom(path: Path) -> bool:
    """True for a DICOM file of any name (they often have no suffix), or a folder with one."""
    if path.is_dir():
        return any(holds_dicom(one) for one in sorted(path.iterdir()) if one.is_file())
    if not path.is_file():
        return False
    with open(path, "rb") as handle:
        return is_dicom(handle.read(132))


def is_heart_mesh(path: Path) -> bool:
    """True for a .npz that holds a HeartMesh (heart.npz of `vtwin mesh`)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"tets.npy", "points_mm.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def label_writers() -> dict[str, Callable[[Path, LabelVolume], None]]:
    """Writer of label volumes by suffix."""
    from twin.io.dicom_seg_write import write_dicom_seg
    from twin.io.mha import write_mha

    return {".nrrd": write_nrrd, ".nii": write_nifti, ".nii.gz": write_nifti, ".mha": write_mha, ".dcm": write_dicom_seg}


def write_labels(path: Path, volume: LabelVolume) -> None:
    """Write labels as NRRD, NIfTI-1, MetaImage or DICOM SEG (.dcm), by suffix."""
    name = path.name.lower()
    known = label_writers()
    suffix = next((s for s in sorted(known, key=len, reverse=True) if name.endswith(s)), None)
    if suffix is None:
        raise InputError(path, "file", f"labels are not written as {path.suffix or 'no suffix'}", f"known: {', '.join(known)}")
    known[suffix](path, volume)


def convert_labels(source: Path, target: Path, labels: Mapping[str, int] | None = None) -> list[str]:
    """Rewrite a label volume with vtwin's numbers and names; a left-handed grid is stored right-handed, with nothing moved.

    Returns lines that say what was read. Raises InputError.
    """
    volume = read_labels(source, labels, flip=True)
    write_labels(target, volume)
    size = " x ".join(map(str, volume.data.shape))
    spacing = " x ".join(f"{s:.3g}" for s in volume.spacing_mm)
    lines = [f"{size} voxels of {spacing} mm", *(f"{name}: {volume.volume_ml(name):.1f} mL" for name in volume.names if name != "ignore")]
    if target.name.lower().endswith(".mha"):
        lines.append("MetaImage cannot hold names of labels: vtwin's numbers are written")
    return lines


def convert_surface(source: Path, target: Path) -> list[str]:
    """Rewrite a surface in another format. Returns lines that say what was read and lost. Raises InputError."""
    surface = read_surface(source)
    write_surface(target, surface)
    return [*_surface_lines(surface), *_lost_data(surface, target)]


def _surface_lines(surface: Surface) -> list[str]:
    counts = f"{len(surface.points_mm)} points, {len(surface.triangles)} triangles"
    return [f"{counts}, {surface.area_cm2:.1f} cm2, {surface.volume_ml:.1f} mL enclosed"]


def _lost_data(surface: Surface, target: Path) -> list[str]:
    names = (*surface.point_data, *surface.cell_data)
    if not names or target.suffix.lower() == ".vtp":
        return []
    return [f"{target.suffix} cannot hold {', '.join(names)}: left out"]


def read_mesh(path: Path) -> VolumeMesh:
    """A mesh of tetrahedra in any format, a saved HeartMesh (.npz) too. Raises InputError."""
    if path.suffix.lower() != ".npz":
        return read_volume(path)
    file_size(path)
    try:
        heart = HeartMesh.load(path)
    except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(path, "file", f"is not a mesh saved by vtwin ({error})", "save it again") from None
    return checked(of_heart(heart), path)


def mesh_lines(mesh: VolumeMesh) -> list[str]:
    """What a mesh holds: counts, and each region with its volume."""
    lines = [f"{len(mesh.points_mm)} points, {len(mesh.tets)} tetrahedra, fibres: {'yes' if mesh.fibre is not None else 'no'}"]
    volume = np.abs(mesh.tet_volumes_mm3)
    for number in np.unique(mesh.region).tolist():
        here = mesh.region == number
        lines.append(f"{mesh.name_of(number)} ({number}): {int(here.sum())} tetrahedra, {volume[here].sum() / 1000:.2f} mL")
    return lines


def convert_mesh(source: Path, target: Path) -> list[str]:
    """Rewrite a mesh in another format, with regions, their names, fibres and values as far as the format holds them.

    Returns lines that say what was read, changed and lost. Raises InputError.
    """
    mesh = read_mesh(source)
    lost = write_volume_mesh(target, mesh)
    return [*mesh_lines(mesh), *mesh.notes, *lost]


def mesh_to_surface(source: Path, target: Path) -> list[str]:
    """Write the outer surface of a mesh, with point values and the region under each triangle where the format holds them."""
    mesh = read_mesh(source)
    triangles, owner = boundary(mesh.tets)
    used, renumbered = np.unique(triangles, return_inverse=True)
    points = {name: values[used] for name, values in mesh.point_data.items()}
    surface = Surface(
        mesh.points_mm[used], renumbered.reshape(-1, 3).astype(np.int32), points, {"region": mesh.region[owner].astype(np.int32)}
    )
    write_surface(target, surface)
    return [*mesh_lines(mesh), *mesh.notes, *_surface_lines(surface), *_lost_data(surface, target)]
