"""Eikonal solvers against exact solutions: oblique point source, plane wave, re-entry round a hole with and without restitution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from meshing.box import box_mesh, box_tets
from meshing.surfaces import FACES
from solvers.eikonal.mesh import EikonalMesh
from solvers.eikonal.reentrant import Log, ReentrantEikonal, Settings, State
from solvers.eikonal.restitution import RestitutionTable
from solvers.verify import junction
from twin.check_record import checked
from twin.mesh import REGIONS, HeartMesh
from twin.params import Param
from twin.tissue import Velocity

SLOW_M_S, FAST_M_S = 0.5, 2.0
STRIP_TOLERANCE = Param(
    0.6, "ms", 0.0, 1.0, "chosen here: half a sample of an electrogram; exact arrival by Fermat's principle, Snell's head wave"
)
ORDER_TOLERANCE = Param(0.3, "1", 0.0, 0.5, "linear simplices: first order in the edge away from the source")
OBLIQUE_DEGREES = 35.0
SPEED_M_S = 0.6
_GATE = "design/reentry.md: arrival at 8-18 mm from a point source, fibres at 35 degrees, is late by at most this share"
LATE = {
    (1.0, 2.4): Param(0.08, "1", 0.0, 0.08, _GATE),
    (1.0, 4.0): Param(0.20, "1", 0.0, 0.20, _GATE),
    (2.0, 2.4): Param(0.12, "1", 0.0, 0.12, _GATE),
    (2.0, 4.0): Param(0.30, "1", 0.0, 0.30, _GATE),
}
CYCLE_TOLERANCE = Param(0.005, "1", 0.0, 0.01, "design/reentry.md: cycle length round an annulus within 0.5 %")
BALL_TOLERANCE = Param(0.03, "1", 0.01, 0.05, "chosen here; a front's velocity is c - D kappa: 2 D / r is taken from that of a ball")
JUNCTION_TOLERANCE = Param(30.0, "ms", 0.0, 30.0, "a cable with the settings fitted to sheets: up to 30 ms too late, docs/reentry.md")


def exact_ms(
    points_mm: NDArray[np.float64], source_mm: NDArray[np.float64], fibre: NDArray[np.float64], speed_l: float, speed_t: float
) -> NDArray[np.float64]:
    """Arrival from a point in uniform tissue that nothing interrupts, (n,) ms."""
    offset = points_mm - source_mm
    along2 = (offset @ fibre) ** 2
    return np.sqrt(along2 / speed_l**2 + (np.einsum("ij,ij->i", offset, offset) - along2) / speed_t**2)


def oblique_error(spacing_mm: float, ratio: float, ball_mm: float = 0.0) -> float:
    """Mean relative lateness at 8 to 18 mm from a node, or a ball around it seeded exactly; fibres 35 degrees off the grid."""
    points, tets = box_tets((40.0, 40.0, 12.0), spacing_mm, "alternating")
    angle = np.radians(OBLIQUE_DEGREES)
    fibre = np.array([np.cos(angle), np.sin(angle), 0.0])
    source = int(np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1)))
    geometry = EikonalMesh(points, tets, np.tile(fibre, (len(tets), 1)))
    speeds = (SPEED_M_S, SPEED_M_S / ratio)
    time = geometry.solve(*speeds, *geometry.ball(source, ball_mm, *speeds))
    exact = exact_ms(points, points[source], fibre, *speeds)
    distance = np.linalg.norm(points - points[source], axis=1)
    ring = (distance > 8.0) & (distance < 18.0)
    return float(np.mean(time[ring] / exact[ring] - 1.0))


def convergence_order(ratio: float) -> float:
    """Order of the error of a point source in the edge, from a ball with exact times: the singularity itself adds h log h."""
    return float(np.log2(oblique_error(2.0, ratio, ball_mm=6.0) / oblique_error(1.0, ratio, ball_mm=6.0)))


def fast_strip_error(spacing_mm: float, thickness_mm: float = 0.0) -> float:
    """Largest lateness (ms) in a slab under a fast endocardium: along it, and from there down as a head wave (Snell's law).

    The line source lies on the fast side; thickness 0 is a sheet of surface elements, else a layer of fast muscle.
    """
    points, tets = box_tets((40.0, 2.0 * spacing_mm, 12.0), spacing_mm, "alternating")
    x, z = points[:, 0], points[:, 2]
    geometry = EikonalMesh(points, tets, np.zeros((len(tets), 3)))
    speed: float | NDArray[np.float64] = SLOW_M_S
    if thickness_mm > 0:
        speed = np.where(points[tets][:, :, 2].mean(axis=1) < thickness_mm, FAST_M_S, SLOW_M_S)
    else:
        faces = tets[:, FACES].reshape(-1, 3)
        geometry = geometry.with_sheet(faces[(z[faces] < 1e-9).all(axis=1)], FAST_M_S)
    time = geometry.solve(speed, speed, np.flatnonzero((x < 1e-9) & (z < 1e-9)))
    # Fermat: over all places where the wave may leave the fast layer
    leave = np.linspace(0.0, 40.0, 2001)
    below = np.maximum(z - thickness_mm, 0.0)
    via = np.hypot(leave, thickness_mm) / FAST_M_S + np.hypot(x[:, None] - leave, below[:, None]) / SLOW_M_S
    exact = np.where(z > thickness_mm, via.min(axis=1), np.hypot(x, z) / FAST_M_S)
    return float(np.abs(time - exact).max())


def annulus(inner_mm: float, width_mm: float, spacing_mm: float) -> tuple[HeartMesh, NDArray[np.float64]]:
    """A ring of healthy tissue one element thick, fibres radial; returns it and the angle of each node, (n,) in 0..2 pi."""
    points, tets = box_tets((2 * np.pi * inner_mm, width_mm, spacing_mm), spacing_mm)
    turn, radius, z = points[:, 0] / inner_mm, inner_mm + width_mm - points[:, 1], points[:, 2]
    # the box closes on itself: its last column of nodes is the first
    first = np.round(turn / (2 * np.pi) * 1e6).astype(np.int64) % 1_000_000
    keys = np.stack([first, np.round(points[:, 1] * 1e6).astype(np.int64), np.round(z * 1e6).astype(np.int64)], axis=1)
    _, keep, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    turn, radius, z = turn[keep] % (2 * np.pi - 1e-9), radius[keep], z[keep]
    tets = number.reshape(-1)[tets].astype(np.int32)
    nodes = np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)
    centre = nodes[tets].mean(axis=1) * [1.0, 1.0, 0.0]
    fibre = centre / np.linalg.norm(centre, axis=1, keepdims=True)
    sheet = np.tile([0.0, 0.0, 1.0], (len(tets), 1))
    mesh = HeartMesh(nodes, tets, np.full(len(tets), REGIONS["healthy"], np.int16), {}, fibre, sheet)
    return mesh, turn


def one_way(model: ReentrantEikonal, turn: NDArray[np.float64], until_ms: float, half_width_mm: float, inner_mm: float) -> Log:
    """Stimulate an annulus at angle 0 beside a sector that is refractory for 100 ms: the wave leaves to one side only."""
    state = refractory(model.rest(), (turn > 2 * np.pi - 0.6) & (turn < 2 * np.pi - half_width_mm / inner_mm), 100.0)
    near = np.minimum(turn, 2 * np.pi - turn) * inner_mm <= half_width_mm + 1e-9
    _, log = model.run(state, [(0.0, np.flatnonzero(near))], until_ms)
    return log


def refractory(state: State, nodes: NDArray[np.bool_], until_ms: float) -> State:
    """A state in which some nodes cannot fire before a time, as if an action potential that nobody saw had just ended there."""
    state.ready_ms[nodes] = until_ms
    return state


def last_cycle_ms(log: Log, laps: int = 3) -> float:
    """Mean of the last cycle lengths of the node that fired most often, NaN if none fired that often."""
    activations = log.activations
    node = int(np.argmax(np.bincount(activations.node)))
    times = activations.activation_ms[activations.node == node]
    return float(np.diff(times)[-laps:].mean()) if len(times) > laps else float("nan")


def steady(apd_ms: float, di_min_ms: float) -> RestitutionTable:
    """Tissue without restitution."""
    return RestitutionTable(np.array([di_min_ms, 600.0]), np.full(2, apd_ms), np.ones(2), "constant")


def restituting() -> RestitutionTable:
    """Analytic restitution for checks (not tissue): APD and velocity fall off exponentially with the interval."""
    di = np.arange(30.0, 701.0)
    return RestitutionTable(di, 290.0 - 130.0 * np.exp(-di / 80.0), 1.0 - 0.6 * np.exp(-di / 60.0), "analytic")


def fixed_point_ms(length_mm: float, speed_m_s: float, table: RestitutionTable) -> float:
    """Cycle length of a wave on a ring: length = CL * c(DI) with CL = DI + APD(DI)."""

    def excess(di: float) -> float:
        cycle = di + np.interp(di, table.di_ms, table.apd_ms)
        return float(cycle * speed_m_s * np.interp(di, table.di_ms, table.cv_factor) - length_mm)

    di = float(brentq(excess, table.di_ms[0], table.di_ms[-1]))
    return float(di + np.interp(di, table.di_ms, table.apd_ms))


def ring_cycle_ms(inner_mm: float, spacing_mm: float, speed_m_s: float, table: RestitutionTable, until_ms: float = 6000.0) -> float:
    """Cycle length of re-entry round an annulus."""
    mesh, turn = annulus(inner_mm, 10.0, spacing_mm)
    speed = {"healthy": Velocity(speed_m_s, speed_m_s)}
    tables: Mapping[str, RestitutionTable] = {"healthy": table}
    return last_cycle_ms(one_way(ReentrantEikonal(mesh, speed, tables, Settings()), turn, until_ms, 4.0, inner_mm))


def ball_slowing(speeds_m_s: tuple[float, float], share: float) -> tuple[float, float]:
    """How much longer an expanding ball takes per way with curvature (times `share`) than without: measured, and by c = c0 - 2 D / r.

    The ball is one in the metric of fibres oblique to the mesh; D is so large that 10 to 30 % of the velocity are lost.
    """
    size, per_root = 36.0, 0.7
    flat = RestitutionTable(np.array([5.0, 600.0]), np.array([200.0, 200.0]), np.array([1.0, 1.0]), "flat", per_root)
    mesh = box_mesh((size,) * 3, 2.0, (0.6, 0.8, 0.0), "alternating")
    x = mesh.points_mm - 0.5 * size
    along = x @ np.array([0.6, 0.8, 0.0])
    across2 = np.maximum((x**2).sum(axis=1) - along**2, 0.0)
    r = np.sqrt((along / speeds_m_s[0]) ** 2 + across2 / speeds_m_s[1] ** 2)
    start, end = 6.0 / speeds_m_s[0], 17.0 / speeds_m_s[0]
    read = (r > 1.4 * start) & (r < end)
    slope = []
    for curvature in (0.0, share):
        speeds = {"healthy": Velocity(*speeds_m_s)}
        model = ReentrantEikonal(mesh, speeds, {"healthy": flat}, Settings(curvature=curvature))
        state, _ = model.run(model.rest(), [(0.0, np.flatnonzero(r <= start))], 400.0)
        slope.append(float(np.polyfit(r[read], state.time_ms[read], 1)[0]))
    loss = 2.0 * share / per_root**2
    exact = float(np.polyfit(r[read], r[read] + loss * np.log(r[read] - loss), 1)[0])
    return slope[1] / slope[0], exact


def checks() -> list[dict[str, Any]]:
    """Records of `vtwin verify eikonal`."""
    out = [checked("eikonal/planar/oblique_mesh", _planar_error(), "1", 0.0, 1e-3, "a linear function solves the equation and lies in P1")]
    for (spacing, ratio), gate in LATE.items():
        name = f"eikonal/point/oblique/ratio{ratio:g}/dx{spacing:g}"
        out.append(checked(name, oblique_error(spacing, ratio), "1", 0.0, gate.value, gate.source))
    for ratio in (1.0, 2.4, 4.0):
        order = convergence_order(ratio)
        out.append(checked(f"eikonal/point/order/ratio{ratio:g}", order, "1", 1.0, ORDER_TOLERANCE.value, ORDER_TOLERANCE.source))
    for name, thickness in (("sheet", 0.0), ("layer", 2.0)):
        late = fast_strip_error(1.0, thickness)
        out.append(checked(f"eikonal/purkinje/{name}/dx1", late, "ms", 0.0, STRIP_TOLERANCE.value, STRIP_TOLERANCE.source))
    for speed in (0.5, 0.6):
        exact = 2 * np.pi * 30.0 / speed
        value = ring_cycle_ms(30.0, 2.0, speed, steady(200.0, 40.0), 4000.0)
        out.append(checked(f"eikonal/annulus/c{speed:g}", value, "ms", exact, CYCLE_TOLERANCE.value * exact, CYCLE_TOLERANCE.source))
    for speeds in ((0.5, 0.5), (0.6, 0.25)):
        value, exact = ball_slowing(speeds, 1.0)
        name, allowed = f"eikonal/curvature/ball/ratio{speeds[0] / speeds[1]:g}", BALL_TOLERANCE.value * exact
        out.append(checked(name, value, "1", exact, allowed, BALL_TOLERANCE.source))
    for inner in (36.0, 45.0):
        exact = fixed_point_ms(2 * np.pi * inner, 0.6, restituting())
        value = ring_cycle_ms(inner, 2.0, 0.6, restituting())
        source = "fixed point of L = CL c(CL - APD); " + CYCLE_TOLERANCE.source
        out.append(checked(f"eikonal/annulus/restitution/r{inner:g}", value, "ms", exact, CYCLE_TOLERANCE.value * exact, source))
    for share, crossing in junction.CROSSES.items():
        for spacing in (1.0, 2.0):
            value = junction.eikonal_threshold((340.0,), range(230, 400, 5), share, Settings(), spacing)
            name = f"eikonal/junction/s3_crosses/conductivity{share:g}/dx{spacing:g}"
            out.append(checked(name, value, "ms", crossing.value, JUNCTION_TOLERANCE.value, crossing.source))
    return out


def _planar_error() -> float:
    """Largest relative error where a plane wave, started on one face, runs obliquely to edges but along the fibres."""
    points, tets = box_tets((24.0, 12.0, 6.0), 2.0, "alternating")
    inner = np.all((points > 1e-9) & (points < np.array([23.9, 11.9, 5.9])), axis=1)
    points = points + np.where(inner[:, None], np.random.default_rng(1).uniform(-0.3, 0.3, points.shape), 0.0)
    geometry = EikonalMesh(points, tets, np.tile([1.0, 0.0, 0.0], (len(tets), 1)))
    time = geometry.solve(SPEED_M_S, 0.5 * SPEED_M_S, np.flatnonzero(points[:, 0] < 1e-9))
    return float(np.abs(time * SPEED_M_S - points[:, 0]).max() / 24.0)
