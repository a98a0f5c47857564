"""The command line as a user meets it: what is wrong is one line and exit status 2, what is right says what it would do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planners.app import assemble
from planners.app.cli import run
from planners.app.doctor import examine
from planners.app.output import claim, finish
from twin.errors import InputError
from twin.io.nrrd import read_nrrd, write_nrrd
from twin.volume import LABELS, LabelVolume

CASES = Path(__file__).parents[1] / "cases"


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A copy of the small virtual patient that a test may damage."""
    return Path(shutil.copytree(CASES / "two_isthmuses", tmp_path / "case"))


def _line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Run a command that must be refused and return its one line."""
    assert run(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vtwin:")]
    assert len(lines) == 1
    assert "Traceback" not in lines[0]
    return lines[0]


def _labels(change: Callable[[LabelVolume], LabelVolume]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        write_nrrd(folder / "labels.nrrd", change(read_nrrd(folder / "labels.nrrd")))

    return damage


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "labels.nrrd"
        path.write_bytes(change(path.read_bytes()))

    return damage


def _text(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        before = path.read_text()
        after = change(before)
        assert after != before
        path.write_text(after)

    return damage


def _without(volume: LabelVolume, name: str) -> LabelVolume:
    data = np.where(volume.data == LABELS[name], 0, volume.data).astype(np.uint8)
    return replace(volume, data=data)


def _twice(volume: LabelVolume) -> LabelVolume:
    gap = np.zeros((8, *volume.data.shape[1:]), np.uint8)
    return replace(volume, data=np.concatenate([volume.data, gap, volume.data]))


def _thin(volume: LabelVolume) -> LabelVolume:
    from scipy import ndimage

    # the left ventricle alone: with both, a wall this thin falls apart into two hearts
    blood = volume.mask("lv_blood")
    shell = volume.mask("lv_myocardium", "scar", "border_zone") & ndimage.binary_dilation(blood)
    return replace(volume, data=np.where(blood | shell, volume.data, 0).astype(np.uint8))


def _column(name: str, factor: float) -> Callable[[str], str]:
    """Multiply one column of a CSV whose header lines start with `#`."""

    def change(text: str) -> str:
        lines = text.splitlines()
        head = next(i for i, line in enumerate(lines) if not line.startswith("#"))
        index = lines[head].split(",").index(name)
        for i in range(head + 1, len(lines)):
            cells = lines[i].split(",")
            cells[index] = repr(float(cells[index]) * factor) if cells[index] not in ("", "nan", "NaN") else cells[index]
            lines[i] = ",".join(cells)
        return "\n".join(lines) + "\n"

    return change


AT_READING: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty file": (_bytes(lambda b: b""), "empty"),
    "truncated": (_bytes(lambda b: b[: len(b) // 2]), "labels.nrrd"),
    "wrong magic": (_bytes(lambda b: b"GRRD" + b[4:]), "labels.nrrd"),
    "NaN in the affine": (
        _bytes(lambda b: re.sub(rb"space directions: \(\S+?,", b"space directions: (nan,", b, count=1)),
        "space directions",
    ),
    "left-handed": (_bytes(lambda b: re.sub(rb"space directions: \((\S+?),", rb"space directions: (-\1,", b, count=1)), "left-handed"),
    "spacing in metres": (_labels(lambda v: replace(v, affine=v.affine * np.array([[1e-3, 1e-3, 1e-3, 1.0]]))), "metre"),
    "missing label": (_labels(lambda v: _without(v, "lv_blood")), "lv_blood"),
    "unknown label": (_bytes(lambda b: re.sub(rb"_Name:=lv_blood", b"_Name:=liver", b)), "liver"),
    "two hearts": (_labels(_twice), "two"),
    "one voxel thin": (_labels(_thin), "thin"),
    "LAT in seconds": (_text("map.csv", _column("lat_ms", 1e-3)), "second"),
    "map in metres": (_text("map.csv", lambda t: _column("x_mm", 1e-3)(_column("y_mm", 1e-3)(_column("z_mm", 1e-3)(t)))), "metre"),
    "flat lead": (_text("ecg.csv", _column("V3", 0.0)), "V3"),
    "misspelt key": (_text("case.toml", lambda t: t.replace("[mesh]\nedge", "[mesh]\nedgo")), "edge"),
    "misspelt table": (_text("case.toml", lambda t: t.replace("[mesh]", "[mehs]")), "mesh"),
    "negative velocity": (_text("case.toml", lambda t: t + '\n[tissue.healthy]\ncv_longitudinal = "-0.6 m/s"\n'), "negative"),
    "negative conductivity": (_text("case.toml", lambda t: t + '\n[tissue.healthy]\nconductivity_longitudinal = "-0.1 S/m"\n'), "negative"),
    "unknown protocol": (_text("case.toml", lambda t: re.sub(r"\[plan\][^\n]*\n", '[plan]\nprotocol = "quik"\n', t)), "quick"),
    "missing evidence": (lambda folder: (folder / "map.csv").unlink(), "map.csv"),
}


@pytest.mark.parametrize("name", AT_READING)
def test_bad_input_is_one_line(name: str, case: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    damage, said = AT_READING[name]
    damage(case)
    line = _line(capsys, ["plan", str(case / "case.toml"), "-o", str(tmp_path / "out"), "--dry-run"])
    assert said in line


def test_map_of_another_heart_is_refused(case: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for column, factor in (("x_mm", 1.7), ("y_mm", 0.5), ("z_mm", 1.5)):
        _text("map.csv", _column(column, factor))(case)
    text = re.sub(r"# landmark.*\n", "", (case / "map.csv").read_text())
    (case / "map.csv").write_text(text)
    assert "same heart" in _line(capsys, ["plan", str(case / "case.toml"), "-o", str(tmp_path / "out")])


def test_wrong_calls_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments in (
        ["plan"],
        ["plan", "nowhere.toml", "-o", str(tmp_path / "x")],
        ["frobnicate"],
        ["verify", "astrology"],
        ["plan", "x", "--frob"],
    ):
        _line(capsys, arguments)


def test_dry_run_checks_and_estimates_and_leaves_nothing(case: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["plan", str(case / "case.toml"), "-o", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["nodes"] > 5000
    assert value["evidence"] == ["map", "ecg", "record"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["calibrate", "induce", "mesh"])
def test_dry_runs_of_single_stages_leave_nothing(command: str, case: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = case / ("labels.nrrd" if command == "mesh" else "case.toml")
    assert run([command, str(source), "-o", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["nodes"] > 5000
    assert "outcome" not in value["stages"]
    assert not (tmp_path / "out").exists()


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("vtk", "vtkmodules", "pyvista", "torch", "numba", "scipy", "SimpleITK")
    code = f"import sys, planners.app.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_doctor_names_a_remedy_for_what_is_missing() -> None:
    for finding in examine():
        assert finding.status in ("ok", "missing", "optional")
        assert finding.status == "ok" or finding.remedy


def test_an_output_folder_holds_one_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert claim(out, {"seed": 0}) is False
    assert claim(out, {"seed": 1}) is False, "a run that has finished no stage holds nothing"
    assert claim(out, {"seed": 1}) is True
    finish(out, {"seed": 1}, {})
    with pytest.raises(InputError, match="differs in seed"):
        claim(out, {"seed": 2})
    assert claim(out, {"seed": 2}, fresh=True) is False
    finish(out, {"seed": 2}, {"x": 1})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match="not of a vtwin run"):
        claim(tmp_path / "mine", {"seed": 1}, fresh=True)


def test_an_output_folder_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    claim(tmp_path / "out", {"seed": 1})
    (tmp_path / "out" / "stages").mkdir()
    finish(tmp_path / "out", {"seed": 1}, {})
    claim(tmp_path / "out", {"seed": 2}, fresh=True)
    assert (tmp_path / "out").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["run.json"]
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a link to what is not there"):
        claim(tmp_path / "gone", {"seed": 1})


def test_an_interruption_says_that_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("planners.app.doctor.examine", stopped)
    assert run(["doctor"]) == 130
    assert capsys.readouterr().err == "vtwin: interrupted; what is finished is kept, the same command resumes\n"


def test_two_runs_at_once_do_not_share_a_folder(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    claim(tmp_path / "out", {"seed": 1})
    other = os.open(tmp_path / "out", os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finish(tmp_path / "out", {"seed": 1}, {})
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(InputError, match="another vtwin is at work"):
        claim(tmp_path / "out", {"seed": 1})
    os.close(other)
    assert claim(tmp_path / "out", {"seed": 1}) is True
    finish(tmp_path / "out", {"seed": 1}, {})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line() -> None:
    for command in ("doctor", "--help"):
        with open("/dev/full", "w") as full:
            call = [sys.executable, "-c", "from planners.app.cli import main; main()", command]
            done = subprocess.run(call, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr == "vtwin: output: no space left on device; make room and run the same command again: it resumes\n"


def test_explain_finds_the_nearest_source() -> None:
    plan = {
        "outcome": {"interval": [0.5, 1.0]},
        "circuits": [{"cycle_length_ms": 340.0}],
        "sources": {"outcome": "o", "circuits.cycle_length_ms": "c"},
    }
    assert assemble.explain(plan, "outcome.interval[0]") == "outcome.interval[0] = 0.5: o"
    assert assemble.explain(plan, "circuits[0].cycle_length_ms") == "circuits[0].cycle_length_ms = 340.0: c"
    assert assemble.explain(plan, "circuits.width") is None
