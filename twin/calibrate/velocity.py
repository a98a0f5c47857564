"""From a map's activation times to conduction velocities and the sites where the rhythm starts, with their uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from twin.params import Param
from twin.tissue import Velocity

Array = NDArray[np.float64]
Nodes = NDArray[np.int32]

HEALTHY_LONGITUDINAL = Param(
    0.60, "m/s", 0.30, 1.00, "ventricular muscle along fibres: 0.5-0.7 m/s, Durrer 1970; Taggart 2000 (0.65 m/s, human epicardium)"
)
HEALTHY_TRANSVERSE = Param(
    0.25, "m/s", 0.10, 0.50, "across fibres: anisotropy ratio 2-3, Roberts 1979; Caldwell 2009 (pig: 0.67 / 0.30 / 0.17)"
)
BORDER_LONGITUDINAL = Param(
    0.30, "m/s", 0.08, 0.80, "surviving tissue in healed infarct conducts at 0.1-0.5 m/s, de Bakker 1993; design/clinical.md"
)
BORDER_TRANSVERSE = Param(
    0.12, "m/s", 0.03, 0.40, "as above with the healthy anisotropy ratio; transverse coupling is reduced more, Yao 2003"
)
LAT_NOISE = Param(4.0, "ms", 2.0, 10.0, "annotation 3 ms and 1 mm of position at 0.4 m/s; the fitted residual replaces it when larger")
ALONG_ERROR = Param(
    0.06,
    "1",
    0.03,
    0.1,
    "relative error that mesh, fibres, sites and the eikonal model leave in a healthy velocity along the fibres: root mean square on six "
    "hearts simulated with the monodomain model (seeds 100-105, docs/calibration.md)",
)
ACROSS_ERROR = Param(
    0.14,
    "1",
    0.08,
    0.2,
    "the same across the fibres: electrodes that capture more than a point, curvature near a site and turning fibres change that velocity "
    "more; covers five of the same six hearts at 90 %, their root mean square is 0.18",
)
REGION_ERROR = Param(
    0.35,
    "1",
    0.1,
    0.5,
    "the same for border zone and isthmus: rims are a few voxels wide, and currents at their edges are not in the eikonal model "
    "(hearts simulated with the monodomain model, docs/calibration.md)",
)
RATIO_SD = Param(
    0.25,
    "1",
    0.15,
    0.4,
    "prior width of the logarithm of the anisotropy ratio of one tissue: ratios are 2-3 at most places (Roberts 1979, Caldwell 2009) while "
    "velocities themselves vary more; so the two velocities of a region go together",
)
SOURCE_GAIN = Param(
    9.0,
    "ms",
    6.0,
    15.0,
    "a neighbourhood this much early is worth another breakthrough site: above annotation noise and mesh lateness (ours)",
)


SOURCE_TIME_SD = Param(20.0, "ms", 10.0, 40.0, "prior width of a breakthrough's time about where the map puts it (ours)")


FEW_SOURCES, MOST_SOURCES = 12, 40
"""Breakthrough sites looked for in a contact map of one chamber, and in a map of the whole heart."""


@dataclass(frozen=True)
class Sensitivity:
    """One solve with its derivatives.

    arrival_ms (n,); by_name: "<region>/cv_longitudinal_m_s" and the like -> d arrival / d log velocity (n,) ms;
    origin (n,) int32: index of the source whose wave came first, -1 where none came.
    """

    arrival_ms: Array
    by_name: Mapping[str, Array]
    origin: Nodes


class DifferentiableForward(Protocol):
    """A forward model that also tells how arrival changes with each velocity."""

    def arrival_ms(self, velocities: Mapping[str, Velocity], source_nodes: Nodes, source_times_ms: Array) -> Array:
        """First activation of every node, (n,) ms, inf where no wave comes."""
        ...

    def sensitivity(self, velocities: Mapping[str, Velocity], source_nodes: Nodes, source_times_ms: Array) -> Sensitivity:
        """Solve once and differentiate along the paths of the wave."""
        ...


@dataclass(frozen=True)
class LatData:
    """Activation times laid on mesh nodes: node (k,), lat_ms (k,), block (k,) groups of neighbours whose errors go together.

    noise_ms (k,): what is said about each point's own noise, NaN where nothing is; points of more noise count less.
    """

    node: Nodes
    lat_ms: Array
    block: NDArray[np.int64]
    points_mm: Array
    noise_ms: Array = field(default_factory=lambda: np.zeros(0))

    def share(self) -> Array:
        """Relative noise (k,) of each point, 1 where nothing is said."""
        if not len(self.noise_ms):
            return np.ones(len(self.node))
        return np.where(np.isfinite(self.noise_ms), np.maximum(self.noise_ms, 0.5) / LAT_NOISE.value, 1.0)


@dataclass(frozen=True)
class VelocityFit:
    """Mode and covariance of log velocities, the sources, and the residual of every point at the mode."""

    names: tuple[str, ...]
    log_mode: Array
    covariance: Array
    prior_log_mean: Array
    prior_log_sd: Array
    source_nodes: Nodes
    source_times_ms: Array
    residual_ms: Array
    noise_ms: float
    rounds: int
    source_sd_ms: Array = field(default_factory=lambda: np.zeros(0))
    source_sd_mm: Array = field(default_factory=lambda: np.zeros(0))
    joint_covariance: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """Of log velocities and source times together, (p + k, p + k); empty without a map."""

    def velocities(self, log_values: Array | None = None) -> dict[str, Velocity]:
        """Velocities per region at the mode, or at given log values in the order of `names`."""
        return as_velocities(self.names, self.log_mode if log_values is None else log_values)


def priors(regions: Sequence[str], given: Mapping[str, tuple[float, float]] | None = None) -> tuple[tuple[str, ...], Array, Array]:
    """Names, means and standard deviations of the log velocities of each region.

    A range, a Param's or one `given` by name in m/s, is taken as two standard deviations each way; equal ends fix the value to 1 %.
    """
    table = {
        "healthy": (HEALTHY_LONGITUDINAL, HEALTHY_TRANSVERSE),
        "border_zone": (BORDER_LONGITUDINAL, BORDER_TRANSVERSE),
        "isthmus": (BORDER_LONGITUDINAL, BORDER_TRANSVERSE),
    }
    names, mean, sd = [], [], []
    for region in regions:
        for direction, param in zip(("longitudinal", "transverse"), table[region], strict=True):
            name = f"{region}/cv_{direction}_m_s"
            low, high = (given or {}).get(name, (param.low, param.high))
            names.append(name)
            mean.append(np.log(np.sqrt(low * high) if given and name in given else param.value))
            sd.append(max(np.log(high / low) / 4.0, 0.01))
    return tuple(names), np.array(mean), np.array(sd)


def prior_covariance(sd: Array) -> Array:
    """Covariance (p, p) of log velocities with standard deviations (p,), along and across the fibres in turn: pairs go together as far as
    RATIO_SD asks, independent where they are narrower than that themselves."""
    out = np.diag(sd**2)
    for k in range(0, len(sd) - 1, 2):
        a, b = sd[k], sd[k + 1]
        together = np.clip((a**2 + b**2 - RATIO_SD.value**2) / (2.0 * a * b), 0.0, 0.95)
        out[k, k + 1] = out[k + 1, k] = together * a * b
    return np.asarray(out, np.float64)


def left_errors(names: Sequence[str]) -> Array:
    """Variance (p,) that mesh, labels and model leave in each log velocity."""
    healthy = {"healthy/cv_longitudinal_m_s": ALONG_ERROR, "healthy/cv_transverse_m_s": ACROSS_ERROR}
    return np.array([healthy.get(name, REGION_ERROR).value ** 2 for name in names])


def design_effect(data: LatData, residual: Array, noise_ms: float) -> Array:
    """By how much (k,) each point's variance is larger than it looks: neighbours (blocks) whose errors go together count as fewer."""
    clipped = np.clip(residual, -3.0 * noise_ms, 3.0 * noise_ms)
    count, sums = np.bincount(data.block), np.bincount(data.block, clipped)
    spread2 = float(np.mean(clipped**2))
    pairs = float((sums**2).sum() - spread2 * count.sum())
    together = np.clip(pairs / max(spread2 * float((count * (count - 1)).sum()), 1e-12), 0.0, 1.0)
    return np.asarray(1.0 + together * (count[data.block] - 1.0), np.float64)


def price(data: LatData, residual: Array, parameters: float = 3.0) -> float:
    """What another site must gain in `misfit` (Bayesian information criterion); residual: with that site."""
    n = len(residual)
    effective = max(float((1.0 / design_effect(data, residual, LAT_NOISE.value)).sum()), 8.0)
    return 0.5 * parameters * float(np.log(effective)) * n / effective


def as_velocities(names: Sequence[str], log_values: Array) -> dict[str, Velocity]:
    """Log velocities in the order of `names` (along, across, per region) as `Velocity` per region."""
    value = dict(zip(names, np.exp(log_values).tolist(), strict=True))
    regions = dict.fromkeys(name.split("/")[0] for name in names)
    return {r: Velocity(value[f"{r}/cv_longitudinal_m_s"], value[f"{r}/cv_transverse_m_s"]) for r in regions}


def lay_on_nodes(
    points_mm: Array,
    lat_ms: Array,
    candidates: Nodes,
    node_points_mm: Array,
    reach_mm: float,
    block_mm: float = 15.0,
    noise_ms: Array | None = None,
) -> LatData:
    """Give each annotated point its nearest candidate node within `reach_mm`; several points on one node become their median.

    noise_ms (n,): standard deviation of each point's annotation where it is known (NaN: unknown); the smallest of a node's points counts.
    """
    annotated = np.isfinite(lat_ms)
    distance, near = cKDTree(node_points_mm[candidates]).query(points_mm[annotated])
    keep = distance <= reach_mm
    nodes, lat = candidates[np.asarray(near)[keep]], lat_ms[annotated][keep]
    unique, inverse = np.unique(nodes, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    groups = np.split(lat[order], np.cumsum(np.bincount(inverse))[:-1])
    positions = node_points_mm[unique]
    cells = np.floor(positions / block_mm).astype(np.int64)
    _, block = np.unique(cells, axis=0, return_inverse=True)
    noise = np.zeros(0)
    if noise_ms is not None:
        noise = np.full(len(unique), np.inf)
        np.fmin.at(noise, inverse, np.where(np.isfinite(noise_ms[annotated][keep]), noise_ms[annotated][keep], np.inf))
        noise = np.where(np.isfinite(noise), noise, np.nan)
    return LatData(unique.astype(np.int32), np.array([float(np.median(g)) for g in groups]), block.ravel(), positions, noise)


def _weights(residual: Array, noise_ms: Array) -> Array:
    """Student-t weights (4 degrees of freedom): a point far off counts little, none is thrown away."""
    return 5.0 / (4.0 + (residual / noise_ms) ** 2)


def misfit(residual: Array) -> float:
    """Negative log likelihood of the residuals under the Student-t noise of `_weights`, at the noise of a good annotation."""
    return float(2.5 * np.log1p((residual / LAT_NOISE.value) ** 2 / 4.0).sum())


def _smoothed(data: LatData, values: Array, k: int = 8) -> Array:
    """Median over the k nearest points, so that one bad annotation makes no source."""
    _, near = cKDTree(data.points_mm).query(data.points_mm, k=min(k, len(values)))
    return np.asarray(np.median(values[np.asarray(near).reshape(len(values), -1)], axis=1), np.float64)


def joint_precision(sd: Array, sites: int) -> Array:
    """Prior precision (p + sites, p + sites) of log velocities and site times."""
    p = len(sd)
    out = np.diag(np.full(p + sites, 1.0 / SOURCE_TIME_SD.value**2))
    out[:p, :p] = np.linalg.inv(prior_covariance(sd))
    return out


def gauss_newton(
    model: DifferentiableForward,
    data: LatData,
    names: tuple[str, ...],
    log_v: Array,
    prior: tuple[Array, Array],
    nodes: Nodes,
    times: Array,
    steps: int,
    offset_ms: Array | float = 0.0,
) -> tuple[Array, Array, Array, Array, Array]:
    """Improve log velocities and source times together; returns both, the residual, the Jacobian and the weights.

    offset_ms (k,): what is added to the model's arrival at the data, such as the difference to a finer mesh.
    """
    noise = LAT_NOISE.value
    mean, sd = prior
    p = len(names)
    share = data.share()
    for step in range(steps + 1):
        solved = model.sensitivity(as_velocities(names, log_v), nodes, times)
        reached = np.isfinite(solved.arrival_ms[data.node])
        residual = np.where(reached, data.lat_ms - solved.arrival_ms[data.node] - offset_ms, 0.0)
        jacobian = np.zeros((len(data.node), p + len(nodes)))
        for column, name in enumerate(names):
            jacobian[:, column] = np.where(reached, solved.by_name[name][data.node], 0.0)
        origin = solved.origin[data.node]
        jacobian[np.flatnonzero(reached), p + origin[reached]] = 1.0
        noise = max(LAT_NOISE.value, 1.4826 * float(np.median(np.abs(residual[reached])))) if reached.any() else LAT_NOISE.value
        weight = _weights(residual, noise * share) * reached / (noise * share) ** 2
        if step == steps:
            break
        precision = joint_precision(sd, len(nodes))
        gradient = jacobian.T @ (weight * residual)
        gradient[:p] += precision[:p, :p] @ (mean - log_v)
        change = np.linalg.solve(jacobian.T @ (weight[:, None] * jacobian) + precision, gradient)
        log_v = log_v + np.clip(change[:p], -0.25, 0.25)
        times = times + np.clip(change[p:], -15.0, 15.0)
    return log_v, times, residual, jacobian, weight


def _new_source(data: LatData, residual: Array, nodes: Nodes, spacing_mm: float, node_points_mm: Array) -> int | None:
    """The point whose neighbourhood is activated earliest against the model, unless a source is there already."""
    early = _smoothed(data, residual)
    far = cKDTree(node_points_mm[nodes]).query(data.points_mm)[0] > spacing_mm
    early = np.where(far, early, 0.0)
    worst = int(np.argmin(early))
    return worst if early[worst] < -SOURCE_GAIN.value else None


def fit_velocities(
    model: DifferentiableForward,
    data: LatData,
    prior: tuple[tuple[str, ...], Array, Array],
    node_points_mm: Array,
    many_sources: bool = False,
    spacing_mm: float = 8.0,
) -> VelocityFit:
    """Fit velocities, earliest sites and their times to a map; `prior` is what `priors` gives.

    many_sources: the map covers both ventricles without gaps, so that the breakthroughs of a whole Purkinje network can be told apart.
    Sources are added one at a time where the map is earlier than the model, each followed by Gauss-Newton steps on log velocities
    and source times (Student-t weights, log-normal priors). The covariance is the Laplace approximation with a
    cluster-robust ("sandwich") middle, since errors of neighbouring points go together, plus the relative error of the mesh.
    """
    names, mean, sd = prior
    smooth = _smoothed(data, data.lat_ms)
    first = int(np.argmin(smooth))
    nodes = np.array([data.node[first]], np.int32)
    times = np.array([smooth[first]])
    log_v = mean.copy()
    rounds = 0
    log_v, times, residual, *_ = gauss_newton(model, data, names, log_v, (mean, sd), nodes, times, 3)
    while len(nodes) < (MOST_SOURCES if many_sources else FEW_SOURCES):
        found = _new_source(data, residual, nodes, spacing_mm, node_points_mm)
        if found is None:
            break
        more, when = np.append(nodes, data.node[found]).astype(np.int32), np.append(times, smooth[found])
        tried = gauss_newton(model, data, names, log_v, (mean, sd), more, when, 2)
        # a source costs two coordinates and a time; neighbours that err together count once
        cost = 1.5 * np.log(len(residual)) if many_sources else price(data, tried[2])
        if misfit(residual) - misfit(tried[2]) < cost:
            break
        rounds += 1
        nodes, (log_v, times, residual, *_) = more, tried
    start = VelocityFit(names, log_v, prior_covariance(sd), mean, sd, nodes, times, residual, LAT_NOISE.value, rounds)
    return polish(model, data, start, steps=6)


def polish(model: DifferentiableForward, data: LatData, fit: VelocityFit, offset_ms: Array | float = 0.0, steps: int = 4) -> VelocityFit:
    """Gauss-Newton steps from a fit, its sources kept in place; mode, covariance (Laplace, cluster-robust) and residual are made anew.

    offset_ms (k,): added to the model's arrival at the data.
    """
    names, mean, sd, nodes = fit.names, fit.prior_log_mean, fit.prior_log_sd, fit.source_nodes
    log_v, times, residual, jacobian, weight = gauss_newton(
        model, data, names, fit.log_mode, (mean, sd), nodes, fit.source_times_ms, steps, offset_ms
    )
    p = len(names)
    precision = joint_precision(sd, len(nodes))
    bread = np.linalg.inv(jacobian.T @ (weight[:, None] * jacobian) + precision)
    scores = np.zeros((int(data.block.max()) + 1, p + len(nodes)))
    np.add.at(scores, data.block, jacobian * (weight * residual)[:, None])
    covariance = bread @ (scores.T @ scores + precision) @ bread
    covariance = np.where(np.eye(len(bread), dtype=bool), np.maximum(covariance, bread), covariance)
    covariance[:p, :p] += np.diag(left_errors(names))
    noise = max(LAT_NOISE.value, 1.4826 * float(np.median(np.abs(residual))))
    return replace(
        fit,
        log_mode=log_v,
        covariance=covariance[:p, :p],
        source_times_ms=times,
        source_sd_ms=np.sqrt(np.diag(covariance)[p:]),
        residual_ms=residual,
        noise_ms=noise,
        joint_covariance=covariance,
    )


def posterior_samples(fit: VelocityFit, count: int, rng: np.random.Generator) -> Array:
    """Velocity samples (count, p) in m/s, log-normal around the mode; row 0 is the mode itself."""
    values, vectors = np.linalg.eigh(fit.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    draws = fit.log_mode + rng.standard_normal((count, len(fit.names))) @ root.T
    draws[0] = fit.log_mode
    # across the fibres is never faster than along them
    for column in range(0, len(fit.names), 2):
        draws[:, column + 1] = np.minimum(draws[:, column + 1], draws[:, column])
    return np.exp(draws)
