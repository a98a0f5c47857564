"""How likely nothing is inducible before and after the lesions, over samples of the tissue posterior and of what the lesions become."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from planners.circuits import Reentry, collect
from planners.lesions.energy import preset_of
from planners.lesions.geometry import LesionMaker
from planners.lesions.result import LesionPlan
from planners.pacing.engine import InductionRun, Progress
from planners.pacing.induce import PacedHeart, PacingSettings
from planners.pacing.protocol import load_protocol
from twin.atomic import read_npz, write_npz
from twin.model import Twin
from twin.params import Param
from twin.plan import Circuit, PlanRequest

MOST_SITES = 2
"""Samples are paced from the first inducing sites only: those are where the plan can fail, and time grows with sites."""

DECIDE = Param(
    0.70,
    "1",
    0.5,
    0.9,
    "70 % are free of VT one year after ablation (Tung et al., Heart Rhythm 2015;12:1997, read in the abstract); a plan has to be better",
)
NARROW = Param(0.20, "1", 0.05, 0.3, "chosen here: an interval no wider than this answers the question whatever DECIDE is")
BATCH = 4
"""Samples between two looks at the interval; fixed, so that the number of samples does not depend on the thread count."""

SEED = 20260
LEAST_DEPTH_MM = 1.0
"""What is drawn shallower than this is a burn of the surface all the same (chosen here)."""


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
    residual: circuits that some sample still had after the lesions; stopped: why no more samples were paced.
    """

    after: Probability
    before: Probability
    sites: tuple[str, ...]
    protocol: str
    residual: tuple[Circuit, ...]
    stopped: str = ""

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
            "stopped": self.stopped,
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
            stopped=meta["stopped"],
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
    """Re-test the plan over at most `request.posterior_samples` samples of the tissue, until the interval decides.

    The mode is none of them: VT was found and lesions were chosen on it, so its answers are known beforehand. Each sample is paced by the
    request's protocol from the sites that induced (at most `MOST_SITES`; with none, from the protocol's first), once without and once with
    the lesions, whose depths are drawn anew for every sample (`sampled_lesions`).
    folder: keeps each sample's sites for a run that was cut off.
    """
    protocol = load_protocol(request.protocol)
    sites = (run.inducing_sites or tuple(dict.fromkeys(i.site for i in run.inductions)))[:MOST_SITES]
    # row 0 of the samples is the mode
    count = min(request.posterior_samples, len(twin.tissue.samples) - 1) if sites else 0
    maker = LesionMaker(twin.mesh)
    sd_mm = float(preset_of(request).depth_sd)
    lesions = {s: sampled_lesions(maker, plan, sd_mm, s) for s in range(1, count + 1)}
    none = np.zeros(len(twin.mesh.tets), bool)
    stop = threading.Event()

    names = ("without", "with") if plan.blocked.any() else ("without",)

    def paced(sample: int) -> dict[str, InductionRun]:
        # the treated heart starts from what the untreated one did
        heart = PacedHeart(twin, protocol, sites, settings, tissue_sample=sample)
        return {
            name: heart.induce(
                blocked=lesions[sample] if name == "with" else none,
                folder=folder / f"sample-{sample}-{name}" if folder else None,
                stop_at_first=True,
                stop=stop,
            )
            for name in names
        }

    before: list[bool] = []
    after: list[InductionRun] = []
    stopped = "all samples were paced" if count else "there are no samples"
    for start in range(1, count + 1, BATCH):
        for runs in _in_pool(paced, range(start, min(start + BATCH, count + 1)), threads, stop, progress):
            before.append(not runs["without"].induced)
            after.append(runs[names[-1]])
        if len(before) < count and (why := decided(Probability.of([not r.induced for r in after]))):
            stopped = why
            break
    known, left = plan.circuits, set[str]()
    for sample, run_after in enumerate(after, 1):
        found = collect(Reentry.of(twin.mesh, lesions[sample]), run_after.inductions, run_after.episodes, known)
        known = found.circuits
        left |= {i.circuit for i in found.inductions if i.circuit}
    residual = tuple(c for c in known if c.id in left)
    share = Probability.of([not r.induced for r in after])
    return Outcome(share, Probability.of(before), sites, protocol.name, residual, stopped)


def decided(share: Probability) -> str:
    """Why the interval is narrow enough to decide, empty if it is not; looked at after every batch, so it is no test at its level."""
    if share.high - share.low <= float(NARROW):
        return f"the interval is narrower than {NARROW.value:g}"
    if share.low > float(DECIDE):
        return f"non-inducible in more than {100 * DECIDE.value:g} % of samples, by the interval of one look"
    return (
        f"non-inducible in less than {100 * DECIDE.value:g} % of samples, by the interval of one look" if share.high < float(DECIDE) else ""
    )


def sampled_lesions(maker: LesionMaker, plan: LesionPlan, sd_mm: float, sample: int) -> NDArray[np.bool_]:
    """Tetrahedra (m,) bool that the plan's lesions take in one sample, with depths drawn one by one.

    Depths are normal round the planned one (at least `LEAST_DEPTH_MM`, at most two deviations more); radii keep their proportion to it.
    """
    if not plan.targets:
        return plan.blocked
    rng = np.random.default_rng([SEED, sample])
    drawn = []
    for target in plan.targets:
        for position in target.positions_mm:
            depth = float(np.clip(rng.normal(target.depth_mm, sd_mm), LEAST_DEPTH_MM, target.depth_mm + 2.0 * sd_mm))
            radius = target.radius_mm * depth / target.depth_mm
            drawn.append(replace(target, positions_mm=[position], depth_mm=depth, radius_mm=radius))
    return maker.mask(drawn)


def _in_pool(
    paced: Callable[[int], dict[str, InductionRun]],
    samples: Sequence[int],
    threads: int,
    stop: threading.Event,
    progress: Progress | None,
) -> list[dict[str, InductionRun]]:
    """Runs in the order of the samples; an interruption ends those under way at their next stimulus."""
    pool = ThreadPoolExecutor(max_workers=max(1, threads))
    try:
        out: list[dict[str, InductionRun]] = []
        for sample, runs in zip(samples, pool.map(paced, samples), strict=True):
            out.append(runs)
            if progress:
                progress(f"sample {sample} without and with lesions", len(out), len(samples))
        return out
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
