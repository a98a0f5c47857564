"""Outcomes of a trial as arrays: twins in rows, posterior samples in columns, one array per arm and outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.trials.results import sample_rows, twin_rows
from planners.trials.table import Table
from planners.trials.trial import OUTCOMES, Trial

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """twins: rows of twins.parquet of those enrolled, in order; all_twins: of every candidate; values: (arm, outcome) -> (twins, samples)
    float64, NaN where there is no result.
    """

    twins: list[dict[str, Any]]
    all_twins: list[dict[str, Any]]
    values: Mapping[tuple[str, str], Array]

    def pair(self, outcome: str, first: str, second: str) -> tuple[Array, Array]:
        """Values of both arms, (twins, samples) each."""
        return self.values[first, outcome], self.values[second, outcome]

    def head(self, count: int) -> Outcomes:
        """The first twins alone: what a look sees."""
        return Outcomes(self.twins[:count], self.all_twins, {k: v[:count] for k, v in self.values.items()})


def outcomes_of(table: Table, trial: Trial) -> Outcomes:
    """All outcomes that the table holds."""
    everyone = list(twin_rows(table, trial))
    twins = [t for t in everyone if t["state"] == "enrolled"]
    place = {t["candidate"]: k for k, t in enumerate(twins)}
    shape = (len(twins), trial.samples)
    values = {(arm.name, name): np.full(shape, np.nan) for arm in trial.arms for name in OUTCOMES}
    for row in sample_rows(table, trial):
        for name in OUTCOMES:
            if row[name] is not None:
                values[row["arm"], name][place[row["candidate"]], row["sample"]] = float(row[name])
    return Outcomes(twins, everyone, values)
