"""Beats on disk: three flat files that grow at their end, so that a run of any length needs the memory of one beat."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from twin.experiment import Activations

COLUMNS: dict[str, type[np.generic]] = {"node": np.int32, "activation_ms": np.float64, "recovery_ms": np.float64}


class BeatStore:
    """Rows (node, activation_ms, recovery_ms) in `folder`/*.bin, little-endian, in time order; a recovery is filled in when it comes.

    What a killed run left is whole up to its shortest file; `cut` goes back to a known length.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = {name: folder / f"{name}.bin" for name in COLUMNS}
        self._files: dict[str, IO[bytes]] = {}
        for name, path in self.paths.items():
            path.touch()
            self._files[name] = open(path, "r+b")  # noqa: SIM115 - closed by close()
        self.size = min(path.stat().st_size // np.dtype(COLUMNS[name]).itemsize for name, path in self.paths.items())
        self.cut(self.size)

    def append(self, node: NDArray[np.int32], activation_ms: NDArray[np.float64], recovery_ms: NDArray[np.float64]) -> None:
        """Add rows at the end."""
        for name, values in zip(COLUMNS, (node, activation_ms, recovery_ms)):
            self._files[name].write(np.ascontiguousarray(values, COLUMNS[name]).tobytes())
        self.size += len(node)
        self.flush()

    def recover(self, rows: NDArray[np.int64], recovery_ms: NDArray[np.float64]) -> None:
        """Fill in recoveries (NaN opens a beat again) of rows that were written before."""
        if len(rows):
            down = np.memmap(self.paths["recovery_ms"], np.float64, "r+", shape=(self.size,))
            down[rows] = recovery_ms
            down.flush()

    def cut(self, size: int) -> None:
        """Forget all rows from `size` on."""
        for name, file in self._files.items():
            file.truncate(size * np.dtype(COLUMNS[name]).itemsize)
            file.seek(0, os.SEEK_END)
        self.size = size

    def flush(self) -> None:
        """Give everything to the system: a process that is killed now loses nothing."""
        for file in self._files.values():
            file.flush()

    def read(self) -> Activations:
        """All rows, mapped from disk rather than read."""
        self.flush()
        node, up, down = (self._map(name) for name in COLUMNS)
        return Activations(node, up, down)

    def _map(self, name: str) -> NDArray[Any]:
        dtype = COLUMNS[name]
        return np.memmap(self.paths[name], dtype, "r", shape=(self.size,)) if self.size else np.zeros(0, dtype)

    def close(self) -> None:
        """Close the files; they stay."""
        for file in self._files.values():
            file.close()

    def remove(self) -> None:
        """Close and delete the files."""
        self.close()
        for path in self.paths.values():
            path.unlink(missing_ok=True)
