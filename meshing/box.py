"""Boxes of tetrahedra: the meshes of benchmarks and of `simulate` experiments without anatomy."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.mesh import REGIONS, HeartMesh

VARIANTS = ("kuhn", "alternating")

# corner c of a cube sits at (c & 1, c >> 1 & 1, c >> 2 & 1)
_EVEN = np.array([[0, 1, 2, 4], [3, 1, 7, 2], [5, 1, 4, 7], [6, 2, 7, 4], [1, 2, 4, 7]])
_ODD = np.array([[1, 0, 5, 3], [2, 0, 3, 6], [4, 0, 6, 5], [7, 3, 5, 6], [0, 3, 6, 5]])


def _kuhn_corners() -> NDArray[np.int64]:
    """Six tetrahedra around the diagonal 0-7 of a cube, (6, 4) corner numbers: one per order in which the axes are walked."""
    tets = []
    for order in permutations((1, 2, 4)):
        path = [0, order[0], order[0] + order[1], 7]
        odd = sum(order[i] > order[j] for i in range(3) for j in range(i + 1, 3)) % 2
        tets.append([path[0], path[2], path[1], path[3]] if odd else path)
    return np.array(tets)


def box_tets(
    size_mm: tuple[float, float, float], spacing_mm: float, variant: str = "kuhn"
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Fill the box from the origin to `size_mm` with tetrahedra on a cube grid.

    Returns points (n, 3) mm, x varying fastest, and positively oriented tets (m, 4). The spacing is adjusted per axis so that a whole
    number of cubes fits. `kuhn`: 6 per cube, all diagonals parallel; `alternating`: 5 per cube, mirrored in neighbours.
    """
    size = np.asarray(size_mm, float)
    if not (size > 0).all() or not spacing_mm > 0:
        raise InputError("box", "size, spacing", "must be positive", 'give, for example, size = "20 x 7 x 3 mm", spacing = "0.5 mm"')
    if variant not in VARIANTS:
        raise InputError("box", "variant", f"{variant!r} is unknown", f"use one of {', '.join(VARIANTS)}")
    cubes = np.maximum(1, np.rint(size / spacing_mm)).astype(int)
    grid = np.meshgrid(*(np.linspace(0.0, s, c + 1) for s, c in zip(size, cubes)), indexing="ij")
    points = np.stack([g.transpose(2, 1, 0).ravel() for g in grid], axis=1)
    nx, ny = cubes[0] + 1, cubes[1] + 1
    k, j, i = (a.ravel() for a in np.meshgrid(*(np.arange(c) for c in cubes[::-1]), indexing="ij"))
    corners = np.stack([(i + (c & 1)) + nx * ((j + (c >> 1 & 1)) + ny * (k + (c >> 2))) for c in range(8)], axis=1)
    if variant == "kuhn":
        tets = corners[:, _kuhn_corners()]
    else:
        odd = ((i + j + k) % 2 == 1)[:, None, None]
        tets = np.where(odd, corners[:, _ODD], corners[:, _EVEN])
    return points, np.ascontiguousarray(tets.reshape(-1, 4), dtype=np.int32)


def box_mesh(
    size_mm: tuple[float, float, float], spacing_mm: float, fibre: tuple[float, float, float] = (1.0, 0.0, 0.0), variant: str = "kuhn"
) -> HeartMesh:
    """A HeartMesh of healthy tissue in a box with one fibre direction (normalised here; raises InputError if it is zero)."""
    points, tets = box_tets(size_mm, spacing_mm, variant)
    direction = np.asarray(fibre, float)
    length = float(np.linalg.norm(direction))
    if not np.isfinite(length) or length < 1e-12:
        raise InputError("box", "fibre", f"{list(fibre)} has no direction", "give a vector, for example [1, 0, 0]")
    direction = direction / length
    # any direction across the fibre will do: the box has no sheets
    sheet = np.cross(direction, np.eye(3)[np.argmin(np.abs(direction))])
    sheet /= np.linalg.norm(sheet)
    m = len(tets)
    return HeartMesh(
        points_mm=points,
        tets=tets,
        region=np.full(m, REGIONS["healthy"], np.int16),
        surfaces={},
        fibre=np.tile(direction, (m, 1)),
        sheet=np.tile(sheet, (m, 1)),
    )
