"""What every worker does with a job, wherever it runs: compute, keep, say what came of it."""

from __future__ import annotations

import errno
import os
import resource
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from planners.trials.job import Event, Job, work
from planners.trials.store import Store, sizes
from twin.errors import InputError, Interrupted, RunFailed

THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)
"""Failings of the machine and not of the job."""


def perform(job: Job, store: Store, needs: list[Path] | None = None) -> Event:
    """Run a job and keep its result in the store; every failure but an interruption becomes an event."""
    started, cpu = time.perf_counter(), time.process_time()
    folders = needs if needs is not None else [store.files(key) for key in job.needs]
    try:
        row = work(job.kind)(job.spec, folders, store.scratch(job.key))
        event = Event(
            job.key,
            "done",
            row,
            worker=store.name,
            seconds=round(time.perf_counter() - started, 6),
            cpu_s=round(time.process_time() - cpu, 6),
            peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, 1),
            files=sizes(store.scratch(job.key)),
            place=str(store.folder),
        )
        store.keep(event)
        return event
    except Interrupted:
        raise
    except InputError as error:
        return _failed(job, store, "refused", str(error))
    except RunFailed as error:
        return _failed(job, store, "failed", str(error))
    except MemoryError:
        return _failed(job, store, "lost", "not enough memory")
    except OSError as error:
        if error.errno in MACHINE:
            return _failed(job, store, "full", f"{error.strerror or error}")
        return _failed(job, store, "failed", _last(error))
    except Exception as error:  # a defect of the work: kept apart, so that one patient cannot end a trial
        return _failed(job, store, "failed", _last(error))


def _failed(job: Job, store: Store, state: str, problem: str) -> Event:
    return Event(job.key, state, problem=problem, worker=store.name, place=str(store.folder))


def _last(error: BaseException) -> str:
    """The error and the line of vtwin that it came from, in one line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return " ".join(f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})".split())


@contextmanager
def machine_failures(where: Path) -> Iterator[None]:
    """Turn a full disk and its like into RunFailed, which says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in MACHINE or "space left" in str(error) or "too large" in str(error):
            raise RunFailed(f"{where}: {' '.join(str(error).split())}; free some space, the same command goes on where it was") from None
        raise


def one_thread_set(threads: int) -> dict[str, str]:
    """Environment of a worker with its share of the cores."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(max(1, threads)))}
