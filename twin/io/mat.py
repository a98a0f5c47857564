"""MATLAB files (v5 to v7 by scipy.io, v7.3 by h5py), read in a child process with bounded memory and time, one field to one .npy file.

Only the fields that are asked for leave the child: names, dates and folders that a file also holds stay there. Large arrays are
written block by block and come back as memory maps.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.archive import AGAIN
from twin.io.source import file_size

MAX_BYTES = 20_000_000_000
BASE_MEMORY = 2_000_000_000
MEMORY_PER_BYTE = 30
MAX_MEMORY = 12_000_000_000
SECONDS, SECONDS_PER_MB = 90.0, 0.5
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
BLOCK = 1 << 22
MAX_TEXTS, MAX_TEXT = 1_000_000, 200


@dataclass
class MatFields:
    """Fields by dotted path, as memory maps where large; `folder` keeps their files until this goes. Texts are arrays of str."""

    arrays: Mapping[str, NDArray[Any]]
    folder: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]


def is_mat(start: bytes) -> bool:
    """True for the first bytes of a MATLAB file of version 5 or later."""
    return start.startswith((b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file", HDF5_MAGIC))


def read_mat(path: Path, variable: str, wanted: Sequence[str]) -> MatFields:
    """The wanted fields of a struct variable that the file has. Raises InputError, whatever happens in the child."""
    size = file_size(path, MAX_BYTES)
    with open(path, "rb") as handle:
        if not is_mat(handle.read(128)):
            raise InputError(path, "file", "is not a MATLAB file of version 5 or later", "save it with -v7 or -v7.3")
    folder = tempfile.TemporaryDirectory(prefix="vtwin-")
    code = "import sys; from twin.io.mat import child; child(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])"
    memory = min(BASE_MEMORY + MEMORY_PER_BYTE * size, MAX_MEMORY)
    call = [sys.executable, "-c", code, str(path), folder.name, str(memory), variable, *wanted]
    seconds = SECONDS + SECONDS_PER_MB * size / 1e6
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(path, "file", f"takes more than {seconds:.0f} s to read", AGAIN) from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["the reader ended without a word"])[-1]
        raise InputError(path, "file", f"cannot be read as MATLAB ({last[:160]})", AGAIN)
    arrays = {one.name.removesuffix(".npy"): np.load(one, mmap_mode="r", allow_pickle=False) for one in Path(folder.name).glob("*.npy")}
    return MatFields(arrays, folder)


def child(path: str, folder: str, memory: str, variable: str, wanted: Sequence[str]) -> None:
    """The child process: write the wanted fields; one line on standard error and status 1 for anything else."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    except (ImportError, ValueError, OSError):
        pass  # systems without limits: the time limit remains
    try:
        for name, values in load(Path(path), variable, wanted):
            _save(Path(folder) / f"{name}.npy", values)
    except InputError as error:
        sys.stderr.write(f"{error.field}: {error.problem}")
        raise SystemExit(1) from None
    except MemoryError:
        sys.stderr.write("it claims more data than it holds\n")
        raise SystemExit(1) from None
    except BaseException as error:  # both readers raise many kinds on damaged files; their texts may quote what the file holds
        sys.stderr.write(type(error).__name__)
        raise SystemExit(1) from None


def _save(path: Path, values: Any) -> None:
    """One array to .npy; a dataset of HDF5 (transposed, as MATLAB stores) block by block."""
    if isinstance(values, np.ndarray):
        np.save(path, values, allow_pickle=False)
        return
    shape = values.shape[::-1]
    out = np.lib.format.open_memmap(path, "w+", values.dtype, shape)
    rows = max(1, BLOCK // max(1, int(np.prod(values.shape[:-1])) * values.dtype.itemsize))
    for first in range(0, values.shape[-1], rows):
        out[first : first + rows] = np.asarray(values[..., first : first + rows]).T
    out.flush()


def load(path: Path, variable: str, wanted: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Fields and their values in this process: for the child, and for tests with small files. Raises whatever the readers raise."""
    with open(path, "rb") as handle:
        start = handle.read(520)
    if HDF5_MAGIC in (start[:8], start[512:520]):
        yield from _load_hdf5(path, variable, wanted)
    else:
        yield from _load_v5(path, variable, wanted)


def _numeric(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.dtype.kind not in "fiub":
        raise InputError("MATLAB", name, "is not an array of numbers", AGAIN)
    return values


def _load_v5(path: Path, variable: str, wanted: Sequence[str]) -> Iterator[tuple[str, Any]]:
    import scipy.io

    found = scipy.io.loadmat(path, variable_names=[variable], struct_as_record=False, verify_compressed_data_integrity=True)
    if variable not in found:
        raise InputError("MATLAB", variable, "is not in the file", "save the struct under this name")
    root = found[variable]
    for name in wanted:
        value = root
        for part in name.split("."):
            # every struct is a 1 x 1 array of objects
            value = value.flat[0] if isinstance(value, np.ndarray) and value.dtype == object and value.size == 1 else value
            value = getattr(value, part, None)
            if value is None:
                break
        if value is None or not isinstance(value, np.ndarray) or not value.size:
            continue
        if value.dtype == object or value.dtype.kind == "U":
            yield name, _texts(value)
        else:
            yield name, np.ascontiguousarray(_numeric(value, name))


def _texts(value: NDArray[Any]) -> NDArray[np.str_]:
    """Texts of a cell array; what is no text becomes ""."""
    if value.size > MAX_TEXTS:
        raise InputError("MATLAB", "cell array", "holds too many texts", AGAIN)
    texts = []
    for item in value.ravel():
        while isinstance(item, np.ndarray):
            item = item.flat[0] if item.size == 1 else ""
        texts.append(str(item)[:MAX_TEXT] if isinstance(item, str) else "")
    return np.array(texts, dtype=np.str_)


def _load_hdf5(path: Path, variable: str, wanted: Sequence[str]) -> Iterator[tuple[str, Any]]:
    import h5py

    with h5py.File(path, "r") as file:
        if variable not in file:
            raise InputError("MATLAB", variable, "is not in the file", "save the struct under this name")
        for name in wanted:
            node: Any = file[variable]
            for part in name.split("."):
                node = node[part] if isinstance(node, h5py.Group) and part in node else None
                if node is None:
                    break
            if not isinstance(node, h5py.Dataset) or node.attrs.get("MATLAB_empty", 0) or not node.shape:
                continue
            if int(np.prod(node.shape)) * node.dtype.itemsize > 10 * MAX_MEMORY or node.is_virtual or node.external:
                raise InputError("MATLAB", name, "claims more data than any study has", AGAIN)
            if node.id.get_storage_size() * 1100 < int(np.prod(node.shape)) * node.dtype.itemsize:
                raise InputError("MATLAB", name, "claims more data than the file holds", AGAIN)
            if h5py.check_ref_dtype(node.dtype) is not None:
                yield name, _hdf5_texts(file, node)
            elif node.attrs.get("MATLAB_class", b"") == b"char":
                yield name, np.array(["".join(chr(c) for c in np.asarray(node).ravel()[:MAX_TEXT])], dtype=np.str_)
            elif node.dtype.kind in "fiub" and node.ndim <= 4:
                yield name, node
            else:
                raise InputError("MATLAB", name, "is not an array of numbers", AGAIN)


def _hdf5_texts(file: Any, node: Any) -> NDArray[np.str_]:
    references = np.asarray(node).T.ravel()
    if len(references) > MAX_TEXTS:
        raise InputError("MATLAB", "cell array", "holds too many texts", AGAIN)
    texts = []
    for reference in references:
        target = file[reference]
        codes = np.asarray(target[()]).ravel() if target.attrs.get("MATLAB_class", b"") == b"char" else np.zeros(0, np.uint16)
        texts.append("" if target.attrs.get("MATLAB_empty", 0) else "".join(chr(int(c)) for c in codes[:MAX_TEXT]))
    return np.array(texts, dtype=np.str_)
