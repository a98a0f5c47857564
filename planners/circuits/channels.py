"""Potential channels: conducting tissue between dense scar, found from geometry and conduction alone, whether or not a run used it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from planners.circuits.isthmus import segment_at
from planners.circuits.sections import face_pairs
from twin.mesh import WALLS, HeartMesh
from twin.params import Param
from twin.plan import Circuit
from twin.tissue import Velocity

REACH = Param(6.0, "mm", 4.0, 8.0, "chosen here: tissue that lies within this of scar on both sides is a channel, so up to 12 mm wide")
LEAST_MM3 = 60.0
"""Smaller pockets are the ragged edge of a meshed scar."""

MOUTH_MM = 8.0
"""Two openings nearer to each other than this are one."""

USED_MM = 6.0
"""A circuit's isthmus whose middle is this near to a channel's tissue runs through it."""


@dataclass(frozen=True)
class Channel:
    """tets (k,): its tetrahedra; mouths: for each opening into other tissue the tetrahedra (of the channel) that touch it; line_mm (p, 3):
    from one mouth to the farthest other; length, width mm (volume over length and wall thickness); transit_ms along it.
    """

    tets: NDArray[np.int64]
    mouths: tuple[NDArray[np.int64], ...]
    line_mm: NDArray[np.float64]
    length_mm: float
    width_mm: float
    transit_ms: float

    @property
    def open(self) -> bool:
        """True if it has an entrance and an exit; a blind alley carries no reentry."""
        return len(self.mouths) > 1


def between_scar(mesh: HeartMesh) -> NDArray[np.bool_]:
    """Conducting tetrahedra between dense scar, (m,) bool: the morphological closing of the scar, without the scar."""
    scar, alive = mesh.in_region("scar"), mesh.conducting()
    out = np.zeros(len(mesh.tets), bool)
    if not scar.any() or not alive.any():
        return out
    centres = mesh.centroids_mm
    reach = float(REACH)
    ids = np.flatnonzero(alive)
    near = np.asarray(cKDTree(centres[scar]).query(centres[ids], distance_upper_bound=reach)[0])
    far = ids[~np.isfinite(near)]
    close = ids[np.isfinite(near)]
    if not len(far) or not len(close):
        return out
    # a little less than the reach: tetrahedra are not points
    back = np.asarray(cKDTree(centres[far]).query(centres[close])[0])
    out[close[back > reach + 0.5]] = True
    return out


def find_channels(mesh: HeartMesh, velocities: Mapping[str, Velocity]) -> list[Channel]:
    """Every channel of the heart, open and blind, largest first."""
    inside = between_scar(mesh)
    ids = np.flatnonzero(inside)
    if not len(ids):
        return []
    pairs = face_pairs(mesh.tets)
    alive = mesh.conducting()
    own = pairs[inside[pairs].all(axis=1)]
    label = _components(len(mesh.tets), own)
    edge = pairs[(inside[pairs[:, 0]] ^ inside[pairs[:, 1]]) & alive[pairs].all(axis=1)]
    border = np.unique(np.where(inside[edge[:, 0]], edge[:, 0], edge[:, 1]))
    found = []
    for name in np.unique(label[ids]):
        mine = ids[label[ids] == name]
        if mesh.tet_volumes_mm3[mine].sum() < LEAST_MM3:
            continue
        found.append(_channel(mesh, mine, _mouths(mesh, border[label[border] == name]), own, velocities))
    return sorted(found, key=lambda c: (-len(c.tets), int(c.tets[0])))


def _components(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    graph = sp.coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1])


def _mouths(mesh: HeartMesh, border: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Openings: the border tetrahedra in groups that lie apart; one by itself is noise."""
    if not len(border):
        return ()
    close = cKDTree(mesh.centroids_mm[border]).query_pairs(MOUTH_MM / 2, output_type="ndarray")
    label = _components(len(border), close.astype(np.int64))
    groups = [border[label == k] for k in range(int(label.max()) + 1)]
    return tuple(g for g in groups if len(g) > 2)


def _channel(
    mesh: HeartMesh,
    tets: NDArray[np.int64],
    mouths: tuple[NDArray[np.int64], ...],
    pairs: NDArray[np.int64],
    velocities: Mapping[str, Velocity],
) -> Channel:
    """Its line by the shortest way through tetrahedra from the largest mouth to the farthest one (or the dead end)."""
    local = np.full(len(mesh.tets), -1, np.int64)
    local[tets] = np.arange(len(tets))
    own = local[pairs[(local[pairs] >= 0).all(axis=1)]]
    centres = mesh.centroids_mm[tets]
    step = np.linalg.norm(centres[own[:, 0]] - centres[own[:, 1]], axis=1)
    graph: Any = sp.coo_array((step, (own[:, 0], own[:, 1])), shape=(len(tets), len(tets))).tocsr()
    start = local[mouths[0]] if mouths else np.zeros(1, np.int64)
    first = int(start[np.linalg.norm(centres[start] - centres[start].mean(axis=0), axis=1).argmin()])
    found: Any = dijkstra(graph, directed=False, indices=[first], return_predecessors=True)
    away, before = np.where(np.isfinite(found[0][0]), found[0][0], -1.0), found[1][0]
    goals = [int(g[np.argmin(np.linalg.norm(centres[g] - centres[g].mean(axis=0), axis=1))]) for g in (local[m] for m in mouths[1:])]
    last = max(goals, key=lambda g: float(away[g])) if goals else int(away.argmax())
    way = [last]
    while way[-1] != first and before[way[-1]] >= 0:
        way.append(int(before[way[-1]]))
    line = centres[way[::-1]]
    line = line[np.unique(np.linspace(0, len(line) - 1, max(2, len(line) // 3)).astype(int))]
    length = max(float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum()), 1e-6)
    volume = float(mesh.tet_volumes_mm3[tets].sum())
    wall = _thickness(mesh, centres)
    sick = mesh.in_region("border_zone", "isthmus")[tets].mean() > 0.5
    speed = velocities.get("isthmus", velocities.get("border_zone")) if sick else velocities.get("healthy")
    transit = length / speed.longitudinal_m_s if speed else float("nan")
    return Channel(tets, mouths, line, length, volume / (length * wall), transit)


def _thickness(mesh: HeartMesh, points_mm: NDArray[np.float64]) -> float:
    """Mean wall thickness there: the two smallest distances to different surfaces added up; the mesh's own extent without surfaces."""
    names = [n for n in WALLS if len(mesh.surfaces.get(n, ()))]
    if len(names) < 2:
        return max(float(np.ptp(points_mm, axis=0).min()), 1.0)
    gaps = np.stack([np.asarray(cKDTree(mesh.points_mm[mesh.surface_nodes(n)]).query(points_mm)[0]) for n in names])
    return max(float(np.sort(gaps, axis=0)[:2].sum(axis=0).mean()), 1.0)


def potential_channels(mesh: HeartMesh, velocities: Mapping[str, Velocity], circuits: Sequence[Circuit]) -> list[dict[str, object]]:
    """For plan.json: every channel, with the circuits whose isthmus runs through it (none: no run used it)."""
    out: list[dict[str, object]] = []
    for k, channel in enumerate(find_channels(mesh, velocities)):
        tree = cKDTree(mesh.centroids_mm[channel.tets])
        used = [c.id for c in circuits if float(tree.query(np.asarray(c.isthmus_mm)[len(c.isthmus_mm) // 2])[0]) <= USED_MM]
        middle = channel.line_mm[len(channel.line_mm) // 2]
        out.append(
            {
                "id": f"C{k + 1}",
                "open": channel.open,
                "used_by": used,
                "line_mm": np.round(channel.line_mm, 2).tolist(),
                "length_mm": round(channel.length_mm, 1),
                "width_mm": round(channel.width_mm, 1),
                "transit_ms": round(channel.transit_ms, 1),
                "segment": segment_at(mesh, middle),
            }
        )
    return out
