"""Binary heap of (time, node) in two flat arrays, smallest time first, ties by node number: the order is bit-reproducible."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def push(times: NDArray[np.float64], nodes: NDArray[np.int32], size: int, time: float, node: int) -> int:
    """Add one entry to the first `size` entries of the arrays (which must have room) and return the new size."""
    child = size
    while child > 0:
        parent = (child - 1) >> 1
        if times[parent] < time or (times[parent] == time and nodes[parent] <= node):
            break
        times[child], nodes[child] = times[parent], nodes[parent]
        child = parent
    times[child], nodes[child] = time, node
    return size + 1


@njit(cache=True, nogil=True)
def pop(times: NDArray[np.float64], nodes: NDArray[np.int32], size: int) -> int:
    """Remove the first entry (read it before) and return the new size."""
    size -= 1
    time, node = times[size], nodes[size]
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= size:
            break
        right = child + 1
        if right < size and (times[right] < times[child] or (times[right] == times[child] and nodes[right] < nodes[child])):
            child = right
        if time < times[child] or (time == times[child] and node <= nodes[child]):
            break
        times[parent], nodes[parent] = times[child], nodes[child]
        parent = child
    times[parent], nodes[parent] = time, node
    return size


@njit(cache=True, nogil=True)
def drop_stale(times: NDArray[np.float64], nodes: NDArray[np.int32], size: int, trial: NDArray[np.float64]) -> int:
    """Keep only entries whose time is still the trial time of their node; return the new size."""
    kept = 0
    for k in range(size):
        if times[k] == trial[nodes[k]]:
            # kept <= k, and `push` touches the first kept + 1 places only, all of them already read
            kept = push(times, nodes, kept, times[k], nodes[k])
    return kept
