"""Visits at irregular times to features at a landmark: what was known then, how it was moving, and how old it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def landmark(visits: Any, patient: str, time: str, at: float, columns: Sequence[str]) -> Any:
    """Per patient and column: last value up to `at`, slope per unit time by least squares (two visits or more), age of the last value.

    `visits` has one row per visit; nothing after `at` is used. Returns a table indexed by patient:
    columns NAME__last, NAME__slope, NAME__age.
    """
    import pandas

    past = visits[visits[time] <= at].sort_values([patient, time], kind="stable")
    rows: dict[Any, dict[str, float]] = {}
    for who, part in past.groupby(patient, sort=True):
        row: dict[str, float] = {}
        for column in columns:
            known = part[[time, column]].dropna().to_numpy(np.float64)
            if not len(known):
                continue
            when, value = known[:, 0], known[:, 1]
            row[f"{column}__last"], row[f"{column}__age"] = value[-1], at - when[-1]
            spread = when - when.mean()
            if (spread**2).sum() > 0:
                row[f"{column}__slope"] = float((spread * value).sum() / (spread**2).sum())
        rows[who] = row
    names = [f"{column}__{kind}" for column in columns for kind in ("last", "slope", "age")]
    return pandas.DataFrame.from_dict(rows, orient="index", dtype=np.float64).reindex(columns=names)
