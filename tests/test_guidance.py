"""Guidance: lesions as they come against a plan, and that no order of events loses the last good update or changes the final one."""

import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from guidance_slab import ENDO, SlabBase, Topological, delivered, learner, mapped, planned_places, points_text

from planners.app.cli import run
from planners.guidance import records, watch
from planners.guidance.base import Base
from planners.guidance.inputs import KINDS, read_points
from planners.guidance.update import advance, placed
from planners.guidance.watch import Session
from planners.lesions.avoid import MARGIN
from planners.lesions.energy import PRESETS
from planners.pacing.trains import Answer
from solvers.eikonal.restitution import load_tables
from twin.atomic import write_json
from twin.errors import InputError, Interrupted, Suspicious
from twin.io.lesions import read_lesions, write_lesions
from twin.io.notes import Notes
from twin.plan import PlanRequest


@pytest.fixture
def base(planned, tmp_path):
    plan, twin, attempts = planned
    return SlabBase(tmp_path, plan, twin, ENDO, attempts)


def test_targets_are_done_one_by_one_and_the_isthmus_closes(base):
    places = planned_places(base)
    assert len(places) >= 2
    before = advance(base, delivered([]), Notes())
    assert before.state["inducible_by_repeated_trains"]
    assert before.state["next"]["target"] == "T1"
    assert base.repeated == []  # the isthmus conducts: nothing needs to be paced to know
    half = advance(base, delivered(places[:1]), Notes())
    assert half.state["targets"][0]["status"] == "begun"
    assert not half.state["circuits"][0]["isthmus_closed"]
    whole = advance(base, delivered(places), Notes())
    assert [t["status"] for t in whole.state["targets"]] == ["done"]
    assert whole.state["circuits"][0]["isthmus_closed"]
    assert not whole.state["inducible_by_repeated_trains"]
    assert whole.state["next"] is None
    assert whole.plan.targets == []
    assert {a.site for a in base.repeated} == {a.site for a in base.attempts}


def test_a_gap_is_seen_and_closing_it_is_proposed(base):
    places = np.array(planned_places(base))
    shifted = places + np.array([0.0, 7.0, 0.0])  # the whole row, beside its place: one side of the channel stays open
    found = advance(base, delivered(shifted), Notes())
    assert found.state["inducible_by_repeated_trains"]
    assert found.plan.targets
    rest = [p for t in found.plan.targets for p in t.positions_mm]
    closed = advance(base, delivered(np.concatenate([shifted, rest])), Notes())
    assert closed.state["circuits"][0]["isthmus_closed"]
    assert not closed.state["inducible_by_repeated_trains"]


def test_a_gap_is_not_closed_on_what_is_to_be_spared(base):
    without = replace(base, plan=replace(base.plan, targets=[]))  # the isthmus conducts and no planned lesion is left for it
    free = [p for t in advance(without, delivered([]), Notes()).plan.targets for p in t.positions_mm]
    spared = replace(without, request=replace(ENDO, avoid={"phrenic_nerve": [[free[0]]]}))
    found = [p for t in advance(spared, delivered([]), Notes()).plan.targets for p in t.positions_mm]
    assert found
    assert min(np.linalg.norm(np.subtract(p, free[0])) for p in found) >= MARGIN["phrenic_nerve"].value
    there = advance(spared, delivered(free), Notes())
    assert there.state["circuits"][0]["isthmus_closed"], "what was made there counts all the same"


def test_lesions_in_the_map_frame_are_brought_to_the_mesh(base):
    pose = np.eye(4)
    pose[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    pose[:3, 3] = [5.0, -3.0, 2.0]
    moved = replace(base, twin=replace(base.twin, map_to_mesh=pose))
    places = np.array(planned_places(base))
    in_map = (places - pose[:3, 3]) @ pose[:3, :3]
    got = placed(moved, replace(delivered(in_map), frame="map"), Notes())
    assert np.abs([t.positions_mm[0] for t in got] - places).max() < 1e-3


def test_lesions_that_are_not_of_this_heart_stop_the_update(base):
    far = delivered([[300.0, 0.0, 0.0]])
    with pytest.raises(Suspicious, match="frame"):
        advance(base, far, Notes())
    accepted = Notes(("far_lesion",))
    assert advance(base, far, accepted).state["delivered"] == 0
    assert accepted.lines


def digest(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


EVENTS = (
    "lesion",
    "lesion",
    "lesion",
    "points",
    "points",
    "missing",
    "cut",
    "doubled",
    "wrong",
    "contradictory",
    "killed",
    "restarted",
    "again",
)


@pytest.mark.parametrize("trials", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_no_sequence_of_events_loses_the_last_update(learning, tmp_path, trials, capsys):
    """Late, doubled, missing, contradictory, cut files, kills and restarts: nothing written changes, the end is that of the end."""
    rng = np.random.default_rng(trials)
    seconds = {"lesion": [], "points": []}
    for trial in range(trials):
        folder = tmp_path / f"{trial}"
        folder.mkdir()
        files = {kind: folder / KINDS[kind] for kind in ("lesions", "eam")}
        session = Session(learner(learning, folder))
        places, frozen = np.array(planned_places(session.base)), {}
        for event in rng.choice(EVENTS, 8):
            session = _happen(event, rng, files, places, learning, session)
            started = time.process_time()
            good = len(records.updates(folder))
            try:
                guidance, _ = session.step({kind: path for kind, path in files.items() if path.exists()})
            except InputError:
                assert len(records.updates(folder)) == good
            else:
                if guidance is not None and event in ("lesion", "points"):
                    seconds[event].append(time.process_time() - started)
            now = {p.name: digest(p) for p in records.updates(folder)}
            assert all(now[name] == before for name, before in frozen.items())
            frozen = now
            for update in records.updates(folder):
                json.loads((update / "plan.json").read_text())
        files["lesions"].write_text(_file(folder, places))
        files["eam"].write_text(points_text(mapped(learning, 40, 7)))
        session.step(files)
        from_scratch = folder / "scratch"
        from_scratch.mkdir()
        Session(learner(learning, from_scratch)).step(files)
        assert _final(folder) == _final(from_scratch)
        assert (records.updates(folder)[-1] / "plan.json").read_bytes() == (records.updates(from_scratch)[-1] / "plan.json").read_bytes()
    with capsys.disabled():
        for event, values in seconds.items():
            if values:
                q = np.percentile(values, [50, 90, 100])
                print(f"\n{len(values)} updates by {event}: {q[0]:.3f} s median, {q[1]:.3f} s in nine of ten, {q[2]:.3f} s worst", end="")


def _final(folder):
    return {k: v for k, v in records.last(folder).items() if k not in ("key", "since")}


def _happen(event, rng, files, places, learning, session):
    """Do to the files what an event means; returns the session that goes on."""
    kind = str(rng.choice(["lesions", "eam"]))
    count = int(rng.integers(0, len(places) + 1))
    lesions = _file(session.base.folder, places[:count])
    points = points_text(mapped(learning, int(rng.integers(1, 60)), int(rng.integers(100)), float(rng.uniform(0.6, 1.3))))
    text = lesions if kind == "lesions" else points
    path = files[kind]
    match event:
        case "lesion" | "again":
            files["lesions"].write_text(lesions)
        case "points":
            files["eam"].write_text(points)
        case "missing":
            path.unlink(missing_ok=True)
        case "cut":
            path.write_text(text[: int(rng.integers(0, len(text)))])
        case "doubled":
            path.write_text(text + "".join(line + "\n" for line in text.splitlines() if line[0] in "-0123456789"))
        case "wrong":
            path.write_text(text.replace("x_mm", "latitude"))
        case "contradictory":  # two maps, times that run backwards
            files["lesions"].write_text(_file(session.base.folder, places[:count]).replace("# frame", "# map: A\n# frame"))
            files["eam"].write_text(points.replace("# vtwin-eam 1\n", "# vtwin-eam 1\n# map: B\n"))
        case "killed":  # half an update, as a killed process leaves it
            partial = session.base.folder / records.ROOM / ".partial-1"
            partial.mkdir(parents=True, exist_ok=True)
            (partial / "plan.json").write_text("{")
            return Session(learner(learning, session.base.folder))
        case "restarted":
            return Session(learner(learning, session.base.folder))
    return session


def _file(folder: Path, places) -> str:
    path = folder / "written.csv"
    write_lesions(path, delivered(places))
    return path.read_text()


def test_records_hold_their_inputs_and_what_changed(learning, tmp_path):
    session = Session(learner(learning, tmp_path))
    places = np.array(planned_places(session.base))
    files = {"lesions": tmp_path / "export of J Doe.csv", "eam": tmp_path / "points.csv"}
    files["lesions"].write_text(_file(tmp_path, places))
    session.step({"lesions": files["lesions"]})
    files["lesions"].write_text(_file(tmp_path, places[:1]))
    files["eam"].write_text(points_text(mapped(learning, 30)))
    session.step(files)
    first, second = (path for path in records.updates(tmp_path) if not json.loads((path / "guide.json").read_text())["pending"])
    assert {p.name for p in (second / "inputs").iterdir()} == {"lesions.csv", "points.csv"}
    assert len(read_points(second / "inputs" / "points.csv", Notes())) == 30
    assert "no longer in the file" in json.loads((second / "guide.json").read_text())["since"][0]
    assert json.loads((first / "guide.json").read_text())["since"] == []
    assert all("Doe" not in p.read_text() for p in (*first.rglob("*.json"), *second.rglob("*.json")))


def test_what_is_known_is_told_before_trains_are_repeated(learning, tmp_path):
    said = []
    session = Session(learner(learning, tmp_path), tell=said.append)
    path = tmp_path / "lesions.csv"
    path.write_text(_file(tmp_path, planned_places(session.base)))
    guidance, _ = session.step({"lesions": path})
    assert "being repeated" in said[0]
    assert guidance.state["inducible_by_repeated_trains"] is False
    early, late = (json.loads((path / "guide.json").read_text()) for path in records.updates(tmp_path))
    assert early["pending"] == len(session.base.attempts)
    assert early["inducible_by_repeated_trains"] is None
    assert early["targets"] == late["targets"]
    assert (early["key"], late["pending"]) == (late["key"], 0)


def test_trains_that_are_given_up_are_asked_for_again(learning, tmp_path):
    session = Session(learner(learning, tmp_path, Impatient))
    path = tmp_path / "lesions.csv"
    path.write_text(_file(tmp_path, planned_places(session.base)))
    with pytest.raises(Interrupted):
        session.step({"lesions": path}, lambda: True)
    assert [p.name for p in records.updates(tmp_path)] == ["0001"]
    assert records.last(tmp_path)["pending"]
    restarted = Session(learner(learning, tmp_path, Impatient))
    assert restarted.step({"lesions": path})[1].name == "0002"
    assert records.last(tmp_path)["inducible_by_repeated_trains"] is False
    assert restarted.step({"lesions": path}) == (None, records.updates(tmp_path)[-1])


class Wavering(Topological):
    """In one of the samples VT is still induced."""

    def of_sample(self, sample):
        return Steady(*(getattr(self, name) for name in self.__dataclass_fields__)) if sample == 3 else self


class Steady(Topological):
    def repeat(self, attempt, blocked, cancelled=bool):
        return Answer(True, True, 400.0)


def test_other_samples_of_the_tissue_are_asked_when_nothing_else_happens(learning, tmp_path, monkeypatch):
    said = []
    session = Session(learner(learning, tmp_path, Wavering), tell=said.append)
    path = tmp_path / "lesions.csv"
    path.write_text(_file(tmp_path, planned_places(session.base)[:1]))
    session.step({"lesions": path})
    assert session.ask_samples({"lesions": path}) is None  # VT is still inducible: there is nothing to ask
    path.write_text(_file(tmp_path, planned_places(session.base)))
    assert session.ask_samples({"lesions": path}) is None  # files have changed
    monkeypatch.setattr(watch, "PERIOD_S", 0.01)
    left = iter(range(4))
    assert watch.follow(session, {"lesions": path}, until=lambda: next(left, None) is None) == 1
    state = records.last(tmp_path)
    assert (state["samples"]["asked"], state["samples"]["non_inducible"]) == (8, 7)
    assert state["samples"]["interval"][0] < 7 / 8 < state["samples"]["interval"][1]
    assert "7 of 8 other tissue samples" in said[-1]
    assert [p.name for p in records.updates(tmp_path)] == ["0001", "0002", "0003", "0004"]
    assert session.step({"lesions": path}) == (None, records.updates(tmp_path)[-1])


def test_a_sample_paces_its_own_velocities_on_the_same_mesh(learning, tmp_path):
    base = learner(learning, tmp_path)
    maker = base.maker
    crossing = [int(np.flatnonzero(np.isfinite(base.calibration.arrival_ms))[0])]
    times = [b.model.run(b.model.rest(), [(0.0, crossing)], 60.0)[1].activations for b in (base, base.of_sample(2))]
    assert len(times[0].node) != len(times[1].node)
    other = base.of_sample(2)
    assert other.maker is maker
    assert other.drives is not base.drives


def test_trains_are_repeated_with_the_durations_that_the_plan_was_paced_with(learning, tmp_path):
    base = learner(learning, tmp_path)
    longer = replace(base, plan=replace(base.plan, run={**base.plan.run, "settings": {"apd_factors": {"healthy": 1.2}}}))
    assert base.settings.tables is None
    assert np.allclose(longer.settings.tables["healthy"].apd_ms, 1.2 * load_tables()["healthy"].apd_ms)
    ratio = longer.model._apd / base.model._apd
    assert (ratio.min(), ratio.max()) == pytest.approx((1.0, 1.2), rel=1e-4)


class Impatient(Topological):
    """Trains that ask whether they are still wanted."""

    def repeat(self, attempt, blocked, cancelled=bool):
        if cancelled():
            raise Interrupted("not wanted any more")
        return Answer(True, False)


def test_following_tells_once_what_it_cannot_use_and_goes_on(planned, tmp_path, monkeypatch):
    plan, twin, attempts = planned
    base = Topological(tmp_path, plan, twin, ENDO, attempts)
    places, said = np.array(planned_places(base)), []
    path = tmp_path / "lesions.csv"
    steps = iter([None, "# vtwin-lesions 1\n", "# vtwin-lesions 1\nx", _file(tmp_path, places[:1]), _file(tmp_path, places), None])
    monkeypatch.setattr(watch, "PERIOD_S", 0.01)
    left = [6]

    def until():
        text = next(steps, None)
        if text is not None:
            path.write_text(text)
        left[0] -= 1
        return left[0] < 0

    files = watch.in_folder(tmp_path) | {"lesions": path}
    assert watch.follow(Session(base, tell=said.append), files, until=until) == 2
    assert sum("last good update stands" in line for line in said) == 2
    pending = [json.loads((p / "guide.json").read_text())["pending"] for p in records.updates(tmp_path)]
    assert pending == [0, len(attempts), 0]  # the isthmus is closed by the last lesions: what is known of them is a record of its own


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x,y\n1,2\n", "first line"),
        ("# vtwin-lesions 1\nx_mm,y_mm,z_mm\n1,2,\n", "no place"),
        ("# vtwin-lesions 1\n# frame: moon\nx_mm,y_mm,z_mm\n1,2,3\n", "unknown frame"),
        ("# vtwin-lesions 1\n# surface: roof\nx_mm,y_mm,z_mm\n1,2,3\n", "unknown surface"),
        ("# vtwin-lesions 1\n# colour: red\nx_mm,y_mm,z_mm\n1,2,3\n", "unknown header"),
        ("# vtwin-lesions 1\nx_mm,y_mm,z_mm,radius_mm\n1,2,3,400\n", "outside"),
        ("# vtwin-lesions 1\nx_mm,y_mm,z_mm,time_s\n1,2,3,5\n1,2,4,4\n", "backwards"),
        ("# vtwin-lesions 1\nx_mm,y_mm,z_mm\n" + "1,2,3.5\n1,2,3\n" * 3000, "is this the map"),
    ],
)
def test_wrong_lesion_files_are_refused(tmp_path, text, says):
    path = tmp_path / "lesions.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        read_lesions(path, Notes())


def test_doubled_rows_count_once_and_files_come_back(tmp_path):
    path = tmp_path / "lesions.csv"
    lesions = delivered([[1, 2, 3], [4, 5, 6]], time_s=np.array([1.0, 2.0]))
    write_lesions(path, lesions)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1]]) + "\n")
    notes = Notes()
    got = read_lesions(path, notes)
    assert len(got) == 2
    assert got.frame == "mesh"
    assert "count once" in notes.lines[0]
    assert np.allclose(got.positions_mm, lesions.positions_mm)


def finished(learning, folder, **request):
    """A finished plan's folder as far as guidance reads it."""
    plan, _, _, calibration = learning
    asked = {"request": asdict(PlanRequest()) | request}
    run_record = {"stages": {"mesh": "m", "tissue": "t", "induction": "i"}, "settings": asked}
    (folder / "stages" / "induction-i").mkdir(parents=True)
    calibration.save(folder / "stages" / "tissue-t")
    write_json(folder / "plan.json", replace(plan, run=run_record).as_dict())
    return folder


def test_lesions_without_a_size_have_that_of_the_plans_energy(learning, tmp_path):
    base = Base.load(finished(learning, tmp_path / "cryo", energy={"source": "cryo"}))
    (found,) = placed(base, delivered(planned_places(base)[:1]), Notes())
    assert (found.radius_mm, found.depth_mm) == (PRESETS["cryo"].radius.value, PRESETS["cryo"].depth.value)
    usual = Base.load(finished(learning, tmp_path / "rf"))
    assert usual.request == PlanRequest()


def test_a_plan_of_another_version_is_named(learning, tmp_path):
    with pytest.raises(InputError, match="another version"):
        Base.load(finished(learning, tmp_path, colour="red"))


def test_updates_are_in_the_order_of_their_numbers(tmp_path):
    for number in (1, 9999, 10000):
        (tmp_path / records.ROOM / f"{number:04d}").mkdir(parents=True)
    assert [p.name for p in records.updates(tmp_path)] == ["0001", "9999", "10000"]


def test_the_command_refuses_what_is_not_a_plan(tmp_path, capsys):
    assert run(["guide", str(tmp_path), "--lesions", str(tmp_path / "lesions.csv")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
