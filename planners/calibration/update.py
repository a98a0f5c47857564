"""New points or a new ECG go into a finished calibration within a second or two, without starting over."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from planners.calibration.line import at_points
from planners.calibration.noun import Calibration
from planners.calibration.sensitivity import cycle_row, ecg_rows, qrs_row
from solvers.ecg import LeadField
from solvers.eikonal.forward import EikonalForward
from twin.calibrate.gaussian import Gaussian
from twin.calibrate.velocity import LAT_NOISE, as_velocities, lay_on_nodes
from twin.errors import InputError
from twin.mesh import SURFACES
from twin.params import Param
from twin.patient import Ecg
from twin.tissue import Tissue

Array = NDArray[np.float64]

REACH_MM = 6.0
NEIGHBOURS = Param(0.3, "1", 0.1, 0.6, "correlation of the errors of points within 15 mm of each other (ours; design effect of a cluster)")
QRS_NOISE = Param(8.0, "ms", 4.0, 12.0, "reading QRS duration, and what the model's end of activation differs from the ECG's (ours)")
CYCLE_NOISE = Param(0.10, "1", 0.05, 0.2, "relative error of a circuit's length and of constant velocity at that rate (ours)")
ROUNDS = 2


@dataclass(frozen=True)
class NewEvidence:
    """What was recorded since: anything may be empty or None.

    points_mm (n, 3) in the mapping system's frame (or the mesh's with in_mesh_frame) with lat_ms (n,) on the old map's reference (NaN: not
    annotated) and noise_ms (n,) or empty; ecg of the mapped rhythm; qrs_duration_ms of it; VT of cycle_length_ms round loop_mm (k, 3), a
    closed path in mesh space such as `Circuit.path_mm`.
    """

    points_mm: Array = field(default_factory=lambda: np.zeros((0, 3)))
    lat_ms: Array = field(default_factory=lambda: np.zeros(0))
    noise_ms: Array = field(default_factory=lambda: np.zeros(0))
    bipolar_mv: Array = field(default_factory=lambda: np.zeros(0))
    ecg: Ecg | None = None
    qrs_duration_ms: float | None = None
    cycle_length_ms: float | None = None
    loop_mm: Array = field(default_factory=lambda: np.zeros((0, 3)))
    in_mesh_frame: bool = False


def update(calibration: Calibration, new: NewEvidence, leads: LeadField | None = None, seed: int = 0) -> Calibration:
    """The calibration after new evidence: belief conditioned on it (two Gauss-Newton rounds), samples, arrival and residuals made anew.

    Sites stay where they are; velocities and times move. At most 2 s of one core on a mesh of 43,000 nodes (tests/test_calibration.py).
    leads: built from the mesh if None and an ECG is given. Raises InputError for shapes that disagree and points that lie nowhere near.
    """
    mesh, tissue = calibration.twin.mesh, calibration.twin.tissue
    points = _checked(calibration, new)
    forward = EikonalForward(mesh)
    prior = belief = calibration.belief
    if not len(prior.names):
        raise InputError("calibration", "belief", "is empty: it was made by an older version", "calibrate again")
    p = len(tissue.names)
    if new.ecg is not None and leads is None:
        leads = LeadField(mesh, dict(new.ecg.electrodes_mm) or None)
    for _ in range(ROUNDS):
        velocities, times = as_velocities(tissue.names, belief.mean[:p]), belief.mean[p:]
        solved = forward.sensitivity(velocities, tissue.source_nodes, times)
        columns = np.zeros((mesh.n_points, len(prior.names)))
        for k, name in enumerate(tissue.names):
            columns[:, k] = solved.by_name[name]
        reached = np.flatnonzero(solved.origin >= 0)
        columns[reached, p + solved.origin[reached]] = 1.0
        arrival = solved.arrival_ms + calibration.offset_ms
        parts = [_lat_rows(calibration, new, points, arrival, columns)]
        if new.ecg is not None and leads is not None:
            parts.append(ecg_rows(leads, arrival, columns, new.ecg))
        if new.qrs_duration_ms is not None:
            parts.append(qrs_row(arrival, columns, new.qrs_duration_ms, QRS_NOISE.value))
        if new.cycle_length_ms is not None:
            parts.append(cycle_row(mesh, velocities, tissue.names, len(prior.names), new.loop_mm, new.cycle_length_ms, CYCLE_NOISE.value))
        jacobian, residual, weight = (np.concatenate([part[i] for part in parts]) for i in range(3))
        # the prior stays the old belief in every round; only the point of linearisation moves
        belief = prior.given(jacobian, residual + np.einsum("kq,q->k", jacobian, belief.mean - prior.mean), weight)
    return _made_anew(calibration, new, points, forward, belief, seed)


def _checked(calibration: Calibration, new: NewEvidence) -> Array:
    """Points in mesh space."""
    if new.points_mm.shape != (len(new.lat_ms), 3) or (len(new.noise_ms) not in (0, len(new.lat_ms))):
        raise InputError("new evidence", "points_mm", "does not match lat_ms or noise_ms", "give one time per point")
    if not np.isfinite(new.points_mm).all():
        raise InputError("new evidence", "points_mm", "is not finite", "leave points without position out")
    if new.cycle_length_ms is not None and len(new.loop_mm) < 3:
        raise InputError("new evidence", "loop_mm", "is missing", "give the circuit that the cycle length belongs to")
    pose = calibration.twin.map_to_mesh
    return new.points_mm if new.in_mesh_frame else np.einsum("nj,ij->ni", new.points_mm, pose[:3, :3]) + pose[:3, 3]


def _lat_rows(calibration: Calibration, new: NewEvidence, points: Array, arrival: Array, columns: Array) -> tuple[Array, Array, Array]:
    mesh = calibration.twin.mesh
    if not np.isfinite(new.lat_ms).any():
        return np.zeros((0, columns.shape[1])), np.zeros(0), np.zeros(0)
    surface = np.unique(np.concatenate([mesh.surfaces[name].ravel() for name in SURFACES if name != "base"])).astype(np.int32)
    nodes = surface[np.isfinite(arrival[surface])]
    noise = new.noise_ms if len(new.noise_ms) else None
    data = lay_on_nodes(points, new.lat_ms, nodes, mesh.points_mm, REACH_MM, noise_ms=noise)
    if not len(data.node):
        raise InputError("new evidence", "points_mm", f"no point lies within {REACH_MM:g} mm of the heart", "check frame and unit")
    fitted: object = calibration.twin.tissue.fit.get("lat_noise_ms", LAT_NOISE.value)
    sd = max(float(fitted) if isinstance(fitted, (int, float)) else LAT_NOISE.value, LAT_NOISE.value) * data.share()
    residual = data.lat_ms - arrival[data.node]
    crowd = np.bincount(data.block)[data.block]
    weight = 5.0 / (4.0 + (residual / sd) ** 2) / sd**2 / (1.0 + NEIGHBOURS.value * (crowd - 1.0))
    return columns[data.node], residual, weight


def _made_anew(
    calibration: Calibration, new: NewEvidence, points: Array, forward: EikonalForward, belief: Gaussian, seed: int
) -> Calibration:
    """Samples, arrival and map of the new belief."""
    mesh, old = calibration.twin.mesh, calibration.twin.tissue
    p = len(old.names)
    draws = belief.draw(len(old.samples), np.random.default_rng([seed, 2]))[:, :p]
    for column in range(0, p, 2):
        draws[:, column + 1] = np.minimum(draws[:, column + 1], draws[:, column])
    samples, times = np.exp(draws), belief.mean[p:]
    numbers = {**old.fit, "updates": int(str(old.fit.get("updates", 0))) + 1, "new_points": len(new.lat_ms)}
    tissue: Tissue = replace(old, samples=samples, source_times_ms=times, fit=numbers)
    arrival = forward.arrival_ms(tissue.velocities(), tissue.source_nodes, times) + calibration.offset_ms
    lat = np.concatenate([calibration.map_lat_ms, new.lat_ms])
    bipolar = new.bipolar_mv if len(new.bipolar_mv) == len(new.lat_ms) else np.full(len(new.lat_ms), np.nan)
    where = np.concatenate([calibration.map_points_mm, points])
    unknowns = {**calibration.unknowns}
    for column, name in enumerate(old.names):
        low, high = tissue.interval(name)
        row = unknowns.get(name, {})
        unknowns[name] = {**row, "mode": round(float(samples[0, column]), 4), "interval_95": [round(low, 4), round(high, 4)]}
    return replace(
        calibration,
        twin=replace(calibration.twin, tissue=tissue),
        arrival_ms=arrival,
        map_points_mm=where,
        map_lat_ms=lat,
        map_bipolar_mv=np.concatenate([calibration.map_bipolar_mv, bipolar]),
        map_predicted_ms=at_points(mesh, arrival, where) if len(where) else np.zeros(0),
        belief=belief,
        unknowns=unknowns,
    )
