"""Contact electrograms and reaction-eikonal voltages against exact courses, and what must hold for any electrode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from meshing.box import box_mesh
from meshing.surfaces import boundary_faces
from solvers.ecg import LeadField
from solvers.ecg.electrograms import (
    CATHETERS,
    DENSE_SCAR_MV,
    HEALTHY_MV,
    Electrode,
    band_passed,
    bipole,
    contact_weights,
    peak_to_peak_mv,
    point_electrode,
    surface_sites,
    voltage_map,
)
from solvers.ecg.field import unipolar_weights
from solvers.eikonal.reaction import ActionPotential, ReactionEikonal, action_potential, one_beat, smear_for
from solvers.ionic import ionic_model
from solvers.ionic.restitution import model_of
from solvers.verify import electrograms as verified
from twin.errors import InputError
from twin.experiment import Activations
from twin.mesh import HeartMesh

TIME = np.arange(-10.0, 90.0, 0.5)
UP = np.array([0.0, 0.0, 1.0])
ALONG = np.array([1.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def template() -> ActionPotential:
    return action_potential(model_of("healthy"))


@pytest.fixture(scope="module")
def slab() -> HeartMesh:
    mesh = box_mesh((40.0, 20.0, 6.0), 1.0, (1.0, 0.0, 0.0), "alternating")
    faces = boundary_faces(mesh.tets, np.ones(mesh.n_points, bool))
    top = faces[(mesh.points_mm[faces][:, :, 2] > 6.0 - 1e-9).all(axis=1)]
    return replace(mesh, surfaces={"lv_endo": top})


@pytest.fixture(scope="module")
def wave(slab, template) -> tuple[ReactionEikonal, Activations]:
    model = ReactionEikonal(slab, {"healthy": template}, 0.5)
    return model, one_beat(slab.points_mm[:, 0] / 0.6, model.apd_ms)


def record(slab, wave, electrodes) -> np.ndarray:
    model, log = wave
    return model.signals(log, contact_weights(slab, electrodes), TIME)


def test_a_plane_wave_has_its_exact_electrogram():
    assert verified.plane_error(1.0) < 0.02


def test_the_unipolar_deflection_is_steepest_when_the_wave_passes(slab, wave):
    signal = record(slab, wave, [point_electrode(np.array([20.0, 10.0, 7.0]))])[0]
    assert TIME[np.argmin(np.gradient(signal, TIME))] == pytest.approx(20.0 / 0.6, abs=1.0)
    assert TIME[np.argmax(signal)] < TIME[np.argmin(signal)], "R before S: the wave comes, passes and leaves"


def test_amplitude_falls_with_distance_and_bipolar_with_closeness(slab, wave):
    heights = [1.0, 3.0, 6.0, 12.0, 24.0]
    unipolar = peak_to_peak_mv(record(slab, wave, [point_electrode(np.array([20.0, 10.0, 6.0 + h])) for h in heights]))
    assert (np.diff(unipolar) < 0).all()
    spacings = [0.5, 1.0, 2.0, 4.0]
    ends = record(slab, wave, [point_electrode(np.array([20.0 + s * x / 2, 10.0, 8.0])) for x in spacings for s in (-1, 1)])
    bipolar = peak_to_peak_mv(ends[::2] - ends[1::2])
    assert (np.diff(bipolar) > 0).all()
    # closely spaced: the derivative along the wave, so proportional to the spacing
    assert bipolar[1] / bipolar[0] == pytest.approx(2.0, rel=0.05)


def test_bipolar_depends_on_orientation_and_swaps_sign(slab, wave):
    site, catheter = np.array([20.0, 10.0, 6.0]), CATHETERS["multielectrode"]
    pairs = [bipole(catheter, site, UP, d) for d in (ALONG, -ALONG, np.array([0.0, 1.0, 0.0]), None)]
    signals = record(slab, wave, [e for pair in pairs for e in pair])
    along, against, across, pressing = signals[::2] - signals[1::2]
    assert np.ptp(along) > 5 * np.ptp(across), "a wave that reaches both electrodes at once leaves no difference"
    np.testing.assert_allclose(np.ptp(along), np.ptp(against), rtol=0.05)
    assert np.corrcoef(along, against)[0, 1] < -0.9
    assert np.ptp(pressing) > 1.0


def test_large_electrodes_record_less(slab, wave):
    ends = [(19.5, 20.5), (18.0, 22.0), (15.0, 25.0)]
    found = peak_to_peak_mv(record(slab, wave, [Electrode((a, 10.0, 7.0), (b, 10.0, 7.0), 0.5) for a, b in ends]))
    assert (np.diff(found) < 0).all()


def test_an_electrode_is_the_mean_of_its_points(slab):
    long = contact_weights(slab, [Electrode((15.0, 10.0, 10.0), (25.0, 10.0, 10.0), 0.5)])[:, 0]
    places = np.linspace(15.0, 25.0, 401)[:-1] + 0.0125
    points = contact_weights(slab, [point_electrode(np.array([x, 10.0, 10.0]), 0.1) for x in places]).mean(axis=1)
    np.testing.assert_allclose(long, points, atol=1e-4 * np.abs(points).max())


def test_a_catheter_lies_or_presses_as_told():
    catheter, site = CATHETERS["ablation"], np.array([1.0, 2.0, 3.0])
    first, second = (np.array([e.start_mm, e.end_mm]) for e in bipole(catheter, site, UP, ALONG + 0.3 * UP))
    np.testing.assert_allclose(first[:, 2], 3.0 + catheter.diameter_mm / 2)
    np.testing.assert_allclose(second.mean(axis=0) - first.mean(axis=0), catheter.spacing_mm * ALONG, atol=1e-12)
    assert second[0, 0] - first[1, 0] == pytest.approx(catheter.gap_mm)
    np.testing.assert_allclose(0.5 * (first.mean(axis=0) + second.mean(axis=0))[:2], site[:2], atol=1e-12)
    tip, _ = bipole(catheter, site, 2.0 * UP)
    np.testing.assert_allclose(tip.start_mm, site)
    with pytest.raises(InputError, match="direction"):
        bipole(catheter, site, UP, UP)


def test_frames_and_arrival_give_the_same_signal(slab, wave):
    model, log = wave
    weights = contact_weights(slab, [point_electrode(np.array([20.0, 10.0, 8.0]))])
    frames = np.stack([v for _, v in model.frames(log, TIME)])
    np.testing.assert_allclose((frames @ weights).T, model.signals(log, weights, TIME), atol=1e-9)


def test_filter_keeps_its_band_and_does_not_shift():
    time = np.arange(0.0, 1000.0, 1.0)
    tones = {hz: np.sin(2 * np.pi * hz * time / 1000.0) for hz in (2.0, 100.0, 450.0)}
    middle = slice(200, 800)
    gain = {hz: np.ptp(band_passed(tone[None], 1000.0)[0, middle]) / 2 for hz, tone in tones.items()}
    assert gain[100.0] == pytest.approx(1.0, abs=0.05)
    assert gain[2.0] < 0.02
    assert gain[450.0] < 0.1
    spike = np.exp(-(((time - 500.0) / 3.0) ** 2))[None] + 5.0
    even, late = band_passed(spike, 1000.0)[0], band_passed(spike, 1000.0, causal=True)[0]
    assert np.argmax(even) == 500
    np.testing.assert_allclose(even[500:700], even[500:300:-1], atol=1e-3)
    assert even[:490].min() < -0.05, "forwards and back undershoots on both sides"
    assert np.abs(late[:485]).max() < 1e-3, "hardware does not know what comes, and a constant is no signal"
    with pytest.raises(InputError, match="band"):
        band_passed(spike, 500.0)


def test_voltage_maps_show_scar():
    slab = verified.voltages(1.5)
    assert slab.healthy_mv > float(HEALTHY_MV)
    assert slab.scar_mv < float(DENSE_SCAR_MV)
    assert slab.scar_mv < slab.border_mv < slab.healthy_mv


def test_a_map_over_a_surface(slab, wave):
    model, log = wave
    sites, normals = surface_sites(slab, "lv_endo", 6.0)
    np.testing.assert_allclose(normals, np.tile(UP, (len(sites), 1)), atol=1e-12)
    apart = np.linalg.norm(sites[:, None] - sites[None], axis=2)[~np.eye(len(sites), dtype=bool)]
    assert apart.min() >= 6.0 - 1e-9
    time = np.arange(-10.0, 90.0, 1.0)
    found = voltage_map(slab, model, log, time, sites, normals)
    assert found.bipolar_mv.shape == found.unipolar_mv.shape == (len(sites),)
    assert found.bipolar_mv.min() > 1.0
    one = voltage_map(slab, model, log, time, sites[3:4], normals[3:4])
    np.testing.assert_allclose(one.bipolar_mv, found.bipolar_mv[3:4], rtol=1e-9)
    with pytest.raises(InputError, match="uniform"):
        voltage_map(slab, model, log, time[::2], sites, normals)


def test_templates_are_the_models_own(template):
    assert 250.0 < template.apd_ms < 330.0
    assert template.v_mv[0] == pytest.approx(-85.0, abs=2.0)
    assert template.v_mv.max() > 15.0
    course = template.voltage_mv(np.array([0.0, template.apd_ms]))
    np.testing.assert_allclose(course, [-40.0, -70.0], atol=1.0)
    for wanted in (150.0, 400.0):
        stretched = template.voltage_mv(np.array([0.0, 2.0, wanted]), wanted)
        np.testing.assert_allclose(stretched, [-40.0, float(template.voltage_mv(np.array([2.0]))[0]), -70.0], atol=1.0)
    other = action_potential(ionic_model("bueno_orovio"))
    assert abs(other.apd_ms - template.apd_ms) > 5.0
    assert action_potential(model_of("healthy")) is template, "measured once"
    blurred = template.smeared(1.0)
    rise = [np.gradient(t.voltage_mv(np.arange(-5, 5, 0.1)), 0.1).max() for t in (template, blurred)]
    assert rise[1] < 0.5 * rise[0]


def test_a_second_beat_rises_from_the_first(slab, template):
    model = ReactionEikonal(slab, {"healthy": template}, smear_ms=0.0)
    log = Activations(np.array([7, 7, 9], np.int32), np.array([0.0, 320.0, 5.0]), np.array([280.0, np.nan, 285.0]))
    at = np.array([-40.0, 100.0, 280.0, 318.0, 321.0, 420.0, 320.0 + template.apd_ms])
    first, other, never = model.probes(log, np.array([7, 9, 11]), at).T
    np.testing.assert_allclose(never, template.v_mv[0])
    assert first[0] == pytest.approx(template.v_mv[0], abs=0.1)
    assert first[2] == pytest.approx(-70.0, abs=1.0)
    assert first[4] > 0.0
    assert first[5] == pytest.approx(float(template.voltage_mv(np.array([100.0]))[0]), abs=0.5)
    assert first[6] == pytest.approx(-70.0, abs=1.0), "a beat without recovery lasts as its template"
    assert other[1] == pytest.approx(float(template.voltage_mv(np.array([95.0]), 280.0)[0]), abs=0.1)


def test_coarse_meshes_are_blurred_as_much_as_they_need(template):
    """Errors against a fine mesh are least near the blur that is chosen."""
    places = np.array([[20.0, 10.0, 45.0], [20.0, -30.0, 3.0], [60.0, 10.0, 3.0]])

    def leads(spacing: float, smear: float | None) -> np.ndarray:
        mesh = box_mesh((40.0, 20.0, 6.0), spacing, (1.0, 0.0, 0.0), "alternating")
        x, y, z = (mesh.points_mm - np.array([3.0, 4.0, 0.0])).T
        arrival = np.sqrt((x / 0.6) ** 2 + (y / 0.25) ** 2 + (z / 0.25) ** 2)
        model = ReactionEikonal(mesh, {"healthy": template}, smear)
        weights = np.ascontiguousarray(unipolar_weights(mesh, places).T)
        return model.signals(one_beat(arrival, template.apd_ms), weights, np.arange(-10.0, 110.0, 1.0))

    fine = leads(0.7, None)
    chosen = smear_for(box_mesh((40.0, 20.0, 6.0), 2.0, variant="alternating"))
    assert chosen == pytest.approx(2.0 / 0.6 / np.sqrt(12.0), rel=0.2)
    error = [np.linalg.norm(leads(2.0, s) - fine) for s in (None, 0.0, 3.0 * chosen)]
    assert error[0] < 0.9 * min(error[1:])


def test_scar_is_nan_in_frames_and_silent_in_signals(slab, template):
    scarred = slab.with_region(slab.centroids_mm[:, 0] > 30.0, "scar")
    model = ReactionEikonal(scarred, {"healthy": template})
    log = one_beat(np.where(scarred.points_mm[:, 0] <= 30.0, scarred.points_mm[:, 0] / 0.6, np.inf), model.apd_ms)
    _, frame = next(model.frames(log, np.array([20.0])))
    assert np.isnan(frame[scarred.points_mm[:, 0] > 31.0]).all()
    assert np.isfinite(frame[scarred.points_mm[:, 0] <= 30.0]).all()
    weights = contact_weights(scarred, [point_electrode(np.array([x, 10.0, 7.0])) for x in (15.0, 39.0)])
    near, far = peak_to_peak_mv(model.signals(log, weights, TIME))
    assert far < 0.25 * near


def test_the_leads_of_a_whole_beat(slab, wave):
    """The lead field's own logistic beat and the cell model's agree on the depolarisation."""
    model, log = wave
    centre = slab.points_mm.mean(axis=0)
    limbs = {"RA": [-56.0, 0.0, 56.0], "LA": [56.0, 0.0, 56.0], "LL": [20.0, 0.0, -75.0]}
    places = {name: centre + np.array(offset) for name, offset in limbs.items()}
    places |= {f"V{k}": centre + 60.0 * np.array([np.cos(k), -np.sin(k), 0.2]) for k in range(1, 7)}
    leads = LeadField(slab, places)
    logistic = leads.qrs(slab.points_mm[:, 0] / 0.6, TIME)
    mine = model.signals(log, leads.weights, TIME)
    early = TIME < 75
    assert np.corrcoef(logistic[:, early].ravel(), mine[:, early].ravel())[0, 1] > 0.995


def test_wrong_calls_are_named(slab, template, wave):
    model, log = wave
    with pytest.raises(InputError, match="border_zone"):
        ReactionEikonal(slab.with_region(slab.centroids_mm[:, 0] > 30, "border_zone"), {"healthy": template})
    with pytest.raises(InputError, match="time_ms"):
        next(model.frames(log, np.array([1.0, 0.0])))
    with pytest.raises(InputError, match="log"):
        next(model.frames(Activations(np.array([10**6], np.int32), np.zeros(1), np.ones(1)), np.array([1.0])))
    with pytest.raises(InputError, match="electrode"):
        contact_weights(slab, [Electrode((0.0, 0.0, np.nan), (0.0, 0.0, 0.0), 1.0)])
