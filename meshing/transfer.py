"""From one heart to another through ventricular coordinates: places, maps and plans.

In either ventricle the three coordinates are drawn as one space that has no seam and no pole: depth, and the polar picture of the wall
(apex in the middle, base on the rim, the rotational coordinate as angle). There a tetrahedron stays one, so that coordinates of a place
and the place of coordinates are the same linear interpolation, read in two directions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from meshing.locate import interpolate, locate
from twin.errors import InputError
from twin.mesh import HeartMesh

Coordinates = Mapping[str, NDArray[np.float64]]

DEPTH_SCALE, POLAR_SCALE = 12.0, 90.0
"""About a wall's thickness and a ventricle's length in mm, so that near in this space is near in the heart."""


def _drawn(coordinates: Coordinates) -> NDArray[np.float64]:
    """Coordinates (k,) each as places (k, 3) of the space described above."""
    radius, angle = POLAR_SCALE * coordinates["apicobasal"], coordinates["rotational"]
    return np.stack([DEPTH_SCALE * coordinates["transmural"], radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _read(drawn: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    return {
        "apicobasal": np.hypot(drawn[:, 1], drawn[:, 2]) / POLAR_SCALE,
        "transmural": drawn[:, 0] / DEPTH_SCALE,
        "rotational": np.arctan2(drawn[:, 2], drawn[:, 1]),
        "transventricular": right.astype(np.float64),
    }


def _of(mesh: HeartMesh, coordinates: Coordinates | None) -> Coordinates:
    found = mesh.coordinates if coordinates is None else coordinates
    missing = {"apicobasal", "transmural", "rotational", "transventricular"} - set(found)
    if missing:
        raise InputError("mesh", f"coordinates.{min(missing)}", "has not been computed", "pass it through meshing.anatomy.complete first")
    return found


def coordinates_at(
    mesh: HeartMesh, places_mm: NDArray[np.float64], coordinates: Coordinates | None = None
) -> dict[str, NDArray[np.float64]]:
    """Ventricular coordinates of places (k, 3) mm, each (k,); a place outside the muscle gets those of the muscle near it.

    coordinates: those of the mesh if None, or others of the same names (`meshing.cobiveco`). Raises InputError if there are none.
    """
    own = _of(mesh, coordinates)
    where = locate(mesh.points_mm, mesh.tets, np.asarray(places_mm, float))
    right = interpolate(own["transventricular"], mesh.tets, where) > 0.5
    return _read(interpolate(_drawn(own), mesh.tets, where), right)


def places_of(mesh: HeartMesh, wanted: Coordinates, coordinates: Coordinates | None = None) -> NDArray[np.float64]:
    """Places (k, 3) mm in the muscle that have the `wanted` coordinates (k,) each: the inverse of `coordinates_at`."""
    own = _of(mesh, coordinates)
    drawn, target = _drawn(own), _drawn(wanted)
    right_nodes, right = own["transventricular"] > 0.5, wanted["transventricular"] > 0.5
    if not right_nodes.any():
        right = np.zeros(len(target), bool)  # a left ventricle alone: what lay in the right free wall goes to the septum's side
    out = np.empty((len(target), 3))
    for side in (False, True):
        ask = np.flatnonzero(right == side)
        if len(ask):
            beside = (right_nodes == side)[mesh.tets].any(axis=1)
            out[ask] = interpolate(mesh.points_mm, mesh.tets, locate(drawn, mesh.tets, target[ask], beside))
    return out


def transfer_places(source: HeartMesh, target: HeartMesh, places_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where places (k, 3) mm of one heart (sites, lesions, the points of a map) lie in another, (k, 3) mm."""
    return places_of(target, coordinates_at(source, places_mm))


def transfer_values(source: HeartMesh, target: HeartMesh, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nodal values (n,) or (n, c) of one heart on the nodes of another. NaN spreads to places whose tetrahedron has one."""
    places = places_of(source, _of(target, None))
    return interpolate(values, source.tets, locate(source.points_mm, source.tets, places))
