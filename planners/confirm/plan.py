"""Every tachycardia of a plan, and a sample of what was not induced, once more by monodomain; each answer kept as soon as it is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.circuits.episode import Episode
from planners.confirm.bench import Bench, BenchSettings, times_of
from planners.confirm.border import brought_in
from planners.confirm.confirm import DIED, SUSTAINED, UNDECIDED, Confirmation, ConfirmSettings, confirm
from planners.confirm.part import active_region
from planners.pacing.induce import PacingSettings, model_of, stimulus_sites
from planners.pacing.protocol import Drive, Protocol
from planners.pacing.trace import captured
from solvers.eikonal.reentrant import ReentrantEikonal
from twin.atomic import write_json
from twin.errors import RunFailed
from twin.model import Twin
from twin.plan import Circuit

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Negative:
    """A train after which the reduced model was quiet, and what monodomain says: verdict as of a Confirmation, why in words."""

    site: str
    coupling_ms: tuple[float, ...]
    verdict: str
    why: str


@dataclass(frozen=True)
class Confirmations:
    """by_circuit: circuit id -> what monodomain says; negatives: the sample of what the reduced model did not induce."""

    by_circuit: Mapping[str, Confirmation]
    negatives: tuple[Negative, ...] = ()

    def on(self, circuits: Sequence[Circuit]) -> list[Circuit]:
        """The circuits with what was found in their `evidence`; those that only appeared after lesions were not asked about."""
        found = self.by_circuit
        return [replace(c, evidence={**c.evidence, "monodomain": found[c.id].as_dict()}) if c.id in found else c for c in circuits]

    def counts(self) -> dict[str, Any]:
        """How the screen did against monodomain; undecided ones are in neither share, a share of nothing is None."""
        verdicts = [c.verdict for c in self.by_circuit.values()]
        sample = [n.verdict for n in self.negatives]
        right, false = verdicts.count(SUSTAINED), verdicts.count(DIED)
        missed, clear = sample.count(SUSTAINED), sample.count(DIED)
        return {
            "circuits": len(verdicts),
            "sustained": right,
            "not_sustained": false,
            "negatives": len(sample),
            "negatives_sustained": missed,
            "negatives_not_sustained": clear,
            "undecided": verdicts.count(UNDECIDED) + sample.count(UNDECIDED),
            "sensitivity": right / (right + missed) if sample and right + missed else None,
            "specificity": clear / (clear + false) if clear + false and sample else None,
        }

    def as_dict(self) -> dict[str, Any]:
        """For plan.json, beside what stands with each circuit."""
        return {**self.counts(), "sample": [asdict(n) for n in self.negatives]}

    def lines(self) -> list[str]:
        """For the console."""
        return [*(f"{name}, monodomain: {c.verdict} ({c.why})" for name, c in self.by_circuit.items()), *self.sample_lines()]

    def sample_lines(self) -> list[str]:
        """What became of the negatives, in one line; none without a sample."""
        if not self.negatives:
            return []
        count = self.counts()
        said = f"of {count['negatives']} trains that induced nothing, monodomain sustains {count['negatives_sustained']}"
        return [f"{said} and ends {count['negatives_not_sustained']}"]

    def save(self, folder: Path) -> None:
        """Write `confirm.json`, atomically."""
        value = {"by_circuit": {k: c.as_dict() for k, c in self.by_circuit.items()}, "negatives": [asdict(n) for n in self.negatives]}
        write_json(folder / "confirm.json", value)

    @staticmethod
    def load(folder: Path) -> Confirmations:
        """Read what `save` wrote."""
        value = json.loads((folder / "confirm.json").read_text("utf-8"))
        by_circuit = {name: Confirmation(**c) for name, c in value["by_circuit"].items()}
        return Confirmations(by_circuit, tuple(_negative(n) for n in value["negatives"]))


def _negative(row: Mapping[str, Any]) -> Negative:
    return Negative(**{**row, "coupling_ms": tuple(row["coupling_ms"])})


def confirm_plan(
    twin: Twin,
    protocol: Protocol,
    circuits: Sequence[Circuit],
    episodes: Mapping[str, Episode],
    pacing: PacingSettings,
    settings: ConfirmSettings | None = None,
    *,
    negatives: int = 0,
    sites: Sequence[str] = (),
    folder: Path | None = None,
    tell: Tell | None = None,
) -> Confirmations:
    """Confirm every circuit that has an episode, and so many trains of the protocol that induced nothing.

    sites: those that were paced (empty: the protocol's). folder: keeps each answer, so that a run that was cut off goes on where it was.
    One part of the heart, round the scar and all circuits, serves all.
    """
    settings, say = settings or ConfirmSettings(), tell or (lambda _: None)
    asked = [c for c in circuits if c.id in episodes]
    work = _Work(twin, asked, pacing, settings, say)
    places = stimulus_sites(twin, protocol, sites)
    by_circuit = {}
    for circuit in asked:
        kept = _Kept(folder, f"circuit-{circuit.id}")
        if (row := kept.read()) is None:
            episode = episodes[circuit.id]
            row = work.circuit(circuit, episode, places[episode.site]).as_dict()
            kept.write(row)
        by_circuit[circuit.id] = Confirmation(**row)
        say(f"{circuit.id}: {by_circuit[circuit.id].why}")
    found: list[Negative] = []
    trains = quiet_trains(work.model, places, protocol, negatives)
    for k, (name, coupling) in enumerate(trains):
        kept = _Kept(folder, f"negative-{k}")
        if (row := kept.read()) is None:
            row = asdict(work.negative(name, places[name], coupling))
            kept.write(row)
        found.append(_negative(row))
        say(f"{name} {'-'.join(f'{c:g}' for c in coupling)}: {found[-1].why}")
    return Confirmations(by_circuit, tuple(found))


class _Kept:
    """One answer on disk."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self.path = None if folder is None else folder / f"{name}.json"

    def read(self) -> dict[str, Any] | None:
        if self.path is None or not self.path.exists():
            return None
        value: dict[str, Any] = json.loads(self.path.read_text("utf-8"))
        return value

    def write(self, value: Mapping[str, Any]) -> None:
        if self.path is not None:
            write_json(self.path, dict(value))


class _Work:
    """What all questions share: the reduced model, and monodomain on one part, made when it is first needed."""

    def __init__(self, twin: Twin, circuits: Sequence[Circuit], pacing: PacingSettings, settings: ConfirmSettings, say: Tell) -> None:
        self.twin, self.settings, self.pacing, self.say = twin, settings, pacing, say
        self.model = model_of(twin, pacing)
        paths = [np.asarray(c.path_mm, float).reshape(-1, 3) for c in circuits]
        self.paths_mm = np.concatenate([*paths, np.zeros((0, 3))])
        self._bench: Bench | None = None

    @property
    def bench(self) -> Bench:
        if self._bench is None:
            mesh, s = self.twin.mesh, self.settings
            sick = mesh.in_region("scar", "border_zone", "isthmus")
            alone = not len(self.paths_mm) and not sick.any()
            # without scar and circuit nothing says where to look
            keep = mesh.conducting() if alone else active_region(mesh, self.paths_mm, sick, s.radius_mm)
            settings = BenchSettings(s.edge_mm, s.cycles, minutes=s.minutes)
            self._bench = Bench(self.twin, keep, settings, tables=self.pacing.tables, tell=self.say)
        return self._bench

    def circuit(self, circuit: Circuit, episode: Episode, site: NDArray[np.int32]) -> Confirmation:
        try:
            bench = self.bench
        except RunFailed as failure:
            return Confirmation(UNDECIDED, str(failure))
        return confirm(self.twin, circuit, episode, self.settings, model=self.model, site=site, bench=bench, tell=self.say)

    def negative(self, name: str, site: NDArray[np.int32], coupling: tuple[float, ...]) -> Negative:
        times = times_of(coupling)
        try:
            outcome = self.bench.train(site, times, brought_in(self.model, self.bench.part, site, times))
        except RunFailed as failure:
            return Negative(name, coupling, UNDECIDED, str(failure))
        verdict = {"sustained": SUSTAINED, "quiet": DIED, "no capture": DIED}.get(outcome.ended, UNDECIDED)
        why = {
            "sustained": f"monodomain sustains it, {outcome.cycle_length_ms or 0.0:.0f} ms",
            "quiet": f"monodomain is quiet after {outcome.lasted_ms:.0f} ms too",
            "no capture": "monodomain does not even capture",
        }.get(outcome.ended, f"monodomain was still active after {outcome.model_ms:.0f} ms")
        return Negative(name, coupling, verdict, why)


def quiet_trains(
    model: ReentrantEikonal, sites: Mapping[str, NDArray[np.int32]], protocol: Protocol, count: int
) -> list[tuple[str, tuple[float, ...]]]:
    """Trains of a protocol that capture and induce nothing in the reduced model, (site, intervals): the hardest of each site first.

    Of every site the last stimulus that captured before the refractory period, with one extrastimulus, two, and so on; sites in turn
    until there are `count`. Fewer if the protocol has fewer.
    """
    found: list[list[tuple[str, tuple[float, ...]]]] = []
    for name, nodes in sites.items():
        if sum(len(f) for f in found) >= 3 * count:
            break
        chains = _hardest(model, nodes, protocol, protocol.drives[0])
        quiet = [c for c in chains if not _induces(model, nodes, protocol, protocol.drives[0], c)]
        found.append([(name, c) for c in reversed(quiet)])
    turns = max((len(f) for f in found), default=0)
    return [f[k] for k in range(turns) for f in found if k < len(f)][:count]


def _hardest(model: ReentrantEikonal, nodes: NDArray[np.int32], protocol: Protocol, drive: Drive) -> list[tuple[float, ...]]:
    """The shortest captured intervals of one extrastimulus, of two ..., each held where the protocol would hold it."""
    beats = [(k * drive.cycle_ms, nodes) for k in range(drive.computed_beats)]
    last = beats[-1][0]
    state, _ = model.run(model.rest(), beats, last)
    prefix: tuple[float, ...] = ()
    out = []
    for extra in protocol.extras:
        good: list[float] = []
        refractory: float | None = None
        for coupling in extra.intervals_ms(drive.cycle_ms):
            _, log = model.run(state, [(last + coupling, nodes)], last + coupling + 60.0)
            if not captured(log.activations, last + coupling):
                refractory = coupling
                break
            good.append(coupling)
        held = [c for c in good if refractory is None or c >= refractory + protocol.margin_ms]
        if not held:
            break
        out.append((*prefix, held[-1]))
        prefix = out[-1]
        state, _ = model.run(state, [(last + held[-1], nodes)], last + held[-1])
        last += held[-1]
    return out


def _induces(model: ReentrantEikonal, nodes: NDArray[np.int32], protocol: Protocol, drive: Drive, coupling: tuple[float, ...]) -> bool:
    """Whether the reduced model is still going when the protocol calls it sustained."""
    times = [k * drive.cycle_ms for k in range(drive.computed_beats)]
    times += [times[-1] + float(t) for t in np.cumsum(coupling)]
    _, log = model.run(model.rest(), [(t, nodes) for t in times], times[-1] + protocol.sustained.after_ms)
    return not log.quiet
