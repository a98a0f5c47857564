"""Lead fields against potentials that are known exactly, and what is read from the leads."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from analytic_hearts import box, lv_shell, moved, ventricles
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from meshing.anatomy import complete
from meshing.electrodes import ELECTRODES
from meshing.electrodes import frame as electrode_frame
from meshing.sites import pacing_sites
from solvers.ecg import LeadField, beat_features, kernels, lead_matrix, phantom, qrs_duration_ms, read_torso
from solvers.ecg.boundary import Region
from solvers.ecg.closed import inside, nearest, refined
from solvers.ecg.features import frontal_axis_degrees
from solvers.ecg.field import PLATEAU_MV, REST_MV, SIGMA_I_ACROSS, SIGMA_I_ALONG, unipolar_weights
from solvers.ecg.torso import SIGMA_TORSO, cavities
from solvers.eikonal import solve
from solvers.verify import ecg as verified
from twin.errors import InputError
from twin.io.surfaces import Surface, write_surface
from twin.mesh import REGIONS, HeartMesh
from twin.patient import LEADS

MEAN_SIGMA = (float(SIGMA_I_ALONG) + 2 * float(SIGMA_I_ACROSS)) / 3


@pytest.fixture(scope="module")
def cube() -> HeartMesh:
    return box(20.0, 20)


@pytest.fixture(scope="module")
def shell() -> HeartMesh:
    return lv_shell(rings=16, layers=4)


def plane_wave(mesh: HeartMesh) -> np.ndarray:
    return (mesh.points_mm[:, 2] - mesh.points_mm[:, 2].min()) / 0.6


def test_leads_by_definition():
    matrix = lead_matrix()
    row = dict(zip(LEADS, matrix, strict=True))
    potential = dict(zip(ELECTRODES, np.eye(9), strict=True))
    np.testing.assert_array_equal(row["I"], potential["LA"] - potential["RA"])
    np.testing.assert_allclose(row["I"] + row["III"], row["II"], atol=1e-15)
    np.testing.assert_allclose(row["aVR"] + row["aVL"] + row["aVF"], 0.0, atol=1e-15)
    np.testing.assert_allclose(row["aVF"], (row["II"] + row["III"]) / 2, atol=1e-15)
    np.testing.assert_allclose(row["V3"], potential["V3"] - (potential["RA"] + potential["LA"] + potential["LL"]) / 3, atol=1e-15)
    np.testing.assert_allclose(matrix.sum(axis=1), 0.0, atol=1e-15)


@pytest.mark.parametrize("fibre", [None, (0.6, 0.0, 0.8)])
def test_far_away_a_uniform_gradient_is_a_dipole(cube, fibre):
    slope = np.array([1.5, -2.0, 0.7])  # mV/mm
    tensor = MEAN_SIGMA * np.eye(3)
    if fibre is not None:
        cube = replace(cube, fibre=np.tile(fibre, (len(cube.tets), 1)))
        f = np.array(fibre)
        tensor = float(SIGMA_I_ACROSS) * np.eye(3) + (float(SIGMA_I_ALONG) - float(SIGMA_I_ACROSS)) * np.outer(f, f)
    moment = -(tensor @ slope) * cube.tet_volumes_mm3.sum()
    places = np.array([[400.0, 0.0, 0.0], [-200.0, 300.0, 100.0], [0.0, 10.0, -350.0]])
    expected = places @ moment / (4 * np.pi * float(SIGMA_TORSO) * np.linalg.norm(places, axis=1) ** 3)
    found = unipolar_weights(cube, places) @ (cube.points_mm @ slope)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_a_flat_front_has_the_potential_of_its_solid_angle(cube):
    # the front is spread over the layer of elements between z = -2 and 0: its middle is at -1
    vm = np.where(cube.points_mm[:, 2] < -0.01, 100.0, 0.0)
    distance = np.array([45.0, 80.0, -60.0])
    solid_angle = 4 * np.arcsin(400.0 / (400.0 + (distance + 1.0) ** 2))
    expected = np.sign(distance) * 100.0 * MEAN_SIGMA / float(SIGMA_TORSO) * solid_angle / (4 * np.pi)
    found = unipolar_weights(cube, np.stack([np.zeros(3), np.zeros(3), distance], axis=1)) @ vm
    np.testing.assert_allclose(found, expected, rtol=0.01)
    assert found[0] > 0, "a wave that comes nearer deflects upward"


def test_a_closed_front_is_not_seen_from_outside(cube):
    places = np.array([[45.0, 0.0, 0.0], [0.0, -60.0, 30.0], [0.0, 0.0, 200.0]])
    weights = unipolar_weights(cube, places)
    closed = np.where(np.linalg.norm(cube.points_mm, axis=1) < 12.0, 100.0, 0.0)
    unclosed = np.where((cube.points_mm @ np.array([0.6, 0.0, 0.8])) < 0, 100.0, 0.0)
    assert np.abs(weights @ closed).max() < 1e-4 * np.abs(weights @ unclosed).max()
    assert np.abs(weights @ np.full(cube.n_points, -85.0)).max() < 1e-9


def test_turning_heart_and_electrodes_together_changes_nothing(shell):
    lead = LeadField(shell)
    turn, shift = Rotation.from_rotvec([1.0, 0.3, -0.5]).as_matrix(), np.array([5.0, -70.0, 33.0])
    there = LeadField(moved(shell, turn, shift), {name: turn @ p + shift for name, p in lead.electrodes_mm.items()})
    np.testing.assert_allclose(there.weights, lead.weights, atol=1e-12)
    turned_alone = LeadField(moved(shell, turn, np.zeros(3)), lead.electrodes_mm)
    assert np.abs(turned_alone.weights - lead.weights).max() > 0.1 * np.abs(lead.weights).max()


def test_qrs_is_the_electrocardiogram_of_its_template(shell):
    lead = LeadField(shell)
    arrival = plane_wave(shell)
    arrival[:50] = np.inf
    times = np.arange(0.0, 220.0, 1.0)
    step = 1.0 / (1.0 + np.exp(-np.clip(times[:, None] - arrival[None, :], -500, 500)))
    vm = float(REST_MV) + (float(PLATEAU_MV) - float(REST_MV)) * step
    ecg = lead.qrs(arrival, times)
    assert ecg.shape == (12, len(times))
    np.testing.assert_allclose(lead.ecg(vm), ecg, atol=1e-4 * np.abs(ecg).max())
    np.testing.assert_allclose(ecg[0] + ecg[2], ecg[1], atol=1e-12)
    np.testing.assert_allclose(lead.ecg(vm.astype(np.float32)), lead.ecg(vm), atol=1e-3)
    assert np.abs(ecg).max() > 0.05, "a plane wave through a whole ventricle makes millivolts"
    np.testing.assert_array_equal(lead.qrs(arrival, times), ecg)


def test_paced_beats_look_as_in_the_clinic():
    # a heart as it lies in the chest: apex to the left, front and foot; the RV to the right and front
    upward = np.array([-0.6, 0.6, 0.53]) / np.linalg.norm([-0.6, 0.6, 0.53])
    from_septum = np.array([0.7, 0.6, 0.0])
    from_septum = (from_septum - (from_septum @ upward) * upward) / np.linalg.norm(np.cross(from_septum, upward))
    frame = np.stack([from_septum, np.cross(upward, from_septum), upward], axis=1)
    mesh = complete(moved(ventricles(3.0), frame, np.zeros(3)))
    lead, sites, times = LeadField(mesh), pacing_sites(mesh), np.arange(0.0, 400.0, 2.0)

    def net(site: str) -> dict[str, float]:
        arrival = np.linalg.norm(mesh.points_mm - mesh.points_mm[sites[site]], axis=1) / 0.6
        return dict(zip(LEADS, lead.qrs(arrival, times).sum(axis=1).tolist(), strict=True))

    lateral, right, inferior, anterior = (net(site) for site in ("aha12", "rv_apex", "aha10", "aha07"))
    assert lateral["V1"] > 0, "left ventricular beats look like right bundle branch block"
    assert max(lateral[name] for name in ("I", "aVL", "V6")) < 0, "a lateral exit runs away from the left arm"
    assert right["V1"] < 0, "right ventricular beats look like left bundle branch block"
    assert max(right[name] for name in ("II", "III", "aVF")) < 0, "an apical exit has a superior axis"
    assert max(inferior[name] for name in ("II", "III", "aVF")) < 0
    assert min(anterior[name] for name in ("III", "aVF")) > 0


def test_t_wave_area(shell):
    lead = LeadField(shell)
    arrival = plane_wave(shell)
    times = np.arange(0.0, 700.0, 1.0)
    ecg = lead.qrst(arrival, np.full(shell.n_points, 280.0), times)
    # uniform action potentials: the leads' integral depends on where, not when, current flows, and vanishes (Wilson's gradient)
    assert np.abs(ecg.sum(axis=1)).max() < 1e-3 * np.abs(ecg).sum(axis=1).max()
    late = lead.qrst(arrival, 330.0 - 0.6 * arrival, times)
    t_wave = late[:, times > 230]
    reversed_t = ecg[:, times > 230]
    assert np.abs(late[:, -1]).max() < 1e-6 + 1e-3 * np.abs(late).max()
    assert np.abs(reversed_t).max() > np.abs(t_wave).max(), "shorter action potentials where the wave comes late flatten the T wave"


def test_scar_carries_no_current(shell):
    dead = replace(shell, region=np.full(len(shell.tets), REGIONS["scar"], np.int16))
    assert np.abs(LeadField(dead, LeadField(shell).electrodes_mm).weights).max() == 0.0


def test_fast_enough_for_calibration():
    mesh = lv_shell(rings=44, layers=6)
    assert mesh.n_points > 40_000
    lead = LeadField(mesh)
    arrival, times = plane_wave(mesh), np.arange(0.0, 400.0, 1.0)
    lead.qrs(arrival, times)  # compiled by now
    start = time.perf_counter()
    lead.qrs(arrival, times)
    assert time.perf_counter() - start < 0.5


def test_duration_of_a_known_complex():
    times = np.arange(0.0, 600.0, 1.0)
    bump = np.where((times >= 100) & (times <= 190), np.sin(np.pi * (times - 100) / 90) ** 2, 0.0)
    t_wave = 0.3 * np.exp(-(((times - 400) / 40) ** 2))
    ecg = np.outer(np.linspace(-1, 1, 12), bump + t_wave)
    assert qrs_duration_ms(ecg, times) == pytest.approx(90.0, abs=5.0)
    noisy = ecg + np.random.default_rng(1).normal(0.0, 0.003, ecg.shape)
    assert qrs_duration_ms(noisy, times) == pytest.approx(90.0, abs=15.0)
    assert np.isnan(qrs_duration_ms(np.zeros((12, 600)), times))


@settings(max_examples=20, deadline=None)
@given(start=st.floats(50.0, 200.0), length=st.floats(60.0, 200.0), gain=st.floats(0.01, 100.0))
def test_duration_ignores_gain_and_shift(start, length, gain):
    times = np.arange(0.0, 500.0, 0.5)
    phase = (times - start) / length
    ecg = gain * np.outer(np.ones(12), np.where((phase > 0) & (phase < 1), np.sin(2 * np.pi * phase) * np.sin(np.pi * phase), 0.0))
    assert qrs_duration_ms(ecg, times) == pytest.approx(length, rel=0.08)


def test_wrong_calls_are_named(shell):
    lead = LeadField(shell)
    with pytest.raises(InputError, match="arrival_ms"):
        lead.qrs(np.zeros(3), np.arange(5.0))
    with pytest.raises(InputError, match="V6"):
        LeadField(shell, {k: v for k, v in lead.electrodes_mm.items() if k != "V6"})
    with pytest.raises(InputError, match="muscle"):
        LeadField(shell, {**lead.electrodes_mm, "V2": shell.centroids_mm[0]})


@pytest.fixture(scope="module")
def heart() -> HeartMesh:
    """As it lies in the chest: apex to the left, front and foot; the RV to the right and front."""
    upward = np.array([-0.6, 0.6, 0.53]) / np.linalg.norm([-0.6, 0.6, 0.53])
    from_septum = np.array([0.7, 0.6, 0.0])
    from_septum = (from_septum - (from_septum @ upward) * upward) / np.linalg.norm(np.cross(from_septum, upward))
    return moved(ventricles(5.0), np.stack([from_septum, np.cross(upward, from_septum), upward], axis=1), np.zeros(3))


@pytest.fixture(scope="module")
def sinus(heart) -> np.ndarray:
    """Arrival of a beat that starts on the septal endocardium and is quick along the endocardia."""
    endo = np.union1d(heart.surface_nodes("lv_endo"), heart.surface_nodes("rv_endo"))
    lv = heart.points_mm[heart.surface_nodes("lv_endo")]
    septal = lv[np.argmin(lv @ np.array([0.7, 0.6, 0.3]))]
    return solve(heart.points_mm, heart.tets, heart.fibre, 0.6, 0.4, endo, np.linalg.norm(heart.points_mm[endo] - septal, axis=1) / 2.0)


@pytest.fixture(scope="module")
def body(heart) -> LeadField:
    return LeadField.in_torso(heart)


def test_boundary_elements_find_the_sphere_and_converge():
    cases = (((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)), ((10.0, 0.0, 60.0), (1.0, 0.5, 1.0)))
    for source, moment in cases:
        coarse, fine = (verified.sphere_error(levels, source, moment) for levels in (1, 2))
        assert fine < 0.05
        assert coarse / fine > 2.8, "second order: a quarter of the error at half the edge"
    assert verified.core_error(2, 0.05) < 0.06
    assert verified.reciprocity_error() < 1e-6


def test_solid_angles_tell_inside_from_outside():
    surface = verified.ball(1, 10.0)
    places = np.array([[0.0, 0, 0], [0, 0, 9.0], [0, 0, 10.5], [30.0, 0, 0]])
    angle = kernels.solid_angles(places, surface.points_mm, surface.triangles)
    np.testing.assert_allclose(angle, [4 * np.pi, 4 * np.pi, 0, 0], atol=1e-9)
    assert inside(surface, places).tolist() == [True, True, False, False]


@given(st.lists(st.floats(-20.0, 20.0), min_size=3, max_size=3))
def test_the_nearest_place_on_a_surface(place):
    surface = verified.ball(1, 10.0)
    found, nodes, weight = nearest(surface, np.array(place))
    assert weight.min() >= 0
    assert weight.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weight @ surface.points_mm[nodes], found, atol=1e-9)
    distance = np.linalg.norm(found - place)
    samples = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    cloud = np.einsum("sk,mkj->smj", samples, surface.points_mm[surface.triangles])
    assert distance <= np.linalg.norm(cloud - place, axis=2).min() + 1e-9


def test_a_torso_makes_limb_leads_real(heart, sinus, body):
    times = np.arange(-20.0, 200.0, 1.0)
    infinite = LeadField(heart)
    np.testing.assert_allclose(body.weights.sum(axis=0), 0.0, atol=1e-12)
    near, real = infinite.qrs(sinus, times), body.qrs(sinus, times)
    np.testing.assert_allclose(real[0] + real[2], real[1], atol=1e-9)
    swing = [dict(zip(LEADS, np.ptp(ecg, axis=1), strict=True)) for ecg in (near, real)]
    limb, chest = (np.mean([swing[1][n] / swing[0][n] for n in names]) for names in (("I", "II", "III"), ("V1", "V2", "V5")))
    assert limb > 1.5 * chest > 1.5, "the skin reflects; far electrodes gain most"
    assert 0.3 < max(swing[1][n] for n in ("I", "II", "III")) < 3.0, "normal limb leads: 0.5 to 2 mV"
    # the same loop, larger: the shapes stay
    for lead in (0, 1, 6, 7, 11):
        assert np.corrcoef(near[lead], real[lead])[0, 1] > 0.8
    lungs = LeadField.in_torso(heart, phantom(heart, lungs=True)).qrs(sinus, times)
    assert 0.9 < np.corrcoef(lungs.ravel(), real.ravel())[0, 1] < 0.99999


def test_the_phantom_holds_the_heart_and_has_the_size_of_a_man(heart):
    torso = phantom(heart, lungs=True)
    assert inside(torso.skin, heart.points_mm).all()
    away = cKDTree(torso.skin.points_mm).query(heart.points_mm)[0].min()
    assert away > 15.0
    scale = 1.0 / electrode_frame(heart)[1]
    np.testing.assert_allclose(np.ptp(torso.skin.points_mm, axis=0) * scale, [320.0, 240.0, 600.0], rtol=0.06)
    for lung in torso.inclusions.values():
        assert 0.8 < lung.surface.volume_ml / 1000.0 * scale**3 < 3.0
        assert not inside(lung.surface, heart.points_mm).any()
    # finer where the heart is near
    corner = torso.skin.points_mm[torso.skin.triangles]
    size = np.linalg.norm(corner[:, 1] - corner[:, 0], axis=1)
    distance = cKDTree(heart.points_mm).query(corner.mean(axis=1))[0]
    assert size[distance < distance.min() + 10.0].mean() < 0.5 * size[distance > 150].mean()


def test_blood_fills_the_cavities_and_strengthens_the_leads(heart, sinus, body):
    blood = cavities(heart)
    assert sorted(blood) == ["lv_blood", "rv_blood"]
    for region in blood.values():
        assert 30.0 < region.surface.volume_ml < 250.0
        assert inside(region.surface, heart.centroids_mm).mean() < 0.03
    times = np.arange(-20.0, 200.0, 2.0)
    with_blood = LeadField.in_torso(heart, phantom(heart, blood=True)).qrs(sinus, times)
    without = body.qrs(sinus, times)
    assert np.corrcoef(with_blood.ravel(), without.ravel())[0, 1] > 0.9
    # Brody 1956: blood enhances the radial dipoles of a wave that runs from endo- to epicardium
    assert 1.02 < np.linalg.norm(with_blood) / np.linalg.norm(without) < 1.6


def test_a_source_may_touch_an_inclusion():
    assert verified.core_error(2, 0.65, 43.0) < 0.1


@pytest.mark.parametrize("suffix", [".stl", ".ply", ".vtp"])
def test_a_torso_from_files(heart, tmp_path, suffix):
    made = phantom(heart, lungs=True)
    write_surface(tmp_path / f"skin{suffix}", made.skin)
    write_surface(tmp_path / f"lung{suffix}", made.inclusions["left_lung"].surface)
    read = read_torso(tmp_path / f"skin{suffix}", {"lung": (tmp_path / f"lung{suffix}", 0.05)})
    assert read.source == f"skin{suffix}"
    for mine, theirs in ((read.skin, made.skin), (read.inclusions["lung"].surface, made.inclusions["left_lung"].surface)):
        assert mine.volume_ml == pytest.approx(theirs.volume_ml, rel=1e-5)
        assert len(mine.triangles) == len(theirs.triangles)
    assert np.isfinite(LeadField.in_torso(heart, read).weights).all()


def test_a_fine_torso_is_coarsened(heart, body, tmp_path):
    made = body.torso
    fine = refined(made.skin, np.zeros(len(made.skin.points_mm)))
    write_surface(tmp_path / "skin.stl", fine)
    read = read_torso(tmp_path / "skin.stl", max_nodes=1000)
    assert len(read.skin.points_mm) <= 1050 < len(fine.points_mm)
    found = LeadField.in_torso(heart, read)
    assert np.corrcoef(found.weights.ravel(), body.weights.ravel())[0, 1] > 0.995


def test_electrodes_go_to_the_skin(heart, body):
    for place in body.electrodes_mm.values():
        assert np.linalg.norm(nearest(body.torso.skin, place)[0] - place) < 1e-9
    given = {**body.electrodes_mm, "RA": body.electrodes_mm["RA"] + np.array([-400.0, 0.0, -300.0])}
    LeadField.in_torso(heart, body.torso, given)  # a wrist is fine: it acts at the shoulder
    with pytest.raises(InputError, match="V3"):
        LeadField.in_torso(heart, body.torso, {**given, "V3": given["V3"] + 200.0})


def test_bad_torsos_are_named(heart, body):
    torso = body.torso
    open_skin = Surface(torso.skin.points_mm, torso.skin.triangles[1:])
    with pytest.raises(InputError, match="closed"):
        LeadField.in_torso(heart, replace(torso, skin=open_skin))
    with pytest.raises(InputError, match="enclose the heart"):
        LeadField.in_torso(heart, replace(torso, skin=Surface(torso.skin.points_mm + 900.0, torso.skin.triangles)))
    with pytest.raises(InputError, match="conductivity"):
        LeadField.in_torso(heart, replace(torso, sigma_s_m=0.0))
    big = verified.ball(1, 30.0)
    here = Surface(big.points_mm + heart.points_mm.mean(axis=0), big.triangles)
    with pytest.raises(InputError, match="blood"):
        LeadField.in_torso(heart, replace(torso, inclusions={"blood": Region(here, 0.65)}))
    out = Surface(big.points_mm + torso.skin.points_mm[0], big.triangles)
    with pytest.raises(InputError, match="leaves the body"):
        LeadField.in_torso(heart, replace(torso, inclusions={"stone": Region(out, 0.65)}))
    # inward normals are turned, not refused
    turned = replace(torso, skin=Surface(torso.skin.points_mm, torso.skin.triangles[:, ::-1]))
    np.testing.assert_allclose(LeadField.in_torso(heart, turned).weights, body.weights, atol=1e-12)


def beat(axis_degrees: float = 60.0, t_peak: float = 400.0, t_sd: float = 30.0, t_size: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Twelve leads of a dipole that turns nowhere: QRS 100 to 190 ms, Gaussian T."""
    times = np.arange(0.0, 700.0, 1.0)
    bump = np.where((times >= 100) & (times <= 190), np.sin(np.pi * (times - 100) / 90) ** 2, 0.0)
    course = bump + t_size * np.exp(-0.5 * ((times - t_peak) / t_sd) ** 2)
    angle = np.radians(axis_degrees)
    seen = {"I": 0.0, "II": 60.0, "III": 120.0, "aVR": -150.0, "aVL": -30.0, "aVF": 90.0}
    gain = [np.cos(angle - np.radians(seen[n])) * (1.0 if n in ("I", "II", "III") else np.sqrt(3) / 2) if n in seen else 0.5 for n in LEADS]
    return np.outer(gain, course), times


@pytest.mark.parametrize(("degrees", "name"), [(60.0, "normal"), (-20.0, "normal"), (-60.0, "left"), (120.0, "right"), (-140.0, "extreme")])
def test_the_frontal_axis_of_a_known_dipole(degrees, name):
    found = beat_features(*beat(degrees))
    assert found.axis_degrees == pytest.approx(degrees, abs=1e-6)
    assert found.axis == name
    assert np.isnan(frontal_axis_degrees(dict.fromkeys(LEADS, 0.0)))


def test_intervals_of_a_known_beat():
    found = beat_features(*beat())
    assert found.qrs_ms == pytest.approx(90.0, abs=5.0)
    assert found.t_peak_ms == pytest.approx(400.0, abs=1.0)
    # the tangent at a Gaussian's steepest place meets the baseline two deviations from its middle
    assert found.t_end_ms == pytest.approx(460.0, abs=4.0)
    assert found.qt_ms == pytest.approx(360.0, abs=8.0)
    assert found.t_peak_to_end_ms == pytest.approx(60.0, abs=4.0)
    assert found.r_mv["II"] == pytest.approx(1.0, abs=0.01)
    assert found.s_mv["aVR"] == pytest.approx(np.cos(np.radians(210.0)) * np.sqrt(3) / 2, abs=0.01)
    assert found.t_mv["II"] == pytest.approx(0.3, abs=0.01)


def test_a_beat_without_t_or_without_anything():
    found = beat_features(*beat(t_size=0.0))
    assert found.qrs_ms == pytest.approx(90.0, abs=5.0)
    assert np.isnan(found.t_end_ms)
    assert np.isnan(found.qt_ms)
    flat = beat_features(np.zeros((12, 100)), np.arange(100.0))
    assert np.isnan(flat.qrs_ms)
    assert flat.axis == ""
    with pytest.raises(InputError, match="leads"):
        beat_features(np.zeros((3, 100)), np.arange(100.0))


def test_a_simulated_beat_has_normal_intervals(sinus, body):
    times = np.arange(-30.0, 600.0, 1.0)
    # the endocardium, excited first, recovers last: an upright T wave
    ecg = body.qrst(sinus, 300.0 - 1.5 * sinus, times)
    found = beat_features(ecg, times)
    assert 40.0 < found.qrs_ms < 110.0
    assert 300.0 < found.qt_ms < 420.0
    assert found.axis in ("normal", "left")
    assert found.r_mv["V6"] > 0.2
    assert found.s_mv["V1"] < -0.2
