"""Entrainment, pace-maps, ECG likeness and recorded VTs: against the definition, and on a slab whose isthmus is known."""

from __future__ import annotations

import numpy as np
import pytest
from graph_model import scar_slab, slab_sites
from test_circuits import plain
from test_lesions import slab_model

from meshing.box import box_mesh
from meshing.electrodes import electrodes
from planners.circuit_evidence import CircuitEvidence, TachycardiaEcgs, recorded_vts
from planners.circuits import Reentry, collect, merge, same
from planners.circuits.describe import Likeness
from planners.circuits.isthmus import sick_nodes
from planners.circuits.likeness import STEP_MS, cycle_of, ecg_of, lined_up, match, one_cycle, similarity
from planners.pacing import induce_model, load_protocol
from planners.pacing.entrain import Tachycardia
from planners.pacing.induce import stimuli_ms
from solvers.ecg import LeadField
from twin.case import load_case
from twin.errors import InputError
from twin.experiment import Activations
from twin.io.ecg import write_ecg
from twin.io.notes import Notes
from twin.patient import LEADS, Ecg


def test_leads_of_a_log_are_the_sums_of_the_lead_field():
    mesh = box_mesh((30.0, 20.0, 6.0), 2.0)
    field = LeadField(mesh, electrodes(mesh))
    rng = np.random.default_rng(1)
    first = mesh.points_mm[:, 0] / 0.5
    apd = rng.uniform(180.0, 220.0, mesh.n_points)
    node = np.tile(np.arange(mesh.n_points, dtype=np.int32), 2)
    at = np.concatenate([first, first + 300.0])
    log = Activations(node, at, at + np.tile(apd, 2), np.full(len(node), -1, np.int32))
    time = np.arange(100.0, 500.0, STEP_MS)
    wanted = field.qrst(first, apd, time) + field.qrst(first + 300.0, apd, time)
    wanted -= wanted.mean(axis=1, keepdims=True)
    assert np.abs(ecg_of(field, log, 100.0, 500.0) - wanted).max() < 2e-3 * np.abs(wanted).max()


def waves(cycle_ms: float, cycles: float, fs_hz: float = 500.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(0.0, cycles * cycle_ms, 1000.0 / fs_hz)
    out = np.zeros((12, len(time)))
    for k in range(1, 6):
        out += rng.normal(size=(12, 1)) / k * np.cos(2 * np.pi * k * time / cycle_ms + rng.uniform(0, 2 * np.pi, (12, 1)))
    return out


@pytest.mark.parametrize("cycle", [240.0, 345.0, 520.0])
def test_cycle_length_of_a_record_is_found_to_a_sample(cycle):
    assert cycle_of(waves(cycle, 4.3, seed=int(cycle)), 500.0) == pytest.approx(cycle, abs=2.0)


def test_records_without_two_cycles_or_a_rhythm_are_refused():
    with pytest.raises(ValueError, match="two cycles"):
        cycle_of(waves(400.0, 0.8), 500.0)
    with pytest.raises(ValueError, match="no rhythm"):
        cycle_of(np.random.default_rng(0).normal(size=(12, 1000)), 500.0)
    with pytest.raises(ValueError, match="shorter than one cycle"):
        one_cycle(waves(400.0, 0.8), 500.0, 400.0)


def test_likeness_does_not_depend_on_phase_size_or_sampling():
    a = one_cycle(waves(400.0, 3.0), 500.0, 400.0)
    b = one_cycle(7.0 * waves(400.0, 3.4, 1000.0)[:, 125:], 1000.0, 400.0)
    assert similarity(a, b) > 0.999
    assert similarity(a, one_cycle(waves(400.0, 3.0, seed=5), 500.0, 400.0)) < 0.8
    two = lined_up(b, np.tile(a, 2))
    assert np.abs(two - np.tile(a, 2)).max() < 0.05 * np.abs(a).max()


def test_a_recorded_vt_is_matched_or_said_not_to_be():
    cycles = {"VT1": one_cycle(waves(400.0, 3.0), 500.0, 400.0), "VT2": one_cycle(waves(400.0, 3.0, seed=9), 500.0, 400.0)}
    lengths = {"VT1": 400.0, "VT2": 330.0}
    like = {"name": "a", "cycle_length_ms": 410.0, "cycle": cycles["VT1"]}
    slow = {"name": "b", "cycle_length_ms": 520.0, "cycle": cycles["VT1"]}
    bare = {"name": "c", "cycle_length_ms": 325.0, "cycle": None}
    first, second, third = match([like, slow, bare], cycles, lengths)
    assert (first["match"], first["candidates"][0]["ecg_correlation"]) == ("VT1", 1.0)
    assert second["match"] is None
    assert second["verdict"].startswith("none matches")
    assert (third["match"], third["by"]) == ("VT2", "cycle length alone")
    assert match([like], {}, {})[0]["match"] is None


def test_likeness_of_ecgs_splits_and_joins_circuits():
    a = plain((0, 0, 0))
    assert same(a, plain((12, 0, 0)), Likeness(ecg=0.97))
    assert not same(a, plain((12, 0, 0)), Likeness(ecg=0.92))
    assert not same(a, plain((2, 0, 0)), Likeness(ecg=0.5))
    assert not same(a, plain((2, 0, 0), (-1.0, 0, 0)), Likeness(ecg=1.0))
    assert merge([], [a, plain((2, 0, 0))], lambda other: Likeness(ecg=0.4))[1] == ["VT1", "VT2"]


@pytest.fixture(scope="module")
def running():
    mesh = scar_slab()
    model, sites, protocol = slab_model(mesh), slab_sites(mesh), load_protocol("quick")
    run = induce_model(model, {"left": sites["left"]}, protocol)
    alike = TachycardiaEcgs(mesh).likeness
    found = collect(Reentry.of(mesh), run.inductions, run.episodes, (), alike)
    episode = found.episodes["VT1"]
    assert alike(episode, episode) == pytest.approx(1.0)
    alive = np.zeros(mesh.n_points, bool)
    alive[mesh.tets[mesh.conducting()].ravel()] = True
    field = LeadField(mesh, electrodes(mesh))
    muscle = np.flatnonzero(alive & ~sick_nodes(mesh))
    times = stimuli_ms(protocol, episode)
    return mesh, sites, found, Tachycardia(model, times, sites["left"], episode.cycle_length_ms, field, muscle)


def near(mesh, place) -> np.ndarray:
    return np.flatnonzero(np.linalg.norm(mesh.points_mm - place, axis=1) < 2.1).astype(np.int32)


def test_entrainment_is_concealed_in_the_isthmus_and_manifest_far_from_it(running):
    mesh, sites, found, tachycardia = running
    (circuit,) = found.circuits
    assert tachycardia.goes_on
    assert tachycardia.cycle_ms == pytest.approx(circuit.cycle_length_ms, abs=8.0)
    inside = tachycardia.entrain("isthmus", near(mesh, circuit.centre_mm))
    assert inside.what == "entrained"
    # the wave starts at the electrode's edge: one radius at 0.15 m/s is the most that the return can be short
    assert abs(inside.return_ms) < 2.1 / 0.15 + 3.0
    assert inside.critical
    # half of 32 mm at 0.15 m/s is 107 ms; then a first part of the muscle has to be excited
    assert inside.stimulus_qrs_ms == pytest.approx(120.0, abs=25.0)
    corner = tachycardia.entrain("corner", sites["corner"])
    assert corner.what == "entrained"
    assert corner.return_ms > 30.0
    assert not corner.concealed
    assert not corner.critical


def test_pace_maps_are_like_the_tachycardia_at_its_exit_only(running):
    mesh, _, found, tachycardia = running
    (circuit,) = found.circuits
    leaving = tachycardia.pace_map("exit", near(mesh, circuit.exit_mm))
    entering = tachycardia.pace_map("entrance", near(mesh, np.add(circuit.entrance_mm, (3.0, 0, 0))))
    assert leaving["ecg_correlation"] > entering["ecg_correlation"] + 0.2
    assert leaving["ecg_correlation"] > 0.8
    assert tachycardia.pace_map("scar", near(mesh, (38.0, 14.0, 2.0)))["ecg_correlation"] is None


def test_evidence_is_saved_and_loaded(tmp_path, running):
    _, _, found, _ = running
    kept = CircuitEvidence({"VT1": {"settled_cycle_ms": 300.0}}, ({"name": "a", "match": None},), {"VT1": np.ones((12, 5))})
    kept.save(tmp_path)
    again = CircuitEvidence.load(tmp_path)
    assert again.by_circuit == kept.by_circuit
    assert list(again.clinical) == list(kept.clinical)
    assert (again.ecgs["VT1"] == 1.0).all()
    assert again.on(found.circuits)[0].evidence == {"settled_cycle_ms": 300.0}


def case_with(tmp_path, lines: str):
    path = tmp_path / "case.toml"
    (tmp_path / "labels.nrrd").write_bytes(b"NRRD0004\n")
    path.write_text('[segmentation]\nfile = "labels.nrrd"\n' + lines)
    return path


def test_recorded_vts_of_a_case_are_read_and_checked(tmp_path):
    leads = waves(400.0, 3.0, 500.0)
    limb = {"I": leads[0], "II": leads[1], "III": leads[1] - leads[0], "aVR": -(leads[0] + leads[1]) / 2}
    limb |= {"aVL": leads[0] - leads[1] / 2, "aVF": leads[1] - leads[0] / 2}
    ecg = Ecg({name: limb.get(name, leads[k]) for k, name in enumerate(LEADS)}, 500.0, "vt")
    write_ecg(tmp_path / "vt.csv", ecg)
    rows = '[[clinical_vt]]\nname = "A"\necg = "vt.csv"\n[[clinical_vt]]\ncycle_length = "350 ms"\n'
    case = load_case(case_with(tmp_path, rows))
    assert "clinical_vt 1" in case.inputs()
    a, b = recorded_vts(case.clinical, Notes())
    assert a["cycle_length_ms"] == pytest.approx(400.0, abs=2.0)
    assert a["cycle"].shape == (12, 128)
    assert (b["name"], b["cycle_length_ms"], b["cycle"]) == ("clinical 2", 350.0, None)
    for wrong, field in (
        ('[[clinical_vt]]\nname = "x"\n', "clinical_vt"),
        ('[[clinical_vt]]\ncycle_length = "350 ms"\nlead = 3\n', "clinical_vt.lead"),
        (
            '[[clinical_vt]]\nname = "x"\ncycle_length = "350 ms"\n[[clinical_vt]]\nname = "x"\ncycle_length = "350 ms"\n',
            "clinical_vt.name",
        ),
    ):
        with pytest.raises(InputError) as error:
            load_case(case_with(tmp_path, wrong))
        assert error.value.field == field
    with pytest.raises(InputError, match="shorter"):
        recorded_vts([{"name": "A", "cycle_length_ms": 5000.0, "ecg_path": tmp_path / "vt.csv"}], Notes())
