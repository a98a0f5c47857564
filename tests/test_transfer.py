"""Coordinates as a bijection, transfer between hearts, bull's-eye."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from analytic_hearts import lv_shell, moved, ventricles
from scipy.spatial.transform import Rotation

from meshing.anatomy import complete
from meshing.bullseye import bullseye_png, segment_means
from meshing.cobiveco import cobiveco
from meshing.locate import interpolate, locate
from meshing.mesh_labels import mesh_heart
from meshing.phantom import Ventricles
from meshing.segments import SEGMENTS
from meshing.transfer import Coordinates, coordinates_at, places_of, transfer_places, transfer_values
from twin.errors import InputError
from twin.mesh import HeartMesh


@pytest.fixture(scope="module")
def heart() -> HeartMesh:
    return complete(ventricles(2.6))


@pytest.fixture(scope="module")
def symmetric(heart: HeartMesh) -> Coordinates:
    return cobiveco(heart)


def inside(mesh: HeartMesh, count: int) -> np.ndarray:
    """Random places in the muscle."""
    rng = np.random.default_rng(5)
    tets = rng.integers(0, len(mesh.tets), count)
    return np.einsum("ka,kai->ki", rng.dirichlet(np.ones(4), count), mesh.points_mm[mesh.tets[tets]])


def test_places_are_found_in_their_tetrahedra(heart: HeartMesh) -> None:
    places = inside(heart, 2000)
    where = locate(heart.points_mm, heart.tets, places)
    np.testing.assert_allclose(interpolate(heart.points_mm, heart.tets, where), places, atol=1e-9)
    far = places[:5] + np.array([0.0, 0.0, 500.0])
    tet, weight = locate(heart.points_mm, heart.tets, far)
    assert (weight >= 0).all()
    np.testing.assert_allclose(weight.sum(axis=1), 1.0)
    assert (heart.points_mm[heart.tets[tet]].mean(axis=1)[:, 2] > 5).all()


@pytest.mark.parametrize("system", ["universal", "cobiveco"])
def test_coordinates_lead_back_to_the_place(heart: HeartMesh, symmetric: Coordinates, system: str) -> None:
    own = heart.coordinates if system == "universal" else symmetric
    places = inside(heart, 4000)
    back = places_of(heart, coordinates_at(heart, places, own), own)
    miss = np.linalg.norm(back - places, axis=1)
    assert np.percentile(miss, 95) < 1.0
    assert np.median(miss) < 1e-6


def test_left_ventricle_alone_leads_back_too() -> None:
    mesh = complete(lv_shell(rings=14, layers=4))
    places = inside(mesh, 1000)
    miss = np.linalg.norm(places_of(mesh, coordinates_at(mesh, places)) - places, axis=1)
    assert np.percentile(miss, 95) < 1.0
    with pytest.raises(InputError, match="both ventricles"):
        cobiveco(mesh)


def test_cobiveco_is_symmetric_and_follows_its_definitions(heart: HeartMesh, symmetric: Coordinates) -> None:
    lv, rv, epi = (heart.surface_nodes(name) for name in ("lv_endo", "rv_endo", "epi"))
    depth, side = symmetric["transmural"], symmetric["transventricular"]
    assert (side[lv] == 0).all()
    assert (side[rv] == 1).all()
    inner = np.setdiff1d(np.concatenate([lv, rv]), epi)
    assert depth[inner].min() > 0.99
    assert depth[np.setdiff1d(epi, np.concatenate([lv, rv]))].max() < 0.01
    # the septum between its two endocardia: each ventricle owns half, depth falls from both sides to nothing in the middle
    p = heart.points_mm
    septum = (p[:, 0] < 0) & (np.abs(p[:, 1]) < 6) & (np.abs(p[:, 2] + 15) < 10) & (np.hypot(p[:, 0], p[:, 1]) < 33)
    across = (np.hypot(p[:, 0], p[:, 1]) - 22.0) / 10.0
    halves = [septum & (side == s) & (np.abs(across - 0.5) < 0.45) for s in (0, 1)]
    for s, half in enumerate(halves):
        assert half.sum() > 30
        expected = np.abs(1.0 - 2.0 * across[half])
        assert np.corrcoef(depth[half], expected)[0, 1] > 0.9, s
        assert np.abs(depth[half] - expected).mean() < 0.12, s
    turned = symmetric["rotational"][septum] % (2 * np.pi) / (2 * np.pi)
    assert turned.min() > 2 / 3
    # in the middle of the septum half of its third is passed, in the middle of the left free wall half of the two thirds
    assert np.median(turned) == pytest.approx(5 / 6, abs=0.03)
    opposite = (p[:, 0] > 20) & (np.abs(p[:, 1]) < 3) & (p[:, 2] > -40)
    assert np.median(symmetric["rotational"][opposite] % (2 * np.pi)) / (2 * np.pi) == pytest.approx(1 / 3, abs=0.03)
    # the RV's free wall takes the same two thirds as the LV's
    free = (side == 1) & (p[:, 0] < -45) & (p[:, 2] > -30)
    assert np.median(symmetric["rotational"][free] % (2 * np.pi)) / (2 * np.pi) == pytest.approx(1 / 3, abs=0.05)


def test_a_moved_heart_receives_every_place_and_value(heart: HeartMesh) -> None:
    turn, shift = Rotation.from_rotvec([0.5, -1.0, 0.3]).as_matrix(), np.array([30.0, -80.0, 12.0])
    there = moved(heart, turn, shift)
    places = inside(heart, 1000)
    miss = np.linalg.norm(transfer_places(heart, there, places) - (places @ turn.T + shift), axis=1)
    assert np.percentile(miss, 95) < 1.0
    values = heart.points_mm[:, 2]
    assert np.percentile(np.abs(transfer_values(heart, there, values) - values), 95) < 1.0


def test_another_size_receives_places_at_the_same_spot(heart: HeartMesh) -> None:
    small = complete(mesh_heart(Ventricles(scale=0.8).volume(1.2), 2.2))
    places = inside(heart, 1000)
    found = transfer_places(heart, small, places)
    # the phantom is scaled about its origin: the right answer is known
    miss = np.linalg.norm(found - 0.8 * places, axis=1)
    assert np.median(miss) < 2.0
    assert np.percentile(miss, 90) < 4.0
    segments = transfer_values(heart, small, (heart.aha_segment == 7).astype(float)) > 0.5
    agree = (segments & (small.aha_segment == 7)).sum() / max((segments | (small.aha_segment == 7)).sum(), 1)
    assert agree > 0.75


def test_bullseye(heart: HeartMesh) -> None:
    means = segment_means(heart, heart.aha_segment.astype(float))
    assert means == {k: pytest.approx(float(k)) for k in SEGMENTS}
    png = bullseye_png(means, "Segments", "1")
    assert png.startswith(b"\x89PNG")
    assert png == bullseye_png(means, "Segments", "1")
    holed = replace(heart, aha_segment=np.where(heart.aha_segment == 17, 0, heart.aha_segment).astype(np.int16))
    assert np.isnan(segment_means(holed, np.ones(holed.n_points))[17])
    assert bullseye_png(segment_means(holed, np.ones(holed.n_points)), "One missing", "mm").startswith(b"\x89PNG")


def test_coordinates_must_be_there(heart: HeartMesh) -> None:
    with pytest.raises(InputError, match=r"anatomy\.complete"):
        coordinates_at(replace(heart, coordinates={}), heart.points_mm[:3])
