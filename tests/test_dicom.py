"""DICOM images: every voxel has the scene's value at its place, whatever the order, orientation, storage and time of the files."""

from __future__ import annotations

import os
import struct
import zipfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_fixtures import Series, compressed, dataset, enhanced, rotation, save, scene, turned, write_series
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import InputError, Suspicious
from twin.image import CineStack, Image
from twin.io.dicom import read_dicom, scan_dicom
from twin.io.image import read_cine, read_image
from twin.io.notes import Notes

OBLIQUE = Series(axes=rotation(3))


def places(image: Image) -> np.ndarray:
    ijk = np.stack(np.meshgrid(*(np.arange(n) for n in image.data.shape), indexing="ij"), axis=-1)
    return image.to_mm(ijk.reshape(-1, 3)).reshape(*image.data.shape, 3)


def assert_scene(image: Image, time: float = 0.0, within: float = 0.2, inside: Any = None) -> None:
    """Each voxel (or those `inside`) has the value that the scene has at its place."""
    miss = np.abs(image.data - scene(places(image), time))
    assert (miss if inside is None else miss[inside]).max() < within
    assert np.linalg.det(image.affine[:3, :3]) > 0


def test_an_oblique_stack_is_sorted_by_position_and_spaced_by_it(tmp_path: Path) -> None:
    image = read_image(write_series(tmp_path, OBLIQUE, seed=4))
    assert image.data.shape == (16, 12, 6)
    assert image.modality == "MR"
    np.testing.assert_allclose(image.spacing_mm, [2.0, 1.5, 8.0], rtol=1e-6)
    assert image.thickness_mm == 6.0
    assert image.gap_mm == pytest.approx(2.0, abs=1e-5)
    np.testing.assert_allclose(image.normal, OBLIQUE.axes[:, 2], atol=1e-7)
    assert_scene(image)


def test_an_independent_reader_places_the_same_values_in_the_same_places(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = read_image(write_series(tmp_path, OBLIQUE, seed=4))
    other = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    np.testing.assert_allclose(sitk.GetArrayFromImage(other).transpose(2, 1, 0), image.data, atol=1e-3)
    for ijk in ((0, 0, 0), (15, 0, 0), (0, 11, 0), (3, 4, 5)):
        np.testing.assert_allclose(other.TransformIndexToPhysicalPoint(ijk), image.to_mm(np.array([ijk]))[0], atol=1e-4)


@settings(max_examples=12)
@given(st.integers(0, 100), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 100))
def test_storage_order_flips_and_exchanged_axes_move_nothing(
    tmp_path_factory: pytest.TempPathFactory, turn: int, columns: bool, rows: bool, swap: bool, seed: int
) -> None:
    series = replace(OBLIQUE, axes=rotation(turn), slices=3)
    plain = read_image(write_series(tmp_path_factory.mktemp("a"), series))
    other = read_image(write_series(tmp_path_factory.mktemp("b"), turned(series, columns, rows, swap), seed))
    assert_scene(other)
    a, b = (image.to_mm(np.array([[0.0, 0, 0], np.array(image.data.shape) - 1.0])) for image in (plain, other))
    corners = [np.sort(np.round(places(image).reshape(-1, 3), 3), axis=0) for image in (plain, other)]
    np.testing.assert_allclose(*corners, atol=2e-3)
    assert np.isfinite(a + b).all()


def test_cine_of_one_series_per_slice_each_with_its_own_beat(tmp_path: Path) -> None:
    times = [0.0, 0.2, 0.45, 0.7]
    for k, rr in enumerate((776.0, 975.0, 863.0)):
        one = replace(OBLIQUE, uid=f"1.2.3.{9 - k}", number=90 - k, times=times[: 4 if k else 3], rr_ms=rr)

        def sequence(ds: Any, k: int, t: int) -> None:
            ds.SequenceName, ds.EchoTime = f"*tfi2d1_{9 + k}", f"1.4{k}"

        write_series(tmp_path, one, seed=k, keep=[k], tweak=sequence)
    (stack,) = read_cine(tmp_path)
    assert [len(one.trigger_ms) for one in stack.slices] == [3, 4, 4]
    assert [one.rr_ms for one in stack.slices] == [776.0, 975.0, 863.0]
    np.testing.assert_allclose(stack.slices[1].trigger_ms, np.array(times) * 975, atol=1e-2)
    for phase in (0.0, 0.2, 0.3):
        assert_scene(stack.at(phase), phase, within=0.5)
    # between the last frame and the next beat's first: half way
    assert_scene(Image(stack.slices[1].at(0.85)[..., None], stack.affine @ _move(1)), 0.35, within=0.5)


def _move(k: int) -> np.ndarray:
    out = np.eye(4)
    out[2, 3] = k
    return out


@pytest.mark.parametrize("times", [(), (0.0, 0.3, 0.6)])
def test_enhanced_multi_frame(tmp_path: Path, times: tuple[float, ...]) -> None:
    series = replace(OBLIQUE, times=times)
    save(enhanced(series, seed=2), tmp_path / "e.dcm")
    if not times:
        assert_scene(read_image(tmp_path / "e.dcm"))
        return
    (stack,) = read_cine(tmp_path)
    assert len(stack.slices) == 6
    assert stack.slices[0].rr_ms == 800.0
    assert_scene(stack.at(0.3), 0.3)


@pytest.mark.parametrize("kept", ["TemporalPositionIdentifier", "InstanceNumber"])
def test_cine_without_trigger_times_is_spread_over_the_beat(tmp_path: Path, kept: str) -> None:
    def strip(ds: Any, k: int, t: int) -> None:
        del ds.TriggerTime
        ds.InstanceNumber = 10 * k + t + 1 if kept == "InstanceNumber" else 1
        if kept == "TemporalPositionIdentifier":
            ds.TemporalPositionIdentifier = t + 1

    (stack,) = read_cine(write_series(tmp_path, replace(OBLIQUE, times=(0.0, 0.25, 0.5, 0.75)), tweak=strip))
    np.testing.assert_allclose(stack.slices[2].trigger_ms, [0, 200, 400, 600])
    assert_scene(stack.at(0.5), 0.5)


def test_late_enhancement_of_one_series_per_slice_and_a_repeated_one(tmp_path: Path) -> None:
    for k in range(5):
        write_series(tmp_path, replace(OBLIQUE, uid=f"1.2.3.{20 + k}", number=50 - k), keep=[k])
    write_series(
        tmp_path, replace(OBLIQUE, uid="1.2.3.40", number=3), keep=[2], tweak=lambda ds, k, t: setattr(ds, "PixelData", bytes(384))
    )
    notes = Notes()
    image = read_image(tmp_path, notes)
    assert_scene(image)
    assert image.data.shape == (16, 12, 5)
    assert "series 3 repeats the plane of a later series" in notes.lines[0]
    assert any("1 single planes beside the volume" in line for line in notes.lines)


def test_an_inversion_scout_is_neither_volume_nor_cine(tmp_path: Path) -> None:
    def invert(ds: Any, k: int, t: int) -> None:
        ds.InversionTime = 100 + 50 * t

    write_series(tmp_path, replace(OBLIQUE, uid="1.2.3.5", number=5, times=(0.0, 0.3, 0.6)), keep=[2], tweak=invert)
    with pytest.raises(InputError, match="no plane was measured at several times"):
        read_cine(tmp_path)
    write_series(tmp_path, OBLIQUE)
    notes = Notes()
    assert_scene(read_image(tmp_path, notes))
    assert "1 inversion scouts or mapping series were passed over" in notes.lines[0]


def test_views_that_turn_about_an_axis_stay_single_planes(tmp_path: Path) -> None:
    def pose(ds: Any, k: int, t: int) -> None:
        angle = k * np.pi / 6
        row = [np.cos(angle), np.sin(angle), 0.0]
        ds.ImageOrientationPatient = [f"{v:.9g}" for v in (*row, 0.0, 0.0, -1.0)]
        ds.ImagePositionPatient = [f"{v:.8g}" for v in -16.0 * np.array(row) + [0, 0, 9.0]]

    write_series(tmp_path, replace(OBLIQUE, times=(0.0, 0.5)), tweak=pose)
    stacks = read_dicom(tmp_path)
    assert len(stacks) == 6
    for stack in stacks:
        assert isinstance(stack, CineStack)
        # the axis x = y = 0 lies in every view
        assert abs(stack.normal @ (np.zeros(3) - stack.affine[:3, 3])) < 1e-4


def test_gantry_tilt_is_said_and_put_right(tmp_path: Path) -> None:
    notes = Notes()
    image = read_image(write_series(tmp_path, replace(OBLIQUE, tilt_mm=(0.0, 2.144))), notes)
    assert "gantry tilt of 15.0 degrees" in notes.lines[0]
    assert "slices 6 mm thick lie 8 mm apart: 2 mm between them were not imaged" in notes.lines[1]
    shape = image.data.shape
    assert shape == (16, 12 + 8, 6)
    inside = image.data > 0
    assert inside.sum() == 16 * 12 * 6
    # half a pixel at the rim takes the value of the rim
    assert_scene(image, inside=inside, within=0.5 * 3 * 1.5 + 0.1)
    core = inside & np.roll(inside, 1, 1) & np.roll(inside, -1, 1)
    assert_scene(image, inside=core)


def test_slices_shifted_in_their_plane_share_one_grid(tmp_path: Path) -> None:
    def shift(ds: Any, k: int, t: int) -> None:
        moved = replace(OBLIQUE, origin=tuple(np.array(OBLIQUE.origin) + OBLIQUE.axes[:, 0] * 4.0 * (k % 2)))
        other = dataset(moved, k)
        ds.ImagePositionPatient, ds.PixelData = other.ImagePositionPatient, other.PixelData

    notes = Notes()
    image = read_image(write_series(tmp_path, OBLIQUE, tweak=shift), notes)
    assert "offset in their plane by up to 4.0 mm" in notes.lines[0]
    assert image.data.shape == (18, 12, 6)
    assert_scene(image, inside=image.data > 0)


def damaged_missing(folder: Path) -> None:
    write_series(folder, OBLIQUE, keep=[0, 1, 3, 4, 5])


def damaged_uneven(folder: Path) -> None:
    write_series(folder, OBLIQUE, keep=[0, 1, 2.3, 3, 4])


def damaged_double(folder: Path) -> None:
    write_series(folder, OBLIQUE)
    ds = dataset(OBLIQUE, 2, instance=99)
    ds.PixelData = bytes(len(ds.PixelData))
    save(ds, folder / "again.dcm")


def damaged_orientation(folder: Path) -> None:
    write_series(folder, OBLIQUE)
    save(dataset(replace(OBLIQUE, axes=rotation(5)), 2, instance=99), folder / "stray.dcm")


def damaged_size(folder: Path) -> None:
    write_series(folder, OBLIQUE)
    save(dataset(replace(OBLIQUE, rows=10), 7, instance=99), folder / "stray.dcm")


def damaged_text(folder: Path) -> None:
    write_series(folder, OBLIQUE, tweak=lambda ds, k, t: setattr(ds, "BurnedInAnnotation", "YES"))


def damaged_patient(folder: Path) -> None:
    write_series(folder, OBLIQUE, tweak=lambda ds, k, t: setattr(ds, "PatientID", str(k // 3)))


def damaged_times(folder: Path) -> None:
    write_series(folder, replace(OBLIQUE, times=(0.0, 0.3, 0.6)))
    next(iter(sorted(folder.iterdir()))).unlink()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (damaged_missing, "missing_slices"),
        (damaged_uneven, "uneven_slices"),
        (damaged_double, "duplicate_slices"),
        (damaged_orientation, "mixed_orientations"),
        (damaged_size, "mixed_sizes"),
        (damaged_patient, "several_patients"),
        (damaged_text, "burned_in_text"),
        (damaged_times, "missing_frames"),
    ],
)
def test_what_is_doubtful_is_said_and_read_when_accepted(tmp_path: Path, damage: Any, code: str) -> None:
    damage(tmp_path)
    with pytest.raises(Suspicious, match=code):
        read_dicom(tmp_path)
    notes = Notes([code])
    first = read_dicom(tmp_path, notes)[0]
    assert any(code in line for line in notes.lines)
    if isinstance(first, CineStack):
        assert_scene(first.at(0.3), 0.3)
    elif code == "duplicate_slices":
        assert (first.data[:, :, 2] == 700).all()
    else:
        assert_scene(first, within=1.0)
        assert first.spacing_mm[2] == pytest.approx(8.0, abs=1e-4)
        assert first.data.shape[2] == (6 if code != "uneven_slices" else 5)


def test_the_same_file_twice_is_a_note(tmp_path: Path) -> None:
    write_series(tmp_path, OBLIQUE)
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "1_000.dcm").read_bytes())
    notes = Notes()
    assert_scene(read_image(tmp_path, notes))
    assert any("1 slices were there twice" in line for line in notes.lines)


def test_several_volumes_are_listed_and_other_objects_passed_over(tmp_path: Path) -> None:
    write_series(tmp_path, OBLIQUE)
    write_series(tmp_path, replace(OBLIQUE, uid="1.2.3.2", number=7, slices=4))
    with pytest.raises(InputError, match=r"2 stacks: .*6 planes, series 1; .*4 planes, series 7"):
        read_image(tmp_path)
    report = dataset(OBLIQUE, 0)
    del report.PixelData
    report.Modality = "SR"
    save(report, tmp_path / "r.dcm")
    (tmp_path / "notes.txt").write_text("x" * 500)
    notes = Notes()
    assert len(scan_dicom(tmp_path, notes)) == 2
    assert "1 DICOM objects that are no grey-value images" in notes.lines[0]


def encode(ds: Any, kind: str) -> Any:
    """The data set in another storage; the meaning of the pixels stays the same."""
    from pydicom.uid import UID

    stored = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).astype(np.int64)
    if kind == "signed":
        ds.PixelRepresentation, ds.BitsStored, ds.HighBit, ds.RescaleIntercept = 1, 13, 12, str(700 + 1000 * 0.25)
        # rubbish in the bits above the stored ones, as old overlays leave it
        ds.PixelData = (((stored - 1000) & 0x1FFF) | 0xA000).astype("<u2").tobytes()
    elif kind == "monochrome1":
        ds.PhotometricInterpretation = "MONOCHROME1"
        ds.PixelData = (4095 - stored).astype("<u2").tobytes()
    elif kind == "8 bit":
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit, ds.RescaleSlope = 7, "4"
        ds.PixelData = np.rint(stored / 16).astype("u1").tobytes()
        ds["PixelData"].VR = "OB"
    elif kind == "implicit":
        ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2")
    elif kind == "deflated":
        ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    else:
        compressed(ds, kind)
    return ds


@pytest.mark.parametrize("kind", ["signed", "monochrome1", "8 bit", "implicit", "deflated", "rle", "jpeg ls", "jpeg 2000"])
def test_every_storage_means_the_same(tmp_path: Path, kind: str) -> None:
    for k in range(3):
        save(encode(dataset(OBLIQUE, k, instance=k + 1), kind), tmp_path / f"{k}.dcm")
    assert_scene(read_image(tmp_path), within=2.2 if kind == "8 bit" else 0.2)


def test_big_endian(tmp_path: Path) -> None:
    from pydicom import dcmwrite
    from pydicom.uid import ExplicitVRBigEndian

    for k in range(3):
        ds = dataset(OBLIQUE, k, instance=k + 1)
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        dcmwrite(tmp_path / f"{k}.dcm", ds, little_endian=False, implicit_vr=False, enforce_file_format=True)
    assert_scene(read_image(tmp_path))


def test_whole_numbers_stay_integers_and_padding_is_dark(tmp_path: Path) -> None:
    def hounsfield(ds: Any, k: int, t: int) -> None:
        ds.RescaleSlope, ds.RescaleIntercept, ds.PixelPaddingValue = "1", "-1024", 4000
        values = np.frombuffer(ds.PixelData, "<u2").copy()
        values[:5] = 4000
        ds.PixelData = values.tobytes()

    image = read_image(write_series(tmp_path, replace(OBLIQUE, modality="CT"), tweak=hounsfield))
    assert image.modality == "CT"
    assert image.data.dtype == np.int16
    assert image.data.max() < 4000 - 1024
    assert (image.data[:5, 0, 0] == image.data[:, :, 0].min()).all()


def test_a_zip_reads_like_its_folder_and_dishonest_ones_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", OBLIQUE)
    good = tmp_path / "s.zip"
    with zipfile.ZipFile(good, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"study/{path.name}")
        archive.writestr("readme.txt", "hello " * 50)
    np.testing.assert_array_equal(read_image(good).data, read_image(folder).data)
    for name, member, match in (
        ("up.zip", "../../x.dcm", "leads out of the archive"),
        ("abs.zip", "/etc/x.dcm", "leads out of the archive"),
        ("drive.zip", "C:/x.dcm", "leads out of the archive"),
        ("none.zip", "x.dcm", "no DICOM file"),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, b"\0" * 300)
        with pytest.raises(InputError, match=match):
            read_image(tmp_path / name)


def test_what_unpacks_to_too_much_is_refused_before_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from twin.io import dicom_files

    monkeypatch.setattr(dicom_files, "MAX_MEMBER_BYTES", 3_000_000)
    big = dataset(replace(OBLIQUE, rows=1000, columns=1000, scene=lambda p, t: np.full(p.shape[:2], 700.0)), 0)
    save(big, tmp_path / "a.dcm")
    assert read_image(tmp_path / "a.dcm").data.max() == 700
    with zipfile.ZipFile(tmp_path / "two.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.dcm", "a.dcm")
        archive.writestr("b.dcm", bytes(128) + b"DICM" + bytes(5_000_000))
    assert (tmp_path / "two.zip").stat().st_size < 30_000
    with pytest.raises(InputError, match="a member claims 5 MB"):
        read_image(tmp_path / "two.zip")
    raw = bytearray((tmp_path / "two.zip").read_bytes())
    # the second member says that it unpacks to 400 bytes
    place = raw.rindex(b"PK\1\2") + 24
    raw[place : place + 4] = struct.pack("<I", 400)
    (tmp_path / "liar.zip").write_bytes(raw)
    with pytest.raises(InputError):
        read_image(tmp_path / "liar.zip")
    save(encode(big, "deflated"), tmp_path / "d.dcm")
    assert (tmp_path / "d.dcm").stat().st_size < 10_000
    monkeypatch.setattr(dicom_files, "MAX_MEMBER_BYTES", 1_000_000)
    with pytest.raises(InputError, match="unpacks to more than 1 MB"):
        read_image(tmp_path / "d.dcm")


def change(**values: Any) -> Any:
    def tweak(ds: Any, k: int, t: int) -> None:
        for name, value in values.items():
            if value is None:
                delattr(ds, name)
            else:
                setattr(ds, name, value)

    return tweak


@pytest.mark.parametrize(
    ("tweak", "match"),
    [
        (change(ImagePositionPatient=None), "ImagePositionPatient: is missing"),
        (change(ImageOrientationPatient=None), "ImageOrientationPatient: is missing"),
        (change(ImageOrientationPatient=[1, 0, 0, 0.5, 0.8, 0]), "perpendicular"),
        (change(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "perpendicular"),
        (change(PixelSpacing=None), "PixelSpacing: is missing"),
        (change(PixelSpacing=[0, 1]), "outside 0.05"),
        (change(PixelSpacing=[0.0015, 0.002]), "outside 0.05"),
        (change(RescaleSlope="0"), "RescaleSlope"),
        (change(Rows=24), "its sizes say"),
        (change(Rows=6), "its sizes say"),
        (change(BitsStored=17), "no such picture"),
        (change(BitsAllocated=12), "no such picture"),
        (change(NumberOfFrames=3), "its sizes say"),
        (change(AnatomicalOrientationType="QUADRUPED"), "QUADRUPED"),
        (change(PhotometricInterpretation="RGB", SamplesPerPixel=3), "no grey-value"),
    ],
)
def test_headers_that_cannot_be_right_are_refused(tmp_path: Path, tweak: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_image(write_series(tmp_path, replace(OBLIQUE, slices=3), tweak=tweak))


def test_a_compression_that_is_not_decoded_is_one_clear_line(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    ds = dataset(OBLIQUE, 0)
    ds.PixelData = encapsulate([b"\xff\xd8\xff\xd9" * 10])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.70")
    save(ds, tmp_path / "a.dcm")
    with pytest.raises(InputError, match=r"JPEG Lossless.*is not decoded here; export it uncompressed"):
        read_image(tmp_path / "a.dcm")


def test_a_compressed_frame_of_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate, generate_frames

    ds = compressed(dataset(OBLIQUE, 0), "jpeg ls")
    (frame,) = list(generate_frames(ds.PixelData, number_of_frames=1))
    place = frame.index(b"\xff\xf7") + 5
    ds.PixelData = encapsulate([frame[:place] + struct.pack(">2H", 65000, 65000) + frame[place + 4 :]])
    save(ds, tmp_path / "a.dcm")
    with pytest.raises(InputError, match="compressed as 65000 x 65000"):
        read_image(tmp_path / "a.dcm")


@pytest.mark.real
def test_the_real_cine_study_has_the_right_geometry() -> None:
    root = os.environ.get("VTWIN_DATA")
    if root is None:
        pytest.skip("VTWIN_DATA is not set")
    sax, *views = read_cine(Path(root) / "bivme_patient1_cine" / "dicom")
    assert len(sax.slices) == 6
    assert sax.spacing_mm[2] == pytest.approx(17.7, abs=0.01)
    assert sax.thickness_mm == 6.0
    assert sax.gap_mm == pytest.approx(11.7, abs=0.01)
    # SliceLocation in the headers, which the reader does not use: 3.85 (base) to -84.65 (apex)
    assert sax.spacing_mm[2] * 5 == pytest.approx(3.85 + 84.65, abs=0.01)
    assert [round(one.rr_ms) for one in sax.slices] == [831, 814, 776, 829, 860, 863]
    assert sorted(len(one.trigger_ms) for one in sax.slices) == [4, 4, 4, 4, 4, 25]
    assert [len(view.slices) for view in views] == [1] * 5
    # the first three views (4-, 3- and 2-chamber) share the long axis of the left ventricle: any two cross along nearly the normal of
    # the short-axis slices, and the three lines meet the middle of the stack in one place, near the centre of its picture
    places = []
    for a, b in combinations(views[:3], 2):
        axis = np.cross(a.normal, b.normal)
        assert abs(axis @ sax.normal) / np.linalg.norm(axis) > np.cos(np.radians(11.0))
        rows = np.stack([a.normal, b.normal, sax.normal])
        middle = sax.to_mm(np.array([[127.5, 103.5, 2.5]]))[0]
        places.append(np.linalg.solve(rows, [a.normal @ a.affine[:3, 3], b.normal @ b.affine[:3, 3], sax.normal @ middle]))
    assert np.ptp(places, axis=0).max() < 5.0
    assert np.linalg.norm(np.mean(places, axis=0) - middle) < 10.0
    for view in views:
        for place in places:
            i, j, _ = view.to_ijk(place[None])[0]
            assert 20 < i < view.slices[0].frames.shape[0] - 20
            assert 20 < j < view.slices[0].frames.shape[1] - 20


@pytest.mark.real
def test_long_axis_views_show_the_heart_where_short_axis_slices_do() -> None:
    """Along the line where two planes cross, both pictures show the same tissue: correlated, and best without any shift."""
    root = os.environ.get("VTWIN_DATA")
    if root is None:
        pytest.skip("VTWIN_DATA is not set")
    from scipy import ndimage

    sax, *views = (stack.at(0.0) for stack in read_cine(Path(root) / "bivme_patient1_cine" / "dicom"))
    shifts = np.arange(-20, 21, 4)  # mm
    scores = np.zeros(len(shifts))
    for view in views:
        for k in range(1, 5):
            points = crossing(sax, k, view)
            a = ndimage.map_coordinates(sax.data[:, :, k].astype(float), sax.to_ijk(points)[:, :2].T, order=1)
            for s, shift in enumerate(shifts):
                moved = points + shift * (points[-1] - points[0]) / np.linalg.norm(points[-1] - points[0])
                b = ndimage.map_coordinates(view.data[:, :, 0].astype(float), view.to_ijk(moved)[:, :2].T, order=1)
                scores[s] += np.corrcoef(a, b)[0, 1] / (len(views) * 4)
    assert shifts[np.argmax(scores)] == 0
    assert scores.max() > 0.8


def crossing(sax: Image, k: int, view: Image) -> np.ndarray:
    """Points 1 mm apart, (n, 3), within 60 mm of the stack's middle on the line where slice k and the view cross."""
    way = np.cross(sax.normal, view.normal)
    way /= np.linalg.norm(way)
    centre = sax.to_mm(np.array([[127.5, 103.5, float(k)]]))[0]
    rows = np.stack([sax.normal, view.normal, way])
    start = np.linalg.solve(rows, [sax.normal @ centre, view.normal @ view.affine[:3, 3], way @ centre])
    return start + np.arange(-60.0, 61.0)[:, None] * way
