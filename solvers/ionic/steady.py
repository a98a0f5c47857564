"""Cells paced to steady state, kept on disk: a key of everything the state depends on, a file that is whole or ignored."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.ionic.model import IonicModel
from solvers.ionic.pacing import STIMULUS_MV_MS, Cable
from solvers.kernels.ionic import cache_directory, vector_identity
from twin.atomic import read_npz, write_npz

BEATS = 200
"""Chosen here: durations are steady to a few ms, sodium and potassium still drift (the limit cycle takes thousands of beats)."""


def prepaced(
    model: IonicModel,
    bcl_ms: float,
    beats: int = BEATS,
    dt_ms: float = 0.02,
    precision: str = "float64",
    stimulus_mv_ms: float | None = None,
    stimulus_ms: float = 1.0,
    folder: Path | None = None,
) -> IonicModel:
    """The same model with the state at the next stimulus onset after `beats` beats as its initial state.

    The state is read from `folder` (None: the user's cache directory) if it is there, else computed and written. A file that is
    damaged or of another key is computed again; several processes may do the same at once. bcl_ms is rounded to whole steps.
    """
    strength = STIMULUS_MV_MS[model.name] if stimulus_mv_ms is None else stimulus_mv_ms
    key = _key(model, bcl_ms, beats, dt_ms, precision, strength, stimulus_ms)
    path = (folder or cache_directory("steady")) / f"{model.name}_{model.cell}_{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    found = _read(path, key, len(model.state_names))
    if found is None:
        found = _compute(model, bcl_ms, beats, dt_ms, precision, strength, stimulus_ms)
        # a full or read-only disk, or the same write by another thread: the state is right all the same
        with contextlib.suppress(OSError):
            write_npz(path, {"state": found}, {"key": key})
    state = found[:-1].copy()
    state.setflags(write=False)
    return replace(model, initial_state=state, rest_mv=float(found[-1]))


def _key(model: IonicModel, bcl_ms: float, beats: int, dt_ms: float, precision: str, strength: float, duration_ms: float) -> str:
    """Everything that decides the state, as text: what is compiled included."""
    return json.dumps(
        {
            "compiled": vector_identity(model.name, model.step(), model.state_names, tuple(model.parameters), precision),
            "parameters": dict(model.parameters),
            "initial": [*model.initial_state.tolist(), model.rest_mv],
            "pacing": [bcl_ms, beats, dt_ms, precision, strength, duration_ms],
        },
        sort_keys=True,
    )


def _read(path: Path, key: str, states: int) -> NDArray[np.float64] | None:
    """States and V of a file, None if it is missing, damaged or of another key."""
    try:
        arrays, meta = read_npz(path)
        state = arrays["state"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return None
    good = meta == {"key": key} and state.shape == (states + 1,) and state.dtype == np.float64 and bool(np.isfinite(state).all())
    return state if good else None


def _compute(
    model: IonicModel, bcl_ms: float, beats: int, dt_ms: float, precision: str, strength: float, duration_ms: float
) -> NDArray[np.float64]:
    """Pace one cell; its states, V last."""
    cell = Cable(model, 1, precision)
    steps = round(bcl_ms / dt_ms)
    on = np.arange(steps) < round(duration_ms / dt_ms)
    for _ in range(beats):
        cell.run(dt_ms, on, strength, every=steps)
    return np.array([*cell.state[0, : len(model.state_names), 0], cell.v[0]], np.float64)
