"""Anisotropic labels on cubic voxels: shapes interpolated between slices through their signed distances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from meshing.implicit import FAR_MM
from twin.volume import LABELS, WALL, LabelVolume

MAX_VOXEL_MM = 1.5
MIN_VOXEL_MM = 0.75

THICK_SLICES = 1.6
"""Slices are interpolated one by one when they are this many times thicker than the pixels."""

MUSCLE = ("lv_myocardium", "rv_myocardium", "myocardium")
CAVITIES = ("lv_blood", "rv_blood")


def isotropic(volume: LabelVolume) -> LabelVolume:
    """Labels on cubic voxels of 0.75 - 1.5 mm; unchanged if they are that already.

    Heart, cavities and each wall label become signed distances, interpolated linearly; where slices are thick the distance is measured
    within each slice, the open base slice is repeated to its half thickness and then cut, other ends shrink to nothing (design note on
    meshing: better than nearest, Gaussian label or morphological interpolation).
    """
    spacing = volume.spacing_mm
    target = float(np.clip(spacing.min(), MIN_VOXEL_MM, MAX_VOXEL_MM))
    if np.abs(spacing / target - 1.0).max() < 0.02:
        return volume
    occupied = np.argwhere(volume.mask(*CAVITIES, *WALL))
    low, high = occupied.min(axis=0) - 2, occupied.max(axis=0) + 3
    grid = LabelVolume(np.pad(volume.data, 2)[tuple(slice(a + 2, b + 2) for a, b in zip(low, high))], volume.affine)
    axis = int(np.argmax(spacing))
    thick = axis if spacing[axis] > THICK_SLICES * np.delete(spacing, axis).max() else None
    shape = np.ceil(np.array(grid.data.shape) * spacing / target).astype(int)
    # fractional old index of the new voxel centres, along each axis
    old = [np.clip((np.arange(n) + 0.5) * target / s - 0.5, 0, d - 1) for n, s, d in zip(shape, spacing, grid.data.shape)]
    out = np.zeros(tuple(shape), np.uint8)
    shell = _distances(grid.mask(*CAVITIES, *WALL), spacing, thick)
    bodies = {name: _distances(grid.mask(name), spacing, thick) for name in CAVITIES if grid.mask(name).any()}
    past = np.zeros(shape[axis], bool)
    if thick is not None:
        past = _close_ends(grid, thick, shell, bodies, old[thick])
    heart = _interpolate(shell, old) < 0
    out[heart] = _wall_labels(grid, thick, old)[heart]
    for name, distance in bodies.items():
        out[(_interpolate(distance, old) < 0) & heart] = LABELS[name]
    np.moveaxis(out, axis, 0)[past] = 0
    affine = volume.affine.copy()
    affine[:3, :3] *= target / spacing
    affine[:3, 3] = volume.to_mm((low + 0.5 * target / spacing - 0.5)[None])[0]
    return replace(volume, data=out, affine=affine)


def _distances(mask: NDArray[np.bool_], spacing: NDArray[np.float64], thick: int | None) -> NDArray[np.float32]:
    """Signed distance in mm, negative inside, zero half-way between voxels; measured within each slice if the slices are thick."""
    if thick is not None:
        within = np.delete(spacing, thick)
        return np.stack([_distances(plane, within, None) for plane in np.moveaxis(mask, thick, 0)], axis=thick)
    if mask.all() or not mask.any():
        return np.full(mask.shape, -FAR_MM if mask.any() else FAR_MM, np.float32)
    half = 0.5 * float(spacing.min())
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    return np.where(mask, half - inside, outside - half).astype(np.float32)


def _close_ends(
    grid: LabelVolume, thick: int, shell: NDArray[np.float32], bodies: dict[str, NDArray[np.float32]], position: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Give the empty slices beside the ends of heart (`shell`) and cavities a distance (in place); return the new slices past the base.

    An end of the heart that shows blood is the base and repeats itself; every other end shrinks to nothing at the next slice. A cavity
    that ends inside the heart keeps the thickness that its wall has in its last slice.
    """
    heart = np.moveaxis(shell, thick, 0)
    cavities = [np.moveaxis(distance, thick, 0) for distance in bodies.values()]
    filled = (heart < 0).any(axis=(1, 2))
    blood = np.any([(c < 0).any(axis=(1, 2)) for c in cavities], axis=0)
    bare = np.flatnonzero(~filled)
    past = np.zeros(len(position), bool)
    for layer in (*cavities, heart):
        inside = np.asarray((layer < 0).any(axis=(1, 2)))
        for n in np.flatnonzero(inside):
            for k in (n - 1, n + 1):
                if not 0 <= k < len(inside) or inside[k]:
                    continue
                if k in bare and blood[n]:
                    layer[k] = layer[n]
                    past |= (position - n) * (k - n) > 0.5
                    continue
                end = layer[n] - layer[n].min() + 0.1
                if k not in bare and layer is not heart:
                    end = np.maximum(end, heart[k] + layer[n] - heart[n])
                layer[k] = np.minimum(layer[k], end)
    return past


def _interpolate(distance: NDArray[np.float32], old: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Linear interpolation at the fractional indices `old` of each axis."""
    for axis, position in enumerate(old):
        below = np.minimum(position.astype(int), distance.shape[axis] - 2)
        weight = (position - below).reshape([-1 if a == axis else 1 for a in range(3)]).astype(np.float32)
        distance = np.take(distance, below, axis) * (1 - weight) + np.take(distance, below + 1, axis) * weight
    return distance


def _wall_labels(grid: LabelVolume, thick: int | None, old: list[NDArray[np.float64]]) -> NDArray[np.uint8]:
    """Wall label of every new voxel, from labels extended off the wall: muscle, in it scar tissue, in that the core, then the isthmus."""
    # within a thick slice first: the next slice only where this one has no wall at all
    step = np.array([1e3 if axis == thick else s for axis, s in enumerate(grid.spacing_mm)])
    nearest = ndimage.distance_transform_edt(~grid.mask(*WALL), sampling=step, return_distances=False, return_indices=True)
    extended = replace(grid, data=grid.data[tuple(nearest)])

    def distance(*names: str) -> NDArray[np.float32]:
        layers = _distances(extended.mask(*names), grid.spacing_mm, thick)
        if thick is not None:
            _shrink_ends(np.moveaxis(layers, thick, 0))
        return _interpolate(layers, old)

    muscle = np.stack([distance(name) for name in MUSCLE])
    out = np.array([LABELS[name] for name in MUSCLE], np.uint8)[np.argmin(muscle, axis=0)]
    for name, *inner in (("border_zone", "scar", "isthmus"), ("scar", "isthmus"), ("isthmus",)):
        if extended.mask(name, *inner).any():
            out[distance(name, *inner) < 0] = LABELS[name]
    return out


def _shrink_ends(layers: NDArray[np.float32]) -> None:
    """A label that ends between two slices shrinks to nothing at the next one (in place)."""
    inside = np.asarray((layers < 0).any(axis=(1, 2)))
    for n in np.flatnonzero(inside):
        for k in (n - 1, n + 1):
            if 0 <= k < len(inside) and not inside[k]:
                layers[k] = np.minimum(layers[k], layers[n] - layers[n].min() + 0.1)
