"""Contact electrograms and reaction-eikonal signals: a plane wave's exact course, voltages over scar, and the monodomain's own signals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from meshing.box import box_mesh
from solvers.ecg import electrograms
from solvers.ecg.electrograms import CATHETERS, contact_weights, point_electrode, voltage_map
from solvers.ecg.field import SIGMA_I_ACROSS, SIGMA_I_ALONG, unipolar_weights
from solvers.eikonal.forward import EikonalForward
from solvers.eikonal.mesh import EikonalMesh
from solvers.eikonal.reaction import ActionPotential, ReactionEikonal, action_potential, one_beat
from solvers.ionic import Cells, ionic_model
from solvers.ionic.restitution import model_of
from solvers.monodomain.conductivity import Membrane, diffusion_mm2_ms
from solvers.monodomain.solver import Monodomain, Settings
from twin.check_record import checked
from twin.experiment import Activations, Stimulus
from twin.mesh import HeartMesh
from twin.params import Param
from twin.tissue import Velocity

Array = NDArray[np.float64]

SPEED_M_S = 0.6
_PAPER = "Niederer et al., Phil Trans R Soc A 369:4331 (2011): slab paced at a corner"
SIGMA_E_ALONG = Param(0.62, "S/m", 0.2, 1.2, _PAPER)
SIGMA_E_ACROSS = Param(0.24, "S/m", 0.1, 1.1, _PAPER)
STIMULUS = Param(50.0, "uA/mm^3", 10.0, 100.0, _PAPER)
SIZE_MM, EDGE_MM, PULSE_MS = (20.0, 7.0, 3.0), 1.5, 2.0
PLANE_TOLERANCE = Param(
    0.02,
    "1",
    0.0,
    0.05,
    "largest difference over the exact swing: solid angle of the slab's section under a travelling wave (Plonsey 1974)",
)
QRS_TOLERANCE = Param(
    0.02, "1", 0.0, 0.05, "1 - correlation with the monodomain's depolarisation (Neic 2017, doi 10.1016/j.jcp.2017.06.020)"
)
WHOLE_TOLERANCE = Param(0.05, "1", 0.0, 0.1, "1 - correlation with the monodomain's QRST, constant action potential duration")
SCAR_MM, RIM_MM = 13.0, 8.0
"""Radius of the slab's transmural scar and width of its border zone."""


def plane_error(spacing_mm: float, height_mm: float = 3.0) -> float:
    """Largest error of a unipolar electrogram above a slab through which a plane wave runs, over the exact one's swing."""
    size = (40.0, 20.0, 6.0)
    mesh = box_mesh(size, spacing_mm, (1.0, 0.0, 0.0), "alternating")
    template = action_potential(model_of("healthy")).smeared(0.5)
    model = ReactionEikonal(mesh, {"healthy": template})
    place = np.array([20.0, 9.0, size[2] + height_mm])
    weights = contact_weights(mesh, [point_electrode(place, 0.1)])
    time = np.arange(-10.0, 80.0, 0.5)
    found = model.signals(one_beat(mesh.points_mm[:, 0] / SPEED_M_S, template.apd_ms), weights, time)[0]
    exact = plane_mv(template, size, place, time)
    return float(np.abs(found - exact).max() / np.ptp(exact))


def plane_mv(template: ActionPotential, size_mm: tuple[float, float, float], place_mm: Array, time_ms: Array) -> Array:
    """Exact unipolar electrogram (t,) mV of a box (fibres and wave along x): each section is a layer of dipoles, seen under its angle."""
    x = np.arange(0.0, size_mm[0], 0.02) + 0.01
    angle = _section_angle(x - place_mm[0], size_mm, place_mm)
    out = np.empty(len(time_ms))
    for k, t in enumerate(time_ms):
        edges = template.voltage_mv(t - np.append(x - 0.01, size_mm[0]) / SPEED_M_S)
        out[k] = float((np.diff(edges) * angle).sum())
    return out * float(SIGMA_I_ALONG) / (4.0 * np.pi * float(electrograms.SIGMA_CONTACT))


def _section_angle(offset: Array, size_mm: tuple[float, float, float], place_mm: Array) -> Array:
    """Solid angle of the box's sections at distances `offset` along x from the place, with the sign of the offset."""
    total = np.zeros(len(offset))
    for y, sy in ((size_mm[1] - place_mm[1], 1.0), (-place_mm[1], -1.0)):
        for z, sz in ((size_mm[2] - place_mm[2], 1.0), (-place_mm[2], -1.0)):
            total += sy * sz * np.arctan(y * z / (offset * np.sqrt(offset**2 + y * y + z * z)))
    return total


@dataclass(frozen=True)
class ScarSlab:
    """Median bipolar voltage (mV) over healthy tissue, over the border zone, and over the middle of the scar."""

    healthy_mv: float
    border_mv: float
    scar_mv: float


def scarred_slab(spacing_mm: float = 1.0) -> tuple[HeartMesh, Array]:
    """A slab with a transmural scar in a ring of border zone, and the arrival (n,) ms of a wave from its left side."""
    mesh = box_mesh((70.0, 50.0, 10.0), spacing_mm, (1.0, 0.0, 0.0))
    distance = np.hypot(mesh.centroids_mm[:, 0] - 40.0, mesh.centroids_mm[:, 1] - 25.0)
    mesh = mesh.with_region(distance < SCAR_MM + RIM_MM, "border_zone").with_region(distance < SCAR_MM, "scar")
    left = np.flatnonzero(mesh.points_mm[:, 0] < 1e-6).astype(np.int32)
    speeds = {"healthy": Velocity(SPEED_M_S, 0.25), "border_zone": Velocity(0.3, 0.12)}
    return mesh, EikonalForward(mesh).arrival_ms(speeds, left, np.zeros(len(left)))


def voltages(spacing_mm: float = 1.0) -> ScarSlab:
    """Bipolar voltages of an ablation catheter lying on the scarred slab."""
    mesh, arrival = scarred_slab(spacing_mm)
    model = ReactionEikonal(mesh, {kind: action_potential(model_of(kind)) for kind in ("healthy", "border_zone")}, 0.6)
    rim = SCAR_MM + 0.5 * RIM_MM
    turn = np.linspace(0.0, 2.0 * np.pi, 8, endpoint=False)
    ring = np.stack([40.0 + rim * np.cos(turn), 25.0 + rim * np.sin(turn)], axis=1)
    healthy = np.array([[8.0, 12.0], [12.0, 25.0], [10.0, 40.0], [64.0, 8.0], [64.0, 44.0]])
    core = np.array([[40.0, 25.0], [36.0, 25.0], [40.0, 30.0], [44.0, 23.0]])
    flat = np.concatenate([healthy, ring, core])
    sites = np.column_stack([flat, np.full(len(flat), 10.0)])
    normals = np.tile([0.0, 0.0, 1.0], (len(sites), 1))
    time = np.arange(-20.0, 250.0, 1.0)
    found = voltage_map(mesh, model, one_beat(arrival, model.apd_ms), time, sites, normals, CATHETERS["ablation"]).bipolar_mv
    ends = np.cumsum([len(healthy), len(ring)])
    return ScarSlab(*(float(np.median(part)) for part in np.split(found, ends)))


@dataclass(frozen=True)
class Agreement:
    """One minus correlation of potentials at six places round a slab, monodomain against reaction-eikonal.

    own: activations and recoveries of the monodomain itself; eikonal: fitted plane-wave velocities and one duration; the first over the
    depolarisation, the second over everything.
    """

    own_qrs: float
    own_whole: float
    eikonal_qrs: float
    eikonal_whole: float


def agreement(spacing_mm: float = 0.5) -> Agreement:
    """A slab paced at a corner, once as monodomain (ten Tusscher-Panfilov) and twice as reaction-eikonal."""
    mesh = box_mesh(SIZE_MM, spacing_mm, (1.0, 0.0, 0.0), "alternating")
    places = np.array([[10, 3.5, 40], [10, 3.5, -40], [10, 45, 1.5], [10, -40, 1.5], [55, 3.5, 1.5], [-35, 3.5, 1.5]], float)
    weights = np.ascontiguousarray(unipolar_weights(mesh, places).T)
    log, frames = _monodomain(mesh)
    time = np.array([t for t, _ in frames])
    truth = np.stack([v @ weights for _, v in frames], axis=1)
    first = log.first_ms(mesh.n_points)
    qrs = time < first.max() + 10.0

    template = action_potential(ionic_model("ten_tusscher_panfilov_2006", "epi"), 1000.0)
    model = ReactionEikonal(mesh, {"healthy": template})
    own = model.signals(log, weights, time)
    arrival = _fitted(mesh, first)
    duration = float(np.median(log.recovery_ms - log.activation_ms))
    fitted = model.signals(one_beat(arrival, duration), weights, time)
    return Agreement(*(_off(truth[:, part], mine[:, part]) for mine in (own, fitted) for part in (qrs, time >= 0)))


def _monodomain(mesh: HeartMesh) -> tuple[Activations, list[tuple[float, Array]]]:
    membrane, m = Membrane(), len(mesh.tets)
    d_l = diffusion_mm2_ms(float(SIGMA_I_ALONG), float(SIGMA_E_ALONG), membrane)
    d_t = diffusion_mm2_ms(float(SIGMA_I_ACROSS), float(SIGMA_E_ACROSS), membrane)
    cell = ionic_model("ten_tusscher_panfilov_2006", cell="epi")

    def cells(nodes: NDArray[np.int32]) -> Cells:
        return Cells(models=[cell], region_of_node=np.zeros(len(nodes), np.int32))

    solver = Monodomain(mesh.points_mm, mesh.tets, mesh.fibre, np.full(m, d_l), np.full(m, d_t), cells, Settings())
    corner = np.flatnonzero((mesh.points_mm <= EDGE_MM + 1e-9).all(axis=1)).astype(np.int32)
    frames: list[tuple[float, Array]] = []
    pulse = Stimulus(corner, (0.0,), PULSE_MS, STIMULUS.value)
    result = solver.run([pulse], 450.0, watch=lambda t, v: frames.append((t, v.copy())), every_ms=1.0)
    return result.activations, frames


def _fitted(mesh: HeartMesh, first: Array) -> Array:
    """Eikonal arrivals (n,) whose two velocities and start fit the monodomain's activations best."""
    geometry = EikonalMesh(mesh.points_mm, mesh.tets, mesh.fibre)
    seeds = np.flatnonzero((mesh.points_mm <= EDGE_MM + 1e-9).all(axis=1))

    def arrivals(x: Array) -> Array:
        return geometry.solve(np.exp(x[0]), np.exp(x[1]), seeds) + x[2]

    def misfit(x: Array) -> Array:
        return arrivals(x) - first

    fit = least_squares(misfit, [np.log(0.6), np.log(0.25), 1.0], diff_step=np.full(3, 1e-3))
    return arrivals(fit.x)


def _off(a: Array, b: Array) -> float:
    return 1.0 - float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def checks() -> list[dict[str, Any]]:
    """Records of contact electrograms and of the reaction-eikonal, part of `vtwin verify ecg`."""
    fine, coarse = plane_error(0.5), plane_error(1.0)
    out = [
        _record("ecg/electrogram/plane_wave/dx0.5", fine, PLANE_TOLERANCE.value, PLANE_TOLERANCE),
        _record("ecg/electrogram/plane_wave/dx1", coarse, 3.0 * PLANE_TOLERANCE.value, PLANE_TOLERANCE),
    ]
    slab = voltages()
    scar, healthy = electrograms.DENSE_SCAR_MV, electrograms.HEALTHY_MV
    out.append(_record("ecg/voltage/dense_scar", slab.scar_mv, scar.value, scar))
    middle, half = 0.5 * (healthy.value + scar.value), 0.5 * (healthy.value - scar.value)
    out.append(_record("ecg/voltage/border_zone", slab.border_mv, half, healthy, middle))
    # one-sided: normal voltage has no upper limit, published maps reach about 20 mV
    out.append(_record("ecg/voltage/healthy", slab.healthy_mv, 0.5 * (20.0 - healthy.value), healthy, 0.5 * (20.0 + healthy.value)))
    same = agreement()
    out.append(_record("ecg/reaction_eikonal/own_times/qrs", same.own_qrs, QRS_TOLERANCE.value, QRS_TOLERANCE))
    out.append(_record("ecg/reaction_eikonal/own_times/qrst", same.own_whole, QRS_TOLERANCE.value, QRS_TOLERANCE))
    out.append(_record("ecg/reaction_eikonal/eikonal/qrs", same.eikonal_qrs, WHOLE_TOLERANCE.value, WHOLE_TOLERANCE))
    out.append(_record("ecg/reaction_eikonal/eikonal/qrst", same.eikonal_whole, WHOLE_TOLERANCE.value, WHOLE_TOLERANCE))
    return out


def _record(name: str, value: float, tolerance: float, source: Param, reference: float = 0.0) -> dict[str, Any]:
    return checked(name, value, source.unit, reference, tolerance, source.source)
