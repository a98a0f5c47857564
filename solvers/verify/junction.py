"""Where healthy tissue meets border zone: the shortest interval that crosses, re-excitable eikonal against monodomain on a cable.

A cable of one width is the hardest case for what the eikonal leaves open: with the settings that were fitted to sheets
(solvers/verify/reentry.py) it blocks an S3 up to 30 ms longer than the monodomain cable does; S2 crosses in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from meshing.box import box_mesh
from solvers.eikonal.reentrant import ReentrantEikonal, Settings
from solvers.ionic import Cells
from solvers.ionic.restitution import CAPACITANCE, CONDUCTIVITY, SURFACE_TO_VOLUME
from solvers.monodomain.solver import Monodomain
from solvers.monodomain.solver import Settings as MonodomainSettings
from solvers.verify.reentry_cases import sheet_tables
from solvers.verify.reentry_sheet import paced
from twin.experiment import Activations, Stimulus
from twin.mesh import HeartMesh
from twin.params import Param
from twin.tissue import Velocity

LENGTH_MM, JUNCTION_MM, NEAR_MM, FAR_MM = 40.0, 20.0, 18.0, 36.0
HEALTHY_M_S = Param(0.59, "m/s", 0.55, 0.65, "monodomain cable, ten Tusscher-Panfilov 2006 epi, 0.133418 S/m, S1 600 ms")
BORDER_M_S = Param(0.42, "m/s", 0.38, 0.45, "the same with the border zone's conductances (solvers.ionic.restitution)")
DRIVE = (0.0, 600.0, 1200.0)
STIMULATED_MM = 1.01
_OWN = "monodomain_threshold of this module: the longest S3 blocked and the shortest that crossed, after S1 600 and S2 340 ms"
CROSSES = {
    1.0: Param(275.0, "ms", 270.0, 280.0, _OWN + ", border zone with healthy conductivity"),
    0.25: Param(290.0, "ms", 280.0, 300.0, _OWN + ", border zone with a quarter of it"),
}
"""Shortest S3 that crosses, by conductivity of the border zone relative to healthy tissue."""


def _cable(spacing_mm: float) -> HeartMesh:
    mesh = box_mesh((LENGTH_MM, spacing_mm, spacing_mm), spacing_mm)
    return mesh.with_region(mesh.centroids_mm[:, 0] > JUNCTION_MM, "border_zone")


def _stimulated(mesh: HeartMesh) -> np.ndarray:
    return np.flatnonzero(mesh.points_mm[:, 0] <= STIMULATED_MM).astype(np.int32)


def _crossed(mesh: HeartMesh, log: Activations, since_ms: float) -> bool:
    """True if the wave that started at a time passed the near place and then the far one."""
    times = []
    for place in (NEAR_MM, FAR_MM):
        node = int(np.argmin(np.abs(mesh.points_mm[:, 0] - place)))
        times.append(log.activation_ms[(log.node == node) & (log.activation_ms >= since_ms)])
    return bool(len(times[0]) and len(times[1]) and times[1][0] > times[0][0])


def _shortest(crosses: Callable[[float], bool], intervals_ms: Sequence[float]) -> float:
    """First of the ascending intervals that crosses, NaN if none."""
    return next((interval for interval in intervals_ms if crosses(interval)), float("nan"))


def eikonal_threshold(s2_ms: Sequence[float], intervals_ms: Sequence[float], share: float, settings: Settings, spacing_mm: float) -> float:
    """Shortest of the ascending intervals after S1 600 ms and the extrastimuli `s2_ms` that crosses, ms.

    share: conductivity of the border zone relative to healthy tissue (velocity goes with its square root).
    """
    mesh = _cable(spacing_mm)
    border = BORDER_M_S.value * share**0.5
    speeds = {"healthy": Velocity(HEALTHY_M_S.value, HEALTHY_M_S.value), "border_zone": Velocity(border, border)}
    model, nodes = ReentrantEikonal(mesh, speeds, sheet_tables(), settings), _stimulated(mesh)
    train = [*DRIVE, *(DRIVE[-1] + np.cumsum(s2_ms))]
    state, _ = model.run(model.rest(), [(t, nodes) for t in train], train[-1] + intervals_ms[0])

    def crosses(interval: float) -> bool:
        at = train[-1] + interval
        return _crossed(mesh, model.run(state, [(at, nodes)], at + 500.0)[1].activations, at)

    return _shortest(crosses, intervals_ms)


def monodomain_threshold(s2_ms: Sequence[float], intervals_ms: Sequence[float], share: float, spacing_mm: float = 0.2) -> float:
    """The same by monodomain; about a second per interval on one core."""
    mesh, models = _cable(spacing_mm), [paced("healthy"), paced("border_zone")]
    x, nodes = mesh.points_mm[:, 0], _stimulated(mesh)
    healthy = CONDUCTIVITY.value / (SURFACE_TO_VOLUME.value * CAPACITANCE.value)
    d = np.where(mesh.in_region("border_zone"), share * healthy, healthy)

    def cells(of: np.ndarray) -> Cells:
        return Cells(models=models, region_of_node=(x[of] > JUNCTION_MM).astype(np.int32), precision="float32")

    settings = MonodomainSettings(dt_ms=0.05, threshold_mv=-40.0, theta=0.5)
    solver = Monodomain(mesh.points_mm, mesh.tets, mesh.fibre, d, 0.1 * d, cells, settings)
    train = [*DRIVE, *(DRIVE[-1] + np.cumsum(s2_ms))]
    solver.run([Stimulus(nodes, tuple(train))], train[-1] + intervals_ms[0] - 1.0)
    start = solver.snapshot()

    def crosses(interval: float) -> bool:
        solver.restore(start)
        at = train[-1] + interval
        return _crossed(mesh, solver.run([Stimulus(nodes, (at,))], at + 330.0).activations, at)

    return _shortest(crosses, intervals_ms)
