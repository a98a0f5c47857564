"""Compiled assembly of P1 tetrahedra by rows: little memory, every row by one thread, so the same bytes at any thread count."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def _tets_of_nodes(tets, n):  # type: ignore[no-untyped-def]
    start = np.zeros(n + 1, np.int64)
    for t in range(tets.shape[0]):
        for a in range(4):
            start[tets[t, a] + 1] += 1
    for i in range(n):
        start[i + 1] += start[i]
    fill = start[:-1].copy()
    tet = np.empty(4 * tets.shape[0], np.int32)
    for t in range(tets.shape[0]):
        for a in range(4):
            tet[fill[tets[t, a]]] = t
            fill[tets[t, a]] += 1
    return start, tet


@njit(cache=True, nogil=True)
def _row(tets, tet, first, last, i, found):  # type: ignore[no-untyped-def]
    """Write the sorted neighbours of node i into `found`; return their number."""
    count = 0
    for k in range(first, last):
        for a in range(4):
            j = tets[tet[k], a]
            if j == i:
                continue
            at = count
            while at > 0 and found[at - 1] > j:
                at -= 1
            if at > 0 and found[at - 1] == j:
                continue
            for b in range(count, at, -1):
                found[b] = found[b - 1]
            found[at] = j
            count += 1
    return count


@njit(cache=True, nogil=True)
def _pattern(tets, n, node_start, tet):  # type: ignore[no-untyped-def]
    start = np.zeros(n + 1, np.int64)
    most = 0
    for i in range(n):
        most = max(most, 3 * (node_start[i + 1] - node_start[i]))
    found = np.empty(most + 1, np.int32)
    for i in range(n):
        start[i + 1] = start[i] + _row(tets, tet, node_start[i], node_start[i + 1], i, found)
    column = np.empty(start[n], np.int32)
    for i in range(n):
        count = _row(tets, tet, node_start[i], node_start[i + 1], i, found)
        column[start[i] : start[i] + count] = found[:count]
    return start, column


@njit(cache=True, nogil=True, parallel=True)
def _fill(points, tets, tensor, node_start, tet, start, column, stiffness, mass, lumped):  # type: ignore[no-untyped-def]
    for i in prange(points.shape[0]):
        grad = np.empty((4, 3))
        for k in range(node_start[i], node_start[i + 1]):
            t = tet[k]
            six_volume = _gradients(points, tets[t], grad)
            own = 0
            for a in range(4):
                if tets[t, a] == i:
                    own = a
            gx, gy, gz = grad[own, 0], grad[own, 1], grad[own, 2]
            xx, yy, zz, yz, xz, xy = tensor[t, 0], tensor[t, 1], tensor[t, 2], tensor[t, 3], tensor[t, 4], tensor[t, 5]
            qx, qy, qz = xx * gx + xy * gy + xz * gz, xy * gx + yy * gy + yz * gz, xz * gx + yz * gy + zz * gz
            lumped[i] += six_volume / 24.0
            for a in range(4):
                if a == own:
                    continue
                j = start[i]
                while column[j] != tets[t, a]:
                    j += 1
                stiffness[j] += six_volume / 6.0 * (qx * grad[a, 0] + qy * grad[a, 1] + qz * grad[a, 2])
                mass[j] += six_volume / 120.0


@njit(cache=True, nogil=True)
def _gradients(points, tet, grad):  # type: ignore[no-untyped-def]
    """Fill the gradients of the four shape functions; return six times the volume."""
    e = np.empty((3, 3))
    for a in range(3):
        for x in range(3):
            e[a, x] = points[tet[a + 1], x] - points[tet[0], x]
    six_volume = 0.0
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        for x in range(3):
            y, z = (x + 1) % 3, (x + 2) % 3
            grad[a + 1, x] = e[b, y] * e[c, z] - e[b, z] * e[c, y]
    for x in range(3):
        six_volume += e[0, x] * grad[1, x]
    for x in range(3):
        for a in range(1, 4):
            grad[a, x] /= six_volume
        grad[0, x] = -grad[1, x] - grad[2, x] - grad[3, x]
    return six_volume


def pattern(tets: NDArray[np.int32], n: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Neighbours of every node: start (n + 1,) and sorted columns (nnz,), the diagonal left out."""
    node_start, tet = _tets_of_nodes(tets, n)
    return _pattern(tets, n, node_start, tet)


def assemble(
    points_mm: NDArray[np.float64],
    tets: NDArray[np.int32],
    tensor: NDArray[np.float64],
    start: NDArray[np.int64],
    column: NDArray[np.int32],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Off-diagonal stiffness and consistent mass on the given pattern, and the lumped mass (n,) mm^3.

    tensor (m, 6): xx, yy, zz, yz, xz, xy of each tetrahedron, mm^2/ms. Stiffness rows sum to zero, mass rows to the lumped mass.
    """
    node_start, tet = _tets_of_nodes(tets, len(points_mm))
    stiffness, mass, lumped = np.zeros(len(column)), np.zeros(len(column)), np.zeros(len(points_mm))
    _fill(points_mm, tets, tensor, node_start, tet, start, column, stiffness, mass, lumped)
    return stiffness, mass, lumped
