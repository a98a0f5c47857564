"""What a laboratory would measure in a virtual patient: an endocardial map, a sinus ECG, and the truth behind both.

Everything is computed by the solvers on a mesh finer than any plan uses, then spoilt by noise, holes and a frame of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.anatomy import complete
from meshing.mesh_labels import mesh_heart
from meshing.sites import conducting_nodes, landmarks
from solvers.eikonal import EikonalMesh
from twin.mesh import HeartMesh
from twin.params import Param
from twin.patient import LEADS, Ecg, ElectroanatomicalMap
from twin.volume import LabelVolume

Array = NDArray[np.float64]
Nodes = NDArray[np.int32]

_DURRER = "Durrer 1970, Circulation 41:899: {} (its abstract was read; level and angle are this project's reading of the words)"
LV_SITES: dict[str, tuple[Param, Param]] = {
    "anterior_paraseptal": (
        Param(0.75, "1", 0.6, 0.9, _DURRER.format("high on the anterior paraseptal wall, just below the mitral valve")),
        Param(65.0, "degree", 50.0, 80.0, _DURRER.format("anterior paraseptal")),
    ),
    "mid_septal": (
        Param(0.5, "1", 0.4, 0.6, _DURRER.format("central on the left surface of the septum")),
        Param(0.0, "degree", -15.0, 15.0, _DURRER.format("central on the septum")),
    ),
    "posterior_paraseptal": (
        Param(0.33, "1", 0.25, 0.4, _DURRER.format("posterior paraseptal, about one third of the distance from apex to base")),
        Param(-65.0, "degree", -80.0, -50.0, _DURRER.format("posterior paraseptal")),
    ),
}
"""Where a normal beat first reaches the LV endocardium: apicobasal level, rotation from the middle of the septum (+ anterior)."""
LV_DELAYS_MS = (0.0, 2.0, 4.0)
"""Within the 0-5 ms after the onset of the LV's activity that Durrer 1970 gives for the three areas."""
RV_SITE = (
    Param(0.45, "1", 0.3, 0.6, _DURRER.format("near the insertion of the anterior papillary muscle of the RV")),
    Param(25.0, "degree", 0.0, 45.0, _DURRER.format("RV free wall, anterior papillary muscle")),
)
RV_DELAY = Param(8.0, "ms", 5.0, 10.0, _DURRER.format("RV endocardium 5-10 ms after the onset of the LV cavity potential"))

BIPOLAR_MV = {
    "healthy": Param(3.8, "mV", 1.5, 8.0, "above 1.5 mV is called normal (Marchlinski 2000, Circulation 101:1288, read in the abstract)"),
    "border_zone": Param(0.9, "mV", 0.5, 1.5, "0.5-1.5 mV is called border zone (same source)"),
    "scar": Param(0.22, "mV", 0.05, 0.5, "below 0.5 mV is called dense scar (same source)"),
}
"""Median peak-to-peak voltage of pure tissue."""
BIPOLAR_REACH_MM = 4.0
BIPOLAR_LOG_SD = 0.30
SEED_BALL_MM = 3.0
TORSO_GAIN = Param(
    3.0,
    "1",
    1.5,
    4.0,
    "a dipole in the middle of a homogeneous sphere makes three times the surface potential that it makes in an infinite medium "
    "(Wilson and Bayley 1950, Circulation 1:84; textbook result): the torso's edge, which the lead fields do not know",
)


@dataclass(frozen=True)
class MeasureSpec:
    """True velocities (m/s, along and across fibres) and how the measurements are spoilt.

    hole: rotation (degrees from mid septum), apicobasal level, radius in mm of a patch that was not mapped; unmapped_base_mm: as
    much is missing below the mitral ring. lat_reference_ms is what the system subtracts from every activation time.
    """

    edge_mm: float = 1.25
    healthy_m_s: tuple[float, float] = (0.60, 0.25)
    border_zone_m_s: tuple[float, float] = (0.28, 0.12)
    points: int = 1300
    position_sd_mm: float = 1.0
    lat_sd_ms: float = 3.0
    outlier_share: float = 0.015
    hole: tuple[float, float, float] = (120.0, 0.75, 11.0)
    unmapped_base_mm: float = 5.0
    frame_rotation_deg: float = 10.0
    frame_shift_mm: float = 8.0
    landmark_sd_mm: float = 3.0
    lat_reference_ms: float = 24.0
    ecg_noise_mv: float = 0.015
    ecg_before_ms: float = 120.0
    ecg_length_ms: float = 500.0


@dataclass(frozen=True)
class Activated:
    """The fine mesh, the sinus beat on it, and where it starts (name -> node, ms)."""

    mesh: HeartMesh
    arrival_ms: Array
    sources: dict[str, tuple[int, float]]


def activate(volume: LabelVolume, spec: MeasureSpec) -> Activated:
    """Mesh the labels finely and compute the sinus beat; raises what the mesher and the solver raise."""
    mesh = complete(mesh_heart(volume, spec.edge_mm))
    sources = _sources(mesh)
    border = mesh.in_region("border_zone", "isthmus")
    along, across = (np.where(border, spec.border_zone_m_s[k], spec.healthy_m_s[k]) for k in (0, 1))
    solver = EikonalMesh(mesh.points_mm, mesh.tets, mesh.fibre, mesh.conducting())
    nodes, times = [], []
    for node, delay in sources.values():
        near, late = solver.ball(node, SEED_BALL_MM, along, across)
        nodes.append(near)
        times.append(late + delay)
    return Activated(mesh, solver.solve(along, across, np.concatenate(nodes), np.concatenate(times)), sources)


def _sources(mesh: HeartMesh) -> dict[str, tuple[int, float]]:
    """Nodes where the conduction system reaches the endocardium, moved to the nearest place that conducts, and their delays."""
    alive = conducting_nodes(mesh)
    lv, rv = (mesh.surface_nodes(name) for name in ("lv_endo", "rv_endo"))
    lv, rv = lv[alive[lv]], rv[alive[rv] & (mesh.aha_segment[rv] == 0)]
    out = {
        name: (_nearest(mesh, lv, level.value, np.radians(angle.value)), delay)
        for (name, (level, angle)), delay in zip(LV_SITES.items(), LV_DELAYS_MS, strict=True)
    }
    if len(rv):
        out["rv_papillary"] = (_nearest(mesh, rv, RV_SITE[0].value, np.radians(RV_SITE[1].value)), RV_DELAY.value)
    return out


def _nearest(mesh: HeartMesh, nodes: Nodes, level: float, angle: float) -> int:
    turn = np.angle(np.exp(1j * (mesh.coordinates["rotational"][nodes] - angle)))
    # one radian is about a third of the LV's length on its endocardium
    return int(nodes[np.argmin(np.hypot(mesh.coordinates["apicobasal"][nodes] - level, turn / 3.0))])


def map_frame(spec: MeasureSpec, rng: np.random.Generator, centre_mm: Array) -> Array:
    """Transform from the patient to the mapping system's frame, (4, 4): a turn about a random axis through `centre_mm`, and a shift."""
    from scipy.spatial.transform import Rotation

    axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(np.radians(spec.frame_rotation_deg) * axis).as_matrix()
    out[:3, 3] = centre_mm - out[:3, :3] @ centre_mm + spec.frame_shift_mm * way
    return out


def _move(transform: Array, points_mm: Array) -> Array:
    return np.asarray(points_mm @ transform[:3, :3].T + transform[:3, 3])


def _sites_of_contact(mesh: HeartMesh, spec: MeasureSpec, rng: np.random.Generator) -> Array:
    """Where the catheter touched: evenly over the LV endocardium but for a hole and the rim, (n, 3) mm."""
    triangles = mesh.surfaces["lv_endo"]
    corner = mesh.points_mm[triangles]
    area = 0.5 * np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    chosen = rng.choice(len(triangles), size=3 * spec.points, p=area / area.sum())
    u, v = np.sqrt(rng.random(len(chosen))), rng.random(len(chosen))
    weight = np.stack([1.0 - u, u * (1.0 - v), u * v], axis=1)
    points = np.einsum("nk,nkj->nj", weight, corner[chosen])

    turn, level, radius = spec.hole
    hole = mesh.points_mm[_nearest(mesh, mesh.surface_nodes("lv_endo"), level, np.radians(turn))]
    to_base, _ = cKDTree(mesh.points_mm[mesh.surface_nodes("base")]).query(points)
    kept = points[(np.linalg.norm(points - hole, axis=1) > radius) & (to_base > spec.unmapped_base_mm)]
    return np.asarray(kept[: spec.points])


def _bipolar_mv(mesh: HeartMesh, points_mm: Array, rng: np.random.Generator) -> Array:
    """Peak-to-peak voltage of the tissue within a few mm, lognormal about the mixture's median."""
    centroids, volumes = mesh.centroids_mm, mesh.tet_volumes_mm3
    log_median = np.full(len(mesh.tets), np.log(BIPOLAR_MV["healthy"].value))
    log_median[mesh.in_region("border_zone", "isthmus")] = np.log(BIPOLAR_MV["border_zone"].value)
    log_median[mesh.in_region("scar")] = np.log(BIPOLAR_MV["scar"].value)
    near = cKDTree(centroids).query_ball_point(points_mm, BIPOLAR_REACH_MM, return_sorted=True)
    mean = np.array([np.average(log_median[k], weights=volumes[k]) for k in near])
    return np.asarray(np.exp(mean + BIPOLAR_LOG_SD * rng.normal(size=len(mean))))


def endocardial_map(beat: Activated, spec: MeasureSpec, rng: np.random.Generator) -> tuple[ElectroanatomicalMap, dict[str, Any]]:
    """A sinus map of the LV endocardium in its own frame, and the truth about frame, outliers and landmarks.

    Points over dense scar have no activation time (NaN): there is no deflection to annotate.
    """
    mesh = beat.mesh
    transform = map_frame(spec, rng, mesh.points_mm.mean(axis=0))
    contact = _sites_of_contact(mesh, spec, rng)
    lv = mesh.surface_nodes("lv_endo")
    _, near = cKDTree(mesh.points_mm[lv]).query(contact)
    lat = beat.arrival_ms[lv[near]] - spec.lat_reference_ms
    lat = np.where(np.isfinite(lat), lat + spec.lat_sd_ms * rng.normal(size=len(lat)), np.nan)
    wrong = rng.random(len(lat)) < spec.outlier_share
    lat = lat + np.where(wrong, rng.choice([-1.0, 1.0], len(lat)) * rng.uniform(25.0, 60.0, len(lat)), 0.0)
    bipolar = _bipolar_mv(mesh, contact, rng)
    shaken = contact + spec.position_sd_mm * rng.normal(size=contact.shape)
    known = landmarks(mesh)
    names = ("lv_apex", "mitral_centre", "mid_septum_lv", "lateral_wall_lv")
    # the picking error is a distance: a third of its square on each axis
    picked = {name: known[name] + spec.landmark_sd_mm / np.sqrt(3.0) * rng.normal(size=3) for name in names}
    eam = ElectroanatomicalMap(
        points_mm=np.round(_move(transform, shaken), 3),
        lat_ms=np.round(lat, 2),
        bipolar_mv=np.round(bipolar, 4),
        landmarks={name: np.round(_move(transform, place), 3) for name, place in picked.items()},
    )
    truth = {
        "map_to_patient": np.linalg.inv(transform).tolist(),
        "landmarks_mm": {name: np.round(known[name], 3).tolist() for name in names},
        "outliers": int((wrong & np.isfinite(lat)).sum()),
        "points": len(lat),
        "points_with_lat": int(np.isfinite(lat).sum()),
        "lat_reference_ms": spec.lat_reference_ms,
    }
    return eam, truth


def sinus_ecg(beat: Activated, spec: MeasureSpec, rng: np.random.Generator) -> Ecg:
    """Twelve leads of the QRS at 1 kHz with noise, a wandering baseline and an amplitude no model knows; there is no T wave."""
    from meshing.electrodes import electrodes
    from solvers.ecg import LeadField

    time = np.arange(0.0, spec.ecg_length_ms)
    clean = TORSO_GAIN.value * LeadField(beat.mesh, electrodes(beat.mesh)).qrs(beat.arrival_ms, time - spec.ecg_before_ms)
    noisy = clean + electrode_noise(time, spec, rng)
    return Ecg({lead: np.round(noisy[k], 4) for k, lead in enumerate(LEADS)}, fs_hz=1000.0)


def electrode_noise(time_ms: Array, spec: MeasureSpec, rng: np.random.Generator) -> Array:
    """Noise and wander of the twelve leads (12, t); it arises at the nine electrodes, so that I + III = II holds as in any recording."""
    phase = rng.uniform(0.0, 2.0 * np.pi, (9, 1))
    wander = spec.ecg_noise_mv * np.sin(2.0 * np.pi * 0.3 * time_ms / 1000.0 + phase)
    return _leads(wander + spec.ecg_noise_mv * rng.normal(size=(9, len(time_ms))))


def _leads(electrode_mv: Array) -> Array:
    """Twelve leads (12, t) in the order of LEADS from the potentials of RA, LA, LL, V1-V6 (9, t)."""
    ra, la, ll, chest = electrode_mv[0], electrode_mv[1], electrode_mv[2], electrode_mv[3:]
    limbs = [la - ra, ll - ra, ll - la, ra - (la + ll) / 2.0, la - (ra + ll) / 2.0, ll - (ra + la) / 2.0]
    return np.vstack([limbs, chest - (ra + la + ll) / 3.0])


def measurement_truth(beat: Activated, spec: MeasureSpec) -> dict[str, Any]:
    """Velocities, sources and mesh behind the measurements, for truth.json."""
    reached = beat.arrival_ms[np.isfinite(beat.arrival_ms)]
    return {
        "velocities": {
            region: {"cv_longitudinal_m_s": along, "cv_transverse_m_s": across}
            for region, (along, across) in (("healthy", spec.healthy_m_s), ("border_zone", spec.border_zone_m_s))
        },
        "sources": {
            name: {"position_mm": np.round(beat.mesh.points_mm[node], 2).tolist(), "time_ms": delay}
            for name, (node, delay) in beat.sources.items()
        },
        "last_activation_ms": round(float(reached.max()), 2),
        "mesh": {"edge_mm": round(float(beat.mesh.quality["mean_edge_mm"]), 3), "tets": len(beat.mesh.tets)},
    }
