"""The search: lesion sets of the strategies, smallest first, are re-tested and grown while VT is still inducible.

The first that suffices is pruned and chosen. Strategies that were not needed are re-tested for comparison, as a work of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.circuits import Episode, Reentry, collect
from planners.circuits.sections import Sections
from planners.lesions.avoid import nearest
from planners.lesions.energy import check_request, preset_of, transmural_probability, with_energy
from planners.lesions.geometry import LesionMaker, lesion_count
from planners.lesions.isthmus_transection import channel_of, separated
from planners.lesions.result import LesionPlan
from planners.lesions.scores import scores, with_pareto
from planners.lesions.strategy import Strategy, strategy
from planners.pacing.engine import InductionRun, Progress
from planners.pacing.induce import PacedHeart, PacingSettings
from planners.pacing.protocol import load_protocol
from twin.errors import InputError
from twin.model import Twin
from twin.plan import Circuit, PlanRequest, Target
from twin.run import content_hash

GROWTH_MM = 1.0
"""Lesions are made this much wider and deeper, up to what the energy allows, where a set does not suffice."""

Retest = Callable[[NDArray[np.bool_], Sequence[str]], InductionRun]
"""Paces the heart with lesions (m,) from the named sites and stops after the first that still induces."""

Repeat = Callable[[NDArray[np.bool_], Sequence[Episode]], "bool | None"]
"""Whether any of the trains that started these episodes still induces with lesions (m,); None: they cannot be repeated."""

MOST_TRIALS, MOST_RETESTS = 40, 3
"""So many smaller sets are tried on the known trains, and so many of what that leaves re-tested in full."""


def plan_lesions(
    twin: Twin,
    run: InductionRun,
    circuits: Sequence[Circuit],
    request: PlanRequest,
    settings: PacingSettings | None = None,
    *,
    heart: PacedHeart | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    threads: int = 1,
    spent_s: dict[str, float] | None = None,
) -> LesionPlan:
    """Find the smallest lesion set after which the request's protocol induces nothing from any site.

    run, circuits: what was induced without lesions; heart: the one that was paced for it, if it is still there; folder: keeps every
    re-test, so that a search that was cut off goes on where it was; spent_s: gets the seconds of "proposed" and "re-tested".
    Sets that are larger than the first that suffices are not developed: `compare_strategies` re-tests them.
    Raises InputError for unknown strategies or surfaces and impossible lesion sizes.
    """
    search = _search(twin, run, request, settings, heart, folder, progress, threads)
    plan = search.plan(run, circuits)
    if spent_s is not None:
        spent_s.update(search.spent_s)
    return plan


def compare_strategies(
    twin: Twin,
    plan: LesionPlan,
    run: InductionRun,
    circuits: Sequence[Circuit],
    request: PlanRequest,
    settings: PacingSettings | None = None,
    *,
    heart: PacedHeart | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    threads: int = 1,
) -> LesionPlan:
    """The plan with the other strategies of the request in its table: each is scored and re-tested from the sites that induced."""
    if not run.induced:
        return plan
    return _search(twin, run, request, settings, heart, folder, progress, threads).compared(plan, run, circuits)


def _search(
    twin: Twin,
    run: InductionRun,
    request: PlanRequest,
    settings: PacingSettings | None,
    heart: PacedHeart | None,
    folder: Path | None,
    progress: Progress | None,
    threads: int,
) -> Search:
    request = with_energy(request)
    check_request(request)
    paced = heart or PacedHeart(twin, load_protocol(request.protocol), request.sites, settings)
    # also those of directed pacing
    paced.with_sites(run.inducing_sites)

    def retest(blocked: NDArray[np.bool_], sites: Sequence[str]) -> InductionRun:
        kept = folder / f"test-{content_hash(blocked)}" if folder else None
        return paced.induce(sites, blocked=blocked, folder=kept, progress=progress, threads=threads, stop_at_first=True)

    def repeat(blocked: NDArray[np.bool_], trains: Sequence[Episode]) -> bool:
        return paced.repeat(blocked, trains, threads=threads)

    return Search(twin, request, list(paced.nodes), retest, repeat)


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

    def __init__(
        self, twin: Twin, request: PlanRequest, sites: Sequence[str], retest: Retest, repeat: Repeat = lambda blocked, trains: None
    ) -> None:
        self.twin, self.request, self.sites, self.retest, self.repeat = twin, request, list(sites), retest, repeat
        self.maker = LesionMaker(twin.mesh, request.avoid)
        self.strategies: list[Strategy] = [strategy(name) for name in request.strategies]
        further = (*request.compare, *(["user_drawn"] if request.drawn else []))
        self.others: list[Strategy] = [strategy(name) for name in dict.fromkeys(further) if name not in request.strategies]
        self.surfaces = self.maker.surfaces(request.access)
        self.circuits: list[Circuit] = []
        self.inducing: list[str] = []
        self.trains: tuple[Episode, ...] = ()
        self.spent_s = {"proposed": 0.0, "re-tested": 0.0}

    def plan(self, run: InductionRun, circuits: Sequence[Circuit]) -> LesionPlan:
        """Choose the smallest sufficient set; without inductions there is nothing to do."""
        self.circuits = list(circuits)
        self.inducing = [s for s in self.sites if s in run.inducing_sites]
        if not run.induced:
            none = np.zeros(len(self.twin.mesh.tets), bool)
            return LesionPlan((), (), (), (), run.inductions, none, 0.0, True, ("nothing was induced, so nothing is proposed",))
        if not self.surfaces:
            raise InputError("plan", "access", f"this heart has none of {', '.join(self.request.access)}", "allow a surface that it has")
        began = time.perf_counter()
        plan = self._planned(run)
        self.spent_s["proposed"] = time.perf_counter() - began - self.spent_s["re-tested"]
        return plan

    def _planned(self, run: InductionRun) -> LesionPlan:
        self.trains = run.episodes
        notes: list[str] = []
        developed: list[_Candidate] = []
        for candidate in sorted(self._proposed(self.strategies, notes), key=lambda c: c.volume_ml):
            self._develop(candidate)
            developed.append(candidate)
            if candidate.non_inducible and candidate.volume_ml <= self.request.max_volume_ml:
                # a larger set is never chosen once a smaller one suffices
                break
        if not developed:
            none = np.zeros(len(self.twin.mesh.tets), bool)
            left = tuple(self.circuits)
            return LesionPlan((), (), left, left, run.inductions, none, 0.0, False, (*notes, "no strategy found anything to ablate"))
        return self._chosen(developed, notes)

    def compared(self, plan: LesionPlan, run: InductionRun, circuits: Sequence[Circuit]) -> LesionPlan:
        """The plan with a row for every other strategy, re-tested from the sites that induced until the first that still does."""
        self.inducing = [s for s in self.sites if s in run.inducing_sites]
        known, asked = {row["strategy"] for row in plan.alternatives}, {s.name for s in self.strategies}
        notes: list[str] = []
        rows = [dict(row) for row in plan.alternatives]
        self.circuits = list(circuits)
        for candidate in self._proposed([s for s in (*self.strategies, *self.others) if s.name not in known], notes):
            # what a set that is not proposed would leave or start is no circuit of this heart's plan
            self.circuits = list(plan.circuits)
            candidate.compared, candidate.rounds = candidate.strategy not in asked, 1
            self._test(candidate, self.inducing)
            if candidate.volume_ml > self.request.max_volume_ml:
                candidate.note = f"larger than the {self.request.max_volume_ml:g} mL allowed"
            rows.append(self._score(candidate, False, plan.circuits))
        said = tuple(n for n in notes if n not in plan.notes)
        return replace(plan, alternatives=tuple(with_pareto(rows)), notes=(*plan.notes, *said))

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

    def _develop(self, candidate: _Candidate) -> None:
        """Re-test, and while something is still induced add lesions for new circuits or enlarge those that there are."""
        mine = strategy(candidate.strategy)
        limit = self.request.max_rounds
        size, energy = self.request, preset_of(self.request)
        while candidate.rounds < limit:
            candidate.rounds += 1
            too_large = candidate.volume_ml > self.request.max_volume_ml
            self._test(candidate, self.inducing if too_large else self._everywhere())
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
        began = time.perf_counter()
        first = [s for s in sites if s in self.inducing]
        rest = [s for s in sites if s not in first]
        last = self.retest(candidate.mask, [*first, *rest])
        self.spent_s["re-tested"] += time.perf_counter() - began
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
        """Leave out lesions without which every isthmus stays separated, or else no known train induces, if the re-test agrees."""
        fewer = self._still_separating(candidate)
        if fewer is not None:
            self._replaced(candidate, fewer)
        elif len(self.trains) and lesion_count(candidate.targets) > 1:
            trains = list(self.trains)
            for _ in range(MOST_RETESTS):
                fewer = self._still_quiet(candidate, trains)
                if fewer is None or (counter := self._replaced(candidate, fewer)) is None:
                    return
                # what the smaller set did not prevent is asked of the next one too
                trains += counter

    def _replaced(self, candidate: _Candidate, targets: list[Target]) -> tuple[Episode, ...] | None:
        """Take the smaller set if nothing is inducible with it (None), else give what was."""
        trial = self._candidate(candidate.strategy, targets)
        known = list(self.circuits)
        self._test(trial, self._everywhere())
        if not trial.non_inducible:
            self.circuits = known
            return trial.last.episodes if trial.last else ()
        candidate.last, candidate.residual = trial.last, trial.residual
        self._put(candidate, targets)
        return None

    def _still_separating(self, candidate: _Candidate) -> list[Target] | None:
        """Fewer lesions that separate every isthmus which these separate; None if there are none, or no isthmus has two ends."""
        sections = Sections(self.twin.mesh)
        channels = [c for circuit in self.circuits if (c := channel_of(self.twin.mesh, sections, circuit)) is not None]
        held = [c for c in channels if separated(self.twin.mesh, c, candidate.mask)]
        if not held:
            return None
        targets = list(candidate.targets)
        for k in range(len(targets)):
            for position in list(targets[k].positions_mm)[::-1]:
                fewer = _without(targets, {(k, tuple(position))})
                mask = self.maker.mask(fewer)
                if all(separated(self.twin.mesh, c, mask) for c in held):
                    targets = fewer
        return _fewer(targets, candidate)

    def _still_quiet(self, candidate: _Candidate, trains: Sequence[Episode]) -> list[Target] | None:
        """Fewer lesions with which none of the trains induces: groups of them are left out, halves first, single ones last."""
        targets, trials = list(candidate.targets), 0
        group = lesion_count(targets) // 2
        while group and trials < MOST_TRIALS:
            singles = [(k, tuple(p)) for k, t in enumerate(targets) for p in t.positions_mm]
            for start in range(0, len(singles), group):
                fewer = _without(targets, set(singles[start : start + group]))
                if trials >= MOST_TRIALS or not lesion_count(fewer):
                    break
                trials += 1
                began = time.perf_counter()
                answer = self.repeat(self.maker.mask(fewer), trains)
                self.spent_s["re-tested"] += time.perf_counter() - began
                if answer is False:
                    targets = fewer
            group //= 2
        return _fewer(targets, candidate)

    def _chosen(self, candidates: list[_Candidate], notes: list[str]) -> LesionPlan:
        def rank(c: _Candidate) -> tuple[bool, bool, int, float]:
            return (c.volume_ml > self.request.max_volume_ml, not c.non_inducible, len(c.residual), c.volume_ml)

        best = min(candidates, key=rank)
        if rank(best)[0]:
            notes.append(f"every lesion set is larger than the {self.request.max_volume_ml:g} mL allowed; none is proposed")
            alternatives = tuple(with_pareto([self._score(c, False, self.circuits) for c in candidates]))
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
            tuple(with_pareto([self._score(c, c is best, self.circuits) for c in candidates])),
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

    def _score(self, c: _Candidate, chosen: bool, circuits: Sequence[Circuit]) -> dict[str, Any]:
        cycles = [r.cycle_length_ms for r in c.residual]
        known = {circuit.id for circuit in circuits}
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


def _without(targets: Sequence[Target], left_out: set[tuple[int, tuple[float, ...]]]) -> list[Target]:
    """The targets without some of their lesions, each given by its target's number and its position; numbers stay."""
    return [replace(t, positions_mm=[p for p in t.positions_mm if (k, tuple(p)) not in left_out]) for k, t in enumerate(targets)]


def _fewer(targets: Sequence[Target], candidate: _Candidate) -> list[Target] | None:
    """The targets that still have lesions; None if none was left out."""
    return None if lesion_count(targets) == lesion_count(candidate.targets) else [t for t in targets if t.positions_mm]
