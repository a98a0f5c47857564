"""Stored DICOM pixels to numbers: uncompressed frames read one by one, compressed ones through pydicom's decoders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.dicom_files import AGAIN, DicomFile, guarded, header
from twin.io.dicom_frames import Frame, Storage

JPEG_FRAME = re.compile(rb"\xff(?:[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]|\xf7)..[\x02-\x10](....)", re.DOTALL)
J2K_SIZE = re.compile(rb"\xff\x4f\xff\x51....(........)(........)", re.DOTALL)


def _native(handle: BinaryIO, storage: Storage, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Frames (rows, columns) of an uncompressed file whose element header has just been checked."""
    start = handle.tell()
    dtype = np.dtype(f"{'>' if storage.big_endian else '<'}u{storage.bits_allocated // 8}")
    for index in indices:
        handle.seek(start + index * storage.frame_bytes)
        raw = handle.read(storage.frame_bytes)
        if storage.big_endian and storage.words and storage.bits_allocated == 8:
            # two 8-bit pixels share a 16-bit word, and big endian swaps them
            raw = np.frombuffer(raw[: len(raw) // 2 * 2], "<u2").byteswap().tobytes() + raw[len(raw) // 2 * 2 :]
        yield np.frombuffer(raw, dtype).reshape(storage.rows, storage.columns)


def _check_encoded(encoded: bytes, storage: Storage, where: str) -> None:
    """Raise InputError if a compressed frame is not of the size that the header says, before a decoder allocates for it."""
    head = encoded[:100_000]
    if match := J2K_SIZE.search(head):
        right, bottom = int.from_bytes(match[1][:4], "big"), int.from_bytes(match[1][4:], "big")
        left, top = int.from_bytes(match[2][:4], "big"), int.from_bytes(match[2][4:], "big")
        size = (bottom - top, right - left)
    elif match := JPEG_FRAME.search(head):
        size = (int.from_bytes(match[1][:2], "big"), int.from_bytes(match[1][2:], "big"))
    else:
        return
    if size != (storage.rows, storage.columns):
        raise InputError(where, "PixelData", f"compressed as {size[0]} x {size[1]}, not {storage.rows} x {storage.columns}", AGAIN)


def _compressed(handle: BinaryIO, storage: Storage, indices: Sequence[int], where: str) -> Iterator[NDArray[Any]]:
    import pydicom
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder, iter_pixels

    try:
        usable = get_decoder(storage.syntax).is_available
    except NotImplementedError:
        usable = False
    if not usable:
        name = pydicom.uid.UID(storage.syntax).name
        name = "this compression" if name == storage.syntax else name
        raise InputError(
            where, "TransferSyntaxUID", f"{name} is not decoded here", "export it uncompressed or as JPEG 2000 (gdcmconv --raw)"
        )
    handle.seek(0)
    keep = ("PixelData", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit")
    ds = pydicom.dcmread(handle, specific_tags=[*keep, "PixelRepresentation", "NumberOfFrames", "ExtendedOffsetTable"])
    for encoded in generate_frames(ds.PixelData, number_of_frames=storage.frames):
        _check_encoded(encoded, storage, where)
    for array in iter_pixels(ds, raw=True, indices=list(indices)):
        if array.shape != (storage.rows, storage.columns):
            raise InputError(where, "PixelData", f"decodes to {array.shape}", AGAIN)
        yield array


def raw_frames(handle: BinaryIO, storage: Storage, indices: Sequence[int], where: str) -> Iterator[NDArray[Any]]:
    """Frames (rows, columns) as they are stored; `handle` stands behind the pixel element's header. Raises InputError."""
    return _compressed(handle, storage, indices, where) if storage.length is None else _native(handle, storage, indices)


def _stored(raw: NDArray[Any], storage: Storage) -> NDArray[np.int64]:
    """Stored values: only the bits that belong to the picture (others once held overlays), with their sign."""
    values = raw.astype(np.int64) & ((1 << storage.bits_allocated) - 1)
    values = (values >> (storage.high_bit + 1 - storage.bits_stored)) & ((1 << storage.bits_stored) - 1)
    if storage.signed:
        half = 1 << (storage.bits_stored - 1)
        values = (values ^ half) - half
    return values


def value_type(frames: Sequence[Frame]) -> np.dtype[Any]:
    """Smallest type that holds every value of the frames: integers where the rescale keeps them whole, else float32."""
    low = high = 0.0
    for frame in frames:
        if frame.slope != round(frame.slope) or frame.intercept != round(frame.intercept):
            return np.dtype(np.float32)
        ends = [bound * frame.slope + frame.intercept for bound in frame.storage.bounds]
        low, high = min(low, *ends), max(high, *ends)
    for name in ("int16", "uint16", "int32"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return np.dtype(name)
    return np.dtype(np.float32)


def pixels(file: DicomFile, frames: Sequence[Frame]) -> Iterator[NDArray[np.float64]]:
    """Rescaled values (rows, columns) of frames of one file, in the order given (rising index). Raises InputError.

    MONOCHROME1 is turned round so that bright means much (not for CT, whose values are Hounsfield units either way);
    pixels that the file calls padding take the smallest value of the others.
    """
    storage = frames[0].storage
    indices = [frame.index for frame in frames]
    with guarded(file.where, "PixelData"), header(file, ()) as (_, handle):
        if storage.length is not None:
            handle.seek(12 if storage.explicit else 8, 1)
        arrays = raw_frames(handle, storage, indices, file.where)
        for frame, raw in zip(frames, arrays, strict=True):
            values = _stored(raw, storage)
            padded = values == frame.padding if frame.padding is not None else None
            if frame.inverted:
                values = sum(storage.bounds) - values
            out = np.asarray(values * frame.slope + frame.intercept, np.float64)
            if padded is not None and padded.any() and not padded.all():
                out[padded] = out[~padded].min()
            yield out
