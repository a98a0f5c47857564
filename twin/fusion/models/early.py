"""Early fusion: all columns of all blocks in one ridge logistic regression. A single block is the same with one block."""

from __future__ import annotations

from typing import ClassVar

from twin.fusion.blocks import Array, Design
from twin.fusion.models.base import FusionModel


class Early(FusionModel):
    """One regression on everything."""

    complexity: ClassVar[int] = 2

    def fit_design(self, design: Design, y: Array) -> None:
        """Fit, the penalty chosen by its evidence."""
        self.model_ = design.regression(None, y)
        self.left_out_ = self.model_.left_out_logit

    def logit_design(self, design: Design) -> Array:
        """Logit by the regression."""
        return self.model_.logit(design.joined())
