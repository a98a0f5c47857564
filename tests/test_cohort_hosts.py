"""Trials on other hosts: a real SLURM and a stand-in for PBS whose jobs are cancelled, and workers in network namespaces of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pbs_stand_in
import pytest
from test_cohort_execution import _finished, _same, _start, _trial, _wait_for

from planners.app.cli import run
from planners.trials import dask_executor
from planners.trials.store import Store
from planners.trials.toy_work import COUNTER

SLEEP_S = 0.3


def _answers(*command: str) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def _queued(folder: Path, queue: str) -> Path:
    """The trial with two jobs of a queue as workers; every piece of work leaves a line in folder/counter."""
    more = f"""[execution]
executor = "dask"
cluster = "{queue}"
workers = 2
[execution.options]
memory = "2GB"
walltime = "00:10:00"
log_directory = "{folder / "log"}"
job_script_prologue = ["export {COUNTER}={folder / "counter"}"]
"""
    return _trial(folder, SLEEP_S, more)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same trial in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(["cohort", str(_trial(folder, SLEEP_S)), "-o", str(folder / "out"), "--executor", "in_process"]) == 0
    return folder / "out"


@pytest.mark.slow
@pytest.mark.skipif(not _answers("sinfo"), reason="no SLURM answers here (sinfo)")
def test_slurm_jobs_that_are_cancelled_are_asked_for_again(tmp_path: Path, undisturbed: Path) -> None:
    out, counter = tmp_path / "out", tmp_path / "counter"
    process = _start(_queued(tmp_path, "slurm"), out, "--json")
    _wait_for(3, counter, process)
    subprocess.run(["scancel", "--me"], check=True)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert _same(out, undisturbed)
    twice = len(counter.read_text().splitlines()) - len(_finished(out))
    assert 0 <= twice <= 2, "at most the jobs that the two were computing ran twice"
    writers = {p.name for p in (out / "store" / "journal").iterdir()}
    assert len(writers) > 2, "other jobs took over"
    assert not subprocess.run(["squeue", "--me", "-h"], check=True, capture_output=True).stdout, "jobs were left in the queue"


@pytest.mark.slow
def test_pbs_jobs_that_are_killed_are_asked_for_again(tmp_path: Path, undisturbed: Path) -> None:
    room = tmp_path / "pbs"
    commands = pbs_stand_in.install(room)
    out, counter = tmp_path / "out", tmp_path / "counter"
    process = _start(_queued(tmp_path, "pbs"), out, "--json", PATH=f"{commands}:{os.environ['PATH']}")
    _wait_for(3, counter, process)
    killed = pbs_stand_in.jobs(room)
    assert killed, "no job of the queue runs"
    for session in killed.values():
        os.killpg(session, signal.SIGKILL)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert _same(out, undisturbed)
    assert 0 <= len(counter.read_text().splitlines()) - len(_finished(out)) <= 2, "at most the jobs that the two were computing ran twice"
    assert len(list((out / "store" / "journal").iterdir())) > len(killed), "other jobs took over"
    deadline = time.monotonic() + 30.0
    while left := pbs_stand_in.jobs(room):  # a worker that was told to end closes its connections first
        assert time.monotonic() < deadline, f"{left} were left in the queue"
        time.sleep(0.2)


@pytest.fixture
def namespaces() -> Iterator[dict[str, tuple[str, str]]]:
    """Two network namespaces: name -> this host's address as seen from it, and its own; all are gone afterwards."""
    hosts = {f"vtwin{k}": (f"10.213.{k}.1", f"10.213.{k}.2") for k in (1, 2)}

    def ip(*words: str, check: bool = True) -> None:
        subprocess.run(["ip", *words], check=check, capture_output=True)

    try:
        for name, (here, there) in hosts.items():
            ip("netns", "add", name)
            ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b")
            ip("link", "set", f"{name}b", "netns", name)
            ip("addr", "add", f"{here}/24", "dev", f"{name}a")
            ip("link", "set", f"{name}a", "up")
            ip("netns", "exec", name, "ip", "addr", "add", f"{there}/24", "dev", f"{name}b")
            ip("netns", "exec", name, "ip", "link", "set", f"{name}b", "up")
            ip("netns", "exec", name, "ip", "link", "set", "lo", "up")
        yield hosts
    finally:
        for name in hosts:
            ip("link", "del", f"{name}a", check=False)
            ip("netns", "del", name, check=False)


@pytest.mark.slow
@pytest.mark.skipif(not _answers("unshare", "-n", "true") or shutil.which("ip") is None, reason="network namespaces need root and ip")
def test_two_hosts_with_folders_of_their_own_give_the_same_tables(
    namespaces: dict[str, tuple[str, str]], tmp_path: Path, undisturbed: Path
) -> None:
    port, started = 8799, []
    try:
        started.append(subprocess.Popen([sys.executable, "-m", "dask", "scheduler", "--port", str(port), "--no-dashboard", "--no-show"]))
        time.sleep(3.0)
        for name, (here, there) in namespaces.items():
            worker = [sys.executable, "-m", "dask", "worker", f"tcp://{here}:{port}", "--host", there, "--nthreads", "1"]
            folder = ["--local-directory", str(tmp_path / name), "--no-nanny", "--no-dashboard"]
            started.append(subprocess.Popen(["ip", "netns", "exec", name, *worker, *folder]))
        more = f'[execution]\nexecutor = "dask"\ncluster = "tcp://127.0.0.1:{port}"\nfolders = "own"'
        out = tmp_path / "out"
        process = _start(_trial(tmp_path, SLEEP_S, more), out, "--json")
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        assert _same(out, undisturbed)
        folders = sorted(tmp_path.glob("vtwin?/dask-scratch-space/worker-*"))
        kept = [len({e.key for e in Store(folder / "vtwin", "reader").records()}) for folder in folders if folder.is_dir()]
        assert len(kept) == 2, "each host keeps its own folder"
        assert min(kept) > 0, "a host did nothing"
        assert sum(kept) == len(_finished(out))
    finally:
        for child in reversed(started):
            child.terminate()
            child.wait(timeout=30)


def test_a_scheduler_that_does_not_answer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dask_executor, "START_S", 0.5)
    more = '[execution]\nexecutor = "dask"\ncluster = "tcp://127.0.0.1:9"'
    assert run(["cohort", str(_trial(tmp_path, 0.0, more)), "-o", str(tmp_path / "out")]) == 2
    assert "no scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err


def test_a_run_without_workers_ends_after_some_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import distributed

    monkeypatch.setitem(dask_executor.PATIENCE_S, "other", 0.5)
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as cluster:
        more = f'[execution]\nexecutor = "dask"\ncluster = "{cluster.scheduler_address}"'
        assert run(["cohort", str(_trial(tmp_path, 0.0, more)), "-o", str(tmp_path / "out")]) == 1
    assert "no worker at tcp://" in capsys.readouterr().err
