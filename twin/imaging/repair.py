"""Small faults of a segmentation mended and reported: islands, holes, leaks of the cavities; large leaks are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.errors import InputError
from twin.io.labels import THICK_SLICES
from twin.params import Param
from twin.volume import LABELS, WALL, LabelVolume

Mask = NDArray[np.bool_]

FACES = ndimage.generate_binary_structure(3, 1)
ALL = np.ones((3, 3, 3), bool)

SMALL_LEAK_MM2 = Param(60.0, "mm^2", 20.0, 100.0, "chosen here: below any valve (normal valve areas 300-600 mm^2) and above a few voxels")
REFUSED_LEAK_MM2 = Param(400.0, "mm^2", 200.0, 800.0, "chosen here: cavities that meet over 4 cm^2 have no septum there to be mended")
RIM_MM = Param(6.0, "mm", 3.0, 10.0, "chosen here: openings this near to the base belong to its ragged edge")


@dataclass(frozen=True)
class Repair:
    """One change: what was done, how many voxels, their volume and their middle in patient space (3,) mm."""

    what: str
    voxels: int
    volume_ml: float
    place_mm: tuple[float, float, float]

    def __str__(self) -> str:
        x, y, z = self.place_mm
        return f"{self.what}: {self.voxels} voxels ({self.volume_ml:.2f} mL, about ({x:.0f}, {y:.0f}, {z:.0f}) mm)"


def repair(volume: LabelVolume) -> tuple[LabelVolume, list[Repair]]:
    """One wall, one body of blood per cavity, no enclosed holes, no small leaks; the repairs say what was changed.

    Leaks: LV blood that touches RV blood, and blood that meets the background far from the base through a hole of up to 0.6 cm^2, get a
    layer of wall. Raises InputError where LV and RV blood meet over more than 4 cm^2.
    """
    data = volume.data.copy()
    found: list[Repair] = []

    def report(mask: Mask, what: str) -> None:
        if mask.any():
            middle = volume.to_mm(np.argwhere(mask).mean(axis=0)[None])[0]
            place = (round(float(middle[0]), 1), round(float(middle[1]), 1), round(float(middle[2]), 1))
            found.append(Repair(what, int(mask.sum()), float(mask.sum()) * volume.voxel_mm3 / 1000.0, place))

    wall = volume.mask(*WALL)
    cross = _cross(volume)
    # a slanted wall is not in one piece where slices are thick: there the apex hangs on by the blood above it
    islands = wall & ~_largest(wall if cross is FACES else _heart(data), ALL)
    data[islands] = 0
    report(islands, "islands of wall removed")
    for cavity in ("lv_blood", "rv_blood"):
        blood = data == LABELS[cavity]
        stray = blood & ~_largest(blood, FACES)
        data[stray] = 0  # enclosed ones are filled with wall below
        report(stray, f"islands of {cavity} removed")
    holes = ndimage.binary_fill_holes(_heart(data)) & (data == LABELS["background"])
    _wall_over(data, holes)
    report(holes, "enclosed holes filled with the nearest wall label")
    between = _between_cavities(data, volume, cross)
    _wall_over(data, between)
    report(between, "leak between LV and RV closed with wall")
    for cavity in ("lv_blood", "rv_blood"):
        leak = _leaks_outside(data, cavity, volume, cross)
        _wall_over(data, leak)
        report(leak, f"leak of {cavity} to the outside closed with wall")
    return replace(volume, data=data), found


def _cross(volume: LabelVolume) -> NDArray[np.bool_]:
    """Neighbours that share a face; not across thick slices, where blood lies beside what is outside a slanted wall."""
    spacing = volume.spacing_mm
    thick = np.flatnonzero(spacing > THICK_SLICES * spacing.min())
    if not len(thick):
        return FACES
    cross = FACES.copy()
    for axis in thick:
        np.moveaxis(cross, axis, 0)[[0, 2]] = False
    return cross


def _heart(data: NDArray[np.uint8]) -> Mask:
    return np.asarray((data != LABELS["background"]) & (data != LABELS["ignore"]))


def _wall_over(data: NDArray[np.uint8], mask: Mask) -> None:
    """Give the voxels of `mask` the label of the nearest wall voxel (in place)."""
    if mask.any():
        wall = np.isin(data, [LABELS[name] for name in WALL])
        nearest = ndimage.distance_transform_edt(~wall, return_distances=False, return_indices=True)
        data[mask] = data[tuple(index[mask] for index in nearest)]


def _face_area(one: Mask, other: Mask, volume: LabelVolume, cross: NDArray[np.bool_]) -> float:
    """Area of the voxel faces between two masks, mm^2, along the axes of `cross`."""
    total = 0.0
    for axis in range(3):
        if not np.moveaxis(cross, axis, 0)[0].any():
            continue
        face = volume.voxel_mm3 / float(volume.spacing_mm[axis])
        a, b = (np.moveaxis(m, axis, 0) for m in (one, other))
        total += face * float((a[1:] & b[:-1]).sum() + (b[1:] & a[:-1]).sum())
    return total


def _between_cavities(data: NDArray[np.uint8], volume: LabelVolume, cross: NDArray[np.bool_]) -> Mask:
    """RV voxels that touch LV blood; raises InputError where too many do."""
    lv, rv = (data == LABELS[name] for name in ("lv_blood", "rv_blood"))
    touching = rv & ndimage.binary_dilation(lv, cross)
    if touching.any():
        area = _face_area(lv, rv, volume, cross)
        if area > float(REFUSED_LEAK_MM2):
            where = volume.source or "segmentation"
            problem = f"LV and RV blood meet over {area / 100.0:.1f} cm^2"
            raise InputError(where, "labels", problem, "draw the septum between them")
    return np.asarray(touching)


def _leaks_outside(data: NDArray[np.uint8], cavity: str, volume: LabelVolume, cross: NDArray[np.bool_]) -> Mask:
    """Background voxels that lie on small holes of one cavity's wall, away from its largest opening (the base)."""
    blood, outside = data == LABELS[cavity], ~_heart(data)
    open_blood = blood & ndimage.binary_dilation(outside, cross)
    numbered, count = ndimage.label(open_blood, ALL)
    leak = np.zeros(data.shape, bool)
    if count < 2:
        return leak
    base = numbered == 1 + int(np.argmax(np.bincount(numbered.ravel())[1:]))
    far = ndimage.distance_transform_edt(~base, sampling=volume.spacing_mm)
    for n, box in enumerate(ndimage.find_objects(numbered), start=1):
        hole = numbered[box] == n
        if far[box][hole].min() <= float(RIM_MM):
            continue
        wide = tuple(slice(max(b.start - 1, 0), b.stop + 1) for b in box)
        here = numbered[wide] == n
        beyond = outside[wide] & ndimage.binary_dilation(here, cross)
        if _face_area(here, beyond, volume, cross) <= float(SMALL_LEAK_MM2):
            leak[wide] |= beyond
    return leak


def _largest(mask: Mask, structure: NDArray[np.bool_]) -> Mask:
    """The largest connected part of a mask."""
    body, count = ndimage.label(mask, structure)
    if count < 2:
        return mask
    return np.asarray(body == 1 + int(np.argmax(np.bincount(body.ravel())[1:])))
