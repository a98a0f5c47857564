"""Formats that meshio reads (Gmsh, legacy VTK), in a child process with bounded memory and time: a damaged file cannot harm the program.

meshio believes the counts that a file claims and raises many kinds of exceptions; both end with the child.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.opencarp.elements import split
from twin.io.source import file_size

MAX_BYTES = 2_000_000_000
BASE_MEMORY = 1_500_000_000
MEMORY_PER_BYTE = 12
SECONDS = 60.0
SECONDS_PER_MB = 1.0
SOLIDS = {"tetra": "Tt", "hexahedron": "Hx", "wedge": "Pr", "pyramid": "Py"}
FLAT = ("vertex", "line", "triangle", "quad", "polygon", "pixel")
AGAIN = "export or copy it again"


@dataclass(frozen=True)
class Foreign:
    """Arrays of a file: points (n, 3), tets (m, 4), cells: name -> (m, ...), point_data, names: region -> number, notes."""

    points: NDArray[Any]
    tets: NDArray[Any]
    cells: dict[str, NDArray[Any]]
    point_data: dict[str, NDArray[Any]]
    names: dict[str, int]
    notes: tuple[str, ...]


def read_foreign(path: Path, file_format: str) -> Foreign:
    """Read `path` as meshio's `file_format` in a child process. Raises InputError, whatever happens in there."""
    size = file_size(path, MAX_BYTES)
    with tempfile.TemporaryDirectory(prefix="vtwin-") as folder:
        out = Path(folder) / "mesh.npz"
        code = "import sys; from twin.io.guarded import child; child(*sys.argv[1:])"
        memory = BASE_MEMORY + MEMORY_PER_BYTE * size
        call = [sys.executable, "-c", code, str(path), file_format, str(out), str(memory)]
        try:
            done = subprocess.run(call, capture_output=True, text=True, timeout=SECONDS + SECONDS_PER_MB * size / 1e6, check=False)
        except subprocess.TimeoutExpired:
            raise InputError(path, "file", f"takes more than {SECONDS:.0f} s to read as {file_format}", AGAIN) from None
        if done.returncode != 0 or not out.exists():
            last = (done.stderr.strip().splitlines() or ["the reader ended without a word"])[-1]
            raise InputError(path, "file", f"cannot be read as {file_format} ({last[:200]})", AGAIN)
        with np.load(out, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in arrays.files}
    meta = json.loads(str(kept.pop("meta")))
    parts: dict[str, dict[str, NDArray[Any]]] = {"cell": {}, "point": {}}
    for name, values in kept.items():
        kind, _, rest = name.partition("/")
        if kind in parts:
            parts[kind][rest] = values
    return Foreign(kept["points"], kept["tets"], parts["cell"], parts["point"], meta["names"], tuple(meta["notes"]))


def child(path: str, file_format: str, out: str, memory: str) -> None:
    """The child process: read, reduce to tetrahedra, save; one line on standard error and status 1 for anything else."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    except (ImportError, ValueError, OSError):
        pass  # systems without limits: the time limit remains
    try:
        mesh = load(Path(path), file_format)
    except MemoryError:
        sys.stderr.write("it claims more data than it holds\n")
        raise SystemExit(1) from None
    except (Exception, SystemExit) as error:  # meshio raises many kinds, and exits on some files
        sys.stderr.write(" ".join(f"{error}".split())[:300] or type(error).__name__)
        raise SystemExit(1) from None
    arrays: dict[str, Any] = {"points": mesh.points, "tets": mesh.tets, "meta": json.dumps({"names": mesh.names, "notes": mesh.notes})}
    arrays |= {f"cell/{k}": v for k, v in mesh.cells.items()} | {f"point/{k}": v for k, v in mesh.point_data.items()}
    np.savez(out, **arrays)


def load(path: Path, file_format: str) -> Foreign:
    """The same in this process: for the child, and for tests with small files. Raises whatever meshio raises."""
    import meshio

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's word for text that ends too early
        grid = meshio.read(path, file_format=file_format)
    points = np.asarray(grid.points, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise ValueError("points are not finite triples")
    numeric = {name: data for name, data in grid.cell_data.items() if all(np.asarray(v).dtype.kind in "fiu" for v in data)}
    tets: list[NDArray[Any]] = []
    cells: dict[str, list[NDArray[Any]]] = {name: [] for name in numeric}
    notes: list[str] = []
    for index, block in enumerate(grid.cells):
        nodes = np.asarray(block.data)
        if block.type in FLAT:
            notes.append(f"{len(nodes)} cells of type {block.type} left out: only volumes are kept")
            continue
        if block.type not in SOLIDS:
            raise ValueError(f"cells of type {block.type} are no linear volumes")
        if nodes.size and (nodes.min() < 0 or nodes.max() >= len(points)):
            raise ValueError("node numbers out of range")
        cut, owner = split(SOLIDS[block.type], nodes.astype(np.int64), points)
        if (cut < 0).any():
            raise ValueError(f"a {block.type} is folded")
        if block.type != "tetra":
            notes.append(f"{len(nodes)} cells of type {block.type} cut into {len(cut)} tetrahedra")
        tets.append(cut)
        for name, data in numeric.items():
            cells[name].append(np.asarray(data[index])[owner])
    if not tets:
        raise ValueError("no volume cells in the file")
    joined = {name: _native(np.concatenate(parts)) for name, parts in cells.items() if len(parts) == len(tets)}
    point_data = {name: _native(v) for name, v in grid.point_data.items() if np.asarray(v).dtype.kind in "fiu" and len(v) == len(points)}
    names = {}
    for name, value in grid.field_data.items():
        pair = np.asarray(value).ravel()
        if pair.size == 2 and pair[1] == 3:
            names[str(name)] = int(pair[0])
    return Foreign(points, np.concatenate(tets), joined, point_data, names, tuple(notes))


def _native(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))
