"""How likely nothing is inducible before and after the lesions, over samples of the tissue posterior."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from planners.circuits import Reentry, collect
from planners.lesions.result import LesionPlan
from planners.pacing.engine import InductionRun, Progress
from planners.pacing.induce import PacingSettings, induce
from planners.pacing.protocol import load_protocol
from twin.atomic import read_npz, write_npz
from twin.model import Twin
from twin.plan import Circuit, PlanRequest

MOST_SITES = 2
"""Samples are paced from the first inducing sites only: those are where the plan can fail, and time grows with sites."""


def jeffreys(successes: int, trials: int, mass: float = 0.95) -> tuple[float, float]:
    """Equal-tailed interval of a proportion under Jeffreys' prior Beta(1/2, 1/2); its end is 0 or 1 where nothing or all succeeded."""
    tail = (1.0 - mass) / 2.0
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes + 0.5, trials - successes + 0.5))
    high = 1.0 if successes == trials else float(beta.ppf(1.0 - tail, successes + 0.5, trials - successes + 0.5))
    return low, high


@dataclass(frozen=True)
class Probability:
    """A share of posterior samples: successes of samples, the estimate and its 95 % interval (Jeffreys)."""

    successes: int
    samples: int
    estimate: float
    low: float
    high: float

    @staticmethod
    def of(outcomes: Sequence[bool]) -> Probability:
        """From one truth value per sample; without samples nothing is known: 0.5 in [0, 1]."""
        successes, samples = sum(outcomes), len(outcomes)
        if not samples:
            return Probability(0, 0, 0.5, 0.0, 1.0)
        low, high = jeffreys(successes, samples)
        return Probability(successes, samples, round(successes / samples, 6), round(low, 6), round(high, 6))


@dataclass(frozen=True)
class Outcome:
    """Probability that the protocol induces nothing, after and before the lesions; sites: where the samples were paced from;
    residual: circuits that some sample still had after the lesions.
    """

    after: Probability
    before: Probability
    sites: tuple[str, ...]
    protocol: str
    residual: tuple[Circuit, ...]

    def as_dict(self) -> dict[str, Any]:
        """For plan.json."""
        return {
            "probability_non_inducible": self.after.estimate,
            "interval": [self.after.low, self.after.high],
            "samples": self.after.samples,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "sites": list(self.sites),
            "protocol": self.protocol,
            "residual_circuits": [asdict(c) for c in self.residual],
        }

    def save(self, folder: Path) -> None:
        """Write `outcome.npz` to a folder, atomically."""
        write_npz(folder / "outcome.npz", {}, asdict(self))

    @staticmethod
    def load(folder: Path) -> Outcome:
        """Read what `save` wrote."""
        _, meta = read_npz(folder / "outcome.npz")
        return Outcome(
            after=Probability(**meta["after"]),
            before=Probability(**meta["before"]),
            sites=tuple(meta["sites"]),
            protocol=meta["protocol"],
            residual=tuple(Circuit(**{**c, "sites": tuple(c["sites"])}) for c in meta["residual"]),
        )


def outcome(
    twin: Twin,
    plan: LesionPlan,
    run: InductionRun,
    request: PlanRequest,
    settings: PacingSettings | None = None,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    threads: int = 1,
) -> Outcome:
    """Re-test the plan over the first `request.posterior_samples` tissue samples (as many as there are; the first is the mode).

    Each sample is paced by the request's protocol from the sites that induced (at most `MOST_SITES`; with none, from the protocol's first),
    once without and once with the lesions. folder: keeps each sample's sites for a run that was cut off.
    """
    protocol = load_protocol(request.protocol)
    sites = (run.inducing_sites or tuple(dict.fromkeys(i.site for i in run.inductions)))[:MOST_SITES]
    count = min(request.posterior_samples, len(twin.tissue.samples))

    none = np.zeros(len(twin.mesh.tets), bool)
    stop = threading.Event()

    def paced(task: tuple[int, str]) -> InductionRun:
        sample, name = task
        return induce(
            twin,
            protocol,
            sites,
            settings,
            tissue_sample=sample,
            blocked=plan.blocked if name == "with" else none,
            folder=folder / f"sample-{sample}-{name}" if folder else None,
            stop_at_first=True,
            stop=stop,
        )

    names = ("without", "with") if plan.blocked.any() else ("without",)
    tasks = [(sample, name) for sample in range(count if sites else 0) for name in names]
    runs = dict(zip(tasks, _in_pool(paced, tasks, threads, stop, progress), strict=True))
    before = [not runs[sample, "without"].induced for sample in range(len(tasks) // len(names))]
    after = [not runs[sample, names[-1]].induced for sample in range(len(before))]
    known, left = plan.circuits, set[str]()
    reentry = Reentry.of(twin.mesh, plan.blocked)
    for sample in range(len(before)):
        run_after = runs[sample, names[-1]]
        found = collect(reentry, run_after.inductions, run_after.episodes, known)
        known = found.circuits
        left |= {i.circuit for i in found.inductions if i.circuit}
    residual = tuple(c for c in known if c.id in left)
    return Outcome(Probability.of(after), Probability.of(before), sites, protocol.name, residual)


def _in_pool(
    paced: Callable[[tuple[int, str]], InductionRun],
    tasks: Sequence[tuple[int, str]],
    threads: int,
    stop: threading.Event,
    progress: Progress | None,
) -> list[InductionRun]:
    """Runs in the order of the tasks; an interruption ends those under way at their next stimulus."""
    pool = ThreadPoolExecutor(max_workers=max(1, threads))
    try:
        out: list[InductionRun] = []
        for k, ((sample, name), run) in enumerate(zip(tasks, pool.map(paced, tasks), strict=True)):
            out.append(run)
            if progress:
                progress(f"sample {sample + 1} {name} lesions", k + 1, len(tasks))
        return out
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
