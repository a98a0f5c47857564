"""`vtwin simulate` on a single cell: what it writes, [expect], and refusals of one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from planners.app.cli import run
from solvers.cell_experiment import is_cell_experiment, load_cell_experiment, run_cell_experiment
from twin.errors import InputError

CASES = sorted((Path(__file__).parents[1] / "cases" / "single_cell").glob("*.toml"))

SMALL = """
[cell]
model = "bueno_orovio"
cell = "endo"
bcl = "500 ms"
beats = 3
{cell}

[record]
beats = 2
every = "5 ms"
states = ["w_gate"]
{more}
"""


def _write(folder: Path, cell: str = "", more: str = "") -> Path:
    path = folder / "cell.toml"
    path.write_text(SMALL.format(cell=cell, more=more), encoding="utf-8")
    return path


def test_every_case_is_read():
    assert len(CASES) >= 4
    for path in CASES:
        assert is_cell_experiment(path)
        assert load_cell_experiment(path).expected
    assert not is_cell_experiment(CASES[0].parents[1] / "niederer" / "experiment.toml")


@pytest.mark.slow
@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_every_case_meets_its_expectations(path, tmp_path):
    summary = run_cell_experiment(load_cell_experiment(path), tmp_path)
    assert summary["expect_met"], summary["expect"]


def test_what_is_written(tmp_path):
    more = """[restitution.s1s2]
s1 = 500
s1_beats = 2
from = 500
to = 300
step = 100
[restitution.dynamic]
from = 500
to = 400
step = 100
beats = 4"""
    summary = run_cell_experiment(load_cell_experiment(_write(tmp_path, more=more)), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert summary["status"] == "done"
    assert len(summary["per_beat"]) == 3
    assert summary["apd90_ms"] == summary["per_beat"][-1]["apd90_ms"]
    assert summary["ca_peak_nm"] is None
    with open(tmp_path / "out" / "trace.csv", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["time_ms", "V_mV", "w_gate"]
    assert [float(r["time_ms"]) for r in rows[98:103]] == [490.0, 495.0, 500.0, 505.0, 510.0]
    assert float(rows[100]["V_mV"]) == pytest.approx(summary["rest_mv"], abs=1e-4)
    with open(tmp_path / "out" / "restitution.csv", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [r["protocol"] for r in rows] == ["s1s2"] * 3 + ["dynamic"] * 4
    assert [r["captured"] for r in rows] == ["yes"] * 7


def test_currents_add_up(tmp_path):
    """The chosen currents of the trace sum to -dV/dt between samples."""
    path = tmp_path / "cell.toml"
    path.write_text(
        '[cell]\nmodel = "torord_2019"\nbcl = "300 ms"\nbeats = 1\nprecision = "float32"\n'
        '[record]\nevery = "0.1 ms"\ncurrents = ["I_K1", "I_Kr"]\nstates = ["Ca_i"]\n',
        encoding="utf-8",
    )
    run_cell_experiment(load_cell_experiment(path), tmp_path / "out")
    with open(tmp_path / "out" / "trace.csv", encoding="utf-8") as handle:
        rows = [{k: float(x) for k, x in row.items()} for row in csv.DictReader(handle)]
    # late repolarisation is carried by I_K1 and I_Kr
    steep = min(rows[2000:2990], key=lambda r: -r["I_K1"])
    i = rows.index(steep)
    slope = (rows[i + 1]["V_mV"] - rows[i - 1]["V_mV"]) / 0.2
    assert -slope == pytest.approx(steep["I_K1"] + steep["I_Kr"], rel=0.3)


def test_command_status_follows_expect(tmp_path, capsys):
    met = _write(tmp_path, more="[expect]\npeak_mv = { value = 45, within = 2 }")
    assert run(["simulate", str(met), "-o", str(tmp_path / "a")]) == 0
    missed = _write(tmp_path, more="[expect]\npeak_mv = { value = 0, within = 2 }")
    assert run(["simulate", str(missed), "-o", str(tmp_path / "b")]) == 3
    assert "expected peak_mv 0" in capsys.readouterr().out


def test_steady_state_and_drug_change_the_beat(tmp_path, monkeypatch):
    monkeypatch.setenv("VTWIN_CACHE_DIR", str(tmp_path / "cache"))
    plain = run_cell_experiment(load_cell_experiment(_write(tmp_path)), tmp_path / "plain")
    steady = run_cell_experiment(load_cell_experiment(_write(tmp_path, "steady = true\nsteady_beats = 30")), tmp_path / "steady")
    assert steady["per_beat"][0]["apd90_ms"] == pytest.approx(steady["apd90_ms"], abs=0.05)
    assert abs(plain["per_beat"][0]["apd90_ms"] - plain["apd90_ms"]) > 1.0
    block = 'block = { I_si = { ic50 = "1 umol/l", concentration = "100 nM" } }'
    blocked = run_cell_experiment(load_cell_experiment(_write(tmp_path, block)), tmp_path / "blocked")
    assert blocked["scaled"]["tau_si"] == pytest.approx(1.1 * 2.9013)
    assert blocked["apd90_ms"] < plain["apd90_ms"] - 5.0


@pytest.mark.parametrize(
    ("cell", "more", "hint"),
    [
        ("dt = 0.03", "", "divide"),
        ('drug = { name = "dofetilide", concentration = "2 nM" }', "", "none of the currents"),
        ('drug = { name = "dofetilide", concentration = "2 mm" }', "", "concentration"),
        ("scale = { tau_xi = 2 }", "", "tau_"),
        ("steady_beats = 3", "", "steady = true"),
        ("colour = 3", "", "colour"),
        ('precision = "float16"', "", "float16"),
        ("stimulus = { strength = -3 }", "", "negative"),
        ("", "[restitution]", "names no protocol"),
        ("", "[restitution.s1s2]\nfrom = 300\nto = 400\nstep = 10", "long to short"),
        ("", "[expect]\napd = { value = 3, within = 1 }", "apd"),
        ("block = { I_Kr = { ic50 = 1, concentration = 1 } }", "", "no such current"),
    ],
)
def test_refusals_are_one_line(tmp_path, capsys, cell, more, hint):
    path = _write(tmp_path, cell, more)
    with pytest.raises(InputError, match=hint) as error:
        load_cell_experiment(path)
    assert "\n" not in error.value.line()
    assert str(path) in error.value.line()
    assert run(["simulate", str(path), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
