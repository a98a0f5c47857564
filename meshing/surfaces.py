"""The boundary of a tetrahedral heart: closed, manifold, and split into endocardia, epicardium and base."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from meshing.implicit import ImplicitHeart
from twin.mesh import SURFACES

FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
"""Faces of a positive tetrahedron, outward."""

EDGES = np.array([[0, 1], [1, 2], [2, 0]])


def boundary_faces(tets: NDArray[np.int32], on_surface: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Faces that belong to one tetrahedron, (k, 3), outward normals; only faces with three nodes `on_surface` (n,) are looked at."""
    marked = on_surface[tets]
    near = marked.sum(axis=1) >= 3
    faces = tets[near][:, FACES].reshape(-1, 3)
    faces = faces[on_surface[faces].all(axis=1)]
    _, place, count = np.unique(_keys(faces, len(on_surface)), return_index=True, return_counts=True)
    return faces[np.sort(place[count == 1])]


def _keys(simplices: NDArray[np.integer], n: int) -> NDArray[np.int64]:
    """One number for each set of nodes (rows), whatever their order."""
    ordered = np.sort(simplices, axis=1).astype(np.int64)
    key = ordered[:, 0]
    for column in ordered.T[1:]:
        key = key * n + column
    return key


@dataclass(frozen=True)
class Topology:
    """open_edges: edges not shared by an even number of faces; pinched_edges: by four or more; pinched_nodes: nodes where fans of faces
    meet in one point; pinched: some of those nodes. components, euler: of the surface; genus: handles, summed (meaningful if nothing is
    open or pinched)."""

    open_edges: int
    pinched_edges: int
    pinched_nodes: int
    components: int
    euler: int
    pinched: tuple[int, ...] = ()

    @property
    def genus(self) -> int:
        """Number of handles."""
        return (2 * self.components - self.euler) // 2


def topology(triangles: NDArray[np.int32]) -> Topology:
    """Count what is wrong with a surface (k, 3) and what shape it has."""
    n = int(triangles.max()) + 1
    _, inverse, count = np.unique(_keys(triangles[:, EDGES].reshape(-1, 2), n), return_inverse=True, return_counts=True)
    nodes = np.unique(triangles)
    fan, fans = _fans(triangles, inverse)
    owner = np.zeros(fans, np.int64)
    owner[fan] = triangles.ravel()
    edges = triangles[:, EDGES].reshape(-1, 2)
    twice = np.flatnonzero(np.bincount(owner, minlength=n) > 1)
    pinched = np.union1d(twice, edges[count[inverse] > 2].ravel())
    return Topology(
        open_edges=int((count % 2 == 1).sum()),
        pinched_edges=int((count > 2).sum()),
        pinched_nodes=len(twice),
        components=int(connected_components(_adjacency(triangles), directed=False)[0]),
        euler=len(nodes) - len(count) + len(triangles),
        pinched=tuple(int(v) for v in pinched[:20]),
    )


def _adjacency(triangles: NDArray[np.int32]) -> sp.csr_array:
    """Which faces share an edge, (k, k) sparse with ones."""
    n = int(triangles.max()) + 1
    keys = _keys(triangles[:, EDGES].reshape(-1, 2), n)
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    a, b = order[:-1][same] // 3, order[1:][same] // 3
    k = len(triangles)
    return sp.coo_array((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=(k, k)).tocsr()


def _fans(triangles: NDArray[np.int32], edge: NDArray[np.int_]) -> tuple[NDArray[np.int32], int]:
    """Group the corners (3k,) of faces into fans: corners of the same node whose faces share an edge at that node."""
    k = len(triangles)
    order = np.argsort(edge, kind="stable")
    same = edge[order][1:] == edge[order][:-1]
    a, b = order[:-1][same], order[1:][same]
    corner = np.arange(3 * k).reshape(k, 3)
    start, end = corner[:, EDGES[:, 0]].ravel(), corner[:, EDGES[:, 1]].ravel()
    node = triangles.ravel()
    straight = node[start[a]] == node[start[b]]
    p = np.r_[start[a], end[a]]
    q = np.r_[np.where(straight, start[b], end[b]), np.where(straight, end[b], start[b])]
    fans, label = connected_components(sp.coo_array((np.ones(len(p)), (p, q)), shape=(3 * k, 3 * k)), directed=False)
    return label, int(fans)


def remove_pinches(
    tets: NDArray[np.int32], volumes: NDArray[np.float64], on_surface: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Take away the few tetrahedra that meet the rest in an edge or a node only; also all but the largest body.

    Returns which tets to keep (m,) and the surface flags (n,) that then hold. A pinch comes where the wall or a gap is thinner than the
    lattice; around it the part with the least volume goes.
    """
    keep, flags = np.ones(len(tets), bool), on_surface.copy()
    for _ in range(10):
        where = np.flatnonzero(keep)
        bad = _pinched(boundary_faces(tets[where], flags))
        drop = np.unique(np.concatenate([_smaller_parts(tets[where], volumes[where], nodes) for nodes in bad])) if bad else np.zeros(0, int)
        if not len(drop):
            break
        flags[tets[where[drop]]] = True
        keep[where[drop]] = False
    return keep, flags


def _pinched(triangles: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Node sets (an edge or one node) at which the surface is not a disk."""
    n = int(triangles.max()) + 1
    keys, inverse, count = np.unique(_keys(triangles[:, EDGES].reshape(-1, 2), n), return_inverse=True, return_counts=True)
    edges = [np.array([key // n, key % n], np.int32) for key in keys[count > 2]]
    fan, fans = _fans(triangles, inverse)
    owner = np.zeros(fans, np.int64)
    owner[fan] = triangles.ravel()
    taken = {int(v) for edge in edges for v in edge}
    nodes = [np.array([v], np.int32) for v in np.flatnonzero(np.bincount(owner, minlength=n) > 1) if int(v) not in taken]
    return edges + nodes


def _smaller_parts(tets: NDArray[np.int32], volumes: NDArray[np.float64], nodes: NDArray[np.int32]) -> NDArray[np.int_]:
    """Tetrahedra round an edge or node, without the largest group connected by faces there; the smallest one if all are connected."""
    around = np.flatnonzero(np.all([(tets == v).any(axis=1) for v in nodes], axis=0))
    if not len(around):
        return around
    count, label = tet_components(tets[around])
    size = np.bincount(label, volumes[around])
    if count == 1:
        return around[[int(np.argmin(volumes[around]))]]
    return around[label != int(np.argmax(size))]


def tet_components(tets: NDArray[np.int32]) -> tuple[int, NDArray[np.int32]]:
    """Bodies of tetrahedra that share faces: their number and the body of each tetrahedron (m,)."""
    keys = _keys(tets[:, FACES].reshape(-1, 3), int(tets.max()) + 1)
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    a, b = order[:-1][same] // 4, order[1:][same] // 4
    count, label = connected_components(sp.coo_array((np.ones(len(a)), (a, b)), shape=(len(tets), len(tets))), directed=False)
    return int(count), label


def split_surfaces(
    points_mm: NDArray[np.float64], triangles: NDArray[np.int32], heart: ImplicitHeart, plane: NDArray[np.bool_] | None = None
) -> dict[str, NDArray[np.int32]]:
    """Boundary triangles (k, 3) by name: lv_endo, rv_endo, epi, base.

    A face belongs to the function that is largest, so nearest to zero, at its centre; or to the base, if all its corners lie in it (`plane`
    (n,): nodes on a flat base). Every name but base keeps one patch; smaller patches take the name of the neighbours with which they
    share most edges.
    """
    parts = heart.parts(points_mm[triangles].mean(axis=1))
    if plane is not None and plane.any():
        parts[plane[triangles].all(axis=1), 3] = np.inf
    label = np.array([SURFACES.index(name) for name in ("epi", "lv_endo", "rv_endo", "base")])[np.argmax(parts, axis=1)]
    if heart.opening is not None and not heart.opening.flat:
        corner = points_mm[triangles]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        upward = normal @ heart.opening.normal > 0.6 * np.linalg.norm(normal, axis=1)
        near = heart.opening.height(corner.mean(axis=1)) > -3.0 * max(heart.opening.spread_mm, 1.0)
        label[(label == SURFACES.index("epi")) & upward & near] = SURFACES.index("base")
    label = _one_patch_each(label, _adjacency(triangles))
    return {name: triangles[label == number] for number, name in enumerate(SURFACES)}


def _one_patch_each(label: NDArray[np.int_], adjacency: sp.csr_array) -> NDArray[np.int_]:
    """Give small stray patches the label around them; in at most 20 rounds."""
    label = label.copy()
    rows, cols = adjacency.nonzero()
    for _ in range(20):
        same = label[rows] == label[cols]
        k = len(label)
        count, patch = connected_components(sp.coo_array((np.ones(same.sum()), (rows[same], cols[same])), shape=(k, k)), directed=False)
        size = np.bincount(patch)
        name = np.zeros(count, np.int64)
        name[patch] = label
        main = {value: np.flatnonzero(name == value)[np.argmax(size[name == value])] for value in np.unique(name)}
        base = SURFACES.index("base")
        stray = np.array([main[name[p]] != p and not (name[p] == base and size[p] > 0.05 * size[main[base]]) for p in range(count)])
        if not stray.any():
            break
        shared = np.zeros((count, len(SURFACES)))
        crossing = ~same & stray[patch[rows]]
        np.add.at(shared, (patch[rows[crossing]], label[cols[crossing]]), 1.0)
        change = stray & (shared.sum(axis=1) > 0)
        if not change.any():
            break
        name[change] = np.argmax(shared[change], axis=1)
        label = name[patch]
    return label
