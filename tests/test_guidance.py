"""Guidance: lesions as they come against a plan, and that no order of events loses the last good update or changes the final one."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from graph_model import scar_slab, slab_model, slab_sites

from planners.app.cli import run
from planners.circuits import Reentry, collect
from planners.guidance import records, watch
from planners.guidance.base import Attempt, Base
from planners.guidance.update import advance, placed
from planners.lesions.search import Search
from planners.pacing import induce_model, load_protocol
from planners.pacing.site import SiteResult
from twin.errors import InputError, Suspicious
from twin.io.lesions import Delivered, read_lesions, write_lesions
from twin.io.notes import Notes
from twin.model import Twin
from twin.plan import Plan, PlanRequest
from twin.tissue import Tissue

QUICK = load_protocol("quick")
ENDO = PlanRequest(access=("lv_endo",))


@dataclass(frozen=True)
class SlabBase(Base):
    """A base whose trains are paced in the graph model of the slab, so that no tissue posterior is needed."""

    repeated: list = field(default_factory=list)

    def repeat(self, attempt, blocked):
        self.repeated.append(attempt)
        mesh = self.twin.mesh.with_region(blocked, "lesion")
        found = induce_model(slab_model(mesh), {attempt.site: slab_sites(mesh)[attempt.site]}, QUICK, require_capture=False)
        return SiteResult(attempt.site, [], list(found.inductions), list(found.episodes), found.attempts)


@pytest.fixture(scope="module")
def planned():
    mesh = scar_slab()
    none = np.zeros(0)
    twin = Twin(mesh, Tissue((), np.zeros((1, 0)), none, none, {}, np.zeros(1, np.int32), np.zeros(1)), np.eye(4))
    paced = induce_model(slab_model(mesh), {"left": slab_sites(mesh)["left"]}, QUICK)
    found = collect(Reentry.of(mesh), paced.inductions, paced.episodes)

    def retest(blocked, sites):
        places = {name: slab_sites(mesh)[name] for name in sites}
        return induce_model(slab_model(mesh.with_region(blocked, "lesion")), places, QUICK, stop_at_first=True, require_capture=False)

    lesions = Search(twin, ENDO, ["left"], retest).plan(paced, found.circuits)
    named = {(i.site, i.coupling_ms): i.circuit for i in found.inductions if i.induced}
    attempts = tuple(Attempt(e.site, e.cycle_ms, e.coupling_ms, named[(e.site, e.coupling_ms)]) for e in paced.episodes)
    run_record = {"stages": {"mesh": "abc"}, "settings": {}}
    plan = Plan({"name": "slab"}, {}, {}, found.inductions, lesions.circuits, lesions.targets, [], {}, ["a limit"], run_record)
    return plan, twin, attempts


@pytest.fixture
def base(planned, tmp_path):
    plan, twin, attempts = planned
    return SlabBase(tmp_path, plan, twin, ENDO, attempts)


def delivered(positions, **more):
    places = np.asarray(positions, float).reshape(-1, 3)
    values = dict.fromkeys(("time_s", "radius_mm", "depth_mm", "power_w", "duration_s"), np.full(len(places), np.nan))
    return Delivered(places, **(values | more), frame="mesh")


def planned_places(base):
    return [p for t in base.plan.targets for p in t.positions_mm]


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


class Topological(SlabBase):
    """Trains induce as long as an isthmus conducts: as quick as 200 sequences of events need."""

    def repeat(self, attempt, blocked):
        return SiteResult(attempt.site)


@pytest.mark.parametrize("trials", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_no_sequence_of_events_loses_the_last_update(planned, tmp_path, trials):
    rng = np.random.default_rng(trials)
    plan, twin, attempts = planned
    for trial in range(trials):
        folder = tmp_path / f"{trial}"
        folder.mkdir()
        path = folder / "lesions.csv"
        base = Topological(folder, plan, twin, ENDO, attempts)
        places, frozen = np.array(planned_places(base)), {}
        good = 0
        for event in rng.choice(["more", "missing", "cut", "doubled", "wrong", "killed", "restarted", "again"], 6):
            count = int(rng.integers(0, len(places) + 1))
            text = _file(folder, places[:count])
            if event in ("more", "again", "restarted"):
                path.write_text(text)
            elif event == "missing":
                path.unlink(missing_ok=True)
            elif event == "cut":
                path.write_text(text[: int(rng.integers(0, len(text)))])
            elif event == "doubled":
                path.write_text(text + "".join(line + "\n" for line in text.splitlines()[3:]))
            elif event == "wrong":
                path.write_text(text.replace("x_mm", "latitude"))
            elif event == "killed":  # half an update, as a killed process leaves it
                partial = folder / records.ROOM / ".partial-1"
                partial.mkdir(parents=True, exist_ok=True)
                (partial / "plan.json").write_text("{")
            if event == "restarted":
                base = Topological(folder, plan, twin, ENDO, attempts)
            try:
                watch.step(base, path)
            except (InputError, OSError):
                pass
            else:
                good = len(records.updates(folder))
            now = {p.name: digest(p) for p in records.updates(folder)}
            assert len(now) >= good
            assert all(now[name] == before for name, before in frozen.items())
            frozen = now
            for update in records.updates(folder):
                json.loads((update / "plan.json").read_text())
        path.write_text(_file(folder, places))
        watch.step(base, path)
        state = records.last(folder)
        scratch = advance(Topological(folder, plan, twin, ENDO, attempts), read_lesions(path, Notes()), Notes()).state
        assert {k: v for k, v in state.items() if k != "key"} == json.loads(json.dumps(scratch))


def _file(folder: Path, places) -> str:
    path = folder / "written.csv"
    write_lesions(path, delivered(places))
    return path.read_text()


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

    assert watch.follow(base, path, said.append, until=until) == 2
    assert sum("last good update stands" in line for line in said) == 2
    assert [p.name for p in records.updates(tmp_path)] == ["0001", "0002"]


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


def test_the_command_refuses_what_is_not_a_plan(tmp_path, capsys):
    assert run(["guide", str(tmp_path), "--lesions", str(tmp_path / "lesions.csv")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
