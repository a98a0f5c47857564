"""Event loop of the re-excitable eikonal: fire the earliest pending node, offer its neighbours a time, or block them. Arrays only.

State of a node: `time` of its last firing, `end` of that action potential, `ready` from when on it may fire again (and the values of
`end` and `ready` before the last firing, for corrections), `trial` time of its pending firing (inf: none) and the node that caused it.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.kernels.eikonal import EDGE_OF, from_edge, from_face
from solvers.kernels.heap import drop_stale, pop, push

QUIET, REACHED, SUSTAINED, LOG_FULL, HEAP_FULL = 0, 1, 2, 3, 4
BLOCKED, WAITED, CORRECTED, FIRED = 0, 1, 2, 3
"""Places in `counts`."""

STIMULUS, OLDER = -1, -2
"""Parents that are no row of the log: a stimulus, and a firing before this run."""

NEVER_MS = -1.0e9
"""End of the last action potential of tissue at rest: finite, so that differences stay finite."""

LAG_MS = 50.0
"""Running freely, a front that has waited gathers strength again within about this time."""

SHORT_DI_MS = 150.0
CV_MOVED = 0.02
GATE_SLACK = 1.01
ROUNDING_MS = 1e-6
"""Far above the rounding of an arrival, far below what a correction counts for."""

LONGEST_GATE_MS = 150.0
"""No action potential is shorter and no edge takes longer: two firings of a node within this time are one wave."""


@njit(cache=True, nogil=True)
def look_up(table: NDArray[np.float32], di_min: NDArray[np.float64], weights: NDArray[np.float32], v: int, di: float) -> float:
    """Value of a (regions, k) table of 1 ms pitch that starts at each region's smallest DI, mixed by the weights of node v."""
    total = 0.0
    last = table.shape[1] - 1
    for r in range(table.shape[0]):
        w = weights[v, r]
        if w > 0.0:
            x = di - di_min[r]
            if x <= 0.0:
                value = table[r, 0]
            elif x >= last:
                value = table[r, last]
            else:
                i = int(x)
                value = table[r, i] + (x - i) * (table[r, i + 1] - table[r, i])
            total += w * value
    return total


@njit(cache=True, nogil=True)
def last_factors(
    cv: NDArray[np.float32],
    di_min: NDArray[np.float64],
    weights: NDArray[np.float32],
    time: NDArray[np.float64],
    end_before: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Velocity factor (n,) of the last firing of every node."""
    out = np.empty(len(time))
    for v in range(len(time)):
        out[v] = look_up(cv, di_min, weights, v, time[v] - end_before[v])
    return out


@njit(cache=True, nogil=True)
def arrival(
    length2: NDArray[np.float64], e: int, iv: int, ip: int, iq: int, ir: int, tp: float, tq: float, tr: float, slow2: float
) -> float:
    """Arrival at local vertex iv of tetrahedron e from those of its vertices that fired (time inf: did not)."""
    vp = length2[e, EDGE_OF[iv, ip]]
    if tq < np.inf and tr < np.inf:
        return from_face(
            tp,
            tq,
            tr,
            vp,
            length2[e, EDGE_OF[iv, iq]],
            length2[e, EDGE_OF[iv, ir]],
            length2[e, EDGE_OF[ip, iq]],
            length2[e, EDGE_OF[ip, ir]],
            length2[e, EDGE_OF[iq, ir]],
            slow2,
        )[0]
    if tq < np.inf:
        return from_edge(tp, tq, vp, length2[e, EDGE_OF[iv, iq]], length2[e, EDGE_OF[ip, iq]], slow2)[0]
    if tr < np.inf:
        return from_edge(tp, tr, vp, length2[e, EDGE_OF[iv, ir]], length2[e, EDGE_OF[ip, ir]], slow2)[0]
    return tp + np.sqrt(vp * slow2)


@njit(cache=True, nogil=True)
def altitudes(length2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metric height of every vertex of every tetrahedron over its opposite face, (m, 4) ms: no wave over that face is faster."""
    out = np.zeros((len(length2), 4))
    for e in range(len(length2)):
        ab, ac, ad, bc, bd, cd = length2[e]
        gbc, gbd, gcd = 0.5 * (ab + ac - bc), 0.5 * (ab + ad - bd), 0.5 * (ac + ad - cd)
        det = ab * (ac * ad - gcd * gcd) - gbc * (gbc * ad - gcd * gbd) + gbd * (gbc * gcd - ac * gbd)
        for v in range(4):
            p, q, r = (v + 1) & 3, (v + 2) & 3, (v + 3) & 3
            pq, pr, qr = length2[e, EDGE_OF[p, q]], length2[e, EDGE_OF[p, r]], length2[e, EDGE_OF[q, r]]
            g = 0.5 * (pq + pr - qr)
            face = pq * pr - g * g
            if face > 0.0 and det > 0.0:
                out[e, v] = np.sqrt(det / face)
    return out


@njit(cache=True, nogil=True)
def stimulate(
    nodes: NDArray[np.int32],
    at: float,
    wait: float,
    start: NDArray[np.int32],
    ready: NDArray[np.float64],
    trial: NDArray[np.float64],
    cause: NDArray[np.int32],
    trial_lag: NDArray[np.float64],
    heap_time: NDArray[np.float64],
    heap_node: NDArray[np.int32],
    size: int,
) -> tuple[int, int]:
    """Offer the stimulus to every node that conducts and recovers within `wait`, then with that latency.

    Returns the heap's size and the number of nodes that took it.
    """
    taken = 0
    for v in nodes:
        t = max(at, ready[v])
        if start[v + 1] > start[v] and t - at <= wait and t < trial[v]:
            trial[v], cause[v], trial_lag[v] = t, STIMULUS, 0.0
            size = push(heap_time, heap_node, size, t, v)
            taken += 1
    return size, taken


@njit(cache=True, nogil=True)
def shadow(
    start: NDArray[np.int32],
    around: NDArray[np.int32],
    tets: NDArray[np.int32],
    length2: NDArray[np.float64],
    v: int,
    t: float,
    factor: float,
    wait: float,
    extension: float,
    time: NDArray[np.float64],
    ready: NDArray[np.float64],
    stopped: NDArray[np.bool_],
) -> None:
    """Stop also the nodes that a front blocked at v would have reached before they recover: else it creeps past v on coarse meshes."""
    for j in range(start[v], start[v + 1]):
        e = around[j]
        iv = 0
        while tets[e, iv] != v:
            iv += 1
        for step in range(1, 4):
            iw = (iv + step) & 3
            w = tets[e, iw]
            if not stopped[w] and t - time[w] > LONGEST_GATE_MS and t + np.sqrt(length2[e, EDGE_OF[iv, iw]]) / factor + wait < ready[w]:
                stopped[w] = True
                ready[w] += extension


MOST_SLOWED, MOST_HURRIED = 0.5, 0.2
"""Shares of the steady velocity that curvature may take from a front that diverges, or give to one that converges."""

LEAST_SHARE = 0.3
"""Of its velocity without curvature, what is left to a front at least."""

FEW = 6
"""Neighbours of which the slope must be known, each counted once per tetrahedron, before a curvature is read off them."""


@njit(cache=True, nogil=True)
def _slope(p, tp, start, around, tets, points, longest, factor, time, slope):  # type: ignore[no-untyped-def]
    """Gradient of the arrival at p, ms/mm, to slope[p]: mean over tetrahedra that the wave has passed but for p. False: there is none."""
    total, gx, gy, gz = 0.0, 0.0, 0.0, 0.0
    for j in range(start[p], start[p + 1]):
        e = around[j]
        gate = GATE_SLACK * longest[e] / factor
        ip = 0
        while tets[e, ip] != p:
            ip += 1
        a, b, c = tets[e, (ip + 1) & 3], tets[e, (ip + 2) & 3], tets[e, (ip + 3) & 3]
        ta, tb, tc = time[a] - tp, time[b] - tp, time[c] - tp
        if max(ta, tb, tc) > 0.0 or min(ta, tb, tc) < -gate:
            continue
        ax, ay, az = points[a, 0] - points[p, 0], points[a, 1] - points[p, 1], points[a, 2] - points[p, 2]
        bx, by, bz = points[b, 0] - points[p, 0], points[b, 1] - points[p, 1], points[b, 2] - points[p, 2]
        cx, cy, cz = points[c, 0] - points[p, 0], points[c, 1] - points[p, 1], points[c, 2] - points[p, 2]
        ux, uy, uz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
        vx, vy, vz = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
        wx, wy, wz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        det = ax * ux + ay * uy + az * uz
        sign = 1.0 if det > 0.0 else -1.0
        # the gradient times the determinant is weighted by volume as it is
        gx += sign * (ta * ux + tb * vx + tc * wx)
        gy += sign * (ta * uy + tb * vy + tc * wy)
        gz += sign * (ta * uz + tb * vz + tc * wz)
        total += abs(det)
    if total == 0.0:
        return False
    slope[p, 0], slope[p, 1], slope[p, 2] = gx / total, gy / total, gz / total
    return gx * gx + gy * gy + gz * gz > 0.0


@njit(cache=True, nogil=True)
def _unit(metric, p, g):  # type: ignore[no-untyped-def]
    """Velocity (mm/ms) of a steady wave that has the direction of slope g at p: M g / sqrt(g M g), M (n, 6) as xx, yy, zz, yz, xz, xy."""
    xx, yy, zz, yz, xz, xy = metric[p, 0], metric[p, 1], metric[p, 2], metric[p, 3], metric[p, 4], metric[p, 5]
    x, y, z = xx * g[0] + xy * g[1] + xz * g[2], xy * g[0] + yy * g[1] + yz * g[2], xz * g[0] + yz * g[1] + zz * g[2]
    size = np.sqrt(max(g[0] * x + g[1] * y + g[2] * z, 1e-300))
    return x / size, y / size, z / size


@njit(cache=True, nogil=True)
def curvature(p, tp, start, around, tets, points, longest, metric, factor, time, slope):  # type: ignore[no-untyped-def]
    """Divergence of a front's unit normal at p, as it fires at tp, in the metric in which it runs with unit speed, 1/ms; NaN: not known.

    Read off the slopes of arrival at p and at the neighbours that the same wave has passed: their least-squares gradient.
    """
    if not _slope(p, tp, start, around, tets, points, longest, factor, time, slope):
        slope[p] = 0.0
        return np.nan
    nx, ny, nz = _unit(metric, p, slope[p])
    count = 0
    xx, yy, zz, yz, xz, xy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    m = np.zeros((3, 3))
    for j in range(start[p], start[p + 1]):
        e = around[j]
        gate = GATE_SLACK * longest[e] / factor
        for k in range(4):
            q = tets[e, k]
            if q == p or not (0.0 <= tp - time[q] <= gate) or (slope[q, 0] == 0.0 and slope[q, 1] == 0.0 and slope[q, 2] == 0.0):
                continue
            count += 1
            x, y, z = points[q, 0] - points[p, 0], points[q, 1] - points[p, 1], points[q, 2] - points[p, 2]
            ux, uy, uz = _unit(metric, p, slope[q])
            ux, uy, uz = ux - nx, uy - ny, uz - nz
            xx, yy, zz, yz, xz, xy = xx + x * x, yy + y * y, zz + z * z, yz + y * z, xz + x * z, xy + x * y
            m[0, 0] += ux * x
            m[0, 1] += ux * y
            m[0, 2] += ux * z
            m[1, 0] += uy * x
            m[1, 1] += uy * y
            m[1, 2] += uy * z
            m[2, 0] += uz * x
            m[2, 1] += uz * y
            m[2, 2] += uz * z
    if count < FEW:
        return np.nan
    # a little of the mean square keeps directions in which nobody lies from being made up
    ridge = 0.01 * (xx + yy + zz)
    xx, yy, zz = xx + ridge, yy + ridge, zz + ridge
    ixx, iyy, izz = yy * zz - yz * yz, xx * zz - xz * xz, xx * yy - xy * xy
    ixy, ixz, iyz = xz * yz - xy * zz, xy * yz - xz * yy, xy * xz - xx * yz
    det = xx * ixx + xy * ixy + xz * ixz
    trace = m[0, 0] * ixx + m[0, 1] * ixy + m[0, 2] * ixz
    trace += m[1, 0] * ixy + m[1, 1] * iyy + m[1, 2] * iyz
    trace += m[2, 0] * ixz + m[2, 1] * iyz + m[2, 2] * izz
    return trace / det


@njit(cache=True, nogil=True)
def advance(
    start: NDArray[np.int32],
    around: NDArray[np.int32],
    tets: NDArray[np.int32],
    length2: NDArray[np.float64],
    longest: NDArray[np.float64],
    altitude: NDArray[np.float64],
    apd: NDArray[np.float32],
    cv: NDArray[np.float32],
    di_min: NDArray[np.float64],
    weights: NDArray[np.float32],
    time: NDArray[np.float64],
    end: NDArray[np.float64],
    ready: NDArray[np.float64],
    end_before: NDArray[np.float64],
    ready_before: NDArray[np.float64],
    trial: NDArray[np.float64],
    cause: NDArray[np.int32],
    lag: NDArray[np.float64],
    trial_lag: NDArray[np.float64],
    held: NDArray[np.bool_],
    stopped: NDArray[np.bool_],
    points: NDArray[np.float64],
    metric: NDArray[np.float64],
    reach: NDArray[np.float64],
    slope: NDArray[np.float64],
    slowed: NDArray[np.float64],
    factor_of: NDArray[np.float64],
    asked: NDArray[np.int64],
    answer: NDArray[np.float64],
    heap_time: NDArray[np.float64],
    heap_node: NDArray[np.int32],
    size: int,
    row: NDArray[np.int32],
    log_node: NDArray[np.int32],
    log_time: NDArray[np.float64],
    log_end: NDArray[np.float64],
    log_parent: NDArray[np.int32],
    log_cause: NDArray[np.int32],
    counts: NDArray[np.int64],
    lap_ms: NDArray[np.float64],
    laps: NDArray[np.int32],
    until: float,
    since: float,
    wait: float,
    extension: float,
    threshold: float,
    max_laps: int,
    tolerance: float,
    room: int,
) -> tuple[int, int, int]:
    """Go on until a time, an empty queue, or `max_laps` like cycles at one node; returns (why it stopped, heap size, node of the laps).

    counts (4,): blocked, waited, corrected, rows of the log. held, stopped (n,): a wait or a block was counted since the last
    firing. factor_of (n,): velocity factor of each node's last firing. altitude (m, 4): as `altitudes`. asked, answer (n,): scratch, asked
    -1 before the first call of a run; a neighbour's factor is looked up once per firing, not once per tetrahedron. room: the most entries
    that one firing may add to the heap.
    LOG_FULL and HEAP_FULL: give larger arrays and call again.
    points (n, 3), metric (n, 6) mm^2/ms^2, reach (n,) ms: D over the square of the steady velocity; slope (n, 3), slowed (n,): gradient of
    the last arrival, and what the curvature of that front takes from the velocity of its onward way, as a share of the steady one. Empty
    points: fronts do not feel their curvature.
    """
    curved = points.shape[0] > 0
    slowest, fastest = np.inf, 0.0
    for r in range(cv.shape[0]):
        for i in range(cv.shape[1]):
            slowest, fastest = min(slowest, float(cv[r, i])), max(fastest, float(cv[r, i]))
    if curved:
        slowest, fastest = LEAST_SHARE * slowest, fastest + MOST_HURRIED
    while size > 0 and heap_time[0] <= until:
        if counts[FIRED] == len(log_node):
            return LOG_FULL, size, -1
        if size + room > len(heap_time):
            size = drop_stale(heap_time, heap_node, size, trial)
            if 2 * (size + room) > len(heap_time):
                return HEAP_FULL, size, -1
            continue
        p, tp = heap_node[0], heap_time[0]
        size = pop(heap_time, heap_node, size)
        if tp != trial[p]:
            continue
        trial[p] = np.inf
        parent = cause[p]
        if tp < time[p]:
            counts[CORRECTED] += 1
        else:
            if time[p] >= since and parent >= 0:
                lap = tp - time[p]
                laps[p] = laps[p] + 1 if abs(lap - lap_ms[p]) <= tolerance * lap_ms[p] else 1
                lap_ms[p] = lap
            end_before[p], ready_before[p] = end[p], ready[p]
            row[p] = counts[FIRED]
            log_node[row[p]] = p
            counts[FIRED] += 1
            held[p], stopped[p] = False, False
        time[p], lag[p] = tp, trial_lag[p]
        end[p] = tp + look_up(apd, di_min, weights, p, tp - end_before[p])
        factor_of[p] = look_up(cv, di_min, weights, p, tp - end_before[p])
        if curved:
            before = slowed[parent] if parent >= 0 else 0.0
            factor_of[p] = max(factor_of[p] - before, LEAST_SHARE * factor_of[p])
            turn = curvature(p, tp, start, around, tets, points, longest, metric, factor_of[p], time, slope)
            # where it is not known, what the front had on its way here
            slowed[p] = before if np.isnan(turn) else min(max(reach[p] * turn, -MOST_HURRIED), MOST_SLOWED)
        recovery = 0.0
        for r in range(len(di_min)):
            recovery += weights[p, r] * di_min[r]
        ready[p] = end[p] + recovery
        k = row[p]
        if k >= 0:
            log_time[k], log_end[k], log_cause[k] = tp, end[p], parent
            log_parent[k] = parent if parent < 0 else (row[parent] if row[parent] >= 0 else OLDER)
        asks = 2 * (2 * counts[FIRED] + counts[CORRECTED])
        for j in range(start[p], start[p + 1]):
            e = around[j]
            ip = 0
            while tets[e, ip] != p:
                ip += 1
            widest = GATE_SLACK * longest[e] / slowest
            for step in range(1, 4):
                iv = (ip + step) & 3
                v = tets[e, iv]
                iq, ir = (ip + step % 3 + 1) & 3, (ip + (step + 1) % 3 + 1) & 3
                # the same wave passed v: it may only be corrected, against what was before that firing; a wave that waited comes later
                apart = abs(tp - time[v])
                again = False
                if apart < LONGEST_GATE_MS:
                    gate = GATE_SLACK * longest[e] / factor_of[v]
                    again = apart <= gate
                    if apart <= gate + wait and (not again or threshold < 0.0):
                        continue
                tq, tr = time[tets[e, iq]], time[tets[e, ir]]
                # no gate is wider than the widest and no wave over the face faster than its height: most offers are hopeless, none else
                low = tp
                if tp - tq <= widest:
                    low = min(low, tq)
                if tp - tr <= widest:
                    low = min(low, tr)
                if again and time[v] <= low:
                    continue
                low += altitude[e, iv] / fastest - ROUNDING_MS
                if (again and low >= time[v] - threshold) or (not again and low >= trial[v] and low >= ready[v]):
                    continue
                rest_from = end_before[v] if again else end[v]
                may_from = ready_before[v] if again else ready[v]
                if asked[v] != asks + again:
                    asked[v], answer[v] = asks + again, look_up(cv, di_min, weights, v, tp - rest_from)
                factor = answer[v]
                if curved:
                    factor = max(factor - slowed[p], LEAST_SHARE * factor)
                gate = GATE_SLACK * longest[e] / factor
                if abs(tp - tq) > gate:
                    tq = np.inf
                if abs(tp - tr) > gate:
                    tr = np.inf
                earliest = min(tp, tq, tr)
                if (again and time[v] <= earliest) or trial[v] <= earliest:
                    continue
                t = arrival(length2, e, iv, ip, iq, ir, tp, tq, tr, 1.0 / (factor * factor))
                if t - rest_from < SHORT_DI_MS:
                    second = look_up(cv, di_min, weights, v, t - rest_from)
                    if curved:
                        second = max(second - slowed[p], LEAST_SHARE * second)
                    if abs(second - factor) > CV_MOVED * factor:
                        t = arrival(length2, e, iv, ip, iq, ir, tp, tq, tr, 1.0 / (second * second))
                waits = t < may_from
                late = lag[p] * np.exp(-max(t - tp, 0.0) / LAG_MS) if lag[p] > 0.0 else 0.0
                if waits:
                    if again:
                        t = may_from
                    elif late + may_from - t <= wait:
                        late += may_from - t
                        t = may_from
                    else:
                        if not stopped[v]:
                            stopped[v] = True
                            counts[BLOCKED] += 1
                            if extension > 0.0:
                                shadow(start, around, tets, length2, v, t, factor, wait, extension, time, ready, stopped)
                                ready[v] += extension
                        continue
                if t >= trial[v] or (again and t >= time[v] - threshold):
                    continue
                if waits and not again and not held[v]:
                    held[v] = True
                    counts[WAITED] += 1
                trial[v], cause[v], trial_lag[v] = t, p, late
                size = push(heap_time, heap_node, size, t, v)
        # only now: its neighbours had to be offered a time, else a later run would have lost the wave
        if max_laps > 0 and laps[p] >= max_laps:
            return SUSTAINED, size, p
    return (QUIET if size == 0 else REACHED), size, -1
