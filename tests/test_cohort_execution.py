"""Trials that survive: workers and runs killed, files cut, no space. Nothing finished is lost or computed again; tables stay the same."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from planners.app.cli import run
from planners.trials.dask_executor import Dask
from planners.trials.executors import Execution, InProcess
from planners.trials.job import Event, Job, Row
from planners.trials.processes import Processes
from planners.trials.scheduler import Scheduler
from planners.trials.store import Store
from planners.trials.table import Table, open_table
from planners.trials.toy_work import COUNTER
from twin.errors import InputError, RunFailed

TOY = """
name = "toy"
seed = 3
fidelity = "toy"
[population]
virtual = 8
include = {{ inducible = true }}
[pacing]
posterior_samples = 2
[[arm]]
name = "none"
[[arm]]
name = "transection"
strategy = "isthmus_transection"
[primary]
outcome = "non_inducible"
compare = ["transection", "none"]
[analysis]
bootstrap = 200
[toy]
sleep_s = {sleep}
{more}
"""


def _trial(folder: Path, sleep: float = 0.0, more: str = "") -> Path:
    path = folder / "trial.toml"
    path.write_text(TOY.format(sleep=sleep, more=more))
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run, here, with the sleep that disturbed ones have (it is part of the protocol)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(["cohort", str(_trial(folder, 0.05)), "-o", str(folder / "out"), "--executor", "in_process"]) == 0
    return folder / "out"


def _start(trial: Path, out: Path, *more: str, **extra: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from planners.app.cli import main; main()", "cohort", str(trial), "-o", str(out), *more]
    return subprocess.Popen(command, env={**os.environ, **extra}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _wait_for(lines: int, counter: Path, process: subprocess.Popen[bytes]) -> None:
    """Until so many jobs have ended."""
    deadline = time.monotonic() + 120
    while not counter.exists() or len(counter.read_text().splitlines()) < lines:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _finished(out: Path) -> set[str]:
    """Keys of all jobs whose results some journal holds."""
    return {e.key for e in Store(out / "store", "reader").records()}


def _children(pid: int) -> list[int]:
    """Worker processes of a run: its children but for multiprocessing's resource tracker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _same(out: Path, undisturbed: Path) -> bool:
    return all((out / name).read_bytes() == (undisturbed / name).read_bytes() for name in ("results.parquet", "twins.parquet"))


def test_killed_worker_costs_its_job_alone(tmp_path: Path, undisturbed: Path) -> None:
    counter, out = tmp_path / "counter", tmp_path / "out"
    process = _start(_trial(tmp_path, 0.05), out, "--workers", "2", **{COUNTER: str(counter)})
    _wait_for(3, counter, process)
    victims = _children(process.pid)
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    assert process.wait(timeout=120) == 0
    assert _same(out, undisturbed)
    assert 0 <= len(counter.read_text().splitlines()) - len(_finished(out)) <= 1, "at most the job that the worker was computing ran twice"


def test_killed_run_goes_on_without_computing_anything_again(tmp_path: Path, undisturbed: Path) -> None:
    counter, out = tmp_path / "counter", tmp_path / "out"
    trial = _trial(tmp_path, 0.05)
    process = _start(trial, out, "--workers", "2", **{COUNTER: str(counter)})
    _wait_for(7, counter, process)
    workers = _children(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{w}").exists() for w in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{w}").exists() for w in workers), "orphaned workers end"
    before = _finished(out)
    assert len(before) >= 6
    counted = tmp_path / "counted"
    os.environ[COUNTER] = str(counted)
    try:
        assert run(["cohort", str(out), "--resume", "--executor", "in_process"]) == 0
    finally:
        del os.environ[COUNTER]
    assert _same(out, undisturbed)
    assert len(counted.read_text().splitlines()) == len(_finished(out)) - len(before), "what was finished was not computed again"
    assert pq.read_table(out / "results.parquet").num_rows == 8 * 2 * 2


DAMAGE = {
    "results.parquet cut": lambda out: _cut(out / "results.parquet"),
    "twins.parquet gone": lambda out: (out / "twins.parquet").unlink(),
    "journal cut within a line": lambda out: _cut(next((out / "store" / "journal").iterdir())),
    "job table overwritten": lambda out: (out / "jobs.sqlite").write_bytes(b"no database" * 1000),
    "job table gone": lambda out: [p.unlink() for p in out.glob("jobs.sqlite*")],
}


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 + 7])


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_made_again_from_what_is_left(
    name: str, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    DAMAGE[name](out)
    monkeypatch.setenv(COUNTER, str(tmp_path / "counted"))
    assert run(["cohort", str(out), "--resume", "--executor", "in_process"]) == 0
    assert _same(out, undisturbed)
    assert not (tmp_path / "counted").exists(), "no job ran again"


@pytest.mark.parametrize("limit", [pytest.param(6_000, marks=pytest.mark.slow), 14_000, pytest.param(60_000, marks=pytest.mark.slow)])
def test_a_full_disk_ends_the_run_in_one_line_and_loses_nothing(limit: int, tmp_path: Path, undisturbed: Path) -> None:
    """A limit on the size of files stands for a full disk: writes fail as they do there, at the job table, a journal or the report."""
    out, trial = tmp_path / "out", _trial(tmp_path, 0.05)
    limits = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {resource.RLIM_INFINITY}))"
    code = f"import resource; {limits}; from planners.app.cli import main; main()"
    command = [sys.executable, "-c", code, "cohort", str(trial), "-o", str(out), "--executor", "in_process", "--json"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1, failed.stderr
    assert failed.stderr.count("\n") == 1
    assert "free some space" in failed.stderr
    before, counted = _finished(out), tmp_path / "counted"
    again = _start(trial, out, "--executor", "in_process", **{COUNTER: str(counted)})
    assert again.wait(timeout=120) == 0
    assert _same(out, undisturbed)
    assert len(counted.read_text().splitlines()) == len(_finished(out)) - len(before)


def test_all_executors_give_the_same_tables(tmp_path: Path, undisturbed: Path) -> None:
    trial = _trial(tmp_path, 0.05)
    assert run(["cohort", str(trial), "-o", str(tmp_path / "two"), "--executor", "processes", "--workers", "2"]) == 0
    assert _same(tmp_path / "two", undisturbed)


@pytest.mark.parametrize("folders", [pytest.param("shared", marks=pytest.mark.slow), "own"])
def test_dask_workers_write_themselves_in_a_shared_folder_or_in_their_own(folders: str, tmp_path: Path, undisturbed: Path) -> None:
    # the same trial, run another way: [execution] is no part of the protocol
    more = f'[execution]\nexecutor = "dask"\nworkers = 2\nfolders = "{folders}"'
    trial, out = _trial(tmp_path, 0.05, more), tmp_path / "out"
    process = _start(trial, out, "--json")
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert _same(out, undisturbed)
    writers = {p.name.split("-")[0] for p in (out / "store" / "journal").iterdir()}
    assert writers == ({"dask"} if folders == "shared" else {"fetched"})


def test_bad_jobs_are_set_aside_and_said_and_not_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    more = "refuse = 2\nkill = 4\n[execution]\nworkers = 2\nattempts = 2\nbackoff = 0.01"
    assert run(["cohort", str(_trial(tmp_path, 0.0, more)), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "twin 2: toy: candidate: was to be refused" in said
    assert "twin 4: set aside after 2 attempts" in said
    assert "SIGKILL" in said
    table = Table(out / "jobs.sqlite", read_only=True)
    states = {e.job.ordinal: (e.state, e.attempts) for e in table.entries("toy_twin") if e.state != "done"}
    table.close()
    assert states == {2: ("refused", 1), 4: ("poison", 2)}
    assert pq.read_table(out / "results.parquet").num_rows == 8 * 2 * 2, "others were enrolled in their place"


class _Plain:
    """Jobs that need nothing and lead to nothing."""

    def __init__(self, count: int, kind: str = "empty") -> None:
        self.count, self.kind = count, kind

    def first(self) -> Iterator[Job]:
        return (Job.of(self.kind, k, {"n": k}) for k in range(self.count))

    def after(self, job: Job, row: Row | None) -> Sequence[Job]:
        return ()

    def idle(self) -> Sequence[Job]:
        return ()


class _Fake:
    """An executor whose jobs end as a script says: state per call."""

    slots, ahead = 8, 0

    def __init__(self, states: Sequence[str] = (), peak_mb: float = 0.0) -> None:
        self.states, self.peak_mb = list(states), peak_mb
        self.held: list[Job] = []
        self.most = 0
        self.times: list[float] = []

    def submit(self, job: Job) -> None:
        self.held.append(job)
        self.times.append(time.monotonic())

    def wait(self, timeout_s: float) -> list[Event]:
        self.most = max(self.most, len(self.held))
        job = self.held.pop(0)
        state = self.states.pop(0) if self.states else "done"
        return [Event(job.key, state, {"n": 0} if state == "done" else None, "said", peak_mb=self.peak_mb)]

    def close(self) -> None:
        pass


def _scheduler(folder: Path, executor: _Fake, design: _Plain, execution: Execution) -> Scheduler:
    table, _ = open_table(folder / "jobs.sqlite")
    return Scheduler(table, Store(folder / "store", "main"), executor, design, execution)


def test_a_lost_job_is_tried_again_later_each_time(tmp_path: Path) -> None:
    fake = _Fake(["lost", "lost", "done"])
    progress = _scheduler(tmp_path, fake, _Plain(1), Execution(attempts=3, backoff_s=0.05)).run()
    assert (progress.retried, progress.computed, progress.set_aside) == (2, 1, 0)
    first, second = fake.times[1] - fake.times[0], fake.times[2] - fake.times[1]
    assert 0.05 <= first < second


def test_no_more_jobs_at_once_than_memory_allows(tmp_path: Path) -> None:
    fake = _Fake(peak_mb=100.0)
    progress = _scheduler(tmp_path, fake, _Plain(40, "arm"), Execution(memory_mb=320.0)).run()
    assert progress.computed == 40
    assert fake.most == 3, "one at first (a job of that kind is taken to need 900 MB), three of 100 MB once that is measured"


def test_no_space_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="free some space"):
        _scheduler(tmp_path, _Fake(["done", "full"]), _Plain(5), Execution()).run()
    table = Table(tmp_path / "jobs.sqlite", read_only=True)
    assert table.counts()["empty"]["done"] == 1, "what was finished before is committed"
    table.close()


def test_a_store_passes_over_what_was_cut(tmp_path: Path) -> None:
    store = Store(tmp_path, "a")
    for k in range(3):
        store.keep(Event(f"key{k}", "done", {"k": k}))
    path = tmp_path / "journal" / "a.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    Store(tmp_path, "a").keep(Event("key3", "done", {"k": 3}))
    assert [e.key for e in store.records()] == ["key0", "key1", "key3"]
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(bytes(data))
    assert [e.key for e in store.records()] == ["key1", "key3"], "a changed byte fails its checksum"


def test_a_folder_is_run_by_one_process_and_watched_by_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counter, out, trial = tmp_path / "counter", tmp_path / "out", _trial(tmp_path, 0.1)
    process = _start(trial, out, "--executor", "in_process", **{COUNTER: str(counter)})
    _wait_for(2, counter, process)
    try:
        assert run(["cohort", str(trial), "-o", str(out)]) == 2
        assert "run by another process" in capsys.readouterr().err
        assert run(["cohort", str(out), "--status"]) == 0
        assert ": running" in capsys.readouterr().out
    finally:
        process.terminate()
        process.wait()
    assert run(["cohort", str(out), "--status"]) == 0
    assert "not running" in capsys.readouterr().out


def test_workers_share_the_cores(tmp_path: Path) -> None:
    workers = Processes(Execution(workers=2, threads=3), tmp_path, print)
    workers.submit(Job.of("empty", 0, {"n": 0}))
    (worker,) = workers._workers
    try:
        deadline = time.monotonic() + 60
        while not (events := workers.wait(1.0)):
            assert time.monotonic() < deadline
        assert events[0].state == "done"
        assert b"NUMBA_NUM_THREADS=3" in Path(f"/proc/{worker.process.pid}/environ").read_bytes()
    finally:
        workers.close()


def test_unknown_executors_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cohort", str(_trial(tmp_path)), "-o", str(tmp_path / "out"), "--executor", "proceses"]) == 2
    assert "did you mean 'processes'" in capsys.readouterr().err
    with pytest.raises(InputError, match="tcp://"):
        Dask(Execution(executor="dask", cluster="cluster.example"), tmp_path, print)


def test_overhead_and_memory_are_small(tmp_path: Path) -> None:
    """CPU time per empty job of scheduler, worker and table together; `vtwin bench trials` measures 10,000."""
    table, _ = open_table(tmp_path / "jobs.sqlite")
    executor = InProcess(Execution(), tmp_path / "store", print)
    start = time.process_time()
    progress = Scheduler(table, Store(tmp_path / "store", "main"), executor, _Plain(1000), Execution()).run()
    seconds = time.process_time() - start
    assert progress.computed == 1000
    assert seconds / 1000 < 5e-3
    assert sqlite3.connect(tmp_path / "jobs.sqlite").execute("SELECT COUNT(*) FROM job WHERE state = 'done'").fetchone() == (1000,)
