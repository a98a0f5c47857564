"""Protocols, capture and reentry from logs, induction: resume, thread count, lost capture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from graph_model import GraphModel, scar_slab, slab_model, slab_sites

from meshing.box import box_mesh
from planners.pacing import InductionRun, induce_model, load_protocol, protocol_names
from planners.pacing.protocol import parse
from planners.pacing.site import Site
from planners.pacing.trace import UNKNOWN, captured, join, kind_of, reentered, roots, steady_cycle_ms, tail
from twin.atomic import dumps
from twin.errors import InputError, Interrupted
from twin.experiment import Activations

QUICK = load_protocol("quick")


@pytest.fixture(scope="module")
def slab():
    mesh = scar_slab()
    return mesh, slab_model(mesh), slab_sites(mesh)


@pytest.fixture(scope="module")
def undisturbed(slab):
    _, model, sites = slab
    return induce_model(model, sites, QUICK)


def same(a: InductionRun, b: InductionRun) -> bool:
    """Equal to the last bit, logs included."""
    plain = [dumps({"i": [dataclasses.asdict(i) for i in r.inductions], "n": r.attempts}) for r in (a, b)]
    logs = [
        [(e.site, e.coupling_ms, *(getattr(e.log, f).tobytes() for f in ("node", "activation_ms", "parent"))) for e in r.episodes]
        for r in (a, b)
    ]
    return plain[0] == plain[1] and logs[0] == logs[1]


def test_shipped_protocols_are_what_the_laboratory_does():
    assert protocol_names() == ["burst", "clinical_eps", "quick", "twin19"]
    clinical = load_protocol("clinical_eps")
    assert [(d.cycle_ms, d.beats, d.computed_beats) for d in clinical.drives] == [(600, 8, 8), (400, 8, 8)]
    assert len(clinical.extras) == 3
    assert clinical.sites == ("rv_apex", "rv_outflow")
    assert len(load_protocol("twin19").sites) == 19
    assert {"rv_apex", "rv_outflow"} < set(QUICK.sites)
    assert len(QUICK.sites) >= 5


def test_intervals_step_down_to_the_floor_and_stay_below_the_drive():
    extra = load_protocol("clinical_eps").extras[0]
    assert extra.intervals_ms(600) == tuple(range(400, 199, -20))
    assert extra.intervals_ms(400) == tuple(range(380, 199, -20))


def test_unknown_protocol_and_keys_are_suggested():
    with pytest.raises(InputError, match="did you mean 'quick'"):
        load_protocol("quik")
    with pytest.raises(InputError, match=r"drive\.cycl_ms.*did you mean 'cycle_ms'"):
        parse("mine", {"drive": [{"cycl_ms": 1.0}], "extra": [], "sustained": {}})


def test_join_links_parents_over_runs():
    first = Activations(np.array([0, 1, 0], np.int32), np.array([0.0, 1.0, 1.5]), np.full(3, 9.0), np.array([-1, 0, -1], np.int32))
    second = Activations(
        np.array([2, 0, 3], np.int32), np.array([2.0, 20.0, 21.0]), np.full(3, 9.0), np.array([UNKNOWN, UNKNOWN, 1], np.int32)
    )
    log = join([(first, np.array([-1, 0, -1])), (second, np.array([0, 7, 0]))])
    assert log.parent.tolist() == [-1, 0, -1, 2, UNKNOWN, 4]
    assert roots(log).tolist() == [0, 0, 2, 2, 4, 4]
    later = tail(log, 2.0)
    assert later.parent.tolist() == [UNKNOWN, UNKNOWN, 1]
    assert later.node.tolist() == [2, 0, 3]
    assert len(join([]).node) == 0


def ring_log(n: int = 40, laps: int = 5, cycle_ms: float = 300.0) -> Activations:
    """A wave that runs round a ring of n nodes."""
    k = np.arange(n * laps)
    return Activations((k % n).astype(np.int32), k * cycle_ms / n, k * cycle_ms / n + 200, (k - 1).astype(np.int32))


def test_reentry_and_its_cycle_are_read_from_a_ring():
    log = ring_log()
    assert captured(log, 0.0)
    assert reentered(log, 0.0) == 4
    assert steady_cycle_ms(log, 0.0, 3, 0.05) == pytest.approx(300.0)
    assert steady_cycle_ms(log, 0.0, 5, 0.05) is None


def test_unsteady_reentry_is_not_called_identical():
    log = ring_log()
    wobble = dataclasses.replace(log, activation_ms=log.activation_ms * (1 + log.activation_ms / 4000))
    assert steady_cycle_ms(wobble, 0.0, 3, 0.05) is None


def test_a_wave_that_goes_nowhere_did_not_capture():
    alone = Activations(np.array([3, 4], np.int32), np.zeros(2), np.full(2, 9.0), np.array([-1, -1], np.int32))
    assert not captured(alone, 0.0)
    assert not captured(ring_log(), 50.0)


def test_reentry_is_induced_only_where_there_is_an_isthmus(slab, undisturbed):
    assert undisturbed.inducing_sites == ("left", "right", "corner")
    for e in undisturbed.episodes:
        assert e.cycle_length_ms == pytest.approx(285, abs=3)
    assert all(i.circuit is None and i.captured for i in undisturbed.inductions)
    mesh = scar_slab(isthmus=False)
    run = induce_model(slab_model(mesh), slab_sites(mesh), QUICK)
    assert not run.induced
    assert [i.captured for i in run.inductions] == [True] * 3
    assert "loss of capture" in run.inductions[0].note


def test_the_whole_time_is_followed_where_no_identical_cycles_suffice(slab):
    _, model, sites = slab
    strict = dataclasses.replace(QUICK, sustained=dataclasses.replace(QUICK.sustained, identical_cycles=0))
    run = induce_model(model, {"left": sites["left"]}, strict)
    assert run.inductions[0].sustained_ms > 900
    assert run.inductions[0].note.endswith("reentry for 2000 ms")


def test_burst_pacing_is_made_faster_until_it_is_not_followed(slab):
    _, model, sites = slab
    burst = load_protocol("burst")
    assert not burst.extras
    run = induce_model(model, {"left": sites["left"]}, burst)
    assert run.inducing_sites == ("left",)
    assert all(i.kind == "monomorphic" and i.coupling_ms == () for i in run.inductions if i.induced)
    mesh = scar_slab(isthmus=False)
    run = induce_model(slab_model(mesh), {"left": slab_sites(mesh)["left"]}, burst)
    assert not run.induced
    # healthy muscle recovers after 220 ms: every burst of the protocol is followed
    assert [i.captured for i in run.inductions] == [True] * len(burst.drives)
    fast = dataclasses.replace(burst, drives=tuple(dataclasses.replace(d, cycle_ms=d.cycle_ms - 30.0) for d in burst.drives))
    run = induce_model(slab_model(mesh), {"left": slab_sites(mesh)["left"]}, fast)
    assert "not followed one to one" in run.inductions[-1].note


def test_kinds_of_reentry_are_told_apart():
    log = ring_log()
    lap = np.arange(len(log.node)) // 40
    wobble = dataclasses.replace(log, activation_ms=log.activation_ms + 60.0 * (lap % 2))
    assert kind_of(log, 0.0, True) == "monomorphic"
    assert kind_of(wobble, 0.0, True) == "polymorphic"
    assert kind_of(log, 0.0, False) == "non-sustained"


def test_reentry_that_ends_is_called_non_sustained(slab):
    mesh, _, sites = slab
    sick = np.zeros(mesh.n_points, bool)
    sick[mesh.tets[mesh.in_region("isthmus")].ravel()] = True
    left = mesh.points_mm[:, 0] < 38
    # after the first turn the left half has not recovered: one echo, then block
    model = GraphModel(mesh, np.where(sick, 0.2, 0.6), np.where(sick, np.where(left, 289.0, 230.0), 220.0))
    run = induce_model(model, {"left": sites["left"]}, QUICK)
    assert not run.induced
    assert any("non-sustained" in i.note and i.kind == "non-sustained" for i in run.inductions)


def test_thread_count_does_not_matter(slab, undisturbed):
    _, model, sites = slab
    assert same(induce_model(model, sites, QUICK, threads=2), undisturbed)
    one, two = (induce_model(model, sites, QUICK, threads=t, stop_at_first=True) for t in (1, 2))
    assert same(one, two)
    assert one.inducing_sites == ("left",)


class StopsAt:
    """A model that is interrupted in its k-th run."""

    def __init__(self, model, after: int, error: type[BaseException]):
        self.model, self.left, self.error = model, after, error

    def rest(self):
        return self.model.rest()

    def run(self, state, stimuli, until_ms):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.model.run(state, stimuli, until_ms)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupted_induction_resumes_to_the_same_result(slab, undisturbed, tmp_path, threads):
    _, model, sites = slab
    with pytest.raises(KeyboardInterrupt):
        induce_model(StopsAt(model, 45, KeyboardInterrupt), sites, QUICK, folder=tmp_path, threads=threads)
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert 0 < len(kept) < 3
    counted = StopsAt(model, 10**6, KeyboardInterrupt)
    assert same(induce_model(counted, sites, QUICK, folder=tmp_path, threads=threads), undisturbed)
    used = 10**6 - counted.left
    again = StopsAt(model, 0, KeyboardInterrupt)
    assert same(induce_model(again, sites, QUICK, folder=tmp_path), undisturbed)
    assert used > 0


def test_a_stopped_site_says_so(slab):
    _, model, sites = slab
    with pytest.raises(Interrupted):
        Site(model, sites["left"], QUICK, "left", lambda: True).pace()


def test_run_is_saved_and_loaded(undisturbed, tmp_path):
    undisturbed.save(tmp_path)
    assert same(InductionRun.load(tmp_path), undisturbed)


def test_a_drive_that_captures_nothing_is_an_input_error(slab):
    mesh, model, sites = slab
    scar = np.setdiff1d(mesh.tets[mesh.in_region("scar")], mesh.tets[mesh.conducting()]).astype(np.int32)
    with pytest.raises(InputError, match="captured from none of the sites"):
        induce_model(model, {"in_scar": scar[:10]}, QUICK)
    short = dataclasses.replace(QUICK, drives=(dataclasses.replace(QUICK.drives[0], cycle_ms=150.0),))
    with pytest.raises(InputError, match="150 ms"):
        induce_model(model, {"left": sites["left"]}, short)
    run = induce_model(model, {"in_scar": scar[:10], "left": sites["left"]}, QUICK)
    assert [i.captured for i in run.inductions] == [False, True]


def test_healthy_plate_fires_once_per_stimulus():
    mesh = box_mesh((20.0, 20.0, 2.0), 2.0)
    model = GraphModel(mesh, 0.5, 200.0)
    _, log = model.run(model.rest(), [(0.0, np.array([0])), (300.0, np.array([0]))], 1000.0)
    joined = join([(log.activations, log.parent_node)])
    assert reentered(joined, 300.0) == 0
    assert (np.bincount(joined.node) == 2).all()
