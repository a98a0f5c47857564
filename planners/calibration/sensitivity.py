"""Linear rows (jacobian, residual, weight) of an ECG, a QRS duration and a cycle length in the unknowns of a calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from solvers.ecg import LeadField, kernels
from solvers.ecg.field import PLATEAU_MV, REST_MV, UPSTROKE_MS
from solvers.eikonal.regions import source_of
from twin.calibrate.ecg import compare
from twin.mesh import REGIONS, HeartMesh
from twin.params import Param
from twin.patient import Ecg
from twin.tissue import Velocity

Array = NDArray[np.float64]
Rows = tuple[Array, Array, Array]

CORRELATED_MS = Param(10.0, "ms", 5.0, 20.0, "errors of a modelled QRS go together for about so long (ours)")
LEAST_ERROR = Param(0.2, "1", 0.1, 0.4, "of a lead's size: what electrodes and conductor are wrong by at least (ours)")


def ecg_rows(leads: LeadField, arrival_ms: Array, columns: Array, ecg: Ecg) -> Rows:
    """Rows of the QRS of all leads: columns (n, q) are the derivatives of arrival by the unknowns.

    A node's step moves with its arrival, so d lead / d unknown = - d/dt of the steps weighted by the derivative.
    """
    found = compare(leads, arrival_ms, ecg)
    time = found.time_ms
    jump = (float(PLATEAU_MV) - float(REST_MV)) * found.scale
    n_leads, q = len(found.predicted), columns.shape[1]
    jacobian = np.zeros((n_leads, len(time), q))
    for k in range(q):
        out = np.zeros((len(time), n_leads))
        kernels.sum_steps(leads.weights * columns[:, k : k + 1], arrival_ms, float(UPSTROKE_MS), time, out)
        jacobian[:, :, k] = -jump * np.asarray(np.gradient(out, time, axis=0), np.float64).T
    residual = found.measured - found.scale * found.predicted
    size = np.sqrt((found.measured**2).mean(axis=1))
    error = np.maximum(np.sqrt((residual**2).mean(axis=1)), LEAST_ERROR.value * np.maximum(size, 0.1 * size.max()))
    # twelve leads are eight signals, and samples of one error count once
    weight = np.repeat(8.0 / 12.0 / CORRELATED_MS.value / error**2, len(time))
    return jacobian.reshape(-1, q), residual.ravel(), weight


def qrs_row(arrival_ms: Array, columns: Array, duration_ms: float, noise_ms: float) -> Rows:
    """One row: last minus first activation against a measured QRS duration."""
    reached = np.flatnonzero(np.isfinite(arrival_ms))
    last = reached[int(np.argsort(arrival_ms[reached])[int(0.995 * (len(reached) - 1))])]
    first = reached[int(np.argmin(arrival_ms[reached]))]
    row = columns[last] - columns[first]
    return row[None], np.array([duration_ms - (arrival_ms[last] - arrival_ms[first])]), np.array([1.0 / noise_ms**2])


def cycle_row(
    mesh: HeartMesh, velocities: Mapping[str, Velocity], names: Sequence[str], q: int, loop_mm: Array, cycle_ms: float, noise: float
) -> Rows:
    """One row: time round a closed path (k, 3) at the region's velocity and fibre against a measured cycle length; noise relative."""
    steps = np.roll(loop_mm, -1, axis=0) - loop_mm
    middle = loop_mm + 0.5 * steps
    alive = np.flatnonzero(mesh.conducting())
    tet = alive[np.asarray(cKDTree(mesh.centroids_mm[alive]).query(middle)[1])]
    along2 = np.einsum("kj,kj->k", steps, mesh.fibre[tet]) ** 2
    across2 = np.maximum(np.einsum("kj,kj->k", steps, steps) - along2, 0.0)
    by_number = {number: name for name, number in REGIONS.items()}
    row, total = np.zeros(q), 0.0
    for k, t in enumerate(tet.tolist()):
        region = source_of(by_number[int(mesh.region[t])], set(velocities))
        speed = velocities[region]
        a, c = along2[k] / speed.longitudinal_m_s**2, across2[k] / speed.transverse_m_s**2
        time = float(np.sqrt(a + c))
        if time > 0:
            total += time
            row[names.index(f"{region}/cv_longitudinal_m_s")] -= a / time
            row[names.index(f"{region}/cv_transverse_m_s")] -= c / time
    return row[None], np.array([cycle_ms - total]), np.array([1.0 / (noise * cycle_ms) ** 2])
