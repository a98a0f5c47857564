"""Images and labels land in the same place in patient space from every format, and nothing of the patient goes with them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_fixtures import PLANTED, Series, dataset, rotation, save, scene, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from io_fixtures import heart

from twin.case import load_case
from twin.case_evidence import read_patient
from twin.errors import InputError, Suspicious
from twin.image import Image
from twin.io.convert import convert_labels
from twin.io.dicom_rtstruct import fill
from twin.io.dicom_seg_write import write_dicom_seg
from twin.io.image import read_cine, read_image
from twin.io.labels import read_labels
from twin.io.mha import read_mha_image, write_mha
from twin.io.nifti import write_nifti
from twin.io.notes import Notes
from twin.io.nrrd import write_nrrd
from twin.volume import LABELS, LabelVolume

WRITERS = {"a.nrrd": write_nrrd, "a.nii": write_nifti, "a.nii.gz": write_nifti, "a.mha": write_mha, "a.dcm": write_dicom_seg}
NAMES = {name: value for name, value in LABELS.items() if value}


def oblique(turn: int = 1, spacing: float = 4.0) -> LabelVolume:
    affine = np.eye(4)
    affine[:3, :3] = rotation(turn) * spacing
    affine[:3, 3] = [-31.25, 12.5, 140.75]
    return replace(heart(spacing), affine=affine)


def restored(volume: LabelVolume, order: tuple[int, ...], flips: tuple[bool, ...]) -> LabelVolume:
    """The same labels in the same places with index axes permuted and reversed."""
    data, affine = volume.data.transpose(order), volume.affine[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:3, axis] *= -1
            data = np.flip(data, axis)
    return LabelVolume(np.ascontiguousarray(data), affine)


def sample(volume: LabelVolume, points_mm: np.ndarray) -> np.ndarray:
    index = np.rint(volume.to_ijk(points_mm)).astype(int)
    inside = ((index >= 0) & (index < volume.data.shape)).all(axis=1)
    out = np.zeros(len(points_mm), np.uint8)
    out[inside] = volume.data[tuple(index[inside].T)]
    return out


def voxel_centres(volume: LabelVolume) -> np.ndarray:
    return volume.to_mm(np.argwhere(volume.data > 0))


STORED = st.tuples(st.permutations([0, 1, 2]), st.tuples(st.booleans(), st.booleans(), st.booleans()), st.integers(0, 50))


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=4)
@given(stored=STORED)
def test_labels_stay_in_place_however_they_are_stored(tmp_path_factory: pytest.TempPathFactory, name: str, stored: Any) -> None:
    order, flips, turn = stored
    volume = oblique(turn)
    other = restored(volume, tuple(order), flips)
    if np.linalg.det(other.affine[:3, :3]) < 0 and name == "a.dcm":
        # DICOM cannot say a left-handed grid
        other = restored(other, (0, 1, 2), (True, False, False))
    path = tmp_path_factory.mktemp("s") / name
    WRITERS[name](path, other)
    read = read_labels(path, NAMES if name == "a.mha" else None, flip=True)
    points = voxel_centres(volume)
    np.testing.assert_array_equal(sample(read, points), sample(volume, points))
    assert (read.data > 0).sum() == len(points)
    assert np.linalg.det(read.affine[:3, :3]) > 0


def image_file(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    """An image written by SimpleITK, an independent writer of all three formats (LPS, any axes)."""
    sitk = pytest.importorskip("SimpleITK")
    picture = sitk.GetImageFromArray(data.transpose(2, 1, 0))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    picture.SetSpacing(spacing.tolist())
    picture.SetOrigin(affine[:3, 3].tolist())
    picture.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(picture, str(path), useCompression=not path.name.endswith(".nii"))
    return path


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii.gz", "a.mha", "a.mhd"])
@settings(max_examples=8)
@given(stored=STORED, kind=st.sampled_from(["int16", "uint8", "float32"]))
def test_images_of_an_independent_writer_have_the_scene_at_each_place(
    tmp_path_factory: pytest.TempPathFactory, name: str, stored: Any, kind: str
) -> None:
    order, flips, turn = stored
    affine = np.eye(4)
    affine[:3, :3] = rotation(turn) * [1.5, 2.0, 8.0]
    affine[:3, 3] = [-20.0, 5.0, 30.0]
    grid = restored(LabelVolume(np.zeros((9, 7, 4), np.uint8), affine), tuple(order), flips)
    ijk = np.argwhere(np.ones(grid.data.shape, bool))
    values = scene(grid.to_mm(ijk)).reshape(grid.data.shape)
    values = (values / 10).astype(kind) if kind == "uint8" else np.rint(values).astype(kind)
    image = read_image(image_file(tmp_path_factory.mktemp("i") / name, values, grid.affine))
    assert np.linalg.det(image.affine[:3, :3]) > 0
    assert image.data.dtype == np.dtype(kind)
    back = scene(image.to_mm(ijk_of(image))).reshape(image.data.shape)
    assert np.abs(image.data - (back / 10 if kind == "uint8" else back)).max() < (1.01 if kind == "uint8" else 0.51)


def ijk_of(image: Image) -> np.ndarray:
    return np.argwhere(np.ones(image.data.shape, bool))


@settings(max_examples=2)
@given(stored=STORED)
def test_a_mesh_of_other_storage_lies_in_the_same_place(stored: Any) -> None:
    from meshing.mesh_labels import mesh_heart

    order, flips, _ = stored
    volume = oblique(7, 3.0)
    other = restored(volume, tuple(order), flips)
    if np.linalg.det(other.affine[:3, :3]) < 0:
        other = restored(other, (0, 1, 2), (True, False, False))
    meshes = [mesh_heart(one, 5.0) for one in (volume, other)]
    centres, spreads, volumes = zip(*map(moments, meshes), strict=True)
    np.testing.assert_allclose(*centres, atol=0.3)
    np.testing.assert_allclose(*spreads, atol=0.02 * np.trace(spreads[0]))
    assert volumes[0] == pytest.approx(volumes[1], rel=0.01)


def moments(mesh: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Centre (3,) mm, covariance (3, 3) mm^2 and volume mm^3 of a mesh's tetrahedra."""
    corners = mesh.points_mm[mesh.tets]
    volume = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / 6
    middle = corners.mean(axis=1)
    centre = (volume[:, None] * middle).sum(axis=0) / volume.sum()
    away = middle - centre
    return centre, (volume[:, None, None] * away[:, :, None] * away[:, None, :]).sum(axis=0) / volume.sum(), float(volume.sum())


def test_metaimage_reads_big_endian_text_paths_and_refuses_the_rest(tmp_path: Path) -> None:
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = True\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        "Offset = 1 2 3\nElementSpacing = 2 2 2\nDimSize = 3 4 5\nElementType = MET_SHORT\nElementDataFile = "
    )
    values = np.arange(60, dtype=">i2")
    (tmp_path / "a.mhd").write_text(head + "a.raw\n")
    (tmp_path / "a.raw").write_bytes(values.tobytes())
    image = read_mha_image(tmp_path / "a.mhd")
    np.testing.assert_array_equal(image.data.ravel(order="F"), np.arange(60))
    np.testing.assert_allclose(image.affine[:3, 3], [1, 2, 3])
    for old, new, match in (
        ("a.raw", "../a.raw", "not a file beside"),
        ("a.raw", "LIST", "not a file beside"),
        ("a.raw", "%03d.raw", "not a file beside"),
        ("DimSize = 3 4 5", "DimSize = 3 4 6", "truncated"),
        ("DimSize = 3 4 5", "DimSize = 99999 99999 99999", "sizes"),
        ("ElementSpacing = 2 2 2", "ElementSpacing = 2 2 0", "not positive"),
        ("ElementSpacing = 2 2 2", "ElementSpacing = 2 2 nan", "not finite"),
        ("ElementSpacing = 2 2 2", "ElementSpacing = 2e-3 2e-3 2e-3", "metres"),
        ("Matrix = 1 0 0", "Matrix = 0.8 0.6 0", "perpendicular"),
        ("Matrix = 1 0 0", "Matrix = 2 0 0", "not of length 1"),
        ("Offset = 1 2 3\n", "", "Offset: is missing"),
        ("MET_SHORT", "MET_STRING", "not a number type"),
    ):
        (tmp_path / "b.mhd").write_text((head + "a.raw\n").replace(old, new))
        with pytest.raises(InputError, match=match):
            read_image(tmp_path / "b.mhd")


def test_nifti_rescale_and_time(tmp_path: Path) -> None:
    import struct

    write_nifti(tmp_path / "a.nii", oblique())
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<2f", raw, 112, 0.5, -3.0)
    (tmp_path / "s.nii").write_bytes(raw)
    np.testing.assert_allclose(read_image(tmp_path / "s.nii").data, oblique().data * 0.5 - 3)
    with pytest.raises(InputError, match="an image, not labels"):
        read_labels(tmp_path / "s.nii", NAMES)
    size = oblique().data.size
    struct.pack_into("<2f", raw, 112, 1.0, 0.0)
    struct.pack_into("<5h", raw, 40, 4, *oblique().data.shape, 2)
    struct.pack_into("<f", raw, 92, 0.4)
    raw[123] = 2 | 8
    (tmp_path / "t.nii").write_bytes(bytes(raw) + bytes(size))
    (stack,) = read_cine(tmp_path / "t.nii")
    assert stack.slices[0].rr_ms == pytest.approx(800.0)
    np.testing.assert_array_equal(stack.at(0.0).data, oblique().data)
    np.testing.assert_allclose(stack.at(0.25).data, oblique().data / 2)
    with pytest.raises(InputError, match="several times"):
        read_image(tmp_path / "t.nii")


def test_a_dicom_seg_is_a_valid_one_that_names_nobody(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    volume = oblique()
    write_dicom_seg(path, volume)
    first = path.read_bytes()
    write_dicom_seg(path, volume)
    assert path.read_bytes() == first
    read = read_labels(path)
    np.testing.assert_array_equal(read.data, volume.data)
    np.testing.assert_allclose(read.affine, volume.affine, atol=1e-5)
    hd = pytest.importorskip("highdicom")
    theirs = hd.seg.segread(path).get_volume(combine_segments=True)
    names = {s.SegmentNumber: s.SegmentLabel for s in hd.seg.segread(path).SegmentSequence}
    k, j, i = np.unravel_index(np.flatnonzero(theirs.array)[::97], theirs.array.shape)
    points = np.stack([k, j, i, np.ones(len(k))], axis=1) @ theirs.affine.T
    np.testing.assert_array_equal(sample(volume, points[:, :3]), [LABELS[names[v]] for v in theirs.array[k, j, i]])
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    said = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
    assert "Segmentation" in said.stdout + said.stderr
    assert "Error" not in said.stdout + said.stderr


def item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    out = Dataset()
    for name, value in values.items():
        setattr(out, name, value)
    return out


def seg(tmp_path: Path, masks: dict[str, np.ndarray], kind: str = "BINARY", drop_empty: bool = False) -> Path:
    """A hand-made SEG of masks (ni, nj, nk) on a grid of 1 mm, its frames in reverse order."""
    from pydicom.sequence import Sequence as Items

    ds = dataset(Series(), 0)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, name)
    ds.Modality, ds.SegmentationType, ds.MaximumFractionalValue = "SEG", kind, 200
    ds.Columns, ds.Rows, depth = next(iter(masks.values())).shape
    ds.SegmentSequence = Items([item(SegmentNumber=n, SegmentLabel=name) for n, name in enumerate(masks, 1)])
    measures = item(PixelSpacing=[1, 1], SliceThickness=1)
    plane = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    ds.SharedFunctionalGroupsSequence = Items([item(PixelMeasuresSequence=Items([measures]), PlaneOrientationSequence=Items([plane]))])
    frames, stored = [], []
    for n, mask in enumerate(masks.values(), 1):
        for k in reversed(range(depth)):
            if drop_empty and not mask[:, :, k].any():
                continue
            place, which = item(ImagePositionPatient=[0, 0, k]), item(ReferencedSegmentNumber=n)
            frames.append(item(PlanePositionSequence=Items([place]), SegmentIdentificationSequence=Items([which])))
            stored.append(mask[:, :, k].T)
    ds.PerFrameFunctionalGroupsSequence, ds.NumberOfFrames = Items(frames), len(frames)
    bits = 1 if kind == "BINARY" else 8
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    values = np.stack(stored)
    packed = np.packbits(values.ravel(), bitorder="little").tobytes() if bits == 1 else (values * 100).astype(np.uint8).tobytes()
    ds.PixelData = packed + bytes(len(packed) % 2)
    ds["PixelData"].VR = "OB"
    return save(ds, tmp_path / "seg.dcm")


def shells(filled: bool) -> dict[str, np.ndarray]:
    """LV cavity and wall (filled as an epicardial contour, or not) in 21 x 19 x 17 voxels, and a scar in the wall."""
    x, y, z = np.meshgrid(np.arange(21) - 10, np.arange(19) - 9, np.arange(17) - 8, indexing="ij")
    r = np.sqrt(x * x + y * y + z * z)
    return {"LV endo blood": r < 4, "LV myo": (r < 7) if filled else (r < 7) & (r >= 4), "scar": (r < 7) & (r >= 4) & (x > 3)}


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
@pytest.mark.parametrize("filled", [True, False])
def test_seg_frames_of_any_order_and_overlap(tmp_path: Path, kind: str, filled: bool) -> None:
    masks = shells(filled)
    masks = {"lv_blood": masks["LV endo blood"], "LV myo": masks["LV myo"], "scar": masks["scar"]}
    volume = read_labels(seg(tmp_path, masks, kind, drop_empty=True))
    expected = np.zeros((21, 19, 17), np.uint8)
    expected[shells(False)["LV myo"]] = LABELS["lv_myocardium"]
    expected[masks["scar"]] = LABELS["scar"]
    expected[masks["lv_blood"]] = LABELS["lv_blood"]
    # empty slices at the ends were left out
    used = np.flatnonzero(expected.any(axis=(0, 1)))
    np.testing.assert_array_equal(volume.data, expected[:, :, used[0] : used[-1] + 1])
    assert volume.affine[2, 3] == used[0]


def test_seg_overlap_that_no_rule_settles_and_unknown_names(tmp_path: Path) -> None:
    masks = shells(False)
    moved = {"lv_blood": np.roll(masks["LV endo blood"], 3, axis=0), "LV myo": masks["LV myo"]}
    with pytest.raises(InputError, match="lv_blood and lv_myocardium overlap in part"):
        read_labels(seg(tmp_path, moved))
    path = seg(tmp_path, {"Cavum": masks["LV endo blood"], "LV myo": masks["LV myo"]})
    with pytest.raises(InputError, match="unknown label 'Cavum'"):
        read_labels(path)
    assert read_labels(path, {"lv_blood": 1}).mask("lv_blood").sum() == masks["LV endo blood"].sum()
    with pytest.raises(InputError, match="there is no number 9"):
        read_labels(path, {"lv_blood": 9})


def circle(radius: float, z: float, centre: float = 0.3, points: int = 90) -> np.ndarray:
    angle = np.arange(points) * 2 * np.pi / points
    return np.stack([centre + radius * np.cos(angle), centre + radius * np.sin(angle), np.full(points, z)], axis=1)


def rtstruct(path: Path, rois: dict[str, list[np.ndarray]], images: dict[float, str] | None = None) -> Path:
    from pydicom.sequence import Sequence as Items

    ds = dataset(Series(), 0)
    del ds.PixelData
    ds.Modality = "RTSTRUCT"
    ds.StructureSetROISequence = Items([item(ROINumber=n, ROIName=name) for n, name in enumerate(rois, 1)])
    holders = []
    for n, contours in enumerate(rois.values(), 1):
        items = []
        for points in contours:
            one = item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=len(points))
            one.ContourData = [f"{v:.6g}" for v in points.ravel()]
            if images is not None:
                one.ContourImageSequence = Items([item(ReferencedSOPInstanceUID=images[float(points[0, 2])])])
            items.append(one)
        holders.append(item(ReferencedROINumber=n, ContourSequence=Items(items)))
    ds.ROIContourSequence = Items(holders)
    return save(ds, path)


def test_contours_are_filled_exactly_with_holes_by_either_way() -> None:
    square = np.array([[1.0, 1], [8, 1], [8, 8], [1, 8]])
    hole = np.array([[3.0, 3], [6, 3], [6, 6], [3, 6]])
    expected = np.zeros((10, 10), bool)
    expected[1:8, 1:8] = True
    np.testing.assert_array_equal(fill([square], (10, 10)), expected)
    expected[3:6, 3:6] = False
    np.testing.assert_array_equal(fill([square, hole], (10, 10)), expected)
    # a keyhole: into the hole and out again along the same line, at an angle that no float hits exactly
    key = np.concatenate([square, square[:1], hole[[0, 3, 2, 1, 0]], square[:1]])
    np.testing.assert_array_equal(fill([key], (10, 10)), expected)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    points = np.argwhere(np.ones((40, 40), bool)) - 20.0
    inside = fill([key @ turn.T + 20.0], (40, 40))
    back = points @ turn
    clear = np.abs(back[:, :, None] - np.array([1.0, 3, 6, 8])).min(axis=(1, 2)) > 1e-6
    truth = ((back > 1) & (back < 8)).all(axis=1) & ~((back > 3) & (back < 6)).all(axis=1)
    np.testing.assert_array_equal(inside.ravel()[clear], truth[clear])


@settings(max_examples=30)
@given(st.integers(3, 12), st.integers(0, 10_000))
def test_filling_agrees_with_the_winding_of_each_pixel(count: int, seed: int) -> None:
    polygon = np.random.default_rng(seed).uniform(-2, 14, (count, 2))
    filled = fill([polygon], (12, 12))
    a, b = polygon, np.roll(polygon, -1, axis=0)
    for i, j in np.ndindex(12, 12):
        crosses = (a[:, 1] > j) != (b[:, 1] > j)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = a[:, 0] + (j - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
        assert filled[i, j] == bool((crosses & (x > i)).sum() % 2)


def test_structure_sets_on_their_own_planes_and_on_the_images_they_were_drawn_on(tmp_path: Path) -> None:
    depths = [0.0, 5.0, 10.0, 15.0, 20.0]
    rois = {"LV blood pool": [circle(12.0, z) for z in depths], "LV myo": [c for z in depths for c in (circle(20.0, z), circle(12.0, z))]}
    alone = read_labels(rtstruct(tmp_path / "alone" / "rs.dcm", rois))
    assert alone.spacing_mm.tolist() == [1.0, 1.0, 5.0]
    area = 0.5 * 90 * np.sin(2 * np.pi / 90)
    assert alone.volume_ml("lv_blood") == pytest.approx(area * 12**2 * 25 / 1000, rel=0.01)
    assert alone.volume_ml("lv_myocardium") == pytest.approx(area * (20**2 - 12**2) * 25 / 1000, rel=0.01)
    series = Series(rows=40, columns=50, slices=5, pixel_mm=(1.25, 1.25), step_mm=5.0, thickness_mm=5.0, origin=(-28.0, -25.0, 0.0))
    series = replace(series, scene=lambda p, t: np.full(p.shape[:2], 800.0))
    write_series(tmp_path / "both", series, seed=3)
    images = {}
    for path in (tmp_path / "both").iterdir():
        import pydicom

        one = pydicom.dcmread(path, stop_before_pixels=True)
        images[float(one.ImagePositionPatient[2])] = one.SOPInstanceUID
    both = read_labels(rtstruct(tmp_path / "both" / "rs.dcm", rois, images))
    assert both.data.shape == (50, 40, 5)
    np.testing.assert_allclose(both.affine, read_image(tmp_path / "both").affine)
    assert both.volume_ml("lv_blood") == pytest.approx(area * 12**2 * 25 / 1000, rel=0.02)
    gap = {name: [c for c in contours if c[0, 2] != 10.0] for name, contours in rois.items() if name != "LV myo"}
    with pytest.raises(Suspicious, match="missing_contours"):
        read_labels(rtstruct(tmp_path / "gap" / "rs.dcm", rois | gap))
    read_labels(tmp_path / "gap" / "rs.dcm", notes=Notes(["missing_contours"]))


def test_an_image_is_no_segmentation(tmp_path: Path) -> None:
    save(dataset(Series(), 0), tmp_path / "a.dcm")
    with pytest.raises(InputError, match="not labels"):
        read_labels(tmp_path / "a.dcm")


def test_convert_goes_between_all_label_formats(tmp_path: Path) -> None:
    volume = oblique()
    write_nrrd(tmp_path / "a.nrrd", volume)
    convert_labels(tmp_path / "a.nrrd", tmp_path / "b.dcm")
    convert_labels(tmp_path / "b.dcm", tmp_path / "c.mha")
    convert_labels(tmp_path / "c.mha", tmp_path / "d.nii.gz", NAMES)
    read = read_labels(tmp_path / "d.nii.gz")
    np.testing.assert_array_equal(read.data, volume.data)
    np.testing.assert_allclose(read.affine, volume.affine, atol=1e-4)


def ball(radius: float, centre: tuple[float, float, float]) -> Any:
    pyvista = pytest.importorskip("pyvista")
    sphere = pyvista.Sphere(radius=radius, center=centre, theta_resolution=60, phi_resolution=60)
    from twin.io.surfaces import Surface

    return Surface(np.asarray(sphere.points, np.float64), np.asarray(sphere.regular_faces, np.int32))


def test_a_folder_of_closed_surfaces_is_a_segmentation(tmp_path: Path) -> None:
    from meshing.voxelise import convert, read_segmentation
    from twin.io.surfaces import write_surface

    centre = (10.0, -20.0, 30.0)
    write_surface(_made(tmp_path / "s") / "LV blood pool.stl", ball(15.0, centre))
    write_surface(tmp_path / "s" / "lv_myocardium.ply", ball(25.0, centre))
    write_surface(tmp_path / "s" / "scar.vtp", ball(4.0, (10.0, -20.0, 50.0)))
    volume = read_segmentation(tmp_path / "s")
    ml = 4e-3 / 3 * np.pi
    assert volume.volume_ml("lv_blood") == pytest.approx(ml * 15**3, rel=0.01)
    assert volume.volume_ml("scar") == pytest.approx(ml * 4**3, rel=0.08)  # of 60 x 60 facets, in voxels of 1 mm
    assert volume.volume_ml("lv_myocardium") == pytest.approx(ml * (25**3 - 15**3 - 4**3), rel=0.01)
    np.testing.assert_allclose(volume.to_mm(np.argwhere(volume.mask("lv_blood"))).mean(axis=0), centre, atol=0.1)
    lines = convert(tmp_path / "s", tmp_path / "s.nrrd")
    assert any(line.startswith("scar: 0.3 mL") for line in lines)
    # as 3D Slicer writes it in its other frame: the same numbers with left and front reversed
    raw = bytearray((tmp_path / "s" / "LV blood pool.stl").read_bytes())
    raw[:40] = b"3D Slicer output. SPACE=RAS".ljust(40)
    (tmp_path / "s" / "LV blood pool.stl").write_bytes(raw)
    moved = read_segmentation(tmp_path / "s")
    np.testing.assert_allclose(moved.to_mm(np.argwhere(moved.mask("lv_blood"))).mean(axis=0), (-10.0, 20.0, 30.0), atol=0.1)
    (tmp_path / "s" / "spleen.stl").write_bytes(raw)
    with pytest.raises(InputError, match="unknown label 'spleen'"):
        read_segmentation(tmp_path / "s")


def test_a_segmentation_as_an_archive_exports_it(tmp_path: Path) -> None:
    """A folder that holds one SEG without a suffix among images."""
    write_series(tmp_path / "export", Series(slices=2))
    path = seg(tmp_path, {"lv_blood": shells(False)["LV endo blood"], "LV myo": shells(False)["LV myo"]})
    path.rename(tmp_path / "export" / "IM0001")
    assert read_labels(tmp_path / "export").mask("lv_blood").any()
    text = '[segmentation]\nfile = "export"\n'
    (tmp_path / "case.toml").write_text(text)
    assert load_case(tmp_path / "case.toml").labels_path == tmp_path / "export"
    (tmp_path / "export" / "IM0001").unlink()
    with pytest.raises(InputError, match="holds 0 segmentations"):
        read_labels(tmp_path / "export")


def case(folder: Path, *lines: str) -> Path:
    write_nrrd(folder / "labels.nrrd", heart())
    text = ['accept = ["thin_rv_wall"]', "[segmentation]", 'file = "labels.nrrd"', "[evidence]", *lines]
    (folder / "case.toml").write_text("\n".join(text))
    return folder / "case.toml"


def test_a_case_names_its_images(tmp_path: Path) -> None:
    write_series(tmp_path / "lge", Series())
    write_series(tmp_path / "cine", replace(Series(), times=(0.0, 0.4)))
    path = case(tmp_path, 'lge = "lge"', 'cine = "cine"')
    loaded = load_case(path)
    assert set(loaded.inputs()) >= {"lge", "cine"}
    patient = read_patient(loaded)
    assert patient.lge is not None
    assert patient.lge.value.data.shape == (16, 12, 6)
    assert patient.lge.source == "lge"
    assert patient.cine is not None
    assert len(patient.cine.value[0].slices) == 6
    assert patient.ct is None
    with pytest.raises(InputError, match="the case calls it ct"):
        read_patient(load_case(case(tmp_path, 'ct = "lge"')))
    with pytest.raises(InputError, match=r"evidence.lge: .*does not exist"):
        load_case(case(tmp_path, 'lge = "elsewhere"'))
    with pytest.raises(InputError, match="unknown key"):
        load_case(case(tmp_path, 'lgee = "lge"'))


IDENTIFYING = (
    *("AccessionNumber", "AdditionalPatientHistory", "AdmissionID", "AdmittingDiagnosesDescription", "CountryOfResidence"),
    *("CurrentPatientLocation", "DeviceSerialNumber", "EthnicGroup", "ImageComments", "InstitutionAddress"),
    *("InstitutionName", "InstitutionalDepartmentName", "IssuerOfPatientID", "MedicalAlerts", "MilitaryRank"),
    *("NameOfPhysiciansReadingStudy", "Occupation", "OperatorsName", "OtherPatientNames", "PatientAddress"),
    *("PatientBirthName", "PatientComments", "PatientID", "PatientInsurancePlanCodeSequence", "PatientMotherBirthName"),
    *("PatientName", "PatientReligiousPreference", "PatientState", "PatientTelephoneNumbers"),
    *("PerformedProcedureStepDescription", "PerformedProcedureStepID", "PerformedStationName", "PerformingPhysicianName"),
    *("PhysiciansOfRecord", "ProtocolName", "ReasonForStudy", "ReferringPhysicianAddress", "ReferringPhysicianName"),
    *("RegionOfResidence", "RequestedProcedureDescription", "RequestedProcedureID", "RequestingPhysician"),
    *("RequestingService", "ResponsibleOrganization", "ResponsiblePerson", "ScheduledPerformingPhysicianName"),
    *("SeriesDescription", "SpecialNeeds", "StationName", "StudyComments", "StudyDescription", "StudyID", "Allergies"),
    *("AcquisitionComments", "DerivationDescription"),
)


def plant(ds: Any, k: int = 0, t: int = 0) -> None:
    """An identifier in every tag that may hold text about a patient, and in private ones."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    for keyword in IDENTIFYING:
        tag = tag_for_keyword(keyword)
        if tag is not None and dictionary_VR(tag) != "SQ":
            setattr(ds, keyword, f"{PLANTED}{keyword}"[:16])
    ds.PatientBirthDate = "19330303"
    ds.add_new(0x00291010, "LO", f"{PLANTED}private")
    ds.private_block(0x0031, "VENDOR", create=True).add_new(1, "LT", f"{PLANTED} private too")


def test_planted_identifiers_reach_no_output_log_or_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    assert len(IDENTIFYING) >= 50
    caplog.set_level(logging.DEBUG)
    data, out = tmp_path / "in", tmp_path / "out"
    write_series(data / "good", Series(), tweak=plant)
    notes = Notes(["missing_slices", "several_patients"])
    image = read_image(data / "good", notes)
    texts = [repr(image), *notes.lines]
    masks = shells(False)
    path = seg(data, {"lv_blood": masks["LV endo blood"], "LV myo": masks["LV myo"]})
    import pydicom

    ds = pydicom.dcmread(path)
    plant(ds)
    save(ds, path)
    for target in ("a.dcm", "b.nrrd", "c.nii.gz", "d.mha"):
        texts += convert_labels(path, _made(out) / target)
    from planners.app.console import Console
    from planners.app.inspect_command import inspect

    for number, what in enumerate((data / "good", data / "good" / "1_000.dcm", path)):
        assert inspect(what, out / f"picture{number}.png", Console(number == 0)) == 0
    # damaged in every way that makes pydicom or us say something
    for number, (name, value) in enumerate((("Rows", None), ("PixelSpacing", [0, 0]), ("RescaleSlope", "0"), ("TriggerTime", "99999"))):
        bad = data / f"bad{number}"

        def damage(ds: Any, k: int, t: int, name: str = name, value: Any = value) -> None:
            plant(ds)
            setattr(ds, name, value)

        write_series(bad, replace(Series(), times=(0.0, 0.5)), tweak=damage)
        with pytest.raises(InputError) as caught:
            read_cine(bad)
        texts.append(caught.value.line().replace(str(tmp_path), ""))
        assert inspect(bad, out / "picture.png", Console(True)) in (0, 2)
    raw = (data / "good" / "1_000.dcm").read_bytes()
    for number, place in enumerate(range(140, len(raw), 211)):
        spoilt = _made(data / "spoilt") / f"{number}.dcm"
        spoilt.write_bytes(raw[:place] + b"\xff\xfe\x80" + raw[place + 3 :])
        try:
            read_image(spoilt, notes)
        except InputError as error:
            texts.append(error.line())
        spoilt.unlink()
    captured = capfd.readouterr()
    assert "spacing_mm" in captured.out
    texts += [captured.out, captured.err, caplog.text, *(str(w.message) for w in recwarn)]
    assert not [text for text in texts if PLANTED in text or "19330303" in text]
    for written in out.iterdir():
        content = written.read_bytes()
        assert PLANTED.encode() not in content
        if written.suffix == ".nrrd":
            assert b"Segment0_Name" in content
    again = read_labels(out / "a.dcm")
    assert again.mask("lv_blood").any()
    ds = pydicom.dcmread(out / "a.dcm")
    assert ds.PatientName == ds.PatientID == ds.PatientBirthDate == ""
    assert not [element for element in ds.iterall() if element.tag.is_private]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.real
def test_the_shared_study_as_evidence_of_a_case(tmp_path: Path) -> None:
    if "VTWIN_DATA" not in os.environ:
        pytest.skip("VTWIN_DATA is not set")
    patient = read_patient(load_case(case(tmp_path, 'cine = "$VTWIN_DATA/bivme_patient1_cine/dicom"')))
    assert patient.cine is not None
    assert len(patient.cine.value) == 6
