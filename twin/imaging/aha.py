"""Long axis, septum and the 17 segments of the left ventricle straight from labels, without a mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.errors import InputError
from twin.volume import LABELS, LabelVolume

Array = NDArray[np.float64]

SIX = (2, 1, 6, 5, 4, 3)
"""Basal segments by angle from the middle of the septum, 60 degrees each: Cerqueira 2002, doi 10.1161/hc0402.102975."""
FOUR = (14, 13, 16, 15, 14)
"""Apical segments by angle, 90 degrees each, the first and last being the halves of the septal one."""


@dataclass(frozen=True)
class HeartAxes:
    """Simple axes of a heart made from its labels: rows of `frame` are s (septum), a (anterior), h (apex) in LPS.

    base_mm (3,): middle of the LV's opening; length_mm: of the LV cavity.
    """

    base_mm: Array
    frame: Array
    length_mm: float

    def polar(self, points_mm: Array) -> tuple[Array, Array, Array]:
        """Angle theta (0 septum, +90 degrees anterior), distance from the base in mm, radius in mm of points (n, 3)."""
        s, a, h = self.frame @ (points_mm - self.base_mm).T
        return np.arctan2(a, s), h, np.hypot(s, a)

    def segments(self, points_mm: Array) -> NDArray[np.int16]:
        """AHA segment 1-17 of points (n, 3) of the LV wall, (n,) int16: thirds of the cavity's length, sectors from the mid septum."""
        theta, h, _ = self.polar(points_mm)
        ring = np.clip((3.0 * h / self.length_mm).astype(int), 0, 3)
        degrees = np.degrees(theta) % 360.0
        six = np.array(SIX)[(degrees // 60.0).astype(int) % 6]
        four = np.array(FOUR)[((degrees + 45.0) // 90.0).astype(int)]
        return np.choose(ring, [six, six + 6, four, np.full(len(six), 17)]).astype(np.int16)


def heart_axes(volume: LabelVolume, wall: str | tuple[str, ...] = "lv_myocardium") -> HeartAxes:
    """Long axis from the LV's blood and its open base, septum direction from the RV's blood.

    The base is where LV blood touches background; its middle and the LV blood farthest from it span the long axis.
    Raises InputError if a blood pool or the wall (any of `wall`) is missing, or the LV is closed.
    """
    walls = (wall,) if isinstance(wall, str) else wall
    lv, background = volume.mask("lv_blood"), volume.data == LABELS["background"]
    for names in (("lv_blood",), ("rv_blood",), walls):
        if not volume.mask(*names).any():
            raise InputError(volume.source, names[0], "no voxel has this label", "give a biventricular segmentation with blood pools")
    opening = lv & ndimage.binary_dilation(background)
    if not opening.any():
        raise InputError(volume.source, "lv_blood", "closed on all sides", "cut the segmentation at the mitral valve")
    base = volume.to_mm(np.argwhere(opening).astype(np.float64)).mean(axis=0)
    blood = volume.to_mm(np.argwhere(lv).astype(np.float64))
    distance = np.linalg.norm(blood - base, axis=1)
    # the mean of the farthest few: one voxel alone would tilt the axis
    apex = blood[np.argsort(distance, kind="stable")[-max(20, len(blood) // 2000) :]].mean(axis=0)
    h = (apex - base) / np.linalg.norm(apex - base)
    rv = volume.to_mm(np.argwhere(volume.mask("rv_blood")).astype(np.float64)).mean(axis=0) - base
    s = rv - (rv @ h) * h
    s /= np.linalg.norm(s)
    return HeartAxes(base, np.stack([s, np.cross(s, h), h]), float(((blood - base) @ h).max()))


def lv_wall(volume: LabelVolume) -> NDArray[np.bool_]:
    """Voxels of the left ventricle's wall, (ni, nj, nk) bool; plain `myocardium` counts where it is nearer to LV than to RV blood.

    Septal wall is the left ventricle's: within the thickness of a free RV wall (5 mm) from RV blood but farther from LV blood than twice
    that, it is the RV's.
    """
    wall = volume.mask("lv_myocardium", "scar", "border_zone", "isthmus")
    plain = volume.mask("myocardium")
    if not plain.any():
        return wall
    if not volume.mask("rv_blood").any():
        return wall | plain
    spacing = volume.spacing_mm
    to_lv, to_rv = (ndimage.distance_transform_edt(~volume.mask(n), sampling=spacing) for n in ("lv_blood", "rv_blood"))
    return np.asarray(wall | (plain & ((to_lv <= to_rv) | (to_lv < 12.0))))


def voxel_segments(volume: LabelVolume) -> NDArray[np.int16]:
    """AHA segment of every voxel of the LV wall, 0 elsewhere, (ni, nj, nk) int16. Raises InputError as `heart_axes` does."""
    wall = lv_wall(volume)
    axes = heart_axes(volume, ("lv_myocardium", "myocardium", "scar", "border_zone"))
    out = np.zeros(wall.shape, np.int16)
    out[wall] = axes.segments(volume.to_mm(np.argwhere(wall).astype(np.float64)))
    return out
