"""CUDA kernels of the monodomain step beside the cell models: mass products, update with its log of crossings, pulses, probes.

Rows are stored as SELL-32: 32 consecutive rows, one warp, form a slice that is as wide as its longest row; entry k of the slice's row l
lies at start[slice] + 32 k + l, so a warp reads one line of values and one of columns per k, and no thread waits for another's row.
Padding is a zero at the row itself. A CSR row by one thread would touch 32 lines per k; CSR rows by whole warps waste half of each warp
on rows of 14 entries. Columns are offsets from the row, int16 where the node order's bandwidth allows: a third less to read.

control (5,) int32, all that the host needs to see: [0] first step that must not run (the host sets it far away), [1] crossings logged,
[2] steps done when a node was last above the upstroke level, [3] row of the solver that went wrong (-1: none), [4] room in the log that
makes the device stop. A step never stops half-way: whoever sets [0] sets it to the next step.

Loops run over the grid, so that any launch shape is right: one thread per row on a GPU, a few threads in the simulator. They are written
with `while`: numba's `range` divides 64-bit integers to count its turns, once per thread.
"""

from __future__ import annotations

import numpy as np
from numba import cuda
from numpy.typing import NDArray

SLICE = 32
"""Rows per slice: a warp."""
HALT, LOGGED, EXCITED, WRONG, FULL = range(5)
"""Places in `control`."""
NEVER = np.iinfo(np.int32).max
WINDOW = 1024
"""Rows that are sorted by length among themselves: slices then hold rows of nearly equal length, and neighbours stay close in memory."""


def sorted_rows(start: NDArray[np.int32]) -> NDArray[np.int32]:
    """Order (n,) of rows on the device: within each window longest first, ties in the given order."""
    n = len(start) - 1
    return np.lexsort((-np.diff(start), np.arange(n) // WINDOW)).astype(np.int32)


def sliced(start: NDArray[np.int32], column: NDArray[np.int32], order: NDArray[np.int32]) -> tuple[NDArray, NDArray, NDArray]:
    """Slices of a CSR pattern whose rows and columns are renumbered by `order`.

    Returns slice starts (slices + 1,) int32, column offsets (padded nnz,) int16 or int32, and the CSR entry (padded nnz,) int64 that
    each place takes its value from, -1 for padding.
    """
    n, length = len(order), np.diff(start)[order]
    slices = (n + SLICE - 1) // SLICE
    width = np.zeros(slices * SLICE, np.int64)
    width[:n] = length
    first = np.concatenate([[0], np.cumsum(SLICE * width.reshape(slices, SLICE).max(axis=1))])
    position = np.empty(n, np.int64)
    position[order] = np.arange(n)
    row = np.repeat(np.arange(n), length)
    k = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    entry = start[order].astype(np.int64)[row] + k
    place = first[row // SLICE] + SLICE * k + row % SLICE
    source = np.full(first[-1], -1, np.int64)
    source[place] = entry
    offset = position[column[entry]] - row
    small = not len(offset) or np.abs(offset).max() <= np.iinfo(np.int16).max
    offsets = np.zeros(first[-1], np.int16 if small else np.int32)
    offsets[place] = offset
    return first.astype(np.int32), offsets, source


@cuda.jit
def mass_horner(start, offset, mass, z, scale, y, weight, out, control, step):  # type: ignore[no-untyped-def]
    """out = weight y + scale (A z), A with unit row sums: one Horner step of a polynomial in A."""
    if step >= control[0]:
        return
    i = cuda.grid(1)
    while i < z.size:
        centre = z[i]
        total = centre
        at = start[i >> 5] + (i & 31)
        end = start[(i >> 5) + 1]
        while at < end:
            total += mass[at] * (z[i + offset[at]] - centre)
            at += 32
        out[i] = weight * y[i] + scale * total
        i += cuda.gridsize(1)


@cuda.jit
def advance(start, offset, mass, z, scale, rest, v, dt, up, down, row, control, log_row, log_step, log_v, step):  # type: ignore[no-untyped-def]
    """v += dt (-rest - scale (A z)); every crossing of `up` or `down` appends its row (~row on the way down), step, and both V.

    The order of a step's crossings depends on the race for places, what is logged does not: the host sorts them by time and node.
    """
    if step >= control[0]:
        return
    i = cuda.grid(1)
    while i < v.size:
        centre = z[i]
        total = centre
        at = start[i >> 5] + (i & 31)
        end = start[(i >> 5) + 1]
        while at < end:
            total += mass[at] * (z[i + offset[at]] - centre)
            at += 32
        old = v[i]
        new = old - dt * (rest[i] + scale * total)
        v[i] = new
        # everybody who writes writes the same
        if new >= up and control[2] != step + 1:
            control[2] = step + 1
        rose = old < up <= new
        if rose or new <= down < old:
            place = cuda.atomic.add(control, 1, 1)
            log_row[place] = row[i] if rose else ~row[i]
            log_step[place] = step
            log_v[place, 0] = old
            log_v[place, 1] = new
            # there is room for one crossing of every row behind this mark, so this step still fits
            if place >= control[4]:
                control[0] = step + 1
        if not (-1000.0 < new < 1000.0):
            cuda.atomic.max(control, 3, row[i])
            control[0] = step + 1
        i += cuda.gridsize(1)


@cuda.jit
def pulse(rest, rows, rate, control, step):  # type: ignore[no-untyped-def]
    """rest -= rate at the rows of an electrode."""
    if step >= control[0]:
        return
    k = cuda.grid(1)
    while k < rows.size:
        rest[rows[k]] -= rate
        k += cuda.gridsize(1)


@cuda.jit
def sample(v, rows, out, slot, control, step):  # type: ignore[no-untyped-def]
    """out[slot] = v at the rows of the probes, before the step."""
    if step >= control[0]:
        return
    k = cuda.grid(1)
    while k < rows.size:
        out[slot, k] = v[rows[k]]
        k += cuda.gridsize(1)
