"""First arrival against exact solutions, convergence, and its derivatives against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshing.box import box_mesh, box_tets
from solvers.bench.eikonal import records, sweeps
from solvers.eikonal import EikonalForward, EikonalMesh, RestitutionTable, solve
from solvers.eikonal.mesh import IN_CACHE
from solvers.eikonal.purkinje import entry_sites, sheet_layer, thick_layer
from solvers.eikonal.restitution import tables_from
from solvers.kernels import heap
from solvers.kernels.eikonal import from_edge, from_face
from solvers.verify.eikonal import checks, exact_ms, oblique_error
from twin.errors import InputError
from twin.tissue import ForwardModel, Velocity

FIBRE = np.array([np.cos(np.radians(35.0)), np.sin(np.radians(35.0)), 0.0])
SPEEDS = {"healthy": Velocity(0.6, 0.3), "border_zone": Velocity(0.3, 0.12)}


def patchy(spacing_mm: float = 2.0):
    """A box with border zone, an isthmus through scar, and fibres that turn."""
    mesh = box_mesh((30.0, 20.0, 6.0), spacing_mm, (1.0, 0.7, 0.0), "alternating")
    x, y, _ = mesh.centroids_mm.T
    mesh = mesh.with_region((x > 10) & (x < 20), "border_zone")
    scar = (x > 14) & (x < 18)
    return mesh.with_region(scar & (abs(y - 10) > 4), "scar").with_region(scar & (abs(y - 10) <= 4), "isthmus")


@pytest.mark.parametrize("axis", [0, 1])
def test_a_plane_wave_is_exact(axis):
    points, tets = box_tets((20.0, 20.0, 4.0), 2.0, "alternating")
    fibre = np.tile([1.0, 0.0, 0.0], (len(tets), 1))
    start = np.flatnonzero(points[:, axis] < 1e-9)
    time = solve(points, tets, fibre, 0.6, 0.25, start, 3.0)
    np.testing.assert_allclose(time, 3.0 + points[:, axis] / (0.6, 0.25)[axis], rtol=1e-9, atol=1e-3)


@pytest.mark.parametrize("ratio", [1.0, 2.4, 4.0])
def test_the_error_of_a_point_source_falls_with_the_edge(ratio):
    # from a ball with exact times, else the singularity at the source adds h log h
    coarse, fine = (oblique_error(h, ratio, ball_mm=6.0) for h in (2.0, 1.0))
    assert 0 < fine < 0.6 * coarse < 0.05


def test_arrival_is_never_early_and_the_ball_helps():
    points, tets = box_tets((24.0, 24.0, 12.0), 1.5, "alternating")
    geometry = EikonalMesh(points, tets, np.tile(FIBRE, (len(tets), 1)))
    source = int(np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1)))
    exact = exact_ms(points, points[source], FIBRE, 0.6, 0.25)
    alone = geometry.solve(0.6, 0.25, source)
    seeded = geometry.solve(0.6, 0.25, *geometry.ball(source, 4.5, 0.6, 0.25))
    assert (alone >= exact - 1e-6).all()
    assert (seeded >= exact - 1e-6).all()
    assert (seeded - exact).mean() < 0.8 * (alone - exact).mean()


def test_sources_with_delays_take_the_earliest():
    mesh = patchy()
    forward = EikonalForward(mesh)
    nodes = np.array([0, mesh.n_points - 1], np.int32)
    both = forward.arrival_ms(SPEEDS, nodes, np.array([0.0, 12.0]))
    each = [forward.arrival_ms(SPEEDS, nodes[k : k + 1], np.array([12.0 * k])) for k in range(2)]
    # where the waves meet in one simplex, the linear interpolation mixes them
    assert (both <= np.minimum(*each) + 0.01)[np.isfinite(both)].all()
    np.testing.assert_allclose(both, np.minimum(*each), atol=0.5)


def test_scar_is_not_crossed_and_unreached_nodes_stay_infinite():
    mesh = patchy()
    scar_only = np.setdiff1d(np.unique(mesh.tets[~mesh.conducting()]), np.unique(mesh.tets[mesh.conducting()]))
    time = EikonalForward(mesh).arrival_ms(SPEEDS, np.array([0], np.int32), np.zeros(1))
    assert len(scar_only) > 0
    assert np.isinf(time[scar_only]).all()
    assert np.isfinite(np.delete(time, scar_only)).all()
    closed = mesh.with_region(mesh.in_region("isthmus"), "lesion")
    time = EikonalForward(closed).arrival_ms(SPEEDS, np.array([0], np.int32), np.zeros(1))
    assert np.isinf(time[mesh.points_mm[:, 0] > 18.1]).all()


def test_the_isthmus_takes_the_border_zones_velocity_unless_it_has_one():
    mesh, start = patchy(), (np.array([0], np.int32), np.zeros(1))
    forward: ForwardModel = EikonalForward(mesh)
    shared = forward.arrival_ms(SPEEDS, *start)
    same = forward.arrival_ms(SPEEDS | {"isthmus": SPEEDS["border_zone"]}, *start)
    slower = forward.arrival_ms(SPEEDS | {"isthmus": Velocity(0.1, 0.05)}, *start)
    assert (shared == same).all()
    assert slower[-1] > shared[-1] + 10.0


def test_derivatives_match_finite_differences():
    mesh = patchy()
    forward, nodes, delays = EikonalForward(mesh), np.array([0, 40], np.int32), np.array([0.0, 5.0])
    speeds = SPEEDS | {"isthmus": Velocity(0.25, 0.1)}
    found = forward.sensitivity(speeds, nodes, delays)
    # nodes whose simplex changes within the step have a kink there: the median and nearly all nodes must agree
    h = 0.01
    for region, speed in speeds.items():
        for name in ("longitudinal_m_s", "transverse_m_s"):
            ends = []
            for sign in (-1, 1):
                values = {**vars(speed), name: getattr(speed, name) * np.exp(sign * h)}
                ends.append(forward.arrival_ms(speeds | {region: Velocity(**values)}, nodes, delays))
            reached = np.isfinite(found.arrival_ms)
            numeric = (ends[1][reached] - ends[0][reached]) / (2 * h)
            analytic = found.by_name[f"{region}/cv_{name}"][reached]
            error = np.abs(numeric - analytic)
            assert np.quantile(error, 0.9) < 0.02 * np.abs(numeric).max() + 0.1
            assert analytic.min() < -0.1


def test_scaling_all_velocities_scales_all_times():
    """Euler's relation for a function of degree -1: the derivatives by all log velocities add up to minus the time since the source."""
    mesh = patchy()
    found = EikonalForward(mesh).sensitivity(SPEEDS, np.array([0], np.int32), np.array([7.0]))
    reached = np.isfinite(found.arrival_ms)
    total = sum(found.by_name.values())
    np.testing.assert_allclose(total[reached], 7.0 - found.arrival_ms[reached], atol=0.02)


def test_adjoint_is_the_transpose_of_the_tangent():
    mesh = patchy()
    arrival, group = EikonalForward(mesh).solved(SPEEDS, np.array([0, 40], np.int32), np.array([0.0, 5.0]))
    load = np.random.default_rng(3).normal(size=mesh.n_points) * np.isfinite(arrival.time_ms)
    gradient, by_source = arrival.adjoint(load, group, 2)
    np.testing.assert_allclose(gradient, load @ arrival.tangent(group, 2), rtol=1e-6, atol=1e-6)
    # a shift of both sources shifts every arrival
    assert by_source.sum() == pytest.approx(load.sum())
    assert set(np.flatnonzero(by_source)) <= {0, 40}


def test_the_wave_knows_its_source():
    mesh = box_mesh((20.0, 6.0, 4.0), 2.0)
    nodes = np.array([0, mesh.n_points - 1], np.int32)
    origin = EikonalForward(mesh).sensitivity({"healthy": Velocity(0.6, 0.6)}, nodes, np.zeros(2)).origin
    nearer = np.linalg.norm(mesh.points_mm - mesh.points_mm[-1], axis=1) - np.linalg.norm(mesh.points_mm - mesh.points_mm[0], axis=1)
    assert (origin[nearer > 2.0] == 0).all()
    assert (origin[nearer < -2.0] == 1).all()


def test_the_same_bytes_every_time_and_under_reversed_fibres():
    mesh = patchy()
    solved = [EikonalMesh(mesh.points_mm, mesh.tets, sign * mesh.fibre).solve(0.6, 0.2, [0, 7], [0.0, 1.0]) for sign in (1, 1, -1)]
    assert solved[0].tobytes() == solved[1].tobytes() == solved[2].tobytes()


def test_doubled_edges_and_velocities_give_equal_times():
    mesh = patchy()
    once = solve(mesh.points_mm, mesh.tets, mesh.fibre, 0.6, 0.2, 0)
    twice = solve(2 * mesh.points_mm, mesh.tets, mesh.fibre, 1.2, 0.4, 0)
    np.testing.assert_allclose(once, twice, rtol=1e-12)


triples = st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3).map(np.array)


@settings(max_examples=200, deadline=None)
@given(st.lists(triples, min_size=4, max_size=4), st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3))
def test_the_simplex_update_is_the_minimum_over_the_triangle(corners, times):
    x, p, q, r = corners
    if abs(np.dot(np.cross(p - x, q - x), r - x)) < 1e-2:
        return
    length2 = [float((a - b) @ (a - b)) for a, b in ((x, p), (x, q), (x, r), (p, q), (p, r), (q, r))]
    found, wq, wr = from_face(*times, *length2, 1.0)
    grid = np.linspace(0.0, 1.0, 41)
    b, c = (g.ravel() for g in np.meshgrid(grid, grid))
    a = 1.0 - b - c
    inside = a >= -1e-12
    foot = np.outer(a, p) + np.outer(b, q) + np.outer(c, r)
    brute = (a * times[0] + b * times[1] + c * times[2] + np.linalg.norm(foot - x, axis=1))[inside]
    # simplices without p are not this call's business
    touching = (a[inside] > 1e-9).nonzero()[0]
    edge_qr = brute[a[inside] <= 1e-9].min()
    assert found <= brute[touching].min() + 1e-9 or edge_qr <= brute[touching].min()
    foot = (1 - wq - wr) * p + wq * q + wr * r
    assert found == pytest.approx((1 - wq - wr) * times[0] + wq * times[1] + wr * times[2] + np.linalg.norm(foot - x), abs=1e-7)
    assert from_edge(times[0], times[1], length2[0], length2[1], length2[3], 1.0)[0] >= found - 1e-9


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.5, 7.0]), st.integers(0, 9)), max_size=30))
def test_the_heap_sorts_by_time_then_node(entries):
    times, nodes, size = np.empty(32), np.empty(32, np.int32), 0
    for time, node in entries:
        size = heap.push(times, nodes, size, time, node)
    out = []
    while size:
        out.append((times[0], nodes[0]))
        size = heap.pop(times, nodes, size)
    assert out == sorted(entries)


def test_stale_entries_are_dropped():
    times, nodes, size = np.empty(8), np.empty(8, np.int32), 0
    for time, node in ((5.0, 1), (3.0, 1), (4.0, 2)):
        size = heap.push(times, nodes, size, time, node)
    size = heap.drop_stale(times, nodes, size, np.array([np.inf, 3.0, 4.0]))
    assert size == 2
    assert (times[0], nodes[0]) == (3.0, 1)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda m: EikonalForward(m).arrival_ms({"healthy": Velocity(0.6, 0.3)}, np.array([0]), np.zeros(1)), "border_zone"),
        (lambda m: solve(m.points_mm, m.tets, m.fibre, -0.6, 0.3, 0), "velocity"),
        (lambda m: solve(m.points_mm, m.tets, m.fibre, 0.6, 0.3, 10**6), "source_nodes"),
        (lambda m: solve(m.points_mm, m.tets, m.fibre, 0.6, 0.3, 0, np.nan), "source_times_ms"),
        (lambda m: solve(m.points_mm, m.tets, m.fibre[1:], 0.6, 0.3, 0), "fibre"),
        (lambda m: RestitutionTable(np.array([2.0, 1.0]), np.ones(2), np.ones(2), "x"), "di_ms"),
        (lambda m: tables_from({"border_zone": {}}, "file.json"), "healthy"),
    ],
)
def test_wrong_input_is_named(call, field):
    with pytest.raises(InputError) as error:
        call(patchy())
    assert error.value.field == field


def test_published_and_analytic_checks_pass():
    failed = [check for check in checks() if not check["passed"]]
    assert failed == []


def test_plain_sweeps_give_the_same_arrivals():
    mesh = patchy(3.0)
    geometry = EikonalMesh(mesh.points_mm, mesh.tets, mesh.fibre)
    np.testing.assert_allclose(
        sweeps(geometry.tets, geometry.metric_lengths2(0.6, 0.25), mesh.n_points), geometry.solve(0.6, 0.25, 0), atol=0.05
    )


def test_bench_gives_ratios():
    for record in records(fine_mm=3.0, coarse_mm=5.0, repeats=1, large_mm=3.0):
        assert record["value"] > 0
        assert record["ratio"] == pytest.approx(record["reference"] / record["value"])


def scattered(mesh):
    """The same mesh with its nodes and tetrahedra numbered at random; returns it and the new number of each node."""
    rng = np.random.default_rng(2)
    order = rng.permutation(mesh.n_points)
    place = np.empty_like(order)
    place[order] = np.arange(mesh.n_points)
    kept = rng.permutation(len(mesh.tets))
    return EikonalMesh(mesh.points_mm[order], place[mesh.tets][kept], mesh.fibre[kept]), place


def test_scattered_numbers_give_the_same_arrivals_and_derivatives():
    mesh = patchy(0.55)
    assert mesh.n_points > IN_CACHE
    plain, (mixed, place) = EikonalMesh(mesh.points_mm, mesh.tets, mesh.fibre), scattered(mesh)
    assert len(mixed._order.node)
    assert not len(plain._order.node)
    a, b = plain.arrival(0.6, 0.25, [0, 50], [0.0, 4.0]), mixed.arrival(0.6, 0.25, place[[0, 50]], [0.0, 4.0])
    np.testing.assert_allclose(b.time_ms[place], a.time_ms, atol=0.01)
    group = np.zeros(len(mesh.tets), int)
    # where two simplices give the same time the tree may differ, and with it the derivative at a kink
    difference = np.abs(b.tangent(group, 1)[place].sum(axis=1) - a.tangent(group, 1).sum(axis=1))
    assert np.quantile(difference, 0.999) < 0.01
    assert difference.max() < 2.0
    assert (b.nearest_source(place[[0, 50]].astype(np.int32))[place] == a.nearest_source(np.array([0, 50], np.int32))).mean() > 0.99


def test_single_precision_and_threads():
    mesh = patchy()
    double, single = (EikonalMesh(mesh.points_mm, mesh.tets, mesh.fibre, precision=p) for p in ("float64", "float32"))
    assert single.solve(0.6, 0.25, 0).dtype == np.float32
    np.testing.assert_allclose(single.solve(0.6, 0.25, 0), double.solve(0.6, 0.25, 0), atol=0.01)
    sources = [(0, 0.0), ([5, 90], [1.0, 0.0]), (200, 3.0)]
    many = [double.solve_many(0.6, 0.25, sources, threads) for threads in (1, 3)]
    assert many[0].tobytes() == many[1].tobytes()
    for row, source in zip(many[0], sources, strict=True):
        np.testing.assert_array_equal(row, double.solve(0.6, 0.25, *source))


def top_faces(mesh) -> np.ndarray:
    from meshing.surfaces import FACES

    faces = mesh.tets[:, FACES].reshape(-1, 3)
    return faces[(mesh.points_mm[faces][:, :, 2] > mesh.points_mm[:, 2].max() - 1e-9).all(axis=1)]


def test_a_sheet_speeds_the_wave_and_scar_and_lesions_interrupt_it():
    mesh = patchy()
    geometry = EikonalMesh(mesh.points_mm, mesh.tets, mesh.fibre, mesh.conducting())
    fast = geometry.with_sheet(top_faces(mesh), 3.0)
    slow, quick = geometry.solve(0.6, 0.25, 0), fast.solve(0.6, 0.25, 0)
    reached = np.isfinite(slow)
    assert (quick[reached] <= slow[reached] + 0.01).all()
    assert quick[reached].max() < 0.7 * slow[reached].max()
    assert np.isinf(quick[~reached]).all(), "no way through scar over the sheet"
    assert 0 < len(fast.triangles) < len(top_faces(mesh))
    closed = fast.with_blocked(mesh.in_region("isthmus"))
    assert np.isinf(closed.solve(0.6, 0.25, 0)[mesh.points_mm[:, 0] > 18.1]).all()


def test_derivatives_run_through_a_sheet():
    """A wave that runs over the sheet and down depends on the muscle's velocity on the way down only."""
    mesh = box_mesh((30.0, 6.0, 6.0), 1.0, variant="alternating")
    geometry = EikonalMesh(mesh.points_mm, mesh.tets, np.zeros_like(mesh.fibre)).with_sheet(top_faces(mesh), 2.0)
    x, z = mesh.points_mm[:, 0], mesh.points_mm[:, 2]
    source = np.flatnonzero((x < 1e-9) & (z > 6.0 - 1e-9))
    arrival = geometry.arrival(0.5, 0.5, source)
    found = arrival.tangent(np.zeros(len(mesh.tets), int), 1).sum(axis=1)
    h = 0.01
    ends = [geometry.solve(0.5 * np.exp(s * h), 0.5 * np.exp(s * h), source) for s in (-1, 1)]
    numeric = (ends[1] - ends[0]) / (2 * h)
    assert np.quantile(np.abs(found - numeric), 0.9) < 0.2
    far = (x > 20) & (z < 1e-9)
    # t = x / c_fast + z sqrt(1/c^2 - 1/c_fast^2)
    exact = -6.0 / 0.5**2 / np.sqrt(1 / 0.5**2 - 1 / 2.0**2)
    np.testing.assert_allclose(found[far], exact, rtol=0.1)


@pytest.fixture(scope="module")
def heart():
    from analytic_hearts import ventricles

    from meshing.anatomy import complete

    return complete(ventricles(5.0))


def test_the_purkinje_layer_of_a_heart_shortens_activation(heart):
    nodes, times = entry_sites(heart)
    assert len(nodes) == 4
    assert set(nodes[:3]) <= set(heart.surface_nodes("lv_endo").tolist())
    assert nodes[3] in heart.surface_nodes("rv_endo")
    assert times[3] > times[:3].max()
    turn = heart.coordinates["rotational"][nodes[:3]]
    assert turn[0] > 0 > turn[2], "anterior and posterior of the septum"
    speeds = {"healthy": Velocity(0.6, 0.25)}
    muscle = EikonalForward(heart).arrival_ms(speeds, nodes, times)
    sheet = EikonalForward(heart, sheet_layer(heart)).arrival_ms(speeds, nodes, times)
    thick = EikonalForward(heart, thick_layer(heart)).arrival_ms(speeds, nodes, times)
    for fast in (sheet, thick):
        assert fast.max() < 0.75 * muscle.max()
        assert (fast <= muscle + 0.01).all()
    # the base is free of the network
    level = heart.coordinates["apicobasal"]
    assert level[sheet_layer(heart).triangles].mean(axis=1).max() <= 0.8
    # a normal heart is activated within 60 to 100 ms
    assert 50.0 < sheet.max() < 110.0


def test_layers_need_surfaces_and_coordinates(heart):
    with pytest.raises(InputError, match="no such surface"):
        sheet_layer(box_mesh((4.0, 4.0, 4.0), 2.0))
    with pytest.raises(InputError, match="coordinates"):
        entry_sites(box_mesh((4.0, 4.0, 4.0), 2.0))
    with pytest.raises(InputError, match="factor"):
        thick_layer(heart, factor=0.0)
    with pytest.raises(InputError, match="precision"):
        EikonalMesh(heart.points_mm, heart.tets, heart.fibre, precision="half")
