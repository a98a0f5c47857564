"""The job table: SQLite with a write-ahead log, so that another shell can read while the trial runs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planners.trials.job import Event, Job, Row
from twin.errors import RunFailed

SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
  key TEXT PRIMARY KEY, kind TEXT NOT NULL, ordinal INTEGER NOT NULL, spec TEXT NOT NULL, needs TEXT NOT NULL,
  state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, worker TEXT, seconds REAL, cpu_s REAL, peak_mb REAL,
  row TEXT, files TEXT, problem TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS job_order ON job (kind, ordinal);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
COLUMNS = "key, kind, ordinal, spec, needs, state, attempts, row, files, problem, seconds, worker"


@dataclass(frozen=True)
class Entry:
    """A job with its state: waiting, running, done, refused, failed or poison (its workers died)."""

    job: Job
    state: str
    attempts: int
    row: Row | None
    files: dict[str, int]
    problem: str
    seconds: float
    worker: str


class Table:
    """The job table of one trial folder; writes are gathered and committed by `commit`."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        if read_only:
            self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30.0)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            # a kill loses nothing with NORMAL; a power cut may lose the last commits, which the journals still hold
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(SCHEMA)

    @contextmanager
    def _space(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error) or "I/O" in str(error):
                raise RunFailed(f"{self.path}: {error}; free some space, the same command goes on where it was") from None
            raise

    def add(self, jobs: Sequence[Job]) -> None:
        """Enter jobs that are not known yet as waiting."""
        rows = [(j.key, j.kind, j.ordinal, _dump(j.spec), _dump(list(j.needs))) for j in jobs]
        with self._space():
            self._db.executemany(
                "INSERT OR IGNORE INTO job (key, kind, ordinal, spec, needs, state) VALUES (?, ?, ?, ?, ?, 'waiting')", rows
            )

    def started(self, keys: Sequence[str]) -> None:
        """Mark jobs as running, one more attempt each."""
        with self._space():
            self._db.executemany("UPDATE job SET state = 'running', attempts = attempts + 1 WHERE key = ?", [(k,) for k in keys])

    def ended(self, events: Sequence[Event]) -> None:
        """Write what came of jobs."""
        rows = [
            (
                e.state,
                e.worker,
                e.seconds,
                e.cpu_s,
                e.peak_mb,
                None if e.row is None else _dump(e.row),
                _dump(dict(e.files or {})),
                e.problem,
                e.key,
            )
            for e in events
        ]
        with self._space():
            self._db.executemany(
                "UPDATE job SET state = ?, worker = ?, seconds = ?, cpu_s = ?, peak_mb = ?, row = ?, files = ?, problem = ? WHERE key = ?",
                rows,
            )

    def commit(self) -> None:
        """Make what was written visible and lasting."""
        with self._space():
            self._db.commit()

    def again(self, key: str) -> None:
        """Put a job back to waiting."""
        with self._space():
            self._db.execute("UPDATE job SET state = 'waiting', row = NULL WHERE key = ?", (key,))

    def release(self, states: Sequence[str] = ("running",)) -> None:
        """Jobs in these states (those that were running when the trial ended, say) are waiting again."""
        with self._space():
            self._db.executemany("UPDATE job SET state = 'waiting' WHERE state = ?", [(state,) for state in states])
            self._db.commit()

    def get(self, key: str) -> Entry | None:
        """One job."""
        found = self._db.execute(f"SELECT {COLUMNS} FROM job WHERE key = ?", (key,)).fetchone()
        return None if found is None else _entry(found)

    def entries(self, *kinds: str, state: str | None = None) -> Iterator[Entry]:
        """Jobs of some kinds in the order of the trial, streamed."""
        clause = f"kind IN ({', '.join('?' * len(kinds))})" + (" AND state = ?" if state else "")
        values = (*kinds, state) if state else kinds
        for row in self._db.execute(f"SELECT {COLUMNS} FROM job WHERE {clause} ORDER BY ordinal, key", values):
            yield _entry(row)

    def done(self) -> set[str]:
        """Keys of all jobs that have a result."""
        return {key for (key,) in self._db.execute("SELECT key FROM job WHERE state = 'done'")}

    def counts(self) -> dict[str, dict[str, int]]:
        """Kind -> state -> number of jobs."""
        out: dict[str, dict[str, int]] = {}
        for kind, state, number in self._db.execute("SELECT kind, state, COUNT(*) FROM job GROUP BY kind, state ORDER BY kind, state"):
            out.setdefault(kind, {})[state] = number
        return out

    def costs(self) -> dict[str, tuple[int, float, float]]:
        """Kind -> number done, mean seconds, highest peak in MB."""
        query = "SELECT kind, COUNT(*), AVG(seconds), MAX(peak_mb) FROM job WHERE state = 'done' GROUP BY kind"
        return {kind: (count, seconds or 0.0, peak or 0.0) for kind, count, seconds, peak in self._db.execute(query)}

    def cpu_s(self) -> dict[str, float]:
        """Kind -> CPU time of all jobs that are done, seconds."""
        return dict(self._db.execute("SELECT kind, SUM(cpu_s) FROM job WHERE state = 'done' GROUP BY kind"))

    def note(self, **values: Any) -> None:
        """Keep values by name."""
        with self._space():
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(k, _dump(v)) for k, v in values.items()])

    def noted(self) -> dict[str, Any]:
        """All values kept by name."""
        return {name: json.loads(value) for name, value in self._db.execute("SELECT name, value FROM meta")}

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _entry(found: Sequence[Any]) -> Entry:
    key, kind, ordinal, spec, needs, state, attempts, row, files, problem, seconds, worker = found
    job = Job(key, kind, ordinal, json.loads(spec), tuple(json.loads(needs)))
    kept = json.loads(files) if files else {}
    return Entry(job, state, attempts, json.loads(row) if row else None, kept, problem or "", seconds or 0.0, worker or "")


def open_table(path: Path) -> tuple[Table, bool]:
    """Open the table, or set a damaged one aside and begin a new one, which the journals fill again; says whether it was damaged."""
    try:
        table = Table(path)
        healthy = table._db.execute("PRAGMA quick_check").fetchone()[0] == "ok"
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # locked, or no space: that is no damage
            raise RunFailed(f"{path}: {error}; free some space, the same command goes on where it was") from None
        healthy = False
    if healthy:
        return table, False
    for suffix in ("", "-wal", "-shm"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.replace(path.with_name(f"damaged-{path.name}{suffix}"))
    return Table(path), True
