"""How the heart lies among the electrodes when neither is known: a rigid pose and a chest's size as nuisance of an activation that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from meshing.electrodes import ELECTRODES, electrodes
from meshing.p1 import gradients
from solvers.ecg import LeadField
from solvers.ecg.field import PLATEAU_MV, REST_MV, conductivity
from solvers.ecg.leads import lead_matrix
from twin.calibrate.ecg import compare
from twin.mesh import HeartMesh
from twin.params import Param
from twin.patient import LEADS, Ecg

Array = NDArray[np.float64]

CELL_MM = 15.0
STEP_MS = 2.0
SHIFT_SD = Param(25.0, "mm", 10.0, 40.0, "prior width of a heart's place in the chest (ours)")
SIZE_SD = Param(0.15, "1", 0.1, 0.25, "prior width of the logarithm of a chest's size (ours)")
TURNS = 24
FITTED = ("I", "II", "V1", "V3", "V5")
"""Leads that fix the pose; the others, as far as they are not sums of these, show whether it holds."""


@dataclass(frozen=True)
class Dipoles:
    """The front as current dipoles: moments (t, c, 3) uA mm at places (c, 3) mm; times (t,) ms."""

    moments: Array
    places_mm: Array
    time_ms: Array

    @staticmethod
    def of(mesh: HeartMesh, arrival_ms: Array) -> Dipoles:
        """Dipoles of the depolarisation, gathered in cubes of CELL_MM; a node's step lasts 4 ms."""
        live = mesh.conducting()
        tets = mesh.tets[live]
        grad, volume = gradients(mesh.points_mm, tets)
        centre = mesh.points_mm[tets].mean(axis=1)
        cell = np.floor((centre - centre.min(axis=0)) / CELL_MM).astype(np.int64)
        _, inverse = np.unique(cell, axis=0, return_inverse=True)
        inverse = inverse.ravel()
        weight = np.bincount(inverse, volume)
        places = np.stack([np.bincount(inverse, volume * centre[:, k]) / weight for k in range(3)], axis=1)
        flux = np.einsum("mij,maj->mai", conductivity(mesh, live), grad) * volume[:, None, None]
        reached = arrival_ms[np.isfinite(arrival_ms)]
        time = np.arange(reached.min() - 20.0, reached.max() + 20.0, STEP_MS)
        jump = float(PLATEAU_MV) - float(REST_MV)
        moments = np.zeros((len(time), len(places), 3))
        at = np.where(np.isfinite(arrival_ms), arrival_ms, 1e9)[tets]
        for i, now in enumerate(time):
            step = jump / (1.0 + np.exp(-np.clip(now - at, -40.0, 40.0)))
            current = np.einsum("mai,ma->mi", flux, step)
            moments[i] = np.stack([np.bincount(inverse, current[:, k], minlength=len(places)) for k in range(3)], axis=1)
        return Dipoles(moments, places, time)

    def leads(self, electrodes_mm: Array) -> Array:
        """Twelve leads (12, t) of electrodes (9, 3) in an infinite medium, up to a factor."""
        away = electrodes_mm[:, None] - self.places_mm
        kernel = away / np.linalg.norm(away, axis=2)[:, :, None] ** 3
        return np.asarray(lead_matrix() @ -np.einsum("eci,tci->et", kernel, self.moments), np.float64)


@dataclass(frozen=True)
class Pose:
    """Electrodes turned (rotation vector, radians) and shifted (mm) about the heart, chest size; correlation (12,) per lead."""

    turn: Array
    shift_mm: Array
    size: float
    correlation: Array

    def electrodes(self, generic: Array, centre: Array) -> Array:
        """Places of the electrodes (9, 3) that the pose means."""
        return _placed(np.concatenate([self.turn, self.shift_mm, [np.log(self.size)]]), generic, centre)

    def summary(self) -> dict[str, Any]:
        """Numbers for posterior.json, held-out leads apart."""
        held = [k for k, lead in enumerate(LEADS) if lead in ("V2", "V4", "V6")]
        return {
            "mean_lead_correlation": round(float(self.correlation.mean()), 3),
            "held_out_leads_correlation": round(float(self.correlation[held].mean()), 3),
            "turn_degrees": round(float(np.degrees(np.linalg.norm(self.turn))), 1),
            "shift_mm": self.shift_mm.round(1).tolist(),
            "size": round(self.size, 3),
            "note": f"pose of the heart among generic electrodes fitted to leads {', '.join(FITTED)}: a nuisance, not a measurement",
        }


def _placed(x: Array, generic: Array, centre: Array) -> Array:
    return np.asarray(Rotation.from_rotvec(x[:3]).apply(np.exp(x[6]) * (generic - centre)) + centre + x[3:6], np.float64)


def _correlation(predicted: Array, measured: Array) -> Array:
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (predicted, measured))
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / np.maximum(norm, 1e-12), np.float64)


def fit_pose(mesh: HeartMesh, arrival_ms: Array, ecg: Ecg, seed: int = 0) -> Pose:
    """The pose under which the activation gives the recorded leads best; from TURNS starts, deterministic for a seed.

    Priors keep shift and size within what chests have; the turn is free, since images without a frame may be turned by any angle. The
    recording's QRS onset is unknown too: shifts in time are tried at every pose.
    """
    dipoles = Dipoles.of(mesh, arrival_ms)
    generic = np.stack(list(electrodes(mesh).values()))
    centre = np.average(mesh.centroids_mm, axis=0, weights=mesh.tet_volumes_mm3)
    time = ecg.time_ms
    grid = np.arange(0.0, float(time[-1]), STEP_MS)
    recorded = np.stack([np.interp(grid, time, ecg.leads[name]) for name in LEADS])
    recorded -= np.median(recorded, axis=1, keepdims=True)
    width = len(dipoles.time_ms)
    padded = np.pad(recorded, ((0, 0), (width, width)), mode="edge")
    fitted = [LEADS.index(name) for name in FITTED]
    # the onset that the energy of all leads suggests, and shifts of up to 30 ms about it
    energy = np.convolve((padded**2).sum(axis=0), np.ones(width), mode="valid")
    first = int(np.argmax(energy))
    shifts = range(max(0, first - 15), min(len(energy), first + 16))

    def score(x: Array) -> tuple[float, int]:
        away = _placed(x, generic, centre)
        if np.linalg.norm(away[:, None] - dipoles.places_mm, axis=2).min() < 15.0:
            return -1.0, first
        predicted = dipoles.leads(away)
        values = [_correlation(predicted[fitted], padded[fitted, s : s + width]).mean() for s in shifts]
        best = int(np.argmax(values))
        return float(values[best]), shifts[best]

    def cost(x: Array) -> float:
        penalty = float((x[3:6] ** 2).sum()) / float(SHIFT_SD) ** 2 + float(x[6] / float(SIZE_SD)) ** 2
        return 1.0 - score(x)[0] + 0.01 * penalty

    turns = Rotation.random(TURNS, random_state=seed).as_rotvec()
    starts = [np.zeros(7), *(np.concatenate([turn, np.zeros(4)]) for turn in turns)]
    ranked = sorted(((cost(x), i) for i, x in enumerate(starts)))[:6]
    simplex_step = np.diag([0.4, 0.4, 0.4, 10.0, 10.0, 10.0, 0.1])
    best_x, best_cost = starts[0], np.inf
    for _, i in ranked:
        simplex = np.vstack([starts[i], starts[i] + simplex_step])
        found = minimize(
            cost, starts[i], method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 300, "xatol": 1e-3, "fatol": 1e-4}
        )
        if found.fun < best_cost:
            best_x, best_cost = np.asarray(found.x, float), float(found.fun)
    at = score(best_x)[1]
    correlation = _correlation(dipoles.leads(_placed(best_x, generic, centre)), padded[:, at : at + width])
    return Pose(best_x[:3], best_x[3:6], float(np.exp(best_x[6])), correlation)


def posed(mesh: HeartMesh, arrival_ms: Array, ecg: Ecg, pose: Pose) -> float:
    """Mean lead correlation of the full lead fields at a pose: what the dipoles left out."""
    generic = np.stack(list(electrodes(mesh).values()))
    centre = np.average(mesh.centroids_mm, axis=0, weights=mesh.tet_volumes_mm3)
    places = dict(zip(ELECTRODES, pose.electrodes(generic, centre), strict=True))
    return compare(LeadField(mesh, places), arrival_ms, ecg).mean_correlation
