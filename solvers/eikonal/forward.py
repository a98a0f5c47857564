"""The first-arrival eikonal as calibration sees it: velocities per region in, arrival and its derivatives out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from solvers.eikonal.mesh import Arrival, EikonalMesh
from solvers.eikonal.purkinje import FastLayer
from solvers.eikonal.regions import present, source_of
from twin.calibrate.velocity import Sensitivity
from twin.mesh import REGIONS, HeartMesh
from twin.tissue import Velocity


class EikonalForward:
    """Fulfils `twin.tissue.ForwardModel` (and the differentiable one of calibration) on a HeartMesh.

    Scar and lesion do not conduct; the isthmus takes the border zone's velocity where it has none of its own. Raises InputError
    when a region of the mesh has no velocity.
    """

    def __init__(self, mesh: HeartMesh, layer: FastLayer | None = None) -> None:
        """`layer`: fast endocardial conduction, see `solvers.eikonal.purkinje`; None: the wave spreads through muscle only."""
        self.geometry = EikonalMesh(mesh.points_mm, mesh.tets, mesh.fibre, mesh.conducting())
        if layer is not None and len(layer.triangles):
            self.geometry = self.geometry.with_sheet(layer.triangles, layer.speed_m_s)
        self._factor = layer.factor if layer is not None and len(layer.factor) else None
        self._regions = present(mesh)
        self._tet_region = np.asarray(mesh.region, np.int64)

    def _speeds(self, velocities: Mapping[str, Velocity]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        along, across = np.ones(max(REGIONS.values()) + 1), np.ones(max(REGIONS.values()) + 1)
        for region in self._regions:
            speed = velocities[source_of(region, set(velocities))]
            along[REGIONS[region]], across[REGIONS[region]] = speed.longitudinal_m_s, speed.transverse_m_s
        speeds = along[self._tet_region], across[self._tet_region]
        return speeds if self._factor is None else (speeds[0] * self._factor, speeds[1] * self._factor)

    def arrival_ms(
        self, velocities: Mapping[str, Velocity], source_nodes: NDArray[np.int32], source_times_ms: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """First activation of every node, (n,) ms, inf where no wave comes."""
        return self.geometry.solve(*self._speeds(velocities), source_nodes, source_times_ms)

    def solved(
        self, velocities: Mapping[str, Velocity], source_nodes: NDArray[np.int32], source_times_ms: NDArray[np.float64]
    ) -> tuple[Arrival, NDArray[np.int64]]:
        """The solve with its tree of origins, and the index in `velocities` that each tetrahedron takes (for `Arrival.adjoint`)."""
        names = list(velocities)
        group = np.zeros(max(REGIONS.values()) + 1, np.int64)
        for region in self._regions:
            group[REGIONS[region]] = names.index(source_of(region, set(names)))
        return self.geometry.arrival(*self._speeds(velocities), source_nodes, source_times_ms), group[self._tet_region]

    def sensitivity(
        self, velocities: Mapping[str, Velocity], source_nodes: NDArray[np.int32], source_times_ms: NDArray[np.float64]
    ) -> Sensitivity:
        """Solve once and differentiate along the paths of the wave (where two meet in a simplex the heavier one counts as origin)."""
        arrival, group = self.solved(velocities, source_nodes, source_times_ms)
        columns = arrival.tangent(group, len(velocities))
        by_name = {}
        for k, region in enumerate(velocities):
            by_name[f"{region}/cv_longitudinal_m_s"] = columns[:, 2 * k]
            by_name[f"{region}/cv_transverse_m_s"] = columns[:, 2 * k + 1]
        return Sensitivity(arrival.time_ms, by_name, arrival.nearest_source(np.asarray(source_nodes, np.int32)))
