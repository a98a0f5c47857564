"""A Dask cluster: local processes, a scheduler that runs already, or one that SLURM or PBS gives. Workers write results themselves."""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from planners.trials.executors import Execution
from planners.trials.job import Event, Job
from planners.trials.perform import THREAD_VARIABLES, perform
from planners.trials.store import Store
from twin.atomic import write_bytes
from twin.errors import InputError, RunFailed

SATURATION = {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 0}
"""A worker holds what it computes and no more; a job whose worker dies comes back at once, and is tried again by the trial's own rules."""
START_S = 120.0
"""Workers of this machine, and files of a job, are there within this time."""

PATIENCE_S = {"queue": 24 * 3600.0, "other": 600.0}
"""So long a run waits without any worker: a queue may be full, a scheduler's workers may be restarted."""

TOLD_S = 60.0
QUEUES = ("slurm", "pbs")
MOST_AT_ONCE = 256

Files = dict[str, bytes]


class Dask:
    """Workers keep results in the trial's folder (`shared`) or in one of their own (`own`), and return keys; from an own folder the files
    of a job are fetched from the worker that has them, and are sent along with the jobs that build on them.
    """

    def __init__(self, execution: Execution, folder: Path, say: Callable[[str], None]) -> None:
        distributed = _installed("distributed")
        import dask

        self._own = execution.folders == "own"
        self._store = Store(folder, f"fetched-{os.getpid()}")
        self._place = execution.worker_folder if self._own else str(folder.resolve())
        dask.config.set(SATURATION)
        dask.config.set({"distributed.admin.tick.limit": "60s"})
        workers, threads = execution.shape()
        self._say, self._asked = say, execution.cluster
        self._cluster = _cluster(distributed, execution, workers, threads)
        self._client: Any = _client(distributed, self._cluster or execution.cluster)
        self._queue: queue.Queue[Any] = queue.Queue()
        self._futures: dict[str, Any] = {}
        self._without_since: float | None = None
        self._told = 0.0
        wanted = workers if execution.cluster == "local" else 1
        while self._count() < wanted:
            time.sleep(0.2)
        say(f"dask: {len(self._client.nthreads())} workers at {self._client.scheduler.address}")

    def _count(self) -> int:
        """Workers that are there; slots and ahead go by them. Raises RunFailed after too long without any."""
        threads = self._client.nthreads()
        self.slots = self.ahead = max(1, sum(threads.values()))
        now = time.monotonic()
        if threads:
            self._without_since = None
            return len(threads)
        self._without_since = now if self._without_since is None else self._without_since
        waited = now - self._without_since
        if waited > (patience := PATIENCE_S["queue" if self._asked in QUEUES else "other"]):
            raise RunFailed(f"no worker at {self._asked} for {patience / 60:.0f} minutes; what was finished is kept, run again to go on")
        if waited > TOLD_S and now - self._told > TOLD_S:
            self._told = now
            self._say(f"dask: no worker yet, waiting for {self._asked} since {waited / 60:.0f} min")
        return 0

    def submit(self, job: Job) -> None:
        """Hand a job to the scheduler."""
        needs = {key: _packed(self._store.files(key)) for key in job.needs} if self._own else {}
        # pure=False: a job that is tried again is a new task, whatever became of the old one
        future = self._client.submit(_run, job, self._place, needs, pure=False)
        self._futures[job.key] = future
        future.add_done_callback(lambda done, key=job.key: self._queue.put((key, done)))

    def wait(self, timeout_s: float) -> list[Event]:
        """Results that came, and jobs whose workers died."""
        self._count()
        ended: list[tuple[str, Any]] = []
        with contextlib.suppress(queue.Empty):
            ended.append(self._queue.get(timeout=timeout_s))
            while len(ended) < MOST_AT_ONCE:
                ended.append(self._queue.get_nowait())
        return [self._event(key, future) for key, future in ended]

    def _event(self, key: str, future: Any) -> Event:
        self._futures.pop(key, None)
        try:
            event, address = future.result()
            if self._own and event.state == "done":
                event = self._fetched(event, address)
        except Exception as error:  # a dead worker, a lost connection: many kinds, all of them mean that the job may be tried again
            return Event(key, "lost", problem=" ".join(f"{type(error).__name__}: {error}".split())[:300])
        return event

    def _fetched(self, event: Event, address: str) -> Event:
        """The event with the job's files in the trial's own store."""
        files: Files = {}
        if event.files:
            files = self._client.submit(_files, event.place, event.key, workers=[address], pure=False).result(timeout=START_S)
        for name, data in files.items():
            write_bytes(self._store.scratch(event.key) / name, data)
        kept = replace(event, place=str(self._store.folder))
        self._store.keep(kept)
        return kept

    def close(self) -> None:
        """Leave the scheduler; a cluster that was started here ends."""
        self._client.cancel(list(self._futures.values()))
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()
        self._store.close()


def _installed(name: str) -> Any:
    try:
        return __import__(name)
    except ModuleNotFoundError:
        raise InputError("execution", "executor", f"{name} is not installed", "pip install 'vtwin[cluster]'") from None


def _client(distributed: Any, where: Any) -> Any:
    try:
        return distributed.Client(where, timeout=START_S)
    except OSError as error:  # distributed's time-out is one too
        problem = f"no scheduler answers at {where}: {type(error).__name__}"
        raise InputError("execution", "cluster", problem, "start one (dask scheduler), or correct the address") from None


def _cluster(distributed: Any, execution: Execution, workers: int, threads: int) -> Any:
    """The cluster to start; None if there is one at an address."""
    environment = dict.fromkeys(THREAD_VARIABLES, str(threads))
    if execution.cluster == "local":
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=0,
            silence_logs=50,
            local_directory=tempfile.gettempdir(),
            env=environment,
        )
    if execution.cluster in QUEUES:
        jobqueue = _installed("dask_jobqueue")
        kind = {"slurm": jobqueue.SLURMCluster, "pbs": jobqueue.PBSCluster}[execution.cluster]
        exports = [f"export {name}={value}" for name, value in environment.items()]
        options = {"cores": 1, "processes": 1, "memory": "4 GB", **execution.options}
        options["job_script_prologue"] = [*exports, *options.get("job_script_prologue", [])]
        try:
            cluster = kind(**options)
        except (TypeError, ValueError) as error:
            raise InputError("execution", "options", str(error), f"give what dask_jobqueue.{kind.__name__} takes") from None
        # jobs of a queue end - time limit, preemption, a broken node - and adapt asks for others; scale would not
        cluster.adapt(minimum_jobs=workers, maximum_jobs=workers, interval="5s")
        return cluster
    if "://" not in execution.cluster:
        raise InputError(
            "execution", "cluster", f"{execution.cluster!r} is unknown", "write local, slurm, pbs or an address tcp://HOST:PORT"
        )
    return None


def _packed(folder: Path) -> Files:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


_stores: dict[str, tuple[Store, dict[str, Event]]] = {}


def _store_here(place: str) -> tuple[Store, dict[str, Event], str]:
    """This worker's store, and what it had finished when it began (in its own folder alone)."""
    from distributed import get_worker

    worker = get_worker()
    own = place == ""
    folder = Path(worker.local_directory) / "vtwin" if own else Path(place)
    if str(folder) not in _stores:
        store = Store(folder, f"dask-{os.uname().nodename}-{os.getpid()}")
        _stores[str(folder)] = (store, {e.key: e for e in store.records()} if own else {})
    return (*_stores[str(folder)], worker.address)


def _run(job: Job, place: str, needs: dict[str, Files]) -> tuple[Event, str]:
    """On a worker: compute a job, or return what an earlier life of this worker left of it."""
    store, before, address = _store_here(place)
    if job.key in before and store.intact(job.key, before[job.key].files):
        return before[job.key], address
    for key, files in needs.items():
        for name, data in files.items():
            path = store.files(key) / name
            if not path.exists():
                write_bytes(path, data)
    return perform(job, store), address


def _files(place: str, key: str) -> Files:
    """On a worker: the files of a job that it finished."""
    return _packed(Path(place) / "files" / key)
