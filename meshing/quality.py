"""How good a tetrahedral heart is: angles, sizes, volume, topology; and which gates it misses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from meshing.surfaces import Topology
from twin.params import Param

MIN_DIHEDRAL_DEG = Param(10.7, "degrees", 0.0, 60.0, "Labelle & Shewchuk 2007, proven bound of the uniform mesh")
LOW_PERCENTILE_DEG = Param(24.0, "degrees", 0.0, 60.0, "measured on the phantom with this method (design note on meshing)")
VOLUME_ERROR = Param(0.5, "%", 0.0, 100.0, "gate of the design note on meshing")


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


def measure(
    points_mm: NDArray[np.float64], tets: NDArray[np.int32], volumes_mm3: NDArray[np.float64], label_ml: float, surface: Topology
) -> dict[str, Any]:
    """Plain numbers about a mesh, and `warnings`: the gates it misses.

    points_mm (n, 3), tets (m, 4), volumes_mm3 (m,), label_ml: wall volume of the labels it was made from.
    """
    smallest, largest = dihedral_angles(points_mm, tets)
    volume_ml = float(volumes_mm3.sum()) / 1000.0
    out: dict[str, Any] = {
        "nodes": len(points_mm),
        "tets": len(tets),
        "mean_edge_mm": mean_edge_mm(points_mm, tets),
        "dihedral_min_deg": float(smallest.min()),
        "dihedral_p1_deg": float(np.percentile(smallest, 1)),
        "dihedral_max_deg": float(largest.max()),
        "volume_ml": volume_ml,
        "label_volume_ml": label_ml,
        "volume_error_percent": 100.0 * (volume_ml / label_ml - 1.0),
        "surface_components": surface.components,
        "surface_euler": surface.euler,
        "surface_genus": surface.genus,
        "surface_pinches": surface.pinched_edges + surface.pinched_nodes,
    }
    out["warnings"] = warnings(out)
    return out


def warnings(numbers: dict[str, Any]) -> list[str]:
    """One sentence for every gate that a mesh misses."""
    out = []
    if numbers["dihedral_min_deg"] < MIN_DIHEDRAL_DEG.value:
        out.append(f"smallest dihedral angle {numbers['dihedral_min_deg']:.1f} degrees is below {MIN_DIHEDRAL_DEG.value:g}")
    if numbers["dihedral_p1_deg"] < LOW_PERCENTILE_DEG.value:
        out.append(
            f"1 % of the tetrahedra have a dihedral angle below {numbers['dihedral_p1_deg']:.1f} degrees "
            f"(gate {LOW_PERCENTILE_DEG.value:g})"
        )
    if abs(numbers["volume_error_percent"]) > VOLUME_ERROR.value:
        out.append(f"the mesh volume differs from the labels by {numbers['volume_error_percent']:+.2f} % (gate {VOLUME_ERROR.value:g} %)")
    if numbers["surface_pinches"]:
        out.append(f"the surface touches itself at {numbers['surface_pinches']} places: the wall or a gap is thinner than the mesh there")
    if numbers["surface_genus"]:
        out.append(f"the wall has {numbers['surface_genus']} holes or handles: it is thinner than the mesh, or the labels leak there")
    return out
