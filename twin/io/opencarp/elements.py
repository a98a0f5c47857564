"""Kinds of openCARP's elements, and hexahedra, prisms and pyramids cut into tetrahedra so that neighbours still fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.mesh import signed_volumes_mm3


@dataclass(frozen=True)
class Kind:
    """code: number in .belem (the order of openCARP's and meshtool's list); word: in .elem; nodes: how many; solid: has a volume."""

    code: int
    word: str
    name: str
    nodes: int
    solid: bool


ELEMENTS = (
    Kind(0, "Tt", "tetrahedra", 4, True),
    Kind(1, "Hx", "hexahedra", 8, True),
    Kind(2, "Oc", "octahedra", 6, True),
    Kind(3, "Py", "pyramids", 5, True),
    Kind(4, "Pr", "prisms", 6, True),
    Kind(5, "Qd", "quadrilaterals", 4, False),
    Kind(6, "Tr", "triangles", 3, False),
    Kind(7, "Ln", "lines", 2, False),
)
BY_WORD = {kind.word: kind for kind in ELEMENTS}
BY_CODE = {kind.code: kind for kind in ELEMENTS}

# faces as cycles of corners that all turn the same way seen from outside, in VTK's order; CARP numbers the far face the other way round
_HEXAHEDRON = ((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7))
_PRISM = ((0, 2, 1), (3, 4, 5), (0, 1, 4, 3), (1, 2, 5, 4), (2, 0, 3, 5))
_PYRAMID = ((0, 3, 2, 1), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4))
_FACES = {"Hx": _HEXAHEDRON, "Pr": _PRISM, "Py": _PYRAMID}
_CARP_TO_VTK = {"Hx": (0, 1, 2, 3, 4, 7, 6, 5), "Pr": (0, 1, 2, 3, 5, 4), "Py": (0, 1, 2, 3, 4)}


def split(word: str, nodes: NDArray[np.int64], points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut elements (n, k) of one kind into tetrahedra: (m, 4) nodes, positively oriented, and (m,) the element each came from.

    Every element is a fan from its lowest node over the faces that do not touch it; a quadrilateral is cut from its own lowest node.
    Which node that is depends on the node numbers alone, so two elements cut their common face the same way (Dompierre et al. 1999,
    "How to subdivide pyramids, prisms and hexahedra into tetrahedra"). Corners are taken in CARP's order, or in VTK's where only
    that one gives every tetrahedron a positive volume. An element for which neither does has a row -1 in the nodes.
    """
    if word == "Tt":
        return _oriented(nodes, points), np.arange(len(nodes))
    carp = np.ascontiguousarray(nodes[:, _CARP_TO_VTK[word]])
    tets, owner = _fan(_FACES[word], carp)
    bad = _bad_elements(tets, owner, points, len(nodes))
    if bad.any():
        other, other_owner = _fan(_FACES[word], nodes[bad])
        still = _bad_elements(other, other_owner, points, int(bad.sum()))
        index = np.flatnonzero(bad)
        tets = np.concatenate([tets[~bad[owner]], np.where(still[other_owner][:, None], -1, other)])
        owner = np.concatenate([owner[~bad[owner]], index[other_owner]])
    good = tets[:, 0] >= 0
    tets[good] = _oriented(tets[good], points)
    order = np.argsort(owner, kind="stable")
    return tets[order], owner[order]


def _fan(faces: tuple[tuple[int, ...], ...], nodes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tetrahedra from the lowest node of each element to the cut faces away from it; rows in order of element within a face."""
    lowest = np.argmin(nodes, axis=1)
    tets, owner = [], []
    for apex in range(nodes.shape[1]):
        rows = np.flatnonzero(lowest == apex)
        for face in faces:
            if apex in face or not len(rows):
                continue
            corners = nodes[rows[:, None], np.array(face)]
            if len(face) == 4:
                turn = np.argmin(corners, axis=1)
                corners = np.take_along_axis(corners, (turn[:, None] + np.arange(4)) % 4, axis=1)
            for k in range(1, len(face) - 1):
                tets.append(np.column_stack([nodes[rows, apex], corners[:, 0], corners[:, k], corners[:, k + 1]]))
                owner.append(rows)
    if not tets:
        return np.zeros((0, 4), np.int64), np.zeros(0, np.int64)
    return np.concatenate(tets), np.concatenate(owner)


def _oriented(tets: NDArray[np.int64], points: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.where((signed_volumes_mm3(points, tets) < 0)[:, None], tets[:, [0, 2, 1, 3]], tets)


def _bad_elements(tets: NDArray[np.int64], owner: NDArray[np.int64], points: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Elements whose pieces do not all have the same sign of volume (a wrong order of corners folds the fan over itself)."""
    volume = signed_volumes_mm3(points, tets)
    size = np.bincount(owner, np.abs(volume), minlength=count)
    flat = np.abs(volume) <= 1e-12 * size[owner]
    plus = np.bincount(owner, volume > 0, minlength=count)
    minus = np.bincount(owner, volume < 0, minlength=count)
    return (plus * minus > 0) | (np.bincount(owner, flat, minlength=count) > 0)
