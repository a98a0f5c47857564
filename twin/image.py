"""Intensity images: what was measured, where each voxel lies in the patient and, for cine, when. No identifiers are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Placed:
    """Geometry shared by images and cine stacks: `affine` takes voxel indices (i, j, k) to patient LPS mm."""

    affine: NDArray[np.float64]
    thickness_mm: float | None

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Distance of neighbouring voxels along each index axis, (3,) mm; the third is from slice centre to slice centre."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0), np.float64)

    @property
    def gap_mm(self) -> float:
        """Tissue between two slices that no slice shows, mm (negative where slices overlap, 0 where the thickness is not known)."""
        # to the nm: positions are written with limited digits
        return round(float(self.spacing_mm[2]) - self.thickness_mm, 6) + 0.0 if self.thickness_mm is not None else 0.0

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slices, towards growing k, (3,)."""
        return np.asarray(self.affine[:3, 2] / np.linalg.norm(self.affine[:3, 2]), np.float64)

    def to_mm(self, ijk: NDArray[np.floating]) -> NDArray[np.float64]:
        """Voxel coordinates (n, 3) to patient LPS mm."""
        return np.asarray(np.asarray(ijk, float) @ self.affine[:3, :3].T + self.affine[:3, 3], np.float64)

    def to_ijk(self, points_mm: NDArray[np.floating]) -> NDArray[np.float64]:
        """Patient LPS mm (n, 3) to (fractional) voxel coordinates."""
        return np.asarray(np.linalg.solve(self.affine[:3, :3], (np.asarray(points_mm, float) - self.affine[:3, 3]).T).T, np.float64)


@dataclass(frozen=True)
class Image(_Placed):
    """Intensities on a voxel grid.

    data: (ni, nj, nk) integers or float32; HU for CT, arbitrary units for MR; nk = 1 for a single plane. affine: (4, 4) float64,
    voxel index to patient LPS mm, right-handed, axes perpendicular. modality: "MR", "CT" or "" when the format does not say.
    thickness_mm: of a slice, None = not said (it is not the distance of slices). source: name of the file or folder.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    modality: str = ""
    thickness_mm: float | None = None
    source: str = ""


@dataclass(frozen=True)
class CineSlice:
    """One plane over the heart beat: frames (ni, nj, nt), trigger_ms (nt,) after the R wave (rising), and the beat's length rr_ms."""

    frames: NDArray[Any]
    trigger_ms: NDArray[np.float64]
    rr_ms: float

    @property
    def phase(self) -> NDArray[np.float64]:
        """Time of each frame as a share of the R-R interval, (nt,) in 0..1: what breath-holds of different heart rates have in common."""
        return np.asarray(self.trigger_ms / self.rr_ms, np.float64)

    def at(self, phase: float) -> NDArray[np.float32]:
        """Intensities (ni, nj) at a share of the beat, linear in time between the frames before and after, periodic."""
        times = self.phase
        after = int(np.searchsorted(times, phase % 1.0, side="right"))
        first, second = (after - 1) % len(times), after % len(times)
        span = (times[second] - times[first]) % 1.0
        weight = ((phase - times[first]) % 1.0) / span if span > 0 else 0.0
        return np.asarray((1.0 - weight) * self.frames[..., first] + weight * self.frames[..., second], np.float32)


@dataclass(frozen=True)
class CineStack(_Placed):
    """Parallel planes over the heart beat, slices[k] at index k; each has its own R-R interval and may have its own number of frames.

    affine, modality, thickness_mm and source as in `Image`.
    """

    slices: tuple[CineSlice, ...]
    affine: NDArray[np.float64]
    modality: str = ""
    thickness_mm: float | None = None
    source: str = ""

    def at(self, phase: float) -> Image:
        """The stack at one share of the beat (0 = R wave): slices are aligned by share of the R-R interval, not by ms."""
        data = np.stack([one.at(phase) for one in self.slices], axis=2)
        return Image(data, self.affine, self.modality, self.thickness_mm, self.source)
