"""`vtwin verify` and `vtwin bench`: the records of every solver in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from planners.app.console import Console
from twin.atomic import write_json
from twin.errors import InputError

VERIFY = {
    "ionic": "solvers.verify.single_cell",
    "niederer": "solvers.verify.niederer",
    "planar": "solvers.verify.planar",
    "correction": "solvers.verify.correction",
    "convergence": "solvers.verify.convergence",
    "spiral": "solvers.verify.spiral",
    "eikonal": "solvers.verify.eikonal",
    "ecg": "solvers.verify.ecg",
    "signals": "solvers.verify.signals",
    "reentry": "solvers.verify.reentry",
    "heart": "planners.confirm.compare",
    "imaging": "planners.virtual.verify_imaging",
    "calibration": "planners.calibration.verify",
    "planner": "planners.verify_planner",
}
REPORTS = {"niederer": "solvers.verify.niederer_table"}
"""Rooms that write a table and a picture: `report(folder, fast)`."""
BENCH = {
    "ionic": "solvers.bench.ionic",
    "monodomain": "solvers.bench.monodomain",
    "eikonal": "solvers.bench.eikonal",
    "device": "solvers.bench.device",
    "meshing": "meshing.bench",
    "trials": "planners.trials.bench",
    "plan": "planners.bench_plan",
}


def _chosen(rooms: dict[str, str], name: str | None) -> dict[str, str]:
    chosen = {room: module for room, module in rooms.items() if name is None or name.startswith(room) or room.startswith(name)}
    if not chosen:
        raise InputError("command line", "NAME", f"nothing is called {name!r}", f"choose one of {', '.join(rooms)}")
    return chosen


def _collect(rooms: dict[str, str], function: str, name: str | None, console: Console, slow: bool = False) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for room, module in _chosen(rooms, name).items():
        console.progress(f"{room} ...")
        call: Callable[..., Iterable[dict[str, Any]]] = getattr(import_module(module), function)
        found = call(fast=False) if slow and "fast" in signature(call).parameters else call()
        records += [r for r in found if name is None or name == room or str(r["name"]).startswith(name)]
    return records


def verify(name: str | None, console: Console, slow: bool = False, out: Path | None = None) -> int:
    """Print every check with value, reference, tolerance and source; status 1 if one fails.

    slow: those that take minutes too; out: folder for records.json and the tables and pictures of rooms that have some.
    """
    records = _collect(VERIFY, "checks", name, console, slow)
    if out is not None:
        finite = [{**r, "value": r["value"] if math.isfinite(r["value"]) else None} for r in records]
        write_json(out / "records.json", finite)
        for room in _chosen(VERIFY, name):
            if room in REPORTS:
                console.progress(f"{room}: table and picture ...")
                import_module(REPORTS[room]).report(out, fast=not slow)
    lines = [
        f"{'pass' if r['passed'] else 'FAIL'}  {r['name']:50s} {r['value']:.5g} {r['unit']}"
        f"  (reference {r['reference']:.5g} +- {r['tolerance']:.3g}; {r['source']})"
        for r in records
    ]
    console.result(records, [*lines, f"{sum(bool(r['passed']) for r in records)} of {len(records)} checks passed"])
    return 0 if all(r["passed"] for r in records) else 1


def bench(name: str | None, console: Console) -> int:
    """Print every timing with its ratio to the reference made in the same run."""
    records = _collect(BENCH, "records", name, console)
    lines = [
        f"{r['name']:50s} {r['skipped']}"
        if "skipped" in r
        else f"{r['name']:50s} {r['value']:.4g} {r['unit']}  ({r['ratio']:.2f}x, reference {r['reference']:.4g})"
        for r in records
    ]
    console.result(records, lines)
    return 0
