"""Ventricular volumes, mass and ejection fraction from labels, with partial volume where an image is given, and from cine stacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.errors import InputError
from twin.image import CineStack, Image
from twin.imaging.aha import lv_wall
from twin.imaging.lge import MUSCLE_G_PER_ML
from twin.imaging.normalise import on_labels
from twin.volume import LABELS, WALL, LabelVolume

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

EDGE_VOXELS = 2
"""Voxels on either side of a contour that may be mixtures of blood and wall."""
PHASES = 30
"""Times of the beat at which a cine is evaluated."""


@dataclass(frozen=True)
class Beat:
    """Volume of the LV over a beat: phase (n,) share of the R-R interval and volume_ml (n,)."""

    phase: Array
    volume_ml: Array

    @property
    def end_diastolic_ml(self) -> float:
        """Largest volume."""
        return float(self.volume_ml.max())

    @property
    def end_systolic_ml(self) -> float:
        """Smallest volume."""
        return float(self.volume_ml.min())

    @property
    def ejection_fraction(self) -> float:
        """Share of the largest volume that leaves, 0..1."""
        return 1.0 - self.end_systolic_ml / self.end_diastolic_ml

    def as_dict(self) -> dict[str, object]:
        """Volumes in mL, ejection fraction in %, phases of both ends, the curve."""
        return {
            "end_diastolic_ml": round(self.end_diastolic_ml, 2),
            "end_systolic_ml": round(self.end_systolic_ml, 2),
            "stroke_ml": round(self.end_diastolic_ml - self.end_systolic_ml, 2),
            "ejection_fraction_percent": round(100.0 * self.ejection_fraction, 2),
            "end_diastolic_phase": round(float(self.phase[np.argmax(self.volume_ml)]), 3),
            "end_systolic_phase": round(float(self.phase[np.argmin(self.volume_ml)]), 3),
            "phase": self.phase.round(4).tolist(),
            "volume_ml": self.volume_ml.round(2).tolist(),
        }


def ventricles(volume: LabelVolume) -> dict[str, float]:
    """Cavity volumes (mL), wall volume (mL) and mass (g) of both ventricles from labels alone."""
    left = lv_wall(volume)
    right = volume.mask(*WALL) & ~left
    ml = volume.voxel_mm3 / 1000.0
    return {
        "lv_ml": round(volume.volume_ml("lv_blood"), 2),
        "rv_ml": round(volume.volume_ml("rv_blood"), 2),
        "lv_mass_g": round(float(left.sum()) * ml * float(MUSCLE_G_PER_ML), 2),
        "rv_mass_g": round(float(right.sum()) * ml * float(MUSCLE_G_PER_ML), 2),
        "scar_ml": round(volume.volume_ml("scar"), 3),
        "border_zone_ml": round(volume.volume_ml("border_zone", "isthmus"), 3),
    }


def cavity_ml(volume: LabelVolume, image: Image, name: str = "lv_blood") -> float:
    """Volume of a cavity in mL, where voxels near its contour count by how much of them is blood in the image.

    name: lv_blood or rv_blood. An image in which blood and wall differ, on any grid. Raises InputError where they do not.
    """
    values = on_labels(image, volume)
    blood, wall = volume.mask(name), volume.mask(*WALL)
    cross = ndimage.generate_binary_structure(3, 1)
    near_wall = ndimage.binary_dilation(wall, cross, EDGE_VOXELS)
    near_blood = ndimage.binary_dilation(blood, cross, EDGE_VOXELS)
    pool, muscle = blood & ~near_wall, wall & ~near_blood & ~volume.mask("scar", "border_zone", "isthmus")
    share = _blood_share(values, pool if pool.any() else blood, muscle if muscle.any() else wall, volume.source)
    counted = np.where(blood, 1.0, 0.0)
    edge = (blood & near_wall) | (wall & near_blood)
    counted[edge] = share[edge]
    return float(np.nansum(counted)) * volume.voxel_mm3 / 1000.0


def _blood_share(values: NDArray[np.floating], pool: Mask, muscle: Mask, where: str) -> NDArray[np.float64]:
    bright, dark = (float(np.nanmedian(values[m])) if m.any() else np.nan for m in (pool, muscle))
    if not np.isfinite(bright - dark) or abs(bright - dark) < 1e-6:
        raise InputError(where or "image", "contrast", "blood and wall cannot be told apart", "give the image the labels were drawn on")
    return np.clip((values - dark) / (bright - dark), 0.0, 1.0).astype(np.float64)


def beat_of_labels(phases: Sequence[tuple[float, LabelVolume]]) -> Beat:
    """The beat from labels drawn at several times: (share of the R-R interval, labels); end-diastole and end-systole are found by volume.

    Raises InputError for fewer than two times or no LV blood.
    """
    if len(phases) < 2:
        raise InputError("cine labels", "phases", f"{len(phases)} given", "give labels of end-diastole and end-systole at least")
    at = np.array([phase for phase, _ in phases])
    volumes = np.array([labels.volume_ml("lv_blood") for _, labels in phases])
    if volumes.max() <= 0:
        raise InputError("cine labels", "lv_blood", "no LV blood at any time", "label the LV cavity")
    return Beat(at, volumes)


def beat_of_cine(stack: CineStack, labels: LabelVolume) -> Beat:
    """The beat from a short-axis cine and labels of one time near end-diastole (the largest cavity).

    Within the labelled cavity, each voxel counts by how much of it is blood at each share of the beat (each slice by its own R-R interval);
    papillary muscles are no blood, motion of the base through the slices is not followed.
    Raises InputError if the stack does not cross the LV.
    """
    place = Image(np.zeros((*stack.slices[0].frames.shape[:2], len(stack.slices)), np.float32), stack.affine)
    drawn = _labels_on(labels, place)
    blood, wall = drawn == LABELS["lv_blood"], np.isin(drawn, [LABELS[name] for name in WALL])
    if not blood.any() or not wall.any():
        raise InputError(stack.source or "cine", "planes", "do not cross the labelled LV", "give labels in the frame of the cine")
    voxel_ml = float(abs(np.linalg.det(stack.affine[:3, :3]))) / 1000.0
    phase = np.arange(PHASES) / PHASES
    volumes = np.zeros(PHASES)
    for k, one in enumerate(stack.slices):
        cavity, rim = blood[:, :, k], wall[:, :, k]
        if not cavity.any() or not rim.any():
            continue
        # the contour cuts voxels: the first ring of wall holds some of the blood
        cavity = ndimage.binary_dilation(cavity) & (cavity | rim)
        frames = np.stack([one.at(float(p)) for p in phase])
        # the brightest of the cavity over the beat is blood, the darkest of its ring at the labels' time is wall
        bright = float(np.percentile(frames[:, cavity], 90.0))
        dark = float(np.median(frames[int(np.argmax(frames[:, cavity].mean(axis=1)))][rim]))
        if bright - dark < 1e-6:
            raise InputError(stack.source or "cine", f"slice {k}", "blood is not brighter than wall", "give a bright-blood cine")
        volumes += np.clip((frames[:, cavity] - dark) / (bright - dark), 0.0, 1.0).sum(axis=1) * voxel_ml
    return Beat(phase, volumes)


def _labels_on(labels: LabelVolume, place: Image) -> NDArray[np.uint8]:
    """Nearest label at every voxel centre of a grid, 0 outside the labels."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in place.data.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    at = np.rint(labels.to_ijk(place.to_mm(index.astype(float)))).astype(int)
    inside = ((at >= 0) & (at < labels.data.shape)).all(axis=1)
    out = np.zeros(len(at), np.uint8)
    out[inside] = labels.data[tuple(at[inside].T)]
    return out.reshape(place.data.shape)
