"""A job of a trial, what came of it, and the work that it may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from twin.run import content_hash

VERSION = "3"
"""Part of every key: raised when a job would give another answer to the same specification."""

Row = Mapping[str, Any]
Work = Callable[[Row, Sequence[Path], Path], Row]
"""work(spec, needs, folder) -> row of JSON values. needs: folders of the jobs it builds on; files left in `folder` (which the work makes
if it wants it) are kept with the row, and what an attempt that was cut off left there is found again.
"""

WORK = {
    "twin": "planners.trials.twin_work:twin",
    "arm": "planners.trials.twin_work:arm",
    "toy_twin": "planners.trials.toy_work:twin",
    "toy_arm": "planners.trials.toy_work:arm",
    "empty": "planners.trials.toy_work:empty",
}
MEMORY_MB = {"twin": 900.0, "arm": 900.0}
"""What one job of a kind is taken to need before any has been measured (a 2.5 mm heart: measured 0.5-0.8 GB)."""

SECONDS = {"twin": 40.0, "arm": 12.0, "toy_twin": 0.002, "toy_arm": 0.002}
"""CPU time of a twin, and of one posterior sample of an arm, at 2.5 mm with three sites (measured); for --dry-run."""


def work(kind: str) -> Work:
    """The function behind a kind of job."""
    module, name = WORK[kind].split(":")
    function: Work = getattr(import_module(module), name)
    return function


@dataclass(frozen=True)
class Job:
    """One piece of work. key: hash of all that decides its result; ordinal: place in the trial; needs: keys of jobs it builds on."""

    key: str
    kind: str
    ordinal: int
    spec: Row
    needs: tuple[str, ...] = ()

    @staticmethod
    def of(kind: str, ordinal: int, spec: Row, needs: Sequence[str] = ()) -> Job:
        """A job with the key of its contents; the ordinal is no part of it."""
        return Job(content_hash(VERSION, kind, dict(spec), list(needs)), kind, ordinal, spec, tuple(needs))


@dataclass(frozen=True)
class Event:
    """What an executor says of a job.

    state: `done`; `refused` (bad input) and `failed` (the work itself failed), which are not tried again; `lost` (the worker died) and
    `full` (no space, or another failing of the machine), which may be.
    files: name -> bytes of what was kept; place: folder of the store that has it.
    """

    key: str
    state: str
    row: Row | None = None
    problem: str = ""
    worker: str = ""
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    files: Mapping[str, int] | None = None
    place: str = ""
