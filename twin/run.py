"""The record that every output can name: versions, seed, hashes of the inputs, settings."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from twin.atomic import dumps


def _file_digest(path: Path) -> bytes:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()


def content_hash(*items: object) -> str:
    """Hash of the contents of files and folders, arrays, bytes and JSON-able values: 16 hexadecimal digits.

    Raises FileNotFoundError for a path where nothing is: it is no empty folder.
    """
    digest = hashlib.sha256()
    for item in items:
        if isinstance(item, Path):
            if not item.exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(item))
            # of a folder the contents alone count, not the names
            files = [item] if item.is_file() else [path for path in item.rglob("*") if path.is_file()]
            for one in sorted(map(_file_digest, files)):
                digest.update(one)
        elif isinstance(item, bytes):
            digest.update(item)
        elif isinstance(item, np.ndarray):
            digest.update(f"{item.dtype}{item.shape}".encode())
            digest.update(np.ascontiguousarray(item).tobytes())
        else:
            digest.update(dumps(item).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of vtwin and of what the numbers depend on."""
    out = {"python": platform.python_version()}
    for name in ("vtwin", "numpy", "scipy", "numba", "pyamg"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out


@dataclass(frozen=True)
class RunRecord:
    """What made an output. `wall_s` and `started` are the only fields that may differ between equal runs."""

    command: str
    seed: int
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    stages: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=versions)
    started: str = ""
    wall_s: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self, timed: bool = True) -> dict[str, Any]:
        """Plain dictionary; without the fields that depend on the clock if `timed` is False."""
        out = asdict(self)
        if not timed:
            del out["started"], out["wall_s"]
        return out
