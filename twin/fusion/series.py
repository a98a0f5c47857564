"""Visits of a patient as a series: values, what was measured, and how long before the prediction; the newest visit stands last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Series:
    """n patients, k places for visits (the first ones empty where there were fewer), v values each.

    values (n, k, v) in spreads from the mean, 0 where not measured; seen (n, k, v); age (n, k) in typical gaps before the prediction, NaN
    where there was no visit.
    """

    values: Array
    seen: Mask
    age: Array

    def take(self, rows: NDArray[Any]) -> Series:
        """The same for some of the patients."""
        return Series(self.values[rows], self.seen[rows], self.age[rows])


@dataclass(frozen=True)
class SeriesScale:
    """Means and spreads (v,) over all visits of the training rows, and the typical time between two of them."""

    mean: Array
    spread: Array
    gap: float

    @staticmethod
    def fit(frame: Any, visits: tuple[tuple[str, ...], ...]) -> SeriesScale:
        """Learn from the columns of each visit: its age first, then its values."""
        age, values = _cells(frame, visits)
        flat = values.reshape(-1, values.shape[2])
        known = [c[np.isfinite(c)] for c in flat.T]
        mean = np.array([c.mean() if len(c) else 0.0 for c in known])
        spread = np.array([c.std() if len(c) else 0.0 for c in known])
        gaps = -np.diff(age, axis=1)
        gaps = gaps[np.isfinite(gaps) & (gaps > 0)]
        return SeriesScale(mean, np.where(spread > 1e-12, spread, 1.0), float(np.median(gaps)) if len(gaps) else 1.0)

    def transform(self, frame: Any, visits: tuple[tuple[str, ...], ...]) -> Series:
        """Rows as models see them."""
        age, values = _cells(frame, visits)
        seen = np.isfinite(values)
        return Series(np.where(seen, (values - self.mean) / self.spread, 0.0), seen, age / self.gap)


def _cells(frame: Any, visits: tuple[tuple[str, ...], ...]) -> tuple[Array, Array]:
    """Ages (n, k) and values (n, k, v)."""
    cells = np.stack([np.asarray(frame[list(columns)].to_numpy(), np.float64) for columns in visits], axis=1)
    return cells[:, :, 0], cells[:, :, 1:]


def taken(series: Mapping[str, Series], rows: NDArray[Any]) -> dict[str, Series]:
    """Every series for some of the patients."""
    return {name: one.take(rows) for name, one in series.items()}
