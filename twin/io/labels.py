"""Label volumes of any format, and the checks that a segmentation is one plausible heart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.errors import InputError
from twin.io.dicom_files import is_dicom
from twin.io.mha import is_mha, read_mha
from twin.io.nifti import is_nifti, read_nifti
from twin.io.notes import Notes
from twin.io.nrrd import read_nrrd
from twin.io.source import file_size
from twin.volume import WALL, LabelVolume

DISEASED = ("scar", "border_zone", "isthmus")
WALL_ML = (20.0, 600.0)
CAVITY_ML = (15.0, 500.0)
EXTENT_MM = (40.0, 250.0)
THICK_SLICES = 1.6
"""Voxels this many times longer along one axis than along another are slices."""
THIN_LINING = 0.4
"""Share of a cavity's lining that may be one voxel thin: walls of two voxels have nearly none, sheets nearly all."""
SECOND_HEART = (0.1, 0.2)
"""A second body with more than these shares of the largest one, and of all wall, is another heart, not an island."""
FACES = ndimage.generate_binary_structure(3, 1)


def read_labels(path: Path, labels: Mapping[str, int] | None = None, flip: bool = False, notes: Notes | None = None) -> LabelVolume:
    """Read a label volume; the first bytes, not the file's name, say which format it is.

    Raises InputError; Suspicious (contours with gaps) unless `notes` accepts it.
    """
    if path.is_dir():
        path = _labels_in(path)
    file_size(path)
    with open(path, "rb") as handle:
        start = handle.read(400)
    if start.startswith(b"NRRD"):
        return read_nrrd(path, labels, flip)
    if is_nifti(start):
        return read_nifti(path, labels, flip)
    if is_mha(start):
        return read_mha(path, labels, flip)
    if is_dicom(start):
        return read_dicom_labels(path, labels, notes)
    remedy = "give labels as .nrrd, .seg.nrrd, .nii, .nii.gz, .mha, DICOM SEG or RTSTRUCT"
    raise InputError(path, "magic", f"{start[:8]!r} is no label format that is read", remedy)


def _labels_in(folder: Path) -> Path:
    """The one SEG or RTSTRUCT in a folder, as picture archives export them. Raises InputError if there is none or several."""
    from twin.io.dicom_files import dicom_files, header

    found = []
    for file in dicom_files(folder):
        with header(file, ()) as (ds, _):
            if str(ds.get("Modality", "")) in ("SEG", "RTSTRUCT"):
                found.append(file.path)
    if len(found) != 1:
        raise InputError(folder, "DICOM", f"holds {len(found)} segmentations (SEG or RTSTRUCT)", "name the file of one")
    return found[0]


def read_dicom_labels(path: Path, labels: Mapping[str, int] | None, notes: Notes | None) -> LabelVolume:
    """Read a DICOM file that holds labels: SEG or RTSTRUCT. Raises InputError for any other."""
    from twin.io.dicom_files import DicomFile, header
    from twin.io.dicom_rtstruct import read_rtstruct
    from twin.io.dicom_seg import read_dicom_seg

    with header(DicomFile(path), ()) as (ds, _):
        modality = str(ds.get("Modality", ""))
    if modality == "SEG":
        return read_dicom_seg(path, labels)
    if modality == "RTSTRUCT":
        return read_rtstruct(path, labels, notes)
    raise InputError(path, "Modality", f"{modality[:16]!r} is an image or another object, not labels", "give a SEG or RTSTRUCT")


def _crop(volume: LabelVolume) -> NDArray[np.uint8]:
    """The voxels around the heart with one voxel of background on every side."""
    box = ndimage.find_objects((volume.data > 0).astype(np.uint8))[0]
    return np.pad(volume.data[box], 1)


def _pieces(mask: NDArray[np.bool_], voxel_ml: float) -> NDArray[np.float64]:
    """Volumes of the connected pieces (faces, edges or corners touch), largest first, mL."""
    numbered, n = ndimage.label(mask, np.ones((3, 3, 3), bool))
    return np.asarray(np.sort(np.bincount(numbered.ravel(), minlength=n + 1)[1:])[::-1] * voxel_ml, np.float64)


def thin_lining(volume: LabelVolume, cavity: str) -> float:
    """Share of the wall along a cavity that holds no block of 2 x 2 x 2 voxels (2 x 2 within thick slices), 0 without the cavity."""
    blood, wall, spacing = volume.mask(cavity), volume.mask(*WALL), volume.spacing_mm
    if not blood.any():
        return 0.0
    # a slanted wall of good thickness is one slice high where slices are thick
    block = np.ones([1 if size > THICK_SLICES * spacing.min() else 2 for size in spacing], bool)
    thick = ndimage.binary_opening(np.pad(wall, 2), block)[2:-2, 2:-2, 2:-2]
    lining = wall & ndimage.binary_dilation(blood, FACES)
    return float((lining & ~thick).sum() / max(int(lining.sum()), 1))


def require_heart(volume: LabelVolume, where: str | Path) -> None:
    """Raise InputError without wall or LV blood, for two hearts, and for an LV wall one voxel thin: nothing can be done with those."""
    if not volume.mask(*WALL).any():
        raise InputError(where, "labels", "no heart wall", "label the wall as myocardium (or lv_myocardium and rv_myocardium)")
    if not volume.mask("lv_blood").any():
        remedy = "label the LV cavity as lv_blood; without it inside and outside cannot be told apart"
        raise InputError(where, "labels", "no LV blood", remedy)
    voxel_ml = volume.voxel_mm3 / 1000.0
    pieces, walls = _pieces(volume.data > 0, voxel_ml), _pieces(volume.mask(*WALL), voxel_ml)
    for parts, whole, limit in ((pieces, pieces[0], SECOND_HEART[0]), (walls, walls.sum(), SECOND_HEART[1])):
        if len(parts) > 1 and parts[1] > limit * whole:
            problem = f"two disconnected hearts ({parts[0]:.0f} and {parts[1]:.0f} mL)"
            raise InputError(where, "labels", problem, "keep one heart, or connect its parts")
    require_thickness(volume, "lv_blood", where)


def require_thickness(volume: LabelVolume, cavity: str, where: str | Path) -> None:
    """Raise InputError if the wall round a cavity is one voxel thin along much of it."""
    share = thin_lining(volume, cavity)
    if share > THIN_LINING:
        problem = f"the wall is one voxel thin along {100 * share:.0f} % of {cavity}"
        raise InputError(where, "myocardium", problem, "segment the whole thickness, or export at a finer spacing")


def enclosed_fraction(blood: NDArray[np.bool_], wall: NDArray[np.bool_]) -> float:
    """Share of a blood pool's outer faces (to wall or to background) that touch wall; other blood counts as neither."""
    touching = [0, 0]
    for axis in range(3):
        for step in (1, -1):
            inside = np.roll(blood, step, axis) & ~blood
            touching[0] += int((inside & wall).sum())
            touching[1] += int(inside.sum())
    return touching[0] / max(touching[1], 1)


def check_heart(volume: LabelVolume, where: str | Path = "", notes: Notes | None = None) -> tuple[str, ...]:
    """Raise InputError if the labels are not one heart with a wall, Suspicious if it is an improbable one; return the notes."""
    notes = Notes() if notes is None else notes
    where = where or volume.source
    voxel_ml = volume.voxel_mm3 / 1000.0
    data = _crop(volume)
    grid = LabelVolume(data, volume.affine)
    require_heart(grid, where)
    _check_pieces(grid, voxel_ml, where, notes)
    _check_wall(grid, where, notes)
    _check_size(grid, volume, where, notes)
    _check_scar(grid, voxel_ml, where, notes)
    return tuple(notes.lines)


def _check_size(grid: LabelVolume, volume: LabelVolume, where: str | Path, notes: Notes) -> None:
    extent = float(((np.array(grid.data.shape) - 2) * volume.spacing_mm).max())
    wall, cavity = grid.volume_ml(*WALL), grid.volume_ml("lv_blood")
    if extent < 15.0 or wall < 1.0 or extent > 1000.0:
        raise InputError(
            where, "spacing", f"the heart is {extent:.3g} mm long, its wall {wall:.2g} mL: another unit?", "write the geometry in mm"
        )
    if not EXTENT_MM[0] <= extent <= EXTENT_MM[1]:
        notes.suspect(
            "heart_extent",
            where,
            "spacing",
            f"the heart is {extent:.0f} mm long",
            f"check the unit ({EXTENT_MM[0]:.0f} to {EXTENT_MM[1]:.0f} mm)",
        )
    if not WALL_ML[0] <= wall <= WALL_ML[1]:
        notes.suspect(
            "wall_volume", where, "wall", f"{wall:.0f} mL of wall", f"check labels and spacing ({WALL_ML[0]:.0f} to {WALL_ML[1]:.0f} mL)"
        )
    if not CAVITY_ML[0] <= cavity <= CAVITY_ML[1]:
        notes.suspect(
            "lv_volume", where, "lv_blood", f"{cavity:.0f} mL in the LV", f"check the labels ({CAVITY_ML[0]:.0f} to {CAVITY_ML[1]:.0f} mL)"
        )
    faces = [np.take(volume.data, end, axis) for axis in range(3) for end in (0, -1)]
    cut = sum(int(np.isin(face, [3, 4, 5, 6, 7, 8]).sum()) for face in faces)
    if cut > 0.005 * grid.mask(*WALL).sum():
        notes.suspect(
            "heart_cut", where, "wall", f"{cut} wall voxels lie on the edge of the image", "give an image that holds the whole heart"
        )


def _check_pieces(grid: LabelVolume, voxel_ml: float, where: str | Path, notes: Notes) -> None:
    pieces = _pieces(grid.data > 0, voxel_ml)
    if len(pieces) > 1:
        if pieces[1:].sum() > 0.5:
            notes.suspect(
                "stray_labels", where, "labels", f"{len(pieces) - 1} loose pieces, {pieces[1:].sum():.1f} mL", "remove the islands"
            )
        else:
            notes.add(f"{Path(where).name}: {len(pieces) - 1} loose specks of {pieces[1:].sum():.2f} mL")
    for name in ("lv_blood", "rv_blood"):
        pools = _pieces(grid.mask(name), voxel_ml)
        if len(pools) > 1 and pools[1] > 0.05 * pools[0]:
            notes.suspect(
                "split_cavity", where, name, f"{name} is in {len(pools)} pieces ({pools[1]:.1f} mL apart)", "connect the blood pool"
            )
    if not grid.mask("rv_blood").any():
        notes.add(f"{Path(where).name}: no right ventricle is labelled; pacing and lesions are limited to the left one")


def _check_wall(grid: LabelVolume, where: str | Path, notes: Notes) -> None:
    wall = grid.mask(*WALL)
    thin = thin_lining(grid, "rv_blood")
    if thin > THIN_LINING:
        problem = f"is one voxel thin along {100 * thin:.0f} % of rv_blood; such a wall cannot be meshed"
        notes.suspect("thin_rv_wall", where, "rv_myocardium", problem, "export at a finer spacing")
    enclosed = enclosed_fraction(grid.mask("lv_blood"), wall)
    if enclosed < 0.3:
        raise InputError(where, "lv_blood", f"only {100 * enclosed:.0f} % of its surface touches wall", "segment the wall around the LV")
    if enclosed < 0.6:
        notes.suspect(
            "open_lv", where, "lv_blood", f"only {100 * enclosed:.0f} % of its surface touches wall", "close the wall round the LV"
        )


def _check_scar(grid: LabelVolume, voxel_ml: float, where: str | Path, notes: Notes) -> None:
    diseased = grid.mask(*DISEASED)
    if not diseased.any():
        notes.add(f"{Path(where).name}: no scar is labelled")
        return
    healthy = grid.mask("lv_myocardium", "rv_myocardium", "myocardium")
    numbered, n = ndimage.label(diseased, np.ones((3, 3, 3), bool))
    touching = np.unique(numbered[ndimage.binary_dilation(healthy, np.ones((3, 3, 3), bool)) & diseased])
    sizes = np.bincount(numbered.ravel(), minlength=n + 1) * voxel_ml
    apart = float(np.delete(sizes, np.union1d(touching, [0])).sum())
    if apart > 0:
        notes.suspect("scar_island", where, "scar", f"{apart:.2f} mL of scar or border touch no myocardium", "remove the islands")
    share = float(diseased.sum() / max(1, (diseased | healthy).sum()))
    if share > 0.6:
        notes.suspect("scar_extent", where, "scar", f"{100 * share:.0f} % of the wall is scar or border", "check the labels")
