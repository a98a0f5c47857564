"""Registration: the error is judged on known points, never on the distance to the surface."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from twin.calibrate.registration import register
from twin.errors import Suspicious

RNG = np.random.default_rng(5)


def _ventricle() -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid with a flattened side, open nowhere: enough shape to fix the rotation only loosely."""
    u = RNG.normal(size=(3000, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    points = u * [25.0, 22.0, 45.0]
    points[:, 0] = np.minimum(points[:, 0], 17.0)
    hull = ConvexHull(points + RNG.normal(scale=1e-3, size=points.shape))
    tri = hull.simplices.copy()
    p = points[tri]
    inward = np.einsum("ij,ij->i", np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), p.mean(axis=1)) < 0
    tri[inward] = tri[inward][:, ::-1]
    return points, tri


MARKS = {"apex": [0, 0, -45.0], "mitral": [0, 0, 30.0], "septum": [17.0, 0, 0], "lateral": [-25.0, 0, 0]}


@pytest.mark.parametrize("seed", range(4))
def test_offset_is_recovered_within_the_gate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vertices, triangles = _ventricle()
    turn = Rotation.from_rotvec(np.deg2rad(20) * np.array([0.6, 0.0, 0.8]))
    shift = np.array([12.0, -8.0, 6.0])
    truth = vertices[vertices[:, 2] < 25]
    truth = truth[rng.choice(len(truth), 900)]
    measured = turn.inv().apply(truth - shift) + rng.normal(scale=1.2, size=truth.shape)
    marks = {k: turn.inv().apply(np.array(v) - shift) + rng.normal(scale=2.0, size=3) for k, v in MARKS.items()}
    found = register(measured, vertices, triangles, marks, {k: np.array(v) for k, v in MARKS.items()})
    error = np.linalg.norm(found.apply(turn.inv().apply(truth - shift)) - truth, axis=1)
    assert np.sqrt((error**2).mean()) < 2.5
    assert set(found.landmark_error_mm) == set(MARKS)


def test_without_landmarks_a_symmetric_shape_is_called_ambiguous() -> None:
    vertices, triangles = _ventricle()
    found = register(vertices[::4], vertices, triangles, {}, {})
    assert found.median_mm < 0.5
    assert "turned by" in found.ambiguity


def test_a_map_of_another_heart_is_refused() -> None:
    vertices, triangles = _ventricle()
    with pytest.raises(Suspicious, match="same heart"):
        register(vertices * [2.0, 0.5, 1.4], vertices, triangles, {}, {})
