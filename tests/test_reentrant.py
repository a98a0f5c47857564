"""The re-excitable eikonal: rings, strips and a scar with an isthmus whose answers are known, and what must hold in every run."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from meshing.box import box_mesh
from solvers.eikonal import ReentrantEikonal, RestitutionTable, Settings, State, Sustained
from solvers.eikonal.restitution import load_tables
from solvers.verify import junction
from solvers.verify.eikonal import annulus, ball_slowing, fixed_point_ms, last_cycle_ms, one_way, refractory, restituting, steady
from twin.errors import InputError
from twin.mesh import REGIONS, HeartMesh
from twin.tissue import Velocity

RADIUS, WIDTH = 30.0, 10.0
SHARP = Settings(wait_ms=20.0, latency_ms=0.0, extension_ms=0.0, blend_ms=0.0)
"""Each node takes the sickest tissue it touches: the setting of the scar tests in design/reentry.md, 3A."""
RING_MS = 2 * np.pi * RADIUS / 0.5


def ring(table, settings=None, spacing=2.0, width=WIDTH):
    mesh, turn = annulus(RADIUS, width, spacing)
    return ReentrantEikonal(mesh, {"healthy": Velocity(0.5, 0.5)}, {"healthy": table}, settings), turn


def sick(table: RestitutionTable) -> RestitutionTable:
    """A placeholder for border zone: longer action potential, later recovery."""
    return RestitutionTable(table.di_ms + 10.0, table.apd_ms + 60.0, table.cv_factor, "placeholder")


def plate(spacing: float = 2.0) -> HeartMesh:
    """A plate with a round scar crossed by an isthmus along the fibres (y)."""
    mesh = box_mesh((100.0, 100.0, spacing), spacing, (0.0, 1.0, 0.0), "alternating")
    x, y = (mesh.centroids_mm - 50.0).T[:2]
    scar = np.hypot(x, y) < 37.5
    return mesh.with_region(scar & (abs(x) > 3.0), "scar").with_region(scar & (abs(x) <= 3.0), "isthmus")


def plate_model(mesh: HeartMesh, settings: Settings | None = None) -> ReentrantEikonal:
    speeds = {"healthy": Velocity(0.85, 0.47), "border_zone": Velocity(0.4, 0.15)}
    return ReentrantEikonal(mesh, speeds, {"healthy": restituting(), "border_zone": sick(restituting())}, settings or SHARP)


def near(mesh: HeartMesh, x: float, y: float, radius: float) -> np.ndarray:
    return np.flatnonzero(np.hypot(mesh.points_mm[:, 0] - x, mesh.points_mm[:, 1] - y) <= radius)


def driven(model: ReentrantEikonal, until=1800.0):
    """Three beats of 600 ms beside the scar, then S1 at its middle."""
    first, second = near(model.mesh, 40.0, 0.0, 2.0), near(model.mesh, 50.0, 0.0, 3.0)
    state, _ = model.run(model.rest(), [(600.0 * k, first) for k in range(3)] + [(1800.0, second)], 1800.0 + 200.0)
    return state, second


def capture_interval(model, state, nodes):
    """Shortest S2 interval in steps of 5 ms that is captured."""
    for interval in range(200, 500, 5):
        if model.run(state, [(1800.0 + interval, nodes)], 1800.0 + interval)[1].captured[0]:
            return interval
    raise AssertionError("no interval is captured")


@pytest.fixture(scope="module")
def reentry():
    """The plate after an S2 that induces re-entry: model, state 1.5 s later, log of those."""
    model = plate_model(plate())
    state, nodes = driven(model)
    at = 1800.0 + capture_interval(model, state, nodes) + 10.0
    return model, *model.run(state, [(at, nodes)], at + 3000.0)


@pytest.mark.parametrize("spacing", [1.5, 3.0])
def test_ring_keeps_the_cycle_of_its_inner_edge(spacing):
    model, turn = ring(steady(200.0, 40.0), spacing=spacing)
    log = one_way(model, turn, 5000.0, 4.0, RADIUS)
    assert last_cycle_ms(log) == pytest.approx(RING_MS, rel=0.005)
    times = log.activations.activation_ms[log.activations.node == 0]
    assert len(times) > 11
    assert np.ptp(np.diff(times)[3:]) < 0.01


@pytest.mark.parametrize(("erp", "alive"), [(RING_MS - 4.0 / 0.5 - 5.0, True), (RING_MS + 2.0, False)])
def test_ring_dies_when_its_tissue_recovers_too_late(erp, alive):
    # narrow: in a wide ring the outer tissue is reached later and recovers in time
    model, turn = ring(steady(erp - 40.0, 40.0), Settings(wait_ms=0.0, latency_ms=0.0), width=6.0)
    log = one_way(model, turn, 4000.0, 4.0, RADIUS)
    assert log.quiet is not alive
    assert bool(log.activations.activation_ms.max() > 3900.0) is alive
    assert alive or log.blocked > 0


@pytest.mark.parametrize("inner", [36.0, 45.0])
def test_ring_with_restitution_finds_its_fixed_point(inner):
    mesh, turn = annulus(inner, WIDTH, 2.0)
    model = ReentrantEikonal(mesh, {"healthy": Velocity(0.6, 0.6)}, {"healthy": restituting()})
    log = one_way(model, turn, 6000.0, 4.0, inner)
    assert last_cycle_ms(log) == pytest.approx(fixed_point_ms(2 * np.pi * inner, 0.6, restituting()), rel=0.005)


def test_symmetric_stimulus_fires_every_node_once():
    model, turn = ring(steady(200.0, 40.0))
    _, log = model.run(model.rest(), [(0.0, np.flatnonzero(np.minimum(turn, 2 * np.pi - turn) < 0.1))], 5000.0)
    assert log.quiet
    assert (np.bincount(log.activations.node, minlength=model.mesh.n_points) == 1).all()
    assert np.pi * RADIUS / 0.5 - 10.0 < log.activations.activation_ms.max() < np.pi * (RADIUS + WIDTH) / 0.5


def test_refractory_gradient_blocks_on_the_side_that_recovers_late():
    """S2 from the middle of a strip whose right half has 80 ms more APD: the left half conducts, the right half does not."""
    mesh = box_mesh((80.0, 4.0, 2.0), 2.0)
    x = mesh.points_mm[:, 0]
    mesh = mesh.with_region(mesh.centroids_mm[:, 0] > 46.0, "border_zone")
    speed = dict.fromkeys(("healthy", "border_zone"), Velocity(0.5, 0.5))
    model = ReentrantEikonal(mesh, speed, {"healthy": steady(200.0, 40.0), "border_zone": steady(280.0, 40.0)}, SHARP)
    middle = np.flatnonzero(abs(x - 40.0) < 1.0)
    for interval, right in ((250.0, False), (335.0, True)):
        _, log = model.run(model.rest(), [(0.0, middle), (interval, middle)], 1000.0)
        again = np.bincount(log.activations.node, minlength=mesh.n_points) == 2
        assert again[x < 45.0].all()
        assert again[x > 47.0].all() == right
        assert again[x > 47.0].any() == right
        assert (log.blocked > 0) is not right


def test_strip_follows_its_tables_and_blocks_below_them():
    table = RestitutionTable(
        np.array([40.0, 80.0, 150.0, 300.0, 600.0]), [180.0, 215.0, 250.0, 280.0, 290.0], [0.5, 0.7, 0.85, 0.97, 1.0], "x"
    )
    mesh = box_mesh((60.0, 2.0, 2.0), 2.0)
    model = ReentrantEikonal(mesh, {"healthy": Velocity(0.6, 0.6)}, {"healthy": table}, Settings(wait_ms=0.0, extension_ms=0.0))
    x = mesh.points_mm[:, 0]
    face, time = np.flatnonzero(x < 1e-9), 0.0
    beats = [time := time + interval for interval in (600.0, 600.0, 450.0, 380.0, 330.0)]
    _, log = model.run(model.rest(), [(t, face) for t in beats], 4000.0)
    a = log.activations
    end_before = None
    for beat in range(len(beats)):
        rows = [np.flatnonzero(a.node == v)[beat] for v in np.flatnonzero(abs(x - 30.0) < 1e-9)]
        at, end = a.activation_ms[rows].mean(), a.recovery_ms[rows].mean()
        if end_before is not None:
            di = at - end_before
            assert end - at == pytest.approx(np.interp(di, table.di_ms, table.apd_ms), abs=0.5)
            local = [np.flatnonzero(a.node == v)[beat] for v in np.flatnonzero(abs(x - 32.0) < 1e-9)]
            assert 2.0 / (a.activation_ms[local].mean() - at) == pytest.approx(0.6 * np.interp(di, table.di_ms, table.cv_factor), abs=0.006)
        end_before = end
    # S2 20 ms before the slower far end has recovered, but after the near end
    state, _ = model.run(model.rest(), [(0.0, face)], 200.0)
    refractory(state, x > 30.0, 600.0)
    _, log = model.run(state, [(400.0, face)], 2000.0)
    assert log.captured == (len(face),)
    assert (log.blocked, log.waited) == (np.isclose(x, 32.0).sum(), 0)
    assert log.activations.node[log.activations.activation_ms > 300.0].size == (x < 31.0).sum()


def test_stimulus_on_refractory_tissue_does_not_capture():
    model, _ = ring(steady(200.0, 40.0))
    # ready at 240 ms: just out of reach of the electrode
    early = 239.0 - Settings().latency_ms
    _, log = model.run(model.rest(), [(0.0, np.array([0])), (early, np.array([0])), (1000.0, np.array([0]))], 3000.0)
    assert log.captured == (1, 0, 1)
    assert np.bincount(log.activations.node).tolist() == [2] * model.mesh.n_points


def test_an_electrode_captures_tissue_about_to_recover_with_latency():
    model, _ = ring(steady(200.0, 40.0))
    _, log = model.run(model.rest(), [(0.0, np.array([0])), (230.0, np.array([0]))], 230.0 + 30.0)
    assert log.captured == (1, 1)
    times = log.activations.activation_ms[log.activations.node == 0]
    assert times == pytest.approx([0.0, 240.0])


@pytest.mark.parametrize(("slower_m_s", "passes"), [(0.48, True), (0.15, False)])
@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_a_front_may_not_follow_slow_recovery_for_long(spacing, slower_m_s, passes):
    """Recovery that runs ahead slower than the front lets it catch up: it is blocked once it has waited in all for `wait_ms`."""
    mesh = box_mesh((60.0, 2.0, 2.0), spacing)
    model = ReentrantEikonal(mesh, {"healthy": Velocity(0.5, 0.5)}, {"healthy": steady(200.0, 40.0)}, Settings())
    x = mesh.points_mm[:, 0]
    face = np.flatnonzero(x < 1e-9)
    state, _ = model.run(model.rest(), [(0.0, face)], 300.0)
    state.ready_ms[:] = 300.0 + x / slower_m_s
    state.end_ms[:] = state.ready_ms - 40.0
    _, log = model.run(state, [(300.0, face)], 2000.0)
    reached = x[log.activations.node[log.activations.activation_ms >= 300.0]].max()
    assert reached > 59.0 if passes else reached < 6.0


@pytest.mark.parametrize("settings", [SHARP, Settings(wait_ms=5.0, extension_ms=30.0, blend_ms=0.0), Settings()])
def test_what_must_hold_in_every_run(settings):
    model = plate_model(plate(2.5), settings)
    state, nodes = driven(model)
    at = 1800.0 + capture_interval(model, state, nodes) + 10.0
    _, log = model.run(state, [(at, nodes)], at + 1500.0)
    a = log.activations
    assert (np.diff(a.activation_ms) >= 0).all()
    # firings of one node: the interval is at least the APD and the smallest DI
    order = np.lexsort((a.activation_ms, a.node))
    same = a.node[order][1:] == a.node[order][:-1]
    rest = (a.activation_ms[order][1:] - a.recovery_ms[order][:-1])[same]
    smallest = (model.weights @ model._di_min)[a.node[order][1:][same]]
    assert (rest >= smallest - 1e-6).all()
    # parents: a stimulus, or a firing of the named node, at most 3 ms later (a correction)
    assert ((a.parent == -1) == (log.parent_node == -1)).all()
    assert (a.parent == -1).sum() == log.captured[0]
    known = a.parent >= 0
    assert (a.node[a.parent[known]] == log.parent_node[known]).all()
    lead = a.activation_ms[known] - a.activation_ms[a.parent[known]]
    assert lead.min() >= -3.0
    assert lead.max() < 60.0
    # nothing fires in scar
    assert np.isin(a.node, np.unique(model.mesh.tets[model.mesh.conducting()])).all()
    assert min(log.blocked, log.waited, log.corrected) >= 0
    assert log.blocked > 0


def test_scar_with_an_isthmus_sustains_a_figure_of_eight(reentry):
    _, _, log = reentry
    laps = np.diff(log.activations.activation_ms[log.activations.node == np.bincount(log.activations.node).argmax()])
    assert not log.quiet
    assert len(laps) >= 6
    assert np.ptp(laps[-3:]) < 15.0


def test_cycle_length_does_not_depend_on_the_edge():
    cycles = []
    for spacing in (1.5, 2.0, 3.0):
        model = plate_model(plate(spacing))
        state, nodes = driven(model)
        at = 1800.0 + capture_interval(model, state, nodes) + 10.0
        _, log = model.run(state, [(at, nodes)], at + 4500.0)
        cycles.append(last_cycle_ms(log))
    assert np.ptp(cycles) < 0.03 * np.mean(cycles)


def test_a_lesion_across_the_isthmus_ends_it(reentry):
    model, state, _ = reentry
    x, y, _ = (model.mesh.centroids_mm - 50.0).T
    cut = model.with_blocked((abs(y) < 4.0) & (abs(x) < 10.0))
    until = state.now_ms + 2000.0
    assert not model.run(state, [], until)[1].quiet
    after, log = cut.run(state, [], until)
    assert log.quiet
    assert np.isinf(after.trial_ms).all()
    assert cut.run(after, [], until + 500.0)[1].activations.node.size == 0
    again, nodes = driven(cut)
    for interval in range(200, 420, 20):
        at = 1800.0 + interval
        assert cut.run(again, [(at, nodes)], at + 2000.0)[1].quiet


def test_stop_when_sustained(reentry):
    model, state, _ = reentry
    _, log = model.run(state, [], state.now_ms + 5000.0, Sustained(laps=3))
    assert log.sustained
    times = log.activations.activation_ms[log.activations.node == log.lap_node]
    # the first of the laps began in the run before
    assert len(times) == 3
    assert np.diff(times)[-1] == pytest.approx(log.cycle_length_ms, abs=3.0)
    model, _ = ring(steady(200.0, 40.0))
    _, log = model.run(model.rest(), [(600.0 * k, np.array([0])) for k in range(6)], 4000.0, Sustained(laps=3))
    assert not log.sustained, "pacing is no re-entry"


def test_a_run_in_pieces_is_the_same_run(reentry):
    model, state, _ = reentry
    before = state.snapshot()
    whole, log = model.run(state, [], state.now_ms + 700.0)
    now, parts = state, []
    for _ in range(7):
        now, part = model.run(State.restore(now.snapshot()), [], now.now_ms + 100.0)
        parts.append(part.activations)
    for name, value in whole.snapshot().items():
        np.testing.assert_array_equal(value, now.snapshot()[name])
    assert sum(len(p.node) for p in parts) == len(log.activations.node)
    for name, value in state.snapshot().items():
        np.testing.assert_array_equal(value, before[name])


def test_threads_do_not_change_a_byte(reentry):
    model, state, _ = reentry
    with ThreadPoolExecutor(2) as pool:
        logs = [f.result()[1] for f in [pool.submit(model.run, state, [], state.now_ms + 500.0) for _ in range(2)]]
    logs.append(model.run(state, [], state.now_ms + 500.0)[1])
    assert len({log.activations.activation_ms.tobytes() + log.activations.parent.tobytes() for log in logs}) == 1


def test_renumbered_reversed_and_doubled_hearts_give_the_same_times():
    mesh = plate(3.0)
    shuffle = np.random.default_rng(5).permutation(mesh.n_points)
    place = np.argsort(shuffle).astype(np.int32)
    turned = np.random.default_rng(6).permutation(len(mesh.tets))
    renumbered = replace(mesh, points_mm=mesh.points_mm[shuffle], tets=place[mesh.tets])
    renumbered = replace(
        renumbered, tets=renumbered.tets[turned], region=mesh.region[turned], fibre=mesh.fibre[turned], sheet=mesh.sheet[turned]
    )
    reversed_ = replace(mesh, fibre=-mesh.fibre)
    doubled = replace(mesh, points_mm=2 * mesh.points_mm)
    tables = {"healthy": restituting(), "border_zone": sick(restituting())}

    def last_ms(mesh, nodes, scale=1.0):
        speeds = {"healthy": Velocity(0.85 * scale, 0.47 * scale), "border_zone": Velocity(0.4 * scale, 0.15 * scale)}
        model = ReentrantEikonal(mesh, speeds, tables, SHARP)
        state, _ = model.run(model.rest(), [(0.0, nodes), (360.0, nodes)], 2000.0)
        return state.time_ms

    nodes = near(mesh, 50.0, 0.0, 3.0)
    plain = last_ms(mesh, nodes)
    np.testing.assert_allclose(last_ms(renumbered, place[nodes]), plain[shuffle], atol=0.1)
    np.testing.assert_array_equal(last_ms(reversed_, nodes), plain)
    np.testing.assert_allclose(last_ms(doubled, nodes, 2.0), plain, atol=1e-6)


def test_blending_mixes_tables_only_near_borders():
    mesh = plate()
    sharp, smooth = plate_model(mesh), plate_model(mesh, Settings(blend_ms=50.0))
    np.testing.assert_allclose(smooth.weights.sum(axis=1), 1.0, atol=1e-6)
    centre = near(mesh, 50.0, 50.0, 1.5)
    far = near(mesh, 90.0, 90.0, 5.0)
    assert smooth.weights[far, 0].min() > 0.999
    assert smooth.weights[centre, 1].min() > 0.5
    assert 0.02 < np.abs(smooth.weights - sharp.weights).max() < 1.0


def test_blending_lets_an_s2_into_border_zone_that_sharp_borders_stop():
    """The monodomain cable conducts S2 from 330 to 340 ms on into border zone whose own refractory period is near 390 ms."""
    scan = range(300, 400, 5)
    sharp, smooth = (junction.eikonal_threshold((), scan, 1.0, settings, 2.0) for settings in (SHARP, Settings()))
    assert smooth <= 345
    assert sharp >= smooth + 10


@pytest.mark.slow
@pytest.mark.parametrize("share", list(junction.CROSSES))
def test_recorded_junction_thresholds_are_those_of_the_monodomain_cable(share):
    known = junction.CROSSES[share]
    assert junction.monodomain_threshold((340.0,), (known.low, known.high), share) == known.high
    assert junction.monodomain_threshold((), (340.0,), share) == 340.0


@pytest.mark.parametrize("speeds", [(0.5, 0.5), (0.6, 0.25)])
def test_an_expanding_front_loses_d_kappa(speeds):
    measured, exact = ball_slowing(speeds, 1.0)
    assert exact > 1.1
    assert measured == pytest.approx(exact, rel=0.03)


def test_a_plane_front_does_not_feel_curvature():
    mesh = box_mesh((30.0, 8.0, 8.0), 2.0, (0.6, 0.8, 0.0), "alternating")
    last = []
    for share in (0.0, 1.0):
        model = ReentrantEikonal(mesh, {"healthy": Velocity(0.5, 0.5)}, {"healthy": steady(200.0, 40.0)}, Settings(curvature=share))
        state, _ = model.run(model.rest(), [(0.0, np.flatnonzero(mesh.points_mm[:, 0] < 1.0))], 100.0)
        last.append(state.time_ms)
    np.testing.assert_allclose(last[1], last[0], atol=1e-9)


def test_curvature_goes_on_over_a_snapshot():
    model, turn = ring(steady(200.0, 40.0), Settings(curvature=1.0))
    site = np.flatnonzero(np.abs(turn) < 0.2)
    whole, _ = model.run(model.rest(), [(0.0, site)], 150.0)
    half, _ = model.run(model.rest(), [(0.0, site)], 70.0)
    kept = State.restore(half.snapshot())
    pieces, _ = model.run(kept, [], 150.0)
    for name, value in whole.snapshot().items():
        np.testing.assert_array_equal(value, pieces.snapshot()[name], err_msg=name)


def test_non_monotone_tables_are_made_so():
    table = RestitutionTable([40.0, 100.0, 200.0], [200.0, 190.0, 250.0], [0.9, 0.8, 1.0], "x").monotone()
    assert table.apd_ms.tolist() == [190.0, 190.0, 250.0]
    assert table.cv_factor.tolist() == [0.8, 0.8, 1.0]


def test_shipped_tables_are_usable():
    try:
        tables = load_tables()
    except InputError as error:
        pytest.skip(str(error))
    for table in tables.values():
        assert table.source
        assert 0.9 < np.interp(300.0, table.di_ms, table.cv_factor) < 1.1


@pytest.mark.parametrize(("stimuli", "field"), [([(-5.0, [0])], "stimuli"), ([(900.0, [0])], "stimuli"), ([(1.0, [10**6])], "stimuli")])
def test_wrong_stimuli_are_named(stimuli, field):
    model, _ = ring(steady(200.0, 40.0), spacing=5.0)
    state, _ = model.run(model.rest(), [], 0.0)
    with pytest.raises(InputError) as error:
        model.run(state, stimuli, 100.0)
    assert error.value.field == field
    with pytest.raises(InputError):
        Settings(wait_ms=-1.0)
    with pytest.raises(InputError):
        ring(steady(200.0, 40.0))[0].run(state, [], 100.0)


def infarct_sheet() -> HeartMesh:
    """The published infarct sheet with its ring of border zone made healthy: only the isthmus is sick."""
    root = os.environ.get("VTWIN_DATA")
    if not root:
        pytest.skip("VTWIN_DATA is not set: the infarct sheet is not here")
    from twin.io import opencarp

    carp = opencarp.read(Path(root) / "pie_infarct_slab" / "mesh_1000um" / "mesh_1000um")
    x, y, _ = (carp.points_mm[carp.tets].mean(axis=1) - 50.0).T
    isthmus = (carp.tag == 2) & (abs(x) < 2.5) & (np.hypot(x, y) < 37.5)
    region = np.where(isthmus, REGIONS["isthmus"], REGIONS["healthy"]).astype(np.int16)
    return HeartMesh(carp.points_mm, carp.tets, region, {}, carp.fibre, np.roll(carp.fibre, 1, axis=1))


def measured_healthy() -> RestitutionTable:
    folder = Path(os.environ["VTWIN_DATA"]) / "pie_infarct_slab" / "calibration_healthy"
    cv, apd = (np.loadtxt(next(folder.glob(f"{kind}r_*.dat"))) for kind in ("CV", "APD"))
    factor = np.interp(apd[:, 0], cv[:, 0], cv[:, 1]) / cv[-1, 1]
    return RestitutionTable(apd[:, 0], apd[:, 1], factor, "PIE-Model-Experiments, calibration_healthy")


@pytest.mark.real
def test_infarct_sheet_anchors_a_figure_of_eight():
    mesh, healthy = infarct_sheet(), measured_healthy()
    speeds = {"healthy": Velocity(0.8533, 0.4732), "border_zone": Velocity(0.45, 0.15)}
    model = ReentrantEikonal(mesh, speeds, {"healthy": healthy, "border_zone": sick(healthy)}, SHARP)
    state, nodes = driven(model)
    interval = capture_interval(model, state, nodes)
    at = 1800.0 + interval
    _, log = model.run(state, [(at, nodes)], at + 6000.0)
    a = log.activations
    laps = np.diff(a.activation_ms[a.node == np.bincount(a.node).argmax()])
    assert len(laps) >= 12
    assert np.ptp(laps[8:]) < 1.0
    # the loop: up the isthmus and back round either side, at the velocities that the last DI allows
    assert 380.0 < laps[-1] < 450.0
    order = np.lexsort((a.activation_ms, a.node))
    same = a.node[order][1:] == a.node[order][:-1]
    assert np.diff(a.activation_ms[order])[same].min() > 200.0, "double activations"
