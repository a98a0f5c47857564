"""A membrane that a one-millimetre mesh can carry, fitted to the duration and the cycle of the reduced model, and its states by phase.

The Mitchell-Schaeffer model with a slow upstroke: fronts are some millimetres wide, so velocities hold without the spacing of 0.2 mm that
a ventricular model needs. What it keeps of the tissue: velocity, duration at this cycle, excitability gap; what monodomain adds to the
reduced model: curvature, source and sink, electrotonic coupling. Its restitution is its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.ionic import IonicModel, ionic_model
from solvers.ionic.pacing import Cable
from twin.errors import RunFailed
from twin.params import Param

TAU_IN = Param(1.2, "ms", 0.3, 2.0, "chosen here: four times the published 0.3 ms, so that fronts are resolved by 1 mm")
TAU_OUT_OVER_IN = Param(20.0, "1", 15.0, 30.0, "ratio of Mitchell and Schaeffer (2003), 6 / 0.3: excitability is kept")
TAU_OPEN = Param(
    90.0, "ms", 60.0, 150.0, "chosen here: between the published 120 ms and what lets tissue fire at a diastolic interval of 60 ms"
)
V_MV, DT_MS, BEATS = -60.0, 0.1, 12
"""Duration is counted above V_MV: at 80 % repolarisation, where the fast part of the recovery ends."""

PULSE_MS, STRENGTH_MV_MS = 2.0, 25.0


@dataclass(frozen=True)
class Template:
    """One paced cycle of the fitted cell: v_mv, h at every `step_ms` from the upstroke, (k,); duration_ms that it has."""

    model: IonicModel
    v_mv: NDArray[np.float64]
    h: NDArray[np.float64]
    step_ms: float
    duration_ms: float

    def at(self, phase_ms: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """V and h so long after the upstroke; beyond the cycle the last values, at inf rest."""
        index = np.clip(np.nan_to_num(phase_ms, posinf=1e9) / self.step_ms, 0, len(self.v_mv) - 1)
        place = np.arange(len(self.v_mv), dtype=float)
        v, h = np.interp(index, place, self.v_mv), np.interp(index, place, self.h)
        rest = ~np.isfinite(phase_ms)
        return np.where(rest, self.model.rest_mv, v), np.where(rest, 1.0, h)


def membrane(tau_close_ms: float) -> IonicModel:
    """Mitchell-Schaeffer with the slow upstroke and this time of closing."""
    published = ionic_model("mitchell_schaeffer").parameters
    wanted = {
        "tau_in": TAU_IN.value,
        "tau_out": TAU_IN.value * TAU_OUT_OVER_IN.value,
        "tau_open": TAU_OPEN.value,
        "tau_close": tau_close_ms,
    }
    return ionic_model("mitchell_schaeffer", None, {name: value / published[name] for name, value in wanted.items()})


def _paced(tau_close_ms: float, cycle_ms: float) -> Template:
    model = membrane(tau_close_ms)
    cell, period = Cable(model), round(cycle_ms / DT_MS)
    pulse = np.arange(period) < round(PULSE_MS / DT_MS)
    cell.run(DT_MS, np.tile(pulse, BEATS), STRENGTH_MV_MS, every=period)
    v, h = np.empty(period), np.empty(period)
    for k in range(period):
        v[k], h[k] = float(cell.v[0]), float(cell.state[0, 0, 0])
        cell.run(DT_MS, pulse[k : k + 1], STRENGTH_MV_MS)
    up = np.flatnonzero((v[:-1] < V_MV) & (v[1:] >= V_MV))
    start = int(up[0]) if len(up) else 0
    v, h = np.roll(v, -start), np.roll(h, -start)
    below = np.flatnonzero(v[round(5.0 / DT_MS) :] < V_MV)
    duration = (float(below[0]) + 5.0 / DT_MS) * DT_MS if len(below) else cycle_ms
    return Template(model, v, h, DT_MS, duration)


def fitted(duration_ms: float, cycle_ms: float) -> Template:
    """The cell whose action potential has this duration when paced at this cycle. Raises RunFailed if none has."""
    low, high = 20.0, 600.0
    for _ in range(24):
        middle = 0.5 * (low + high)
        made = _paced(middle, cycle_ms)
        if abs(made.duration_ms - duration_ms) < 1.0:
            return made
        # cells that are paced faster than they recover follow every other beat: too long
        if made.duration_ms > duration_ms or made.v_mv.max() < 0.0:
            high = middle
        else:
            low = middle
    raise RunFailed(f"confirmation: no cell has a duration of {duration_ms:.0f} ms at a cycle of {cycle_ms:.0f} ms")
