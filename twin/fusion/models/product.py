"""Middle fusion by a product of experts: each block multiplies the odds; one exponent corrects for what the blocks share."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from twin.fusion.blocks import Array, Design
from twin.fusion.logistic import RidgeLogistic, expit
from twin.fusion.models.base import FusionModel, prior_logit


class ProductOfExperts(FusionModel):
    """logit = prior + a x sum over the blocks that are there of (block's logit - its prior); a missing block has no say."""

    complexity: ClassVar[int] = 4
    native: ClassVar[bool] = True

    def fit_design(self, design: Design, y: Array) -> None:
        """Fit each block on the rows that have it, then intercept and exponent on left-out evidence."""
        self.experts_, self.priors_ = {}, {}
        evidence = np.zeros(len(design))
        for column, (name, part) in enumerate(design.parts.items()):
            rows = design.present[:, column]
            if len(np.unique(y[rows])) < 2:
                continue
            self.experts_[name] = design.regression(name, y) if rows.all() else RidgeLogistic().fit(part[rows], y[rows])
            self.priors_[name] = prior_logit(y[rows])
            evidence[rows] += self.experts_[name].left_out_logit - self.priors_[name]
        prior = prior_logit(y)
        self.weights_ = _exponent(evidence, y, prior)
        self.left_out_ = np.asarray(self.weights_[0] + self.weights_[1] * evidence)

    def logit_design(self, design: Design) -> Array:
        """Prior and the evidence of the blocks that are there."""
        evidence = np.zeros(len(design))
        for column, (name, part) in enumerate(design.parts.items()):
            if name in self.experts_:
                rows = design.present[:, column]
                evidence[rows] += self.experts_[name].logit(part[rows]) - self.priors_[name]
        return np.asarray(self.weights_[0] + self.weights_[1] * evidence)


def _exponent(evidence: Array, y: Array, prior: float) -> tuple[float, float]:
    """Intercept and exponent by maximum likelihood, the exponent kept in 0.05..1.5 where blocks hold next to nothing."""
    fitted = RidgeLogistic(10.0).fit(evidence[:, None], y)
    slope = float(np.clip(fitted.beta[1], 0.05, 1.5))
    intercept = prior
    for _ in range(20):
        p = expit(intercept + slope * evidence)
        intercept -= float((p - y).sum() / max(float((p * (1 - p)).sum()), 1e-9))
    return intercept, slope
