"""The heart wall as one smooth function: negative inside, made from signed distances of closed cavities and a flat base.

f = max(heart, -LV, -RV, base plane). Each closed region gets its own signed Euclidean distance, smoothed by one voxel; the regions are
first extended upward through the base so that the cut by the base plane stays sharp (measured: mean error 0.06 mm at 1 mm voxels).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from meshing.distance import squared_distance
from twin.volume import WALL, LabelVolume

SMOOTHING_VOXELS = 1.0
"""Gaussian on the signed distances: 1 voxel gave the least error of 0.5, 0.8, 1, 1.5 on the phantom (design note on meshing)."""

FAR_MM = 1.0e3
PAD_VOXELS = 6


@dataclass(frozen=True)
class Opening:
    """Where the cavities are open: normal (3,) pointing out of the heart, n . x = offset_mm; flat if one plane describes it.

    spread_mm: root mean square distance of the open voxel faces from the plane (a flat cut leaves about 0.3 voxels).
    """

    normal: NDArray[np.float64]
    offset_mm: float
    flat: bool
    spread_mm: float

    def height(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Signed distance above the plane, (n,) mm."""
        return points_mm @ self.normal - self.offset_mm


@dataclass(frozen=True)
class ImplicitHeart:
    """fields (k, ni, nj, nk) float32: signed distances of heart, LV and (k = 3) RV in mm, negative inside, on a grid with `affine`.

    min_wall (ni, nj, nk) float32 or None: where the wall is thinner than this (mm) it is thickened, half inward and half outward, so that
    a coarse mesh has no holes.
    """

    fields: NDArray[np.float32]
    affine: NDArray[np.float64]
    opening: Opening | None
    low_mm: NDArray[np.float64]
    high_mm: NDArray[np.float64]
    min_wall: NDArray[np.float32] | None = None

    def parts(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """The four functions whose maximum is f: heart, -LV, -RV, base plane, (n, 4) mm."""
        inverse = np.ascontiguousarray(np.linalg.inv(self.affine)[:3])
        points = np.ascontiguousarray(points_mm, dtype=np.float64)
        out = np.full((len(points), 4), -FAR_MM)
        sample(self.fields, inverse, points, out)
        out[:, 1 : len(self.fields)] *= -1.0
        if self.min_wall is not None:
            wanted = np.empty((len(points), 1))
            sample(self.min_wall[None], inverse, points, wanted)
            # the sum of the distances to its two sides is the thickness of a wall, on it and on either side of it
            free, septal = -out[:, 1:3].max(axis=1) - out[:, 0], -out[:, 1] - out[:, 2]
            thickness = np.minimum(free, septal)
            # below zero there is no wall: an opening, which must not be closed by a lid
            share = np.clip(thickness / (0.5 * np.linalg.norm(self.affine[:3, 0])), 0.0, 1.0)
            out[:, :3] -= (np.maximum(0.5 * (wanted[:, 0] - thickness), 0.0) * share)[:, None]
        if self.opening is not None and self.opening.flat:
            out[:, 3] = self.opening.height(points_mm)
        return out

    def __call__(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """f at points (n, 3) mm: negative inside the wall, (n,) mm."""
        return self.parts(points_mm).max(axis=1)

    def thickened(self, missed_mm: NDArray[np.float64], lattice_mm: NDArray[np.float64], lattices: float) -> ImplicitHeart:
        """The same wall, at least `lattices` lattice constants (n,) thick round the points `missed_mm` (n, 3) that a mesh left empty."""
        grid = LabelVolume(np.zeros(self.fields.shape[1:], np.uint8), self.affine)
        ijk = np.clip(np.rint(np.asarray(grid.to_ijk(missed_mm))).astype(int), 0, np.array(grid.data.shape) - 1)
        min_wall = self.min_wall
        for size in np.unique(lattice_mm):
            holes = np.ones(grid.data.shape, bool)
            holes[tuple(ijk[lattice_mm == size].T)] = False
            distance = ndimage.distance_transform_edt(holes) * float(grid.spacing_mm.mean()) / size
            wanted = (lattices * size * np.clip(2.0 - 0.5 * distance, 0.0, 1.0)).astype(np.float32)
            min_wall = wanted if min_wall is None else np.maximum(wanted, min_wall)
        return replace(self, min_wall=min_wall)


@njit(cache=True, nogil=True)
def sample(fields: NDArray[np.float32], inverse: NDArray[np.float64], points: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Trilinear interpolation of fields (k, ni, nj, nk) at points (n, 3) into out (n, >= k); inverse (3, 4); clamped at the borders; NaN
    where the point is not finite."""
    kinds, ni, nj, nk = fields.shape
    for n in range(len(points)):
        x, y, z = points[n]
        if not np.isfinite(x + y + z):
            # as an index it would lie anywhere in memory
            out[n, :kinds] = np.nan
            continue
        u = min(max(inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2] * z + inverse[0, 3], 0.0), ni - 1.0)
        v = min(max(inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2] * z + inverse[1, 3], 0.0), nj - 1.0)
        w = min(max(inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2] * z + inverse[2, 3], 0.0), nk - 1.0)
        i, j, k = min(int(u), ni - 2), min(int(v), nj - 2), min(int(w), nk - 2)
        u, v, w = u - i, v - j, w - k
        for f in range(kinds):
            g = fields[f]
            low = (g[i, j, k] * (1 - w) + g[i, j, k + 1] * w) * (1 - v) + (g[i, j + 1, k] * (1 - w) + g[i, j + 1, k + 1] * w) * v
            high = (g[i + 1, j, k] * (1 - w) + g[i + 1, j, k + 1] * w) * (1 - v)
            high += (g[i + 1, j + 1, k] * (1 - w) + g[i + 1, j + 1, k + 1] * w) * v
            out[n, f] = low * (1 - u) + high * u


def signed_distance(mask: NDArray[np.bool_], spacing_mm: float) -> NDArray[np.float32]:
    """Distance to the boundary of a mask in mm, negative inside; zero lies half-way between voxels."""
    if not mask.any():
        return np.full(mask.shape, FAR_MM, np.float32)
    outside, inside = (np.sqrt(squared_distance(seeds)) for seeds in (mask, ~mask))
    return (spacing_mm * np.where(mask, 0.5 - inside, outside - 0.5)).astype(np.float32)


def open_faces(
    blood: NDArray[np.bool_], outside: NDArray[np.bool_], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Voxel faces between blood and the outside: centres (n, 3) mm and area-weighted outward vectors (n, 3)."""
    centres, vectors = [], []
    cofactor = np.linalg.det(affine[:3, :3]) * np.linalg.inv(affine[:3, :3]).T
    for axis in range(3):
        for sign in (-1, 1):
            here = np.argwhere(blood & np.roll(outside, -sign, axis=axis))
            step = np.zeros(3)
            step[axis] = sign
            centres.append((here + 0.5 * step) @ affine[:3, :3].T + affine[:3, 3])
            vectors.append(np.broadcast_to(cofactor @ step, (len(here), 3)))
    return np.concatenate(centres), np.concatenate(vectors)


def find_opening(blood: NDArray[np.bool_], outside: NDArray[np.bool_], affine: NDArray[np.float64]) -> Opening | None:
    """Fit a plane to where blood meets the outside; None if the cavities are closed.

    The sum of the face vectors is the exact area vector of the opening whatever the staircase, so it starts the fit; the fit is a
    trimmed least squares. Masks must not touch the border of the array.
    """
    centres, vectors = open_faces(blood, outside, affine)
    voxel = abs(np.linalg.det(affine[:3, :3])) ** (1 / 3)
    if len(centres) < 12:
        return None
    total = vectors.sum(axis=0)
    if np.linalg.norm(total) < 0.05 * np.linalg.norm(vectors, axis=1).sum():
        return None  # leaks on all sides, no opening
    normal = total / np.linalg.norm(total)
    offset = float(np.median(centres @ normal))
    band = 4.0 * voxel
    for _ in range(12):
        near = np.abs(centres @ normal - offset) <= band
        if near.sum() < 12:
            break
        middle = centres[near].mean(axis=0)
        fitted = np.linalg.svd(centres[near] - middle, full_matrices=False)[2][2]
        normal = fitted if fitted @ total > 0 else -fitted
        offset = float(middle @ normal)
        band = max(1.25 * voxel, 0.7 * band)
    height = centres @ normal - offset
    inlier = np.abs(height) <= 1.25 * voxel
    # faces upright to the plane appear only where the cut is ragged or the wall leaks
    return Opening(normal, offset, bool(inlier.mean() > 0.85), float(np.sqrt((height**2).mean())))


def build_implicit(volume: LabelVolume) -> ImplicitHeart:
    """The smooth implicit wall of cleaned, isotropic labels (`meshing.regions` gives the tags, not this).

    volume: isotropic voxels, one heart. Returns fields on the grid of the heart's box plus a margin.
    """
    heart = volume.mask("lv_blood", "rv_blood", *WALL)
    occupied = np.argwhere(heart)
    low, high = occupied.min(axis=0) - PAD_VOXELS, occupied.max(axis=0) + PAD_VOXELS + 1
    data = np.zeros(tuple(high - low), np.uint8)
    source_low, source_high = np.maximum(low, 0), np.minimum(high, volume.data.shape)
    inner = tuple(slice(a - o, b - o) for a, b, o in zip(source_low, source_high, low))
    data[inner] = volume.data[tuple(slice(a, b) for a, b in zip(source_low, source_high))]
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_mm(low[None].astype(np.float64))[0]
    grid = LabelVolume(data, affine)
    voxel = float(grid.spacing_mm.mean())
    masks = [grid.mask("lv_blood", "rv_blood", *WALL), grid.mask("lv_blood")]
    if grid.mask("rv_blood").any():
        masks.append(grid.mask("rv_blood"))
    extent = np.array([[x.min(), x.max()] for x in (along(grid, axis)[masks[0]] for axis in np.eye(3))])
    opening = find_opening(grid.mask("lv_blood", "rv_blood"), ~masks[0], affine)
    if opening is not None:
        height = along(grid, opening.normal) - opening.offset_mm
        if (height[masks[0]] > 1.5 * voxel).mean() > 0.02:  # wall stands above the opening: a flat cut would lose it
            opening = Opening(opening.normal, opening.offset_mm, False, opening.spread_mm)
        masks = _extend_flat(masks, grid, opening, height) if opening.flat else _extend_cavities(masks)
    fields = np.stack([ndimage.gaussian_filter(signed_distance(m, voxel), SMOOTHING_VOXELS, mode="nearest") for m in masks])
    plane = height if opening is not None and opening.flat else None
    fields += (
        _volume_shift(fields, plane, voxel, float(grid.mask(*WALL).sum()))
        * np.array([1.0, *[-1.0] * (len(masks) - 1)])[:, None, None, None]
    )
    return ImplicitHeart(fields.astype(np.float32), affine, opening, extent[:, 0] - 2.0 * voxel, extent[:, 1] + 2.0 * voxel)


def _volume_shift(fields: NDArray[np.float32], plane: NDArray[np.float64] | None, voxel: float, wall_voxels: float) -> float:
    """Distance, mm, by which every surface is moved into the wall so that the smooth wall has the labels' volume.

    Smoothing pulls curved surfaces towards their centres, and the cavities shrink more than the heart: 0.4 to 0.8 % of the wall, 0.01 to
    0.02 mm. A voxel's share of the wall is linear in the function at its centre.
    """
    f = np.maximum(fields[0], -fields[1:].min(axis=0))
    if plane is not None:
        f = np.maximum(f, plane)
    missing = float(np.clip(0.5 - f / voxel, 0.0, 1.0).sum()) - wall_voxels
    side = (np.abs(f) < 0.5 * voxel) if plane is None else (np.abs(f) < 0.5 * voxel) & (plane < -0.5 * voxel)
    return float(np.clip(missing / max(float(side.sum()), 1.0), -0.1, 0.1)) * voxel


def along(grid: LabelVolume, direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinate of every voxel centre along a direction (3,) of patient space, (ni, nj, nk) mm."""
    i, j, k = (np.arange(n) * step for n, step in zip(grid.data.shape, direction @ grid.affine[:3, :3]))
    return i[:, None, None] + j[:, None] + k + float(direction @ grid.affine[:3, 3])


def _extend_flat(
    masks: list[NDArray[np.bool_]], grid: LabelVolume, opening: Opening, height: NDArray[np.float64]
) -> list[NDArray[np.bool_]]:
    """Continue every region through the base: above the plane each voxel takes the label found just below it."""
    voxel = float(grid.spacing_mm.mean())
    above = np.nonzero(height > -0.25 * voxel)
    step = np.linalg.solve(grid.affine[:3, :3], opening.normal)
    depth = height[above] + 1.25 * voxel
    below = tuple(np.clip(np.rint(index - depth * s + 1e-9).astype(np.int64), 0, n - 1) for index, s, n in zip(above, step, height.shape))
    out = []
    for mask in masks:
        extended = mask.copy()
        extended[above] = mask[below]
        out.append(extended)
    return out


def _extend_cavities(masks: list[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    """Ragged, stepped or several openings: each cavity grows outward through them, so that it cuts the lid that the heart mask has there.

    A voxel outside belongs to the cavity whose blood is the nearest part of the heart; above a rim that is the wall, and it stays outside.
    """
    distance, nearest = ndimage.distance_transform_edt(~masks[0], return_indices=True)
    reach = ~masks[0] & (distance < PAD_VOXELS)
    return [masks[0], *(mask | (reach & mask[tuple(nearest)]) for mask in masks[1:])]
