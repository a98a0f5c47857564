"""Sheets with a scar and an isthmus on which re-entry is asked for, by either solver: geometry, sites, pacing, and what is read off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.eikonal.restitution import RestitutionTable, tables_from
from solvers.verify.reentry_sheet import S1_MS, sheet_mesh
from twin.experiment import Activations
from twin.mesh import HeartMesh
from twin.params import Param
from twin.tissue import Velocity

_SHEET = "the infarct sheet of medunigraz/PIE-Model-Experiments"
SIZE_MM = Param(100.0, "mm", 80.0, 120.0, _SHEET)
SCAR_RADIUS_MM = Param(37.5, "mm", 30.0, 40.0, _SHEET)
HEALTHY = Velocity(0.85, 0.47)
"""As that sheet's own, m/s."""
BORDER = Velocity(0.45, 0.20)
"""Chosen here: half the healthy velocity, the ratio of the demo patient, m/s."""
STIMULUS_MM = 3.0
SITES = {"mouth": (50.0, 0.0), "corner": (12.0, 12.0)}
"""Centre of the electrode on the sheet, mm: before the isthmus, and oblique to it."""
S2_MS = tuple(range(400, 290, -10))
S3_AFTER_MS = 350
S3_MS = tuple(range(340, 210, -10))
FOLLOW_MS = 1300.0
"""Re-entry that still runs this long after the last stimulus is called sustained: three laps or more."""


FOLDER = Path(__file__).with_name("data")
TABLES = FOLDER / "reentry_tables.json"


def sheet_tables() -> dict[str, RestitutionTable]:
    """Restitution of the sheets' cells: measured as the shipped tables, but after as many beats as these cells had (border zone drifts)."""
    return tables_from(json.loads(TABLES.read_text("utf-8")), TABLES.name)


@dataclass(frozen=True)
class Case:
    """A sheet: width of its isthmus and of the ring of border zone round its scar (0: none), mm."""

    isthmus_mm: float
    ring_mm: float

    @property
    def name(self) -> str:
        """`isthmus5_ring2.5`."""
        return f"isthmus{self.isthmus_mm:g}_ring{self.ring_mm:g}"

    def mesh(self, spacing_mm: float) -> HeartMesh:
        """The sheet as one layer of cubes, fibres and isthmus along y."""
        mesh = sheet_mesh((SIZE_MM.value, SIZE_MM.value), spacing_mm)
        x, y = (mesh.centroids_mm - 0.5 * SIZE_MM.value).T[:2]
        r, inside = np.hypot(x, y), abs(x) < 0.5 * self.isthmus_mm
        mesh = mesh.with_region((r < SCAR_RADIUS_MM.value + self.ring_mm) & (self.ring_mm > 0), "border_zone")
        mesh = mesh.with_region(r < SCAR_RADIUS_MM.value, "scar")
        return mesh.with_region((r < SCAR_RADIUS_MM.value) & inside, "isthmus")


CASES = (Case(5.0, 0.0), Case(5.0, 2.5), Case(10.0, 0.0), Case(10.0, 2.5))


def electrode(points_mm: NDArray[np.float64], site: str) -> NDArray[np.int64]:
    """Nodes under the electrode."""
    return np.flatnonzero(np.hypot(*(points_mm[:, :2] - SITES[site]).T) <= STIMULUS_MM)


def probes_mm() -> NDArray[np.float64]:
    """Places whose activations are kept, (k, 2) mm: along the isthmus, then round the scar."""
    along = np.array([[50.0, y] for y in (14.0, 26.0, 38.0, 50.0, 62.0, 74.0, 86.0)])
    turn = np.linspace(0.0, 2 * np.pi, 12, endpoint=False) + np.pi / 12
    return np.concatenate([along, 50.0 + 44.0 * np.stack([np.cos(turn), np.sin(turn)], axis=1)])


def probe_nodes(mesh: HeartMesh) -> NDArray[np.int64]:
    """The conducting node of the lower face nearest to each probe."""
    used = np.unique(mesh.tets[mesh.conducting()])
    used = used[mesh.points_mm[used, 2] < 1e-9]
    distance = np.linalg.norm(mesh.points_mm[used, None, :2] - probes_mm(), axis=2)
    return used[np.argmin(distance, axis=0)]


@dataclass(frozen=True)
class Attempt:
    """One train: its intervals after S1 (the last is the one scanned), and the time of the last stimulus."""

    coupling_ms: tuple[int, ...]

    @property
    def last_ms(self) -> float:
        """Time of the last stimulus."""
        return S1_MS + sum(self.coupling_ms)

    @property
    def key(self) -> str:
        """`350-240`."""
        return "-".join(map(str, self.coupling_ms))


def attempts(step_ms: int = 10) -> Iterator[Attempt]:
    """S2 scanned downward, then S3 after a fixed S2; a step of 20 ms takes every other one."""
    for s2 in S2_MS[:: step_ms // 10]:
        yield Attempt((s2,))
    for s3 in S3_MS[:: step_ms // 10]:
        yield Attempt((S3_AFTER_MS, s3))


@dataclass(frozen=True)
class Outcome:
    """What one train gave. cycle_ms: median of the last intervals at the probes (None unless sustained); beats: most activations of
    any probe after the last stimulus; lasted_ms: last activation after the last stimulus; probe_ms: activations by probe, from S1 on.
    """

    captured: bool
    sustained: bool
    cycle_ms: float | None
    beats: int
    lasted_ms: float
    probe_ms: tuple[tuple[float, ...], ...]


def read_off(log: Activations, points_mm: NDArray[np.float64], probes: NDArray[np.int64], site: str, at_ms: float) -> Outcome:
    """Outcome of a run that was followed for FOLLOW_MS after the stimulus at `at_ms` (or until it was quiet)."""
    far = np.hypot(*(points_mm[log.node, :2] - SITES[site]).T)
    near = (far > STIMULUS_MM + 2.0) & (far < STIMULUS_MM + 4.0)
    captured = bool((near & (log.activation_ms > at_ms) & (log.activation_ms < at_ms + 60.0)).any())
    times = [log.activation_ms[log.node == node] for node in probes]
    after = [t[t > at_ms] for t in times]
    lasted = max(0.0, float(log.activation_ms.max(initial=at_ms)) - at_ms)
    sustained = captured and lasted > FOLLOW_MS - 250.0
    laps = [t[-1] - t[-2] for t in after if len(t) > 2]
    cycle = float(np.median(laps)) if sustained and laps else None
    kept = tuple(tuple(round(float(x), 1) for x in t[t > S1_MS - 1.0]) for t in times)
    return Outcome(captured, sustained, cycle, max((len(t) for t in after), default=0), lasted, kept)
