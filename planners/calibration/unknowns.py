"""Every unknown with what was believed before and after the data, side by side: what `posterior.json` says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from twin.calibrate.gaussian import Gaussian
from twin.calibrate.sources import POSITION_SD
from twin.calibrate.thresholds import voltage_thresholds
from twin.calibrate.velocity import SOURCE_TIME_SD, VelocityFit
from twin.mesh import HeartMesh
from twin.tissue import Tissue

Array = NDArray[np.float64]

IDENTIFIED = 0.7
"""A quantity counts as identified by the data if its width shrank below this share of the prior's."""


def belief_of(fit: VelocityFit, n_sources: int, times_ms: Array) -> Gaussian:
    """Gaussian over the log velocities and the times of all sources; a source that no map has seen keeps its prior width."""
    p, known = len(fit.names), len(fit.source_nodes)
    names = (*fit.names, *(f"source_{i}/time_ms" for i in range(n_sources)))
    covariance = fit.joint_covariance
    if len(covariance) != p + known or n_sources < known:
        covariance = block_diag(fit.covariance, SOURCE_TIME_SD.value**2 * np.eye(n_sources))
    else:
        covariance = block_diag(covariance, SOURCE_TIME_SD.value**2 * np.eye(n_sources - known))
    return Gaussian(names, np.concatenate([fit.log_mode, times_ms]), np.asarray(covariance, np.float64))


def entry(unit: str, mode: float, interval: tuple[float, float], prior: tuple[float, float], set_by: str) -> dict[str, Any]:
    """One row: 95 % intervals before and after, their ratio, and whether the data told anything."""
    width = (interval[1] - interval[0]) / max(prior[1] - prior[0], 1e-12)
    return {
        "unit": unit,
        "mode": round(mode, 4),
        "interval_95": [round(v, 4) for v in interval],
        "prior_95": [round(v, 4) for v in prior],
        "width_over_prior": round(width, 3),
        "identified": bool(width < IDENTIFIED),
        "set_by": set_by,
    }


def described(
    mesh: HeartMesh, tissue: Tissue, fit: VelocityFit, bipolar_mv: Array, known_by_ecg: bool = False
) -> dict[str, dict[str, Any]]:
    """Rows of all unknowns: velocities, sites and times, voltage thresholds; known_by_ecg: the ECG tells the sites apart."""
    rows = {}
    for column, name in enumerate(tissue.names):
        before = (float(tissue.prior_low[column]), float(tissue.prior_high[column]))
        rows[name] = entry("m/s", float(tissue.samples[0, column]), tissue.interval(name), before, tissue.evidence[name])
    for i, (node, time) in enumerate(zip(tissue.source_nodes.tolist(), tissue.source_times_ms.tolist(), strict=True)):
        rows[f"source_{i}"] = source_row(mesh, fit, i, node, time)
        if not len(fit.residual_ms):
            rows[f"source_{i}"] |= {"identified": known_by_ecg, "set_by": "ECG alone" if len(fit.source_sd_mm) else "literature"}
    for name, found in voltage_thresholds(bipolar_mv).items():
        rows[name] = entry("mV", found.value, found.interval, found.prior, found.set_by) | {"identified": found.identified}
    return rows


def source_row(mesh: HeartMesh, fit: VelocityFit, index: int, node: int, time_ms: float) -> dict[str, Any]:
    """Place and time of one earliest site, with widths (one standard deviation)."""
    mapped = index < len(fit.source_sd_mm)
    timed = index < len(fit.source_sd_ms)
    return {
        "unit": "mm, ms",
        "node": node,
        "place_mm": mesh.points_mm[node].round(2).tolist(),
        "aha_segment": int(mesh.aha_segment[node]) if len(mesh.aha_segment) else 0,
        "place_sd_mm": round(float(fit.source_sd_mm[index]), 2) if mapped else None,
        "time_ms": round(time_ms, 2),
        "time_sd_ms": round(float(fit.source_sd_ms[index]), 2) if timed else None,
        "prior_sd": [float(POSITION_SD), float(SOURCE_TIME_SD)],
        "identified": mapped,
        "set_by": "map" if timed else "literature or ECG: no map point shows it",
    }
