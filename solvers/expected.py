"""`[expect]` of an experiment: what its author knows must come out, and how it is found in what a run wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.toml_table import Table
from twin.experiment import Status

STATUSES = tuple(status.value for status in Status)
UNITS = {"activation_ms": "ms", "cycle_length_ms": "ms", "apd90_ms": "ms", "velocity_m_s": "mm/ms"}

Place = tuple[float, float, float]


@dataclass(frozen=True)
class Expected:
    """One number expected within a tolerance, at the node nearest to a place, or between two; status: a word instead.

    activation_ms: first activation; cycle_length_ms: median interval of the last LAST_CYCLES; apd90_ms: of the last whole beat;
    velocity_m_s: distance over the difference of first activations.
    """

    kind: str
    at_mm: Place | None
    value: float | str
    within: float = 0.0
    to_mm: Place | None = None


LAST_CYCLES = 5


def expectations(t: Table) -> tuple[Expected, ...]:
    """Read [expect]. Raises InputError."""
    t.known("status", *UNITS)
    out = [Expected("status", None, t.choice("status", STATUSES, ""))] if "status" in t.values else []
    for kind, unit in UNITS.items():
        for i, row in enumerate(t.items(kind)):
            if not isinstance(row, dict):
                raise t.error(f"{kind}[{i}]", "is not a table", "write { at = [x, y, z], value = 42.0, within = 2.0 }")
            entry = Table(t.where, f"{t.field}.{kind}[{i}]", row)
            two = kind == "velocity_m_s"
            entry.known("value", "within", *(("from", "to") if two else ("at",)))
            value, within = entry.number("value", unit, None, 0.0), entry.number("within", unit, None, 0.0)
            out.append(Expected(kind, entry.place("from" if two else "at"), value, within, entry.place("to") if two else None))
    return tuple(out)


@dataclass(frozen=True)
class Found:
    """What a run left: its status, first activations (n,) ms by node, upstrokes (k,) ms of a node, a node's probe: times and mV."""

    status: str
    first_ms: NDArray[np.float64]
    points_mm: NDArray[np.float64]
    upstrokes_ms: Callable[[int], NDArray[np.float64]]
    trace: Callable[[int], tuple[NDArray[np.float64], NDArray[np.float64]]]


def compare(expected: Expected, found: Found, nearest: Callable[[Place], tuple[int, float]]) -> dict[str, Any]:
    """One expectation against what was found: a row of the summary, `met` true or false."""
    row: dict[str, Any] = {"kind": expected.kind, "expected": expected.value}
    if isinstance(expected.value, str) or expected.at_mm is None:
        return row | {"found": found.status, "met": found.status == expected.value}
    node, distance = nearest(expected.at_mm)
    row |= {"within": expected.within, "at_mm": list(expected.at_mm), "node": node, "distance_mm": distance}
    if expected.to_mm is not None:
        other, _ = nearest(expected.to_mm)
        row |= {"to_mm": list(expected.to_mm), "to_node": other}
        value = _velocity(found, node, other)
    else:
        value = _AT_NODE[expected.kind](found, node)
    known = bool(np.isfinite(value))
    return row | {"found": value if known else None, "met": known and abs(value - expected.value) <= expected.within}


def _velocity(found: Found, node: int, other: int) -> float:
    took = float(found.first_ms[other] - found.first_ms[node])
    return float(np.linalg.norm(found.points_mm[other] - found.points_mm[node])) / took if took else float("nan")


def _cycle(found: Found, node: int) -> float:
    cycles = np.diff(found.upstrokes_ms(node))
    return float(np.median(cycles[-LAST_CYCLES:])) if len(cycles) else float("nan")


def _apd90(found: Found, node: int) -> float:
    return apd90_ms(*found.trace(node))


_AT_NODE: Mapping[str, Callable[[Found, int], float]] = {
    "activation_ms": lambda found, node: float(found.first_ms[node]),
    "cycle_length_ms": _cycle,
    "apd90_ms": _apd90,
}


def apd90_ms(time_ms: NDArray[np.float64], v_mv: NDArray[np.float64]) -> float:
    """Duration of the last whole action potential of a trace: steepest point to 90 % of the way from peak back to the level before it.

    Interpolated between samples; NaN if there is none.
    """
    up = np.flatnonzero((v_mv[:-1] < -40.0) & (v_mv[1:] >= -40.0))
    for k, start in reversed(list(enumerate(up))):
        before = up[k - 1] + 1 if k else 0
        end = up[k + 1] if k + 1 < len(up) else len(v_mv) - 1
        beat = v_mv[start : end + 1]
        rest = float(v_mv[before : start + 1].min())
        peak = int(np.argmax(beat))
        level = rest + 0.1 * (float(beat[peak]) - rest)
        below = np.flatnonzero(beat[peak:] <= level)
        if len(below):
            i = start + peak + int(below[0])
            fraction = (v_mv[i - 1] - level) / (v_mv[i - 1] - v_mv[i])
            steepest = start - 2 + int(np.argmax(np.diff(v_mv[max(start - 2, 0) : start + 4]))) if start >= 2 else start
            return float(time_ms[i - 1] + fraction * (time_ms[i] - time_ms[i - 1]) - 0.5 * (time_ms[steepest] + time_ms[steepest + 1]))
    return float("nan")
