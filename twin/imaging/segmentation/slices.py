"""From a volume to slices that a 2-D network sees, with their neighbours as channels, and back: nothing moves in the patient.

The stack is looked at from a fixed side: slices run along the axis with the largest spacing, and the two axes within them are turned to lie
as near to left and posterior as they can, so that neither the storage order nor flips of the image's axes change what the network sees.
Slices run to the right, back and up, which is from the apex to the base of a heart in its usual place.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.image import Image

Array = NDArray[np.float32]

EQUAL = 1.01
"""Spacings within one per cent of each other are the same."""
TO_BASE = np.array([-1.0, 1.0, 1.0])
"""LPS direction from the apex to the base of a heart in its usual place: right, back and up."""


@dataclass(frozen=True)
class Stack:
    """A volume turned for the network: `order` and `flips` say how the stored axes were permuted and reversed.

    shape_px: (rows, columns, slices) of the image; pixel_mm: its in-plane spacing, (2,); slice_mm: from slice to slice.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape_px: tuple[int, int, int]
    pixel_mm: tuple[float, float]
    slice_mm: float

    @staticmethod
    def of(affine: NDArray[np.float64], shape: tuple[int, ...]) -> Stack:
        """How to turn a grid; affine (4, 4) voxel to LPS mm, shape its three sizes."""
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        axes = affine[:3, :3] / spacing
        thick = np.flatnonzero(spacing * EQUAL >= spacing.max())
        # equal spacings: the axis nearest to the feet-head direction
        across = int(thick[np.argmax(np.round(np.abs(axes[2, thick]), 6))])
        rest = [axis for axis in range(3) if axis != across]
        best = max(itertools.permutations(rest), key=lambda pair: round(abs(axes[0, pair[0]]) + abs(axes[1, pair[1]]), 6))
        order = (best[0], best[1], across)
        flips = (*(_points_back(axes[:, axis], lead) for lead, axis in enumerate(best)), _points_to_apex(axes[:, across]))
        sizes = tuple(int(shape[axis]) for axis in order)
        return Stack(order, flips, sizes, (float(spacing[order[0]]), float(spacing[order[1]])), float(spacing[across]))  # type: ignore[arg-type]

    def turn(self, data: NDArray[Any]) -> NDArray[Any]:
        """Stored (ni, nj, nk) to (rows, columns, slices)."""
        out = np.transpose(data, self.order)
        return np.flip(out, tuple(axis for axis in range(3) if self.flips[axis]))

    def back(self, data: NDArray[Any]) -> NDArray[Any]:
        """(rows, columns, slices) to the stored order."""
        out = np.flip(data, tuple(axis for axis in range(3) if self.flips[axis]))
        return np.ascontiguousarray(np.transpose(out, np.argsort(self.order)))


def _points_back(column: NDArray[np.float64], lead: int) -> bool:
    """True if an index axis runs against patient axis `lead` or, upright to it, against the first axis that it has a part in."""
    rounded = np.round(column, 6)
    leading = rounded[lead] if rounded[lead] != 0 else rounded[np.flatnonzero(rounded)[0]]
    return bool(leading < 0)


def _points_to_apex(column: NDArray[np.float64]) -> bool:
    """True if an index axis runs to the left, front and feet."""
    along = round(float(column @ TO_BASE), 6)
    return along < 0 if along != 0 else _points_back(column, 2)


def normalised(data: NDArray[Any]) -> Array:
    """Intensities so that the 1st percentile of the volume is 0 and the 99th is 1, float32, cut off at -0.5 and 2; any shape."""
    values = np.asarray(data, np.float32)
    low, high = np.percentile(values, [1.0, 99.0])
    scale = 1.0 / (high - low) if high > low else 0.0
    return np.clip((values - np.float32(low)) * np.float32(scale), -0.5, 2.0).astype(np.float32)


def to_pixels(data: NDArray[Any], stack: Stack, pixel_mm: float, order: Literal[0, 1]) -> NDArray[Any]:
    """(rows, columns, slices) at the network's pixel size; order 1 for intensities, 0 for labels. Slices stay as they are."""
    shape = working_shape(stack, pixel_mm)
    if shape == data.shape[:2]:
        return data
    rows, columns = (_centres(n, old) for n, old in zip(shape, data.shape[:2]))
    at = np.meshgrid(rows, columns, np.arange(data.shape[2]), indexing="ij")
    smooth = data
    if order == 1:
        # finer pixels than the network's are averaged, not skipped
        sigma = [0.35 * max(pixel_mm / old - 1.0, 0.0) for old in stack.pixel_mm]
        smooth = ndimage.gaussian_filter(np.asarray(data, np.float32), (*sigma, 0.0))
    return np.asarray(ndimage.map_coordinates(smooth, at, order=order, mode="nearest"))


def working_shape(stack: Stack, pixel_mm: float) -> tuple[int, int]:
    """Rows and columns of a stack at the network's pixel size."""
    rows, columns = (max(1, round(n * size / pixel_mm)) for n, size in zip(stack.shape_px[:2], stack.pixel_mm))
    return rows, columns


def from_pixels(values: Array, stack: Stack) -> Array:
    """(classes, rows, columns, slices) at the network's pixel size to the image's own pixels, linear."""
    rows, columns, slices = stack.shape_px
    if values.shape[1:3] == (rows, columns):
        return values
    at = np.meshgrid(_centres(rows, values.shape[1]), _centres(columns, values.shape[2]), np.arange(slices), indexing="ij")
    return np.stack([ndimage.map_coordinates(one, at, order=1, mode="nearest") for one in values]).astype(np.float32)


def _centres(n: int, old: int) -> NDArray[np.float64]:
    """Pixel centres of n equal parts of a row of `old` pixels, in pixels of the old row."""
    return np.asarray((np.arange(n) + 0.5) * (old / n) - 0.5, np.float64)


def context(volume: Array, neighbours: int) -> Array:
    """(rows, columns, slices) to (slices, 2 neighbours + 1, rows, columns): each slice between its neighbours, ends repeated."""
    n = volume.shape[2]
    index = np.clip(np.arange(n)[:, None] + np.arange(-neighbours, neighbours + 1), 0, n - 1)
    return np.ascontiguousarray(np.transpose(volume, (2, 0, 1))[index])


def places(stack: Stack) -> Array:
    """Where each slice lies in its stack, (slices, 2) float32: its distances from the first and from the last, in units of 100 mm."""
    away = np.arange(stack.shape_px[2]) * (stack.slice_mm / 100.0)
    return np.stack([away, away[::-1]], axis=1).astype(np.float32)


def padded(batch: Array, multiple: int) -> tuple[Array, tuple[slice, slice]]:
    """The last two axes padded with their edge to a multiple; and where the original lies."""
    rows, columns = batch.shape[-2:]
    extra = [(-rows) % multiple, (-columns) % multiple]
    width = [(0, 0)] * (batch.ndim - 2) + [(e // 2, e - e // 2) for e in extra]
    inside = (slice(extra[0] // 2, extra[0] // 2 + rows), slice(extra[1] // 2, extra[1] // 2 + columns))
    return np.pad(batch, width, mode="edge"), inside


def stack_of(image: Image) -> Stack:
    """How an image is turned."""
    return Stack.of(image.affine, image.data.shape)
