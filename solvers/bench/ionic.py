"""Nanoseconds per cell and time step of the generated kernels, against a plain numba loop over the same equations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from solvers.ionic import Cells, IonicModel, cell_names, ionic_model, model_names
from solvers.kernels.ionic import plain_kernel

CELLS = 100_000
DT_MS = 0.02
REPEATS = 9


def records(names: Sequence[str] = model_names(), precisions: Sequence[str] = ("float32", "float64")) -> list[dict[str, Any]]:
    """One record per model and precision: name, value, unit, reference (plain loop, same precision, same run), ratio."""
    return [_record(ionic_model(name, cell_names(name)[0]), precision) for name in names for precision in precisions]


def _record(model: IonicModel, precision: str) -> dict[str, Any]:
    cells = Cells([model], np.zeros(CELLS, np.int32), precision)
    # V across the whole action potential, so that the plain loop takes all its branches
    v = np.linspace(-90.0, 40.0, CELLS).astype(precision)
    current = np.empty_like(v)
    state = np.repeat(model.initial_state[:, None], CELLS, axis=1).astype(precision)
    row, dt = model.row().astype(precision), v.dtype.type(DT_MS)
    plain = plain_kernel(model.name, model.step(), model.state_names, tuple(model.parameters))
    fast_ns, plain_ns = _race(lambda: cells.advance(v, DT_MS, current), lambda: plain(state, row, v, current, dt))
    return {
        "name": f"ionic/{model.name}/{model.cell}/{precision}",
        "value": fast_ns,
        "unit": "ns per cell and step",
        "reference": plain_ns,
        "ratio": plain_ns / fast_ns,
    }


def _race(*contestants: Callable[[], object]) -> list[float]:
    """Best time of each in ns per cell, measured in turns so that other load on the machine meets all of them alike."""
    for run in contestants:
        run()
    best = [float("inf")] * len(contestants)
    for _ in range(REPEATS):
        for i, run in enumerate(contestants):
            start = time.perf_counter()
            run()
            best[i] = min(best[i], time.perf_counter() - start)
    return [1e9 * seconds / CELLS for seconds in best]
