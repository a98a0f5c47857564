"""Files that are either whole or absent: written to a temporary name, synced, renamed."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    """Read what `write_npz` wrote: arrays by name, and meta."""
    arrays: dict[str, NDArray[Any]] = {}
    meta: Any = None
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                if name == "meta.json":
                    meta = json.load(member)
                else:
                    arrays[name.removesuffix(".npy")] = np.lib.format.read_array(io.BytesIO(member.read()), allow_pickle=False)
    return arrays, meta
