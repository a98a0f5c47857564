"""Follows the files that a mapping system writes: every change is an update, and no bad, late or missing file stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numba

from planners.guidance import records
from planners.guidance.base import Base
from planners.guidance.evidence import Taken, take_in
from planners.guidance.inputs import KINDS, Events, read_events
from planners.guidance.update import Guidance, concluded, over_samples, sample_count, survey, with_pacing, without_pacing
from twin.errors import InputError, Interrupted, VtwinError
from twin.io.notes import Notes
from twin.run import content_hash

PERIOD_S = 0.2
"""Between two looks at the files."""

Tell = Callable[[str], None]


def quiet(line: str) -> None:
    """Tells nobody."""


@dataclass
class Session:
    """Updates of one plan; what points and a new VT taught is kept as long as their files do not change."""

    base: Base
    accept: tuple[str, ...] = ()
    tell: Tell = quiet
    taken: tuple[str, Taken, tuple[str, ...]] | None = field(default=None, repr=False)

    def warm(self) -> None:
        """Make what every update needs before the first one is asked for."""
        with ThreadPoolExecutor(max_workers=numba.get_num_threads()) as pool:
            self.base.warm(pool)

    def step(self, files: Mapping[str, Path], cancelled: Callable[[], bool] = lambda: False) -> tuple[Guidance | None, Path]:
        """One update from the present content of the files, by kind; None and the last record if nothing changed since.

        Where trains have to be repeated, what is known without them is a record of its own, written and told first; the same files go on
        from there. Raises InputError for files that cannot be used, Interrupted when `cancelled` says so between two runs; what was
        written stays as it is.
        """
        for kind, path in files.items():
            if not path.exists():
                raise InputError(path, kind, "is not there", "write the file, or leave the option out")
        key = records.key_of(self.base, files)
        before = records.last(self.base.folder)
        begun = before is not None and before["key"] == key
        if before is not None and begun and not before.get("pending"):
            return None, records.updates(self.base.folder)[-1]
        started = time.perf_counter()
        notes = Notes(self.accept)
        events = read_events(files, notes, self.base.known_maps)
        known = survey(self.base, events.lesions, notes, self._taken(files, events, notes))
        repeats = without_pacing(self.base, known)
        guidance = concluded(self.base, known, repeats, notes)
        if guidance.state["pending"]:
            if not begun:
                folder = records.write(self.base, guidance, key, events)
                self.tell(f"{folder.name}: {guidance.state['say']} ({time.perf_counter() - started:.1f} s)")
            guidance = concluded(self.base, known, with_pacing(self.base, known, repeats, cancelled), notes)
        return guidance, records.write(self.base, guidance, key, events)

    def ask_samples(self, files: Mapping[str, Path], cancelled: Callable[[], bool] = lambda: False) -> tuple[Guidance, Path] | None:
        """What the last update found, in other samples of the tissue too: a record of its own; None where there is nothing to ask.

        There is nothing while the files have changed, trains are pending or one still induces. Raises as `step` does.
        """
        before = records.last(self.base.folder)
        if before is None or before.get("samples") or before["inducible_by_repeated_trains"] is not False or sample_count(self.base) < 1:
            return None
        if before["key"] != (key := records.key_of(self.base, files)):
            return None
        notes = Notes(self.accept)
        events = read_events(files, notes, self.base.known_maps)
        known = survey(self.base, events.lesions, notes, self._taken(files, events, notes))
        guidance = concluded(self.base, known, before["repeated_trains"], notes, over_samples(self.base, known, cancelled))
        return guidance, records.write(self.base, guidance, key, events)

    def _taken(self, files: Mapping[str, Path], events: Events, notes: Notes) -> Taken:
        key = content_hash({kind: content_hash(path) for kind, path in sorted(files.items()) if kind != "lesions"})
        if self.taken is None or self.taken[0] != key:
            own = Notes(notes.accept)
            self.taken = (key, take_in(self.base, events, own), tuple(own.lines))
        for line in self.taken[2]:
            notes.add(line)
        return self.taken[1]


def follow(session: Session, files: Mapping[str, Path], until: Callable[[], bool] = lambda: False) -> int:
    """Update whenever the content of a file changes, until `until` says so; returns the number of finished updates.

    A file that has not come yet is waited for. One that is gone, cut off or wrong is said once; the last good update stands. What is being
    paced is given up when a file changes: the next update asks for it again. While nothing happens, other samples of the tissue are asked.
    """
    seen: dict[str, tuple[int, int]] = {}
    known: set[str] = set()
    said = ""
    count = 0
    while not until():
        now = _stamps(files)
        known |= set(now)
        present = {kind: files[kind] for kind in files if kind in known}
        started = time.perf_counter()
        found: tuple[Guidance | None, Path] | None = None
        try:
            if known and now != seen:
                seen = now
                found = session.step(present, partial(_changed, files, now))
                count += found[0] is not None
            elif known and not said:
                found = session.ask_samples(present, partial(_changed, files, now))
            said = said if found is None else ""
        except Interrupted:
            session.tell("files changed: trains are repeated for the new state")
        except (VtwinError, OSError) as error:
            if str(error) != said:
                said = str(error)
                session.tell(f"not used, the last good update stands: {said}")
        if found is not None and found[0] is not None:
            session.tell(f"{found[1].name}: {found[0].state['say']} ({time.perf_counter() - started:.1f} s)")
        time.sleep(PERIOD_S)
    return count


def _changed(files: Mapping[str, Path], seen: Mapping[str, tuple[int, int]]) -> bool:
    return _stamps(files) != seen


def _stamps(files: Mapping[str, Path]) -> dict[str, tuple[int, int]]:
    return {kind: found for kind, path in files.items() if (found := _stamp(path)) is not None}


def _stamp(path: Path) -> tuple[int, int] | None:
    """Time and size of a file, or of what a folder holds; None where there is nothing."""
    try:
        status = path.stat()
        if not path.is_dir():
            return status.st_mtime_ns, status.st_size
        inside = [p.stat() for p in path.rglob("*")]
        return max((s.st_mtime_ns for s in inside), default=status.st_mtime_ns), sum(s.st_size for s in inside)
    except OSError:
        return None


def in_folder(folder: Path) -> dict[str, Path]:
    """The files of a watched folder by kind."""
    return {kind: folder / name for kind, name in KINDS.items()}
