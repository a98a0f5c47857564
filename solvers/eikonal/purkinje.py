"""Fast endocardial conduction: what the Purkinje network does to arrival, without its branches.

Two forms: a sheet of surface elements that carries the wave along the endocardium, or a layer of muscle in which it runs faster. Either
goes into `EikonalForward(mesh, layer)`; where and when the network is entered are sources with delays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.coordinates import has_rv
from meshing.sites import conducting_nodes
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.params import Param

Array = NDArray[np.float64]

_TWIN = "Gillette 2021 (doi 10.1016/j.media.2021.102080) and Lee 2019 (doi 10.1016/j.media.2019.06.017); as remembered, not read for this"
SHEET_SPEED = Param(
    2.0, "m/s", 1.0, 4.0, "Purkinje fibres conduct at 2-3 m/s and reach muscle at junctions (Kleber 2004, Physiol Rev 84:431)"
)
FACTOR = Param(4.0, "1", 2.0, 7.0, "velocity of a fast endocardial layer over muscle's in published twins, about 2 to 7: " + _TWIN)
THICKNESS = Param(
    1.0, "mm", 0.5, 3.0, "chosen here: junctions lie within a millimetre of the endocardium in man; at least an edge of the mesh"
)
REACH = Param(0.8, "1", 0.6, 1.0, "apicobasal extent of the network: the base is free of it, 0.7-0.8 in published twins: " + _TWIN)

_DURRER = "Durrer 1970, Circulation 41:899: earliest areas of seven isolated human hearts; place as we read the description"
LV_ANTERIOR = ((Param(0.8, "1", 0.65, 0.95, _DURRER), Param(0.75, "rad", 0.4, 1.4, _DURRER)), Param(0.0, "ms", 0.0, 5.0, _DURRER))
LV_SEPTAL = ((Param(0.5, "1", 0.35, 0.65, _DURRER), Param(0.0, "rad", -0.4, 0.4, _DURRER)), Param(0.0, "ms", 0.0, 5.0, _DURRER))
LV_POSTERIOR = ((Param(0.35, "1", 0.25, 0.45, _DURRER), Param(-1.0, "rad", -1.5, -0.5, _DURRER)), Param(0.0, "ms", 0.0, 5.0, _DURRER))
LV_SITES = {"anterior paraseptal": LV_ANTERIOR, "central septal": LV_SEPTAL, "posterior paraseptal": LV_POSTERIOR}
"""LV entries: apicobasal level and turn about the long axis (0 septum, pi/2 anterior), and time after the first."""
RV_LEVEL = Param(0.4, "1", 0.25, 0.6, _DURRER + ": RV wall near the anterior papillary muscle")
RV_DELAY = Param(7.5, "ms", 5.0, 10.0, _DURRER + ": 5 to 10 ms after the LV")


@dataclass(frozen=True)
class FastLayer:
    """Fast conduction: triangles (k, 3) of a sheet with speed_m_s (k,), or a velocity factor (m,) per tetrahedron; either may be empty."""

    triangles: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    speed_m_s: Array = field(default_factory=lambda: np.zeros(0))
    factor: Array = field(default_factory=lambda: np.zeros(0))


def sheet_layer(
    mesh: HeartMesh, surfaces: Sequence[str] = ("lv_endo", "rv_endo"), speed_m_s: float = float(SHEET_SPEED), reach: float = float(REACH)
) -> FastLayer:
    """Surface elements on the endocardium up to an apicobasal level; scar and lesions interrupt them when the solver is built."""
    faces = _faces(mesh, surfaces, reach)
    return FastLayer(triangles=faces, speed_m_s=np.full(len(faces), speed_m_s))


def thick_layer(
    mesh: HeartMesh,
    surfaces: Sequence[str] = ("lv_endo", "rv_endo"),
    factor: float = float(FACTOR),
    thickness_mm: float = float(THICKNESS),
    reach: float = float(REACH),
) -> FastLayer:
    """Velocity factor of healthy muscle whose centre lies within a thickness of the endocardium; elements that touch it always do."""
    nodes = np.unique(_faces(mesh, surfaces, reach))
    if not factor > 0:
        raise InputError("purkinje", "factor", "is not positive", "give a velocity factor above 0")
    if len(nodes) == 0:
        return FastLayer(factor=np.ones(len(mesh.tets)))
    away, _ = cKDTree(mesh.points_mm[nodes]).query(mesh.centroids_mm)
    touching = np.isin(mesh.tets, nodes).sum(axis=1) >= 3
    fast = ((away <= thickness_mm) | touching) & mesh.in_region("healthy")
    return FastLayer(factor=np.where(fast, factor, 1.0))


def _faces(mesh: HeartMesh, surfaces: Sequence[str], reach: float) -> NDArray[np.int32]:
    missing = [name for name in surfaces if name not in mesh.surfaces]
    if len(missing) == len(surfaces):
        raise InputError("purkinje", ", ".join(missing), "the mesh has no such surface", "name its endocardial surfaces")
    faces = np.concatenate([mesh.surfaces[name] for name in surfaces if name not in missing]).reshape(-1, 3)
    if "apicobasal" in mesh.coordinates:
        faces = faces[mesh.coordinates["apicobasal"][faces].mean(axis=1) <= reach]
    return np.ascontiguousarray(faces, np.int32)


def entry_sites(mesh: HeartMesh) -> tuple[NDArray[np.int32], Array]:
    """Where sinus rhythm enters the muscle and when: nodes (k,) and times (k,) ms from the first, after Durrer 1970.

    Three LV sites, and the RV free wall where there is one; a site in scar moves to the nearest conducting endocardium. Raises
    InputError for a mesh without coordinates or without conducting endocardium.
    """
    if "apicobasal" not in mesh.coordinates:
        raise InputError("mesh", "coordinates", "have not been computed", "pass it through meshing.anatomy.complete first")
    alive = conducting_nodes(mesh)
    level, turn = mesh.coordinates["apicobasal"], mesh.coordinates["rotational"]
    lv = mesh.surface_nodes("lv_endo")
    lv = lv[alive[lv]]
    if not len(lv):
        raise InputError("mesh", "lv_endo", "has no conducting node", "check scar and lesions")
    nodes, times = [], []
    for (wanted_level, wanted_turn), delay in LV_SITES.values():
        off = np.hypot(level[lv] - float(wanted_level), np.angle(np.exp(1j * (turn[lv] - float(wanted_turn)))) / 3.0)
        nodes.append(int(lv[np.argmin(off)]))
        times.append(float(delay))
    if has_rv(mesh):
        rv = mesh.surface_nodes("rv_endo")
        wall = rv[alive[rv] & (mesh.coordinates["transventricular"][rv] > 0.5)]
        if len(wall):
            middle = np.quantile(turn[wall], 0.5)
            spread = max(float(np.ptp(turn[wall])), 1e-9)
            nodes.append(int(wall[np.argmin(np.hypot(level[wall] - float(RV_LEVEL), (turn[wall] - middle) / spread))]))
            times.append(float(RV_DELAY))
    return np.array(nodes, np.int32), np.array(times)
