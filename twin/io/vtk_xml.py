"""VTK's XML files, read and written without VTK, whose readers can end the interpreter on a damaged file: what .vtp and .vtu share.

Format: https://docs.vtk.org/en/latest/vtk_file_formats/vtkxml_file_format.html
"""

from __future__ import annotations

import base64
import binascii
import re
import xml.etree.ElementTree as ElementTree
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.source import DEFLATE_LIMIT, read_bytes

MAX_BYTES = 1_000_000_000
MAX_VALUES = 300_000_000
MAX_TEXT = 1_000_000
BLOCK_BYTES = 1 << 20
TYPES = {f"{kind}{bits}": f"{kind[0].lower()}{bits // 8}" for kind in ("Int", "UInt", "Float") for bits in (8, 16, 32, 64)}
NAMES = {np.dtype(code): name for name, code in TYPES.items() if code != "f1" and code != "f2"}


@dataclass(frozen=True)
class Source:
    """What is needed to decode a DataArray: byte order, type of lengths, compressed or not, and the appended data."""

    where: Path
    order: str
    length: np.dtype
    zlib: bool
    appended: bytes
    appended_is_raw: bool

    def fail(self, field: str, problem: str) -> InputError:
        """An InputError about this file."""
        return InputError(self.where, field, problem, "export or copy it again")


def open_xml(path: Path, kind: str = "PolyData", suffix: str = ".vtp") -> tuple[ElementTree.Element, Source]:
    """The root element of a file of one kind ("PolyData", "UnstructuredGrid") and how its arrays are stored. Raises InputError."""
    data = read_bytes(path, MAX_BYTES)
    raw = re.search(rb'<AppendedData\s+encoding\s*=\s*"(raw|base64)"\s*>\s*_', data)
    appended = b""
    if raw is not None:
        stop = data.rfind(b"</AppendedData>")
        if stop < raw.end():
            raise InputError(path, "AppendedData", "has no end: truncated", "export or copy it again")
        appended = data[raw.end() : stop]
        data = data[: raw.end() - 1] + data[stop:]
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise InputError(path, "file", "holds XML entities", "export it as plain VTK XML")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(path, "file", f"is not XML ({error})", f"export it as VTK XML {kind} ({suffix})") from None
    if root.tag != "VTKFile" or root.get("type") != kind:
        raise InputError(path, "VTKFile", f"type {root.get('type')!r} is not {kind}", f"export it as VTK XML {kind} ({suffix})")
    compressor = root.get("compressor", "")
    if compressor not in ("", "vtkZLibDataCompressor"):
        raise InputError(path, "compressor", f"{compressor[:40]!r} is not read", "write it with zlib or without compression")
    order = ">" if root.get("byte_order") == "BigEndian" else "<"
    length = np.dtype(order + {"UInt32": "u4", "UInt64": "u8"}.get(root.get("header_type", "UInt32"), "u4"))
    return root, Source(path, order, length, bool(compressor), appended, raw is not None and raw[1] == b"raw")


def _unbase64(text: bytes, source: Source, field: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise source.fail(field, "damaged base64") from None


def _block(stream: bytes, is_raw: bool, expected: int, source: Source, field: str) -> bytes:
    """The `expected` bytes of one array from a stream that starts at its length header."""
    item = source.length.itemsize

    def header(count: int) -> tuple[NDArray[Any], int]:
        """The first `count` numbers, and the place in the stream after them (base64 pads the header on its own)."""
        size = count * item
        width = size if is_raw else (size + 2) // 3 * 4
        part = stream[:width] if is_raw else _unbase64(stream[:width], source, field)
        if len(part) < size:
            raise source.fail(field, "truncated")
        return np.frombuffer(part[:size], source.length).astype(np.int64), width

    def body(start: int, size: int) -> bytes:
        part = stream[start : start + size] if is_raw else _unbase64(stream[start : start + (size + 2) // 3 * 4], source, field)[:size]
        if len(part) != size:
            raise source.fail(field, "truncated")
        return part

    if not source.zlib:
        # without compression, length and values are encoded in one piece
        whole = body(0, item + expected)
        if int(np.frombuffer(whole[:item], source.length)[0]) != expected:
            raise source.fail(field, "length does not fit the counts")
        return whole[item:]
    blocks = int(header(1)[0][0])
    if blocks == 0 and expected == 0:
        return b""
    if not 0 < blocks <= max(1, len(stream) // item):
        raise source.fail(field, "absurd number of compressed blocks")
    sizes, start = header(3 + blocks)
    block, last, packed = int(sizes[1]), int(sizes[2]), sizes[3:]
    total = (blocks - 1) * block + (last or block) if block > 0 else -1
    if total != expected or packed.min() < 0 or int(packed.sum()) * DEFLATE_LIMIT < expected or int(packed.sum()) > len(stream):
        raise source.fail(field, "compressed lengths do not fit the counts")
    data, out, place = body(start, int(packed.sum())), bytearray(), 0
    for n, size in enumerate(packed.tolist()):
        want = (last or block) if n == blocks - 1 else block
        stream_n = zlib.decompressobj()
        try:
            piece = stream_n.decompress(data[place : place + size], want + 1)
        except zlib.error as error:
            raise source.fail(field, f"compressed data are damaged ({error})") from None
        if len(piece) != want or not stream_n.eof:
            raise source.fail(field, "compressed data are damaged")
        out += piece
        place += size
    return bytes(out)


def array(node: ElementTree.Element, rows: int, source: Source, columns: int | None = None) -> NDArray[Any]:
    """Values of a DataArray, (rows,) or (rows, columns)."""
    field = (node.get("Name") or "DataArray")[:40]
    kind = TYPES.get(node.get("type", ""))
    components = node.get("NumberOfComponents", "1")
    if kind is None or kind in ("f1", "f2") or not re.fullmatch(r"\d{1,3}", components) or int(components) < 1:
        raise source.fail(field, f"type {node.get('type')!r} with {components[:9]} components is not read")
    width = int(components)
    if (columns is not None and columns != width) or rows * width > MAX_VALUES:
        raise source.fail(field, f"{rows} x {width} values are not what is needed")
    dtype = np.dtype(source.order + kind)
    encoding, text = node.get("format"), (node.text or "").strip()
    if encoding == "ascii":
        try:
            values = np.array([float(word) for word in text.split()]).astype(dtype)
        except (ValueError, OverflowError):
            raise source.fail(field, "text in place of a number") from None
        if len(values) != rows * width:
            raise source.fail(field, f"{len(values)} values, {rows * width} are expected")
    elif encoding == "binary":
        values = np.frombuffer(
            _block("".join(text.split()).encode("ascii", "replace"), False, rows * width * dtype.itemsize, source, field), dtype
        )
    elif encoding == "appended" and re.fullmatch(r"\d{1,12}", node.get("offset", "")):
        stream = source.appended[int(node.get("offset", "0")) :]
        stream = stream if source.appended_is_raw else stream.rstrip()
        values = np.frombuffer(_block(stream, source.appended_is_raw, rows * width * dtype.itemsize, source, field), dtype)
    else:
        raise source.fail(field, f"format {encoding!r} is not read")
    values = values.astype(dtype.newbyteorder("="))
    return values.reshape(rows, width) if width > 1 else values


def count(piece: ElementTree.Element, name: str, source: Source) -> int:
    text = piece.get(name, "0").strip()
    if not re.fullmatch(r"\d{1,9}", text):
        raise source.fail(name, f"{text[:20]!r} is not a count")
    return int(text)


def data_arrays(piece: ElementTree.Element, name: str, rows: int, source: Source) -> dict[str, NDArray[Any]]:
    """Numeric arrays of PointData or CellData."""
    nodes = piece.findall(f"{name}/DataArray")
    return {str(node.get("Name")): array(node, rows, source) for node in nodes if node.get("type") in TYPES and node.get("Name")}


def element(name: str, values: NDArray[Any]) -> str:
    """One DataArray element with inline base64."""
    values = np.ascontiguousarray(values)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
    text = base64.b64encode(len(raw).to_bytes(8, "little") + raw).decode()
    # a single component is not named: meshio would make a column of it
    width = f' NumberOfComponents="{values.shape[1]}"' if values.ndim > 1 else ""
    kind = NAMES[values.dtype.newbyteorder("=")]
    return f'<DataArray type="{kind}" Name="{name}"{width} format="binary">{text}</DataArray>'


def packed_element(name: str, values: NDArray[Any]) -> str:
    """One DataArray element, zlib in blocks of a megabyte, inline base64: for files whose root says vtkZLibDataCompressor and UInt64."""
    values = np.ascontiguousarray(values)
    raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
    pieces = [zlib.compress(raw[i : i + BLOCK_BYTES], 3) for i in range(0, len(raw), BLOCK_BYTES)]
    numbers = [len(pieces), BLOCK_BYTES, len(raw) % BLOCK_BYTES, *map(len, pieces)] if pieces else [0, BLOCK_BYTES, 0]
    text = base64.b64encode(np.array(numbers, "<u8").tobytes()).decode() + base64.b64encode(b"".join(pieces)).decode()
    # a single component is not named: meshio would make a column of it
    width = f' NumberOfComponents="{values.shape[1]}"' if values.ndim > 1 else ""
    kind = NAMES[values.dtype.newbyteorder("=")]
    return f'<DataArray type="{kind}" Name="{name}"{width} format="binary">{text}</DataArray>'


def strings(node: ElementTree.Element, source: Source) -> list[str]:
    """Texts of a String array, short ones only. Raises InputError."""
    field, encoding, text = (node.get("Name") or "Array")[:40], node.get("format"), (node.text or "").strip()
    if encoding == "ascii":
        words = text.split()
        if len(words) > MAX_TEXT or not all(word.isdigit() and int(word) < 256 for word in words):
            raise source.fail(field, "is not text")
        data = bytes(int(word) for word in words)
    elif encoding == "binary":
        stream = "".join(text.split()).encode("ascii", "replace")
        data = _block(stream, False, _stored(stream, False, source, field), source, field)
    elif encoding == "appended" and re.fullmatch(r"\d{1,12}", node.get("offset", "")):
        stream = source.appended[int(node.get("offset", "0")) :]
        stream = stream if source.appended_is_raw else stream.rstrip()
        data = _block(stream, source.appended_is_raw, _stored(stream, source.appended_is_raw, source, field), source, field)
    else:
        raise source.fail(field, f"format {encoding!r} is not read")
    return [part.decode("utf-8", "replace") for part in data.split(b"\0")[:-1]]


def _stored(stream: bytes, is_raw: bool, source: Source, field: str) -> int:
    """Bytes that an array's own header announces, at most MAX_TEXT."""
    item = source.length.itemsize
    size = item * (3 if source.zlib else 1)
    part = stream[:size] if is_raw else _unbase64(stream[: (size + 2) // 3 * 4], source, field)[:size]
    if len(part) < size:
        raise source.fail(field, "truncated")
    numbers = np.frombuffer(part, source.length).astype(np.int64).tolist()
    total = numbers[0]
    if source.zlib:
        blocks, block, last = numbers
        total = (blocks - 1) * block + (last or block) if blocks else 0
    if not 0 <= total <= MAX_TEXT:
        raise source.fail(field, f"{total} bytes of text are not believed")
    return int(total)
