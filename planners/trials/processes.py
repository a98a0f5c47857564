"""Local processes: each computes one job at a time with its share of the cores; one that dies is replaced."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

from planners.trials.executors import Execution
from planners.trials.job import Event, Job
from planners.trials.perform import one_thread_set, perform
from planners.trials.store import Store

STOP_S = 5.0


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    job: Job | None = None


class Processes:
    """Spawned workers, each behind its own pipe, so that a worker that is killed takes one job with it and no other."""

    ahead = 0

    def __init__(self, execution: Execution, folder: Path, say: Callable[[str], None]) -> None:
        self.slots, self._threads = execution.shape()
        self._folder, self._say = folder, say
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._started = 0

    def _start(self) -> _Worker:
        here, there = self._context.Pipe()
        self._started += 1
        name = f"p{self._started}-{os.getpid()}"
        before = dict(os.environ)
        os.environ.update(one_thread_set(self._threads))  # a spawned process reads its threads from the environment
        try:
            process = self._context.Process(target=_serve, args=(there, str(self._folder), name), name=name, daemon=True)
            process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        there.close()
        worker = _Worker(process, here)
        self._workers.append(worker)
        return worker

    def submit(self, job: Job) -> None:
        """Give a job to an idle worker; starts one if all are busy and there may be more."""
        idle = next((w for w in self._workers if w.job is None), None) or self._start()
        idle.job = job
        with contextlib.suppress(OSError):  # it died while idle: `wait` finds that out and reports the job as lost
            idle.pipe.send(job)

    def wait(self, timeout_s: float) -> list[Event]:
        """Results that came, and jobs whose workers died."""
        by_pipe = {w.pipe: w for w in self._workers}
        events: list[Event] = []
        for pipe in wait(list(by_pipe), timeout_s):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                events.append(worker.pipe.recv())
                worker.job = None
            except (EOFError, OSError):
                events += self._died(worker)
        return events

    def _died(self, worker: _Worker) -> list[Event]:
        worker.process.join(STOP_S)
        self._workers.remove(worker)
        worker.pipe.close()
        if worker.job is None:
            return []
        code = worker.process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        return [Event(worker.job.key, "lost", problem=f"worker {worker.process.name} ended {how}", worker=worker.process.name)]

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            if worker.job is None:
                worker.pipe.close()
            else:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(STOP_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


def _serve(pipe: Connection, folder: str, name: str) -> None:
    """A worker's life: jobs in, events out, until the pipe closes or the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    store = Store(Path(folder), name)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(perform(job, store))
