"""Graph fusion: patients are nodes, edges join the similar; what a patient's neighbours had corrects the early model. Inductive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from twin.fusion.blocks import Array, Block, Design
from twin.fusion.logistic import RidgeLogistic, expit
from twin.fusion.models.base import FusionModel, prior_logit


class GraphSmoothing(FusionModel):
    """Residuals of the early model are averaged over the `neighbours` most similar training patients; a regression weighs both.

    Similarity is the mean squared difference over the columns measured in both, so a missing block neither joins nor parts.
    """

    complexity: ClassVar[int] = 5

    def __init__(self, blocks: Mapping[str, Block], neighbours: int = 20) -> None:
        super().__init__(blocks)
        self.neighbours = neighbours

    def fit_design(self, design: Design, y: Array) -> None:
        """Fit the early model, then the weight of the neighbours, each patient left out of its own neighbourhood."""
        self.early_ = design.regression(None, y)
        self.values_, self.seen_ = design.joined(), design.joined_seen().astype(np.float64)
        self.residual_ = y - expit(self.early_.left_out_logit)
        self.prior_ = prior_logit(y)
        around = self._around(self.values_, self.seen_, own=True)
        self.weights_ = RidgeLogistic(1.0).fit(np.column_stack([self.early_.left_out_logit, around]), y)
        self.left_out_ = self.weights_.left_out_logit

    def logit_design(self, design: Design) -> Array:
        """Logit by the early model and the neighbours among the training rows."""
        around = self._around(design.joined(), design.joined_seen().astype(np.float64), own=False)
        return self.weights_.logit(np.column_stack([self.early_.logit(design.joined()), around]))

    def _around(self, values: Array, seen: Array, own: bool) -> Array:
        """Mean residual of the neighbours with Gaussian weights, in units of its spread, (n,)."""
        a, b = values * seen, self.values_ * self.seen_
        shared = np.maximum(seen @ self.seen_.T, 1.0)
        distance = (a**2 @ self.seen_.T + seen @ (b**2).T - 2 * a @ b.T) / shared
        if own:
            np.fill_diagonal(distance, np.inf)
        k = min(self.neighbours, len(self.values_) - 1)
        nearest = np.sort(np.argpartition(distance, k - 1, axis=1)[:, :k], axis=1)
        near = np.take_along_axis(distance, nearest, axis=1)
        weight = np.exp(-0.5 * near / np.maximum(near.max(axis=1, keepdims=True), 1e-12))
        return np.asarray((weight * self.residual_[nearest]).sum(axis=1) / weight.sum(axis=1) / max(float(self.residual_.std()), 1e-9))
