"""Cell models against reference solutions, and the generated kernels against the plain meaning of their source."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import binding

from solvers.bench import ionic as bench
from solvers.ionic import Cells, IonicModel, apd_ms, cell_names, ionic_model, model_names, pace, restitution
from solvers.ionic.cells import evaluate
from solvers.ionic.pacing import Cable
from solvers.kernels import simd
from solvers.kernels.ionic import LANES, plain_kernel, vector_source
from solvers.verify import single_cell
from twin.errors import InputError

TT06 = "ten_tusscher_panfilov_2006"
EVERY_CELL = [(name, cell) for name in model_names() for cell in cell_names(name)]
PRECISIONS = ("float32", "float64")


@numba.njit(error_model="numpy")
def _exp(x, y):
    for i in range(x.size):
        y[i] = simd.exp(x[i])


@numba.njit(error_model="numpy")
def _log(x, y):
    for i in range(x.size):
        y[i] = simd.log(x[i])


@numba.njit(error_model="numpy")
def _relax(x, y):
    for i in range(x.size):
        y[i] = simd.relax(x[i])


def _start(model: IonicModel, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """V over the whole range and states scattered around their start, (n,) and (K, n)."""
    state = model.initial_state[:, None] * rng.uniform(0.8, 1.0, (len(model.initial_state), n))
    return rng.uniform(-95.0, 50.0, n), state


@pytest.mark.parametrize(("dtype", "limit", "tolerance"), [(np.float32, 86.0, 2e-7), (np.float64, 700.0, 1e-15)])
def test_vector_functions_are_accurate(dtype, limit, tolerance):
    rng = np.random.default_rng(1)
    arguments = {_exp: rng.uniform(-limit, limit, 100_000), _relax: np.exp(rng.uniform(-20, 4, 100_000))}
    exact = {_exp: np.exp, _relax: lambda x: -np.expm1(-x)}
    for kernel, values in arguments.items():
        x = values.astype(dtype)
        y = np.empty_like(x)
        kernel(x, y)
        assert np.abs(y / exact[kernel](x.astype(np.longdouble)) - 1).max() < tolerance
    # the logarithm passes through zero: relative error where it is not small, absolute where it is
    x = np.exp(rng.uniform(-60, 60, 100_000)).astype(dtype)
    y = np.empty_like(x)
    _log(x, y)
    true = np.log(x.astype(np.longdouble))
    assert (np.abs(y - true) / np.maximum(np.abs(true), 1.0)).max() < tolerance


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_saturates_and_keeps_nan(dtype):
    x = np.array([1e30, -1e30, np.inf, -np.inf, np.nan, 0.0], dtype)
    y = np.empty_like(x)
    _exp(x, y)
    assert np.isfinite(y[:4]).all()
    assert np.isnan(y[4])
    assert y[5] == 1.0


# the Purkinje cell is made of the ten Tusscher cell's functions: its float64 kernel is compiled in the long run only
KERNELS = [
    pytest.param(name, cell, precision, marks=[pytest.mark.slow] if (name, precision) == ("stewart_2009", "float64") else [])
    for name, cell in EVERY_CELL
    for precision in PRECISIONS
]


@pytest.mark.parametrize(("name", "cell", "precision"), KERNELS)
def test_kernel_equals_its_source(name, cell, precision):
    """One step of the vector kernel, the plain kernel and NumPy on the same source."""
    model, n, rng = ionic_model(name, cell), 1000, np.random.default_rng(2)
    v, state = _start(model, n, rng)
    cells = Cells([model], np.zeros(n, np.int32), precision)
    group = cells._groups[0]
    lanes = np.zeros((group.index.size, len(state)))
    lanes[:] = state.T[group.index]
    group.state[:, :-2] = lanes.reshape(-1, LANES[precision], len(state)).transpose(0, 2, 1)
    v = v.astype(precision)
    current = np.empty_like(v)
    cells.advance(v, 0.02, current)
    expected = evaluate(model, v.astype(np.float64), 0.02, state.astype(precision).astype(np.float64))
    tolerance = {"float32": 3e-5, "float64": 1e-11}[precision]
    assert np.abs(current - expected[0]).max() < tolerance * np.abs(expected[0]).max()
    for state_name, values in zip(model.state_names, expected[1:]):
        if state_name == "carry":
            # what rounding loses differs between precisions by nature
            continue
        np.testing.assert_allclose(cells.values(state_name), values, rtol=tolerance, atol=tolerance * 1e-2)
    if precision == "float32" or name in ("torord_2019", "stewart_2009"):
        # the loop that only the timings use: not worth more compilations
        return
    plain_state, plain_current = state.astype(precision), np.empty_like(v)
    plain = plain_kernel(model.name, model.step(), model.state_names, tuple(model.parameters))
    plain(plain_state, model.row().astype(precision), v, plain_current, v.dtype.type(0.02))
    assert np.abs(plain_current - expected[0]).max() < tolerance * np.abs(expected[0]).max()


@pytest.mark.slow
def test_reference_table():
    """Twenty beats of every cell in both precisions: rest, peak, APD50, APD90, calcium; float32 stays with float64."""
    records = single_cell.checks()
    assert len(records) > 100
    failed = [f"{r['name']}: {r['value']:.3f} {r['unit']}, not {r['reference']} +- {r['tolerance']}" for r in records if not r["passed"]]
    assert not failed


@pytest.mark.parametrize(("name", "cell"), single_cell.REFERENCE)
def test_last_beat_in_float32(name, cell):
    """Beat 20 of every cell with a reference, in the precision of tissue runs."""
    time_ms, beats = pace(ionic_model(name, cell), 1000.0, 20, 0.02, "float32")
    rest, peak, apd90 = single_cell.REFERENCE[name, cell][:3]
    assert beats[-1][0] == pytest.approx(rest, abs=0.1)
    assert beats[-1].max() == pytest.approx(peak, abs=1.0)
    assert apd_ms(time_ms, beats[-1]) == pytest.approx(apd90, abs=1.0)


@pytest.mark.real
@pytest.mark.parametrize(("name", "cell"), EVERY_CELL)
def test_reference_trace(name, cell):
    """Beat 20 against the reference trace, away from the upstroke, where 0.02 ms of time is 6 mV."""
    data = os.environ.get("VTWIN_DATA")
    if not data:
        pytest.skip("VTWIN_DATA is not set")
    if (name, cell) not in single_cell.REFERENCE:
        pytest.skip("there is no reference trace of this cell")
    middle = {"mid": "M"}.get(cell, cell)
    label = {
        TT06: f"tt06_{middle}",
        "torord_2019": f"torord_dyncl_{cell}",
        "bueno_orovio": f"bueno_orovio_{middle}",
    }.get(name, name)
    path = Path(data).parent / "reference" / "single_cell" / f"{label}_bcl1000_beat20.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt") as handle:
        rows = np.array([[float(x) for x in row[:2]] for row in list(csv.reader(handle))[1:]])
    time_ms, beats = pace(ionic_model(name, cell), 1000.0, 20, 0.02, "float32")
    error = beats[-1] - np.interp(time_ms, rows[:, 0], rows[:, 1])
    assert np.sqrt(np.mean(error[time_ms > 10.0] ** 2)) < 0.5
    assert np.abs(error[time_ms > 10.0]).max() < 2.0


def test_time_step_converges():
    """First-order scheme: halving dt about halves the error of APD90 against a fine step."""
    model = ionic_model(TT06, "epi")
    apds = [apd_ms(*(a if a.ndim == 1 else a[0] for a in pace(model, 500.0, 1, dt, "float64"))) for dt in (0.05, 0.02, 0.005)]
    assert abs(apds[1] - apds[2]) < 0.6 * abs(apds[0] - apds[2]) + 0.01
    assert abs(apds[0] - apds[2]) < 1.0


def test_scale_multiplies_and_shows_in_the_potential():
    base, scaled = ionic_model(TT06, "epi"), ionic_model(TT06, "epi", {"G_Na": 0.38, "G_Kr": 0.3})
    assert scaled.parameters["G_Na"] == pytest.approx(0.38 * base.parameters["G_Na"])
    assert scaled.parameters["G_CaL"] == base.parameters["G_CaL"]
    traces = [pace(m, 600.0, 1, 0.02)[1][0] for m in (base, scaled)]
    time_ms = pace(base, 600.0, 1, 0.02)[0]
    assert np.gradient(traces[1], time_ms).max() < 0.6 * np.gradient(traces[0], time_ms).max()
    assert apd_ms(time_ms, traces[1]) > apd_ms(time_ms, traces[0]) + 5.0


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: ionic_model("ten_tuscher_panfilov_2006"), TT06),
        (lambda: ionic_model(TT06, "endoo"), "endo"),
        (lambda: ionic_model(TT06, "epi", {"g_na": 0.5}), "G_Na"),
        (lambda: ionic_model(TT06, "epi", {"G_Na": float("nan")}), "finite"),
        (lambda: Cells([ionic_model(TT06)], np.zeros(3, np.int32), "float16"), "float32"),
        (lambda: Cells([ionic_model(TT06)], np.ones(3, np.int32)), "regions"),
    ],
)
def test_bad_input_is_explained(call, hint):
    with pytest.raises(InputError, match=hint):
        call()


def test_wrong_arrays_are_refused():
    cells = Cells([ionic_model("mitchell_schaeffer")], np.zeros(5, np.int32))
    v = cells.initial_v()
    with pytest.raises(ValueError, match="contiguous"):
        cells.advance(v.astype(np.float64), 0.02, np.empty_like(v))
    with pytest.raises(ValueError, match="contiguous"):
        cells.advance(np.zeros(10, np.float32)[::2], 0.02, np.empty_like(v))


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 700), seed=st.integers(0, 2**16), precision=st.sampled_from(PRECISIONS))
def test_mixed_regions_equal_separate_runs(n, seed, precision):
    """Any assignment of models to nodes gives each node what it gets alone, bit by bit."""
    rng = np.random.default_rng(seed)
    models = [ionic_model(TT06, "epi"), ionic_model("mitchell_schaeffer"), ionic_model(TT06, "mid", {"G_Na": 0.38})]
    region = rng.integers(0, len(models), n).astype(np.int32)
    mixed = Cells(models, region, precision)
    start = (mixed.initial_v() + rng.uniform(-5, 90, n)).astype(precision)
    assert np.array_equal(_march(mixed, start.copy()), _separately(models, region, start, precision))


def _separately(models, region, start, precision):
    out = np.empty_like(start)
    for i, model in enumerate(models):
        nodes = np.flatnonzero(region == i)
        out[nodes] = _march(Cells([model], np.zeros(nodes.size, np.int32), precision), start[nodes])
    return out


def _march(cells, v, steps=5):
    current = np.empty_like(v)
    for _ in range(steps):
        cells.advance(v, 0.02, current)
        v -= v.dtype.type(0.02) * current
    return v


def test_snapshot_restores_every_bit():
    models = [ionic_model(TT06, "endo"), ionic_model("mitchell_schaeffer")]
    cells = Cells(models, np.arange(50, dtype=np.int32) % 2)
    v = _march(cells, (cells.initial_v() + 60).astype(np.float32))
    saved, v_saved = cells.snapshot(), v.copy()
    first = _march(cells, v.copy(), 20)
    assert not np.array_equal(first, v_saved)
    cells.restore(saved)
    assert np.array_equal(_march(cells, v_saved.copy(), 20), first)
    with pytest.raises(ValueError, match="not of these cells"):
        Cells(models, np.zeros(50, np.int32)).restore(saved)


def test_result_does_not_depend_on_threads():
    before, results = numba.get_num_threads(), []
    if before < 2:
        pytest.skip("one thread allowed")
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            cells = Cells([ionic_model(TT06, "epi"), ionic_model(TT06, "mid")], np.arange(5000, dtype=np.int32) % 2)
            results.append(_march(cells, cells.initial_v() + np.linspace(0, 100, 5000, dtype=np.float32)))
    finally:
        numba.set_num_threads(before)
    assert np.array_equal(*results)


def test_divergence_stays_visible():
    cells = Cells([ionic_model(TT06)], np.zeros(20, np.int32))
    v = cells.initial_v()
    v[3] = np.nan
    current = np.empty_like(v)
    cells.advance(v, 0.02, current)
    assert np.isnan(current[3])
    assert np.isfinite(np.delete(current, 3)).all()


_INSPECT = """
import re
import numpy as np
from solvers.ionic import Cells, ionic_model
for name in {names}:
    cells = Cells([ionic_model(name)], np.zeros(16, np.int32))
    v, group = cells.initial_v(), cells._groups[0]
    group.kernels.blocks(group.state.reshape(-1), group.index, group.rows[0], v, v.copy(), v.dtype.type(0.02))
    text = "".join(group.kernels.blocks.inspect_asm().values())
    arithmetic = r"\\bv(?:add|sub|mul|div|fn?m(?:add|sub)\\d+)"
    wide = "zmm" if "zmm" in text else "ymm"
    print(name, wide, len(re.findall(arithmetic + "ps.*%" + wide, text)), len(re.findall(arithmetic + "ss\\s", text)))
"""


@pytest.mark.parametrize("names", [(TT06, "torord_2019"), pytest.param(model_names(), marks=pytest.mark.slow)])
def test_kernels_use_vector_registers(tmp_path, names):
    """Arithmetic of every model is packed, not scalar."""
    features = binding.get_host_cpu_features()
    wide = "zmm" if features.get("avx512f") else "ymm"
    if not features.get("avx2"):
        pytest.skip("no AVX2 on this machine")
    # numba shows no assembly of code that came from its cache: compile into an empty one
    for line in _python(_INSPECT.format(names=names), tmp_path).splitlines():
        name, register, packed, scalar = line.split()
        assert register == wide, name
        assert int(packed) > 5, name
        # what only depends on parameters stays scalar, outside the loop over lanes: most of it in the small models
        assert int(packed) > 10 * int(scalar) or int(scalar) < 120, (name, packed, scalar)


def test_second_process_compiles_nothing(tmp_path):
    script = (
        "import numpy as np\nfrom solvers.ionic import Cells, ionic_model\n"
        "c = Cells([ionic_model('mitchell_schaeffer')], np.zeros(9, np.int32)); v = c.initial_v(); c.advance(v, 0.02, v.copy())\n"
        "s = c._groups[0].kernels.advance.stats; print(sum(s.cache_hits.values()), sum(s.cache_misses.values()))"
    )
    assert _python(script, tmp_path).split() == ["0", "1"]
    assert _python(script, tmp_path).split() == ["1", "0"]


def _python(script: str, cache: Path) -> str:
    environment = {**os.environ, "VTWIN_CACHE_DIR": str(cache)}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_generator_refuses_what_it_cannot_vectorise():
    def power(v, dt, s, p):
        x = v**2
        return x, s.h

    def branch(v, dt, s, p):
        if v > 0:
            v = 0.0
        return v, s.h

    for step, message in ((power, "can be vectorised"), (branch, "only assignments")):
        with pytest.raises(ValueError, match=message):
            vector_source("x", step, ("h",), (), "float32")


def test_bench_compares_in_one_run(monkeypatch):
    monkeypatch.setattr(bench, "CELLS", 4000)
    monkeypatch.setattr(bench, "REPEATS", 3)
    records = {r["name"]: r for r in bench.records((TT06,), ("float32",))}
    assert records[f"ionic/{TT06}/epi/float32"]["ratio"] == pytest.approx(
        records[f"ionic/{TT06}/epi/float32"]["reference"] / records[f"ionic/{TT06}/epi/float32"]["value"]
    )
    if binding.get_host_cpu_features().get("avx2"):
        assert records[f"ionic/{TT06}/epi/float32"]["ratio"] > 1.5


@pytest.mark.parametrize("kind", ["healthy", "border_zone"])
def test_shipped_restitution_is_plausible(kind):
    """Both curves fall towards short intervals, and the interval of the drive train itself gives a velocity factor of 1."""
    table = restitution.tables(kind)
    assert 20.0 < table.di_min_ms < 80.0
    bend = table.di_ms > table.di_min_ms + 10.0
    assert (np.diff(table.apd_ms[bend]) > -0.5).all()
    assert (np.diff(table.cv_factor) > -0.002).all()
    assert table.cv_factor[0] < 0.7
    s1_apd_ms = json.loads(restitution.FILE.read_text(encoding="utf-8"))[kind]["s1_apd_ms"]
    di_ms = restitution.S1_MS.value - s1_apd_ms
    assert np.interp(di_ms, table.di_ms, table.cv_factor) == pytest.approx(1.0, abs=0.005)
    assert np.interp(di_ms, table.di_ms, table.apd_ms) == pytest.approx(s1_apd_ms, abs=1.0)


def test_border_zone_is_slower_and_longer():
    entries = json.loads(restitution.FILE.read_text(encoding="utf-8"))
    assert entries["border_zone"]["s1_cv_m_s"] < 0.8 * entries["healthy"]["s1_cv_m_s"]
    assert entries["border_zone"]["s1_apd_ms"] > entries["healthy"]["s1_apd_ms"]
    with pytest.raises(InputError, match="border_zone"):
        restitution.tables("scar")


@pytest.mark.slow
def test_restitution_is_what_the_script_makes():
    """One S2 of healthy tissue, computed again, lies on the shipped curve; an S2 before the earliest one is blocked."""
    paced, table = restitution.PacedCable(restitution.model_of("healthy")), restitution.tables("healthy")
    response = paced.respond(400.0)
    assert response is not None
    assert np.interp(response.di_ms, table.di_ms, table.apd_ms) == pytest.approx(response.apd_ms, abs=0.5)
    assert np.interp(response.di_ms, table.di_ms, table.cv_factor) == pytest.approx(response.cv_m_s / response.s1_cv_m_s, abs=0.003)
    assert paced.respond(300.0) is None


def test_cable_velocity():
    """Velocity of the first wave from rest against the converged 1-D values, 0.6126 and 0.4200 m/s: second differences at 0.1 mm are
    slow by 1-3 % (design note of the monodomain solver)."""
    for scale, reference in (({}, 0.6126), ({"G_Na": 0.38}, 0.4200)):
        ratio = 0.133418 / 1.4 * 0.02 / 0.1**2
        cable = Cable(ionic_model(TT06, "epi", scale), 200, ratio=ratio)
        v = cable.run(0.02, np.arange(3000) < 100, 50.0, sites=10)
        times = [0.02 * int(np.argmax(v[i] > -20.0)) for i in (60, 140)]
        assert 8.0 / (times[1] - times[0]) == pytest.approx(0.98 * reference, rel=0.015)
