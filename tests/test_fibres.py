"""Fibres by rules against the linear helix rule on shells whose depth is known."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_hearts import lv_shell, moved, ventricles
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from meshing.coordinates import Wall, wall
from meshing.fibres import FibreAngles, fibres
from meshing.laplace import Dirichlet, Elements, unit
from twin.mesh import HeartMesh


@pytest.fixture(scope="module")
def two() -> tuple[HeartMesh, Wall, np.ndarray, np.ndarray]:
    mesh = ventricles(2.3)
    fields = wall(mesh)
    return mesh, fields, *fibres(mesh, fields=fields)


def depth_and_helix(mesh: HeartMesh, fibre: np.ndarray, inner: np.ndarray, outer: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, ...]:
    """Depth by nearest places on either surface, and the helix angle in degrees about the line that joins them."""
    centre = mesh.centroids_mm[chosen]

    def foot(triangles: np.ndarray) -> np.ndarray:
        corner = mesh.points_mm[triangles]
        places = np.concatenate([corner.mean(axis=1), *(corner[:, [i, (i + 1) % 3]].mean(axis=1) for i in range(3)), corner.reshape(-1, 3)])
        return places[cKDTree(places).query(centre)[1]]

    a, b = foot(inner), foot(outer)
    from_a, from_b = np.linalg.norm(centre - a, axis=1), np.linalg.norm(centre - b, axis=1)
    across = unit(b - a)
    up = np.array([0.0, 0.0, 1.0])
    along = unit(up - (across @ up)[:, None] * across)
    f = fibre[chosen]
    angle = np.degrees(np.arctan2(np.einsum("mi,mi->m", f, along), np.einsum("mi,mi->m", f, np.cross(along, across))))
    return from_a / (from_a + from_b), (angle + 90.0) % 180.0 - 90.0


def worst_bin(depth: np.ndarray, helix: np.ndarray, endo: float, epi: float) -> float:
    """Largest mean departure from the linear rule over ten layers, degrees."""
    miss = (helix - (endo + (epi - endo) * depth) + 90.0) % 180.0 - 90.0
    bins = np.minimum((depth * 10).astype(int), 9)
    return max(abs(float(miss[bins == i].mean())) for i in range(10) if (bins == i).any())


def share_of_jumps(mesh: HeartMesh, fibre: np.ndarray) -> float:
    """Share of face neighbours whose fibres differ by more than 45 degrees."""
    t = mesh.tets
    faces = np.sort(np.concatenate([t[:, [1, 2, 3]], t[:, [0, 2, 3]], t[:, [0, 1, 3]], t[:, [0, 1, 2]]]), axis=1)
    owner = np.tile(np.arange(len(t)), 4)
    order = np.lexsort(faces.T)
    twin = (faces[order][1:] == faces[order][:-1]).all(axis=1)
    a, b = owner[order][:-1][twin], owner[order][1:][twin]
    return float((np.abs(np.einsum("mi,mi->m", fibre[a], fibre[b])) < np.cos(np.pi / 4)).mean())


def test_both_free_walls_and_septum_follow_the_linear_rule(two):
    mesh, fields, fibre, _ = two
    centre = mesh.centroids_mm
    level = (centre[:, 2] > -40) & (centre[:, 2] < 6)
    right = fields.right[mesh.tets].all(axis=1)
    from_septum = np.degrees(np.arctan2(np.abs(centre[:, 1]), -centre[:, 0]))
    rv = mesh.surfaces["rv_endo"]
    walls = {
        "lv": (mesh.surfaces["lv_endo"], mesh.surfaces["epi"], level & (from_septum > 90)),
        "septum": (
            mesh.surfaces["lv_endo"],
            rv[fields.septal],
            level & (from_septum < 40) & ~right & (np.hypot(centre[:, 0], centre[:, 1]) < 33),
        ),
        "rv": (rv[~fields.septal], mesh.surfaces["epi"], level & right & (from_septum < 45)),
    }
    for name, (inner, outer, chosen) in walls.items():
        assert chosen.sum() > 3000, name
        depth, helix = depth_and_helix(mesh, fibre, inner, outer, chosen)
        assert worst_bin(depth, helix, 60.0, -60.0) < 6.0, name
        assert np.abs(fields.transmural[mesh.tets].mean(axis=1)[chosen] - depth).mean() < 0.015, name


def test_depth_of_the_free_wall_is_that_of_distance(two):
    mesh, fields, fibre, _ = two
    centre = mesh.centroids_mm
    chosen = (np.abs(centre[:, 2] + 17) < 23) & (centre[:, 0] > 5)
    depth, _ = depth_and_helix(mesh, fibre, mesh.surfaces["lv_endo"], mesh.surfaces["epi"], chosen)
    solved, harmonic = (f[mesh.tets].mean(axis=1)[chosen] for f in (fields.transmural, fields.across))
    assert np.abs(solved - depth).mean() < 0.01
    assert np.abs(harmonic - depth).mean() > 2 * np.abs(solved - depth).mean()


def test_vectors_are_orthonormal_and_neighbours_agree(two):
    mesh, _, fibre, sheet = two
    np.testing.assert_allclose(np.linalg.norm(fibre, axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(sheet, axis=1), 1.0, atol=1e-12)
    assert np.abs(np.einsum("mi,mi->m", fibre, sheet)).max() < 1e-12
    assert share_of_jumps(mesh, fibre) < 0.005


@pytest.mark.parametrize("angles", [FibreAngles(), FibreAngles(alpha_endo_deg=70.0, alpha_epi_deg=-50.0)])
def test_left_ventricle_alone(angles):
    mesh = lv_shell()
    fibre, sheet = fibres(mesh, angles)
    centre = mesh.centroids_mm
    chosen = (centre[:, 2] > -45) & (centre[:, 2] < 5)
    depth, helix = depth_and_helix(mesh, fibre, mesh.surfaces["lv_endo"], mesh.surfaces["epi"], chosen)
    assert worst_bin(depth, helix, angles.alpha_endo_deg, angles.alpha_epi_deg) < 3.0
    assert share_of_jumps(mesh, fibre) < 0.005
    outward = unit(centre * np.array([1.0, 1.0, 0.1]))[chosen]
    # beta turns the sheet about the fibre: mid-wall, where it is zero, the sheet points outward
    middle = np.abs(depth - 0.5) < 0.05
    assert np.abs(np.einsum("mi,mi->m", sheet[chosen], outward))[middle].mean() > 0.97


def test_fibres_turn_with_the_heart(two):
    mesh, _, fibre, sheet = two
    turn = Rotation.from_rotvec([0.7, -1.1, 0.4]).as_matrix()
    shift = np.array([31.0, -120.0, 77.0])
    fibre_there, sheet_there = fibres(moved(mesh, turn, shift))
    for here, there in ((fibre, fibre_there), (sheet, sheet_there)):
        agree = np.abs(np.einsum("mi,mi->m", here @ turn.T, there))
        # the solves stop at a relative residual of 1e-7; only singular points (apex, insertion lines) amplify that
        assert np.quantile(agree, 0.001) > 1 - 1e-6


def test_same_bytes_twice(two):
    mesh, _, fibre, _ = two
    np.testing.assert_array_equal(fibres(mesh)[0], fibre)


def test_laplace_of_a_linear_field_is_exact_with_either_preconditioner():
    mesh = lv_shell(rings=10, layers=3)
    elements = Elements(mesh.points_mm, mesh.tets)
    field = mesh.points_mm @ np.array([0.3, -0.2, 0.9])
    outside = np.unique(np.concatenate([mesh.surface_nodes(name) for name in ("lv_endo", "epi", "base")]))
    for multigrid in (False, True):
        solved = Dirichlet(elements.matrix(), outside, multigrid=multigrid).solve(field)
        np.testing.assert_allclose(solved, field, atol=1e-4)
