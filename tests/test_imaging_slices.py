"""Thick slices, slices that moved, and small faults of a segmentation, on phantoms whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from meshing.label_grid import canonical, crop
from meshing.phantom import Ventricles, voxelise
from meshing.resample import isotropic
from twin.errors import InputError
from twin.imaging.align import SliceShifts, put_back, slice_shifts
from twin.imaging.repair import repair
from twin.volume import LABELS, WALL, LabelVolume

GATES = {
    ("lv_blood",): 0.98,
    ("rv_blood",): 0.965,
    WALL: 0.95,
    ("scar",): 0.94,
    ("border_zone", "isthmus"): 0.87,
}
"""Dice, 8 mm slices to cubes against the truth: design note on meshing (its own phantom's scar was 20 cm^2, as here)."""


@cache
def thick(offset_mm: float = -2.63, scar_mm: float = 25.0) -> LabelVolume:
    return Ventricles(scar_mm=scar_mm).volume((1.4, 1.4, 8.0), scar=True, offset_mm=offset_mm)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize(("offset_mm", "scar_mm"), [(-2.63, 25.0), (-3.63, 25.0), (-2.63, 20.0)])
def test_thick_slices_meet_the_gates(offset_mm: float, scar_mm: float) -> None:
    grid = isotropic(crop(canonical(thick(offset_mm, scar_mm))))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.data.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    truth = replace(grid, data=Ventricles(scar_mm=scar_mm).labels(grid.to_mm(index), scar=True).reshape(grid.data.shape))
    for names, gate in GATES.items():
        assert dice(grid.mask(*names), truth.mask(*names)) >= gate, names


def displaced(count: int, seed: int) -> tuple[LabelVolume, np.ndarray, np.ndarray]:
    """The phantom with `count` slices moved by 3 - 6 mm, the true shifts, and the slices that show blood."""
    volume, rng = thick(), np.random.default_rng(seed)
    seen = np.flatnonzero(volume.mask("lv_blood").any(axis=(0, 1)))
    shift = np.zeros((volume.data.shape[2], 2))
    chosen = rng.choice(seen, min(count, len(seen)), replace=False)
    angle = rng.uniform(0, 2 * np.pi, len(chosen))
    shift[chosen] = rng.uniform(3.0, 6.0, len(chosen))[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return put_back(volume, SliceShifts(2, -shift, -shift)), shift, seen


def long_axis(angle: float) -> LabelVolume:
    across = np.array([np.cos(angle), np.sin(angle), 0.0])
    axes = np.stack([across, [0.0, 0.0, 1.0], np.cross(across, [0.0, 0.0, 1.0])], axis=1)
    view = voxelise(Ventricles().labels, np.array([-80.0, -80.0, 0.0]), np.array([60.0, 20.0, 0.2]), np.array([1.4, 1.4, 6.0]), axes)
    return replace(view, data=view.data[:, :, :1])


def test_a_few_moved_slices_are_put_back() -> None:
    left = []
    for seed in range(5):
        volume, shift, seen = displaced(3, seed)
        found = slice_shifts(volume)
        assert set(found.moved) == set(np.flatnonzero(shift.any(axis=1)))
        left.append(np.linalg.norm(found.found_mm - shift, axis=1)[seen])
    assert np.sqrt(np.mean(np.square(left))) < 1.0
    assert np.max(left) < 3.0


def test_slices_that_all_moved_need_a_long_axis() -> None:
    volume, shift, seen = displaced(99, 0)
    alone = slice_shifts(volume)
    assert not len(alone.moved)
    assert "long-axis labels would tell" in alone.warnings[-1]
    found = slice_shifts(volume, [long_axis(0.3), long_axis(2.0)])
    assert np.linalg.norm(found.found_mm - shift, axis=1)[seen].max() < 1.5


def test_still_slices_stay_and_large_jumps_are_said() -> None:
    assert slice_shifts(thick()).describe() == []
    far = np.zeros((thick().data.shape[2], 2))
    far[5] = 14.0, 0.0
    found = slice_shifts(put_back(thick(), SliceShifts(2, -far, -far)))
    assert not len(found.moved)
    assert "slice 5 lies 14 mm" in found.warnings[0]


@cache
def fine() -> LabelVolume:
    return Ventricles(0.6).volume(1.5)


def test_a_hole_in_the_septum_is_closed() -> None:
    volume = fine()
    data = volume.data.copy()
    # straight through the septum at mid height
    i, j, k = np.rint(volume.to_ijk(np.array([[0.0, 0.0, -10.0]]))[0]).astype(int)
    line = data[:, j, k]
    septum = np.flatnonzero(line[:i] == LABELS["lv_myocardium"])
    line[septum] = LABELS["lv_blood"]
    mended, repairs = repair(replace(volume, data=data))
    assert any("leak between LV and RV closed" in str(one) for one in repairs)
    lv, rv = mended.mask("lv_blood"), mended.mask("rv_blood")
    for axis in range(3):
        for step in (1, -1):
            assert not (lv & np.roll(rv, step, axis)).any()


def test_cavities_without_a_septum_are_refused() -> None:
    volume = fine()
    data = volume.data.copy()
    data[(data == LABELS["lv_myocardium"]) & (np.arange(data.shape[0])[:, None, None] < data.shape[0] // 2)] = LABELS["lv_blood"]
    with pytest.raises(InputError, match="LV and RV blood meet over"):
        repair(replace(volume, data=data))


def test_a_hole_to_the_outside_is_closed_at_its_place() -> None:
    volume = fine()
    data = volume.data.copy()
    i, j, k = np.rint(volume.to_ijk(np.array([[0.0, 0.0, -15.0]]))[0]).astype(int)
    line = data[i:, j, k]
    wall = np.flatnonzero(np.isin(line, [LABELS[n] for n in WALL]))
    line[wall] = LABELS["lv_blood"]
    mended, repairs = repair(replace(volume, data=data))
    (leak,) = [one for one in repairs if "to the outside" in one.what]
    assert leak.place_mm[0] == pytest.approx(20.0, abs=3.0)
    assert leak.voxels >= 1
    assert mended.mask("lv_blood").sum() == (data == LABELS["lv_blood"]).sum()
    assert not any("leak" in one.what for one in repair(volume)[1])
