"""How the command line speaks: progress for people on a terminal, plain lines elsewhere, JSON when asked."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Console:
    """Writes progress to standard error and results to standard output; `quiet` (with --json) drops progress."""

    as_json: bool = False
    started: float = field(default_factory=time.perf_counter)

    def progress(self, line: str) -> None:
        """One line about what is being done, with the time since the start."""
        if self.as_json:
            return
        seconds = int(time.perf_counter() - self.started)
        sys.stderr.write(f"[{seconds // 60:2d}:{seconds % 60:02d}] {line}\n")
        sys.stderr.flush()

    def bar(self, done: int, total: int, what: str) -> None:
        """A bar that redraws itself on a terminal; elsewhere one line at every quarter."""
        if self.as_json:
            return
        if sys.stderr.isatty():
            filled = round(24 * done / max(total, 1))
            sys.stderr.write(f"\r        {'#' * filled}{'.' * (24 - filled)} {done}/{total} {what}\x1b[K" + ("\n" if done == total else ""))
            sys.stderr.flush()
        elif done == total or (done * 4) // max(total, 1) != ((done - 1) * 4) // max(total, 1):
            self.progress(f"  {done}/{total} {what}")

    def aside(self, lines: Sequence[str]) -> None:
        """What people should read but no file should hold: to standard error, whole."""
        if not self.as_json:
            sys.stderr.write("".join(f"{line}\n" for line in lines))

    def result(self, value: Any, lines: Sequence[str] = ()) -> None:
        """The answer: JSON for machines, lines for people."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, indent=1, allow_nan=False, default=str) + "\n")
        else:
            sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
