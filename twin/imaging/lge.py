"""Scar core and border zone from late enhancement by every published threshold rule, side by side.

Rules: n-SD over remote (Kim 1999 and later; n = 2, 3, 5, 6), full width at half maximum (Amado 2004, J Am Coll Cardiol 44:2383), gray zone
(Schmidt 2007, Circulation 115:2006, from memory) and fractions of the maximum (40/60 and its neighbours, doi 10.1016/j.hrthm.2022.05.021).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from twin.errors import InputError
from twin.image import Image
from twin.imaging.aha import lv_wall
from twin.imaging.normalise import Levels, find_levels, on_labels
from twin.kept import kept
from twin.params import Param
from twin.volume import LABELS, LabelVolume

Mask = NDArray[np.bool_]

MUSCLE_G_PER_ML = Param(
    1.05, "g/mL", 1.04, 1.06, "density of myocardium used by cardiac MRI for mass; common convention, no single source read"
)
SPECK_ML = Param(0.05, "mL", 0.0, 0.3, "chosen here: enhanced pieces below it are noise (one voxel of 1.4 x 1.4 x 8 mm holds 0.016 mL)")
ENTROPY_BINS = 64
"""Bins between remote and maximum; the entropy in bits depends on them, so they are part of its name."""

DEFAULT = "40/60"
BAND = ("35/65", "40/60", "45/55")
"""The rule used where the case does not choose, and the two beside it that show how much the choice matters."""
METHODS = ("2sd", "3sd", "5sd", "6sd", "fwhm", "gray_zone", "30/70", "35/65", "40/60", "45/55")


@dataclass(frozen=True)
class Classified:
    """One rule's answer: border and core thresholds in image units (equal: no border zone) and masks (ni, nj, nk) of the LV wall."""

    method: str
    border_from: float
    core_from: float
    core: Mask
    border: Mask

    @property
    def enhanced(self) -> Mask:
        """Core and border zone together."""
        return self.core | self.border


@dataclass(frozen=True)
class Enhancement:
    """Late enhancement of one heart: levels, values on the labels' grid (NaN unseen), the LV wall, and every rule's answer."""

    volume: LabelVolume
    values: NDArray[np.float32]
    wall: Mask
    levels: Levels
    methods: Mapping[str, Classified]

    def mass_g(self, mask: Mask) -> float:
        """Mass of a mask in g."""
        return float(mask.sum()) * self.volume.voxel_mm3 / 1000.0 * float(MUSCLE_G_PER_ML)

    def labels(self, method: str = DEFAULT) -> LabelVolume:
        """The labels with this rule's scar and border zone in place of any drawn before; healthy wall there becomes lv_myocardium."""
        one = self._method(method)
        data = self.volume.data.copy()
        data[self.volume.mask("scar", "border_zone", "isthmus")] = LABELS["lv_myocardium"]
        data[one.border], data[one.core] = LABELS["border_zone"], LABELS["scar"]
        return replace(self.volume, data=data)

    def probabilities(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """P(core) and P(border) of every voxel of the LV wall, (ni, nj, nk) float32 in 0..1, 0 elsewhere.

        The thresholds are spread evenly over the band 35/65 .. 45/55 and the image's noise (SD of remote) is added: what is near a
        threshold is uncertain, by how much noise and choice of rule differ. It is not calibrated against histology.
        """
        core, border = (np.zeros(self.values.shape, np.float32) for _ in range(2))
        inside = self.wall & np.isfinite(self.values)
        x, top, sd = self.values[inside].astype(np.float64), self.levels.maximum, self.levels.remote_sd
        p_core, p_any = np.zeros(len(x)), np.zeros(len(x))
        for share in np.linspace(0.05, 0.15, 11):
            p_core += special.ndtr((x - (0.5 + share) * top) / sd) / 11.0
            p_any += special.ndtr((x - (0.5 - share) * top) / sd) / 11.0
        core[inside], border[inside] = p_core, p_any - p_core
        return core, border

    def entropy_bits(self, mask: Mask) -> float:
        """Shannon entropy of the intensities in a mask over 64 bins from remote to maximum, bits; 0 for an empty mask."""
        x = self.values[mask & np.isfinite(self.values)]
        if not len(x):
            return 0.0
        share = (x - self.levels.remote) / max(self.levels.maximum - self.levels.remote, 1e-9)
        count = np.bincount(np.clip((share * ENTROPY_BINS).astype(int), 0, ENTROPY_BINS - 1), minlength=ENTROPY_BINS)
        p = count[count > 0] / len(x)
        return float(-(p * np.log2(p)).sum())

    def dice(self) -> dict[str, dict[str, float]]:
        """Agreement of every pair of rules on all that enhances, Dice 0..1 (1 where both find nothing)."""
        masks = {name: one.enhanced for name, one in self.methods.items()}
        size = {name: int(m.sum()) for name, m in masks.items()}
        return {
            a: {b: 1.0 if size[a] + size[b] == 0 else 2.0 * int((masks[a] & masks[b]).sum()) / (size[a] + size[b]) for b in masks}
            for a in masks
        }

    def _method(self, name: str) -> Classified:
        if name not in self.methods:
            raise InputError("late enhancement", "method", f"{name!r} is not known", f"choose one of {', '.join(self.methods)}")
        return self.methods[name]


@kept(1)
def classify(image: Image, volume: LabelVolume, remote: Mask | None = None) -> Enhancement:
    """Every rule on one late enhancement image; computed once for the same image and labels.

    image: magnitude or phase-sensitive, any grid that covers the labels; volume: labels with lv_blood and the LV wall; remote: voxels that
    the user calls remote myocardium, None = found. Raises InputError where the image does not show the heart.
    """
    values = on_labels(image, volume)
    levels = find_levels(values, volume, remote)
    wall = lv_wall(volume)
    inside = wall & np.isfinite(values)
    methods = {name: _rule(name, values, inside, levels, volume) for name in METHODS}
    return Enhancement(volume, values, wall, levels, methods)


def thresholds(method: str, levels: Levels) -> tuple[float, float]:
    """Intensities from which a voxel is border zone and core by one rule; equal where the rule knows no border zone."""
    if method.endswith("sd"):
        one = levels.remote + float(method[:-2]) * levels.remote_sd
        return one, one
    half = 0.5 * levels.maximum
    if method == "fwhm":
        return half, half
    if method == "gray_zone":
        # Schmidt: from the peak of remote; of many voxels the peak is noise, so remote + 3 SD stands for it
        return min(levels.remote + 3.0 * levels.remote_sd, half), half
    low, high = (float(part) / 100.0 * levels.maximum for part in method.split("/"))
    return low, high


def _rule(name: str, values: NDArray[np.float32], inside: Mask, levels: Levels, volume: LabelVolume) -> Classified:
    low, high = thresholds(name, levels)
    quiet = levels.remote + 2.0 * levels.remote_sd
    if name[0].isdigit() and "/" in name and levels.maximum <= levels.remote + 5.0 * levels.remote_sd:
        # nothing enhances: fractions of the maximum of noise would call half of the wall scar
        return Classified(name, low, high, np.zeros_like(inside), np.zeros_like(inside))
    low = max(low, min(quiet, high))
    enhanced = inside & (values >= low)
    if name in ("fwhm", "gray_zone"):
        if levels.maximum <= levels.remote + 5.0 * levels.remote_sd:
            return Classified(name, low, high, np.zeros_like(inside), np.zeros_like(inside))
        enhanced = _grown(enhanced, values >= levels.remote + 0.75 * (levels.maximum - levels.remote))
    enhanced = _without_specks(enhanced, volume)
    core = enhanced & (values >= high)
    return Classified(name, low, high, core, enhanced & ~core)


def _grown(mask: Mask, seeds: Mask) -> Mask:
    """The connected parts of a mask that hold a seed."""
    numbered, _ = ndimage.label(mask, np.ones((3, 3, 3), bool))
    keep = np.unique(numbered[mask & seeds])
    return np.asarray(np.isin(numbered, keep[keep > 0]))


def _without_specks(mask: Mask, volume: LabelVolume) -> Mask:
    numbered, count = ndimage.label(mask, np.ones((3, 3, 3), bool))
    size = np.bincount(numbered.ravel(), minlength=count + 1) * volume.voxel_mm3 / 1000.0
    size[0] = 0.0
    return np.asarray(size[numbered] >= float(SPECK_ML))
