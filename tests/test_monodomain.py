"""Monodomain solver against analytic solutions, conservation, its own reference scheme, and itself."""

from __future__ import annotations

import os
from pathlib import Path

import numba
import numpy as np
import pytest
from scipy.spatial import cKDTree

from meshing import p1
from meshing.box import VARIANTS, box_mesh, box_tets
from meshing.stuffing import stuff
from solvers.ionic import Cells, ionic_model
from solvers.monodomain import lattice as lattices
from solvers.monodomain import operators
from solvers.monodomain.conductivity import Membrane, diffusion_mm2_ms
from solvers.monodomain.correction import correct, find_lattice, interpolate, reduced_directions
from solvers.monodomain.interpolated import InterpolatedCurrent
from solvers.monodomain.solver import Monodomain, Settings
from solvers.monodomain.wave_fit import TURNS, Table, cells_of, matrix, symmetric
from solvers.verify import convergence, correction, niederer, planar, spiral
from twin.errors import InputError
from twin.experiment import Status, Stimulus

D_L, D_T = 0.133418 / 1.4, 0.017606 / 1.4


class Passive:
    """No ionic current: what is left is diffusion."""

    def __init__(self, n, dtype=np.float64):
        self.n, self.dtype = n, dtype

    def initial_v(self):
        return np.full(self.n, -80.0, self.dtype)

    def advance(self, v, dt_ms, current):
        current[:] = 0

    def snapshot(self):
        return None

    def restore(self, state):
        pass


class Bistable(Passive):
    """u_t = rate u (1 - u) (u - a), u = (V + 80) / 100; with recovery > 0 a slow gate brings it back (FitzHugh's second variable)."""

    def __init__(self, n, dtype=np.float64, rate=10.0, a=0.2, recovery=0.0):
        super().__init__(n, dtype)
        self.rate, self.a, self.recovery, self.w = rate, a, recovery, np.zeros(n, dtype)

    def advance(self, v, dt_ms, current):
        u = (v + 80) / 100
        self.w += self.dtype(dt_ms * self.recovery) * (u - self.dtype(1.2) * self.w)
        current[:] = -100 * (self.rate * u * (1 - u) * (u - self.a) - self.rate * self.w * u)

    def snapshot(self):
        return self.w.copy()

    def restore(self, state):
        self.w[:] = state


def solver(mesh, cells=Passive, settings=None, d_l=D_L, d_t=D_T, **more):
    m = len(mesh.tets)
    return Monodomain(
        mesh.points_mm, mesh.tets, mesh.fibre, np.full(m, d_l), np.full(m, d_t), lambda nodes: cells(len(nodes)), settings, **more
    )


def excitable(n):
    return Bistable(n, np.float32, recovery=0.02)


@pytest.mark.parametrize("variant", VARIANTS)
def test_box_is_filled_by_positive_tets_that_fit(variant):
    mesh = box_mesh((2.0, 1.5, 1.0), 0.5, (1, 1, 0), variant)
    mesh.check()
    assert mesh.tet_volumes_mm3.sum() == pytest.approx(3.0)
    faces = np.sort(mesh.tets[:, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]].reshape(-1, 3), axis=1)
    _, times = np.unique(faces, axis=0, return_counts=True)
    assert times.max() == 2
    assert (times == 1).sum() == 4 * (4 * 3 + 4 * 2 + 3 * 2)  # two triangles per square of the six faces


def test_box_refuses_nonsense():
    for wrong in (
        lambda: box_tets((0.0, 1, 1), 0.5),
        lambda: box_tets((1.0, 1, 1), 0.5, "cubes"),
        lambda: box_mesh((1, 1, 1), 0.5, (0, 0, 0)),
    ):
        with pytest.raises(InputError):
            wrong()


def test_row_assembly_equals_element_assembly():
    points, tets = box_tets((2.0, 1.0, 1.0), 0.5, "alternating")
    rng = np.random.default_rng(1)
    points = points + rng.uniform(-0.05, 0.05, points.shape)
    fibre = rng.standard_normal((len(tets), 3))
    fibre /= np.linalg.norm(fibre, axis=1)[:, None]
    d_l, d_t = rng.uniform(0.05, 0.2, len(tets)), rng.uniform(0.01, 0.05, len(tets))
    tensor = d_t[:, None, None] * np.eye(3) + (d_l - d_t)[:, None, None] * fibre[:, :, None] * fibre[:, None, :]
    ops = operators.build(points, tets, fibre, d_l, d_t)
    stiffness, mass = ops.matrices()
    expected = p1.stiffness(points, tets, tensor)[ops.nodes][:, ops.nodes]
    assert abs(stiffness - expected).max() < 1e-14
    assert np.allclose(ops.lumped, p1.lumped_mass(points, tets)[ops.nodes])
    assert mass.sum() == pytest.approx(ops.lumped.sum())
    assert np.allclose(mass.sum(axis=1), ops.lumped)


@pytest.mark.parametrize("theta", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("products", [1, 2, 3, 4])
def test_mass_polynomial_inverts_the_spectrum_and_the_constants_exactly(theta, products):
    c = operators.inverse_mass_polynomial(theta, products)
    x = np.linspace(theta + (1 - theta) * 0.2, 1.0, 400)
    error = 1 - x * np.polyval(c[::-1], x)
    assert abs(error[-1]) < 1e-12
    rate = (1 - np.sqrt(x[0])) / (1 + np.sqrt(x[0]))
    assert (abs(error) <= 2 * rate**products * (1 - x) + 1e-12).all()


def mode_error(spacing, theta, products, scheme="explicit"):
    """Relative error of the decay of cos(pi x / L) + cos(pi y / W) along and across the fibres after 20 ms."""
    mesh = box_mesh((4.0, 2.0, spacing), spacing, variant="alternating")
    s = solver(mesh, settings=Settings(dt_ms=0.02 * (spacing / 0.25) ** 2, theta=theta, products=products, scheme=scheme))
    x, y = mesh.points_mm[:, 0], mesh.points_mm[:, 1]
    modes = [np.cos(np.pi * x / 4.0), np.cos(np.pi * y / 2.0)]
    rates = [D_L * (np.pi / 4.0) ** 2, D_T * (np.pi / 2.0) ** 2]
    s.set_v_mv(-80 + 10 * (modes[0] + modes[1]))
    s.run([], 20.0)
    exact = sum(10 * m * np.exp(-r * s.time_ms) for m, r in zip(modes, rates))
    return np.abs(s.v_mv() + 80 - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize(("theta", "products"), [(0.3, 2), (0.3, 1), (0.0, 2), (1.0, 0)])
def test_diffusion_converges_to_the_decay_of_a_cosine_with_second_order(theta, products):
    coarse, fine = mode_error(0.5, theta, products), mode_error(0.25, theta, products)
    assert fine < 0.02  # (k h)^2 / 12 of each mode's exponent, added up
    assert 1.7 < np.log2(coarse / fine) < 2.6


def test_reference_scheme_decays_the_same_cosine():
    assert mode_error(0.25, 0.0, 2, "reference") < 0.02


def test_no_flux_conserves_charge():
    rng = np.random.default_rng(0)
    mesh = box_mesh((3.0, 2.0, 1.0), 0.5, (1, 2, 3), "alternating")
    s = solver(mesh)
    start = rng.uniform(-80, 20, mesh.n_points)
    s.set_v_mv(start)
    volume = p1.lumped_mass(mesh.points_mm, mesh.tets)
    s.run([], 10.0)
    assert np.std(s.v_mv()) < 0.5 * np.std(start)
    assert volume @ s.v_mv() == pytest.approx(volume @ start, rel=1e-12)


@pytest.mark.parametrize(("theta", "products"), [(0.3, 2), (1.0, 0), (0.0, 3)])
def test_stability_limit_is_sharp(theta, products):
    mesh = box_mesh((3.0, 2.0, 1.0), 0.5, (1, 1, 0), "alternating")
    limit = solver(mesh, settings=Settings(theta=theta, products=products)).limit_ms
    rough = np.random.default_rng(0).uniform(-80, -60, mesh.n_points)
    ends = {}
    for share in (0.95, 1.1):
        s = solver(mesh, settings=Settings(dt_ms=share * limit, theta=theta, products=products))
        s.set_v_mv(rough)
        result = s.run([], 3000 * s.dt_ms)
        ends[share] = result.status
        if share < 1:
            assert np.abs(s.v_mv() - s.v_mv().mean()).max() < 20
        else:
            assert "stability limit" in result.message
            assert "node" in result.message
    assert ends == {0.95: Status.DONE, 1.1: Status.DIVERGED}


@pytest.mark.parametrize(("scheme", "dt"), [("explicit", None), ("reference", 0.01)])
def test_bistable_front_runs_at_the_exact_speed(scheme, dt):
    rate, a, d = 10.0, 0.2, 0.1
    exact = np.sqrt(rate * d / 2) * (1 - 2 * a)
    mesh = box_mesh((12.0, 0.1, 0.1), 0.1)
    s = solver(mesh, lambda n: Bistable(n, rate=rate, a=a), Settings(dt_ms=dt, scheme=scheme), d_l=d, d_t=d)
    x = mesh.points_mm[:, 0]
    s.set_v_mv(np.where(x < 2, 20.0, -80.0))
    result = s.run([], 25.0)
    assert result.status is Status.DONE
    first = result.activations.first_ms(mesh.n_points)
    ends = [np.flatnonzero((np.abs(x - at) < 1e-9) & (mesh.points_mm[:, 1:].max(axis=1) == 0))[0] for at in (5.0, 9.0)]
    speed = 4.0 / (first[ends[1]] - first[ends[0]])
    assert speed == pytest.approx(exact, rel=0.015)


def test_explicit_and_reference_agree_on_the_front():
    mesh = box_mesh((4.0, 0.5, 0.25), 0.25, variant="alternating")
    nodes = np.flatnonzero(mesh.points_mm[:, 0] < 1).astype(np.int32)
    firsts = []
    for scheme in ("explicit", "reference"):
        s = solver(mesh, lambda n: Bistable(n), Settings(scheme=scheme, dt_ms=0.01))
        firsts.append(s.run([Stimulus(nodes, (0.0,))], 15.0).activations.first_ms(mesh.n_points))
    assert np.isfinite(firsts[1]).all()
    assert np.abs(firsts[0] - firsts[1]).max() < 0.02 * firsts[1].max()


def train(mesh):
    nodes = np.flatnonzero(mesh.points_mm[:, 0] < 1).astype(np.int32)
    return Stimulus(nodes, (1.0, 120.0), name="S1")


@pytest.mark.parametrize("scheme", ["explicit", "reference"])
def test_branch_equals_the_uninterrupted_run(scheme):
    mesh = box_mesh((5.0, 1.0, 0.5), 0.5, variant="alternating")
    s = solver(mesh, excitable, Settings(scheme=scheme))
    kept = {}

    def keep(this):
        if abs(this.time_ms - 100.0) < 1e-9:
            kept["state"] = this.snapshot()

    whole = s.run([train(mesh)], 240.0, stop=keep)
    v = s.v_mv()
    s.restore(kept["state"])
    branch = s.run([train(mesh)], 240.0)
    assert np.array_equal(v, s.v_mv())
    for name in ("node", "activation_ms", "recovery_ms"):
        assert np.array_equal(getattr(whole.activations, name), getattr(branch.activations, name), equal_nan=True)
    assert len(whole.activations.node) == 2 * mesh.n_points
    assert branch.summary["captured"] == [True, True]
    assert whole.summary["captured"] == [True, True]
    assert (whole.activations.recovery_ms > whole.activations.activation_ms).sum() >= mesh.n_points


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")
def test_bytes_do_not_depend_on_the_thread_count(monkeypatch):
    monkeypatch.setattr("solvers.monodomain.solver.NODES_PER_THREAD", 100)
    mesh = box_mesh((8.0, 4.0, 1.0), 0.25, (1, 1, 0))
    ends = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        s = solver(mesh, excitable)
        result = s.run([train(mesh)], 30.0)
        ends.append((s.v_mv().tobytes(), result.activations.activation_ms.tobytes(), result.activations.node.tobytes()))
    assert ends[0] == ends[1]
    assert len(result.activations.node) > 0


def test_scar_is_left_out_and_blocks():
    mesh = box_mesh((6.0, 1.0, 0.5), 0.5)
    x = mesh.centroids_mm[:, 0]
    s = solver(mesh, excitable, conducting=~((x > 3) & (x < 4)))
    result = s.run([train(mesh)], 100.0, probes=np.array([0, mesh.n_points - 1]))
    first = result.activations.first_ms(mesh.n_points)
    assert np.isfinite(first[mesh.points_mm[:, 0] <= 3]).all()
    assert np.isnan(first[mesh.points_mm[:, 0] >= 4]).all()
    inside = (mesh.points_mm[:, 0] > 3) & (mesh.points_mm[:, 0] < 4)
    assert result.summary["nodes_excluded"] == inside.sum() > 0
    assert np.isnan(s.v_mv()[inside]).all()
    assert result.probes_mv.shape == (101, 2)
    assert result.probes_mv[:, 0].max() > 0
    assert result.probes_mv[:, 1].max() == -80


def test_crossings_are_interpolated_within_a_step():
    class Ramp(Passive):
        def advance(self, v, dt_ms, current):
            current[:] = -7.0  # V = -80 + 7 t

    mesh = box_mesh((1.0, 0.5, 0.5), 0.5)
    s = solver(mesh, Ramp, Settings(dt_ms=0.1, threshold_mv=-40.0))
    beats = s.run([], 10.0).activations
    assert np.allclose(beats.activation_ms, 40 / 7, atol=1e-9)
    assert len(beats.node) == mesh.n_points
    assert np.isnan(beats.recovery_ms).all()


def test_named_ends():
    mesh = box_mesh((3.0, 1.0, 0.5), 0.5)
    weak = Stimulus(train(mesh).nodes, (0.0,), strength_uA_mm3=1.0)
    assert solver(mesh, excitable).run([weak], 60.0).status is Status.NO_CAPTURE
    s = solver(mesh, excitable)
    quiet = s.run([train(mesh)], 2000.0, quiet_ms=20.0)
    assert quiet.status is Status.STOPPED
    assert "quiet" in quiet.message
    assert 120.0 < s.time_ms < 400.0
    told = solver(mesh, excitable).run([], 50.0, stop=lambda this: "enough" if this.time_ms >= 5 else None)
    assert (told.status, told.message, told.summary["end_ms"]) == (Status.STOPPED, "enough", 5.0)


def test_pulse_charge_does_not_depend_on_where_steps_fall():
    mesh = box_mesh((1.0, 0.5, 0.5), 0.5)
    everywhere = np.arange(mesh.n_points, dtype=np.int32)
    for dt in (0.03, 0.05, 0.07):
        s = solver(mesh, settings=Settings(dt_ms=dt))
        s.run([Stimulus(everywhere, (0.313,), 1.0, 14.0)], 3.0)
        assert np.allclose(s.v_mv(), -80 + 14.0 / 1.4)


def test_coarse_meshes_say_what_they_cannot_do():
    said = [solver(box_mesh((3.0, 3.0, 3.0), h)).limits() for h in (0.3, 0.5, 1.0)]
    assert said[0] == []
    assert "doubtful" in said[1][0]
    assert "not predictive" in said[2][0]


def test_kappa_scales_the_conductivities():
    mesh = box_mesh((2.0, 1.0, 0.5), 0.5)
    m = len(mesh.tets)
    scaled = solver(mesh, kappa_l=np.full(m, 2.0), kappa_t=np.full(m, 3.0))
    direct = solver(mesh, d_l=2 * D_L, d_t=3 * D_T)
    assert np.allclose(scaled.ops.stiffness, direct.ops.stiffness)


def test_harmonic_conductivity_of_the_niederer_benchmark():
    assert diffusion_mm2_ms(0.17, 0.62, Membrane()) == pytest.approx(0.133418 / 1.4, rel=1e-5)
    assert diffusion_mm2_ms(0.0, 0.62, Membrane()) == 0.0


@pytest.mark.parametrize("case", niederer.FAST[:2], ids=lambda c: c.name)
def test_coarse_niederer_slab_gives_the_published_value_of_each_mass(case):
    assert niederer.p8_ms(case) == pytest.approx(case.reference.value, abs=case.tolerance_ms)


@pytest.mark.parametrize("bar", planar.BARS, ids=lambda b: b.name)
def test_plane_waves_run_at_the_one_dimensional_limit(bar):
    spacing = planar.FINE_PER_SQRT_D.value * np.sqrt(bar.sigma_s_m / 1.4)
    assert planar.speed_m_s(bar, spacing, Settings(theta=0.5, threshold_mv=-20.0)) == pytest.approx(bar.reference.value, rel=0.01)


def test_slab_with_ionic_cells_branches_bit_for_bit_at_any_thread_count(monkeypatch):
    monkeypatch.setattr("solvers.monodomain.solver.NODES_PER_THREAD", 100)
    mesh = box_mesh((5.0, 2.0, 1.0), 0.25, (1, 1, 0))
    model = ionic_model("ten_tusscher_panfilov_2006", cell="epi")
    sick = ionic_model("ten_tusscher_panfilov_2006", cell="epi", scale={"G_Na": 0.38})
    region = (mesh.points_mm[:, 0] > 2.5).astype(np.int32)
    ends = []
    before = numba.get_num_threads()
    for threads in {1, before}:
        numba.set_num_threads(threads)
        s = build_ionic(mesh, [model, sick], region)
        s.run([train(mesh)], 5.0)
        state = s.snapshot()
        for _ in range(2):
            result = s.run([train(mesh)], 15.0)
            ends.append((s.v_mv().tobytes(), result.activations.activation_ms.tobytes()))
            s.restore(state)
    numba.set_num_threads(before)
    assert len(set(ends)) == 1
    assert len(result.activations.node) > 100


def build_ionic(mesh, models, region):
    m = len(mesh.tets)
    return Monodomain(
        mesh.points_mm, mesh.tets, mesh.fibre, np.full(m, D_L), np.full(m, D_T), lambda nodes: Cells(models, region_of_node=region[nodes])
    )


def test_lattices_are_those_of_the_meshers():
    points, tets = box_tets((3.0, 3.0, 3.0), 0.5)
    for found, share, neighbours in (
        (*find_lattice(points, tets), 14),
        (*find_lattice(*box_tets((3.0, 3.0, 3.0), 0.5, "alternating")), 96),
        (*find_lattice(*stuffed_ball(2.2, 0.5)), 14),
    ):
        assert len(found.reach) == neighbours
        assert share > 0.5
        # a period holds its nodes' volumes, and no linear field makes a current
        assert found.lumped.sum() == pytest.approx(abs(np.linalg.det(found.periods)))
        for six in np.eye(6):
            flux = found.weights(six) @ found.reach
            assert np.allclose(flux, 0.0, atol=1e-12)
    with pytest.raises(InputError, match="not on a lattice"):
        find_lattice(points + np.random.default_rng(0).uniform(-0.05, 0.05, points.shape), tets)


def stuffed_ball(radius, constant):
    low = np.full(3, -radius - constant)
    ball = stuff(lambda p: np.linalg.norm(p, axis=1) - radius, low, -low, constant)
    return ball.points, ball.tets


def test_bend_moves_conductance_between_edges_and_nothing_else():
    points, tets = stuffed_ball(2.2, 0.5)
    lattice, _ = find_lattice(points, tets)
    p = points[tets]
    volume = np.linalg.det(p[:, 1:] - p[:, :1]) / 6.0
    bend = lattice.bend_tensors(points, tets, volume)
    ones = np.ones(len(tets))
    ops = operators.build(points, tets, np.tile([1.0, 0, 0], (len(tets), 1)), ones, ones, tensor=bend)
    centre = int(np.argmin(np.linalg.norm(points[ops.nodes], axis=1)))
    row = slice(ops.start[centre], ops.start[centre + 1])
    reach = points[ops.nodes[ops.column[row]]] - points[ops.nodes[centre]]
    values = ops.stiffness[row] * ops.lumped[centre]
    assert np.allclose(np.einsum("e,ex,ey->xy", values, reach, reach), 0.0, atol=1e-12)
    assert (values[np.linalg.norm(reach, axis=1) > 0.49] < -0.1).all()
    assert (values[np.linalg.norm(reach, axis=1) < 0.49] > 0.1).all()


def test_a_chain_runs_like_the_box_of_its_lattice():
    model = ionic_model("ten_tusscher_panfilov_2006", cell="epi")
    spacing = 0.3
    bar = planar.Bar("kuhn", 10.0, 4.0, 8.0, planar.SIGMA_L.value, 1.0, planar.ALONG)
    kuhn = lattices.box((spacing,) * 3, "kuhn")
    weights = kuhn.weights(np.array([D_L, 0.1 * D_L, 0.1 * D_L, 0, 0, 0]))
    chain = lattices.chain_along(kuhn, np.array([1.0, 0.0, 0.0]))
    # lumped: a bar one cube wide has no sides then
    speed = lattices.wave_speeds(kuhn, [(chain, weights)], cells_of(model), 1.0)[0]
    assert speed == pytest.approx(planar.speed_m_s(bar, spacing, Settings(theta=1.0)), rel=0.01)


def test_a_table_is_read_the_same_in_every_turn_of_the_cube():
    rng = np.random.default_rng(2)
    corner = reduced_directions()
    n = len(corner)
    strain = np.stack([symmetric(f, row)[:6] for f, row in zip(corner, rng.standard_normal((n, 7)))])
    table = Table(corner, strain, rng.standard_normal(n), rng.standard_normal((n, 11)), rng.standard_normal((n, 11)))
    at_nodes = interpolate(table, corner)
    assert np.allclose(at_nodes.strain, strain)
    assert np.allclose(at_nodes.bend, table.bend)
    fibre = rng.standard_normal((30, 3))
    fibre /= np.linalg.norm(fibre, axis=1)[:, None]
    plain = interpolate(table, fibre)
    for turn in TURNS:
        turned = interpolate(table, fibre @ turn.T)
        assert np.allclose(turned.bend, plain.bend)
        assert np.allclose(matrix(turned.strain), turn @ matrix(plain.strain) @ turn.T)


@pytest.mark.parametrize(("way", "fibre", "share"), [("along", (1.0, 0, 0), 0.05), ("across", (0, 1.0, 0), 0.1)])
def test_a_meshed_slab_shows_the_velocity_asked_for(way, fibre, share):
    """At 0.5 mm, cut obliquely from the mesher's lattice; uncorrected it is 13 % too slow."""
    slab = correction.meshed_slab(0.5, (8.0, 3.0, 3.0))
    speeds = (0.6, 0.22)
    found = correction.slab_speed_m_s(slab, np.tile(fibre, (len(slab.tets), 1)), 0, speeds, correction.epi())
    assert found == pytest.approx(speeds[way == "across"], rel=share)


def test_passive_tissue_keeps_its_tensor():
    points, tets = box_tets((2.0, 2.0, 2.0), 0.5)
    fibre = np.tile([1.0, 0, 0], (len(tets), 1))
    found = correct(points, tets, fibre, np.zeros(len(tets), np.int32), [(D_L, D_T)], [None])
    assert np.allclose(found.tensor[:, :3], [D_L, D_T, D_T])
    assert np.allclose(found.tensor[:, 3:], 0)
    assert found.report["tissues"] == []


def test_interpolated_states_give_the_nodal_current_at_nodes_and_add_nothing_to_a_flat_voltage():
    sick, well = (ionic_model("ten_tusscher_panfilov_2006", cell="epi", scale={"G_Na": g}) for g in (0.38, 1.0))
    points, tets = box_tets((1.0, 1.0, 1.0), 0.5)
    region = (points[:, 0] > 0.6).astype(np.int32)
    cells = Cells([sick, well], region)
    v = np.random.default_rng(0).uniform(-85, 20, len(points)).astype(np.float32)
    current = np.zeros_like(v)
    for _ in range(20):
        cells.advance(v, 0.05, current)
    cells.advance(v, 0.0, current)
    assert np.allclose(cells.current_at(np.arange(len(v))[:, None], np.ones((1, 1)), v)[:, 0], current, rtol=1e-5)
    between = InterpolatedCurrent(tets, np.full(len(tets), 1.0 / 48), cells)
    assert np.abs(between.excess(v)).max() > 1e-3
    assert np.array_equal(between.excess(np.full(len(v), -70.0, np.float32)), np.zeros(len(v)))
    with pytest.raises(InputError, match="interpolates the states"):
        InterpolatedCurrent(tets, np.ones(len(tets)), Passive(len(v)))


def test_orders_of_convergence():
    assert [r["name"] for r in convergence.checks() if not r["passed"]] == []


@pytest.mark.slow
@pytest.mark.real
def test_interpolated_states_agree_with_chaste_at_every_node():
    data = os.environ.get("VTWIN_DATA")
    if data is None:
        pytest.skip("VTWIN_DATA is not set")
    published = np.loadtxt(Path(data).parent / "reference/niederer/chaste_svi_h0.5mm_dt0.01ms_nodes.csv", delimiter=",", skiprows=1)
    s, _ = niederer.run_slab(0.5, Settings(dt_ms=0.05, scheme="svi", threshold_mv=0.0), 60.0)
    distance, node = cKDTree(s.points_mm).query(published[:, :3])
    assert distance.max() < 1e-6
    assert np.abs(niederer.first_ms(s)[node] - published[:, 3]).max() < 0.5


@pytest.mark.slow
def test_every_published_check_passes():
    records = [*niederer.checks(fast=False), *planar.checks(), *correction.checks(fast=False), *spiral.checks(fast=False)]
    assert [r["name"] for r in records if not r["passed"]] == []
