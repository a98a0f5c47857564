"""DIF, the XML geometry of EnSite (`SJM_DIF_5.0`): volumes of vertices and one-based polygons, one quantity per vertex, labels."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_text
from twin.errors import InputError
from twin.io.archive import AGAIN, text_lines
from twin.io.source import read_bytes
from twin.io.surfaces import Surface, checked
from twin.study import UNVERIFIED

Array = NDArray[np.float64]
VERSION = "SJM_DIF_5.0"
MAX_BYTES = 500_000_000
MAX_VOLUMES, MAX_LABELS, MAX_ROWS = 200, 10_000, 5_000_000
VOLTAGE_UNIT, TIME_UNIT = "mV", "ms"
MARK = "Data values at each vertex of DxL map"


@dataclass(frozen=True)
class DifFile:
    """Volumes by name (several of one name get a number), and labels name -> (3,) mm. A field that no comment explains is `map_data`."""

    volumes: Mapping[str, Surface]
    labels: Mapping[str, Array] = field(default_factory=dict)


def read_dif(path: Path) -> DifFile:
    """Read a DIF file. Raises InputError."""
    return parse_dif(read_bytes(path, MAX_BYTES), path)


def parse_dif(data: bytes, where: Path) -> DifFile:
    """DIF from its bytes. Raises InputError for damage, other versions, wrong counts and zero-based polygons."""
    root = _root(data, where)
    version = (root.findtext("DIFHeader/Version") or "").strip()
    if version != VERSION:
        raise InputError(where, "DIFHeader/Version", f"{version[:20]!r} is not {VERSION}", "export it from EnSite Precision or EnSite X")
    body = root.find("DIFBody/Volumes")
    if body is None:
        raise InputError(where, "DIFBody/Volumes", "is missing", AGAIN)
    found = body.findall("Volume")
    _agrees(body, len(found), MAX_VOLUMES, "Volumes", where)
    volumes: dict[str, Surface] = {}
    for place, volume in enumerate(found, start=1):
        name = " ".join((volume.get("name") or f"volume {place}").split())[:60]
        name = name if name not in volumes else f"{name} #{place}"
        volumes[name] = _volume(volume, where)
    if not volumes:
        raise InputError(where, "Volumes", "holds no volume", AGAIN)
    return DifFile(volumes, _labels(root, where))


def _root(data: bytes, where: Path) -> ElementTree.Element:
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise InputError(where, "DIF", "holds XML entities", AGAIN)
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text_lines(data, where, "DIF").read())
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    try:
        root: ElementTree.Element = ElementTree.fromstring(text, parser)
    except (ElementTree.ParseError, ValueError, RecursionError):
        raise InputError(where, "DIF", "is not XML", AGAIN) from None
    if root.tag != "DIF":
        raise InputError(where, "DIF", "is XML of another kind", "give a DIF file (DxLandmarkGeo.xml, Contact_Mapping_Model.xml)")
    return root


def _agrees(node: ElementTree.Element, count: int, most: int, name: str, where: Path) -> None:
    said = node.get("number")
    if count > most or (said is not None and said.strip() != str(count)):
        raise InputError(where, name, f"holds {count}, its number says {(said or '')[:10]}", AGAIN)


def _block(volume: ElementTree.Element, name: str, columns: int, where: Path) -> Array | None:
    """The numbers of a block, (n, columns), or None if the volume has no such block."""
    node = volume.find(name)
    if node is None:
        return None
    text = "".join([node.text or "", *(child.tail or "" for child in node)])
    try:
        values = np.array(text.split(), np.float64)
    except ValueError:
        raise InputError(where, name, "holds text in place of a number", AGAIN) from None
    if values.size % columns or values.size > columns * MAX_ROWS:
        raise InputError(where, name, f"{values.size} numbers do not make rows of {columns}", AGAIN)
    if not np.isfinite(values).all():
        raise InputError(where, name, "holds a value that is not finite", AGAIN)
    table = values.reshape(-1, columns)
    _agrees(node, len(table), MAX_ROWS, name, where)
    return table


def _volume(volume: ElementTree.Element, where: Path) -> Surface:
    points, polygons = _block(volume, "Vertices", 3, where), _block(volume, "Polygons", 3, where)
    if points is None or polygons is None or not len(points) or not len(polygons):
        raise InputError(where, "Volume", "has no vertices or no polygons", AGAIN)
    if (polygons != np.rint(polygons)).any() or polygons.min() < 1 or polygons.max() > len(points):
        problem = f"vertex numbers are not whole numbers from 1 to {len(points)}"
        raise InputError(where, "Polygons", problem, "DIF counts vertices from one: export it again")
    fields: dict[str, Array] = {}
    quantity = _quantity(volume)
    for block, name in (("Map_data", quantity), ("Map_status", "map_status"), ("Surface_of_origin", "surface_of_origin")):
        values = _block(volume, block, 1, where)
        if values is None:
            continue
        if len(values) == len(points):
            fields[name] = values[:, 0].copy()
        elif block != "Surface_of_origin" or len(values) != len(polygons):
            raise InputError(where, block, f"has {len(values)} values for {len(points)} vertices", AGAIN)
    normals = _block(volume, "Normals", 3, where)
    if normals is not None and len(normals) != len(points):
        raise InputError(where, "Normals", f"has {len(normals)} rows for {len(points)} vertices", AGAIN)
    return checked(Surface(points, (polygons - 1).astype(np.int32), fields), where)


def _quantity(volume: ElementTree.Element) -> str:
    """What Map_data holds: only a comment says it."""
    for node in volume:
        tag: Any = node.tag
        said = (node.text or "") if tag is ElementTree.Comment else ""
        if MARK.lower() not in said.lower():
            continue
        kind = said.lower()
        if "p-p" in kind or "voltage" in kind:
            return "unipolar_mv" if re.search(r"\buni", kind) else "bipolar_mv"
        if "lat" in re.split(r"[^a-z]+", kind) or "isochron" in kind:
            return "lat_ms"
    return "map_data"


def _labels(root: ElementTree.Element, where: Path) -> dict[str, Array]:
    node = root.find("DIFBody/Labels")
    if node is None:
        return {}
    found = node.findall("Label")
    _agrees(node, len(found), MAX_LABELS, "Labels", where)
    labels: dict[str, Array] = {}
    for place, label in enumerate(found, start=1):
        try:
            point = np.array((label.text or "").split(), np.float64)
        except ValueError:
            point = np.zeros(0)
        if point.shape != (3,) or not np.isfinite(point).all():
            raise InputError(where, "Label", "is not three numbers", AGAIN)
        name = " ".join((label.get("name") or "").split())[:60]
        labels[name if name and name not in labels else f"{name or 'label'} #{place}"] = point
    return labels


COMMENTS = {
    "bipolar_mv": "P-P Voltage bi",
    "unipolar_mv": "P-P Voltage uni",
    "lat_ms": "LAT Isochronal bi",
}


def dif_text(surface: Surface, quantity: str = "", labels: Mapping[str, Array] | None = None, name: str = "vtwin") -> str:
    """Text of a DIF file with one volume; quantity: a point field of `COMMENTS`, its missing values marked by Map_status 2."""
    from twin.io.carto.mesh import vertex_normals

    def rows(tag: str, values: NDArray[Any], style: str) -> list[str]:
        return [f'<{tag} number="{len(values)}">', *(" ".join(style % v for v in np.atleast_1d(row)) for row in values), f"</{tag}>"]

    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<!-- vtwin: {UNVERIFIED} -->",
        "<DIF>",
        f"<DIFHeader><Version>{VERSION}</Version></DIFHeader>",
        "<DIFBody>",
        '<Volumes number="1">',
        f"<Volume name={quoteattr(name)}>",
        *rows("Vertices", surface.points_mm, "%.4f"),
        *rows("Normals", vertex_normals(surface), "%.5f"),
        *rows("Polygons", surface.triangles + 1, "%d"),
    ]
    if quantity:
        values = np.asarray(surface.point_data[quantity], np.float64)
        here = np.isfinite(values)
        lines += [f"<!-- {escape(MARK)}: {COMMENTS[quantity]} -->", *rows("Map_data", np.where(here, values, 0.0), "%.4f")]
        lines += rows("Map_status", np.where(here, 0, MISSING), "%d")
    lines += ["</Volume>", "</Volumes>"]
    if labels:
        places = [f"<Label name={quoteattr(key)}>{' '.join(f'{x:.4f}' for x in p)}</Label>" for key, p in labels.items()]
        lines += [f'<Labels number="{len(places)}">', *places, "</Labels>"]
    return "\n".join([*lines, "</DIFBody>", "</DIF>"]) + "\n"


MISSING = 2
"""Map_status of vertices beyond the reach of interpolation, as OpenEP's authors read it."""


def with_missing(surface: Surface) -> Surface:
    """The surface with NaN for the values whose status says that nothing was mapped there."""
    status = surface.point_data.get("map_status")
    if status is None:
        return surface
    gone = status == MISSING
    fields = {
        name: np.where(gone, np.nan, values) if name in COMMENTS or name == "map_data" else values
        for name, values in surface.point_data.items()
    }
    return Surface(surface.points_mm, surface.triangles, fields)


def write_dif(path: Path, surface: Surface, quantity: str = "", labels: Mapping[str, Array] | None = None, name: str = "vtwin") -> None:
    """Write one volume as DIF, atomically. Not verified on the vendor's hardware."""
    write_text(path, dif_text(surface, quantity, labels, name))
