"""Corridors of living tissue between parts that do not conduct, as centre lines with a width: conducting channels of scar, ridges of CT.

What a ball of CORRIDOR_MM cannot reach between the blocks (their closing) is a corridor if it opens at two places. Everything is measured
on labels extended off the wall, so that the endocardium and the epicardium do not count as sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from twin.params import Param

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CORRIDOR_MM = Param(
    14.0, "mm", 8.0, 20.0, "widest gap that still counts as a corridor; chosen here, above the isthmuses of mapping studies (about 10 mm)"
)
SHORTEST_MM = Param(5.0, "mm", 2.0, 10.0, "chosen here: shorter gaps between blocks are notches of two or three voxels")
MOUTH = 2.0
"""A corridor ends where it has become this many times wider than it usually is."""
FACING = -0.8
"""Cosine of the angle between the ways to two blocks that face each other."""
EVERYWHERE = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Corridor:
    """One corridor: polyline_mm (n, 3) LPS from healthy tissue through the corridor to healthy tissue; width_mm (n,), NaN outside of it.

    inside (2,): first and last index of the polyline within the corridor; volume_ml: of the corridor alone.
    """

    polyline_mm: Array
    width_mm: Array
    inside: tuple[int, int]
    volume_ml: float

    @property
    def length_mm(self) -> float:
        """Length between the two mouths."""
        part = self.polyline_mm[self.inside[0] : self.inside[1] + 1]
        return float(np.linalg.norm(np.diff(part, axis=0), axis=1).sum())

    @property
    def narrowest_mm(self) -> float:
        """Width at the narrowest place (fifth percentile, for one voxel is noise)."""
        return float(np.nanpercentile(self.width_mm, 5.0))

    @property
    def typical_mm(self) -> float:
        """Median width."""
        return float(np.nanmedian(self.width_mm))


def find_corridors(block: Mask, conducting: Mask, healthy: Mask, affine: Array, widest_mm: float = CORRIDOR_MM.value) -> list[Corridor]:
    """Corridors of conducting wall between blocks, longest first.

    block, conducting, healthy: (ni, nj, nk) disjoint parts of the wall, but healthy lies within conducting; affine (4, 4): voxel to
    LPS mm. Works on any spacing; slices thicker than the corridors are wide hide them (interpolate first).
    """
    if not block.any():
        return []
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    box = _box(block, spacing, widest_mm + 8.0)
    grid = _Grid(block[box], conducting[box], healthy[box], spacing, affine, np.array([b.start for b in box], float))
    found = []
    numbered, count = ndimage.label(_gap(grid, widest_mm), EVERYWHERE)
    for n in range(1, count + 1):
        found += _through(grid, numbered == n, widest_mm)
    return sorted(found, key=lambda c: -c.length_mm)


@dataclass(frozen=True)
class _Grid:
    block: Mask
    conducting: Mask
    healthy: Mask
    spacing: Array
    affine: Array
    corner: Array

    def to_mm(self, index: NDArray[np.number]) -> Array:
        return np.asarray((index + self.corner) @ self.affine[:3, :3].T + self.affine[:3, 3], np.float64)

    def extended(self) -> Mask:
        """Blocks, and every voxel off the wall whose nearest wall voxel is a block."""
        wall = self.block | self.conducting
        nearest = ndimage.distance_transform_edt(~wall, sampling=self.spacing, return_distances=False, return_indices=True)
        return np.asarray(self.block[tuple(nearest)])


def _box(mask: Mask, spacing: Array, margin_mm: float) -> tuple[slice, slice, slice]:
    at = np.argwhere(mask)
    pad = np.ceil(margin_mm / spacing).astype(int)
    low, high = np.maximum(at.min(axis=0) - pad, 0), np.minimum(at.max(axis=0) + pad + 1, mask.shape)
    return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))


def _gap(grid: _Grid, widest_mm: float) -> Mask:
    """Conducting voxels inside the closing of the (extended) blocks."""
    block = grid.extended()
    near = ndimage.distance_transform_edt(~block, sampling=grid.spacing) <= 0.5 * widest_mm
    # beyond the box everything is far: an edge must not count as reached
    padded = np.pad(near, 1, mode="edge")
    closed = ndimage.distance_transform_edt(padded, sampling=grid.spacing)[1:-1, 1:-1, 1:-1] > 0.5 * widest_mm
    return np.asarray(closed & grid.conducting)


def _through(grid: _Grid, gap: Mask, widest_mm: float) -> list[Corridor]:
    """Corridors of one piece of gap: along the tree that joins its mouths, if there are two or more."""
    outside = grid.conducting & ~gap
    mouths = gap & ndimage.binary_dilation(outside, EVERYWHERE)
    joined, count = ndimage.label(ndimage.binary_dilation(mouths, EVERYWHERE) & gap, EVERYWHERE)
    if count < 2:
        return []
    clear = _clearance(grid)
    graph, index, number = _graph(gap, 1.0 / np.maximum(clear, 0.25 * grid.spacing.min()) ** 2, grid.spacing)
    starts = [number[(joined == n) & mouths] for n in range(1, count + 1)]
    # the middle of a mouth is its clearest voxel
    heads = [int(s[np.argmax(clear[gap][s])]) for s in starts]
    far, before = csgraph.dijkstra(graph, directed=False, indices=heads, return_predecessors=True)
    tree = csgraph.minimum_spanning_tree(far[:, heads]).tocoo()
    out = []
    for a, b in zip(tree.row, tree.col):
        path = _back(before[a], heads[b])
        corridor = _corridor(grid, gap, index[path], widest_mm)
        if corridor is not None and corridor.length_mm >= float(SHORTEST_MM):
            out.append(corridor)
    return out


def _clearance(grid: _Grid) -> Array:
    """Distance to the nearest block, or to the wall's surfaces where those are nearer than the middle of the wall needs, mm."""
    to_block = ndimage.distance_transform_edt(~grid.extended(), sampling=grid.spacing)
    wall = grid.block | grid.conducting
    to_surface = ndimage.distance_transform_edt(wall, sampling=grid.spacing)
    return np.asarray(np.minimum(to_block, to_surface + 0.5 * grid.spacing.min()), np.float64)


def _graph(mask: Mask, cost: Array, spacing: Array) -> tuple[sparse.csr_array, NDArray[np.int_], NDArray[np.int_]]:
    """26-neighbour graph of a mask weighted by length x mean cost; voxel index (n, 3) of each node; node number of each voxel (or -1)."""
    index = np.argwhere(mask)
    number = np.full(np.array(mask.shape) + 2, -1)
    number[1:-1, 1:-1, 1:-1][mask] = np.arange(len(index))
    rows, cols, weights = [], [], []
    value = cost[mask]
    for step in np.ndindex(3, 3, 3):
        move = np.array(step) - 1
        if tuple(move) <= (0, 0, 0):
            continue
        there = number[tuple((index + 1 + move).T)]
        ok = there >= 0
        rows.append(np.flatnonzero(ok))
        cols.append(there[ok])
        weights.append(np.linalg.norm(move * spacing) * 0.5 * (value[ok] + value[there[ok]]))
    n = len(index)
    edges = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(cols)))
    return sparse.csr_array(edges, shape=(n, n)), index, number[1:-1, 1:-1, 1:-1]


def _back(before: NDArray[np.int32], end: int) -> NDArray[np.int_]:
    path = [end]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return np.array(path)


def _corridor(grid: _Grid, gap: Mask, path: NDArray[np.int_], widest_mm: float) -> Corridor | None:
    """The centre line with its ends prolonged into healthy tissue, and its widths; None if either end reaches none."""
    ways = [_to_healthy(grid, gap, path[0]), _to_healthy(grid, gap, path[-1])]
    if ways[0] is None or ways[1] is None:
        return None
    whole = np.concatenate([ways[0][::-1], path, ways[1]])
    first, last = len(ways[0]), len(ways[0]) + len(path) - 1
    width = _widths(grid, whole, widest_mm)
    # a ball does not reach into the corners of a mouth: the corridor goes on while blocks face each other
    widest = MOUTH * float(np.nanmedian(width[first : last + 1]))
    while first > 0 and width[first - 1] <= widest:
        first -= 1
    while last < len(whole) - 1 and width[last + 1] <= widest:
        last += 1
    width[:first], width[last + 1 :] = np.nan, np.nan
    line = grid.to_mm(_smooth(whole.astype(np.float64)))
    volume = float(gap.sum()) * float(np.prod(grid.spacing)) / 1000.0
    return Corridor(line, width, (first, last), volume)


def _to_healthy(grid: _Grid, gap: Mask, start: NDArray[np.int_]) -> NDArray[np.int_] | None:
    """Shortest way (m, 3) from a mouth through conducting tissue outside the corridor to healthy tissue, without the start."""
    allowed = grid.conducting & ~gap
    allowed[tuple(start)] = True
    graph, index, number = _graph(allowed, np.ones(allowed.shape), grid.spacing)
    ways, steps = csgraph.dijkstra(graph, directed=False, indices=[int(number[tuple(start)])], return_predecessors=True)
    far, before = ways[0], steps[0]
    goal = far[number[grid.healthy & allowed]]
    if not len(goal) or not np.isfinite(goal.min()):
        return None
    end = int(number[grid.healthy & allowed][np.argmin(goal)])
    return np.asarray(index[_back(before, end)[::-1]][1:])


def _smooth(path: Array) -> Array:
    """Voxel steps evened out: a Gaussian along the line, its ends kept."""
    out = ndimage.gaussian_filter1d(path, 2.0, axis=0, mode="nearest")
    out[0], out[-1] = path[0], path[-1]
    return np.asarray(out, np.float64)


def _widths(grid: _Grid, path: NDArray[np.int_], widest_mm: float) -> Array:
    """Distance between the blocks on the two sides of every place of the path, (n,) mm."""
    block = grid.extended()
    # only the skin of the blocks can be nearest
    skin = np.argwhere(block & ndimage.binary_dilation(~block, EVERYWHERE)) * grid.spacing
    tree = cKDTree(skin)
    half = 0.5 * float(grid.spacing.min())
    out = np.full(len(path), np.nan)
    for n, place in enumerate(path * grid.spacing):
        near = skin[np.sort(tree.query_ball_point(place, widest_mm))] - place
        distance = np.linalg.norm(near, axis=1)
        if not len(near):
            continue
        first = int(np.argmin(distance))
        opposite = (near @ near[first]) < FACING * distance * distance[first]
        if opposite.any():
            out[n] = distance[first] + distance[opposite].min() - 2.0 * half
    return out
