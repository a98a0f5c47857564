"""Induction in a twin: the reduced model of its mesh and tissue, paced from the sites of a protocol."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.sites import ENDOCARDIAL, SEGMENT_CENTRES, site_nodes, sites_named
from planners.circuits.episode import Episode
from planners.pacing.engine import InductionRun, Progress, induce_model
from planners.pacing.memory import Memory
from planners.pacing.protocol import Protocol
from planners.pacing.trains import Train, drive, extend
from solvers.eikonal.reentrant import ReentrantEikonal, Settings
from solvers.eikonal.restitution import RestitutionTable, load_tables
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.model import Twin
from twin.plan import Induction


@dataclass(frozen=True)
class PacingSettings:
    """solver: of the reduced model; tables: region -> restitution, None = the shipped ones."""

    solver: Settings = field(default_factory=Settings)
    tables: Mapping[str, RestitutionTable] | None = None


def model_of(twin: Twin, settings: PacingSettings, tissue_sample: int = 0, blocked: NDArray[np.bool_] | None = None) -> ReentrantEikonal:
    """The reduced model of a twin for one posterior sample, with lesions (m,) bool blocked."""
    tables = load_tables() if settings.tables is None else settings.tables
    model = ReentrantEikonal(twin.mesh, twin.tissue.velocities(tissue_sample), tables, settings.solver)
    return model if blocked is None else model.with_blocked(blocked)


def stimulus_sites(twin: Twin, protocol: Protocol, sites: Sequence[str] = ()) -> dict[str, NDArray[np.int32]]:
    """Nodes to stimulate for each asked site (`meshing.sites.sites_named`); empty: those of the protocol's own that this heart has, and
    its `near_scar` of the segments' centres.

    Raises InputError for an asked site that this heart does not have, and if none is left.
    """
    asked = sites or protocol.sites
    known = sites_named(twin.mesh, asked)
    for name in sites:
        if name not in known:
            problem = known.notes.get(name, "not in this heart")
            raise InputError("plan", "sites", f"pacing site {name!r}: {problem}", f"use some of {', '.join(sorted(known))}")
    chosen = [name for name in asked if name in known]
    if not sites:
        others = {name: known[name] for name in SEGMENT_CENTRES if name in known and name not in chosen}
        chosen += _beside_scar(twin.mesh, others, protocol.near_scar)
    if not chosen:
        raise InputError(
            "plan", "sites", f"this heart has none of the sites of protocol {protocol.name}", f"use some of {', '.join(ENDOCARDIAL)}"
        )
    return {name: site_nodes(twin.mesh, known[name], protocol.stimulus_radius_mm) for name in chosen}


def _beside_scar(mesh: HeartMesh, centres: Mapping[str, int], count: int) -> list[str]:
    """The `count` of the named nodes that lie nearest to scar or border zone; none in a heart without."""
    sick = mesh.in_region("scar", "border_zone", "isthmus")
    if not sick.any() or not count:
        return []
    away, _ = cKDTree(mesh.centroids_mm[sick]).query(mesh.points_mm[list(centres.values())])
    # to a tenth of a millimetre, then by name: node order must not decide
    return [name for _, name in sorted(zip(np.round(away, 1).tolist(), centres, strict=True))[:count]]


class PacedHeart:
    """One twin with one protocol: reduced model and electrodes are made once, and paced untreated and with any number of lesion sets.

    sites: names of `meshing.sites` (empty: the protocol's own). What the untreated heart did without block is remembered, so that the
    treated one starts from it; results are the same bytes without.
    """

    def __init__(
        self,
        twin: Twin,
        protocol: Protocol,
        sites: Sequence[str] = (),
        settings: PacingSettings | None = None,
        *,
        tissue_sample: int = 0,
    ) -> None:
        self.twin, self.protocol, self.sites = twin, protocol, tuple(sites)
        self.nodes = stimulus_sites(twin, protocol, sites)
        self.memory = Memory(model_of(twin, settings or PacingSettings(), tissue_sample))

    def with_sites(self, sites: Iterable[str]) -> list[str]:
        """Make electrodes for further sites (names as in `stimulus_sites`); returns the names."""
        names = list(sites)
        new = [name for name in names if name not in self.nodes]
        if new:
            self.nodes |= stimulus_sites(self.twin, self.protocol, new)
        return names

    def without_sites(self, sites: Iterable[str]) -> None:
        """Forget sites that are not to be paced again."""
        for name in sites:
            self.nodes.pop(name, None)

    def induce(
        self,
        sites: Sequence[str] = (),
        *,
        blocked: NDArray[np.bool_] | None = None,
        folder: Path | None = None,
        progress: Progress | None = None,
        threads: int = 1,
        stop_at_first: bool = False,
        stop: threading.Event | None = None,
    ) -> InductionRun:
        """Pace from some of the sites (empty: all); otherwise as `induce`."""
        treated = blocked is not None and bool(blocked.any())
        run = induce_model(
            self.memory.model.with_blocked(blocked) if blocked is not None and treated else self.memory.model,
            {name: self.nodes[name] for name in sites or self.nodes},
            self.protocol,
            folder=folder,
            progress=progress,
            threads=threads,
            stop_at_first=stop_at_first,
            # a lesion may lie under a stimulus: that is no mistake of the user's
            require_capture=blocked is None,
            stop=stop,
            memory=self.memory,
        )
        if sites or self.sites:
            return run
        return replace(run, inductions=run.inductions + _dropped(self.twin, self.protocol, self.nodes))

    def repeat(self, blocked: NDArray[np.bool_], episodes: Sequence[Episode], *, threads: int = 1) -> bool:
        """Whether any of the trains that started these episodes induces with lesions (m,); they are asked in their order."""
        treated = self.memory.model.with_blocked(blocked)

        def inducible(episode: Episode) -> bool:
            nodes, times = self.nodes[episode.site], stimuli_ms(self.protocol, episode)
            count = max(1, len(episode.coupling_ms))
            train = Train(nodes, tuple(times[:-count]), tuple(times[-count:]))
            until = train.beats_ms[-1] + self.protocol.extras[0].floor_ms if self.protocol.extras else train.extras_ms[0]
            state = self.memory.state_of(treated, episode.site, nodes, train.beats_ms, until)
            return extend(treated, drive(treated, train).state if state is None else state, train, self.protocol.sustained).inducible

        with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
            waiting = [pool.submit(inducible, e) for e in episodes]
            try:
                return any(answer.result() for answer in waiting)
            finally:
                for answer in waiting:
                    answer.cancel()


def stimuli_ms(protocol: Protocol, episode: Episode) -> list[float]:
    """Times of the drive and the extrastimuli (or of the burst) that started an episode."""
    found = next(d for d in protocol.drives if d.cycle_ms == episode.cycle_ms)
    times = [k * found.cycle_ms for k in range(found.computed_beats)]
    for coupling in episode.coupling_ms:
        times.append(times[-1] + coupling)
    return times


def induce(
    twin: Twin,
    protocol: Protocol,
    sites: Sequence[str] = (),
    settings: PacingSettings | None = None,
    *,
    tissue_sample: int = 0,
    blocked: NDArray[np.bool_] | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    threads: int = 1,
    stop_at_first: bool = False,
    stop: threading.Event | None = None,
) -> InductionRun:
    """Pace a twin from every site, once; whoever paces it again makes a `PacedHeart`.

    sites: names of `meshing.sites` (empty: the protocol's own); blocked (m,) bool: lesions; folder: keeps each site's result, so that a
    run that was cut off goes on where it was; stop_at_first: no further site once one has induced (sites are then paced in order);
    stop: set by another thread, it ends the pacing with Interrupted.
    The result does not depend on `threads`. Raises InputError if a drive captures from none of the sites.
    """
    heart = PacedHeart(twin, protocol, sites, settings, tissue_sample=tissue_sample)
    return heart.induce(blocked=blocked, folder=folder, progress=progress, threads=threads, stop_at_first=stop_at_first, stop=stop)


def _dropped(twin: Twin, protocol: Protocol, nodes: Mapping[str, NDArray[np.int32]]) -> tuple[Induction, ...]:
    """One line for each of the protocol's sites that this heart does not have, so that it is not taken for a negative."""
    notes = sites_named(twin.mesh, protocol.sites).notes
    missing = [name for name in protocol.sites if name not in nodes]
    return tuple(Induction(n, protocol.name, (), False, False, note=notes.get(n, "dropped: this heart has no such site")) for n in missing)
