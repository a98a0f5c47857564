"""Visits at irregular times: features at a landmark (what was known, how it was moving, how old it was), and the last visits themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Places = tuple[tuple[str, ...], ...]


def landmark(visits: Any, patient: str, time: str, at: float, columns: Sequence[str]) -> Any:
    """Per patient and column: last value up to `at`, slope per unit time by least squares (two visits or more), age of the last value.

    `visits` has one row per visit; nothing after `at` is used. Returns a table indexed by patient:
    columns NAME__last, NAME__slope, NAME__age.
    """
    import pandas

    rows: dict[Any, dict[str, float]] = {}
    for who, part in _past(visits, patient, time, at).groupby(patient, sort=True):
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


def last_visits(visits: Any, patient: str, time: str, at: float, columns: Sequence[str], keep: int) -> tuple[Any, Places]:
    """The last `keep` visits up to `at` of each patient side by side, and the columns of each place, the newest last.

    A place holds the age of the visit (time before `at`) and its values; places without a visit are empty, the first ones first.
    """
    import pandas

    places = tuple((f"age__visit{k}", *(f"{column}__visit{k}" for column in columns)) for k in range(keep))
    rows: dict[Any, dict[str, float]] = {}
    for who, part in _past(visits, patient, time, at).groupby(patient, sort=True):
        cells = part[[time, *columns]].to_numpy(np.float64)[-keep:]
        cells[:, 0] = at - cells[:, 0]
        row: dict[str, float] = {}
        for names, values in zip(places[keep - len(cells) :], cells):
            row |= dict(zip(names, values))
        rows[who] = row
    flat = [name for names in places for name in names]
    return pandas.DataFrame.from_dict(rows, orient="index", dtype=np.float64).reindex(columns=flat), places


def _past(visits: Any, patient: str, time: str, at: float) -> Any:
    return visits[visits[time] <= at].sort_values([patient, time], kind="stable")
