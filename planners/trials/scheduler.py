"""Runs a design to its end: what is finished is never computed again, what is lost is tried again, what is wrong is set aside."""

from __future__ import annotations

import heapq
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from planners.trials.executors import Execution, Executor
from planners.trials.job import MEMORY_MB, Event, Job, Row
from planners.trials.store import Store
from planners.trials.table import Table
from twin.errors import RunFailed

COMMIT_S = 0.5
BATCH = 256
DRAW = 512
"""Jobs that are drawn from the design ahead of their turn: memory stays flat however many there are."""


class Design(Protocol):
    """Which jobs a trial consists of; the same answers to the same questions, however often and in whatever order it is asked."""

    def first(self) -> Iterator[Job]:
        """Jobs that need no result."""
        ...

    def after(self, job: Job, row: Row | None) -> Sequence[Job]:
        """Jobs that a finished one makes possible or necessary; row None: it has no result."""
        ...

    def idle(self) -> Sequence[Job]:
        """Further jobs when all are finished; empty: the trial is at its end."""
        ...


@dataclass
class Progress:
    """Where a run stands."""

    finished: int = 0
    reused: int = 0
    computed: int = 0
    retried: int = 0
    set_aside: int = 0
    running: int = 0
    waiting: int = 0
    seconds_left: float | None = None


class Scheduler:
    """One run of a trial folder."""

    def __init__(
        self,
        table: Table,
        store: Store,
        executor: Executor,
        design: Design,
        execution: Execution,
        report: Callable[[Progress], None] = lambda progress: None,
        prepare: Callable[[Job], Job] = lambda job: job,
    ) -> None:
        self.table, self.store, self.executor, self.design, self.execution = table, store, executor, design, execution
        self.report, self.prepare = report, prepare
        self.progress = Progress()
        self._ready: deque[Job] = deque()
        self._held: list[tuple[float, int, Job]] = []
        self._running: dict[str, Job] = {}
        self._attempts: dict[str, int] = {}
        self._events: list[Event] = []
        self._begun: list[str] = []
        self._committed = time.monotonic()
        self._memory_mb = execution.memory_mb or 0.9 * free_mb()
        self._peaks = dict(MEMORY_MB)
        self._measured: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._spent = False
        self._left_behind: dict[str, Event] = {}

    def run(self) -> Progress:
        """Go on until nothing is left. Raises RunFailed if the machine fails (no space, say); what is finished is kept."""
        self.table.release()
        self._left_behind = leftovers(self.table, self.store)
        for kind, (_, seconds, peak) in self.table.costs().items():
            self._learn(kind, seconds, peak)
        source = self.design.first()
        try:
            while True:
                self._draw(source)
                self._submit()
                if not self._running and not self._ready and not self._held and self._spent:
                    self._commit(now=True)  # a look reads the table
                    more = self.design.idle()
                    if not more:
                        break
                    self._enter(more)
                    continue
                if self._running:
                    for event in self.executor.wait(0.2):
                        self._ended(event)
                elif self._held:
                    time.sleep(max(0.0, min(0.2, self._held[0][0] - time.monotonic())))
                self._commit()
        finally:
            self._commit(now=True)
        return self.progress

    def _draw(self, source: Iterator[Job]) -> None:
        while not self._spent and len(self._ready) < DRAW:
            batch = []
            for job in source:
                batch.append(job)
                if len(batch) == BATCH:
                    break
            else:
                self._spent = True
            self._enter(batch)

    def _enter(self, jobs: Sequence[Job]) -> None:
        """Queue jobs; those that have a result already answer at once."""
        todo = deque(jobs)
        while todo:
            job = todo.popleft()
            known = self.table.get(job.key)
            if known is None:
                self.table.add([job])
            if (event := self._left_behind.pop(job.key, None)) is not None and self.store.intact(job.key, event.files):
                self._events.append(event)
                self.progress.reused += 1
                self.progress.finished += 1
                todo.extend(self.design.after(job, event.row))
            elif known is None:
                self._ready.append(job)
            elif known.state == "done" and self.store.intact(job.key, known.files):
                self.progress.reused += 1
                self.progress.finished += 1
                todo.extend(self.design.after(job, known.row))
            elif known.state in ("refused", "failed", "poison"):
                self.progress.set_aside += 1
                self.progress.finished += 1
                todo.extend(self.design.after(job, None))
            else:
                self.table.again(job.key)
                self._ready.append(job)

    def _submit(self) -> None:
        while self._held and self._held[0][0] <= time.monotonic():
            self._ready.appendleft(heapq.heappop(self._held)[2])
        room = self.executor.slots + self.executor.ahead
        while self._ready and len(self._running) < room and self._fits(self._ready[0]):
            job = self._ready.popleft()
            self._running[job.key] = job
            self._begun.append(job.key)
            self.executor.submit(self.prepare(job))

    def _fits(self, job: Job) -> bool:
        """One job may always run; further ones only where what they are known to need is there."""
        used = sum(self._peaks.get(j.kind, 0.0) for j in self._running.values())
        return not self._running or used + self._peaks.get(job.kind, 0.0) <= self._memory_mb

    def _learn(self, kind: str, seconds: float, peak_mb: float) -> None:
        if peak_mb:
            self._measured[kind] = max(peak_mb, self._measured.get(kind, 0.0))
            self._peaks[kind] = self._measured[kind]
        before = self._seconds.get(kind, seconds)
        self._seconds[kind] = 0.8 * before + 0.2 * seconds

    def _ended(self, event: Event) -> None:
        job = self._running.pop(event.key, None)
        if job is None:
            return
        if event.state == "full":
            self._running[event.key] = job
            raise RunFailed(f"{self.store.folder}: {event.problem}; free some space, the same command goes on where it was")
        if event.state == "lost":
            self._lost(job, event)
            return
        if event.state == "done":
            self.progress.computed += 1
            self._learn(job.kind, event.seconds, event.peak_mb)
        else:
            self.progress.set_aside += 1
        self.progress.finished += 1
        self._events.append(event)
        self._enter(self.design.after(job, event.row))

    def _lost(self, job: Job, event: Event) -> None:
        """Try again, later each time; a job that kills its workers is set aside."""
        self._attempts[job.key] = tries = self._attempts.get(job.key, 0) + 1
        if tries >= self.execution.attempts:
            problem = f"set aside after {tries} attempts: {event.problem}"
            self._events.append(Event(job.key, "poison", problem=problem, worker=event.worker))
            self.progress.set_aside += 1
            self.progress.finished += 1
            self._enter(self.design.after(job, None))
            return
        self.progress.retried += 1
        heapq.heappush(self._held, (time.monotonic() + self.execution.backoff_s * 2 ** (tries - 1), job.ordinal, job))

    def _commit(self, now: bool = False) -> None:
        if not now and len(self._events) < BATCH and time.monotonic() - self._committed < COMMIT_S:
            return
        if self._begun:
            self.table.started(self._begun)
            self._begun = []
        if self._events:
            self.table.ended(self._events)
            self._events = []
        self._committed = time.monotonic()
        progress = self.progress
        progress.running, progress.waiting = len(self._running), len(self._ready) + len(self._held)
        progress.seconds_left = self._left()
        self.table.note(progress=vars(progress) | {"at": time.time(), "pid": os.getpid(), "slots": self.executor.slots})
        self.table.commit()
        self.report(progress)

    def _left(self) -> float | None:
        """Time for what is known to be left; more may follow from what is still computed."""
        jobs = [*self._ready, *self._running.values()]
        known = [self._seconds[j.kind] for j in jobs if j.kind in self._seconds]
        if not jobs or not known:
            return 0.0 if not jobs else None
        return sum(known) / len(known) * len(jobs) / max(1, self.executor.slots)


def leftovers(table: Table, store: Store) -> dict[str, Event]:
    """Results that workers left but that the table does not know (it was cut off before, or it was lost), by key."""
    known = table.done()
    return {e.key: e for e in store.records() if e.key not in known and e.state == "done"}


def free_mb(path: Path = Path("/proc/meminfo")) -> float:
    """Memory that is free or can be made free, MB; without /proc half of all there is."""
    try:
        text = path.read_text()
        return float(text.split("MemAvailable:")[1].split()[0]) / 1024.0
    except (OSError, IndexError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2e6
