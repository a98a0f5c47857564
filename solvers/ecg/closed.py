"""Closed triangle surfaces: what a boundary-element conductor asks of them, and the nearest place on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.ecg import kernels
from twin.errors import InputError
from twin.io.surfaces import Surface

Array = NDArray[np.float64]


def closed(surface: Surface, where: str) -> Surface:
    """The surface with outward normals and without unused points. Raises InputError if it is open, torn or turned in itself."""
    used, inverse = np.unique(surface.triangles, return_inverse=True)
    triangles = inverse.reshape(-1, 3).astype(np.int32)
    points = np.ascontiguousarray(surface.points_mm[used], np.float64)
    edges = np.concatenate([triangles[:, [i, j]] for i, j in ((0, 1), (1, 2), (2, 0))]).astype(np.int64)
    forward, count = np.unique(edges[:, 0] * len(points) + edges[:, 1], return_counts=True)
    backward = np.unique(edges[:, 1] * len(points) + edges[:, 0])
    if (count > 1).any() or not np.array_equal(forward, backward):
        n_open = int((count > 1).sum() + np.setxor1d(forward, backward).size)
        raise InputError(where, "triangles", f"not a closed, evenly oriented surface ({n_open} bad edges)", "close and repair it first")
    clean = Surface(points, triangles)
    if clean.volume_ml == 0.0:
        raise InputError(where, "triangles", "enclose no volume", "give a closed surface")
    return clean if clean.volume_ml > 0 else Surface(points, np.ascontiguousarray(triangles[:, ::-1]))


def inside(surface: Surface, places_mm: Array) -> NDArray[np.bool_]:
    """Which places (k, 3) mm lie inside a closed surface with outward normals, (k,): their total solid angle is 4 pi."""
    angle = kernels.solid_angles(np.ascontiguousarray(places_mm, np.float64), surface.points_mm, surface.triangles)
    return np.asarray(angle > 2.0 * np.pi)


def nearest(surface: Surface, place_mm: Array) -> tuple[Array, NDArray[np.int32], Array]:
    """Nearest place (3,) mm on a surface, and it as nodes (3,) of one triangle with weights (3,) that sum to one."""
    corner = surface.points_mm[surface.triangles]
    weight = _closest_weights(corner, np.asarray(place_mm, np.float64))
    candidate = np.einsum("mk,mkj->mj", weight, corner)
    best = int(np.argmin(np.einsum("mj,mj->m", candidate - place_mm, candidate - place_mm)))
    return candidate[best], surface.triangles[best], weight[best]


def _closest_weights(corner: Array, place: Array) -> Array:
    """Barycentric weights (m, 3) of the closest point of every triangle (m, 3, 3)."""
    a, ab, ac = corner[:, 0], corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    gram = np.stack([np.einsum("mj,mj->m", p, q) for p, q in ((ab, ab), (ab, ac), (ac, ac))], axis=1)
    to_b, to_c = np.einsum("mj,mj->m", place - a, ab), np.einsum("mj,mj->m", place - a, ac)
    det = np.maximum(gram[:, 0] * gram[:, 2] - gram[:, 1] ** 2, 1e-300)
    v, w = (gram[:, 2] * to_b - gram[:, 1] * to_c) / det, (gram[:, 0] * to_c - gram[:, 1] * to_b) / det
    best = np.stack([1.0 - v - w, v, w], axis=1)
    outside = (best < 0.0).any(axis=1)
    distance = np.where(outside, np.inf, 0.0)
    # where the foot lies outside, the closest point lies on one of the edges
    for i, j in ((0, 1), (1, 2), (2, 0)):
        edge = corner[:, j] - corner[:, i]
        length2 = np.maximum(np.einsum("mj,mj->m", edge, edge), 1e-300)
        share = np.clip(np.einsum("mj,mj->m", place - corner[:, i], edge) / length2, 0.0, 1.0)
        off = place - corner[:, i] - share[:, None] * edge
        here = np.einsum("mj,mj->m", off, off)
        better = outside & (here < distance)
        row = np.zeros((len(corner), 3))
        row[:, i], row[:, j] = 1.0 - share, share
        best[better], distance[better] = row[better], here[better]
    return best


def refined(surface: Surface, longest_mm: Array) -> Surface:
    """Cut every edge that is longer than the mean of its ends' `longest_mm` (n,) in the middle; the surface stays closed."""
    points, triangles = surface.points_mm, surface.triangles.astype(np.int64)
    edges = np.sort(np.concatenate([triangles[:, [i, j]] for i, j in ((0, 1), (1, 2), (2, 0))]), axis=1)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    length = np.linalg.norm(points[unique[:, 1]] - points[unique[:, 0]], axis=1)
    cut = length > longest_mm[unique].mean(axis=1)
    middle = np.full(len(unique), -1, np.int64)
    middle[cut] = len(points) + np.arange(cut.sum())
    between = middle[inverse.reshape(3, -1)].T
    out = [row for corners, mids in zip(triangles.tolist(), between.tolist(), strict=True) for row in _cut(corners, mids)]
    return Surface(np.concatenate([points, points[unique[cut]].mean(axis=1)]), np.array(out, np.int32))


def _cut(corners: list[int], mids: list[int]) -> list[tuple[int, int, int]]:
    """One triangle cut at the marked middles (-1: not) of its edges 01, 12, 20; orientation is kept."""
    marked = sum(m >= 0 for m in mids)
    if marked == 0:
        return [(corners[0], corners[1], corners[2])]
    # turn it until the first edge is marked, and for two marks the third is not
    while mids[0] < 0 or (marked == 2 and mids[2] >= 0):
        corners, mids = corners[1:] + corners[:1], mids[1:] + mids[:1]
    a, b, c = corners
    ab, bc, ca = mids
    if marked == 1:
        return [(a, ab, c), (ab, b, c)]
    if marked == 2:
        return [(a, ab, c), (ab, b, bc), (ab, bc, c)]
    return [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
