"""Calibration without a map: the site of a paced beat, its speed, and recovery gradients from the T wave, each against a known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from meshing.anatomy import complete
from meshing.sites import landmarks, pacing_sites
from planners.calibration import calibrate, line
from planners.calibration.finer import FinerForward
from planners.calibration.line import recovery_of, register_map
from solvers.ecg import LeadField, lead_matrix
from solvers.eikonal.forward import EikonalForward
from tests.analytic_hearts import ventricles
from twin.calibrate.ecg import upside_down
from twin.calibrate.recovery import NAMES, PARAMS, from_intervals, from_t_wave
from twin.calibrate.velocity import RATIO_SD, prior_covariance, priors
from twin.mesh import HeartMesh
from twin.patient import ELECTRODES, LEADS, Ecg, ElectroanatomicalMap, Evidence, Patient
from twin.tissue import Velocity
from twin.volume import LabelVolume

TRUE = Velocity(0.68, 0.29)
GRADIENTS = np.array([280.0, -30.0, 20.0])


@pytest.fixture(scope="module")
def heart() -> HeartMesh:
    """Both ventricles of the phantom at 4.5 mm."""
    return complete(ventricles(4.5))


@pytest.fixture(scope="module")
def paced(heart: HeartMesh) -> tuple[int, np.ndarray, np.ndarray, LeadField]:
    """Site, activation, and the leads (12, 600) of one paced beat from sample 60 on."""
    node = pacing_sites(heart)["aha11"]
    arrival = EikonalForward(heart).arrival_ms({"healthy": TRUE}, np.array([node], np.int32), np.zeros(1))
    leads = LeadField.in_torso(heart)
    across, upward = (heart.coordinates[k] - 0.5 for k in ("transmural", "apicobasal"))
    apd = GRADIENTS[0] + GRADIENTS[1] * across + GRADIENTS[2] * upward
    return node, arrival, leads.qrst(arrival, apd, np.arange(-60.0, 640.0)), leads


def _strip(beat: np.ndarray, noise_mv: float = 0.01) -> Ecg:
    out = np.zeros((12, 5200))
    for k in range(6):
        out[:, 200 + 800 * k : 200 + 800 * k + beat.shape[1]] += beat
    out += lead_matrix() @ (noise_mv * np.random.default_rng(2).standard_normal((9, out.shape[1])))
    return Ecg(dict(zip(LEADS, out, strict=True)), 1000.0)


@pytest.mark.slow
def test_a_paced_beat_is_found_from_its_ecg_alone(heart: HeartMesh, paced: tuple[int, np.ndarray, np.ndarray, LeadField]) -> None:
    node, _, beat, _ = paced
    volume = LabelVolume(np.zeros((2, 2, 2), np.uint8), np.eye(4), source="test", names={})
    patient = Patient("test", Evidence(volume, "test"), ecg=Evidence(_strip(beat), "ecg.csv"))
    found = calibrate(heart, patient, {}, 0, lambda line: None)
    tissue = found.twin.tissue
    assert len(tissue.source_nodes) == 1
    assert np.linalg.norm(heart.points_mm[tissue.source_nodes[0]] - heart.points_mm[node]) < 12.0
    low, high = tissue.interval("healthy/cv_longitudinal_m_s")
    assert low < TRUE.longitudinal_m_s < high
    assert found.unknowns["source_0"]["set_by"] == "ECG alone"
    assert tissue.fit["ecg_alone"]["score"] > 0.8
    assert set(NAMES) <= set(found.unknowns)


def test_the_t_wave_tells_gradients(heart: HeartMesh, paced: tuple[int, np.ndarray, np.ndarray, LeadField]) -> None:
    _, arrival, beat, leads = paced
    found = from_t_wave(leads, arrival, heart.coordinates, _strip(beat, 0.003), 260.0, 1.0)
    assert found is not None
    assert found.correlation > 0.95
    assert found.mean == pytest.approx(GRADIENTS, abs=6.0)
    assert (np.abs(found.mean - GRADIENTS) < 2.5 * found.sd).all()
    rows = found.rows()
    assert rows["apd/transmural_ms"]["identified"]
    assert from_t_wave(leads, arrival, heart.coordinates, Ecg(dict.fromkeys(LEADS, np.zeros(300)), 1000.0), 260.0, 1.0) is None


def test_noise_for_a_t_wave_changes_nothing(heart: HeartMesh, paced: tuple[int, np.ndarray, np.ndarray, LeadField]) -> None:
    _, arrival, _, leads = paced
    rng = np.random.default_rng(4)
    noise = Ecg({lead: rng.standard_normal(1500) for lead in LEADS}, 1000.0)
    found = from_t_wave(leads, arrival, heart.coordinates, noise, 260.0, 1.0)
    assert found is not None
    assert found.mean == pytest.approx([p.value for p in PARAMS])
    assert not any(row["identified"] for row in found.rows().values())


def test_measured_intervals_give_gradients() -> None:
    rng = np.random.default_rng(3)
    place = {name: rng.random(300) for name in ("transmural", "apicobasal")}
    interval = GRADIENTS[0] + GRADIENTS[1] * (place["transmural"] - 0.5) + GRADIENTS[2] * (place["apicobasal"] - 0.5)
    found = from_intervals(place, np.where(rng.random(300) < 0.1, np.nan, interval + 8.0 * rng.standard_normal(300)))
    assert found.mean == pytest.approx(GRADIENTS, abs=8.0)
    assert (found.sd < found.prior_sd).all()
    assert np.isnan(found.correlation)


def _mapped(heart: HeartMesh, arrival: np.ndarray, **more: object) -> Patient:
    """A patient with a map of the LV endocardium and its landmarks."""
    lv = heart.surface_nodes("lv_endo")
    eam = ElectroanatomicalMap(heart.points_mm[lv], arrival[lv], np.full(len(lv), 4.0), landmarks=landmarks(heart), **more)
    volume = LabelVolume(np.zeros((2, 2, 2), np.uint8), np.eye(4), source="test", names={})
    return Patient("test", Evidence(volume, "test"), eam=Evidence(eam, "map.csv"))


def test_intervals_of_a_map_set_durations_without_an_ecg(heart: HeartMesh, paced: tuple[int, np.ndarray, np.ndarray, LeadField]) -> None:
    _, arrival, _, _ = paced
    lv = heart.surface_nodes("lv_endo")
    interval = (
        GRADIENTS[0] + GRADIENTS[1] * (heart.coordinates["transmural"] - 0.5) + GRADIENTS[2] * (heart.coordinates["apicobasal"] - 0.5)
    )
    rng = np.random.default_rng(3)
    measured = interval[lv] + 5.0 * rng.standard_normal(len(lv)) + np.where(rng.random(len(lv)) < 0.1, 80.0, 0.0)
    found = recovery_of(heart, None, arrival, _mapped(heart, arrival, ari_ms=measured), heart.points_mm[lv])
    assert found is not None
    assert "measured activation-recovery intervals" in found.set_by
    assert found.rows()["apd/apicobasal_ms"]["mode"] == pytest.approx(GRADIENTS[2], abs=8.0)
    few = np.where(np.arange(len(lv)) < 10, measured, np.nan)
    assert recovery_of(heart, None, arrival, _mapped(heart, arrival, ari_ms=few), heart.points_mm[lv]) is None


def test_a_map_may_be_bent_onto_the_surface(heart: HeartMesh, paced: tuple[int, np.ndarray, np.ndarray, LeadField]) -> None:
    _, arrival, _, _ = paced
    patient = _mapped(heart, arrival)
    assert patient.eam is not None
    eam = patient.eam.value
    centre = eam.points_mm.mean(axis=0)
    bulge = np.exp(-0.5 * (((eam.points_mm - eam.points_mm[40]) / 25.0) ** 2).sum(axis=1))
    outward = (eam.points_mm - centre) / np.linalg.norm(eam.points_mm - centre, axis=1, keepdims=True)
    bulged = replace(eam, points_mm=eam.points_mm + 5.0 * bulge[:, None] * outward)
    rigid, bent = (register_map(heart, replace(bulged, warp=warp), "map") for warp in (False, True))
    off = [np.linalg.norm(found.apply(bulged.points_mm) - eam.points_mm, axis=1) for found in (rigid, bent)]
    assert np.sqrt((off[1] ** 2).mean()) < 0.7 * np.sqrt((off[0] ** 2).mean())
    assert len(rigid.centres_mm) == 0
    assert np.linalg.norm(bent.displacement_mm(eam.points_mm), axis=1).max() < 8.0


def test_the_two_velocities_of_a_tissue_go_together() -> None:
    names, _, sd = priors(["healthy", "border_zone"])
    covariance = prior_covariance(sd)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(sd)
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    ratio = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert ratio == pytest.approx(float(RATIO_SD) ** 2)
    assert covariance[0, 2] == 0.0
    fixed = prior_covariance(np.array([0.01, 0.01]))
    assert fixed[0, 1] == 0.0
    assert len(names) == 4


def test_no_torso_is_made_where_the_map_measured_recovery(
    heart: HeartMesh, paced: tuple[int, np.ndarray, np.ndarray, LeadField], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, arrival, beat, _ = paced
    lv = heart.surface_nodes("lv_endo")
    monkeypatch.setattr(FinerForward, "worth_it", staticmethod(lambda mesh: False))
    monkeypatch.setattr(LeadField, "in_torso", lambda *_: pytest.fail("the torso's lead field is not needed"))
    patient = replace(_mapped(heart, arrival, ari_ms=np.full(len(lv), 280.0)), ecg=Evidence(_strip(beat), "ecg.csv"))
    found = calibrate(heart, patient, {}, 0, lambda line: None)
    assert "measured activation-recovery intervals" in found.unknowns["apd/mean_ms"]["set_by"]
    assert found.ecg is not None


def test_an_upside_down_recording_of_electrodes_that_were_measured_is_noticed(
    heart: HeartMesh, paced: tuple[int, np.ndarray, np.ndarray, LeadField], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Electrodes on a ring round the ventricles, as no chest has them: only with their places are the leads met, once turned over."""
    _, arrival, _, _ = paced
    centre = heart.points_mm.mean(axis=0)
    angle = np.radians(np.linspace(200.0, 520.0, 9))
    ring = np.stack([110.0 * np.cos(angle), 110.0 * np.sin(angle), np.linspace(-60.0, 60.0, 9)], axis=1)
    places = dict(zip(ELECTRODES, centre + ring, strict=True))
    # no T wave: with one duration everywhere it would be the QRS upside down
    beat = LeadField(heart, places).qrs(arrival, np.arange(-60.0, 640.0))
    recording = replace(upside_down(_strip(beat, 0.001)), electrodes_mm=places)
    monkeypatch.setattr(FinerForward, "worth_it", staticmethod(lambda mesh: False))
    monkeypatch.setattr(LeadField, "in_torso", lambda *_: pytest.fail("these electrodes lie on no phantom's skin"))
    # a paced beat has no breakthrough of its own in the right ventricle
    monkeypatch.setattr(line, "_rv_candidates", lambda mesh: [])
    found = calibrate(heart, replace(_mapped(heart, arrival), ecg=Evidence(recording, "ecg.csv")), {}, 0, lambda _: None)
    assert found.twin.tissue.fit["ecg"]["electrodes"] == "as measured"
    assert found.twin.tissue.fit["ecg"]["upside_down_correlation"] > 0.85
    assert any("all leads upside down would raise" in doubt for doubt in found.doubts)
