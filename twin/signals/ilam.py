"""Isochronal late activation mapping: eight isochrones of equal duration, and where they crowd (deceleration zones)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components, dijkstra

from twin.errors import InputError
from twin.params import Param

Array = NDArray[np.float64]

ISOCHRONES = 8
RADIUS_MM = Param(10.0, "mm", 10.0, 10.0, "Irie 2015 (Circ Arrhythm Electrophysiol 8:390), Aziz 2019 (JACC Clin EP 5:902): within 1 cm")
CROWDED = 3
"""More isochrones than this within RADIUS_MM make a deceleration zone."""
BLOCK = 256


@dataclass(frozen=True)
class Zone:
    """A deceleration zone: place of its most crowded vertex (3,) mm, its vertices, most isochrones within 1 cm, isochrones 1-8 it holds."""

    centre_mm: Array
    vertices: NDArray[np.int64]
    crowding: int
    isochrones: tuple[int, int]


@dataclass(frozen=True)
class Isochrones:
    """Per vertex (n,): isochrone 1-8 (0 without time), crowding (isochrones within 1 cm along the surface); edges_ms (9,); zones."""

    isochrone: NDArray[np.int64]
    crowding: NDArray[np.int64]
    edges_ms: Array
    zones: tuple[Zone, ...]


def ilam(points_mm: Array, triangles: NDArray[np.integer], lat_ms: Array) -> Isochrones:
    """Isochrones of activation times (n,) ms, NaN where unknown, on a surface (n, 3), (m, 3).

    Distances run along edges, so opposite walls are not neighbours. Every isochrone that an edge crosses counts, however coarse the
    surface is. Raises InputError for shapes that do not fit and fewer than ten times.
    """
    if lat_ms.shape != (len(points_mm),):
        raise InputError("ilam", "lat_ms", f"shape {lat_ms.shape} is not ({len(points_mm)},)", "give one time per vertex")
    known = np.isfinite(lat_ms)
    if known.sum() < 10 or np.ptp(lat_ms[known]) <= 0:
        raise InputError("ilam", "lat_ms", f"{int(known.sum())} times", "give an activation map")
    edges = np.linspace(lat_ms[known].min(), lat_ms[known].max(), ISOCHRONES + 1)
    isochrone = np.where(known, np.clip(np.searchsorted(edges, np.where(known, lat_ms, 0.0), "right"), 1, ISOCHRONES), 0)
    graph = _graph(points_mm, triangles)
    crowding = _crowding(graph, isochrone)
    return Isochrones(isochrone, crowding, edges, _zones(points_mm, graph, isochrone, crowding))


def _graph(points: Array, triangles: NDArray[np.integer]) -> sp.csr_array:
    """Lengths of the edges (n, n), symmetric."""
    pairs = np.unique(np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1), axis=0)
    length = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    half = sp.coo_array((np.maximum(length, 1e-9), (pairs[:, 0], pairs[:, 1])), shape=(len(points), len(points)))
    return sp.csr_array(half + half.T)


def _crowding(graph: sp.csr_array, isochrone: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many isochrones lie within RADIUS_MM of each vertex that has a time, those between the ones met included."""
    n = graph.shape[0]
    out = np.zeros(n, np.int64)
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n))
        near = np.isfinite(dijkstra(graph, directed=False, indices=rows, limit=float(RADIUS_MM))) & (isochrone > 0)[None]
        top = np.where(near, isochrone[None], 0).max(axis=1)
        low = np.where(near, isochrone[None], ISOCHRONES + 1).min(axis=1)
        out[rows] = np.where((isochrone[rows] > 0) & near.any(axis=1), top - low + 1, 0)
    return out


def _zones(points: Array, graph: sp.csr_array, isochrone: NDArray[np.int64], crowding: NDArray[np.int64]) -> tuple[Zone, ...]:
    inside = np.flatnonzero(crowding > CROWDED)
    if not len(inside):
        return ()
    _, label = connected_components(graph[inside][:, inside], directed=False)
    zones = []
    for number in range(int(label.max()) + 1):
        mine = inside[label == number]
        crowded = mine[crowding[mine] == crowding[mine].max()]
        middle = points[crowded].mean(axis=0)
        centre = crowded[np.argmin(np.linalg.norm(points[crowded] - middle, axis=1))]
        zones.append(Zone(points[centre], mine, int(crowding[mine].max()), (int(isochrone[mine].min()), int(isochrone[mine].max()))))
    return tuple(sorted(zones, key=lambda zone: (-zone.crowding, -len(zone.vertices))))


def velocity_m_s(points_mm: Array, triangles: NDArray[np.integer], lat_ms: Array) -> Array:
    """Conduction velocity along the surface of each triangle (m,), 1 / |gradient of the time|; NaN where a time is unknown or constant."""
    a, b, c = (points_mm[triangles[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    double = np.maximum((normal**2).sum(axis=1), 1e-24)[:, None]
    ta, tb, tc = (lat_ms[triangles[:, k]][:, None] for k in range(3))
    gradient = (ta * np.cross(normal, c - b) + tb * np.cross(normal, a - c) + tc * np.cross(normal, b - a)) / double
    size = np.linalg.norm(gradient, axis=1)
    with np.errstate(divide="ignore"):
        return np.where(size > 1e-9, 1.0 / size, np.nan)
