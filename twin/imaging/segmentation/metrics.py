"""How two segmentations agree: overlap (Dice), surface distance (Hausdorff, 95th percentile) and volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.volume import WALL, LabelVolume

BY_NAME: Mapping[str, tuple[str, ...]] = {
    "lv_blood": ("lv_blood",),
    "rv_blood": ("rv_blood",),
    "lv_myocardium": ("lv_myocardium", "scar", "border_zone", "isthmus"),
    "rv_myocardium": ("rv_myocardium",),
    "wall": WALL,
}
"""What is compared; scar is part of the wall."""


@dataclass(frozen=True)
class Agreement:
    """One structure in two segmentations: dice 0..1, hausdorff95_mm (None where one is empty), volumes in mL."""

    dice: float
    hausdorff95_mm: float | None
    found_ml: float
    true_ml: float

    @property
    def bias_ml(self) -> float:
        """Found minus true."""
        return self.found_ml - self.true_ml


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """2 |a and b| / (|a| + |b|); 1 where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def hausdorff95_mm(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing_mm: NDArray[np.float64]) -> float | None:
    """95th percentile of the distances of each one's surface voxels to the other's, the larger of both directions; None if one is empty."""
    if not a.any() or not b.any():
        return None
    box = ndimage.find_objects((a | b).astype(np.uint8))[0]
    edges = [_edge(np.pad(mask[box], 1)) for mask in (a, b)]
    away = [ndimage.distance_transform_edt(~edge, spacing_mm) for edge in edges]
    return float(max(np.percentile(away[1][edges[0]], 95), np.percentile(away[0][edges[1]], 95)))


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of a mask with a face on its outside."""
    return mask & ~ndimage.binary_erosion(mask)


def compare(found: LabelVolume, truth: LabelVolume) -> dict[str, Agreement]:
    """Agreement per structure that either of two segmentations of one grid holds."""
    out = {}
    for name, labels in BY_NAME.items():
        a, b = found.mask(*labels), truth.mask(*labels)
        if a.any() or b.any():
            ml = truth.voxel_mm3 / 1000.0
            out[name] = Agreement(dice(a, b), hausdorff95_mm(a, b, truth.spacing_mm), float(a.sum()) * ml, float(b.sum()) * ml)
    return out


def summary(rows: Sequence[Mapping[str, Agreement]]) -> dict[str, dict[str, Any]]:
    """Over several hearts, per structure: mean and least Dice, mean and largest Hausdorff distance, mean and SD of the volume bias."""
    out: dict[str, dict[str, Any]] = {}
    for name in BY_NAME:
        found = [row[name] for row in rows if name in row]
        if not found:
            continue
        score, bias = np.array([one.dice for one in found]), np.array([one.bias_ml for one in found])
        far = [one.hausdorff95_mm for one in found if one.hausdorff95_mm is not None]
        true_ml = float(np.mean([one.true_ml for one in found]))
        out[name] = {
            "n": len(found),
            "dice": round(float(score.mean()), 4),
            "dice_least": round(float(score.min()), 4),
            "hausdorff95_mm": round(float(np.mean(far)), 2) if far else None,
            "hausdorff95_mm_most": round(float(np.max(far)), 2) if far else None,
            "missed": len(found) - len(far),
            "volume_bias_ml": round(float(bias.mean()), 2),
            "volume_bias_sd_ml": round(float(bias.std(ddof=1)), 2) if len(bias) > 1 else None,
            "volume_bias_percent": round(100.0 * float(bias.mean()) / true_ml, 2) if true_ml > 0 else None,
        }
    return out
