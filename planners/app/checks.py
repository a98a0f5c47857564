"""`vtwin verify` and `vtwin bench`: the records of every solver in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from planners.app.console import Console
from twin.errors import InputError

VERIFY = {
    "ionic": "solvers.verify.single_cell",
    "niederer": "solvers.verify.niederer",
    "planar": "solvers.verify.planar",
    "eikonal": "solvers.verify.eikonal",
    "ecg": "solvers.verify.ecg",
}
BENCH = {
    "ionic": "solvers.bench.ionic",
    "monodomain": "solvers.bench.monodomain",
    "eikonal": "solvers.bench.eikonal",
    "device": "solvers.bench.device",
}


def _collect(rooms: dict[str, str], function: str, name: str | None, console: Console) -> list[dict[str, Any]]:
    chosen = {room: module for room, module in rooms.items() if name is None or name.startswith(room) or room.startswith(name)}
    if not chosen:
        raise InputError("command line", "NAME", f"nothing is called {name!r}", f"choose one of {', '.join(rooms)}")
    records: list[dict[str, Any]] = []
    for room, module in chosen.items():
        console.progress(f"{room} ...")
        call: Callable[[], Iterable[dict[str, Any]]] = getattr(import_module(module), function)
        records += [r for r in call() if name is None or name == room or str(r["name"]).startswith(name)]
    return records


def verify(name: str | None, console: Console) -> int:
    """Print every check with value, reference, tolerance and source; status 1 if one fails."""
    records = _collect(VERIFY, "checks", name, console)
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
