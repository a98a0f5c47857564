"""What is particular to some cell models, parameters per node, drugs, and steady states on disk."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.ionic import Cells, apd_ms, cell_names, ionic_model, model_names, pace, torord_parts
from solvers.ionic.cells import evaluate
from solvers.ionic.drugs import DRUGS, block_effect, combined, drug_effect, unblocked
from solvers.ionic.model import currents
from solvers.ionic.protocols import PacedCell, dynamic, last_cycle_ms, measure, s1s2
from solvers.ionic.steady import prepaced
from solvers.kernels.ionic import local_names, observer, vector_source
from solvers.verify.single_cell import integrate
from twin.errors import InputError

TT06, TORORD, STEWART = "ten_tusscher_panfilov_2006", "torord_2019", "stewart_2009"


# --- models ----------------------------------------------------------------------------------------------------------------------


def _rates(phi):
    """Transition rates of the I_Kr chain, 1/ms, as printed: up and down of C0-C1, C1-C2, C2-O, O-I, and C2-I with its return."""
    e = np.exp
    down2, again, skip, up2, shut = (
        0.349e-3 * e(-1.062 * phi),
        1.25 * 0.0522 * e(-0.8209 * phi),
        0.52e-4 * e(1.525 * phi),
        0.0578 * e(0.971 * phi),
        0.2533 * e(0.5953 * phi),
    )
    back = down2 * again * skip / (up2 * shut)
    return 0.1161 * e(0.299 * phi), 0.2442 * e(-1.604 * phi), 1.25 * 0.1235, 0.1911, up2, down2, shut, again, skip, back


def _generator(phi):
    """Matrix A of d(C0, C1, C2, O, I)/dt = A x."""
    a0, b0, a1, b1, a2, b2, ai, bi, skip, back = _rates(phi)
    flows = {(0, 1): a0, (1, 0): b0, (1, 2): a1, (2, 1): b1, (2, 3): a2, (3, 2): b2, (3, 4): ai, (4, 3): bi, (2, 4): skip, (4, 2): back}
    matrix = np.zeros((5, 5))
    for (source, target), rate in flows.items():
        matrix[target, source] += rate
        matrix[source, source] -= rate
    return matrix


@settings(max_examples=60, deadline=None)
@given(v=st.floats(-120, 60), dt=st.floats(0.001, 2.0), seed=st.integers(0, 1000))
def test_potassium_chain_is_an_implicit_step(v, dt, seed):
    """(1 - dt A) x_new = x_old for any state and dt: positive, sums to 1, stable."""
    x = np.random.default_rng(seed).dirichlet(np.ones(5))
    phi = v / 26.71233870551
    new = torord_parts.rapid_rectifier(phi, dt, SimpleNamespace(C1=x[1], C2=x[2], O=x[3], I=x[4]))
    expected = np.linalg.solve(np.eye(5) - dt * _generator(phi), x)
    np.testing.assert_allclose(new, expected[1:], rtol=1e-9, atol=1e-13)
    assert min(new) >= 0.0
    assert sum(new) <= 1.0 + 1e-12


def test_emptied_store_stays_empty_not_negative():
    """The mid-myocardial store is emptied by a beat; a step too long for it may not take it below zero."""
    cell = PacedCell(ionic_model(TORORD, "mid"), 0.05, "float32")
    _, trace = cell.trace(400.0, 0.1)
    store = trace.states[:, cell.model.state_names.index("Ca_jsr")]
    assert store.min() >= 0.0
    assert store.min() < 0.3
    assert np.isfinite(trace.states).all()


def test_buffers_conserve_calcium():
    """Free and bound calcium together change by the total that came in, to second order."""
    b1, k1, b2, k2 = 0.047, 0.00087, 1.124, 0.0087

    def whole(c):
        return c + b1 * c / (k1 + c) + b2 * c / (k2 + c)

    errors = []
    for total in (0.02, 0.01):
        new = torord_parts.buffered(1e-4, total, b1, k1, b2, k2)
        errors.append(abs(whole(new) - whole(1e-4) - total) / total)
    assert errors[0] < 3e-3
    assert errors[1] < 0.35 * errors[0]


def test_purkinje_currents_are_the_published_ones():
    """I_to, I_sus, I_K1 and the total of I_f, written again as printed, at states all over."""
    model, rng = ionic_model(STEWART), np.random.default_rng(3)
    v = rng.uniform(-95, 50, 200)
    state = model.initial_state[:, None] * rng.uniform(0.8, 1.0, (len(model.initial_state), 200))
    s = SimpleNamespace(**dict(zip(model.state_names, state)))
    p = SimpleNamespace(**model.parameters)
    names = ("I_to", "I_sus", "I_K1", "r", "s_gate", "y", "v_K", "sodium", "potassium")
    got = dict(zip(names, observer(STEWART, model.step(), names)(v, 1e-9, s, p)))
    e_k = 8314.472 * 310.0 / 96485.3415 * np.log(5.4 / (136.9896086978 + s.dK_i))
    np.testing.assert_allclose(got["I_to"], 0.08184 * s.r * s.s * (v - e_k), rtol=1e-6)
    np.testing.assert_allclose(got["I_sus"], 0.0227 / (1 + np.exp((5 - v) / 17)) * (v - e_k), rtol=1e-7)
    np.testing.assert_allclose(got["I_K1"], 0.065 / (1 + np.exp(0.1 * (v + 75.44))) * (v - 8 - e_k), rtol=1e-7)
    without = ionic_model(STEWART, scale={"G_fNa": 0.0, "G_fK": 0.0})
    less = observer(STEWART, model.step(), names)(v, 1e-9, s, SimpleNamespace(**without.parameters))
    e_na = 8314.472 * 310.0 / 96485.3415 * np.log(140 / (8.5447311020 + s.dNa_i))
    np.testing.assert_allclose(got["sodium"] - less[7], s.y * 0.0145654 * (v - e_na), rtol=1e-6)
    np.testing.assert_allclose(got["potassium"] - less[8], s.y * 0.0234346 * (v - e_k), rtol=1e-6, atol=1e-12)


def test_purkinje_beats_by_itself():
    cell = PacedCell(ionic_model(STEWART), 0.05, "float32", stimulus_mv_ms=0.0)
    v = cell.voltage(4000.0)[0]
    assert 800.0 < last_cycle_ms(v) < 1500.0
    quiet = PacedCell(ionic_model(STEWART, scale={"G_Na": 0.0}), 0.05, "float32", stimulus_mv_ms=0.0)
    assert np.isnan(last_cycle_ms(quiet.voltage(4000.0)[0], 0.0))


def test_correction_stops_pacemaking():
    """A gate at 0.35 makes the model of 2003 beat for ever after one stimulus; the corrected one comes to rest."""
    swings = {}
    for name in ("mitchell_schaeffer", "corrado_niederer"):
        cell = PacedCell(ionic_model(name, scale={"v_gate": 0.35 / 0.13}), 0.05, "float64", stimulus_mv_ms=50.0)
        swings[name] = float(np.ptp(cell.voltage(8000.0)[0][-20000:]))
    assert swings["mitchell_schaeffer"] > 30.0
    assert swings["corrado_niederer"] < 0.1


def test_corrected_duration_is_the_closed_form():
    """Slow-fast limit: h decays with tau_close to where the plateau ends, (1 - a)^2/4 = (tau_in/tau_out)(1 - h)/h, a = v_gate."""
    model = ionic_model("corrado_niederer", scale={"tau_in": 0.02, "tau_out": 0.02})
    ratio = model.parameters["tau_in"] / model.parameters["tau_out"] / (0.25 * (1.0 - model.parameters["v_gate"]) ** 2)
    expected = model.parameters["tau_close"] * np.log((1.0 + ratio) / ratio)
    time_ms, beats = pace(model, 1000.0, 2, 0.001, "float64", stimulus_mv_ms=200.0)
    assert apd_ms(time_ms, beats[-1], 0.9) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("name", "cell"), [("corrado_niederer", "default"), ("bueno_orovio", "tnnp"), (STEWART, "purkinje")])
def test_time_stepping_against_an_adaptive_solver(name, cell):
    model = ionic_model(name, cell)
    beat, reference = measure(PacedCell(model, 0.02, "float32").voltage(1000.0)[0]), integrate(model, 1)[0]
    assert beat.apd90_ms == pytest.approx(reference.apd90_ms, abs=1.0)
    assert beat.peak_mv == pytest.approx(reference.peak_mv, abs=1.0)


# --- what models are written with --------------------------------------------------------------------------------------------------


def _shifted(x, width):
    y = x / width
    return y, y + 1.0


def test_called_functions_are_written_into_the_kernel():
    def step(v, dt, s, p):
        one, two = _shifted(v, dt)
        three, four = _shifted(one, two)
        return three, four

    step.__globals__["_shifted"] = _shifted
    source = vector_source("x", step, ("h",), (), "float32")
    assert "_shifted" not in source
    assert "m_y__1" in source
    assert "m_y__2" in source

    def keyword(v, dt, s, p):
        one, two = _shifted(v, width=dt)
        return one, two

    with pytest.raises(ValueError, match="one name per argument"):
        vector_source("x", keyword, ("h",), (), "float32")


def test_factors_per_node_equal_models_of_their_own():
    """Nodes with factors get what the same model with that scale gets, and models without the parameter are left alone."""
    n, rng = 60, np.random.default_rng(5)
    factors = rng.choice([0.3, 1.0], n)
    models = [ionic_model("bueno_orovio", "epi"), ionic_model("mitchell_schaeffer")]
    region = (np.arange(n) % 5 == 0).astype(np.int32)
    mixed = Cells(models, region, "float64", {"tau_fi": factors, "tau_si": np.ones(n)})
    scaled = ionic_model("bueno_orovio", "epi", {"tau_fi": 0.3})
    other = Cells([*models, scaled], np.where((region == 0) & (factors == 0.3), 2, region), "float64")
    start = mixed.initial_v() + np.linspace(0, 80, n)
    results = []
    for cells in (mixed, other):
        v, current = start.copy(), np.empty(n)
        for _ in range(20):
            cells.advance(v, 0.02, current)
            v -= 0.02 * current
        results.append(v)
    np.testing.assert_allclose(*results, rtol=1e-12)
    saved = mixed.snapshot()
    mixed.restore(saved)
    assert np.isfinite(mixed.values("w_gate")[region == 0]).all()
    assert np.isnan(mixed.values("w_gate")[region == 1]).all()


@pytest.mark.parametrize(
    ("per_node", "hint"),
    [({"G_NaX": np.ones(3)}, "none of these models"), ({"G_Na": np.ones(4)}, "3 finite"), ({"G_Na": np.full(3, np.nan)}, "finite")],
)
def test_bad_factors_are_explained(per_node, hint):
    with pytest.raises(InputError, match=hint):
        Cells([ionic_model(TT06)], np.zeros(3, np.int32), per_node=per_node)


@pytest.mark.parametrize("name", model_names())
def test_currents_name_parameters(name):
    """Every listed current scales with its parameters: blocking it changes the total current."""
    model = ionic_model(name, cell_names(name)[0])
    rng = np.random.default_rng(1)
    state = model.initial_state[:, None] * rng.uniform(0.7, 1.0, (len(model.initial_state), 50)) + 0.05
    v = rng.uniform(-90, 40, 50)
    full = evaluate(model, v, 0.02, state)[0]
    for current in currents(name):
        blocked = ionic_model(name, model.cell, block_effect(name, {current: {"ic50": 1.0, "concentration": 1.0}}).scale)
        assert np.abs(evaluate(blocked, v, 0.02, state)[0] - full).max() > 0, current
    assert len(local_names(model.step())) > 2


# --- drugs -------------------------------------------------------------------------------------------------------------------------


@given(c=st.floats(0, 1e6), ic50=st.floats(1e-4, 1e4), hill=st.floats(0.2, 4))
def test_dose_response(c, ic50, hill):
    left = unblocked(c, ic50, hill)
    assert 0.0 <= left <= 1.0
    assert unblocked(ic50, ic50, hill) == pytest.approx(0.5)
    assert unblocked(2 * c, ic50, hill) <= left + 1e-12


def test_drugs_of_the_table_reach_the_parameters():
    for drug in DRUGS:
        effect = drug_effect(TORORD, drug, 1.0)
        assert effect.left_out == ()
        assert all(0 < f < 1 for f in effect.scale.values())
    effect = drug_effect(TT06, "mexiletine", 4.129)
    assert effect.left_out == ("I_NaL",)
    per_node = drug_effect(TT06, "dofetilide", np.array([0.0, 0.002])).scale["G_Kr"]
    assert per_node == pytest.approx([1.0, 1 / (1 + (0.002 / 0.001462) ** 0.634)])
    assert combined({"a": 0.5}, {"a": 0.5, "b": 2.0}) == {"a": 0.25, "b": 2.0}
    assert block_effect("mitchell_schaeffer", {"I_in": {"ic50": 1, "concentration": 1}}).scale == {"tau_in": 2.0}


def test_block_of_rapid_rectifier_lengthens():
    apds = []
    for scale in ({}, drug_effect(TORORD, "dofetilide", 0.002).scale):
        time_ms, beats = pace(ionic_model(TORORD, "epi", scale), 1000.0, 3, 0.02, "float32")
        apds.append(apd_ms(time_ms, beats[-1]))
    assert apds[1] > apds[0] + 40.0


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: drug_effect(TORORD, "dofetilid", 1.0), "dofetilide"),
        (lambda: drug_effect("mitchell_schaeffer", "dofetilide", 1.0), "none of the currents"),
        (lambda: drug_effect(TORORD, "dofetilide", -1.0), "negative"),
        (lambda: block_effect(TT06, {"I_NaL": {"ic50": 1, "concentration": 1}}), "no such current"),
        (lambda: block_effect(TT06, {"I_Na": {"ic50": 1}}), "needs ic50"),
        (lambda: block_effect(TT06, {"I_Na": {"ic50": 0, "concentration": 1}}), "not positive"),
    ],
)
def test_bad_drugs_are_explained(call, hint):
    with pytest.raises(InputError, match=hint):
        call()


# --- steady states -----------------------------------------------------------------------------------------------------------------


def test_steady_state_is_kept(tmp_path):
    model = ionic_model("bueno_orovio", "epi")
    first = prepaced(model, 500.0, 10, folder=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    written = path.stat().st_mtime_ns
    assert np.array_equal(prepaced(model, 500.0, 10, folder=tmp_path).initial_state, first.initial_state)
    assert path.stat().st_mtime_ns == written
    cell = PacedCell(model)
    cell.voltage(500.0, 10)
    assert np.array_equal(first.initial_state, cell.cable.state[0, : len(model.state_names), 0])
    assert first.rest_mv == cell.cable.v[0]
    for other in (
        prepaced(model, 500.0, 11, folder=tmp_path),
        prepaced(ionic_model("bueno_orovio", "epi", {"tau_si": 1.1}), 500.0, 10, folder=tmp_path),
    ):
        assert not np.array_equal(other.initial_state, first.initial_state)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"x" * len(data)])
def test_damaged_file_is_computed_again(tmp_path, damage):
    model = ionic_model("mitchell_schaeffer")
    first = prepaced(model, 400.0, 5, folder=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert np.array_equal(prepaced(model, 400.0, 5, folder=tmp_path).initial_state, first.initial_state)
    assert path.read_bytes() == good


def test_steady_state_from_many_threads(tmp_path):
    model, results = ionic_model("mitchell_schaeffer"), []
    prepaced(model, 300.0, 1, folder=tmp_path / "compiled")

    def work():
        results.append(prepaced(model, 300.0, 40, folder=tmp_path).initial_state.tolist())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(r == results[0] for r in results)
    assert not list(tmp_path.glob("*.tmp"))


# --- restitution -------------------------------------------------------------------------------------------------------------------


def test_restitution_of_the_two_current_model_is_the_published_one():
    """APD = tau_close ln(h/h_min), h = 1 - (1 - h_min) e^(-DI/tau_open), h_min = 4 tau_in/tau_out (Mitchell and Schaeffer 2003)."""
    model = ionic_model("mitchell_schaeffer", scale={"tau_in": 0.02, "tau_out": 0.02})
    p = model.parameters
    rows = s1s2(PacedCell(model, 0.002, stimulus_mv_ms=60.0), 800.0, 3, [800.0, 600.0, 500.0, 450.0])
    h_min = 4 * p["tau_in"] / p["tau_out"]
    assert all(row["captured"] for row in rows)
    for row in rows:
        h = 1 - (1 - h_min) * np.exp(-row["di_ms"] / p["tau_open"])
        assert row["apd90_ms"] == pytest.approx(p["tau_close"] * np.log(h / h_min), abs=6.0)


def test_dynamic_protocol_ends_where_capture_is_lost():
    rows = dynamic(PacedCell(ionic_model("bueno_orovio", "epi"), 0.05), [600.0, 400.0, 150.0, 120.0], 6)
    assert [row["interval_ms"] for row in rows] == [600.0, 600.0, 400.0, 400.0, 150.0, 150.0]
    assert [row["captured"] for row in rows[:4]] == [True] * 4
    assert not all(row["captured"] for row in rows[4:])
    assert rows[2]["apd90_ms"] < rows[0]["apd90_ms"]
