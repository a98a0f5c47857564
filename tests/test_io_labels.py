"""Label volumes: round trips in every space and order, and every bad input as one clear line."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from io_fixtures import heart

from twin.errors import InputError, Suspicious
from twin.io.labels import check_heart, read_labels
from twin.io.nifti import write_nifti
from twin.io.notes import Notes
from twin.io.nrrd import write_nrrd
from twin.volume import LABELS, LabelVolume

HEART = heart()


def raw_nrrd(path: Path, data: np.ndarray, **fields: str) -> Path:
    """A raw NRRD as other programs write it; fields replace the defaults ("" removes one)."""
    kind = {"u1": "unsigned char", "i2": "short", "f4": "float", "i4": "int"}[data.dtype.str[1:]]
    header = {
        "type": kind,
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, data.shape)),
        "space directions": "(2,0,0) (0,2,0) (0,0,2)",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(0,0,0)",
    } | {key.replace("_", " "): value for key, value in fields.items() if not key.startswith("Segment")}
    names = fields.get("Segments", "lv_blood=1,rv_blood=2,lv_myocardium=3,rv_myocardium=4,scar=5")
    lines = [f"{key}: {value}" for key, value in header.items() if value]
    for n, item in enumerate(filter(None, names.split(","))):
        name, value = item.split("=")
        lines += [f"Segment{n}_Name:={name}", f"Segment{n}_LabelValue:={value}"]
    body = data.tobytes(order="F")
    path.write_bytes(("NRRD0004\n# comment\n" + "\n".join(l for l in lines if not l.startswith("Segments")) + "\n\n").encode() + body)
    return path


def refused(path: Path, *words: str, labels: dict[str, int] | None = None) -> InputError:
    """The error of reading and checking a file: one line that names the file and holds the words."""
    with pytest.raises(InputError) as caught:
        check_heart(read_labels(path, labels), path)
    line = caught.value.line()
    assert "\n" not in line
    assert path.name in line
    for word in words:
        assert word in line, line
    return caught.value


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii", "a.nii.gz"])
def test_round_trip_keeps_labels_place_and_names(tmp_path: Path, name: str) -> None:
    affine = np.array([[0.0, -2.0, 0.0, 11.5], [2.0, 0.0, 0.0, -4.25], [0.0, 0.0, 2.0, 7.0], [0, 0, 0, 1]])
    volume = replace(HEART, affine=affine)
    (write_nrrd if name.endswith("nrrd") else write_nifti)(tmp_path / name, volume)
    first = (tmp_path / name).read_bytes()
    (write_nrrd if name.endswith("nrrd") else write_nifti)(tmp_path / name, volume)
    assert (tmp_path / name).read_bytes() == first
    back = read_labels(tmp_path / name)
    assert (back.data == HEART.data).all()
    assert np.allclose(back.affine, affine, atol=1e-6)
    assert dict(back.names) == {k: LABELS[k] for k in ("lv_blood", "rv_blood", "lv_myocardium", "rv_myocardium", "scar")}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(st.sampled_from([1, -1]), st.sampled_from([1, -1])),
    spacing=st.tuples(*[st.floats(0.3, 4.0)] * 3),
    space=st.sampled_from(["left-posterior-superior", "RAS", "left-anterior-superior", "LAS"]),
    angle=st.floats(0, 3.0),
    kind=st.sampled_from(["nrrd", "nii", "nii.gz"]),
)
def test_any_orientation_reads_to_the_same_place(
    tmp_path: Path, order: list[int], flips: tuple[int, int], spacing: tuple[float, ...], space: str, angle: float, kind: str
) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    axes = turn @ np.eye(3)[:, order] * np.array([*flips, 1.0])
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * spacing, [3.0, -20.0, 100.0]
    small = np.zeros((8, 9, 10), np.uint8)
    small[2:7, 2:7, 2:7], small[4, 4, 4], small[5, 4, 3] = 3, 1, 5
    path = tmp_path / f"o.{kind}"
    if kind == "nrrd":
        signs = {"left-posterior-superior": [1, 1, 1], "RAS": [-1, -1, 1]}.get(space, [1, -1, 1])
        stored = np.array(signs)[:, None] * affine[:3]
        text = " ".join("(" + ",".join(map(repr, map(float, column))) + ")" for column in stored.T)
        *directions, origin = text.split(" ")
        raw_nrrd(path, small, space=space, space_directions=" ".join(directions), space_origin=origin)
    else:
        write_nifti(path, LabelVolume(small, affine))
    back = read_labels(path)
    assert np.allclose(back.affine, affine, atol=1e-4)
    assert (back.data == small).all()
    assert np.allclose(back.to_mm(np.argwhere(back.mask("scar"))), affine[:3, :3] @ [5, 4, 3] + affine[:3, 3], atol=1e-3)


def test_another_program_reads_the_same_heart(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    moved = np.array([[0.0, -2, 0, 5], [2, 0, 0, -6], [0, 0, 2, 7], [0, 0, 0, 1]])
    for name in ("a.nrrd", "a.nii.gz"):
        (write_nrrd if name == "a.nrrd" else write_nifti)(tmp_path / name, replace(HEART, affine=moved))
        image = sitk.ReadImage(str(tmp_path / name))
        assert (HEART.data == sitk.GetArrayFromImage(image).T).all()
        assert np.allclose(image.GetOrigin(), moved[:3, 3])
        assert np.allclose(np.reshape(image.GetDirection(), (3, 3)) * 2, moved[:3, :3])


def test_nifti_with_only_a_qform_as_simpleitk_writes_it(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(HEART.data.T)
    image.SetSpacing((2.0, 2.0, 2.0))
    image.SetOrigin((-7.0, 4.0, 9.0))
    image.SetDirection((0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "q.nii.gz"))
    data = bytearray(zlib.decompress((tmp_path / "q.nii.gz").read_bytes(), 31))
    names = {name: LABELS[name] for name in ("lv_blood", "rv_blood", "lv_myocardium", "rv_myocardium", "scar")}
    for sform in (True, False):
        if not sform:
            struct.pack_into("<h", data, 254, 0)
        (tmp_path / "q.nii").write_bytes(data)
        back = read_labels(tmp_path / "q.nii", names)
        assert np.allclose(back.affine[:3, :3], 2 * np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]]), atol=1e-5)
        assert np.allclose(back.affine[:3, 3], [-7, 4, 9], atol=1e-5)
        assert (back.data == HEART.data).all()


@pytest.mark.parametrize(("dtype", "encoding"), [("i2", "raw"), ("f4", "raw"), ("u1", "raw"), ("i4", "gzip"), ("u1", "ascii")])
def test_types_and_encodings(tmp_path: Path, dtype: str, encoding: str) -> None:
    data = HEART.data.astype("<" + dtype)
    path = raw_nrrd(tmp_path / "t.nrrd", data, encoding=encoding)
    head, body = path.read_bytes().split(b"\n\n", 1)
    if encoding == "gzip":
        packer = zlib.compressobj(wbits=31)
        path.write_bytes(head + b"\n\n" + packer.compress(body) + packer.flush())
    elif encoding == "ascii":
        path.write_bytes(head + b"\n\n" + b" ".join(b"%d" % v for v in data.ravel(order="F")))
    assert (read_labels(path).data == HEART.data).all()


def test_slicer_names_and_the_case_name_the_labels(tmp_path: Path) -> None:
    path = raw_nrrd(tmp_path / "s.nrrd", HEART.data, Segments="LV blood pool=1,RV Cavity=2,LV Myo=3,rv wall=4,Dense scar=5")
    assert read_labels(path).volume_ml("scar") == HEART.volume_ml("scar")
    back = read_labels(path, {"ignore": 5})
    assert not back.mask("scar").any()
    assert back.mask("lv_myocardium").any()
    refused(raw_nrrd(tmp_path / "u.nrrd", HEART.data, Segments="lv_blod=1"), "lv_blod", "did you mean 'lv_blood'")


def test_bad_files_are_one_line_each(tmp_path: Path) -> None:
    good = tmp_path / "good.nrrd"
    write_nrrd(good, HEART)
    data = good.read_bytes()
    bad = tmp_path / "bad.nrrd"
    refused(tmp_path / "absent.nrrd", "does not exist")
    cases: list[tuple[bytes, str]] = [
        (b"", "is empty"),
        (data[: len(data) // 2], "truncated"),
        (data[:120], "no end"),
        (b"NRRX" + data[4:], "no label format"),
        (b"NRRD0009" + data[8:], "NRRD0001"),
        (data.replace(b"gzip", b"bzip2"), "encoding"),
        (data.replace(b"left-posterior-superior", b"scanner-xyz"), "where left is"),
        (data.replace(b"encoding:", b"data file: x.raw\nencoding:"), "two files"),
        (data.replace(b"sizes: 60 45 45", b"sizes: 4000 4000 4000"), "limit"),
        (data.replace(b"sizes: 60 45 45", b"sizes: 600 450 450"), "truncated"),
        (data.replace(b"sizes: 60 45 45", b"sizes: 60 45 44"), "more data"),
        (data.replace(b"(0.0,0.0,0.0)", b"(nan,0.0,0.0)"), "not finite"),
        (data.replace(b"(2.0,0.0,0.0)", b"(-2.0,0.0,0.0)"), "left-handed"),
        (data.replace(b"(2.0,0.0,0.0)", b"(0.0,0.0,0.0)"), "no length"),
        (data.replace(b"(2.0,0.0,0.0)", b"(2.0,0.5,0.0)"), "perpendicular"),
        (data.replace(b"2.0", b"0.002"), "metres"),
        (data.replace(b"dimension: 3", b"dimension: 4"), "sizes"),
    ]
    for content, word in cases:
        bad.write_bytes(content)
        refused(bad, word)
    refused(tmp_path, "holds 0 segmentations")


def test_truncation_is_found_before_allocating(tmp_path: Path) -> None:
    packer = zlib.compressobj(wbits=31)
    head = raw_nrrd(tmp_path / "h.nrrd", np.zeros((2, 2, 2), np.uint8), encoding="gzip", sizes="700 700 700").read_bytes().split(b"\n\n")[0]
    (tmp_path / "h.nrrd").write_bytes(head + b"\n\n" + packer.compress(b"\0" * 1000) + packer.flush())
    refused(tmp_path / "h.nrrd", "truncated", "cannot hold")


def test_left_handed_files_are_refused_and_converted_without_moving_anything(tmp_path: Path) -> None:
    from twin.io.convert import convert_labels

    path = raw_nrrd(tmp_path / "l.nrrd", HEART.data, space_directions="(-2,0,0) (0,2,0) (0,0,2)", space_origin="(100,0,0)")
    refused(path, "left-handed", "vtwin convert")
    lines = convert_labels(path, tmp_path / "r.nii.gz")
    assert lines[0].startswith("60 x 45 x 45 voxels")
    back = read_labels(tmp_path / "r.nii.gz")
    assert np.linalg.det(back.affine[:3, :3]) > 0
    mirrored = np.argwhere(HEART.data == LABELS["scar"]) * [-2.0, 2, 2] + [100.0, 0, 0]
    moved = back.to_mm(np.argwhere(back.mask("scar")))
    assert np.allclose(np.sort(moved, axis=0), np.sort(mirrored, axis=0), atol=1e-4)


def test_bad_nifti(tmp_path: Path) -> None:
    path = tmp_path / "n.nii"
    write_nifti(path, HEART)
    data = path.read_bytes()

    def patched(place: int, layout: str, *values: float) -> bytes:
        out = bytearray(data)
        struct.pack_into(layout, out, place, *values)
        return bytes(out)

    cases = [
        (data[:300], "truncated"),
        (data[:-5], "truncated"),
        (patched(344, "<4s", b"ni1\0"), "two-file"),  # type: ignore[arg-type]
        (patched(123, "<B", 1), "metres"),
        (patched(40, "<h", 9), "dim"),
        (patched(42, "<3h", 30000, 30000, 30000), "voxels"),
        (patched(70, "<h", 128), "datatype"),
        (patched(108, "<f", float("nan")), "vox_offset"),
        (patched(112, "<f", 2.0), "scaled"),
        (patched(280, "<f", float("nan")), "not finite"),
        (patched(280, "<f", 2.0), "left-handed"),
        (patched(252, "<2h", 0, 0), "neither sform nor qform"),
    ]
    for content, word in cases:
        path.write_bytes(content)
        refused(path, word)
    write_nifti(path, replace(HEART, data=HEART.data))
    path.write_bytes(path.read_bytes().replace(b"vtwin_labels", b"other_labels"))
    refused(path, "does not name its labels", "[segmentation.labels]")


def test_missing_and_unknown_labels(tmp_path: Path) -> None:
    path = raw_nrrd(tmp_path / "m.nrrd", np.where(HEART.data == 1, 0, HEART.data).astype(np.uint8))
    refused(path, "missing label lv_blood")
    refused(raw_nrrd(tmp_path / "w.nrrd", np.where(HEART.data > 2, 0, HEART.data).astype(np.uint8)), "no myocardium")
    path = raw_nrrd(tmp_path / "k.nrrd", np.where(HEART.data == 5, 77, HEART.data).astype(np.uint8))
    refused(path, "unknown label 77", "[segmentation.labels]")
    refused(raw_nrrd(tmp_path / "f.nrrd", HEART.data.astype("<f4") * 0.5), "fractional")


def two_hearts(data: np.ndarray) -> np.ndarray:
    return np.concatenate([data, np.zeros((3, *data.shape[1:]), np.uint8), data])


def sheet(data: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    out = np.where(data == 1, data, 0).astype(np.uint8)
    out[binary_dilation(data == 1) & (out == 0)] = 3
    return out


def island(data: np.ndarray) -> np.ndarray:
    out = data.copy()
    out[2:7, 2:7, 38:43] = 5
    return out


@pytest.mark.parametrize(
    ("change", "word", "code"),
    [
        (two_hearts, "two disconnected hearts", None),
        (sheet, "one voxel thin", None),
        (island, "loose pieces", "stray_labels"),
        (island, "touch no myocardium", "scar_island"),
        (lambda d: np.where((d == 3) | (d == 4), 0, d), "disconnected|touches wall", None),
        (lambda d: d[16:], "edge of the image", "heart_cut"),
    ],
)
def test_hearts_that_are_not_one_heart(change: Callable[[np.ndarray], np.ndarray], word: str, code: str | None) -> None:
    volume = replace(HEART, data=np.ascontiguousarray(change(HEART.data).astype(np.uint8)))
    with pytest.raises(InputError, match=word) as caught:
        check_heart(volume, "x.nrrd", Notes(["stray_labels"] if code == "scar_island" else []))
    if code:
        assert isinstance(caught.value, Suspicious)
        assert caught.value.code == code
        assert f"accept = ['{code}']" in caught.value.line()
        notes = check_heart(volume, "x.nrrd", Notes([code, "stray_labels", "scar_island"]))
        assert any(line.startswith(f"accepted ({code})") for line in notes)


def test_the_good_heart_passes_and_wrong_units_do_not() -> None:
    assert check_heart(HEART, "x.nrrd") == ()
    with pytest.raises(InputError, match="another unit"):
        check_heart(replace(HEART, affine=np.diag([0.2, 0.2, 0.2, 1])), "x.nrrd")
    with pytest.raises(Suspicious, match="mm long"):
        check_heart(replace(HEART, affine=np.diag([8.0, 8, 8, 1])), "x.nrrd")
