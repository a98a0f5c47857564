"""Pacing where the protocol's sites leave a question: from outside each end of a channel through which no tachycardia left yet.

A wave is blocked in a channel at the end that it reaches first, goes round and comes through from the other: the tachycardia leaves by the
end near which it was paced. So the two directions of a channel, and channels that no run used, are asked for from just outside their ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.sites import conducting_nodes
from planners.circuits import Collected, Episode, Reentry, collect
from planners.circuits.channels import find_channels
from planners.circuits.isthmus import sick_nodes
from planners.pacing.engine import InductionRun, Progress
from planners.pacing.induce import PacedHeart
from twin.model import Twin
from twin.params import Param
from twin.plan import Circuit
from twin.site_name import own_site

BEYOND = Param(8.0, "mm", 5.0, 15.0, "chosen here: an electrode's radius and a few mm of healthy muscle outside a channel's end")
NEAR = Param(15.0, "mm", 10.0, 20.0, "chosen here: an exit so near to a channel's end is that end; channels lie farther apart")
Array = NDArray[np.float64]


def induced(
    heart: PacedHeart,
    run: InductionRun,
    alike: Callable[[Episode, Episode], float] | None = None,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    threads: int = 1,
) -> tuple[InductionRun, Collected]:
    """A run of a heart's protocol with what directed pacing adds to it, if the protocol asks for that, and the circuits behind both.

    Sites from which something was induced are the heart's from then on. folder, progress, threads: as in `PacedHeart.induce`; alike: as
    in `collect`.
    """
    reentry = Reentry.of(heart.twin.mesh)
    found = collect(reentry, run.inductions, run.episodes, (), alike)
    sites = unanswered(heart.twin, found.circuits) if heart.protocol.directed and not heart.sites else ()
    if sites:
        more = heart.induce(heart.with_sites(sites), folder=folder, progress=progress, threads=threads)
        heart.without_sites(s for s in sites if s not in more.inducing_sites)
        run = replace(
            run,
            inductions=run.inductions + more.inductions,
            episodes=run.episodes + more.episodes,
            attempts=run.attempts + more.attempts,
        )
        found = collect(reentry, run.inductions, run.episodes, (), alike)
    return replace(run, inductions=found.inductions), found


def unanswered(twin: Twin, circuits: Sequence[Circuit]) -> tuple[str, ...]:
    """Sites (named by their place, `twin.site_name`) outside the ends of isthmuses and open channels by which no known circuit leaves."""
    healthy = np.flatnonzero(conducting_nodes(twin.mesh) & ~sick_nodes(twin.mesh))
    if not len(healthy):
        return ()
    tree = cKDTree(twin.mesh.points_mm[healthy])
    answered = [np.asarray(c.exit_mm, float) for c in circuits]
    asked: list[Array] = []
    for line in _lines(twin, circuits):
        for end, inner in ((line[0], line[: len(line) // 2 + 1].mean(axis=0)), (line[-1], line[len(line) // 2 :].mean(axis=0))):
            out = (end - inner) / max(float(np.linalg.norm(end - inner)), 1e-9)
            place = twin.mesh.points_mm[healthy[int(tree.query(end + float(BEYOND) * out)[1])]]
            if all(np.linalg.norm(other - end) > float(NEAR) for other in answered) and all(
                np.linalg.norm(other - place) > float(NEAR) for other in asked
            ):
                asked.append(place)
    return tuple(own_site(f"end{k + 1}", place) for k, place in enumerate(asked))


def _lines(twin: Twin, circuits: Sequence[Circuit]) -> list[Array]:
    """Axes of the isthmuses that circuits use, then of the other open channels from mouth to mouth."""
    lines = [np.asarray(c.isthmus_mm, float) for c in circuits if len(c.isthmus_mm) > 2]
    channels = find_channels(twin.mesh, twin.tissue.velocities() if twin.tissue.names else {})
    return lines + [c.line_mm for c in channels if c.open and len(c.line_mm) > 2]
