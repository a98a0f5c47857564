"""`vtwin cohort --verify OUT`: a random part of a trial computed again, wherever the folder is now, and compared with what it says."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from planners.trials import protocol_file
from planners.trials.cohort import TABLE
from planners.trials.design import Enrolment, located
from planners.trials.job import Job, Row, work
from planners.trials.results import sample_rows
from planners.trials.store import Store
from planners.trials.table import Entry, Table
from planners.trials.trial import Trial
from twin.errors import InputError

SHARE = 0.05


def verify_trial(out: Path, share: float, seed: int, say: Callable[[str], None]) -> tuple[int, list[str]]:
    """Recompute `share` of all finished jobs (one at least); returns how many, and a line for everything that differs.

    results.parquet must hold what the job table holds. Jobs run in a folder of their own: the trial's is only read.
    """
    record = protocol_file.read(out)
    trial = protocol_file.frozen_trial(out)
    if not (out / TABLE).exists():
        raise InputError(out, TABLE, "not there", "run the trial first")
    table = Table(out / TABLE, read_only=True)
    try:
        differing = _table_differs(table, trial, out)
        entries = [*table.entries("twin", "toy_twin", state="done"), *table.entries("arm", "toy_arm", state="done")]
        count = min(len(entries), max(1, math.ceil(share * len(entries))))
        chosen = np.sort(np.random.default_rng(seed).choice(len(entries), count, replace=False))
        store = Store(out / "store", "verify")
        for number, k in enumerate(chosen.tolist()):
            entry = entries[k]
            say(f"{number + 1}/{count}: {entry.job.kind} {entry.job.spec['candidate']}")
            differing += _again(entry, trial, store, Path(record["cases"]))
    finally:
        table.close()
    return int(count), differing


def _again(entry: Entry, trial: Trial, store: Store, cases: Path) -> list[str]:
    name = f"{entry.job.kind} {entry.job.spec['candidate']} ({entry.job.key})"
    expected = Job.of(entry.job.kind, entry.job.ordinal, entry.job.spec, entry.job.needs).key
    if expected != entry.job.key:
        return [f"{name}: its specification does not fit its key"]
    if entry.job.kind in ("twin", "toy_twin") and Enrolment(trial, cases).candidate(entry.job.ordinal).key != entry.job.key:
        return [f"{name}: the protocol does not lead to this job"]
    with tempfile.TemporaryDirectory() as folder:
        job = located(entry.job, cases)
        row: Row = work(job.kind)(job.spec, [store.files(key) for key in job.needs], Path(folder) / "job")
        if json.loads(json.dumps(row)) != entry.row:
            return [f"{name}: another result"]
        kept = store.files(job.key)
        for path in sorted(p for p in (Path(folder) / "job").rglob("*") if p.is_file()):
            other = kept / path.relative_to(Path(folder) / "job")
            if not other.exists() or other.read_bytes() != path.read_bytes():
                return [f"{name}: another {path.name}"]
    return []


def _table_differs(table: Table, trial: Trial, out: Path) -> list[str]:
    """results.parquet against the job table, row by row."""
    import pyarrow.parquet as pq

    try:
        stored = pq.ParquetFile(out / "results.parquet")
        rows = (row for batch in stored.iter_batches(10_000) for row in batch.to_pylist())
        for number, (mine, theirs) in enumerate(zip(sample_rows(table, trial), rows, strict=True)):
            if mine != theirs:
                return [f"results.parquet: row {number} is not what the job table says"]
    except (OSError, ValueError) as error:
        return [f"results.parquet: {' '.join(str(error).split())}; run the trial's command again to write it"]
    return []
