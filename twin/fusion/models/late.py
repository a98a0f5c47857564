"""Late fusion: one regression per block, then a regression of the outcome on their left-out logits; the plain mean for comparison."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from twin.fusion.blocks import Array, Design
from twin.fusion.logistic import RidgeLogistic
from twin.fusion.models.base import FusionModel


class LateMean(FusionModel):
    """Mean of the blocks' logits. Ranks well and is badly calibrated: evidence of several blocks adds up, a mean does not."""

    complexity: ClassVar[int] = 2

    def fit_design(self, design: Design, y: Array) -> None:
        """Fit every block alone."""
        self.experts_ = {name: design.regression(name, y) for name in design.parts}

    def block_logits(self, design: Design) -> Array:
        """Logits by block, (n, blocks)."""
        return np.column_stack([self.experts_[name].logit(part) for name, part in design.parts.items()])

    def logit_design(self, design: Design) -> Array:
        """Mean over the blocks."""
        return np.asarray(self.block_logits(design).mean(axis=1))


class LateStack(LateMean):
    """Logits of the blocks, weighted by a regression on what each block says of patients it has not seen."""

    complexity: ClassVar[int] = 3

    def fit_design(self, design: Design, y: Array) -> None:
        """Fit every block alone, then the weights on left-out logits."""
        super().fit_design(design, y)
        held_out = np.column_stack([expert.left_out_logit for expert in self.experts_.values()])
        self.weights_ = RidgeLogistic(1.0).fit(held_out, y)
        self.left_out_ = self.weights_.left_out_logit

    def logit_design(self, design: Design) -> Array:
        """Weighted sum of the blocks' logits."""
        return self.weights_.logit(self.block_logits(design))
