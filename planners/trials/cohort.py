"""One trial folder from freeze to tables: the scheduler with its design, tables kept fresh while it runs."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from planners.trials import results
from planners.trials.design import Enrolment, located
from planners.trials.executors import Execution, executor
from planners.trials.scheduler import Progress, Scheduler
from planners.trials.store import Store
from planners.trials.table import Table, open_table
from planners.trials.trial import Trial
from twin.errors import InputError

TABLE = "jobs.sqlite"
REFRESH_S = 5.0
"""Result tables are written again at most this often, and never for more than a twentieth of the time."""


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold a trial folder; raises InputError if another process runs it. The lock goes with the process, however that ends."""
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError("command line", "-o", f"{out} is being run by another process", "watch it with --status") from None
        yield
    finally:
        os.close(handle)


class Refresher:
    """Writes the result tables while the trial runs."""

    def __init__(self, table: Table, trial: Trial, out: Path) -> None:
        self.table, self.trial, self.out = table, trial, out
        self._next = time.monotonic() + REFRESH_S

    def __call__(self) -> None:
        """Write them if it is time."""
        now = time.monotonic()
        if now >= self._next:
            write_tables(self.table, self.trial, self.out)
            took = time.monotonic() - now
            self._next = time.monotonic() + max(REFRESH_S, 20.0 * took)


def write_tables(table: Table, trial: Trial, out: Path) -> int:
    """Write both tables; returns the rows of results.parquet."""
    results.write_twins(table, trial, out / "twins.parquet")
    return results.write_results(table, trial, out / "results.parquet")


def run(
    trial: Trial,
    out: Path,
    execution: Execution,
    cases: Path,
    say: Callable[[str], None],
    report: Callable[[Progress], None],
    again: bool = False,
    stopped: Callable[[Table, int], bool] = lambda table, look: False,
) -> tuple[Table, Progress]:
    """Run a frozen trial to its end; the folder must be locked. again: jobs that were set aside are tried once more."""
    table, damaged = open_table(out / TABLE)
    if damaged:
        say("the job table was damaged: it was set aside and is filled again from the workers' journals")
    store = Store(out / "store", "main")
    if again:
        table.release(("refused", "failed", "poison"))
    design = Enrolment(trial, cases, lambda look: stopped(table, look))
    fresh = Refresher(table, trial, out)

    def told(progress: Progress) -> None:
        report(progress)
        fresh()

    workers = executor(execution, store.folder, say)
    try:
        progress = Scheduler(table, store, workers, design, execution, told, lambda job: located(job, cases)).run()
    finally:
        workers.close()
    write_tables(table, trial, out)
    return table, progress


def status(out: Path) -> dict[str, Any]:
    """What another shell may know of a trial: counts by kind and state, time left, whether it is running."""
    path = out / TABLE
    if not path.exists():
        raise InputError(out, TABLE, "not there", "name the folder of a trial that was begun with `vtwin cohort TRIAL.toml -o OUT`")
    table = Table(path, read_only=True)
    try:
        value = {"jobs": table.counts(), "cpu_s": table.cpu_s(), "running": _is_running(out), **table.noted()}
    finally:
        table.close()
    return json.loads(json.dumps(value))


def _is_running(out: Path) -> bool:
    handle = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)
