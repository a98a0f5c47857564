"""What a run leaves: activation.npz copied in pieces from what was streamed, summary.json, and what was expected against what came."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.expected import Found, compare
from solvers.experiment import Experiment
from solvers.scene import Scene
from twin.atomic import dumps, write_json
from twin.experiment import Activations, Result

PIECE = 1 << 20
"""Rows that are held in memory at once while the log of beats is copied."""


def write_outputs(
    experiment: Experiment, scene: Scene, result: Result, first_ms: NDArray[np.float64], out: Path, status: str | None = None
) -> dict[str, Any]:
    """Write activation.npz and summary.json; first_ms (n,) is the first activation of every mesh node. Returns the summary.

    status: how the run should have ended, beside what [expect] says.
    """
    points = scene.mesh.points_mm
    write_activations(out / "activation.npz", points, first_ms, result.activations)
    expected = _expected(experiment, scene, result, first_ms, out)
    if status is not None:
        expected.append({"kind": "status", "expected": status, "found": result.status.value, "met": status == result.status.value})
    summary: dict[str, Any] = {
        "status": result.status.value,
        "message": result.message,
        "method": experiment.method,
        "mesh": {"points": len(points), "tets": len(scene.mesh.tets)},
        "solver": dict(result.summary),
        "activated_nodes": int(np.isfinite(first_ms).sum()),
        "last_first_activation_ms": float(np.nanmax(first_ms)) if np.isfinite(first_ms).any() else None,
        "beats": len(result.activations.node),
        "probes": [_place(scene, p) for p in experiment.probes_mm],
        "expect": expected,
        "expect_met": all(e["met"] for e in expected),
    }
    write_json(out / "summary.json", summary)
    return summary


def _place(scene: Scene, at_mm: tuple[float, float, float]) -> dict[str, Any]:
    node, distance = scene.nearest.node(at_mm)
    return {"at_mm": list(at_mm), "node": node, "distance_mm": distance}


def probe_places(experiment: Experiment) -> list[tuple[float, float, float]]:
    """Probes that are asked for, then those that expected durations need."""
    more = [e.at_mm for e in experiment.expected if e.kind == "apd90_ms" and e.at_mm is not None]
    return list(dict.fromkeys([*experiment.probes_mm, *more]))


def _expected(experiment: Experiment, scene: Scene, result: Result, first_ms: NDArray[np.float64], out: Path) -> list[dict[str, Any]]:
    beats = result.activations

    def trace(node: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        column = [scene.nearest.node(p)[0] for p in probe_places(experiment)].index(node) + 1
        both = np.loadtxt(out / "probes.csv", delimiter=",", skiprows=1, usecols=(0, column), ndmin=2)
        return both[:, 0], both[:, 1]

    def upstrokes(node: int) -> NDArray[np.float64]:
        return np.asarray(beats.activation_ms[np.flatnonzero(beats.node == node)], np.float64)

    found = Found(result.status.value, first_ms, scene.mesh.points_mm, upstrokes, trace)
    return [compare(e, found, scene.nearest.node) for e in experiment.expected]


def write_activations(path: Path, points_mm: NDArray[np.float64], first_ms: NDArray[np.float64], beats: Activations) -> None:
    """The arrays of activation.npz, atomically, in pieces: the log may be larger than the memory. Bytes depend on the content alone."""
    arrays: Mapping[str, NDArray[Any]] = {
        "activation_ms": beats.activation_ms,
        "first_ms": first_ms,
        "node": beats.node,
        "points_mm": points_mm,
        "recovery_ms": beats.recovery_ms,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
                for name, values in arrays.items():
                    _write_array(archive, name, values)
                # a fixed date: the time of writing would make equal runs differ
                archive.writestr(zipfile.ZipInfo("meta.json", (1980, 1, 1, 0, 0, 0)), dumps(None))
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_array(archive: zipfile.ZipFile, name: str, values: NDArray[Any]) -> None:
    info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(info, "w", force_zip64=True) as member:
        header = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False, "shape": values.shape}
        np.lib.format.write_array_header_1_0(member, header)
        for start in range(0, len(values), PIECE):
            member.write(np.ascontiguousarray(values[start : start + PIECE]).tobytes())
