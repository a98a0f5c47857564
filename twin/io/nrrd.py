"""Label volumes in NRRD (teem's format, 3D Slicer's .seg.nrrd): header checked before any data are read.

Format: https://teem.sourceforge.net/nrrd/format.html; segment names: 3D Slicer's documentation of .seg.nrrd.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes
from twin.errors import InputError
from twin.image import Image
from twin.io.grid import check_affine, check_shape, right_handed, to_image, to_labels
from twin.io.source import did_you_mean, inflate, read_bytes
from twin.volume import LABELS, LabelVolume

MAX_HEADER = 1_000_000
MAX_LINE = 100_000
SAID_BYTES = 20_000
"""So far into a file `said_in` looks for the end of its header."""

_TYPES = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float",
    "f8": "double",
}
TYPES = {alias: code for code, names in _TYPES.items() for alias in names.split(",")}

SPACES = {
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "lps": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}
"""Signs that take each anatomical space to LPS."""


def said_in(path: Path) -> dict[str, str]:
    """Key/value pairs in the header of a file; none for another kind of file. Raises InputError for a header that is damaged."""
    with open(path, "rb") as handle:
        start = handle.read(SAID_BYTES)
    return split(start, path)[1] if start.startswith(b"NRRD") and b"\n\n" in start else {}


def split(data: bytes, where: Path) -> tuple[dict[str, str], dict[str, str], bytes]:
    """Split a file into fields (`key: value`), key/value pairs (`key:=value`) and the data after the blank line."""
    if not re.match(rb"NRRD000[1-5]\r?\n", data[:10]):
        raise InputError(where, "magic", f"{data[:8]!r} is not NRRD0001 to NRRD0005", "give an NRRD file (3D Slicer: Save as .seg.nrrd)")
    end = re.search(rb"\r?\n\r?\n", data[:MAX_HEADER])
    if end is None:
        raise InputError(
            where, "header", "has no end (blank line): truncated, or a detached header", "save header and data in one .nrrd file"
        )
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for number, raw in enumerate(data[: end.start()].splitlines()[1:], start=2):
        line = raw[:MAX_LINE].decode("utf-8", "replace")
        if line.startswith("#") or not line:
            continue
        match = re.match(r"([^:]+):(=| )\s*(.*)", line)
        if match is None:
            raise InputError(where, f"header line {number}", f"{line[:40]!r} is neither `field: value` nor `key:=value`", "export it again")
        key, kind, value = match.groups()
        target = pairs if kind == "=" else fields
        key = key if kind == "=" else key.strip().lower()
        if key in target:
            raise InputError(where, f"header line {number}", f"{key[:40]!r} appears twice", "export it again")
        target[key] = value.strip()
    return fields, pairs, data[end.end() :]


def _field(fields: Mapping[str, str], name: str, where: Path) -> str:
    if name not in fields:
        raise InputError(where, name, "is missing from the header", f"export it again ({did_you_mean(name, fields)})")
    return fields[name]


def _vector(text: str, where: Path, field: str) -> list[float]:
    parts = text.strip().removeprefix("(").removesuffix(")").split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise InputError(where, field, f"{text[:60]!r} is not a vector (x,y,z)", "export it again") from None
    if len(numbers) != 3:
        raise InputError(where, field, f"{text[:60]!r} has {len(numbers)} numbers, 3 are needed", "export it again")
    return numbers


def header_affine(fields: Mapping[str, str], where: Path) -> NDArray[np.float64]:
    """Voxel index to LPS mm, (4, 4), from `space`, `space directions` and `space origin`."""
    space = _field(fields, "space", where).lower()
    if space not in SPACES:
        raise InputError(where, "space", f"{space[:40]!r} does not say where left is", "export in left-posterior-superior (LPS)")
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    if any(unit not in ("mm", "") for unit in units):
        raise InputError(where, "space units", f"{units} are not mm", "export the geometry in mm")
    directions = re.findall(r"none|\([^)]*\)", _field(fields, "space directions", where))
    if len(directions) != 3 or "none" in directions:
        raise InputError(
            where, "space directions", f"{len(directions)} axes, some without direction", "export one 3-D label map (no layers)"
        )
    affine = np.eye(4)
    for axis, text in enumerate(directions):
        affine[:3, axis] = _vector(text, where, "space directions")
    affine[:3, 3] = _vector(_field(fields, "space origin", where), where, "space origin")
    signs = np.array([*SPACES[space], 1.0])
    return signs[:, None] * affine


def segment_names(pairs: Mapping[str, str], where: Path) -> dict[int, str]:
    """Label value -> name from 3D Slicer's `Segment<N>_Name` and `Segment<N>_LabelValue`."""
    names: dict[int, str] = {}
    for key, text in pairs.items():
        match = re.fullmatch(r"Segment(\d{1,6})_Name", key)
        if match is None:
            continue
        value = pairs.get(f"Segment{match[1]}_LabelValue", str(int(match[1]) + 1))
        if not re.fullmatch(r"\d{1,9}", value):
            raise InputError(where, f"Segment{match[1]}_LabelValue", f"{value[:20]!r} is not a label number", "export it again")
        if names.get(int(value), text) != text:
            raise InputError(
                where, f"Segment{match[1]}_LabelValue", f"two segments have the value {value}", "export a label map without overlap"
            )
        names[int(value)] = text
    return names


def header_shape(fields: Mapping[str, str], where: Path, least: int = 2) -> tuple[int, int, int]:
    """Sizes (ni, nj, nk), checked."""
    dimension, sizes = _field(fields, "dimension", where), _field(fields, "sizes", where).split()
    if dimension != "3" or len(sizes) != 3 or not all(re.fullmatch(r"\d{1,9}", s) for s in sizes):
        raise InputError(
            where,
            "sizes",
            f"{' '.join(sizes)[:40]!r} in {dimension[:9]} dimensions",
            "export one 3-D label map (Slicer: no overlapping segments)",
        )
    shape = (int(sizes[0]), int(sizes[1]), int(sizes[2]))
    check_shape(shape, where, least)
    return shape


def _ascii(payload: bytes, dtype: np.dtype, count: int, where: Path) -> NDArray[Any]:
    words = payload.split(None, count)
    if len(words) != count:
        amount = "truncated" if len(words) < count else "too long"
        raise InputError(where, "data", f"{amount}: {count} numbers are expected", "export it again")
    try:
        return np.array(words, dtype="S24").astype(np.float64).astype(dtype)
    except ValueError:
        raise InputError(where, "data", "text that is not numbers", "export it again") from None


def decode(fields: Mapping[str, str], payload: bytes, shape: tuple[int, int, int], where: Path) -> NDArray[Any]:
    """Values (ni, nj, nk) from the bytes after the header, whose length must fit the sizes."""
    kind = _field(fields, "type", where).lower()
    if kind not in TYPES:
        raise InputError(where, "type", f"{kind[:30]!r} is not a number type", did_you_mean(kind, TYPES))
    dtype = np.dtype(TYPES[kind])
    count = int(np.prod(shape))
    expected = count * dtype.itemsize
    encoding = _field(fields, "encoding", where).lower()
    if encoding in ("ascii", "text", "txt"):
        values = _ascii(payload, dtype, count, where)
    elif encoding in ("gzip", "gz", "raw"):
        if dtype.itemsize > 1:
            endian = _field(fields, "endian", where).lower()
            if endian not in ("little", "big"):
                raise InputError(where, "endian", f"{endian[:20]!r}", "write little or big")
            dtype = dtype.newbyteorder("<" if endian == "little" else ">")
        raw = payload if encoding == "raw" else inflate(payload, expected, where)
        if len(raw) != expected:
            problem = "truncated" if len(raw) < expected else "longer than its sizes"
            raise InputError(where, "data", f"{problem}: {len(raw)} of {expected} bytes", "export or copy it again")
        values = np.frombuffer(raw, dtype)
    else:
        raise InputError(where, "encoding", f"{encoding[:20]!r} is not read", "save with encoding gzip or raw")
    return values.reshape(shape, order="F")


def _whole(path: Path) -> tuple[dict[str, str], dict[str, str], bytes]:
    """What `split` gives, for a file that holds its own data from the first byte after the header."""
    fields, pairs, payload = split(read_bytes(path), path)
    if {"data file", "datafile"} & set(fields):
        raise InputError(path, "data file", "header and data are in two files", "save them as one .nrrd file")
    if {"byte skip", "byteskip", "line skip", "lineskip"} & set(fields):
        raise InputError(path, "byte skip", "skipped bytes are not read", "export it again as a plain .nrrd file")
    return fields, pairs, payload


def read_nrrd(path: Path, labels: Mapping[str, int] | None = None, flip: bool = False) -> LabelVolume:
    """Read a label volume; `labels` (vtwin name -> value in the file) wins over the names in the file.

    `flip` (for `vtwin convert` alone) takes a left-handed grid and reverses its first index axis, moving nothing.
    Raises InputError for anything that is not a complete, right-handed 3-D label map in a known space in mm.
    """
    fields, pairs, payload = _whole(path)
    shape = header_shape(fields, path)
    affine = header_affine(fields, path)
    data: NDArray[Any] | None = None
    if flip:
        data, affine = right_handed(decode(fields, payload, shape, path), affine)
    check_affine(affine, shape, path, "space directions")
    names = segment_names(pairs, path)
    return to_labels(decode(fields, payload, shape, path) if data is None else data, affine, path, names, labels)


def read_nrrd_image(path: Path) -> Image:
    """Read intensities; index axes of either hand are taken, and stored right-handed with nothing moved. Raises InputError."""
    fields, _, payload = _whole(path)
    shape = header_shape(fields, path, least=1)
    affine = header_affine(fields, path)
    return to_image(decode(fields, payload, shape, path), affine, path, "space directions")


def write_nrrd(path: Path, volume: LabelVolume, said: Mapping[str, str] | None = None) -> None:
    """Write a label volume as gzip NRRD in LPS with Slicer segment names and key/value pairs `said`; equal volumes give equal bytes."""

    def vector(numbers: NDArray[np.float64]) -> str:
        return "(" + ",".join(repr(float(x) + 0.0) for x in numbers) + ")"

    present = [(name, value) for name, value in LABELS.items() if value and (volume.data == value).any()]
    lines = [
        "NRRD0005",
        "type: uint8",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, volume.data.shape)),
        "space directions: " + " ".join(vector(volume.affine[:3, axis]) for axis in range(3)),
        "kinds: domain domain domain",
        "encoding: gzip",
        "space origin: " + vector(volume.affine[:3, 3]),
    ]
    for n, (name, value) in enumerate(present):
        lines += [f"Segment{n}_ID:={name}", f"Segment{n}_LabelValue:={value}", f"Segment{n}_Layer:=0", f"Segment{n}_Name:={name}"]
    lines += [f"{key}:={value}" for key, value in (said or {}).items()]
    packer = zlib.compressobj(6, wbits=31)  # zlib's own gzip header carries no time and no file name
    body = packer.compress(volume.data.tobytes(order="F")) + packer.flush()
    write_bytes(path, ("\n".join(lines) + "\n\n").encode() + body)
