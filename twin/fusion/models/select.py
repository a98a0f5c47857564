"""The shipped default: the simplest model whose loss is within one standard error of the best; chosen, calibrated inside the training rows.

Simplest: least apt to vary with the sample, in the order of `FusionModel.complexity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from sklearn.base import clone

from twin.fusion.blocks import Array, Block, Design
from twin.fusion.logistic import expit, log_loss
from twin.fusion.models.base import FusionModel

SLOPE_SD = 0.3
"""Prior spread of the calibration slope about 1 (chosen here): few events say little about it, and then it is left alone."""


class OneStandardError(FusionModel):
    """Candidates are compared by log loss in an inner cross-validation; the difference to the best, patient by patient, has the error.

    The chosen one's logits of patients it had not seen also say how overconfident it is: intercept and slope are corrected by them.
    """

    complexity: ClassVar[int] = 0
    native: ClassVar[bool] = True

    def __init__(self, blocks: Mapping[str, Block], candidates: Mapping[str, FusionModel], folds: int = 3, seed: int = 0) -> None:
        super().__init__(blocks)
        self.candidates = candidates
        self.folds = folds
        self.seed = seed

    def fit_design(self, design: Design, y: Array) -> None:
        """Compare, choose, and fit the chosen to all rows."""
        unseen = self._unseen(design, y)
        self.losses_ = {name: log_loss(y, z) for name, z in unseen.items()}
        self.chosen_ = simplest_within_one_error(self.losses_, {name: rank(model) for name, model in self.candidates.items()})
        self.model_: FusionModel = clone(self.candidates[self.chosen_])
        self.model_.fit_design(design, y)
        self.line_ = recalibration(unseen[self.chosen_], y)

    def _unseen(self, design: Design, y: Array) -> dict[str, Array]:
        """Logits of each candidate for training rows that it was not fitted to."""
        from sklearn.model_selection import StratifiedKFold

        out = {name: np.zeros(len(y)) for name in self.candidates}
        splits = StratifiedKFold(self.folds, shuffle=True, random_state=self.seed)
        for train, test in splits.split(np.zeros(len(y)), y):
            known, new = design.take(train), design.take(test)
            for name, candidate in self.candidates.items():
                model: FusionModel = clone(candidate)
                model.fit_design(known, y[train])
                out[name][test] = model.logit_design(new)
        return out

    def logit_design(self, design: Design) -> Array:
        """Logit by the chosen model, recalibrated."""
        return self.line_[0] + self.line_[1] * self.model_.logit_design(design)


def recalibration(z: Array, y: Array) -> tuple[float, float]:
    """Intercept and slope that make logits z (n,) right for y (n,), the slope held to 1 by SLOPE_SD."""
    x, middle, precision = np.column_stack([np.ones(len(z)), z]), np.array([0.0, 1.0]), np.array([1e-9, SLOPE_SD**-2])

    def cost(line: Array) -> float:
        return float(log_loss(y, x @ line).sum() + 0.5 * (precision * (line - middle) ** 2).sum())

    line = middle.copy()
    for _ in range(50):
        p = expit(x @ line)
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.diag(precision), x.T @ (p - y) + precision * (line - middle))
        size = 1.0
        # far off, where all probabilities are 0 or 1, a whole step overshoots
        while cost(line - size * step) > cost(line) and size > 1e-6:
            size *= 0.5
        line = line - size * step
        if np.abs(size * step).max() < 1e-8:
            break
    return float(line[0]), float(np.clip(line[1], 0.05, 2.0))


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
