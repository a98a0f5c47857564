"""Pacing of one cell or of a uniform cable, and what is read from the traces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ionic.model import IonicModel
from solvers.kernels.ionic import vector_kernels

STIMULUS_MV_MS = {
    "ten_tusscher_panfilov_2006": 52.0,
    "torord_2019": 53.0,
    "stewart_2009": 52.0,
    "bueno_orovio": 42.85,
    "mitchell_schaeffer": 25.0,
    "corrado_niederer": 25.0,
    "aliev_panfilov": 25.0,
}
"""Strength for 1 ms that the reference traces were computed with (0.5 /ms of 85.7 mV, 0.25 /ms of 100 mV)."""


class Cable:
    """A uniform cable (n = 1: one cell) of one model, advanced in time by the compiled loop; V and the states persist between calls.

    ratio = D dt / h^2 of the explicit second difference.
    """

    def __init__(self, model: IonicModel, n: int = 1, precision: str = "float32", ratio: float = 0.0) -> None:
        self.kernels = vector_kernels(model.name, model.step(), model.state_names, tuple(model.parameters), precision)
        self.dtype = np.dtype(precision)
        lanes = self.kernels.lanes
        self.index = np.pad(np.arange(n, dtype=np.int32), (0, -n % lanes), mode="edge")
        self.rows = model.row().astype(self.dtype)[None, :]
        self.state = np.zeros((self.index.size // lanes, len(model.state_names) + 2, lanes), self.dtype)
        self.state[:, :-2] = model.initial_state[None, :, None]
        self.v = np.full(n, model.rest_mv, self.dtype)
        self.current = np.zeros(n, self.dtype)
        self.ratio = self.dtype.type(ratio)

    def run(self, dt_ms: float, stimulated: NDArray[np.bool_], strength_mv_ms: float, sites: int = 1, every: int = 1) -> NDArray[Any]:
        """Advance by one step per entry of `stimulated` (steps,), which says when the first `sites` cells get current.

        Returns V before every `every`-th step, (n, ceil(steps/every)).
        """
        record = np.empty((self.v.size, -(-stimulated.size // every)), self.dtype)
        self.kernels.cable(
            self.state.reshape(-1),
            self.index,
            self.rows,
            self.v,
            self.current,
            self.dtype.type(dt_ms),
            self.ratio,
            stimulated.astype(np.uint8),
            self.dtype.type(strength_mv_ms),
            sites,
            every,
            record,
        )
        return record

    def snapshot(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Copies of the states and V."""
        return self.state.copy(), self.v.copy()

    def restore(self, snapshot: tuple[NDArray[Any], NDArray[Any]]) -> None:
        """Go back to a snapshot, bit by bit."""
        self.state[:], self.v[:] = snapshot


def pace(
    model: IonicModel,
    bcl_ms: float,
    beats: int,
    dt_ms: float = 0.02,
    precision: str = "float64",
    stimulus_mv_ms: float | None = None,
    stimulus_ms: float = 1.0,
    every_ms: float = 0.1,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pace one cell from its initial state: returns time_ms (k,) and v_mv (beats, k), k samples of each beat from stimulus onset.

    stimulus_mv_ms None: the strength of the model's reference trace. bcl_ms and every_ms are rounded to whole steps.
    """
    strength = STIMULUS_MV_MS[model.name] if stimulus_mv_ms is None else stimulus_mv_ms
    every = max(1, round(every_ms / dt_ms))
    steps = every * round(bcl_ms / (every * dt_ms))
    on = np.tile(np.arange(steps) < round(stimulus_ms / dt_ms), beats)
    trace = Cable(model, 1, precision).run(dt_ms, on, strength, every=every)[0]
    time_ms = every * dt_ms * np.arange(steps // every, dtype=np.float64)
    return time_ms, np.asarray(trace.reshape(beats, -1), np.float64)


def apd_ms(time_ms: NDArray[np.float64], v_mv: NDArray[np.float64], fraction: float = 0.9) -> float:
    """Action potential duration of one beat sampled from stimulus onset, NaN if it does not repolarise.

    From the largest dV/dt (central differences) to the downward crossing of peak - fraction (peak - V at onset).
    """
    rest, top = v_mv[0], int(np.argmax(v_mv))
    level = v_mv[top] - fraction * (v_mv[top] - rest)
    start = float(time_ms[int(np.argmax(np.gradient(v_mv, time_ms)))])
    below = np.flatnonzero(v_mv[top:] < level)
    if not below.size or not below[0]:
        return float("nan")
    i = top + int(below[0])
    return float(time_ms[i - 1] + (time_ms[i] - time_ms[i - 1]) * (v_mv[i - 1] - level) / (v_mv[i - 1] - v_mv[i])) - start
