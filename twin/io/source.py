"""Bytes before anything is parsed: existence, size, compression and spelling, each problem as one clear line."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from twin.errors import InputError

MAX_FILE_BYTES = 4_000_000_000
"""No file of one heart is larger; what is larger is a mistake, and reading it would take the machine down."""

GZIP_MAGIC = b"\x1f\x8b"
DEFLATE_LIMIT = 1032
"""Deflate cannot shrink by more than this factor (zlib's documentation), so a short file is known to be truncated before inflating."""


def file_size(path: Path, max_bytes: int = MAX_FILE_BYTES) -> int:
    """Size of a file in bytes. Raises InputError if it is missing, a folder, empty or larger than `max_bytes`."""
    if not path.exists():
        raise InputError(path, "file", "does not exist", "check the path and the spelling")
    if not path.is_file():
        raise InputError(path, "file", "is not a file", "name a file, not a folder")
    size = path.stat().st_size
    if size == 0:
        raise InputError(path, "file", "is empty", "export it again")
    if size > max_bytes:
        raise InputError(path, "file", f"has {size / 1e6:.0f} MB, the limit is {max_bytes / 1e6:.0f} MB", "crop or resample it")
    return size


def read_bytes(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Whole content of a file, after `file_size` has checked it."""
    file_size(path, max_bytes)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(path, "file", f"cannot be read ({error.strerror})", "check its permissions") from None


def read_text(path: Path, max_bytes: int = 200_000_000) -> str:
    """Text of a file as UTF-8 (a byte order mark is dropped). Raises InputError for bytes that are not text."""
    data = read_bytes(path, max_bytes)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(path, "file", f"is not UTF-8 text (byte {error.start})", "save it as UTF-8 text") from None
    if "\0" in text:
        raise InputError(path, "file", "holds zero bytes, it is not text", "export it again as text")
    return text


def inflate(data: bytes, expected: int, where: Path, wbits: int = 31) -> bytes:
    """Inflate gzip members (wbits = 15: zlib streams) to exactly `expected` bytes, never allocating more.

    Raises InputError if there is less, more or damage.
    """
    if len(data) * DEFLATE_LIMIT < expected:
        raise InputError(where, "data", f"truncated: {len(data)} compressed bytes cannot hold {expected}", "export or copy it again")
    out = bytearray()
    rest = data
    while rest and len(out) <= expected:
        stream = zlib.decompressobj(wbits)
        try:
            out += stream.decompress(rest, expected + 1 - len(out))
            # the checksum is only read when all output is taken
            if len(out) == expected and not stream.eof:
                out += stream.decompress(stream.unconsumed_tail, 1)
        except zlib.error as error:
            raise InputError(where, "data", f"compressed data are damaged ({error})", "export or copy it again") from None
        if not stream.eof:
            break
        rest = stream.unused_data.lstrip(b"\0")
    else:
        if len(out) == expected:
            return bytes(out)
    if len(out) > expected:
        raise InputError(where, "data", f"more data than the header's sizes say ({expected} bytes)", "export it again")
    raise InputError(where, "data", f"truncated: {len(out)} of {expected} bytes", "export or copy it again")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What a misspelt word was probably meant to be, as advice."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def check_keys(table: Mapping[str, object], known: Iterable[str], where: str | Path, field: str) -> None:
    """Raise InputError, with a suggestion, for the first key of `table` that is not known."""
    names = set(known)
    for key in table:
        if key not in names:
            raise InputError(where, f"{field}.{key}" if field else key, "unknown key", did_you_mean(key, names))
