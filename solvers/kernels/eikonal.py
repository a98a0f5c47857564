"""Anisotropic first arrival on tetrahedra: the exact minimum over a linear simplex, and a label-correcting event queue around it.

Lengths are times: the metric edge length of an edge is how long a plane wave along it takes. Arrays in, arrays out.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.kernels.heap import pop, push

EDGE_OF = np.array([[-1, 0, 1, 2], [0, -1, 3, 4], [1, 3, -1, 5], [2, 4, 5, -1]], dtype=np.int64)
"""Number of the edge between two local vertices; edges are 01, 02, 03, 12, 13, 23."""


@njit(cache=True, nogil=True)
def node_to_tets(tets: NDArray[np.int32], use: NDArray[np.bool_], n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """CSR table (n + 1,), (4 * used,) of the used tetrahedra around each node, in ascending order."""
    start = np.zeros(n + 1, np.int32)
    for e in range(len(tets)):
        if use[e]:
            for i in range(4):
                start[tets[e, i] + 1] += 1
    for v in range(n):
        start[v + 1] += start[v]
    place = start[:-1].copy()
    around = np.empty(start[n], np.int32)
    for e in range(len(tets)):
        if use[e]:
            for i in range(4):
                around[place[tets[e, i]]] = e
                place[tets[e, i]] += 1
    return start, around


@njit(cache=True, nogil=True)
def edge_parts(
    points: NDArray[np.float64],
    tets: NDArray[np.int32],
    fibre: NDArray[np.float64],
    along2: NDArray[np.floating],
    across2: NDArray[np.floating],
) -> None:
    """Squared components along and across the fibre of the six edges of every tetrahedron, into (m, 6), (m, 6) mm^2."""
    for e in range(len(tets)):
        k = 0
        for i in range(3):
            for j in range(i + 1, 4):
                a, b = tets[e, i], tets[e, j]
                x, y, z = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
                along = x * fibre[e, 0] + y * fibre[e, 1] + z * fibre[e, 2]
                along2[e, k] = along * along
                across2[e, k] = max(x * x + y * y + z * z - along * along, 0.0)
                k += 1


@njit(cache=True, nogil=True)
def face_owners(
    start: NDArray[np.int32], around: NDArray[np.int32], tets: NDArray[np.int32], triangles: NDArray[np.int32]
) -> NDArray[np.int32]:
    """A tetrahedron of the table that each triangle (k, 3) is a face of, (k,), -1 where there is none."""
    out = np.full(len(triangles), -1, np.int32)
    for t in range(len(triangles)):
        a, b, c = triangles[t]
        for k in range(start[a], start[a + 1]):
            e = around[k]
            found = 0
            for i in range(4):
                if tets[e, i] == b or tets[e, i] == c:
                    found += 1
            if found == 2:
                out[t] = e
                break
    return out


@njit(cache=True, nogil=True)
def nodes_to_triangles(triangles: NDArray[np.int32], n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """CSR table (n + 1,), (3 * k,) of the triangles around each node, in ascending order."""
    start = np.zeros(n + 1, np.int32)
    for t in range(len(triangles)):
        for i in range(3):
            start[triangles[t, i] + 1] += 1
    for v in range(n):
        start[v + 1] += start[v]
    place = start[:-1].copy()
    around = np.empty(start[n], np.int32)
    for t in range(len(triangles)):
        for i in range(3):
            around[place[triangles[t, i]]] = t
            place[triangles[t, i]] += 1
    return start, around


@njit(cache=True, nogil=True)
def from_edge(tp: float, tq: float, vp: float, vq: float, pq: float, slow2: float) -> tuple[float, float]:
    """Earliest arrival at v over the edge p-q and the weight of q at its foot point; q is never the foot alone.

    tp, tq: times at p, q; vp, vq, pq: squared metric lengths; slow2: square of the slowness relative to the metric.
    """
    g = 0.5 * (vp + vq - pq)
    det = vp * vq - g * g
    d = tq - tp
    if det > 1e-12 * vp * vq:
        b = d * (vp - g)
        root = b * b - pq * (d * d * vp - slow2 * det)
        if root >= 0.0:
            up = (b + np.sqrt(root)) / pq
            wp = vq * up - g * (up - d)
            wq = vp * (up - d) - g * up
            if wp >= 0.0 and wq >= 0.0 and wp + wq > 0.0:
                return tp + up, wq / (wp + wq)
    return tp + np.sqrt(vp * slow2), 0.0


@njit(cache=True, nogil=True)
def from_face(
    tp: float, tq: float, tr: float, vp: float, vq: float, vr: float, pq: float, pr: float, qr: float, slow2: float
) -> tuple[float, float, float]:
    """Earliest arrival at v over the triangle p-q-r and the weights of q and r at the foot point.

    The characteristic must leave through the triangle, else the edges p-q and p-r and the vertex p are tried: what does not touch p
    was tried when its own last vertex fired. The minimum is convex, so an inner solution is the answer.
    """
    gpq = 0.5 * (vp + vq - pq)
    gpr = 0.5 * (vp + vr - pr)
    gqr = 0.5 * (vq + vr - qr)
    # adjugate of the Gram matrix of the three edge vectors
    app = vq * vr - gqr * gqr
    aqq = vp * vr - gpr * gpr
    arr = vp * vq - gpq * gpq
    apq = gpr * gqr - gpq * vr
    apr = gpq * gqr - gpr * vq
    aqr = gpq * gpr - gqr * vp
    det = vp * app + gpq * apq + gpr * apr
    if det > 1e-12 * vp * vq * vr:
        dq, dr = tq - tp, tr - tp
        a = app + aqq + arr + 2.0 * (apq + apr + aqr)
        b = dq * (apq + aqq + aqr) + dr * (apr + aqr + arr)
        root = b * b - a * (dq * dq * aqq + 2.0 * dq * dr * aqr + dr * dr * arr - slow2 * det)
        if root >= 0.0:
            up = (b + np.sqrt(root)) / a
            uq, ur = up - dq, up - dr
            wp = app * up + apq * uq + apr * ur
            wq = apq * up + aqq * uq + aqr * ur
            wr = apr * up + aqr * uq + arr * ur
            if wp >= 0.0 and wq >= 0.0 and wr >= 0.0:
                total = wp + wq + wr
                if total > 0.0:
                    return tp + up, wq / total, wr / total
    time_q, weight_q = from_edge(tp, tq, vp, vq, pq, slow2)
    time_r, weight_r = from_edge(tp, tr, vp, vr, pr, slow2)
    if time_q <= time_r:
        return time_q, weight_q, 0.0
    return time_r, 0.0, weight_r


@njit(cache=True, nogil=True)
def metric_lengths2(
    along2: NDArray[np.floating], across2: NDArray[np.floating], speed_l: NDArray[np.float64], speed_t: NDArray[np.float64]
) -> NDArray[np.floating]:
    """Squared metric edge lengths (m, 6) ms^2 from squared edge components (m, 6) mm^2 and one speed pair per tetrahedron."""
    out = np.empty_like(along2)
    for e in range(len(along2)):
        sl, st = 1.0 / (speed_l[e] * speed_l[e]), 1.0 / (speed_t[e] * speed_t[e])
        for k in range(6):
            out[e, k] = along2[e, k] * sl + across2[e, k] * st
    return out


@njit(cache=True, nogil=True)
def first_arrival(
    start: NDArray[np.int32],
    around: NDArray[np.int32],
    tets: NDArray[np.int32],
    length2: NDArray[np.floating],
    sheet_start: NDArray[np.int32],
    sheet_around: NDArray[np.int32],
    triangles: NDArray[np.int32],
    sheet_length2: NDArray[np.floating],
    source_nodes: NDArray[np.int32],
    source_times: NDArray[np.floating],
    tolerance_ms: float,
) -> tuple[NDArray[np.floating], NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """First arrival at every node, with the simplex that it came from; times in the type of `source_times`.

    The wave also runs over the triangles (k, 3) of a sheet with squared edge times (k, 3) of edges 01, 02, 12.
    Returns time (n,) inf where unreached; via (n,) the tetrahedron used, -2 - t for triangle t, -1 at sources and unreached nodes;
    origin (n, 3) nodes of the simplex and weight (n, 3) of each at the foot point. A fired node is queued again when a later simplex
    makes it earlier by more than `tolerance_ms`: without that the scheme does not converge at strong anisotropy.
    """
    n = len(start) - 1
    time = np.full(n, np.inf, source_times.dtype)
    fired = np.zeros(n, np.bool_)
    via = np.full(n, -1, np.int32)
    origin = np.zeros((n, 3), np.int32)
    weight = np.zeros((n, 3))
    capacity = 4 * n + 64
    heap_time, heap_node, size = np.empty(capacity), np.empty(capacity, np.int32), 0
    for k in range(len(source_nodes)):
        v = source_nodes[k]
        if start[v + 1] > start[v] and source_times[k] < time[v]:
            time[v] = source_times[k]
            size = push(heap_time, heap_node, size, time[v], v)
    while size > 0:
        p, tp = heap_node[0], heap_time[0]
        size = pop(heap_time, heap_node, size)
        if tp != time[p]:
            continue
        fired[p] = True
        for k in range(start[p], start[p + 1]):
            e = around[k]
            ip = 0
            while tets[e, ip] != p:
                ip += 1
            for step in range(1, 4):
                iv = (ip + step) & 3
                v = tets[e, iv]
                iq, ir = (ip + step % 3 + 1) & 3, (ip + (step + 1) % 3 + 1) & 3
                q, r = tets[e, iq], tets[e, ir]
                tq = time[q] if fired[q] else np.inf
                tr = time[r] if fired[r] else np.inf
                # no arrival can precede all of its origins
                if time[v] <= min(tp, tq, tr):
                    continue
                vp = length2[e, EDGE_OF[iv, ip]]
                wq, wr = 0.0, 0.0
                if tq < np.inf and tr < np.inf:
                    t, wq, wr = from_face(
                        tp,
                        tq,
                        tr,
                        vp,
                        length2[e, EDGE_OF[iv, iq]],
                        length2[e, EDGE_OF[iv, ir]],
                        length2[e, EDGE_OF[ip, iq]],
                        length2[e, EDGE_OF[ip, ir]],
                        length2[e, EDGE_OF[iq, ir]],
                        1.0,
                    )
                elif tq < np.inf:
                    t, wq = from_edge(tp, tq, vp, length2[e, EDGE_OF[iv, iq]], length2[e, EDGE_OF[ip, iq]], 1.0)
                elif tr < np.inf:
                    t, wr = from_edge(tp, tr, vp, length2[e, EDGE_OF[iv, ir]], length2[e, EDGE_OF[ip, ir]], 1.0)
                else:
                    t = tp + np.sqrt(vp)
                if t < time[v] - tolerance_ms:
                    time[v], via[v] = t, e
                    origin[v, 0], origin[v, 1], origin[v, 2] = p, q, r
                    weight[v, 0], weight[v, 1], weight[v, 2] = 1.0 - wq - wr, wq, wr
                    if size == capacity:
                        capacity *= 2
                        heap_time = np.concatenate((heap_time, np.empty(size)))
                        heap_node = np.concatenate((heap_node, np.empty(size, np.int32)))
                    size = push(heap_time, heap_node, size, time[v], v)
        for k in range(sheet_start[p], sheet_start[p + 1]):
            e = sheet_around[k]
            ip = 0
            while triangles[e, ip] != p:
                ip += 1
            for step in range(1, 3):
                iv, iq = (ip + step) % 3, (ip + 3 - step) % 3
                v, q = triangles[e, iv], triangles[e, iq]
                tq = time[q] if fired[q] else np.inf
                if time[v] <= min(tp, tq):
                    continue
                # edge 01 is 0, 02 is 1, 12 is 2: the sum of its ends less one
                vp, wq = sheet_length2[e, iv + ip - 1], 0.0
                if tq < np.inf:
                    t, wq = from_edge(tp, tq, vp, sheet_length2[e, iv + iq - 1], sheet_length2[e, ip + iq - 1], 1.0)
                else:
                    t = tp + np.sqrt(vp)
                if t < time[v] - tolerance_ms:
                    time[v], via[v] = t, -2 - e
                    origin[v, 0], origin[v, 1], origin[v, 2] = p, q, p
                    weight[v, 0], weight[v, 1], weight[v, 2] = 1.0 - wq, wq, 0.0
                    if size == capacity:
                        capacity *= 2
                        heap_time = np.concatenate((heap_time, np.empty(size)))
                        heap_node = np.concatenate((heap_node, np.empty(size, np.int32)))
                    size = push(heap_time, heap_node, size, time[v], v)
    return time, via, origin, weight


@njit(cache=True, nogil=True)
def tangent(
    order: NDArray[np.int64],
    origin: NDArray[np.int32],
    weight: NDArray[np.float64],
    own: NDArray[np.float64],
    tolerance: float,
    sweeps: int,
) -> NDArray[np.float64]:
    """Solve S[v] = own[v] + sum_i weight[v, i] S[origin[v, i]] for (n, c) by sweeps in the order of arrival.

    One sweep is exact when every origin fired before; obtuse simplices need a few more.
    """
    out = np.zeros_like(own)
    for _ in range(sweeps):
        change = 0.0
        for v in order:
            for c in range(own.shape[1]):
                s = own[v, c]
                for i in range(3):
                    s += weight[v, i] * out[origin[v, i], c]
                change = max(change, abs(s - out[v, c]))
                out[v, c] = s
        if change < tolerance:
            break
    return out


@njit(cache=True, nogil=True)
def adjoint(
    order: NDArray[np.int64],
    origin: NDArray[np.int32],
    weight: NDArray[np.float64],
    load: NDArray[np.float64],
    tolerance: float,
    sweeps: int,
) -> NDArray[np.float64]:
    """Transpose of `tangent` for one column: carry a load (n,) on arrival times back along the origins; returns the total at each node."""
    out = np.zeros_like(load)
    pending = load.copy()
    for _ in range(sweeps):
        left = 0.0
        for v in order[::-1]:
            y = pending[v]
            if y != 0.0:
                pending[v] = 0.0
                out[v] += y
                for i in range(3):
                    pending[origin[v, i]] += weight[v, i] * y
        for v in order:
            left = max(left, abs(pending[v]))
        if left < tolerance:
            break
    # what is still pending has reached the sources
    return out + pending
