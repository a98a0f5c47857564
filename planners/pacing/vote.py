"""Whether a screen's answer hangs on the reduced model's fitted numbers: other settings pace the same sites and vote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from planners.pacing.engine import InductionRun, Progress
from planners.pacing.induce import PacingSettings, induce, stimulus_sites
from planners.pacing.protocol import Protocol
from solvers.eikonal.reentrant import Settings
from twin.model import Twin

WAITS = (0.8, 1.2)
BLENDS = (2.0 / 3.0, 1.5)
"""Each voter changes one of the two numbers by such a factor: over this range the fit to monodomain sheets hardly tells them apart
(docs/reentry.md). They move how many sites induce, hardly the circuit."""


def voters(settings: Settings) -> tuple[Settings, ...]:
    """The settings that vote beside the ones that a plan is made with."""
    waits = tuple(replace(settings, wait_ms=factor * settings.wait_ms) for factor in WAITS)
    return waits + tuple(replace(settings, blend_ms=factor * settings.blend_ms) for factor in BLENDS)


def vote(
    run: InductionRun,
    twin: Twin,
    protocol: Protocol,
    sites: Sequence[str],
    settings: PacingSettings,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    threads: int = 1,
) -> InductionRun:
    """Pace every site with each of the other settings; how many of all induce from a site goes into the notes of its inductions.

    Four times the cost of the run. What is induced, and the circuits, stay the run's own. folder: keeps each site of each voter.
    """
    votes = {site: int(site in run.inducing_sites) for site in stimulus_sites(twin, protocol, sites)}
    others = voters(settings.solver)
    for k, solver in enumerate(others):
        kept = folder / f"vote-{k + 1}" if folder else None
        told = (lambda what, done, total, k=k: progress(f"{what}, vote {k + 1} of {len(others)}", done, total)) if progress else None
        other = induce(twin, protocol, sites, replace(settings, solver=solver), folder=kept, progress=told, threads=threads)
        for site in other.inducing_sites:
            votes[site] += 1
    ends = f"of {len(others) + 1} settings of wait and blend"
    # a site that this heart does not have is named in the run, but nobody can vote on it
    marked = tuple(replace(i, note=_joined(i.note, f"induced in {votes[i.site]} {ends}")) if i.site in votes else i for i in run.inductions)
    return replace(run, inductions=marked)


def _joined(note: str, more: str) -> str:
    return f"{note}; {more}" if note else more
