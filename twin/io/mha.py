"""Labels and images in MetaImage (.mha, or .mhd with its data beside it): header checked before any data are read.

Format: https://itk.org/Wiki/ITK/MetaIO/Documentation; as ITK writes it, positions are LPS mm and TransformMatrix lists the
direction of each index axis in turn.
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
from twin.volume import LabelVolume

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
MAX_HEADER = 100_000
MAX_LINES = 500


def is_mha(start: bytes) -> bool:
    """True if the first bytes look like a MetaImage header."""
    return re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", start) is not None


def split(data: bytes, where: Path) -> tuple[dict[str, str], bytes]:
    """Header fields and the bytes after it; the header ends with ElementDataFile. Raises InputError."""
    fields: dict[str, str] = {}
    place = 0
    for _ in range(MAX_LINES):
        end = data.find(b"\n", place, place + MAX_HEADER)
        line = data[place : end if end >= 0 else place + MAX_HEADER].decode("utf-8", "replace").strip()
        place = end + 1 if end >= 0 else len(data)
        key, sign, value = line.partition("=")
        if not sign:
            if line or place >= len(data):
                break
            continue
        if key.strip() in fields:
            raise InputError(where, "header", f"{key.strip()[:40]!r} appears twice", "export it again")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields, data[place:]
    raise InputError(where, "ElementDataFile", "is missing: the header is damaged or truncated", "export or copy it again")


def _numbers(fields: Mapping[str, str], names: tuple[str, ...], count: int, where: Path) -> list[float] | None:
    name = next((n for n in names if n in fields), None)
    if name is None:
        return None
    try:
        values = [float(word) for word in fields[name].split()]
    except ValueError:
        values = []
    if len(values) != count:
        raise InputError(where, name, f"{fields[name][:40]!r} is not {count} numbers", "export it again")
    return values


def header_shape(fields: Mapping[str, str], where: Path, least: int) -> tuple[int, int, int]:
    """Sizes (ni, nj, nk), checked."""
    sizes = fields.get("DimSize", "").split()
    if fields.get("NDims") != "3" or len(sizes) != 3 or not all(re.fullmatch(r"\d{1,9}", s) for s in sizes):
        raise InputError(where, "DimSize", f"{' '.join(sizes)[:40]!r} is not a 3-D size", "export one 3-D volume")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise InputError(where, "ElementNumberOfChannels", "is not 1", "export one number per voxel")
    shape = (int(sizes[0]), int(sizes[1]), int(sizes[2]))
    check_shape(shape, where, least)
    return shape


def header_affine(fields: Mapping[str, str], where: Path) -> NDArray[np.float64]:
    """Voxel index to LPS mm, (4, 4). Raises InputError where size or place is not said."""
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), 3, where)
    origin = _numbers(fields, ("Offset", "Position", "Origin"), 3, where)
    matrix = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), 9, where)
    for name, value in (("ElementSpacing", spacing), ("Offset", origin), ("TransformMatrix", matrix)):
        if value is None:
            raise InputError(where, name, "is missing: where the volume lies is not said", "export it with its position in the patient")
    directions = np.reshape(matrix or [], (3, 3)).T
    # (what is not finite is found by `check_affine`)
    if (np.abs(directions) > 2).any() or np.abs((np.clip(directions, -2, 2) ** 2).sum(axis=0) - 1).max() > 0.02:
        raise InputError(where, "TransformMatrix", "has directions that are not of length 1", "export it again")
    affine = np.eye(4)
    with np.errstate(invalid="ignore", over="ignore"):
        affine[:3, :3] = directions * np.array(spacing)
    affine[:3, 3] = origin or []
    if min(spacing or []) <= 0:
        raise InputError(where, "ElementSpacing", "is not positive", "export it again")
    return affine


def _payload(path: Path, fields: Mapping[str, str], rest: bytes) -> bytes:
    """The data: in the file itself, or in one file beside the header, named without folders."""
    name = fields["ElementDataFile"]
    if name == "LOCAL":
        return rest
    if not name or name == "LIST" or "%" in name or "/" in name or "\\" in name or name.startswith("."):
        raise InputError(path, "ElementDataFile", f"{name[:60]!r} is not a file beside the header", "save it as one .mha file")
    if rest.strip():
        raise InputError(path, "ElementDataFile", "more text follows it", "save it as one .mha file")
    return read_bytes(path.parent / name)


def _flag(fields: Mapping[str, str], names: tuple[str, ...], where: Path) -> bool:
    for name in names:
        if name in fields:
            if fields[name].lower() not in ("true", "false", "1", "0"):
                raise InputError(where, name, f"{fields[name][:20]!r} is neither True nor False", "export it again")
            return fields[name].lower() in ("true", "1")
    return False


def _read(path: Path, least: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    fields, rest = split(read_bytes(path), path)
    if fields.get("ObjectType", "Image") != "Image":
        raise InputError(path, "ObjectType", f"{fields['ObjectType'][:20]!r} is not Image", "give an image")
    shape, affine = header_shape(fields, path, least), header_affine(fields, path)
    kind = fields.get("ElementType", "")
    if kind not in TYPES:
        raise InputError(path, "ElementType", f"{kind[:30]!r} is not a number type", did_you_mean(kind, TYPES))
    if not _flag(fields, ("BinaryData",), path) and "BinaryData" in fields:
        raise InputError(path, "BinaryData", "numbers as text are not read", "save it in binary")
    if fields.get("HeaderSize", "0") != "0":
        raise InputError(path, "HeaderSize", "skipped bytes are not read", "save it as one .mha file")
    big = _flag(fields, ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"), path)
    dtype = np.dtype(TYPES[kind]).newbyteorder(">" if big else "<")
    expected = int(np.prod([*shape, dtype.itemsize], dtype=object))
    payload = _payload(path, fields, rest)
    raw = inflate(payload, expected, path, wbits=15) if _flag(fields, ("CompressedData",), path) else payload
    if len(raw) != expected:
        problem = "truncated" if len(raw) < expected else "longer than its sizes"
        raise InputError(path, "data", f"{problem}: {len(raw)} of {expected} bytes", "export or copy it again")
    return np.frombuffer(raw, dtype).reshape(shape, order="F"), affine


def read_mha(path: Path, labels: Mapping[str, int] | None = None, flip: bool = False) -> LabelVolume:
    """Read a label volume; MetaImage has no names, so `labels` (vtwin name -> value) must give them; `flip` as in `read_nrrd`.

    Raises InputError for anything that is not a complete, right-handed 3-D label map in mm.
    """
    data, affine = _read(path, least=2)
    if flip:
        data, affine = right_handed(data, affine)
    check_affine(affine, data.shape, path, "TransformMatrix")
    return to_labels(data, affine, path, {}, labels)


def read_mha_image(path: Path) -> Image:
    """Read intensities; index axes of either hand are taken, and stored right-handed with nothing moved. Raises InputError."""
    data, affine = _read(path, least=1)
    return to_image(data, affine, path, "TransformMatrix")


def write_mha(path: Path, volume: LabelVolume) -> None:
    """Write a label volume as compressed .mha with vtwin's numbers; the format keeps no names."""
    unit = volume.affine[:3, :3] / volume.spacing_mm

    def row(numbers: NDArray[np.float64]) -> str:
        return " ".join(repr(float(x) + 0.0) for x in numbers)

    body = zlib.compress(volume.data.tobytes(order="F"), 6)
    lines = [
        *("ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False", "CompressedData = True"),
        f"CompressedDataSize = {len(body)}",
        f"TransformMatrix = {row(unit.T.ravel())}",
        f"Offset = {row(volume.affine[:3, 3])}",
        f"ElementSpacing = {row(volume.spacing_mm)}",
        f"DimSize = {' '.join(map(str, volume.data.shape))}",
        "ElementType = MET_UCHAR",
        "ElementDataFile = LOCAL",
    ]
    write_bytes(path, ("\n".join(lines) + "\n").encode() + body)
