"""Reports as lines of JSON: checked before anything is read out of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from twin.errors import InputError

_LONGEST_LINE = 2_000_000
_KEYS = "id (text or number), text, and kind if it is known"


@dataclass(frozen=True)
class Report:
    """One report: its id as it stood in the file, its text, and its kind ("" if unknown)."""

    id: str | int
    text: str
    kind: str


def read_reports(path: Path) -> Iterator[Report]:
    """Yield the reports of a file one by one, in bounded memory.

    Raises InputError for a file that is missing or not UTF-8, a line that is too long or not a JSON object, a missing id or text, or an id
    that stands twice; the line's number is named, never its text.
    """
    seen: set[str | int] = set()
    try:
        with path.open("rb") as lines:
            number = 0
            while raw := lines.readline(_LONGEST_LINE + 1):
                number += 1
                if len(raw) > _LONGEST_LINE:
                    raise InputError(path.name, f"line {number}", "longer than 2 MB", "write one report per line")
                if not raw.strip():
                    continue
                report = _report(raw, path.name, number)
                if report.id in seen:
                    raise InputError(path.name, f"line {number}", "has an id that stood before", "give every report its own id")
                seen.add(report.id)
                yield report
    except OSError as error:
        raise InputError(path.name, "file", f"cannot be read ({error.strerror})", "name a file with one JSON object per line") from None


def _report(raw: bytes, where: str, number: int) -> Report:
    """One line as a report."""
    field = f"line {number}"
    try:
        record = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(where, field, f"is not UTF-8 JSON ({type(error).__name__})", f"write one JSON object per line: {_KEYS}") from None
    if not isinstance(record, dict):
        raise InputError(where, field, "is not a JSON object", f"give {_KEYS}")
    identity, text, kind = record.get("id"), record.get("text"), record.get("kind", "")
    if not isinstance(identity, (str, int)) or isinstance(identity, bool):
        raise InputError(where, field, "has no id", f"give {_KEYS}")
    if not isinstance(text, str):
        raise InputError(where, field, "has no text", f"give {_KEYS}")
    return Report(identity, text, kind if isinstance(kind, str) else "")
