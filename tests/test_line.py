"""The whole line on the small virtual patient: expectations, determinism, resumption after being cut off anywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import numba
import pytest

import planners.schema
from planners.app import assemble
from planners.app.cli import run
from planners.calibration import Calibration
from planners.pacing.induce import PacingSettings, induce
from planners.pacing.protocol import load_protocol
from planners.pacing.vote import vote, voters

CASES = Path(__file__).parents[1] / "cases"
SMALL = str(CASES / "two_isthmuses" / "case.toml")
pytestmark = pytest.mark.line
STAGES = ("mesh", "tissue", "substrate", "induction", "evidence", "lesions", "outcome", "comparison")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One undisturbed run."""
    out = tmp_path_factory.mktemp("line") / "out"
    assert run(["plan", SMALL, "-o", str(out)]) == 0, "an [expect] of the case was missed, or the run failed"
    return out


def _plan(out: Path) -> bytes:
    return (out / "plan.json").read_bytes()


def _cut(finished: Path, to: Path, kept: int) -> Path:
    """What a run that was killed after `kept` finished stages leaves behind."""
    shutil.copytree(finished, to)
    for name in ("plan.json", "report.html", "summary.pdf", "heart.vtu"):
        (to / name).unlink()
    shutil.rmtree(to / "overlay")
    record = json.loads((to / "run.json").read_text())
    (to / "run.json").write_text(json.dumps({"identity": record["identity"], "status": "running"}))
    for name in STAGES[kept:]:
        for folder in (to / "stages").glob(f"{name}-*"):
            shutil.rmtree(folder)
    return to


def test_induce_takes_the_folder_of_a_plan(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["induce", str(finished), "-o", str(tmp_path / "again")]) == 0
    plan, alone = (json.loads(path.read_text()) for path in (finished / "plan.json", tmp_path / "again" / "inductions.json"))
    assert alone["inductions"] == plan["inductions"]
    assert run(["induce", str(finished), "-o", str(tmp_path / "none"), "--dry-run"]) == 0
    assert not (tmp_path / "none").exists()
    for wrong in (tmp_path / "again", tmp_path):
        assert run(["induce", str(wrong), "-o", str(tmp_path / "none")]) == 2
    assert "holds no run of vtwin" in capsys.readouterr().err


def test_the_plan_follows_its_schema(finished: Path) -> None:
    schema = json.loads(Path(planners.schema.__file__).with_name("plan.schema.json").read_text())
    jsonschema.validate(json.loads(_plan(finished)), schema)


def test_what_is_promised_is_there(finished: Path) -> None:
    plan = json.loads(_plan(finished))
    assert any(i["induced"] for i in plan["inductions"])
    assert len({i["site"] for i in plan["inductions"]}) >= 3
    assert plan["outcome"]["non_inducible_at_mode"]
    assert len(plan["alternatives"]) >= 2
    assert (finished / "report.html").stat().st_size < 10_000_000
    for name in ("stl/lesions.stl", "vtp/epi.vtp", "slicer/targets.mrk.json", "frame.json"):
        assert (finished / "overlay" / name).stat().st_size > 0
    for key in plan["sources"]:
        assert assemble.explain(plan, key) is not None


def test_a_second_run_reuses_every_stage(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _plan(finished)
    assert run(["plan", SMALL, "-o", str(finished)]) == 0
    said = capsys.readouterr().err
    assert said.count("reused from") == len(STAGES)
    assert _plan(finished) == before


def test_one_thread_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    threads = numba.get_num_threads()
    try:
        # the mesh and the fit are kept: their own tests hold them to the same
        out = _cut(finished, tmp_path / "out", kept=2)
        assert run(["plan", SMALL, "-o", str(out), "--threads", "1"]) == 0
    finally:
        numba.set_num_threads(threads)
    assert _plan(out) == _plan(finished)


@pytest.mark.parametrize("kept", [pytest.param(k, marks=[] if k == 4 else pytest.mark.slow) for k in range(len(STAGES))])
def test_a_run_cut_off_between_stages_ends_the_same(kept: int, finished: Path, tmp_path: Path) -> None:
    out = _cut(finished, tmp_path / "out", kept)
    assert run(["plan", SMALL, "-o", str(out)]) == 0
    assert _plan(out) == _plan(finished)


def test_a_run_killed_in_the_middle_of_induction_ends_the_same(finished: Path, tmp_path: Path) -> None:
    out = _cut(finished, tmp_path / "out", kept=2)
    command = [sys.executable, "-c", f"from planners.app.cli import main; main({['plan', SMALL, '-o', str(out)]!r})"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list((out / "stages").glob("induction-*/site-*.npz")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    sites = list((out / "stages").glob("induction-*/site-*.npz"))
    assert not list((out / "stages").glob("induction-*/complete.json"))
    stamps = {path: path.stat().st_mtime_ns for path in sites}
    assert run(["plan", SMALL, "-o", str(out)]) == 0
    assert _plan(out) == _plan(finished)
    assert {path: path.stat().st_mtime_ns for path in sites} == stamps, "a finished site was paced again"


def test_other_settings_of_the_reduced_model_vote_on_every_site(finished: Path, tmp_path: Path) -> None:
    (tissue,) = (finished / "stages").glob("tissue-*")
    twin, protocol, settings = Calibration.load(tissue).twin, load_protocol("quick"), PacingSettings()
    site = next(i["site"] for i in json.loads(_plan(finished))["inductions"] if i["induced"])
    run_ = induce(twin, protocol, [site], settings)
    voted = vote(run_, twin, protocol, [site], settings, folder=tmp_path)
    assert voted.inducing_sites == run_.inducing_sites
    alone = [induce(twin, protocol, [site], replace(settings, solver=s)).induced for s in voters(settings.solver)]
    count = sum(alone) + run_.induced
    assert all(i.note.endswith(f"induced in {count} of 5 settings of wait and blend") for i in voted.inductions)
    assert len(list(tmp_path.glob("vote-*/site-*.npz"))) == 4


def test_a_heart_without_scar_needs_no_plan(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(["plan", str(CASES / "no_scar" / "case.toml"), "-o", str(out)]) == 0
    plan = json.loads(_plan(out))
    assert not any(i["induced"] for i in plan["inductions"])
    assert plan["targets"] == []


@pytest.mark.slow
def test_the_demo_meets_its_expectations(tmp_path: Path) -> None:
    assert run(["plan", str(CASES / "demo" / "case.toml"), "-o", str(tmp_path / "out")]) == 0
