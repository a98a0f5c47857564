"""Phantom studies in the layout of an EnSite Precision export, from any MappingStudy. Not verified on the vendor's hardware."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_text
from twin.errors import InputError
from twin.io.ensite.dif import COMMENTS, write_dif
from twin.patient import LEADS, Ecg
from twin.study import UNVERIFIED, MappingStudy, Progress, Recording

POINTS_PER_FILE = 1000
BLOCKS = (("rov trace:", "bipolar"), ("ref trace:", "reference"), ("spare1 trace:", "unipolar"))


def write_ensite(folder: Path, study: MappingStudy, progress: Progress | None = None) -> None:
    """Write geometry (one DIF per quantity), `DxL_*.csv` of 1,000 points each, and `ECG_RAW.csv` where leads are recorded.

    The folder must be new or empty. A trace that a point lacks is written as zeros. Raises InputError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(folder, "folder", "exists and is not empty", "name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    if study.surface is not None:
        known = [name for name in COMMENTS if name in study.surface.point_data]
        for name in known or [""]:
            kind = name.split("_")[0] or "geometry"
            write_dif(folder / f"DxLandmarkGeo_{kind}.xml", study.surface, name, dict(study.labels), study.name)
    starts = range(0, len(study), POINTS_PER_FILE)
    for k, first in enumerate(starts, start=1):
        chunk = range(first, min(first + POINTS_PER_FILE, len(study)))
        write_text(folder / f"DxL_{k}.csv", _points_file(study, chunk, k, len(starts)))
        if progress is not None:
            progress("written points", chunk.stop, len(study))
    leads = study.ecg()
    if leads is not None:
        write_text(folder / "ECG_RAW.csv", waves_text(leads))


def _head(element: str) -> list[str]:
    return [
        "St. Jude Medical. File Revision : 5.2",
        f"Export Data Element : {element}",
        "Export from Study : PHANTOM",
        "Export from Segment : 1",
        f"Export User Comments : vtwin phantom, {UNVERIFIED}",
        "Export Start Time (h:m:s.msec) : 00:00:00.000",
        "Export End Time (h:m:s.msec) : 00:00:00.000",
        "Export Start Time (secs usecs) : 0 0",
        "Export End Time (secs usecs) : 0 0",
    ]


def _cells(values: NDArray[np.float64], digits: int) -> str:
    return ",".join("" if np.isnan(v) else f"{v:.{digits}f}" for v in values)


def _points_file(study: MappingStudy, chunk: range, number: int, files: int) -> str:
    at = slice(chunk.start, chunk.stop)
    n = len(chunk)
    recordings = [study.recordings.read(k) for k in chunk]
    some = next((r for r in recordings if r is not None), None)
    rate = some.fs_hz if some is not None else 2000.0
    samples = len(next(iter(some.channels.values()))) if some is not None else 0
    surface = study.surface_mm[at]
    lat = study.lat_ms[at]
    rows = [
        *_head("DXLData"),
        f"This is file {number} of {files} for map,{study.name}",
        f"Total number of data points (columns):,{n}",
        "Begin data",
        "pt number:," + ",".join(map(str, study.point_ids[at])),
        "rov trace:," + ",".join("HD 1-2" for _ in chunk),
        "ref trace:," + ",".join("CS 1-2" for _ in chunk),
        "utilized:," + ",".join("yes" for _ in chunk),
        *(f"roving {axis}:,{_cells(study.points_mm[at, k], 4)}" for k, axis in enumerate("xyz")),
        *(f"surfPt {axis}:,{_cells(surface[:, k], 4)}" for k, axis in enumerate("xyz")),
        f"peak2peak:,{_cells(study.bipolar_mv[at], 4)}",
        f"LAT:,{_cells(lat, 3)}",
        f"Seg data len:,{samples / rate:.6f}",
        f"Exported seconds:,{samples / rate:.6f}",
        f"Sample rate:,{rate:.4f}",
        "CFE P-P sensitivity (mv),0.05",
        "CFE Width (ms),10",
        "CFE Refractory (ms),30",
    ]
    for title, kind in BLOCKS if some is not None else ():
        table = np.stack([_trace(r, kind, samples) for r in recordings], axis=1)
        rows += [title, *("," + ",".join(f"{v:.4f}" for v in row) for row in table)]
    return "\n".join([*rows, "FFT spectrum is available for FFT maps only"]) + "\n"


def _trace(recording: Recording | None, kind: str, samples: int) -> NDArray[np.float64]:
    name = getattr(recording, kind) if recording is not None else ""
    if recording is None or not name:
        return np.zeros(samples)
    values = recording.channels[name]
    if len(values) != samples:
        raise InputError("EnSite study", "electrograms", "are of unequal length", "record all points for the same time")
    return values


def waves_text(ecg: Ecg) -> str:
    """Text of a wave file with the twelve leads."""
    table = np.stack([ecg.leads[lead] for lead in LEADS], axis=1)
    rows = [
        *_head("ECG_RAW"),
        f"Number of waves (columns): ,{4 + len(LEADS)}",
        f"Number of samples (rows): ,{len(table)}",
        "Begin data",
        ",".join(["t_dws", "t_secs", "t_usecs", "t_ref", *LEADS]),
    ]
    for k, values in enumerate(table):
        time = k / ecg.fs_hz
        clock = f"00:{int(time // 60) % 60:02d}:{time % 60:06.3f}"
        rows.append(f"{clock},{int(time)},{int(time % 1 * 1e6)},{time:.6f}," + ",".join(f"{v:.4f}" for v in values))
    return "\n".join(rows) + "\n"
