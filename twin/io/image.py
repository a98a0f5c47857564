"""Images of any format: DICOM (folder, zip or file), NRRD, NIfTI-1, MetaImage. The first bytes, not the name, say which."""

from __future__ import annotations

from pathlib import Path

from twin.errors import InputError
from twin.image import CineStack, Image
from twin.io.dicom import imaging, load, load_all, scan_dicom
from twin.io.dicom_files import is_dicom
from twin.io.dicom_stacks import Stack
from twin.io.mha import is_mha, read_mha_image
from twin.io.nifti import is_nifti, read_nifti_image
from twin.io.notes import Notes
from twin.io.nrrd import read_nrrd_image
from twin.io.source import file_size


def is_dicom_path(path: Path) -> bool:
    """True for what `scan_dicom` reads: a folder, a zip, or a DICOM file. Raises InputError if there is no such path."""
    if path.is_dir():
        return True
    file_size(path)
    with open(path, "rb") as handle:
        start = handle.read(132)
    return is_dicom(start) or start.startswith(b"PK\3\4")


def _read_file(path: Path) -> Image | CineStack:
    with open(path, "rb") as handle:
        start = handle.read(400)
    if start.startswith(b"NRRD"):
        return read_nrrd_image(path)
    if is_mha(start):
        return read_mha_image(path)
    if is_nifti(start):
        return read_nifti_image(path)
    raise InputError(path, "magic", f"{start[:8]!r} is no image format that is read", "give DICOM, NRRD, NIfTI-1 (.nii, .nii.gz) or MHA")


def _chosen(stacks: list[Stack], path: Path, notes: Notes) -> Stack:
    """The one volume of a study; views of a single plane beside it are passed over."""
    if not stacks:
        raise InputError(path, "DICOM", "holds no still volume", "give cine series as cine")
    volumes = [stack for stack in stacks if len(stack.planes) > 1] or stacks
    if len(volumes) > 1:
        listed = "; ".join(stack.describe() for stack in volumes[:6])
        raise InputError(path, "DICOM", f"{len(volumes)} stacks: {listed}", "name the folder of one series")
    if len(stacks) > 1:
        notes.add(f"{path.name}: {len(stacks) - 1} single planes beside the volume were passed over")
    return volumes[0]


def read_image(path: Path, notes: Notes | None = None) -> Image:
    """Read one volume (late enhancement, CT): a DICOM folder, zip or file, NRRD, NIfTI-1 or MetaImage.

    Raises InputError for what cannot be read or is not one volume; Suspicious for what `notes` does not accept.
    """
    notes = Notes() if notes is None else notes
    if is_dicom_path(path):
        scanned = imaging(scan_dicom(path, notes), path, notes)
        image = load(_chosen([stack for stack in scanned if not stack.cine], path, notes), path, notes)
        assert isinstance(image, Image)
        return image
    value = _read_file(path)
    if isinstance(value, CineStack):
        raise InputError(path, "dim", "holds several times", "give it as cine, or export one time")
    return value


def read_cine(path: Path, notes: Notes | None = None) -> tuple[CineStack, ...]:
    """Read every cine stack of a study, largest first: DICOM, or NIfTI-1 with time as fourth dimension.

    Raises InputError for what cannot be read or is no cine; Suspicious for what `notes` does not accept.
    """
    notes = Notes() if notes is None else notes
    if is_dicom_path(path):
        values = load_all([stack for stack in imaging(scan_dicom(path, notes), path, notes) if stack.cine], path, notes)
    else:
        values = (_read_file(path),)
    cine = tuple(value for value in values if isinstance(value, CineStack))
    if not cine:
        raise InputError(path, "cine", "no plane was measured at several times", "give a cine series, or name it as lge or ct")
    return cine
