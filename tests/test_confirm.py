"""Confirmation by monodomain: the part on its lattice, cells that match tables, phases, and a ring on which a wave circles or is cut."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import jsonschema
import numpy as np
import pytest

from meshing.box import box_mesh
from planners.app.confirm_stage import confirmation, with_confirmation
from planners.app.console import Console
from planners.app.pipeline import Line
from planners.calibration import Calibration
from planners.circuits.episode import Collected, Episode
from planners.confirm import compare, plan
from planners.confirm.bench import Bench, BenchSettings, Outcome, laps_of, phase_of
from planners.confirm.border import DRIVE_MS, brought_in
from planners.confirm.confirm import Confirmation, ConfirmSettings, confirm
from planners.confirm.membrane import _duration, cells_of, recovery_of
from planners.confirm.part import active_region, lattice_part
from planners.confirm.plan import Confirmations, Negative, confirm_plan, quiet_trains
from planners.pacing.induce import PacingSettings
from planners.pacing.protocol import load_protocol
from planners.report import cards
from solvers.eikonal.reentrant import ReentrantEikonal
from solvers.eikonal.restitution import load_tables
from solvers.ionic.restitution import S1_MS
from solvers.monodomain.correction import find_lattice
from twin.case import load_case
from twin.errors import InputError, RunFailed
from twin.experiment import Activations
from twin.mesh import HeartMesh
from twin.model import Twin
from twin.plan import Circuit, Plan, PlanRequest
from twin.stages import Stages
from twin.tissue import Tissue, Velocity

ROOT = Path(__file__).parents[1]
SLOW = Velocity(0.25, 0.25)
SIZE, INNER = 36.0, 13.0


def twin_of(mesh: HeartMesh, speed: Velocity = SLOW) -> Twin:
    """A twin with one velocity everywhere."""
    names = tuple(f"{r}/cv_{d}_m_s" for r in ("healthy", "border_zone") for d in ("longitudinal", "transverse"))
    row = np.array([[speed.longitudinal_m_s, speed.transverse_m_s] * 2])
    return Twin(mesh, Tissue(names, row, row[0], row[0], {}, np.zeros(0, np.int32), np.zeros(0)), np.eye(4))


@cache
def ring() -> Twin:
    """A plate with a round scar: a wave needs some 330 ms round it."""
    mesh = box_mesh((SIZE, SIZE, 2.0), 2.0, (1.0, 0.0, 0.0), "alternating")
    x, y = (mesh.centroids_mm - 0.5 * SIZE).T[:2]
    return twin_of(mesh.with_region(np.hypot(x, y) < INNER, "scar"))


def wedge(mesh: HeartMesh, low: float, high: float) -> np.ndarray:
    """Tetrahedra between two angles round the middle, degrees."""
    x, y = (mesh.centroids_mm - 0.5 * SIZE).T[:2]
    angle = np.degrees(np.arctan2(y, x)) % 360.0
    return (angle >= low) & (angle < high)


@cache
def circling() -> tuple[Circuit, Episode]:
    """The wave that circles in the reduced model, started with one way barred."""
    mesh = ring().mesh
    model = ReentrantEikonal(mesh, {"healthy": SLOW}, load_tables())
    angle = np.degrees(np.arctan2(*(mesh.points_mm[:, 1::-1] - 0.5 * SIZE).T))
    used = np.unique(mesh.tets[mesh.conducting()])
    site = used[np.abs(angle[used]) < 8.0].astype(np.int32)
    state, _ = model.with_blocked(wedge(mesh, 325.0, 345.0)).run(model.rest(), [(0.0, site)], 120.0)
    state, _ = model.run(state, [], 1200.0)
    _, log = model.run(state, [], 2200.0)
    assert not log.quiet
    turn = np.linspace(0.0, 2.0 * np.pi, 60)
    path = 0.5 * SIZE + (INNER + 2.0) * np.stack([np.cos(turn), np.sin(turn), np.full(60, (1.0 - 0.5 * SIZE) / (INNER + 2.0))], axis=1)
    a = log.activations
    repeated = [np.diff(a.activation_ms[a.node == n])[-1] for n in used[::40]]
    cycle = float(np.median(repeated))
    place = [float(x) for x in path[15]]
    circuit = Circuit("VT1", cycle, path.tolist(), path[10:20].tolist(), 5.0, place, place, 0, ("here",), place)
    return circuit, Episode("here", 600.0, (300.0,), cycle, a)


def test_a_part_fills_what_was_kept() -> None:
    mesh = ring().mesh
    keep = mesh.conducting() & (mesh.centroids_mm[:, 0] > 10.0)
    part = lattice_part(mesh, keep, 0.8)
    part.mesh.check()
    volume = mesh.tet_volumes_mm3
    # a plate two cells thick whose faces lie along the lattice is the worst case; curved walls come out within 1 %
    assert part.mesh.tet_volumes_mm3.sum() == pytest.approx(volume[keep].sum(), rel=0.10)
    assert find_lattice(part.mesh.points_mm, part.mesh.tets)[1] == 1.0
    # every fine tetrahedron lies in one that was kept, and has its tissue
    assert keep[part.of_tet].all()
    np.testing.assert_array_equal(part.mesh.region, mesh.region[part.of_tet])
    lengths = np.linalg.norm(part.mesh.points_mm[part.mesh.tets[:, 0]] - part.mesh.points_mm[part.mesh.tets[:, 1]], axis=1)
    assert lengths.max() == pytest.approx(0.9)
    nodes, beside = part.cut_nodes()
    assert len(nodes) > 10
    assert (np.abs(mesh.points_mm[beside, 0] - 10.0) < 2.1).all()
    assert np.linalg.norm(mesh.points_mm[beside] - part.mesh.points_mm[nodes], axis=1).max() < 1.7
    with pytest.raises(InputError, match="no conducting muscle"):
        lattice_part(mesh, mesh.in_region("scar"), 0.8)


def test_shares_reproduce_places() -> None:
    part = lattice_part(ring().mesh, ring().mesh.conducting(), 0.8)
    nodes, share = part.shares()
    np.testing.assert_allclose(share.sum(axis=1), 1.0)
    where = np.einsum("nk,nkx->nx", share, part.coarse.points_mm[nodes])
    # what sticks out of the coarse muscle is read off its nearest point
    assert np.quantile(np.linalg.norm(where - part.mesh.points_mm, axis=1), 0.9) < 0.6


def test_active_region_lies_round_path_and_scar() -> None:
    mesh = ring().mesh
    near = active_region(mesh, np.array([[0.0, 0.0, 0.0]]), None, 6.0)
    assert near.any()
    assert not near[mesh.centroids_mm[:, 0] > 6.0].any()
    both = active_region(mesh, np.array([[0.0, 0.0, 0.0]]), mesh.in_region("scar"), 6.0)
    assert both.sum() > near.sum()
    assert not both[mesh.in_region("scar")].any()


def test_cells_have_the_duration_of_their_tables() -> None:
    tables = load_tables()
    cells = cells_of(("healthy", "border_zone", "isthmus"), tables)
    assert cells["isthmus"] is cells["border_zone"]
    for region in ("healthy", "border_zone"):
        assert _duration(cells[region]) == pytest.approx(tables[region].steady_apd_ms(S1_MS.value), rel=0.03)
    # the shipped tables are those of the very cells: nothing is scaled
    assert cells["healthy"].parameters["G_Ks"] == pytest.approx(0.392)


@pytest.mark.slow
def test_a_table_of_another_duration_gets_its_own_cell() -> None:
    tables = load_tables()
    cells = cells_of(("healthy",), tables)
    short = replace(tables["healthy"], apd_ms=0.85 * tables["healthy"].apd_ms)
    matched = cells_of(("healthy",), {"healthy": short})["healthy"]
    assert _duration(matched) == pytest.approx(short.steady_apd_ms(S1_MS.value), rel=0.03)
    assert matched.parameters["G_Na"] == cells["healthy"].parameters["G_Na"]
    with pytest.raises(RunFailed, match="no cell of healthy tissue"):
        cells_of(("healthy",), {"healthy": replace(short, apd_ms=0.2 * short.apd_ms)})


def test_recovery_begins_at_the_upstroke_and_follows_the_cycle() -> None:
    cell = cells_of(("healthy",), load_tables())["healthy"]
    recovery = recovery_of(cell, 380.0)
    v, states = recovery.at(np.array([1.0, 150.0, 370.0, np.inf]))
    assert v[0] > 0.0
    assert v[1] > -20.0
    assert v[2] < -80.0
    assert v[3] < -80.0
    assert states.shape == (4, len(cell.state_names))
    # at a shorter cycle the potential is shorter
    down = [float(np.flatnonzero(r.v_mv[20:] < -70.0)[0]) for r in (recovery, recovery_of(cell, 600.0))]
    assert down[0] < down[1] - 10.0
    with pytest.raises(RunFailed, match="does not recover"):
        recovery_of(cell, 200.0)


def test_phase_of_a_plane_wave_and_of_its_front() -> None:
    mesh = ring().mesh
    part = lattice_part(mesh, mesh.conducting(), 0.8)
    used = np.unique(mesh.tets[mesh.conducting()]).astype(np.int32)
    # waves along x at 0.1 m/s every 300 ms, known up to 900 ms
    times = [mesh.points_mm[used, 0] / 0.1 + 300.0 * k for k in range(-1, 3)]
    node, at = np.tile(used, 4), np.concatenate(times)
    known = (at >= 0.0) & (at <= 900.0)
    log = Activations(node[known], at[known], at[known] + 200.0)
    end = float(at[known].max())
    phase = phase_of(part, log, 300.0)
    expected = (end - part.mesh.points_mm[:, 0] / 0.1) % 300.0
    off = np.abs(phase - expected)
    off = np.minimum(off, 300.0 - off)
    inside = np.hypot(*(part.mesh.points_mm[:, :2] - 0.5 * SIZE).T) > INNER + 1.5
    assert np.quantile(off[inside], 0.95) < 6.0
    assert (phase >= -1e-9).all()


def test_laps_count_returns_and_not_a_voltage_that_hovers() -> None:
    node = np.array([1, 2, 1, 1, 2, 1, 1], np.int32)
    at = np.array([10.0, 12.0, 14.0, 310.0, 330.0, 620.0, 625.0])
    log = Activations(node, at, at + 200.0)
    assert laps_of(log, 0.0) == (2, pytest.approx(0.5 * (310.0 + 318.0), abs=10.0))
    assert laps_of(log, 600.0) == (0, None)
    # the edge of border zone crosses the threshold again 130 ms later without having recovered: one beat, counted from its start
    at = np.array([10.0, 140.0, 540.0, 670.0, 1070.0])
    assert laps_of(Activations(np.zeros(5, np.int32), at, at + 100.0), 0.0) == (2, pytest.approx(530.0))


def test_plans_carry_what_monodomain_said(tmp_path: Path) -> None:
    yes = Confirmation("sustained", "why", "phase", 400.0, 0.02, 3, 1300.0, True, 1000, 0.8, 0.05)
    no = replace(yes, verdict="not sustained", cycle_length_ms=None, cycle_difference=None)
    sample = tuple(Negative("aha01", (320.0,), verdict, "") for verdict in ("not sustained", "not sustained", "sustained", "undecided"))
    found = Confirmations({"VT1": yes, "VT2": no}, sample)
    found.save(tmp_path)
    assert Confirmations.load(tmp_path) == found
    counts = found.counts()
    assert counts["sensitivity"] == pytest.approx(1 / 2)
    assert counts["specificity"] == pytest.approx(2 / 3)
    assert counts["undecided"] == 1
    assert Confirmations({"VT1": yes}).counts()["sensitivity"] is None
    schema = json.loads((ROOT / "planners" / "schema" / "plan.schema.json").read_text("utf-8"))["properties"]
    jsonschema.validate(json.loads(json.dumps(found.as_dict())), schema["confirmation"])
    circuit, _ = circling()
    (shown,) = found.on([circuit])
    jsonschema.validate(json.loads(json.dumps(dict(shown.evidence))), schema["circuits"]["items"]["properties"]["evidence"])
    assert found.on([replace(circuit, id="VT9")])[0].evidence == {}


def test_the_case_asks_for_it(tmp_path: Path) -> None:
    text = (ROOT / "cases" / "demo" / "case.toml").read_text("utf-8").replace('"labels.nrrd"', f'"{ROOT / "cases" / "demo"}/labels.nrrd"')
    text = text.split("[eam]")[0]

    def request(more: str) -> PlanRequest:
        (tmp_path / "case.toml").write_text(f"{text}\n[plan]\n{more}\n", "utf-8")
        return load_case(tmp_path / "case.toml").request

    assert not request("").confirm
    asked = request("confirm = true\nconfirm_negatives = 4")
    assert asked.confirm
    assert asked.confirm_negatives == 4
    for wrong in ("confirm_negatives = 4", "confirm = 1", "confirm = true\nconfirm_negatives = -1"):
        with pytest.raises(InputError, match="confirm"):
            request(wrong)


def test_pairs_of_the_heart_agree_by_what_ended_them() -> None:
    mono = {"ended": "sustained", "cycle_ms": 400.0, "lasted_ms": 1300.0}
    assert compare.Pair("s", "320", mono, {**mono, "cycle_ms": 420.0}).cycle_error == pytest.approx(0.05)
    ends = {"ended": "quiet", "cycle_ms": None, "lasted_ms": 300.0}
    assert not compare.Pair("s", "320", mono, ends).agree
    assert compare.Pair("s", "320", ends, {**ends, "ended": "no capture"}).agree
    assert "DISAGREE" in compare.Pair("s", "320", mono, ends).line()
    assert compare.times_of((320.0, 280.0)) == (0.0, 320.0, 600.0)
    assert compare.key_of((320.0, 280.0)) == "320-280"


def test_pairs_of_another_lattice_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "DATA", tmp_path)
    demo = cast(compare.Demo, SimpleNamespace(sites={"aha01": np.zeros(1, np.int32)}))
    solver = SimpleNamespace(nodes=np.zeros(5), mean_edge_mm=0.83, dt_ms=0.1)
    asked: list[float] = []

    def train(site: np.ndarray, times: tuple[float, ...], brought: object) -> Outcome:
        asked.append(times[-1])
        return Outcome("quiet", 300.0, 0, None, 1.0, 500.0, Activations(np.zeros(0, np.int32), np.zeros(0), np.zeros(0)))

    for gain, runs in ((1.7, 6), (1.7, 6), (2.2, 12)):
        report = {"sodium_gain": {"healthy": gain}, "predicted_error": 0.05}
        compare.compute(demo, cast(Bench, SimpleNamespace(solver=solver, report=report, train=train)), "aha01", whole=True)
        kept = json.loads(compare.path_of("aha01", whole=True).read_text("utf-8"))
        assert kept["sodium_gain"] == {"healthy": gain}
        assert list(kept["runs"]) == sorted(map(compare.key_of, compare.TRAINS_MS))
        assert len(asked) == runs


@cache
def bench() -> Bench:
    """Monodomain on the ring."""
    mesh = ring().mesh
    return Bench(ring(), mesh.conducting(), BenchSettings(cycles=2, follow_ms=1500.0))


@pytest.mark.slow
def test_a_wave_that_circles_is_confirmed_and_a_cut_ends_it() -> None:
    circuit, episode = circling()
    found = confirm(ring(), circuit, episode, bench=bench())
    assert found.verdict == "sustained"
    assert found.by == "phase"
    assert found.same_isthmus
    # the front is curved round 13 mm, which the reduced model does not feel and the corrected mesh feels more than tissue does
    assert 0.0 < (found.cycle_difference or 1.0) < 0.15
    assert found.predicted_error < 0.15
    cut = confirm(ring(), circuit, episode, ConfirmSettings(cycles=2), blocked=wedge(ring().mesh, 80.0, 110.0))
    assert cut.verdict == "not sustained"
    assert "ended after" in cut.why
    # the same start gives the same answer
    assert confirm(ring(), circuit, episode, bench=bench()) == found
    short = confirm(ring(), circuit, episode, ConfirmSettings(cycles=2, minutes=1e-4))
    assert short.verdict == "undecided"
    assert "minutes" in short.why


@pytest.mark.slow
def test_a_train_is_followed_and_its_prefix_shared() -> None:
    mesh = ring().mesh
    site = np.flatnonzero((mesh.points_mm[:, 0] < 3.0) & (mesh.points_mm[:, 1] < 3.0)).astype(np.int32)
    b = bench()
    first = b.train(site, (0.0, 400.0))
    assert first.ended == "quiet"
    assert first.laps == 0
    again = b.train(site, (0.0, 400.0))
    np.testing.assert_array_equal(first.log.activation_ms, again.log.activation_ms)
    assert again.model_ms == first.model_ms < 400.0 + 150.0 + 400.0
    early = b.train(site, (0.0, 230.0))
    assert early.ended == "no capture"


@pytest.mark.slow
def test_waves_come_in_through_the_cut_as_the_whole_plate_has_them() -> None:
    twin = ring()
    mesh = twin.mesh
    model = ReentrantEikonal(mesh, {"healthy": SLOW}, load_tables())
    site = np.flatnonzero((mesh.points_mm[:, 0] < 3.0) & (mesh.points_mm[:, 1] < 3.0)).astype(np.int32)
    keep = mesh.conducting() & (mesh.centroids_mm[:, 0] > 14.0)
    part = Bench(twin, keep, BenchSettings(cycles=2))
    times = (0.0, 400.0)
    brought = brought_in(model, part.part, site, times)
    assert all(brought[t] for t in times)
    assert DRIVE_MS == 600.0
    cut, whole = part.train(site, times, brought), bench().train(site, times)
    assert cut.ended == whole.ended == "quiet"
    far = np.array([33.0, 33.0, 1.0])

    def last_at(b: Bench, o: Outcome) -> float:
        node = int(np.argmin(np.linalg.norm(b.part.mesh.points_mm - far, axis=1)))
        return float(o.log.activation_ms[o.log.node == node].max())

    # one wave of the reduced model and one of monodomain over 14 mm of slow tissue
    assert abs(last_at(part, cut) - last_at(bench(), whole)) < 15.0


@pytest.mark.slow
def test_a_plan_is_confirmed_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, episode = circling()
    mesh = ring().mesh
    site = np.flatnonzero((mesh.points_mm[:, 0] < 3.0) & (mesh.points_mm[:, 1] < 3.0)).astype(np.int32)
    # a plate has no anatomy to name sites by
    monkeypatch.setattr(plan, "stimulus_sites", lambda twin, protocol, sites: {"here": site})
    protocol, settings = load_protocol("quick"), ConfirmSettings(cycles=2)

    def confirmed() -> Confirmations:
        return confirm_plan(
            ring(), protocol, [circuit], {"VT1": episode}, PacingSettings(), settings, negatives=1, folder=tmp_path, tell=said.append
        )

    said: list[str] = []
    found = confirmed()
    assert found.by_circuit["VT1"].verdict == "sustained"
    assert [n.verdict for n in found.negatives] == ["not sustained"]
    assert found.counts()["sensitivity"] == found.counts()["specificity"] == 1.0
    assert any("VT1" in line for line in said)
    # each answer was kept, so nothing is computed again
    monkeypatch.setattr(plan, "Bench", None)
    assert confirmed() == found


def test_quiet_trains_are_the_hardest_that_induce_nothing() -> None:
    mesh = ring().mesh
    model = ReentrantEikonal(mesh, {"healthy": SLOW}, load_tables())
    site = np.flatnonzero((mesh.points_mm[:, 0] < 3.0) & (mesh.points_mm[:, 1] < 3.0)).astype(np.int32)
    trains = quiet_trains(model, {"corner": site}, load_protocol("quick"), 2)
    assert len(trains) == 2
    assert all(name == "corner" for name, _ in trains)
    assert len(trains[0][1]) > len(trains[1][1])
    assert trains[0][1][0] == trains[1][1][0] >= 300.0


def test_the_stage_of_a_plan_keeps_its_answers_and_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, episode = circling()
    yes = Confirmation("sustained", "it circled 3 times with 400 ms", "phase", 400.0, 0.02, 3, 1300.0, True, 1000, 0.8, 0.05)
    no = replace(yes, verdict="not sustained", why="it ended after 200 ms", cycle_length_ms=None, cycle_difference=None)
    circuits = [circuit, replace(circuit, id="VT2")]
    asked: list[str] = []

    def answer(twin: Twin, circuit: Circuit, *_: object, **__: object) -> Confirmation:
        asked.append(circuit.id)
        return yes if circuit.id == "VT1" else no

    monkeypatch.setattr(plan, "stimulus_sites", lambda twin, protocol, sites: {"here": np.zeros(1, np.int32)})
    monkeypatch.setattr(plan, "confirm", answer)
    monkeypatch.setattr(plan._Work, "bench", None)
    monkeypatch.setattr(Line, "heart", lambda *_: SimpleNamespace(nodes={"here": np.zeros(1, np.int32)}))
    calibration = cast(Calibration, SimpleNamespace(twin=ring()))
    found = Collected(tuple(circuits), (), {"VT1": episode, "VT2": episode}, 0)

    def stage() -> Confirmations | None:
        line = Line(Stages(tmp_path, said.append, {"induction": "key"}), Console(False), 0, 1)
        return confirmation(line, calibration, found, PlanRequest(confirm=True), PacingSettings())

    said: list[str] = []
    first = stage()
    assert first is not None
    assert asked == ["VT1", "VT2"]
    assert stage() == first
    assert asked == ["VT1", "VT2"]
    assert "reused" in said[-1]
    line = Line(Stages(tmp_path, said.append), Console(False), 0, 1)
    assert confirmation(line, calibration, found, PlanRequest(), PacingSettings()) is None
    bare = Plan({}, {}, {}, (), circuits, (), (), {}, ("a limit",), {})
    shown = with_confirmation(bare, first)
    assert [c.evidence["monodomain"]["verdict"] for c in shown.circuits] == ["sustained", "not sustained"]
    assert shown.limits[0] == "a limit"
    assert "does not bear out VT2" in shown.limits[1]
    assert "too long" in shown.limits[2]
    assert shown.confirmation["sustained"] == shown.confirmation["not_sustained"] == 1
    assert with_confirmation(bare, None) == bare
    assert first.lines()[0].startswith("VT1, monodomain: sustained")
    assert "+2%" in cards._by_monodomain(shown.circuits[0].evidence["monodomain"])
