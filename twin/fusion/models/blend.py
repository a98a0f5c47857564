"""Blend: the mean of what one regression on everything says and what the product of the blocks' experts says."""

from __future__ import annotations

from typing import ClassVar

from twin.fusion.blocks import Array, Design
from twin.fusion.models.base import FusionModel, taught
from twin.fusion.models.early import Early
from twin.fusion.models.product import ProductOfExperts


class Blend(FusionModel):
    """Early fusion estimates how the blocks go together, the product takes them as apart; halfway between varies least with the sample."""

    complexity: ClassVar[int] = 1

    def fit_design(self, design: Design, y: Array) -> None:
        """Fit both."""
        self.parts_ = [taught(made(self.blocks), design, y) for made in (Early, ProductOfExperts)]
        self.left_out_ = 0.5 * (self.parts_[0].left_out_ + self.parts_[1].left_out_)

    def logit_design(self, design: Design) -> Array:
        """Mean of both logits."""
        return 0.5 * (self.parts_[0].logit_design(design) + self.parts_[1].logit_design(design))
