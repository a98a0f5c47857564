"""Sharp rims at a flat base: stuffing cuts the edge between plane and wall off, tooth by tooth; its nodes on the plane go to the edge.

A lattice does not know of creases (Labelle and Shewchuk 2007, section 4): where the plane meets the wall, the mesh has a bevel half an edge
wide whose triangles lean either way. The nodes of the plane beside it move within the plane to where plane and wall meet, as far as
the angles round them stay good.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from meshing.implicit import ImplicitHeart
from meshing.smoothing_kernels import positive, rings
from meshing.stuffing_kernels import smallest_dihedral_cosine

ON_PLANE = 0.02
"""A node this near to the base plane, in lattice constants, lies on it."""
BESIDE = 0.3
"""A surface node this near to the plane, in lattice constants, is lifted to the edge if it can be."""
FARTHEST = 1.0
"""How far a node may go, in lattice constants."""
SHARES = np.array([1.0, 0.8, 0.6, 0.4, 0.2])
"""Parts of the way that are tried, the whole first."""
LEAST_DEG = 20.5
"""No angle becomes smaller than this by a move."""


def on_plane(points_mm: NDArray[np.float64], heart: ImplicitHeart, lattice_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Nodes (n,) that lie on a flat base; none without one. lattice_mm (n,): at each."""
    if heart.opening is None or not heart.opening.flat:
        return np.zeros(len(points_mm), bool)
    return np.asarray(np.abs(heart.opening.height(points_mm)) < ON_PLANE * lattice_mm)


def sharpen(
    points_mm: NDArray[np.float64],
    tets: NDArray[np.int32],
    triangles: NDArray[np.int32],
    heart: ImplicitHeart,
    lattice_mm: NDArray[np.float64],
) -> tuple[NDArray[np.float64], int]:
    """Nodes (n, 3) mm with those of a flat base's rim moved to the edge of the wall, and how many moved; no tetrahedron is inverted.
    lattice_mm (n,): at each node."""
    if heart.opening is None or not heart.opening.flat:
        return points_mm, 0
    points, cosine = points_mm.copy(), float(np.cos(np.radians(LEAST_DEG)))
    surface = np.unique(triangles).astype(np.int64)
    height = heart.opening.height(points[surface])
    near = lattice_mm[surface]
    beside = surface[(height < -ON_PLANE * near) & (height > -BESIDE * near)]
    moved = _move(points, tets, beside, heart, lattice_mm, SHARES[:1], cosine)
    plane = on_plane(points, heart, lattice_mm)
    inside = plane[triangles].all(axis=1)
    rim = np.intersect1d(np.unique(triangles[inside]), np.unique(triangles[~inside])).astype(np.int64)
    return points, moved + _move(points, tets, rim, heart, lattice_mm, SHARES, cosine)


def _move(
    points: NDArray[np.float64],
    tets: NDArray[np.int32],
    nodes: NDArray[np.int64],
    heart: ImplicitHeart,
    lattice_mm: NDArray[np.float64],
    shares: NDArray[np.float64],
    cosine: float,
) -> int:
    """Move nodes (k,) in place towards the edge; returns how many moved."""
    if not len(nodes):
        return 0
    target = _edge(points[nodes], heart, lattice_mm[nodes])
    target[np.linalg.norm(target - points[nodes], axis=1) > FARTHEST * lattice_mm[nodes]] = np.nan
    row = np.full(len(points), -1, np.int32)
    row[nodes] = np.arange(len(nodes))
    start, member = rings(tets, row, len(nodes))
    return int(_towards(points, tets, nodes, start, member, target, shares, cosine))


def _edge(points_mm: NDArray[np.float64], heart: ImplicitHeart, lattice_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where, within the base plane, the wall's nearest surface is met from points (k, 3) mm near it, (k, 3); NaN if it is not."""
    assert heart.opening is not None
    normal = heart.opening.normal
    which = np.argmax(heart.parts(points_mm)[:, :3], axis=1)
    places = points_mm - heart.opening.height(points_mm)[:, None] * normal
    rows, step = np.arange(len(points_mm)), 0.2 * lattice_mm
    for _ in range(4):
        value = heart.parts(places)[rows, which]
        slope = np.empty_like(places)
        for axis in range(3):
            shift = step[:, None] * np.eye(3)[axis]
            slope[:, axis] = (heart.parts(places + shift)[rows, which] - heart.parts(places - shift)[rows, which]) / (2.0 * step)
        slope -= (slope @ normal)[:, None] * normal
        size = (slope**2).sum(axis=1)
        # near 1 for a wall upright to the base; nearly parallel surfaces have no edge
        places = places - np.where(size > 0.05, value / np.maximum(size, 0.05), np.nan)[:, None] * slope
        places -= heart.opening.height(places)[:, None] * normal
    left = np.abs(heart.parts(places)[rows, which])
    places[left > 0.02 * lattice_mm] = np.nan
    return np.asarray(places)


@njit(cache=True, nogil=True)
def _towards(
    points: NDArray[np.float64],
    tets: NDArray[np.int32],
    nodes: NDArray[np.int64],
    start: NDArray[np.int64],
    member: NDArray[np.int32],
    target: NDArray[np.float64],
    shares: NDArray[np.float64],
    cosine: float,
) -> int:
    """Move each node (in place, in turn) as far to its target (k, 3) as no tetrahedron round it gets a worse angle than `cosine` (or than
    the worst before); returns how many moved."""
    moved = 0
    for i in range(len(nodes)):
        if not np.isfinite(target[i, 0]):
            continue
        node = nodes[i]
        here = points[node].copy()
        limit = cosine
        for r in range(start[i], start[i + 1]):
            t = member[r]
            limit = max(limit, smallest_dihedral_cosine(points, tets[t, 0], tets[t, 1], tets[t, 2], tets[t, 3]))
        for share in shares:
            points[node] = here + share * (target[i] - here)
            good = True
            for r in range(start[i], start[i + 1]):
                t = member[r]
                if (
                    not positive(points, tets[t, 0], tets[t, 1], tets[t, 2], tets[t, 3])
                    or smallest_dihedral_cosine(points, tets[t, 0], tets[t, 1], tets[t, 2], tets[t, 3]) > limit
                ):
                    good = False
                    break
            if good:
                moved += 1
                break
            points[node] = here
    return moved
