"""fields.zarr: what each twin looks like and what each arm took of it, for other programs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.trials.results import twin_name
from planners.trials.store import Store
from planners.trials.table import Table
from planners.trials.trial import Trial
from twin.atomic import read_npz
from twin.mesh import HeartMesh

FOLDER = "fields.zarr"


def write_fields(table: Table, trial: Trial, out: Path) -> int:
    """One group per enrolled twin (`points_mm`, `tets`, `region`, `arrival_ms`, -1 where no wave comes), one array per arm (`lesion_ARM`,
    bool per tetrahedron). Groups that are there stay; each appears whole. Returns how many were written; 0 where zarr is not installed
    or there are no hearts.
    """
    try:
        import zarr
    except ModuleNotFoundError:
        return 0
    store, root = Store(out / "store", "main"), out / FOLDER
    arms: dict[int, dict[str, str]] = {}
    for entry in table.entries("arm", state="done"):
        candidate, place = divmod(entry.job.ordinal, len(trial.arms))
        arms.setdefault(candidate, {})[trial.arms[place].name] = entry.job.key
    written = 0
    if arms and not root.exists():
        zarr.open_group(root, mode="w").attrs["trial"] = trial.name
    for entry in table.entries("twin", state="done"):
        mine = arms.get(entry.job.ordinal, {})
        if len(mine) == len(trial.arms) and not (root / twin_name(entry)).exists():
            _write(zarr, root, twin_name(entry), store.files(entry.job.key), {a: store.files(key) for a, key in mine.items()})
            written += 1
    return written


def _write(zarr: Any, root: Path, name: str, twin: Path, arms: dict[str, Path]) -> None:
    """A group made under another name and then renamed."""
    mesh = HeartMesh.load(twin / "mesh.npz")
    arrays: dict[str, NDArray[Any]] = {"points_mm": mesh.points_mm.astype(np.float32), "tets": mesh.tets, "region": mesh.region}
    arrays |= read_npz(twin / "activation.npz")[0]
    arrays |= {f"lesion_{arm}": read_npz(folder / "lesions.npz")[0]["blocked"] for arm, folder in arms.items()}
    temporary = root.with_name(f".{FOLDER}.{name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    group = zarr.open_group(temporary, mode="w")
    for key, values in arrays.items():
        group.create_array(key, data=values)
    temporary.rename(root / name)
