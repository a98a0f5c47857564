"""Modalities as typed blocks of columns, and the numbers that models see: imputed, scaled, with what was really there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.fusion.boosting import BoostedTrees
from twin.fusion.logistic import RidgeLogistic
from twin.fusion.series import Series, SeriesScale, taken

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """One modality: its columns by type; a `curve` (columns in order) is reduced to `components` principal components."""

    name: str
    numeric: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    curve: tuple[str, ...] = ()
    components: int = 5
    visits: tuple[tuple[str, ...], ...] = ()
    """Columns of each of the last visits (its age, then its values), the newest last: what recurrent models read."""

    @property
    def plain(self) -> tuple[str, ...]:
        """Every column but those of single visits."""
        return (*self.numeric, *self.log, *self.categorical, *self.curve)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the block."""
        return (*self.plain, *(column for visit in self.visits for column in visit))


@dataclass(frozen=True)
class Design:
    """What models see of n patients: `parts[block]` (n, p) finite, `seen[block]` (n, p) measured or filled in, `present` (n, blocks)."""

    parts: Mapping[str, Array]
    seen: Mapping[str, Mask]
    present: Mask
    fits: dict[tuple[object, ...], Any] = field(default_factory=dict, compare=False, repr=False)
    """What was already asked of these rows, by blocks: most models are made of the same regressions and trees."""
    series: Mapping[str, Series] = field(default_factory=dict)
    """Visits of the blocks that have them."""

    @property
    def names(self) -> tuple[str, ...]:
        """Blocks, in order."""
        return tuple(self.parts)

    def __len__(self) -> int:
        """Number of patients."""
        return len(self.present)

    def regression(self, name: str | None, y: Array) -> RidgeLogistic:
        """The ridge regression of y (n,) on one block, or on all side by side (None)."""
        names = self.names if name is None else (name,)
        found: RidgeLogistic = self.once(("regression", names, y.tobytes()), lambda: RidgeLogistic().fit(self.only(names).joined(), y))
        return found

    def trees(self, y: Array, emptiness: bool = True) -> BoostedTrees:
        """Boosted trees of y (n,) on all blocks; `emptiness`: empty cells have a side of their own, otherwise they are filled."""
        seen = self.joined_seen() if emptiness else np.ones(self.joined().shape, bool)
        found: BoostedTrees = self.once(("trees", self.names, emptiness, y.tobytes()), lambda: BoostedTrees().fit(self.joined(), seen, y))
        return found

    def once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """What `make` gives, made for the first that asks by this key."""
        if key not in self.fits:
            self.fits[key] = make()
        return self.fits[key]

    def take(self, rows: NDArray[Any]) -> Design:
        """The same for some of the patients."""
        parts, seen = {b: v[rows] for b, v in self.parts.items()}, {b: v[rows] for b, v in self.seen.items()}
        return Design(parts, seen, self.present[rows], series=taken(self.series, rows))

    def whole(self) -> Design:
        """The patients who have every block."""
        found: Design = self.once(("whole", self.names), lambda: self.take(np.flatnonzero(self.present.all(axis=1))))
        return found

    def only(self, names: Sequence[str]) -> Design:
        """The same for some of the blocks; what is fitted to them is kept here too."""
        keep = [self.names.index(name) for name in names]
        parts, seen = {b: self.parts[b] for b in names}, {b: self.seen[b] for b in names}
        return Design(parts, seen, self.present[:, keep], self.fits, {b: v for b, v in self.series.items() if b in names})

    def joined(self) -> Array:
        """All blocks side by side, (n, p)."""
        return np.hstack(list(self.parts.values())) if self.parts else np.zeros((len(self), 0))

    def joined_seen(self) -> Mask:
        """Which cells of `joined` were measured."""
        return np.hstack(list(self.seen.values())) if self.seen else np.zeros((len(self), 0), bool)


FLAG_SPREAD = 0.25
"""Least spread of a column of two kinds, as a share of their difference (chosen here, on the shipped sets): a sign that few patients have
is not stretched until it outweighs what all have."""


def _stride(filled: Array) -> Array:
    """Difference of the two values of each column that has two, 0 for the others, (p,)."""
    low, high = filled.min(axis=0, initial=np.inf), filled.max(axis=0, initial=-np.inf)
    return np.where(((filled == low) | (filled == high)).all(axis=0), high - low, 0.0) if len(filled) else np.zeros(filled.shape[1])


def presence(blocks: Mapping[str, Block], frame: Any) -> Mask:
    """Which blocks each row has, (n, blocks): more than half of the block's cells are filled."""
    columns = [np.isfinite(_values(frame, block.plain)).mean(axis=1) > 0.5 for block in blocks.values()]
    return np.column_stack(columns)


def _values(frame: Any, columns: Sequence[str]) -> Array:
    return np.asarray(frame[list(columns)].to_numpy(), np.float64)


@dataclass
class Encoder:
    """Learns medians, modes, scales and components from training rows, and turns any rows into a `Design`."""

    blocks: Mapping[str, Block]
    _state: dict[str, Any] = field(default_factory=dict)

    def fit(self, frame: Any) -> Encoder:
        """Learn from training rows (a table with the columns of the blocks, numbers only)."""
        for name, block in self.blocks.items():
            number = _numbers(frame, block)
            centre = np.array([np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else 0.0 for c in number.T])
            filled = np.where(np.isfinite(number), number, centre)
            spread = np.maximum(filled.std(axis=0), FLAG_SPREAD * _stride(filled))
            levels = []
            for column in block.categorical:
                values = _values(frame, [column])[:, 0]
                found, counts = np.unique(values[np.isfinite(values)], return_counts=True)
                levels.append((found, found[counts.argmax()] if len(found) else 0.0))
            scale = SeriesScale.fit(frame, block.visits) if block.visits else None
            spread = np.where(spread > 1e-12, spread, 1.0)
            self._state[name] = (centre, filled.mean(axis=0), spread, levels, _curve_basis(frame, block), scale)
        return self

    def transform(self, frame: Any) -> Design:
        """Rows as models see them."""
        parts, seen = {}, {}
        for name, block in self.blocks.items():
            centre, mean, spread, levels, basis, _ = self._state[name]
            number = _numbers(frame, block)
            known = np.isfinite(number)
            columns, masks = [(np.where(known, number, centre) - mean) / spread], [known]
            for column, (found, mode) in zip(block.categorical, levels):
                values = _values(frame, [column])[:, 0]
                here = np.isfinite(values)
                columns.append((np.where(here, values, mode)[:, None] == found).astype(np.float64))
                masks.append(np.repeat(here[:, None], len(found), axis=1))
            if block.curve:
                score, here = _curve_scores(frame, block, basis)
                columns.append(score)
                masks.append(here)
            parts[name], seen[name] = np.hstack(columns), np.hstack(masks)
        series = {name: self._state[name][-1].transform(frame, block.visits) for name, block in self.blocks.items() if block.visits}
        return Design(parts, seen, presence(self.blocks, frame), series=series)


def _numbers(frame: Any, block: Block) -> Array:
    number = _values(frame, block.numeric) if block.numeric else np.zeros((len(frame), 0))
    if not block.log:
        return number
    raw = _values(frame, block.log)
    return np.hstack([number, np.log(np.where(raw > 0, raw, np.nan))])


def _curve_basis(frame: Any, block: Block) -> tuple[Array, Array, Array] | None:
    if not block.curve:
        return None
    whole = _values(frame, block.curve)
    whole = whole[np.isfinite(whole).all(axis=1)]
    if len(whole) < 2:
        return np.zeros(len(block.curve)), np.zeros((1, len(block.curve))), np.ones(1)
    mean = whole.mean(axis=0)
    _, singular, axes = np.linalg.svd(whole - mean, full_matrices=False)
    k = min(block.components, int((singular > 1e-9 * singular[0]).sum()) or 1)
    # the sign of a component is arbitrary: fixed, so that the same rows give the same numbers
    axes = axes[:k] * np.sign(axes[np.arange(k), np.abs(axes[:k]).argmax(axis=1)])[:, None]
    return mean, axes, np.maximum(singular[:k] / np.sqrt(len(whole)), 1e-12)


def _curve_scores(frame: Any, block: Block, basis: tuple[Array, Array, Array]) -> tuple[Array, Mask]:
    mean, axes, scale = basis
    curve = _values(frame, block.curve)
    whole: Any = np.isfinite(curve).all(axis=1)
    score = np.zeros((len(curve), len(axes)))
    score[whole] = (curve[whole] - mean) @ axes.T / scale
    return score, np.repeat(whole[:, None], len(axes), axis=1)
