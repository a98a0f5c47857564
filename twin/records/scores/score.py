"""What every published risk score shares: inputs with ranges, additive terms, an answer that is a range while inputs are missing.

A score is a sum of terms, each of one input or a few, turned into a result by a monotone function. So the exact range of the result over
everything that is not known is the function of the sums of the terms' smallest and largest values: no guess, no imputation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from twin.params import Param

Facts = Mapping[str, float]


@dataclass(frozen=True)
class Input:
    """One thing that a score asks for: a number between `low` and `high` in `unit`, or a flag (unit "yes/no", 0 or 1)."""

    key: str
    unit: str
    low: float
    high: float
    meaning: str

    @property
    def is_flag(self) -> bool:
        """True for yes/no inputs."""
        return self.unit == "yes/no"


def flag(key: str, meaning: str) -> Input:
    """A yes/no input."""
    return Input(key, "yes/no", 0.0, 1.0, meaning)


@dataclass(frozen=True)
class Term:
    """One summand: `value(*inputs)`; `turns` are inner points where it may be largest or smallest, beside the ends of the range."""

    inputs: tuple[Input, ...]
    value: Callable[..., float]
    turns: tuple[float, ...] = ()

    def bounds(self, facts: Facts) -> tuple[float, float]:
        """Smallest and largest value over everything in `facts` that is not known."""
        candidates = []
        for item in self.inputs:
            known = facts.get(item.key)
            candidates.append(
                (known,) if known is not None else (item.low, item.high, *(t for t in self.turns if item.low < t < item.high))
            )
        values = [self.value(*combination) for combination in itertools.product(*candidates)]
        return min(values), max(values)


@dataclass(frozen=True)
class Output:
    """One result of a score: `of(sum)` is monotone; `bands` are (upper end, name), the last infinite, ends included if `closed`."""

    name: str
    unit: str
    of: Callable[[float], float]
    bands: tuple[tuple[float, str], ...] = ()
    closed: bool = True

    def band(self, value: float) -> str | None:
        """Name of the band that `value` falls into, None without bands."""
        for end, name in self.bands:
            if value < end or (self.closed and value == end):
                return name
        return None


@dataclass(frozen=True)
class Answer:
    """What a score says: `status` is complete, range (inputs missing), not_applicable, out_of_range or not_computable.

    results: one dict per output: name, unit, value (None unless complete), low, high, band (None if the range spans several), bands.
    """

    name: str
    title: str
    status: str
    results: tuple[dict[str, Any], ...]
    used: dict[str, float]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    source: str

    def as_dict(self) -> dict[str, Any]:
        """The answer as it stands in JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Score:
    """One published score.

    excludes(facts) -> reasons why it must not be used; requires: (key, reason) that must not be denied, for instance a diagnosis;
    notes are printed with every answer. computable False: described, never scored.
    """

    name: str
    title: str
    terms: tuple[Term, ...]
    outputs: tuple[Output, ...]
    source: str
    notes: tuple[str, ...] = ()
    requires: tuple[tuple[str, str], ...] = ()
    excludes: Callable[[Facts], list[str]] = lambda facts: []
    computable: bool = True

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Every input once, in the order of the terms."""
        return tuple({item.key: item for term in self.terms for item in term.inputs}.values())

    def answer(self, facts: Facts) -> Answer:
        """Score one patient; facts: key -> number (flags 0 or 1), a key that is absent is unknown."""
        used = {i.key: float(facts[i.key]) for i in self.inputs if i.key in facts}
        missing = tuple(i.key for i in self.inputs if i.key not in facts)

        def say(status: str, notes: list[str], results: tuple[dict[str, Any], ...] = ()) -> Answer:
            return Answer(self.name, self.title, status, results, used, missing, (*notes, *self.notes), self.source)

        if not self.computable:
            return say("not_computable", [])
        reasons = [reason for key, reason in self.requires if facts.get(key) == 0.0] + self.excludes(facts)
        if reasons:
            return say("not_applicable", reasons)
        outside = [
            f"{i.key} = {facts[i.key]:g} {i.unit} is outside {i.low:g}-{i.high:g}, where the score may be used: not extrapolated"
            for i in self.inputs
            if i.key in facts and not i.low <= facts[i.key] <= i.high
        ]
        if outside:
            return say("out_of_range", outside)
        unstated = [f"only if {reason[0].lower()}{reason[1:]}: not stated" for key, reason in self.requires if key not in facts]
        bounds = [term.bounds(facts) for term in self.terms]
        low, high = sum(b[0] for b in bounds), sum(b[1] for b in bounds)
        return say("range" if missing else "complete", unstated, tuple(_result(output, low, high) for output in self.outputs))


def _result(output: Output, low: float, high: float) -> dict[str, Any]:
    """One output over a range of the sum."""
    ends = sorted((output.of(low), output.of(high)))
    bands = [name for _, name in output.bands]
    names = [output.band(end) for end in ends]
    between = bands[bands.index(names[0]) : bands.index(names[1]) + 1] if names[0] and names[1] else []
    return {
        "name": output.name,
        "unit": output.unit,
        "value": ends[0] if low == high else None,
        "low": ends[0],
        "high": ends[1],
        "band": between[0] if len(between) == 1 else None,
        "bands": between,
    }


def exact(value: float, unit: str, source: str) -> Param:
    """A coefficient exactly as it was published: its range is itself."""
    return Param(value, unit, value, value, source)
