"""Typical mistakes at the command line and in a case: one line that says where, what, and what would be right; never a traceback."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from planners.app import cli
from planners.app.cli import run

CASE = Path(__file__).parents[1] / "cases" / "two_isthmuses"


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes") / "case"
    shutil.copytree(CASE, folder)
    return folder


def said(capsys, *words):
    """Exit status and the one line."""
    status = run(list(map(str, words)))
    err = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(err)
    return status, err[-1] if err else ""


def changed(folder, old, new):
    text = (folder / "case.toml").read_text()
    assert old in text
    path = folder / "changed.toml"
    path.write_text(text.replace(old, new, 1))
    return path


EDITS = [
    ('edge = "2.5 mm"', 'egde = "2.5 mm"', "did you mean 'edge'"),
    ("[eam]", "[emm]", "did you mean 'eam'"),
    ('"2.5 mm"', '"2.5 kg"', "write a number in mm"),
    ('"2.5 mm"', '"0.1 mm"', "from 0.3 to 10 mm"),
    ('"aha04"', '"aha4"', "did you mean 'aha04'"),
    ('"rv_outflow"', '"rvot"', "did you mean|known"),
    ('"lv_endo"', '"lv"', "known: all, epi, lv_endo"),
    ("samples = 2", 'samples = "two"', "write a whole number"),
    ("[mesh]", "[mesh", "line 22"),
    ("map.csv", "mpa.csv", "mpa.csv"),
    ("labels.nrrd", "map.csv", "label"),
]


@pytest.mark.parametrize(("old", "new", "says"), EDITS, ids=[f"{new[:14]}" for _, new, _ in EDITS])
def test_a_mistake_in_a_case_is_named_with_what_would_be_right(copied, capsys, tmp_path, old, new, says):
    path = changed(copied, old, new)
    status, line = said(capsys, "plan", path, "-o", tmp_path / "out", "--dry-run")
    assert status == 2
    assert any(word in line for word in says.split("|")), line
    assert not (tmp_path / "out").exists()


def test_mistakes_of_the_call(copied, capsys, tmp_path):
    case = copied / "case.toml"
    for words, says in (
        (("pln", case), "Did you mean 'plan'"),
        (("plan", case), "Missing option '-o'"),
        (("plan", case, "-o", tmp_path / "a", "--frsh"), "--fresh) (vtwin plan --help"),
        (("segment", "trian"), "(vtwin segment --help"),
        (("plan", copied / "cas.toml", "-o", tmp_path / "a"), "does not exist"),
        (("plan", copied, "-o", tmp_path / "a"), "name a file, not a folder"),
        (("plan", copied / "labels.nrrd", "-o", tmp_path / "a"), "UTF-8"),
        (("plan", case, "-o", case, "--dry-run"), "is a file; name a folder"),
        (("plan", case, "-o", case / "out", "--dry-run"), "is a file; name a folder"),
        (("plan", case, "-o", copied, "--dry-run"), "not of a vtwin run"),
        (("guide", tmp_path / "nowhere", "--lesions", "x.csv"), "vtwin plan CASE.toml"),
        (("mesh", copied / "map.csv", "-o", tmp_path / "a"), "no label format"),
        (("mesh", copied / "labels.nrrd", "-o", tmp_path / "a", "--edge", "25"), "between 0.3 and 5 mm"),
        (("convert", copied / "labels.nrrd", tmp_path / "a.xyz"), "known: .nrrd"),
        (("risk", case), "--template"),
    ):
        status, line = said(capsys, *words)
        assert status == 2, words
        assert says in line, line


def test_coordinates_that_are_not_numbers(copied, capsys, tmp_path):
    lines = (copied / "map.csv").read_text().splitlines()
    row = next(k for k, line in enumerate(lines) if line[0] in "-0123456789")
    lines[row] = ",".join(["nan", *lines[row].split(",")[1:]])
    (copied / "holes.csv").write_text("\n".join(lines) + "\n")
    path = changed(copied, "map.csv", "holes.csv")
    status, line = said(capsys, "plan", path, "-o", tmp_path / "out", "--dry-run")
    assert (status, "x_mm" in line and "not finite" in line) == (2, True), line


@pytest.mark.parametrize(
    ("number", "status", "says"),
    [(13, 2, "that you may read and write"), (30, 2, "that you may read and write"), (28, 1, "it resumes"), (36, 2, "shorter")],
)
def test_what_the_system_says_of_a_place_is_one_line(capsys, monkeypatch, number, status, says):
    def fails(**_):
        raise OSError(number, os.strerror(number), "/somewhere/out")

    monkeypatch.setattr(cli, "app", fails)
    got, line = said(capsys, "doctor")
    assert (got, "/somewhere/out" in line and says in line) == (status, True), line


def test_faults_of_the_program_are_not_taken_for_mistakes(monkeypatch):
    def fails(**_):
        raise OSError("a library's own")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(OSError, match="own"):
        run(["doctor"])


def test_no_words_show_the_help(capsys):
    assert run([]) == 2
    out = capsys.readouterr()
    assert "Commands:" in out.out
    assert out.err == ""
