"""Compiled part of the boosted trees: small trees on binned columns; those of all folds grow in step, their loss says when to stop."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

BINS = 32
"""Kinds of cell: 0 is an empty one, 1..31 are the values in order."""
LEAVES = 4
NODES = 2 * LEAVES - 3
"""Of a tree, those that may be cut when it is grown: the root, and two more with each cut but the last."""


@njit(cache=True, nogil=True)
def _histogram(
    bins: NDArray[np.uint8],
    columns: NDArray[np.int64],
    leaf_of: NDArray[np.int64],
    leaf: int,
    gradient: NDArray[np.float64],
    curvature: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Sums of gradient, curvature and count by column and bin, (columns, BINS, 3), over the rows of one leaf."""
    out[:] = 0.0
    for i in range(len(leaf_of)):
        if leaf_of[i] != leaf:
            continue
        for j in range(len(columns)):
            cell = bins[i, columns[j]]
            out[j, cell, 0] += gradient[i]
            out[j, cell, 1] += curvature[i]
            out[j, cell, 2] += 1.0


@njit(cache=True, nogil=True)
def _best_split(sums: NDArray[np.float64], ridge: float, least: float) -> tuple[float, int, int, bool]:
    """(gain, column, last bin on the left, whether empty cells go left) of the best cut of one leaf; gain 0 where there is none."""
    best, column, cut, empty_left = 0.0, -1, 0, False
    for j in range(len(sums)):
        g, h, n = sums[j, :, 0].sum(), sums[j, :, 1].sum(), sums[j, :, 2].sum()
        whole = g * g / (h + ridge)
        empty = sums[j, 0, 2] > 0.0
        for side in range(2 if empty else 1):
            left_g, left_h, left_n = (sums[j, 0, 0], sums[j, 0, 1], sums[j, 0, 2]) if side == 1 else (0.0, 0.0, 0.0)
            # the last cut, all values left, tells the empty cells from the others
            for b in range(1, BINS):
                left_g += sums[j, b, 0]
                left_h += sums[j, b, 1]
                left_n += sums[j, b, 2]
                if sums[j, b, 2] == 0.0 or left_n < least or n - left_n < least:
                    continue
                gain = left_g * left_g / (left_h + ridge) + (g - left_g) ** 2 / (h - left_h + ridge) - whole
                if gain > best + 1e-12:
                    best, column, cut, empty_left = gain, j, b, side == 1
    return best, column, cut, empty_left


@njit(cache=True, nogil=True)
def _goes_left(cell: int, cut: int, empty_left: bool) -> bool:
    return empty_left if cell == 0 else cell <= cut


@njit(cache=True, nogil=True)
def _grow(
    bins: NDArray[np.uint8],
    columns: NDArray[np.int64],
    leaf_of: NDArray[np.int64],
    gradient: NDArray[np.float64],
    curvature: NDArray[np.float64],
    ridge: float,
    least: float,
    splits: NDArray[np.int64],
    values: NDArray[np.float64],
) -> None:
    """One tree, best leaf first: splits (LEAVES - 1, 4) say leaf, column, bin, empty left; values (LEAVES,) are its Newton steps.

    columns (NODES, k): by what each node in turn can be cut; leaf_of (n,): 0, or -1 for a row that does not teach; it is overwritten.
    """
    sums, gain = np.zeros((columns.shape[1], BINS, 3)), np.zeros(LEAVES)
    cuts = np.zeros((LEAVES, 3), np.int64)
    splits[:, 0] = -1
    newest, node = 0, 0
    for made in range(1, LEAVES):
        for k in range(1 if made == 1 else 2):
            # the leaf that was cut last and the one that it gave; at first there is only one
            part = newest if k == 0 else made - 1
            _histogram(bins, columns[node], leaf_of, part, gradient, curvature, sums)
            gain[part], best, cuts[part, 1], side = _best_split(sums, ridge, least)
            cuts[part, 0], cuts[part, 2] = columns[node, max(best, 0)], 1 if side else 0
            node += 1
        leaf = 0
        for part in range(made):
            leaf = part if gain[part] > gain[leaf] else leaf
        if gain[leaf] <= 0.0:
            break
        splits[made - 1, 0] = leaf
        for k in range(3):
            splits[made - 1, k + 1] = cuts[leaf, k]
        for i in range(len(leaf_of)):
            if leaf_of[i] == leaf and not _goes_left(bins[i, cuts[leaf, 0]], cuts[leaf, 1], cuts[leaf, 2] == 1):
                leaf_of[i] = made
        newest = leaf
    for leaf in range(LEAVES):
        g, h = 0.0, ridge
        for i in range(len(leaf_of)):
            if leaf_of[i] == leaf:
                g += gradient[i]
                h += curvature[i]
        values[leaf] = -g / h


@njit(cache=True, nogil=True)
def _leaf(cells: NDArray[np.uint8], splits: NDArray[np.int64]) -> int:
    leaf = 0
    for k in range(len(splits)):
        if splits[k, 0] < 0:
            break
        if splits[k, 0] == leaf and not _goes_left(cells[splits[k, 1]], splits[k, 2], splits[k, 3] == 1):
            leaf = k + 1
    return leaf


@njit(cache=True, nogil=True)
def boost(
    bins: NDArray[np.uint8],
    y: NDArray[np.float64],
    fold: NDArray[np.int64],
    folds: int,
    columns: NDArray[np.int64],
    rate: float,
    ridge: float,
    least: float,
    patience: int,
) -> tuple[int, NDArray[np.float64]]:
    """(number of trees, logits (n,) of each row by trees that it did not teach) where the left-out loss is least.

    bins (n, p), outcomes y (n,) of 0 and 1, fold (n,) in 0..folds-1, columns (most trees, NODES, k) that each node may use; growing ends
    `patience` trees after the least loss.
    """
    n, most = len(y), len(columns)
    score = np.zeros((folds, n))
    for k in range(folds):
        events, others = 0.5, 0.5
        for i in range(n):
            if fold[i] != k:
                events += y[i]
                others += 1.0 - y[i]
        score[k, :] = np.log(events / others)
    kept, work, leaf_of = np.zeros(n), np.zeros((2, n)), np.zeros(n, np.int64)
    best, best_trees = np.inf, 0
    splits, values = np.zeros((LEAVES - 1, 4), np.int64), np.zeros(LEAVES)
    for tree in range(most + 1):
        loss = 0.0
        for i in range(n):
            z = score[fold[i], i]
            loss += np.log1p(np.exp(-abs(z))) + max(z, 0.0) - y[i] * z
        if loss < best:
            best, best_trees = loss, tree
            for i in range(n):
                kept[i] = score[fold[i], i]
        if tree == most or tree - best_trees >= patience:
            break
        for k in range(folds):
            for i in range(n):
                leaf_of[i] = -1 if fold[i] == k else 0
            _step(bins, y, leaf_of, columns[tree], rate, ridge, least, score[k], work, splits, values)
    return best_trees, kept


@njit(cache=True, nogil=True)
def _step(
    bins: NDArray[np.uint8],
    y: NDArray[np.float64],
    leaf_of: NDArray[np.int64],
    columns: NDArray[np.int64],
    rate: float,
    ridge: float,
    least: float,
    score: NDArray[np.float64],
    work: NDArray[np.float64],
    splits: NDArray[np.int64],
    values: NDArray[np.float64],
) -> None:
    """One more tree, taught by the rows whose `leaf_of` is 0; its share is added to the score of every row. work: (2, n), overwritten."""
    for i in range(len(y)):
        p = 1.0 / (1.0 + np.exp(-score[i]))
        work[0, i], work[1, i] = p - y[i], p * (1.0 - p)
    _grow(bins, columns, leaf_of, work[0], work[1], ridge, least, splits, values)
    for i in range(len(y)):
        score[i] += rate * values[_leaf(bins[i], splits)]


@njit(cache=True, nogil=True)
def fit_trees(
    bins: NDArray[np.uint8], y: NDArray[np.float64], columns: NDArray[np.int64], rate: float, ridge: float, least: float
) -> tuple[float, NDArray[np.int64], NDArray[np.float64]]:
    """(prior logit, splits (trees, LEAVES - 1, 4), values (trees, LEAVES)) taught by all rows; `columns` as in `boost`."""
    n, trees = len(y), len(columns)
    prior = np.log((y.sum() + 0.5) / (n - y.sum() + 0.5))
    score, work = np.full(n, prior), np.zeros((2, n))
    splits, values = np.zeros((trees, LEAVES - 1, 4), np.int64), np.zeros((trees, LEAVES))
    for tree in range(trees):
        _step(bins, y, np.zeros(n, np.int64), columns[tree], rate, ridge, least, score, work, splits[tree], values[tree])
    return prior, splits, values * rate


@njit(cache=True, nogil=True)
def add_trees(bins: NDArray[np.uint8], prior: float, splits: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logit of each row, (n,)."""
    out = np.full(len(bins), prior)
    for i in range(len(bins)):
        for tree in range(len(splits)):
            out[i] += values[tree, _leaf(bins[i], splits[tree])]
    return out
