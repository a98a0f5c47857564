"""The CUDA path in numba's simulator against the CPU. Run by tests/test_cuda.py in a process of its own: numba decides once, at import."""

from __future__ import annotations

import numpy as np
import pytest

from meshing.box import box_mesh
from solvers.bench import device as bench
from solvers.experiment import load_experiment
from solvers.ionic import Cells, cell_names, ionic_model, model_names
from solvers.monodomain import device as device_module
from solvers.monodomain.device import device_name
from solvers.monodomain.fibrosis import Fibroblasts, FibroticCells, PassiveCell
from solvers.monodomain.solver import Monodomain, Settings
from solvers.simulate import run_experiment
from twin.atomic import read_npz
from twin.errors import InputError
from twin.experiment import Status, Stimulus

MESH = box_mesh((3.0, 0.5, 0.5), 0.5, (1, 1, 0))
N = len(MESH.points_mm)
START = np.flatnonzero(MESH.points_mm[:, 0] < 0.6).astype(np.int32)
FAST = {"tau_close": 0.06, "tau_open": 0.1}
"""Mitchell-Schaeffer with an action potential of some milliseconds, so that beats end and come again within a test."""


def make(models, device, region=None, precision="float32", per_node=None, settings=None, mesh=MESH):
    m, n = len(mesh.tets), len(mesh.points_mm)
    region = np.zeros(n, np.int32) if region is None else region

    def cells(nodes):
        return Cells(models, region[nodes], precision, {k: f[nodes] for k, f in (per_node or {}).items()})

    chosen = Settings(**{"device": device, **(settings or {})})
    return Monodomain(mesh.points_mm, mesh.tets, mesh.fibre, np.full(m, 0.1), np.full(m, 0.03), cells, chosen)


def both(models, until_ms, stimuli=None, run=None, **more):
    """The same run on both; returns the solvers and their results."""
    stimuli = [Stimulus(START, (0.2,))] if stimuli is None else stimuli
    solvers = [make(models, device, **more) for device in ("cpu", "cuda")]
    options = {"probes": np.array([0, N - 1]), "probe_every_ms": 0.25, **(run or {})}
    return solvers, [s.run(stimuli, until_ms, **options) for s in solvers]


def assert_same(solvers, results, tolerance=1e-4):
    """1e-4 of the range of every quantity, and the same beats in the same order."""
    (a, b), (r, q) = solvers, results
    assert q.status is r.status
    assert q.message == r.message
    assert q.summary == {**r.summary, "device": "cuda"}
    assert r.summary["device"] == "cpu"
    np.testing.assert_array_equal(q.probes_time_ms, r.probes_time_ms)
    np.testing.assert_allclose(q.probes_mv, r.probes_mv, atol=100 * tolerance)
    np.testing.assert_allclose(b.v_mv(), a.v_mv(), atol=100 * tolerance)
    # a carry is the rounding error of another state: the other machine's is another
    for state in {name for model in a.cells.models for name in model.state_names if "carry" not in name}:
        x, y = a.cells.values(state), b.cells.values(state)
        np.testing.assert_allclose(y, x, atol=tolerance * np.nanmax(np.abs(x)), err_msg=state)
    np.testing.assert_array_equal(q.activations.node, r.activations.node)
    np.testing.assert_allclose(q.activations.activation_ms, r.activations.activation_ms, rtol=tolerance)
    np.testing.assert_allclose(q.activations.recovery_ms, r.activations.recovery_ms, rtol=tolerance)


def test_this_is_the_simulator():
    assert "simulator" in device_name()


@pytest.mark.parametrize("name", model_names())
def test_every_model_comes_through(name):
    models = [ionic_model(name, cell) for cell in cell_names(name)[:1]]
    solvers, results = both(models, 2.0)
    assert_same(solvers, results)
    assert len(results[0].activations.node) > 0


def test_regions_parameters_and_factors_per_node():
    models = [
        ionic_model("bueno_orovio", "epi"),
        ionic_model("mitchell_schaeffer"),
        ionic_model("bueno_orovio", "endo", {"tau_fi": 1.2}),
    ]
    region = np.digitize(MESH.points_mm[:, 0], [1.2, 2.2])
    factors = {"tau_so1": np.linspace(0.5, 1.5, N), "tau_in": np.linspace(1.2, 0.8, N)}
    solvers, results = both(models, 3.0, region=region, per_node=factors)
    assert_same(solvers, results)
    plain = make(models, "cpu", region=region)
    plain.run([Stimulus(START, (0.2,))], 3.0)
    assert np.abs(plain.v_mv() - solvers[1].v_mv()).max() > 0.1


@pytest.mark.parametrize(("theta", "precision", "tolerance"), [(0.0, "float32", 1e-4), (1.0, "float32", 1e-4), (0.3, "float64", 1e-10)])
def test_any_mass_and_float64(theta, precision, tolerance):
    solvers, results = both([ionic_model("mitchell_schaeffer")], 2.5, precision=precision, settings={"theta": theta, "dt_ms": 0.05})
    assert solvers[1].settings.products == {0.0: 4, 1.0: 0, 0.3: 2}[theta]
    assert_same(solvers, results, tolerance)


def test_beats_that_end_come_again_and_grow_quiet():
    stimuli = [Stimulus(START, (0.2, 34.0))]
    run, settings = {"quiet_ms": 10.0, "probe_every_ms": 1.0}, {"dt_ms": 0.2}
    solvers, results = both([ionic_model("mitchell_schaeffer", scale=FAST)], 100.0, stimuli, run, settings=settings)
    assert_same(solvers, results)
    assert results[0].status is Status.STOPPED
    assert results[0].summary["stop"]["reason"] == "quiet"
    beats = results[0].activations
    # the second wave dies in the wake of the first
    assert set(np.bincount(beats.node, minlength=N)) == {1, 2}
    # where the second pulse came before the level was reached, the first beat has no end
    assert np.isfinite(beats.recovery_ms).sum() == N
    np.testing.assert_array_equal(solvers[0].log.laps, solvers[1].log.laps)


def test_log_that_is_full_at_every_crossing_changes_nothing():
    model = ionic_model("mitchell_schaeffer", scale=FAST)
    a, b = (make([model], "cuda", settings={"dt_ms": 0.2}) for _ in range(2))
    b.device.log_mark = 0
    r, q = (s.run([Stimulus(START, (0.2,))], 14.0, probes=np.array([3]), probe_every_ms=0.4) for s in (a, b))
    for x, y in ((r.activations.activation_ms, q.activations.activation_ms), (r.probes_mv, q.probes_mv), (a.v_mv(), b.v_mv())):
        np.testing.assert_array_equal(x, y)
    assert len(r.activations.node) == N
    assert len(r.probes_time_ms) == len(np.unique(r.probes_time_ms)) == 36


def test_snapshots_go_both_ways_and_branches_repeat_bit_by_bit():
    models = [ionic_model("bueno_orovio", "epi"), ionic_model("mitchell_schaeffer")]
    region = np.digitize(MESH.points_mm[:, 0], [1.7])
    cpu, cuda = (make(models, device, region=region) for device in ("cpu", "cuda"))
    train, extra = Stimulus(START, (0.2,)), Stimulus(START, (2.5,))
    for s in (cpu, cuda):
        s.run([train], 2.0)
    states = cpu.snapshot(), cuda.snapshot()
    ends = {}
    for name, solver, state in (("aa", cpu, 0), ("ab", cpu, 1), ("ba", cuda, 0), ("bb", cuda, 1), ("again", cuda, 1)):
        solver.restore(states[state])
        result = solver.run([train, extra], 3.0)
        ends[name] = (solver.v_mv(), result.activations)
    for name in ("ab", "ba", "bb"):
        np.testing.assert_allclose(ends[name][0], ends["aa"][0], atol=0.01)
        np.testing.assert_array_equal(ends[name][1].node, ends["aa"][1].node)
        np.testing.assert_allclose(ends[name][1].activation_ms, ends["aa"][1].activation_ms, rtol=1e-4)
    np.testing.assert_array_equal(ends["again"][0], ends["bb"][0])
    # a run in two parts is the run in one
    whole = make(models, "cuda", region=region)
    whole.run([train, extra], 3.0)
    np.testing.assert_array_equal(whole.v_mv(), ends["bb"][0])


def test_fibrosis_is_the_same_on_both():
    kind = np.digitize(MESH.points_mm[:, 0], [1.2, 2.2])
    m, model = len(MESH.tets), ionic_model("mitchell_schaeffer")

    def cells(nodes):
        myocytes = Cells([model], np.zeros(len(nodes), np.int32))
        return FibroticCells(myocytes, kind[nodes], {2: PassiveCell(tau_ms=20.0)}, {1: Fibroblasts(2.0)})

    ends = []
    for device in ("cpu", "cuda"):
        d_l, d_t = np.full(m, 0.1), np.full(m, 0.03)
        s = Monodomain(MESH.points_mm, MESH.tets, MESH.fibre, d_l, d_t, cells, Settings(dt_ms=0.1, device=device))
        s.run([Stimulus(START, (0.2,))], 2.0)
        middle = s.snapshot()
        s.run([], 4.0)
        s.restore(middle)
        s.run([], 4.0)
        ends.append((s.v_mv(), s.cells.fibroblast_v_mv(), s.cells.snapshot()["myocytes"]["mitchell_schaeffer"]))
    assert np.ptp(ends[0][1]) > 1.0
    for a, b in zip(*ends):
        np.testing.assert_allclose(b, a, atol=0.01)


def test_voltages_can_be_imposed_between_runs():
    solvers = [make([ionic_model("mitchell_schaeffer")], device) for device in ("cpu", "cuda")]
    for s in solvers:
        s.run([], 0.5)
        s.set_v_mv(np.where(MESH.points_mm[:, 0] < 1.0, 10.0, s.v_mv()))
    assert_same(solvers, [s.run([], 1.5) for s in solvers])


def test_no_capture_and_stop():
    model = ionic_model("mitchell_schaeffer")
    weak = [Stimulus(START, (0.2,), 0.5, 1.0)]
    solvers, results = both([model], 22.0, weak, settings={"dt_ms": 0.2})
    assert_same(solvers, results)
    assert results[1].status is Status.NO_CAPTURE

    def passed(solver):
        return "passed" if solver.v_mv()[START[-1]] > -20.0 else None

    solvers, results = both([model], 9.0, run={"stop": passed, "every_ms": 0.4}, settings={"dt_ms": 0.1})
    assert_same(solvers, results)
    assert results[1].status is Status.STOPPED
    assert results[1].message == "passed"


def test_divergence_is_seen_at_its_step_and_nothing_runs_after_it():
    seen = []
    for device in ("cpu", "cuda"):
        s = make([ionic_model("mitchell_schaeffer")], device, settings={"dt_ms": 4.0})
        result = s.run([Stimulus(START, (0.0,))], 400.0, every_ms=100.0)
        assert result.status is Status.DIVERGED
        seen.append((result.message, result.summary["steps"], result.summary["stop"]["node"]))
    assert seen[0] == seen[1]


def test_a_run_that_does_not_fit_the_memory_is_refused_or_goes_to_the_processor(monkeypatch):
    solver = make([ionic_model("mitchell_schaeffer")], "auto")
    assert solver.device is not None
    monkeypatch.setattr(device_module, "free_bytes", lambda: 1000.0)
    assert make([ionic_model("mitchell_schaeffer")], "auto").device is None
    with pytest.raises(InputError, match="GiB of GPU memory"):
        make([ionic_model("mitchell_schaeffer")], "cuda")


def test_watch_and_progress_keep_their_pace():
    frames = {}

    def go(device):
        s = make([ionic_model("mitchell_schaeffer")], device)
        frames[device] = []
        done = []
        s.run([Stimulus(START, (0.2,))], 2.0, watch=lambda t, v: frames[device].append((t, v)), every_ms=0.5, progress=done.append)
        return done

    assert go("cpu") == go("cuda") == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [t for t, _ in frames["cpu"]] == [t for t, _ in frames["cuda"]]
    np.testing.assert_allclose([v for _, v in frames["cuda"]], [v for _, v in frames["cpu"]], atol=0.01)


def test_bench_measures():
    record = bench.measure(3, 0.2, copy_mib=1)
    # 18 states, voltage and five matrix-vector arrays of 27 nodes: at least the states, read and written
    assert record["bytes_per_node_step"] > 144
    assert record["value"] > 0
    assert record["ratio"] == pytest.approx(record["reference"] / record["value"])


EXPERIMENT = """
mesh = { box = { size = "3 x 0.5 x 0.5 mm", spacing = "0.5 mm", fibre = [1, 1, 0] } }

[[tissue]]
region = "all"
ionic = "mitchell_schaeffer"
intracellular = { longitudinal = "0.17 S/m", transverse = "0.1 S/m" }
extracellular = { longitudinal = "0.62 S/m", transverse = "0.24 S/m" }
surface_to_volume = "140 /mm"
capacitance = "1 uF/cm^2"

[[stimulus]]
box = { low = [0, 0, 0], high = [0.6, 1, 1] }
strength = "50 uA/mm^3"
start = "0 ms"

[solver]
method = "monodomain"
device = "DEVICE"
correction = "none"
dt = "0.1 ms"
duration = "6 ms"

[record]
probes = [[0, 0, 0], [3, 0.5, 0.5]]
probe_every = "0.3 ms"
frames = { every = "1 ms" }
state = true
"""


def test_experiment_files_choose_the_device(tmp_path):
    found = []
    for device in ("cpu", "cuda"):
        file, out = tmp_path / f"{device}.toml", tmp_path / device
        file.write_text(EXPERIMENT.replace("DEVICE", device))
        summary = run_experiment(load_experiment(file), out)
        assert summary["solver"]["device"] == device
        probes = np.loadtxt(out / "probes.csv", delimiter=",", skiprows=1)
        frames = np.fromfile(next(out.rglob("frames_v.bin")), "<f4")
        found.append((probes, frames, read_npz(out / "activation.npz")[0]["first_ms"]))
    for a, b in zip(*found):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, atol=0.01)
    assert np.isfinite(found[1][2]).sum() > N // 2
