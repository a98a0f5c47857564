"""Cost of a trial's machinery: time and memory per empty job, and opening a large result table."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from planners.trials.executors import Execution, executor
from planners.trials.job import Job, Row
from planners.trials.results import write_parquet
from planners.trials.scheduler import Scheduler
from planners.trials.store import Store
from planners.trials.table import open_table
from planners.trials.toy_work import empty
from twin.check_record import timed

JOBS = 10_000
ROWS = 1_000_000


class _Empty:
    """Jobs that do nothing, drawn as they are needed."""

    def __init__(self, count: int) -> None:
        self.count = count

    def first(self) -> Iterator[Job]:
        return (Job.of("empty", k, {"n": k}) for k in range(self.count))

    def after(self, job: Job, row: Row | None) -> Sequence[Job]:
        return ()

    def idle(self) -> Sequence[Job]:
        return ()


def records(jobs: int = JOBS, rows: int = ROWS) -> list[dict[str, Any]]:
    """Overhead per empty job (here; two processes), growth of memory over all of them, and opening a table of many rows."""
    plain = _pool_ms(min(jobs, 2000))
    out = []
    for name in ("in_process", "processes"):
        ms, grown, before = overhead(name, jobs)
        out.append(timed(f"trials/overhead/{name}", ms, "ms per empty job", plain))
        if name == "in_process":
            out.append(timed("trials/memory", grown, f"MB more after {jobs} jobs than after a tenth of them", before))
    return [*out, _opening(rows)]


def overhead(name: str, jobs: int) -> tuple[float, float, float]:
    """Milliseconds per empty job, workers warm, MB by which this process grew over the last nine tenths of them, and MB that it had."""
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(executor=name, workers=2 if name == "processes" else 1)
        table, _ = open_table(Path(folder) / "jobs.sqlite")
        store = Store(Path(folder) / "store", "main")
        workers = executor(execution, store.folder, lambda line: None)
        try:
            Scheduler(table, store, workers, _Empty(jobs // 10), execution).run()
            before, start = _peak_mb(), time.perf_counter()
            progress = Scheduler(table, store, workers, _Empty(jobs), execution).run()
            seconds = time.perf_counter() - start
        finally:
            workers.close()
            table.close()
    return 1e3 * seconds / progress.computed, _peak_mb() - before, before


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def _pool_ms(jobs: int) -> float:
    """The same work through a plain process pool, which keeps nothing."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(_nothing, range(100)))
        start = time.perf_counter()
        for future in [pool.submit(_nothing, k) for k in range(jobs)]:
            future.result()
        return 1e3 * (time.perf_counter() - start) / jobs


def _nothing(n: int) -> Row:
    return empty({"n": n}, [], Path())


def _opening(rows: int) -> dict[str, Any]:
    """Open a table, and count the successes of each arm in it; the reference reads all columns into pandas."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("twin", pa.string()), ("arm", pa.string()), ("sample", pa.int32()), ("non_inducible", pa.bool_()), ("volume", pa.float64())]
    )
    made = (
        {"twin": f"V{k // 100:05d}", "arm": "ab"[k % 2], "sample": k % 50, "non_inducible": k % 3 == 0, "volume": k * 1e-3}
        for k in range(rows)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.parquet"
        write_parquet(made, schema, path)
        start = time.perf_counter()
        counted = pq.read_table(path, columns=["arm", "non_inducible"]).group_by("arm").aggregate([("non_inducible", "sum")])
        opened = time.perf_counter() - start
        assert sum(counted["non_inducible_sum"].to_pylist()) == (rows + 2) // 3
        start = time.perf_counter()
        pd.read_parquet(path)
        return timed(f"trials/open/{rows}", opened, "s", time.perf_counter() - start)
