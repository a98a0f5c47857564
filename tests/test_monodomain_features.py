"""Streaming, restarts, branches, stop conditions, fibrosis and the outputs of `vtwin simulate`."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from test_monodomain import Bistable, Passive, solver, train

from meshing.box import box_mesh
from meshing.sites import PacingSites
from solvers.expected import apd90_ms
from solvers.experiment import load_experiment
from solvers.monodomain.fibrosis import FIBROBLAST_REST, Fibroblasts, FibroticCells, PassiveCell, fibroblast_current
from solvers.monodomain.log import KEPT_BEATS
from solvers.monodomain.solver import Settings
from solvers.monodomain.state import load_state, save_state
from solvers.monodomain.stop import ReentryCycles
from solvers.simulate import estimate, run_experiment, set_up
from twin.atomic import read_npz
from twin.errors import InputError, RunFailed
from twin.experiment import Status, Stimulus

BASE = """
[mesh]
box = { size = "5 x 1 x 1 mm", spacing = "0.5 mm" }

[[tissue]]
region = "all"
ionic = "mitchell_schaeffer"
intracellular = { longitudinal = "0.17 S/m", transverse = "0.019 S/m" }
extracellular = { longitudinal = "0.62 S/m", transverse = "0.24 S/m" }

[[stimulus]]
box = { low = [0, 0, 0], high = [1, 1, 1] }
cycle = 400
count = 2

[solver]
dt = "0.1 ms"
duration = "1200 ms"

[record]
probes = [[0, 0, 0], [5, 1, 1]]
probe_every = "5 ms"
frames = { every = "50 ms" }
ecg = { every = "5 ms", electrodes = { near = [2.5, 0.5, 8] } }
"""


def write(folder: Path, *changes: tuple[str, str], text: str = BASE, name: str = "experiment.toml") -> Path:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def run(folder: Path, *changes: tuple[str, str], **more):
    return run_experiment(load_experiment(write(folder, *changes)), folder / "out", **more)


def files(folder: Path) -> dict[str, bytes]:
    names = ("activation.npz", "probes.csv", "ecg.csv", "frames_v.bin", "frames.xdmf", "state.npz")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def excitable(n):
    return Bistable(n, np.float32, recovery=0.02)


def test_streamed_beats_equal_those_in_memory_and_memory_does_not_grow(tmp_path):
    mesh = box_mesh((3.0, 1.0, 0.5), 0.5)
    nodes = np.flatnonzero(mesh.points_mm[:, 0] < 1).astype(np.int32)
    beats = [Stimulus(nodes, tuple(120.0 * k for k in range(12)))]
    held, streamed = (solver(mesh, excitable, beats=folder) for folder in (None, tmp_path / "beats"))
    a, b = (s.run(beats, 1440.0).activations for s in (held, streamed))
    assert len(a.node) == 12 * mesh.n_points
    for name in ("node", "activation_ms", "recovery_ms"):
        assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
    assert (np.diff(a.activation_ms) >= 0).all()
    assert np.isfinite(a.recovery_ms).sum() >= 11 * mesh.n_points
    assert len(streamed.log._node) == (KEPT_BEATS + 1) * mesh.n_points
    assert len(held.log._node) >= 12 * mesh.n_points
    assert isinstance(b.node, np.memmap)


def test_recoveries_reach_rows_that_have_left_memory(tmp_path):
    """A node that stays up while others beat often: its row is on disk when it recovers."""

    class Ramp(Passive):
        def __init__(self, n):
            super().__init__(n)
            self.t, self.slow = 0.0, np.arange(n) == 0

        def advance(self, v, dt_ms, current):
            self.t += dt_ms
            wanted = np.where((self.t % 2.0) < 1.0, 20.0, -80.0) * np.ones(self.n)
            wanted[self.slow] = 20.0 if self.t < 30.0 else -80.0
            current[:] = (v - wanted) / dt_ms

    mesh = box_mesh((0.5, 0.5, 0.5), 0.5)
    logs = []
    for folder in (None, tmp_path / "beats"):
        s = solver(mesh, Ramp, Settings(dt_ms=0.1), d_l=0.0, d_t=0.0, beats=folder)
        logs.append(s.run([], 40.0).activations)
    assert np.array_equal(logs[0].recovery_ms, logs[1].recovery_ms, equal_nan=True)
    assert np.isfinite(logs[0].recovery_ms).sum() > 130
    assert np.nanmax(logs[0].recovery_ms - logs[0].activation_ms) > 29.0


KILLED = """
import os, signal, sys
from pathlib import Path
from solvers.experiment import load_experiment
from solvers.simulate import run_experiment
def die(what, fraction):
    if what == "monodomain" and fraction > 0.6:
        os.kill(os.getpid(), signal.SIGKILL)
run_experiment(load_experiment(Path(sys.argv[1])), Path(sys.argv[2]), die, checkpoint_s=0.0)
"""


def test_a_killed_run_stays_readable_and_resumes_bit_by_bit(tmp_path):
    whole = run(tmp_path / "whole")
    path = write(tmp_path / "killed")
    out = tmp_path / "killed" / "out"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), str(out)], cwd=Path(__file__).parents[1], timeout=120)
    assert ended.returncode == -9
    assert not (out / "summary.json").exists()
    rows = list(csv.reader((out / "probes.csv").open()))
    assert 50 < len(rows) < 241
    import pyvista as pv

    reader = pv.get_reader(out / "frames.xdmf")
    assert 5 < len(reader.time_values) < 25
    told = []
    summary = run_experiment(load_experiment(path), out, lambda what, fraction: told.append((what, fraction)))
    assert summary == whole
    assert files(out) == files(tmp_path / "whole" / "out")
    assert sum(1 for what, _ in told if what == "monodomain") < 600
    assert not (out / "partial").exists()


def test_restart_from_a_state_equals_the_undisturbed_run(tmp_path):
    whole = run(tmp_path / "whole", ("[record]", "[record]\nstate = true"))
    run(tmp_path / "first", ('"1200 ms"', '"450 ms"'), ("[record]", "[record]\nstate = true"))
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "s.npz").write_bytes((tmp_path / "first" / "out" / "state.npz").read_bytes())
    changes = [("[record]", '[start]\nfrom = "s.npz"\n[record]\nstate = true')]
    second = run(tmp_path / "second", *changes)
    a, b = (files(tmp_path / name / "out") for name in ("whole", "second"))
    states = [load_state(tmp_path / name / "out" / "state.npz")[0] for name in ("whole", "second")]
    assert states[0].v.tobytes() == states[1].v.tobytes()
    assert states[0].step == states[1].step
    for model, cells in states[0].cells.items():
        assert cells.tobytes() == states[1].cells[model].tobytes()
    assert a["probes.csv"].endswith(b["probes.csv"].split(b"\n", 1)[1])
    assert a["frames_v.bin"].endswith(b["frames_v.bin"])
    assert second["solver"]["captured"] == whole["solver"]["captured"] == [True, True]
    one, two = (read_npz(tmp_path / name / "out" / "activation.npz")[0] for name in ("whole", "second"))
    k = len(two["node"])
    for name in ("node", "activation_ms", "recovery_ms"):
        assert np.array_equal(one[name][-k:], two[name])
    assert np.array_equal(one["first_ms"], two["first_ms"])
    with pytest.raises(InputError, match="belongs to another run: nodes"):
        run(tmp_path / "second", *changes, ("5 x 1 x 1", "4 x 1 x 1"))
    with pytest.raises(InputError, match="times count from rest"):
        run(tmp_path / "second", *changes, ('"1200 ms"', '"420 ms"'), ("cycle = 400", "cycle = 200"))
    (tmp_path / "second" / "s.npz").write_bytes(b"PK\3\4 nothing")
    with pytest.raises(InputError, match="not a state saved by vtwin"):
        run(tmp_path / "second", *changes)


def test_branches_equal_runs_of_their_own(tmp_path):
    branches = "".join(f'[[branch]]\nname = "{n}"\nextra = {e}\n' for n, e in (("a", [330]), ("b", [330, 320]), ("c", [60]), ("d", [])))
    told: list[float] = []
    summary = run(tmp_path / "tree", ("[solver]", branches + "[solver]"), progress=lambda what, f: told.append(f))
    assert [b["name"] for b in summary["branches"]] == ["a", "b", "c", "d"]
    for name, extra in (("a", "[330]"), ("b", "[330, 320]"), ("c", "[60]"), ("d", "[]")):
        alone = run(tmp_path / name, ("count = 2", f"count = 2\nextra = {extra}"))
        folder = tmp_path / "tree" / "out" / "branches" / name
        assert files(folder) == files(tmp_path / name / "out")
        assert json.loads((folder / "summary.json").read_text()) == alone
        assert alone["solver"]["captured"] == [True] * (2 + len(extra.strip("[]").split(",")) * (extra != "[]") - (name == "c")) + [
            False
        ] * (name == "c")
    assert not (tmp_path / "tree" / "out" / "partial").exists()


class Clock(Passive):
    """Every node goes up for half of each period, by itself."""

    period_ms = 200.0

    def __init__(self, n):
        super().__init__(n)
        self.t = 0.0

    def advance(self, v, dt_ms, current):
        self.t += dt_ms
        current[:] = (v - np.where(self.t % self.period_ms < 0.5 * self.period_ms, 20.0, -80.0)) / dt_ms


def test_laps_after_the_last_pulse_are_a_named_stop_with_their_cycle_length():
    mesh = box_mesh((1.0, 1.0, 0.5), 0.5)
    s = solver(mesh, Clock, Settings(dt_ms=0.1), d_l=0.0, d_t=0.0)
    s.log.count_laps_from(450.0)
    result = s.run([], 4000.0, stop=ReentryCycles(4), quiet_ms=300.0)
    assert (result.status, result.summary["stop"]["reason"]) == (Status.STOPPED, "reentry")
    assert result.summary["stop"]["cycle_length_ms"] == pytest.approx(200.0, abs=0.1)
    # upstrokes at 600, 800 .. 1400: the fifth is the end of the fourth lap
    assert result.summary["end_ms"] == pytest.approx(1400.0, abs=1.0)


def test_paced_beats_are_no_reentry():
    mesh = box_mesh((3.0, 1.0, 0.5), 0.5)
    s = solver(mesh, excitable)
    assert s.run([train(mesh)], 240.0, stop=ReentryCycles(1)).status is Status.DONE


def test_named_ends_reach_the_summary(tmp_path):
    quiet = run(tmp_path / "quiet", ("[record]", '[stop]\nquiet = true\nreentry_cycles = 3\n[expect]\nstatus = "stopped"\n[record]'))
    assert (quiet["status"], quiet["solver"]["stop"]["reason"], quiet["expect_met"]) == ("stopped", "quiet", True)
    assert quiet["solver"]["end_ms"] < 1000
    weak = run(tmp_path / "weak", ("cycle = 400\ncount = 2", 'strength = "1 uA/mm^3"'), ('"1200 ms"', '"100 ms"'))
    assert (weak["status"], weak["solver"]["stop"]["reason"]) == ("no_capture", "no_capture")
    with pytest.raises(RunFailed, match="diverged at node"):
        run(tmp_path / "strong", ("cycle = 400\ncount = 2", 'strength = "1e6 uA/mm^3"'))
    stop = json.loads((tmp_path / "strong" / "out" / "summary.json").read_text())["solver"]["stop"]
    assert stop["reason"] == "diverged"
    assert len(stop["at_mm"]) == 3
    assert 0 < stop["time_ms"] < 3
    assert stop["dt_safe_ms"] > 0.05


def test_frames_and_ecg_show_the_same_voltages(tmp_path):
    import pyvista as pv

    from solvers.ecg.field import unipolar_weights

    run(tmp_path, ('"1200 ms"', '"200 ms"'), ("cycle = 400\ncount = 2", "start = 0"))
    out = tmp_path / "out"
    reader = pv.get_reader(out / "frames.xdmf")
    assert list(reader.time_values) == [0.0, 50.0, 100.0, 150.0, 200.0]
    mesh = box_mesh((5.0, 1.0, 1.0), 0.5)
    ecg = np.loadtxt(out / "ecg.csv", delimiter=",", skiprows=1)
    probes = np.loadtxt(out / "probes.csv", delimiter=",", skiprows=1)
    weights = unipolar_weights(mesh, np.array([[2.5, 0.5, 8.0]]))[0]
    for time in (0.0, 50.0, 200.0):
        reader.set_active_time_value(time)
        grid = reader.read()
        assert grid.n_cells == len(mesh.tets)
        v = np.asarray(grid["v_mv"], float)
        at = int(time / 5)
        assert ecg[at, 0] == time
        assert ecg[at, 1] == pytest.approx(weights @ v, abs=1e-5)
        assert probes[at, 1] == pytest.approx(v[0], abs=1e-3)
    assert np.abs(ecg[:, 1]).max() > 1e-3


def test_twelve_leads_by_name(tmp_path):
    run(tmp_path, (", electrodes = { near = [2.5, 0.5, 8] }", ""), ('"1200 ms"', '"20 ms"'), ("cycle = 400\ncount = 2", "start = 0"))
    head = (tmp_path / "out" / "ecg.csv").read_text().split("\n")[0]
    assert head == "time_ms,I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"


def test_passive_fibrosis_lets_a_wave_die_over_its_length(tmp_path):
    """5 mm of passive cells block; 0.5 mm are jumped, later than myocytes would pass."""
    from twin.mesh import REGIONS

    seen = {}
    for name, width in (("none", 0.0), ("thin", 0.5), ("thick", 5.0)):
        mesh = box_mesh((9.0, 0.5, 0.5), 0.25)
        x = mesh.centroids_mm[:, 0]
        mesh.region[(x > 3.0) & (x < 3.0 + width)] = REGIONS["border_zone"]
        (tmp_path / name).mkdir()
        mesh.save(tmp_path / name / "heart.npz")
        passive = BASE[BASE.index("[[tissue]]") : BASE.index("[[stimulus]]")].replace('"all"', '"border_zone"')
        passive = passive.replace('"mitchell_schaeffer"', '"passive"\nrest = "-80 mV"\ntau = "2 ms"') if width else ""
        run(
            tmp_path / name,
            *[('box = { size = "5 x 1 x 1 mm", spacing = "0.5 mm" }', 'file = "heart.npz"'), ("[[stimulus]]", passive + "[[stimulus]]")],
            *[('dt = "0.1 ms"\nduration = "1200 ms"', 'duration = "60 ms"'), ("[5, 1, 1]", "[9, 0, 0]")],
            ("cycle = 400\ncount = 2", "start = 0"),
            *[('ecg = { every = "5 ms", electrodes = { near = [2.5, 0.5, 8] } }\n', "")],
        )
        arrays, _ = read_npz(tmp_path / name / "out" / "activation.npz")
        seen[name] = arrays["first_ms"][np.argmax(arrays["points_mm"].sum(axis=1))]
    assert np.isnan(seen["thick"])
    assert seen["none"] + 0.5 < seen["thin"] < seen["none"] + 30


def test_fibroblasts_rest_where_published_and_load_their_myocytes():
    def steady(v):
        return fibroblast_current(v, 1 / (1 + np.exp(-(v + 20) / 11)), 1 / (1 + np.exp((v + 23) / 7)))

    assert brentq(steady, -70.0, -30.0) == pytest.approx(FIBROBLAST_REST.value, abs=0.5)
    tissue = np.array([0, 0, 1, 2])
    cells = FibroticCells(Passive(4), tissue, {2: PassiveCell(-50.0, 10.0)}, {1: Fibroblasts(4.0)})
    v, current = cells.initial_v(), np.zeros(4)
    assert v.tolist() == [-80.0, -80.0, -80.0, -50.0]
    for _ in range(200):
        cells.advance(v, 0.05, current)
    assert current[:2].tolist() == [0.0, 0.0]
    assert current[2] < 0  # a fibroblast at -50 mV depolarises the myocyte
    assert -80.0 < cells.fibroblast_v_mv()[0] < -50.0
    # four junctions of 3 nS on 185 pF
    assert current[2] == pytest.approx(4 * 3.0 / 185.0 * (v[2] - cells.fibroblast_v_mv()[0]), rel=1e-6)
    state = cells.snapshot()
    cells.advance(v, 0.05, current)
    after = current.copy()
    cells.restore(state)
    cells.advance(v, 0.05, current)
    assert np.array_equal(after, current)


def test_region_options_reach_the_cells(tmp_path):
    text = (("[[stimulus]]", 'fibroblasts = { per_myocyte = 6, gap = "3 nS" }\n[[stimulus]]'), ('"1200 ms"', '"900 ms"'))
    one = (("cycle = 400\ncount = 2", "start = 0"),)
    run(tmp_path / "loaded", *text, *one)
    run(tmp_path / "free", text[1], *one)
    rest = [np.loadtxt(tmp_path / n / "out" / "probes.csv", delimiter=",", skiprows=1)[-1, 2] for n in ("loaded", "free")]
    assert rest[0] > rest[1] + 1.0


def test_a_drug_of_a_region_slows_its_wave_and_misspelt_ones_are_named(tmp_path):
    short = (('dt = "0.1 ms"\nduration = "1200 ms"', 'duration = "15 ms"'), ("cycle = 400\ncount = 2", "start = 0"))
    model = '"ten_tusscher_panfilov_2006"'
    free = run(tmp_path / "free", *short, ('"mitchell_schaeffer"', model))
    drug = run(tmp_path / "drug", *short, ('"mitchell_schaeffer"', model + '\ndrug = { flecainide = "2 umol/L" }'))
    assert drug["last_first_activation_ms"] > free["last_first_activation_ms"] + 0.1
    with pytest.raises(InputError, match="did you mean 'flecainide'"):
        run(tmp_path / "none", *short, ('"mitchell_schaeffer"', model + "\ndrug = { flecanide = 2 }"))


def test_expectations_of_every_kind(tmp_path):
    expect = """[expect]
activation_ms = [{ at = [5, 1, 1], value = 12, within = 8 }]
cycle_length_ms = [{ at = [5, 1, 1], value = 400, within = 6 }]
apd90_ms = [{ at = [2.5, 0.5, 0.5], value = 228, within = 30 }]
velocity_m_s = [{ from = [1.5, 0, 0], to = [4, 0, 0], value = "33 cm/s", within = 0.1 }]
status = "done"
[record]"""
    summary = run(tmp_path, ("[record]", expect))
    assert [e["kind"] for e in summary["expect"]] == ["status", "activation_ms", "cycle_length_ms", "apd90_ms", "velocity_m_s"]
    assert summary["expect_met"], summary["expect"]
    missed = run(tmp_path / "missed", ("[record]", expect.replace("value = 228", "value = 100")))
    assert [e["met"] for e in missed["expect"]] == [True, True, True, False, True]


def test_apd90_of_a_triangle():
    t = np.arange(0.0, 300.0, 0.5)
    v = np.where(t < 50, -80.0, np.maximum(20.0 - (t - 50) * 100 / 200, -80.0))
    assert apd90_ms(t, v) == pytest.approx(180.0, abs=0.5)
    assert np.isnan(apd90_ms(t, np.full_like(t, -80.0)))


def test_reentrant_eikonal_leaves_the_same_files(tmp_path):
    tissue = BASE[BASE.index("ionic") : BASE.index("[[stimulus]]")]
    changes = [(tissue, 'speed = { longitudinal = "0.6 m/s", transverse = "0.3 m/s" }\n'), ('frames = { every = "50 ms" }\n', "")]
    summary = run(tmp_path, *changes, ("[solver]", '[stop]\nquiet = true\n[solver]\nmethod = "reentrant_eikonal"'))
    assert (summary["status"], summary["solver"]["captured"]) == ("stopped", [True, True])
    arrays, _ = read_npz(tmp_path / "out" / "activation.npz")
    assert len(arrays["node"]) == 2 * len(arrays["points_mm"])
    assert (arrays["recovery_ms"] > arrays["activation_ms"] + 100).all()
    probes = np.loadtxt(tmp_path / "out" / "probes.csv", delimiter=",", skiprows=1)
    assert probes[:, 1].max() > 0
    assert probes[:, 1].min() < -80
    assert (tmp_path / "out" / "ecg.csv").exists()


def test_bursts_sites_and_estimates(tmp_path):
    burst = load_experiment(write(tmp_path, ("count = 2", 'count = 2\nburst = { cycle = "200 ms", count = 3, after = "300 ms" }')))
    assert burst.stimuli[0].start_ms == (0.0, 400.0, 700.0, 900.0, 1100.0)
    site = load_experiment(write(tmp_path, ("box = { low = [0, 0, 0], high = [1, 1, 1] }", 'site = "rv_apex"\nradius = "2 mm"')))
    assert (site.stimuli[0].site, site.stimuli[0].radius_mm) == ("rv_apex", 2.0)
    with pytest.raises(InputError, match="no coordinates"):
        run_experiment(site, tmp_path / "out")
    told = estimate(load_experiment(write(tmp_path)))
    assert told["steps"] == 12000
    assert told["seconds"] > 0
    assert told["bytes"]["frames"] == 4 * 25 * told["points"]


@pytest.mark.parametrize(
    ("old", "new", "field", "says"),
    [
        ("[record]", "[stopp]\nquiet = true\n[record]", "stopp", "did you mean 'stop'"),
        ("[record]", "[stop]\nreentry_cycle = 3\n[record]", "stop.reentry_cycle", "did you mean 'reentry_cycles'"),
        ("[record]", "[stop]\nreentry_cycles = 0\n[record]", "stop.reentry_cycles", "not a count"),
        ("[record]", '[stop]\nquiet = "-5 ms"\n[record]', "stop.quiet", "not positive"),
        ("[record]", "[record]\nstate = 1", "record.state", "neither true nor false"),
        ('"50 ms"', '"0 ms"', "record.frames.every", "not positive"),
        ('{ every = "50 ms" }', "{}", "record.frames.every", "is missing"),
        ('frames = { every = "50 ms" }', "frames = 3", "record.frames", "not a table"),
        ("near = [2.5, 0.5, 8]", "near = [2.5, 0.5]", "record.ecg.electrodes.near", "not three numbers"),
        ("[solver]", '[[branch]]\nextra = ["0 ms"]\n[solver]', "branch[0].extra[0]", "not positive"),
        ("[solver]", "[[branch]]\nextra = [900]\n[solver]", "branch[0].extra", "after the end"),
        ("[solver]", '[[branch]]\nname = "../x"\n[solver]', "branch[0].name", "no name for a folder"),
        ("[solver]", '[[branch]]\nname = "x"\n[[branch]]\nname = "x"\n[solver]', "branch[1].name", "taken"),
        ("[solver]", '[[branch]]\nstatus = "dome"\n[solver]', "branch[0].status", "did you mean 'done'"),
        ("[solver]", '[start]\nfrom = ""\n[solver]', "start.from", "is not text"),
        ("count = 2", 'count = 2\nradius = "2 mm"', "stimulus[0].radius", "belongs to a site"),
        ("count = 2", "count = 2\nburst = { count = 3 }", "stimulus[0].burst.cycle", "is missing"),
        ("count = 2", 'count = 2\nburst = { cycle = 200, count = "3" }', "stimulus[0].burst.count", "not a count"),
        ('"mitchell_schaeffer"', '"passive"\nscale = { G_Na = 2 }', "tissue[0].scale", "passive cells have none"),
        ('"mitchell_schaeffer"', '"mitchell_schaeffer"\nrest = -60', "tissue[0].rest", "of passive cells only"),
        (
            '"mitchell_schaeffer"',
            '"mitchell_schaeffer"\nfibroblasts = { per_myocyte = -1 }',
            "tissue[0].fibroblasts.per_myocyte",
            "negative",
        ),
        ("[record]", "[expect]\napd90 = []\n[record]", "expect.apd90", "did you mean 'apd90_ms'"),
        ("[record]", '[expect]\nstatus = "down"\n[record]', "expect.status", "unknown"),
        (
            "[record]",
            "[expect]\nvelocity_m_s = [{ from = [0, 0, 0], value = 1, within = 1 }]\n[record]",
            "expect.velocity_m_s[0].to",
            "not three",
        ),
        ("[record]", "[expect]\nactivation_ms = [3]\n[record]", "expect.activation_ms[0]", "not a table"),
    ],
)
def test_bad_files_are_one_line(tmp_path, old, new, field, says):
    with pytest.raises(InputError) as caught:
        load_experiment(write(tmp_path, (old, new)))
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.field == field
    assert says in line


def test_states_round_trip_with_every_scheme(tmp_path):
    mesh = box_mesh((3.0, 1.0, 0.5), 0.5)
    for scheme in ("explicit", "reference"):
        s = solver(mesh, excitable, Settings(scheme=scheme))
        s.run([train(mesh)], 60.0)
        state = s.snapshot()
        save_state(tmp_path / "s.npz", state, {"kept": 3})
        loaded, more = load_state(tmp_path / "s.npz", s.fits())
        assert more == {"kept": 3}
        ends = []
        for again in (state, loaded):
            s.restore(again)
            s.run([train(mesh)], 150.0)
            ends.append((s.v_mv().tobytes(), s.log.latest_ms.tobytes()))
        assert ends[0] == ends[1]


def test_stimuli_at_named_sites_of_a_heart(tmp_path, monkeypatch):
    """The sites themselves are tested where they are made (test_coordinates)."""
    mesh = box_mesh((5.0, 1.0, 1.0), 0.5)
    replace(mesh, coordinates={"apicobasal": np.zeros(mesh.n_points)}).save(tmp_path / "heart.npz")
    monkeypatch.setattr("solvers.scene.sites_named", lambda heart, names: PacingSites({"rv_apex": 5}, {"aha17": "dropped: scar"}))
    changes = [('box = { size = "5 x 1 x 1 mm", spacing = "0.5 mm" }', 'file = "heart.npz"')]
    place = "box = { low = [0, 0, 0], high = [1, 1, 1] }"
    scene = set_up(load_experiment(write(tmp_path, *changes, (place, 'site = "rv_apex"\nradius = "0.6 mm"'))))
    distance = np.linalg.norm(mesh.points_mm - mesh.points_mm[5], axis=1)
    assert scene.stimuli[0].nodes.tolist() == np.flatnonzero(distance <= 0.6).tolist()
    assert len(scene.stimuli[0].nodes) == 5
    for name, says in (("rv_apx", "did you mean 'rv_apex'"), ("aha17", "dropped: scar")):
        with pytest.raises(InputError, match=rf"stimulus\[0\].site.*{says}"):
            set_up(load_experiment(write(tmp_path, *changes, (place, f'site = "{name}"'))))
