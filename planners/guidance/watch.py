"""Follows a folder that a mapping system writes to: every change of the lesions is an update, and no bad file stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from planners.guidance import records
from planners.guidance.base import Base
from planners.guidance.update import Guidance, advance
from twin.errors import InputError
from twin.io.lesions import read_lesions
from twin.io.notes import Notes

PERIOD_S = 0.5
Tell = Callable[[str], None]


def step(base: Base, lesions: Path, accept: tuple[str, ...] = ()) -> tuple[Guidance | None, Path]:
    """One update from the present content of the file; None and the last record if nothing changed since.

    Raises InputError for a file that cannot be used; the last good update stays as it is.
    """
    key = records.key_of(base, {"lesions": lesions})
    before = records.last(base.folder)
    if before is not None and before["key"] == key:
        return None, records.updates(base.folder)[-1]
    notes = Notes(accept)
    guidance = advance(base, read_lesions(lesions, notes), notes)
    return guidance, records.write(base, guidance, key)


def follow(base: Base, lesions: Path, tell: Tell, accept: tuple[str, ...] = (), until: Callable[[], bool] = lambda: False) -> int:
    """Update whenever the file's content changes, until `until` says so; returns the number of updates.

    A file that is missing, late, cut off or wrong is said once and waited for.
    """
    seen: Mapping[str, float] | None = None
    said = ""
    count = 0
    while not until():
        try:
            status = lesions.stat()
            now = {"mtime": status.st_mtime_ns, "size": status.st_size}
        except OSError:
            now = {}
        if now and now != seen:
            seen = now
            started = time.perf_counter()
            try:
                guidance, folder = step(base, lesions, accept)
            except InputError as error:
                if str(error) != said:
                    said = str(error)
                    tell(f"not used, the last good update stands: {said}")
            else:
                said = ""
                if guidance is not None:
                    count += 1
                    tell(f"{folder.name}: {guidance.state['say']} ({time.perf_counter() - started:.1f} s)")
        time.sleep(PERIOD_S)
    return count
