"""Chained equations: every column that can be empty is regressed on all others, in rounds; then early fusion of the completed rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from twin.fusion.blocks import Array, Block, Design, Mask
from twin.fusion.logistic import RidgeLogistic
from twin.fusion.models.base import FusionModel


class ChainedEquations(FusionModel):
    """Completes rows by conditional means, learned from training rows alone, outcome not used; then one ridge regression."""

    complexity: ClassVar[int] = 8
    native: ClassVar[bool] = True

    def __init__(self, blocks: Mapping[str, Block], rounds: int = 5, ridge: float = 1.0) -> None:
        super().__init__(blocks)
        self.rounds = rounds
        self.ridge = ridge

    def fit_design(self, design: Design, y: Array) -> None:
        """Learn the equations in rounds on the training rows, then the regression on these rows completed."""
        filled, seen = design.joined().copy(), design.joined_seen()
        self.mean_ = filled.mean(axis=0)
        for _ in range(self.rounds if (~seen).any() else 1):
            self.equations_ = self._equations(filled, seen)
            filled = self._round(filled, seen)
        self.model_ = RidgeLogistic().fit(filled, y)

    def _equations(self, filled: Array, seen: Mask) -> Array:
        """Coefficients (p, p) of each column on the others: ridge regressions on the rows where the column was measured."""
        centred = filled - self.mean_
        p = filled.shape[1]
        out = np.zeros((p, p))
        gram = centred.T @ centred
        for j in range(p):
            rows, others = seen[:, j], np.arange(p) != j
            if rows.sum() < 3:
                continue
            part = centred[rows]
            both = gram if rows.all() else part.T @ part
            out[j, others] = np.linalg.solve(both[np.ix_(others, others)] + self.ridge * np.eye(p - 1), both[others, j])
        return out

    def _round(self, filled: Array, seen: Mask) -> Array:
        return np.where(seen, filled, self.mean_ + (filled - self.mean_) @ self.equations_.T)

    def complete(self, design: Design) -> Array:
        """All columns with the empty cells filled, (n, p)."""
        filled, seen = np.where(design.joined_seen(), design.joined(), self.mean_), design.joined_seen()
        for _ in range(self.rounds if (~seen).any() else 0):
            filled = self._round(filled, seen)
        return filled

    def logit_design(self, design: Design) -> Array:
        """Logit of the completed rows."""
        return self.model_.logit(self.complete(design))
