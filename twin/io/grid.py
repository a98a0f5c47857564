"""What NRRD and NIfTI share: the checks of a voxel grid's geometry, and numbers in a file to labels of vtwin."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.image import Image
from twin.io.source import did_you_mean
from twin.volume import LABELS, WALL, LabelVolume

MAX_VOXELS = 400_000_000
MIN_SPACING_MM = 0.05
MAX_SPACING_MM = 10.0
MAX_AXIS = 4096
MAX_GAP_MM = 60.0
"""Slices of an image may be this far apart; those of a segmentation that is to become a mesh may not."""

MAX_IMAGE_BYTES = 1_000_000_000
SHEAR_COSINE = 0.01
"""Axes may be off perpendicular by about half a degree (rounded direction cosines, residual gantry tilt)."""

ALIASES = {
    "lv": "lv_blood",
    "lv_cavity": "lv_blood",
    "lv_blood_pool": "lv_blood",
    "lv_bloodpool": "lv_blood",
    "left_ventricle_blood": "lv_blood",
    "left_ventricular_cavity": "lv_blood",
    "left_ventricular_blood_pool": "lv_blood",
    "rv": "rv_blood",
    "rv_cavity": "rv_blood",
    "rv_blood_pool": "rv_blood",
    "rv_bloodpool": "rv_blood",
    "right_ventricle_blood": "rv_blood",
    "right_ventricular_cavity": "rv_blood",
    "right_ventricular_blood_pool": "rv_blood",
    "lv_myo": "lv_myocardium",
    "lv_wall": "lv_myocardium",
    "left_ventricular_myocardium": "lv_myocardium",
    "rv_myo": "rv_myocardium",
    "rv_wall": "rv_myocardium",
    "right_ventricular_myocardium": "rv_myocardium",
    "myo": "myocardium",
    "wall": "myocardium",
    "dense_scar": "scar",
    "scar_core": "scar",
    "core": "scar",
    "infarct": "scar",
    "bz": "border_zone",
    "borderzone": "border_zone",
    "border": "border_zone",
    "gray_zone": "border_zone",
    "grey_zone": "border_zone",
    "channel": "isthmus",
    "conducting_channel": "isthmus",
}
"""Names that segmentation programs and readers commonly give to the same things."""


def label_name(text: str, where: Path, field: str) -> str:
    """Name of vtwin for a label's name in a file ("LV blood pool" -> lv_blood). Raises InputError for an unknown one."""
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    name = ALIASES.get(name, name)
    if name not in LABELS:
        raise InputError(
            where, field, f"unknown label {text!r}", f"{did_you_mean(name, LABELS)} (or give [segmentation.labels] in the case)"
        )
    return name


def check_shape(shape: Sequence[int], where: Path, least: int = 2) -> None:
    """Raise InputError for sizes that no heart has, before anything of that size is allocated; an image may have `least` = 1 slice."""
    if len(shape) != 3 or min(shape) < least or max(shape) > MAX_AXIS:
        raise InputError(
            where, "sizes", f"{'x'.join(map(str, shape))} is not a volume of {least} to {MAX_AXIS} voxels a side", "export one 3-D volume"
        )
    total = int(np.prod([int(n) for n in shape], dtype=object))
    if total > MAX_VOXELS:
        raise InputError(
            where, "sizes", f"{total / 1e6:.0f} million voxels, the limit is {MAX_VOXELS / 1e6:.0f}", "crop to the heart or resample"
        )


def check_affine(affine: NDArray[np.float64], shape: Sequence[int], where: Path, field: str, image: bool = False) -> None:
    """Raise InputError if voxel axes (4, 4), already in LPS mm, are not finite, independent, perpendicular, in mm, and right-handed."""
    most = MAX_GAP_MM if image else MAX_SPACING_MM
    if not np.isfinite(affine).all():
        raise InputError(where, field, "is not finite (NaN or infinite)", "export the volume again with its position in the patient")
    axes = affine[:3, :3]
    # first the largest number: squares of huge ones overflow
    if np.abs(affine).max() > 1e7 or (np.abs(axes).max(axis=0) == 0).any():
        raise InputError(where, field, "an axis has no length or is out of any scanner", "export the volume again with its directions")
    spacing = np.sqrt((axes**2).sum(axis=0))
    if spacing.max() < MIN_SPACING_MM or (spacing * np.asarray(shape)).max() < 2.0:
        raise InputError(
            where,
            field,
            f"spacing {spacing.max():.3g} mm makes a volume of {(spacing * np.asarray(shape)).max():.2g} mm: it looks like metres",
            "write the geometry in mm (multiply by 1000)",
        )
    if spacing.min() < MIN_SPACING_MM or spacing.max() > most:
        text = " x ".join(f"{s:.3g}" for s in spacing)
        raise InputError(
            where, field, f"spacing {text} mm is outside {MIN_SPACING_MM} to {most:g} mm", "write the geometry in mm, or resample"
        )
    unit = axes / spacing
    shear = np.abs(unit.T @ unit - np.eye(3)).max()
    if shear > SHEAR_COSINE:
        raise InputError(where, field, f"axes are not perpendicular (cosine {shear:.3f})", "resample to a grid with perpendicular axes")
    if np.linalg.det(axes) < 0:
        raise InputError(
            where,
            field,
            "left-handed orientation (a mirrored heart, or index axes stored in reverse)",
            "check that left is left in a viewer, then `vtwin convert` writes it right-handed with nothing moved",
        )


def right_handed(data: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The same voxels in the same places with right-handed index axes: the first axis is reversed if need be."""
    if not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) >= 0:
        return data, affine
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = data.shape[0] - 1
    return data[::-1], affine @ flip


def image_values(data: NDArray[Any], where: Path) -> NDArray[Any]:
    """Intensities in the machine's byte order: integers as they are (64 bits as float32), real numbers as float32.

    Raises InputError for NaN and infinite values.
    """
    if data.dtype.kind == "f" or data.dtype.itemsize == 8:
        with np.errstate(over="ignore"):
            data = data.astype(np.float32)
        if not np.isfinite(data).all():
            raise InputError(where, "data", "holds NaN or infinite values", "export the image with a number outside the field of view")
        return data
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def to_image(data: NDArray[Any], affine: NDArray[np.float64], where: Path, field: str) -> Image:
    """An Image of a file's numbers (ni, nj, nk) and its axes in LPS mm, stored right-handed with nothing moved. Raises InputError."""
    data, affine = right_handed(data, affine)
    check_affine(affine, data.shape, where, field, image=True)
    return Image(image_values(data, where), affine, source=where.name)


def integers(data: NDArray[Any], where: Path) -> NDArray[Any]:
    """Labels stored as floating point, as integers. Raises InputError if they are not whole numbers."""
    if data.dtype.kind != "f":
        return data
    if not np.isfinite(data).all() or (data != np.rint(data)).any() or np.abs(data).max() > 1e6:
        raise InputError(where, "data", "holds fractional or infinite values: an image, not labels", "give the segmentation, not the image")
    return data.astype(np.int32)


def to_labels(
    data: NDArray[Any],
    affine: NDArray[np.float64],
    where: Path,
    in_file: Mapping[int, str],
    asked: Mapping[str, int] | None,
) -> LabelVolume:
    """Build a LabelVolume from a file's numbers.

    data (ni, nj, nk) any number type; in_file: value -> name as the file has it; asked: vtwin name -> value, which wins.
    Raises InputError for values without a name, and when the LV blood pool or all of the wall is missing.
    """
    data = integers(data, where)
    by_value = {int(value): label_name(name, where, "labels") for name, value in (asked or {}).items()}
    by_value |= {value: label_name(text, where, f"segment {value}") for value, text in in_file.items() if value not in by_value}
    if not by_value:
        raise InputError(
            where, "labels", "the file does not name its labels", "give [segmentation.labels] in the case or --labels lv_blood=1,..."
        )
    by_value.setdefault(0, "background")
    values = np.unique(data)
    unknown = [int(v) for v in values if int(v) not in by_value]
    if unknown:
        listed = ", ".join(map(str, unknown[:8])) + (" ..." if len(unknown) > 8 else "")
        known = ", ".join(f"{name} = {value}" for value, name in sorted(by_value.items()) if value)
        raise InputError(
            where,
            "labels",
            f"unknown label {listed} (known: {known})",
            "name it in [segmentation.labels] of the case (ignore = N drops it)",
        )
    internal = np.array([LABELS[by_value[int(v)]] for v in values], np.uint8)
    out = internal[np.searchsorted(values, data)]
    # what is to be ignored is background for everything that follows
    out[out == LABELS["ignore"]] = 0
    present = set(np.unique(out).tolist())
    if LABELS["lv_blood"] not in present:
        raise InputError(where, "labels", "missing label lv_blood", "segment the LV blood pool, or name it in [segmentation.labels]")
    if not present & {LABELS[name] for name in WALL}:
        raise InputError(where, "labels", "missing label: no myocardium", "segment the wall, or name it in [segmentation.labels]")
    names = {name: value for value, name in sorted(by_value.items()) if value in values and name != "background"}
    return LabelVolume(np.ascontiguousarray(out), affine, where.name, names)
