"""Isthmus transection: the minimum cut of the channel's conducting tissue, made by a row of lesions from a surface in reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from meshing import p1
from planners.circuits.sections import Sections
from planners.lesions.gaps import Shape
from planners.lesions.geometry import SPACING, Access, LesionMaker
from planners.lesions.mincut import minimum_vertex_cut
from twin.mesh import HeartMesh
from twin.model import Twin
from twin.params import Param
from twin.plan import Circuit, PlanRequest, Target

OUT_OF_REACH = Param(
    20.0, "", 5.0, 100.0, "how much dearer tissue is that no lesion reaches: our choice, so that the cut keeps to where it can be made"
)
HEALTHY = Param(2.0, "", 1.0, 5.0, "how much dearer healthy tissue is than surviving tissue of the scar: our choice")
STEP_MM, END_MM, MOST_ADDED = 1.0, 3.0, 12


@dataclass(frozen=True)
class Channel:
    """Conducting nodes of an isthmus as a graph: edges (e, 2) and cost (k,) by local number, source and sink (k,) bool; nodes (k,)."""

    nodes: NDArray[np.int64]
    tets: NDArray[np.int64]
    edges: NDArray[np.int64]
    source: NDArray[np.bool_]
    sink: NDArray[np.bool_]


class IsthmusTransection:
    """One row of lesions across the isthmus of each circuit."""

    name = "isthmus_transection"

    def available(self, twin: Twin, request: PlanRequest) -> str:
        """Always: where the cut cannot be made from the surfaces allowed, the targets say what remains."""
        return ""

    def propose(
        self, twin: Twin, circuits: Sequence[Circuit], request: PlanRequest, maker: LesionMaker, made: Sequence[Target]
    ) -> list[Target]:
        """Targets for the circuits whose isthmus the lesions already made do not separate."""
        surfaces = maker.surfaces(request.access)
        sections = Sections(twin.mesh)
        targets = list(made)
        for circuit in circuits:
            channel = channel_of(twin.mesh, sections, circuit)
            if channel is None or not surfaces:
                continue
            new = _transect(twin.mesh, channel, circuit, surfaces, request, maker, maker.shapes(targets))
            targets = targets + new if new else _shared(targets, len(made), circuit)
        return targets[len(made) :]


def _shared(targets: list[Target], made: int, circuit: Circuit) -> list[Target]:
    """A circuit that an earlier row of this proposal has cut too is named with the nearest of them."""
    if len(targets) == made:
        return targets
    gap = [np.linalg.norm(np.asarray(t.positions_mm)[:, None] - np.asarray(circuit.isthmus_mm), axis=2).min() for t in targets[made:]]
    k = made + int(np.argmin(gap))
    return [*targets[:k], replace(targets[k], circuits=(*targets[k].circuits, circuit.id)), *targets[k + 1 :]]


def channel_of(mesh: HeartMesh, sections: Sections, circuit: Circuit) -> Channel | None:
    """The isthmus as a graph from its entrance (source) to its exit (sink); None if it is too short to have two ends."""
    axis = _resampled(np.asarray(circuit.isthmus_mm, float))
    tangent = np.gradient(axis, axis=0) if len(axis) > 1 else np.zeros_like(axis)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    cuts = [sections.cut(p, t) for p, t in zip(axis, tangent, strict=True)]
    parts = [cut.tets for cut in cuts if cut is not None]
    if len(parts) < 2 * END_MM / STEP_MM + 1:
        return None
    ends = max(1, round(END_MM / STEP_MM))
    tets = np.unique(np.concatenate(parts))
    nodes, local = np.unique(mesh.tets[tets], return_inverse=True)
    local = local.reshape(-1, 4)
    pairs = np.concatenate([local[:, [a, b]] for a in range(4) for b in range(a + 1, 4)])
    edges = np.unique(np.sort(pairs, axis=1), axis=0)
    source, sink = (np.isin(nodes, mesh.tets[np.unique(np.concatenate(part))]) for part in (parts[:ends], parts[-ends:]))
    return Channel(nodes.astype(np.int64), tets, edges.astype(np.int64), source & ~sink, sink & ~source)


def _resampled(line_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line_mm, axis=0), axis=1))])
    at = np.linspace(0.0, arc[-1], max(2, round(arc[-1] / STEP_MM) + 1))
    return np.stack([np.interp(at, arc, line_mm[:, i]) for i in range(3)], axis=1)


def _transect(
    mesh: HeartMesh,
    channel: Channel,
    circuit: Circuit,
    surfaces: Sequence[Access],
    request: PlanRequest,
    maker: LesionMaker,
    made: Sequence[Shape],
) -> list[Target]:
    """Lay a row over the minimum cut; where the channel still leaks, cut again and add single lesions; report what is out of reach."""
    cost = _costs(mesh, channel, surfaces, request)
    shapes, blocked = list(made), maker.taken(made)
    spots: list[tuple[Access, int]] = []
    bridge = False
    for _ in range(MOST_ADDED):
        cut = _cut(mesh, channel, cost, blocked)
        if cut is None or not len(cut):
            bridge = cut is None
            break
        new = _row(mesh, cut, surfaces, request) if not spots else _best_single(mesh, maker, channel, cut, surfaces, request, blocked)
        if not new:
            bridge = True
            break
        spots += new
        shapes += [maker.shape(access, index, request.lesion_radius_mm, request.lesion_depth_mm) for access, index in new]
        blocked = maker.taken(shapes)
    else:
        bridge = True
    return [t for access in surfaces if (t := _target(access, spots, circuit, request, bridge))]


def _costs(mesh: HeartMesh, channel: Channel, surfaces: Sequence[Access], request: PlanRequest) -> NDArray[np.int64]:
    """Cost of each node as whole uL of tissue, dearer where it is healthy or out of reach."""
    volume = p1.lumped_mass(mesh.points_mm, mesh.tets[mesh.conducting()])[channel.nodes]
    healthy = np.ones(mesh.n_points, bool)
    healthy[mesh.tets[mesh.in_region("border_zone", "isthmus")].ravel()] = False
    depth = np.min(np.stack([access.distance_mm(mesh.points_mm[channel.nodes]) for access in surfaces]), axis=0)
    price = np.where(healthy[channel.nodes], float(HEALTHY), 1.0) * np.where(depth > request.lesion_depth_mm, float(OUT_OF_REACH), 1.0)
    return np.maximum(1, np.rint(100.0 * volume * price)).astype(np.int64)


def _alive(mesh: HeartMesh, channel: Channel, blocked: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Nodes of the channel that still touch conducting tissue, and the edges that are left."""
    local = np.searchsorted(channel.nodes, mesh.tets[channel.tets[~blocked[channel.tets]]])
    alive = np.zeros(len(channel.nodes), bool)
    alive[local.ravel()] = True
    pairs = np.concatenate([local[:, [a, b]] for a in range(4) for b in range(a + 1, 4)])
    return alive, np.unique(np.sort(pairs, axis=1), axis=0)


def separated(mesh: HeartMesh, channel: Channel, blocked: NDArray[np.bool_]) -> bool:
    """True if no conducting path is left through the channel from its entrance to its exit."""
    alive, edges = _alive(mesh, channel, blocked)
    n = len(channel.nodes)
    graph = sp.coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    return not np.intersect1d(label[alive & channel.source], label[alive & channel.sink]).size


def _cut(mesh: HeartMesh, channel: Channel, cost: NDArray[np.int64], blocked: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Mesh nodes of the minimum cut of what still conducts; empty if the channel is separated, None if it cannot be cut."""
    if separated(mesh, channel, blocked):
        return np.zeros(0, np.int64)
    alive, edges = _alive(mesh, channel, blocked)
    cut = minimum_vertex_cut(edges, cost, channel.source & alive, channel.sink & alive)
    return None if cut is None else channel.nodes[cut]


def _row(mesh: HeartMesh, cut: NDArray[np.int64], surfaces: Sequence[Access], request: PlanRequest) -> list[tuple[Access, int]]:
    """Lesions along the cut on the surface that reaches most of it, at most SPACING apart, the outermost half a radius inside its ends."""
    points = mesh.points_mm[cut]

    def missed(access: Access) -> float:
        return float((access.distance_mm(points) > request.lesion_depth_mm).mean())

    access = min(surfaces, key=missed)
    foot = access.points_mm[access.place(points)]
    centre = foot.mean(axis=0)
    _, _, axes = np.linalg.svd(foot - centre, full_matrices=False)
    along = (foot - centre) @ axes[0]
    low, high = float(along.min()) + request.lesion_radius_mm / 2, float(along.max()) - request.lesion_radius_mm / 2
    if high <= low:
        low = high = float(along.min() + along.max()) / 2
    spacing = min(float(SPACING), 1.25 * request.lesion_radius_mm)
    stations = np.linspace(low, high, int(np.ceil((high - low) / spacing - 1e-9)) + 1)
    return [(access, int(i)) for i in dict.fromkeys(access.place(centre + stations[:, None] * axes[0]).tolist())]


def _best_single(
    mesh: HeartMesh,
    maker: LesionMaker,
    channel: Channel,
    cut: NDArray[np.int64],
    surfaces: Sequence[Access],
    request: PlanRequest,
    blocked: NDArray[np.bool_],
) -> list[tuple[Access, int]]:
    """The one lesion that takes most of the tissue around the nodes of a cut; empty if none takes any."""
    around = channel.tets[np.isin(mesh.tets[channel.tets], cut).any(axis=1)]
    wanted = np.zeros(len(mesh.tets), bool)
    wanted[around] = True
    wanted &= ~blocked
    best: tuple[float, Access, int] | None = None
    for access in surfaces:
        for index in sorted(set(access.place(mesh.points_mm[cut]).tolist())):
            tets = maker.within(maker.shape(access, index, request.lesion_radius_mm, request.lesion_depth_mm))
            gain = float(maker.volumes_mm3[tets[wanted[tets]]].sum())
            if gain > 0 and (best is None or gain > best[0] + 1e-9):
                best = (gain, access, index)
    return [] if best is None else [(best[1], best[2])]


def _target(access: Access, spots: list[tuple[Access, int]], circuit: Circuit, request: PlanRequest, bridge: bool) -> Target | None:
    positions = [np.round(access.points_mm[index], 3).tolist() for owner, index in spots if owner is access]
    if not positions:
        return None
    why = f"transects the isthmus of {circuit.id} ({circuit.isthmus_width_mm:.0f} mm wide) at its smallest cut"
    if bridge:
        why += f"; a bridge beyond {request.lesion_depth_mm:g} mm of depth remains"
    target = Target("", positions, access.name, request.lesion_radius_mm, request.lesion_depth_mm, 0, why)
    return replace(target, circuits=(circuit.id,))
