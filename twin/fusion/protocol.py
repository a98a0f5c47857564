"""Protocol of every evaluation: stratified, repeated outer folds; what is fitted to the training rows of one is shared by all models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
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
Split = tuple[int, NDArray[Any], NDArray[Any]]
"""(repeat, training rows, test rows) of one outer fold."""
Spread = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""Does one thing to each of many, in order, like `map`: or a process pool's `map`."""


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
    for split in splits(table, settings):
        yield fold_of(table, split)


def fold_of(table: Table, split: Split) -> Fold:
    """The fold of one split: what turns rows into numbers is learnt from its training rows."""
    repeat, train, test = split
    encoder = Encoder(table.blocks).fit(table.frame.iloc[train])
    known, new = (encoder.transform(table.frame.iloc[rows]) for rows in (train, test))
    return Fold(repeat, train, test, encoder, known, new, table.outcome[train])


def one_thread() -> Any:
    """Linear algebra by one thread while this holds: sums then come out alike, however many processes share the folds."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    return threadpool_limits(1)


def splits(table: Table, settings: Settings) -> Iterator[Split]:
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


def judge(table: Table, settings: Settings, jobs: Mapping[str, Job], tell: Tell, spread: Spread) -> Judged:
    """Every job and the default in one walk over the folds."""
    n, few, names = len(table), settings.few().repeats, tuple(table.blocks)
    out = Judged(
        {name: np.zeros((job.repeats, n)) for name, job in jobs.items()},
        np.zeros((settings.repeats, n)),
        {name: np.zeros((few, n)) for name in names},
        {name: np.zeros((few, n)) for name in names},
        np.zeros((settings.repeats, n)),
        np.random.default_rng(settings.seed).random((settings.repeats, n)) < 0.5,
    )
    parts = list(splits(table, settings))
    for k, one in enumerate(spread(partial(_judge_fold, table, settings, jobs, out.drop_rows), list(enumerate(parts)))):
        tell(f"fold {k + 1} of {len(parts)} ...")
        repeat, _, test = parts[k]
        for whole, part in ((out.jobs, one.jobs), (out.emptied, one.emptied), (out.permuted, one.permuted)):
            for name, p in part.items():
                whole[name][repeat, test] = p
        out.plain[repeat, test] = one.plain
        if settings.drop is not None:
            out.dropped[repeat, test] = one.dropped
        for name, count in one.chosen.items():
            out.chosen[name] = out.chosen.get(name, 0) + count
    return out


def _judge_fold(table: Table, settings: Settings, jobs: Mapping[str, Job], drop_rows: NDArray[np.bool_], item: tuple[int, Split]) -> Judged:
    """One outer fold by itself, its test rows only: what it gives does not depend on the folds before it."""
    k, split = item
    rng = np.random.default_rng((settings.seed, k))
    with one_thread():
        fold = fold_of(table, split)
        frame, names = table.frame.iloc[fold.test], tuple(table.blocks)
        fitted = fold.fit(default(table.blocks, table.emptiness), names)

        def said(changed: Any) -> Array:
            return expit(fitted.logit_design(fold.encoder.transform(changed)))

        found = {name: fold.judge(job.model, job.names) for name, job in jobs.items() if fold.repeat < job.repeats}
        out = Judged(found, expit(fitted.logit_design(fold.new)), {}, {}, np.zeros(0), drop_rows[fold.repeat, fold.test])
        out.chosen[str(getattr(fitted, "chosen_", ""))] = 1
        for name, block in table.blocks.items() if fold.repeat < settings.few().repeats else ():
            out.emptied[name] = said(_emptied(frame, block, np.ones(len(frame), bool)))
            out.permuted[name] = said(_shuffled(frame, block, rng))
        if settings.drop is not None:
            out.dropped = said(_emptied(frame, table.blocks[settings.drop], out.drop_rows))
    return out


def _emptied(frame: Any, block: Block, rows: NDArray[np.bool_]) -> Any:
    out = frame.copy()
    out.loc[out.index[rows], list(block.columns)] = np.nan
    return out


def _shuffled(frame: Any, block: Block, rng: np.random.Generator) -> Any:
    out = frame.copy()
    out[list(block.columns)] = frame[list(block.columns)].to_numpy()[rng.permutation(len(frame))]
    return out
