"""Boosted trees on all columns, and their sum with the blend: for what no sum of columns says, and for cells whose emptiness speaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from twin.fusion.blocks import Array, Block, Design
from twin.fusion.logistic import weighting
from twin.fusion.models.base import FusionModel, taught
from twin.fusion.models.blend import Blend


class Trees(FusionModel):
    """Boosted trees. With `emptiness` they see which cells are empty: the report says what that alone predicts."""

    complexity: ClassVar[int] = 7

    def __init__(self, blocks: Mapping[str, Block], emptiness: bool = True) -> None:
        super().__init__(blocks)
        self.emptiness = emptiness

    def fit_design(self, design: Design, y: Array) -> None:
        """Fit, the number of trees chosen by the left-out loss."""
        self.model_ = design.trees(y, self.emptiness)
        self.left_out_ = self.model_.left_out_logit

    def logit_design(self, design: Design) -> Array:
        """Logit by the trees."""
        x = design.joined()
        return self.model_.logit(x, design.joined_seen() if self.emptiness else np.ones(x.shape, bool))


class Mixture(FusionModel):
    """Weighted sum of the logits of blend and trees, by what both say of rows that they have not seen; few events leave halves."""

    complexity: ClassVar[int] = 6

    def __init__(self, blocks: Mapping[str, Block], emptiness: bool = True) -> None:
        super().__init__(blocks)
        self.emptiness = emptiness

    def fit_design(self, design: Design, y: Array) -> None:
        """Fit both and their weights."""
        self.parts_ = [taught(part, design, y) for part in (Blend(self.blocks), Trees(self.blocks, self.emptiness))]
        left_out = [part.left_out_ for part in self.parts_]
        self.weights_ = weighting(left_out, y)
        self.left_out_ = self._sum(left_out)

    def logit_design(self, design: Design) -> Array:
        """Weighted sum of both logits."""
        return self._sum([part.logit_design(design) for part in self.parts_])

    def _sum(self, logits: list[Array]) -> Array:
        return np.asarray(self.weights_[0] + np.column_stack(logits) @ self.weights_[1:])
