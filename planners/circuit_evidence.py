"""What else is asked of each circuit: virtual entrainment, its 12-lead ECG, doubles, likeness to recorded VTs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.electrodes import electrodes
from meshing.sites import conducting_nodes, site_nodes
from planners.circuits.episode import Episode
from planners.circuits.isthmus import sick_nodes
from planners.circuits.likeness import SAMPLES, cycle_of, doubles, ecg_of, match, one_cycle
from planners.pacing.engine import Progress
from planners.pacing.entrain import Tachycardia, entrain
from planners.pacing.induce import PacingSettings, model_of, stimulus_sites
from planners.pacing.protocol import Protocol
from solvers.ecg import LeadField
from twin.atomic import read_npz, write_npz
from twin.errors import InputError
from twin.io.ecg import read_ecg
from twin.io.notes import Notes
from twin.model import Twin
from twin.plan import Circuit

ELECTRODE_MM = 4.0
ECG_CYCLES = 2.0
COMPARED = 400
"""Nodes of healthy muscle whose activation is compared, spread evenly over the heart's node numbers."""


@dataclass(frozen=True)
class Evidence:
    """by_circuit: circuit id -> what goes into its `evidence`; clinical: one row per recorded VT; cycles: ECG of one cycle (12, k)."""

    by_circuit: Mapping[str, Mapping[str, Any]]
    clinical: tuple[Mapping[str, Any], ...]
    cycles: Mapping[str, NDArray[np.float64]]

    def on(self, circuits: Sequence[Circuit]) -> list[Circuit]:
        """The circuits with their evidence."""
        return [replace(c, evidence={**c.evidence, **self.by_circuit.get(c.id, {})}) for c in circuits]

    def save(self, folder: Path) -> None:
        """Write `evidence.npz` to a folder, atomically."""
        meta = {"by_circuit": dict(self.by_circuit), "clinical": list(self.clinical)}
        write_npz(folder / "evidence.npz", dict(self.cycles), meta)

    @staticmethod
    def load(folder: Path) -> Evidence:
        """Read what `save` wrote."""
        arrays, meta = read_npz(folder / "evidence.npz")
        return Evidence(meta["by_circuit"], tuple(meta["clinical"]), arrays)


def gather_evidence(
    twin: Twin,
    protocol: Protocol,
    circuits: Sequence[Circuit],
    episodes: Mapping[str, Episode],
    clinical: Sequence[Mapping[str, Any]],
    settings: PacingSettings | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Entrain every circuit from its isthmus and from where it was induced, and compare its ECG with the others and the recorded ones.

    episodes: circuit id -> its first episode; clinical: recorded VTs of the case (name, cycle_length_ms, ecg_path).
    Raises InputError for a recorded ECG that cannot be read or is shorter than its cycle.
    """
    settings = settings or PacingSettings()
    recorded = [_recorded(vt) for vt in clinical]
    known = [c for c in circuits if c.id in episodes]
    if not known:
        return Evidence({}, tuple(match(recorded, {}, {})), {})
    mesh = twin.mesh
    field = LeadField(mesh, electrodes(mesh))
    cycles = {}
    for c in known:
        _, leads = ecg_of(field, mesh.n_points, episodes[c.id], ECG_CYCLES)
        cycles[c.id] = one_cycle(leads, 500.0, min(episodes[c.id].cycle_length_ms, leads.shape[1] * 2.0))
    lengths = {c.id: c.cycle_length_ms for c in known}
    same = doubles(cycles, lengths)
    muscle = np.flatnonzero(conducting_nodes(mesh) & ~sick_nodes(mesh))
    healthy = muscle[:: max(1, len(muscle) // COMPARED)]
    tree = cKDTree(mesh.points_mm[muscle])
    model = model_of(twin, settings)
    rows = {}
    for k, circuit in enumerate(known):
        episode = episodes[circuit.id]
        site = stimulus_sites(twin, protocol, [episode.site])[episode.site]
        places = {"isthmus": _nodes(twin, circuit.centre_mm), "entrance": _nodes(twin, circuit.entrance_mm), episode.site: site}
        exit_node = int(muscle[int(tree.query(np.asarray(circuit.exit_mm, float))[1])])
        running = Tachycardia(model, protocol, episode, site, exit_node, healthy)
        found = [e.as_dict() for e in entrain(running, places)]
        rows[circuit.id] = {"entrainment": found, "same_ecg_as": same[circuit.id]}
        if progress:
            progress(f"entrainment of {circuit.id}", k + 1, len(known))
    return Evidence(rows, tuple(match(recorded, cycles, lengths)), cycles)


def _nodes(twin: Twin, place_mm: Sequence[float]) -> NDArray[np.int32]:
    """Electrode at the conducting node nearest to a place."""
    alive = np.flatnonzero(conducting_nodes(twin.mesh))
    nearest = int(alive[int(cKDTree(twin.mesh.points_mm[alive]).query(np.asarray(place_mm, float))[1])])
    return site_nodes(twin.mesh, nearest, ELECTRODE_MM)


def _recorded(vt: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded VT with its mean cycle (12, SAMPLES), its cycle length from the ECG where none was given."""
    cycle_ms = vt["cycle_length_ms"]
    if vt["ecg_path"] is None:
        return {"name": vt["name"], "cycle_length_ms": cycle_ms, "cycle": None}
    ecg = read_ecg(Path(vt["ecg_path"]), Notes(()), False)
    leads = np.asarray(ecg.array(), float)
    leads = leads if leads.shape[0] == 12 else leads.T
    try:
        cycle_ms = cycle_of(leads, ecg.fs_hz) if cycle_ms is None else cycle_ms
        cycle = one_cycle(leads, ecg.fs_hz, cycle_ms)
    except ValueError as error:
        raise InputError(vt["ecg_path"], "ecg", str(error), "record two cycles or more") from None
    assert cycle.shape == (12, SAMPLES)
    return {"name": vt["name"], "cycle_length_ms": round(cycle_ms, 1), "cycle": cycle}
