"""Ventricular coordinates, AHA segments, pacing sites and landmarks on shells with known answers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analytic_hearts import lv_shell, moved, ventricles
from scipy.spatial.transform import Rotation

from meshing.anatomy import complete
from meshing.coordinates import coordinates, long_axis
from meshing.electrodes import ELECTRODES, electrodes
from meshing.segments import SEGMENTS, aha_segments
from meshing.sites import EPICARDIAL, conducting_nodes, epicardial_sites, landmarks, pacing_sites, site_nodes, sites_named
from planners.pacing.induce import stimulus_sites
from planners.pacing.protocol import load_protocol
from twin.errors import InputError
from twin.mesh import REGIONS, HeartMesh
from twin.model import Twin
from twin.site_name import own_site, place_of
from twin.tissue import Tissue

TURN = Rotation.from_rotvec([0.4, 1.3, -0.8]).as_matrix()
SHIFT = np.array([12.0, -40.0, 210.0])


@pytest.fixture(scope="module")
def heart() -> HeartMesh:
    return complete(ventricles(2.3))


def test_left_ventricle_against_arc_length_and_depth():
    rings, layers, top = 24, 6, 100.0
    mesh = lv_shell(rings=rings, layers=layers, top=top)
    found = coordinates(mesh)
    n = mesh.n_points // (layers + 1)
    layer = np.arange(mesh.n_points) // n
    ring = np.concatenate([[0], np.repeat(np.arange(1, rings + 1), 6 * np.arange(1, rings + 1))])
    polar = np.linspace(0.0, np.radians(top), 4001)
    # meridian of the middle surface, by quadrature
    speed = np.hypot(27.0 * np.cos(polar), 65.0 * np.sin(polar))
    length = np.concatenate([[0.0], np.cumsum(0.5 * (speed[1:] + speed[:-1]) * np.diff(polar))])
    exact = np.interp(np.radians(top) * ring / rings, polar, length / length[-1])
    middle = layer == layers // 2
    miss = found["apicobasal"][middle] - exact
    assert np.abs(miss).mean() < 0.015
    assert np.abs(miss).max() < 0.05
    body = np.tile(ring > 4, layers + 1)
    assert np.abs(found["transmural"] - layer / layers)[body].max() < 0.03
    angle = np.arctan2(mesh.points_mm[:, 1], mesh.points_mm[:, 0])
    off_axis = np.tile(ring > 0, layers + 1)
    # without an RV zero is the patient's right and front, (-1, -1): anterior of it is apex->base x that = (1, -1)
    expected = np.angle(np.exp(1j * (angle + 0.75 * np.pi)))
    np.testing.assert_allclose(np.angle(np.exp(1j * (found["rotational"] - expected)))[off_axis], 0.0, atol=1e-6)
    assert (found["transventricular"] == 0).all()


def test_two_ventricles(heart):
    c = heart.coordinates
    points = heart.points_mm
    assert (c["transventricular"][heart.surface_nodes("lv_endo")] == 0).all()
    for name in ("apicobasal", "transmural"):
        assert c[name].min() == 0.0
        assert c[name].max() == 1.0
    far_right = points[:, 0] < -45
    assert (c["transventricular"][far_right] == 1).all()
    base = points[:, 2] > 10
    walls = {"septum": points[:, 0] < -20, "anterior": points[:, 1] < -20, "inferior": points[:, 1] > 20}
    left = base & (c["transventricular"] == 0)
    assert abs(c["rotational"][left & walls["septum"] & (np.abs(points[:, 1]) < 3)]).max() < 0.25
    assert (c["rotational"][left & walls["anterior"]] > 0.5).all()
    assert (c["rotational"][left & walls["inferior"]] < -0.5).all()


def test_rigid_motion_leaves_coordinates_alone(heart):
    there = complete(moved(heart, TURN, SHIFT))
    for name, tolerance in (("apicobasal", 1e-4), ("transmural", 1e-4)):
        np.testing.assert_allclose(there.coordinates[name], heart.coordinates[name], atol=tolerance)
    difference = np.angle(np.exp(1j * (there.coordinates["rotational"] - heart.coordinates["rotational"])))
    assert np.abs(difference).max() < 1e-3
    assert (there.aha_segment == heart.aha_segment).mean() > 0.999
    for name, place in landmarks(heart).items():
        np.testing.assert_allclose(landmarks(there)[name], TURN @ place + SHIFT, atol=1e-6, err_msg=name)


def test_left_ventricle_alone_turns_only_its_arbitrary_zero():
    mesh = lv_shell(rings=12, layers=4)
    here, there = coordinates(mesh), coordinates(moved(mesh, TURN, SHIFT))
    for name in ("apicobasal", "transmural"):
        np.testing.assert_allclose(there[name], here[name], atol=1e-4)
    off_axis = np.hypot(mesh.points_mm[:, 0], mesh.points_mm[:, 1]) > 1.0
    shift = np.exp(1j * (there["rotational"] - here["rotational"]))[off_axis]
    assert np.abs(shift - shift[0]).max() < 1e-3


def test_segments_lie_where_the_heart_association_puts_them(heart):
    assert set(np.unique(heart.aha_segment)) == set(range(18))
    centre = {s: heart.points_mm[heart.aha_segment == s].mean(axis=0) for s in SEGMENTS}
    right, left, front, back = -1, 1, -1, 1  # signs of x and y in LPS
    sides = {1: (0, front), 2: (right, front), 3: (right, back), 4: (0, back), 5: (left, back), 6: (left, front)}
    for segment, (x, y) in sides.items():
        for number in (segment, segment + 6):
            assert np.sign(np.round(centre[number][0] / 8)) == x, SEGMENTS[number]
            assert np.sign(np.round(centre[number][1] / 8)) == y, SEGMENTS[number]
    for number, (x, y) in {13: (0, front), 14: (right, 0), 15: (0, back), 16: (left, 0)}.items():
        assert (np.sign(np.round(centre[number][:2] / 8)) == (x, y)).all(), SEGMENTS[number]
    heights = [centre[1][2], centre[7][2], centre[13][2], centre[17][2]]
    assert np.all(np.diff(heights) < -8)
    # the whole septum is left ventricle, the right free wall is none
    rv_side = heart.points_mm[heart.aha_segment == 0]
    assert rv_side[:, 0].max() < 0
    septum = np.hypot(heart.points_mm[:, 0], heart.points_mm[:, 1]) < 30
    assert (heart.aha_segment[septum & (heart.points_mm[:, 2] > -20)] > 0).all()


def test_segments_of_given_coordinates():
    level = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.2, 0.2, 0.2, 0.2, 0.05, 0.9])
    angle = np.radians([90.0, 30.0, -30.0, -179.0, 179.0, 0.0, 90.0, 180.0, -90.0, 0.0, 0.0])
    side = np.array([0.0] * 10 + [1.0])
    found = aha_segments({"apicobasal": level, "rotational": angle, "transventricular": side})
    assert found.tolist() == [1, 2, 3, 5, 12, 14, 13, 16, 15, 17, 0]


def test_sites_are_endocardial_and_in_their_segments(heart):
    sites = pacing_sites(heart)
    assert list(sites) == [f"aha{i:02d}" for i in range(1, 18)] + ["rv_apex", "rv_outflow"]
    assert sites.notes == {}
    lv, rv = set(heart.surface_nodes("lv_endo").tolist()), set(heart.surface_nodes("rv_endo").tolist())
    for number in SEGMENTS:
        node = sites[f"aha{number:02d}"]
        assert node in lv
        assert heart.aha_segment[node] == number
    assert {sites["rv_apex"], sites["rv_outflow"]} <= rv
    x, y, z = heart.points_mm[sites["rv_outflow"]]
    assert x < 0
    assert y < -15
    assert z > -15
    assert heart.points_mm[sites["rv_apex"]][2] < -45
    near = site_nodes(heart, sites["rv_apex"], 5.0)
    assert sites["rv_apex"] in near
    assert np.linalg.norm(heart.points_mm[near] - heart.points_mm[sites["rv_apex"]], axis=1).max() <= 5.0


def test_epicardial_sites_lie_outside_their_segments(heart):
    sites, inner = epicardial_sites(heart), pacing_sites(heart)
    assert list(sites) == list(EPICARDIAL)
    assert len(sites) == 12
    epi = set(heart.surface_nodes("epi").tolist())
    for name, node in sites.items():
        assert node in epi
        assert heart.aha_segment[node] == int(name[-2:])
        through = heart.points_mm[node] - heart.points_mm[inner[name.removeprefix("epi_")]]
        assert 3.0 < np.linalg.norm(through) < 25.0


def test_a_site_of_ones_own_is_where_it_was_said_to_be(heart):
    place = heart.points_mm[pacing_sites(heart)["aha10"]] + [0.3, -0.2, 0.1]
    name = own_site("lead", place)
    assert place_of(name) == pytest.approx(place, abs=0.005)
    assert place_of("aha10") is None
    found = sites_named(heart, [name, "epi_aha10", own_site("away", [500.0, 0.0, 0.0])])
    assert np.linalg.norm(heart.points_mm[found[name]] - place) < 1.0
    assert "epi_aha10" in found
    assert "epi_aha11" not in found
    assert found.notes["away@500.00,0.00,0.00"].startswith("dropped: 4")


def test_sites_leave_scar(heart):
    sites = pacing_sites(heart)
    apart = np.linalg.norm(heart.centroids_mm - heart.points_mm[sites["aha11"]], axis=1)
    small = replace(heart, region=np.where(apart < 6.0, REGIONS["scar"], 1).astype(np.int16))
    moved_site = pacing_sites(small)
    assert "moved" in moved_site.notes["aha11"]
    assert conducting_nodes(small)[moved_site["aha11"]]
    assert np.linalg.norm(heart.points_mm[moved_site["aha11"]] - heart.points_mm[sites["aha11"]]) <= 10.0
    large = replace(heart, region=np.where(apart < 16.0, REGIONS["scar"], 1).astype(np.int16))
    dropped = pacing_sites(large)
    assert "aha11" not in dropped
    assert "dropped" in dropped.notes["aha11"]
    assert len(site_nodes(large, sites["aha11"], 5.0)) == 0


def test_the_quick_screen_paces_beside_the_scar_too(heart):
    quick = load_protocol("quick")
    middle = heart.points_mm[epicardial_sites(heart)["epi_aha11"]]
    scarred = heart.with_region(np.linalg.norm(heart.centroids_mm - middle, axis=1) < 8.0, "scar")
    none = np.zeros(0)
    tissue = Tissue((), np.zeros((1, 0)), none, none, {}, none.astype(np.int32), none)
    plain, more = (list(stimulus_sites(Twin(mesh, tissue, np.eye(4)), quick)) for mesh in (heart, scarred))
    assert plain == list(quick.sites)
    assert more[: len(plain)] == plain
    assert len(more) == len(plain) + quick.near_scar
    assert "aha11" in more
    assert list(stimulus_sites(Twin(scarred, tissue, np.eye(4)), quick, ["aha02"])) == ["aha02"]


def test_an_island_of_muscle_in_scar_is_no_site(heart):
    sites = pacing_sites(heart)
    apart = np.linalg.norm(heart.centroids_mm - heart.points_mm[sites["aha11"]], axis=1)
    region = np.where(apart < 18.0, REGIONS["scar"], 1)
    region[apart < 4.0] = REGIONS["isthmus"]
    assert "aha11" in pacing_sites(replace(heart, region=region.astype(np.int16))).notes


def test_landmarks(heart):
    found = landmarks(heart)
    assert {"lv_apex", "mitral_centre", "mid_septum_lv", "lateral_wall_lv", "anterior_base_lv", "inferior_base_lv"} <= set(found)
    np.testing.assert_allclose(found["lv_apex"], [0.0, 0.0, -62.0], atol=1.0)
    np.testing.assert_allclose(found["mitral_centre"], [0.0, 0.0, 12.0], atol=1.0)
    assert found["mid_septum_lv"][0] < -15
    assert found["lateral_wall_lv"][0] > 15
    assert found["anterior_base_lv"][1] < -18
    assert found["inferior_base_lv"][1] > 18


def test_electrodes_surround_the_heart(heart):
    found = electrodes(heart)
    assert tuple(found) == ELECTRODES
    centre = heart.points_mm.mean(axis=0)
    assert found["RA"][0] < centre[0] < found["LA"][0]
    assert found["LL"][2] < centre[2] < found["RA"][2]
    assert found["V1"][1] < centre[1]
    assert found["V6"][0] > found["V4"][0] > found["V2"][0] > found["V1"][0]
    for place in found.values():
        assert np.linalg.norm(heart.points_mm - place, axis=1).min() >= 20.0
    shifted = electrodes(moved(heart, np.eye(3), SHIFT))
    for name, place in found.items():
        np.testing.assert_allclose(shifted[name], place + SHIFT, atol=1e-6)


def test_what_is_missing_is_said(heart):
    with pytest.raises(InputError, match="lv_endo"):
        long_axis(replace(heart, surfaces={**heart.surfaces, "lv_endo": np.zeros((0, 3), np.int32)}))
    with pytest.raises(InputError, match=r"anatomy\.complete"):
        pacing_sites(replace(heart, coordinates={}))


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif("VTWIN_DATA" not in os.environ, reason="VTWIN_DATA is not set: no real heart to try")
def test_mean_shape_of_real_hearts():
    import pyvista

    from meshing.mesh_labels import mesh_heart
    from meshing.voxelise import surface_to_labels

    surface = pyvista.read(Path(os.environ["VTWIN_DATA"]) / "cobiveco" / "geo1_heart.vtp")
    kind = {"class": np.asarray(surface["class"])}
    labels, _ = surface_to_labels(np.asarray(surface.points, float), surface.faces.reshape(-1, 4)[:, 1:].astype(np.int32), 1.5, kind)
    mesh = complete(mesh_heart(labels, 2.5))
    assert set(np.unique(mesh.aha_segment)) == set(range(18))
    sites = pacing_sites(mesh)
    assert len(sites) == 19
    # no patient axes in this file: the RV outflow tract shows where anterior is
    assert 0.3 < mesh.coordinates["rotational"][sites["rv_outflow"]] < 1.6
    rv = mesh.coordinates["transventricular"] > 0.5
    assert 0.25 < rv.mean() < 0.5
    counts = np.bincount(mesh.aha_segment)[1:17]
    assert counts.max() < 4 * counts.min()
    np.testing.assert_allclose(np.linalg.norm(mesh.fibre, axis=1), 1.0, atol=1e-12)
