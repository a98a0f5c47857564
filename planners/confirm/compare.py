"""The reduced model against monodomain on the demo heart: the same sites and trains by both, pair by pair.

`python -m planners.confirm.compare [SITE ...]` computes the monodomain side, one file per site, and goes on where it was cut off;
`vtwin verify heart` computes the reduced model's side of every pair that is there. Monodomain runs on the muscle within RADIUS_MM of the
scar, into which paced waves come through the cut border (planners.confirm.border); `--whole` runs the whole heart.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.anatomy import complete
from meshing.mesh_labels import mesh_heart
from meshing.sites import pacing_sites, site_nodes
from planners.confirm.bench import Bench, BenchSettings, Outcome, laps_of, times_of
from planners.confirm.border import DRIVE_MS, brought_in
from planners.confirm.part import active_region
from planners.pacing.trace import captured
from solvers.eikonal.reentrant import ReentrantEikonal
from solvers.eikonal.restitution import load_tables
from twin.atomic import write_json
from twin.errors import InputError
from twin.io.labels import read_labels
from twin.model import Twin
from twin.params import Param
from twin.tissue import Tissue, Velocity

DATA = Path(__file__).with_name("data")
CASE = Path(__file__).parents[2] / "cases" / "demo" / "case.toml"
SPEEDS = {
    "healthy": Velocity(0.5926713910757312, 0.2517241594764997),
    "border_zone": Velocity(0.28477041017807636, 0.16273062441912958),
}
"""What `vtwin plan` calibrates on this case (mode, seed 0), m/s."""

SITES = ("rv_apex", "aha01", "aha04", "aha06", "aha10")
TRAINS_MS = ((320.0, 280.0), (320.0, 260.0), (320.0,), (320.0, 240.0), (320.0, 320.0), (360.0,))
"""Intervals after S1, fixed before any was computed: those of protocol `quick` round its S2 and S3; those near a threshold come first."""

ELECTRODE_MM = 4.0
RADIUS_MM = Param(25.0, "mm", 15.0, 40.0, "chosen here: muscle farther from the scar than this is no part of a circuit round it")
FOLLOW_MS, CYCLES = 2000.0, 3
LATTICE = ("nodes", "edge_mm", "dt_ms", "sodium_gain", "speeds_m_s")
"""What the runs of one file have in common."""

SHARE = Param(0.90, "1", 0.0, 1.0, "goal: inducibility equal on at least 90 % of (site, coupling interval) pairs")
CYCLE = Param(0.10, "1", 0.0, 0.1, "goal: cycle lengths within 10 %")
TIMES = Param(100.0, "1", 100.0, 1e5, "goal: 100 times less processor time")


@dataclass(frozen=True)
class Demo:
    """The demo heart at the spacing of its plan, as a twin with SPEEDS; nodes of each site; the reduced model with shipped settings."""

    twin: Twin
    sites: dict[str, NDArray[np.int32]]
    model: ReentrantEikonal

    @staticmethod
    def load() -> Demo:
        """Mesh the case (ten seconds). Raises InputError outside a checkout of vtwin."""
        labels = CASE.with_name("labels.nrrd")
        if not labels.is_file():
            raise InputError(labels, "file", "is not there: the demo case comes with the repository", "run this in a checkout of vtwin")
        mesh = complete(mesh_heart(read_labels(labels), 2.0))
        twin = Twin(mesh, Tissue.known(SPEEDS), np.eye(4))
        known = pacing_sites(mesh)
        sites = {name: site_nodes(mesh, known[name], ELECTRODE_MM) for name in SITES}
        return Demo(twin, sites, ReentrantEikonal(mesh, SPEEDS, load_tables()))

    def near_scar(self) -> NDArray[np.bool_]:
        """Conducting tetrahedra within RADIUS_MM of the scar, (m,)."""
        mesh = self.twin.mesh
        return active_region(mesh, np.zeros((0, 3)), mesh.in_region("scar"), RADIUS_MM.value)


def key_of(train_ms: Sequence[float]) -> str:
    """`320-280`."""
    return "-".join(f"{c:g}" for c in train_ms)


def path_of(site: str, whole: bool = False) -> Path:
    """The file of a site."""
    return DATA / f"heart_{site}{'_whole' if whole else ''}.json"


def compute(demo: Demo, bench: Bench, site: str, whole: bool) -> None:
    """Run every train of a site that its file does not have yet; written after every one. What another lattice gave is not kept."""
    path = path_of(site, whole)
    document = _head(bench, site, whole)
    kept: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if all(kept.get(name) == document[name] for name in LATTICE):
        document = kept
    for train in TRAINS_MS:
        if key_of(train) in document["runs"]:
            continue
        times = times_of(train)
        brought = {} if whole else brought_in(demo.model, bench.part, demo.sites[site], times)
        outcome = bench.train(demo.sites[site], times, brought)
        document["runs"][key_of(train)] = _row(outcome)
        write_json(path, document)
        print(time.strftime("%H:%M:%S"), site, key_of(train), document["runs"][key_of(train)], flush=True)


def _row(o: Outcome) -> dict[str, Any]:
    cycle = None if o.cycle_length_ms is None else round(o.cycle_length_ms, 1)
    return {"ended": o.ended, "lasted_ms": o.lasted_ms, "laps": o.laps, "cycle_ms": cycle, "cpu_s": o.cpu_s, "model_ms": o.model_ms}


def _head(bench: Bench, site: str, whole: bool) -> dict[str, Any]:
    return {
        "made": f"python -m planners.confirm.compare {site}{' --whole' if whole else ''}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "part": "whole heart" if whole else f"muscle within {RADIUS_MM.value:g} mm of the scar, paced waves brought in at the cut",
        "nodes": len(bench.solver.nodes),
        "edge_mm": round(bench.solver.mean_edge_mm, 3),
        "dt_ms": bench.solver.dt_ms,
        "sodium_gain": bench.report["sodium_gain"],
        "predicted_error": round(bench.report["predicted_error"], 4),
        "speeds_m_s": {k: [v.longitudinal_m_s, v.transverse_m_s] for k, v in SPEEDS.items()},
        "runs": {},
    }


@dataclass(frozen=True)
class Pair:
    """One (site, train) by both; the rows have ended, lasted_ms, laps, cycle_ms and cpu_s."""

    site: str
    train: str
    monodomain: dict[str, Any]
    reduced: dict[str, Any]

    @property
    def agree(self) -> bool:
        """Both sustain reentry or neither does."""
        return bool((self.monodomain["ended"] == "sustained") == (self.reduced["ended"] == "sustained"))

    @property
    def cycle_error(self) -> float:
        """Relative difference of the cycle lengths, NaN unless both sustain."""
        if not (self.agree and self.reduced["ended"] == "sustained"):
            return float("nan")
        return float(self.reduced["cycle_ms"] / self.monodomain["cycle_ms"] - 1.0)

    def line(self) -> str:
        """For the printed table."""
        answers = []
        for o in (self.monodomain, self.reduced):
            answers.append(f"reentry, {o['cycle_ms']:.0f} ms" if o["ended"] == "sustained" else f"{o['ended']}, {o['lasted_ms']:.0f} ms")
        return f"{self.site:10s} {self.train:9s} {answers[0]:22s} {answers[1]:22s} {'' if self.agree else 'DISAGREE'}"


def reduced(demo: Demo, site: str, train_ms: Sequence[float]) -> dict[str, Any]:
    """The same train by the reduced model on the whole heart, judged as the monodomain run is."""
    times = times_of(train_ms)
    nodes = demo.sites[site]
    state, _ = demo.model.run(demo.model.rest(), [(t, nodes) for t in (-DRIVE_MS, *times[:-1])], times[-1] - 1e-3)
    began = time.process_time()
    _, log = demo.model.run(state, [(times[-1], nodes)], times[-1] + FOLLOW_MS)
    spent = time.process_time() - began
    a = log.activations
    laps, cycle = laps_of(a, times[-1])
    lasted = max(0.0, float(a.activation_ms.max(initial=times[-1])) - times[-1])
    ended = "sustained" if laps >= CYCLES else "no capture" if not captured(a, times[-1]) else "quiet" if log.quiet else "time"
    return {"ended": ended, "lasted_ms": round(lasted, 1), "laps": laps, "cycle_ms": cycle, "cpu_s": round(spent, 3)}


def pairs(demo: Demo, whole: bool = False) -> Iterator[Pair]:
    """Every pair whose monodomain side is there."""
    for site in SITES:
        path = path_of(site, whole)
        known = json.loads(path.read_text("utf-8"))["runs"] if path.exists() else {}
        for train in TRAINS_MS:
            if key_of(train) in known:
                yield Pair(site, key_of(train), known[key_of(train)], reduced(demo, site, train))


def checks(fast: bool = True) -> list[dict[str, Any]]:
    """Records of `vtwin verify heart --slow`: agreement, cycle lengths and time ratio over the pairs whose monodomain side is kept."""
    if fast:
        return []
    found = list(pairs(Demo.load()))
    if not found:
        raise InputError("heart", "pairs", "no monodomain run is kept", "python -m planners.confirm.compare (hours)")
    share = float(np.mean([p.agree for p in found]))
    errors = [abs(p.cycle_error) for p in found if not np.isnan(p.cycle_error)]
    ratio = sum(p.monodomain["cpu_s"] for p in found) / sum(p.reduced["cpu_s"] for p in found)
    rows = [
        ("heart/agreement", share, 1.0, 1.0 - SHARE.value, SHARE.source, share >= SHARE.value),
        ("heart/cpu_ratio", ratio, TIMES.value, 0.0, TIMES.source, ratio >= TIMES.value),
    ]
    # where no pair sustains in both, nothing shows that the goal is met
    worst = max(errors, default=float("nan"))
    rows.append(("heart/cycle_length", worst, 0.0, CYCLE.value, CYCLE.source, worst <= CYCLE.value))
    names = ("name", "value", "reference", "tolerance", "source", "passed")
    return [{**dict(zip(names, row, strict=True)), "unit": "1"} for row in rows]


def main(arguments: Sequence[str]) -> None:
    """Compute the named sites, all if none is named; `--pairs` prints the table of what is there."""
    demo, whole = Demo.load(), "--whole" in arguments
    if "--pairs" in arguments:
        found = list(pairs(demo, whole))
        print("\n".join(p.line() for p in found))
        print(f"{sum(p.agree for p in found)} of {len(found)} pairs agree")
        return
    keep = demo.twin.mesh.conducting() if whole else demo.near_scar()
    bench = Bench(demo.twin, keep, BenchSettings(cycles=CYCLES, follow_ms=FOLLOW_MS), tell=lambda line: print(line, flush=True))
    for site in [a for a in arguments if a in SITES] or SITES:
        compute(demo, bench, site, whole)


if __name__ == "__main__":
    main(sys.argv[1:])
