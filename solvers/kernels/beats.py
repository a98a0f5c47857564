"""Compiled bookkeeping of beats: what a step found goes into the log in time order, and every node remembers its last beat."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _in_order(node, when, mesh_node, count):  # type: ignore[no-untyped-def]
    """Places of the first `count` crossings by time, ties by mesh node: (count,) indices."""
    by_node = np.argsort(mesh_node[node[:count]], kind="mergesort")
    return by_node[np.argsort(when[:count][by_node], kind="mergesort")]


@njit(cache=True, nogil=True)
def collect(  # type: ignore[no-untyped-def]
    step_node, step_ms, found, above, bad, mesh_node, size, base, log_node, log_up, log_down, late_row, late_down,
    last, first_ms, latest_ms, laps, lap_ms, since_ms, not_before_ms, rows,
):  # fmt: skip
    """Take over the crossings of one step, found in chunks of so many `rows`.

    The log's rows `base`.. are in log_node, log_up, log_down; rows before have left memory, and their recoveries go to late_row,
    late_down. Per node: last (n,) its open row or -1, first_ms and latest_ms upstroke, laps upstrokes from since_ms on and lap_ms the
    first of them. Upstrokes of a step are sorted, and none is put before not_before_ms, so rows are in time order.
    Returns size, how many late recoveries, nodes above the threshold, a node gone wrong (-1: none), the latest upstroke.
    """
    excited, wrong, ups, late = 0, -1, 0, 0
    for chunk in range(found.size):
        excited += above[chunk]
        if bad[chunk] >= 0:
            wrong = bad[chunk]
        for k in range(chunk * rows, chunk * rows + found[chunk]):
            if step_node[k] >= 0:
                # chunks hold what they found at their front, so moving it to the front of all never overtakes itself
                step_node[ups] = step_node[k]
                step_ms[ups] = step_ms[k]
                ups += 1
                continue
            row = last[~step_node[k]]
            if row >= base:
                log_down[row - base] = step_ms[k]
            elif row >= 0:
                late_row[late] = row
                late_down[late] = step_ms[k]
                late += 1
            last[~step_node[k]] = -1
    newest = not_before_ms
    for k in _in_order(step_node, step_ms, mesh_node, ups):
        node, up = step_node[k], max(step_ms[k], not_before_ms)
        log_node[size - base] = mesh_node[node]
        log_up[size - base] = up
        log_down[size - base] = math.nan
        last[node] = size
        size += 1
        newest = max(newest, up)
        latest_ms[node] = up
        if math.isnan(first_ms[node]):
            first_ms[node] = up
        if up >= since_ms:
            lap_ms[node] = up if laps[node] == 0 else lap_ms[node]
            laps[node] += 1
    return size, late, excited, wrong, newest
