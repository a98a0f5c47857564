"""The search: every strategy's lesions are re-tested, grown while VT is still inducible, and the smallest set that suffices is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.circuits import Reentry, collect
from planners.circuits.sections import Sections
from planners.lesions.avoid import nearest
from planners.lesions.energy import check_request, preset_of, transmural_probability, with_energy
from planners.lesions.geometry import LesionMaker, lesion_count
from planners.lesions.isthmus_transection import channel_of, separated
from planners.lesions.result import LesionPlan
from planners.lesions.scores import scores, with_pareto
from planners.lesions.strategy import Strategy, strategy
from planners.pacing.engine import InductionRun, Progress
from planners.pacing.induce import PacingSettings, induce, stimulus_sites
from planners.pacing.protocol import load_protocol
from twin.errors import InputError
from twin.model import Twin
from twin.plan import Circuit, PlanRequest, Target
from twin.run import content_hash

GROWTH_MM = 1.0
"""Lesions are made this much wider and deeper, up to what the energy allows, where a set does not suffice."""

Retest = Callable[[NDArray[np.bool_], Sequence[str]], InductionRun]
"""Paces the heart with lesions (m,) from the named sites and stops after the first that still induces."""


def plan_lesions(
    twin: Twin,
    run: InductionRun,
    circuits: Sequence[Circuit],
    request: PlanRequest,
    settings: PacingSettings | None = None,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    threads: int = 1,
) -> LesionPlan:
    """Find the smallest lesion set after which the request's protocol induces nothing from any site.

    run, circuits: what was induced without lesions; folder: keeps every re-test, so that a search that was cut off goes on where it was.
    Raises InputError for unknown strategies or surfaces and impossible lesion sizes.
    """
    request = with_energy(request)
    check_request(request)
    protocol = load_protocol(request.protocol)

    def retest(blocked: NDArray[np.bool_], sites: Sequence[str]) -> InductionRun:
        kept = folder / f"test-{content_hash(blocked)}" if folder else None
        return induce(twin, protocol, sites, settings, blocked=blocked, folder=kept, progress=progress, threads=threads, stop_at_first=True)

    return Search(twin, request, list(stimulus_sites(twin, protocol, request.sites)), retest).plan(run, circuits)


@dataclass
class _Candidate:
    """One strategy's lesion set as far as it has been developed; compared: it is scored, but not what the plan is chosen from."""

    strategy: str
    targets: list[Target]
    mask: NDArray[np.bool_]
    volume_ml: float
    rounds: int = 0
    non_inducible: bool = False
    tested: str = "not tested"
    note: str = ""
    last: InductionRun | None = None
    residual: tuple[Circuit, ...] = ()
    compared: bool = False


class Search:
    """Develops lesion sets for one heart; `retest` is asked whether a set suffices."""

    def __init__(self, twin: Twin, request: PlanRequest, sites: Sequence[str], retest: Retest) -> None:
        self.twin, self.request, self.sites, self.retest = twin, request, list(sites), retest
        self.maker = LesionMaker(twin.mesh, request.avoid)
        self.strategies: list[Strategy] = [strategy(name) for name in request.strategies]
        further = (*request.compare, *(["user_drawn"] if request.drawn else []))
        self.compared: list[Strategy] = [strategy(name) for name in dict.fromkeys(further) if name not in request.strategies]
        self.surfaces = self.maker.surfaces(request.access)
        self.circuits: list[Circuit] = []
        self.inducing: list[str] = []

    def plan(self, run: InductionRun, circuits: Sequence[Circuit]) -> LesionPlan:
        """Choose the smallest sufficient set; without inductions there is nothing to do."""
        self.circuits = list(circuits)
        self.inducing = [s for s in self.sites if s in run.inducing_sites]
        if not run.induced:
            none = np.zeros(len(self.twin.mesh.tets), bool)
            return LesionPlan((), (), (), (), run.inductions, none, 0.0, True, ("nothing was induced, so nothing is proposed",))
        if not self.surfaces:
            raise InputError("plan", "access", f"this heart has none of {', '.join(self.request.access)}", "allow a surface that it has")
        notes: list[str] = []
        compared = self._proposed(self.compared, notes)
        candidates = self._proposed(self.strategies, notes)
        candidates.sort(key=lambda c: c.volume_ml)
        done = False
        for candidate in candidates:
            self._develop(candidate, grow=not done)
            done |= candidate.non_inducible and candidate.volume_ml <= self.request.max_volume_ml
        known = list(self.circuits)
        for candidate in compared:
            candidate.compared = True
            self._test(candidate, self.inducing)
            # what a set that is not proposed would leave or start is no circuit of this heart's plan
            self.circuits = list(known)
        if not candidates:
            none = np.zeros(len(self.twin.mesh.tets), bool)
            left = tuple(self.circuits)
            return LesionPlan((), (), left, left, run.inductions, none, 0.0, False, (*notes, "no strategy found anything to ablate"))
        return self._chosen(candidates, compared, notes)

    def _proposed(self, strategies: Sequence[Strategy], notes: list[str]) -> list[_Candidate]:
        """The first proposal of every strategy that has one; why others have none goes into the notes."""
        out = []
        for s in strategies:
            why = s.available(self.twin, self.request)
            found = [] if why else s.propose(self.twin, self.circuits, self.request, self.maker, [])
            if found:
                out.append(self._candidate(s.name, found))
            else:
                notes.append(f"strategy {s.name} was left out: {why or 'nothing that it would ablate is in reach'}")
        return out

    def _everywhere(self) -> list[str]:
        """All sites, those that induced first."""
        return [*self.inducing, *(s for s in self.sites if s not in self.inducing)]

    def _candidate(self, name: str, targets: list[Target]) -> _Candidate:
        mask = self.maker.mask(targets)
        return _Candidate(name, targets, mask, self.maker.volume_ml(mask))

    def _put(self, candidate: _Candidate, targets: list[Target]) -> None:
        candidate.targets, candidate.mask = targets, self.maker.mask(targets)
        candidate.volume_ml = self.maker.volume_ml(candidate.mask)

    def _develop(self, candidate: _Candidate, grow: bool) -> None:
        """Re-test, and while something is still induced add lesions for new circuits or enlarge those that there are."""
        mine = strategy(candidate.strategy)
        limit = self.request.max_rounds if grow else 1
        size, energy = self.request, preset_of(self.request)
        while candidate.rounds < limit:
            candidate.rounds += 1
            too_large = candidate.volume_ml > self.request.max_volume_ml
            self._test(candidate, self.inducing if too_large or not grow else self._everywhere())
            if too_large:
                candidate.note = f"larger than the {self.request.max_volume_ml:g} mL allowed"
                return
            if candidate.non_inducible or candidate.rounds == limit:
                return
            extra = mine.propose(self.twin, candidate.residual, size, self.maker, candidate.targets)
            if not extra:
                larger = replace(
                    size,
                    lesion_radius_mm=min(size.lesion_radius_mm + GROWTH_MM, energy.radius.high),
                    lesion_depth_mm=min(size.lesion_depth_mm + GROWTH_MM, energy.depth.high),
                )
                if larger == size:
                    candidate.note = "lesions are as large as they can be made"
                    return
                size = larger
                grown = [replace(t, radius_mm=size.lesion_radius_mm, depth_mm=size.lesion_depth_mm) for t in candidate.targets]
                extra = mine.propose(self.twin, candidate.residual, size, self.maker, grown)
                self._put(candidate, [*grown, *extra])
            else:
                self._put(candidate, [*candidate.targets, *extra])

    def _test(self, candidate: _Candidate, sites: Sequence[str]) -> None:
        """Inducing sites first, then the others; a site that still induces ends the test."""
        first = [s for s in sites if s in self.inducing]
        parts = [self.retest(candidate.mask, first)]
        rest = [s for s in sites if s not in first]
        if rest and not parts[0].induced:
            parts.append(self.retest(candidate.mask, rest))
        last = InductionRun(
            parts[0].protocol,
            tuple(i for p in parts for i in p.inductions),
            tuple(e for p in parts for e in p.episodes),
            sum(p.attempts for p in parts),
        )
        found = collect(Reentry.of(self.twin.mesh, candidate.mask), last.inductions, last.episodes, self.circuits)
        self.circuits = list(found.circuits)
        named = {i.circuit for i in found.inductions if i.induced}
        candidate.residual = tuple(c for c in found.circuits if c.id in named)
        candidate.last = replace(last, inductions=found.inductions)
        candidate.non_inducible = not last.induced
        candidate.tested = "all sites" if rest or len(first) == len(self.sites) else "inducing sites"
        if last.induced:
            candidate.tested = "until the first induction"

    def _prune(self, candidate: _Candidate) -> None:
        """Leave out lesions without which every isthmus stays separated, if the re-test agrees."""
        sections = Sections(self.twin.mesh)
        channels = [c for circuit in self.circuits if (c := channel_of(self.twin.mesh, sections, circuit)) is not None]
        held = [c for c in channels if separated(self.twin.mesh, c, candidate.mask)]
        if not held:
            return
        targets = list(candidate.targets)
        for k in range(len(targets)):
            for position in list(targets[k].positions_mm)[::-1]:
                kept = [p for p in targets[k].positions_mm if p is not position]
                fewer = [*targets[:k], replace(targets[k], positions_mm=kept), *targets[k + 1 :]]
                mask = self.maker.mask(fewer)
                if all(separated(self.twin.mesh, c, mask) for c in held):
                    targets = fewer
        targets = [t for t in targets if t.positions_mm]
        if lesion_count(targets) == lesion_count(candidate.targets):
            return
        trial = self._candidate(candidate.strategy, targets)
        self._test(trial, self._everywhere())
        if trial.non_inducible:
            candidate.last, candidate.residual = trial.last, trial.residual
            self._put(candidate, targets)

    def _chosen(self, candidates: list[_Candidate], compared: list[_Candidate], notes: list[str]) -> LesionPlan:
        def rank(c: _Candidate) -> tuple[bool, bool, int, float]:
            return (c.volume_ml > self.request.max_volume_ml, not c.non_inducible, len(c.residual), c.volume_ml)

        while (best := min(candidates, key=rank)).tested == "inducing sites" and not rank(best)[0]:
            self._test(best, self._everywhere())
        if rank(best)[0]:
            notes.append(f"every lesion set is larger than the {self.request.max_volume_ml:g} mL allowed; none is proposed")
            alternatives = tuple(with_pareto([self._score(c, False) for c in (*candidates, *compared)]))
            left = tuple(self.circuits)
            return LesionPlan((), alternatives, left, left, (), np.zeros_like(best.mask), 0.0, False, tuple(notes))
        if best.non_inducible:
            self._prune(best)
        else:
            notes.append("VT is still inducible with the proposed lesions")
        targets = tuple(self._described(replace(t, id=f"T{k + 1}", order=k + 1)) for k, t in enumerate(best.targets))
        assert best.last is not None
        return LesionPlan(
            targets,
            tuple(with_pareto([self._score(c, c is best) for c in (*candidates, *compared)])),
            tuple(self.circuits),
            best.residual,
            best.last.inductions,
            best.mask,
            round(best.volume_ml, 4),
            best.non_inducible,
            tuple(notes),
        )

    def _described(self, target: Target) -> Target:
        """With the probability that it crosses the wall, and its distance from what was to be spared."""
        sure = transmural_probability(self.maker.thickness_mm(target), target.depth_mm, float(preset_of(self.request).depth_sd))
        return replace(target, transmural_probability=round(float(sure.mean()), 4), nearest=nearest(target, self.request.avoid))

    def _score(self, c: _Candidate, chosen: bool) -> dict[str, Any]:
        cycles = [r.cycle_length_ms for r in c.residual]
        known = {circuit.id for circuit in self.circuits}
        return {
            "strategy": c.strategy,
            "chosen": chosen,
            "role": "compared" if c.compared else "candidate",
            **scores(self.maker, c.targets, self.request),
            "non_inducible": c.non_inducible,
            "tested": c.tested,
            "residual_circuits": [r.id if r.id in known else "new" for r in c.residual],
            "residual_cycle_length_ms": max(cycles) if cycles else None,
            "rounds": c.rounds,
            "note": c.note,
        }
