"""IGB grids (x, y, z, t): a header of text, usually 1024 bytes of `key:value`, then numbers with x fastest and time slowest.

Keys and types as in openCARP's manual (output file formats) and E. Vigmond's "IGB Image Format" (2000). A true value is
`stored * facteur + zero`. For an unstructured mesh x holds the nodes and y = z = 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes
from twin.errors import InputError
from twin.io.opencarp.text import AGAIN
from twin.io.source import file_size

HEADER_BYTES = 1024
MAX_HEADER = 64 * HEADER_BYTES
TYPES = {
    "byte": ("u1", 1),
    "char": ("i1", 1),
    "short": ("i2", 1),
    "int": ("i4", 1),
    "uint": ("u4", 1),
    "float": ("f4", 1),
    "double": ("f8", 1),
    "complex": ("c8", 1),
    "double_complex": ("c16", 1),
    "rgba": ("u1", 4),
    "vec3f": ("f4", 3),
    "vec4f": ("f4", 4),
    "vec3d": ("f8", 3),
    "vec4d": ("f8", 4),
}
"""IGB type -> numpy type and components. `long` has 4 bytes or 8, by who wrote it: the file's size says which."""

ORDERS = {"little_endian": "<", "big_endian": ">"}
_WHOLE = ("x", "y", "z", "t")
_REAL = (*(f"{name}_{axis}" for name in ("org", "inc", "dim", "fac") for axis in "xyzt"), "facteur", "zero")
_TEXT = ("type", "systeme", "unites", "aut_name", "transparent", *(f"unites_{axis}" for axis in "xyzt"))
MAX_SAMPLES = 10**12


@dataclass(frozen=True)
class Igb:
    """A grid in time. data: (t, z, y, x) or (t, z, y, x, components), as stored (a read-only memory map after reading).

    header: the optional keys (inc_t, unites, facteur ...) as numbers or text; comments: lines after '#'.
    """

    data: NDArray[Any]
    header: Mapping[str, float | str] = field(default_factory=dict)
    comments: tuple[str, ...] = ()

    def values(self, index: int) -> NDArray[Any]:
        """True values of one time slice, (z, y, x) or (z, y, x, components), float64 where they are scaled."""
        factor, zero = (float(self.header.get(name, default)) for name, default in (("facteur", 1.0), ("zero", 0.0)))
        frame = np.array(self.data[index])
        return frame if (factor, zero) == (1.0, 0.0) else frame * factor + zero

    @property
    def times(self) -> NDArray[np.float64]:
        """Time of each slice, (t,), in `unites_t` (openCARP: ms)."""
        start, step = (float(self.header.get(name, default)) for name, default in (("org_t", 0.0), ("inc_t", 1.0)))
        return np.asarray(start + step * np.arange(len(self.data)), np.float64)


def read_igb(path: Path) -> Igb:
    """Map an IGB file; nothing but the header is read. Raises InputError for a bad header or a size that does not fit it."""
    size = file_size(path, 10**13)
    with open(path, "rb") as handle:
        head = handle.read(MAX_HEADER)
    length = _header_bytes(head, path)
    fields, comments = _fields(head[:length], path)
    shape, dtype, components = _layout(fields, size - length, path)
    samples = int(np.prod([int(n) for n in shape], dtype=object)) * components
    expected = samples * dtype.itemsize
    found = size - length
    # openCARP ends a file with a form feed
    if found not in (expected, expected + 1):
        frames = found // max(1, expected // shape[0])
        problem = f"{found} bytes where {shape[0]} time slices need {expected}"
        hint = f"the run was cut off after {frames} slices: set t:{frames} in the header (igbhead)" if found < expected else AGAIN
        raise InputError(path, "data", problem, hint)
    data = np.memmap(path, dtype, "r", length, (*shape, components) if components > 1 else shape)
    rest = {key: value for key, value in fields.items() if key not in (*_WHOLE, "type", "systeme")}
    return Igb(data, rest, comments)


def _header_bytes(head: bytes, path: Path) -> int:
    """The header is the first multiple of 1024 bytes that ends in padding (a form feed, spaces or new lines)."""
    for length in range(HEADER_BYTES, min(len(head), MAX_HEADER) + 1, HEADER_BYTES):
        part = head[:length]
        if re.search(rb"(^|\s)type:", part) and part[-1:] in b"\x0c\n \r\0":
            return length
    raise InputError(path, "header", "has no type: within multiples of 1024 bytes", "give an .igb file (openCARP's output)")


def _fields(head: bytes, path: Path) -> tuple[dict[str, float | str], tuple[str, ...]]:
    try:
        text = head.rstrip(b"\0").decode("latin-1").replace("\x0c", "\n")
    except UnicodeDecodeError:  # pragma: no cover - latin-1 takes every byte
        raise InputError(path, "header", "is not text", AGAIN) from None
    fields: dict[str, float | str] = {}
    comments = []
    for line in text.splitlines():
        if line.startswith("#"):
            comments.append(line[1:].strip())
            continue
        for word in line.split():
            key, colon, value = word.partition(":")
            if not colon or not value:
                raise InputError(path, "header", f"{word[:40]!r} is not key:value", AGAIN)
            if key in fields:
                raise InputError(path, "header", f"{key} is given twice", AGAIN)
            fields[key] = _value(key, value, path)
    return fields, tuple(comments)


def _value(key: str, value: str, path: Path) -> float | str:
    if key in _WHOLE:
        if not value.isdigit() or len(value) > 12 or int(value) < 1:
            raise InputError(path, f"header {key}", f"{value[:20]!r} is not a number of samples", AGAIN)
        return int(value)
    if key in _REAL:
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if not np.isfinite(number):
            raise InputError(path, f"header {key}", f"{value[:20]!r} is not a finite number", AGAIN)
        return number
    return value


def _layout(fields: Mapping[str, float | str], found: int, path: Path) -> tuple[tuple[int, int, int, int], np.dtype[Any], int]:
    x, y, z, t = (int(fields.get(name, 1)) for name in _WHOLE)
    if "x" not in fields:
        raise InputError(path, "header x", "is missing", AGAIN)
    if x * y * z * t > MAX_SAMPLES:
        raise InputError(path, "header", f"{x} x {y} x {z} x {t} samples are out of range", AGAIN)
    order = ORDERS.get(str(fields.get("systeme", "little_endian")))
    if order is None:
        raise InputError(path, "header systeme", f"{fields['systeme']!r} is neither little_endian nor big_endian", AGAIN)
    kind = str(fields["type"])
    if kind == "long":
        return (t, z, y, x), np.dtype(order + ("i8" if found >= 8 * x * y * z * t else "i4")), 1
    if kind not in TYPES:
        raise InputError(path, "header type", f"{kind!r} is unknown", f"known: {', '.join((*TYPES, 'long'))}")
    code, components = TYPES[kind]
    return (t, z, y, x), np.dtype(order + code), components


def write_igb(path: Path, igb: Igb, big_endian: bool = False) -> None:
    """Write a grid; its type follows from the array's dtype and last axis. Raises InputError for a dtype or key that IGB has not."""
    data = igb.data
    if data.ndim not in (4, 5) or data.size == 0:
        raise InputError(path, "data", f"has the shape {data.shape}", "give (t, z, y, x) or (t, z, y, x, components)")
    code, components = data.dtype.str[1:], data.shape[4] if data.ndim == 5 else 1
    kind = next(
        (name for name, layout in TYPES.items() if layout == (code, components)), "long" if code == "i8" and components == 1 else ""
    )
    if not kind:
        raise InputError(path, "data", f"{data.dtype} with {components} components has no IGB type", "use float32")
    order = "big_endian" if big_endian else "little_endian"
    words = [f"{name}:{n}" for name, n in zip(_WHOLE, data.shape[3::-1])] + [f"type:{kind}", f"systeme:{order}"]
    for key, value in igb.header.items():
        if key not in _REAL + _TEXT:
            raise InputError(path, key, "is no key of an IGB header", f"known: {', '.join(_REAL + _TEXT)}")
        if not str(value) or re.search(r"\s", str(value)):
            raise InputError(path, key, f"{value!r} is not one word", "use one word")
        words.append(f"{key}:{value:.17g}" if isinstance(value, float) else f"{key}:{value}")
    lines: list[str] = []
    line = ""
    for word in words:
        if len(line) + len(word) > 78:
            lines, line = [*lines, line], ""
        line += f"{word} "
    text = "\r\n".join([*lines, line, *(f"#{' '.join(c.split())}" for c in igb.comments)]) + "\r\n"
    length = -(-(len(text) + 2) // HEADER_BYTES) * HEADER_BYTES
    head = text.encode("latin-1", "replace").ljust(length - 1) + b"\x0c"
    write_bytes(path, head + np.ascontiguousarray(data).astype(np.dtype(ORDERS[order] + code)).tobytes())
