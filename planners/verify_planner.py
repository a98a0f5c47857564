"""The planner against ten virtual patients: what the quick plan finds and leaves, against an exhaustive search; `vtwin verify planner`.

Exhaustive: the reduced model at half the step of the coupling intervals, from the 19 sites of published twins, two inductions per site.
`python -m planners.verify_planner RESULTS.jsonl [HEART ...] [--confirm]` appends one line per heart, so that a cut-off loses one; a heart
that has its line is not computed again. The ten take about half an hour of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.anatomy import complete
from meshing.mesh_labels import mesh_heart
from planners.calibration import calibrate
from planners.circuits import Likeness, Reentry, collect, describe, same
from planners.circuits.episode import Collected
from planners.circuits.sequence import coherence, phases
from planners.lesions.geometry import lesion_count
from planners.lesions.result import LesionPlan
from planners.lesions.search import compare_strategies, plan_lesions
from planners.outcome import outcome
from planners.pacing.directed import induced
from planners.pacing.engine import InductionRun
from planners.pacing.induce import PacedHeart, PacingSettings, induce, model_of, stimulus_sites
from planners.pacing.protocol import Protocol, load_protocol
from planners.virtual.ten import HEARTS, VELOCITIES, VirtualHeart
from twin.check_record import checked
from twin.model import Twin
from twin.patient import Evidence, Patient
from twin.plan import Circuit, PlanRequest
from twin.run import content_hash

EDGE_MM = 3.0
"""Inducing sites and intervals are the same at 3.2 and 2.2 mm (measured on a prototype); a plan for a patient uses 2 mm."""

FAST = ("two_isthmuses",)
VELOCITY_SHARE = 0.05
"""The planner is given the true velocities with this half width; what it has to find is the circuits."""

ISTHMUS_MM = 15.0
"""Two circuits whose isthmuses lie nearer than this use one isthmus, whichever way and however fast they run."""


@dataclass
class HeartRecord:
    """One heart. found, missed: exhaustive VTs that the quick plan has or has not (cycle length, segment, sites); isthmuses_missed: of the
    missed those through an isthmus that no quick circuit uses; extra: quick VTs that the exhaustive search has not; left: VTs that the
    exhaustive search induces after the lesions; cpu_s: by stage, of this process, on a machine with this load; confirmed: verdicts of
    monodomain by VT, empty where it was not asked.
    """

    heart: str
    what: str
    nodes: int
    found: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    isthmuses_missed: int = 0
    extra: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    non_inducible_quick: bool = True
    lesions: int = 0
    volume_ml: float = 0.0
    homogenisation_ml: float | None = None
    probability: float | None = None
    cpu_s: dict[str, float] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)
    threads: int = 1
    load: float = 0.0
    confirmed: dict[str, str] = field(default_factory=dict)
    date: str = ""
    key: str = ""


@contextmanager
def _timed(record: HeartRecord, stage: str) -> Iterator[None]:
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    record.cpu_s[stage] = round(time.process_time() - cpu, 2)
    record.wall_s[stage] = round(time.perf_counter() - wall, 2)


def exhaustive(protocol: Protocol) -> Protocol:
    """The 19-site protocol with the quick one's drive, the wider range of both, half its step, and two inductions per site."""
    wide = load_protocol("twin19")
    extras = tuple(
        replace(mine, start_ms=max(mine.start_ms, other.start_ms), step_ms=mine.step_ms / 2.0)
        for mine, other in zip(protocol.extras, wide.extras, strict=True)
    )
    return replace(protocol, name="exhaustive", sites=wide.sites, extras=extras, stop_after=2)


def twin_of(heart: VirtualHeart, record: HeartRecord) -> Twin:
    """The heart's mesh and tissue, as a plan makes them from labels and known velocities."""
    volume = heart.labels()
    with _timed(record, "mesh"):
        mesh = complete(mesh_heart(volume, EDGE_MM))
    record.nodes = mesh.n_points
    given = {
        f"{region}/{name}": (value * (1.0 - VELOCITY_SHARE), value * (1.0 + VELOCITY_SHARE))
        for region, speed in VELOCITIES.items()
        for name, value in (("cv_longitudinal_m_s", speed.longitudinal_m_s), ("cv_transverse_m_s", speed.transverse_m_s))
    }
    with _timed(record, "tissue"):
        return calibrate(mesh, Patient(record.heart, Evidence(volume, "virtual", virtual=True)), given, 1, lambda line: None).twin


@dataclass(frozen=True)
class Planned:
    """The quick plan of one heart."""

    twin: Twin
    protocol: Protocol
    run: InductionRun
    found: Collected
    plan: LesionPlan


def planned(name: str, *, threads: int | None = None) -> tuple[HeartRecord, Planned]:
    """Plan for one of the ten hearts as `vtwin plan` does, timed stage by stage."""
    heart, threads = HEARTS[name], threads or numba.get_num_threads()
    record = HeartRecord(name, heart.what, 0, threads=threads, date=time.strftime("%Y-%m-%d"), key=_key(name))
    twin = twin_of(heart, record)
    request = PlanRequest(access=heart.access)
    quick = load_protocol(request.protocol)
    with _timed(record, "induction"):
        paced = PacedHeart(twin, quick)
        run, found = induced(paced, paced.induce(threads=threads), threads=threads)
    with _timed(record, "lesions"):
        plan = plan_lesions(twin, run, found.circuits, request, heart=paced, threads=threads)
    with _timed(record, "outcome"):
        result = outcome(twin, plan, run, request, threads=threads)
    with _timed(record, "comparison"):
        plan = compare_strategies(twin, plan, run, found.circuits, request, heart=paced, threads=threads)
    record.load = round(os.getloadavg()[0], 1)
    record.non_inducible_quick, record.probability = plan.non_inducible, result.after.estimate
    record.lesions, record.volume_ml = lesion_count(plan.targets), round(plan.volume_ml, 3)
    record.homogenisation_ml = next((a["volume_ml"] for a in plan.alternatives if a["strategy"] == "border_homogenisation"), None)
    return record, Planned(twin, quick, run, found, plan)


def assess(name: str, *, threads: int | None = None, confirm: bool = False, folder: Path | None = None) -> HeartRecord:
    """Plan for one of the ten hearts, and search it exhaustively before and after.

    folder: keeps each site of the exhaustive search before the lesions, which no change of the plan changes.
    """
    record, made = planned(name, threads=threads)
    twin, quick, found, plan = made.twin, made.protocol, made.found, made.plan
    threads = record.threads
    with _timed(record, "exhaustive before"):
        everything = _searched(twin, exhaustive(quick), None, threads, folder / name / "exh" if folder else None)
    with _timed(record, "exhaustive after"):
        left = _searched(twin, exhaustive(quick), plan.blocked, threads) if plan.blocked.any() else everything
    _compare(record, twin, made.run, found, everything)
    record.left = [_said(c) for c in left.circuits] + ["could not be described"] * left.undescribed
    if confirm and found.circuits:
        with _timed(record, "confirmation"):
            record.confirmed = _confirmed(twin, quick, found)
    return record


def _searched(twin: Twin, protocol: Protocol, blocked: NDArray[np.bool_] | None, threads: int, folder: Path | None = None) -> Collected:
    run: InductionRun = induce(twin, protocol, blocked=blocked, threads=threads, folder=folder)
    return collect(Reentry.of(twin.mesh, blocked), run.inductions, run.episodes)


def _said(circuit: Circuit) -> str:
    return f"{circuit.cycle_length_ms:.0f} ms, exit in segment {circuit.segment}, from {', '.join(circuit.sites)}"


def _compare(record: HeartRecord, twin: Twin, run: InductionRun, quick: Collected, everything: Collected) -> None:
    """Which circuits of the exhaustive search some induction of the quick one is, by the rule that merges circuits, and the reverse."""
    tree, n, reentry = cKDTree(twin.mesh.points_mm), twin.mesh.n_points, Reentry.of(twin.mesh)
    named = {(i.site, tuple(i.coupling_ms)): i.circuit for i in quick.inductions if i.induced}
    members: list[tuple[str | None, Circuit, NDArray[np.float64]]] = []
    for e in run.episodes:
        if (circuit := describe(reentry, e.log, e.site)) is not None:
            members.append((named[e.site, tuple(e.coupling_ms)], circuit, phases(e.log, n)))
    seen: set[str | None] = set()
    for circuit in everything.circuits:
        order = phases(everything.episodes[circuit.id].log, n)
        mine = {name for name, m, phase in members if same(circuit, m, Likeness(way=coherence(tree, circuit, m, order, phase)))}
        seen |= mine
        if mine:
            record.found.append(_said(circuit))
            continue
        record.missed.append(_said(circuit))
        gaps = [float(np.linalg.norm(np.subtract(circuit.centre_mm, m.centre_mm))) for _, m, _ in members]
        record.isthmuses_missed += min(gaps, default=np.inf) > ISTHMUS_MM
    record.extra = [_said(q) for q in quick.circuits if q.id not in seen]


def _confirmed(twin: Twin, protocol: Protocol, found: Collected) -> dict[str, str]:
    """Monodomain's verdict on the first VT of a heart (each takes minutes)."""
    from planners.confirm.confirm import ConfirmSettings, confirm

    circuit = found.circuits[0]
    episode = found.episodes[circuit.id]
    site = stimulus_sites(twin, protocol, [episode.site])[episode.site]
    answer = confirm(twin, circuit, episode, ConfirmSettings(), model=model_of(twin, PacingSettings()), site=site)
    cycle = "" if answer.cycle_length_ms is None else f", {answer.cycle_length_ms:.0f} ms against {circuit.cycle_length_ms:.0f}"
    return {circuit.id: f"{answer.verdict}{cycle} ({answer.why})"}


def _key(name: str) -> str:
    """What a kept line answers: another heart, mesh or protocol is another question."""
    return content_hash(repr(HEARTS[name]), EDGE_MM, asdict(load_protocol("quick")))


def read_results(path: Path) -> dict[str, HeartRecord]:
    """Records of a results file by heart, those of the hearts as they are now; the last line of a heart counts, a torn one does not."""
    out: dict[str, HeartRecord] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = HeartRecord(**json.loads(line))
        except (ValueError, TypeError):
            continue
        if record.heart in HEARTS and record.key == _key(record.heart):
            out[record.heart] = record
    return out


def append_result(path: Path, record: HeartRecord) -> None:
    """Add one line and wait until it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(asdict(record)) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def checks(fast: bool = True) -> list[dict[str, Any]]:
    """Records of `vtwin verify planner`: one heart, with --slow all ten (half an hour of one core)."""
    return records_of([assess(name) for name in (FAST if fast else HEARTS)])


def records_of(hearts: Sequence[HeartRecord]) -> list[dict[str, Any]]:
    """The goals of the planner over these hearts, one record each, and one per heart."""
    every, found = sum(len(h.found) + len(h.missed) for h in hearts), sum(len(h.found) for h in hearts)
    clear = [h for h in hearts if not h.left]
    treated = [h for h in hearts if h.lesions and h.homogenisation_ml]
    share = max((h.volume_ml / h.homogenisation_ml for h in treated if h.homogenisation_ml), default=0.0)
    verdicts = [v for h in hearts for v in h.confirmed.values()]
    goal = "goal of the planner; exhaustive search by the reduced model (planners/verify_planner.py)"
    out = [
        _record("planner/vts_found", found / every if every else 1.0, 1.0, 0.05, goal),
        _record("planner/isthmuses_missed", float(sum(h.isthmuses_missed for h in hearts)), 0.0, 0.0, goal),
        _record("planner/vts_not_in_exhaustive", float(sum(len(h.extra) for h in hearts)), 0.0, 0.0, goal),
        _record("planner/hearts_left_without_vt", len(clear) / max(len(hearts), 1), 1.0, 0.1, goal),
        _record("planner/volume_over_homogenisation", share, 0.0, 0.5, goal),
    ]
    if verdicts:
        refuted = sum(v.startswith("not sustained") for v in verdicts)
        out.append(_record("planner/refuted_by_monodomain", float(refuted), 0.0, 0.0, f"planners.confirm, {len(verdicts)} VTs asked"))
    for h in hearts:
        meant = HEARTS[h.heart].inducible
        if meant is not None:
            induced = bool(h.found or h.extra)
            out.append(_record(f"planner/{h.heart}/induced", float(induced), float(meant), 0.0, f"truth: {h.what}"))
    return out


def _record(name: str, value: float, reference: float, tolerance: float, source: str) -> dict[str, Any]:
    return checked(name, value, "1", reference, tolerance, source)


def table(hearts: Mapping[str, HeartRecord]) -> str:
    """Markdown: one row per heart, then what was missed or left."""
    lines = [
        "| heart | VTs found / all | isthmuses missed | lesions | mL | mL homogenisation | left by exhaustive "
        "| CPU s mesh / tissue / induction / lesions / outcome / comparison | monodomain |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for h in hearts.values():
        split = " / ".join(f"{h.cpu_s.get(s, 0.0):.0f}" for s in ("mesh", "tissue", "induction", "lesions", "outcome", "comparison"))
        other = "" if h.homogenisation_ml is None else f"{h.homogenisation_ml:.2f}"
        vts = f"{len(h.found)} / {len(h.found) + len(h.missed)}"
        cells = (h.heart, vts, h.isthmuses_missed, h.lesions, f"{h.volume_ml:.2f}", other, len(h.left) or "none", split)
        lines.append(f"| {' | '.join(map(str, cells))} | {'; '.join(h.confirmed.values())} |")
    for h in hearts.values():
        lines += [f"- {h.heart}, missed: {said}" for said in h.missed]
        lines += [f"- {h.heart}, only in the quick plan: {said}" for said in h.extra]
        lines += [f"- {h.heart}, left: {said}" for said in h.left]
    return "\n".join(lines)


def main() -> None:
    """Assess hearts one after the other and print the table."""
    parser = argparse.ArgumentParser(prog="python -m planners.verify_planner", description=__doc__)
    parser.add_argument("results", type=Path, help="JSON lines, appended to")
    parser.add_argument("hearts", nargs="*", default=list(HEARTS), help=f"some of {', '.join(HEARTS)}")
    parser.add_argument("--confirm", action="store_true", help="ask monodomain about the first VT of each heart (minutes each)")
    parser.add_argument("--keep", type=Path, help="folder that keeps the sites of the exhaustive search before the lesions")
    given = parser.parse_args()
    for name in given.hearts:
        if name not in read_results(given.results):
            append_result(given.results, assess(name, confirm=given.confirm, folder=given.keep))
    kept = read_results(given.results)
    print(table(kept))
    print("\n".join(f"{'pass' if r['passed'] else 'FAIL'}  {r['name']:40s} {r['value']:.3g}" for r in records_of(list(kept.values()))))


if __name__ == "__main__":
    main()
