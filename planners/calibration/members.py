"""The posterior by an ensemble: velocities, and places and times of the sites, each member one solve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag
from scipy.spatial import cKDTree

from planners.calibration.line import MAP_REACH_MM, SAMPLES, candidates
from planners.calibration.noun import Calibration
from planners.calibration.unknowns import IDENTIFIED
from solvers.eikonal.forward import EikonalForward
from twin.calibrate.ensemble import invert
from twin.calibrate.sources import POSITION_SD, tangents
from twin.calibrate.velocity import (
    LAT_NOISE,
    SOURCE_TIME_SD,
    LatData,
    as_velocities,
    design_effect,
    lay_on_nodes,
    left_errors,
    prior_covariance,
)
from twin.errors import InputError
from twin.patient import Patient

Array = NDArray[np.float64]
SAMPLERS = ("laplace", "ensemble")
MEMBERS = 64
MAP_SITES = 12
"""Sites beyond these keep place and time: an ensemble of this size cannot tell more unknowns apart."""


def design_noise(data: LatData, residual: Array, noise_ms: float) -> Array:
    """Noise (k,) for data taken as independent: larger by the root of how much neighbours err together (design effect of a cluster)."""
    # the Student weights of the fit: an outlier's noise is as large as it is off
    sd = noise_ms * np.sqrt((4.0 + (residual / noise_ms) ** 2) / 5.0)
    return np.asarray(sd * np.sqrt(design_effect(data, residual, noise_ms)), np.float64)


def ensemble_posterior(
    found: Calibration, patient: Patient, folder: Path | None, seed: int, threads: int, tell: Callable[[str], None] = lambda _: None
) -> Calibration:
    """The calibration with samples of an ensemble in place of the Laplace approximation's; deterministic, resumable in `folder`.

    The prior is the literature's for velocities, and POSITION_SD, SOURCE_TIME_SD about the mode for sites. Raises InputError without a map.
    """
    if patient.eam is None or found.registration is None:
        raise InputError("case", "eam", "is not given, and the ensemble fits a map", "use the laplace sampler")
    mesh, tissue = found.twin.mesh, found.twin.tissue
    surface = candidates(mesh, patient.eam.value.surface)
    data = lay_on_nodes(found.map_points_mm, found.map_lat_ms, surface, mesh.points_mm, MAP_REACH_MM)
    forward, tree = EikonalForward(mesh), cKDTree(mesh.points_mm[surface])
    reach = np.isfinite(found.arrival_ms[data.node])
    data = LatData(data.node[reach], data.lat_ms[reach], data.block[reach], data.points_mm[reach])
    residual = data.lat_ms - found.arrival_ms[data.node]
    noise = max(LAT_NOISE.value, 1.4826 * float(np.median(np.abs(residual))))
    p, k = len(tissue.names), len(tissue.source_nodes)
    mapped = [i for i in range(k) if np.isin(tissue.source_nodes[i], surface)][:MAP_SITES]
    at = {i: place for i in mapped if (place := tangents(int(tissue.source_nodes[i]), surface, mesh.points_mm, tree)) is not None}

    def split(x: Array) -> tuple[Array, NDArray[np.int32], Array]:
        log_v = x[:p].copy()
        log_v[1::2] = np.minimum(log_v[1::2], log_v[::2])
        nodes, times = tissue.source_nodes.copy(), tissue.source_times_ms.copy()
        for j, (i, place) in enumerate(at.items()):
            off, times[i] = x[p + 3 * j : p + 3 * j + 2], x[p + 3 * j + 2]
            nodes[i] = surface[int(np.asarray(tree.query(mesh.points_mm[nodes[i]] + off @ place.axes)[1]))]
        return log_v, nodes, times

    def member(x: Array) -> Array:
        log_v, nodes, times = split(x)
        arrival = forward.arrival_ms(as_velocities(tissue.names, log_v), nodes, times) + found.offset_ms
        return np.asarray(arrival[data.node], np.float64)

    rng = np.random.default_rng([seed, 70])
    log_low, log_high = np.log(tissue.prior_low), np.log(tissue.prior_high)
    sites = np.concatenate([[0.0, 0.0, tissue.source_times_ms[i]] for i in at]) if at else np.zeros(0)
    widths = np.tile([POSITION_SD.value, POSITION_SD.value, SOURCE_TIME_SD.value / 2.0], len(at))
    mean = np.concatenate([0.5 * (log_low + log_high), sites])
    sd = np.concatenate([(log_high - log_low) / 3.92, widths])
    covariance = block_diag(prior_covariance(sd[:p]), np.diag(sd[p:] ** 2))
    prior = mean + rng.standard_normal((MEMBERS, len(mean))) @ np.linalg.cholesky(covariance).T
    result = invert(member, prior, data.lat_ms, design_noise(data, residual, noise), seed, threads, folder, tell=tell)
    return _with_members(found, result.members, p, list(at), rng)


def _with_members(found: Calibration, members: Array, p: int, sites: list[int], rng: np.random.Generator) -> Calibration:
    """Samples drawn from the members' kernel density (so that there are as many as the plan expects), the mode kept as row 0."""
    tissue = found.twin.tissue
    picked = rng.integers(0, len(members), SAMPLES)
    # shrunk kernel: keeps mean and covariance of the members; the mesh's own error is added as in the Laplace approximation
    width = len(members) ** (-1.0 / (p + 4))
    centre = members[:, :p].mean(axis=0)
    shrink = np.sqrt(1.0 - width**2)
    root = np.linalg.cholesky(np.cov(members[:, :p].T).reshape(p, p) + 1e-12 * np.eye(p))
    draws = centre + shrink * (members[picked, :p] - centre) + width * np.einsum("sk,qk->sq", rng.standard_normal((SAMPLES, p)), root)
    draws += np.sqrt(left_errors(tissue.names)) * rng.standard_normal(draws.shape)
    draws[1:, 1::2] = np.minimum(draws[1:, 1::2], draws[1:, ::2])
    samples = np.exp(draws)
    samples[0] = tissue.samples[0]
    made = replace(tissue, samples=samples)
    unknowns = dict(found.unknowns)
    for name in tissue.names:
        low, high = made.interval(name)
        before = unknowns[name]["prior_95"]
        share = (high - low) / max(before[1] - before[0], 1e-12)
        new = {"interval_95": [round(low, 4), round(high, 4)], "width_over_prior": round(share, 3), "identified": bool(share < IDENTIFIED)}
        unknowns[name] = {**unknowns[name], **new}
    for j, i in enumerate(sites):
        place = members[:, p + 3 * j : p + 3 * j + 2]
        spread = {"place_sd_mm": round(float(np.sqrt(place.var(axis=0).sum())), 2)}
        unknowns[f"source_{i}"] = {**unknowns[f"source_{i}"], **spread, "time_sd_ms": round(float(members[:, p + 3 * j + 2].std()), 2)}
    return replace(found, twin=replace(found.twin, tissue=made), unknowns=unknowns)
