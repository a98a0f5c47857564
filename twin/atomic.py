"""Files that are either whole or absent: written to a temporary name, synced, renamed."""

from __future__ import annotations

import io
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError


class Damaged(InputError, ValueError):
    """A file of vtwin's own that is not as it was written: cut off, overwritten, or of another program."""


@contextmanager
def replaced(path: Path, ending: str = ".tmp") -> Iterator[Path]:
    """A temporary name beside `path` to write to: at the end of the block that file is synced and takes the place of `path`.

    Where the block raises, `path` stays as it was and nothing is left. The name is no other process's, on this machine or another that
    shares the folder. ending: for writers that choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{ending}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # people know the file by its own name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` so that a reader sees the old file or the new one, never a part."""
    with replaced(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"))


def dumps(value: object) -> str:
    """JSON with stable order, numpy scalars and arrays as numbers and lists, NaN refused."""

    def plain(item: object) -> object:
        if isinstance(item, np.generic):
            return item.item()
        if isinstance(item, np.ndarray):
            return item.tolist()
        if isinstance(item, Path):
            return str(item)
        raise TypeError(f"{type(item).__name__} has no JSON form")

    return json.dumps(value, default=plain, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    write_text(path, dumps(value))


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]], meta: object = None) -> None:
    """Write arrays and a JSON `meta` to one compressed .npz whose bytes depend on the content alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            # a fixed date: numpy.savez stamps the time of writing into the file
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue(), zipfile.ZIP_DEFLATED, 3)
        archive.writestr(zipfile.ZipInfo("meta.json", (1980, 1, 1, 0, 0, 0)), dumps(meta))
    write_bytes(path, buffer.getvalue())


def read_npz(path: Path) -> tuple[dict[str, NDArray[Any]], Any]:
    """Read what `write_npz` wrote: arrays by name, and meta. Raises Damaged for anything else."""
    arrays: dict[str, NDArray[Any]] = {}
    meta: Any = None
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    if name == "meta.json":
                        meta = json.load(member)
                    else:
                        arrays[name.removesuffix(".npy")] = np.lib.format.read_array(io.BytesIO(member.read()), allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise Damaged(path, "file", f"is damaged ({error})", "delete it: what made it makes it anew") from None
    return arrays, meta
