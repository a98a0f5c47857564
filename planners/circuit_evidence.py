"""What else is asked of each circuit: entrainment, pace-maps, its 12-lead ECG, and which recorded VT it is like."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.sites import conducting_nodes, pacing_sites, site_nodes
from planners.circuits.episode import Episode
from planners.circuits.isthmus import sick_nodes
from planners.circuits.likeness import STEP_MS, cycle_of, ecg_of, match, one_cycle, similarity
from planners.pacing.engine import Progress
from planners.pacing.entrain import Tachycardia
from planners.pacing.induce import PacingSettings, model_of, stimuli_ms, stimulus_sites
from planners.pacing.protocol import Protocol
from solvers.ecg import LeadField
from twin.atomic import read_npz, write_npz
from twin.errors import InputError
from twin.io.ecg import read_ecg
from twin.io.notes import Notes
from twin.mesh import HeartMesh
from twin.model import Twin
from twin.plan import Circuit

ELECTRODE_MM = 2.0
"""Half of a catheter's tip: the wave starts at the electrode's edge, so a wide one in slow tissue would shorten every return."""
SHOWN_CYCLES = 2.0
Array = NDArray[np.float64]


class TachycardiaEcgs:
    """12-lead ECGs of the episodes of one heart; the lead field is computed when the first is asked for."""

    def __init__(self, mesh: HeartMesh) -> None:
        self.mesh = mesh
        self._cycles: dict[int, Array] = {}

    @cached_property
    def field(self) -> LeadField:
        """Lead field of the generic chest."""
        return LeadField(self.mesh)

    def leads(self, episode: Episode, cycles: float = SHOWN_CYCLES) -> Array:
        """The last cycles of an episode, (12, t) mV every STEP_MS."""
        end = float(episode.log.activation_ms.max())
        return ecg_of(self.field, episode.log, end - cycles * episode.cycle_length_ms, end)

    def cycle(self, episode: Episode) -> Array:
        """Its mean cycle for comparisons, (12, SAMPLES)."""
        if id(episode) not in self._cycles:
            leads = self.leads(episode)
            length = min(episode.cycle_length_ms, leads.shape[1] * STEP_MS)
            self._cycles[id(episode)] = one_cycle(leads, 1000.0 / STEP_MS, length)
        return self._cycles[id(episode)]

    def likeness(self, a: Episode, b: Episode) -> float:
        """Mean correlation of the leads of two episodes."""
        return similarity(self.cycle(a), self.cycle(b))


@dataclass(frozen=True)
class CircuitEvidence:
    """by_circuit: circuit id -> what goes into its `evidence`; clinical: one row per recorded VT (`planners.circuits.likeness.match`);
    ecgs: circuit id -> two cycles (12, t) mV every STEP_MS.
    """

    by_circuit: Mapping[str, Mapping[str, Any]]
    clinical: tuple[Mapping[str, Any], ...]
    ecgs: Mapping[str, Array]

    def on(self, circuits: Sequence[Circuit]) -> list[Circuit]:
        """The circuits with their evidence; those that only appeared after lesions have none."""
        return [replace(c, evidence={**c.evidence, **self.by_circuit.get(c.id, {})}) for c in circuits]

    def save(self, folder: Path) -> None:
        """Write `evidence.npz` to a folder, atomically."""
        meta = {"by_circuit": dict(self.by_circuit), "clinical": list(self.clinical)}
        write_npz(folder / "evidence.npz", dict(self.ecgs), meta)

    @staticmethod
    def load(folder: Path) -> CircuitEvidence:
        """Read what `save` wrote."""
        arrays, meta = read_npz(folder / "evidence.npz")
        return CircuitEvidence(meta["by_circuit"], tuple(meta["clinical"]), arrays)


def recorded_vts(clinical: Sequence[Mapping[str, Any]], notes: Notes) -> list[dict[str, Any]]:
    """The case's recorded VTs (name, cycle_length_ms, ecg_path) with their mean cycle (12, SAMPLES), or None without an ECG.

    A cycle length that was not given is read from the ECG. Raises InputError for an ECG that cannot be read, is shorter than its cycle or
    has no regular rhythm; Suspicious as `read_ecg` does.
    """
    out = []
    for vt in clinical:
        row: dict[str, Any] = {"name": vt["name"], "cycle_length_ms": vt["cycle_length_ms"], "cycle": None}
        if vt["ecg_path"] is not None:
            ecg = read_ecg(Path(vt["ecg_path"]), notes)
            try:
                length = cycle_of(ecg.array(), ecg.fs_hz) if row["cycle_length_ms"] is None else row["cycle_length_ms"]
                row |= {"cycle_length_ms": round(length, 1), "cycle": one_cycle(ecg.array(), ecg.fs_hz, length)}
            except ValueError as error:
                problem, remedy = str(error), "record two cycles or more of the tachycardia, or give its cycle_length"
                raise InputError(vt["ecg_path"], "clinical_vt.ecg", problem, remedy) from None
        out.append(row)
    return out


def gather_evidence(
    twin: Twin,
    protocol: Protocol,
    circuits: Sequence[Circuit],
    episodes: Mapping[str, Episode],
    recorded: Sequence[Mapping[str, Any]],
    settings: PacingSettings | None = None,
    *,
    progress: Progress | None = None,
    threads: int = 1,
    stop: threading.Event | None = None,
) -> CircuitEvidence:
    """Entrain every circuit from its isthmus and from a remote place, pace-map it, and compare its ECG with the recorded ones.

    episodes: circuit id -> its first episode; recorded: as `recorded_vts` gives them. The result does not depend on `threads`.
    """
    known = [c for c in circuits if c.id in episodes]
    if not known:
        return CircuitEvidence({}, tuple(match(recorded, {}, {})), {})
    stop = stop or threading.Event()
    model, muscle = model_of(twin, settings or PacingSettings()), _healthy(twin.mesh)
    field = LeadField(twin.mesh)
    rows: dict[str, dict[str, Any]] = {}
    ecgs: dict[str, Array] = {}
    cycles: dict[str, Array] = {}
    for k, circuit in enumerate(known):
        episode = episodes[circuit.id]
        site = stimulus_sites(twin, protocol, [episode.site])[episode.site]
        running = Tachycardia(model, stimuli_ms(protocol, episode), site, episode.cycle_length_ms, field, muscle, stop.is_set)
        rows[circuit.id] = _asked(running, _places(twin.mesh, circuit), threads, stop)
        if running.shape is not None:
            cycles[circuit.id] = running.shape
            ecgs[circuit.id] = ecg_of(field, running.log, running.start_ms - SHOWN_CYCLES * running.cycle_ms, running.start_ms)
        if progress:
            progress(f"entrainment and pace-maps of {circuit.id}", k + 1, len(known))
    lengths = {name: rows[name]["settled_cycle_ms"] for name in cycles}
    return CircuitEvidence(rows, tuple(match(recorded, cycles, lengths)), ecgs)


def _asked(running: Tachycardia, places: Mapping[str, NDArray[np.int32]], threads: int, stop: threading.Event) -> dict[str, Any]:
    """Entrainment at the isthmus and the remote place, pace-maps at all places; each an independent task."""
    if not running.goes_on:
        note = "the tachycardia ended by itself when it was started again"
        return {"settled_cycle_ms": None, "entrainment": [], "pace_map": [], "note": note}
    remote = next(name for name in places if name.startswith("remote"))
    pool = ThreadPoolExecutor(max_workers=max(1, threads))
    try:
        trains = [pool.submit(running.entrain, name, places[name]) for name in ("isthmus", remote)]
        maps = [pool.submit(running.pace_map, name, nodes) for name, nodes in places.items()]
        return {
            "settled_cycle_ms": round(running.cycle_ms, 1),
            "entrainment": [t.result().as_dict() for t in trains],
            "pace_map": [m.result() for m in maps],
            "note": "",
        }
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _healthy(mesh: HeartMesh) -> NDArray[np.int64]:
    """Conducting nodes that touch no surviving tissue of a scar."""
    return np.flatnonzero(conducting_nodes(mesh) & ~sick_nodes(mesh))


def _places(mesh: HeartMesh, circuit: Circuit) -> dict[str, NDArray[np.int32]]:
    """Electrodes at the isthmus (its middle), its entrance and exit, and at the pacing site farthest from the whole circuit."""
    alive = np.flatnonzero(conducting_nodes(mesh))
    tree = cKDTree(mesh.points_mm[alive])
    at = {"isthmus": circuit.centre_mm, "entrance": circuit.entrance_mm, "exit": circuit.exit_mm}
    nodes = {name: int(alive[int(tree.query(np.asarray(place, float))[1])]) for name, place in at.items()}
    sites = pacing_sites(mesh)
    loop = cKDTree(np.concatenate([np.asarray(circuit.path_mm, float), np.asarray(circuit.isthmus_mm, float)]))
    names = sorted(sites)
    remote = names[int(np.argmax(loop.query(mesh.points_mm[[sites[n] for n in names]])[0]))]
    nodes[f"remote, {remote}"] = sites[remote]
    return {name: site_nodes(mesh, node, ELECTRODE_MM) for name, node in nodes.items()}
