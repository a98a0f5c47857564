"""New map points and a new VT during a procedure: what they teach the twin, and what of them is refused."""

from dataclasses import replace

import numpy as np
import pytest
from graph_model import slab_model, slab_sites
from guidance_slab import ENDO, POSE, QUICK, Topological, delivered, learner, mapped, planned_places, points_text

from planners import circuit_evidence
from planners.guidance import evidence
from planners.guidance.evidence import take_in
from planners.guidance.inputs import Events, read_events, read_points
from planners.guidance.update import concluded, placed, survey
from planners.pacing import induce_model
from twin.calibrate.registration import Registration
from twin.errors import InputError, Suspicious
from twin.io.notes import Notes
from twin.patient import LEADS, Ecg


def test_new_points_move_velocities_to_where_they_came_from(learning, tmp_path):
    base = learner(learning, tmp_path)
    maker = base.maker
    taken = take_in(base, Events(points=mapped(learning, 120)), Notes())
    moved = taken.state["tissue"]["healthy/cv_longitudinal_m_s"]
    assert moved["before"] == pytest.approx(0.6, rel=0.01)
    assert moved["after"] == pytest.approx(0.6 * 0.8, rel=0.05)
    assert taken.state["points"]["new"] == 120
    assert taken.state["points"]["median_late_ms"] > 5
    assert not taken.state["registration"]["moved"]
    assert taken.base.maker is maker  # what the mesh alone decides is not made again
    again = take_in(taken.base, Events(points=mapped(learning, 120)), Notes())
    assert again.state["points"]["new"] == 0  # the same export again teaches nothing


def test_a_map_that_moved_is_noticed_and_later_lesions_are_moved_with_it(learning, tmp_path):
    base = learner(learning, tmp_path)
    shift = np.array([0.0, 0.0, -6.0])  # below the plate: only this direction can be seen on it
    points = mapped(learning, 150, moved=shift, speed=1.0)
    taken = take_in(base, Events(points=points), Notes())
    found = taken.state["registration"]
    assert found["moved"]
    assert found["shift_mm"][2] == pytest.approx(6.0, abs=1.5)
    assert found["since_s"] == 0.0
    assert any("and lesions from then on" in line for line in evidence.warnings(taken.state))
    timeless = take_in(base, Events(points=replace(points, time_s=np.full(150, np.nan))), Notes()).state
    assert timeless["registration"]["since_s"] is None
    assert any("but not lesions" in line for line in evidence.warnings(timeless))
    places = np.array(planned_places(base))
    in_map = (places + shift - POSE[:3, 3]) @ POSE[:3, :3]
    times = np.linspace(10.0, 20.0, len(places))
    late = replace(delivered(in_map, time_s=times), frame="map")
    got = np.array([t.positions_mm[0] for t in placed(base, late, Notes(), taken)])
    assert np.abs(got - places).max() < 1.5
    untimed = replace(late, time_s=np.full(len(places), np.nan))
    plain = np.array([t.positions_mm[0] for t in placed(base, untimed, Notes(), taken)])
    assert np.abs(plain - places - shift).max() < 1e-3


def test_points_of_another_heart_stop_the_update(learning, tmp_path):
    base = learner(learning, tmp_path)
    points = mapped(learning, 40, moved=(0.0, 0.0, -70.0))
    with pytest.raises(Suspicious, match="of this map") as caught:
        take_in(base, Events(points=points), Notes())
    assert caught.value.code == "far_points"


def test_lesions_go_where_a_bent_map_put_its_points(learning, tmp_path):
    base = learner(learning, tmp_path)
    centre = np.array([planned_places(base)[0]])
    bent = Registration(POSE, np.zeros(1), {}, "", centres_mm=centre, coefficients_mm=np.array([[0.0, 2.0, 0.0]]))
    moved = replace(base, calibration=replace(base.calibration, registration=bent))
    in_map = (centre - POSE[:3, 3]) @ POSE[:3, :3]
    lesions = replace(delivered(in_map), frame="map")
    rigid, found = (np.array(placed(b, lesions, Notes())[0].positions_mm) for b in (base, moved))
    assert np.abs(rigid - centre).max() < 1e-3
    assert np.abs(found - bent.apply(in_map)).max() < 1e-3
    assert np.linalg.norm(found - rigid) > 0.5


def test_points_that_contradict_the_tissue_are_said(learning, tmp_path):
    base = learner(learning, tmp_path)
    points = replace(mapped(learning, 60), bipolar_mv=np.full(60, 0.1))
    state = take_in(base, Events(points=points), Notes()).state
    assert state["points"]["low_voltage_on_healthy"] > 20
    assert any("plan again" in line for line in evidence.warnings(state))
    assert not any("plan again" in line for line in evidence.warnings({"points": {"new": 60, "low_voltage_on_healthy": 3}}))


def test_a_new_vt_is_named_and_its_cycle_teaches_the_tissue(learning, tmp_path, monkeypatch):
    plan, twin, attempts, calibration = learning
    paced = induce_model(slab_model(twin.mesh), {"left": slab_sites(twin.mesh)["left"]}, QUICK)
    episode = paced.episodes[0]
    name = plan.circuits[0].id
    base = Topological(tmp_path, plan, twin, ENDO, attempts, calibration, {name: episode})
    weights = np.random.default_rng(0).normal(size=(twin.mesh.n_points, 12)) * 1e-3
    field = type("Field", (), {"weights": weights})()
    monkeypatch.setattr(circuit_evidence, "LeadField", lambda mesh: field)
    end = float(episode.log.activation_ms.max())
    leads = evidence.likeness.ecg_of(field, episode.log, end - 2.9 * episode.cycle_length_ms, end)
    ecg = Ecg(dict(zip(LEADS, leads)), 500.0, "vt")
    state = take_in(base, Events(vt=ecg), Notes()).state
    assert state["vt"]["match"] == name
    assert state["vt"]["cycle_length_ms"] == pytest.approx(episode.cycle_length_ms, abs=4.0)
    assert "tissue" in state
    other = Ecg(dict(zip(LEADS, np.sin(np.arange(3000) / 500 / 0.3 * 2 * np.pi) * np.ones((12, 1)))), 500.0, "vt")
    foreign = take_in(base, Events(vt=other), Notes()).state
    assert foreign["vt"]["match"] is None
    assert "tissue" not in foreign
    taken = take_in(base, Events(vt=other), Notes())
    limits = concluded(base, survey(base, delivered([]), Notes(), taken), [], Notes()).plan.limits
    assert "with the tissue of the plan" in limits[-1], "nothing was learnt from a VT that is like none"
    assert any("not one of the plan" in line for line in evidence.warnings(foreign))
    noise = Ecg(dict(zip(LEADS, np.random.default_rng(0).normal(size=(12, 3000)))), 500.0, "vt")
    assert "not compared" in take_in(base, Events(vt=noise), Notes()).state["vt"]["verdict"]


def test_files_of_another_map_or_another_clock_stop_the_update(learning, tmp_path):
    lesions, points = tmp_path / "lesions.csv", tmp_path / "points.csv"
    files = {"lesions": lesions, "eam": points}
    lesions.write_text("# vtwin-lesions 1\n# map: abc\nx_mm,y_mm,z_mm,time_s\n1,2,3,5\n")
    points.write_text(points_text(mapped(learning, 5), "# map: abc\n"))
    assert len(read_events(files, Notes(), ("abc",)).points) == 5
    with pytest.raises(Suspicious, match="plan again with the new map"):
        read_events(files, Notes(), ("xyz",))
    accepted = Notes(("map_identity",))
    read_events(files, accepted, ("xyz",))
    assert len(accepted.lines) == 2
    points.write_text(points_text(mapped(learning, 5), "# map: other\n"))
    with pytest.raises(Suspicious, match="different maps"):
        read_events(files, Notes())
    points.write_text(points_text(replace(mapped(learning, 5), time_s=np.full(5, 3e5))))
    with pytest.raises(Suspicious, match="clock"):
        read_events(files, Notes())
    points.write_text(points_text(replace(mapped(learning, 5), time_s=np.full(5, -3.0))))
    with pytest.raises(Suspicious, match="negative"):
        read_events(files, Notes())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x,y\n1,2\n", "first line"),
        ("# vtwin-eam 1\nx_mm,y_mm,z_mm,lat_ms\n", "0 points"),
        ("# vtwin-eam 1\nx_mm,y_mm,z_mm,lat_ms\n1,2,,4\n", "not finite"),
        ("# vtwin-eam 1\n# colour: red\nx_mm,y_mm,z_mm,lat_ms\n1,2,3,4\n", "unknown header"),
        ("# vtwin-eam 1\n# units: m, s, V\nx_mm,y_mm,z_mm,lat_ms\n1,2,3,4\n", "convert"),
        ("# vtwin-eam 1\nx_mm,y_mm,z_mm,lat_ms\n1,2,3,-10000\n", "CARTO"),
        ("# vtwin-eam 1\nx_mm,y_mm,z_mm,lat_ms\n1,2,3,90000\n", "in ms"),
        ("# vtwin-eam 1\nx_mm,y_mm,z_mm,lat_ms\n1,2,3,4\n900,2,3,4\n", "400 mm"),
        ("# vtwin-eam 1\nx_mm,y_mm,z_mm,lat_ms,bipolar_mv\n1,2,3,4,-1\n", "between 0 and 100"),
    ],
)
def test_wrong_points_are_refused(tmp_path, text, says):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        read_points(path, Notes())
