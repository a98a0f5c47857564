"""Pattern submodels: each set of blocks that a patient can have gets its own model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from twin.fusion.blocks import Array, Block, Design
from twin.fusion.logistic import inner_folds, log_loss
from twin.fusion.models.base import FusionModel, prior_logit

LEAST_EVENTS = 5
"""A pattern with fewer events, or non-events, than this among its training rows falls back to fewer blocks (chosen here)."""
LEAST_LACKING = 10
"""So many training rows must lack a block before they say what its emptiness means (chosen here); all of them may have had the event."""
MORE_ROWS = 1.2
"""A block is weighed against the rows that lack it only if without it there are this many times as many (chosen here)."""
MOSTLY = 2 / 3
"""Where this share of the rows has every block of the pattern, the others teach it too, imputed: events are worth more (chosen here)."""


class PatternSubmodels(FusionModel):
    """A patient without a block is judged by the model that never used it; so a missing block costs its information and no more.

    Submodels are fitted when a pattern first turns up, from training rows that the model keeps. weigh: a block that many rows lack is used
    only if that is better, for the rows that have it, than a model without it that all rows can teach. emptiness: a patient who lacks a
    block as training rows lacked it may be judged by the model of all blocks, if these rows are judged better by it by more than the
    standard error of that difference: that a test was not done can say more than what the others say.
    """

    native: ClassVar[bool] = True

    def __init__(self, blocks: Mapping[str, Block], model: FusionModel, weigh: bool = False, emptiness: bool = False) -> None:
        super().__init__(blocks)
        self.model = model
        self.weigh = weigh
        self.emptiness = emptiness

    def fit_design(self, design: Design, y: Array) -> None:
        """Keep the rows and fit the submodel of all blocks."""
        self.design_, self.y_ = design, y
        self.submodels_: dict[tuple[str, ...], FusionModel | float] = {}
        whole = self.submodel(design.names)
        self.chosen_ = "prior" if isinstance(whole, float) else getattr(whole, "chosen_", type(whole).__name__)

    def submodel(self, names: tuple[str, ...]) -> FusionModel | float:
        """The model of a set of blocks, or the prior logit where there is no block."""
        if names not in self.submodels_:
            self.submodels_[names] = self._fitted(names)
        return self.submodels_[names]

    def _fitted(self, names: tuple[str, ...]) -> FusionModel | float:
        if not names:
            return prior_logit(self.y_)
        part = self.design_.only(names)
        whole = part.present.all(axis=1)
        rows, events = np.flatnonzero(whole), float(self.y_[whole].sum())
        if min(events, len(rows) - events) < LEAST_EVENTS:
            counts = {name: int(self.design_.only([name]).present.sum()) for name in names}
            rarest = min(names, key=lambda name: counts[name])
            return self.submodel(tuple(name for name in names if name != rarest))
        if whole.mean() >= MOSTLY:
            y = self.y_
        elif self.weigh and (spared := self._not_worth(names, rows)):
            return self.submodel(tuple(name for name in names if name != spared))
        else:
            part, y = part.whole(), self.y_[whole]
        model: FusionModel = clone(self.model)
        model.fit_design(part, y)
        model.used_ = names
        return self._knowing(model) if self.emptiness and names != self.design_.names and len(y) == len(self.y_) else model

    def _knowing(self, model: FusionModel) -> FusionModel:
        """The model of all blocks in place of the one without some, if training rows that lack these say so."""
        whole, own = self.submodels_.get(self.design_.names), getattr(model, "left_out_", None)
        names, all_names = model.used_, self.design_.names
        if not isinstance(whole, FusionModel) or whole.used_ != all_names or own is None or len(whole.left_out_) != len(self.y_):
            return model
        rows = ~self.design_.present[:, [name not in names for name in all_names]].any(axis=1)
        if rows.sum() < LEAST_LACKING:
            return model
        gain = (log_loss(self.y_, own) - log_loss(self.y_, whole.left_out_))[rows]
        return whole if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)) else model

    def _not_worth(self, names: tuple[str, ...], rows: NDArray[Any]) -> str | None:
        """A block without which the rows that have it are judged no worse (regressions, cross-validated on those rows), or None."""
        y, fold = self.y_, np.full(len(self.y_), -1)
        fold[rows] = inner_folds(y[rows])
        for spared in names if len(names) > 1 else ():
            kept = tuple(name for name in names if name != spared)
            more = np.flatnonzero(self.design_.only(kept).present.all(axis=1))
            if len(more) < MORE_ROWS * len(rows):
                continue
            loss = np.zeros((2, len(y)))
            for k in range(int(fold.max()) + 1):
                test = fold == k
                for which, (blocks, own) in enumerate(((names, rows), (kept, more))):
                    train, part = own[~test[own]], self.design_.only(blocks)
                    fitted = part.take(train).regression(None, y[train])
                    loss[which, test] = log_loss(y[test], fitted.logit(part.take(test).joined()))
            gain = (loss[1] - loss[0])[rows]
            # the simpler model is kept unless the block is better by more than the error of that difference
            if gain.mean() <= gain.std(ddof=1) / np.sqrt(len(gain)):
                return spared
        return None

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
