"""Restitution: how long an action potential lasts and how fast its wave runs, after how long a rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.params import Param

PACKAGE, FILE = "solvers.ionic", "data/restitution.json"
PITCH_MS = 1.0
CV_PER_SQRT_D = Param(
    1.91, "1/ms^0.5", 1.3, 2.0, "the shipped table of healthy tissue (ten Tusscher-Panfilov 2006 epi): 0.591 m/s at 0.0953 mm^2/ms"
)


@dataclass(frozen=True, eq=False)
class RestitutionTable:
    """Restitution of one kind of tissue.

    di_ms (k,) ascending diastolic intervals; apd_ms (k,) duration of the action potential that follows; cv_factor (k,) velocity
    relative to steady pacing at 600 ms. Below the first interval nothing is excited; above the last one the values stay as they are
    (tissue that has rested longer). source: where the numbers come from. cv_per_sqrt_d: steady velocity over the square root of the
    diffusion coefficient, ms^-1/2: how far the tissue is coupled follows from how fast it conducts.
    """

    di_ms: NDArray[np.float64]
    apd_ms: NDArray[np.float64]
    cv_factor: NDArray[np.float64]
    source: str
    cv_per_sqrt_d: float = CV_PER_SQRT_D.value

    def __post_init__(self) -> None:
        for name in ("di_ms", "apd_ms", "cv_factor"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        lengths = {len(self.di_ms), len(self.apd_ms), len(self.cv_factor)}
        if len(lengths) != 1 or len(self.di_ms) < 2 or (np.diff(self.di_ms) <= 0).any():
            raise InputError("restitution", "di_ms", "needs two or more ascending intervals, one APD and CV each", "repair the table")
        if not (self.apd_ms > 0).all() or not (self.cv_factor > 0).all():
            raise InputError("restitution", "apd_ms, cv_factor", "not positive or not finite", "repair the table")

    @property
    def di_min_ms(self) -> float:
        """Shortest diastolic interval after which tissue is excited, ms."""
        return float(self.di_ms[0])

    def steady_apd_ms(self, cycle_ms: float) -> float:
        """Duration at which tissue settles when paced at a cycle: the one whose rest is what the cycle leaves, ms."""
        apd = float(np.interp(cycle_ms, self.di_ms, self.apd_ms))
        for _ in range(200):
            # a fifth of the way each time: steep restitution would make whole steps alternate for ever
            apd += 0.2 * (float(np.interp(cycle_ms - apd, self.di_ms, self.apd_ms)) - apd)
        return apd

    def monotone(self) -> RestitutionTable:
        """The same with APD and CV made non-decreasing in DI (measured ones are not, and a wave must not gain by resting less)."""
        apd, cv = (np.minimum.accumulate(values[::-1])[::-1] for values in (self.apd_ms, self.cv_factor))
        return replace(self, apd_ms=apd, cv_factor=cv)

    def sampled(self, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """APD and CV factor at `size` intervals of 1 ms pitch from the smallest DI on, monotone."""
        table = self.monotone()
        di = self.di_min_ms + PITCH_MS * np.arange(size)
        apd, cv = np.interp(di, table.di_ms, table.apd_ms), np.interp(di, table.di_ms, table.cv_factor)
        return apd.astype(np.float32), cv.astype(np.float32)


def tables_from(document: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, RestitutionTable]:
    """Tables by region from the layout of `restitution.json`; entries that are not tables are left out."""
    keys = ("di_ms", "apd_ms", "cv_factor")
    made = document.get("made", {})
    found = {}
    for region, entry in document.items():
        if isinstance(entry, Mapping) and all(k in entry for k in keys):
            di, apd, cv = (np.array(entry[k], np.float64) for k in keys)
            found[region] = RestitutionTable(di, apd, cv, str(entry.get("source", where)), _cv_per_sqrt_d(entry, made))
    if "healthy" not in found:
        raise InputError(where, "healthy", "no restitution table", f"give {', '.join(keys)} for healthy tissue")
    return found


def _cv_per_sqrt_d(entry: Mapping[str, Any], made: Mapping[str, Any]) -> float:
    """Of a table that says at which conductivity it was measured; the default of RestitutionTable if it does not."""
    try:
        d = made["conductivity_S_m"] / (made["surface_to_volume_1_mm"] * made["capacitance_uF_mm2"])
        return float(entry["s1_cv_m_s"] / d**0.5)
    except KeyError:
        return CV_PER_SQRT_D.value


def load_tables() -> dict[str, RestitutionTable]:
    """The shipped tables of healthy and border-zone tissue. Raises InputError where the package lacks them."""
    file = resources.files(PACKAGE).joinpath(FILE)
    if not file.is_file():
        raise InputError(FILE, "restitution", "not in this installation", "install the package with its data, or give tables")
    return tables_from(json.loads(file.read_text(encoding="utf-8")), FILE)


def scaled(factors: Mapping[str, float]) -> dict[str, RestitutionTable]:
    """The shipped tables with each region's durations times its factor."""
    return {
        region: replace(
            table, apd_ms=table.apd_ms * factors.get(region, 1.0), source=f"{table.source}; durations x{factors.get(region, 1.0):.3f}"
        )
        for region, table in load_tables().items()
    }
