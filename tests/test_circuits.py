"""Loops, cross-sections, isthmuses and merging, on logs whose circuit is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from graph_model import GraphModel, scar_slab, slab_model, slab_sites
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from meshing.box import box_mesh
from planners.circuits import Likeness, Reentry, collect, describe, merge, same
from planners.circuits.isthmus import smooth_closed
from planners.circuits.loop import find_loops, mean_cycle_ms, typical_cycle_ms
from planners.circuits.sections import Sections
from planners.circuits.sequence import coherence, phases
from planners.pacing import induce_model, load_protocol
from planners.pacing.trace import join
from twin.experiment import Activations
from twin.plan import Circuit


def ring(n: int, laps: int, cycle_ms: float, radius_mm: float) -> tuple[np.ndarray, Activations]:
    """A ring of n nodes and the log of a wave that runs round it, with a dead-end branch node beside every ring node."""
    angle = 2 * np.pi * np.arange(n) / n
    circle = radius_mm * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    k = np.arange(n * laps)
    step = cycle_ms / n
    # in time order: ring node, its branch node, next ring node, ...
    node = np.stack([k % n, k % n + n], axis=1).ravel().astype(np.int32)
    time = np.stack([k * step, (k + 0.4) * step], axis=1).ravel()
    parent = np.stack([np.where(k == 0, -1, 2 * (k - 1)), 2 * k], axis=1).ravel().astype(np.int32)
    log = Activations(node, time, time + 200.0, parent)
    return np.concatenate([circle, 1.2 * circle]), log


@settings(max_examples=20, deadline=None)
@given(st.integers(12, 80), st.floats(180.0, 500.0), st.integers(3, 5))
def test_loop_of_a_ring_is_the_ring(n, cycle_ms, laps):
    points, log = ring(n, laps, cycle_ms, 20.0)
    (loop,) = find_loops(points, log, 1.0)
    assert loop.cycle_length_ms == pytest.approx(cycle_ms)
    assert loop.variation_ms == pytest.approx(0.0, abs=1e-6)
    nodes = log.node[loop.rows]
    assert nodes[0] == nodes[-1]
    assert sorted(nodes[:-1]) == list(range(n))
    assert (np.diff(nodes) % n == 1).all()
    assert typical_cycle_ms(log) == pytest.approx(cycle_ms)


def test_a_wave_that_passes_once_has_no_loop():
    n = np.arange(50)
    log = Activations(n.astype(np.int32), 1.0 * n, n + 200.0, (n - 1).astype(np.int32))
    assert find_loops(np.stack([n, 0 * n, 0 * n], axis=1).astype(float), log, 1.0) == []


def test_smoothing_keeps_a_circle():
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle = 20 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    smooth, index = smooth_closed(circle, 1.5, 3.0)
    # a gaussian shrinks a circle by exp(-(sigma/r)^2 / 2)
    assert np.linalg.norm(smooth, axis=1) == pytest.approx(20 * np.exp(-((3 / 20) ** 2) / 2), rel=2e-3)
    assert (np.diff(index) > 0).all()


@pytest.mark.parametrize("normal", [(1.0, 0, 0), (0.8, 0.6, 0.0)])
def test_cross_section_of_a_plate_is_exact(normal):
    mesh = box_mesh((30.0, 12.0, 4.0), 2.0)
    cut = Sections(mesh).cut(np.array([15.1, 6.0, 2.0]), np.array(normal), np.array([0.0, 0, 1]))
    assert cut is not None
    width = 12.0 / normal[0]
    assert cut.area_mm2 == pytest.approx(width * 4.0, rel=1e-9)
    assert cut.width_mm == pytest.approx(width, rel=0.02)
    assert cut.thickness_mm == pytest.approx(4.0, rel=0.05)
    assert cut.centre_mm[1:] == pytest.approx([6.0, 2.0], abs=1e-6)


def test_cross_section_stops_at_scar_and_finds_no_tissue_far_away():
    mesh = scar_slab()
    sections = Sections(mesh)
    cut = sections.cut(np.array([38.3, 30.0, 2.0]), np.array([1.0, 0, 0]))
    assert cut is not None
    assert cut.area_mm2 == pytest.approx(8 * 4, rel=0.05)
    assert sections.cut(np.array([500.0, 0, 0]), np.array([1.0, 0, 0])) is None


def test_a_sliver_at_the_asked_point_is_not_taken_for_the_channel():
    """One surviving tetrahedron beside the channel, nearer to the asked point than the channel itself."""
    mesh = scar_slab()
    beside = np.linalg.norm(mesh.centroids_mm - [38.3, 35.2, 2.0], axis=1).argmin()
    region = mesh.region.copy()
    region[beside] = 2
    sections = Sections(dataclasses.replace(mesh, region=region))
    cut = sections.cut(mesh.centroids_mm[beside], np.array([1.0, 0, 0]))
    assert cut is not None
    assert cut.area_mm2 == pytest.approx(8 * 4, rel=0.1)


@pytest.fixture(scope="module")
def induced():
    mesh = scar_slab()
    run = induce_model(slab_model(mesh), slab_sites(mesh), load_protocol("quick"))
    return mesh, run


def test_isthmus_of_the_slab_is_the_channel(induced):
    mesh, run = induced
    circuit = describe(Reentry.of(mesh), run.episodes[0].log, "left")
    axis = np.array(circuit.isthmus_mm)
    assert np.abs(axis[:, 1] - 30).max() < 1.0
    assert 22 <= axis[:, 0].min() < 25
    assert 51 < axis[:, 0].max() <= 54
    assert circuit.isthmus_width_mm == pytest.approx(8.0, abs=0.5)
    assert circuit.isthmus_length_mm == pytest.approx(32.0, abs=3.0)
    assert circuit.isthmus_velocity_m_s == pytest.approx(0.2, rel=0.15)
    assert circuit.cycle_length_ms == pytest.approx(285.4, abs=1.0)
    assert circuit.depth == "transmural"
    assert circuit.figure_of_eight
    # paced from the left, S2 is blocked there and comes through from the right
    assert circuit.entrance_mm[0] > circuit.exit_mm[0]
    assert circuit.segment == 7
    path = np.array(circuit.path_mm)
    assert path[0] == pytest.approx(path[-1])
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() < 2.5


def test_opposite_directions_are_two_tachycardias_and_sites_are_merged(induced):
    mesh, run = induced
    found = collect(Reentry.of(mesh), run.inductions, run.episodes)
    assert [(c.id, c.sites) for c in found.circuits] == [("VT1", ("left", "corner")), ("VT2", ("right",))]
    assert [i.circuit for i in found.inductions] == ["VT1", "VT2", "VT1"]
    assert set(found.episodes) == {"VT1", "VT2"}
    assert found.undescribed == 0
    again = collect(Reentry.of(mesh), run.inductions, run.episodes, found.circuits)
    assert len(again.circuits) == 2


def plain(centre, direction=(1.0, 0, 0), cycle=300.0, sites=()) -> Circuit:
    line = [list(np.add(centre, np.multiply(t, direction))) for t in (-10.0, 0.0, 10.0)]
    return Circuit("", cycle, line, line, 8.0, line[0], line[-1], 0, sites, centre)


def test_merging_rules():
    a = plain((0, 0, 0), sites=("x",))
    assert same(a, plain((6, 6, 0)))
    assert not same(a, plain((8, 8, 0)))
    assert not same(a, plain((0, 0, 0), (-1.0, 0, 0)))
    assert same(a, plain((0, 0, 0), cycle=325.0))
    assert not same(a, plain((0, 0, 0), cycle=350.0))
    merged, ids = merge([], [a, plain((30, 0, 0)), dataclasses.replace(a, sites=("y",))])
    assert ids == ["VT1", "VT2", "VT1"]
    assert merged[0].sites == ("x", "y")


def test_cycles_of_unsteady_reentry_do_not_tell_it_apart():
    a = dataclasses.replace(plain((0, 0, 0), cycle=300.0), cycle_variation_ms=20.0)
    slower = dataclasses.replace(plain((0, 0, 0), cycle=360.0), cycle_variation_ms=20.0)
    assert not same(a, slower)
    assert same(a, dataclasses.replace(slower, cycle_variation_ms=60.0))
    assert not same(a, dataclasses.replace(plain((0, 0, 0), (-1.0, 0, 0), 360.0), cycle_variation_ms=60.0))


def test_reentries_that_wander_are_one_where_their_loops_meet():
    def wandering(centre, variation=120.0, length=0.0):
        return dataclasses.replace(plain(centre), cycle_variation_ms=variation, isthmus_length_mm=length)

    assert same(wandering((0, 0, 0)), wandering((25, 0, 0)))
    assert not same(wandering((0, 0, 0)), wandering((35, 0, 0)))
    assert not same(wandering((0, 0, 0)), wandering((25, 0, 0), length=20.0))
    assert not same(wandering((0, 0, 0)), wandering((25, 0, 0), variation=10.0))


def test_ecg_and_way_decide_where_they_are_known():
    a, far = plain((0, 0, 0)), plain((13, 0, 0))
    assert not same(a, far)
    assert same(a, far, Likeness(ecg=0.96))
    assert same(a, plain((40, 0, 0)), Likeness(ecg=0.8, way=0.92))
    assert not same(a, a, Likeness(ecg=0.6, way=0.99))
    assert not same(a, plain((40, 0, 0)), Likeness(way=0.8))


def test_waves_that_follow_each_others_loop_are_in_step_and_opposite_ones_are_not():
    n, turns = 60, 2 * np.pi * np.arange(60) / 60
    points = np.stack([20 * np.cos(turns), 20 * np.sin(turns), 0 * turns], axis=1)
    k = np.arange(4 * n)

    def ring(step: int, start: int, cycle: float) -> tuple[Activations, Circuit]:
        nodes = ((start + step * k) % n).astype(np.int32)
        loop = points[nodes[: n + 1]].tolist()
        return Activations(nodes, k * cycle / n, k * cycle / n + 200, (k - 1).astype(np.int32)), Circuit(
            "", cycle, loop, loop, 1.0, loop[0], loop[0], 0
        )

    tree = cKDTree(points)
    (log, circuit), (later, other), (back, third) = ring(1, 0, 300.0), ring(1, 25, 330.0), ring(-1, 0, 300.0)
    here, there, opposite = (phases(log, n) for log in (log, later, back))
    assert mean_cycle_ms(later) == pytest.approx(330.0)
    assert coherence(tree, circuit, other, here, there) == pytest.approx(1.0, abs=0.01)
    assert coherence(tree, circuit, third, here, opposite) < 0.1
    half = np.where(np.arange(n) < n // 2, here, np.nan)
    assert coherence(tree, circuit, other, half, there) == pytest.approx(0.5, abs=0.02)


def test_loop_round_a_hole_has_its_narrowest_place():
    """No scar tissue at all: a hole with a narrow and a wide side."""
    mesh = box_mesh((60.0, 50.0, 4.0), 2.0)
    x, y, _ = mesh.centroids_mm.T
    mesh = mesh.with_region((x > 14) & (x < 46) & (y > 8) & (y < 30), "scar")
    erp = np.full(mesh.n_points, 150.0)
    model = GraphModel(mesh, 0.4, erp)
    gate = np.flatnonzero((np.abs(mesh.points_mm[:, 0] - 30) < 2.5) & (mesh.points_mm[:, 1] > 29)).astype(np.int32)
    # the first stimulus makes one side of the second refractory
    state, _ = model.run(model.rest(), [(0.0, gate)], 2.0)
    blocked = dataclasses.replace(state, ready_ms=np.where(mesh.points_mm[:, 0] < 29, np.maximum(state.ready_ms, 100.0), state.ready_ms))
    blocked = dataclasses.replace(blocked, pending=tuple(p for p in blocked.pending if mesh.points_mm[p[1], 0] > 30))
    _, log = model.run(blocked, [], 1500.0)
    circuit = describe(Reentry.of(mesh), join([(log.activations, log.parent_node)]))
    assert circuit is not None
    assert circuit.isthmus_width_mm == pytest.approx(8.0, abs=1.0)
    assert np.array(circuit.isthmus_mm)[:, 1].max() < 10
    assert not circuit.figure_of_eight


def test_nothing_to_describe():
    mesh = box_mesh((10.0, 10.0, 2.0), 2.0)
    empty = Activations(np.zeros(0, np.int32), np.zeros(0), np.zeros(0), np.zeros(0, np.int32))
    assert describe(Reentry.of(mesh), empty) is None
