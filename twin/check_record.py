"""One line of `vtwin verify` or `vtwin bench`, as a plain record (interface.md)."""

from __future__ import annotations

from typing import Any

ROUNDING = 1e-12
"""A value that equals its bound but for the last bit has met it."""


def checked(name: str, value: float, unit: str, reference: float, tolerance: float, source: str) -> dict[str, Any]:
    """A measured value against its reference; `passed` if they differ by `tolerance` at most (never for NaN)."""
    passed = bool(abs(value - reference) <= tolerance + ROUNDING)
    return {"name": name, "value": value, "unit": unit, "reference": reference, "tolerance": tolerance, "source": source, "passed": passed}


def timed(name: str, value: float, unit: str, reference: float) -> dict[str, Any]:
    """A cost beside a reference in the same unit and run; `ratio`: how many times as much the reference costs (1 where the cost is 0)."""
    return {"name": name, "value": value, "unit": unit, "reference": reference, "ratio": reference / value if value else 1.0}
