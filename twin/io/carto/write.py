"""Phantom studies in the layout of a CARTO 3 export, from any MappingStudy. Not verified on the vendor's hardware."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.carto.mesh import NO_VALUE, format_mesh, vertex_normals
from twin.io.carto.signals import format_ecg
from twin.study import UNVERIFIED, MappingStudy, Progress, Recording

STAMP = (1980, 1, 1, 0, 0, 0)
FIRST_MS = 1_000_000
"""Start of the first recording on the study's clock; the next begin ten seconds apart."""
NO_TIME_TAG = 11
FIRST_LABEL = 100


def write_carto(path: Path, study: MappingStudy, version: int = 6, progress: Progress | None = None) -> None:
    """Write a complete export as a zip, member by member, whole or not at all; equal studies give equal bytes.

    version: of `_car.txt`, 4, 5 or 6. Raises InputError for a name that cannot be a file's.
    """
    stem = _stem(study.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:

            def put(name: str, text: str) -> None:
                info = zipfile.ZipInfo(name, STAMP)
                archive.writestr(info, text.encode("cp1252", "xmlcharrefreplace"), zipfile.ZIP_DEFLATED, 3)

            put("Study 1.xml", _study_xml(study, stem))
            if study.surface is not None:
                put(f"{stem}.mesh", format_mesh(study.surface, vertex_normals(study.surface), f"vtwin phantom, {UNVERIFIED}"))
            put(f"{stem}_car.txt", _car(study, stem, version))
            put(f"{stem}_Points_Export.xml", _points_xml(study, stem))
            for index in range(len(study)):
                recording = study.recordings.read(index)
                name = f"{stem}_ECG_Export_{FIRST_MS + 10_000 * index}.txt" if recording is not None else ""
                put(f"{stem}_P{study.point_ids[index]}_Point_Export.xml", _point_xml(study, index, recording, name))
                if recording is not None:
                    put(name, format_ecg(dict(recording.channels)))
                if progress is not None and (index % 100 == 99 or index + 1 == len(study)):
                    progress("written points", index + 1, len(study))
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _stem(name: str) -> str:
    stem = "".join(c for c in name if c.isalnum() or c in " -_.").strip(" .")
    if not stem:
        raise InputError("CARTO study", "name", "the map has no name that a file can have", "give it one")
    return stem


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else f"{NO_VALUE:.0f}"


def _place(point: NDArray[np.float64]) -> str:
    return " ".join(f"{x:.3f}" for x in point)


def _study_xml(study: MappingStudy, stem: str) -> str:
    labels = list(study.labels)
    near = {name: int(np.argmin(np.linalg.norm(study.points_mm - study.labels[name], axis=1))) for name in labels}
    tags: dict[int, list[int]] = {}
    for k, name in enumerate(labels):
        tags.setdefault(near[name], []).append(FIRST_LABEL + k)
    table = [(NO_TIME_TAG, "Location Only"), *((FIRST_LABEL + k, name) for k, name in enumerate(labels))]
    lines = [
        '<?xml version="1.0"?>',
        f"<!-- vtwin phantom, {UNVERIFIED} -->",
        '<Study name="Phantom 1">',
        ' <Maps Count="1">',
        f'  <TagsTable Count="{len(table)}">',
        *(f'   <Tag ID="{number}" Short_Name="T{number}" Full_Name={quoteattr(name)}/>' for number, name in table),
        "  </TagsTable>",
        f'  <Map ID="1" Name={quoteattr(stem)} FileNames={quoteattr(stem + ".mesh" if study.surface is not None else "")}>',
        f'   <CartoPoints Count="{len(study)}">',
    ]
    for index, (number, point) in enumerate(zip(study.point_ids.tolist(), study.points_mm, strict=True)):
        inside = f'<Tags Count="{len(tags[index])}">{" ".join(map(str, tags[index]))}</Tags>' if index in tags else ""
        lines.append(f'    <Point Id="{number}" Position3D="{_place(point)}">{inside}</Point>')
    return "\r\n".join([*lines, "   </CartoPoints>", "  </Map>", " </Maps>", "</Study>"]) + "\r\n"


def _points_xml(study: MappingStudy, stem: str) -> str:
    rows = [f'<Point ID="{k}" File_Name={quoteattr(f"{stem}_P{k}_Point_Export.xml")}/>' for k in study.point_ids.tolist()]
    return "\r\n".join(['<?xml version="1.0"?>', f"<Carto_Points Map_Name={quoteattr(stem)}>", *rows, "</Carto_Points>"]) + "\r\n"


def _times(study: MappingStudy, index: int) -> tuple[float, float]:
    """Reference and map annotation; a study without annotations gets its reference at 2,000 ms, as CARTO places it."""
    reference, annotated = float(study.reference_ms[index]), float(study.map_ms[index])
    if not np.isfinite(reference):
        reference = 2000.0
    lat = float(study.lat_ms[index])
    return reference, annotated if np.isfinite(annotated) else reference + lat


def _point_xml(study: MappingStudy, index: int, recording: Recording | None, ecg: str) -> str:
    reference, annotated = _times(study, index)
    window = study.window_ms[index]
    window = window if np.isfinite(window).all() else np.array([-300.0, 300.0])
    channels = ("", "", "") if recording is None else (recording.unipolar, recording.bipolar, recording.reference)
    names = zip(("Unipolar", "Bipolar", "Reference"), channels, strict=True)
    mapped = " ".join(f"{kind}{'' if kind == 'Reference' else 'Mapping'}Channel={quoteattr(name)}" for kind, name in names)
    lines = [
        '<?xml version="1.0"?>',
        f'<Point ID="{study.point_ids[index]}">',
        f' <Annotations StartTime="{FIRST_MS + 10_000 * index}" Reference_Annotation="{_number(reference, 2)}"'
        f' Map_Annotation="{_number(annotated, 2)}"/>',
        f' <WOI From="{window[0]:.0f}" To="{window[1]:.0f}"/>',
        f' <Voltages Unipolar="{_number(study.unipolar_mv[index])}" Bipolar="{_number(study.bipolar_mv[index])}"/>',
        f" <ECG FileName={quoteattr(ecg)} {mapped}/>",
        "</Point>",
    ]
    return "\r\n".join(lines) + "\r\n"


def _car(study: MappingStudy, stem: str, version: int) -> str:
    extra = {4: 21, 5: 20, 6: 23}.get(version)
    if extra is None:
        raise InputError("CARTO study", "version", f"{version} is not written", "4, 5 or 6")
    lines = [f"VERSION_{version}_0 {stem}"]
    for k in range(len(study)):
        lat = float(study.lat_ms[k])
        words = ["P", "1", str(study.point_ids[k]), "0", *(f"{x:.3f}" for x in study.points_mm[k]), "0.000", "0.000", "1.000"]
        words += [_number(study.unipolar_mv[k]), _number(study.bipolar_mv[k]), _number(lat, 2), "0", "0" if np.isfinite(lat) else "1", "-1"]
        lines.append("\t".join([*words, *["0"] * (extra - len(words))]))
    return "\r\n".join(lines) + "\r\n"
