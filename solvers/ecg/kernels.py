"""Compiled sums of the lead field: arrays in, arrays out, always in node order, so that results never depend on threads."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

REACH = 16.0
"""Widths from its middle at which a sigmoid is taken to be 0 or 1 (error 1e-7)."""


@njit(cache=True, nogil=True)
def sum_steps(
    weights: NDArray[np.float64], at_ms: NDArray[np.float64], width_ms: float, time_ms: NDArray[np.float64], out: NDArray[np.float64]
) -> None:
    """Add to out (t, l) the sum over nodes of weights (n, l) times a logistic step in time at at_ms (n,); not finite = no step."""
    n_times, n_leads = out.shape
    done = np.zeros((n_times + 1, n_leads))
    for node in range(len(at_ms)):
        middle = at_ms[node]
        if not np.isfinite(middle):
            continue
        first = np.searchsorted(time_ms, middle - REACH * width_ms)
        last = np.searchsorted(time_ms, middle + REACH * width_ms)
        for i in range(first, last):
            step = 1.0 / (1.0 + np.exp(-(time_ms[i] - middle) / width_ms))
            for lead in range(n_leads):
                out[i, lead] += weights[node, lead] * step
        for lead in range(n_leads):
            done[last, lead] += weights[node, lead]
    for lead in range(n_leads):
        total = 0.0
        for i in range(n_times):
            total += done[i, lead]
            out[i, lead] += total


@njit(cache=True, nogil=True)
def sum_potentials(weights: NDArray[np.float64], vm: NDArray[np.floating], out: NDArray[np.float64]) -> None:
    """Add to out (t, l) the products of vm (t, n) with weights (n, l)."""
    for i in range(vm.shape[0]):
        for node in range(vm.shape[1]):
            value = vm[i, node]
            for lead in range(weights.shape[1]):
                out[i, lead] += weights[node, lead] * value


@njit(cache=True, nogil=True)
def _solid_angle(ax: float, ay: float, az: float, bx: float, by: float, bz: float, cx: float, cy: float, cz: float) -> float:
    """Signed solid angle of a triangle seen from the origin (van Oosterom and Strackee 1983)."""
    a, b, c = np.sqrt(ax * ax + ay * ay + az * az), np.sqrt(bx * bx + by * by + bz * bz), np.sqrt(cx * cx + cy * cy + cz * cz)
    det = ax * (by * cz - bz * cy) - ay * (bx * cz - bz * cx) + az * (bx * cy - by * cx)
    dot_ab, dot_bc, dot_ca = ax * bx + ay * by + az * bz, bx * cx + by * cy + bz * cz, cx * ax + cy * ay + cz * az
    return 2.0 * np.arctan2(det, a * b * c + dot_ab * c + dot_bc * a + dot_ca * b)


@njit(cache=True, nogil=True)
def solid_angles(places: NDArray[np.float64], points: NDArray[np.float64], triangles: NDArray[np.int32]) -> NDArray[np.float64]:
    """Total solid angle (k,) of a surface seen from places (k, 3): 4 pi inside, 0 outside a closed one with outward normals."""
    out = np.zeros(len(places))
    for i in range(len(places)):
        x, y, z = places[i]
        total = 0.0
        for t in range(len(triangles)):
            a, b, c = points[triangles[t, 0]], points[triangles[t, 1]], points[triangles[t, 2]]
            total += _solid_angle(a[0] - x, a[1] - y, a[2] - z, b[0] - x, b[1] - y, b[2] - z, c[0] - x, c[1] - y, c[2] - z)
        out[i] = total
    return out


@njit(cache=True, nogil=True)
def double_layer(places: NDArray[np.float64], points: NDArray[np.float64], triangles: NDArray[np.int32], out: NDArray[np.float64]) -> None:
    """Add to out (k, n) the integral over the solid angle seen from each place of each node's linear shape function.

    A triangle in whose plane the place lies fills no angle. The linear part is the boundary integral of 1/distance over the edges.
    """
    corner, edge, outward = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    distance, line = np.empty(3), np.empty(3)
    for t in range(len(triangles)):
        for j in range(3):
            for d in range(3):
                edge[j, d] = points[triangles[t, (j + 2) % 3], d] - points[triangles[t, (j + 1) % 3], d]
        normal = np.cross(edge[0], edge[1])
        twice_area = np.sqrt((normal * normal).sum())
        if twice_area == 0.0:
            continue
        normal /= twice_area
        for j in range(3):
            # in-plane, as long as the edge: outward normal times length, opposite node j; its gradient is minus this over twice the area
            outward[j] = np.cross(edge[j], normal)
        for i in range(len(places)):
            for j in range(3):
                for d in range(3):
                    corner[j, d] = points[triangles[t, j], d] - places[i, d]
                distance[j] = np.sqrt(corner[j, 0] ** 2 + corner[j, 1] ** 2 + corner[j, 2] ** 2)
            height = normal[0] * corner[0, 0] + normal[1] * corner[0, 1] + normal[2] * corner[0, 2]
            if abs(height) <= 1e-9 * (distance[0] + distance[1] + distance[2]):
                continue
            angle = _solid_angle(
                corner[0, 0], corner[0, 1], corner[0, 2], corner[1, 0], corner[1, 1], corner[1, 2], corner[2, 0], corner[2, 1], corner[2, 2]
            )
            for j in range(3):
                ends = distance[(j + 1) % 3] + distance[(j + 2) % 3]
                length = np.sqrt(edge[j, 0] ** 2 + edge[j, 1] ** 2 + edge[j, 2] ** 2)
                line[j] = np.log((ends + length) / (ends - length)) / length
            for j in range(3):
                # value of the shape function at the foot of the perpendicular: zero on its opposite edge
                k = (j + 1) % 3
                value = 0.0
                for d in range(3):
                    value += outward[j, d] * (corner[k, d] - height * normal[d])
                value /= twice_area
                slope = 0.0
                for m in range(3):
                    slope += line[m] * (outward[j, 0] * outward[m, 0] + outward[j, 1] * outward[m, 1] + outward[j, 2] * outward[m, 2])
                out[i, triangles[t, j]] += value * angle + height * slope / twice_area


@njit(cache=True, nogil=True)
def coulomb(
    sources: NDArray[np.float64],
    soft2: NDArray[np.float64],
    charges: NDArray[np.float64],
    places: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Add to out (k, p) the sums over sources (n, 3) of charges (n, k) over the distance, softened by soft2 (n,) mm^2, to places (p, 3)."""
    k = charges.shape[1]
    total = np.empty(k)
    for i in range(len(places)):
        total[:] = 0.0
        for v in range(len(sources)):
            x, y, z = sources[v, 0] - places[i, 0], sources[v, 1] - places[i, 1], sources[v, 2] - places[i, 2]
            near = 1.0 / np.sqrt(x * x + y * y + z * z + soft2[v])
            for j in range(k):
                total[j] += charges[v, j] * near
        for j in range(k):
            out[j, i] += total[j]


PANEL, TILE = 32, 256
"""Pivots per panel and columns per tile of the elimination: a tile of pivot rows stays in the second-level cache."""


@njit(cache=True, nogil=True, fastmath={"contract"})
def eliminate(matrix: NDArray[np.float64], rhs: NDArray[np.float64]) -> bool:
    """Solve matrix (n, n) x = rhs (n, k) in place by Gauss with row pivots; False if singular. Both arrays are overwritten."""
    n = len(matrix)
    for first in range(0, n, PANEL):
        last = min(first + PANEL, n)
        for j in range(first, last):
            pivot = j + np.argmax(np.abs(matrix[j:, j]))
            if abs(matrix[pivot, j]) < 1e-14:
                return False
            if pivot != j:
                for m in range(n):
                    matrix[j, m], matrix[pivot, m] = matrix[pivot, m], matrix[j, m]
                for m in range(rhs.shape[1]):
                    rhs[j, m], rhs[pivot, m] = rhs[pivot, m], rhs[j, m]
            for i in range(j + 1, n):
                factor = matrix[i, j] / matrix[j, j]
                matrix[i, j] = factor
                for m in range(j + 1, last):
                    matrix[i, m] -= factor * matrix[j, m]
                for m in range(rhs.shape[1]):
                    rhs[i, m] -= factor * rhs[j, m]
        for begin in range(last, n, TILE):
            end = min(begin + TILE, n)
            for i in range(first + 1, n):
                for j in range(first, min(i, last)):
                    factor = matrix[i, j]
                    for m in range(begin, end):
                        matrix[i, m] -= factor * matrix[j, m]
    for j in range(n - 1, -1, -1):
        for i in range(j + 1, n):
            for m in range(rhs.shape[1]):
                rhs[j, m] -= matrix[j, i] * rhs[i, m]
        for m in range(rhs.shape[1]):
            rhs[j, m] /= matrix[j, j]
    return True


@njit(cache=True, nogil=True)
def segment_potential(
    places: NDArray[np.float64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    radius: float,
    divisor: float,
    out: NDArray[np.float64],
) -> None:
    """Mean of 1 / (divisor * distance) over a segment, into out (n,), for places (n, 3); nearer than the radius counts as at the radius."""
    length = np.sqrt(((end - start) ** 2).sum())
    axis = (end - start) / max(length, 1e-300)
    for i in range(len(places)):
        away = places[i] - start
        along = away[0] * axis[0] + away[1] * axis[1] + away[2] * axis[2]
        total2 = away[0] * away[0] + away[1] * away[1] + away[2] * away[2]
        if length < 1e-6:
            out[i] = 1.0 / (divisor * max(np.sqrt(total2), radius))
            continue
        off2 = max(total2 - along * along, 0.0)
        # beside the electrode its surface is the nearest that counts; beyond its ends the distance to the end is
        beyond = max(-along, along - length, 0.0)
        off2 = max(off2, radius * radius - beyond * beyond)
        a, b = np.sqrt(off2 + along * along), np.sqrt(off2 + (along - length) ** 2)
        out[i] = np.log((a + b + length) / (a + b - length)) / (divisor * length)
