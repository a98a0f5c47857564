"""Graded meshes and conforming region boundaries: no hanging node, good angles, sizes where they were asked for, the labels' volumes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from meshing.cutting import cut, halve
from meshing.grading import Grading, stuff_graded
from meshing.interfaces import boundaries, conform
from meshing.mesh_labels import mesh_heart
from meshing.octree import graded_lattice
from meshing.phantom import Ventricles, rotation
from meshing.quality import dihedral_angles, tet_volumes
from meshing.region_fields import RegionFields
from meshing.smoothing import smooth
from meshing.stuffing import stuff
from meshing.surfaces import FACES, boundary_faces, tet_components, topology
from planners.app.cli import run
from planners.report.summary import _mesh
from solvers.eikonal import EikonalMesh
from solvers.verify.eikonal import exact_ms
from tests.test_mesher import restored
from twin.case import load_case
from twin.errors import InputError, RunFailed
from twin.io.nrrd import write_nrrd
from twin.mesh import REGIONS, HeartMesh
from twin.volume import LABELS, LabelVolume

NEAR = Grading(1.2, 4.0)


def sphere(p: np.ndarray) -> np.ndarray:
    return np.linalg.norm(p, axis=1) - 12.3


def towards(place: np.ndarray, fine: float, within: float = 4.0):
    return lambda p, reach: fine + 0.5 * np.maximum(np.linalg.norm(p - place, axis=1) - reach - within, 0.0)


def shares(tets: np.ndarray) -> np.ndarray:
    return np.unique(np.sort(tets[:, FACES].reshape(-1, 3), axis=1), axis=0, return_counts=True)[1]


@cache
def scarred() -> LabelVolume:
    return Ventricles(scale=0.7, frame=rotation((1.0, 2.0, 0.5), 37.0), scar_mm=14.0).volume(
        1.25, axes=rotation((0.2, 1.0, 0.4), 12.0), scar=True
    )


@cache
def heart(graded: bool, conforming: bool) -> HeartMesh:
    return mesh_heart(scarred(), 2.4, grading=NEAR if graded else None, conforming=conforming)


# --- the lattice ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_graded_lattice_conforms_and_has_four_shapes(levels: int) -> None:
    place = np.array([9.0, 2.0, -4.0])
    grid = graded_lattice(sphere, towards(place, 0.8, 2.0), np.full(3, -13.0), np.full(3, 13.0), 0.8, levels)
    smallest, largest = dihedral_angles(grid.points, grid.tets)
    found = np.unique(np.round(np.concatenate([smallest, largest]), 3))
    np.testing.assert_allclose(found, [45.0, 60.0, 90.0, 120.0])
    assert shares(grid.tets).max() == 2
    faces = np.sort(grid.tets[:, FACES].reshape(-1, 3), axis=1)
    lone, count = np.unique(faces, axis=0, return_counts=True)
    assert sphere(grid.points[lone[count == 1]].mean(axis=1)).min() > 0.8  # whole inside and around the body: nothing hangs
    # whatever the cells, everything inside is filled once
    inside = (sphere(grid.points)[grid.tets] < 0).any(axis=1)
    boundary = boundary_faces(grid.tets[inside], np.ones(len(grid.points), bool))
    p = grid.points[boundary]
    enclosed = np.einsum("ij,ij->", p[:, 0], np.cross(p[:, 1], p[:, 2])) / 6.0
    assert tet_volumes(grid.points, grid.tets)[inside].sum() == pytest.approx(enclosed, rel=1e-12)
    near = np.linalg.norm(grid.points - place, axis=1) < 2.0
    assert (grid.cell_mm[near] == 0.8).all()
    assert grid.cell_mm.max() == 0.8 * 2**levels


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_smooth_body_graded_anywhere_is_conforming_positive_and_of_good_angles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    waves, phase, height = rng.normal(size=(4, 3)) * 0.25, rng.uniform(0, 6.3, 4), rng.normal(size=4)

    def field(p: np.ndarray) -> np.ndarray:
        return np.linalg.norm(p, axis=1) - 9.0 + np.sin(p @ waves.T + phase) @ height

    body = stuff_graded(field, towards(rng.normal(size=3) * 5.0, 1.0), np.full(3, -16.0), np.full(3, 16.0), 1.0, 2)
    assert tet_volumes(body.points, body.tets).min() > 0
    triangles = boundary_faces(body.tets, body.on_surface)
    count = shares(body.tets)
    assert count.max() == 2
    assert (count == 1).sum() == len(triangles)
    assert topology(triangles).open_edges == 0
    points, _ = smooth(body.points, body.tets, triangles, field, body.cell_mm)
    assert tet_volumes(points, body.tets).min() > 0
    assert dihedral_angles(points, body.tets)[0].min() > 10.7


def test_volume_and_surface_of_a_graded_sphere() -> None:
    body = stuff_graded(sphere, towards(np.array([12.0, 0, 0]), 0.7), np.full(3, -13.0), np.full(3, 13.0), 0.7, 1)
    whole = 4 / 3 * np.pi * 12.3**3
    coarse = stuff(sphere, np.full(3, -13.0), np.full(3, 13.0), 1.4)
    assert (
        0.0 < 1.0 - tet_volumes(body.points, body.tets).sum() / whole < 1.0 - tet_volumes(coarse.points, coarse.tets).sum() / whole < 4e-3
    )
    nodes = np.unique(boundary_faces(body.tets, body.on_surface))
    assert np.abs(sphere(body.points[nodes])).max() < 1e-6
    assert len(body.tets) < 0.5 * len(stuff(sphere, np.full(3, -13.0), np.full(3, 13.0), 0.7).tets)


def test_a_graded_lattice_says_what_stuffing_says() -> None:
    with pytest.raises(RunFailed, match="nothing lies inside"):
        stuff_graded(lambda p: np.ones(len(p)), towards(np.zeros(3), 1.0), np.zeros(3), np.ones(3), 0.5, 1)
    with pytest.raises(RunFailed, match="not finite"):
        stuff_graded(lambda p: np.where(p[:, 0] > 4.0, np.nan, -1.0), towards(np.zeros(3), 1.0), np.zeros(3), np.full(3, 6.0), 0.5, 1)


def test_a_wave_is_as_right_in_fine_cells_as_in_a_fine_mesh_and_crosses_into_coarse_ones() -> None:
    def box(p: np.ndarray) -> np.ndarray:
        return np.abs(p).max(axis=1) - 10.0

    def wanted(p: np.ndarray, reach: float) -> np.ndarray:
        return 1.5 + 0.5 * np.maximum(p[:, 0] - reach + 2.0, 0.0)

    low, high, fibre = np.full(3, -10.0), np.full(3, 10.0), np.array([np.cos(0.6), np.sin(0.6), 0.0])
    errors = {}
    for name, body in (
        ("coarse", stuff(box, low, high, 3.0)),
        ("fine", stuff(box, low, high, 1.5)),
        ("graded", stuff_graded(box, wanted, low, high, 1.5, 1)),
    ):
        geometry = EikonalMesh(body.points, body.tets, np.tile(fibre, (len(body.tets), 1)))
        source = int(np.argmin(np.linalg.norm(body.points - [-6.0, 0.0, 0.0], axis=1)))
        late = geometry.solve(0.6, 0.25, *geometry.ball(source, 4.0, 0.6, 0.25)) - exact_ms(
            body.points, body.points[source], fibre, 0.6, 0.25
        )
        assert late.min() > -1e-9
        inside = box(body.points) < -1.0
        errors[name] = [float(late[inside & side].mean()) for side in (body.points[:, 0] < -3.0, body.points[:, 0] > 4.0)]
    assert errors["graded"][0] == pytest.approx(errors["fine"][0], rel=1e-3)
    assert errors["fine"][1] < errors["graded"][1] < 0.8 * errors["coarse"][1]


# --- cutting --------------------------------------------------------------------------------------------------------------------------


def test_halving_keeps_volume_orientation_and_faces() -> None:
    points = np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 2, 2]])
    tets = np.array([[0, 1, 2, 3], [1, 4, 2, 3]], np.int32)
    assert (tet_volumes(points, tets) > 0).all()
    edges = np.array([[1, 2], [0, 1], [2, 3]], np.int32)
    parts, parent = halve(tets, edges, 5)
    more = np.concatenate([points, points[edges].mean(axis=1)])
    assert (tet_volumes(more, parts) > 0).all()
    for t in (0, 1):
        assert tet_volumes(more, parts)[parent == t].sum() == pytest.approx(tet_volumes(points, tets)[t])
    assert shares(parts).max() == 2
    triangle, of = halve(np.array([[1, 2, 3, -1]], np.int32), edges, 5)
    assert (triangle[:, 3] == -1).all()
    assert len(triangle) == 3
    assert set(of) == {0}
    # the faces between the two tetrahedra are cut as the triangle is
    shared = {tuple(sorted(row[:3])) for row in triangle.tolist()}
    assert shared <= {tuple(sorted(face)) for face in parts[:, FACES].reshape(-1, 3).tolist()}


def test_a_cut_leaves_whole_tetrahedra_on_either_side() -> None:
    body = stuff(sphere, np.full(3, -13.0), np.full(3, 13.0), 2.0)

    def inner(p: np.ndarray) -> np.ndarray:
        return np.linalg.norm(p - [2.0, 1.0, 0.5], axis=1) - 6.1

    made = cut(body.points, body.tets, -inner(body.points), inner, lambda crossed: np.full((len(crossed.edges), 2), 0.3), 10.0)
    sign = made.sign[made.tets]
    assert ((sign.min(axis=1) >= 0) | (sign.max(axis=1) <= 0)).all()
    volume = tet_volumes(made.points, made.tets)
    assert volume.min() > 0
    assert volume.sum() == pytest.approx(tet_volumes(body.points, body.tets).sum(), rel=1e-9)
    assert volume[sign.max(axis=1) > 0].sum() == pytest.approx(4 / 3 * np.pi * 6.1**3, rel=0.05)  # of 0.4 to 0.9 mL, at 2.4 mm
    assert np.abs(inner(made.points[made.sign == 0])).max() < 1e-5
    assert shares(made.tets).max() == 2


# --- the heart ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("graded", "conforming"), [(True, False), (False, True), (True, True)])
def test_gates_of_the_heart(graded: bool, conforming: bool) -> None:
    mesh = heart(graded, conforming)
    mesh.check()
    quality = mesh.quality
    assert [miss["gate"] for miss in quality["misses"] if miss["gate"] != "volume_error_percent"] == []
    assert quality["volume_error_percent"] == pytest.approx(heart(False, False).quality["volume_error_percent"], abs=1.0)
    assert (quality["surface_euler"], quality["surface_components"], quality["surface_open_edges"]) == (2, 1, 0)
    assert shares(mesh.tets).max() == 2
    faces = np.concatenate(list(mesh.surfaces.values()))
    whole = boundary_faces(mesh.tets, np.ones(mesh.n_points, bool))
    assert {tuple(row) for row in np.sort(faces, axis=1).tolist()} == {tuple(row) for row in np.sort(whole, axis=1).tolist()}
    p = mesh.points_mm[faces]
    assert np.einsum("ij,ij->", p[:, 0], np.cross(p[:, 1], p[:, 2])) / 6.0 == pytest.approx(mesh.tet_volumes_mm3.sum(), rel=1e-9)


def test_the_heart_is_fine_near_scar_and_coarse_elsewhere() -> None:
    mesh = heart(True, False)
    sizes = mesh.quality["grading"]
    assert [row["edge_mm"] for row in sizes] == pytest.approx([1.2, 2.4], rel=0.12)
    assert sum(row["tets"] for row in sizes) == len(mesh.tets)
    scar = scarred().to_mm(np.argwhere(scarred().mask("scar", "border_zone", "isthmus")).astype(float))
    distance = cKDTree(scar).query(mesh.centroids_mm)[0]
    volume = mesh.tet_volumes_mm3
    assert np.median(volume[distance > 10.0]) > 5.0 * np.median(volume[distance < 3.0])
    assert volume[distance < 3.0].max() < 0.9 * np.median(volume[distance > 10.0])


def test_regions_bounded_by_faces_keep_their_labels_volume() -> None:
    labels = scarred()
    for graded in (False, True):
        mesh = heart(graded, True)
        assert mesh.quality["regions"]["carried_by"] == "faces of the mesh"
        for name in ("scar", "border_zone", "isthmus"):
            found = mesh.tet_volumes_mm3[mesh.in_region(name)].sum() / 1000.0
            assert found == pytest.approx(labels.volume_ml(name), rel=0.05)  # of 0.4 to 0.9 mL, at 2.4 mm
            assert mesh.quality["regions"][name]["mesh_ml"] == pytest.approx(found, abs=1e-3)
    assert heart(False, False).quality["regions"]["carried_by"].startswith("the label")


@pytest.mark.parametrize("radius_mm", [4.0, pytest.param(8.0, marks=pytest.mark.slow)])
def test_a_sphere_of_scar_in_a_wall(radius_mm: float) -> None:
    """Volume within 1 %, its boundary on the sphere; by sampling the small one loses up to a tenth."""
    labels = Ventricles(scale=0.7).volume(1.0)
    p = labels.to_mm(np.argwhere(np.ones(labels.data.shape, bool)).astype(float))
    wall = (labels.data == LABELS["lv_myocardium"]).ravel()
    middle = np.array([17.5, 0.0, -10.0])
    data = labels.data.copy()
    data.reshape(-1)[wall & (np.linalg.norm(p - middle, axis=1) < radius_mm)] = LABELS["scar"]
    mesh = mesh_heart(replace(labels, data=data), 2.0, conforming=True)
    assert abs(mesh.quality["regions"]["scar"]["error_percent"]) < 1.0
    ((one, two, faces),) = boundaries(mesh.tets, mesh.region)
    assert (one, two) == (REGIONS["healthy"], REGIONS["scar"])
    off = np.linalg.norm(mesh.points_mm[np.unique(faces)] - middle, axis=1) - radius_mm
    assert np.abs(off).mean() < 0.25  # voxels of 1 mm
    corner = mesh.points_mm[faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    out = middle - corner.mean(axis=1)
    cosine = np.einsum("ki,ki->k", normal, out) / np.linalg.norm(normal, axis=1) / np.linalg.norm(out, axis=1)
    assert np.median(cosine) > 0.97  # a sphere's faces, not a staircase's
    assert mesh.quality["dihedral_min_deg"] > 10.7


def test_boundaries_of_regions_are_the_surfaces_that_were_asked_for() -> None:
    """An analytic ball in a ball: the faces lie on it, and only the outer surface stays a surface."""
    body = stuff(sphere, np.full(3, -13.0), np.full(3, 13.0), 1.6)
    axis = np.linspace(-13.0, 13.0, 53)
    far = np.linalg.norm(np.stack(np.meshgrid(axis, axis, axis, indexing="ij")), axis=0) - 7.0
    fields = np.stack([-far, far]).astype(np.float32)
    inverse = np.hstack([np.eye(3) * 2.0, np.full((3, 1), 26.0)])
    asked = RegionFields((1, 3), fields, inverse, np.array([0.0, 4 / 3 * np.pi * 7.0**3]))
    triangles = boundary_faces(body.tets, body.on_surface)
    surfaces = dict.fromkeys(("lv_endo", "rv_endo", "base"), triangles[:0]) | {"epi": triangles}
    made = conform(body.points, body.tets, surfaces, body.cell_mm, sphere, asked)
    volume = tet_volumes(made.points, made.tets)
    assert volume.min() > 0
    assert volume[made.region == 3].sum() == pytest.approx(asked.volumes_mm3[1], rel=2e-3)
    ((_, _, faces),) = boundaries(made.tets, made.region)
    assert (topology(faces).open_edges, topology(faces).genus, topology(faces).components) == (0, 0, 1)
    assert np.abs(np.linalg.norm(made.points[np.unique(faces)], axis=1) - 7.0).max() < 0.12
    assert dihedral_angles(made.points, made.tets)[0].min() > 15.0
    np.testing.assert_array_equal(np.unique(made.surfaces["epi"]), np.unique(boundary_faces(made.tets, np.ones(len(made.points), bool))))


def test_a_corridor_of_3_mm_between_faces_stays_connected_and_separate() -> None:
    labels = Ventricles(scale=0.7).volume(1.0)
    data = labels.data.copy()
    p = labels.to_mm(np.argwhere(np.ones(data.shape, bool)).astype(float))
    across = np.cos(0.5) * p[:, 1] + np.sin(0.5) * (p[:, 2] + 14.0)
    wall = (data == LABELS["lv_myocardium"]).ravel() & (p[:, 0] > 0) & (np.abs(p[:, 1]) < 14) & (np.abs(p[:, 2] + 14) < 14)
    data.reshape(-1)[wall] = LABELS["scar"]
    data.reshape(-1)[wall & (np.abs(across) < 1.5)] = LABELS["isthmus"]
    mesh = mesh_heart(replace(labels, data=data), 2.0, conforming=True)
    channel = mesh.in_region("isthmus")
    _, body = tet_components(mesh.tets[channel])
    volume = mesh.tet_volumes_mm3[channel]
    assert np.bincount(body, volume).max() > 0.99 * volume.sum()
    along = mesh.centroids_mm @ np.array([0.0, -np.sin(0.5), np.cos(0.5)]) + 14.0 * np.cos(0.5)
    assert np.ptp(along[channel]) > 24.0
    middle = np.abs(along) < 9.0
    beside = np.isin(mesh.tets, np.unique(mesh.tets[channel & middle])).any(axis=1) & middle & (mesh.centroids_mm[:, 0] > 0)
    assert not (beside & mesh.in_region("healthy")).any()
    width = volume[np.abs(along[channel]) < 6.0].sum() / 12.0
    thick = mesh.tet_volumes_mm3[mesh.in_region("scar", "isthmus") & (np.abs(along) < 6.0)].sum() / 12.0
    sides = np.unique(tet_components(mesh.tets[mesh.in_region("scar") & middle])[1], return_counts=True)[1]
    assert (sides > 0.2 * sides.sum()).sum() == 2
    assert 0.08 < width / thick < 0.2
    assert mesh.quality["dihedral_min_deg"] > 10.7


@pytest.mark.parametrize(
    ("order", "flips"), [((2, 0, 1), (True, False, True)), pytest.param((1, 0, 2), (False, True, False), marks=pytest.mark.slow)]
)
def test_a_graded_conforming_mesh_does_not_depend_on_storage(order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> None:
    other = restored(scarred(), order, flips)
    found, known = mesh_heart(other, 2.4, grading=NEAR, conforming=True), heart(True, True)
    np.testing.assert_allclose(found.points_mm, known.points_mm, atol=1e-6)
    np.testing.assert_array_equal(found.tets, known.tets)
    np.testing.assert_array_equal(found.region, known.region)


@pytest.mark.slow
def test_a_field_of_sizes_of_ones_own() -> None:
    sizes = partial(lambda top, p: np.where(p @ top > 0, 1.2, 2.4), Ventricles(frame=rotation((1.0, 2.0, 0.5), 37.0)).frame[:, 2])
    mesh = mesh_heart(scarred(), 2.4, grading=Grading(1.2, sizes=sizes))
    assert [row["edge_mm"] for row in mesh.quality["grading"]] == pytest.approx([1.2, 2.4], rel=0.12)


def test_without_scar_the_mesh_is_even_and_this_is_said() -> None:
    labels = Ventricles(scale=0.5).volume(1.2)
    mesh, plain = mesh_heart(labels, 3.0, grading=NEAR, conforming=True), mesh_heart(labels, 3.0)
    np.testing.assert_array_equal(mesh.points_mm, plain.points_mm)
    assert any("no scar" in warning for warning in mesh.quality["warnings"])


def test_what_cannot_be_graded_is_refused() -> None:
    for fine in (1.9, 2.5, 0.0, -1.0, 0.05):
        with pytest.raises(InputError, match="half"):
            mesh_heart(scarred(), 2.0, grading=Grading(fine))


# --- as asked by a case and on the command line ----------------------------------------------------------------------------------------


def test_the_command_and_the_report_say_how_it_is_graded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nrrd(tmp_path / "labels.nrrd", scarred())
    call = ["mesh", str(tmp_path / "labels.nrrd"), "-o", str(tmp_path / "out"), "--edge", "2.4 mm"]
    assert run([*call, "--near-scar", "1.2 mm", "--near", "4 mm", "--dry-run"]) == 0
    assert run([*call, "--near-scar", "1.2 mm", "--near", "4 mm", "--regions", "conforming"]) == 0
    said = capsys.readouterr().out
    assert "regions: carried by faces of the mesh" in said
    quality = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert quality["tets"] == len(heart(True, True).tets)
    assert "graded: mean edge 1.3 mm near scar" in _mesh(quality)
    assert "are faces of the mesh" in _mesh(quality)
    assert _mesh({"mean_edge_mm": 2.0, "dihedral_min_deg": 21.2}) == "mean edge 2.0 mm, smallest angle 21 degrees"
    for wrong, word in (
        (["--near-scar", "2 mm"], "edge_near_scar"),
        (["--regions", "conformng"], "conforming"),
        (["--near-scar", "x"], "near-scar"),
    ):
        assert run([*call[:-2], "--edge", "2.4 mm", "--fresh", *wrong]) == 2
        assert word in capsys.readouterr().err


def test_a_case_asks_for_it(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "labels.nrrd", scarred())

    def case(mesh: str):
        (tmp_path / "case.toml").write_text(f'[segmentation]\nfile = "labels.nrrd"\n[mesh]\n{mesh}\n')
        return load_case(tmp_path / "case.toml")

    assert case('edge = "2 mm"').mesh_asked == {"edge_mm": 2.0}
    asked = case('edge = "2 mm"\nedge_near_scar = "1 mm"\nnear_scar = "6 mm"\nregions = "conforming"')
    assert asked.mesh_asked == {"edge_mm": 2.0, "edge_near_scar_mm": 1.0, "near_scar_mm": 6.0, "regions": "conforming"}
    assert case('regions = "sampled"').mesh_asked == {"edge_mm": 2.0}
    for wrong, word in (('near_scar = "6 mm"', "edge_near_scar"), ('regions = "sharp"', "sampled"), ('edge_near_scar = "3 mm"', "range")):
        with pytest.raises(InputError, match=word):
            case(wrong)
