"""The critical isthmus: where on its loop the wave has the least tissue to pass through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing import p1
from planners.circuits.sections import Section, Sections
from twin.mesh import HeartMesh
from twin.params import Param

WIDENING = Param(
    2.5, "", 1.5, 4.0, "an isthmus ends where its cross-section exceeds this many times its narrowest: our choice, the mouth of the funnel"
)
SICK_SHARE = 0.5
"""An isthmus also ends where less than this share of its cross-section is surviving tissue of the scar."""

LEAST_MM2 = 2.0
"""No wave passes a cross-section smaller than this: strands of about 1 mm do not conduct, and a ragged edge of the scar has slivers."""

LONGEST_MM = 60.0
STEP_MM = 1.5


@dataclass(frozen=True)
class Isthmus:
    """path_mm (k, 3): its axis in the direction of the wave; exit_mm: where the wave reaches healthy tissue; sections: one per point."""

    path_mm: NDArray[np.float64]
    exit_mm: NDArray[np.float64]
    narrowest: Section
    sections: tuple[Section, ...]
    length_mm: float
    velocity_m_s: float

    @property
    def centre_mm(self) -> NDArray[np.float64]:
        """Its middle, (3,) mm."""
        return self.path_mm[len(self.path_mm) // 2]


def sick_nodes(mesh: HeartMesh) -> NDArray[np.bool_]:
    """Nodes that touch surviving tissue of the scar (border zone or isthmus), (n,) bool."""
    sick = np.zeros(mesh.n_points, bool)
    sick[mesh.tets[mesh.in_region("border_zone", "isthmus")].ravel()] = True
    return sick


def wall_direction(mesh: HeartMesh) -> NDArray[np.float64] | None:
    """Unit vector from endocardium to epicardium at each node, (n, 3); None if the mesh has no transmural coordinate."""
    if "transmural" not in mesh.coordinates:
        return None
    gradient, volume = p1.gradients(mesh.points_mm, mesh.tets)
    slope = np.einsum("mai,ma->mi", gradient, mesh.coordinates["transmural"][mesh.tets])
    nodal = p1.nodal_mean(slope, mesh.tets, volume, mesh.n_points)
    return nodal / np.maximum(np.linalg.norm(nodal, axis=1, keepdims=True), 1e-12)


def smooth_closed(path_mm: NDArray[np.float64], step_mm: float, sigma_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Resample a closed polyline (its last point joins its first) about every `step_mm` and smooth it.

    Returns points (k, 3) mm and the (fractional) index of each along the input.
    """
    closed = np.concatenate([path_mm, path_mm[:1]])
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    count = max(8, round(arc[-1] / step_mm))
    at = np.arange(count) * arc[-1] / count
    points = np.stack([np.interp(at, arc, closed[:, i]) for i in range(3)], axis=1)
    reach = np.arange(count)
    gap = np.minimum(reach, count - reach) * arc[-1] / count
    kernel = np.exp(-0.5 * (gap / sigma_mm) ** 2)
    transform = np.fft.rfft(kernel / kernel.sum())[:, None] * np.fft.rfft(points, axis=0)
    index = np.interp(at, arc, np.arange(len(closed), dtype=float))
    return np.fft.irfft(transform, n=count, axis=0), index


def find_isthmus(
    mesh: HeartMesh,
    sections: Sections,
    wall: NDArray[np.float64] | None,
    path_mm: NDArray[np.float64],
    time_ms: NDArray[np.float64],
    cycle_ms: float,
) -> Isthmus | None:
    """Find the isthmus of a closed, evenly spaced path (k, 3) passed at time_ms (k,); None if no tissue is cut anywhere.

    wall (n, 3): direction through the wall at the nodes, or None. Surviving tissue of the scar is preferred; a loop that has none
    (round a hole) gets its narrowest place.
    """
    node = np.asarray(cKDTree(mesh.points_mm).query(path_mm)[1], np.int64)
    sick = sick_nodes(mesh)[node]
    step = float(np.linalg.norm(np.diff(path_mm, axis=0), axis=1).mean())
    reach = max(1, round(3.0 / step))
    tangent = np.roll(path_mm, -reach, axis=0) - np.roll(path_mm, reach, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    wanted = sick if sick.any() else np.ones(len(path_mm), bool)
    cuts = {
        int(i): cut
        for i in np.flatnonzero(wanted)
        if (cut := sections.cut(path_mm[i], tangent[i], None if wall is None else wall[node[i]]))
    }
    if not cuts:
        return None
    wide = {i: cut for i, cut in cuts.items() if cut.area_mm2 >= LEAST_MM2} or cuts
    at = min(wide, key=lambda i: (wide[i].area_mm2, i))
    tube = Tube(mesh, sections, wall, bool(sick.any()), float(WIDENING) * cuts[at].area_mm2)
    axis = tube.both_ways(cuts[at], tangent[at])
    path = np.array([cut.centre_mm for cut in axis])
    entrance, leave = (int(np.linalg.norm(path_mm - end, axis=1).argmin()) for end in (path[0], path[-1]))
    length = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    span = float(time_ms[leave] - time_ms[entrance]) % cycle_ms
    return Isthmus(
        path_mm=path,
        exit_mm=_healthy_ahead(mesh, sick_nodes(mesh), path[-1], path[max(0, len(path) - 4)]),
        narrowest=min(axis, key=lambda cut: cut.area_mm2),
        sections=tuple(axis),
        length_mm=length,
        velocity_m_s=length / span if span > 0 else 0.0,
    )


class Tube:
    """Follows a channel of conducting tissue from one cross-section to the next, centring each."""

    def __init__(self, mesh: HeartMesh, sections: Sections, wall: NDArray[np.float64] | None, in_scar: bool, largest_mm2: float) -> None:
        self.sections, self.wall, self.in_scar, self.largest_mm2 = sections, wall, in_scar, largest_mm2
        self.sick = mesh.in_region("border_zone", "isthmus")
        self.tree = cKDTree(mesh.points_mm) if wall is not None else None

    def both_ways(self, start: Section, direction: NDArray[np.float64]) -> list[Section]:
        """Cross-sections from the upstream end of the channel to its downstream end."""
        return [*self._follow(start, -direction)[::-1], start, *self._follow(start, direction)]

    def _follow(self, start: Section, direction: NDArray[np.float64]) -> list[Section]:
        trail, out = [start.centre_mm], []
        for _ in range(round(LONGEST_MM / STEP_MM)):
            place = trail[-1] + STEP_MM * direction
            wall = None if self.wall is None or self.tree is None else self.wall[self.tree.query(place)[1]]
            cut = self.sections.cut(place, direction, wall)
            if cut is None or not self._inside(cut) or np.linalg.norm(cut.centre_mm - trail[-1]) > 4 * STEP_MM:
                break
            trail.append(cut.centre_mm)
            out.append(cut)
            chord = trail[-1] - trail[max(0, len(trail) - 4)]
            # half the old direction: a single ragged cut must not turn the next one
            direction = direction + chord / max(float(np.linalg.norm(chord)), 1e-9)
            direction = direction / np.linalg.norm(direction)
        return out

    def _inside(self, cut: Section) -> bool:
        narrow = cut.area_mm2 <= self.largest_mm2
        return narrow and (not self.in_scar or float(self.sick[cut.tets].mean()) >= SICK_SHARE)


def _healthy_ahead(
    mesh: HeartMesh, sick: NDArray[np.bool_], end_mm: NDArray[np.float64], before_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The healthy conducting node nearest to just beyond the end of the isthmus; the end itself if the loop has no scar tissue."""
    alive = np.zeros(mesh.n_points, bool)
    alive[mesh.tets[mesh.conducting()].ravel()] = True
    healthy = np.flatnonzero(alive & ~sick)
    if not sick.any() or not len(healthy):
        return end_mm
    ahead = end_mm - before_mm
    ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-9)
    return mesh.points_mm[healthy[int(cKDTree(mesh.points_mm[healthy]).query(end_mm + 2 * STEP_MM * ahead)[1])]]


def depth_name(mesh: HeartMesh, section: Section) -> str:
    """endo, mid, epi or transmural, from the transmural coordinate of the narrowest section's tissue."""
    if "transmural" not in mesh.coordinates:
        return "unknown"
    depth = mesh.coordinates["transmural"][mesh.tets[section.tets]].mean(axis=1)
    low, middle, high = np.percentile(depth, [5, 50, 95])
    if low < 1 / 4 and high > 3 / 4:
        return "transmural"
    return "endo" if middle < 1 / 3 else "epi" if middle > 2 / 3 else "mid"


def segment_at(mesh: HeartMesh, point_mm: NDArray[np.float64]) -> int:
    """AHA segment of the nearest node that has one, 0 if there are none within 15 mm (right ventricle)."""
    if not len(mesh.aha_segment):
        return 0
    named = np.flatnonzero(mesh.aha_segment > 0)
    if not len(named):
        return 0
    distance = np.linalg.norm(mesh.points_mm[named] - point_mm, axis=1)
    nearest = int(distance.argmin())
    return int(mesh.aha_segment[named[nearest]]) if distance[nearest] < 15.0 else 0
