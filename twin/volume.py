"""Label volumes: which voxel is what, and where it lies in the patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LABELS = {
    "background": 0,
    "lv_blood": 1,
    "rv_blood": 2,
    "lv_myocardium": 3,
    "rv_myocardium": 4,
    "scar": 5,
    "border_zone": 6,
    "isthmus": 7,
    "myocardium": 8,
    "ignore": 9,
}
"""The names of `interface.md` and the numbers vtwin uses for them inside; readers map any file to these."""

WALL = ("lv_myocardium", "rv_myocardium", "myocardium", "scar", "border_zone", "isthmus")
"""Labels that are heart wall."""


@dataclass(frozen=True)
class LabelVolume:
    """Labels on a voxel grid.

    data: (ni, nj, nk) uint8, values from LABELS. affine: (4, 4) float64, voxel index (i, j, k) to patient LPS mm
    (right-handed, axes may be oblique). names: what the file called each label, for the report.
    """

    data: NDArray[np.uint8]
    affine: NDArray[np.float64]
    source: str = ""
    names: Mapping[str, int] = field(default_factory=dict)

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Voxel size along each index axis, (3,) mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0), np.float64)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel in mm^3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def mask(self, *labels: str) -> NDArray[np.bool_]:
        """Voxels that carry any of the named labels, (ni, nj, nk) bool."""
        return np.isin(self.data, [LABELS[name] for name in labels])

    def volume_ml(self, *labels: str) -> float:
        """Volume of the named labels in mL."""
        return float(self.mask(*labels).sum()) * self.voxel_mm3 / 1000.0

    def to_mm(self, ijk: NDArray[np.floating]) -> NDArray[np.float64]:
        """Voxel coordinates (n, 3) to patient LPS mm."""
        return np.asarray(np.asarray(ijk, float) @ self.affine[:3, :3].T + self.affine[:3, 3], np.float64)

    def to_ijk(self, points_mm: NDArray[np.floating]) -> NDArray[np.float64]:
        """Patient LPS mm (n, 3) to (fractional) voxel coordinates."""
        return np.asarray(np.linalg.solve(self.affine[:3, :3], (np.asarray(points_mm, float) - self.affine[:3, 3]).T).T, np.float64)
