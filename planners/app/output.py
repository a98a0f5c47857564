"""The output folder: one run each, resumed by the same run, never overwritten by another."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twin.atomic import dumps, write_json
from twin.errors import InputError

RECORD = "run.json"
_HELD: dict[Path, int] = {}
"""Folders that this process works in, with the descriptor whose lock says so."""


def check(out: Path, identity: Mapping[str, Any], fresh: bool = False) -> bool:
    """True if the folder holds the same run (it resumes), False if it may be taken. Nothing is written.

    Raises InputError if the folder holds another run or files that are not vtwin's, or cannot be made.
    """
    if out.is_symlink() and not out.exists():
        raise InputError("command line", "-o", f"{out} is a link to what is not there", "make its target, or name another folder")
    above = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not above.is_dir():
        raise InputError("command line", "-o", f"{above} is a file", "name a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError("command line", "-o", f"{above} may not be written to", "name a folder of your own")
    if not out.exists() or not any(out.iterdir()):
        return False
    known = json.loads(dumps(identity))
    record = out / RECORD
    if not record.exists():
        raise InputError("command line", "-o", f"{out} holds files that are not of a vtwin run", "name a new or empty folder")
    found = read_record(record)
    before = found.get("identity")
    if before == known and not fresh:
        return True
    # a run that ended before its first stage (wrong input, say) left nothing worth keeping
    empty = found.get("status") == "running" and not any((*(out / "stages").glob("*/complete.json"), *out.glob("partial")))
    if not fresh and not empty:
        raise InputError(
            "command line", "-o", f"{out} holds another run ({_difference(before, known)})", "name another folder or add --fresh"
        )
    return False


def claim(out: Path, identity: Mapping[str, Any], fresh: bool = False) -> bool:
    """Take a folder for a run described by `identity`, as `check` allows; True if the same run was here before (it resumes).

    It is this process's until `finish`. Raises InputError as `check` does, and where another process works in it.
    """
    check(out, identity, fresh)
    _hold(out)
    # once more: another process may have been at work in it a moment ago
    if check(out, identity, fresh):
        return True
    if out.exists():
        # the folder itself stays: it may be a link, a mounted disk, or where the user stands
        for entry in out.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    write_json(out / RECORD, {"identity": json.loads(dumps(identity)), "status": "running"})
    return False


def _hold(out: Path) -> None:
    """Lock the folder itself, so that nothing is left behind however the process ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return
    out.mkdir(parents=True, exist_ok=True)
    place = out.resolve()
    if place in _HELD:
        return
    handle = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        problem = f"another vtwin is at work in {out}"
        raise InputError("command line", "-o", problem, "wait until it has finished, or name another folder") from None
    except OSError:  # a file system without locks
        os.close(handle)
        return
    _HELD[place] = handle


def finish(out: Path, identity: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Write the finished run record, and let the folder go."""
    write_json(out / RECORD, {"identity": identity, "status": "done", **record})
    let_go(out)


def let_go(out: Path) -> None:
    """Let other processes work in the folder again."""
    handle = _HELD.pop(out.resolve(), None)
    if handle is not None:
        os.close(handle)


def finished(out: Path) -> dict[str, Any] | None:
    """The summary of a run that has come to its end, None if it has not."""
    if read_record(out / RECORD).get("status") != "done" or not (out / "summary.json").exists():
        return None
    value: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return value


def read_record(record: Path) -> dict[str, Any]:
    """A run record as it stands on disk. Raises InputError if it is none."""
    try:
        value = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise InputError(record, "file", "not a run record", "name a new folder or add --fresh") from None
    return value


def _difference(before: Any, now: Mapping[str, Any]) -> str:
    if not isinstance(before, dict):
        return "an unreadable record"
    changed = [key for key in now if before.get(key) != now[key]]
    return "it differs in " + ", ".join(changed)
