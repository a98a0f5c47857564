"""Label volumes made ready for meshing: canonical axes, isotropic voxels, stray islands gone, impossible input refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from meshing.implicit import FAR_MM, find_opening
from twin.errors import InputError
from twin.volume import LABELS, WALL, LabelVolume

MAX_VOXEL_MM = 1.5
MIN_VOXEL_MM = 0.75
SECOND_HEART = 0.2
"""A second body with more than this share of the wall is another heart, not an island."""

THICK_SLICES = 1.6
"""Slices are interpolated one by one when they are this many times thicker than the pixels."""

FACE_NEIGHBOURS = ndimage.generate_binary_structure(3, 1)


def check_labels(volume: LabelVolume, where: str) -> None:
    """Raise InputError if the labels cannot be one heart: no wall, no LV blood, a bad affine, two hearts, a wall without thickness."""
    check_affine(volume, where)
    if not volume.mask(*WALL).any():
        raise InputError(where, "labels", "no heart wall", "label the wall as myocardium (or lv_myocardium and rv_myocardium)")
    if not volume.mask("lv_blood").any():
        raise InputError(
            where, "labels", "no LV blood", "label the LV cavity as lv_blood; without it inside and outside cannot be told apart"
        )
    _check_one_heart(volume, where)
    _check_rv_wall(volume, where)
    for cavity in ("lv_blood", "rv_blood"):
        _check_thickness(volume, cavity, where)


def check_affine(volume: LabelVolume, where: str) -> None:
    """Raise InputError if voxels cannot be placed in the patient."""
    linear = volume.affine[:3, :3]
    if volume.data.ndim != 3 or min(volume.data.shape) < 2:
        raise InputError(where, "size", f"{volume.data.shape} voxels are not a volume", "give a three-dimensional segmentation")
    if not np.isfinite(volume.affine).all():
        raise InputError(where, "orientation", "the voxel-to-patient matrix has NaN or infinite numbers", "export the segmentation again")
    if np.linalg.det(linear) <= 0 or volume.spacing_mm.min() < 1e-3:
        raise InputError(where, "orientation", "the voxel-to-patient matrix is singular or left-handed", "export the segmentation again")


def _check_one_heart(volume: LabelVolume, where: str) -> None:
    body, count = ndimage.label(volume.mask(*WALL), np.ones((3, 3, 3)))
    size = np.sort(np.bincount(body.ravel())[1:])[::-1]
    if count > 1 and size[1] > SECOND_HEART * size.sum():
        ml = size[:2] * volume.voxel_mm3 / 1000.0
        raise InputError(
            where, "labels", f"two separate hearts ({ml[0]:.1f} and {ml[1]:.1f} mL of wall)", "keep one of them, or join their walls"
        )


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


def _check_thickness(volume: LabelVolume, cavity: str, where: str) -> None:
    """Refuse a wall that holds no block of 2 x 2 (x 2) voxels along much of its inner surface."""
    blood = volume.mask(cavity)
    if not blood.any():
        return
    wall = volume.mask(*WALL)
    spacing = volume.spacing_mm
    block = np.ones([1 if s > THICK_SLICES * spacing.min() else 2 for s in spacing], bool)
    padded = np.pad(wall, 2)
    thick = ndimage.binary_opening(padded, block)[2:-2, 2:-2, 2:-2]
    lining = wall & ndimage.binary_dilation(blood, FACE_NEIGHBOURS)
    share = float((lining & ~thick).sum() / max(int(lining.sum()), 1))
    if share > 0.4:
        raise InputError(
            where,
            "labels",
            f"{100 * share:.0f} % of the wall round {cavity} is only one voxel ({spacing.min():.1f} mm) thin",
            "segment the wall with its thickness, or resample the labels to smaller voxels and draw it at least two voxels thick",
        )


def canonical(volume: LabelVolume) -> LabelVolume:
    """The same labels with index axes as near to +L, +P, +S as they can be, whatever order and direction they were stored in.

    The matrix is rounded to 1e-6 mm, so that every storage of one image gives the same bits.
    """
    axes = volume.affine[:3, :3] / volume.spacing_mm
    best, best_key = (0, 1, 2), None
    for order in itertools.permutations(range(3)):
        diagonal = [round(float(abs(axes[row, column])), 6) for row, column in enumerate(order)]
        # exactly diagonal axes tie; the first components then decide, whatever the storage
        key = (round(sum(diagonal), 6), *diagonal, *(round(float(abs(v)), 6) for v in axes[:, order].ravel()))
        if best_key is None or key > best_key:
            best, best_key = order, key
    data = np.transpose(volume.data, best)
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, best]
    for axis in range(3):
        column = np.round(affine[:3, axis], 6)
        leading = column[axis] if column[axis] != 0 else column[np.flatnonzero(column)[0]]
        if leading < 0:
            data = np.flip(data, axis)
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:3, axis] *= -1.0
    return replace(volume, data=np.ascontiguousarray(data), affine=np.round(affine, 6) + 0.0)


def clean(volume: LabelVolume) -> tuple[LabelVolume, list[str]]:
    """One wall, one body of blood per cavity, no enclosed holes; says in plain words what was changed."""
    data = volume.data.copy()
    repairs: list[str] = []

    def report(mask: NDArray[np.bool_], what: str) -> None:
        if mask.any():
            repairs.append(f"{what}: {int(mask.sum())} voxels ({mask.sum() * volume.voxel_mm3 / 1000.0:.2f} mL)")

    wall = volume.mask(*WALL)
    islands = wall & ~_largest(wall, np.ones((3, 3, 3)))
    data[islands] = 0
    report(islands, "islands of wall removed")
    for cavity in ("lv_blood", "rv_blood"):
        blood = data == LABELS[cavity]
        stray = blood & ~_largest(blood, FACE_NEIGHBOURS)
        data[stray] = 0  # enclosed ones are filled with wall below
        report(stray, f"islands of {cavity} removed")
    heart = (data != LABELS["background"]) & (data != LABELS["ignore"])
    holes = ndimage.binary_fill_holes(heart) & (data == LABELS["background"])
    if holes.any():
        wall = np.isin(data, [LABELS[name] for name in WALL])
        nearest = ndimage.distance_transform_edt(~wall, return_distances=False, return_indices=True)
        data[holes] = data[tuple(index[holes] for index in nearest)]
        report(holes, "enclosed holes filled with the nearest wall label")
    return replace(volume, data=data), repairs


def _largest(mask: NDArray[np.bool_], structure: NDArray) -> NDArray[np.bool_]:
    """The largest connected part of a mask."""
    body, count = ndimage.label(mask, structure)
    if count < 2:
        return mask
    return body == 1 + int(np.argmax(np.bincount(body.ravel())[1:]))


def isotropic(volume: LabelVolume) -> LabelVolume:
    """Labels on cubic voxels of 0.75 - 1.5 mm; unchanged if they are that already.

    Heart, cavities and each wall label become signed distances, interpolated linearly; where slices are thick the distance is measured
    within each slice, the open base slice is repeated to its half thickness and then cut, other ends shrink to nothing (measured: better
    than nearest, Gaussian label or morphological interpolation).
    """
    spacing = volume.spacing_mm
    target = float(np.clip(spacing.min(), MIN_VOXEL_MM, MAX_VOXEL_MM))
    if np.abs(spacing / target - 1.0).max() < 0.02:
        return volume
    occupied = np.argwhere(volume.mask("lv_blood", "rv_blood", *WALL))
    low, high = occupied.min(axis=0) - 2, occupied.max(axis=0) + 3
    data = np.pad(volume.data, 2)[tuple(slice(a + 2, b + 2) for a, b in zip(low, high))]
    grid = LabelVolume(data, volume.affine)
    axis = int(np.argmax(spacing))
    thick = axis if spacing[axis] > THICK_SLICES * np.delete(spacing, axis).max() else None
    shape = np.ceil(np.array(data.shape) * spacing / target).astype(int)
    # fractional old index of the new voxel centres, along each axis
    old = [np.clip((np.arange(n) + 0.5) * target / s - 0.5, 0, d - 1) for n, s, d in zip(shape, spacing, data.shape)]
    heart, cut = _interpolate(grid, grid.mask("lv_blood", "rv_blood", *WALL), thick, old, opens=True)
    out = np.zeros(tuple(shape), np.uint8)
    out[heart < 0] = _wall_labels(grid, thick, old)[heart < 0]
    for cavity in ("lv_blood", "rv_blood"):
        if grid.mask(cavity).any():
            out[(_interpolate(grid, grid.mask(cavity), thick, old, opens=True)[0] < 0) & (heart < 0)] = LABELS[cavity]
    out[cut] = 0
    affine = volume.affine.copy()
    affine[:3, :3] *= target / spacing
    affine[:3, 3] = volume.to_mm((low + 0.5 * target / spacing - 0.5)[None])[0]
    return replace(volume, data=out, affine=affine)


def _interpolate(
    grid: LabelVolume, mask: NDArray[np.bool_], thick: int | None, old: list[NDArray[np.float64]], opens: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Signed distance of a mask on the new grid, and the new voxels beyond an open end (to be cut)."""
    spacing = grid.spacing_mm
    cut = np.zeros(tuple(len(o) for o in old), bool)
    if thick is None:
        distance = _distance(mask, spacing)
    else:
        planes = np.moveaxis(mask, thick, 0)
        distance = np.stack([_distance(plane, np.delete(spacing, thick)) for plane in planes])
        blood, heart = (
            np.moveaxis(grid.mask(*names), thick, 0).any(axis=(1, 2))
            for names in (("lv_blood", "rv_blood"), ("lv_blood", "rv_blood", *WALL))
        )
        filled = planes.any(axis=(1, 2))
        for k in np.flatnonzero(~filled):
            beside = [n for n in (k - 1, k + 1) if 0 <= n < len(filled) and filled[n]]
            for n in beside:
                is_open = opens and blood[n] and not heart[k]
                ends = distance[n] if is_open else distance[n] - distance[n].min() + 0.5 * spacing.min()
                distance[k] = np.minimum(distance[k], ends)
                if is_open:
                    past = (old[thick] - n) * np.sign(k - n) > 0.5
                    np.moveaxis(cut, thick, 0)[past] = True
        distance = np.moveaxis(distance, 0, thick)
    for axis, position in enumerate(old):
        below = np.minimum(position.astype(int), distance.shape[axis] - 2)
        weight = (position - below).reshape([-1 if a == axis else 1 for a in range(3)]).astype(np.float32)
        distance = np.take(distance, below, axis) * (1 - weight) + np.take(distance, below + 1, axis) * weight
    return distance, cut


def _wall_labels(grid: LabelVolume, thick: int | None, old: list[NDArray[np.float64]]) -> NDArray[np.uint8]:
    """Wall label of every new voxel: labels extended off the wall, the one whose distance is most negative."""
    wall = grid.mask(*WALL)
    # within a thick slice first: the next slice only where this one has no wall at all
    step = np.array([1e3 if axis == thick else s for axis, s in enumerate(grid.spacing_mm)])
    nearest = ndimage.distance_transform_edt(~wall, sampling=step, return_distances=False, return_indices=True)
    extended = grid.data[tuple(nearest)]
    numbers = [int(value) for value in np.unique(extended)]
    best = np.full(tuple(len(o) for o in old), np.inf, np.float32)
    out = np.full(best.shape, numbers[0], np.uint8)
    for number in numbers:
        distance, _ = _interpolate(grid, extended == number, thick, old)
        nearer = distance < best
        best[nearer], out[nearer] = distance[nearer], number
    return out


def _distance(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.float32]:
    """Signed distance in mm with zero half-way between voxels (to the smaller spacing), negative inside."""
    if not mask.any():
        return np.full(mask.shape, FAR_MM, np.float32)
    if mask.all():
        return np.full(mask.shape, -FAR_MM, np.float32)
    half = 0.5 * float(spacing.min())
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    return np.where(mask, half - inside, outside - half).astype(np.float32)
