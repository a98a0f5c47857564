"""The finished plan that a procedure starts from, read once: everything an update needs and no update changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planners.calibration import Calibration
from planners.circuits.episode import Episode
from planners.circuits.sections import Sections
from planners.finished import load_plan
from planners.lesions.energy import with_energy
from planners.lesions.geometry import LesionMaker
from planners.lesions.isthmus_transection import Channel, channel_of
from planners.pacing import trains
from planners.pacing.engine import load_site
from planners.pacing.induce import PacingSettings, model_of, stimulus_sites
from planners.pacing.protocol import Protocol, load_protocol
from solvers.eikonal.reentrant import ReentrantEikonal
from solvers.eikonal.restitution import scaled
from twin.errors import InputError
from twin.mesh import WALLS
from twin.model import Twin
from twin.plan import Circuit, Plan, PlanRequest


@dataclass(frozen=True)
class Attempt:
    """One train that induced before ablation: where, its drive's cycle and its coupling intervals."""

    site: str
    cycle_ms: float
    coupling_ms: tuple[float, ...]
    circuit: str | None
    """The circuit that it induced, None where that could not be described."""


@dataclass(frozen=True)
class Base:
    """A finished plan with its twin and what induced VT in it."""

    folder: Path
    plan: Plan
    twin: Twin
    request: PlanRequest
    attempts: tuple[Attempt, ...]
    calibration: Calibration | None = None
    """What new points go into; None: tissue is not updated."""
    episodes: Mapping[str, Episode] = field(default_factory=dict)
    """One recorded reentry per circuit, for comparisons with a new VT."""

    @staticmethod
    def load(folder: Path) -> Base:
        """Read a finished plan. Raises InputError for a folder that holds none, or whose stages are gone."""
        plan = load_plan(folder)
        try:
            stages = _stages(folder, plan)
            results = [load_site(path) for path in sorted(stages["induction"].glob("site-*.npz"))]
            calibration = Calibration.load(stages["tissue"])
            # lesions whose size nobody gave are those of the plan's energy
            request = with_energy(PlanRequest.of(plan.run["settings"]["request"]))
        except (KeyError, TypeError) as error:
            problem = f"was made by another version of vtwin (it has no {error})"
            raise InputError(folder, "stages", problem, "run `vtwin plan` again, into a new folder") from None
        named = {(i.site, tuple(i.coupling_ms)): i.circuit for i in plan.inductions if i.induced}
        attempts = tuple(
            Attempt(e.site, e.cycle_ms, e.coupling_ms, named.get((e.site, tuple(e.coupling_ms)))) for r in results for e in r.episodes
        )
        episodes: dict[str, Episode] = {}
        for result in results:
            for episode in result.episodes:
                circuit = named.get((episode.site, tuple(episode.coupling_ms)))
                if circuit is not None:
                    episodes.setdefault(circuit, episode)
        return Base(folder, plan, calibration.twin, request, attempts, calibration, episodes)

    def with_calibration(self, calibration: Calibration) -> Base:
        """The same plan with other tissue; what depends on the mesh alone is not made again."""
        other = replace(self, twin=calibration.twin, calibration=calibration)
        other.__dict__.update(
            {name: value for name, value in self.__dict__.items() if name in ("maker", "sparing", "channels", "protocol")}
        )
        return other

    def of_sample(self, sample: int) -> Base:
        """The same plan with one sample of its tissue's posterior in the place of the likeliest."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ("model", "drives")}
        other = replace(self)
        other.__dict__.update(kept, model=model_of(self.twin, self.settings, sample))
        return other

    @property
    def known_maps(self) -> tuple[str, ...]:
        """Names by which files may call the map that the plan was made from: its content's hash."""
        known = self.plan.run.get("inputs", {}).get("eam")
        return (known,) if known else ()

    def to_mesh(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places in the map's frame (k, 3) in mesh space, mm: as the map itself was placed, bent where it was bent."""
        registration = None if self.calibration is None else self.calibration.registration
        if registration is not None:
            return registration.apply(points_mm)
        pose = self.twin.map_to_mesh
        return np.asarray(points_mm @ pose[:3, :3].T + pose[:3, 3], np.float64)

    @cached_property
    def maker(self) -> LesionMaker:
        """Delivered lesions to tetrahedra, wherever they were made."""
        return LesionMaker(self.twin.mesh)

    @cached_property
    def sparing(self) -> LesionMaker:
        """The same for lesions that are proposed: none inside the margin of a structure that the plan spares."""
        return LesionMaker(self.twin.mesh, self.request.avoid) if self.request.avoid else self.maker

    @cached_property
    def protocol(self) -> Protocol:
        """The plan's protocol."""
        return load_protocol(self.request.protocol)

    @cached_property
    def settings(self) -> PacingSettings:
        """How the plan was paced: with durations of its own where evidence of drugs or disease had scaled them."""
        factors = self.plan.run["settings"].get("apd_factors")
        return PacingSettings(tables=scaled(factors)) if factors else PacingSettings()

    @cached_property
    def model(self) -> ReentrantEikonal:
        """The reduced model of the untreated heart; lesions are blocked in copies of it."""
        return model_of(self.twin, self.settings)

    @cached_property
    def channels(self) -> dict[str, tuple[Circuit, Channel]]:
        """Isthmus of each circuit as a graph, by circuit; circuits whose isthmus has no two ends are left out."""
        sections = Sections(self.twin.mesh)
        found = ((c, channel_of(self.twin.mesh, sections, c)) for c in self.plan.circuits)
        return {c.id: (c, channel) for c, channel in found if channel is not None}

    @cached_property
    def electrodes(self) -> dict[str, NDArray[np.int32]]:
        """Nodes to stimulate, by site."""
        return stimulus_sites(self.twin, self.protocol, tuple(dict.fromkeys(a.site for a in self.attempts)))

    @cached_property
    def drives(self) -> dict[Attempt, trains.Drive]:
        """The untreated heart's drive of each train, as far as `warm` has run it."""
        return {}

    def warm(self, pool: Executor) -> None:
        """Make what updates share before the first one needs it; answers are the same without."""
        given = [(attempt, self.train(attempt)) for attempt in self.attempts]
        running = [pool.submit(trains.drive, self.model, train) for _, train in given] if given else []
        self.maker.surfaces(WALLS)
        _ = self.channels
        self.drives.update({attempt: drive.result() for (attempt, _), drive in zip(given, running, strict=True)})

    def train(self, attempt: Attempt) -> trains.Train:
        """Stimuli of an attempt; of the drive those beats that the protocol computes, the last of a burst counting as the extrastimulus.

        Raises InputError for a train that the protocol of today does not have.
        """
        found = next((d for d in self.protocol.drives if d.cycle_ms == attempt.cycle_ms), None)
        if found is None:
            problem = f"{self.protocol.name} has no drive of {attempt.cycle_ms:g} ms any more"
            raise InputError(self.folder, "protocol", problem, "run `vtwin plan` again, into a new folder")
        beats = [k * attempt.cycle_ms for k in range(found.computed_beats)]
        extras = (beats[-1] + np.cumsum(attempt.coupling_ms)).tolist() or [beats.pop()]
        return trains.Train(self.electrodes[attempt.site], tuple(beats), tuple(extras))

    def repeat(self, attempt: Attempt, blocked: NDArray[np.bool_], cancelled: Callable[[], bool] = lambda: False) -> trains.Answer:
        """The same train again with tetrahedra (m,) blocked. Raises Interrupted when `cancelled` says so."""
        train, treated = self.train(attempt), self.model.with_blocked(blocked)
        known = self.drives.get(attempt)
        state = trains.behind(self.model, treated, train, known) if known else trains.drive(treated, train).state
        return trains.extend(treated, state, train, self.protocol.sustained, cancelled)


def _stages(folder: Path, plan: Plan) -> dict[str, Path]:
    """Folders of the stages that guidance reads. Raises InputError where one is gone."""
    keys = plan.run["stages"]
    stages = {name: folder / "stages" / f"{name}-{keys.get(name)}" for name in ("tissue", "induction")}
    for name, path in stages.items():
        if not path.is_dir():
            raise InputError(folder, "stages", f"stage {name} of this plan is not there", "run `vtwin plan` again, same case and folder")
    return stages
