"""Label volumes in NIfTI-1 (.nii, .nii.gz): the 348-byte header checked before any data are read.

Format: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h. Names of labels travel in a comment extension.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import dumps, write_bytes
from twin.errors import InputError
from twin.image import CineSlice, CineStack, Image
from twin.io.grid import MAX_IMAGE_BYTES, check_affine, check_shape, right_handed, to_image, to_labels
from twin.io.source import GZIP_MAGIC, MAX_FILE_BYTES, inflate, read_bytes
from twin.volume import LABELS, LabelVolume

HEADER_BYTES = 348
MAX_OFFSET = 10_000_000
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
COMMENT = 6
UNSAID_RR_MS = 1000.0
"""Chosen here: length of the beat where the header's time step gives none; only shares of the beat are used."""


def _peek(data: bytes, count: int) -> bytes:
    """First bytes of a file, inflated if it is gzip; fewer if it is damaged."""
    if not data.startswith(GZIP_MAGIC):
        return data[:count]
    try:
        return zlib.decompressobj(wbits=31).decompress(data, count)
    except zlib.error:
        return b""


def is_nifti(start: bytes) -> bool:
    """True if the first bytes (some hundred are enough) look like NIfTI, plain or gzip."""
    head = _peek(start, 4)
    return start.startswith(GZIP_MAGIC) or head in (struct.pack("<i", HEADER_BYTES), struct.pack(">i", HEADER_BYTES))


def _quaternion(b: float, c: float, d: float, where: Path) -> NDArray[np.float64]:
    square = 1.0 - (b * b + c * c + d * d)
    if not square > -1e-5:
        raise InputError(where, "qform", "is not a rotation", "export the volume again with its position in the patient")
    a = max(square, 0.0) ** 0.5
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )


def header_affine(head: bytes, order: str, where: Path) -> NDArray[np.float64]:
    """Voxel index to LPS mm, (4, 4): sform if it is set, else qform."""
    qform, sform = struct.unpack_from(order + "2h", head, 252)
    affine = np.eye(4)
    if sform > 0:
        affine[:3] = np.array(struct.unpack_from(order + "12f", head, 280)).reshape(3, 4)
    elif qform > 0:
        b, c, d, x, y, z = struct.unpack_from(order + "6f", head, 256)
        sign, *size = struct.unpack_from(order + "4f", head, 76)
        with np.errstate(invalid="ignore", over="ignore"):
            affine[:3, :3] = _quaternion(b, c, d, where) * (np.array(size) * [1.0, 1.0, -1.0 if sign < 0 else 1.0])
        affine[:3, 3] = x, y, z
    else:
        raise InputError(where, "sform", "neither sform nor qform says where the volume lies", "export it with its position in the patient")
    with np.errstate(invalid="ignore"):  # what is not finite is found by `check_affine`
        return np.asarray(RAS_TO_LPS @ affine)


def _header(data: bytes, where: Path) -> tuple[bytes, str]:
    """The header's bytes and byte order, after the checks that need no data."""
    head = _peek(data, HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        raise InputError(where, "header", f"truncated: {len(head)} of {HEADER_BYTES} bytes", "export or copy it again")
    order = {b"\x5c\x01\0\0": "<", b"\0\0\x01\x5c": ">"}.get(head[:4], "")
    if not order or head[344:348] != b"n+1\0":
        kind = "a two-file NIfTI" if head[344:348] == b"ni1\0" else "not NIfTI-1"
        raise InputError(where, "magic", f"{head[344:348]!r} is {kind}", "save as one .nii or .nii.gz file (NIfTI-1)")
    units = head[123] & 7
    if units not in (0, 2):
        name = {1: "metres", 3: "micrometres"}.get(units, f"code {units}")
        raise InputError(where, "xyzt_units", f"the geometry is in {name}", "write the geometry in mm")
    return head, order


def _shape(head: bytes, order: str, where: Path, image: bool) -> tuple[int, int, int, int]:
    """Sizes (ni, nj, nk, nt), checked; labels have one time, images may have more (cine)."""
    dims = struct.unpack_from(order + "8h", head, 40)
    times = dims[4] if dims[0] >= 4 else 1
    if (
        not 3 <= dims[0] <= 7
        or any(n != 1 for n in dims[5 : dims[0] + 1])
        or min(dims[1:4]) < 1
        or not 1 <= times <= (1000 if image else 1)
    ):
        raise InputError(where, "dim", f"{list(dims)} is not one 3-D volume", "export one image" if image else "export one label map")
    check_shape(dims[1:4], where, least=1 if image else 2)
    return dims[1], dims[2], dims[3], times


def _names(extensions: bytes, order: str) -> dict[int, str]:
    """Label names from vtwin's comment extension; other programs' extensions are passed over."""
    place = 4
    while place + 8 <= len(extensions) and extensions[:1] != b"\0":
        size, code = struct.unpack_from(order + "2i", extensions, place)
        if size < 16 or place + size > len(extensions):
            break
        text = extensions[place + 8 : place + size].rstrip(b"\0")
        if code == COMMENT and text.startswith(b'{"vtwin_labels":'):
            try:
                return {int(value): str(name) for name, value in json.loads(text)["vtwin_labels"].items()}
            except (ValueError, TypeError, AttributeError, RecursionError):
                return {}
        place += size
    return {}


@dataclass(frozen=True)
class _Stored:
    """A file's numbers (ni, nj, nk, nt) with the rescale it asks for, axes in LPS mm, header, extensions and byte order."""

    values: NDArray[Any]
    slope: float
    inter: float
    affine: NDArray[np.float64]
    head: bytes
    extensions: bytes
    order: str


def _read(path: Path, image: bool) -> _Stored:
    data = read_bytes(path)
    head, order = _header(data, path)
    shape = _shape(head, order, path, image)
    affine = header_affine(head, order, path)
    code, _ = struct.unpack_from(order + "2h", head, 70)
    if code not in TYPES:
        raise InputError(path, "datatype", f"code {code} is not a plain number type", "export plain numbers (labels as integers)")
    dtype = np.dtype(order + TYPES[code])
    offset, slope, inter = struct.unpack_from(order + "3f", head, 108)
    if not (HEADER_BYTES <= offset <= MAX_OFFSET):
        raise InputError(path, "vox_offset", f"{offset:g} is outside {HEADER_BYTES} to {MAX_OFFSET}", "export it again")
    total = int(np.prod([*map(int, shape), dtype.itemsize], dtype=object))
    if total > MAX_FILE_BYTES:
        raise InputError(path, "dim", f"{total / 1e6:.0f} MB, the limit is {MAX_FILE_BYTES / 1e6:.0f}", "crop it")
    expected = int(offset) + total
    raw = inflate(data, expected, path) if data.startswith(GZIP_MAGIC) else data
    if len(raw) != expected:
        problem = "truncated" if len(raw) < expected else "longer than its sizes"
        raise InputError(path, "data", f"{problem}: {len(raw)} of {expected} bytes", "export or copy it again")
    values: NDArray[Any] = np.frombuffer(raw, dtype, offset=int(offset)).reshape(shape, order="F")
    return _Stored(values, slope, inter, affine, head, raw[HEADER_BYTES : int(offset)], order)


def read_nifti(path: Path, labels: Mapping[str, int] | None = None, flip: bool = False) -> LabelVolume:
    """Read a label volume; `labels` (vtwin name -> value in the file) wins over names in the file, `flip` as in `read_nrrd`.

    Raises InputError for anything that is not a complete, right-handed 3-D label map with a position in mm.
    """
    file = _read(path, image=False)
    if file.slope not in (0.0, 1.0) or (file.slope == 1.0 and file.inter != 0.0):
        problem = f"values are scaled ({file.slope:g}, {file.inter:g}): an image, not labels"
        raise InputError(path, "scl_slope", problem, "give the segmentation")
    values, affine = file.values[..., 0], file.affine
    if flip:
        values, affine = right_handed(values, affine)
    check_affine(affine, values.shape, path, "sform")
    return to_labels(values, affine, path, _names(file.extensions, file.order), labels)


def read_nifti_image(path: Path) -> Image | CineStack:
    """Read intensities, rescaled as the header says; index axes of either hand are taken, and stored right-handed with nothing moved.

    A fourth dimension is time over one beat: frames are evenly spread, at the header's time step if it gives one. Raises InputError.
    """
    file = _read(path, image=True)
    values, scaled = file.values, file.slope not in (0.0, 1.0) or (file.slope == 1.0 and file.inter != 0.0)
    if values.size * 4 > MAX_IMAGE_BYTES:
        raise InputError(path, "dim", f"{values.size / 1e6:.0f} million voxels", "crop it to the heart")
    if not np.isfinite([file.slope, file.inter]).all():
        raise InputError(path, "scl_slope", "is not finite", "export it again")
    if scaled:
        values = np.multiply(values, file.slope, dtype=np.float32) + np.float32(file.inter)
    volumes = [to_image(values[..., t], file.affine, path, "sform") for t in range(values.shape[3])]
    if len(volumes) == 1:
        return volumes[0]
    return _cine(volumes, struct.unpack_from(file.order + "f", file.head, 92)[0], file.head[123] & 0x38, path)


def _cine(volumes: list[Image], step: float, unit: int, where: Path) -> CineStack:
    step_ms = step * {8: 1000.0, 16: 1.0, 24: 0.001}.get(unit, 0.0)
    rr_ms = step_ms * len(volumes)
    if not 250.0 <= rr_ms <= 3000.0:
        rr_ms = UNSAID_RR_MS
    times: NDArray[np.float64] = np.linspace(0.0, rr_ms, len(volumes), endpoint=False)
    data = np.stack([volume.data for volume in volumes], axis=-1)
    slices = tuple(CineSlice(data[:, :, k], times, rr_ms) for k in range(data.shape[2]))
    return CineStack(slices, volumes[0].affine, source=where.name)


def write_nifti(path: Path, volume: LabelVolume) -> None:
    """Write a label volume, gzip if the name ends in .gz; sform in RAS (single precision, as the format has it); names in an extension."""
    names = {name: value for name, value in LABELS.items() if value and (volume.data == value).any()}
    text = b'{"vtwin_labels":' + dumps(names).encode().replace(b"\n", b"") + b"}"
    size = (len(text) + 8 + 15) // 16 * 16
    extension = b"\1\0\0\0" + struct.pack("<2i", size, COMMENT) + text.ljust(size - 8, b"\0")
    head = bytearray(HEADER_BYTES)
    struct.pack_into("<i", head, 0, HEADER_BYTES)
    struct.pack_into("<8h", head, 40, 3, *volume.data.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 2, 8)
    struct.pack_into("<4f", head, 76, 1.0, *volume.spacing_mm)
    struct.pack_into("<3f", head, 108, HEADER_BYTES + len(extension), 1.0, 0.0)
    head[123] = 2
    struct.pack_into("<2h", head, 252, 0, 2)
    struct.pack_into("<12f", head, 280, *(RAS_TO_LPS @ volume.affine)[:3].ravel())
    head[344:348] = b"n+1\0"
    body = bytes(head) + extension + volume.data.tobytes(order="F")
    if path.name.endswith(".gz"):
        packer = zlib.compressobj(6, wbits=31)
        body = packer.compress(body) + packer.flush()
    write_bytes(path, body)
