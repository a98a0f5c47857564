"""Electrograms and isochrones against signals and corridors whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from twin.errors import InputError
from twin.signals.electrograms import annotate
from twin.signals.ilam import ilam, velocity_m_s

FS = 1000.0
TIME = np.arange(600.0)


def bipolar(*potentials: tuple[float, float, float]) -> np.ndarray:
    """Potentials (time, peak-to-peak mV, width ms): a biphasic wavelet each."""
    out = np.zeros_like(TIME)
    for at, size, width in potentials:
        u = (TIME - at) / width
        out += size / 2 * np.exp(0.5) * u * np.exp(-0.5 * u**2)
    return out


def unipolar(at: float, size: float, width: float = 3.0) -> np.ndarray:
    """A fall about `at` and a slow return."""
    return -size / (1 + np.exp(-(TIME - at) / width)) * np.exp(-np.maximum(TIME - at, 0) / 80.0)


def test_times_and_voltages_are_known() -> None:
    rng = np.random.default_rng(0)
    at = rng.uniform(150, 350, 700)
    uni = np.stack([unipolar(t, 8.0) for t in at]) + rng.normal(scale=0.02, size=(700, 600))
    bip = np.stack([bipolar((t, 2.0, 3.0)) for t in at]) + rng.normal(scale=0.01, size=(700, 600))
    found = annotate(bip.astype(np.float32), uni.astype(np.float32), FS, (50.0, 550.0), 260.0)
    assert np.abs(found.lat_unipolar_ms - at).max() < 2.0
    early = at - found.lat_bipolar_ms
    assert 3.0 < early.min() < early.max() < 16.0, "the onset lies ahead of the steepest part"
    np.testing.assert_allclose(found.bipolar_mv, 2.0, atol=0.08)
    assert np.abs(found.unipolar_mv - 7.2).max() < 0.6
    assert (found.quality > 0.8).mean() > 0.95
    assert not found.fractionated.any()
    assert not found.isolated.any()
    late = found.late_ms > 0
    assert late[at > 262].all()
    assert not late[at < 230].any()
    np.testing.assert_array_equal(found.lat_ms, found.lat_unipolar_ms)


def test_late_isolated_and_fractionated_potentials() -> None:
    rng = np.random.default_rng(1)
    signals = {
        "healthy": bipolar((200, 3.0, 3)),
        "isolated": bipolar((200, 1.0, 4), (330, 0.3, 4)),
        "fractionated": sum(bipolar((180 + 12 * k, 0.3, 4)) for k in range(15)),
        "noise": 0.0 * TIME,
    }
    rows = np.stack(list(signals.values())) + rng.normal(scale=0.008, size=(4, 600))
    found = annotate(rows, None, FS, (50.0, 550.0), 260.0)
    named = {name: k for k, name in enumerate(signals)}
    assert found.isolated.tolist() == [False, True, False, False]
    assert found.deflections[named["isolated"]] == 2
    assert found.fractionated.tolist() == [False, False, True, False]
    assert found.late_ms[named["isolated"]] == pytest.approx(330 + 12 - 260, abs=8)
    assert found.late_ms[named["healthy"]] == 0.0
    assert found.quality[named["noise"]] < 0.1
    assert np.isnan(found.lat_bipolar_ms[named["noise"]])
    assert found.quality[named["healthy"]] > 0.9


def test_wrong_windows_and_shapes() -> None:
    with pytest.raises(InputError, match="window_ms"):
        annotate(np.zeros((3, 600)), None, FS, (50.0, 5500.0))
    with pytest.raises(InputError, match="shape"):
        annotate(np.zeros((3, 600)), np.zeros((3, 500)), FS, (50.0, 400.0))
    with pytest.raises(InputError, match="shape"):
        annotate(None, None, FS, (50.0, 400.0))


def strip(corridor_m_s: float, spacing: float = 1.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """60 x 18 mm, 0.8 m/s but for 10 mm in the middle; waves run along x."""
    x, y = np.meshgrid(np.arange(0, 60.1, spacing), np.arange(0, 18.1, spacing), indexing="ij")
    nx, ny = x.shape
    points = np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)])
    i, j = np.meshgrid(np.arange(nx - 1), np.arange(ny - 1), indexing="ij")
    a = (i * ny + j).ravel()
    triangles = np.concatenate([np.column_stack([a, a + ny, a + 1]), np.column_stack([a + ny, a + ny + 1, a + 1])])
    along = points[:, 0]
    lat = np.minimum(along, 25) / 0.8 + np.clip(along - 25, 0, 10) / corridor_m_s + np.maximum(along - 35, 0) / 0.8
    return points, triangles, lat


@pytest.mark.parametrize("spacing", [1.5, 3.0])
def test_a_slow_corridor_is_a_deceleration_zone(spacing: float) -> None:
    points, triangles, lat = strip(0.1, spacing)
    found = ilam(points, triangles, lat)
    np.testing.assert_allclose(np.diff(found.edges_ms), 162.5 / 8)
    assert set(found.isochrone) <= set(range(1, 9))
    assert found.isochrone[lat == lat.max()].tolist() == [8] * int((lat == lat.max()).sum())
    assert len(found.zones) == 1
    zone = found.zones[0]
    assert abs(zone.centre_mm[0] - 30.0) <= 5.0
    # 10 mm either side of the middle take 112.5 ms, 5.5 isochrones of 20.3 ms
    assert 6 <= zone.crowding <= 7
    assert points[zone.vertices, 0].min() > 14.9
    assert points[zone.vertices, 0].max() < 45.1
    velocity = velocity_m_s(points, triangles, lat)
    middle = points[triangles].mean(axis=1)[:, 0]
    np.testing.assert_allclose(velocity[(middle > 27) & (middle < 33)], 0.1, rtol=1e-6)
    np.testing.assert_allclose(velocity[middle < 23], 0.8, rtol=1e-6)


def test_even_conduction_has_no_zone_and_opposite_walls_are_apart() -> None:
    points, triangles, lat = strip(0.8)
    found = ilam(points, triangles, lat)
    # 20 mm of 60 at one speed: at most a third of eight isochrones, and one that is cut
    assert found.crowding.max() <= 4
    middle = (points[:, 0] > 11) & (points[:, 0] < 49)
    assert np.median(found.crowding[middle]) <= 4
    other = points + np.array([0.0, 0.0, 4.0])
    both = ilam(np.concatenate([points, other]), np.concatenate([triangles, triangles + len(points)]), np.concatenate([lat, lat[::-1]]))
    np.testing.assert_array_equal(both.crowding[: len(points)], found.crowding)
    lat[::7] = np.nan
    assert (ilam(points, triangles, lat).isochrone[::7] == 0).all()
    with pytest.raises(InputError, match="lat_ms"):
        ilam(points, triangles, np.full(len(points), np.nan))
