"""The documentation: every command in it is one that the program has, the site builds, help has examples, the shell can complete."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from planners.app.cli import app, run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [ROOT / "docs" / "tutorials" / f"{name}.md" for name in ("first_plan", "your_study", "opencarp_first_hour", "in_procedure", "trial")]
GROUP: Any = typer.main.get_command(app)


def blocks(page: Path, kinds: str = "console|text|bash|") -> list[str]:
    """Commands of a page, one line each, without what is said behind #."""
    found = re.findall(rf"^```({kinds})\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = [line.removeprefix("$ ").strip() for _, block in found for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.match(r"(vtwin|python|cp|make) ", line)]


def inline(page: Path) -> list[str]:
    """`vtwin ...` in running text, where it is more than a name."""
    found = re.findall(r"`(vtwin [a-z][^`]*)`", page.read_text(encoding="utf-8"))
    return [" ".join(command.split()) for command in found]


def check(words: list[str]) -> None:
    """Raise click's own complaint if the program has no such command, option or argument."""
    command: Any = GROUP
    parent = click.Context(GROUP, info_name="vtwin")
    while hasattr(command, "commands"):
        name, words = words[0], words[1:]
        found = command.commands.get(name)
        assert found is not None, f"there is no command {name}"
        parent = click.Context(command, info_name=command.name, parent=parent)
        command = found
    command.make_context(command.name or "", list(words), parent=parent)


EXACT = [(page.relative_to(ROOT), line) for page in PAGES for line in blocks(page) if line.startswith("vtwin ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_of_a_page_is_one_of_the_program(page: Path) -> None:
    for line in blocks(page):
        words = shlex.split(line, comments=True)
        if words[0] == "vtwin":
            try:
                check(words[1:])
            except Exception as error:
                raise AssertionError(f"{line}: {getattr(error, 'message', error)}") from None
        elif words[0] == "python" and words[1] == "-m":
            assert (ROOT / Path(*words[2].split("."))).with_suffix(".py").exists() or (ROOT / Path(*words[2].split("."))).is_dir(), line
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), line
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), line
    for line in inline(page):
        words = [w for w in shlex.split(line.replace("...", ""))[1:] if w != "|"]
        command = GROUP.commands.get(words[0])
        assert command is not None, line
        while hasattr(command, "commands") and len(words) > 1 and not words[1].startswith("-"):
            words = words[1:]
            command = command.commands.get(words[0])
            assert command is not None, line
        options = {o for p in command.params for o in p.opts}
        for word in words[1:]:
            if word.startswith("--"):
                assert word.split("=")[0] in options, f"{line}: {word}"


def test_the_pages_were_found() -> None:
    assert len(EXACT) > 30
    assert len({page for page, _ in EXACT}) > 6


def _commands(group: Any, above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in group.commands.items():
        found += _commands(command, (*above, name)) if hasattr(command, "commands") else [((*above, name), command)]
    return found


COMMANDS = _commands(GROUP)


@pytest.mark.parametrize(("names", "command"), COMMANDS, ids=[" ".join(n) for n, _ in COMMANDS])
def test_help_shows_an_example_that_the_command_takes(names: tuple[str, ...], command: click.Command) -> None:
    text = " ".join((command.help or "").split())
    examples = re.split(r"(?=vtwin )", text.split("Example: ", 1)[-1].split("Examples: ", 1)[-1])
    examples = [e.strip() for e in examples if e.startswith(f"vtwin {' '.join(names)}")]
    assert "Example" in text
    assert examples, "no example begins with the command itself"
    for example in examples:
        check(shlex.split(example.rstrip("."))[1:])
    for parameter in command.params:
        assert getattr(parameter, "help", ""), f"{parameter.name} has no help"


def _vtwin(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from planners.app.cli import main; main()"
    kept = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "PY_COLORS")}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=kept | environment, cwd=ROOT, check=False
    )


def test_no_colours_where_nobody_sees_them() -> None:
    for words in (("--help",), ("plan", "--help"), ("plan",), ("guide", "nowhere", "--lesions", "nothing.csv")):
        said = _vtwin(*words)
        assert "\x1b" not in said.stdout + said.stderr, words
        if "--help" not in words:
            assert (said.returncode, said.stderr.count("\n")) == (2, 1), said.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_options(shell: str) -> None:
    line = {"COMP_WORDS": "vtwin gui", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "vtwin gui", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    code = "import sys; sys.argv[0] = 'vtwin'; from planners.app.cli import app; app(prog_name='vtwin')"
    environment = os.environ | line | {"_VTWIN_COMPLETE": f"complete_{shell}"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "guide" in said.stdout
    environment |= {"COMP_WORDS": "vtwin plan --dry", "COMP_CWORD": "2", "_TYPER_COMPLETE_ARGS": "vtwin plan --dry"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "--dry-run" in said.stdout


def test_the_reference_holds_every_public_function() -> None:
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    page = hooks["reference"]("planners")
    assert "### headline" in page
    assert "The plan in two sentences." in page
    assert "def build(loaded: LoadedCase" in page
    numbers = hooks["parameters"]()
    assert "Labelle & Shewchuk" in numbers
    assert numbers.count("\n|") > 60
    good = {"name": "ecg/b_c", "value": 1.0, "unit": "ms", "reference": 1, "tolerance": 0.1, "passed": True, "source": "x|y"}
    bad = {**good, "name": "ecg/d/e", "passed": False, "source": "z"}
    made = hooks["validation"]([good, bad, {**bad, "name": "ecg/f"}])
    assert "1 of 3 checks pass" in made
    assert "| [ecg](#ecg) |" in made
    assert "not run here: `vtwin verify ionic`" in made
    assert "| b_<wbr>c | 1 ms | 1 | 0.1 | yes | 1 |" in made
    assert made.index("| d / e | 1 ms | 1 | 0.1 | **no** | 2 |") < made.index("| b_<wbr>c"), "what failed comes first"
    assert made.endswith("1. x|y\n2. z\n")


def test_the_site_builds_without_warnings_and_asks_for_nothing(tmp_path: Path) -> None:
    mkdocs = pytest.importorskip("mkdocs.commands.build")
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    mkdocs.build(config)  # strict: a warning is an error
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"([^\"]+)\"|<link[^>]+href=\"([^\"]+)\"", text)
        outside = [u for pair in loaded for u in pair if u.startswith(("http", "//"))]
        assert outside == [], page.name
    for name in ("first_plan", "your_study", "opencarp_first_hour", "in_procedure", "trial", "python"):
        assert (tmp_path / "site" / "tutorials" / f"{name}.html").is_file()


@pytest.mark.slow
@pytest.mark.line
@pytest.mark.parametrize("page", RUN, ids=lambda p: p.stem)
def test_a_tutorial_runs_as_it_stands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "cases", tmp_path / "cases")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    toml = re.search(r"`(out/\S+\.toml)`:\n\n```toml\n(.*?)```", page.read_text(), flags=re.DOTALL)
    for line in blocks(page, "console"):
        words = shlex.split(line, comments=True)
        if toml and toml.group(1) in line and not Path(toml.group(1)).exists():
            Path(toml.group(1)).write_text(toml.group(2))
        if words[0] == "vtwin":
            assert run(words[1:]) == 0, line
        else:
            program = [sys.executable, *words[1:]] if words[0] == "python" else words
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(program, check=False, capture_output=True, text=True, env=environment)
            assert done.returncode == 0, (line, done.stderr)
