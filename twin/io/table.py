"""The CSV files of vtwin: `# vtwin-<kind> 1`, `# key: value` lines, a row of column names, rows of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_text
from twin.errors import InputError
from twin.io.source import did_you_mean, read_text

MAX_BYTES = 100_000_000
MISSING = ("", "nan", "NaN", "NA")


def _number(word: str, where: Path, row: int, column: str) -> float:
    word = word.strip()
    if word in MISSING:
        return float("nan")
    try:
        value = float(word)
    except ValueError:
        raise InputError(
            where, f"line {row}", f"{column}: {word[:30]!r} is not a number", "write a number, or nothing if it is missing"
        ) from None
    if not np.isfinite(value):
        raise InputError(where, f"line {row}", f"{column} is not finite", "leave the field empty if the value is missing")
    return value


def _split(text: str, kind: str, where: Path) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """Header fields, and the numbered lines that are left."""
    lines = text.splitlines()
    magic = f"# vtwin-{kind} 1"
    if not lines or lines[0].strip() != magic:
        raise InputError(where, "first line", f"is not {magic!r}", f"write {magic!r} first if the file follows that layout")
    meta: dict[str, str] = {}
    body: list[tuple[int, str]] = []
    for number, line in enumerate(lines[1:], start=2):
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            meta[key.strip()] = value.strip()
        elif line.strip():
            body.append((number, line))
    return meta, body


def read_table(
    path: Path, kind: str, columns: Sequence[str], optional: Sequence[str] = ()
) -> tuple[dict[str, str], dict[str, NDArray[np.float64]]]:
    """Read header fields and columns by name, (n,) float64, NaN where missing; optional columns that are absent are all NaN.

    Raises InputError for a wrong first line, missing, doubled or unknown columns, ragged rows and text in place of numbers.
    """
    meta, body = _split(read_text(path, MAX_BYTES), kind, path)
    if not body:
        raise InputError(path, "columns", "there is no table", f"write columns {','.join(columns)}")
    names = [name.strip() for name in body[0][1].split(",")]
    known = [*columns, *optional]
    for name in names:
        if name not in known:
            raise InputError(path, "columns", f"unknown column {name[:30]!r}", did_you_mean(name, known))
    missing = [name for name in columns if name not in names]
    if missing or len(set(names)) != len(names):
        problem = f"missing {', '.join(missing)}" if missing else "a column appears twice"
        raise InputError(path, "columns", problem, f"columns are {','.join(known)}")
    rows = np.empty((len(body) - 1, len(names)))
    for index, (number, line) in enumerate(body[1:]):
        words = line.split(",")
        if len(words) != len(names):
            raise InputError(
                path, f"line {number}", f"has {len(words)} values, {len(names)} columns are named", "complete or remove the line"
            )
        rows[index] = [_number(word, path, number, name) for word, name in zip(words, names, strict=True)]
    table = {name: np.ascontiguousarray(rows[:, i]) for i, name in enumerate(names)}
    return meta, {name: table.get(name, np.full(len(rows), np.nan)) for name in known}


def write_table(path: Path, kind: str, meta: Mapping[str, str], table: Mapping[str, NDArray[np.float64]], digits: int) -> None:
    """Write what `read_table` reads, numbers with `digits` decimals, missing values empty."""
    lines = [f"# vtwin-{kind} 1", *(f"# {key}: {value}" for key, value in meta.items()), ",".join(table)]
    for row in zip(*table.values(), strict=True):
        lines.append(",".join("" if np.isnan(x) else f"{x + 0.0:.{digits}f}" for x in row))
    write_text(path, "\n".join(lines) + "\n")
