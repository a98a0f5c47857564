"""Calibration: linear-Gaussian posteriors known in closed form, exact arrival times, and a small heart fitted and updated."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from meshing.anatomy import complete
from planners.calibration import Calibration, NewEvidence, calibrate, update
from planners.calibration.finer import FinerForward, edges_across, nodal_dyads, principal, refined
from planners.calibration.members import ensemble_posterior
from planners.calibration.pose import Dipoles
from planners.calibration.sensitivity import cycle_row, ecg_rows
from solvers.ecg import LeadField
from solvers.eikonal.forward import EikonalForward
from tests.analytic_hearts import box, ventricles
from twin.calibrate.doubts import electrode_swaps, kirchhoff, lead_order
from twin.calibrate.ecg import EcgFit
from twin.calibrate.ensemble import invert
from twin.calibrate.gaussian import Gaussian
from twin.calibrate.thresholds import voltage_thresholds
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.patient import LEADS, Ecg, ElectroanatomicalMap, Evidence, Patient
from twin.tissue import Velocity
from twin.volume import LabelVolume

TRUE = Velocity(0.62, 0.26)


def test_a_gaussian_given_linear_evidence_is_the_closed_form() -> None:
    belief = Gaussian(("a", "b"), np.array([1.0, -1.0]), np.diag([4.0, 1.0]))
    after = belief.given(np.array([[1.0, 0.0]]), np.array([3.0]), np.array([0.25]))
    assert after.mean == pytest.approx([1.0 + 3.0 * 4.0 / 8.0, -1.0])
    assert after.sd**2 == pytest.approx([2.0, 1.0])
    draws = after.draw(4000, np.random.default_rng(0))
    assert draws[0] == pytest.approx(after.mean)
    assert draws.std(axis=0) == pytest.approx(after.sd, rel=0.05)


def _linear(members: int = 400) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((members, 2)), rng.standard_normal((12, 2)), rng.standard_normal(12)


def test_the_ensemble_finds_a_linear_gaussian_posterior() -> None:
    prior, a, data = _linear()
    found = invert(lambda x: a @ x, prior, data, np.full(12, 0.7), seed=1)
    precision = np.eye(2) + a.T @ a / 0.49
    covariance = np.linalg.inv(precision)
    assert sum(found.steps) == pytest.approx(1.0)
    assert found.members.mean(axis=0) == pytest.approx(covariance @ a.T @ data / 0.49, abs=0.08)
    assert np.cov(found.members.T) == pytest.approx(covariance, abs=0.03)
    assert found.misfit[-1] < found.misfit[0]


def test_the_ensemble_gives_the_same_bytes_at_any_threads_and_after_a_cut(tmp_path: Path) -> None:
    prior, a, data = _linear(60)
    whole = invert(lambda x: a @ x, prior, data, np.full(12, 0.1), seed=1, threads=1)
    many = invert(lambda x: a @ x, prior, data, np.full(12, 0.1), seed=1, threads=3)
    assert many.members.tobytes() == whole.members.tobytes()
    calls = [0]

    def dies(x: NDArray[np.float64]) -> NDArray[np.float64]:
        calls[0] += 1
        if calls[0] > 150:
            raise KeyboardInterrupt
        return np.asarray(a @ x)

    with pytest.raises(KeyboardInterrupt):
        invert(dies, prior, data, np.full(12, 0.1), seed=1, folder=tmp_path)
    resumed = invert(lambda x: a @ x, prior, data, np.full(12, 0.1), seed=1, folder=tmp_path)
    assert resumed.members.tobytes() == whole.members.tobytes()


def test_a_finer_mesh_has_the_same_volume_and_eight_times_the_elements() -> None:
    mesh = box(5.0, 4)
    points, tets, owner, _ = refined(mesh.points_mm, mesh.tets)
    p = points[tets]
    volume = np.einsum("ij,ij->i", p[:, 1] - p[:, 0], np.cross(p[:, 2] - p[:, 0], p[:, 3] - p[:, 0])) / 6.0
    assert (volume > 0).all()
    assert np.bincount(owner, volume) == pytest.approx(mesh.tet_volumes_mm3)
    assert np.unique(tets).size == len(points)


def test_extrapolated_arrival_is_exact_where_the_coarse_one_is_late() -> None:
    from dataclasses import replace

    fibre = np.array([0.6, 0.64, 0.48])
    mesh = box(15.0, 14)
    mesh = replace(mesh, fibre=np.repeat(fibre[None], len(mesh.tets), 0))
    source = int(np.argmin(np.linalg.norm(mesh.points_mm, axis=1)))
    offset = mesh.points_mm - mesh.points_mm[source]
    along = offset @ fibre
    across2 = np.maximum((offset**2).sum(axis=1) - along**2, 0.0)
    exact = np.sqrt((along / TRUE.longitudinal_m_s) ** 2 + across2 / TRUE.transverse_m_s**2)
    at = ({"healthy": TRUE}, np.array([source], np.int32), np.zeros(1))
    near = (np.linalg.norm(offset, axis=1) > 4.0) & (np.linalg.norm(offset, axis=1) < 12.0)
    late = (EikonalForward(mesh).arrival_ms(*at) / np.maximum(exact, 1e-9) - 1.0)[near].mean()
    left = (FinerForward(mesh).arrival_ms(*at) / np.maximum(exact, 1e-9) - 1.0)[near].mean()
    assert late > 0.04
    assert abs(left) < 0.25 * late


def test_nodal_fibres_reproduce_those_of_the_elements() -> None:
    from dataclasses import replace

    mesh = box(6.0, 6)
    angle = 0.2 * mesh.centroids_mm[:, 2]
    mesh = replace(mesh, fibre=np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1))
    back = principal(nodal_dyads(mesh)[mesh.tets].mean(axis=1))
    assert np.degrees(np.arccos(np.clip(np.abs((back * mesh.fibre).sum(axis=1)), 0, 1))).max() < 4.0


def test_voltage_thresholds_move_with_the_map_and_say_when_they_cannot() -> None:
    rng = np.random.default_rng(1)
    parts = [np.exp(np.log(m) + 0.3 * rng.standard_normal(n)) for m, n in ((0.18, 300), (0.75, 300), (4.0, 900))]
    found = voltage_thresholds(np.concatenate(parts))
    scar, healthy = found["threshold/scar_bipolar_mv"], found["threshold/healthy_bipolar_mv"]
    assert scar.identified
    assert 0.3 < scar.value < 0.45
    assert 1.4 < healthy.value < 2.1
    assert not voltage_thresholds(parts[2])["threshold/scar_bipolar_mv"].identified
    few = voltage_thresholds(parts[2][:20])["threshold/scar_bipolar_mv"]
    assert (few.value, few.identified) == (0.5, False)


def _einthoven(seed: int) -> NDArray[np.float64]:
    from solvers.ecg import lead_matrix

    t = np.linspace(-3, 3, 120)
    rng = np.random.default_rng(seed)
    return np.asarray(lead_matrix() @ np.stack([a * np.exp(-((t - b) ** 2)) for a, b in rng.normal(size=(9, 2))]))


@pytest.mark.parametrize("swap", ["right arm and left arm exchanged", "V1 to V6 in reverse order", "all leads upside down"])
def test_exchanged_cables_are_named(swap: str) -> None:
    true = _einthoven(4)
    matrix = electrode_swaps()[swap]
    assert matrix @ (matrix @ true) == pytest.approx(true)
    measured = matrix @ true
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (true, measured))
    correlation = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    wrong = EcgFit(np.arange(120.0), true, measured, correlation, 0.0, 1.0)
    assert lead_order(wrong).startswith(swap)
    assert lead_order(EcgFit(np.arange(120.0), true, true, np.ones(12), 0.0, 1.0)) == ""
    leads = dict(zip(LEADS, true, strict=True))
    assert kirchhoff(Ecg(leads, 1000.0)) == ""
    assert kirchhoff(Ecg({**leads, "II": leads["V2"]}, 1000.0)) != ""


@pytest.fixture(scope="module")
def heart() -> HeartMesh:
    """Both ventricles of the phantom at 4.5 mm."""
    return complete(ventricles(4.5))


@pytest.fixture(scope="module")
def measured(heart: HeartMesh) -> tuple[Patient, NDArray[np.float64], NDArray[np.int32]]:
    """A patient whose map was made in the limit of fine meshes: noise 3 ms, 3 % outliers; truth: arrival and sites."""
    rng = np.random.default_rng(8)
    lv = heart.surface_nodes("lv_endo")
    level, turn = heart.coordinates["apicobasal"][lv], heart.coordinates["rotational"][lv]
    sites = np.array(
        [lv[np.argmin(np.hypot(level - a, np.angle(np.exp(1j * (turn - b)))))] for a, b in ((0.7, 1.1), (0.4, -1.1))], np.int32
    )
    arrival = FinerForward(heart).arrival_ms({"healthy": TRUE}, sites, np.array([0.0, 3.0]))
    lat = arrival[lv] + 3.0 * rng.standard_normal(len(lv))
    wrong = rng.random(len(lv)) < 0.03
    lat[wrong] += rng.choice([-1.0, 1.0], wrong.sum()) * 40.0
    from meshing.sites import landmarks

    marks = {k: v for k, v in landmarks(heart).items() if k in ("lv_apex", "mitral_centre", "mid_septum_lv", "lateral_wall_lv")}
    eam = ElectroanatomicalMap(heart.points_mm[lv], lat, np.full(len(lv), 4.0), "lv_endo", landmarks=marks)
    volume = LabelVolume(np.zeros((2, 2, 2), np.uint8), np.eye(4), source="test", names={})
    return Patient("test", Evidence(volume, "test"), eam=Evidence(eam, "map.csv")), arrival, sites


@pytest.fixture(scope="module")
def fitted(heart: HeartMesh, measured: tuple[Patient, NDArray[np.float64], NDArray[np.int32]]) -> Calibration:
    return calibrate(heart, measured[0], {}, 0, lambda line: None)


def test_thin_walls_are_known_by_their_edges(heart: HeartMesh) -> None:
    # a wall of 9 mm with a thin right ventricle, on edges of 4.5 mm
    assert 1.0 < edges_across(heart) < 2.1
    assert edges_across(box(5.0, 8)) == pytest.approx(2.0 * edges_across(box(5.0, 4)), rel=0.01)


def test_velocities_sites_and_times_are_found(heart: HeartMesh, measured: tuple[Patient, NDArray, NDArray], fitted: Calibration) -> None:
    tissue = fitted.twin.tissue
    assert tissue.samples[0] == pytest.approx([TRUE.longitudinal_m_s, TRUE.transverse_m_s], rel=0.06)
    for name, true in zip(tissue.names, (TRUE.longitudinal_m_s, TRUE.transverse_m_s), strict=True):
        low, high = tissue.interval(name)
        assert low < true < high
        assert fitted.unknowns[name]["identified"]
    away = np.linalg.norm(heart.points_mm[tissue.source_nodes][:, None] - heart.points_mm[measured[2]], axis=2)
    assert away.min(axis=0).max() < 8.0
    assert fitted.doubts == ()


def test_a_calibration_is_the_same_after_saving(fitted: Calibration, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    again = Calibration.load(tmp_path)
    assert again.belief.covariance.tobytes() == fitted.belief.covariance.tobytes()
    assert again.unknowns == fitted.unknowns
    assert again.arrival_ms.tobytes() == fitted.arrival_ms.tobytes()


def test_new_points_narrow_the_posterior_and_cost_little(
    heart: HeartMesh, measured: tuple[Patient, NDArray, NDArray], fitted: Calibration
) -> None:
    rv = heart.surface_nodes("rv_endo")
    truth = EikonalForward(heart).arrival_ms(fitted.twin.tissue.velocities(), fitted.twin.tissue.source_nodes, fitted.belief.mean[2:] + 0.0)
    new = NewEvidence(heart.points_mm[rv], truth[rv] + fitted.offset_ms[rv] + 6.0, in_mesh_frame=True)
    start = time.process_time()
    later = update(fitted, new)
    assert time.process_time() - start < 2.0
    # the last source is the RV's, which no map had seen: its width shrinks, and it moves towards the late points
    assert later.belief.sd[-1] < 0.5 * fitted.belief.sd[-1]
    assert later.belief.mean[-1] > fitted.belief.mean[-1] + 2.0
    assert (later.belief.sd <= fitted.belief.sd + 1e-9).all()
    assert len(later.map_lat_ms) == len(fitted.map_lat_ms) + len(rv)
    assert update(fitted, new).twin.tissue.samples.tobytes() == later.twin.tissue.samples.tobytes()


def test_update_refuses_what_does_not_fit(fitted: Calibration) -> None:
    with pytest.raises(InputError, match="lat_ms"):
        update(fitted, NewEvidence(np.zeros((2, 3)), np.zeros(3)))
    with pytest.raises(InputError, match="mm of the heart"):
        update(fitted, NewEvidence(np.full((2, 3), 900.0), np.zeros(2)))
    with pytest.raises(InputError, match="loop_mm"):
        update(fitted, NewEvidence(cycle_length_ms=400.0))


def test_rows_of_ecg_and_cycle_are_the_derivatives(heart: HeartMesh, measured: tuple[Patient, NDArray, NDArray]) -> None:
    arrival = measured[1]
    leads = LeadField(heart)
    grid = np.arange(0.0, 400.0)
    recorded = Ecg(dict(zip(LEADS, leads.qrs(arrival + 120.0, grid), strict=True)), 1000.0)
    column = np.ones((heart.n_points, 1))
    jacobian, residual, _ = ecg_rows(leads, arrival, column, recorded)
    assert np.abs(residual).max() < 0.02 * np.abs(leads.qrs(arrival + 120.0, grid)).max()
    time_ms = np.arange(np.floor(arrival.min() - 20.0), np.ceil(arrival[np.isfinite(arrival)].max() + 20.0) + 1.0)
    by_hand = (leads.qrs(arrival + 0.5, time_ms) - leads.qrs(arrival - 0.5, time_ms)).ravel()
    assert np.corrcoef(by_hand, jacobian[:, 0])[0, 1] > 0.99
    loop = heart.points_mm[heart.surface_nodes("lv_endo")[::40]]
    names = ("healthy/cv_longitudinal_m_s", "healthy/cv_transverse_m_s")

    def predicted(scale: float) -> float:
        speed = {"healthy": Velocity(scale * 0.6, scale * 0.25)}
        return float(-cycle_row(heart, speed, names, 2, loop, 0.0001, 0.1)[1][0])

    row = cycle_row(heart, {"healthy": Velocity(0.6, 0.25)}, names, 2, loop, 400.0, 0.1)[0][0]
    assert row.sum() == pytest.approx((predicted(1.01) - predicted(0.99)) / 0.02, rel=1e-3)


def test_dipoles_give_the_leads_of_the_lead_fields(heart: HeartMesh, measured: tuple[Patient, NDArray, NDArray]) -> None:
    leads = LeadField(heart)
    dipoles = Dipoles.of(heart, measured[1])
    ours = dipoles.leads(np.stack(list(leads.electrodes_mm.values())))
    theirs = leads.qrs(measured[1], dipoles.time_ms)
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(ours, theirs, strict=True)) > 0.97


@pytest.mark.slow
def test_the_ensemble_agrees_with_laplace(heart: HeartMesh, measured: tuple[Patient, NDArray, NDArray], fitted: Calibration) -> None:
    found = ensemble_posterior(fitted, measured[0], None, seed=0, threads=1)
    before, after = np.log(fitted.twin.tissue.samples), np.log(found.twin.tissue.samples)
    assert after.mean(axis=0) == pytest.approx(before.mean(axis=0), abs=0.08)
    assert (after.std(axis=0) / before.std(axis=0) < 2.0).all()
    assert (after.std(axis=0) / before.std(axis=0) > 0.5).all()
