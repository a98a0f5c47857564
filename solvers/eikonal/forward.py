"""The eikonal model as calibration asks for it: velocities per region and sources in, arrival times and their derivatives out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from solvers.eikonal.mesh import Arrival, EikonalMesh
from solvers.kernels.trees import first_labelled
from twin.calibrate.velocity import Sensitivity
from twin.errors import InputError
from twin.mesh import REGIONS, HeartMesh
from twin.tissue import Velocity

FALLBACK = {"isthmus": "border_zone", "border_zone": "healthy"}
"""Whose velocity a region takes when it has none of its own."""


class EikonalForward:
    """First arrival in a HeartMesh; scar and lesions do not conduct. Fulfils `twin.tissue.ForwardModel` and `DifferentiableForward`."""

    def __init__(self, mesh: HeartMesh) -> None:
        self.solver = EikonalMesh(mesh.points_mm, mesh.tets, mesh.fibre, mesh.conducting())
        self.region = mesh.region
        self.conducting_regions = [name for name in ("healthy", "border_zone", "isthmus") if mesh.in_region(name).any()]

    def _named(self, region: str, velocities: Mapping[str, Velocity]) -> str:
        name = region
        while name not in velocities:
            if name not in FALLBACK:
                raise InputError("tissue", f"{region} velocity", "is not given", "give at least healthy")
            name = FALLBACK[name]
        return name

    def _speeds(self, velocities: Mapping[str, Velocity]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        along, across = np.ones(len(self.region)), np.ones(len(self.region))
        for region in self.conducting_regions:
            velocity = velocities[self._named(region, velocities)]
            inside = self.region == REGIONS[region]
            along[inside], across[inside] = velocity.longitudinal_m_s, velocity.transverse_m_s
        return along, across

    def arrival_ms(
        self, velocities: Mapping[str, Velocity], source_nodes: NDArray[np.int32], source_times_ms: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """First activation of every node, (n,) ms, inf where no wave comes."""
        return self.solver.solve(*self._speeds(velocities), source_nodes, source_times_ms)

    def sensitivity(
        self, velocities: Mapping[str, Velocity], source_nodes: NDArray[np.int32], source_times_ms: NDArray[np.float64]
    ) -> Sensitivity:
        """One solve with the derivative of every arrival by each log velocity, and which source's wave came first."""
        names = list(velocities)
        group = np.zeros(len(self.region), np.int64)
        for region in self.conducting_regions:
            group[self.region == REGIONS[region]] = names.index(self._named(region, velocities))
        solved = self.solver.arrival(*self._speeds(velocities), source_nodes, source_times_ms)
        slopes = solved.tangent(group, len(names))
        by_name = {}
        for column, name in enumerate(names):
            by_name[f"{name}/cv_longitudinal_m_s"] = slopes[:, 2 * column]
            by_name[f"{name}/cv_transverse_m_s"] = slopes[:, 2 * column + 1]
        return Sensitivity(solved.time_ms, by_name, self._origin(solved, source_nodes, source_times_ms))

    @staticmethod
    def _origin(solved: Arrival, source_nodes: NDArray[np.int32], source_times_ms: NDArray[np.float64]) -> NDArray[np.int32]:
        """Index of the source behind each arrival, (n,) int32: up the tree along the origin that weighs most."""
        n = len(solved.time_ms)
        strongest = solved.origin[np.arange(n), solved.weight.argmax(axis=1)]
        parent = np.where(solved.via >= 0, strongest, -1).astype(np.int32)
        label = np.full(n, -1, np.int32)
        for index in np.argsort(source_times_ms, kind="stable")[::-1]:
            if solved.via[source_nodes[index]] < 0:
                label[source_nodes[index]] = index
        return first_labelled(parent, label)
