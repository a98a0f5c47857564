"""Lines of openCARP's text files in blocks of bounded size, each count compared with the file's size before it is believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.source import file_size

BLOCK_BYTES = 8_000_000
MAX_LINE = 100_000
AGAIN = "export or copy the file again"


def blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Non-empty lines in blocks, each with the number (from 1) of its first line; comments (#) are left out.

    Raises InputError for a missing or empty file, bytes that are not text, or a line longer than any such file has.
    """
    file_size(path)
    number, rest = 1, b""
    with open(path, "rb") as handle:
        while chunk := handle.read(BLOCK_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE:
                refuse(path, f"line {number + len(whole)}", f"is longer than {MAX_LINE} bytes: not a text file of openCARP")
            yield number, _decoded(path, whole)
            number += len(whole)
    if rest:
        yield number, _decoded(path, [rest])


def refuse(path: Path, field: str, problem: str, remedy: str = AGAIN) -> NoReturn:
    """Raise InputError."""
    raise InputError(path, field, problem, remedy)


def _decoded(path: Path, lines: list[bytes]) -> list[str]:
    try:
        text = b"\n".join(lines).decode("ascii")
    except UnicodeDecodeError as error:
        refuse(path, "file", f"is not plain text (byte {error.start} of a block)")
    if "\0" in text:
        refuse(path, "file", "holds zero bytes, it is not text")
    return [line.strip() for line in text.split("\n")]


def rows(path: Path, skip_first: bool = True) -> Iterator[tuple[int, list[list[str]]]]:
    """Words of the lines in blocks, empty and comment lines left out; the first line (a count) too if `skip_first`."""
    pending = skip_first
    for number, lines in blocks(path):
        words = [line.split() for line in lines if line and not line.startswith("#")]
        if pending and words:
            words, pending = words[1:], False
        if words:
            yield number, words


def count(path: Path, least_bytes: int = 2) -> int:
    """The number in the first line, at least 1 and possible for the file's size (`least_bytes` a row). Raises InputError."""
    size = file_size(path)
    first = next((line for _, lines in blocks(path) for line in lines if line and not line.startswith("#")), "")
    words = first.split()
    if not words or not words[0].isdigit() or len(words[0]) > 12:
        refuse(path, "line 1", "must hold the number of rows")
    number = int(words[0])
    if number < 1 or number * least_bytes > size:
        refuse(path, "rows", f"the first line says {number}, the file has {size} bytes")
    return number


def table(path: Path, width: int | None, skip_first: bool = True) -> NDArray[np.float64]:
    """Rows of `width` numbers (None: as many as the first row has), (n, width) float64, finite or not. Raises InputError."""
    parts: list[NDArray[np.float64]] = []
    for number, words in rows(path, skip_first):
        width = len(words[0]) if width is None else width
        if bad := next((w for w in words if len(w) != width), None):
            refuse(path, f"rows from line {number}", f"{len(bad)} numbers per row ({' '.join(bad)[:40]!r}), {width} are needed")
        try:
            parts.append(np.array(words, np.float64))
        except ValueError as error:
            refuse(path, f"rows from line {number}", f"not a table of numbers ({error})")
    if not parts:
        refuse(path, "rows", "holds no rows")
    return np.concatenate(parts)


def counted_table(path: Path, width: int) -> NDArray[np.float64]:
    """As `table`, for files whose first line says how many rows follow."""
    expected = count(path, 2 * width)
    values = table(path, width)
    if len(values) != expected:
        refuse(path, "rows", f"{len(values)} where the first line says {expected}")
    return values


def whole_numbers(path: Path, words: list[list[str]], number: int) -> NDArray[np.int64]:
    """Words (n, k) as int64. Raises InputError for anything that is not a whole number of 18 digits at most."""
    try:
        values: NDArray[Any] = np.array([[int(w) if len(w) < 19 else _too_long(w) for w in row] for row in words], np.int64)
    except ValueError as error:
        refuse(path, f"rows from line {number}", f"not whole numbers ({error})")
    return values


def _too_long(word: str) -> int:
    raise ValueError(f"{word[:24]!r} is out of range")
