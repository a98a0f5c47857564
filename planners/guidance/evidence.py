"""New map points and a new VT's ECG taken into the plan's twin: pose, tissue and which circuit the VT is, as a pure function of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from planners.calibration.update import NewEvidence, update
from planners.circuit_evidence import TachycardiaEcgs
from planners.circuits import likeness
from planners.guidance.base import Base
from planners.guidance.inputs import Events, NewPoints
from twin.calibrate.thresholds import SCAR_MV
from twin.io.notes import Notes
from twin.mesh import WALLS, HeartMesh
from twin.patient import Ecg

Array = NDArray[np.float64]

SAME_POINT_MM = 0.05
"""Points of an export that comes again differ by the rounding of the file alone."""

SHIFT_SD_MM, TURN_SD = 6.0, 0.08
"""How far a map may have moved since it was registered: prior widths of shift (mm) and turn (radians), chosen here."""

WALL_SD_MM = 2.5
"""How far points lie off a wall that is where it should be: breathing, pressure, the wall's own error (chosen here)."""

PER_POINT = 0.25
"""Points of one wall share their errors: four count as one (chosen here)."""

MOVED_MM, NEARER_MM = 2.0, 0.5
"""Less motion than this on average, or a median distance that falls by less, is left alone: it is what points scatter by."""

ENOUGH_POINTS, ENOUGH_MM = 12, 30.0
"""Fewer points, or all within this distance, cannot tell a motion of the map from a place of the wall (chosen here)."""

DOUBTFUL_MM, FAR_MM = 10.0, 20.0
"""Median distance from the walls from which a warning is given, and from which points are those of another heart (chosen here)."""

LOWER_SHARE = 0.2
"""Share of new points of low voltage on healthy tissue from which the scar is doubted (chosen here)."""


@dataclass(frozen=True)
class Taken:
    """The base with what was learnt; `correction` (4, 4) moves mesh space, for points and lesions recorded since `since_s`."""

    base: Base
    state: dict[str, Any] = field(default_factory=dict)
    correction: Array = field(default_factory=lambda: np.eye(4))
    since_s: float = float("nan")


def take_in(base: Base, events: Events, notes: Notes) -> Taken:
    """Twin, pose and VT after new points and a new VT's ECG; `base` itself if neither is given.

    Sites of breakthrough and circuits stay those of the plan. Raises InputError, and Suspicious (`far_points`) for points of another heart.
    """
    if events.points is None and events.vt is None:
        return Taken(base)
    if base.calibration is None:
        notes.add("this plan keeps no calibration: new points and the new VT are noted, the tissue stays")
        return Taken(base)
    state: dict[str, Any] = {}
    correction, since = np.eye(4), float("nan")
    new = NewEvidence(in_mesh_frame=True)
    if events.points is not None:
        fresh, places = _fresh(base, events.points, notes)
        correction, state["registration"] = _moved(base.twin.mesh, places)
        if state["registration"]["moved"]:
            places = places @ correction[:3, :3].T + correction[:3, 3]
            times = events.points.time_s[np.isfinite(events.points.time_s)]
            since = float(times.min()) if len(times) else float("nan")
            state["registration"]["since_s"] = since if len(times) else None
        _check_near(base.twin.mesh, places, notes)
        lat, volts = events.points.lat_ms[fresh], events.points.bipolar_mv[fresh]
        new = NewEvidence(points_mm=places, lat_ms=lat, bipolar_mv=volts, in_mesh_frame=True)
        state["points"] = _points_state(base, new, len(events.points))
    loop: dict[str, Any] = {}
    if events.vt is not None:
        state["vt"] = compare(base, events.vt)
        match = next((c for c in base.plan.circuits if c.id == state["vt"]["match"]), None)
        if match is not None and state["vt"]["cycle_length_ms"] is not None:
            loop = {"cycle_length_ms": state["vt"]["cycle_length_ms"], "loop_mm": np.asarray(match.path_mm, float)}
    if not (np.isfinite(new.lat_ms).any() or loop):
        return Taken(base, state, correction, since)
    calibration = update(base.calibration, replace(new, **loop))
    names = calibration.twin.tissue.names
    before, after = (c.twin.tissue.samples[0] for c in (base.calibration, calibration))
    state["tissue"] = {name: {"before": round(float(a), 4), "after": round(float(b), 4)} for name, a, b in zip(names, before, after)}
    return Taken(base.with_calibration(calibration), state, correction, since)


def _fresh(base: Base, points: NewPoints, notes: Notes) -> tuple[NDArray[np.bool_], Array]:
    """Which points the plan does not have yet, and their places in mesh space: systems export a whole map again."""
    places = base.to_mesh(points.points_mm)
    known = base.calibration.map_points_mm if base.calibration is not None else np.zeros((0, 3))
    fresh = np.ones(len(places), bool)
    if len(known):
        fresh[:] = np.asarray(cKDTree(known).query(places)[0]) > SAME_POINT_MM
    if not fresh.all():
        notes.add(f"{(~fresh).sum()} points are of the map that the plan was made from and count once")
    return fresh, places[fresh]


def _check_near(mesh: HeartMesh, places: Array, notes: Notes) -> None:
    """Raise Suspicious (`far_points`) for points (n, 3) that are of another heart, map or frame."""
    away = _distance(mesh, places) if len(places) else 0.0
    if away > FAR_MM:
        problem = f"lie {away:.0f} mm (median) from the heart's walls"
        notes.suspect("far_points", "eam", "points", problem, "check that they are of this map, and its registration")


def _nearest(mesh: HeartMesh, places: Array) -> tuple[Array, Array]:
    """Foot and outward normal of the wall nearest to each place, both (n, 3)."""
    nodes, normals = [], []
    for name in WALLS:
        triangles = mesh.surfaces.get(name, np.zeros((0, 3), np.int32))
        if len(triangles):
            corner = mesh.points_mm[triangles]
            normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
            nodes.append(corner.mean(axis=1))
            normals.append(normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12))
    index = cKDTree(np.concatenate(nodes)).query(places)[1]
    return np.concatenate(nodes)[index], np.concatenate(normals)[index]


def _moved(mesh: HeartMesh, places: Array) -> tuple[Array, dict[str, Any]]:
    """Rigid motion (4, 4) of mesh space that brings new points to the wall, and what it amounts to; the identity where it is small.

    Gauss-Newton on distances along the wall's normal, Cauchy weights, Gaussian prior on shift and turn about the points' middle.
    """
    motion = np.eye(4)
    state: dict[str, Any] = {"points": len(places), "moved": False}
    if not len(places):
        return motion, state
    state["median_distance_mm"] = round(_distance(mesh, places), 2)
    if len(places) < ENOUGH_POINTS or np.ptp(places, axis=0).max() < ENOUGH_MM:
        return motion, {**state, "why": f"fewer than {ENOUGH_POINTS} points, or all in one place: the pose stays"}
    middle = places.mean(axis=0)
    turn, shift = np.zeros(3), np.zeros(3)
    prior = np.diag(np.repeat([TURN_SD**-2, SHIFT_SD_MM**-2], 3))
    for _ in range(25):
        at = Rotation.from_rotvec(turn).apply(places - middle) + middle + shift
        foot, normal = _nearest(mesh, at)
        residual = np.einsum("nj,nj->n", at - foot, normal)
        weight = 1.0 / (WALL_SD_MM**2 + residual**2)
        jacobian = np.concatenate([np.cross(at - middle - shift, normal), normal], axis=1)
        hessian = PER_POINT * np.einsum("ni,n,nj->ij", jacobian, weight, jacobian) + prior
        gradient = PER_POINT * np.einsum("ni,n,n->i", jacobian, weight, residual) + prior @ np.concatenate([turn, shift])
        step = np.linalg.solve(hessian, -gradient)
        turn, shift = turn + step[:3], shift + step[3:]
        if np.abs(step).max() < 1e-4:
            break
    motion[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    motion[:3, 3] = middle + shift - motion[:3, :3] @ middle
    moved = places @ motion[:3, :3].T + motion[:3, 3]
    mean = float(np.linalg.norm(moved - places, axis=1).mean())
    state |= {"mean_motion_mm": round(mean, 2), "median_distance_after_mm": round(_distance(mesh, moved), 2)}
    if mean < MOVED_MM or state["median_distance_after_mm"] > state["median_distance_mm"] - NEARER_MM:
        return np.eye(4), {**state, "why": "the map has not moved by more than points scatter"}
    return motion, {
        **state,
        "moved": True,
        "shift_mm": shift.round(2).tolist(),
        "turn_degrees": round(float(np.degrees(np.linalg.norm(turn))), 2),
    }


def _distance(mesh: HeartMesh, places: Array) -> float:
    foot, _ = _nearest(mesh, places)
    return float(np.median(np.linalg.norm(places - foot, axis=1)))


def _points_state(base: Base, new: NewEvidence, given: int) -> dict[str, Any]:
    """What the new points say: how many, how far from the prediction, and where they contradict the tissue."""
    assert base.calibration is not None
    mesh = base.twin.mesh
    state: dict[str, Any] = {"given": given, "new": len(new.points_mm), "with_time": int(np.isfinite(new.lat_ms).sum())}
    if not len(new.points_mm):
        return state
    surface = np.unique(np.concatenate([mesh.surfaces[name].ravel() for name in WALLS if name in mesh.surfaces]))
    node = surface[cKDTree(mesh.points_mm[surface]).query(new.points_mm)[1]]
    both = np.isfinite(new.lat_ms) & np.isfinite(base.calibration.arrival_ms[node])
    if both.any():
        off = new.lat_ms[both] - base.calibration.arrival_ms[node[both]]
        state |= {"median_late_ms": round(float(np.median(off)), 2), "median_abs_ms": round(float(np.median(np.abs(off))), 2)}
    sick = np.zeros(mesh.n_points, bool)
    sick[mesh.tets[mesh.in_region("scar", "border_zone", "isthmus")].ravel()] = True
    low = new.bipolar_mv < float(SCAR_MV)
    state["low_voltage_on_healthy"] = int((low & ~sick[node]).sum())
    return state


def compare(base: Base, vt: Ecg) -> dict[str, Any]:
    """Which circuit of the plan a recorded VT is like, by cycle length and twelve leads (`planners.circuits.likeness`)."""
    leads = vt.array()
    try:
        cycle = likeness.cycle_of(leads, vt.fs_hz)
        recorded = likeness.one_cycle(leads, vt.fs_hz, cycle)
    except ValueError as error:
        return {"cycle_length_ms": None, "match": None, "verdict": f"not compared: {error}"}
    ecgs = TachycardiaEcgs(base.twin.mesh)
    cycles = {name: ecgs.cycle(episode) for name, episode in base.episodes.items()}
    lengths = {name: episode.cycle_length_ms for name, episode in base.episodes.items()}
    (found,) = likeness.match([{"name": "VT", "cycle_length_ms": round(cycle, 1), "cycle": recorded}], cycles, lengths)
    return {key: found[key] for key in ("cycle_length_ms", "by", "match", "verdict", "candidates")}


def warnings(state: Mapping[str, Any]) -> list[str]:
    """What a physician should hear of the new evidence, one sentence each."""
    lines = []
    points, pose, vt = (state.get(key) or {} for key in ("points", "registration", "vt"))
    if pose.get("moved"):
        told = pose.get("since_s") is not None
        lesions = "and lesions from then on" if told else "but not lesions: no times tell which came after; register the map again"
        lines.append(f"The map has moved by {pose['mean_motion_mm']:.0f} mm since it was registered: new points are corrected, {lesions}.")
    if pose.get("median_distance_after_mm" if pose.get("moved") else "median_distance_mm", 0.0) > DOUBTFUL_MM:
        lines.append("New points lie far from the heart: check the registration before the next lesion.")
    if points.get("low_voltage_on_healthy", 0) > LOWER_SHARE * max(points.get("new", 0), 1):
        lines.append(
            f"{points['low_voltage_on_healthy']} new points of low voltage lie on tissue that counts as healthy: plan again with them."
        )
    if vt and vt["cycle_length_ms"] is None:
        lines.append(f"The new VT was {vt['verdict']}.")
    elif vt and vt["match"] is None:
        lines.append(f"The new VT is not one of the plan ({vt['verdict']}): the targets that are left may not treat it.")
    elif vt:
        lines.append(f"The new VT is {vt['match']} ({vt['verdict']}).")
    return lines
