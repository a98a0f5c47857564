"""Which tetrahedron is scar: wall labels carried from voxels to elements without thinning narrow corridors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from meshing.implicit import sample
from twin.mesh import REGIONS
from twin.volume import WALL, LabelVolume

ONE_HOT_VOXELS = 0.6
"""Gaussian on the one-hot labels, in voxels: best Dice at centroids on the phantom (design note on meshing)."""

TAGGED = ("isthmus", "border_zone", "scar")
"""Labels that are not healthy muscle; the order breaks ties in favour of tissue that conducts."""


def region_of(volume: LabelVolume, points_mm: NDArray[np.float64]) -> NDArray[np.int16]:
    """Region number of each point, (n,) int16: the strongest of the smoothed wall labels there.

    volume: cleaned, isotropic labels. Labels are first extended off the wall (every voxel takes the label of the nearest wall voxel),
    so that elements at the endocardium and epicardium do not see blood or background.
    """
    region = np.full(len(points_mm), REGIONS["healthy"], np.int16)
    tagged = volume.mask(*TAGGED)
    if not tagged.any():
        return region
    occupied = np.argwhere(tagged)
    low = np.maximum(occupied.min(axis=0) - 5, 0)
    high = np.minimum(occupied.max(axis=0) + 6, volume.data.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    wall = volume.mask(*WALL)[box]
    nearest = ndimage.distance_transform_edt(~wall, return_distances=False, return_indices=True)
    extended = LabelVolume(volume.data[box][tuple(nearest)], volume.affine)
    names = [name for name in TAGGED if extended.mask(name).any()]
    one_hot = np.stack([ndimage.gaussian_filter(extended.mask(name).astype(np.float32), ONE_HOT_VOXELS, mode="nearest") for name in names])
    inverse = np.array(np.linalg.inv(volume.affine)[:3], np.float64)
    inverse[:, 3] -= low
    inside = _in_box(points_mm, inverse, np.array(wall.shape))
    weight = np.empty((int(inside.sum()), len(names)))
    sample(one_hot, np.ascontiguousarray(inverse), np.ascontiguousarray(points_mm[inside]), weight)
    numbers = np.array([*(REGIONS[name] for name in names), REGIONS["healthy"]], np.int16)
    # 1e-6: float32 sums of equal shares differ in the last bits; a tie goes to the first name
    best = np.argmax(np.round(np.column_stack([weight, 1.0 - weight.sum(axis=1)]), 6), axis=1)
    region[inside] = numbers[best]
    return region


def _in_box(points_mm: NDArray[np.float64], inverse: NDArray[np.float64], shape: NDArray[np.int_]) -> NDArray[np.bool_]:
    ijk = points_mm @ inverse[:, :3].T + inverse[:, 3]
    return np.asarray(((ijk >= 0) & (ijk <= shape - 1)).all(axis=1))
