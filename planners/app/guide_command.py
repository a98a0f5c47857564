"""`vtwin guide`: a finished plan and what was delivered since, to what is left."""

from __future__ import annotations

import time
from pathlib import Path

from planners.app.console import Console
from planners.guidance import records, watch
from planners.guidance.base import Base
from twin.errors import InputError


def guide(out: Path, lesions: Path, follow: bool, accept: list[str], console: Console) -> int:
    """Write the next update below OUT/guidance; with `follow`, go on until interrupted."""
    base = Base.load(out)
    if follow:
        console.progress(f"following {lesions} (Ctrl-C ends; every update is kept in {out / records.ROOM})")
        watch.follow(base, lesions, console.progress, tuple(accept))
        return 0
    if not lesions.is_file():
        raise InputError(lesions, "file", "does not exist", "name the file of delivered lesions (CSV, first line `# vtwin-lesions 1`)")
    started = time.perf_counter()
    guidance, folder = watch.step(base, lesions, tuple(accept))
    state = guidance.state if guidance is not None else records.last(out)
    assert state is not None
    seconds = time.perf_counter() - started
    unchanged = [] if guidance is not None else ["nothing changed since the last update"]
    lines = [*unchanged, state["say"], *state["notes"], f"plan and overlay: {folder} ({seconds:.1f} s)"]
    console.result({**state, "folder": str(folder), "seconds": round(seconds, 3)}, lines)
    return 0
