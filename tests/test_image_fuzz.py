"""Damaged and absurd images and segmentations: one clear line or a sound answer, never another exception, never long, never large."""

from __future__ import annotations

import copy
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_fixtures import Series, compressed, dataset, enhanced, rotation, save
from io_fixtures import heart
from test_image_io import circle, rtstruct, seg, shells
from test_io_fuzz import damaged

from twin.errors import InputError
from twin.image import CineStack, Image
from twin.io.dicom import read_dicom
from twin.io.dicom_seg_write import write_dicom_seg
from twin.io.image import read_image
from twin.io.labels import read_labels
from twin.io.mha import write_mha
from twin.io.nifti import write_nifti
from twin.io.notes import Notes
from twin.io.nrrd import write_nrrd
from twin.volume import LABELS, LabelVolume

NAMES = {name: value for name, value in LABELS.items() if value}
EVERYTHING = (
    *("missing_slices", "uneven_slices", "duplicate_slices", "mixed_orientations", "mixed_sizes", "several_patients", "missing_frames"),
    "missing_contours",
)
SERIES = Series(axes=rotation(2), slices=3)


def sound(value: Any) -> None:
    """Whatever is read has a finite, right-handed, perpendicular, plausible grid and finite values."""
    for one in value if isinstance(value, tuple) else (value,):
        axes = one.affine[:3, :3]
        assert np.isfinite(one.affine).all()
        assert np.linalg.det(axes) > 0
        unit = axes / np.linalg.norm(axes, axis=0)
        assert np.abs(unit.T @ unit - np.eye(3)).max() < 0.02
        assert 0.04 < one.spacing_mm.min() <= one.spacing_mm.max() < 70
        data = [s.frames for s in one.slices] if isinstance(one, CineStack) else [one.data]
        assert all(np.isfinite(part).all() and part.size for part in data)
        if isinstance(one, CineStack):
            assert all((np.diff(s.trigger_ms) > 0).all() and s.rr_ms > 0 for s in one.slices)
            assert all(s.phase[0] >= 0 and s.phase[-1] < 1 for s in one.slices)


def attempt(read: Callable[[Path], Any], path: Path) -> str | None:
    """The line of the error, or None if something sound was read; in good time."""
    start = time.process_time()  # of this process: the machine may be busy
    try:
        sound(read(path))
        line = None
    except InputError as error:
        line = error.line()
        assert "\n" not in line
        assert len(line) < 1000
    assert time.process_time() - start < 60
    return line


def dicom(path: Path) -> Any:
    return read_dicom(path, Notes(EVERYTHING))


def labels(path: Path) -> Any:
    return read_labels(path, NAMES if path.suffix in (".mha", ".mhd") else None, flip=True, notes=Notes(EVERYTHING))


def good_volume() -> LabelVolume:
    return replace(heart(6.0), affine=np.diag([6.0, 6.0, 6.0, 1.0]))


def _seg(path: Path) -> None:
    seg(path.parent, {"lv_blood": shells(False)["LV endo blood"], "LV myo": shells(False)["LV myo"]}).rename(path)


def _zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(3):
            archive.write(save(dataset(SERIES, k, instance=k + 1), path.parent / "slices" / f"{k}.dcm"), f"{k}.dcm")


def _structures(path: Path) -> None:
    depths = [0.0, 5.0, 10.0]
    walls = [c for z in depths for c in (circle(20.0, z), circle(12.0, z))]
    rtstruct(path, {"LV blood pool": [circle(12.0, z) for z in depths], "LV myo": walls})


FILES: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "image.nrrd": (lambda p: write_nrrd(p, good_volume()), read_image),
    "image.nii": (lambda p: write_nifti(p, good_volume()), read_image),
    "image.nii.gz": (lambda p: write_nifti(p, good_volume()), read_image),
    "image.mha": (lambda p: write_mha(p, good_volume()), read_image),
    "labels.mha": (lambda p: write_mha(p, good_volume()), labels),
    "slice.dcm": (lambda p: save(dataset(SERIES, 0), p), dicom),
    "rle.dcm": (lambda p: save(compressed(dataset(SERIES, 0), "rle"), p), dicom),
    "jpeg_ls.dcm": (lambda p: save(compressed(dataset(SERIES, 0), "jpeg ls"), p), dicom),
    "jpeg_2000.dcm": (lambda p: save(compressed(dataset(SERIES, 0), "jpeg 2000"), p), dicom),
    "study.zip": (_zipped, dicom),
    "enhanced.dcm": (lambda p: save(enhanced(replace(SERIES, times=(0.0, 0.5))), p), dicom),
    "seg.dcm": (_seg, labels),
    "own_seg.dcm": (lambda p: write_dicom_seg(p, good_volume()), labels),
    "rtstruct.dcm": (_structures, labels),
}


def rounds(name: str, folder: Path, count: int, seed: int) -> int:
    """Damage one kind of file `count` times; how often that was refused."""
    write, read = FILES[name]
    path = folder / name
    write(path)
    good = path.read_bytes()
    assert attempt(read, path) is None
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(count):
        path.write_bytes(damaged(good, rng))
        refused += attempt(read, path) is not None
    return refused


@pytest.mark.parametrize("name", FILES)
def test_random_damage(tmp_path: Path, name: str) -> None:
    count = 12 if name == "own_seg.dcm" else 50
    # flips of values in uncompressed data cannot be seen; most other damage must be
    assert rounds(name, tmp_path, count, 21) > count // 8


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_thousands_of_damaged_files_in_bounded_memory(tmp_path: Path, name: str) -> None:
    """3000 files of each kind (300 where one takes long) in a process of its own, whose peak memory is measured."""
    count = 300 if name == "own_seg.dcm" else 3000
    code = (
        "import resource, sys; from pathlib import Path; from test_image_fuzz import rounds\n"
        f"print(rounds({name!r}, Path({str(tmp_path)!r}), {count}, 22), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, peak_kb = map(int, done.stdout.split()[-2:])
    assert refused > count // 6
    assert peak_kb < 2_000_000


NUMBERS = ("nan", "inf", "-inf", "0", "-1", "1e300", "abc", "", "1e-3", "7 7")


def nrrd_texts() -> Iterator[tuple[str, str]]:
    """Pairs (what is replaced, by what) in the header of a good NRRD."""
    for bad in NUMBERS:
        yield "directions: (6.0,0.0,0.0)", f"directions: ({bad},0.0,0.0)"
        yield "origin: (0.0,0.0,0.0)", f"origin: ({bad},0.0,0.0)"
        yield "dimension: 3", f"dimension: {bad}"
        yield "sizes: 20 15 15", f"sizes: {bad} 15 15"
        yield "type: uint8", f"type: {bad}"
        yield "encoding: gzip", f"encoding: {bad}"
        yield "space: left-posterior-superior", f"space: {bad}"
    for sizes in ("20 15", "20 15 15 1", "999999999 15 15", "4000 4000 4000", "20 15 16", "20 15 14", "0 15 15", "1 1 1", "-20 15 15"):
        yield "sizes: 20 15 15", f"sizes: {sizes}"
    for first in ("0,0,0", "6,6,6", "0.006,0,0", "6000,0,0", "0,6,0", "3,0.5,0", "6.0,0.0", "6;0;0", "1e-320,0,0"):
        yield "directions: (6.0,0.0,0.0)", f"directions: ({first})"
    yield "directions: (6.0,0.0,0.0) (0.0,6.0,0.0)", "directions: none (0.0,6.0,0.0)"
    yield "type: uint8", "type: block"
    yield "type: uint8", "type: double"
    yield "encoding: gzip", "encoding: bzip2"
    yield "encoding: gzip", "encoding: raw"
    yield "encoding: gzip", "encoding: ascii"
    yield "NRRD0005", "NRRD0009"
    yield "NRRD0005", "NRRD0005\ndata file: x.raw"


def mha_texts() -> Iterator[tuple[str, str]]:
    """Pairs (what is replaced, by what) in the header of a good MetaImage."""
    for bad in NUMBERS:
        yield "ElementSpacing = 6.0", f"ElementSpacing = {bad}"
        yield "Offset = 0.0", f"Offset = {bad}"
        yield "TransformMatrix = 1.0", f"TransformMatrix = {bad}"
        yield "NDims = 3", f"NDims = {bad}"
        yield "DimSize = 20", f"DimSize = {bad}"
        yield "MET_UCHAR", bad
        yield "BinaryData = True", f"BinaryData = {bad}"
        yield "CompressedData = True", f"CompressedData = {bad}"
    for sizes in ("20 15", "20 15 15 1", "999999999 15 15", "4000 4000 4000", "20 15 16", "20 15 14", "0 15 15", "1 1 1", "-20 15 15"):
        yield "DimSize = 20 15 15", f"DimSize = {sizes}"
    for matrix in ("0.5 0 0", "2 0 0", "0 0 0", "1 1 1", "0 1 0", "0.5 0.1 0", "1000 0 0", "-1 0"):
        yield "TransformMatrix = 1.0 0.0 0.0", f"TransformMatrix = {matrix}"
    for scale in ("0.006 0.006 0.006", "6000 6000 6000", "6 6 70", "-6 6 6"):
        yield "ElementSpacing = 6.0 6.0 6.0", f"ElementSpacing = {scale}"
    for name in ("../../etc/passwd", "/etc/passwd", "LIST", "%d.raw", "", "missing.raw", ".hidden"):
        yield "ElementDataFile = LOCAL", f"ElementDataFile = {name}"
    for kind in ("MET_DOUBLE", "MET_FLOAT", "MET_SHORT", "MET_OTHER"):
        yield "MET_UCHAR", kind
    yield "ObjectType = Image", "ObjectType = Tube"
    yield "NDims = 3", "NDims = 3\nNDims = 3"
    yield "NDims = 3", "NDims = 3\nElementNumberOfChannels = 3"
    yield "NDims = 3", "NDims = 3\nHeaderSize = -1"


@pytest.mark.parametrize(("name", "texts"), [("a.nrrd", nrrd_texts), ("a.mha", mha_texts)])
def test_absurd_text_headers(tmp_path: Path, name: str, texts: Callable[[], Iterator[tuple[str, str]]]) -> None:
    (write_nrrd if name == "a.nrrd" else write_mha)(tmp_path / name, good_volume())
    good = (tmp_path / name).read_bytes()
    read_as = [read_image, labels]
    taken = []
    for old, new in texts():
        assert old.encode() in good, old
        (tmp_path / f"b_{name}").write_bytes(good.replace(old.encode(), new.encode(), 1))
        for read in read_as:
            if attempt(read, tmp_path / f"b_{name}") is None:
                taken.append(new)
    # these alone are harmless: another place, and an axis in reverse (stored right-handed again)
    harmless = {f"origin: ({v},0.0,0.0)" for v in ("0", "-1", "1e-3")} | {f"Offset = {v}" for v in ("0", "-1", "1e-3")}
    assert set(taken) <= harmless | {"directions: (-1,0.0,0.0)", "TransformMatrix = -1"}, taken


def test_absurd_nifti_headers(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", good_volume())
    good = (tmp_path / "a.nii").read_bytes()
    taken = []
    jobs: list[tuple[int, str, Any]] = []
    for value in (0, 1, -1, 2, 7, 8, 32767, -32768):
        jobs += [(40, "<h", value), *((42 + 2 * axis, "<h", value) for axis in range(4))]
    for value in (0, 3, 17, 128, 1792, 2048, 32767, 16, 64):
        jobs.append((70, "<h", value))
    for number in (float("nan"), float("inf"), -1.0, 0.0, 1e30, 1e-3, 6000.0):
        jobs += [(280 + 4 * place, "<f", number) for place in range(12)]
        jobs += [(108, "<f", number), (112, "<f", number), (116, "<f", number)]
    for value in (1, 3, 4, 7):
        jobs.append((123, "<B", value))
    jobs += [(0, "<i", 540), (0, "<i", 0), (344, "<4s", b"ni1\0"), (344, "<4s", b"n+2\0"), (254, "<h", 0)]
    assert len(jobs) > 140
    for offset, form, value in jobs:
        raw = bytearray(good)
        struct.pack_into(form, raw, offset, value)
        (tmp_path / "b.nii").write_bytes(raw)
        for read in (read_image, labels):
            if attempt(read, tmp_path / "b.nii") is None and raw != good:
                taken.append((offset, value))
    # taken: a translation, a rescale of an image, a reversed axis (stored right-handed again), a small shear, dim[0] of 4 to 7 with ones
    for offset, value in taken:
        translation = offset in (292, 308, 324)
        rescale = offset in (112, 116)
        tiny = 280 <= offset < 328 and abs(value) <= 1e-3
        reverse = offset in (280, 300, 320) and value == -1
        dims = (offset == 40 and value == 7) or offset == 48  # of a 3-D volume the fourth size says nothing
        assert translation or rescale or reverse or tiny or dims, (offset, value)


def dicom_jobs() -> Iterator[tuple[str, str, Any]]:
    """Keyword, value representation and an absurd value, for one slice of a series."""
    for keyword, count in (("PixelSpacing", 2), ("ImagePositionPatient", 3), ("ImageOrientationPatient", 6)):
        for bad in ("nan", "inf", "-inf", "1e300", "abc", "1e-3", "0", "-1", "99999"):
            yield keyword, "DS", "\\".join([bad] * count)
        yield keyword, "DS", "\\".join(["1"] * (count - 1))
        yield keyword, "DS", "\\".join(["1"] * (count + 1))
        yield keyword, "DS", ""
    for keyword in ("RescaleSlope", "RescaleIntercept", "SliceThickness", "TriggerTime", "EchoTime"):
        for bad in ("nan", "inf", "-inf", "1e300", "abc", "", "0", "-1", "1\\2"):
            yield keyword, "DS", bad
    for keyword in ("SeriesNumber", "InstanceNumber", "AcquisitionNumber", "NumberOfFrames", "NominalInterval", "HeartRate"):
        for bad in ("abc", "", "-1", "0", "2147483647", "1.5", "1\\2"):
            yield keyword, "IS", bad
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"):
        for number in (0, 1, 2, 3, 7, 13, 17, 33, 64, 4096, 65535):
            yield keyword, "US", number
    for keyword in ("PhotometricInterpretation", "Modality", "SeriesInstanceUID", "ImageType", "ScanningSequence"):
        for text in ("", "PALETTE COLOR", "nonsense", "A\\B\\C"):
            yield keyword, "CS", text


def test_absurd_dicom_headers(tmp_path: Path) -> None:
    import pydicom
    from pydicom.datadict import tag_for_keyword

    save(dataset(SERIES, 0, instance=1), tmp_path / "0.dcm")
    jobs = list(dicom_jobs())
    assert len(jobs) > 200
    refused = 0
    target = tmp_path / "1.dcm"
    good = dataset(SERIES, 1, instance=2)
    for keyword, vr, value in jobs:
        ds = copy.copy(good)
        raw = struct.pack("<H", value) if vr == "US" else value.encode() + b" " * (len(value) % 2)
        ds[keyword] = pydicom.DataElement(tag_for_keyword(keyword), "OB", raw)
        save(ds, target)
        # written as bytes, so that pydicom checks nothing; the VR is put right in the file
        data = bytearray(target.read_bytes())
        tag = struct.pack("<2H", tag_for_keyword(keyword) >> 16, tag_for_keyword(keyword) & 0xFFFF)
        place = data.index(tag + b"OB")
        data[place + 4 : place + 12] = vr.encode() + struct.pack("<H", len(raw))
        target.write_bytes(data)
        refused += attempt(dicom, tmp_path) is not None
    assert refused > len(jobs) // 2


def test_a_structure_set_with_absurd_contours(tmp_path: Path) -> None:
    depths = [0.0, 5.0, 10.0]
    good = [circle(12.0, z) for z in depths]
    wall = [c for z in depths for c in (circle(20.0, z), circle(12.0, z))]
    slanted = circle(12.0, 5.0) * [1, 1, 0] + circle(12.0, 5.0)[:, :1] * [0, 0, 0.4]
    cases = {
        "nan": [*good[:2], good[2] * np.nan],
        "huge": [*good[:2], good[2] * 1e6],
        "metres": [c / 1000 for c in good],
        "slanted": [*good, slanted],
        "uneven": [*good, circle(12.0, 12.2)],
        "line": [np.repeat(c[:1], 5, axis=0) for c in good],
        "two points": [c[:2] for c in good],
        "one plane": good[:1],
        "far": [*good, circle(12.0, 60000.0)],
    }
    for name, contours in cases.items():
        muscle = wall if name not in ("one plane", "metres", "line") else ([c / 1000 for c in wall] if name == "metres" else contours)
        path = rtstruct(tmp_path / "rs.dcm", {"LV blood pool": contours, "LV myo": muscle})
        assert attempt(labels, path) is not None, name
    assert isinstance(read_labels(rtstruct(tmp_path / "rs.dcm", {"LV blood pool": good, "LV myo": wall})), LabelVolume)


def test_a_huge_claim_takes_no_memory(tmp_path: Path) -> None:
    """Sizes of many gigabytes in small files are refused at once."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ds = dataset(SERIES, 0)
    ds.Rows, ds.Columns = 4096, 4096
    ds.NumberOfFrames = 19000
    assert attempt(dicom, save(ds, tmp_path / "a.dcm")) is not None
    raw = bytearray(save(dataset(SERIES, 0), tmp_path / "b.dcm").read_bytes())
    place = raw.index(b"\xe0\x7f\x10\x00OW")
    raw[place + 8 : place + 12] = b"\xf0\xff\xff\x7f"
    (tmp_path / "b.dcm").write_bytes(raw)
    assert attempt(dicom, tmp_path / "b.dcm") is not None
    big = bytearray(raw)
    place = big.index(b"\x08\x00\x60\x00CS")
    # an element before the pixels claims two gigabytes
    big[place + 4 : place + 8] = b"UN\0\0"
    big[place + 8 : place + 12] = b"\xf0\xff\xff\x7f"
    (tmp_path / "b.dcm").write_bytes(big)
    assert attempt(dicom, tmp_path / "b.dcm") is not None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_image_nouns_are_what_the_readers_say(tmp_path: Path) -> None:
    (image,) = dicom(save(dataset(SERIES, 0), tmp_path / "a.dcm"))
    assert isinstance(image, Image)
    assert image.data.shape == (16, 12, 1)
