"""Which jobs a trial consists of: candidates until enough are enrolled, every arm for each that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from planners.app.identity import hidden
from planners.trials.job import Job, Row
from planners.trials.population import parameters_of
from planners.trials.trial import Trial
from twin.case import load_case
from twin.errors import InputError


def enrolled(row: Row | None) -> bool:
    """True if a candidate's result says that it takes part."""
    return row is not None and not row["implausible"] and not row["excluded"]


class Enrolment:
    """Candidates in the order of their numbers.

    As many are begun as are needed plus as many as were turned away: however results arrive, the first candidates that make up the
    number are the ones that are taken. At a look the enrolment waits for all results so far; `stopped` says whether to go on.
    """

    def __init__(self, trial: Trial, root: Path, stopped: Callable[[int], bool] = lambda look: False) -> None:
        self.trial, self.root, self.stopped = trial, root, stopped
        self.total = trial.population.virtual or len(trial.population.cases)
        self.targets = [math.ceil(share * self.total) for share in trial.analysis.looks]
        self.look = 0
        self.drawn = 0
        self.turned_away = 0
        self.ended = False

    def candidate(self, number: int) -> Job:
        """The job that builds candidate `number` (from 0)."""
        trial = self.trial
        population = asdict(trial.population)
        rules = {key: population[key] for key in ("include", "plausible")}
        spec: dict[str, Any] = {"candidate": number, "seed": trial.seed, "population": rules, "samples": trial.samples, **trial.options}
        if trial.population.virtual:
            spec |= {"name": f"V{number:04d}", "values": parameters_of(trial.population, trial.seed, number)}
        else:
            name = sorted(trial.population.cases)[number]
            spec |= {"name": name, "case": name, "evidence": trial.population.cases[name]}
        if trial.fidelity == "toy":
            return Job.of("toy_twin", number, spec)
        return Job.of("twin", number, spec | {"edge_mm": trial.edge_mm, "protocol": trial.protocol, "sites": list(trial.sites)})

    def arms(self, twin: Job) -> list[Job]:
        """One job per arm for a candidate that takes part."""
        jobs = []
        for place, arm in enumerate(self.trial.arms):
            what = asdict(arm)
            del what["name"], what["title"]  # equal arms under other names have equal results
            spec = {"candidate": twin.spec["candidate"], "seed": self.trial.seed, "samples": self.trial.samples, "arm": what}
            ordinal = twin.ordinal * len(self.trial.arms) + place
            if self.trial.fidelity == "toy":
                jobs.append(Job.of("toy_arm", ordinal, {**spec, **self.trial.options, "place": place}, [twin.key]))
            else:
                spec |= {"protocol": self.trial.protocol, "sites": list(self.trial.sites), "place": place}
                jobs.append(Job.of("arm", ordinal, spec, [twin.key]))
        return jobs

    def _more(self) -> list[Job]:
        """Candidates up to the number that is needed now."""
        most = self.trial.population.max_candidates if self.trial.population.virtual else self.total
        wanted = self.total if not self.trial.population.virtual else self.targets[self.look] + self.turned_away
        jobs = [self.candidate(number) for number in range(self.drawn, min(wanted, most))]
        self.drawn += len(jobs)
        return jobs

    def first(self) -> Iterator[Job]:
        """The candidates of the first look."""
        return iter(self._more())

    def after(self, job: Job, row: Row | None) -> Sequence[Job]:
        """Arms for a candidate that takes part, the next candidate for one that does not."""
        if job.kind not in ("twin", "toy_twin"):
            return []
        if enrolled(row):
            return self.arms(job)
        self.turned_away += 1
        return self._more()

    def idle(self) -> Sequence[Job]:
        """The candidates of the next look, unless this one ended the trial."""
        while not self.ended:
            if self.look + 1 >= len(self.targets) or (self.trial.analysis.stop and self.stopped(self.look)):
                self.ended = True
                break
            self.look += 1
            if jobs := self._more():
                return jobs
        return []


def located(job: Job, root: Path) -> Job:
    """The job with the place of its case, which is no part of its key: a folder that was moved is the same folder.

    Raises InputError for a case that is not there any more.
    """
    if "case" not in job.spec:
        return job
    place = places(root).get(job.spec["case"])
    if place is None:
        raise InputError(root, "case", f"{job.spec['case']} is not there any more", "put the cases of this trial back")
    spec: Mapping[str, Any] = {**job.spec, "place": str(place)}
    return Job(job.key, job.kind, job.ordinal, spec, job.needs)


@lru_cache(maxsize=4)
def places(root: Path) -> Mapping[str, Path]:
    """Case files below a folder (`*/case.toml`) by the name under which a trial shows them: no folder's, unless the case is virtual.

    Raises InputError for a case that cannot be right, and for two hearts that are one.
    """
    found: dict[str, Path] = {}
    for path in sorted(root.glob("*/case.toml")):
        case = load_case(path)
        name = path.parent.name if case.virtual else hidden(case).name
        if name in found:
            raise InputError(path, "segmentation", f"is that of {found[name]} too", "leave one of the two cases out")
        found[name] = path
    return found
