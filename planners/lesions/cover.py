"""Covering tissue by single lesions from the surfaces that can be reached: greedy set cover."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planners.lesions.geometry import Access, LesionMaker


def greedy_cover(
    maker: LesionMaker,
    surfaces: Sequence[Access],
    wanted: NDArray[np.bool_],
    radius_mm: float,
    depth_mm: float,
    *,
    least_gain: float,
    most: int,
    apart_mm: float = 0.0,
) -> tuple[list[tuple[Access, int]], NDArray[np.bool_]]:
    """Choose surface nodes so that their lesions cover the wanted tetrahedra (m,) with few lesions.

    Stops when the best next lesion would cover less than `least_gain` of a lesion's own volume, or after `most`. Candidates nearer to each
    other than `apart_mm` are thinned out. Returns the chosen (surface, node index) in the order of choice, and what stays uncovered.
    """
    left = wanted.copy()
    candidates: list[tuple[Access, int, NDArray[np.int64]]] = []
    centres = maker.centres_mm[wanted]
    for access in surfaces:
        if not len(centres):
            break
        for index in _near(access, centres, depth_mm + radius_mm, apart_mm):
            tets = maker.within(maker.shape(access, index, radius_mm, depth_mm))
            if wanted[tets].any():
                candidates.append((access, index, tets))
    chosen: list[tuple[Access, int]] = []
    volume = maker.volumes_mm3
    bound = [float(volume[tets[left[tets]]].sum()) for _, _, tets in candidates]
    while candidates and len(chosen) < most:
        # gains only shrink, so an old gain is an upper bound: look again only at those that could still be best
        best, best_gain = -1, -1.0
        for k in sorted(range(len(candidates)), key=lambda i: (-bound[i], i)):
            if bound[k] <= best_gain:
                break
            tets = candidates[k][2]
            bound[k] = float(volume[tets[left[tets]]].sum())
            if bound[k] > best_gain:
                best, best_gain = k, bound[k]
        access, index, tets = candidates[best]
        if best_gain < least_gain * float(volume[tets].sum()) or best_gain <= 0:
            break
        left[tets] = False
        chosen.append((access, index))
    return chosen, left


def _near(access: Access, centres_mm: NDArray[np.float64], reach_mm: float, apart_mm: float) -> list[int]:
    """Surface nodes within reach of any of the points, thinned to `apart_mm`, in ascending order."""
    from scipy.spatial import cKDTree

    away = np.asarray(cKDTree(centres_mm).query(access.points_mm, distance_upper_bound=reach_mm)[0])
    close = np.flatnonzero(np.isfinite(away) & access.is_open)
    if apart_mm <= 0:
        return close.tolist()
    kept: list[int] = []
    taken = np.zeros(len(access.nodes), bool)
    for index in close.tolist():
        if not taken[index]:
            kept.append(index)
            taken[access.tree.query_ball_point(access.points_mm[index], apart_mm)] = True
    return kept
