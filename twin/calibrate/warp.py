"""Non-rigid correction of a registered map: a smooth displacement, small by construction, that lays it on the surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.calibrate.registration import SURFACE_NOISE, Registration, target
from twin.params import Param

Array = NDArray[np.float64]

WIDTH_MM = Param(30.0, "mm", 20.0, 50.0, "chosen here: the displacement changes over such lengths (breathing, filling), not over less")
AMPLITUDE_MM = Param(2.0, "mm", 1.0, 5.0, "chosen here: standard deviation of the displacement before the data")
LIMIT_MM = Param(8.0, "mm", 5.0, 10.0, "chosen here: no point is moved by more; what needs more is a wrong pose or another heart")
ROUNDS = 8


@dataclass(frozen=True)
class Warp:
    """A rigid registration followed by a displacement: Gaussians of WIDTH_MM about centres (k, 3), coefficients (k, 3) mm."""

    rigid: Registration
    centres_mm: Array
    coefficients: Array
    distance_mm: Array

    def apply(self, points_mm: Array) -> Array:
        """Map points (n, 3) in mesh space, mm; displaced by LIMIT_MM at most."""
        placed = self.rigid.apply(points_mm)
        return placed + limited(_kernel(placed, self.centres_mm) @ self.coefficients)


def _kernel(points: Array, centres: Array) -> Array:
    away = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-0.5 * away / float(WIDTH_MM) ** 2))


def limited(displacement: Array) -> Array:
    """Displacements (n, 3) bent smoothly so that none is longer than LIMIT_MM."""
    size = np.linalg.norm(displacement, axis=1, keepdims=True)
    limit = float(LIMIT_MM)
    return np.asarray(displacement * (limit * np.tanh(size / limit) / np.maximum(size, 1e-12)))


def warp(rigid: Registration, points_mm: Array, vertices_mm: Array, triangles: NDArray[np.integer]) -> Warp:
    """Displace a registered map (n, 3) smoothly toward the surface.

    A Gaussian process with that kernel as its prior, soft-L1 on point-to-plane distances, points weighted as in the rigid fit by area:
    only the part along the surface's normals is seen, sliding along the surface stays as the rigid fit left it.
    """
    goal = target(vertices_mm, triangles)
    placed = rigid.apply(points_mm)
    centres = _spread(placed, 0.5 * float(WIDTH_MM))
    prior = _kernel(centres, centres) + 1e-6 * np.eye(len(centres))
    weight = min(1.0, goal.area_mm2 / 50.0 / len(points_mm)) / float(SURFACE_NOISE) ** 2
    kernel = _kernel(placed, centres)
    coefficients = np.zeros((len(centres), 3))
    noise = min(1.4826 * float(np.median(np.abs(rigid.distance_mm - np.median(rigid.distance_mm)))), float(SURFACE_NOISE))
    for _ in range(ROUNDS):
        moved = placed + kernel @ coefficients
        distance, normal = goal.offsets(moved, noise)
        robust = weight / np.sqrt(1.0 + (distance / float(SURFACE_NOISE)) ** 2)
        # unknowns: three coefficients per centre; each point sees its displacement along the normal
        rows = (kernel[:, :, None] * normal[:, None, :]).reshape(len(placed), -1)
        wanted = np.einsum("ij,ij->i", normal, kernel @ coefficients) - distance
        matrix = rows.T @ (rows * robust[:, None]) + np.kron(prior, np.eye(3)) / float(AMPLITUDE_MM) ** 2
        coefficients = np.linalg.solve(matrix, rows.T @ (robust * wanted)).reshape(-1, 3)
    distance, _ = goal.offsets(placed + limited(kernel @ coefficients))
    return Warp(rigid, centres, coefficients, distance)


def _spread(points: Array, spacing_mm: float) -> Array:
    """Some of the points, so that all are within a spacing of one."""
    chosen = [points[0]]
    away = np.linalg.norm(points - chosen[0], axis=1)
    while away.max() > spacing_mm:
        chosen.append(points[int(np.argmax(away))])
        away = np.minimum(away, np.linalg.norm(points - chosen[-1], axis=1))
    return np.array(chosen)
