"""The shipped default: the simplest model whose loss is within one standard error of the best, chosen inside the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from sklearn.base import clone

from twin.fusion.blocks import Array, Block, Design
from twin.fusion.logistic import log_loss
from twin.fusion.models.base import FusionModel


class OneStandardError(FusionModel):
    """Candidates are compared by log loss in an inner cross-validation; the difference to the best, patient by patient, has the error."""

    complexity: ClassVar[int] = 0
    native: ClassVar[bool] = True

    def __init__(self, blocks: Mapping[str, Block], candidates: Mapping[str, FusionModel], folds: int = 5, seed: int = 0) -> None:
        super().__init__(blocks)
        self.candidates = candidates
        self.folds = folds
        self.seed = seed

    def fit_design(self, design: Design, y: Array) -> None:
        """Compare, choose, and fit the chosen to all rows."""
        self.losses_ = self._losses(design, y)
        self.chosen_ = simplest_within_one_error(self.losses_, {name: rank(model) for name, model in self.candidates.items()})
        self.model_: FusionModel = clone(self.candidates[self.chosen_])
        self.model_.fit_design(design, y)

    def _losses(self, design: Design, y: Array) -> dict[str, Array]:
        if len(self.candidates) == 1:
            return {name: np.zeros(len(y)) for name in self.candidates}
        from sklearn.model_selection import StratifiedKFold

        losses = {name: np.zeros(len(y)) for name in self.candidates}
        splits = StratifiedKFold(self.folds, shuffle=True, random_state=self.seed)
        for train, test in splits.split(np.zeros(len(y)), y):
            for name, candidate in self.candidates.items():
                model: FusionModel = clone(candidate)
                model.fit_design(design.take(train), y[train])
                losses[name][test] = log_loss(y[test], model.logit_design(design.take(test)))
        return losses

    def logit_design(self, design: Design) -> Array:
        """Logit by the chosen model."""
        return self.model_.logit_design(design)


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
