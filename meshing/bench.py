"""Timings of the anatomy: labels to a mesh of 1.1 million tetrahedra, its fibres and its coordinates, on as many threads as there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from scipy.spatial import Delaunay

from meshing.coordinates import coordinates, wall
from meshing.fibres import fibres
from meshing.laplace import trajectory_fraction
from meshing.mesh_labels import mesh_heart
from meshing.phantom import Ventricles
from meshing.segments import aha_segments
from twin.check_record import timed

EDGE_MM = 1.07
GOAL_S = 30.0
"""Mesh, fibres and coordinates of about a million tetrahedra on two cores (issue 5)."""
Found = TypeVar("Found")


def records(edge_mm: float = EDGE_MM, spacing_mm: float = 1.0) -> list[dict[str, Any]]:
    """The split of the time, s. References in the same run: a Delaunay tetrahedralisation of as many points for the mesh, the mesh's own
    functions for the coordinates, the goal for the whole."""
    mesh_heart(Ventricles(scale=0.5).volume(0.75), 1.5)  # compiles
    volume = Ventricles().volume(spacing_mm, scar=True)
    mesh, meshed = _timed(lambda: mesh_heart(volume, edge_mm))
    fields, walled = _timed(lambda: wall(mesh))
    _, fibred = _timed(lambda: fibres(mesh, None, fields))
    values, placed = _timed(lambda: coordinates(mesh, fields))
    _, divided = _timed(lambda: aha_segments(values))
    _, delaunay = _timed(lambda: Delaunay(np.random.default_rng(0).random((mesh.n_points, 3))))
    base = mesh.surface_nodes("base")
    _, own = _timed(lambda: trajectory_fraction(fields.elements, fields.apex_base, fields.apex_nodes, base, multigrid=True))
    whole = meshed + walled + fibred + placed + divided
    size = f"{len(mesh.tets) / 1e6:.1f}M"
    return [
        _record(f"meshing/mesh/{size}", meshed, delaunay),
        _record(f"meshing/fields/{size}", walled, delaunay),
        _record(f"meshing/fibres/{size}", fibred, delaunay),
        _record(f"meshing/coordinates/{size}", placed, own),
        _record(f"meshing/all/{size}", whole, GOAL_S),
    ]


def _timed(work: Callable[[], Found]) -> tuple[Found, float]:
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


def _record(name: str, value: float, reference: float) -> dict[str, Any]:
    return timed(name, value, "s", reference)
