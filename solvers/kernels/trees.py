"""Walks along the tree of origins that a solve leaves."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def first_labelled(parent: NDArray[np.int32], label: NDArray[np.int32]) -> NDArray[np.int32]:
    """Label of the first labelled (>= 0) ancestor of each node, itself included; -1 where the tree ends without one.

    parent (n,) int32, -1 at a root; label (n,) int32. A cycle, which corrections can leave between equal times, ends the walk.
    """
    n = len(parent)
    out = np.full(n, -1, np.int32)
    for v in range(n):
        at, steps = v, 0
        while at >= 0 and label[at] < 0 and steps < n:
            at = parent[at]
            steps += 1
        if at >= 0 and label[at] >= 0:
            out[v] = label[at]
    return out
