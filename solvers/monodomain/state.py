"""The complete state of a monodomain run in a file: to go on from, in this run or in another one."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import read_npz, write_npz
from twin.errors import InputError

FORMAT = 1
_SCALARS = ("size", "newest_ms", "since_ms")


@dataclass(frozen=True)
class Snapshot:
    """Complete state of a Monodomain: branch from it as often as needed. `fits`: what the state belongs to (nodes, dt, models)."""

    step: int
    v: NDArray[Any]
    cells: Any
    log: Mapping[str, Any]
    scheme: Any
    quiet_since: int
    fits: Mapping[str, Any]


def save_state(path: Path, state: Snapshot, more: Mapping[str, Any] | None = None) -> None:
    """Write a snapshot, atomically; beats before it that are closed are not in it. `more` is kept beside it (JSON)."""
    arrays: dict[str, NDArray[Any]] = {"v": state.v}
    _flatten("cells", state.cells, arrays)
    _flatten("scheme", state.scheme, arrays)
    _flatten("log", {k: v for k, v in state.log.items() if k != "rows"}, arrays)
    meta = {"format": FORMAT, "step": state.step, "quiet_since": state.quiet_since, "fits": dict(state.fits), "more": dict(more or {})}
    write_npz(path, arrays, meta)


def load_state(path: Path, fits: Mapping[str, Any] | None = None) -> tuple[Snapshot, dict[str, Any]]:
    """Read what `save_state` wrote: the snapshot and what was kept beside it.

    Raises InputError for another file, a damaged one, or one that does not fit (`fits` as a Monodomain's).
    """
    if not path.is_file():
        raise InputError(path, "file", "does not exist", "check the path and the spelling")
    try:
        arrays, meta = read_npz(path)
        wrong = meta.get("format") != FORMAT
        state = Snapshot(
            int(meta["step"]),
            arrays["v"],
            _nested("cells", arrays),
            {name: value.item() if name in _SCALARS else value for name, value in _nested("log", arrays).items()},
            _nested("scheme", arrays),
            int(meta["quiet_since"]),
            meta["fits"],
        )
    except (KeyError, ValueError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(path, "file", f"is not a state saved by vtwin ({error})", "save it again with record.state") from None
    if wrong:
        raise InputError(path, "file", "is a state of another version of vtwin", "save it again with this one")
    for name, value in (fits or {}).items():
        if state.fits.get(name) != value:
            problem = f"belongs to another run: {name} is {state.fits.get(name)} there and {value} here"
            raise InputError(path, name, problem, "start from a state of the same mesh, tissue and solver settings")
    return state, dict(meta["more"])


def _flatten(name: str, value: Any, arrays: dict[str, NDArray[Any]]) -> None:
    """Dictionaries of arrays become `name/key`; None leaves nothing."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _flatten(f"{name}/{key}", inner, arrays)
    elif value is not None:
        arrays[name] = np.asarray(value)


def _nested(name: str, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """What `_flatten` took apart."""
    if name in arrays:
        return arrays[name]
    keys = dict.fromkeys(key[len(name) + 1 :].split("/")[0] for key in arrays if key.startswith(f"{name}/"))
    return {key: _nested(f"{name}/{key}", arrays) for key in keys} or None
