"""The shipped default: the simplest model whose loss is within one standard error of the best; chosen and calibrated on training rows.

Simplest: least apt to vary with the sample, in the order of `FusionModel.complexity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from twin.fusion.blocks import Array, Block, Design
from twin.fusion.logistic import log_loss, recalibration
from twin.fusion.models.base import FusionModel, taught


class OneStandardError(FusionModel):
    """Candidates are compared by the log loss of rows they had not seen; the difference to the best, patient by patient, has the error.

    The chosen one's logits of these rows also say how overconfident it is: intercept and slope are corrected by them.
    """

    complexity: ClassVar[int] = 0
    native: ClassVar[bool] = True

    def __init__(self, blocks: Mapping[str, Block], candidates: Mapping[str, FusionModel]) -> None:
        super().__init__(blocks)
        self.candidates = candidates

    def fit_design(self, design: Design, y: Array) -> None:
        """Fit all (they share what they are made of), and choose."""
        fitted = {name: taught(candidate, design, y) for name, candidate in self.candidates.items()}
        self.losses_ = {name: log_loss(y, candidate.left_out_) for name, candidate in fitted.items()}
        self.chosen_ = simplest_within_one_error(self.losses_, {name: rank(candidate) for name, candidate in fitted.items()})
        self.model_ = fitted[self.chosen_]
        self.line_ = recalibration(self.model_.left_out_, y)
        self.left_out_ = self.line_[0] + self.line_[1] * self.model_.left_out_

    def logit_design(self, design: Design) -> Array:
        """Logit by the chosen model, recalibrated."""
        return self.line_[0] + self.line_[1] * self.model_.logit_design(design)


def rank(model: FusionModel) -> int:
    """Complexity of a model; pattern submodels are as complex as what they hold."""
    inner = getattr(model, "model", None)
    return rank(inner) if isinstance(inner, FusionModel) else model.complexity


def simplest_within_one_error(losses: Mapping[str, Array], complexity: Mapping[str, int]) -> str:
    """Name of the least complex model whose mean loss exceeds the best by at most the standard error of that difference."""
    best = min(losses, key=lambda name: (losses[name].mean(), complexity[name]))

    def near(name: str) -> bool:
        excess = losses[name] - losses[best]
        return bool(excess.mean() <= excess.std(ddof=1) / np.sqrt(len(excess)))

    return min((name for name in losses if near(name)), key=lambda name: (complexity[name], name))
