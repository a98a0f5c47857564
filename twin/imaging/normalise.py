"""Intensities of late enhancement made comparable: blood pool, remote myocardium and the brightest scar of one heart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.errors import InputError
from twin.image import Image
from twin.imaging.aha import lv_wall
from twin.params import Param
from twin.volume import LabelVolume

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

EDGE_MM = Param(1.5, "mm", 1.0, 3.0, "chosen here: a pixel; nearer to blood or fat a voxel of the wall is a mixture")
LOCAL_MM = Param(3.0, "mm", 2.0, 5.0, "chosen here: remote tissue is remote over a neighbourhood, not a voxel")
TOP_PERCENT = Param(
    99.0, "%", 95.0, 99.9, "robust maximum: percentile of the neighbourhood means of the enhanced wall (design note on meshing)"
)
ENHANCED_SD = Param(5.0, "1", 3.0, 6.0, "SDs above remote that surely enhance: Flett 2011, J Am Coll Cardiol Img 4:150 (from memory)")
LEAST_ML = Param(0.3, "mL", 0.1, 1.0, "chosen here: volume that must enhance before its brightest part is called the maximum")
FEWEST = 50
"""Voxels that a mean and an SD need."""


@dataclass(frozen=True)
class Levels:
    """What the intensities of one image mean.

    blood, blood_sd: LV blood away from the wall; remote, remote_sd: myocardium without enhancement; maximum: robust maximum of the enhanced
    wall; plain_maximum: of any voxel; remote_ml: volume the remote values come from; how: how it was found.
    """

    blood: float
    blood_sd: float
    remote: float
    remote_sd: float
    maximum: float
    plain_maximum: float
    remote_ml: float
    how: str

    def normalised(self, values: Array) -> Array:
        """0 at remote myocardium, 1 at the blood pool; same shape as `values`."""
        return np.asarray((values - self.remote) / (self.blood - self.remote), np.float64)


def on_labels(image: Image, volume: LabelVolume) -> NDArray[np.float32]:
    """The image at the voxel centres of the labels, (ni, nj, nk) float32, trilinear; NaN outside the image's slices and field."""
    same = image.data.shape == volume.data.shape and np.allclose(image.affine, volume.affine, atol=1e-3)
    if same:
        return np.asarray(image.data, np.float32)
    to_image = np.linalg.solve(image.affine, volume.affine)
    data, shape = np.asarray(image.data, np.float32), np.array(image.data.shape)
    out = np.empty(volume.data.shape, np.float32)
    j, k = np.meshgrid(*(np.arange(n) for n in volume.data.shape[1:]), indexing="ij")
    for i in range(volume.data.shape[0]):
        at = (to_image[:3, 0] * i + to_image[:3, 3])[:, None, None] + to_image[:3, 1, None, None] * j + to_image[:3, 2, None, None] * k
        # a voxel reaches half its size beyond its centre
        inside = ((at > -0.5) & (at < shape[:, None, None] - 0.5)).all(axis=0)
        out[i] = np.where(inside, ndimage.map_coordinates(data, at, order=1, mode="nearest"), np.nan)
    return out


def find_levels(values: NDArray[np.floating], volume: LabelVolume, remote: Mask | None = None) -> Levels:
    """Blood pool, remote myocardium and robust maximum.

    values (ni, nj, nk): `on_labels`; remote: voxels the user calls remote (wins), else found: the interior of the LV wall where the
    neighbourhood's mean lies at the lower mode of the wall's intensities. Raises InputError where the image does not cover the heart.
    """
    where = volume.source or "late enhancement"
    wall, blood = lv_wall(volume), volume.mask("lv_blood")
    seen = np.isfinite(values)
    if (wall & seen).sum() < 0.5 * wall.sum() or not (blood & seen).any():
        share = 100.0 * float((wall & seen).sum()) / max(int(wall.sum()), 1)
        raise InputError(where, "lge", f"shows {share:.0f} % of the LV wall", "give the image the labels were drawn on, in the same frame")
    pool = _interior(blood, volume) & seen
    pool = pool if pool.sum() >= FEWEST else blood & seen
    blood_mean, blood_sd = float(np.median(values[pool])), _spread(values[pool])
    inner = _interior(wall, volume) & seen
    inner = inner if inner.sum() >= FEWEST else wall & seen
    if remote is None:
        chosen, how = _find_remote(values, inner, volume), "found: lower mode of the wall's interior"
    else:
        chosen, how = np.asarray(remote, bool) & seen, "given by the user"
    if chosen.sum() < FEWEST:
        raise InputError(where, "remote", f"only {int(chosen.sum())} voxels of remote myocardium", "mark more of it, or check the labels")
    mean, sd = float(values[chosen].mean()), float(values[chosen].std())
    if not sd > 0:
        raise InputError(where, "remote", "has one value only", "give the image itself, not labels or a threshold of it")
    smooth = _neighbourhood(values, wall & seen, volume.spacing_mm)
    enhanced = inner & (smooth > mean + float(ENHANCED_SD) * sd)
    # without a scar the brightest voxels are noise and the blood's edge: then nothing counts as enhanced
    shown = float(enhanced.sum()) * volume.voxel_mm3 / 1000.0 >= float(LEAST_ML)
    top = float(np.percentile(smooth[enhanced], float(TOP_PERCENT))) if shown else mean + float(ENHANCED_SD) * sd
    remote_ml = float(chosen.sum()) * volume.voxel_mm3 / 1000.0
    return Levels(blood_mean, blood_sd, mean, sd, top, float(np.nanmax(values[wall])), remote_ml, how)


def _interior(mask: Mask, volume: LabelVolume) -> Mask:
    """Voxels whose centre lies at least EDGE_MM inside; across thick slices the neighbours do not count."""
    spacing = volume.spacing_mm
    thick = spacing > 2.0 * spacing.min()
    step = np.where(thick, 1e3, spacing)
    inside = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=step)[1:-1, 1:-1, 1:-1] - 0.5 * spacing.min()
    return np.asarray(mask & (inside >= float(EDGE_MM)))


def _find_remote(values: NDArray[np.floating], inner: Mask, volume: LabelVolume) -> Mask:
    """The part of the wall's interior that lies at the lower mode."""
    sample = np.sort(values[inner].astype(np.float64))
    mode = _half_sample_mode(sample)
    below = sample[sample <= mode]
    sd = float(np.sqrt(np.mean((below - mode) ** 2))) if len(below) > 5 else _spread(sample)
    sigma = float(LOCAL_MM) / volume.spacing_mm
    weight = ndimage.gaussian_filter(inner.astype(np.float32), sigma)
    local = ndimage.gaussian_filter(np.where(inner, values, 0.0).astype(np.float32), sigma) / np.maximum(weight, 1e-6)
    return np.asarray(inner & (np.abs(local - mode) < 1.0 * sd))


def _half_sample_mode(ordered: Array) -> float:
    """Mode of sorted values: the densest half, again and again (Bickel and Fruehwirth 2006, Comput Stat Data Anal 50:3500)."""
    while len(ordered) > 40:
        half = len(ordered) // 2
        width = ordered[half:] - ordered[: len(ordered) - half]
        first = int(np.argmin(width))
        ordered = ordered[first : first + half + 1]
    return float(ordered.mean())


def _spread(values: NDArray[np.floating]) -> float:
    """Robust SD: 1.4826 times the median distance from the median."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _neighbourhood(values: NDArray[np.floating], mask: Mask, spacing: Array) -> NDArray[np.float32]:
    """Mean of each voxel and its neighbours in `mask` (3 along each axis, but 1 across thick slices); -inf elsewhere."""
    size = [1 if s > 2.0 * spacing.min() else 3 for s in spacing]
    count = ndimage.uniform_filter(mask.astype(np.float32), size, mode="constant")
    total = ndimage.uniform_filter(np.where(mask, values, 0.0).astype(np.float32), size, mode="constant")
    return np.asarray(np.where(mask, total / np.maximum(count, 1e-6), -np.inf), np.float32)
