"""Suspicious findings: stop the run unless the case accepts them, and then say so in the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from twin.errors import Suspicious


class Notes:
    """Collects what readers found; `accept` holds the codes that the case takes responsibility for."""

    def __init__(self, accept: Iterable[str] = ()) -> None:
        self.accept = frozenset(accept)
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Note something that the reader of the report should know."""
        if line not in self.lines:
            self.lines.append(line)

    def suspect(self, code: str, where: str | Path, field: str, problem: str, remedy: str) -> None:
        """Raise Suspicious, or note the finding if its code is accepted."""
        if code not in self.accept:
            raise Suspicious(code, where, field, problem, remedy)
        self.add(f"accepted ({code}): {Path(where).name}: {field}: {problem}")
