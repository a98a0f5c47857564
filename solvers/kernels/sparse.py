"""Compiled sparse rows of the monodomain equation: products with a matrix whose rows are written as differences.

A matrix with known row sums needs no diagonal: (A v)_i = s_i v_i + sum_j A_ij (v_j - v_i). Differences keep float32 exact for a constant
field, so resting tissue stays at rest. Rows are summed in a fixed order by one thread each: results do not depend on the thread count.
Arrays: start (n + 1,) int32, column (nnz,) int32, values (nnz,) float32 or float64; v and everything nodal in the dtype of the values.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

CHUNK = 512
"""Rows handed to a thread at once; also the unit in which crossings are collected, so it must not depend on the thread count."""


@njit(inline="always")
def _differences(start, column, value, z, centre, r):  # type: ignore[no-untyped-def]
    """sum_j value_rj (z_j - centre), in four sums side by side: in one alone each addition would wait for the last."""
    one, two, three, four = np.uint32(1), np.uint32(2), np.uint32(3), np.uint32(4)
    zero = centre - centre
    a, b, c, d = zero, zero, zero, zero
    k, end = np.uint32(start[r]), np.uint32(start[r + 1])
    while k + four <= end:
        a += value[k] * (z[np.uint32(column[k])] - centre)
        b += value[k + one] * (z[np.uint32(column[k + one])] - centre)
        c += value[k + two] * (z[np.uint32(column[k + two])] - centre)
        d += value[k + three] * (z[np.uint32(column[k + three])] - centre)
        k += four
    while k < end:
        a += value[k] * (z[np.uint32(column[k])] - centre)
        k += one
    return (a + b) + (c + d)


# Serial functions over a slice of rows, so that indices are known not to be negative; called chunk by chunk from parallel loops.
@njit(cache=True, nogil=True, fastmath={"contract"})
def _stiffness_rows(start, column, value, v, own, out):  # type: ignore[no-untyped-def]
    for r in range(own.size):
        out[r] = _differences(start, column, value, v, own[r], r)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _horner_rows(start, column, value, z, own, scale, y, weight, out):  # type: ignore[no-untyped-def]
    for r in range(own.size):
        out[r] = weight * y[r] + scale * (own[r] + _differences(start, column, value, z, own[r], r))


@njit(cache=True, nogil=True, fastmath={"contract"})
def _updated_rows(start, column, value, z, own, scale, y, weight, current, v, dt, new):  # type: ignore[no-untyped-def]
    """New voltages of the rows."""
    for r in range(own.size):
        new[r] = v[r] - dt * (current[r] + weight * y[r] + scale * (own[r] + _differences(start, column, value, z, own[r], r)))


@njit(cache=True, nogil=True, parallel=True)
def stiffness_product(start, column, value, v, out):  # type: ignore[no-untyped-def]
    """out_i = sum_j value_ij (v_j - v_i)."""
    n = v.size
    for chunk in prange((n + CHUNK - 1) // CHUNK):
        a, b = chunk * CHUNK, min(n, (chunk + 1) * CHUNK)
        _stiffness_rows(start[a : b + 1], column, value, v, v[a:b], out[a:b])


@njit(cache=True, nogil=True, parallel=True)
def mass_horner(start, column, value, z, scale, y, weight, out):  # type: ignore[no-untyped-def]
    """out = weight * y + scale * (A z), A with unit row sums: one Horner step of a polynomial in A."""
    n = z.size
    for chunk in prange((n + CHUNK - 1) // CHUNK):
        a, b = chunk * CHUNK, min(n, (chunk + 1) * CHUNK)
        _horner_rows(start[a : b + 1], column, value, z, z[a:b], scale, y[a:b], weight, out[a:b])


@njit(inline="always")
def _note(i, old, new, t_ms, dt_ms, up_mv, down_mv, chunk, found, node, when):  # type: ignore[no-untyped-def]
    """Store a crossing of this step behind the earlier ones of the chunk; recoveries are stored as ~node. Returns how many there are."""
    if old < up_mv <= new:
        node[chunk * CHUNK + found] = i
        when[chunk * CHUNK + found] = t_ms + dt_ms * (up_mv - old) / (new - old)
        return found + 1
    if new <= down_mv < old:
        node[chunk * CHUNK + found] = ~i
        when[chunk * CHUNK + found] = t_ms + dt_ms * (down_mv - old) / (new - old)
        return found + 1
    return found


@njit(cache=True, nogil=True)
def _glance(old, new, up_mv, down_mv):  # type: ignore[no-untyped-def]
    """Rows above the upstroke level, and how many crossed a level or went wrong: without branches, so that it runs in vectors."""
    excited, events = 0, 0
    for i in range(old.size):
        before, after = old[i], new[i]
        excited += after >= up_mv
        events += ((before < up_mv) & (after >= up_mv)) | ((after <= down_mv) & (before > down_mv)) | (not (abs(after) < 1000.0))
    return excited, events


@njit(cache=True, nogil=True, parallel=True)
def update(  # type: ignore[no-untyped-def]
    start, column, value, z, scale, y, weight, current, v, dt, t_ms, levels_mv, node, when, found, above, bad
):
    """v += dt (-current - weight y - scale (A z)), noting every crossing of levels_mv = (upstroke, recovery).

    Per chunk of CHUNK rows: `found` crossings at the front of its part of `node` and `when`, nodes `above` the upstroke level, and one
    `bad` node whose voltage is impossible (-1: none). Few chunks see a crossing in a step: only those are searched for it.
    """
    n = v.size
    dt_ms = float(dt)
    # in v's own type: a float64 would halve the width of every vector, and both looks must see the same level
    up, down = v.dtype.type(levels_mv[0]), v.dtype.type(levels_mv[1])
    up_mv, down_mv = float(up), float(down)
    for chunk in prange((n + CHUNK - 1) // CHUNK):
        first, end = chunk * CHUNK, min(n, (chunk + 1) * CHUNK)
        new = np.empty(CHUNK, v.dtype)
        a, b = first, end
        _updated_rows(start[a : b + 1], column, value, z, z[a:b], scale, y[a:b], weight, current[a:b], v[a:b], dt, new[: b - a])
        excited, events = _glance(v[first:end], new[: end - first], up, down)
        count, wrong = 0, -1
        if events:
            for i in range(first, end):
                after = float(new[i - first])
                if not (abs(after) < 1000.0):
                    wrong = i
                count = _note(i, float(v[i]), after, t_ms, dt_ms, up_mv, down_mv, chunk, count, node, when)
        v[first:end] = new[: end - first]
        found[chunk] = count
        above[chunk] = excited
        bad[chunk] = wrong


@njit(cache=True, nogil=True)
def advance_explicit(  # type: ignore[no-untyped-def]
    start, column, stiffness, mass_start, mass, factors, work, current, v, dt, t_ms, levels_mv, node, when, found, above, bad
):
    """v += dt (-current - P(A) S v), P by its coefficients `factors` (k,), with the bookkeeping of `update`; work (3, n) is scratch.

    One call per step: from Python each of the passes would cost as much again on a small mesh. mass_start: all 0 where P is a number.
    """
    y = work[0]
    stiffness_product(start, column, stiffness, v, y)
    last, scale = 0, factors[-1]
    for p in range(factors.size - 2, 0, -1):
        to = 1 if last != 1 else 2
        mass_horner(mass_start, column, mass, work[last], scale, y, factors[p], work[to])
        last, scale = to, v.dtype.type(1)
    weight = factors[0] if factors.size > 1 else v.dtype.type(0)
    update(mass_start, column, mass, work[last], scale, y, weight, current, v, dt, t_ms, levels_mv, node, when, found, above, bad)


@njit(cache=True, nogil=True)
def advance_increment(increment, v, dt, t_ms, levels_mv, node, when, found, above, bad):  # type: ignore[no-untyped-def]
    """v += increment, with the bookkeeping of `advance_explicit`."""
    n = v.size
    up_mv, down_mv = levels_mv[0], levels_mv[1]
    for chunk in range((n + CHUNK - 1) // CHUNK):
        count, excited, wrong = 0, 0, -1
        for i in range(chunk * CHUNK, min(n, (chunk + 1) * CHUNK)):
            old = v[i]
            new = old + increment[i]
            v[i] = new
            if new >= up_mv:
                excited += 1
            if not (-1000.0 < new < 1000.0):
                wrong = i
            count = _note(i, float(old), float(new), t_ms, dt, up_mv, down_mv, chunk, count, node, when)
        found[chunk] = count
        above[chunk] = excited
        bad[chunk] = wrong
