"""Anisotropic labels on cubic voxels: shapes interpolated between slices through their signed distances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from meshing.implicit import FAR_MM
from twin.io.labels import THICK_SLICES
from twin.params import Param
from twin.volume import LABELS, WALL, LabelVolume

MAX_VOXEL_MM = 1.5
MIN_VOXEL_MM = 0.75

STAIRCASE = Param(0.7, "voxels", 0.5, 1.0, "chosen here: Gaussian within thick slices; 0.7 and 1.0 were alike on phantoms, none was worse")

TIP_WITHIN = 0.9
"""A region ends at the latest this share of the way to the next slice, which does not show it."""

Ends = dict[int, tuple[float, float]]

MUSCLE = ("lv_myocardium", "rv_myocardium", "myocardium")
CAVITIES = ("lv_blood", "rv_blood")


def isotropic(volume: LabelVolume) -> LabelVolume:
    """Labels on cubic voxels of 0.75 - 1.5 mm; unchanged if they are that already.

    Heart, cavities and each wall label become signed distances, interpolated; where slices are thick the distance is measured within each
    slice and smoothed a little, the open base slice is repeated to its half thickness and then cut, and other ends shrink to nothing
    (design note on meshing: better than nearest, Gaussian label or morphological interpolation). From slice to slice shapes follow a
    cubic, for what is round bulges between slices.
    """
    spacing = volume.spacing_mm
    target = float(np.clip(spacing.min(), MIN_VOXEL_MM, MAX_VOXEL_MM))
    if np.abs(spacing / target - 1.0).max() < 0.02:
        return volume
    occupied = np.argwhere(volume.mask(*CAVITIES, *WALL))
    low, high = occupied.min(axis=0) - 2, occupied.max(axis=0) + 3
    grid = LabelVolume(np.pad(volume.data, 2)[tuple(slice(a + 2, b + 2) for a, b in zip(low, high))], volume.affine)
    axis = int(np.argmax(spacing))
    thick = axis if has_thick_slices(volume) else None
    shape = np.ceil(np.array(grid.data.shape) * spacing / target).astype(int)
    # fractional old index of the new voxel centres, along each axis
    old = [np.clip((np.arange(n) + 0.5) * target / s - 0.5, 0, d - 1) for n, s, d in zip(shape, spacing, grid.data.shape)]
    out = np.zeros(tuple(shape), np.uint8)
    shell = _distances(grid.mask(*CAVITIES, *WALL), spacing, thick)
    bodies = {name: _distances(grid.mask(name), spacing, thick) for name in CAVITIES if grid.mask(name).any()}
    past = np.zeros(shape[axis], bool)
    if thick is not None:
        past = _close_ends(grid, thick, shell, bodies, old[thick])
    heart = _shape(shell, old, thick) < 0
    out[heart] = _wall_labels(grid, thick, old)[heart]
    for name, distance in bodies.items():
        out[(_shape(distance, old, thick) < 0) & heart] = LABELS[name]
    np.moveaxis(out, axis, 0)[past] = 0
    affine = volume.affine.copy()
    affine[:3, :3] *= target / spacing
    affine[:3, 3] = volume.to_mm((low + 0.5 * target / spacing - 0.5)[None])[0]
    return replace(volume, data=out, affine=affine)


def has_thick_slices(volume: LabelVolume) -> bool:
    """True if the voxels are so much longer across the slices than within that shapes are interpolated slice by slice."""
    spacing = np.sort(volume.spacing_mm)
    return bool(spacing[2] > THICK_SLICES * spacing[1])


def _distances(mask: NDArray[np.bool_], spacing: NDArray[np.float64], thick: int | None) -> NDArray[np.float32]:
    """Signed distance in mm, negative inside, zero half-way between voxels; measured within each slice if the slices are thick."""
    if thick is not None:
        within = np.delete(spacing, thick)
        return np.stack([_smoothed(_distances(plane, within, None)) for plane in np.moveaxis(mask, thick, 0)], axis=thick)
    if mask.all() or not mask.any():
        return np.full(mask.shape, -FAR_MM if mask.any() else FAR_MM, np.float32)
    half = 0.5 * float(spacing.min())
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    return np.where(mask, half - inside, outside - half).astype(np.float32)


def _smoothed(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """A slice's signed distance without the staircase of its voxels; slices without a boundary stay."""
    if np.abs(plane).max() >= FAR_MM:
        return plane
    return np.asarray(ndimage.gaussian_filter(plane, float(STAIRCASE), mode="nearest"))


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


def _shape(distance: NDArray[np.float32], old: list[NDArray[np.float64]], thick: int | None) -> NDArray[np.float32]:
    """Heart or cavity at the fractional indices `old`: `_across` the slices if they are thick, linear within them."""
    if thick is None:
        return _interpolate(distance, old)
    layers = np.moveaxis(distance, thick, 0)
    between = np.moveaxis(_across(layers, old[thick], np.asarray((layers < 0).any(axis=(1, 2)))), 0, thick)
    return _interpolate(
        between, [np.arange(len(position), dtype=float) if axis == thick else position for axis, position in enumerate(old)]
    )


def _across(layers: NDArray[np.float32], position: NDArray[np.float64], shown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Signed distances (n, ...) at fractional slice indices (m,): linear, and between two slices that show the region a cubic.

    The cubic (Hermite) has at each slice the mean slope to its neighbours, of those that show the region.
    """
    out = np.empty((len(position), *layers.shape[1:]), np.float32)
    for m, p in enumerate(position):
        k = min(int(p), len(layers) - 2)
        w, step = np.float32(p - k), layers[k + 1] - layers[k]
        out[m] = layers[k] + w * step
        if w > 0 and shown[k] and shown[k + 1]:
            before = 0.5 * (layers[k + 1] - layers[k - 1]) if k > 0 and shown[k - 1] else step
            after = 0.5 * (layers[k + 2] - layers[k]) if k + 2 < len(layers) and shown[k + 2] else step
            out[m] += w * (1 - w) * ((1 - w) * (before - step) - w * (after - step))
    return out


def _wall_labels(grid: LabelVolume, thick: int | None, old: list[NDArray[np.float64]]) -> NDArray[np.uint8]:
    """Wall label of every new voxel, from labels extended off the wall: muscle, in it scar tissue, in that the core, then the isthmus."""
    # within a thick slice first: the next slice only where this one has no wall at all
    step = np.array([1e3 if axis == thick else s for axis, s in enumerate(grid.spacing_mm)])
    wall = grid.mask(*WALL)
    nearest = ndimage.distance_transform_edt(~wall, sampling=step, return_distances=False, return_indices=True)
    extended = replace(grid, data=grid.data[tuple(nearest)])

    def distance(names: tuple[str, ...], ends: Ends | None = None) -> NDArray[np.float32]:
        layers = _distances(extended.mask(*names), grid.spacing_mm, thick)
        if thick is None:
            return _interpolate(layers, old)
        tips = _tips(np.moveaxis(layers, thick, 0), np.moveaxis(wall, thick, 0), grid.spacing_mm[thick]) if ends is None else ends
        between = _between_slices(np.moveaxis(layers, thick, 0), old[thick], grid.spacing_mm[thick], tips)
        within = [np.arange(len(position), dtype=float) if axis == thick else position for axis, position in enumerate(old)]
        return _interpolate(np.moveaxis(between, 0, thick), within)

    muscle = np.stack([distance((name,)) for name in MUSCLE])
    out = np.array([LABELS[name] for name in MUSCLE], np.uint8)[np.argmin(muscle, axis=0)]
    outside = np.zeros(out.shape, bool)
    # a corridor is narrow all along and ends where the scar round it does: its own width says nothing about its end
    endless = {} if thick is None else dict.fromkeys(range(grid.data.shape[thick]), (np.inf, np.inf))
    for name, *inner in (("border_zone", "scar", "isthmus"), ("scar", "isthmus"), ("isthmus",)):
        if extended.mask(name, *inner).any():
            inside = (distance((name, *inner), endless if name == "isthmus" else None) < 0) & ~outside
            out[inside] = LABELS[name]
            outside |= ~inside if name == "border_zone" else False
    return out


def _tips(layers: NDArray[np.float32], wall: NDArray[np.bool_], step_mm: float) -> Ends:
    """Where a region ends past each of its last slices: (tip beyond the slice in mm, radius there in mm), by slice.

    The half widths of the region in its last slice and in the one before lie on a sphere, whose pole is the tip; kept inside the gap,
    for the next slice does not show the region. layers (n, ...) mm, wall (n, ...).
    """
    half = np.array([-plane[inside].min() if inside.any() else 0.0 for plane, inside in zip(layers, wall)])
    tips: Ends = {}
    for n in np.flatnonzero(half > 0):
        for k, before in ((n + 1, n - 1), (n - 1, n + 1)):
            if 0 <= k < len(half) and half[k] <= 0:
                wide = half[before] if 0 <= before < len(half) and half[before] > half[n] else half[n]
                slope = wide**2 - half[n] ** 2 + step_mm**2
                tip = (np.sqrt(slope**2 + 4.0 * (step_mm * half[n]) ** 2) - slope) / (2.0 * step_mm)
                tips[int(n)] = (float(min(tip, TIP_WITHIN * step_mm)), float(half[n]))
    return tips


def _between_slices(layers: NDArray[np.float32], position: NDArray[np.float64], step_mm: float, tips: Ends) -> NDArray[np.float32]:
    """Signed distances at fractional slice indices (m,): `_across` between two slices that show the region, a round end past a last one."""
    inside = np.asarray((layers < 0).any(axis=(1, 2)))
    out = _across(layers, position, inside)
    for m, p in enumerate(position):
        below = min(int(p), len(layers) - 2)
        weight = p - below
        if inside[below] == inside[below + 1]:
            continue
        out[m] = FAR_MM
        last, gone = (below, weight * step_mm) if inside[below] else (below + 1, (1.0 - weight) * step_mm)
        tip, half = tips.get(last, (0.5 * step_mm, 0.0))
        if gone < tip:
            out[m] = layers[last] + (half - _round_end(half, gone, tip) if np.isfinite(tip) else 0.0)
    return out


def _round_end(half_mm: float, gone_mm: float, tip_mm: float) -> float:
    """Half width of a sphere's cap at a distance past the slice where it was `half_mm`, `tip_mm` being the distance to its pole."""
    across = (half_mm**2 + tip_mm**2) / tip_mm
    left = tip_mm - gone_mm
    return float(np.sqrt(max(left * (across - left), 0.0)))
