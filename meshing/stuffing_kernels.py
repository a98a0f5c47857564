"""Compiled parts of isosurface stuffing: cut edges, warping and stencils on the body-centred cubic lattice.

Lattice numbering: corner (i, j, k) of an (nx, ny, nz) grid is `(i * ny + j) * nz + k`; the centre of the cube above it is the same
number plus nx * ny * nz. Every vertex has 14 edges: slots 0-5 are long (-x, +x, -y, +y, -z, +z), slots 6-13 short (one per octant).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

LONG_SLOTS = 6


@njit(cache=True, nogil=True)
def _neighbour(u: int, slot: int, nx: int, ny: int, nz: int) -> int:
    """Vertex at the other end of an edge, -1 outside the grid."""
    n = nx * ny * nz
    centre = u >= n
    w = u - n if centre else u
    k = w % nz
    j = (w // nz) % ny
    i = w // (nz * ny)
    if slot < 6:
        step = 1 if slot % 2 == 1 else -1
        if slot < 2:
            i += step
        elif slot < 4:
            j += step
        else:
            k += step
    else:
        octant = slot - 6
        back = 0 if centre else -1
        i += back + (octant & 1)
        j += back + ((octant >> 1) & 1)
        k += back + ((octant >> 2) & 1)
        centre = not centre
    if i < 0 or j < 0 or k < 0 or i >= nx or j >= ny or k >= nz:
        return -1
    return (i * ny + j) * nz + k + (n if centre else 0)


@njit(cache=True, nogil=True)
def opposite_slot(slot: int) -> int:
    """The same edge seen from its other end."""
    if slot < 6:
        return slot ^ 1
    return 6 + (7 - (slot - 6))


@njit(cache=True, nogil=True)
def cut_edges(sign: NDArray[np.int8], nx: int, ny: int, nz: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int8]]:
    """Edges whose ends have opposite signs: first vertex, second vertex (larger number), slot seen from the first."""
    total = 2 * nx * ny * nz
    count = 0
    for fill in range(2):
        if fill == 1:
            first = np.empty(count, np.int32)
            second = np.empty(count, np.int32)
            slots = np.empty(count, np.int8)
            count = 0
        for u in range(total):
            if sign[u] == 0:
                continue
            for slot in range(14):
                v = _neighbour(u, slot, nx, ny, nz)
                if v > u and sign[u] * sign[v] < 0:
                    if fill == 1:
                        first[count] = u
                        second[count] = v
                        slots[count] = slot
                    count += 1
    return first, second, slots


@njit(cache=True, nogil=True)
def edge_table(
    first: NDArray[np.int32], second: NDArray[np.int32], slots: NDArray[np.int8], total: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Number the vertices that touch a cut: row (total,) with -1 elsewhere, their ids in rising order, cuts (rows, 14) with -1 for none."""
    row = np.full(total, -1, np.int32)
    for e in range(len(first)):
        row[first[e]] = 0
        row[second[e]] = 0
    count = 0
    for u in range(total):
        if row[u] == 0:
            row[u] = count
            count += 1
    vertices = np.empty(count, np.int32)
    for u in range(total):
        if row[u] >= 0:
            vertices[row[u]] = u
    cuts = np.full((count, 14), -1, np.int32)
    for e in range(len(first)):
        cuts[row[first[e]], slots[e]] = e
        cuts[row[second[e]], opposite_slot(slots[e])] = e
    return row, vertices, cuts


@njit(cache=True, nogil=True)
def warp(
    sign: NDArray[np.int8],
    points: NDArray[np.float64],
    vertices: NDArray[np.int32],
    cuts: NDArray[np.int32],
    first: NDArray[np.int32],
    second: NDArray[np.int32],
    fraction: NDArray[np.float64],
    cut_points: NDArray[np.float64],
    alpha_long: float,
    alpha_short: float,
) -> int:
    """Move every vertex that a cut violates onto its nearest such cut (in place) and give it sign 0; return how many moved.

    One vertex after the other in rising order: a moved vertex takes the cuts of all its edges with it.
    """
    moved = 0
    for r in range(len(vertices)):
        u = vertices[r]
        if sign[u] == 0:
            continue
        best = -1
        best_length = np.inf
        for slot in range(14):
            e = cuts[r, slot]
            if e < 0 or sign[first[e]] * sign[second[e]] >= 0:
                continue
            t = fraction[e] if first[e] == u else 1.0 - fraction[e]
            length = t if slot < LONG_SLOTS else t * 0.8660254037844386
            if t < (alpha_long if slot < LONG_SLOTS else alpha_short) and length < best_length:
                best, best_length = e, length
        if best >= 0:
            points[u] = cut_points[best]
            sign[u] = 0
            moved += 1
    return moved


@njit(cache=True, nogil=True)
def smallest_dihedral_cosine(p: NDArray[np.float64], a: int, b: int, c: int, d: int) -> float:
    """Cosine of the smallest dihedral angle of a tetrahedron (the largest cosine; 2 if it is flat)."""
    worst = -2.0
    corner = (a, b, c, d)
    for x in range(3):
        for y in range(x + 1, 4):
            # the two corners that are not on this edge
            z = 0
            while z in (x, y):
                z += 1
            w = 6 - x - y - z
            px, py, pz, pw = p[corner[x]], p[corner[y]], p[corner[z]], p[corner[w]]
            e = (py[0] - px[0], py[1] - px[1], py[2] - px[2])
            f = (pz[0] - px[0], pz[1] - px[1], pz[2] - px[2])
            g = (pw[0] - px[0], pw[1] - px[1], pw[2] - px[2])
            n1 = (e[1] * f[2] - e[2] * f[1], e[2] * f[0] - e[0] * f[2], e[0] * f[1] - e[1] * f[0])
            n2 = (e[1] * g[2] - e[2] * g[1], e[2] * g[0] - e[0] * g[2], e[0] * g[1] - e[1] * g[0])
            length = np.sqrt((n1[0] ** 2 + n1[1] ** 2 + n1[2] ** 2) * (n2[0] ** 2 + n2[1] ** 2 + n2[2] ** 2))
            if length < 1e-30:
                return 2.0
            worst = max(worst, (n1[0] * n2[0] + n1[1] * n2[1] + n1[2] * n2[2]) / length)
    return worst


@njit(cache=True, nogil=True)
def _prism(c: NDArray[np.int64], order: NDArray[np.int64], out: NDArray[np.int32]) -> None:
    """Three tetrahedra of the prism c[0..2] below c[3..5]; a column earlier in `order` gives the lower end of each diagonal."""
    i, j, k = order
    out[0] = (c[i], c[j], c[k], c[3 + k])
    out[1] = (c[i], c[j], c[3 + k], c[3 + j])
    out[2] = (c[i], c[3 + i], c[3 + j], c[3 + k])
    if (j - i) % 3 != 1:  # odd permutation of the columns
        for t in range(3):
            out[t, 2], out[t, 3] = out[t, 3], out[t, 2]


@njit(cache=True, nogil=True)
def _column_order(before: NDArray[np.bool_], order: NDArray[np.int64]) -> bool:
    """Total order of three columns from the pairwise one; False if it is a cycle."""
    order[:] = 0
    for x in range(3):
        rank = 0
        for y in range(3):
            if y != x and before[y, x]:
                rank += 1
        order[rank] = x
    return before[order[0], order[1]] and before[order[1], order[2]] and before[order[0], order[2]]


@njit(cache=True, nogil=True)
def _cut_first(a: int, b: int, long_ad: bool, long_bd: bool, pa: int, pb: int, qa: int, qb: int, p: NDArray[np.float64]) -> bool:
    """Rule for the quadrilateral of a face with a, b inside: True if the diagonal joins vertex pa and cut qb, else pb and cut qa.

    The diagonal touches the cut on the long edge (proven angle bound); between two short edges the shorter diagonal, then the numbers.
    """
    if long_ad:
        return False
    if long_bd:
        return True
    d_ab = ((p[pa] - p[qb]) ** 2).sum()
    d_ba = ((p[pb] - p[qa]) ** 2).sum()
    if d_ab == d_ba:
        return a > b
    return d_ab < d_ba


@njit(cache=True, nogil=True)
def _cut(u: int, v: int, slot: int, row: NDArray[np.int32], cuts: NDArray[np.int32], total: int) -> int:
    """Provisional number of the cut on the edge u-v."""
    return total + cuts[row[u], slot]


@njit(cache=True, nogil=True)
def _stencil(
    v: NDArray[np.int64],
    kind: NDArray[np.int64],
    slot: NDArray[np.int64],
    sign: NDArray[np.int8],
    row: NDArray[np.int32],
    cuts: NDArray[np.int32],
    p: NDArray[np.float64],
    total: int,
    out: NDArray[np.int32],
) -> int:
    """Tetrahedra of the inner part of one lattice tetrahedron v, positively oriented if it is; returns their number.

    kind[x] tells the two long edges apart (corners of equal kind), slot[x, y] is the edge slot from corner x to y.
    """
    n_in, n_out = 0, 0
    q = np.empty(4, np.int64)  # corners sorted: inside, zero, outside
    filled = 0
    for wanted in (1, 0, -1):
        for x in range(4):
            if sign[v[x]] == wanted:
                q[filled] = x
                filled += 1
                n_in += wanted == 1
                n_out += wanted == -1
    if n_in == 0:
        return 0
    if n_out == 0:
        for x in range(4):
            out[0, x] = v[x]
        return 1
    inversions = 0
    for x in range(3):
        for y in range(x + 1, 4):
            inversions += q[x] > q[y]
    if inversions % 2 == 1:
        # four corners, three signs: two neighbours in this order have the same sign and may be exchanged
        for x in range(3):
            if sign[v[q[x]]] == sign[v[q[x + 1]]]:
                q[x], q[x + 1] = q[x + 1], q[x]
                break
    a, b, c, d = q[0], q[1], q[2], q[3]
    va, vb, vc, vd = v[a], v[b], v[c], v[d]
    if n_in == 1:
        out[0, 0] = va
        for x in range(1, 4):
            y = q[x]
            out[0, x] = v[y] if sign[v[y]] == 0 else _cut(va, v[y], slot[a, y], row, cuts, total)
        return 1
    ad = _cut(va, vd, slot[a, d], row, cuts, total)
    bd = _cut(vb, vd, slot[b, d], row, cuts, total)
    a_first_d = _cut_first(va, vb, kind[a] == kind[d], kind[b] == kind[d], va, vb, ad, bd, p)
    if n_in == 2 and n_out == 1:
        if a_first_d:
            out[0] = (va, vb, vc, bd)
            out[1] = (va, bd, vc, ad)
        else:
            out[0] = (va, vb, vc, ad)
            out[1] = (ad, vb, vc, bd)
        return 2
    before = np.zeros((3, 3), np.bool_)
    order = np.zeros(3, np.int64)
    if n_in == 3:
        cd = _cut(vc, vd, slot[c, d], row, cuts, total)
        before[0, 1] = a_first_d
        before[0, 2] = _cut_first(va, vc, kind[a] == kind[d], kind[c] == kind[d], va, vc, ad, cd, p)
        before[1, 2] = _cut_first(vb, vc, kind[b] == kind[d], kind[c] == kind[d], vb, vc, bd, cd, p)
        before[1, 0], before[2, 0], before[2, 1] = not before[0, 1], not before[0, 2], not before[1, 2]
        _column_order(before, order)
        _prism(np.array([va, vb, vc, ad, bd, cd]), order, out)
        return 3
    ac = _cut(va, vc, slot[a, c], row, cuts, total)
    bc = _cut(vb, vc, slot[b, c], row, cuts, total)
    before[0, 1] = _cut_first(va, vb, kind[a] == kind[c], kind[b] == kind[c], va, vb, ac, bc, p)
    before[0, 2] = a_first_d
    before[1, 0], before[2, 0] = not before[0, 1], not before[0, 2]
    corners = np.array([va, ac, ad, vb, bc, bd])
    trial = np.empty((3, 4), np.int32)
    best = 3.0
    for choice in (True, False):  # the diagonal on the boundary is free: the better angles win
        before[1, 2], before[2, 1] = choice, not choice
        if _column_order(before, order):
            _prism(corners, order, trial)
            worst = -2.0
            for t in range(3):
                worst = max(worst, smallest_dihedral_cosine(p, trial[t, 0], trial[t, 1], trial[t, 2], trial[t, 3]))
            if worst < best:
                best = worst
                out[:3] = trial
    return 3


@njit(cache=True, nogil=True)
def _slot_between(u: int, v: int, nx: int, ny: int, nz: int) -> int:
    """Edge slot from u to its neighbour v."""
    n = nx * ny * nz
    wu, wv = u % n, v % n
    di = wv // (nz * ny) - wu // (nz * ny)
    dj = (wv // nz) % ny - (wu // nz) % ny
    dk = wv % nz - wu % nz
    if (u >= n) == (v >= n):
        if di != 0:
            return 0 if di < 0 else 1
        if dj != 0:
            return 2 if dj < 0 else 3
        return 4 if dk < 0 else 5
    shift = 0 if u >= n else 1
    return 6 + (di + shift) + 2 * (dj + shift) + 4 * (dk + shift)


@njit(cache=True, nogil=True)
def fill_tets(
    sign: NDArray[np.int8],
    points: NDArray[np.float64],
    row: NDArray[np.int32],
    cuts: NDArray[np.int32],
    nx: int,
    ny: int,
    nz: int,
) -> NDArray[np.int32]:
    """Tetrahedra (m, 4) of everything inside; numbers of `points`: lattice vertices, then cuts."""
    tets = np.empty((_upper_bound(sign, nx, ny, nz), 4), np.int32)
    n = nx * ny * nz
    count = 0
    v = np.empty(4, np.int64)
    kind = np.array([0, 0, 1, 1])
    slot = np.zeros((4, 4), np.int64)
    piece = np.empty((3, 4), np.int32)
    for cell in range(n):
        for axis in range(3):
            for r in range(4):
                if not _lattice_tet(cell, axis, r, nx, ny, nz, v):
                    continue
                low = min(min(sign[v[0]], sign[v[1]]), min(sign[v[2]], sign[v[3]]))
                high = max(max(sign[v[0]], sign[v[1]]), max(sign[v[2]], sign[v[3]]))
                if high <= 0:
                    continue
                if low >= 0:
                    for x in range(4):
                        tets[count, x] = v[x]
                    count += 1
                    continue
                for x in range(4):
                    for y in range(4):
                        if x != y:
                            slot[x, y] = _slot_between(v[x], v[y], nx, ny, nz)
                made = _stencil(v, kind, slot, sign, row, cuts, points, 2 * n, piece)
                tets[count : count + made] = piece[:made]
                count += made
    return tets[:count].copy()


@njit(cache=True, nogil=True)
def _lattice_tet(cell: int, axis: int, r: int, nx: int, ny: int, nz: int, v: NDArray[np.int64]) -> bool:
    """Corners of the r-th tetrahedron round the long edge from the centre of `cell` along `axis`, positive; False outside the grid."""
    i, j, k = cell // (ny * nz), (cell // nz) % ny, cell % nz
    # a cube needs its far corners, and so does the next one along the axis
    if i + 1 + (axis == 0) >= nx or j + 1 + (axis == 1) >= ny or k + 1 + (axis == 2) >= nz:
        return False
    along = ny * nz if axis == 0 else (nz if axis == 1 else 1)
    one = ny * nz if axis == 2 else (nz if axis == 0 else 1)
    two = ny * nz if axis == 1 else (nz if axis == 2 else 1)
    n = nx * ny * nz
    v[0], v[1] = n + cell, n + cell + along
    for x in range(2):
        turn = (r + x) % 4
        v[2 + x] = cell + along + (one if turn == 1 or turn == 2 else 0) + (two if turn >= 2 else 0)
    return True


@njit(cache=True, nogil=True)
def _upper_bound(sign: NDArray[np.int8], nx: int, ny: int, nz: int) -> int:
    """At least as many as the tetrahedra that will be made: one for a whole lattice tetrahedron, three for a cut one."""
    v = np.empty(4, np.int64)
    bound = 0
    for cell in range(nx * ny * nz):
        for axis in range(3):
            for r in range(4):
                if _lattice_tet(cell, axis, r, nx, ny, nz, v):
                    low = min(min(sign[v[0]], sign[v[1]]), min(sign[v[2]], sign[v[3]]))
                    high = max(max(sign[v[0]], sign[v[1]]), max(sign[v[2]], sign[v[3]]))
                    if high > 0:
                        bound += 1 if low >= 0 else 3
    return bound


@njit(cache=True, nogil=True)
def unfilled(sign: NDArray[np.int8], near: NDArray[np.bool_], nx: int, ny: int, nz: int) -> NDArray[np.int32]:
    """Lattice tetrahedra (m, 4) without a vertex inside that have a vertex `near` the surface: where a thin wall may have been missed."""
    v = np.empty(4, np.int64)
    count = 0
    for fill in range(2):
        if fill == 1:
            out = np.empty((count, 4), np.int32)
            count = 0
        for cell in range(nx * ny * nz):
            for axis in range(3):
                for r in range(4):
                    if not _lattice_tet(cell, axis, r, nx, ny, nz, v):
                        continue
                    empty = sign[v[0]] <= 0 and sign[v[1]] <= 0 and sign[v[2]] <= 0 and sign[v[3]] <= 0
                    if empty and (near[v[0]] or near[v[1]] or near[v[2]] or near[v[3]]):
                        if fill == 1:
                            for x in range(4):
                                out[count, x] = v[x]
                        count += 1
    return out


@njit(cache=True, nogil=True)
def compress(tets: NDArray[np.int32], n_points: int) -> NDArray[np.int32]:
    """Renumber (in place) to the points in use; returns the old numbers in the new order."""
    new = np.full(n_points, -1, np.int32)
    for t in range(len(tets)):
        for x in range(4):
            new[tets[t, x]] = 0
    count = 0
    for u in range(n_points):
        if new[u] == 0:
            new[u] = count
            count += 1
    old = np.empty(count, np.int32)
    for u in range(n_points):
        if new[u] >= 0:
            old[new[u]] = u
    for t in range(len(tets)):
        for x in range(4):
            tets[t, x] = new[tets[t, x]]
    return old
