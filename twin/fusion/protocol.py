"""Protocol of every evaluation: stratified, repeated outer folds; what is fitted to the training rows of one is shared by all models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from twin.fusion.blocks import Array, Block, Design, Encoder
from twin.fusion.logistic import expit
from twin.fusion.models.base import FusionModel
from twin.fusion.models.registry import default
from twin.fusion.table import Table

STAGED_REPEATS = 1
"""Repeats of the folds for what is said about the table beside the models' own figures (chosen here)."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How a table is evaluated; drop: the block that is emptied in half of the test rows."""

    repeats: int = 10
    folds: int = 5
    seed: int = 0
    models: tuple[str, ...] = ("early", "late_mean", "late_stack")
    drop: str | None = None

    def few(self) -> Settings:
        """The same with STAGED_REPEATS."""
        return replace(self, repeats=min(STAGED_REPEATS, self.repeats))


@dataclass(frozen=True)
class Fold:
    """One outer fold: rows to learn from, rows to be judged by, both as models see them; regressions are kept until the next fold."""

    repeat: int
    train: NDArray[Any]
    test: NDArray[Any]
    encoder: Encoder
    known: Design
    new: Design
    outcome: Array

    def fit(self, made: FusionModel, names: Sequence[str]) -> FusionModel:
        """A fresh copy of a model, taught by the blocks `names` of the training rows."""
        fitted: FusionModel = clone(made)
        fitted.fit_design(self.known.only(names), self.outcome)
        return fitted

    def judge(self, made: FusionModel, names: Sequence[str]) -> Array:
        """Probabilities of the test rows, (n,)."""
        return expit(self.fit(made, names).logit_design(self.new.only(names)))


def walk(table: Table, settings: Settings) -> Iterator[Fold]:
    """Every outer fold."""
    for repeat, train, test in splits(table, settings):
        encoder = Encoder(table.blocks).fit(table.frame.iloc[train])
        known, new = (encoder.transform(table.frame.iloc[rows]) for rows in (train, test))
        yield Fold(repeat, train, test, encoder, known, new, table.outcome[train])


def splits(table: Table, settings: Settings) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    """(repeat, training rows, test rows); rows of one patient stay together."""
    from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedGroupKFold

    grouped = len(np.unique(table.group)) < len(table) if len(table.group) else False
    blank = np.zeros(len(table))
    if not grouped:
        parts = RepeatedStratifiedKFold(n_splits=settings.folds, n_repeats=settings.repeats, random_state=settings.seed)
        for k, (train, test) in enumerate(parts.split(blank, table.outcome)):
            yield k // settings.folds, train, test
        return
    for repeat in range(settings.repeats):
        halves = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=settings.seed + repeat)
        for train, test in halves.split(blank, table.outcome, table.group):
            yield repeat, train, test


@dataclass(frozen=True)
class Job:
    """A model to be judged on some of the blocks in the first repeats."""

    model: FusionModel
    names: tuple[str, ...]
    repeats: int


@dataclass
class Judged:
    """Out-of-fold probabilities (repeats, n) by job, and the default's: as rows are, each block emptied, each shuffled, with the drop."""

    jobs: dict[str, Array]
    plain: Array
    emptied: dict[str, Array]
    permuted: dict[str, Array]
    dropped: Array
    drop_rows: NDArray[np.bool_]
    chosen: dict[str, int] = field(default_factory=dict)


def judge(table: Table, settings: Settings, jobs: Mapping[str, Job], tell: Tell) -> Judged:
    """Every job and the default in one walk over the folds."""
    n, few, names = len(table), settings.few().repeats, tuple(table.blocks)
    rng = np.random.default_rng(settings.seed)
    out = Judged(
        {name: np.zeros((job.repeats, n)) for name, job in jobs.items()},
        np.zeros((settings.repeats, n)),
        {name: np.zeros((few, n)) for name in names},
        {name: np.zeros((few, n)) for name in names},
        np.zeros((settings.repeats, n)),
        rng.random((settings.repeats, n)) < 0.5,
    )
    made = default(table.blocks)
    for k, fold in enumerate(walk(table, settings)):
        tell(f"fold {k + 1} of {settings.repeats * settings.folds} ...")
        for name, job in jobs.items():
            if fold.repeat < job.repeats:
                out.jobs[name][fold.repeat, fold.test] = fold.judge(job.model, job.names)
        _judge_default(table, settings, fold, fold.fit(made, names), rng, out)
    return out


def _judge_default(table: Table, settings: Settings, fold: Fold, fitted: FusionModel, rng: np.random.Generator, out: Judged) -> None:
    frame, repeat, test = table.frame.iloc[fold.test], fold.repeat, fold.test

    def said(changed: Any) -> Array:
        return expit(fitted.logit_design(fold.encoder.transform(changed)))

    chosen = str(getattr(fitted, "chosen_", ""))
    out.chosen[chosen] = out.chosen.get(chosen, 0) + 1
    out.plain[repeat, test] = expit(fitted.logit_design(fold.new))
    for name, block in table.blocks.items() if repeat < settings.few().repeats else ():
        out.emptied[name][repeat, test] = said(_emptied(frame, block, np.ones(len(test), bool)))
        out.permuted[name][repeat, test] = said(_shuffled(frame, block, rng))
    if settings.drop is not None:
        out.dropped[repeat, test] = said(_emptied(frame, table.blocks[settings.drop], out.drop_rows[repeat, test]))


def _emptied(frame: Any, block: Block, rows: NDArray[np.bool_]) -> Any:
    out = frame.copy()
    out.loc[out.index[rows], list(block.columns)] = np.nan
    return out


def _shuffled(frame: Any, block: Block, rng: np.random.Generator) -> Any:
    out = frame.copy()
    out[list(block.columns)] = frame[list(block.columns)].to_numpy()[rng.permutation(len(frame))]
    return out
