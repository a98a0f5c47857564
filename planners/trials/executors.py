"""Where jobs run: one protocol; in this process, in local processes, or on a Dask cluster."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from planners.trials.job import Event, Job
from planners.trials.perform import perform
from planners.trials.store import Store
from twin.errors import InputError


class Executor(Protocol):
    """Runs jobs. `slots`: how many at once; `ahead`: how many more it likes to hold."""

    slots: int
    ahead: int

    def submit(self, job: Job) -> None:
        """Take a job."""
        ...

    def wait(self, timeout_s: float) -> list[Event]:
        """What happened since the last call; waits for something to happen, at most this long."""
        ...

    def close(self) -> None:
        """End the workers; what they were computing is lost, what they finished is kept."""
        ...


@dataclass(frozen=True)
class Execution:
    """How a trial is run: no part of the trial itself, whose results do not depend on it.

    executor: in_process, processes or dask; workers: how many (0: one per core); threads: per worker (0: cores / workers);
    memory_mb: what all jobs together may use (0: 90 % of what is free at the start); cluster: for Dask, `local`, the address of a
    scheduler, `slurm` or `pbs`; options: handed to dask-jobqueue; folders: `shared` if the workers see the trial's folder, `own` if not.
    """

    executor: str = "processes"
    workers: int = 0
    threads: int = 0
    memory_mb: float = 0.0
    attempts: int = 3
    backoff_s: float = 1.0
    cluster: str = "local"
    folders: str = "shared"
    worker_folder: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def shape(self) -> tuple[int, int]:
        """Workers, and threads of each."""
        cores = os.cpu_count() or 1
        workers = self.workers or (1 if self.executor == "in_process" else cores)
        return workers, self.threads or max(1, cores // workers)


EXECUTORS = {
    "in_process": "planners.trials.executors:InProcess",
    "processes": "planners.trials.processes:Processes",
    "dask": "planners.trials.dask_executor:Dask",
}


def executor(execution: Execution, folder: Path, say: Callable[[str], None]) -> Executor:
    """Start the executor that was asked for. Raises InputError for one that is not installed or not reachable."""
    if execution.executor not in EXECUTORS:
        raise InputError("execution", "executor", f"{execution.executor!r} is unknown", f"choose {', '.join(EXECUTORS)}")
    module, name = EXECUTORS[execution.executor].split(":")
    made: Executor = getattr(import_module(module), name)(execution, folder, say)
    return made


class InProcess:
    """One job after the other, here."""

    slots, ahead = 1, 0

    def __init__(self, execution: Execution, folder: Path, say: Callable[[str], None]) -> None:
        self._store = Store(folder, f"here-{os.getpid()}")
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(job)

    def wait(self, timeout_s: float) -> list[Event]:
        """Run the oldest job."""
        if not self._jobs:
            time.sleep(min(timeout_s, 0.05))
            return []
        return [perform(self._jobs.popleft(), self._store)]

    def close(self) -> None:
        """Close the journal."""
        self._store.close()
