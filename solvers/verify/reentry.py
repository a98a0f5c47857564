"""Re-entry in the re-excitable eikonal against monodomain: the same sheets, sites and trains, pair by pair.

`python -m solvers.verify.reentry` prints every pair, the disagreements, and agreement over the settings that were tried. The sheets
with the narrow isthmus fixed the settings; those with the wide one were held out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from solvers.eikonal.reentrant import ReentrantEikonal, Settings
from solvers.verify.reentry_cases import CASES, FOLLOW_MS, SITES, Case, Outcome, attempts, electrode, probe_nodes, read_off, sheet_tables
from solvers.verify.reentry_data import load
from solvers.verify.reentry_sheet import S1_MS
from twin.check_record import checked
from twin.params import Param
from twin.tissue import Velocity

FITTED, HELD_OUT = CASES[:2], CASES[2:]
SPACINGS_MM = (1.0, 2.0)
WAITS_MS = (0.0, 2.0, 4.0, 5.0, 6.0, 8.0, 20.0)
SHARE = Param(0.90, "1", 0.0, 1.0, "goal: inducibility equal on at least 90 % of (site, coupling interval) pairs")
CYCLE = Param(0.10, "1", 0.0, 0.1, "goal: cycle lengths within 10 %")
TIMES = Param(100.0, "1", 100.0, 1e5, "goal: 100 times less processor time")


@dataclass(frozen=True)
class Pair:
    """One (site, train) by both solvers; cpu_s: of the eikonal from the last stimulus on."""

    case: Case
    site: str
    coupling_ms: tuple[int, ...]
    monodomain: dict[str, Any]
    eikonal: Outcome
    cpu_s: float

    @property
    def agree(self) -> bool:
        """Both sustain re-entry or neither does."""
        return bool(self.monodomain["sustained"]) == self.eikonal.sustained

    @property
    def cycle_error(self) -> float:
        """Relative difference of the cycle lengths, NaN unless both sustain."""
        if not (self.agree and self.eikonal.sustained and self.eikonal.cycle_ms):
            return float("nan")
        return self.eikonal.cycle_ms / float(self.monodomain["cycle_ms"]) - 1.0

    def line(self) -> str:
        """For the printed table."""
        answers = []
        for o in (self.monodomain, self.eikonal.__dict__):
            reentry = f"re-entry, cycle {o['cycle_ms']:.0f} ms" if o["sustained"] else f"ends at {o['lasted_ms']:.0f} ms"
            answers.append(reentry if o["captured"] else "no capture")
        train = "-".join(map(str, self.coupling_ms))
        return f"{self.case.name:18s} {self.site:7s} {train:8s} {answers[0]:26s} {answers[1]:26s} {'' if self.agree else 'DISAGREE'}"


def pairs(case: Case, settings: Settings | None = None, spacing_mm: float = SPACINGS_MM[0]) -> Iterator[Pair]:
    """Every train that the monodomain file of a sheet has, also by the eikonal, on the same sheet at its own spacing."""
    document = load(case)
    mesh = case.mesh(spacing_mm)
    speeds = {kind: Velocity(**v) for kind, v in document["measured_m_s"].items()}
    model = ReentrantEikonal(mesh, speeds, sheet_tables(), settings)
    half = mesh.n_points // 2
    points, probes = mesh.points_mm[:half], probe_nodes(mesh)
    for site in SITES:
        lower = electrode(points, site)
        nodes = np.concatenate([lower, lower + half])
        for attempt in attempts():
            known = document["runs"].get(site, {}).get(attempt.key)
            if known is None:
                continue
            times = [0.0, S1_MS, *(S1_MS + np.cumsum(attempt.coupling_ms))]
            state, _ = model.run(model.rest(), [(float(t), nodes) for t in times[:-1]], float(times[-2]) + 200.0)
            began = time.process_time()
            _, log = model.run(state, [(attempt.last_ms, nodes)], attempt.last_ms + FOLLOW_MS)
            spent = time.process_time() - began
            outcome = read_off(log.activations, mesh.points_mm, probes, site, attempt.last_ms)
            yield Pair(case, site, attempt.coupling_ms, known, outcome, spent)


def all_pairs(cases: Iterable[Case], settings: Settings | None = None, spacing_mm: float = SPACINGS_MM[0]) -> list[Pair]:
    """Those of several sheets."""
    return [pair for case in cases for pair in pairs(case, settings, spacing_mm)]


def checks() -> list[dict[str, Any]]:
    """Records of `vtwin verify reentry`: agreement, cycle lengths and time ratio, for fitted and held-out sheets, at two spacings."""
    records = []
    for name, cases in (("fitted", FITTED), ("held_out", HELD_OUT)):
        for spacing in SPACINGS_MM:
            found = all_pairs(cases, spacing_mm=spacing)
            share = float(np.mean([p.agree for p in found]))
            records.append(_record(f"reentry/{name}/dx{spacing:g}/agreement", share, 1.0, 1.0 - SHARE.value, SHARE.source))
            errors = [abs(p.cycle_error) for p in found if not np.isnan(p.cycle_error)]
            records.append(_record(f"reentry/{name}/dx{spacing:g}/cycle_length", max(errors, default=0.0), 0.0, CYCLE.value, CYCLE.source))
            ratio = sum(p.monodomain["cpu_s"] for p in found) / sum(p.cpu_s for p in found)
            record = _record(f"reentry/{name}/dx{spacing:g}/cpu_ratio", ratio, TIMES.value, 0.0, TIMES.source)
            records.append(record | {"passed": ratio >= TIMES.value})
    return records


def _record(name: str, value: float, reference: float, tolerance: float, source: str) -> dict[str, Any]:
    return checked(name, value, "1", reference, tolerance, source)


def main() -> None:
    """Print the pairs at the default settings, then agreement over the waits that were tried (about ten minutes of one core)."""
    for spacing in SPACINGS_MM:
        found = all_pairs(CASES, spacing_mm=spacing)
        print(f"spacing {spacing:g} mm: {sum(p.agree for p in found)} of {len(found)} pairs agree", flush=True)
        print("\n".join(p.line() for p in found), flush=True)
    for wait in WAITS_MS:
        for spacing in SPACINGS_MM:
            found = all_pairs(FITTED, Settings(wait_ms=wait), spacing)
            print(f"fit: wait {wait:g} ms, spacing {spacing:g} mm: {sum(p.agree for p in found)} of {len(found)}", flush=True)


if __name__ == "__main__":
    main()
