"""Sustained reentries as pacing hands them over, and the circuits behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.spatial import cKDTree

from planners.circuits.describe import Likeness, Reentry, describe, merge
from planners.circuits.sequence import Array, coherence, phases
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

    alike: likeness of the 12-lead ECGs of two episodes, for circuits that have an episode here; place, way and cycles decide without.
    """
    tree, n = cKDTree(reentry.mesh.points_mm), reentry.mesh.n_points
    order: dict[str, Array] = {}
    circuits = list(known)
    ids: dict[tuple[str, tuple[float, ...], float], str] = {}
    first: dict[str, Episode] = {}
    lost = 0
    for episode in episodes:
        circuit = describe(reentry, episode.log, episode.site)
        if circuit is None:
            lost += 1
            continue

        mine = phases(episode.log, n)

        def likeness(other: Circuit, episode: Episode = episode, circuit: Circuit = circuit, mine: Array = mine) -> Likeness | None:
            if other.id not in first:
                return None
            way = coherence(tree, other, circuit, order[other.id], mine)
            return Likeness(alike(first[other.id], episode) if alike else None, way)

        circuits, (name,) = merge(circuits, [circuit], likeness)
        ids[(episode.site, episode.coupling_ms, episode.cycle_length_ms)] = name
        first.setdefault(name, episode)
        order.setdefault(name, mine)
    named = tuple(replace(i, circuit=ids.get((i.site, i.coupling_ms, i.cycle_length_ms or 0.0))) if i.induced else i for i in inductions)
    return Collected(tuple(circuits), named, first, lost)
