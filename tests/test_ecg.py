"""Lead fields against potentials that are known exactly, and what is read from the leads."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from analytic_hearts import box, lv_shell, moved, ventricles
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from meshing.anatomy import complete
from meshing.electrodes import ELECTRODES
from meshing.sites import pacing_sites
from solvers.ecg import LeadField, lead_matrix, qrs_duration_ms
from solvers.ecg.field import PLATEAU_MV, REST_MV, SIGMA_I_ACROSS, SIGMA_I_ALONG, SIGMA_TORSO, unipolar_weights
from twin.errors import InputError
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
