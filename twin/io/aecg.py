"""HL7 annotated ECGs (aECG, FDA): the rhythm waveforms of one series. XML without entities; nothing of the patient is looked at."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.ecg_leads import MAX_VALUES, check_rate, lead_name, millivolts, twelve
from twin.io.notes import Notes
from twin.io.source import read_bytes
from twin.patient import Ecg

MAX_BYTES = 200_000_000
MAX_DEPTH = 60
AGAIN = "export it again"
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def is_aecg(start: bytes) -> bool:
    """True if a file's first bytes are those of an annotated ECG."""
    return start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<") and b"AnnotatedECG" in start


def read_aecg(path: Path, notes: Notes | None = None, rhythm: str = "sinus") -> Ecg:
    """The first set of sequences that holds twelve leads (or I, II and the chest leads). Raises InputError."""
    notes = notes or Notes()
    root = _parse(read_bytes(path, MAX_BYTES), path)
    if _local(root) != "AnnotatedECG":
        raise InputError(path, "root", "is not AnnotatedECG", "give an HL7 annotated ECG")
    failed: InputError | None = None
    for found in _sets(root):
        try:
            channels, fs_hz = _sequences(found, path)
            return twelve(channels, fs_hz, path, notes, rhythm)
        except InputError as error:
            failed = failed or error
    raise failed or InputError(path, "sequenceSet", "is missing", AGAIN)


def _local(node: ElementTree.Element) -> str:
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def _children(node: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in node if _local(child) == name)


def _child(node: ElementTree.Element, name: str, path: Path) -> ElementTree.Element:
    found = next(_children(node, name), None)
    if found is None:
        raise InputError(path, name, "is missing", AGAIN)
    return found


def _parse(data: bytes, path: Path) -> ElementTree.Element:
    head = data[:200].lower()
    if b"\0" in data[:200] or (
        b"encoding" in head and not re.search(rb"encoding\s*=\s*[\"'](utf-8|us-ascii|iso-8859-1|windows-1252)", head)
    ):
        raise InputError(path, "encoding", "is not UTF-8, Latin-1 or ASCII", "save it as UTF-8")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise InputError(path, "XML", "declares a document type or entities", "remove the declaration")
    parser: Any = ElementTree.XMLPullParser(("start", "end"))
    depth = 0
    root: ElementTree.Element | None = None
    try:
        for start in range(0, len(data), 1 << 16):
            parser.feed(data[start : start + (1 << 16)])
            for kind, node in parser.read_events():
                root = node if root is None else root
                depth += 1 if kind == "start" else -1
                if depth > MAX_DEPTH:
                    raise InputError(path, "XML", f"is nested more than {MAX_DEPTH} deep", AGAIN)
        parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        line = getattr(error, "position", (0, 0))[0]
        raise InputError(path, f"line {line}", "is not well-formed XML", AGAIN) from None
    if root is None:
        raise InputError(path, "XML", "is empty", AGAIN)
    return root


def _sets(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """Sequence sets of recorded series; derived series (a representative beat) lie deeper and are passed over."""
    for component in _children(root, "component"):
        for series in _children(component, "series"):
            for inner in _children(series, "component"):
                yield from _children(inner, "sequenceSet")


def _number(node: ElementTree.Element, name: str, path: Path, field: str) -> float:
    try:
        value = float(node.get(name, ""))
    except ValueError:
        raise InputError(path, field, f"{name} is not a number", AGAIN) from None
    if not np.isfinite(value):
        raise InputError(path, field, f"{name} is not finite", AGAIN)
    return value


def _sequences(found: ElementTree.Element, path: Path) -> tuple[dict[str, NDArray[np.float64]], float]:
    channels: dict[str, NDArray[np.float64]] = {}
    fs_hz, total = float("nan"), 0
    for component in _children(found, "component"):
        sequence = _child(component, "sequence", path)
        code, value = _child(sequence, "code", path).get("code", ""), _child(sequence, "value", path)
        if code in ("TIME_ABSOLUTE", "TIME_RELATIVE"):
            step = _child(value, "increment", path)
            unit = _SECONDS.get(step.get("unit", ""))
            if unit is None:
                raise InputError(path, "increment", "its unit is not s, ms or us", AGAIN)
            interval = _number(step, "value", path, "increment") * unit
            fs_hz = check_rate(round(1.0 / interval, 6) if interval > 0 else 0.0, path, "increment")
            continue
        lead, _ = lead_name(code)
        if not lead:
            continue
        if code in channels:
            raise InputError(path, lead, "there are two leads of this name", AGAIN)
        channels[code] = _lead(value, lead, path)
        total += len(channels[code])
        if total > MAX_VALUES:
            raise InputError(path, "digits", f"more than {MAX_VALUES} values", "crop the recording")
    if not np.isfinite(fs_hz):
        raise InputError(path, "TIME_ABSOLUTE", "there is no sampling interval", AGAIN)
    return channels, fs_hz


def _lead(value: ElementTree.Element, lead: str, path: Path) -> NDArray[np.float64]:
    """Samples of one lead in mV: origin + digit * scale, each in its own unit."""
    origin, scale = _child(value, "origin", path), _child(value, "scale", path)
    zero = _number(origin, "value", path, f"{lead} origin") * millivolts(origin.get("unit", ""), path, f"{lead} origin")
    step = _number(scale, "value", path, f"{lead} scale") * millivolts(scale.get("unit", ""), path, f"{lead} scale")
    if step == 0:
        raise InputError(path, f"{lead} scale", "is zero", AGAIN)
    words = (_child(value, "digits", path).text or "").split()
    if len(words) > MAX_VALUES:
        raise InputError(path, "digits", f"more than {MAX_VALUES} values", "crop the recording")
    try:
        digits = np.array(words, np.float64)
    except ValueError:
        raise InputError(path, f"{lead} digits", "hold text that is no number", AGAIN) from None
    if not np.isfinite(digits).all() or (len(digits) and np.abs(digits).max() > 1e9):
        raise InputError(path, f"{lead} digits", "are not finite counts", AGAIN)
    return digits * step + zero
