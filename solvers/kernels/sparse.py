"""Compiled sparse rows of the monodomain equation: products with a matrix whose rows are written as differences.

A matrix with known row sums needs no diagonal: (A v)_i = s_i v_i + sum_j A_ij (v_j - v_i). Differences keep float32 exact for a constant
field, so resting tissue stays at rest. Rows are summed in a fixed order by one thread each: results do not depend on the thread count.
Arrays: start (n + 1,) int32, column (nnz,) int32, values (nnz,) float32 or float64; v and everything nodal in the dtype of the values.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

CHUNK = 512
"""Rows handed to a thread at once; also the unit in which crossings are collected, so it must not depend on the thread count."""


@njit(cache=True, nogil=True, parallel=True)
def stiffness_product(start, column, value, v, out):  # type: ignore[no-untyped-def]
    """out_i = sum_j value_ij (v_j - v_i)."""
    n = v.size
    for chunk in prange((n + CHUNK - 1) // CHUNK):
        for i in range(chunk * CHUNK, min(n, (chunk + 1) * CHUNK)):
            centre = v[i]
            total = v[i] - centre
            for k in range(np.uint32(start[i]), np.uint32(start[i + 1])):
                total += value[k] * (v[np.uint32(column[k])] - centre)
            out[i] = total


@njit(cache=True, nogil=True, parallel=True)
def mass_horner(start, column, value, z, scale, y, weight, out):  # type: ignore[no-untyped-def]
    """out = weight * y + scale * (A z), A with unit row sums: one Horner step of a polynomial in A."""
    n = z.size
    for chunk in prange((n + CHUNK - 1) // CHUNK):
        for i in range(chunk * CHUNK, min(n, (chunk + 1) * CHUNK)):
            centre = z[i]
            total = centre
            for k in range(np.uint32(start[i]), np.uint32(start[i + 1])):
                total += value[k] * (z[np.uint32(column[k])] - centre)
            out[i] = weight * y[i] + scale * total


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


@njit(cache=True, nogil=True, parallel=True)
def advance_explicit(  # type: ignore[no-untyped-def]
    start, column, value, z, scale, y, weight, current, v, dt, t_ms, levels_mv, node, when, found, above, bad
):
    """v += dt (-current - weight y - scale A z), noting every crossing of levels_mv = (upstroke, recovery).

    Per chunk of CHUNK rows: `found` crossings at the front of its part of `node` and `when`, nodes `above` the upstroke level, and one
    `bad` node whose voltage is impossible (-1: none).
    """
    n = v.size
    dt_ms = float(dt)
    up_mv, down_mv = levels_mv[0], levels_mv[1]
    for chunk in prange((n + CHUNK - 1) // CHUNK):
        count, excited, wrong = 0, 0, -1
        for i in range(chunk * CHUNK, min(n, (chunk + 1) * CHUNK)):
            centre = z[i]
            total = centre
            for k in range(np.uint32(start[i]), np.uint32(start[i + 1])):
                total += value[k] * (z[np.uint32(column[k])] - centre)
            old = v[i]
            new = old - dt * (current[i] + weight * y[i] + scale * total)
            v[i] = new
            if new >= up_mv:
                excited += 1
            if not (-1000.0 < new < 1000.0):
                wrong = i
            count = _note(i, float(old), float(new), t_ms, dt_ms, up_mv, down_mv, chunk, count, node, when)
        found[chunk] = count
        above[chunk] = excited
        bad[chunk] = wrong


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


@njit(cache=True, nogil=True)
def collect(node, when, found, above, bad, size, log_node, log_up, log_down, last):  # type: ignore[no-untyped-def]
    """Append the crossings of a step to the log of beats; `last` (n,) is each node's beat that is still active, or -1.

    Returns the new size of the log, the number of nodes above the upstroke level and a node gone wrong (-1: none).
    """
    excited, wrong = 0, -1
    for chunk in range(found.size):
        excited += above[chunk]
        if bad[chunk] >= 0:
            wrong = bad[chunk]
        for k in range(chunk * CHUNK, chunk * CHUNK + found[chunk]):
            if node[k] >= 0:
                log_node[size] = node[k]
                log_up[size] = when[k]
                log_down[size] = math.nan
                last[node[k]] = size
                size += 1
            elif last[~node[k]] >= 0:
                log_down[last[~node[k]]] = when[k]
                last[~node[k]] = -1
    return size, excited, wrong
