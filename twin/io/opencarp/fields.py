"""Values and lists on a mesh: .dat (a number or a vector per node), .vtx (node numbers of an electrode), .surf (triangles)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes
from twin.errors import InputError
from twin.io.opencarp import text

DOMAINS = ("intra", "extra")


def read_dat(path: Path, n: int | None = None) -> NDArray[np.float64]:
    """Values (k,) or (k, c), one row per node, without a count; NaN stays (openCARP writes it), infinity is refused.

    n: number of nodes, checked if given. Activation times of openCARP have -1 where a node was never reached.
    """
    values = text.table(path, None, skip_first=False)
    if np.isinf(values).any():
        text.refuse(path, "values", "hold infinity")
    if n is not None and len(values) != n:
        text.refuse(path, "rows", f"{len(values)} where the mesh has {n} nodes", "give the file of this mesh")
    return values[:, 0] if values.shape[1] == 1 else values


def write_dat(path: Path, values: NDArray[np.floating]) -> None:
    """Write (k,) or (k, c) values, nine digits each."""
    buffer = io.BytesIO()
    np.savetxt(buffer, np.asarray(values, float), fmt="%.9g")
    write_bytes(path, buffer.getvalue())


def read_vtx(path: Path, n: int | None = None) -> tuple[NDArray[np.int32], str]:
    """Node numbers (k,) and the domain, "intra" or "extra" ("intra" where the file does not say).

    Raises InputError for a wrong count, numbers outside 0..n-1 (if n is given), or a node that is there twice.
    """
    expected = text.count(path, 2)
    domain, numbers = "intra", []
    for number, words in text.rows(path):
        if number == 1 and words[0] and words[0][0] in DOMAINS:
            domain, words = words[0][0], words[1:]
        if bad := next((w for w in words if len(w) != 1), None):
            text.refuse(path, "rows", f"{' '.join(bad)[:40]!r} is not one node number")
        if words:
            numbers.append(text.whole_numbers(path, words, number)[:, 0])
    nodes = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
    if len(nodes) != expected:
        text.refuse(path, "rows", f"{len(nodes)} where the first line says {expected}")
    highest = 2**31 - 1 if n is None else n - 1
    if nodes.min() < 0 or nodes.max() > highest:
        text.refuse(path, "nodes", f"outside 0..{highest}", "give the file of this mesh")
    if len(np.unique(nodes)) != len(nodes):
        text.refuse(path, "nodes", "a node is listed twice", "list each once")
    return nodes.astype(np.int32), domain


def write_vtx(path: Path, nodes: Sequence[int] | NDArray[np.integer], domain: str = "intra") -> None:
    """Write node numbers for `domain`."""
    if domain not in DOMAINS:
        raise InputError(path, "domain", f"{domain!r} is unknown", "give intra or extra")
    lines = [str(len(nodes)), domain, *(str(int(node)) for node in nodes)]
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def read_surf(path: Path, n: int | None = None) -> NDArray[np.int32]:
    """Triangles (k, 3); quadrilaterals (`Qd`) are cut in two. Raises InputError for a wrong count, kind or node number."""
    expected = text.count(path, 6)
    found, row = [], 0
    for number, words in text.rows(path):
        for line in words:
            if (line[0], len(line)) not in (("Tr", 4), ("Tr", 5), ("Qd", 5), ("Qd", 6)):
                text.refuse(path, f"row {row}", f"{' '.join(line)[:40]!r} is neither Tr with 3 nor Qd with 4 nodes")
            a, b, c, *rest = line[1 : 4 if line[0] == "Tr" else 5]
            found.append(text.whole_numbers(path, [[a, b, c]] + [[a, c, d] for d in rest], number))
            row += 1
    if row != expected:
        text.refuse(path, "rows", f"{row} where the first line says {expected}")
    triangles = np.concatenate(found)
    highest = 2**31 - 1 if n is None else n - 1
    if triangles.min() < 0 or triangles.max() > highest:
        text.refuse(path, "nodes", f"outside 0..{highest}", "give the file of this mesh")
    return triangles.astype(np.int32)


def write_surf(path: Path, triangles: NDArray[np.integer]) -> None:
    """Write triangles (k, 3)."""
    body = "".join(f"Tr {a} {b} {c}\n" for a, b, c in np.asarray(triangles).tolist())
    write_bytes(path, f"{len(triangles)}\n{body}".encode())
