"""Coronary calcium and stenoses as categories: Agatston score from CT and a mask, CAD-RADS from the degree of each stenosis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.errors import InputError
from twin.params import Param

_AGATSTON = "Agatston et al., J Am Coll Cardiol 15:827, 1990"
CALCIUM_HU = Param(130.0, "HU", 130.0, 130.0, _AGATSTON)
LEAST_MM2 = Param(1.0, "mm^2", 1.0, 1.0, f"{_AGATSTON}: smaller specks are noise")
SLICE_MM = Param(3.0, "mm", 3.0, 3.0, f"{_AGATSTON}: slices of 3 mm; others are scaled to it")
WEIGHTS = ((400.0, 4), (300.0, 3), (200.0, 2), (130.0, 1))
VESSELS = ("left_main", "lad", "lcx", "rca")
_GROUPS = ((0.0, "0"), (10.0, "1-10"), (100.0, "11-100"), (400.0, "101-400"))


def agatston(hu: NDArray[Any], mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> float:
    """Agatston score of axial slices hu (ni, nj, nk) HU inside a mask of the coronary arteries; the third axis is the slice.

    Raises InputError for a mask of another shape or values that are not finite inside it.
    """
    if hu.shape != mask.shape or hu.ndim != 3:
        raise InputError("agatston", "mask", f"has the shape {mask.shape}, the image {hu.shape}", "give both on one grid")
    if not np.isfinite(hu[mask]).all():
        raise InputError("agatston", "image", "holds values that are not finite inside the mask", "export it again in HU")
    area_mm2, score = spacing_mm[0] * spacing_mm[1], 0.0
    for k in range(hu.shape[2]):
        lesions, count = ndimage.label(mask[:, :, k] & (hu[:, :, k] >= CALCIUM_HU.value), np.ones((3, 3)))
        for lesion in range(1, count + 1):
            inside = lesions == lesion
            area = float(inside.sum()) * area_mm2
            if area >= LEAST_MM2.value:
                peak = float(hu[:, :, k][inside].max())
                score += area * next(weight for least, weight in WEIGHTS if peak >= least)
    return score * spacing_mm[2] / SLICE_MM.value


def calcium_group(score: float) -> str:
    """The usual group of a score: 0, 1-10, 11-100, 101-400, over 400."""
    return next((name for most, name in _GROUPS if score <= most), "over 400")


def cad_rads(stenosis_percent: Mapping[str, float]) -> str:
    """CAD-RADS 2.0 category from the worst stenosis of each vessel, percent (Cury et al., J Cardiovasc Comput Tomogr 16:536, 2022).

    Raises InputError for a vessel that is not one of left_main, lad, lcx, rca (and its branches under it) or a value outside 0..100.
    """
    for vessel, percent in stenosis_percent.items():
        if vessel not in VESSELS:
            raise InputError("cad_rads", vessel, "is not a vessel", f"known: {', '.join(VESSELS)}")
        if not 0.0 <= percent <= 100.0:
            raise InputError("cad_rads", vessel, f"{percent:g} is not between 0 and 100 %", "give the narrowing of the diameter")
    if not stenosis_percent:
        return "N"
    worst = max(stenosis_percent.values())
    severe = sum(percent >= 70.0 for vessel, percent in stenosis_percent.items() if vessel != "left_main")
    if worst >= 100.0:
        return "5"
    if stenosis_percent.get("left_main", 0.0) >= 50.0 or severe >= 3:
        return "4B"
    steps = ((70.0, "4A"), (50.0, "3"), (25.0, "2"))
    return next((name for least, name in steps if worst >= least), "1" if worst > 0.0 else "0")
