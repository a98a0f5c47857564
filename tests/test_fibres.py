"""Fibres by rules against the linear helix rule on shells whose depth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from analytic_hearts import lv_shell, moved, ventricles
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from meshing.coordinates import Wall, wall
from meshing.fibres import FibreAngles, fibres, normals
from meshing.laplace import Dirichlet, Elements, unit
from meshing.measured_fibres import FibreCloud, read_fibres, with_measured
from meshing.outflow import VALVES, DosteAngles, doste_fibres, valves_of
from twin.errors import InputError
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


def test_fibres_of_a_spheroid_are_the_analytic_ones():
    """The whole vector, not its mean angle: parallels, meridians and normals of confocal-like layers are known everywhere."""
    rings, layers = 20, 6
    mesh = lv_shell(rings=rings, layers=layers)
    fibre, sheet = fibres(mesh)
    centre = mesh.centroids_mm
    # depth of a place between the two spheroids: the family radius 22 + 10 d, half length 60 + 10 d
    low, high = np.full(len(centre), -0.2), np.full(len(centre), 1.2)
    for _ in range(50):
        d = 0.5 * (low + high)
        outside = (np.hypot(centre[:, 0], centre[:, 1]) / (22 + 10 * d)) ** 2 + (centre[:, 2] / (60 + 10 * d)) ** 2 > 1
        low, high = np.where(outside, d, low), np.where(outside, high, d)
    radius, length = 22 + 10 * d, 60 + 10 * d
    normal = unit(centre / np.stack([radius**2, radius**2, length**2], axis=1))
    round_ = unit(np.stack([-centre[:, 1], centre[:, 0], np.zeros(len(centre))], axis=1))
    up = np.cross(normal, round_)
    angle = np.radians(60.0 - 120.0 * d)[:, None]
    exact = np.cos(angle) * round_ + np.sin(angle) * up
    body = (centre[:, 2] > -50) & (centre[:, 2] < 5)
    off = np.degrees(np.arccos(np.clip(np.abs(np.einsum("mi,mi->m", fibre, exact)), 0, 1)))[body]
    assert np.median(off) < 3.0
    assert np.percentile(off, 95) < 7.0
    third = normals(fibre, sheet)
    np.testing.assert_allclose(np.linalg.norm(third, axis=1), 1.0, atol=1e-12)
    assert np.abs(np.einsum("mi,mi->m", third, fibre)).max() < 1e-12


# --- outflow tracts -------------------------------------------------------------------------------------------------------------------


def places(mesh: HeartMesh) -> dict[str, np.ndarray]:
    """Valves of the phantom: outflow in front, inflow behind, in either ventricle."""
    height = 12.0
    return {
        "mitral": np.array([0.0, 12.0, height]),
        "aortic": np.array([0.0, -18.0, height]),
        "tricuspid": np.array([-48.0, 14.0, height]),
        "pulmonary": np.array([-40.0, -22.0, height]),
    }


def test_valves_share_the_base(two):
    mesh, *_ = two
    valves = valves_of(mesh, places(mesh))
    assert set(valves) == set(VALVES)
    together = np.concatenate(list(valves.values()))
    np.testing.assert_array_equal(np.sort(together), mesh.surface_nodes("base"))
    alone = valves_of(mesh)  # one open edge each: inflow valves alone
    assert set(alone) == {"mitral", "tricuspid"}
    with pytest.raises(InputError, match="no valve"):
        valves_of(mesh, {"aorta": np.zeros(3)})


def test_fibres_turn_towards_the_outflow_tracts(two):
    mesh, fields, bayer, _ = two
    valves = valves_of(mesh, places(mesh))
    fibre, sheet = doste_fibres(mesh, valves, fields=fields)
    np.testing.assert_allclose(np.linalg.norm(fibre, axis=1), 1.0, atol=1e-12)
    assert np.abs(np.einsum("mi,mi->m", fibre, sheet)).max() < 1e-12
    # a corner of the septum's rim where two valves meet is a jump by construction
    assert share_of_jumps(mesh, fibre) < 0.01
    p = mesh.centroids_mm
    depth = fields.transmural[mesh.tets].mean(axis=1)
    body = (p[:, 2] < -25) & (p[:, 2] > -45) & (p[:, 0] > 5)
    turned = np.degrees(np.arccos(np.clip(np.abs(np.einsum("mi,mi->m", fibre, bayer)), 0, 1)))
    assert np.median(turned[body]) < 16.0  # far from the valves the walls of the LV nearly keep their angles
    # at the endocardium of the outflow tract fibres run along it, up to the artery
    near = np.linalg.norm(p - places(mesh)["pulmonary"], axis=1) < 14
    inner = near & (depth < 0.25) & (p[:, 0] < -33)
    assert inner.sum() > 15
    assert np.median(np.abs(fibre[inner, 2])) > np.median(np.abs(bayer[inner, 2])) + 0.05
    # the RV's own angles: endocardium longitudinal, 90 degrees
    rv_inner = fields.right[mesh.tets].all(axis=1) & (depth < 0.15) & (p[:, 2] < -5) & (p[:, 2] > -35)
    assert np.median(np.abs(fibre[rv_inner, 2])) > 0.85


def test_without_outflow_valves_and_with_its_angles_doste_is_the_other_rule(two):
    mesh, fields, bayer, _ = two
    same = DosteAngles(60.0, -60.0, 60.0, -60.0, beta_endo_deg=-45.0, beta_epi_deg=45.0)
    fibre, _ = doste_fibres(mesh, valves_of(mesh), same, fields)
    assert np.percentile(np.abs(np.einsum("mi,mi->m", fibre, bayer)), 1) > 0.999
    with pytest.raises(InputError, match="inflow"):
        doste_fibres(mesh, {}, fields=fields)


# --- measured -------------------------------------------------------------------------------------------------------------------------


def test_measured_fibres_are_matched_by_place(two, tmp_path):
    mesh, _, fibre, sheet = two
    ruled = replace(mesh, fibre=fibre, sheet=sheet)
    rng = np.random.default_rng(2)
    order = rng.permutation(len(mesh.tets))
    turned = np.cross(sheet, fibre)
    sign = rng.choice([-1.0, 1.0], len(order))
    path = tmp_path / "dti.npz"
    np.savez(path, places_mm=mesh.centroids_mm[order], fibre=(turned * 3.0)[order] * sign[:, None])
    found, numbers = with_measured(ruled, read_fibres(path))
    assert np.percentile(np.abs(np.einsum("mi,mi->m", found.fibre, turned)), 2) > 0.95
    assert np.abs(np.einsum("mi,mi->m", found.fibre, found.sheet)).max() < 1e-9
    assert numbers["covered"] == 1.0
    assert numbers["turned_deg"] > 85.0
    # half of the heart was measured: the rest keeps the rule; far less is another heart's file
    half = order[mesh.centroids_mm[order, 2] > -25]
    some, numbers = with_measured(ruled, FibreCloud(mesh.centroids_mm[half], turned[half]))
    assert 0.5 < numbers["covered"] < 0.9
    far = mesh.centroids_mm[:, 2] < -40
    np.testing.assert_array_equal(some.fibre[far], fibre[far])
    with pytest.raises(InputError, match="median distance"):
        with_measured(ruled, FibreCloud(mesh.centroids_mm + 300.0, turned))


def test_fibres_of_an_opencarp_mesh_with_another_order(two, tmp_path):
    from twin.io.opencarp import mesh as opencarp

    mesh, _, fibre, sheet = two
    order = np.random.default_rng(4).permutation(len(mesh.tets))
    opencarp.write(tmp_path / "heart", mesh.points_mm, mesh.tets[order], np.ones(len(order), np.int32), fibre[order], sheet[order])
    blank = replace(mesh, fibre=np.tile([1.0, 0.0, 0.0], (len(order), 1)), sheet=np.tile([0.0, 1.0, 0.0], (len(order), 1)))
    found, numbers = with_measured(blank, read_fibres(tmp_path / "heart.lon"))
    assert np.percentile(np.abs(np.einsum("mi,mi->m", found.fibre, fibre)), 2) > 0.95
    assert numbers["distance_mm"] < 0.01


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"fibre": np.ones((3, 3))}, "places_mm"),
        ({"places_mm": np.ones((3, 3)), "fibre": np.ones((4, 3))}, "one direction per place"),
        ({"places_mm": np.ones((3, 3)), "fibre": np.zeros((3, 3))}, "zero"),
        ({"places_mm": np.ones((3, 3)), "fibre": np.full((3, 3), np.nan)}, "not finite"),
    ],
)
def test_bad_measurements_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=words):
        read_fibres(tmp_path / "x.npz")
