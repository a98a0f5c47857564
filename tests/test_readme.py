"""Every command of the README is run as it stands there, in a folder that has `cases` beside it."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
from pathlib import Path

import pytest

import planners
from planners.app.cli import run
from planners.overlay import FORMATS

ROOT = Path(__file__).parents[1]


def _commands() -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("vtwin ")]
    assert len(lines) >= 9
    return [shlex.split(line)[1:] for line in lines]


def _real(command: list[str]) -> bool:
    return any("real_heart" in word for word in command)


@pytest.fixture
def beside_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cases").symlink_to(ROOT / "cases")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.line
def test_the_tour_runs(beside_cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in _commands():
        if not _real(command):
            assert run(command) == 0, (command, capsys.readouterr())
    assert (beside_cases / "out" / "two" / "report.html").exists()


@pytest.mark.real
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.line])], ids=["checked", "planned"])
def test_the_real_heart_gets_a_plan(beside_cases: Path, capsys: pytest.CaptureFixture[str], whole: bool) -> None:
    """Its evidence is read and checked; the plan itself takes minutes."""
    if not os.environ.get("VTWIN_DATA"):
        pytest.skip("VTWIN_DATA is not set: the real heart is not part of vtwin")
    for command in filter(_real, _commands()):
        words = command if whole or command[0] != "plan" else [*command, "--dry-run"]
        assert run(words) == 0, (words, capsys.readouterr())


def test_its_python_calls_what_there_is() -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert block
    calls = [c for c in ast.walk(ast.parse(block[1])) if isinstance(c, ast.Call) and isinstance(c.func, ast.Attribute)]
    assert [c.func.attr for c in calls] == ["load", "build", "plan", "export"]
    for call in calls:
        # the calls themselves are those of examples/demo.py, which a slow test runs
        inspect.signature(getattr(planners, call.func.attr)).bind(*call.args, **{k.arg: k.value for k in call.keywords})
    formats = ast.literal_eval(calls[-1].keywords[0].value)
    assert set(formats) <= set(FORMATS)


def test_what_the_readme_shows_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    for folder in re.findall(r"`(cases/\w+|planners/\S+\.\w+)`", text):
        assert (ROOT / folder).exists(), folder
