"""A number from the literature: value, unit, plausible range and where it was read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Param:
    """One sourced constant; `low` and `high` bound what is plausible, not a confidence interval unless `source` says so."""

    value: float
    unit: str
    low: float
    high: float
    source: str

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"value {self.value} {self.unit} outside [{self.low}, {self.high}] ({self.source})")
        if not self.source:
            raise ValueError("a Param needs a source")

    def __float__(self) -> float:
        return self.value

    def contains(self, value: float) -> bool:
        """True if `value` lies in the plausible range."""
        return self.low <= value <= self.high
