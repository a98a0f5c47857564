"""`vtwin guide`: a finished plan and what came since, to what is left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from planners.app.console import Console
from planners.guidance import records
from planners.guidance.base import Base
from planners.guidance.inputs import KINDS
from planners.guidance.watch import Session, follow, in_folder
from twin.errors import InputError


def chosen(given: Mapping[str, Path | None], folder: Path | None) -> dict[str, Path]:
    """Input files by kind, from options or from a folder. Raises InputError if there is none, or both."""
    files = {kind: path for kind, path in given.items() if path is not None}
    if folder is not None:
        if files:
            raise InputError("command line", "--folder", "is given beside single files", "give one or the other")
        if not folder.is_dir():
            raise InputError(folder, "folder", "is not there", f"make it; it may hold {', '.join(KINDS.values())}")
        return in_folder(folder)
    if not files:
        remedy = f"give --lesions, --eam or --vt, or --folder with {', '.join(KINDS.values())}"
        raise InputError("command line", "guide", "has no input", remedy)
    return files


def guide(
    out: Path, files: Mapping[str, Path], watched: bool, accept: list[str], console: Console, optional: bool = False, samples: bool = False
) -> int:
    """Write the next update below OUT/guidance; `watched`: go on until interrupted; `optional`: files that are not there are left out.

    samples: what repeated trains say is asked of other samples of the tissue too (watched: always, while nothing else happens).
    """
    session = Session(Base.load(out), tuple(accept), console.progress)
    if watched:
        session.warm()
        names = ", ".join(str(path) for path in files.values())
        console.progress(f"following {names} (Ctrl-C ends; every update is kept in {out / records.ROOM})")
        follow(session, files)
        return 0
    present = {kind: path for kind, path in files.items() if path.exists()} if optional else dict(files)
    if not present:
        raise InputError("command line", "--folder", "holds none of the files", f"write {', '.join(KINDS.values())}")
    started = time.perf_counter()
    guidance, folder = session.step(present)
    if samples and (asked := session.ask_samples(present)) is not None:
        guidance, folder = asked
    state = guidance.state if guidance is not None else records.last(out)
    assert state is not None
    seconds = time.perf_counter() - started
    unchanged = [] if guidance is not None else ["nothing changed since the last update"]
    lines = [*unchanged, state["say"], *state["notes"], f"plan and overlay: {folder} ({seconds:.1f} s)"]
    console.result({**state, "folder": str(folder), "seconds": round(seconds, 3)}, lines)
    return 0
