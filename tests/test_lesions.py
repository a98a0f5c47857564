"""Lesion shapes, minimum cuts, strategies, and the search that re-tests them."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pytest
import scipy.sparse as sp
from graph_model import scar_slab, slab_sites
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from planners.circuits import Reentry, collect
from planners.circuits.sections import Sections
from planners.lesions.geometry import LesionMaker, lesion_count, lesion_tets
from planners.lesions.isthmus_transection import channel_of, separated
from planners.lesions.mincut import minimum_vertex_cut
from planners.lesions.result import LesionPlan
from planners.lesions.search import Search
from planners.lesions.strategy import strategy
from planners.outcome import Outcome, Probability, jeffreys, outcome
from planners.pacing import induce_model, load_protocol
from solvers.eikonal.reentrant import ReentrantEikonal
from solvers.eikonal.restitution import load_tables
from twin.errors import InputError
from twin.model import Twin
from twin.plan import PlanRequest, Target
from twin.tissue import Tissue, Velocity

QUICK = load_protocol("quick")
TABLES = load_tables()
ENDO = PlanRequest(access=("lv_endo",))


def slab_model(mesh) -> ReentrantEikonal:
    """The reduced model with the shipped tables and a loop of some 420 ms."""
    return ReentrantEikonal(mesh, {"healthy": Velocity(0.4, 0.4), "isthmus": Velocity(0.15, 0.15)}, TABLES)


def connected(n, edges, removed, source, sink) -> bool:
    keep = [(a, b) for a, b in edges if a not in removed and b not in removed]
    rows = np.array(keep, int).reshape(-1, 2)
    _, label = connected_components(sp.coo_array((np.ones(len(rows)), (rows[:, 0], rows[:, 1])), shape=(n, n)), directed=False)
    return bool(set(label[source]) & set(label[sink]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_minimum_cut_equals_brute_force(data):
    n = data.draw(st.integers(4, 8))
    pairs = list(combinations(range(n), 2))
    edges = data.draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=len(pairs), unique=True))
    cost = np.array(data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n)))
    source, sink = np.zeros(n, bool), np.zeros(n, bool)
    source[: data.draw(st.integers(1, 2))] = True
    sink[n - 1] = True
    inner = [v for v in range(n) if not source[v] and not sink[v]]
    sets = [s for k in range(len(inner) + 1) for s in combinations(inner, k) if not connected(n, edges, s, source, sink)]
    cut = minimum_vertex_cut(np.array(edges), cost, source, sink)
    if not sets:
        assert cut is None
        return
    assert cut is not None
    assert not connected(n, edges, tuple(cut), source, sink)
    assert cost[cut].sum() == min(cost[list(s)].sum() if s else 0 for s in sets)


def test_minimum_cut_refuses_costs_that_overflow():
    with pytest.raises(ValueError, match="below 2"):
        minimum_vertex_cut(np.array([[0, 1]]), np.array([2**30, 1]), np.array([True, False]), np.array([False, True]))


@pytest.mark.parametrize(("radius", "depth"), [(4.0, 6.0), (5.0, 3.0), (4.0, 4.0)])
def test_lesion_volume_is_that_of_the_capsule_or_ellipsoid(radius, depth):
    mesh = scar_slab(1.0, isthmus=False, size=(30.0, 30.0, 9.0))
    mask = lesion_tets(mesh, [[15, 15, 0]], "lv_endo", radius, depth)
    cylinder = np.pi * radius**2 * max(0.0, depth - radius)
    expected = cylinder + 2 / 3 * np.pi * radius**2 * min(radius, depth)
    assert mesh.tet_volumes_mm3[mask].sum() == pytest.approx(expected, rel=0.05)
    assert mesh.centroids_mm[mask][:, 2].max() <= depth


def test_lesions_end_at_the_wall_and_go_inwards_from_either_side():
    mesh = scar_slab(1.0, isthmus=False, size=(30.0, 30.0, 9.0))
    below = lesion_tets(mesh, [[15, 15, 0]], "lv_endo", 4, 5)
    above = lesion_tets(mesh, [[15, 15, 9]], "epi", 4, 5)
    assert mesh.centroids_mm[above][:, 2].min() >= 4
    assert mesh.tet_volumes_mm3[above].sum() == pytest.approx(mesh.tet_volumes_mm3[below].sum(), rel=0.02)
    corner = lesion_tets(mesh, [[0, 0, 0]], "lv_endo", 4, 5)
    assert mesh.tet_volumes_mm3[corner].sum() == pytest.approx(mesh.tet_volumes_mm3[below].sum() / 4, rel=0.1)
    two = lesion_tets(mesh, [[10, 15, 0], [20, 15, 0]], "lv_endo", 4, 5)
    assert mesh.tet_volumes_mm3[two].sum() == pytest.approx(2 * mesh.tet_volumes_mm3[below].sum(), rel=0.02)


@pytest.mark.parametrize("edge", [0.8, 1.2])
def test_a_strand_too_thin_to_conduct_goes_with_the_lesion(edge):
    mesh = scar_slab(edge, isthmus=False, size=(30.0, 24.0, 7.2))
    below = np.linalg.norm(mesh.centroids_mm[:, :2] - [15, 12], axis=1) < 1.0
    deep = mesh.centroids_mm[:, 2]
    thin = lesion_tets(mesh, [[15, 12, 0]], "lv_endo", 4, 6.6)
    assert thin[below].all()  # 0.6 mm are left under its end
    wide = lesion_tets(mesh, [[15, 12, 0]], "lv_endo", 4, 5.2)
    assert not wide[below & (deep > 5.4)].any()  # 2 mm are left
    # its rim on the surface is no gap: a capsule's volume to the share of a tetrahedron
    assert mesh.tet_volumes_mm3[wide].sum() == pytest.approx(np.pi * 16 * 1.2 + 2 / 3 * np.pi * 64, rel=0.06)


@pytest.mark.parametrize(("apart", "closed"), [(8.6, True), (10.0, False)])
def test_two_lesions_close_a_gap_that_does_not_conduct(apart, closed):
    mesh = scar_slab(1.0, isthmus=False, size=(30.0, 24.0, 6.0))
    row = [[15 - apart / 2, 12, 0], [15 + apart / 2, 12, 0]]
    between = np.linalg.norm(mesh.centroids_mm - [15, 12, 1.5], axis=1) < 0.9
    assert lesion_tets(mesh, row, "lv_endo", 4, 5)[between].all() == closed
    assert not lesion_tets(mesh, row[:1], "lv_endo", 4, 5)[between].all()


def test_impossible_lesions_are_input_errors():
    mesh = scar_slab()
    with pytest.raises(InputError, match="no surface 'rv_endo'"):
        lesion_tets(mesh, [[0, 0, 0]], "rv_endo", 4, 6)
    with pytest.raises(InputError, match="must be positive"):
        lesion_tets(mesh, [[0, 0, 0]], "lv_endo", 0, 6)
    with pytest.raises(InputError, match="did you mean 'isthmus_transection'"):
        strategy("isthmus_transecton")


def twin_of(mesh) -> Twin:
    none = np.zeros(0)
    tissue = Tissue((), np.zeros((1, 0)), none, none, {}, np.zeros(0, np.int32), none)
    return Twin(mesh, tissue, np.eye(4))


@pytest.fixture(scope="module")
def case():
    mesh = scar_slab()
    run = induce_model(slab_model(mesh), slab_sites(mesh), QUICK)
    found = collect(Reentry.of(mesh), run.inductions, run.episodes)
    return twin_of(mesh), run, found.circuits


def retest_of(mesh, calls=None):
    model, where = slab_model(mesh), slab_sites(mesh)

    def retest(blocked, sites):
        if calls is not None:
            calls.append(tuple(sites))
        nodes = {s: where[s] for s in sites}
        return induce_model(model.with_blocked(blocked), nodes, QUICK, stop_at_first=True, require_capture=False)

    return retest


def test_transection_separates_the_channel_with_a_short_row(case):
    twin, _, circuits = case
    maker = LesionMaker(twin.mesh)
    targets = strategy("isthmus_transection").propose(twin, circuits, ENDO, maker, [])
    channel = channel_of(twin.mesh, Sections(twin.mesh), circuits[0])
    assert separated(twin.mesh, channel, maker.mask(targets))
    assert not separated(twin.mesh, channel, maker.mask([]))
    assert lesion_count(targets) == 2
    assert {c for t in targets for c in t.circuits} == {"VT1", "VT2"}
    (row,) = (np.array(t.positions_mm) for t in targets)
    assert np.linalg.norm(row[0] - row[1]) <= 5.0
    assert np.abs(row[:, 1] - 30).max() <= 4.0
    assert "bridge" not in targets[0].why


def test_a_wall_that_is_too_thick_leaves_a_bridge_that_the_other_side_closes():
    mesh = scar_slab(size=(76.0, 60.0, 12.0))
    run = induce_model(slab_model(mesh), {"left": slab_sites(mesh)["left"]}, QUICK)
    found = collect(Reentry.of(mesh), run.inductions, run.episodes)
    twin, maker = twin_of(mesh), LesionMaker(mesh)
    channel = channel_of(mesh, Sections(mesh), found.circuits[0])
    endo = strategy("isthmus_transection").propose(twin, found.circuits, ENDO, maker, [])
    assert "bridge" in endo[0].why
    assert not separated(mesh, channel, maker.mask(endo))
    both = strategy("isthmus_transection").propose(
        twin, found.circuits, PlanRequest(access=("lv_endo", "epi"), lesion_depth_mm=7.0), maker, []
    )
    assert {t.surface for t in both} == {"lv_endo", "epi"}
    assert separated(mesh, channel, maker.mask(both))


def test_homogenisation_covers_the_surviving_tissue(case):
    twin, _, circuits = case
    maker = LesionMaker(twin.mesh)
    targets = strategy("border_homogenisation").propose(twin, circuits, ENDO, maker, [])
    sick = twin.mesh.in_region("isthmus")
    left = maker.volume_ml(sick & ~maker.mask(targets)) / maker.volume_ml(sick)
    assert left < 0.1


@pytest.fixture(scope="module")
def planned(case):
    twin, run, circuits = case
    calls = []
    return Search(twin, ENDO, list(slab_sites(twin.mesh)), retest_of(twin.mesh, calls)).plan(run, circuits), calls


def test_search_chooses_the_smallest_set_that_leaves_nothing(case, planned):
    twin, _, _ = case
    plan, calls = planned
    assert plan.non_inducible
    assert plan.residual == ()
    assert [t.id for t in plan.targets] == ["T1"]
    assert calls[0] == ("left", "right", "corner")
    assert [a["strategy"] for a in plan.alternatives] == ["isthmus_transection"]
    plan = Search(twin, ENDO, list(slab_sites(twin.mesh)), retest_of(twin.mesh, calls)).compared(plan, case[1], case[2])
    scores = {a["strategy"]: a for a in plan.alternatives}
    assert scores["isthmus_transection"]["chosen"]
    assert scores["border_homogenisation"]["non_inducible"]
    assert scores["isthmus_transection"]["volume_ml"] < 0.5 * scores["border_homogenisation"]["volume_ml"]
    assert plan.volume_ml == pytest.approx(LesionMaker(twin.mesh).volume_ml(plan.blocked), abs=1e-3)
    assert {i.site for i in plan.inductions} == {"left", "right", "corner"}


def test_search_result_is_saved_and_loaded(planned, tmp_path):
    plan, _ = planned
    plan.save(tmp_path)
    loaded = LesionPlan.load(tmp_path)
    assert dataclasses.asdict(loaded)["targets"] == dataclasses.asdict(plan)["targets"]
    assert loaded.alternatives == plan.alternatives
    assert (loaded.blocked == plan.blocked).all()


def test_search_says_when_nothing_suffices_or_is_allowed(case):
    twin, run, circuits = case
    search = Search(twin, dataclasses.replace(ENDO, max_volume_ml=0.01), list(slab_sites(twin.mesh)), retest_of(twin.mesh))
    plan = search.plan(run, circuits)
    assert not plan.targets
    assert not plan.non_inducible
    assert "larger than the 0.01 mL allowed" in plan.notes[-1]

    stubborn = Search(twin, ENDO, list(slab_sites(twin.mesh)), lambda blocked, sites: run)
    plan = stubborn.plan(run, circuits)
    assert not plan.non_inducible
    assert "VT1" in {c.id for c in plan.residual}
    assert plan.notes[-1] == "VT is still inducible with the proposed lesions"
    assert max(t.radius_mm for t in plan.targets) == 5.0


def test_nothing_induced_means_nothing_proposed():
    mesh = scar_slab(isthmus=False)
    run = induce_model(slab_model(mesh), slab_sites(mesh), QUICK)
    plan = Search(twin_of(mesh), ENDO, list(slab_sites(mesh)), retest_of(mesh)).plan(run, [])
    assert plan.non_inducible
    assert plan.targets == ()
    assert not plan.blocked.any()


def test_useless_lesions_are_pruned(case):
    twin, _, circuits = case
    search = Search(twin, ENDO, list(slab_sites(twin.mesh)), retest_of(twin.mesh))
    search.circuits, search.inducing = list(circuits), ["left", "right", "corner"]
    targets = strategy("isthmus_transection").propose(twin, circuits, ENDO, search.maker, [])
    extra = Target("", [[10.0, 10.0, 0.0]], "lv_endo", 4.0, 6.0, 0, "")
    candidate = search._candidate("isthmus_transection", [*targets, extra])
    search._prune(candidate)
    assert lesion_count(candidate.targets) == 2
    assert candidate.non_inducible or candidate.last is not None


def test_lesions_that_no_train_needs_are_left_out_in_halves():
    mesh = scar_slab()
    model, where = slab_model(mesh), slab_sites(mesh)
    run = induce_model(model, where, QUICK)
    asked = []

    def repeat(blocked, trains):
        asked.append(len(trains))
        return retest_of(mesh)(blocked, [e.site for e in trains]).induced

    search = Search(twin_of(mesh), ENDO, list(where), retest_of(mesh), repeat)
    search.inducing, search.trains = ["left", "right", "corner"], run.episodes[:1]
    row = [[38.0, y, 0.0] for y in (28.0, 32.0)]
    idle = [[x, y, 0.0] for x in (6.0, 70.0) for y in (10.0, 30.0, 50.0)]
    candidate = search._candidate("border_homogenisation", [Target("", [*idle, *row], "lv_endo", 4.0, 6.0, 0, "")])
    search._prune(candidate)
    assert candidate.targets[0].positions_mm == row
    assert candidate.non_inducible or candidate.last is not None
    assert len(asked) <= 10
    # a re-test that is still inducible puts its train beside the others, and the set stays as it was
    search = Search(twin_of(mesh), ENDO, list(where), retest_of(mesh), lambda blocked, trains: asked.append(len(trains)) or False)
    search.inducing, search.trains = ["left", "right", "corner"], run.episodes[:1]
    candidate = search._candidate("border_homogenisation", [Target("", [*idle, *row], "lv_endo", 4.0, 6.0, 0, "")])
    search._prune(candidate)
    assert lesion_count(candidate.targets) == 8
    assert asked[-1] == 3


def test_jeffreys_interval():
    low, high = jeffreys(8, 8)
    assert high == 1.0
    assert low == pytest.approx(0.7379, abs=2e-3)  # Beta(8.5, 0.5) at 2.5 %
    assert jeffreys(0, 8) == pytest.approx((0.0, 1 - low))
    assert Probability.of([]) == Probability(0, 0, 0.5, 0.0, 1.0)
    assert Probability.of([True, False]).estimate == 0.5


def test_outcome_counts_samples_before_and_after(case, planned, monkeypatch):
    twin, run, _ = case
    plan, _ = planned
    twin = dataclasses.replace(twin, tissue=dataclasses.replace(twin.tissue, samples=np.zeros((4, 0))))
    model, where = slab_model(twin.mesh), slab_sites(twin.mesh)

    class Paced:
        def __init__(self, twin, protocol, sites, settings, *, tissue_sample):
            self.protocol, self.nodes, self.sample = protocol, {s: where[s] for s in sites}, tissue_sample

        def induce(self, *, blocked, **_):
            # the lesion of the last sample fails; the mode is not asked
            assert self.sample > 0
            lesion = blocked if self.sample < 3 else np.zeros_like(blocked)
            return induce_model(model.with_blocked(lesion), self.nodes, self.protocol, stop_at_first=True, require_capture=False)

    monkeypatch.setattr("planners.outcome.PacedHeart", Paced)
    one, two = (outcome(twin, plan, run, PlanRequest(posterior_samples=8), threads=t) for t in (1, 2))
    assert one == two
    assert (one.before.successes, one.after.successes, one.after.samples) == (0, 2, 3)
    assert one.sites == ("left", "right")
    assert len(one.residual) == 1
    assert one.as_dict()["interval"] == [one.after.low, one.after.high]


def test_outcome_is_saved_and_loaded(tmp_path):
    value = Outcome(Probability.of([True]), Probability.of([False]), ("a",), "quick", ())
    value.save(tmp_path)
    assert Outcome.load(tmp_path) == value
