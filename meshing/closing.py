"""Nearly closed surfaces made closed: points welded, flaws dropped, pieces stitched rim to rim, small holes filled; all of it said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from meshing.coordinates import rim
from meshing.surfaces import EDGES
from twin.errors import InputError
from twin.io.surfaces import Surface

WELD_MM = 1e-4
GAP_MM = 4.0
"""Rims of two pieces that are nearer than this, in the mean, belong together: about two layers of triangles."""

HOLE_MM = 20.0
"""Perimeter up to which a hole is closed by a fan; a valve of a heart is larger."""

Loop = NDArray[np.int64]


def close_surface(parts: Sequence[Surface], where: str) -> tuple[Surface, list[str]]:
    """One closed surface, normals outward, of one or several pieces (base, endocardia, epicardium), and what was done to it.

    `class` (n,) of the points survives if every piece has it. Raises InputError if a large hole stays open.
    """
    points = np.concatenate([part.points_mm for part in parts])
    offset = np.cumsum([0, *(len(part.points_mm) for part in parts)])
    triangles = np.concatenate([part.triangles + shift for part, shift in zip(parts, offset, strict=False)]).astype(np.int64)
    data = {
        name: np.concatenate([part.point_data[name] for part in parts]) for name in ("class",) if all(name in p.point_data for p in parts)
    }
    _, first, inverse = np.unique(np.rint(points / WELD_MM).astype(np.int64), axis=0, return_index=True, return_inverse=True)
    notes = []
    if len(first) < len(points):
        notes.append(f"points welded: {len(points) - len(first)}")
    triangles = first[inverse.ravel()[triangles]]
    triangles, dropped = _without_flaws(triangles)
    if dropped:
        notes.append(f"triangles without area, given twice or folded onto each other dropped: {dropped}")
    strips = _stitch(points, triangles, notes)
    triangles = np.concatenate([triangles, *strips])
    fans = _fill(points, triangles, where, notes)
    triangles = np.concatenate([triangles, *fans])
    edges = np.sort(triangles[:, EDGES].reshape(-1, 2), axis=1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    if (count > 2).any():
        notes.append(f"edges shared by more than two triangles: {int((count > 2).sum())} (inside is decided by a vote along three axes)")
    closed = Surface(points, _oriented(triangles).astype(np.int32), data)
    if closed.volume_ml < 0:
        closed = Surface(points, closed.triangles[:, ::-1].copy(), data)
    return closed, notes


def _without_flaws(triangles: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Triangles with three different corners, each once, without sheets folded onto themselves; how many were dropped."""
    ordered = np.sort(triangles, axis=1)
    good = np.flatnonzero((ordered[:, 0] != ordered[:, 1]) & (ordered[:, 1] != ordered[:, 2]))
    _, first, inverse = np.unique(ordered[good], axis=0, return_index=True, return_inverse=True)
    turn = np.roll(np.arange(3), 1)
    even = np.zeros(len(good), bool)
    for _ in range(3):
        even |= (triangles[good] == ordered[good]).all(axis=1)
        ordered = ordered[:, turn]
    # the same corners both ways round enclose nothing: both go, or an open edge would be left
    net = np.bincount(inverse.ravel(), np.where(even, 1.0, -1.0))
    kept = triangles[good[np.sort(first[net != 0])]]
    return kept, len(triangles) - len(kept)


def _loops(triangles: NDArray[np.int64]) -> list[Loop]:
    """Open edges walked to loops of nodes (k,); a walk that ends is left out."""
    neighbours: dict[int, list[int]] = {}
    for a, b in rim(triangles).tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    out = []
    for start in sorted(neighbours):
        while neighbours[start]:
            loop, here = [start], start
            while neighbours[here]:
                step = neighbours[here].pop(0)
                neighbours[step].remove(here)
                here = step
                if here == start:
                    break
                loop.append(here)
            if here == start and len(loop) > 2:
                out.append(np.array(loop))
    return out


def _stitch(points: NDArray[np.float64], triangles: NDArray[np.int64], notes: list[str]) -> list[NDArray[np.int64]]:
    """Strips of triangles between loops that run beside each other."""
    loops = _loops(triangles)
    pairs = []
    for i, a in enumerate(loops):
        for j in range(i + 1, len(loops)):
            gap = max(_gap(points, a, loops[j]), _gap(points, loops[j], a))
            if gap < GAP_MM:
                pairs.append((gap, i, j))
    strips, used = [], set()
    for gap, i, j in sorted(pairs):
        if i not in used and j not in used:
            used |= {i, j}
            strips.append(_zipper(points, loops[i], loops[j]))
            notes.append(f"two rims {gap:.1f} mm apart joined by {len(strips[-1])} triangles")
    return strips


def _gap(points: NDArray[np.float64], a: Loop, b: Loop) -> float:
    """Mean distance of the nodes of loop a from those of b."""
    distance = np.linalg.norm(points[a][:, None] - points[b][None], axis=2)
    return float(distance.min(axis=1).mean())


def _zipper(points: NDArray[np.float64], a: Loop, b: Loop) -> NDArray[np.int64]:
    """The strip between two closed loops, (len a + len b, 3): always the shorter of the two next rungs; the better of both directions."""
    best, least = np.zeros((0, 3), np.int64), np.inf
    for turned in (b, b[::-1]):
        begin = int(np.argmin(np.linalg.norm(points[turned] - points[a[0]], axis=1)))
        other = np.roll(turned, -begin)
        i = j = 0
        strip, length = [], 0.0
        while i < len(a) or j < len(other):
            here, there = a[i % len(a)], other[j % len(other)]
            next_a, next_b = a[(i + 1) % len(a)], other[(j + 1) % len(other)]
            rung_a, rung_b = np.linalg.norm(points[next_a] - points[there]), np.linalg.norm(points[here] - points[next_b])
            if j == len(other) or (i < len(a) and rung_a <= rung_b):
                strip.append((here, next_a, there))
                length, i = length + float(rung_a), i + 1
            else:
                strip.append((here, next_b, there))
                length, j = length + float(rung_b), j + 1
        if length < least:
            best, least = np.array(strip, np.int64), length
    return best


def _fill(points: NDArray[np.float64], triangles: NDArray[np.int64], where: str, notes: list[str]) -> list[NDArray[np.int64]]:
    """Fans over small holes. Raises InputError for a large one."""
    fans = []
    for loop in _loops(triangles):
        perimeter = float(np.linalg.norm(points[loop] - points[np.roll(loop, -1)], axis=1).sum())
        place = [round(float(x), 1) for x in points[loop].mean(axis=0)]
        if perimeter > HOLE_MM:
            raise InputError(
                where,
                "surface",
                f"has a hole of {perimeter:.0f} mm perimeter at {place} mm",
                "close it; the wall must be one closed surface",
            )
        fans.append(np.stack([np.full(len(loop) - 2, loop[0]), loop[1:-1], loop[2:]], axis=1))
        notes.append(f"hole of {perimeter:.1f} mm perimeter at {place} mm closed")
    return fans


def _oriented(triangles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Triangles turned so that neighbours agree (across edges of exactly two), starting from the first of each patch."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    directed = triangles[:, EDGES].reshape(-1, 2)
    _, inverse, count = np.unique(np.sort(directed, axis=1), axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    pairs = order[np.repeat(count == 2, count)].reshape(-1, 2)
    a, b = pairs[:, 0] // 3, pairs[:, 1] // 3
    same = (directed[pairs[:, 0]] == directed[pairs[:, 1]]).all(axis=1)
    n = len(triangles)
    _, once = np.unique(np.minimum(a, b) * n + np.maximum(a, b), return_index=True)
    a, b, same = a[once], b[once], same[once]
    # 1: agree, 2: one of the two must be turned
    weight = np.where(same, 2, 1)
    graph = coo_array((np.r_[weight, weight], (np.r_[a, b], np.r_[b, a])), shape=(n, n)).tocsr()
    turned = np.zeros(n, bool)
    patches, label = connected_components(graph, directed=False)
    for patch in range(patches):
        root = int(np.argmax(label == patch))
        nodes, before = breadth_first_order(graph, root, directed=False)
        if len(nodes) == 1:
            continue
        steps = np.asarray(graph[nodes[1:], before[nodes[1:]]]).ravel()
        for node, step in zip(nodes[1:].tolist(), steps.tolist(), strict=True):
            turned[node] = turned[before[node]] ^ (step == 2)
    out = triangles.copy()
    out[turned] = out[turned][:, ::-1]
    return out
