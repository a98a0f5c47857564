"""Pattern submodels: each set of blocks that a patient can have gets its own model, fitted on every row that has these blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from twin.fusion.blocks import Array, Block, Design
from twin.fusion.models.base import FusionModel, prior_logit

LEAST_EVENTS = 5
"""A pattern with fewer events, or non-events, than this among its training rows falls back to fewer blocks (chosen here)."""


class PatternSubmodels(FusionModel):
    """A patient without a block is judged by the model that never used it; so a missing block costs its information and no more.

    Submodels are fitted when a pattern first turns up, from training rows that the model keeps.
    """

    native: ClassVar[bool] = True

    def __init__(self, blocks: Mapping[str, Block], model: FusionModel) -> None:
        super().__init__(blocks)
        self.model = model

    def fit_design(self, design: Design, y: Array) -> None:
        """Keep the rows and fit the submodel of all blocks."""
        self.design_, self.y_ = design, y
        self.submodels_: dict[tuple[str, ...], FusionModel | float] = {}
        self.submodel(design.names)

    def submodel(self, names: tuple[str, ...]) -> FusionModel | float:
        """The model of a set of blocks, or the prior logit where there is no block."""
        if names not in self.submodels_:
            self.submodels_[names] = self._fitted(names)
        return self.submodels_[names]

    def _fitted(self, names: tuple[str, ...]) -> FusionModel | float:
        if not names:
            return prior_logit(self.y_)
        part = self.design_.only(names)
        rows = np.flatnonzero(part.present.all(axis=1))
        events = float(self.y_[rows].sum())
        if min(events, len(rows) - events) < LEAST_EVENTS:
            counts = {name: int(self.design_.only([name]).present.sum()) for name in names}
            rarest = min(names, key=lambda name: counts[name])
            return self.submodel(tuple(name for name in names if name != rarest))
        model: FusionModel = clone(self.model)
        model.fit_design(part.take(rows), self.y_[rows])
        model.used_ = names
        return model

    def logit_design(self, design: Design) -> Array:
        """Each row by the submodel of its blocks."""
        out = np.empty(len(design))
        codes, where = np.unique(design.present, axis=0, return_inverse=True)
        for k, code in enumerate(codes):
            names = tuple(name for name, here in zip(design.names, code) if here)
            rows: NDArray[Any] = np.flatnonzero(where.ravel() == k)
            model = self.submodel(names)
            out[rows] = model if isinstance(model, float) else model.logit_design(design.only(model.used_).take(rows))
        return out
