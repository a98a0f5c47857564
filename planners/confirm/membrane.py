"""Cells that have the refractoriness of the reduced model's tables, and their whole state so long after an upstroke."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.eikonal.regions import source_of
from solvers.eikonal.restitution import RestitutionTable
from solvers.ionic import IonicModel, ionic_model
from solvers.ionic.pacing import Cable, apd_ms
from solvers.ionic.restitution import CABLE_BEATS, CELL_BEATS, S1_MS, SCALES, STIMULUS_MS, STIMULUS_MV_MS
from solvers.ionic.steady import prepaced
from twin.errors import RunFailed
from twin.params import Param

MODEL, CELL = "ten_tusscher_panfilov_2006", "epi"
DT_MS = 0.02
BEATS = CELL_BEATS + CABLE_BEATS
"""As many as the shipped tables' cells had: those of the border zone drift on (docs/reentry.md)."""

APD_TOLERANCE = Param(0.03, "1", 0.01, 0.05, "chosen here: a cell has a table's duration if it is within this share of it")
RECTIFIERS = ("G_Ks", "G_Kr")
"""Scaled where the duration of a table is not that of the cell: they end the action potential and leave upstroke and rest alone."""

FACTORS = (0.05, 6.0)
TRAIN_BEATS = 8
STEP_MS = 1.0


@dataclass(frozen=True)
class Recovery:
    """One cycle of a paced cell: v_mv (k,), states (k, K) at every STEP_MS from the upstroke on."""

    v_mv: NDArray[np.float64]
    states: NDArray[np.float64]

    def at(self, phase_ms: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """V (n,) and states (n, K) so long after the upstroke; the last of the cycle for longer."""
        place = np.clip(np.nan_to_num(phase_ms, posinf=1e9) / STEP_MS, 0.0, len(self.v_mv) - 1.0)
        low = np.minimum(place.astype(np.int64), len(self.v_mv) - 2)
        share = (place - low)[:, None]
        states = (1.0 - share) * self.states[low] + share * self.states[low + 1]
        return np.interp(place, np.arange(len(self.v_mv), dtype=float), self.v_mv), states


def cells_of(regions: tuple[str, ...], tables: Mapping[str, RestitutionTable]) -> dict[str, IonicModel]:
    """The cell of each region, paced at 600 ms as the tables' cells were; its duration is its table's within APD_TOLERANCE.

    The shipped tables are those of these very cells, so nothing is scaled for them. Raises RunFailed if no factor on RECTIFIERS reaches
    a table's duration.
    """
    by_source: dict[tuple[str, str], IonicModel] = {}
    made: dict[str, IonicModel] = {}
    for region in regions:
        source = source_of(region, set(SCALES)), source_of(region, set(tables))
        if source not in by_source:
            by_source[source] = _matched(source[0], tables[source[1]].steady_apd_ms(S1_MS.value))
        made[region] = by_source[source]
    return made


def _matched(kind: str, wanted_ms: float) -> IonicModel:
    """The cell of a kind of tissue with this duration at 600 ms; the factor on its rectifiers is found between 1 and an end of FACTORS."""
    model = _paced(kind, 1.0)
    known = {0.0: _duration(model) - wanted_ms}
    if abs(known[0.0]) <= APD_TOLERANCE.value * wanted_ms:
        return model
    # stronger rectifiers, shorter potentials
    end = float(np.log(FACTORS[1] if known[0.0] > 0.0 else FACTORS[0]))
    known[end] = _duration(_paced(kind, float(np.exp(end)))) - wanted_ms
    if not known[0.0] * known[end] < 0.0:
        raise RunFailed(f"confirmation: no cell of {kind} tissue has the duration of its restitution table, {wanted_ms:.0f} ms at 600 ms")
    low, high = 0.0, end
    for _ in range(8):
        # a false position that does not come too near to either end
        share = np.clip(known[low] / (known[low] - known[high]), 0.1, 0.9)
        middle = low + float(share) * (high - low)
        model = _paced(kind, float(np.exp(middle)))
        known[middle] = _duration(model) - wanted_ms
        if abs(known[middle]) <= 0.5 * APD_TOLERANCE.value * wanted_ms:
            break
        low, high = (middle, high) if known[middle] * known[low] > 0.0 else (low, middle)
    return model


def _paced(kind: str, factor: float) -> IonicModel:
    scale = dict(SCALES[kind])
    if factor != 1.0:
        scale |= {name: scale.get(name, 1.0) * factor for name in RECTIFIERS}
    model = ionic_model(MODEL, CELL, scale)
    return prepaced(model, S1_MS.value, BEATS, DT_MS, "float32", STIMULUS_MV_MS, STIMULUS_MS)


def _duration(model: IonicModel) -> float:
    """APD90 of the next beat of a prepaced cell."""
    steps = round(S1_MS.value / DT_MS)
    v = Cable(model).run(DT_MS, np.arange(steps) < round(STIMULUS_MS / DT_MS), STIMULUS_MV_MS, every=5)[0]
    return apd_ms(np.arange(len(v), dtype=np.float64) * (5 * DT_MS), np.asarray(v, np.float64))


def recovery_of(model: IonicModel, cycle_ms: float) -> Recovery:
    """A prepaced cell after TRAIN_BEATS at a shorter cycle. Raises RunFailed for one that does not follow it beat by beat."""
    cell, period, per = Cable(model), round(cycle_ms / DT_MS), round(STEP_MS / DT_MS)
    pulse = np.arange(period) < round(STIMULUS_MS / DT_MS)
    cell.run(DT_MS, np.tile(pulse, TRAIN_BEATS), STIMULUS_MV_MS, every=period)
    n, k = period // per, len(model.state_names)
    v, states = np.empty(n), np.empty((n, k))
    for i in range(n):
        v[i], states[i] = float(cell.v[0]), cell.state[0, :k, 0]
        cell.run(DT_MS, pulse[i * per : (i + 1) * per], STIMULUS_MV_MS)
    up = np.flatnonzero((v[:-1] < -40.0) & (v[1:] >= -40.0))
    if len(up) != 1 or v[-1] > -60.0:
        raise RunFailed(f"confirmation: the cell does not recover within the cycle of {cycle_ms:.0f} ms")
    # what comes before the upstroke is the end of the cycle
    start = int(up[0]) + 1
    return Recovery(np.roll(v, -start), np.roll(states, -start, axis=0))
