"""DICOM segmentation objects (SEG) as labels: geometry from the frames' own functional groups, segments by their names.

Standard: DICOM PS3.3, A.51 and C.8.20. BINARY, FRACTIONAL (at least half counts as inside) and LABELMAP are read; frames that
are left out because they are empty are empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.dicom_files import AGAIN, DicomFile, guarded, header
from twin.io.dicom_frames import Storage, directions, functional_groups, number, numbers, pixel_spacing, storage_of, tags
from twin.io.dicom_pixels import raw_frames
from twin.io.grid import check_shape
from twin.io.segments import check_room, combine, names_of
from twin.volume import LabelVolume

KEYWORDS = (
    *("Modality", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "NumberOfFrames", "SegmentationType", "MaximumFractionalValue", "SegmentSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
PLANE_MM = 0.05


def _segments(ds: Any, where: str) -> dict[int, str]:
    """Segment number -> label text."""
    out: dict[int, str] = {}
    for item in ds.get("SegmentSequence") or []:
        value = number(item, "SegmentNumber")
        if value is None or int(value) in out:
            raise InputError(where, "SegmentNumber", "is missing or appears twice", AGAIN)
        out[int(value)] = str(item.get("SegmentLabel", ""))
    if not out:
        raise InputError(where, "SegmentSequence", "names no segment", AGAIN)
    return out


def _geometry(ds: Any, storage: Storage, where: str) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Voxel index to LPS mm (4, 4), the slice of each frame (n,), and the number of slices."""
    groups = [functional_groups(ds, index) for index in range(storage.frames)]
    if any("PlanePositionSequence" not in g or "PlaneOrientationSequence" not in g or "PixelMeasuresSequence" not in g for g in groups):
        raise InputError(where, "PlanePositionSequence", "some frames have no place in the patient", AGAIN)
    frames = [directions(g["PlaneOrientationSequence"], where) for g in groups]
    (row, column), spacing = frames[0], pixel_spacing(groups[0]["PixelMeasuresSequence"], where)
    if any(max(np.abs(r - row).max(), np.abs(c - column).max()) > 1e-3 for r, c in frames):
        raise InputError(where, "PlaneOrientationSequence", "frames have several orientations", "export one stack")
    places = np.array([numbers(g["PlanePositionSequence"], "ImagePositionPatient", 3, where) for g in groups])
    normal = np.cross(row, column)
    depths = places @ normal
    steps = np.diff(np.unique(np.round(depths, 3)))
    steps = steps[steps > PLANE_MM]
    said = number(groups[0]["PixelMeasuresSequence"], "SpacingBetweenSlices") or number(
        groups[0]["PixelMeasuresSequence"], "SliceThickness"
    )
    step = float(steps.min()) if len(steps) else float(said or 1.0)
    index = (depths - depths.min()) / step
    first = places[np.argmin(depths)]
    aside = np.abs((places - first) - np.outer(depths - depths.min(), normal)).max()
    if np.abs(index - np.rint(index)).max() > 0.05 or aside > 0.1 * min(spacing):
        raise InputError(where, "ImagePositionPatient", "frames do not lie on one grid", "resample the segmentation to one grid")
    affine = np.eye(4)
    slices = int(np.rint(index).max()) + 1
    exact = float((depths.max() - depths.min()) / (slices - 1)) if slices > 1 else step
    affine[:3, :3] = np.stack([row * spacing[1], column * spacing[0], normal * exact], axis=1)
    affine[:3, 3] = first
    return affine, np.rint(index).astype(np.int64), slices


def _frames(ds: Any, handle: BinaryIO, storage: Storage, where: str) -> Iterator[NDArray[Any]]:
    """Stored values (rows, columns) of each frame; bits of BINARY objects run on from frame to frame."""
    if storage.bits_allocated > 1:
        yield from raw_frames(handle, storage, range(storage.frames), where)
        return
    if storage.length is None:
        raise InputError(where, "TransferSyntaxUID", "compressed single bits are not decoded here", "export it uncompressed")
    start, bits = handle.tell(), storage.rows * storage.columns
    for index in range(storage.frames):
        low, high = index * bits, (index + 1) * bits
        handle.seek(start + low // 8)
        raw = np.frombuffer(handle.read((high + 7) // 8 - low // 8), np.uint8)
        yield np.unpackbits(raw, bitorder="little")[low % 8 : low % 8 + bits].reshape(storage.rows, storage.columns)


def read_dicom_seg(path: Path, labels: Mapping[str, int] | None = None) -> LabelVolume:
    """Read a SEG object; `labels` (vtwin name -> segment number) wins over the segments' names, overlaps as in `twin.io.segments`.

    Raises InputError for what is damaged, lies on no single grid, or has segments that are not known.
    """
    where = str(path)
    with guarded(where), header(DicomFile(path), tags(KEYWORDS)) as (ds, handle):
        storage = storage_of(ds, handle, where)
        kind = str(ds.get("SegmentationType", ""))
        if storage is None or kind not in ("BINARY", "FRACTIONAL", "LABELMAP") or (kind == "BINARY") is not (storage.bits_allocated == 1):
            raise InputError(where, "SegmentationType", f"{kind[:20]!r} with {storage and storage.bits_allocated} bits", AGAIN)
        if len(ds.get("PerFrameFunctionalGroupsSequence") or []) != storage.frames:
            raise InputError(where, "NumberOfFrames", "differs from the number of functional groups", AGAIN)
        affine, place, slices = _geometry(ds, storage, where)
        in_file = _segments(ds, where)
        if kind == "LABELMAP":
            in_file.pop(0, None)
        names = names_of(in_file, labels, path, "SegmentLabel")
        shape = (storage.columns, storage.rows, slices)
        check_shape(shape, path)
        wanted = {n: name for n, name in names.items() if name not in ("background", "ignore")}
        check_room(len(set(wanted.values())), shape, path)
        masks = {name: np.zeros(shape, bool) for name in wanted.values()}
        limit = number(ds, "MaximumFractionalValue") or 255.0
        for index, values in enumerate(_frames(ds, handle, storage, where)):
            k = int(place[index])
            if kind == "LABELMAP":
                _paint(masks, wanted, values.T, k, path)
                continue
            segment = number(functional_groups(ds, index).get("SegmentIdentificationSequence", {}), "ReferencedSegmentNumber")
            if segment is None or int(segment) not in names:
                raise InputError(where, "ReferencedSegmentNumber", "a frame is of no segment", AGAIN)
            if int(segment) in wanted:
                inside = values.T > 0 if kind == "BINARY" else limit <= values.T * 2.0
                masks[wanted[int(segment)]][:, :, k] |= inside
    return combine(masks, affine, path)


def _paint(masks: dict[str, NDArray[np.bool_]], wanted: Mapping[int, str], values: NDArray[Any], k: int, where: Path) -> None:
    """A frame of segment numbers into the masks."""
    unknown = set(np.unique(values).tolist()) - set(wanted) - {0}
    if unknown - set(range(65536)):
        raise InputError(where, "PixelData", "holds numbers that are no segment", AGAIN)
    for segment, name in wanted.items():
        masks[name][:, :, k] |= values == segment
