"""The twin: a mesh, the tissue posterior and the pose of the map in it; what planners ask "what if"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.atomic import read_npz, write_npz
from twin.mesh import HeartMesh
from twin.tissue import Tissue


@dataclass(frozen=True)
class Twin:
    """One patient's heart that can be simulated.

    map_to_mesh: (4, 4) rigid transform from the mapping system's frame to the mesh (LPS mm), identity without a map.
    """

    mesh: HeartMesh
    tissue: Tissue
    map_to_mesh: NDArray[np.float64]

    def save(self, folder: Path) -> None:
        """Write `mesh.npz` and `tissue.npz` (and the pose) to a folder."""
        self.mesh.save(folder / "mesh.npz")
        self.tissue.save(folder / "tissue.npz")
        write_npz(folder / "pose.npz", {"map_to_mesh": self.map_to_mesh})

    @staticmethod
    def load(folder: Path) -> Twin:
        """Read what `save` wrote."""
        pose, _ = read_npz(folder / "pose.npz")
        return Twin(HeartMesh.load(folder / "mesh.npz"), Tissue.load(folder / "tissue.npz"), pose["map_to_mesh"])
