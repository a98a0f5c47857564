"""Surfaces: formats against each other and against VTK; a wall's surface to labels with the right volumes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from io_fixtures import heart
from numpy.typing import NDArray

from meshing.voxelise import OFFSET, convert, inside, surface_to_labels
from twin.errors import InputError
from twin.io.labels import check_heart, read_labels
from twin.io.surfaces import Surface, read_surface, write_surface
from twin.volume import WALL


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
