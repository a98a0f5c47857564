"""Where a rhythm starts, and how fast it spreads, from the 12-lead ECG without a map: as far as that goes, with how far it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from meshing.sites import conducting_nodes
from planners.calibration.finer import FinerForward
from planners.calibration.sensitivity import ecg_rows, qrs_row
from solvers.ecg import LeadField
from solvers.eikonal.forward import EikonalForward
from twin.calibrate.gaussian import Gaussian
from twin.calibrate.sources import POSITION_SD
from twin.calibrate.velocity import SOURCE_TIME_SD, VelocityFit, as_velocities, left_errors, prior_covariance
from twin.mesh import WALLS, HeartMesh
from twin.params import Param
from twin.patient import Ecg
from twin.signals.delineate import delineate
from twin.signals.pacemap import MODEL_FREEDOM, match, spread_nodes
from twin.tissue import Velocity

Array = NDArray[np.float64]
Nodes = NDArray[np.int32]

COARSE_MM, FINE_MM = 10.0, 12.0
SCALES = np.exp(np.linspace(np.log(0.6), np.log(1.7), 13))
"""Common factors on all velocities that are tried: arrival goes as their inverse, so one solve serves all."""
SCALE_SD = Param(0.2, "1", 0.1, 0.3, "prior width of the logarithm of that factor: the prior of healthy longitudinal velocity")
DELAYS_MS = (-20.0, -10.0, -5.0, 0.0, 5.0, 10.0, 20.0)
GAIN = Param(
    0.015, "1", 0.01, 0.04, "gain in mean lead correlation for which another breakthrough is believed (tuned on simulated patients)"
)
MOST_SITES = 4
LEAD_IN_MS = 60
DURATION_NOISE = Param(8.0, "ms", 4.0, 12.0, "reading QRS duration; activation before and after what the leads show (ours)")
ALONG_MODEL_ERROR = Param(
    0.10,
    "1",
    0.05,
    0.2,
    "relative error that wrong sites, electrodes and conductor leave in the healthy velocity along the fibres from an ECG alone, beside "
    "what a map leaves too (tuning hearts, docs/calibration.md)",
)
ACROSS_MODEL_ERROR = Param(0.2, "1", 0.1, 0.3, "the same across the fibres")
KNOWN_MM, KNOWN_SINGLE = 20.0, 0.9
"""A site counts as found if 90 % of its probability lies within so much of it, and it is the only one with so much probability."""
ROUNDS = 3


@dataclass(frozen=True)
class EcgStart:
    """Sites and times; fit: velocities with them; numbers: for `tissue.fit`; known: whether the first site is told apart from others."""

    fit: VelocityFit
    gap_ms: Array
    numbers: dict[str, Any]
    known: bool


@dataclass(frozen=True)
class _Hypothesis:
    """Sites with their times before scaling, the factor on velocities, and how alike the leads are."""

    sites: tuple[int, ...]
    delays: tuple[float, ...]
    scale: float
    score: float


class _Search:
    """Scores of hypotheses against one QRS; arrivals of single sites are kept."""

    def __init__(self, mesh: HeartMesh, forward: EikonalForward, leads: LeadField, velocities: dict[str, Velocity], qrs: Array) -> None:
        self.mesh, self.forward, self.leads, self.velocities, self.qrs = mesh, forward, leads, velocities, qrs
        self._arrivals: dict[int, NDArray[np.float32]] = {}
        self.time = np.arange(-float(LEAD_IN_MS), qrs.shape[1] + LEAD_IN_MS)

    def arrival(self, node: int) -> NDArray[np.float32]:
        """First activation (n,) ms of a beat from one node at the prior's velocities."""
        if node not in self._arrivals:
            at = np.array([node], np.int32)
            self._arrivals[node] = self.forward.arrival_ms(self.velocities, at, np.zeros(1)).astype(np.float32)
        return self._arrivals[node]

    def score(self, sites: tuple[int, ...], delays: tuple[float, ...], scale: float) -> float:
        """Mean lead correlation at the best shift, less the price of an unusual velocity."""
        parts = [self.arrival(s).astype(np.float64) / scale + d for s, d in zip(sites, delays, strict=True)]
        arrival = np.minimum.reduce(parts)
        each, _ = match(self.qrs, self.leads.qrs(arrival - min(delays), self.time))
        return float(each.mean()) - 0.5 * (np.log(scale) / float(SCALE_SD)) ** 2 / float(MODEL_FREEDOM)

    def best_scale(self, sites: tuple[int, ...], delays: tuple[float, ...], scales: Array = SCALES) -> _Hypothesis:
        """The factor on velocities that suits these sites."""
        return max((_Hypothesis(sites, delays, float(s), self.score(sites, delays, float(s))) for s in scales), key=lambda h: h.score)


def candidates(mesh: HeartMesh) -> Nodes:
    """Endocardial and epicardial nodes from which a wave can spread."""
    nodes = np.unique(np.concatenate([mesh.surface_nodes(name) for name in WALLS]))
    return nodes[conducting_nodes(mesh)[nodes]].astype(np.int32)


def start_from_ecg(
    mesh: HeartMesh,
    forward: EikonalForward,
    leads: LeadField,
    ecg: Ecg,
    prior: tuple[tuple[str, ...], Array, Array],
    usual: tuple[Nodes, Array],
    tell: Callable[[str], None],
) -> EcgStart | None:
    """Sites, times and velocities that the QRS asks for; None where the recording has no QRS that can be delineated.

    leads: in a torso; prior: as of `twin.calibrate.velocity.priors`; usual: nodes and times (ms) of a normal beat, tried beside single
    sites everywhere.
    """
    found = delineate(ecg)
    if not found.templates or not np.isfinite(found.templates[0].waves.qrs_ms):
        return None
    qrs, duration = found.templates[0].qrs(), found.templates[0].waves.qrs_ms
    names, mean, _ = prior
    search = _Search(mesh, forward, leads, as_velocities(names, mean), qrs)
    places = candidates(mesh)
    tell("looking for the place from which the recorded QRS could start")
    singles = {int(n): search.best_scale((int(n),), (0.0,), SCALES[::2]) for n in spread_nodes(mesh.points_mm, places, COARSE_MM)}
    for node in sorted(singles, key=lambda n: -singles[n].score)[:3]:
        near = places[np.linalg.norm(mesh.points_mm[places] - mesh.points_mm[node], axis=1) < FINE_MM]
        near = spread_nodes(mesh.points_mm, near, 4.0)
        around = SCALES[np.abs(np.log(SCALES / singles[node].scale)) < 0.25]
        singles |= {int(n): search.best_scale((int(n),), (0.0,), around) for n in near if int(n) not in singles}
    first = max(singles.values(), key=lambda h: h.score)
    best, rival = _more_sites(search, first, sorted(singles, key=lambda n: -singles[n].score))
    normal = search.best_scale(tuple(int(n) for n in usual[0]), tuple(float(t) for t in usual[1]))
    if normal.score > best.score + float(GAIN) * (len(normal.sites) - len(best.sites)):
        best = normal
    radius, spread = _region(mesh, singles, first)
    alone = _only_one(first.score, rival.score)
    known = len(best.sites) == 1 and radius <= KNOWN_MM and alone >= KNOWN_SINGLE
    fit, gap, rounds = _velocities(mesh, forward, leads, ecg, duration, prior, best)
    fit = replace(fit, source_sd_mm=np.full(len(best.sites), spread if len(best.sites) == 1 else float(POSITION_SD) * 2.5))
    numbers = {
        "ecg_alone": {
            "qrs_ms": round(float(duration), 1),
            "sites": len(best.sites),
            "normal_beat": best is normal,
            "score": round(best.score, 3),
            "single_site_score": round(first.score, 3),
            "two_site_score": round(rival.score, 3),
            "single_site_probability": round(alone, 3),
            "site_region_90_mm": round(radius, 1),
            "rounds": rounds,
        }
    }
    return EcgStart(fit, gap, numbers, known)


def _more_sites(search: _Search, best: _Hypothesis, ranked: list[int]) -> tuple[_Hypothesis, _Hypothesis]:
    """Breakthroughs added one at a time while the leads gain by more than GAIN each; with it the best pair of sites, taken or not."""
    places, rival = search.mesh.points_mm, best
    while len(best.sites) < MOST_SITES:
        tried = [best]
        for node in spread_nodes(places, np.array(ranked, np.int32), COARSE_MM):
            if np.linalg.norm(places[list(best.sites)] - places[node], axis=1).min() > 15.0:
                for delay in DELAYS_MS:
                    sites, delays = (*best.sites, int(node)), (*best.delays, delay)
                    tried.append(_Hypothesis(sites, delays, best.scale, search.score(sites, delays, best.scale)))
        found = max(tried, key=lambda h: h.score)
        more = search.best_scale(found.sites, found.delays)
        if len(best.sites) == 1:
            rival = more
        if found.score < best.score + float(GAIN):
            break
        best = more
    return best, rival


def _only_one(single: float, pair: float) -> float:
    """Probability that a beat starts at one place, from the scores of the best one and the best two.

    The likelihood of `_region` for each, the pair charged for its two coordinates and its delay (Bayesian information criterion).
    """
    freedom = float(MODEL_FREEDOM)
    gain = 0.5 * freedom * np.log(max(1.0 - single, 1e-4) / max(1.0 - pair, 1e-4)) - 1.5 * np.log(freedom)
    return float(1.0 / (1.0 + np.exp(gain)))


def _region(mesh: HeartMesh, singles: dict[int, _Hypothesis], best: _Hypothesis) -> tuple[float, float]:
    """Radius (mm) about the best single site that holds 90 % of the probability, and its standard deviation (mm).

    As in a pace map: what is left of the correlation stands for an error of unknown size, (1 - score)^(-MODEL_FREEDOM / 2).
    """
    nodes = np.array(list(singles))
    left = np.log(np.maximum(1.0 - np.array([singles[int(n)].score for n in nodes]), 1e-4))
    # the refined neighbourhood has more nodes than its share of the wall
    distance = np.linalg.norm(mesh.points_mm[nodes][:, None] - mesh.points_mm[nodes][None], axis=2)
    crowd = (distance < 0.5 * COARSE_MM).sum(axis=1)
    weight = np.exp(-0.5 * float(MODEL_FREEDOM) * (left - left.min())) / crowd
    weight /= weight.sum()
    away = np.linalg.norm(mesh.points_mm[nodes] - mesh.points_mm[best.sites[0]], axis=1)
    order = np.argsort(away, kind="stable")
    radius = float(away[order][min(np.searchsorted(np.cumsum(weight[order]), 0.9), len(order) - 1)])
    return radius, float(np.sqrt((weight * away**2).sum()))


def _velocities(
    mesh: HeartMesh,
    forward: EikonalForward,
    leads: LeadField,
    ecg: Ecg,
    duration_ms: float,
    prior: tuple[tuple[str, ...], Array, Array],
    found: _Hypothesis,
) -> tuple[VelocityFit, Array, int]:
    """Log velocities and times conditioned on the QRS (shape and duration) from the hypothesis on, its sites in place.

    Velocities of sick tissue stay at their prior, their uncertainty felt by the others: on tuning hearts those fitted to a QRS were off by
    52 and 80 % (root mean square, along and across), the prior by 14 and 47 %. The end of a QRS bends to whatever else is wrong.
    """
    names, mean, sd = prior
    p, k = len(names), len(found.sites)
    nodes = np.array(found.sites, np.int32)
    before_covariance = block_diag(prior_covariance(sd), SOURCE_TIME_SD.value**2 * np.eye(k))
    before = Gaussian(
        (*names, *(f"source_{i}/time_ms" for i in range(k))), np.concatenate([mean, np.array(found.delays)]), before_covariance
    )
    sick = np.array([k for k, name in enumerate(names) if not name.startswith("healthy/")], np.int64)
    belief = _unlearnt(replace(before, mean=np.concatenate([mean + np.log(found.scale), np.array(found.delays)])), before, sick)
    finer = FinerForward(mesh) if FinerForward.worth_it(mesh) else None
    gap = np.zeros(mesh.n_points)
    for _ in range(ROUNDS):
        velocities, times = as_velocities(names, belief.mean[:p]), belief.mean[p:]
        solved = forward.sensitivity(velocities, nodes, times)
        if finer is not None:
            gap = finer.offset_ms(solved.arrival_ms, velocities, nodes, times)
        columns = np.zeros((mesh.n_points, p + k))
        for j, name in enumerate(names):
            columns[:, j] = solved.by_name[name]
        reached = np.flatnonzero(solved.origin >= 0)
        columns[reached, p + solved.origin[reached]] = 1.0
        arrival = solved.arrival_ms + gap
        parts = [ecg_rows(leads, arrival, columns, ecg), qrs_row(arrival, columns, duration_ms, DURATION_NOISE.value)]
        jacobian, residual, weight = (np.concatenate([part[i] for part in parts]) for i in range(3))
        belief = before.given(jacobian, residual + np.einsum("kq,q->k", jacobian, belief.mean - before.mean), weight)
        belief = _unlearnt(belief, before, sick)
    log_v, times = belief.mean[:p], belief.mean[p:] - belief.mean[p:].min()
    log_v = log_v.copy()
    log_v[1::2] = np.minimum(log_v[1::2], log_v[::2])
    covariance = belief.covariance.copy()
    model = {"healthy/cv_longitudinal_m_s": ALONG_MODEL_ERROR.value, "healthy/cv_transverse_m_s": ACROSS_MODEL_ERROR.value}
    left = left_errors(names) + np.array([model.get(name, 0.0) ** 2 for name in names])
    left[sick] = 0.0
    covariance[:p, :p] += np.diag(left)
    fit = VelocityFit(
        names,
        log_v,
        covariance[:p, :p],
        mean,
        sd,
        nodes,
        times,
        np.zeros(0),
        0.0,
        ROUNDS,
        source_sd_ms=np.sqrt(np.diag(covariance)[p:]),
        joint_covariance=covariance,
    )
    return fit, gap, ROUNDS


def _unlearnt(belief: Gaussian, before: Gaussian, columns: NDArray[np.int64]) -> Gaussian:
    """A belief in which some unknowns are what they were before: mean, width and what they have to do with one another."""
    mean, covariance = belief.mean.copy(), belief.covariance.copy()
    mean[columns] = before.mean[columns]
    covariance[columns] = before.covariance[columns]
    covariance[:, columns] = before.covariance[:, columns]
    return replace(belief, mean=mean, covariance=covariance)
