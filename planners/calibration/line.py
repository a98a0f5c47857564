"""From mesh and evidence to a twin: the map is registered, velocities are fitted to it, the ECG sets what the map did not see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.electrodes import electrodes
from meshing.sites import landmarks, pacing_sites
from planners.calibration.ecg_alone import start_from_ecg
from planners.calibration.finer import FinerForward
from planners.calibration.noun import Calibration
from planners.calibration.pose import fit_pose, posed
from planners.calibration.unknowns import IDENTIFIED, belief_of, described
from solvers.ecg import LeadField
from solvers.eikonal.forward import EikonalForward
from twin.calibrate.doubts import doubts_about
from twin.calibrate.ecg import compare, upside_down
from twin.calibrate.recovery import Recovery, from_intervals, from_t_wave
from twin.calibrate.registration import Registration, register
from twin.calibrate.sources import prune, settle, with_uncertainty
from twin.calibrate.velocity import LatData, VelocityFit, fit_velocities, lay_on_nodes, polish, posterior_samples, prior_covariance, priors
from twin.calibrate.warp import warp
from twin.errors import InputError, RunFailed
from twin.mesh import SURFACES, HeartMesh
from twin.model import Twin
from twin.params import Param
from twin.patient import Ecg, ElectroanatomicalMap, Patient
from twin.tissue import Tissue

Array = NDArray[np.float64]
Nodes = NDArray[np.int32]

LV_EARLIEST = ("aha07", "aha08", "aha10")
"""Where a normal beat first reaches the LV endocardium: mid anterior, mid septal, inferior paraseptal (Durrer 1970)."""
RV_EARLIEST = "rv_apex"
RV_DELAY = Param(5.0, "ms", 0.0, 30.0, "first RV breakthrough 0-10 ms after the LV's, near the anterior papillary muscle, Durrer 1970")
RV_CANDIDATES_MS = (-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0, 30.0)
REFERENCE_VELOCITY = Param(
    0.6126, "m/s", 0.60, 0.62, "planar wave at REFERENCE_CONDUCTIVITY, ten Tusscher-Panfilov 2006 (design/monodomain.md)"
)
REFERENCE_CONDUCTIVITY = Param(0.133418, "S/m", 0.13, 0.14, "0.17 and 0.62 S/m in series, Niederer 2011")
HOLD_OUT = 0.3
MAP_REACH_MM = 6.0
POSE_BELOW = 0.5
"""Mean lead correlation below which the frame of images and electrodes is doubted, and a pose is fitted as a nuisance (ours)."""
SAMPLES = 400
LEAST_INTERVALS = 20
"""Fewer measured recovery intervals than this say less than the T wave."""


Given = Mapping[str, tuple[float, float]]
"""Ranges of the case's [tissue] tables: "<region>/<quantity>" -> (low, high)."""


def _prior(mesh: HeartMesh, given: Given) -> tuple[tuple[str, ...], Array, Array]:
    """Priors of the regions that this heart has, the case's own ranges in place of the literature's where it gives any."""
    ranges = {}
    for name, (low, high) in given.items():
        region, quantity = name.split("/")
        if region not in ("healthy", "border_zone", "isthmus"):
            raise InputError("case", f"tissue.{region}", "does not conduct", "give healthy, border_zone or isthmus")
        if quantity.startswith("conductivity_"):
            # velocity goes with the square root of conductivity: one curve serves every direction (design/monodomain.md)
            scale = REFERENCE_VELOCITY.value / np.sqrt(REFERENCE_CONDUCTIVITY.value)
            quantity = quantity.replace("conductivity", "cv").replace("_S_m", "_m_s")
            low, high = scale * np.sqrt(low), scale * np.sqrt(high)
        ranges[f"{region}/{quantity}"] = (float(low), float(high))
    regions = ["healthy"]
    if mesh.in_region("border_zone", "isthmus").any():
        regions.append("border_zone")
    if mesh.in_region("isthmus").any() and any(name.startswith("isthmus/") for name in ranges):
        regions.append("isthmus")
    return priors(regions, ranges)


def _surface(mesh: HeartMesh, name: str) -> NDArray[np.int32]:
    if name == "all":
        return np.concatenate([mesh.surfaces[s] for s in SURFACES if s != "base"])
    return mesh.surfaces[name]


def register_map(mesh: HeartMesh, eam: ElectroanatomicalMap, where: str) -> Registration:
    """Pose of a map on the mesh's surface of its name; raises InputError for a map that cannot be placed."""
    surface = _surface(mesh, eam.surface)
    found = register(eam.points_mm, mesh.points_mm, surface, eam.landmarks, landmarks(mesh), where)
    return warp(found, eam.points_mm, mesh.points_mm, surface) if eam.warp else found


def _without_map(mesh: HeartMesh, given: Given) -> tuple[VelocityFit, dict[str, str]]:
    """Prior alone: velocities from the literature or the case, a normal beat's earliest sites."""
    names, mean, sd = _prior(mesh, given)
    sites = pacing_sites(mesh)
    chosen = [sites[name] for name in LV_EARLIEST if name in sites]
    times = [0.0] * len(chosen)
    if not chosen:
        raise RunFailed("no LV endocardial site conducts: the twin cannot be activated")
    if RV_EARLIEST in sites:
        chosen.append(sites[RV_EARLIEST])
        times.append(RV_DELAY.value)
    none = np.zeros(0)
    fit = VelocityFit(names, mean, prior_covariance(sd), mean, sd, np.array(chosen, np.int32), np.array(times), none, 0.0, 0)
    return fit, dict.fromkeys(names, "prior from the literature or the case (no map)")


def candidates(mesh: HeartMesh, surface: str) -> Nodes:
    """Nodes of a surface from which a wave can start, ascending."""
    conducting = np.unique(mesh.tets[mesh.conducting()])
    return np.intersect1d(np.unique(_surface(mesh, surface)), conducting).astype(np.int32)


def _no_gap(forward: EikonalForward, finer: FinerForward | None, fit: VelocityFit, mesh: HeartMesh) -> Array:
    """What a finer mesh adds to the arrival at every node, zero without one."""
    if finer is None:
        return np.zeros(mesh.n_points)
    at = (fit.velocities(), fit.source_nodes, fit.source_times_ms)
    return finer.offset_ms(forward.arrival_ms(*at), *at)


def fit_data(
    mesh: HeartMesh,
    forward: EikonalForward,
    finer: FinerForward | None,
    data: LatData,
    surface: Nodes,
    prior: tuple[tuple[str, ...], Array, Array],
    many: bool,
) -> tuple[VelocityFit, Array]:
    """Velocities, sites and times of a map, and what the finer mesh adds to the arrival (n,) ms at the mode.

    many: a network of breakthroughs; they stay at the mapped points, since moving each would cost two solves a round.
    """
    fit = fit_velocities(forward, data, prior, mesh.points_mm, many_sources=many)
    if not many:
        fit = settle(forward, data, fit, surface, mesh.points_mm, rounds=8)
        fit = prune(forward, data, fit, surface, mesh.points_mm)
        if finer is not None:
            fit = settle(forward, data, fit, surface, mesh.points_mm, lambda f: _no_gap(forward, finer, f, mesh)[data.node], rounds=5)
    for _ in range(2 if finer is not None else 1):
        gap = _no_gap(forward, finer, fit, mesh)
        fit = polish(forward, data, fit, gap[data.node])
    if not many:
        fit = with_uncertainty(forward, data, fit, surface, mesh.points_mm, gap[data.node])
    return fit, gap


def _fit_map(
    mesh: HeartMesh, forward: EikonalForward, eam: ElectroanatomicalMap, points_mm: Array, given: Given, rng: np.random.Generator
) -> tuple[VelocityFit, Array, dict[str, Any]]:
    """Fit to a random 70 % of the points; the others say how well the twin predicts what it was not shown."""
    surface = candidates(mesh, eam.surface)
    held = rng.random(len(points_mm)) < HOLD_OUT
    shown = np.where(held, np.nan, eam.lat_ms)
    data = lay_on_nodes(points_mm, shown, surface, mesh.points_mm, MAP_REACH_MM)
    if len(data.node) < 20:
        raise RunFailed(f"only {len(data.node)} annotated map points lie on the mesh: too few to fit velocities")
    finer = FinerForward(mesh) if FinerForward.worth_it(mesh) else None
    fit, gap = fit_data(mesh, forward, finer, data, surface, _prior(mesh, given), eam.surface == "all")
    arrival = forward.arrival_ms(fit.velocities(), fit.source_nodes, fit.source_times_ms) + gap
    test = lay_on_nodes(points_mm, np.where(held, eam.lat_ms, np.nan), surface, mesh.points_mm, MAP_REACH_MM)
    error = test.lat_ms - arrival[test.node]
    error = error[np.isfinite(error)]
    numbers = {
        "map_points": int(np.isfinite(eam.lat_ms).sum()),
        "map_points_fitted": len(data.node),
        "map_points_held_out": len(test.node),
        "held_out_rms_ms": round(float(np.sqrt(np.mean(error**2))), 2),
        "held_out_median_abs_ms": round(float(np.median(np.abs(error))), 2),
        "lat_noise_ms": round(fit.noise_ms, 2),
        "lat_spread_ms": round(float(np.std(data.lat_ms)), 2),
        "lat_outlier_share": round(float(np.mean(np.abs(fit.residual_ms) > 4.0 * fit.noise_ms)), 3),
        "finer_mesh_median_ms": round(float(np.median(gap[data.node])), 2),
        "breakthrough_sites": len(fit.source_nodes),
    }
    return fit, gap, numbers


def _rv_candidates(mesh: HeartMesh) -> list[int]:
    """Places on the RV free wall where a normal beat may break through: two levels, three places between the insertions, and the apex."""
    conducting = np.zeros(mesh.n_points, bool)
    conducting[mesh.tets[mesh.conducting()]] = True
    wall = np.array([n for n in mesh.surface_nodes("rv_endo") if conducting[n] and mesh.coordinates["transventricular"][n] > 0.5])
    if not len(wall):
        return []
    height, turn = mesh.coordinates["apicobasal"][wall], mesh.coordinates["rotational"][wall]
    spread = max(float(np.ptp(turn)), 1e-9)
    chosen = []
    for level in (0.35, 0.6):
        for share in (0.25, 0.5, 0.75):
            off = np.hypot(height - level, (turn - np.quantile(turn, share)) / spread)
            chosen.append(int(wall[np.argmin(off)]))
    sites = pacing_sites(mesh)
    return list(dict.fromkeys([*chosen, *([sites[RV_EARLIEST]] if RV_EARLIEST in sites else [])]))


def _rv_by_ecg(
    mesh: HeartMesh, forward: EikonalForward, model: LeadField, patient: Patient, fit: VelocityFit, progress: Callable[[str], None]
) -> tuple[Nodes, Array, str]:
    """An LV map does not see the RV's own breakthrough: the place, then the time that the ECG likes best are taken."""
    places = _rv_candidates(mesh)
    if not places:
        return fit.source_nodes, fit.source_times_ms, ""
    first = float(fit.source_times_ms.min())

    def source(node: int, delay: float) -> tuple[Nodes, Array]:
        return np.append(fit.source_nodes, node).astype(np.int32), np.append(fit.source_times_ms, first + delay)

    if patient.ecg is None:
        nodes, times = source(places[-1], RV_DELAY.value)
        return nodes, times, f"RV breakthrough assumed {RV_DELAY.value:g} ms after the LV's, at its usual site"
    progress("placing the RV breakthrough by the ECG")
    ecg = patient.ecg.value

    def score(node: int, delay: float) -> float:
        return compare(model, forward.arrival_ms(fit.velocities(), *source(node, delay)), ecg).mean_correlation

    node = max(places, key=lambda n: score(n, RV_DELAY.value))
    delay = max(RV_CANDIDATES_MS, key=lambda d: score(node, d))
    nodes, times = source(node, delay)
    return nodes, times, f"RV breakthrough {delay:+g} ms against the LV's, place and time chosen by the ECG"


def _evidence(fit: VelocityFit, source: str, numbers: Mapping[str, Any]) -> dict[str, str]:
    """What set each parameter: said to be the prior where the data left the width almost as it was."""
    posterior = np.sqrt(np.diag(fit.covariance))
    return {
        name: f"map ({source}), {numbers['map_points_fitted']} points"
        if after < 0.7 * before
        else "mostly the prior: the map says little about it"
        for name, before, after in zip(fit.names, fit.prior_log_sd.tolist(), posterior.tolist(), strict=True)
    }


def without_infarct(mesh: HeartMesh) -> HeartMesh:
    """The same heart with all of its wall healthy: what a map recorded before a virtual infarct was drawn has seen."""
    return mesh.with_region(mesh.in_region("scar", "border_zone", "isthmus"), "healthy")


def _with_sick_regions(fit: VelocityFit, prior: tuple[tuple[str, ...], Array, Array]) -> VelocityFit:
    """A fit to healthy muscle, with the regions that its data never saw added as their priors."""
    names, mean, sd = prior
    known = len(fit.names)
    covariance = prior_covariance(sd)
    covariance[:known, :known] = fit.covariance
    mode = np.concatenate([fit.log_mode, mean[known:]])
    return replace(fit, names=names, log_mode=mode, covariance=covariance, prior_log_mean=mean, prior_log_sd=sd)


def calibrate(
    mesh: HeartMesh, patient: Patient, given: Given, seed: int, progress: Callable[[str], None], virtual_infarct: bool = False
) -> Calibration:
    """Register, fit, predict; every stage works without the evidence that it would like and says so in `tissue.fit`."""
    rng = np.random.default_rng([seed, 1])
    heart = mesh
    if virtual_infarct:
        mesh = without_infarct(mesh)
    forward = EikonalForward(mesh)
    places = dict(patient.ecg.value.electrodes_mm) if patient.ecg is not None else {}
    leads = LeadField(mesh, places or electrodes(mesh))
    # electrodes that were measured do not lie on the skin of the phantom
    in_torso = (leads if places else LeadField.in_torso(mesh)) if _needs_torso(patient) else None
    registration = None
    points = lat = bipolar = np.zeros(0)
    numbers: dict[str, Any] = {"map_points": 0}
    gap = np.zeros(mesh.n_points)
    known_by_ecg = False
    if patient.eam is None:
        fit, evidence = _without_map(mesh, given)
        if patient.ecg is not None and in_torso is not None:
            usual = (fit.source_nodes, fit.source_times_ms)
            started = start_from_ecg(mesh, forward, in_torso, patient.ecg.value, _prior(mesh, given), usual, progress)
            if started is not None:
                fit, gap, known_by_ecg = started.fit, started.gap_ms, started.known
                numbers |= started.numbers
                evidence = {name: _by_ecg(fit, k) for k, name in enumerate(fit.names)}
        nodes, times = fit.source_nodes, fit.source_times_ms
    else:
        eam = patient.eam.value
        registration = register_map(mesh, eam, patient.eam.source)
        points, lat, bipolar = registration.apply(eam.points_mm), eam.lat_ms, eam.bipolar_mv
        progress(f"map registered, {registration.median_mm:.1f} mm median distance; fitting velocities")
        fit, gap, numbers = _fit_map(mesh, forward, eam, points, given, rng)
        evidence = _evidence(fit, patient.eam.source, numbers)
        nodes, times = fit.source_nodes, fit.source_times_ms
        numbers["registration_median_mm"] = round(registration.median_mm, 2)
        numbers["registration_landmarks_mm"] = {k: round(v, 2) for k, v in registration.landmark_error_mm.items()}
        numbers["registration_ambiguity"] = registration.ambiguity
        if len(registration.centres_mm):
            moved = np.linalg.norm(points - registration.placed(eam.points_mm), axis=1)
            numbers["registration_warp_mm"] = {"median": round(float(np.median(moved)), 2), "most": round(float(moved.max()), 2)}
        if eam.surface == "lv_endo":
            nodes, times, numbers["rv_breakthrough"] = _rv_by_ecg(mesh, forward, leads, patient, fit, progress)
    arrival = forward.arrival_ms(fit.velocities(), nodes, times) + gap
    ecg = compare(leads, arrival, patient.ecg.value) if patient.ecg is not None else None
    recovery = recovery_of(mesh, in_torso, arrival, patient, points)
    if ecg is not None:
        numbers["ecg"] = ecg.summary() | {"electrodes": "as measured" if places else "generic chest"}
        if patient.ecg is not None:
            turned = compare(leads, arrival, upside_down(patient.ecg.value))
            numbers["ecg"]["upside_down_correlation"] = round(turned.mean_correlation, 3)
        if ecg.mean_correlation < POSE_BELOW and patient.ecg is not None and not places:
            progress("the leads are not reproduced: trying other poses of the heart among the electrodes")
            pose = fit_pose(mesh, arrival, patient.ecg.value, seed)
            numbers["ecg_pose"] = pose.summary() | {"full_lead_fields_correlation": round(posed(mesh, arrival, patient.ecg.value, pose), 3)}
    predicted = at_points(mesh, arrival, points) if len(points) else np.zeros(0)
    if virtual_infarct:
        fit = _with_sick_regions(fit, _prior(heart, given))
        evidence |= {name: "prior: the infarct is virtual, the map never saw it" for name in fit.names if name not in evidence}
        nodes, times = _conducting_sources(heart, nodes, times)
        arrival = EikonalForward(heart).arrival_ms(fit.velocities(), nodes, times) + gap
    belief = belief_of(fit, len(nodes), times)
    doubts = doubts_about(fit, numbers, ecg, patient.ecg.value if patient.ecg is not None else None)
    numbers["doubts"] = list(doubts)
    samples = posterior_samples(fit, SAMPLES, rng)
    tissue = Tissue(
        names=fit.names,
        samples=samples,
        prior_low=np.exp(fit.prior_log_mean - 1.96 * fit.prior_log_sd),
        prior_high=np.exp(fit.prior_log_mean + 1.96 * fit.prior_log_sd),
        evidence=evidence,
        source_nodes=nodes,
        source_times_ms=times,
        fit=numbers,
    )
    transform = registration.transform if registration is not None else np.eye(4)
    return Calibration(
        Twin(heart, tissue, transform),
        arrival,
        registration,
        ecg,
        points.reshape(-1, 3),
        lat,
        predicted,
        bipolar,
        gap,
        belief,
        doubts,
        described(heart, tissue, fit, bipolar, known_by_ecg) | (recovery.rows() if recovery is not None else {}),
    )


def _by_ecg(fit: VelocityFit, column: int) -> str:
    width = np.sqrt(fit.covariance[column, column]) / fit.prior_log_sd[column]
    return "QRS (shape and duration), no map" if width < IDENTIFIED else "mostly the prior: the ECG says little about it"


def _needs_torso(patient: Patient) -> bool:
    """Whether leads of a realistic size are asked for: to find sites without a map, or recovery where no map measured it."""
    return patient.ecg is not None and _measured_intervals(patient) < LEAST_INTERVALS


def _measured_intervals(patient: Patient) -> int:
    return int(np.isfinite(patient.eam.value.ari_ms).sum()) if patient.eam is not None else 0


def recovery_of(mesh: HeartMesh, in_torso: LeadField | None, arrival_ms: Array, patient: Patient, points_mm: Array) -> Recovery | None:
    """Action-potential durations from the map's recovery intervals where it has enough, else from the T wave; None without either."""
    if patient.eam is not None and _measured_intervals(patient) >= LEAST_INTERVALS:
        _, near = cKDTree(mesh.points_mm).query(points_mm)
        at = {name: mesh.coordinates[name][near] for name in ("transmural", "apicobasal")}
        return from_intervals(at, patient.eam.value.ari_ms)
    if patient.ecg is None or in_torso is None:
        return None
    return _recovery(mesh, in_torso, arrival_ms, patient.ecg.value)


def _recovery(mesh: HeartMesh, leads: LeadField, arrival_ms: Array, ecg: Ecg) -> Recovery | None:
    """Action-potential durations from the T wave with leads in a torso; None without one."""
    found = compare(leads, arrival_ms, ecg)
    if not found.mean_correlation > POSE_BELOW:
        return None
    return from_t_wave(leads, arrival_ms, mesh.coordinates, ecg, found.shift_ms, found.scale)


def _conducting_sources(mesh: HeartMesh, nodes: Nodes, times: Array) -> tuple[Nodes, Array]:
    """Breakthrough sites that lie in muscle: a virtual scar takes those under it away."""
    alive = np.isin(nodes, np.unique(mesh.tets[mesh.conducting()]))
    return nodes[alive], times[alive]


def at_points(mesh: HeartMesh, arrival_ms: Array, points_mm: Array) -> Array:
    """Predicted activation at the node nearest to each map point."""
    reached = np.flatnonzero(np.isfinite(arrival_ms))
    _, near = cKDTree(mesh.points_mm[reached]).query(points_mm)
    return arrival_ms[reached[near]]
