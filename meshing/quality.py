"""How good a tetrahedral heart is: angles, sizes, volume, topology; and which gates it misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from meshing.surfaces import Topology
from twin.params import Param

MIN_DIHEDRAL_DEG = Param(10.7, "degrees", 0.0, 60.0, "Labelle & Shewchuk 2007, bound of the uniform mesh as published")
LOW_PERCENTILE_DEG = Param(
    24.0, "degrees", 0.0, 60.0, "measured on the phantom before smoothing (design note on meshing); about 30 after it"
)
VOLUME_ERROR = Param(0.5, "%", 0.0, 100.0, "gate of the design note on meshing")
DISTANCE_MM = Param(0.1, "mm", 0.0, 1.0, "gate of the design note on meshing: mean over boundary nodes and face centres")


@njit(cache=True, nogil=True)
def dihedral_angles(points: NDArray[np.float64], tets: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest dihedral angle of each tetrahedron, (m,), (m,) degrees."""
    smallest, largest = np.empty(len(tets)), np.empty(len(tets))
    normal = np.empty((4, 3))
    for t in range(len(tets)):
        a, b, c, d = points[tets[t, 0]], points[tets[t, 1]], points[tets[t, 2]], points[tets[t, 3]]
        for f in range(4):
            o, p, q = (b, d, c) if f == 0 else ((a, c, d) if f == 1 else ((a, d, b) if f == 2 else (a, b, c)))
            ux, uy, uz = p[0] - o[0], p[1] - o[1], p[2] - o[2]
            vx, vy, vz = q[0] - o[0], q[1] - o[1], q[2] - o[2]
            nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
            length = np.sqrt(nx * nx + ny * ny + nz * nz)
            normal[f, 0], normal[f, 1], normal[f, 2] = nx / length, ny / length, nz / length
        low, high = 1.0, -1.0
        for f in range(3):
            for g in range(f + 1, 4):
                cosine = -(normal[f, 0] * normal[g, 0] + normal[f, 1] * normal[g, 1] + normal[f, 2] * normal[g, 2])
                low, high = min(low, cosine), max(high, cosine)
        smallest[t] = np.degrees(np.arccos(min(high, 1.0)))
        largest[t] = np.degrees(np.arccos(max(low, -1.0)))
    return smallest, largest


@njit(cache=True, nogil=True)
def tet_volumes(points: NDArray[np.float64], tets: NDArray[np.int32]) -> NDArray[np.float64]:
    """Signed volume of each tetrahedron, (m,) mm^3."""
    out = np.empty(len(tets))
    for t in range(len(tets)):
        a, b, c, d = points[tets[t, 0]], points[tets[t, 1]], points[tets[t, 2]], points[tets[t, 3]]
        ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        wx, wy, wz = d[0] - a[0], d[1] - a[1], d[2] - a[2]
        out[t] = (ux * (vy * wz - vz * wy) + uy * (vz * wx - vx * wz) + uz * (vx * wy - vy * wx)) / 6.0
    return out


@njit(cache=True, nogil=True)
def mean_edge_mm(points: NDArray[np.float64], tets: NDArray[np.int32]) -> float:
    """Mean length of the edges, each counted once."""
    start = np.zeros(len(points) + 1, np.int64)
    for t in range(len(tets)):
        for x in range(3):
            for y in range(x + 1, 4):
                start[min(tets[t, x], tets[t, y]) + 1] += 1
    for u in range(len(points)):
        start[u + 1] += start[u]
    end = start[:-1].copy()  # the part of each node's list that is filled; repeated neighbours are not entered
    other = np.empty(start[-1], np.int32)
    total = 0.0
    count = 0
    for t in range(len(tets)):
        for x in range(3):
            for y in range(x + 1, 4):
                u, v = min(tets[t, x], tets[t, y]), max(tets[t, x], tets[t, y])
                k = start[u]
                while k < end[u] and other[k] != v:
                    k += 1
                if k == end[u]:
                    other[k] = v
                    end[u] += 1
                    count += 1
                    total += np.sqrt(((points[u] - points[v]) ** 2).sum())
    return total / count


@dataclass(frozen=True)
class Places:
    """Where a mesh is weak, each (3,) mm or None: a pinch, a hole that the mesh left in the wall, the farthest point of the surface."""

    pinch: NDArray[np.float64] | None = None
    hole: NDArray[np.float64] | None = None
    surface: NDArray[np.float64] | None = None


def measure(
    points_mm: NDArray[np.float64],
    tets: NDArray[np.int32],
    volumes_mm3: NDArray[np.float64],
    label_ml: float,
    surface: Topology,
    distance_mm: NDArray[np.float64] | None = None,
    places: Places | None = None,
) -> dict[str, Any]:
    """Plain numbers about a mesh, `misses` (the gates it misses, each with place) and `warnings` (the same as sentences).

    points_mm (n, 3), tets (m, 4), volumes_mm3 (m,), label_ml: wall volume of the labels it was made from; distance_mm (k,): of boundary
    nodes and face centres from the labels' smooth surface.
    """
    smallest, largest = dihedral_angles(points_mm, tets)
    volume_ml = float(volumes_mm3.sum()) / 1000.0
    out: dict[str, Any] = {
        "nodes": len(points_mm),
        "tets": len(tets),
        "inverted": int((volumes_mm3 <= 0).sum()),
        "mean_edge_mm": mean_edge_mm(points_mm, tets),
        "dihedral_min_deg": float(smallest.min()),
        "dihedral_p1_deg": float(np.percentile(smallest, 1)),
        "dihedral_max_deg": float(largest.max()),
        "volume_ml": volume_ml,
        "label_volume_ml": label_ml,
        "volume_error_percent": 100.0 * (volume_ml / label_ml - 1.0),
        "surface_open_edges": surface.open_edges,
        "surface_components": surface.components,
        "surface_euler": surface.euler,
        "surface_genus": surface.genus,
        "surface_pinches": surface.pinched_edges + surface.pinched_nodes,
    }
    if distance_mm is not None:
        out["surface_distance_mean_mm"] = float(np.abs(distance_mm).mean())
        out["surface_distance_p99_mm"] = float(np.percentile(np.abs(distance_mm), 99))
    where = places or Places()
    worst = points_mm[tets[int(np.argmin(smallest))]].mean(axis=0)
    sliver = points_mm[tets[smallest <= np.percentile(smallest, 1)]].mean(axis=(0, 1))
    out["misses"] = _misses(out, {"worst": worst, "sliver": sliver, "pinch": where.pinch, "hole": where.hole, "surface": where.surface})
    out["warnings"] = [miss["text"] for miss in out["misses"]]
    return out


def _misses(numbers: dict[str, Any], places: dict[str, NDArray[np.float64] | None]) -> list[dict[str, Any]]:
    """Every gate that a mesh misses: gate, found, limit, place_mm (None where it has none) and text."""
    n = numbers
    gates = (
        ("dihedral_min_deg", n["dihedral_min_deg"] < MIN_DIHEDRAL_DEG.value, MIN_DIHEDRAL_DEG.value, "worst"),
        ("dihedral_p1_deg", n["dihedral_p1_deg"] < LOW_PERCENTILE_DEG.value, LOW_PERCENTILE_DEG.value, "sliver"),
        ("volume_error_percent", abs(n["volume_error_percent"]) > VOLUME_ERROR.value, VOLUME_ERROR.value, "surface"),
        ("surface_distance_mean_mm", n.get("surface_distance_mean_mm", 0.0) > DISTANCE_MM.value, DISTANCE_MM.value, "surface"),
        ("surface_pinches", n["surface_pinches"] > 0, 0, "pinch"),
        ("surface_genus", n["surface_genus"] != 0, 0, "hole"),
    )
    out = []
    for gate, missed, limit, where in gates:
        if missed:
            place = places[where]
            place_mm = None if place is None else [round(float(x), 1) for x in place]
            at = "" if place_mm is None else f", at or near {place_mm} mm"
            out.append({"gate": gate, "found": n[gate], "limit": limit, "place_mm": place_mm, "text": _sentence(gate, n[gate], limit) + at})
    return out


def _sentence(gate: str, found: float, limit: float) -> str:
    """A missed gate as a person reads it."""
    return {
        "dihedral_min_deg": f"smallest dihedral angle {found:.1f} degrees is below {limit:g}",
        "dihedral_p1_deg": f"1 % of the tetrahedra have a dihedral angle below {found:.1f} degrees (gate {limit:g})",
        "volume_error_percent": f"the mesh volume differs from the labels by {found:+.2f} % (gate {limit:g} %)",
        "surface_distance_mean_mm": f"the mesh surface is {found:.2f} mm from that of the labels in the mean (gate {limit:g} mm)",
        "surface_pinches": f"the surface touches itself at {found:g} places: the wall or a gap is thinner than the mesh there",
        "surface_genus": f"the wall has {found:g} holes or handles: it is thinner than the mesh, or the labels leak there",
    }[gate]
