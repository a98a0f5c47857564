"""Conducting channels: corridors of border zone between scar core, with healthy tissue at both ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.imaging.aha import lv_wall
from twin.imaging.corridors import Corridor, find_corridors
from twin.imaging.lge import MUSCLE_G_PER_ML
from twin.volume import LabelVolume

SPECKLE_VOXELS = 0.8
"""Gaussian that decides what is core, in voxels: gaps of two voxels stay open, single voxels do not count."""


def conducting_channels(volume: LabelVolume, wall: NDArray[np.bool_] | None = None) -> list[Corridor]:
    """Channels of a labelled scar, longest first; also where the reader labelled the corridor as isthmus or left it healthy.

    volume: labels with scar; wall (ni, nj, nk): None = the left ventricle's. Slices thicker than channels are wide
    hide them: interpolate first.
    """
    wall = lv_wall(volume) if wall is None else wall
    core = _without_speckle(volume.mask("scar") & wall, wall)
    healthy = volume.mask("lv_myocardium", "myocardium") & wall & ~core
    return find_corridors(core, wall & ~core, healthy, volume.affine)


def _without_speckle(core: NDArray[np.bool_], wall: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Core where most of the neighbouring wall is core: a rule on a noisy image leaves single voxels that would close a corridor."""
    share = ndimage.gaussian_filter(core.astype(np.float32), SPECKLE_VOXELS)
    return np.asarray(wall & (share > 0.5 * ndimage.gaussian_filter(wall.astype(np.float32), SPECKLE_VOXELS)))


def describe(channels: list[Corridor]) -> list[dict[str, object]]:
    """Channels as JSON: polyline_mm, width_mm along it, length, narrowest and typical width in mm, mass in g."""
    return [
        {
            "polyline_mm": one.polyline_mm.round(2).tolist(),
            "width_mm": [None if np.isnan(w) else round(float(w), 2) for w in one.width_mm],
            "length_mm": round(one.length_mm, 2),
            "narrowest_mm": round(one.narrowest_mm, 2),
            "typical_mm": round(one.typical_mm, 2),
            "mass_g": round(one.volume_ml * float(MUSCLE_G_PER_ML), 3),
        }
        for one in channels
    ]
