"""Meshes of analytic shells for tests: the surfaces known exactly."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from meshing.mesh_labels import mesh_heart
from meshing.phantom import Ventricles
from twin.mesh import HeartMesh


def boundary(points: NDArray[np.float64], tets: NDArray[np.int32]) -> NDArray[np.int32]:
    """Boundary triangles (k, 3), normals outward."""
    faces = np.concatenate([tets[:, [1, 2, 3]], tets[:, [0, 3, 2]], tets[:, [0, 1, 3]], tets[:, [0, 2, 1]]])
    _, first, count = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
    return faces[first[count == 1]].astype(np.int32)


def bare(points: NDArray[np.float64], tets: NDArray[np.int32], surfaces: dict[str, NDArray[np.int32]]) -> HeartMesh:
    """A healthy mesh without fibres."""
    empty = np.zeros((len(tets), 3))
    return HeartMesh(points, tets, np.ones(len(tets), np.int16), surfaces, empty, empty)


def moved(mesh: HeartMesh, rotation: NDArray[np.float64], shift: NDArray[np.float64]) -> HeartMesh:
    """The mesh turned, then shifted; its vectors turn with it."""
    turn = rotation.T
    return replace(mesh, points_mm=mesh.points_mm @ turn + shift, fibre=mesh.fibre @ turn, sheet=mesh.sheet @ turn)


def lv_shell(
    inner: tuple[float, float] = (22.0, 60.0),
    outer: tuple[float, float] = (32.0, 70.0),
    rings: int = 20,
    layers: int = 6,
    top: float = 100.0,
) -> HeartMesh:
    """Shell between two spheroids (radius, half length), long axis z, apex at -z, open above `top` degrees from the apex.

    A disc of triangles is bent to a cup and extruded outward: every ring is a parallel, every layer a surface of equal depth.
    """
    r = [0.0] + [i / rings for i in range(1, rings + 1) for _ in range(6 * i)]
    phi = [0.0] + [2 * np.pi * j / (6 * i) for i in range(1, rings + 1) for j in range(6 * i)]
    polar, phi_ = np.radians(top) * np.array(r), np.array(phi)
    triangles = _disc(rings)
    depth = np.linspace(0.0, 1.0, layers + 1)
    radius = inner[0] + (outer[0] - inner[0]) * depth[:, None]
    length = inner[1] + (outer[1] - inner[1]) * depth[:, None]
    x, y = radius * np.sin(polar) * np.cos(phi_), radius * np.sin(polar) * np.sin(phi_)
    points = np.stack([x, y, -length * np.cos(polar)], axis=-1).reshape(-1, 3)
    n = len(r)
    tets = []
    ordered = np.sort(triangles, axis=1)  # splitting by node number makes neighbouring prisms agree on their diagonals
    for layer in range(layers):
        a, b, c = (ordered[:, i] + layer * n for i in range(3))
        tets += [np.stack(t, axis=1) for t in ((a, b, c, c + n), (a, b, b + n, c + n), (a, a + n, b + n, c + n))]
    cells = np.concatenate(tets).astype(np.int32)
    p = points[cells]
    volume = np.einsum("ij,ij->i", p[:, 1] - p[:, 0], np.cross(p[:, 2] - p[:, 0], p[:, 3] - p[:, 0]))
    cells[volume < 0] = cells[volume < 0][:, [0, 2, 1, 3]]
    faces = boundary(points, cells)
    level, edge = faces // n, faces % n >= n - 6 * rings
    endo, epi = (level == 0).all(axis=1), (level == layers).all(axis=1)
    base = edge.all(axis=1) & ~endo & ~epi
    return bare(points, cells, {"lv_endo": faces[endo], "epi": faces[epi], "base": faces[base], "rv_endo": np.zeros((0, 3), np.int32)})


def _disc(rings: int) -> NDArray[np.int64]:
    """Triangles of concentric rings of 6 i points."""
    out = []
    start = [0] + [1 + 3 * i * (i + 1) for i in range(rings)]
    for i in range(1, rings + 1):
        inner, outer = 6 * (i - 1), 6 * i
        for side in range(6):
            for k in range(i):
                o = [start[i] + (side * i + k + s) % outer for s in (0, 1)]
                if i == 1:
                    out.append([0, *o])
                    continue
                q = [start[i - 1] + (side * (i - 1) + k + s) % inner for s in (0, 1)]
                out.append([q[0], *o])
                if k < i - 1:
                    out.append([q[0], o[1], q[1]])
    return np.array(out)


def box(half_mm: float, cells: int) -> HeartMesh:
    """A cube of muscle about the origin, six tetrahedra per cell; no cavity, the whole boundary is `epi`."""
    line = np.linspace(-half_mm, half_mm, cells + 1)
    points = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    step = np.array([(cells + 1) ** 2, cells + 1, 1])
    corner = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ step
    tets = []
    for order in itertools.permutations(range(3)):
        a, b, c, d = (corner + step[list(order[:i])].sum() for i in range(4))
        even = round(np.linalg.det(np.eye(3)[list(order)])) > 0
        tets.append(np.stack([a, b, c, d] if even else [a, c, b, d], axis=1))
    cells_ = np.concatenate(tets).astype(np.int32)
    return bare(points, cells_, {"epi": boundary(points, cells_)})


def ventricles(edge_mm: float = 2.2, rv: bool = True) -> HeartMesh:
    """The phantom of both ventricles from its labels; long axis z, base at +12 mm, RV toward -x."""
    return mesh_heart(Ventricles(rv=rv).volume(1.5), edge_mm)
