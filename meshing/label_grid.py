"""Label volumes made ready for meshing: canonical axes, isotropic voxels, stray islands gone, impossible input refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from meshing.implicit import find_opening
from twin.errors import InputError
from twin.io.labels import require_heart, require_thickness
from twin.volume import WALL, LabelVolume


def check_labels(volume: LabelVolume, where: str) -> None:
    """Raise InputError if the labels cannot be one heart: no wall, no LV blood, a bad affine, two hearts, a wall without thickness."""
    check_affine(volume, where)
    require_heart(volume, where)
    _check_rv_wall(volume, where)
    require_thickness(volume, "rv_blood", where)


def check_affine(volume: LabelVolume, where: str) -> None:
    """Raise InputError if voxels cannot be placed in the patient."""
    linear = volume.affine[:3, :3]
    if volume.data.ndim != 3 or min(volume.data.shape) < 2:
        raise InputError(where, "size", f"{volume.data.shape} voxels are not a volume", "give a three-dimensional segmentation")
    if not np.isfinite(volume.affine).all():
        raise InputError(where, "orientation", "the voxel-to-patient matrix has NaN or infinite numbers", "export the segmentation again")
    if np.linalg.det(linear) <= 0 or volume.spacing_mm.min() < 1e-3:
        raise InputError(where, "orientation", "the voxel-to-patient matrix is singular or left-handed", "export the segmentation again")


def _check_rv_wall(volume: LabelVolume, where: str) -> None:
    """RV blood that meets the background on all sides has no free wall."""
    padded = np.pad(volume.data, 1)
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_mm(np.full((1, 3), -1.0))[0]
    grid = LabelVolume(padded, affine)
    for cavity, name in (("rv_blood", "RV"), ("lv_blood", "LV")):
        blood = grid.mask(cavity)
        outside = grid.mask("background", "ignore")
        bare, walled = (sum(int((blood & np.roll(m, s, a)).sum()) for a in range(3) for s in (-1, 1)) for m in (outside, grid.mask(*WALL)))
        opening = find_opening(blood, outside, affine)
        if bare > walled and (opening is None or not opening.flat):
            raise InputError(
                where,
                cavity,
                f"most of the {name} cavity lies against the background, not against a wall",
                f"label the {name} wall" + (", or leave rv_blood out to plan on the LV alone" if name == "RV" else ""),
            )


def canonical(volume: LabelVolume) -> LabelVolume:
    """The same labels with index axes as near to +L, +P, +S as they can be, whatever order and direction they were stored in.

    The matrix is rounded to 1e-6 mm, so that every storage of one image gives the same bits.
    """
    axes = volume.affine[:3, :3] / volume.spacing_mm
    best: tuple[int, ...] = (0, 1, 2)
    best_key: tuple[float, ...] = (-np.inf,)
    for order in itertools.permutations(range(3)):
        turned = np.round(axes[:, order], 6)
        turned *= [_forward(turned[:, axis], axis) for axis in range(3)]
        # at exactly 45 degrees the diagonals tie; the other components then decide, whatever the storage
        key = (round(float(np.trace(turned)), 6), *turned.ravel().tolist())
        if key > best_key:
            best, best_key = order, key
    data = np.transpose(volume.data, best)
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, best]
    for axis in range(3):
        if _forward(np.round(affine[:3, axis], 6), axis) < 0:
            data = np.flip(data, axis)
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:3, axis] *= -1.0
    return replace(volume, data=np.ascontiguousarray(data), affine=np.round(affine, 6) + 0.0)


def _forward(column: NDArray[np.float64], axis: int) -> float:
    """1 if an image axis points along patient axis `axis` or, upright to it, along the first axis that it has a part in; else -1."""
    leading = column[axis] if column[axis] != 0 else column[np.flatnonzero(column)[0]]
    return 1.0 if leading > 0 else -1.0


def crop(volume: LabelVolume) -> LabelVolume:
    """The box of everything that is not background, with one voxel around it."""
    occupied = np.stack([[x[0], x[-1]] for x in (np.flatnonzero(volume.data.any(axis=a)) for a in ((1, 2), (0, 2), (0, 1)))])
    box = tuple(slice(max(low - 1, 0), high + 2) for low, high in occupied)
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_mm(np.array([[float(b.start) for b in box]]))[0]
    return replace(volume, data=np.ascontiguousarray(volume.data[box]), affine=affine)
