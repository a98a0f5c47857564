"""Registration of an electroanatomical map to a surface of the mesh: landmarks and surface in one robust cost, from many starts.

What the data cannot tell is part of the answer: the standard error of every placed point, poses that fit nearly as well, and a
rotation that the shape does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from twin.calibrate.displacement import kernel, limited
from twin.errors import Suspicious
from twin.params import Param

Array = NDArray[np.float64]

SURFACE_NOISE = Param(
    3.0, "mm", 1.0, 5.0, "accuracy of contact mapping against imaging with respiration; 4 mm RMS in 3-D used by design/meshing.md 4"
)
LANDMARK_NOISE = Param(3.0, "mm", 2.0, 6.0, "picking error of an anatomical landmark, 4 mm in design/meshing.md 4")
INDEPENDENT_AREA = Param(
    25.0, "mm^2", 10.0, 400.0, "chosen here: no more points than one per such an area count; fewer where neighbours err alike"
)
BIAS = Param(
    1.0, "mm", 0.5, 3.0, "chosen here: how far a whole map may lie inside or outside (pressing, noise on a curved wall, cavity edge)"
)
REFUSED_RESIDUAL = Param(4.0, "mm", 3.0, 6.0, "median distance above which the map is taken to be of another heart (vtwin's choice)")
LOOSE_TURN = Param(8.0, "degrees", 5.0, 15.0, "chosen here: standard error of a rotation above which it is called loose")
WRONG_LANDMARK = Param(12.0, "mm", 9.0, 20.0, "chosen here: a landmark that misses by more, with three others that fit, is left out")
NEARLY, DIFFERENT_MM = 3.0, 8.0
"""Costs (half chi square) that differ by less are nearly equal; poses differ if they place points so far apart (root mean square)."""
SPACING_MM = 3.0
"""Triangles with longer sides are filled with points."""
MAX_CURVATURE = 0.15
"""1/mm: sharper edges are those of the mesh."""
COARSE_POINTS, STEPS = 300, 40


@dataclass(frozen=True)
class Registration:
    """Pose of a map in the mesh: transform (4, 4) maps map mm to mesh mm; distance_mm (n,) signed, to the surface after it.

    point_error_mm (n,): standard error of where each point is placed, from the curvature of the cost; alternatives: transforms that fit
    nearly as well; left_out: landmarks that contradict the others; centres_mm, coefficients_mm (k, 3): a displacement after it
    (`twin.calibrate.displacement`), none where the map was laid down rigidly.
    """

    transform: Array
    distance_mm: Array
    landmark_error_mm: Mapping[str, float]
    ambiguity: str
    point_error_mm: Array = field(default_factory=lambda: np.zeros(0))
    alternatives: tuple[Array, ...] = ()
    left_out: tuple[str, ...] = ()
    centres_mm: Array = field(default_factory=lambda: np.zeros((0, 3)))
    coefficients_mm: Array = field(default_factory=lambda: np.zeros((0, 3)))

    def apply(self, points_mm: Array) -> Array:
        """Map points (n, 3) in mesh space, mm."""
        placed = self.placed(points_mm)
        return placed + self.displacement_mm(placed) if len(self.centres_mm) else placed

    def placed(self, points_mm: Array) -> Array:
        """Map points (n, 3) where the rigid part alone puts them, mm."""
        return points_mm @ self.transform[:3, :3].T + self.transform[:3, 3]

    def displacement_mm(self, placed_mm: Array) -> Array:
        """By how much rigidly placed points (n, 3) are moved on, (n, 3) mm."""
        return limited(kernel(placed_mm, self.centres_mm) @ self.coefficients_mm)

    @property
    def median_mm(self) -> float:
        """Median distance of the map's points to the surface."""
        return float(np.median(np.abs(self.distance_mm)))


@dataclass(frozen=True)
class Target:
    """The surface: points on it (k, 3), unit normals (k, 3), sum of the principal curvatures (k,) 1/mm, area in mm^2."""

    vertices: Array
    normals: Array
    curvature: Array
    area_mm2: float
    tree: cKDTree

    def offsets(self, points: Array, noise_mm: float = 0.0) -> tuple[Array, Array]:
        """Signed distance (n,) of points to the surface, and the unit direction (n, 3) in which it grows.

        Points with noise (standard deviation along each axis) lie outside a curved wall on average, by noise^2 / 2 times the sum of the
        curvatures: so much is taken off, since the shape holds a rotation by less than that.

        Plane through the nearest vertex; beyond the edge of the patch, where that plane lies, the distance to the vertex.
        """
        _, near = self.tree.query(points)
        offset = points - self.vertices[near]
        plane = np.einsum("ij,ij->i", offset, self.normals[near])
        far = np.linalg.norm(offset, axis=1)
        beyond = far > 3 * np.maximum(np.abs(plane), 2.0)
        direction = np.where(beyond[:, None], offset / np.maximum(far, 1e-9)[:, None], self.normals[near])
        return np.where(beyond, far, plane - 0.5 * noise_mm**2 * self.curvature[near]), direction


def target(vertices_mm: Array, triangles: NDArray[np.integer]) -> Target:
    """A surface of the mesh as the registration needs it."""
    used = np.unique(triangles)
    p = vertices_mm[triangles]
    area = 0.5 * float(np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1).sum())
    normals = vertex_normals(vertices_mm, triangles)
    values = np.column_stack([vertices_mm, normals, _curvature(vertices_mm, normals, triangles)])
    dense = np.concatenate([values[used], _between(values, triangles)])
    unit = dense[:, 3:6] / np.maximum(np.linalg.norm(dense[:, 3:6], axis=1, keepdims=True), 1e-12)
    return Target(np.ascontiguousarray(dense[:, :3]), unit, dense[:, 6], area, cKDTree(dense[:, :3]))


def _between(values: Array, triangles: NDArray[np.integer]) -> Array:
    """Values (k, c), positions first, linear within triangles, so that none is farther from a neighbour than about SPACING_MM."""
    p = values[triangles, :3]
    longest = np.max([np.linalg.norm(p[:, i] - p[:, j], axis=1) for i, j in ((0, 1), (1, 2), (2, 0))], axis=0)
    parts = np.clip(np.ceil(longest / SPACING_MM), 1, 12).astype(int)
    out = [np.zeros((0, values.shape[1]))]
    for n in np.unique(parts[parts > 1]).tolist():
        i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
        keep = (i + j <= n) & (np.maximum(np.maximum(i, j), n - i - j) < n)
        share = np.stack([i[keep], j[keep], n - i[keep] - j[keep]], axis=1) / n
        out.append(np.einsum("sk,tkc->tsc", share, values[triangles[parts == n]]).reshape(-1, values.shape[1]))
    return np.concatenate(out)


def _curvature(vertices: Array, normals: Array, triangles: NDArray[np.integer]) -> Array:
    """Sum of the principal curvatures (n,) 1/mm, positive where the wall bulges along its normals; averaged over neighbours."""
    a, b = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).T
    edge = vertices[b] - vertices[a]
    bend = np.einsum("ij,ij->i", normals[b] - normals[a], edge) / np.maximum((edge**2).sum(axis=1), 1e-12)
    out = np.clip(bend, -MAX_CURVATURE, MAX_CURVATURE) * 2.0
    for _ in range(3):
        total = np.bincount(a, out, len(vertices)) + np.bincount(b, out, len(vertices))
        mean = total / np.maximum(np.bincount(a, minlength=len(vertices)) + np.bincount(b, minlength=len(vertices)), 1)
        out = 0.5 * (mean[a] + mean[b])
    return mean


def vertex_normals(vertices: Array, triangles: NDArray[np.integer]) -> Array:
    """Area-weighted unit normals at vertices, (n, 3)."""
    p = vertices[triangles]
    face = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    out = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(out, triangles[:, corner], face)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class _Problem:
    """Map points and landmarks, what they are laid on, and how many independent points the map counts for."""

    points: Array
    target: Target
    marks: Array
    goals: Array
    effective: float
    noise_mm: float = 0.0


@dataclass(frozen=True)
class _Fit:
    """rotation (3, 3), shift (3,) about `centre`, bias, half chi square, its curvature (7, 7) in (turn, shift, bias)."""

    rotation: Array
    shift: Array
    bias: float
    cost: float
    curvature: Array
    centre: Array

    def move(self, points: Array) -> Array:
        return (points - self.centre) @ self.rotation.T + self.centre + self.shift

    def matrix(self) -> Array:
        out = np.eye(4)
        out[:3, :3] = self.rotation
        out[:3, 3] = self.centre + self.shift - self.rotation @ self.centre
        return out


def _normal_equations(problem: _Problem, fit: _Fit) -> tuple[float, Array, Array]:
    """Half chi square, its gradient (7,) and curvature (7, 7): soft-L1 on the surface, quadratic on landmarks and bias."""
    moved = fit.move(problem.points)
    distance, direction = problem.target.offsets(moved, problem.noise_mm)
    z = (distance - fit.bias) / float(SURFACE_NOISE)
    root = np.sqrt(1.0 + z * z)
    share = problem.effective / len(problem.points)
    arm = moved - fit.centre - fit.shift
    jacobian = np.column_stack([np.cross(arm, direction), direction, -np.ones(len(z))]) / float(SURFACE_NOISE)
    weighted = jacobian * (share / root)[:, None]
    gradient, curvature = weighted.T @ z, weighted.T @ jacobian
    cost = share * float((2.0 * (root - 1.0)).sum()) / 2.0
    prior = fit.bias / float(BIAS)
    cost += 0.5 * prior**2
    gradient[6] += prior / float(BIAS)
    curvature[6, 6] += 1.0 / float(BIAS) ** 2
    if len(problem.marks):
        moved = fit.move(problem.marks)
        miss = (moved - problem.goals) / float(LANDMARK_NOISE)
        arm = moved - fit.centre - fit.shift
        for axis in range(3):
            unit = np.eye(3)[axis]
            row = np.column_stack([np.cross(arm, unit), np.tile(unit, (len(arm), 1)), np.zeros(len(arm))]) / float(LANDMARK_NOISE)
            gradient += row.T @ miss[:, axis]
            curvature += row.T @ row
        cost += 0.5 * float((miss**2).sum())
    return cost, gradient, curvature


def _minimise(problem: _Problem, start: tuple[Array, Array], steps: int = STEPS) -> _Fit:
    """Damped Gauss-Newton from a rotation and a shift."""
    fit = _Fit(start[0], start[1], 0.0, np.inf, np.eye(7), problem.points.mean(axis=0))
    cost, gradient, curvature = _normal_equations(problem, fit)
    damping = 1e-3
    for _ in range(steps):
        step = -np.linalg.solve(curvature + damping * np.diag(np.diag(curvature) + 1e-9), gradient)
        step *= min(1.0, 0.5 / max(float(np.linalg.norm(step[:3])), 1e-12))
        rotation = Rotation.from_rotvec(step[:3]).as_matrix() @ fit.rotation
        trial = _Fit(rotation, fit.shift + step[3:6], fit.bias + float(step[6]), np.inf, curvature, fit.centre)
        new = _normal_equations(problem, trial)
        if new[0] < cost:
            done = cost - new[0] < 1e-5 * cost
            fit, (cost, gradient, curvature), damping = trial, new, max(damping / 5.0, 1e-6)
            if done:
                break
        else:
            damping *= 10.0
            if damping > 1e4:
                break
    return _Fit(fit.rotation, fit.shift, fit.bias, cost, curvature, fit.centre)


def _starts(problem: _Problem) -> list[tuple[Array, Array]]:
    """Poses to start from: by three landmarks, and turned about the surface's long axis; else as exported and by principal axes."""
    centre, surface = problem.points.mean(axis=0), problem.target.vertices
    middle = surface.mean(axis=0)
    axes = [np.linalg.svd(cloud - cloud.mean(axis=0), full_matrices=False)[2] for cloud in (problem.points, surface)]
    for frame in axes:
        frame[2] *= np.sign(np.linalg.det(frame))
    if len(problem.marks) >= 3:
        turn, _ = Rotation.align_vectors(problem.goals - problem.goals.mean(axis=0), problem.marks - problem.marks.mean(axis=0))
        rotation = turn.as_matrix()
        shift = problem.goals.mean(axis=0) - (rotation @ (problem.marks.mean(axis=0) - centre) + centre)
        out = [(rotation, shift)]
        placed = centre + shift
        for angle in np.deg2rad((-40.0, -20.0, 20.0, 40.0)):
            about = Rotation.from_rotvec(axes[1][0] * angle).as_matrix()
            out.append((about @ rotation, middle + about @ (placed - middle) - centre))
        return out
    out = [(np.eye(3), np.zeros(3))]
    for flip in (np.eye(3), np.diag([-1.0, -1.0, 1.0])):
        for angle in np.deg2rad(np.arange(0, 360, 45)):
            about = Rotation.from_rotvec(axes[1][0] * angle).as_matrix()
            out.append((about @ axes[1].T @ flip @ axes[0], middle - centre))
    return out


def _effective(points: Array, distance: Array, area_mm2: float) -> float:
    """How many independent points a map counts for: by the correlation of neighbours' residuals, one per INDEPENDENT_AREA at most."""
    sample = slice(None, None, max(1, len(points) // 600))
    p, z = points[sample], np.clip(distance[sample], -9.0, 9.0)
    z = z - np.median(z)
    away = np.linalg.norm(p[:, None] - p[None], axis=2)
    bins = (away / 5.0).astype(int)
    product = z[:, None] * z[None]
    upper = np.triu(np.ones_like(bins, bool), 1)
    count = np.bincount(bins[upper], minlength=8)[:8]
    rho = np.bincount(bins[upper], product[upper], minlength=8)[:8] / np.maximum(count, 1) / max(float((z**2).mean()), 1e-12)
    rho[(count < 30) | (rho < np.maximum(0.05, 3.0 / np.sqrt(np.maximum(count, 1))))] = 0.0
    rho[int(np.argmax(rho == 0.0)) if (rho == 0.0).any() else 8 :] = 0.0
    neighbours = 2.0 * float((count * rho).sum()) / len(p) * len(points) / len(p)
    return float(min(len(points) / (1.0 + neighbours), area_mm2 / float(INDEPENDENT_AREA)))


def register(
    points_mm: Array,
    vertices_mm: Array,
    triangles: NDArray[np.integer],
    landmarks_map: Mapping[str, Array],
    landmarks_mesh: Mapping[str, Array],
    where: str = "eam",
) -> Registration:
    """Find the rigid transform that lays map points (n, 3) on a surface and landmarks of the same names on each other.

    Robust least squares (soft-L1 on point-to-plane distances, quadratic on landmarks): design/meshing.md 4, the row "joint", with the
    map's common distance from the wall as one more unknown. Raises Suspicious (`registration`) if the median distance that is left says
    that the map is of another heart.
    """
    goal = target(vertices_mm, triangles)
    names = sorted(set(landmarks_map) & set(landmarks_mesh))
    fits, names_used = _fit_without_wrong_marks(points_mm, goal, names, landmarks_map, landmarks_mesh)
    best = fits[0]
    distance, _ = goal.offsets(best.move(points_mm))
    ambiguity, others = _ambiguity(fits, points_mm)
    errors = {name: float(np.linalg.norm(best.move(landmarks_map[name][None])[0] - landmarks_mesh[name])) for name in names}
    dropped = tuple(name for name in names if name not in names_used)
    if dropped:
        said = f"left out, since the other landmarks and the surface contradict them: {', '.join(dropped)}"
        ambiguity = f"{ambiguity}; {said}" if ambiguity else said
    result = Registration(best.matrix(), distance, errors, ambiguity, _point_error(best, points_mm), others, dropped)
    if result.median_mm > REFUSED_RESIDUAL.value:
        raise Suspicious(
            "registration",
            where,
            "points",
            f"after registration half of the points are more than {result.median_mm:.1f} mm from the surface",
            "check that the map and the segmentation are of the same heart, chamber and unit",
        )
    return result


def _fit_without_wrong_marks(
    points: Array, goal: Target, names: list[str], marks: Mapping[str, Array], goals: Mapping[str, Array]
) -> tuple[list[_Fit], list[str]]:
    """Fits, best first, and the landmarks that they use: of four or more the worst is left out while it misses by too much."""
    names = list(names)
    while True:
        fits = _fits(points, goal, [marks[n] for n in names], [goals[n] for n in names])
        if len(names) < 4:
            return fits, names
        trials = {}
        miss = [float(np.linalg.norm(fits[0].move(marks[n][None])[0] - goals[n])) for n in names]
        if max(miss) < 0.6 * float(WRONG_LANDMARK):
            return fits, names
        for name in names:
            rest = [n for n in names if n != name]
            alone = _fits(points, goal, [marks[n] for n in rest], [goals[n] for n in rest], goal.area_mm2 / 100.0)
            trials[name] = (float(np.linalg.norm(alone[0].move(marks[name][None])[0] - goals[name])), alone)
        worst = min(trials, key=lambda n: trials[n][1][0].cost)
        if trials[worst][0] < float(WRONG_LANDMARK):
            return fits, names
        names.remove(worst)


def _fits(points: Array, goal: Target, marks: list[Array], goals: list[Array], effective: float | None = None) -> list[_Fit]:
    """Local minima, the best first: all starts on a few hundred points, the best of them on all with the points' own weight.

    effective: the weight if costs of different landmarks are to be compared.
    """
    share = min(1.0, len(points) * 50.0 / goal.area_mm2)
    some = points[:: max(1, len(points) // COARSE_POINTS)]
    laid = [np.array(a, np.float64).reshape(-1, 3) for a in (marks, goals)]
    coarse = _Problem(some, goal, laid[0], laid[1], share * goal.area_mm2 / 100.0)
    fits = sorted((_minimise(coarse, start, 25) for start in _starts(coarse)), key=lambda fit: fit.cost)
    kept: list[_Fit] = []
    for fit in fits:
        apart = [np.sqrt(((fit.move(some) - other.move(some)) ** 2).sum(axis=1).mean()) for other in kept]
        if fit.cost < 2.0 * fits[0].cost + 2 * NEARLY and all(d > 0.3 * DIFFERENT_MM for d in apart) and len(kept) < 6:
            kept.append(fit)
    centre = points.mean(axis=0)
    distance, _ = goal.offsets(kept[0].move(points))
    # misfit of shape is not noise: no more than SURFACE_NOISE is taken to be
    noise = min(1.4826 * float(np.median(np.abs(distance - np.median(distance)))), float(SURFACE_NOISE))
    effective = _effective(points, distance, goal.area_mm2) if effective is None else effective
    full = _Problem(points, goal, laid[0], laid[1], effective, noise)
    # the coarse points have another centre: a shift belongs to its centre
    again = [(fit.rotation, fit.move(centre[None])[0] - centre) for fit in kept]
    return sorted((_minimise(full, start) for start in again), key=lambda fit: fit.cost)


def _point_error(fit: _Fit, points: Array) -> Array:
    """Standard error (n,) mm of the placed points, from the inverse curvature."""
    covariance = np.linalg.pinv(fit.curvature)[:6, :6]
    arm = fit.move(points) - fit.centre - fit.shift
    total = np.zeros(len(points))
    for axis in range(3):
        unit = np.eye(3)[axis]
        row = np.column_stack([np.cross(arm, unit), np.tile(unit, (len(arm), 1))])
        total += np.einsum("ni,ij,nj->n", row, covariance, row)
    return np.sqrt(total)


def _ambiguity(fits: list[_Fit], points: Array) -> tuple[str, tuple[Array, ...]]:
    """What the data leave open, in words, and the transforms of other poses that fit nearly as well."""
    best = fits[0]
    placed = best.move(points)
    others, said = [], ""
    for fit in fits[1:]:
        apart = float(np.sqrt(((fit.move(points) - placed) ** 2).sum(axis=1).mean()))
        if fit.cost < best.cost + NEARLY and apart > DIFFERENT_MM:
            others.append(fit.matrix())
            angle = float(np.rad2deg(Rotation.from_matrix(fit.rotation @ best.rotation.T).magnitude()))
            said = said or f"a pose turned by {angle:.0f} degrees fits the surface almost as well: landmarks are needed to tell them apart"
    values, vectors = np.linalg.eigh(np.linalg.pinv(best.curvature)[:3, :3])
    loose = float(np.rad2deg(np.sqrt(max(float(values[-1]), 0.0))))
    if not said and loose > float(LOOSE_TURN):
        axis = np.round(vectors[:, -1], 2).tolist()
        said = f"the surface hardly holds the rotation about the axis {axis}: its standard error is {loose:.0f} degrees"
    return said, tuple(others)
