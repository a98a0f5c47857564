"""Where one tissue of the wall ends and the next begins, as smooth functions: a signed distance for each, the smallest wins."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from meshing.implicit import sample, signed_distance
from meshing.regions import TAGGED
from twin.mesh import REGIONS
from twin.params import Param
from twin.volume import WALL, LabelVolume

SMOOTHING = Param(
    0.8, "voxels", 0.5, 1.0, "chosen here: Gaussian on the distances; a strip three voxels wide keeps its width within 0.1 voxels"
)
EXTENDED_VOXELS = 4.0
MARGIN_VOXELS = 8
SWEEPS = 4


@dataclass(frozen=True)
class RegionFields:
    """numbers (k,): values of REGIONS, healthy first; fields (k, ni, nj, nk) float32: signed distance to each in mm, negative inside;
    inverse (3, 4): LPS mm to their voxels; volumes_mm3 (k,): of the labels, but 0 for healthy muscle. Outside the box the values at its
    border hold: healthy."""

    numbers: tuple[int, ...]
    fields: NDArray[np.float32]
    inverse: NDArray[np.float64]
    volumes_mm3: NDArray[np.float64]

    def distances(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance to each region at points (n, 3) mm, (n, k) mm."""
        out = np.empty((len(points_mm), len(self.numbers)))
        sample(self.fields, self.inverse, np.ascontiguousarray(points_mm, np.float64), out)
        return out

    def apart(self, index: int, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Negative inside region `index` as against those after it, about the distance from their boundary, (n,) mm."""
        d = self.distances(points_mm)
        return np.asarray(0.5 * (d[:, index] - d[:, index + 1 :].min(axis=1)), np.float64)

    def grown(self, by_mm: NDArray[np.float64]) -> RegionFields:
        """The same with the boundary of each region moved outward by so much (k,), mm."""
        return replace(self, fields=self.fields - (2.0 * by_mm).astype(np.float32)[:, None, None, None])

    def between(self, one: int, two: int, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Negative on the side of region number `one`, positive on that of `two`, (n,) mm."""
        d = self.distances(points_mm)
        return np.asarray(0.5 * (d[:, self.numbers.index(one)] - d[:, self.numbers.index(two)]), np.float64)


def region_fields(volume: LabelVolume) -> RegionFields | None:
    """Functions of cleaned, isotropic labels; None if all of the wall is healthy.

    Labels are extended off the wall first, as in `meshing.regions`. Smoothing rounds what is convex: each region gets the offset with which
    it has its labels' volume again.
    """
    tagged = volume.mask(*TAGGED)
    if not tagged.any():
        return None
    occupied = np.argwhere(tagged)
    low = np.maximum(occupied.min(axis=0) - MARGIN_VOXELS, 0)
    high = np.minimum(occupied.max(axis=0) + MARGIN_VOXELS + 1, volume.data.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    wall = volume.mask(*WALL)[box]
    distance, nearest = ndimage.distance_transform_edt(~wall, return_indices=True)
    extended = LabelVolume(volume.data[box][tuple(nearest)], volume.affine)
    near = distance < EXTENDED_VOXELS  # farther off lies the other side of a cavity
    names = [name for name in reversed(TAGGED) if (extended.mask(name) & near).any()]
    masks = [extended.mask(name) & near for name in names]
    masks.insert(0, ~np.logical_or.reduce(masks))
    voxel = float(volume.spacing_mm.mean())
    fields = np.stack([ndimage.gaussian_filter(signed_distance(mask, voxel), float(SMOOTHING), mode="nearest") for mask in masks])
    count = np.array([(mask & wall).sum() for mask in masks], float)
    fields += _offsets(fields[:, wall].astype(np.float64), count, voxel)
    inverse = np.array(np.linalg.inv(volume.affine)[:3], np.float64)
    inverse[:, 3] -= low
    return RegionFields(
        (REGIONS["healthy"], *(REGIONS[name] for name in names)),
        fields,
        np.ascontiguousarray(inverse),
        voxel**3 * np.array([0.0, *count[1:]]),
    )


def _offsets(distance: NDArray[np.float64], count: NDArray[np.float64], voxel: float) -> NDArray[np.float32]:
    """What to add to each distance (k, v), mm, so that each region has as many of the v voxels as `count` (k,) says."""
    offset = np.zeros(len(count))
    for _ in range(SWEEPS):
        for k in range(len(count)):
            shifted = distance + offset[:, None]
            g = 0.5 * (shifted[k] - np.delete(shifted, k, axis=0).min(axis=0))
            missing = count[k] - float(np.clip(0.5 - g / voxel, 0.0, 1.0).sum())
            side = float((np.abs(g) < 0.5 * voxel).sum())
            # one offset moves the boundary by half of it
            offset[k] -= 2.0 * voxel * float(np.clip(missing / max(side, 1.0), -0.2, 0.2))
    return offset.astype(np.float32)[:, None, None, None]
