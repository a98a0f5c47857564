"""The Python interface: four verbs, and the script that shows them."""

import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import planners
from twin.errors import InputError

ROOT = Path(__file__).parents[1]


def test_importing_planners_is_quick_and_light():
    code = "import sys, planners; print([m for m in ('numba', 'scipy', 'vtk', 'pyvista', 'matplotlib', 'torch') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout.strip() == "[]"
    assert planners.__all__ == ["build", "export", "load", "plan"]


def test_a_loaded_case_is_its_evidence(tmp_path):
    loaded = planners.load(ROOT / "cases" / "two_isthmuses" / "case.toml", tmp_path)
    assert loaded.patient.eam is not None
    assert loaded.case.request.protocol == "quick"
    with pytest.raises(InputError):
        planners.load(ROOT / "cases" / "missing.toml")


@pytest.mark.line
@pytest.mark.slow
def test_the_script_reproduces_the_plan_of_the_command(tmp_path, monkeypatch, capsys):
    from planners.app.cli import run

    case = ROOT / "cases" / "two_isthmuses" / "case.toml"
    monkeypatch.setattr(sys, "argv", ["demo.py", str(case), str(tmp_path / "script")])
    values = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    said = capsys.readouterr().out
    assert "m/s" in said
    assert "report:" in said
    for name in ("tissue", "plan", "alternatives"):
        assert (tmp_path / "script" / "figures" / f"{name}.png").stat().st_size > 5000
    assert run(["plan", str(case), "-o", str(tmp_path / "command")]) == 0
    same = (tmp_path / "script" / "plan" / "plan.json").read_bytes()
    assert same == (tmp_path / "command" / "plan.json").read_bytes()
    # other limits: mesh and tissue are taken over, the rest is planned anew in a folder of its own
    model = values["model"]
    fewer = replace(model.loaded.case.request, strategies=("border_homogenisation",), max_volume_ml=20.0)
    with pytest.raises(InputError, match="another run"):
        planners.plan(model, fewer)
    other = planners.plan(model, fewer, tmp_path / "other")
    assert {a["strategy"] for a in other.plan.alternatives if a.get("chosen")} <= {"border_homogenisation"}
    assert other.plan.run["stages"]["tissue"] == values["planned"].plan.run["stages"]["tissue"]
