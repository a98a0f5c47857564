"""Boosted trees for small tables (Friedman, Ann Stat 2001;29:1189): four leaves each, empty cells have a side of their own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from twin.fusion.boosting_kernels import BINS, NODES, add_trees, boost, fit_trees
from twin.fusion.logistic import Array, inner_folds

Mask = NDArray[np.bool_]


@dataclass
class BoostedTrees:
    """Trees grow while the left-out loss falls; each cut may use a random `share` of the columns, which makes them differ.

    left_out_logit (n,): of each training row by trees that it did not teach. All constants chosen here, on the shipped sets.
    """

    most: int = 300
    rate: float = 0.05
    ridge: float = 1.0
    least: float = 10.0
    share: float = 0.3
    patience: int = 30
    seed: int = 0
    trees: int = 0
    left_out_logit: Array = field(default_factory=lambda: np.zeros(0))

    def fit(self, x: Array, seen: Mask, y: Array) -> BoostedTrees:
        """Fit to x (n, p), of which `seen` (n, p) was measured, and y (n,) of zeros and ones."""
        self.edges = [_edges(x[seen[:, j], j]) for j in range(x.shape[1])]
        bins, fold, p = self._bins(x, seen), inner_folds(y), x.shape[1]
        rng, k = np.random.default_rng(self.seed), min(p, max(2, int(np.ceil(self.share * p))))
        columns = rng.permuted(np.tile(np.arange(p), (self.most, NODES, 1)), axis=2)[:, :, :k].copy()
        how = (self.rate, self.ridge, self.least)
        self.trees, self.left_out_logit = boost(bins, y, fold, int(fold.max()) + 1, columns, *how, self.patience)
        self.prior, self.splits, self.values = fit_trees(bins, y, columns[: self.trees], *how)
        return self

    def logit(self, x: Array, seen: Mask) -> Array:
        """Logit of each row."""
        return np.asarray(add_trees(self._bins(x, seen), self.prior, self.splits, self.values))

    def _bins(self, x: Array, seen: Mask) -> NDArray[np.uint8]:
        out = np.zeros(x.shape, np.uint8)
        for j, edges in enumerate(self.edges):
            out[:, j] = np.where(seen[:, j], 1 + np.searchsorted(edges, x[:, j], side="right"), 0)
        return out


def _edges(values: Array) -> Array:
    """Cuts (at most BINS - 2) halfway between values, with equally many rows between where there are many kinds."""
    kinds = np.unique(values)
    if len(kinds) < 2:
        return np.zeros(0)
    if len(kinds) <= BINS - 1:
        return np.asarray(0.5 * (kinds[1:] + kinds[:-1]))
    return np.unique(np.quantile(values, np.linspace(0, 1, BINS)[1:-1]))
