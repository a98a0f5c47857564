"""DICOM headers to frames: one frame is one picture with its plane in the patient, its time in the beat and its storage.

Classic single-frame MR and CT, and enhanced multi-frame objects (functional groups), become the same thing here.
Standard: DICOM PS3.3, C.7.6.2 (image plane), C.7.6.16 (multi-frame functional groups), C.7.6.3 (image pixel).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.dicom_files import AGAIN, DicomFile, header, need_pydicom
from twin.io.grid import MAX_AXIS

MAX_FRAMES = 20_000
KEYWORDS = (
    *("SOPClassUID", "Modality", "PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SOPInstanceUID"),
    *(
        "FrameOfReferenceUID",
        "InstanceNumber",
        "AcquisitionNumber",
        "ImageType",
        "EchoTime",
        "InversionTime",
        "SequenceName",
        "ScanningSequence",
    ),
    *(
        "AnatomicalOrientationType",
        "BurnedInAnnotation",
        "Rows",
        "Columns",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "BitsAllocated",
        "BitsStored",
    ),
    *("HighBit", "PixelRepresentation", "NumberOfFrames", "PixelSpacing", "SliceThickness", "ImagePositionPatient"),
    *("ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "TriggerTime", "NominalInterval", "HeartRate"),
    *("TemporalPositionIdentifier", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
"""All that is ever read of an image; the patient's name and number are only compared, as a hash that changes with every run."""

KINDS = ("M", "P", "R", "I", "PHASE", "PHASE MAP", "PSIR", "MAGNITUDE", "T1 MAP", "T2 MAP", "ECV", "LOCALIZER")
"""Values of ImageType that tell pictures of one plane apart (magnitude, phase, maps)."""


@dataclass(frozen=True)
class Storage:
    """How the numbers of a file are stored; `length` None = compressed."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    frames: int
    syntax: str
    explicit: bool
    big_endian: bool
    words: bool
    length: int | None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest stored number."""
        half = 1 << (self.bits_stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


@dataclass(frozen=True)
class Frame:
    """One picture: where (LPS mm), when (ms after the R wave), and what its stored numbers mean.

    position, along_row, along_column (3,): centre of the first pixel and the directions of growing column and row index;
    pixel_mm: (between rows, between columns).
    """

    file: DicomFile
    index: int
    storage: Storage
    uid: str
    series: str
    number: int
    kind: tuple[Any, ...]
    modality: str
    patient: int
    reference: str
    position: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    pixel_mm: tuple[float, float]
    thickness_mm: float | None
    slope: float
    intercept: float
    inverted: bool
    padding: float | None
    trigger_ms: float | None
    rr_ms: float | None
    temporal: int | None
    inversion_ms: float | None
    burned_in: bool
    order: tuple[int, int]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the plane, right-handed with the pixel axes."""
        return np.cross(self.along_row, self.along_column)


def tags(keywords: tuple[str, ...]) -> list[int]:
    """Tag numbers of DICOM keywords."""
    need_pydicom()
    from pydicom.datadict import tag_for_keyword

    return [tag for tag in map(tag_for_keyword, keywords) if tag is not None]


def number(item: Any, keyword: str) -> float | None:
    """First number of an element, None if it is absent or empty."""
    value = item.get(keyword)
    if value is None or value == "" or (hasattr(value, "__len__") and not len(value)):
        return None
    return float(value[0] if isinstance(value, list) or type(value).__name__ == "MultiValue" else value)


def numbers(item: Any, keyword: str, count: int, where: str) -> NDArray[np.float64]:
    """The `count` finite numbers of an element, (count,). Raises InputError."""
    value = item.get(keyword)
    if value is None or not hasattr(value, "__len__") or len(value) != count:
        raise InputError(where, keyword, "is missing or incomplete", "export it with its position in the patient")
    out = np.array([float(v) for v in value])
    if not np.isfinite(out).all() or np.abs(out).max() > 1e5:
        raise InputError(where, keyword, "is not finite or out of any scanner", "export it with its position in the patient")
    return out


def directions(item: Any, where: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two directions of ImageOrientationPatient, unit length, exactly perpendicular. Raises InputError if they are neither."""
    both = numbers(item, "ImageOrientationPatient", 6, where).reshape(2, 3)
    lengths = np.linalg.norm(both, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(both[0] @ both[1]) > 0.01:
        raise InputError(where, "ImageOrientationPatient", "is not two perpendicular unit vectors", AGAIN)
    row = both[0] / lengths[0]
    column = both[1] - row * (both[1] @ row)
    return row, column / np.linalg.norm(column)


def pixel_spacing(item: Any, where: str) -> tuple[float, float]:
    """Distance of rows and of columns, mm. Raises InputError for what no scanner makes."""
    rows, columns = numbers(item, "PixelSpacing", 2, where)
    if not (0.05 <= rows <= 20.0 and 0.05 <= columns <= 20.0):
        raise InputError(where, "PixelSpacing", f"{rows:.3g} x {columns:.3g} mm is outside 0.05 to 20 mm", "export it in mm")
    return float(rows), float(columns)


def storage_of(ds: Any, handle: BinaryIO, where: str) -> Storage | None:
    """How the pixels are stored, checked against the bytes that are there; None if the file holds no picture."""
    syntax = ds.file_meta.TransferSyntaxUID
    explicit, big = not syntax.is_implicit_VR, not syntax.is_little_endian
    start = handle.read(12)
    order = "big" if big else "little"
    pixel_tag = b"\x7f\xe0\x00\x10" if big else b"\xe0\x7f\x10\x00"
    if start[:4] != pixel_tag or number(ds, "Rows") is None:
        return None
    length = int.from_bytes(start[8:12] if explicit else start[4:8], order)  # type: ignore[arg-type]
    need = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    values = [number(ds, keyword) for keyword in need]
    if any(value is None or value != int(value) for value in values):
        raise InputError(where, "image", "size or bits are not said", AGAIN)
    rows, columns, allocated, stored, signed = (int(value) for value in values if value is not None)
    frames, high = int(number(ds, "NumberOfFrames") or 1), int(number(ds, "HighBit") or stored - 1)
    if not (1 <= rows <= MAX_AXIS and 1 <= columns <= MAX_AXIS and 1 <= frames <= MAX_FRAMES):
        raise InputError(where, "Rows", f"{rows} x {columns} pixels, {frames} frames: out of range", AGAIN)
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated or signed not in (0, 1):
        raise InputError(where, "BitsAllocated", f"{stored} of {allocated} bits, high bit {high}: no such picture", AGAIN)
    words = explicit and start[4:6] == b"OW"
    known = None if syntax.is_encapsulated else length
    out = Storage(rows, columns, allocated, stored, high, bool(signed), frames, str(syntax), explicit, big, words, known)
    if known is not None:
        handle.seek(-4 if not explicit else 0, 1)
        _check_length(out, known, handle, where)
    return out


def _check_length(storage: Storage, length: int, handle: BinaryIO, where: str) -> None:
    start = handle.tell()
    there = handle.seek(0, 2) or handle.tell()
    handle.seek(start)
    expected = (storage.rows * storage.columns * storage.bits_allocated * storage.frames + 7) // 8
    if length not in (expected, expected + 1):
        raise InputError(where, "PixelData", f"has {length} bytes, its sizes say {expected}", AGAIN)
    if there - start < expected:
        raise InputError(where, "PixelData", f"truncated: {there - start} of {expected} bytes", AGAIN)


def functional_groups(ds: Any, index: int) -> dict[str, Any]:
    """First item of each functional group of a frame: the frame's own, else the shared one."""
    out: dict[str, Any] = {}
    for holder in (
        (ds.get("SharedFunctionalGroupsSequence") or [])[:1],
        (ds.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1],
    ):
        for item in holder:
            for element in item:
                if element.VR == "SQ" and element.keyword and len(element.value):
                    out[element.keyword] = element.value[0]
    return out


def _kind(ds: Any) -> tuple[Any, ...]:
    """What tells kinds of pictures apart: image type, echo time and sequence, as far as breath-holds of one protocol agree in them."""
    types = [str(v).upper() for v in (ds.get("ImageType") or [])] if not isinstance(ds.get("ImageType"), str) else []
    # lines per heart beat, the number at the end (*tfi2d1_10), and the last digit of the echo time follow the heart rate
    sequence = re.sub(r"_\d+$", "", str(ds.get("SequenceName", "")))
    echo = number(ds, "EchoTime")
    return tuple(v for v in types if v in KINDS), None if echo is None else round(echo, 1), sequence, str(ds.get("ScanningSequence", ""))


def _rr(interval: float | None, rate: float | None) -> float | None:
    """R-R interval in ms from what the file says, None if neither is plausible."""
    for value in (interval, 60000.0 / rate if rate and rate > 0 else None):
        if value is not None and 250.0 <= value <= 3000.0:
            return value
    return None


def _finite(value: float | None, default: float | None, keyword: str, where: str) -> Any:
    if value is None:
        return default
    if not np.isfinite(value) or abs(value) > 1e9 or (keyword == "RescaleSlope" and value == 0):
        raise InputError(where, keyword, "is zero, not finite or out of range", AGAIN)
    return value


def _padding(ds: Any, storage: Storage) -> float | None:
    """Stored value that means "nothing there"; without explicit types a negative one may have been read as a large one."""
    value = number(ds, "PixelPaddingValue")
    if value is not None and storage.signed and value > storage.bounds[1]:
        value -= 1 << 16
    return value


def _frame(file: DicomFile, ds: Any, index: int, storage: Storage, enhanced: bool) -> Frame:
    where = file.where
    groups = functional_groups(ds, index) if enhanced else {}
    measures, plane = groups.get("PixelMeasuresSequence", ds), groups.get("PlanePositionSequence", ds)
    values, content = groups.get("PixelValueTransformationSequence", ds), groups.get("FrameContentSequence", ds)
    cardiac = groups.get("CardiacSynchronizationSequence", ds)
    row, column = directions(groups.get("PlaneOrientationSequence", ds), where)
    thickness = number(measures, "SliceThickness")
    trigger = number(cardiac, "NominalCardiacTriggerDelayTime") if enhanced else number(ds, "TriggerTime")
    temporal = number(content, "TemporalPositionIndex") if enhanced else number(ds, "TemporalPositionIdentifier")
    rr = _rr(number(cardiac, "RRIntervalTimeNominal" if enhanced else "NominalInterval"), number(ds, "HeartRate"))
    echo = number(groups.get("MREchoSequence", {}), "EffectiveEchoTime")
    return Frame(
        file=file,
        index=index,
        storage=storage,
        uid=str(ds.get("SOPInstanceUID", "")),
        series=str(ds.get("SeriesInstanceUID", "")),
        number=int(number(ds, "SeriesNumber") or 0),
        kind=(*_kind(ds), *_kind(groups.get("MRImageFrameTypeSequence", {}))[:1], echo),
        modality=str(ds.get("Modality", "")),
        patient=hash((str(ds.get("PatientID", "")), str(ds.get("PatientName", "")))),
        reference=str(ds.get("FrameOfReferenceUID", "")),
        position=numbers(plane, "ImagePositionPatient", 3, where),
        along_row=row,
        along_column=column,
        pixel_mm=pixel_spacing(measures, where),
        thickness_mm=thickness if thickness is not None and 0 < thickness <= 100 else None,
        slope=_finite(number(values, "RescaleSlope"), 1.0, "RescaleSlope", where),
        intercept=_finite(number(values, "RescaleIntercept"), 0.0, "RescaleIntercept", where),
        inverted=str(ds.get("PhotometricInterpretation", "")) == "MONOCHROME1" and str(ds.get("Modality", "")) != "CT",
        padding=_padding(ds, storage),
        trigger_ms=_finite(trigger, None, "TriggerTime", where),
        rr_ms=rr,
        temporal=None if temporal is None else int(temporal),
        inversion_ms=number(ds, "InversionTime"),
        burned_in=str(ds.get("BurnedInAnnotation", "")) == "YES",
        order=(int(number(ds, "AcquisitionNumber") or 0), int(number(ds, "InstanceNumber") or 0) + index),
    )


def frames_of(file: DicomFile) -> Iterator[Frame]:
    """The frames of one file; none for what is no grey-value picture with a place in the patient. Raises InputError."""
    where = file.where
    with header(file, tags(KEYWORDS)) as (ds, handle):
        if str(ds.get("Modality", "")) in ("SEG", "RTSTRUCT", "PR", "SR", "KO", "RTDOSE", "RTPLAN"):
            return
        storage = storage_of(ds, handle, where)
        photometric = str(ds.get("PhotometricInterpretation", ""))
        if (
            storage is None
            or storage.bits_allocated == 1
            or int(number(ds, "SamplesPerPixel") or 1) != 1
            or photometric not in ("MONOCHROME1", "MONOCHROME2")
        ):
            return
        if str(ds.get("AnatomicalOrientationType", "")) == "QUADRUPED":
            raise InputError(
                where, "AnatomicalOrientationType", "is QUADRUPED: left and front mean something else", "give a human's images"
            )
        enhanced = "PerFrameFunctionalGroupsSequence" in ds
        if enhanced and len(ds.PerFrameFunctionalGroupsSequence) != storage.frames:
            raise InputError(where, "NumberOfFrames", "differs from the number of functional groups", AGAIN)
        if storage.frames > 1 and not enhanced:
            raise InputError(where, "NumberOfFrames", f"{storage.frames} frames without positions", "export it as one file per slice")
        yield from [_frame(file, ds, index, storage, enhanced) for index in range(storage.frames)]
