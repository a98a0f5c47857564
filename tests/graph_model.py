"""A re-excitable wave on the edges of a mesh: the smallest model that pacing and circuits can be tested on, in plain Python."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from meshing.box import box_mesh
from twin.experiment import Activations
from twin.mesh import HeartMesh


@dataclass(frozen=True)
class GraphState:
    ready_ms: np.ndarray
    pending: tuple


@dataclass(frozen=True)
class GraphLog:
    """Fronts that meet unrecovered nodes are not counted, so every run may have some."""

    activations: Activations
    parent_node: np.ndarray
    blocked: int = 1
    waited: int = 0
    quiet: bool = False


class GraphModel:
    """Fires a node when a neighbour's wave arrives and it has recovered; edges pass in length / speed of the slower end."""

    def __init__(self, mesh: HeartMesh, speed_m_s, erp_ms):
        self.mesh, self.erp = mesh, np.broadcast_to(np.asarray(erp_ms, float), (mesh.n_points,))
        speed = np.broadcast_to(np.asarray(speed_m_s, float), (mesh.n_points,))
        tets = mesh.tets[mesh.conducting()]
        edges = np.unique(np.sort(np.concatenate([tets[:, [a, b]] for a in range(4) for b in range(a + 1, 4)]), axis=1), axis=0)
        length = np.linalg.norm(mesh.points_mm[edges[:, 0]] - mesh.points_mm[edges[:, 1]], axis=1)
        delay = length / np.minimum(speed[edges[:, 0]], speed[edges[:, 1]])
        self.near = [[] for _ in range(mesh.n_points)]
        for (a, b), d in zip(edges.tolist(), delay.tolist(), strict=True):
            self.near[a].append((b, d))
            self.near[b].append((a, d))

    def rest(self):
        return GraphState(np.full(self.mesh.n_points, -np.inf), ())

    def run(self, state, stimuli, until_ms):
        ready = state.ready_ms.copy()
        heap = [(t, n, p, -2) for t, n, p, _ in state.pending] + [(float(t), int(n), -1, -1) for t, nodes in stimuli for n in nodes]
        heapq.heapify(heap)
        rows = []
        while heap and heap[0][0] <= until_ms:
            time, node, parent, row = heapq.heappop(heap)
            if time < ready[node] or not self.near[node]:
                continue
            ready[node] = time + self.erp[node]
            for other, delay in self.near[node]:
                heapq.heappush(heap, (time + delay, other, node, len(rows)))
            rows.append((node, time, ready[node], parent, row))
        node, time, recovery, parent, row = (np.array(c) for c in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 5
        log = Activations(node.astype(np.int32), time.astype(float), recovery.astype(float), row.astype(np.int32))
        return GraphState(ready, tuple(heap)), GraphLog(log, parent.astype(np.int64))


def scar_slab(spacing_mm: float = 2.0, isthmus=True, size=(76.0, 60.0, 4.0)) -> HeartMesh:
    """A plate with a scar at 22 < x < 54, 10 < y < 50, crossed along x by an isthmus at 26 < y < 34; endo at z = 0, epi above."""
    mesh = box_mesh(size, spacing_mm)
    x, y, _ = mesh.centroids_mm.T
    inside = (x > 22) & (x < 54) & (y > 10) & (y < 50)
    channel = inside & (y > 26) & (y < 34)
    mesh = mesh.with_region(inside & ~channel if isthmus else inside, "scar")
    if isthmus:
        mesh = mesh.with_region(channel, "isthmus")
    z = mesh.points_mm[:, 2]
    return HeartMesh(
        mesh.points_mm,
        mesh.tets,
        mesh.region,
        {"lv_endo": _flat_faces(mesh, 0.0), "epi": _flat_faces(mesh, size[2])},
        mesh.fibre,
        mesh.sheet,
        coordinates={"transmural": z / size[2]},
        aha_segment=np.where(mesh.points_mm[:, 0] < size[0] / 2, 7, 12).astype(np.int16),
    )


def _flat_faces(mesh: HeartMesh, z_mm: float) -> np.ndarray:
    """Triangles of the boundary at one height, normals outward."""
    faces = np.concatenate([mesh.tets[:, f] for f in ([1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1])])
    flat = faces[(np.abs(mesh.points_mm[faces][:, :, 2] - z_mm) < 1e-9).all(axis=1)]
    p = mesh.points_mm[flat]
    up = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])[:, 2]
    wrong = (up > 0) != (z_mm > 0)
    flat[wrong] = flat[wrong][:, ::-1]
    return flat.astype(np.int32)


def slab_model(mesh: HeartMesh) -> GraphModel:
    """0.6 m/s and 220 ms in healthy tissue, 0.2 m/s in the isthmus, whose left half recovers after 280 ms and right half after 230 ms."""
    slow = np.zeros(mesh.n_points, bool)
    slow[mesh.tets[mesh.in_region("isthmus")].ravel()] = True
    left = mesh.points_mm[:, 0] < 38
    return GraphModel(mesh, np.where(slow, 0.2, 0.6), np.where(slow, np.where(left, 280.0, 230.0), 220.0))


def slab_sites(mesh: HeartMesh) -> dict[str, np.ndarray]:
    """Three places to pace: before the isthmus, behind it, and in a corner."""
    at = {"left": (4, 30, 0), "right": (72, 30, 0), "corner": (4, 4, 0)}
    return {k: np.flatnonzero(np.linalg.norm(mesh.points_mm - p, axis=1) < 4.5).astype(np.int32) for k, p in at.items()}
