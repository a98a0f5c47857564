"""Rigid registration of an electroanatomical map to a surface of the mesh, landmarks and surface in one cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from twin.errors import Suspicious
from twin.params import Param

Array = NDArray[np.float64]

SURFACE_NOISE = Param(
    3.0, "mm", 1.0, 5.0, "accuracy of contact mapping against imaging with respiration; 4 mm RMS in 3-D used by design/meshing.md 4"
)
LANDMARK_NOISE = Param(3.0, "mm", 2.0, 6.0, "picking error of an anatomical landmark, 4 mm in design/meshing.md 4")
INDEPENDENT_AREA = Param(100.0, "mm^2", 25.0, 400.0, "area over which errors of neighbouring map points are taken as one (vtwin's choice)")
REFUSED_RESIDUAL = Param(4.0, "mm", 3.0, 6.0, "median distance above which the map is taken to be of another heart (vtwin's choice)")


@dataclass(frozen=True)
class Registration:
    """Pose of a map in the mesh: transform (4, 4) maps map mm to mesh mm; distance_mm (n,) signed, to the surface after it."""

    transform: Array
    distance_mm: Array
    landmark_error_mm: Mapping[str, float]
    ambiguity: str

    def apply(self, points_mm: Array) -> Array:
        """Map points (n, 3) in mesh space, mm."""
        return points_mm @ self.transform[:3, :3].T + self.transform[:3, 3]

    @property
    def median_mm(self) -> float:
        """Median distance of the map's points to the surface."""
        return float(np.median(np.abs(self.distance_mm)))


@dataclass(frozen=True)
class _Problem:
    """Everything that the cost needs; poses are (rotation vector, translation) about the map's centre."""

    points: Array
    centre: Array
    tree: cKDTree
    vertices: Array
    normals: Array
    marks: Array
    targets: Array
    surface_weight: float

    def move(self, pose: Array, points: Array) -> Array:
        return Rotation.from_rotvec(pose[:3]).apply(points - self.centre) + self.centre + pose[3:]

    def distance(self, pose: Array, points: Array) -> Array:
        moved = self.move(pose, points)
        _, near = self.tree.query(moved)
        offset = moved - self.vertices[near]
        plane = np.einsum("ij,ij->i", offset, self.normals[near])
        # beyond the edge of the patch the tangent plane lies: there the distance to the vertex counts
        far = np.linalg.norm(offset, axis=1)
        return np.where(far > 3 * np.maximum(np.abs(plane), 2.0), far, plane)

    def residual(self, pose: Array) -> Array:
        # soft-L1 on the surface part by hand, since landmarks stay quadratic
        z = self.distance(pose, self.points) / SURFACE_NOISE.value
        soft = np.sign(z) * np.sqrt(2.0 * (np.sqrt(1.0 + z * z) - 1.0))
        landmark = (self.move(pose, self.marks) - self.targets).ravel() / LANDMARK_NOISE.value
        return np.concatenate([soft * self.surface_weight, landmark])


def vertex_normals(vertices: Array, triangles: NDArray[np.integer]) -> Array:
    """Area-weighted unit normals at vertices, (n, 3)."""
    p = vertices[triangles]
    face = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    out = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(out, triangles[:, corner], face)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def _kabsch(source: Array, target: Array) -> tuple[Rotation, Array]:
    rotation, _ = Rotation.align_vectors(target - target.mean(axis=0), source - source.mean(axis=0))
    return rotation, target.mean(axis=0)


def _starts(problem: _Problem, surface: Array) -> list[Array]:
    """Poses to start from: landmarks if there are three, else as exported, and principal axes turned in steps of 45 degrees."""
    if len(problem.marks) >= 3:
        rotation, goal = _kabsch(problem.marks, problem.targets)
        shift = goal - (rotation.apply(problem.marks.mean(axis=0) - problem.centre) + problem.centre)
        return [np.concatenate([rotation.as_rotvec(), shift])]
    starts = [np.zeros(6)]
    axes = [np.linalg.svd(cloud - cloud.mean(axis=0), full_matrices=False)[2] for cloud in (problem.points, surface)]
    for frame in axes:
        frame[2] *= np.sign(np.linalg.det(frame))
    for flip in (np.eye(3), np.diag([-1.0, -1.0, 1.0])):
        for angle in np.deg2rad(np.arange(0, 360, 45)):
            turn = Rotation.from_rotvec(axes[1][0] * angle).as_matrix()
            matrix = turn @ axes[1].T @ flip @ axes[0]
            starts.append(np.concatenate([Rotation.from_matrix(matrix).as_rotvec(), surface.mean(axis=0) - problem.centre]))
    return starts


def _minimise(problem: _Problem, start: Array) -> tuple[float, Array]:
    scale = np.array([0.1, 0.1, 0.1, 5.0, 5.0, 5.0])
    found = least_squares(problem.residual, start, x_scale=scale, diff_step=[1e-4] * 6, max_nfev=60)
    return float(found.cost), np.asarray(found.x, float)


def _ambiguity(fits: list[tuple[float, Array]]) -> str:
    best_cost, best = fits[0]
    turn = Rotation.from_rotvec(best[:3])
    for cost, pose in fits[1:]:
        angle = float(np.rad2deg((Rotation.from_rotvec(pose[:3]) * turn.inv()).magnitude()))
        if cost < 1.15 * best_cost + 0.5 and angle > 15.0:
            return f"a pose turned by {angle:.0f} degrees fits the surface almost as well: landmarks are needed to tell them apart"
    return ""


def register(
    points_mm: Array,
    vertices_mm: Array,
    triangles: NDArray[np.integer],
    landmarks_map: Mapping[str, Array],
    landmarks_mesh: Mapping[str, Array],
    where: str = "eam",
) -> Registration:
    """Find the rigid transform that lays map points (n, 3) on a surface and landmarks of the same names on each other.

    Robust least squares (soft-L1 on point-to-plane distances, quadratic on landmarks): design/meshing.md 4, the row "joint".
    Raises Suspicious (`registration`) if the median distance that is left says that the map is of another heart.
    """
    used = np.unique(triangles)
    normals = vertex_normals(vertices_mm, triangles)[used]
    surface = vertices_mm[used]
    p = vertices_mm[triangles]
    area = 0.5 * float(np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1).sum())
    names = sorted(set(landmarks_map) & set(landmarks_mesh))
    problem = _Problem(
        points=points_mm,
        centre=points_mm.mean(axis=0),
        tree=cKDTree(surface),
        vertices=surface,
        normals=normals,
        marks=np.array([landmarks_map[k] for k in names]).reshape(-1, 3),
        targets=np.array([landmarks_mesh[k] for k in names]).reshape(-1, 3),
        surface_weight=float(np.sqrt(area / INDEPENDENT_AREA.value / len(points_mm))),
    )
    # a few hundred points are enough to tell poses apart; only what is left near the best is refined on all of them
    coarse = replace(
        problem,
        points=points_mm[:: max(1, len(points_mm) // 300)],
        surface_weight=problem.surface_weight * np.sqrt(max(1, len(points_mm) // 300)),
    )
    fits = sorted((_minimise(coarse, start) for start in _starts(problem, surface)), key=lambda fit: fit[0])
    fits = [_minimise(problem, pose) for cost, pose in fits if cost < 2.0 * fits[0][0] + 1.0][:6]
    fits.sort(key=lambda fit: fit[0])
    pose = fits[0][1]
    rotation = Rotation.from_rotvec(pose[:3]).as_matrix()
    transform = np.eye(4)
    transform[:3, :3] = rotation
    transform[:3, 3] = problem.centre + pose[3:] - rotation @ problem.centre
    errors = np.linalg.norm(problem.move(pose, problem.marks) - problem.targets, axis=1)
    result = Registration(transform, problem.distance(pose, points_mm), dict(zip(names, errors.tolist())), _ambiguity(fits))
    if result.median_mm > REFUSED_RESIDUAL.value:
        raise Suspicious(
            "registration",
            where,
            "points",
            f"after registration half of the points are more than {result.median_mm:.1f} mm from the surface",
            "check that the map and the segmentation are of the same heart, chamber and unit",
        )
    return result
