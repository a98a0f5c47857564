"""Between the formats of one noun: labels to labels, surface to surface. Surfaces become labels in `meshing.voxelise`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twin.errors import InputError
from twin.io.dicom_seg_write import write_dicom_seg
from twin.io.labels import read_labels
from twin.io.mha import write_mha
from twin.io.nifti import write_nifti
from twin.io.nrrd import write_nrrd
from twin.io.surfaces import read_surface, write_surface
from twin.volume import LabelVolume

LABEL_SUFFIXES = (".nrrd", ".nii", ".nii.gz", ".mha", ".dcm")
SURFACE_SUFFIXES = (".vtp", ".ply", ".stl", ".obj", ".npz")


def kind_of(path: Path) -> str:
    """ "labels" or "surface", by suffix. Raises InputError for any other."""
    name = path.name.lower()
    if name.endswith(LABEL_SUFFIXES):
        return "labels"
    if name.endswith(SURFACE_SUFFIXES):
        return "surface"
    known = ", ".join((*LABEL_SUFFIXES, *SURFACE_SUFFIXES))
    raise InputError(path, "file", f"{path.suffix or 'no suffix'} is not converted", f"known: {known}")


def write_labels(path: Path, volume: LabelVolume) -> None:
    """Write labels as NRRD, NIfTI-1, MetaImage or DICOM SEG, by suffix."""
    writers = {".nrrd": write_nrrd, ".nii": write_nifti, ".gz": write_nifti, ".mha": write_mha, ".dcm": write_dicom_seg}
    writers[path.suffix.lower()](path, volume)


def convert_labels(source: Path, target: Path, labels: Mapping[str, int] | None = None) -> list[str]:
    """Rewrite a label volume with vtwin's numbers and names; a left-handed grid is stored right-handed, with nothing moved.

    Returns lines that say what was read. Raises InputError.
    """
    volume = read_labels(source, labels, flip=True)
    write_labels(target, volume)
    size = " x ".join(map(str, volume.data.shape))
    spacing = " x ".join(f"{s:.3g}" for s in volume.spacing_mm)
    return [f"{size} voxels of {spacing} mm", *(f"{name}: {volume.volume_ml(name):.1f} mL" for name in volume.names if name != "ignore")]


def convert_surface(source: Path, target: Path) -> list[str]:
    """Rewrite a surface in another format. Returns lines that say what was read. Raises InputError."""
    surface = read_surface(source)
    write_surface(target, surface)
    counts = f"{len(surface.points_mm)} points, {len(surface.triangles)} triangles"
    return [f"{counts}, {surface.area_cm2:.1f} cm2, {surface.volume_ml:.1f} mL enclosed"]
