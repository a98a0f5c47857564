"""Makes the monodomain side of the comparison: `python -m solvers.verify.reentry_data [CASE ...]` writes one JSON file per sheet.

A run that was cut off goes on where it was. About 20 s of one core per second of model time at the default spacing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.verify.reentry_cases import (
    BORDER,
    CASES,
    FOLDER,
    FOLLOW_MS,
    HEALTHY,
    SITES,
    Attempt,
    Case,
    attempts,
    electrode,
    probe_nodes,
    read_off,
)
from solvers.verify.reentry_sheet import DT_MS, S1_MS, Lattice, Sheet, tune
from twin.atomic import write_json
from twin.errors import InputError

SPACING_MM = 0.4
QUIET_MS = 150.0
"""Nothing activated for so long: nothing will be. A front that waits for border zone to recover waits 60 ms at most."""


def path_of(case: Case) -> Path:
    """The file of a sheet."""
    return FOLDER / f"reentry_{case.name}.json"


def load(case: Case) -> dict[str, Any]:
    """What was computed. Raises InputError if the file is not there."""
    path = path_of(case)
    if not path.exists():
        raise InputError("reentry", case.name, "has no monodomain data", f"python -m solvers.verify.reentry_data {case.name}")
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def compute(case: Case, lattice: Lattice, spacing_mm: float = SPACING_MM) -> None:
    """Pace the sheet from every site, each train branching from the state before its last stimulus; written after every train.

    Coarse steps of the interval come first, so that a file that was cut off is of use.
    """
    document = load(case) if path_of(case).exists() else _head(case, lattice, spacing_mm)
    mesh = case.mesh(spacing_mm)
    healthy = mesh.in_region("healthy")
    along, across = (np.where(healthy, lattice.d["healthy"][i], lattice.d["border_zone"][i]) for i in (0, 1))
    bench = _Bench(case, Sheet(mesh, along, across), mesh.points_mm[: mesh.n_points // 2], probe_nodes(mesh))
    for step_ms in (20, 10):
        for site in SITES:
            runs = document["runs"].setdefault(site, {})
            for attempt in attempts(step_ms):
                refractory = [int(k.split("-")[-1]) for k, r in runs.items() if not r["captured"] and _head_of(k) == _head_of(attempt.key)]
                if attempt.key in runs or (refractory and attempt.coupling_ms[-1] < max(refractory)):
                    continue
                runs[attempt.key] = bench.pace(site, attempt)
                write_json(path_of(case), document)


def _head_of(key: str) -> str:
    """The train without its last interval."""
    return key.rpartition("-")[0]


@dataclass
class _Bench:
    """A sheet with the states before the scanned stimulus, by site and prefix."""

    case: Case
    sheet: Sheet
    points_mm: NDArray[np.float64]
    probes: NDArray[np.int64]
    states: dict[tuple[str, tuple[int, ...]], Any] = field(default_factory=dict)

    def pace(self, site: str, attempt: Attempt) -> dict[str, Any]:
        """One train: its outcome and the processor time from the last stimulus on."""
        nodes, head = electrode(self.points_mm, site), attempt.coupling_ms[:-1]
        if not self.states:
            self.states["", ()] = self.sheet.snapshot()
        if (site, head) not in self.states:
            self.sheet.restore(self.states["", ()])
            times = [0.0, S1_MS, *(S1_MS + np.cumsum(head))]
            self.sheet.run([(float(t), nodes) for t in times], float(times[-1]) + 200.0)
            self.states[site, head] = self.sheet.snapshot()
        self.sheet.restore(self.states[site, head])
        began = time.process_time()
        log = self.sheet.run([(attempt.last_ms, nodes)], attempt.last_ms + FOLLOW_MS, QUIET_MS)
        out = asdict(read_off(log, self.points_mm, self.probes, site, attempt.last_ms))
        out["cpu_s"] = round(time.process_time() - began, 2)
        print(self.case.name, site, attempt.key, {k: v for k, v in out.items() if k != "probe_ms"}, flush=True)
        return out


def _head(case: Case, lattice: Lattice, spacing_mm: float) -> dict[str, Any]:
    return {
        "made": f"python -m solvers.verify.reentry_data {case.name}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "case": asdict(case),
        "model": "ten Tusscher-Panfilov 2006 epi; border zone: solvers.ionic.restitution.BORDER_ZONE; 60 single-cell beats at 600 ms",
        "scheme": "P1, theta 0.3, two mass products, explicit, gates first, float32; one folded layer of alternating cubes",
        "spacing_mm": spacing_mm,
        "dt_ms": DT_MS,
        "asked_m_s": {"healthy": asdict(HEALTHY), "border_zone": asdict(BORDER)},
        "measured_m_s": {kind: asdict(v) for kind, v in lattice.measured.items()},
        "d_mm2_ms": lattice.d,
        "follow_ms": FOLLOW_MS,
        "runs": {},
    }


def main(names: Iterable[str]) -> None:
    """Compute the named sheets, all if none is named."""
    chosen = [case for case in CASES if case.name in set(names)] or list(CASES)
    lattice = tune({"healthy": HEALTHY, "border_zone": BORDER}, SPACING_MM)
    for case in chosen:
        compute(case, lattice)


if __name__ == "__main__":
    main(sys.argv[1:])
