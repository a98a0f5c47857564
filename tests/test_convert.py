"""Surfaces: formats against each other and against VTK; a wall's surface to labels with the right volumes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from io_fixtures import heart
from numpy.typing import NDArray

from meshing.box import box_mesh
from meshing.voxelise import OFFSET, convert, inside, surface_to_labels
from planners.app.cli import run
from twin.errors import InputError
from twin.io.gmsh import write_msh
from twin.io.labels import check_heart, read_labels
from twin.io.surfaces import Surface, read_surface, write_surface
from twin.io.volume_mesh import VolumeMesh, checked, of_heart, read_volume, write_volume_mesh
from twin.volume import LABELS, WALL, LabelVolume


def ellipsoid(n: int = 40, radii: tuple[float, float, float] = (30.0, 20.0, 25.0)) -> Surface:
    """A closed ellipsoid with outward normals, poles included."""
    theta, phi = np.linspace(0, np.pi, n + 1)[1:-1], np.linspace(0, 2 * np.pi, 2 * n, endpoint=False)
    t, p = np.meshgrid(theta, phi, indexing="ij")
    ring = np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], axis=-1).reshape(-1, 3)
    points = np.vstack([ring, [[0, 0, 1], [0, 0, -1]]]) * radii
    m, top, bottom = 2 * n, len(ring), len(ring) + 1
    tris = []
    for j in range(m):
        k = (j + 1) % m
        tris += [(top, j, k), (bottom, (n - 2) * m + k, (n - 2) * m + j)]
        for i in range(n - 2):
            a, b, c, d = i * m + j, i * m + k, (i + 1) * m + j, (i + 1) * m + k
            tris += [(a, c, b), (b, c, d)]
    return Surface(
        points, np.array(tris, np.int32), {"class": np.arange(len(points), dtype=np.uint8)}, {"lat": np.arange(float(len(tris)))}
    )


@pytest.mark.parametrize("suffix", ["vtp", "ply", "stl"])
def test_surfaces_round_trip_and_vtk_reads_the_same(tmp_path: Path, suffix: str) -> None:
    vtk = pytest.importorskip("vtk")
    path, want = tmp_path / f"s.{suffix}", ellipsoid()
    write_surface(path, want)
    back = read_surface(path)
    assert back.volume_ml == pytest.approx(want.volume_ml, rel=1e-6)
    assert back.area_cm2 == pytest.approx(want.area_cm2, rel=1e-6)
    assert want.volume_ml == pytest.approx(4 / 3 * np.pi * 30 * 20 * 25 / 1000, rel=0.01)
    if suffix == "vtp":
        assert (back.point_data["class"] == want.point_data["class"]).all()
        assert (back.cell_data["lat"] == want.cell_data["lat"]).all()
    reader = {"vtp": vtk.vtkXMLPolyDataReader, "ply": vtk.vtkPLYReader, "stl": vtk.vtkSTLReader}[suffix]()
    reader.SetFileName(str(path))
    reader.Update()
    mass = vtk.vtkMassProperties()
    mass.SetInputData(reader.GetOutput())
    assert mass.GetVolume() / 1000 == pytest.approx(want.volume_ml, rel=1e-4)


@pytest.mark.parametrize("mode", ["Ascii", "Binary", "Appended"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("base64", [True, False])
@pytest.mark.parametrize("bits", [32, 64])
def test_every_layout_that_vtk_writes(tmp_path: Path, mode: str, zipped: bool, base64: bool, bits: int) -> None:
    vtk = pytest.importorskip("vtk")
    want = ellipsoid(70)  # several compressed blocks
    write_surface(tmp_path / "s.vtp", want)
    reader = vtk.vtkXMLPolyDataReader()
    reader.SetFileName(str(tmp_path / "s.vtp"))
    reader.Update()
    for order in (0, 1):
        writer = vtk.vtkXMLPolyDataWriter()
        writer.SetInputData(reader.GetOutput())
        writer.SetFileName(str(tmp_path / "w.vtp"))
        getattr(writer, f"SetDataModeTo{mode}")()
        getattr(writer, "SetCompressorTypeToZLib" if zipped else "SetCompressorTypeToNone")()
        writer.SetEncodeAppendedData(base64)
        writer.SetHeaderType(bits)
        writer.SetByteOrder(order)
        writer.Write()
        back = read_surface(tmp_path / "w.vtp")
        assert np.allclose(back.points_mm, want.points_mm, atol=1e-4)
        assert (back.triangles == want.triangles).all()
        assert (back.point_data["class"] == want.point_data["class"]).all()


def test_surfaces_that_cannot_be_used(tmp_path: Path) -> None:
    good = ellipsoid(8)
    bad = good.triangles.copy()
    bad[0, 0] = 9999
    for surface, words in (
        (Surface(good.points_mm / 1e5, good.triangles), "metres"),
        (Surface(good.points_mm, bad), "node numbers"),
        (Surface(good.points_mm * np.nan, good.triangles), "not finite"),
        (Surface(good.points_mm, good.triangles[:0]), "0 triangles"),
    ):
        write_surface(tmp_path / "x.ply", surface)
        with pytest.raises(InputError, match=words):
            read_surface(tmp_path / "x.ply")
    (tmp_path / "x.abc").write_text("x")
    with pytest.raises(InputError, match="not a surface format"):
        read_surface(tmp_path / "x.abc")


@pytest.mark.parametrize("shift", [OFFSET, np.full(3, 0.37)])
def test_inside_by_parity_is_exact_on_an_ellipsoid(shift: NDArray[np.float64]) -> None:
    surface = ellipsoid(60)
    shape = (70, 50, 60)
    mask, doubtful = inside(surface.points_mm + np.array([34.0, 24, 29]) + shift, surface.triangles, shape)
    assert doubtful == 0.0
    assert mask.sum() / 1000 == pytest.approx(surface.volume_ml, rel=0.005)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) - [34.0, 24, 29] - shift
    level = ((grid / [30.0, 20, 25]) ** 2).sum(axis=-1)
    assert mask[level < 0.98].all()
    assert not mask[level > 1.0].any()


def test_a_surface_with_a_hole_is_decided_by_two_axes_or_refused() -> None:
    surface = ellipsoid(60)
    points = surface.points_mm + np.array([34.0, 24, 29])
    mask, doubtful = inside(points, surface.triangles[20:], (70, 50, 60))
    assert 0 < doubtful < 0.05
    assert mask.sum() / 1000 == pytest.approx(surface.volume_ml, rel=0.005)
    with pytest.raises(InputError, match="surface is open"):
        surface_to_labels(surface.points_mm, surface.triangles[: len(surface.triangles) // 2])
    with pytest.raises(InputError, match="0 blood pools were found"):
        surface_to_labels(surface.points_mm, surface.triangles)


def wall_surface() -> Surface:
    """Voxel faces of the test heart's wall as a closed surface with open cavities."""
    volume = heart()
    wall = volume.data > 2
    padded = np.pad(wall, 1)
    corners, tris = [], []
    for axis in range(3):
        for side in (0, 1):
            other = np.roll(padded, 1 if side == 0 else -1, axis)[1:-1, 1:-1, 1:-1]
            for voxel in np.argwhere(wall & ~other):
                u, v = (axis + 1) % 3, (axis + 2) % 3
                quad = []
                for a, b in ((0, 0), (1, 0), (1, 1), (0, 1)):
                    corner = voxel.astype(float) - 0.5
                    corner[axis] += side
                    corner[u] += a
                    corner[v] += b
                    quad.append(corner)
                start = len(corners)
                corners += quad if side else quad[::-1]
                tris += [(start, start + 1, start + 2), (start, start + 2, start + 3)]
    points, index = np.unique(np.array(corners) * 2.0, axis=0, return_inverse=True)
    return Surface(points, index[np.array(tris)].astype(np.int32))


def test_labels_come_back_from_a_wall_surface(tmp_path: Path) -> None:
    write_surface(tmp_path / "wall.vtp", wall_surface())
    lines = convert(tmp_path / "wall.vtp", tmp_path / "labels.nrrd", spacing_mm=2.0)
    assert any(line.startswith("lv_blood") for line in lines)
    back, want = read_labels(tmp_path / "labels.nrrd"), heart()
    check_heart(back)
    assert back.volume_ml(*WALL) == pytest.approx(want.volume_ml(*WALL), rel=1e-9)

    # the mouth of a cavity has no surface: where it is closed is a matter of a few millilitres
    assert back.volume_ml("lv_blood") == pytest.approx(want.volume_ml("lv_blood"), rel=0.1)
    assert back.volume_ml("rv_blood") == pytest.approx(want.volume_ml("rv_blood"), rel=0.15)
    for name in ("lv_blood", "rv_blood"):
        centre = [volume.to_mm(np.argwhere(volume.mask(name))).mean(axis=0) for volume in (back, want)]
        assert np.linalg.norm(centre[0] - centre[1]) < 3.0
    free = back.to_mm(np.argwhere(back.mask("rv_myocardium")))
    assert np.median(free[:, 0]) > 75.0


def test_conversions_that_make_no_sense(tmp_path: Path) -> None:
    bad = {("a.nrrd", "a.stl"): "vtwin mesh", ("a.doc", "a.stl"): "not converted", ("a.nrrd", "b.nii"): "does not exist"}
    for (source, target), words in bad.items():
        with pytest.raises(InputError, match=words):
            convert(tmp_path / source, tmp_path / target)


@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "wall_ml", "tolerance"), [("cobiveco/geo1_heart.vtp", 144.76, 0.01), ("strocchi_01_surface/strocchi_01.npz", 208.33, 0.01)]
)
def test_real_hearts_become_labels(file: str, wall_ml: float, tolerance: float) -> None:
    if "VTWIN_DATA" not in os.environ:
        pytest.skip("set VTWIN_DATA to the shared data")
    surface = read_surface(Path(os.environ["VTWIN_DATA"]) / file)
    volume, found = surface_to_labels(surface.points_mm, surface.triangles, 1.0, surface.point_data)
    assert volume.volume_ml("lv_myocardium", "rv_myocardium") == pytest.approx(wall_ml, rel=tolerance)
    assert found["lv_free_wall_mm"] > 1.5 * found["rv_free_wall_mm"]
    assert found["lv_myocardium_ml"] > 1.5 * found["rv_myocardium_ml"]
    assert found["doubtful"] < 0.001
    assert check_heart(volume, "x") == ("x: no scar is labelled",)
    if "class" in surface.point_data:
        # without the classes the thicker free wall says the same
        again, _ = surface_to_labels(surface.points_mm, surface.triangles, 1.0)
        assert (again.data == volume.data).all()


def test_an_stl_of_34_bytes_is_truncated_not_negative(tmp_path: Path) -> None:
    (tmp_path / "x.stl").write_bytes(b"\0" * 34)
    with pytest.raises(InputError, match="truncated or not STL"):
        read_surface(tmp_path / "x.stl")


# --- meshes -------------------------------------------------------------------------------------------------------------------


def heart_like(data: bool = True) -> VolumeMesh:
    """A small block with three named regions, fibres, sheets and values."""
    mesh = box_mesh((3.0, 2.0, 1.0), 0.5, (1, 2, 0))
    x = mesh.centroids_mm[:, 0]
    mesh = mesh.with_region(x > 2, "scar").with_region((x > 1) & (x < 2), "border_zone")
    values = {"lat_ms": np.arange(float(mesh.n_points)), "velocity": np.ones((mesh.n_points, 3)), "segment": np.arange(mesh.n_points) % 17}
    volume = of_heart(mesh)
    return replace(volume, point_data=values, cell_data={"cv": np.arange(float(len(mesh.tets)))}) if data else volume


def in_one_order(mesh: VolumeMesh) -> VolumeMesh:
    """Tetrahedra sorted by their corners: formats with blocks store them region by region."""
    order = np.lexsort(np.sort(mesh.tets, axis=1).T)
    cells = {name: values[order] for name, values in mesh.cell_data.items()}
    fibre, sheet = (v if v is None else v[order] for v in (mesh.fibre, mesh.sheet))
    return replace(mesh, tets=mesh.tets[order], region=mesh.region[order], cell_data=cells, fibre=fibre, sheet=sheet)


@pytest.mark.parametrize("suffix", ["vtu", "vtk", "msh", "exo", "pts", "bpts"])
def test_meshes_come_back_with_regions_names_and_fibres(tmp_path: Path, suffix: str) -> None:
    want = in_one_order(heart_like())
    lost = write_volume_mesh(tmp_path / f"heart.{suffix}", want)
    back = in_one_order(read_volume(tmp_path / f"heart.{suffix}"))
    assert np.allclose(back.points_mm, want.points_mm, atol=1e-6)
    assert (np.sort(back.tets, axis=1) == np.sort(want.tets, axis=1)).all()
    assert (back.tet_volumes_mm3 > 0).all()
    assert (back.region == want.region).all()
    assert back.fibre is not None
    assert back.sheet is not None
    assert np.allclose(back.fibre, want.fibre, atol=1e-7)
    assert np.allclose(back.sheet, want.sheet, atol=1e-7)
    if suffix in ("pts", "bpts"):
        assert "left out" in lost[0]
        return
    assert {name: back.point_data[name].shape for name in want.point_data} == {n: v.shape for n, v in want.point_data.items()}
    assert all((back.point_data[name] == values).all() for name, values in want.point_data.items())
    assert (back.cell_data["cv"] == want.cell_data["cv"]).all()
    if suffix == "vtk":
        assert "cannot hold names" in lost[0]
    else:
        assert not lost
        assert {"healthy": 1, "border_zone": 2, "scar": 3}.items() <= dict(back.names).items()


def test_other_programs_read_what_is_written(tmp_path: Path) -> None:
    pv = pytest.importorskip("pyvista")
    meshio = pytest.importorskip("meshio")
    want = heart_like()
    write_volume_mesh(tmp_path / "a.vtu", want)
    grid = pv.read(tmp_path / "a.vtu")
    assert grid.n_cells == len(want.tets)
    assert grid.field_data["border_zone"].tolist() == [2, 3]
    read = meshio.read(tmp_path / "a.vtu")
    assert read.field_data["border_zone"].tolist() == [2, 3]
    assert (np.concatenate(read.cell_data["region"]) == want.region).all()
    assert np.allclose(grid["fibre"], want.fibre)
    # and what VTK writes of it, in its own layouts, is read here
    for binary in (True, False):
        grid.save(tmp_path / "b.vtu", binary=binary)
        back = read_volume(tmp_path / "b.vtu")
        assert back.names["scar"] == 3
        assert (back.tets == want.tets).all()
    write_volume_mesh(tmp_path / "a.vtk", want)
    assert np.allclose(pv.read(tmp_path / "a.vtk").points, want.points_mm)
    for version in ("4.1", "2.2"):
        write_msh(tmp_path / "a.msh", want, version)
        read = meshio.read(tmp_path / "a.msh")
        assert read.field_data["border_zone"].tolist() == [2, 3]
        assert (np.concatenate(read.cell_data["gmsh:physical"]) == np.sort(want.region)).all()
        assert np.concatenate(read.cell_data["fibre"]).shape == (len(want.tets), 3)


def test_exodus_in_netcdf_4_too(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    from scipy.io import netcdf_file

    want = in_one_order(heart_like())
    write_volume_mesh(tmp_path / "a.exo", want)
    with netcdf_file(tmp_path / "a.exo", "r", mmap=False) as old, h5py.File(tmp_path / "b.exo", "w") as new:
        for name, variable in old.variables.items():
            data = new.create_dataset(name, data=np.array(variable.data).astype(variable.data.dtype.newbyteorder("=")))
            if hasattr(variable, "elem_type"):
                data.attrs["elem_type"] = variable.elem_type
    back = in_one_order(read_volume(tmp_path / "b.exo"))
    assert (back.region == want.region).all()
    assert back.names == {"healthy": 1, "border_zone": 2, "scar": 3}
    assert np.allclose(back.fibre, want.fibre)


@settings(max_examples=25)
@given(
    st.integers(1, 40),
    st.lists(st.text("abc xyz_é", min_size=1, max_size=12), min_size=1, max_size=4, unique=True),
    st.sampled_from(["vtu", "exo", "pts"]),
)
def test_any_small_mesh_comes_back(tmp_path_factory: pytest.TempPathFactory, seed: int, words: list[str], suffix: str) -> None:
    from scipy.spatial import Delaunay

    rng = np.random.default_rng(seed)
    points = rng.uniform(-60, 60, (30, 3)).round(3)
    tets = Delaunay(points).simplices.astype(np.int32)
    names = {word: 3 * i + 1 for i, word in enumerate(words)}
    region = rng.choice(list(names.values()), len(tets)).astype(np.int32)
    fibre = rng.normal(size=(len(tets), 3))
    path = tmp_path_factory.mktemp("any") / f"a.{suffix}"
    mesh = checked(VolumeMesh(points, tets, region, names, fibre), path)
    write_volume_mesh(path, mesh)
    first, second = in_one_order(mesh), in_one_order(read_volume(path))
    assert np.allclose(first.points_mm, second.points_mm, atol=1e-6)
    assert (np.sort(first.tets, axis=1) == np.sort(second.tets, axis=1)).all()
    assert (first.region == second.region).all()
    assert np.allclose(first.fibre, second.fibre, atol=2e-7)
    if suffix == "vtu":
        assert second.names == names


def test_meshes_that_cannot_be_used(tmp_path: Path) -> None:
    good = heart_like(data=False)
    for change, words in (
        ({"points_mm": good.points_mm / 1e4}, "metres"),
        ({"points_mm": good.points_mm * 1e4}, "micrometres"),
        ({"points_mm": good.points_mm * np.nan}, "not finite"),
        ({"tets": good.tets + 9999}, "node numbers"),
        ({"tets": good.tets[:, [0, 0, 1, 2]]}, "no volume"),
        ({"region": good.region[:5]}, "5 values"),
        ({"fibre": np.full((len(good.tets), 3), np.inf)}, "fibre"),
    ):
        with pytest.raises(InputError, match=words):
            checked(replace(good, **change), tmp_path / "x")
    turned = checked(replace(good, tets=good.tets[:, [1, 0, 2, 3]]), tmp_path / "x")
    assert "inside out" in turned.notes[0]
    with pytest.raises(InputError, match="numbered from 1"):
        write_volume_mesh(tmp_path / "a.exo", replace(good, region=good.region - 1))
    assert "is added" in write_volume_mesh(tmp_path / "a.msh", replace(good, region=good.region - 1))[0]


@pytest.mark.parametrize("suffix", ["vtu", "exo", "vtk", "msh"])
def test_damaged_meshes_are_one_line_or_an_answer(tmp_path: Path, suffix: str) -> None:
    write_volume_mesh(tmp_path / f"good.{suffix}", heart_like())
    data = (tmp_path / f"good.{suffix}").read_bytes()
    rng = np.random.default_rng(3)
    lines = []
    for index in range(40 if suffix in ("vtu", "exo") else 2):
        at = int(rng.integers(20, len(data)))
        kinds = (
            data[:at],
            data[: at - 4] + b"\xff\xff\xff\x7f" + data[at:],
            data.replace(b"105", b"999999999", 1),
            data[:at] + data[at + 7 :],
        )
        path = tmp_path / f"{index}.{suffix}"
        path.write_bytes(kinds[(index + (suffix == "msh")) % 4])
        try:
            read_volume(path)
        except InputError as error:
            lines.append(str(error))
    assert len(lines) >= (1 if suffix in ("vtk", "msh") else 15)
    assert not any("\n" in line for line in lines)


def test_a_hostile_mesh_ends_with_its_process(tmp_path: Path) -> None:
    """A file that claims 10^11 points: the child runs out of its memory, and the program goes on."""
    text = "$MeshFormat\n4.1 0 8\n$EndMeshFormat\n$Nodes\n1 100000000000 1 100000000000\n3 1 0 100000000000\n1\n"
    (tmp_path / "a.msh").write_text(text)
    with pytest.raises(InputError, match="cannot be read as gmsh"):
        read_volume(tmp_path / "a.msh")


def test_convert_says_what_it_did_and_what_was_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = box_mesh((3.0, 2.0, 1.0), 0.5)
    mesh.with_region(mesh.centroids_mm[:, 0] > 2, "scar").save(tmp_path / "heart.npz")
    for source, target in (("heart.npz", "a.exo"), ("a.exo", "a.msh"), ("a.msh", "a.vtu"), ("a.vtu", "a.belem"), ("a.belem", "b.vtk")):
        assert run(["convert", str(tmp_path / source), str(tmp_path / target)]) == 0
        assert "(3): 96 tetrahedra, 0.00 mL" in capsys.readouterr().out
    back = read_volume(tmp_path / "b.vtk")
    assert np.allclose(back.points_mm, mesh.points_mm, atol=1e-6)
    assert run(["convert", str(tmp_path / "a.vtu"), str(tmp_path / "skin.vtp")]) == 0
    skin = read_surface(tmp_path / "skin.vtp")
    assert skin.volume_ml == pytest.approx(0.006)
    assert skin.area_cm2 == pytest.approx(0.22)
    assert set(skin.cell_data["region"].tolist()) == {1, 3}
    capsys.readouterr()
    for source, target, words in (
        ("a.vtu", "x.nrrd", "does not become"),
        ("a.vtu", "a.vtu", "source itself"),
        ("skin.vtp", "x.msh", "vtwin mesh"),
        ("nothing.msh", "x.vtu", "does not exist"),
        ("a.vtu", "x.doc", "not converted"),
    ):
        assert run(["convert", str(tmp_path / source), str(tmp_path / target)]) == 2
        assert words in capsys.readouterr().err


def test_labels_between_all_formats(tmp_path: Path) -> None:
    from twin.io.nrrd import write_nrrd

    want = heart(6.0)
    write_nrrd(tmp_path / "a.nrrd", want)
    for suffix in ("nii.gz", "mha", "dcm"):
        if suffix == "dcm":
            pytest.importorskip("highdicom")
        assert run(["convert", str(tmp_path / "a.nrrd"), str(tmp_path / f"b.{suffix}")]) == 0
        numbers = ["--labels", ",".join(f"{n}={v}" for n, v in want_numbers(want).items())] if suffix == "mha" else []
        assert run(["convert", str(tmp_path / f"b.{suffix}"), str(tmp_path / "c.nrrd"), *numbers]) == 0
        back = read_labels(tmp_path / "c.nrrd")
        for name in want_numbers(want):
            assert back.volume_ml(name) == pytest.approx(want.volume_ml(name), rel=1e-5), (suffix, name)
            centre = [v.to_mm(np.argwhere(v.mask(name))).mean(axis=0) for v in (want, back)]
            assert np.allclose(*centre, atol=1e-3), (suffix, name)


def want_numbers(volume: LabelVolume) -> dict[str, int]:
    """Names and numbers of the labels that a volume holds."""
    return {name: number for name, number in LABELS.items() if number and (volume.data == number).any()}
