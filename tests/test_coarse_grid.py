"""Coordinates of fine meshes among the functions of a coarse grid: exact lines, and what a fine mesh falls back to."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_hearts import lv_shell, moved
from scipy.spatial.transform import Rotation

from meshing import coordinates as system
from meshing import laplace
from meshing.box import box_tets
from meshing.coarse import Grid, coarse_fraction
from meshing.laplace import Elements, trajectory_fraction
from twin.errors import RunFailed

INNER_MM, OUTER_MM = 20.0, 28.0


@pytest.mark.parametrize("turn", [0.0, 0.7])
def test_a_quarter_of_a_ring_is_divided_by_its_angle(turn: float) -> None:
    box, tets = box_tets((42.0, 8.0, 8.0), 1.0)
    angle, radius = box[:, 0] / 42.0 * np.pi / 2.0, INNER_MM + box[:, 1]
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), box[:, 2]], axis=1)
    points = points @ Rotation.from_rotvec([turn, -turn, 0.5 * turn]).as_matrix().T
    volume = np.einsum(
        "ij,ij->i", np.cross(*(points[tets[:, k]] - points[tets[:, 0]] for k in (1, 2))), points[tets[:, 3]] - points[tets[:, 0]]
    )
    tets = np.where((volume > 0)[:, None], tets, tets[:, [0, 2, 1, 3]])
    elements = Elements(points, tets)
    start, end = np.flatnonzero(box[:, 0] == 0.0), np.flatnonzero(box[:, 0] == box[:, 0].max())
    exact = angle / angle.max()
    own = trajectory_fraction(elements, exact, start, end)
    coarse = coarse_fraction(elements, Grid(points, 2.5), exact, start, end)
    assert np.abs(own - exact).max() < 0.02
    assert np.abs(coarse - exact).mean() < 0.006
    assert np.abs(coarse - exact).max() < 0.03
    assert (coarse[start] == 0).all()
    assert np.allclose(coarse[end], 1.0)


def test_a_grid_reproduces_linear_fields() -> None:
    points = np.random.default_rng(0).random((500, 3)) * 30.0 + 7.0
    grid = Grid(points, 2.5)
    np.testing.assert_allclose(grid.weights.sum(axis=1), 1.0)
    assert grid.weights.shape[0] == 500


def test_where_the_grid_fails_the_mesh_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = lv_shell(rings=10, layers=3)
    usual = system.coordinates(mesh)["apicobasal"]

    def fails(*_: object) -> np.ndarray:
        raise RunFailed("no")

    monkeypatch.setattr(system, "FINE_MM", 100.0)
    monkeypatch.setattr(system, "coarse_fraction", fails)
    np.testing.assert_array_equal(system.coordinates(mesh)["apicobasal"], usual)
    shifted = moved(mesh, np.eye(3), np.array([5.0, 0.0, 0.0]))
    assert system.mean_edge_mm(Elements(shifted.points_mm, shifted.tets)) == pytest.approx(
        system.mean_edge_mm(Elements(mesh.points_mm, mesh.tets))
    )


def test_a_matrix_in_blocks_is_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    points, tets = box_tets((9.0, 8.0, 7.0), 1.0)
    elements = Elements(points, tets)
    direction = np.random.default_rng(0).normal(size=(len(tets), 3))
    whole = [elements.matrix(), elements.matrix(direction)]
    monkeypatch.setattr(laplace, "BLOCK", len(tets) // 3)
    for before, way in zip(whole, (None, direction)):
        after = elements.matrix(way)
        assert abs(after - before).max() <= 1e-12 * abs(before).max()
