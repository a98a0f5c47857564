"""The body-centred lattice on an octree: small cells where they are wanted, twice as large beside them, and no hanging node.

After F. Labelle, J. R. Shewchuk, "Isosurface stuffing: fast tetrahedral meshes with good dihedral angles", ACM Trans Graph 26 (2007) 57:
cells that touch, even in a corner, differ by a factor of two at most. Two equal cells that share a face give a tetrahedron from both
centres to each edge of the face, halved where the edge is an edge of smaller cells; a face between unequal cells is cut into eight
triangles round its centre, each joined to the centres on both sides. All dihedral angles of the lattice are 45, 60, 90 or 120 degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Reach = Callable[[NDArray[np.float64], float], NDArray[np.float64]]
"""(n, 3) mm and a radius in mm -> (n,) mm: the smallest cell that is wanted anywhere within the radius."""

NEAR = 2.0
"""Cells whose centre lies farther outside than this many cells have no tetrahedron in the body (a cell's corner is 0.87 cells away)."""

_TURN = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
"""Corners of a face, in turn."""
_BESIDE = np.array([[0, -1], [1, 0], [0, 1], [-1, 0]])
"""The cell across the edge from each corner to the next, within the face's plane."""


@dataclass(frozen=True)
class GradedLattice:
    """points (n, 3) mm; tets (m, 4) int32, positive, conforming; cell_mm (n,): edge of the smallest cell at each point."""

    points: NDArray[np.float64]
    tets: NDArray[np.int32]
    cell_mm: NDArray[np.float64]


def graded_lattice(
    field: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    wanted: Reach,
    low_mm: NDArray[np.float64],
    high_mm: NDArray[np.float64],
    fine_mm: float,
    levels: int,
) -> GradedLattice:
    """The lattice over {field < 0}, cells of fine_mm * 2 ** k mm, k in 0..levels.

    field: as in `meshing.stuffing.stuff`; low_mm, high_mm (3,): a box that holds the body. A cell is divided while it is larger
    than wanted by more than the square root of two. Cells lie at whole multiples of their size in the coordinates of the field.
    """
    coarse = fine_mm * 2**levels
    start = np.floor(np.asarray(low_mm) / coarse).astype(np.int64) - 2
    shape = np.ceil(np.asarray(high_mm) / coarse).astype(np.int64) + 2 - start
    cells = _divide(wanted, start, shape, fine_mm, levels)
    corners, sizes = [], []
    for level in range(levels + 1):
        where = np.argwhere(cells.leaf(level))
        size = 2**level
        middle = (where + 0.5) * (size * fine_mm) + start * coarse
        where = where[np.asarray(field(middle)) < NEAR * size * fine_mm]
        for tets in _tets(cells, where, level):
            corners.append(tets)
            sizes.append(np.full(len(tets), size, np.int64))
    tets = np.concatenate(corners)
    span = 2 * shape * 2**levels + 1
    key = (tets[..., 0] * span[1] + tets[..., 1]) * span[2] + tets[..., 2]
    keys, number = np.unique(key, return_inverse=True)
    number = number.reshape(-1, 4)
    smallest = np.full(len(keys), 2**levels, np.int64)
    np.minimum.at(smallest, number.ravel(), np.repeat(np.concatenate(sizes), 4))
    places = np.stack([keys // (span[1] * span[2]), keys // span[2] % span[1], keys % span[2]], axis=1)
    points = places * (0.5 * fine_mm) + start * coarse
    p = tets - tets[:, :1]
    turned = np.einsum("mi,mi->m", p[:, 1], np.cross(p[:, 2], p[:, 3])) < 0
    number[turned] = number[turned][:, [0, 2, 1, 3]]
    return GradedLattice(points, number.astype(np.int32), np.asarray(smallest * fine_mm, np.float64))


@dataclass(frozen=True)
class _Cells:
    """divided[k] (grid of cells of level k) bool: cells that have children; level 0 has none."""

    divided: list[NDArray[np.bool_]]

    def leaf(self, level: int) -> NDArray[np.bool_]:
        """Cells of this level that are there and have no children."""
        there = np.ones_like(self.divided[level]) if level + 1 == len(self.divided) else _children(self.divided[level + 1])
        return there & ~self.divided[level]

    def finer(self, level: int, cells: Ints) -> NDArray[np.bool_]:
        """Whether each cell (n, 3) is divided; False outside the grid."""
        inside, at = self._at(level, cells)
        return np.asarray(self.divided[level][at] & inside)

    def there(self, level: int, cells: Ints) -> NDArray[np.bool_]:
        """Whether each cell (n, 3) exists at this level, divided or not; False outside the grid."""
        inside, at = self._at(level, cells)
        if level + 1 == len(self.divided):
            return inside
        return np.asarray(self.divided[level + 1][tuple(x // 2 for x in at)] & inside)

    def _at(self, level: int, cells: Ints) -> tuple[NDArray[np.bool_], tuple[NDArray[np.int64], ...]]:
        shape = np.array(self.divided[level].shape)
        inside = ((cells >= 0) & (cells < shape)).all(axis=1)
        return np.asarray(inside), tuple(np.clip(cells, 0, shape - 1).T)


def _children(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask of cells on the grid of their children."""
    return mask.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and all 26 neighbours."""
    for axis in range(3):
        first, last = [slice(None)] * 3, [slice(None)] * 3
        first[axis], last[axis] = slice(1, None), slice(None, -1)
        wide = mask.copy()
        wide[tuple(first)] |= mask[tuple(last)]
        wide[tuple(last)] |= mask[tuple(first)]
        mask = wide
    return mask


def _divide(wanted: Reach, start: Ints, shape: Ints, fine_mm: float, levels: int) -> _Cells:
    """Which cells are divided: too large themselves, or their child has a neighbour in a cell that is."""
    divided = [np.zeros(tuple(shape * 2**levels), bool)]
    for level in range(1, levels + 1):
        size = fine_mm * 2**level
        grid = tuple(int(n) for n in shape * 2 ** (levels - level))
        middle = (np.stack(np.meshgrid(*(np.arange(n) for n in grid), indexing="ij"), -1).reshape(-1, 3) + 0.5) * size
        middle += start * (fine_mm * 2**levels)
        large = (np.asarray(wanted(middle, 0.5 * np.sqrt(3.0) * size)) * np.sqrt(2.0) < size).reshape(grid)
        near = _grown(divided[-1]).reshape(grid[0], 2, grid[1], 2, grid[2], 2).any(axis=(1, 3, 5))
        divided.append(large | near)
    return _Cells(divided)


def _tets(cells: _Cells, where: Ints, level: int) -> Iterator[Ints]:
    """Tetrahedra (k, 4, 3) of the leaves `where` (n, 3) of a level, as whole numbers of half the smallest cell; either orientation."""
    half = 2**level
    centre = (2 * where + 1) * half
    for axis in range(3):
        unit = np.eye(3, dtype=np.int64)
        out, one, two = unit[axis], unit[(axis + 1) % 3], unit[(axis + 2) % 3]
        for side in (-1, 1):
            other = where + side * out
            there, finer = cells.there(level, other), cells.finer(level, other)
            low = 2 * half * (where + (out if side > 0 else 0))
            square = low[:, None] + 2 * half * (_TURN[:, :1] * one + _TURN[:, 1:] * two)
            face = centre + side * half * out
            if side > 0:
                yield from _between_equals(cells, level, where, there & ~finer, centre, square, (out, one, two))
            for r in range(4):
                a, b = square[finer, r], square[finer, (r + 1) % 4]
                for p, q in ((a, (a + b) // 2), ((a + b) // 2, b)):
                    yield np.stack([centre[finer], face[finer], p, q], axis=1)
            inside = ((other >= 0) & (other < np.array(cells.divided[level].shape))).all(axis=1)
            small = np.flatnonzero(~there & inside)
            # the corner that the large face has too; the middle of that face lies across
            first = np.argmin(((square[small] // (2 * half)) @ (one + two) % 2) + (square[small] // (2 * half)) @ one % 2, axis=1)
            p = [square[small, (first + r) % 4] for r in range(4)]
            yield np.stack([centre[small], p[0], p[1], p[2]], axis=1)
            yield np.stack([centre[small], p[0], p[2], p[3]], axis=1)


def _between_equals(
    cells: _Cells, level: int, where: Ints, equal: NDArray[np.bool_], centre: Ints, square: Ints, axes: tuple[Ints, Ints, Ints]
) -> Iterator[Ints]:
    """Tetrahedra round the line between the centres of equal cells, halved at edges of smaller cells."""
    out, one, two = axes
    where, centre, square = where[equal], centre[equal], square[equal]
    for r in range(4):
        beside = where + _BESIDE[r, 0] * one + _BESIDE[r, 1] * two
        split = cells.finer(level, beside) | cells.finer(level, beside + out)
        p, q = square[:, r], square[:, (r + 1) % 4]
        far = centre + 2 ** (level + 1) * out
        yield np.stack([centre, far, p, q], axis=1)[~split]
        middle = (p + q) // 2
        yield np.stack([centre, far, p, middle], axis=1)[split]
        yield np.stack([centre, far, middle, q], axis=1)[split]
