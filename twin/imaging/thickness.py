"""Wall thickness by Laplace's equation, thinning, and ridges between thinner walls (CT channels).

S. E. Jones, B. R. Buchbinder, I. Aharon, "Three-dimensional mapping of cortical thickness using Laplace's equation", Hum Brain Mapp
11 (2000) 12: field lines of the potential between two surfaces have a length that is unique at every point, and never cross.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from twin.errors import InputError
from twin.imaging.aha import heart_axes, lv_wall
from twin.imaging.corridors import Corridor, find_corridors
from twin.imaging.thickness_kernels import lengths
from twin.kept import kept
from twin.params import Param
from twin.volume import LABELS, LabelVolume

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_CT = "design note on clinical numbers, substrate: ridges of 4.2 +- 1.2 mm between walls of 2.6 +- 1.1 mm mark isthmuses"
THINNED_MM = Param(5.0, "mm", 4.0, 6.0, _CT + "; wall thinning below 5 mm")
RIDGE_MM = Param(4.2, "mm", 3.0, 5.4, _CT)
BESIDE_MM = Param(2.6, "mm", 1.5, 3.7, _CT)
SPECK_ML = Param(0.1, "mL", 0.02, 0.3, "chosen here: thin wall of 4 x 10 mm at 2.6 mm; less is a dent")
LONGEST_MM = Param(40.0, "mm", 25.0, 60.0, "chosen here: beyond any wall")
LAYER_MM = 2.0
"""Outer part of the wall in which ridges are followed."""
SMOOTHING_VOXELS = 1.0
"""Gaussian on the signed distances, as in the mesher: least error of the surface on 1 mm labels."""


@dataclass(frozen=True)
class Thickness:
    """Wall thickness of the left ventricle: mm (ni, nj, nk) float32 and depth 0 (endocardium) - 1 (epicardium); NaN off the wall."""

    volume: LabelVolume
    wall: Mask
    mm: NDArray[np.float32]
    depth: NDArray[np.float32]

    def thinned(self, below_mm: float = THINNED_MM.value) -> Mask:
        """Wall thinner than a limit, (ni, nj, nk) bool."""
        return np.asarray(self.wall & (self.mm < below_mm))

    def ridges(self) -> list[Corridor]:
        """Ridges between thinner walls, longest first: wall of more than (4.2 + 2.6) / 2 mm with thinner wall on both sides.

        Both ends reach wall of 5 mm or more. A ridge's width is that of the strip above the limit, on the epicardium;
        its thickness is `along`.
        """
        limit = 0.5 * (float(RIDGE_MM) + float(BESIDE_MM))
        block = self.thinned(limit)
        # specks of thin wall are noise of the labels
        numbered, count = ndimage.label(block, np.ones((3, 3, 3), bool))
        size = np.bincount(numbered.ravel(), minlength=count + 1) * self.volume.voxel_mm3 / 1000.0
        block &= size[numbered] >= float(SPECK_ML)
        # a ridge stands into the cavity, the epicardium is smooth: sides are sides in the outer layer
        layer = self.wall & ((1.0 - self.depth) * self.mm <= max(LAYER_MM, 2.0 * float(self.volume.spacing_mm.max())))
        healthy = layer & (self.mm >= float(THINNED_MM))
        return find_corridors(block & layer, layer & ~block, healthy & ~block, self.volume.affine)

    def along(self, polyline_mm: Array) -> Array:
        """Thickness at places (n, 3) LPS mm: of the nearest wall voxel, (n,) mm."""
        nearest = ndimage.distance_transform_edt(~np.isfinite(self.mm), return_distances=False, return_indices=True)
        ijk = np.clip(np.rint(self.volume.to_ijk(polyline_mm)).astype(int), 0, np.array(self.mm.shape) - 1)
        return np.asarray(self.mm[tuple(axis[tuple(ijk.T)] for axis in nearest)], np.float64)

    def by_segment(self) -> dict[str, dict[str, float]]:
        """Mean, smallest (5th percentile) and largest (95th) thickness of every AHA segment, mm. Raises InputError without axes."""
        axes = heart_axes(self.volume, ("lv_myocardium", "myocardium", "scar", "border_zone"))
        inside = self.wall & np.isfinite(self.mm)
        segment = axes.segments(self.volume.to_mm(np.argwhere(inside).astype(np.float64)))
        mm, middle = self.mm[inside], np.abs(self.depth[inside] - 0.5) < 0.35
        out = {}
        for s in range(1, 18):
            here = (segment == s) & middle
            if here.sum() >= 5:
                low, high = np.percentile(mm[here], [5, 95])
                out[str(s)] = {"mean_mm": round(float(mm[here].mean()), 2), "p5_mm": round(float(low), 2), "p95_mm": round(float(high), 2)}
        return out


@kept(1)
def wall_thickness(volume: LabelVolume) -> Thickness:
    """Thickness of the left ventricle's wall at every voxel of it; computed once for the same labels.

    volume: labels with lv_blood and the LV wall; a flat or closed base; cubes of 1.5 mm or less give 0.1 - 0.2 mm, thick slices must be
    interpolated first. The base is not a surface: no line starts or ends there. Raises InputError without LV blood or wall.
    """
    wall, blood = lv_wall(volume), volume.mask("lv_blood")
    if not wall.any() or not blood.any():
        raise InputError(volume.source, "labels", "no LV wall or no LV blood", "label both")
    spacing = volume.spacing_mm
    at = np.argwhere(wall | blood)
    low, high = np.maximum(at.min(axis=0) - 4, 0), np.minimum(at.max(axis=0) + 5, wall.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    small = LabelVolume(volume.data[box], _moved(volume, low))
    beyond = _beyond_base(small)
    w, b = wall[box], blood[box]
    # past the base every voxel belongs to what lies below it, so that the surfaces run straight on
    filled = _continued(np.where(w, 2, np.where(b, 1, 0)).astype(np.uint8), beyond)
    inner = _distance(filled == 1, spacing)
    outer = _distance(filled > 0, spacing)
    potential = _laplace(w, filled, beyond, inner, outer, spacing)
    way = _field(potential, w, filled, spacing)
    starts = np.argwhere(w)
    out = np.empty((len(starts), 2))
    lengths(starts, way, outer, -inner, spacing, 0.25 * float(spacing.min()), float(LONGEST_MM), out)
    mm, depth = (np.full(wall.shape, np.nan, np.float32) for _ in range(2))
    mm[box][w] = _evened(out.sum(axis=1), w)
    depth[box][w] = np.clip(out[:, 1] / np.maximum(out.sum(axis=1), 1e-6), 0.0, 1.0)
    return Thickness(volume, wall, mm, depth)


def _evened(values: Array, wall: Mask) -> Array:
    """Mean over the neighbouring wall (Gaussian, 1 voxel): single lines end on the staircase of the labels."""
    field = np.zeros(wall.shape)
    known = wall.copy()
    known[wall] = np.isfinite(values)
    field[wall] = np.nan_to_num(values)
    weight = ndimage.gaussian_filter(known.astype(np.float64), 1.0)[wall]
    return np.where(np.isfinite(values), ndimage.gaussian_filter(field, 1.0)[wall] / np.maximum(weight, 1e-9), np.nan)


def _moved(volume: LabelVolume, low: NDArray[np.int_]) -> Array:
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_mm(low[None].astype(np.float64))[0]
    return affine


def _beyond_base(volume: LabelVolume) -> NDArray[np.float32]:
    """Height above the plane of the LV's opening, mm; -inf everywhere if the cavity is closed."""
    blood, background = volume.mask("lv_blood"), volume.data == LABELS["background"]
    opening = blood & ndimage.binary_dilation(background)
    if opening.sum() < 12:
        return np.full(blood.shape, -np.inf, np.float32)
    points = volume.to_mm(np.argwhere(opening).astype(np.float64))
    middle = points.mean(axis=0)
    normal = np.linalg.svd(points - middle, full_matrices=False)[2][2]
    centre = volume.to_mm(np.argwhere(blood).astype(np.float64)).mean(axis=0)
    normal = normal if normal @ (middle - centre) > 0 else -normal
    i, j, k = (np.arange(n) * step for n, step in zip(blood.shape, normal @ volume.affine[:3, :3]))
    height = i[:, None, None] + j[:, None] + k + normal @ (volume.affine[:3, 3] - middle)
    return np.asarray(height - 0.5 * volume.spacing_mm.min(), np.float32)


def _continued(tissue: NDArray[np.uint8], height: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Voxels past the base take the tissue of the nearest voxel below it."""
    past = height > 0
    if not past.any():
        return tissue
    nearest = ndimage.distance_transform_edt(past, return_distances=False, return_indices=True)
    return np.asarray(np.where(past & (tissue == 0), tissue[tuple(nearest)], tissue), np.uint8)


def _distance(mask: Mask, spacing: Array) -> NDArray[np.float32]:
    """Smoothed signed distance in mm, negative inside; zero half-way between voxels."""
    half = 0.5 * float(spacing.min())
    outside, inside = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (~mask, mask))
    signed = np.where(mask, half - inside, outside - half)
    return ndimage.gaussian_filter(signed.astype(np.float32), SMOOTHING_VOXELS * spacing.min() / spacing, mode="nearest")


def _laplace(
    wall: Mask,
    filled: NDArray[np.uint8],
    beyond: NDArray[np.float32],
    inner: NDArray[np.float32],
    outer: NDArray[np.float32],
    spacing: Array,
) -> Array:
    """Potential of the wall, 0 on the endocardium and 1 on the epicardium, whose places between voxels count; no flux through the base."""
    padded = np.pad(wall, 1)
    number = np.full(padded.shape, -1)
    number[padded] = np.arange(int(wall.sum()))
    at = np.argwhere(padded)
    kind, height = np.pad(filled, 1, mode="edge"), np.pad(beyond, 1, mode="edge")
    here = tuple(at.T)
    to_inner, to_outer = np.pad(inner, 1, mode="edge"), -np.pad(outer, 1, mode="edge")
    diagonal, right = np.zeros(len(at)), np.zeros(len(at))
    rows, cols, weights = [], [], []
    for axis in range(3):
        for sign in (-1, 1):
            step = np.zeros(3, int)
            step[axis] = sign
            there = tuple((at + step).T)
            other = number[there]
            weight = np.full(len(at), 1.0 / spacing[axis] ** 2)
            free = other >= 0
            rows.append(np.flatnonzero(free))
            cols.append(other[free])
            weights.append(-weight[free])
            diagonal[free] += weight[free]
            for distance, blood in ((to_inner, True), (to_outer, False)):
                edge = ~free & ((kind[there] == 1) == blood) & (height[there] <= 0)
                a, b = np.maximum(distance[here][edge], 0.0), distance[there][edge]
                # where on the way to the neighbour the surface lies; smoothing may move it past either voxel
                share = np.clip(a / np.maximum(a - np.minimum(b, 0.0), 1e-6), 0.2, 1.0)
                diagonal[edge] += weight[edge] / share
                right[edge] += 0.0 if blood else weight[edge] / share
    n = len(at)
    rows.append(np.arange(n))
    cols.append(np.arange(n))
    weights.append(diagonal + 1e-9)
    matrix = sparse.csr_array((np.concatenate(weights), (np.concatenate(rows), np.concatenate(cols))), shape=(n, n))
    solution, _ = cg(matrix, right, rtol=1e-5, M=sparse.diags_array(1.0 / (diagonal + 1e-9)), maxiter=2000)
    return np.asarray(solution, np.float64)


def _field(potential: Array, wall: Mask, filled: NDArray[np.uint8], spacing: Array) -> NDArray[np.float32]:
    """Unit gradient of the potential (3, ni, nj, nk) float32, continued off the wall by the nearest wall voxel."""
    full = np.where(filled == 1, 0.0, 1.0).astype(np.float32)
    nearest = ndimage.distance_transform_edt(~wall, return_distances=False, return_indices=True)
    full[wall] = potential
    past = ~wall & (filled == 2)
    full[past] = full[tuple(axis[past] for axis in nearest)]
    smooth = ndimage.gaussian_filter(full, 0.7)
    way = np.stack([np.gradient(smooth, s, axis=axis) for axis, s in enumerate(spacing)]).astype(np.float32)
    way /= np.maximum(np.linalg.norm(way, axis=0), 1e-9)
    return np.ascontiguousarray(way[:, *nearest])
