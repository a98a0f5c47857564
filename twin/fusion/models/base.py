"""The protocol of every fusion model: scikit-learn outside (fit, predict_proba, clone, Pipeline), blocks with masks inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from twin.errors import InputError
from twin.fusion.blocks import Block, Design, Encoder
from twin.fusion.logistic import expit

Array = NDArray[np.float64]


class FusionModel(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Two-class model of a table; subclasses learn in `fit_design` and answer in `logit_design`."""

    complexity: ClassVar[int] = 0
    """Rank among models, simplest first; the rule of one standard error goes by it."""
    native: ClassVar[bool] = False
    """Whether a missing block is handled by the model itself and not by pattern submodels around it."""
    left_out_: Array
    """Logits of the training rows by fits that did not see them, (n,), of the models that the default chooses among."""

    def __init__(self, blocks: Mapping[str, Block]) -> None:
        self.blocks = blocks

    def fit(self, X: Any, y: Any) -> FusionModel:
        """Learn from rows X (a table with the blocks' columns, or an array with them in order) and outcomes y of two kinds."""
        frame = as_frame(X, self.blocks)
        target = np.asarray(y)
        self.classes_ = np.unique(target)
        if len(self.classes_) != 2:
            raise InputError("fusion", "outcome", f"{len(self.classes_)} kinds of outcome in the training rows", "two are needed")
        if len(target) != len(frame):
            raise InputError("fusion", "outcome", f"{len(target)} outcomes for {len(frame)} rows", "give one for each row")
        self.n_features_in_ = frame.shape[1]
        self.encoder_ = Encoder(self.blocks).fit(frame)
        self.fit_design(self.encoder_.transform(frame), (target == self.classes_[1]).astype(np.float64))
        return self

    def decision_function(self, X: Any) -> Array:
        """Logit of the second class, (n,)."""
        check_is_fitted(self, "encoder_")
        return self.logit_design(self.encoder_.transform(as_frame(X, self.blocks)))

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of both classes, (n, 2)."""
        p = expit(self.decision_function(X))
        return np.column_stack([1 - p, p])

    def predict(self, X: Any) -> NDArray[Any]:
        """The likelier class."""
        return np.asarray(self.classes_[(self.decision_function(X) > 0).astype(int)])

    def fit_design(self, design: Design, y: Array) -> None:
        """Learn from encoded rows and outcomes 0/1."""
        raise NotImplementedError

    def logit_design(self, design: Design) -> Array:
        """Logit of each encoded row, (n,)."""
        raise NotImplementedError


def taught(made: FusionModel, design: Design, y: Array) -> FusionModel:
    """A copy of a model fitted to these rows; the same one for all that ask, so it is not to be changed."""
    settings = {name: value for name, value in made.get_params(deep=False).items() if name != "blocks"}

    def fit() -> FusionModel:
        copy: FusionModel = clone(made)
        copy.fit_design(design, y)
        return copy

    found: FusionModel = design.once((type(made).__name__, repr(settings), design.names, y.tobytes()), fit)
    return found


def as_frame(X: Any, blocks: Mapping[str, Block]) -> Any:
    """X as a table with the blocks' columns; an array must have exactly these columns in order. Raises InputError otherwise."""
    import pandas

    columns = [column for block in blocks.values() for column in block.columns]
    if isinstance(X, pandas.DataFrame):
        lacking = [column for column in columns if column not in X.columns]
        if lacking:
            raise InputError("fusion", lacking[0], "this column of a block is not in the table", "give every column, empty where not known")
        return X[columns]
    values = np.asarray(X, np.float64)
    if values.ndim != 2 or values.shape[1] != len(columns):
        raise InputError(
            "fusion", "X", f"an array of shape {values.shape}", f"{len(columns)} columns are needed, in the order of the blocks"
        )
    return pandas.DataFrame(values, columns=columns)


def prior_logit(y: Array) -> float:
    """Logit of the share of events, kept finite by half an event on either side."""
    events = float(y.sum())
    return float(np.log((events + 0.5) / (len(y) - events + 0.5)))
