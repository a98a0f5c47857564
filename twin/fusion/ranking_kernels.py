"""Compiled part of the metrics: the area under the ROC curve of many bootstrap draws at once."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def areas(
    events: NDArray[np.float64], starts: NDArray[np.int64], order: NDArray[np.int64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Area of each row of weights (draws, n); NaN where a draw lacks events or others.

    order (n,): rows by rising prediction; events (n,): their outcomes in that order; starts (kinds + 1,): where each kind of prediction
    starts in it, and n: ties count half.
    """
    out = np.full(len(weight), np.nan)
    for d in range(len(weight)):
        area, positive, negative = 0.0, 0.0, 0.0
        for k in range(len(starts) - 1):
            above, below = 0.0, 0.0
            for i in range(starts[k], starts[k + 1]):
                w = weight[d, order[i]]
                above += w * events[i]
                below += w * (1.0 - events[i])
            area += above * (negative + 0.5 * below)
            positive += above
            negative += below
        if positive > 0.0 and negative > 0.0:
            out[d] = area / (positive * negative)
    return out
