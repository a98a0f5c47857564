"""Phantom studies made from a virtual patient: electrograms are the sums that they claim to be, and every format brings the study back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planners.virtual.measure import Activated, MeasureSpec, activate, endocardial_map, sinus_ecg
from planners.virtual.recipe import make_labels, read_recipe
from planners.virtual.study import FORMATS, NOISE_MV, REFERENCE_MS, RISE_MS, UPSTROKE_MV, phantom_study, write_format
from solvers.ecg.electrograms import CATHETERS, bipole, contact_weights
from solvers.eikonal.reaction import smear_for
from twin.io.studies import read_study
from twin.study import MappingStudy

Made = tuple[Activated, MeasureSpec, MappingStudy, np.ndarray]


@pytest.fixture(scope="module")
def made() -> Made:
    recipe = read_recipe(Path("cases/two_isthmuses/recipe.toml"))
    volume, _ = make_labels(recipe)
    spec = replace(recipe.measurement, edge_mm=3.0, points=60)
    beat = activate(volume, spec)
    eam, truth = endocardial_map(beat, spec, np.random.default_rng(1))
    ecg = sinus_ecg(beat, spec, np.random.default_rng(2))
    frame = np.array(truth["map_to_patient"])
    return beat, spec, phantom_study(beat, spec, eam, frame, ecg, 7), frame


@pytest.mark.slow
def test_electrograms_are_sums_of_upstrokes(made: Made) -> None:
    """Binning and convolving gives the sum over all nodes of weight times a tanh at the node's time, to a hundredth of the amplitude."""
    beat, spec, study, frame = made
    place = study.surface_mm[5] @ frame[:3, :3].T + frame[:3, 3]
    mesh = beat.mesh
    node = int(np.argmin(np.linalg.norm(mesh.points_mm - place, axis=1)))
    triangles = mesh.surfaces["lv_endo"]
    corner = mesh.points_mm[triangles]
    face = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal = face[(triangles == node).any(axis=1)].sum(axis=0)
    tip, _ = bipole(CATHETERS["ablation"], mesh.points_mm[node], normal / np.linalg.norm(normal))
    weights = contact_weights(mesh, [tip])[:, 0]
    reached = np.isfinite(beat.arrival_ms)
    times = np.arange(0.0, 150.0)
    rise = np.hypot(RISE_MS.value, smear_for(mesh))
    since = (times[:, None] - beat.arrival_ms[reached]) / rise
    direct = 0.5 * UPSTROKE_MV.value * (np.tanh(since) + 1.0) @ weights[reached]
    recording = study.recordings.read(5)
    assert recording is not None
    begin = round(REFERENCE_MS - spec.lat_reference_ms)
    trace = recording.channels["M1"][begin : begin + 150]
    assert np.abs(trace - direct).max() < 0.01 * np.ptp(direct) + 5 * NOISE_MV.value


@pytest.mark.slow
def test_the_steepest_fall_is_at_the_annotated_time(made: Made) -> None:
    """The map's times carry 3 ms of noise and a few outliers: the median difference is near zero, the middle half within noise."""
    off = []
    for index, recording in made[2].electrograms():
        if np.isfinite(made[2].lat_ms[index]):
            slope = np.convolve(np.diff(recording.channels["M1"]), np.ones(3) / 3.0, "same")
            off.append(float(np.argmin(slope)) - recording.map_ms)
    low, middle, high = np.percentile(off, [25, 50, 75])
    assert abs(middle) < 2.5
    assert low > -8.0
    assert high < 8.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_brings_it_back(tmp_path: Path, made: Made, kind: str) -> None:
    study = made[2]
    found = read_study(write_format(tmp_path, study, kind))
    np.testing.assert_allclose(found.points_mm, study.points_mm, atol=1e-3)
    np.testing.assert_allclose(found.lat_ms, study.lat_ms, atol=6e-3)
    np.testing.assert_allclose(found.bipolar_mv, study.bipolar_mv, atol=1e-3)
    one, other = found.recordings.read(3), study.recordings.read(3)
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one.channels[one.bipolar], other.channels[other.bipolar], atol=2e-3)
    leads, truth = found.ecg(), study.ecg()
    assert leads is not None
    assert truth is not None
    np.testing.assert_allclose(leads.leads["V2"], truth.leads["V2"], atol=2e-3)
