"""Non-rigid correction of a registered map: a smooth displacement, small by construction, that lays it on the surface."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from twin.calibrate.displacement import WIDTH_MM, kernel, limited
from twin.calibrate.registration import SURFACE_NOISE, Registration, target
from twin.params import Param

Array = NDArray[np.float64]

AMPLITUDE_MM = Param(2.0, "mm", 1.0, 5.0, "chosen here: standard deviation of the displacement before the data")
ROUNDS = 8


def warp(rigid: Registration, points_mm: Array, vertices_mm: Array, triangles: NDArray[np.integer]) -> Registration:
    """The registration with a displacement that lays the map (n, 3) smoothly on the surface.

    A Gaussian process with that kernel as its prior, soft-L1 on point-to-plane distances, points weighted as in the rigid fit by area:
    only the part along the surface's normals is seen, sliding along the surface stays as the rigid fit left it.
    """
    goal = target(vertices_mm, triangles)
    placed = rigid.apply(points_mm)
    centres = _spread(placed, 0.5 * float(WIDTH_MM))
    prior = kernel(centres, centres) + 1e-6 * np.eye(len(centres))
    weight = min(1.0, goal.area_mm2 / 50.0 / len(points_mm)) / float(SURFACE_NOISE) ** 2
    weights = kernel(placed, centres)
    coefficients = np.zeros((len(centres), 3))
    noise = min(1.4826 * float(np.median(np.abs(rigid.distance_mm - np.median(rigid.distance_mm)))), float(SURFACE_NOISE))
    for _ in range(ROUNDS):
        moved = placed + weights @ coefficients
        distance, normal = goal.offsets(moved, noise)
        robust = weight / np.sqrt(1.0 + (distance / float(SURFACE_NOISE)) ** 2)
        # unknowns: three coefficients per centre; each point sees its displacement along the normal
        rows = (weights[:, :, None] * normal[:, None, :]).reshape(len(placed), -1)
        wanted = np.einsum("ij,ij->i", normal, weights @ coefficients) - distance
        matrix = rows.T @ (rows * robust[:, None]) + np.kron(prior, np.eye(3)) / float(AMPLITUDE_MM) ** 2
        coefficients = np.linalg.solve(matrix, rows.T @ (robust * wanted)).reshape(-1, 3)
    distance, _ = goal.offsets(placed + limited(weights @ coefficients))
    return replace(rigid, distance_mm=distance, centres_mm=centres, coefficients_mm=coefficients)


def _spread(points: Array, spacing_mm: float) -> Array:
    """Some of the points, so that all are within a spacing of one."""
    chosen = [points[0]]
    away = np.linalg.norm(points - chosen[0], axis=1)
    while away.max() > spacing_mm:
        chosen.append(points[int(np.argmax(away))])
        away = np.minimum(away, np.linalg.norm(points - chosen[-1], axis=1))
    return np.array(chosen)
