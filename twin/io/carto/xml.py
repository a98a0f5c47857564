"""The XML of a CARTO export: streamed, in whatever encoding it really is, without entities; nothing of the patient is looked at."""

from __future__ import annotations

import codecs
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.archive import AGAIN, StudyFiles, kind_of_name
from twin.io.study_checks import words_of

BLOCK = 1 << 18
MAX_STUDY_BYTES = 1_000_000_000
MAX_POINT_BYTES = 2_000_000
MAX_DEPTH = 60
MAX_POINTS = 1_000_000
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass
class MapEntry:
    """One map of the study XML: name, its mesh file, and by point: id, position (3,), tags."""

    name: str
    mesh: str
    claimed: int
    ids: list[int] = field(default_factory=list)
    places: list[tuple[float, float, float]] = field(default_factory=list)
    tags: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """By index of the point."""


@dataclass
class StudyXml:
    """What is read of the study XML. `words` are words of the study's own name, which no output may repeat."""

    maps: list[MapEntry]
    tag_names: dict[int, str]
    words: frozenset[str]


def _encoding(files: StudyFiles, name: str) -> str:
    """utf-8 if every byte agrees, utf-16 by its mark, else cp1252, whatever the declaration says. Refuses entities."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    valid, tail = True, b""
    with files.open(name) as handle:
        while block := handle.read(BLOCK):
            if not tail and block[:2] in UTF16:
                return "utf-16"
            if b"<!DOCTYPE" in tail + block or b"<!ENTITY" in tail + block:
                raise InputError(files.where, kind_of_name(name), "holds XML entities", AGAIN)
            if b"\0" in block:
                raise InputError(files.where, kind_of_name(name), "holds zero bytes", AGAIN)
            tail = block[-12:]
            if valid:
                try:
                    decoder.decode(block)
                except UnicodeDecodeError:
                    valid = False
    return "utf-8" if valid else "cp1252"


def events(files: StudyFiles, name: str) -> Iterator[tuple[str, Any]]:
    """start and end events of an XML member; ended elements may be cleared by the caller. Raises InputError."""
    if files.sizes[name] > MAX_STUDY_BYTES:
        raise InputError(files.where, kind_of_name(name), f"has {files.sizes[name] / 1e6:.0f} MB", AGAIN)
    encoding = _encoding(files, name)
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    parser: Any = ElementTree.XMLPullParser(("start", "end"))
    depth, first = 0, True
    try:
        with files.open(name) as handle:
            while block := handle.read(BLOCK):
                text = decoder.decode(block)
                if first:
                    # text is fed decoded: a declaration of another encoding would be believed
                    text = re.sub(r"^\ufeff?\s*<\?xml[^>]*\?>", "", text)
                    first = False
                parser.feed(text)
                for kind, element in parser.read_events():
                    depth += 1 if kind == "start" else -1
                    if depth > MAX_DEPTH:
                        raise InputError(files.where, kind_of_name(name), "is nested too deeply", AGAIN)
                    yield kind, element
            parser.close()
            for kind, element in parser.read_events():
                yield kind, element
    except (ElementTree.ParseError, ValueError) as error:
        position = getattr(error, "position", (0, 0))
        raise InputError(files.where, kind_of_name(name), f"is not XML (line {position[0]})", AGAIN) from None


def find_study(files: StudyFiles) -> str:
    """Name of the XML that lists maps. Raises InputError if there is none or there are several."""
    candidates = [name for name in files.names(".xml") if not name.lower().endswith(("point_export.xml", "points_export.xml"))]
    found = [name for name in candidates if _has_maps(files, name)]
    if len(found) != 1:
        problem = "no study XML with maps is in it" if not found else f"{len(found)} study XML files are in it"
        raise InputError(files.where, "study XML", problem, "give one complete CARTO 3 export")
    return found[0]


def _has_maps(files: StudyFiles, name: str) -> bool:
    if files.sizes[name] > MAX_STUDY_BYTES:
        return False
    tail = b""
    with files.open(name) as handle:
        while block := handle.read(BLOCK):
            plain = (tail + block).replace(b"\0", b"")
            if b"<Map " in plain or b"<Maps" in plain:
                return True
            tail = block[-8:]
    return False


def read_study_xml(files: StudyFiles, name: str) -> StudyXml:
    """Maps with their points, and tags. Raises InputError."""
    out = StudyXml([], {}, frozenset())
    current: MapEntry | None = None
    path: list[ElementTree.Element] = []
    for kind, element in events(files, name):
        if kind == "start":
            if element.tag == "Map" and path and path[-1].tag == "Maps":
                current = MapEntry(element.get("Name", ""), element.get("FileNames", ""), 0)
                out.maps.append(current)
            elif element.tag == "CartoPoints" and current is not None:
                current.claimed = whole(element.get("Count"), files.where, "CartoPoints Count")
            elif not path:
                out.words = words_of(" ".join(element.attrib.values()))
            path.append(element)
            continue
        path.pop()
        if element.tag == "Tag" and path and path[-1].tag == "TagsTable":
            out.tag_names[whole(element.get("ID"), files.where, "Tag ID")] = element.get("Full_Name", "")[:60]
        elif element.tag == "Point" and current is not None and path and path[-1].tag == "CartoPoints":
            _add_point(current, element, files.where)
        elif element.tag == "Map":
            current = None
        elif element.tag in ("Tags", "VirtualPoint"):
            continue  # read with the point that holds it
        element.clear()
        if path:
            # the parent would keep every cleared child
            path[-1].remove(element)
    for entry in out.maps:
        if entry.claimed != len(entry.ids):
            raise InputError(files.where, "CartoPoints", f"{len(entry.ids)} points, Count says {entry.claimed}", AGAIN)
    return out


def _add_point(entry: MapEntry, element: ElementTree.Element, where: Path) -> None:
    if len(entry.ids) >= MAX_POINTS:
        raise InputError(where, "CartoPoints", f"more than {MAX_POINTS} points", "export fewer points")
    entry.ids.append(whole(element.get("Id", element.get("ID")), where, "Point Id"))
    place = numbers(element.get("Position3D", ""), where, "Position3D")
    if place.shape != (3,):
        raise InputError(where, "Position3D", "is not three numbers", AGAIN)
    entry.places.append((float(place[0]), float(place[1]), float(place[2])))
    tags = element.find("Tags")
    if tags is not None and tags.text and tags.text.strip():
        found = numbers(tags.text, where, "Tags")
        entry.tags[len(entry.ids) - 1] = tuple(int(t) for t in found)


def whole(text: str | None, where: Path, what: str) -> int:
    """A whole number of an attribute. Raises InputError."""
    plain = (text or "").strip()
    if not (plain.lstrip("-").isascii() and plain.lstrip("-").isdigit() and len(plain) < 18):
        raise InputError(where, what, f"{plain[:12]!r} is not a whole number", AGAIN)
    return int(plain)


def numbers(text: str, where: Path, what: str) -> NDArray[np.float64]:
    """Finite numbers separated by blanks. Raises InputError."""
    try:
        values = np.array(text.split(), np.float64)
    except ValueError:
        raise InputError(where, what, "is not a list of numbers", AGAIN) from None
    if not np.isfinite(values).all():
        raise InputError(where, what, "is not finite", AGAIN)
    return values
