"""Label volumes in NIfTI-1 (.nii, .nii.gz): the 348-byte header checked before any data are read.

Format: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h. Names of labels travel in a comment extension.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import dumps, write_bytes
from twin.errors import InputError
from twin.io.grid import check_affine, check_shape, right_handed, to_labels
from twin.io.source import GZIP_MAGIC, inflate, read_bytes
from twin.volume import LABELS, LabelVolume

HEADER_BYTES = 348
MAX_OFFSET = 10_000_000
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
COMMENT = 6


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
    return RAS_TO_LPS @ affine


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


def _shape(head: bytes, order: str, where: Path) -> tuple[int, int, int]:
    dims = struct.unpack_from(order + "8h", head, 40)
    if not 3 <= dims[0] <= 7 or any(n != 1 for n in dims[4 : dims[0] + 1]) or min(dims[1:4]) < 1:
        raise InputError(where, "dim", f"{list(dims)} is not one 3-D volume", "export one label map")
    check_shape(dims[1:4], where)
    return dims[1], dims[2], dims[3]


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


def read_nifti(path: Path, labels: Mapping[str, int] | None = None, flip: bool = False) -> LabelVolume:
    """Read a label volume; `labels` (vtwin name -> value in the file) wins over names in the file, `flip` as in `read_nrrd`.

    Raises InputError for anything that is not a complete, right-handed 3-D label map with a position in mm.
    """
    data = read_bytes(path)
    head, order = _header(data, path)
    shape = _shape(head, order, path)
    affine = header_affine(head, order, path)
    code, _ = struct.unpack_from(order + "2h", head, 70)
    if code not in TYPES:
        raise InputError(path, "datatype", f"code {code} is not a plain number type", "export labels as integers")
    dtype = np.dtype(order + TYPES[code])
    offset, slope, inter = struct.unpack_from(order + "3f", head, 108)
    if not (HEADER_BYTES <= offset <= MAX_OFFSET):
        raise InputError(path, "vox_offset", f"{offset:g} is outside {HEADER_BYTES} to {MAX_OFFSET}", "export it again")
    expected = int(offset) + int(np.prod(shape)) * dtype.itemsize
    raw = inflate(data, expected, path) if data.startswith(GZIP_MAGIC) else data
    if len(raw) != expected:
        problem = "truncated" if len(raw) < expected else "longer than its sizes"
        raise InputError(path, "data", f"{problem}: {len(raw)} of {expected} bytes", "export or copy it again")
    values: NDArray[Any] = np.frombuffer(raw, dtype, offset=int(offset)).reshape(shape, order="F")
    if slope not in (0.0, 1.0) or (slope == 1.0 and inter != 0.0):
        raise InputError(path, "scl_slope", f"values are scaled ({slope:g}, {inter:g}): an image, not labels", "give the segmentation")
    if flip:
        values, affine = right_handed(values, affine)
    check_affine(affine, shape, path, "sform")
    return to_labels(values, affine, path, _names(raw[HEADER_BYTES : int(offset)], order), labels)


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
