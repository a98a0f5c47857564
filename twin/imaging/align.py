"""Slices that moved between breath-holds: how far each lies beside its place in its own plane, and put back.

A smooth curve through the cavity's centres finds slices that jump out of line (robust: a few moved slices do not bend it). What all slices
share - a shift of the whole stack, a tilt - cannot be seen from the stack itself; long-axis labels see it, where they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.params import Param
from twin.volume import LABELS, WALL, LabelVolume

Array = NDArray[np.float64]

LARGE_MM = Param(
    10.0, "mm", 6.0, 15.0, "chosen here: beyond it a slice is more likely mislabelled or of another heart phase than displaced"
)
NOISE_MM = Param(1.2, "mm", 0.5, 2.0, "chosen here: about a pixel; smaller shifts are within the scatter of contours and are left alone")
TUKEY_MM = Param(
    1.5, "mm", 1.0, 4.0, "chosen here: about the scatter of hand-drawn centres; slices over twice this off the curve do not count"
)
FEWEST = 6
"""Slices with blood that a curve needs to tell a moved slice from a bent heart."""
OPEN_RIM = 0.05
"""Slices whose cavity is open to the outside along more of its rim than this are not used."""
MOST_MOVED = 0.5
"""Where more slices than this share seem moved, none can be called the place."""


@dataclass(frozen=True)
class SliceShifts:
    """How far each slice lies off its place.

    axis: index axis across the slices; shift_mm (n, 2): along the two other index axes (in order), 0 where nothing was found;
    found_mm (n, 2): the estimate before small and large ones were dropped; warnings: what could not be decided.
    """

    axis: int
    shift_mm: Array
    found_mm: Array
    warnings: tuple[str, ...] = ()

    @property
    def moved(self) -> NDArray[np.int_]:
        """Indices of slices that are put back."""
        return np.flatnonzero(np.linalg.norm(self.shift_mm, axis=1) > 0)

    def describe(self) -> list[str]:
        """One line per slice put back, then the warnings."""
        length = np.linalg.norm(self.shift_mm, axis=1)
        return [f"slice {k} was {length[k]:.1f} mm beside its neighbours (breath-hold): put back" for k in self.moved] + list(self.warnings)


def slice_axis(volume: LabelVolume) -> int:
    """Index axis across the slices: the one of the largest spacing."""
    return int(np.argmax(volume.spacing_mm))


def slice_shifts(volume: LabelVolume, long_axis: Sequence[LabelVolume] = ()) -> SliceShifts:
    """Estimate the in-plane shift of every slice of a short-axis stack.

    volume: labels with lv_blood. long_axis: labels of long-axis planes (one slice each) in the same frame; slices that they cross
    are fitted to them directly, and then a common shift is seen too. Nothing is changed; fewer than 6 slices with blood and no
    long axis: all zero.
    """
    axis = slice_axis(volume)
    planes = np.moveaxis(volume.data, axis, 0)
    found = np.zeros((len(planes), 2))
    warnings: list[str] = []
    if long_axis:
        found = _from_long_axis(volume, axis, long_axis)
    else:
        spacing = np.delete(volume.spacing_mm, axis)
        centre, weight = _centres(planes, spacing)
        if (weight > 0).sum() >= FEWEST:
            found = _off_curve(centre, weight)
    length = np.linalg.norm(found, axis=1)
    large = np.flatnonzero(length > float(LARGE_MM))
    warnings += [f"slice {k} lies {length[k]:.0f} mm beside its neighbours: too far for a breath-hold, left where it is" for k in large]
    keep = (length > float(NOISE_MM)) & (length <= float(LARGE_MM))
    shown = max(int((planes == LABELS["lv_blood"]).any(axis=(1, 2)).sum()), 1)
    if keep.sum() > MOST_MOVED * shown and not long_axis:
        warnings.append(f"{keep.sum()} of {shown} slices lie off any smooth axis: none was moved (long-axis labels would tell)")
        keep[:] = False
    return SliceShifts(axis, np.where(keep[:, None], found, 0.0), found, tuple(warnings))


def put_back(volume: LabelVolume, shifts: SliceShifts) -> LabelVolume:
    """The labels with every slice moved back by its shift; each label by linear interpolation, the strongest wins."""
    if not len(shifts.moved):
        return volume
    spacing = np.delete(volume.spacing_mm, shifts.axis)
    data = np.moveaxis(volume.data, shifts.axis, 0).copy()
    for k in shifts.moved:
        names = np.unique(data[k])
        step = -shifts.shift_mm[k] / spacing
        share = np.stack([ndimage.shift((data[k] == v).astype(np.float32), step, order=1, mode="nearest") for v in names])
        data[k] = names[np.argmax(share, axis=0)]
    return replace(volume, data=np.ascontiguousarray(np.moveaxis(data, 0, shifts.axis)))


def _centres(planes: NDArray[np.uint8], spacing: Array) -> tuple[Array, Array]:
    """Centre (n, 2) mm of the LV's blood in every slice and its weight (n,), 0 where the slice shows no whole cavity."""
    centre, weight = np.zeros((len(planes), 2)), np.zeros(len(planes))
    for k, plane in enumerate(planes):
        blood = plane == LABELS["lv_blood"]
        rim = ndimage.binary_dilation(blood) & ~blood
        # blood against the background: the slice leaves the heart at the base and shows a part of the cavity
        if blood.any() and (plane[rim] == LABELS["background"]).mean() < OPEN_RIM:
            centre[k] = (np.argwhere(blood) * spacing).mean(axis=0)
            weight[k] = np.sqrt(blood.sum())
    # the last slices of the apex hold few voxels, and their centre jumps
    return centre, np.where(weight > 0.2 * weight.max(initial=0.0), weight, 0.0)


def _off_curve(centre: Array, weight: Array) -> Array:
    """Distance of every centre from the smooth curve through most of them, (n, 2) mm; 0 where the weight is 0.

    Started by the line through two slices with the least median distance, refined by Tukey's biweight as a parabola, for the axis
    of a heart bends.
    """
    seen = np.flatnonzero(weight > 0)
    x = np.linspace(-1.0, 1.0, len(weight))
    basis = np.stack([np.ones_like(x), x, x * x], axis=1)
    best = np.inf
    coefficients: Array = np.zeros((3, 2))
    for i in range(len(seen)):
        for j in range(i + 2, len(seen)):
            # a straight line first: parabolas through three slices follow a moved one too easily
            line = np.linalg.solve(basis[seen[[i, j]], :2], centre[seen[[i, j]]])
            cost = np.median(np.linalg.norm(centre[seen] - basis[seen, :2] @ line, axis=1))
            if cost < best:
                best, coefficients = float(cost), np.vstack([line, np.zeros((1, 2))])
    scale = max(2.0 * best, float(TUKEY_MM))
    for _ in range(30):
        off = np.linalg.norm(centre - basis @ coefficients, axis=1)
        trust = np.where(off < 2.0 * scale, (1.0 - (off / (2.0 * scale)) ** 2) ** 2, 0.0) * weight
        # a weak wish for a straight axis: with few slices left the bend is not free
        ridge = np.diag([0.0, 0.0, 0.02 * trust.sum()])
        normal = basis.T @ (trust[:, None] * basis) + ridge + 1e-9 * np.eye(3)
        coefficients = np.asarray(np.linalg.solve(normal, basis.T @ (trust[:, None] * centre)), np.float64)
        scale = max(0.8 * scale, float(TUKEY_MM))
    return np.where(weight[:, None] > 0, centre - basis @ coefficients, 0.0)


def _from_long_axis(volume: LabelVolume, axis: int, views: Sequence[LabelVolume]) -> Array:
    """Shift (n, 2) mm of every slice that best agrees with the long-axis labels along the lines where they cross."""
    reach, step = float(LARGE_MM) + 4.0, 0.5
    offsets = np.arange(-reach, reach + step, step)
    others = [a for a in range(3) if a != axis]
    spacing = volume.spacing_mm
    found = np.zeros((volume.data.shape[axis], 2))
    for k in range(len(found)):
        plane = np.take(volume.data, k, axis)
        samples = [s for view in views for s in [_crossing(volume, axis, k, view)] if s is not None]
        if not samples or not plane.any():
            continue
        where, wanted = np.concatenate([s[0] for s in samples]), np.concatenate([s[1] for s in samples])
        du, dv = (g.ravel() for g in np.meshgrid(offsets, offsets, indexing="ij"))
        u = np.rint(where[:, 0][None] + (du / spacing[others[0]])[:, None]).astype(int)
        v = np.rint(where[:, 1][None] + (dv / spacing[others[1]])[:, None]).astype(int)
        inside = (u >= 0) & (u < plane.shape[0]) & (v >= 0) & (v < plane.shape[1])
        got = np.where(inside, plane[np.clip(u, 0, plane.shape[0] - 1), np.clip(v, 0, plane.shape[1] - 1)], 0)
        # the wall counts as one tissue: scar differs between sequences, its outline does not
        miss = (_coarse(got) != _coarse(wanted)[None]).mean(axis=1) + 1e-4 * np.hypot(du, dv)
        low = miss <= miss.min() + 0.004
        found[k] = du[low].mean(), dv[low].mean()
    return found


def _coarse(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """0 outside, 1 LV blood, 2 RV blood, 3 wall."""
    table = np.zeros(256, np.uint8)
    table[LABELS["lv_blood"]], table[LABELS["rv_blood"]] = 1, 2
    table[[LABELS[name] for name in WALL]] = 3
    return table[labels]


def _crossing(volume: LabelVolume, axis: int, k: int, view: LabelVolume) -> tuple[Array, NDArray[np.uint8]] | None:
    """In-plane voxel coordinates (m, 2) of slice k where the view shows it, and the view's labels there; None if they do not cross."""
    thin = slice_axis(view) if 1 not in view.data.shape else view.data.shape.index(1)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in view.data.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    ijk = volume.to_ijk(view.to_mm(index.astype(float)))
    fine = float(np.delete(view.spacing_mm, thin).max() / volume.spacing_mm[axis])
    near = np.abs(ijk[:, axis] - k) < max(0.5 * fine, 0.06)
    if near.sum() < 20:
        return None
    return np.delete(ijk[near], axis, axis=1), view.data.reshape(-1)[near]
