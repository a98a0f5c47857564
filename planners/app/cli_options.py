"""Options that several commands have, spelt and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twin.errors import InputError

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for the results; never overwritten unless it holds the same run.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads for compiled kernels (default: all cores).")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random draw.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Discard what an earlier run left in the output folder.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Check all inputs, say what would run and about how long, and stop.")]


def set_threads(count: int | None) -> None:
    """Set the thread count before the first kernel runs; None leaves it. Raises InputError for more than the machine has."""
    if count is None:
        return
    import numba

    if count > numba.config.NUMBA_NUM_THREADS:
        raise InputError("command line", "--threads", f"{count} asked, {numba.config.NUMBA_NUM_THREADS} available", "ask for fewer")
    numba.set_num_threads(count)
