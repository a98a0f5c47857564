"""Sustained reentries as pacing hands them over, and the circuits behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from planners.circuits.describe import Reentry, describe, merge
from twin.experiment import Activations
from twin.plan import Circuit, Induction


@dataclass(frozen=True)
class Episode:
    """A sustained induction: the stimulation that started it and the activations of its last three cycles."""

    site: str
    cycle_ms: float
    coupling_ms: tuple[float, ...]
    cycle_length_ms: float
    log: Activations


@dataclass(frozen=True)
class Collected:
    """Distinct circuits, the inductions with the id of theirs, one episode per id (the first), and how many could not be described."""

    circuits: tuple[Circuit, ...]
    inductions: tuple[Induction, ...]
    episodes: Mapping[str, Episode]
    undescribed: int


def collect(
    reentry: Reentry,
    inductions: Sequence[Induction],
    episodes: Sequence[Episode],
    known: Sequence[Circuit] = (),
    alike: Callable[[Episode, Episode], float] | None = None,
) -> Collected:
    """Describe every episode's circuit, merge equal ones (with the known ones too) and name them in the inductions.

    alike: likeness of the 12-lead ECGs of two episodes, for circuits that have an episode here; place and cycle length decide without.
    """
    circuits = list(known)
    ids: dict[tuple[str, tuple[float, ...], float], str] = {}
    first: dict[str, Episode] = {}
    lost = 0
    for episode in episodes:
        circuit = describe(reentry, episode.log, episode.site)
        if circuit is None:
            lost += 1
            continue

        def likeness(other: Circuit, mine: Episode = episode) -> float | None:
            return alike(first[other.id], mine) if alike and other.id in first else None

        circuits, (name,) = merge(circuits, [circuit], likeness)
        ids[(episode.site, episode.coupling_ms, episode.cycle_length_ms)] = name
        first.setdefault(name, episode)
    named = tuple(replace(i, circuit=ids.get((i.site, i.coupling_ms, i.cycle_length_ms or 0.0))) if i.induced else i for i in inductions)
    return Collected(tuple(circuits), named, first, lost)
