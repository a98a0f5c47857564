"""Boosted trees on all columns, and their mean with the blend: for what no sum of columns says, and for cells whose emptiness speaks."""

from __future__ import annotations

from typing import ClassVar

from twin.fusion.blocks import Array, Design
from twin.fusion.logistic import recalibration
from twin.fusion.models.base import FusionModel, taught
from twin.fusion.models.blend import Blend


class Trees(FusionModel):
    """Boosted trees. They see which cells are empty: the report says what that alone predicts."""

    complexity: ClassVar[int] = 7

    def fit_design(self, design: Design, y: Array) -> None:
        """Fit, the number of trees chosen by the left-out loss."""
        self.model_ = design.trees(y)
        self.left_out_ = self.model_.left_out_logit

    def logit_design(self, design: Design) -> Array:
        """Logit by the trees."""
        return self.model_.logit(design.joined(), design.joined_seen())


class Mixture(FusionModel):
    """Mean of the logits of blend and trees, each recalibrated on what it says of rows that it has not seen."""

    complexity: ClassVar[int] = 6

    def fit_design(self, design: Design, y: Array) -> None:
        """Fit both and their lines."""
        self.parts_ = [taught(made(self.blocks), design, y) for made in (Blend, Trees)]
        self.lines_ = [recalibration(part.left_out_, y) for part in self.parts_]
        self.left_out_ = self._mean([part.left_out_ for part in self.parts_])

    def logit_design(self, design: Design) -> Array:
        """Mean of both logits."""
        return self._mean([part.logit_design(design) for part in self.parts_])

    def _mean(self, logits: list[Array]) -> Array:
        (a, b), (c, d) = self.lines_
        return 0.5 * (a + b * logits[0] + c + d * logits[1])
