"""Where a worker leaves results: one line per job in its own journal, files in a folder per job. Whole or absent, whoever dies when."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from planners.trials.job import Event

SYNC_AFTER_S = 0.1
"""A result that took longer to compute is forced to the disk; cheaper ones are left to the system, which loses them only with its power."""


class Store:
    """Folder `journal/` with a file per writer, `files/KEY/` with what jobs kept, `scratch/KEY/` with what unfinished ones left."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._path = folder / "journal" / f"{name}.jsonl"
        self._handle = -1

    def files(self, key: str) -> Path:
        """Folder of a finished job's files."""
        return self.folder / "files" / key

    def scratch(self, key: str) -> Path:
        """Folder of an unfinished job's files; made by the work itself."""
        return self.folder / "scratch" / key

    def keep(self, event: Event) -> None:
        """Append a finished job's record; what it left in its scratch folder becomes its files. Raises OSError if there is no space."""
        scratch, target = self.scratch(event.key), self.files(event.key)
        if scratch.exists():
            if target.exists():  # left by a run whose journal was lost
                shutil.rmtree(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.rename(target)
        self._append(_line(event), event.seconds > SYNC_AFTER_S)

    def _append(self, line: bytes, sync: bool) -> None:
        if self._handle < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        start = os.fstat(self._handle).st_size
        try:
            written = os.write(self._handle, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fsync(self._handle)
        except OSError:
            os.ftruncate(self._handle, start)
            raise

    def records(self) -> Iterator[Event]:
        """Every whole record of every journal in this folder; lines that were cut are passed over."""
        for path in sorted((self.folder / "journal").glob("*.jsonl")):
            with open(path, "rb") as handle:
                for line in handle:
                    if (event := _parsed(line)) is not None:
                        yield event

    def intact(self, key: str, files: Mapping[str, int] | None) -> bool:
        """True if all files of a job are there with the sizes that were recorded."""
        folder = self.files(key)
        return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in (files or {}).items())

    def close(self) -> None:
        """Close the journal."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def sizes(folder: Path) -> dict[str, int]:
    """Relative name -> bytes of all files of a folder; empty if there is none."""
    return {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()} if folder.exists() else {}


def _line(event: Event) -> bytes:
    body = json.dumps(asdict(event), separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    # a leading newline: a line that another writer's death cut short cannot spoil this one
    return b"\n%08x %s\n" % (zlib.crc32(body), body)


def _parsed(line: bytes) -> Event | None:
    body = line[9:].rstrip(b"\n")
    if len(line) < 10 or not line.endswith(b"\n"):
        return None
    try:
        if int(line[:8], 16) != zlib.crc32(body):
            return None
        return Event(**json.loads(body))
    except (ValueError, TypeError):
        return None
