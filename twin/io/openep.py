"""OpenEP studies (`userdata` in a MATLAB file): read from v5, v7 and v7.3, written as v7.

Fields as the OpenEP project describes them (openep.ac.uk; importcarto_mem.m, Apache-2.0, read for facts). Annotations are samples; a
TriRep or triangulation object of MATLAB cannot be read outside it and must have been unpacked (`openep_updateuserdata`).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes
from twin.errors import InputError
from twin.io.archive import AGAIN
from twin.io.mat import MatFields, read_mat
from twin.io.notes import Notes
from twin.io.study_checks import check_recordings, check_study
from twin.io.surfaces import Surface, checked, index_array
from twin.study import MAX_MV, UNVERIFIED, MappingStudy, Progress, Recording, from_surface

Array = NDArray[np.float64]
SYSTEM = "OpenEP"
RATE_HZ = 1000.0
"""Where the file states none: CARTO's."""
NO_VALUE = -10000.0
MAX_POINTS = 1_000_000
MAX_WRITTEN = 1_900_000_000
"""MATLAB's v7 holds less than 2 GB in one variable."""

SHELL = ("triRep.X", "triRep.Triangulation", "triRep.Points", "triRep.ConnectivityList", "act_bip", "uni_imp_frc")
ELECTRIC = (
    *("egmX", "egmSurfX", "egm", "egmUni", "egmRef", "ecg", "ecgNames", "sampleFrequency", "include"),
    *("annotations.woi", "annotations.referenceAnnot", "annotations.mapAnnot", "voltages.bipolar", "voltages.unipolar"),
)
WANTED = (*(f"surface.{name}" for name in SHELL), *(f"electric.{name}" for name in ELECTRIC))


def read_openep(path: Path, map_name: str | None = None, notes: Notes | None = None, progress: Progress | None = None) -> MappingStudy:
    """Read an OpenEP file; it holds one map, so `map_name` is only for likeness. Raises InputError, Suspicious."""
    notes = notes or Notes()
    if progress is not None:
        progress("file", 0, 1)
    return study_of(read_mat(path, "userdata", WANTED), path, notes)


def study_of(fields: MatFields, where: Path, notes: Notes) -> MappingStudy:
    """The study in the fields of a file, checked. Raises InputError, Suspicious."""
    surface = _surface(fields, where)
    points = _table(fields, "electric.egmX", 3, where)
    if points is None or not len(points):
        study = from_surface("OpenEP", SYSTEM, surface, {})
        check_study(study, where, notes)
        return study
    n = len(points)
    if n > MAX_POINTS:
        raise InputError(where, "electric.egmX", f"{n} points", "export fewer points")
    rate = _rate(fields, where)
    to_ms = 1000.0 / rate
    annotated, reference = (_column(fields, f"electric.annotations.{name}Annot", n, where) * to_ms for name in ("map", "reference"))
    window = _table(fields, "electric.annotations.woi", 2, where, n)
    included = _column(fields, "electric.include", n, where)
    lat = np.where(included == 0, np.nan, annotated - reference)
    projected = _table(fields, "electric.egmSurfX", 3, where, n)
    study = MappingStudy(
        "OpenEP",
        SYSTEM,
        points,
        lat,
        _column(fields, "electric.voltages.bipolar", n, where),
        _column(fields, "electric.voltages.unipolar", n, where),
        np.arange(1, n + 1, dtype=np.int64),
        surface,
        np.full((n, 3), np.nan) if projected is None else projected,
        reference,
        annotated,
        np.full((n, 2), np.nan) if window is None else window * to_ms,
        recordings=MatRecordings(fields, n, rate, reference, annotated, where),
    )
    check_study(study, where, notes)
    check_recordings(study, where, notes)
    return study


def _missing(values: Array) -> Array:
    return np.where(values == NO_VALUE, np.nan, values)


def _table(fields: MatFields, name: str, columns: int, where: Path, rows: int | None = None) -> Array | None:
    """A field of shape (n, columns), or None where there is none; NaN and -10000 both mean no value."""
    if name not in fields:
        return None
    array = fields[name]
    if array.ndim != 2 or array.shape[1] != columns or array.dtype.kind not in "fiub" or (rows is not None and len(array) != rows):
        expected = f"({rows if rows is not None else 'n'}, {columns})"
        raise InputError(where, name, f"has shape {array.shape}, {expected} is needed", AGAIN)
    return _finite(_missing(np.array(array, np.float64)), name, where)


def _finite(values: Array, name: str, where: Path) -> Array:
    if np.isinf(values).any():
        raise InputError(where, name, "is infinite somewhere", AGAIN)
    return values


def _column(fields: MatFields, name: str, n: int, where: Path) -> Array:
    if name not in fields:
        return np.full(n, np.nan)
    array = fields[name]
    if array.size != n or array.dtype.kind not in "fiub":
        raise InputError(where, name, f"has {array.size} values for {n} points", AGAIN)
    return _finite(_missing(np.array(array, np.float64).ravel()), name, where)


def _surface(fields: MatFields, where: Path) -> Surface:
    points, faces = (
        next((fields[f"surface.triRep.{name}"] for name in names if f"surface.triRep.{name}" in fields), None)
        for names in (("X", "Points"), ("Triangulation", "ConnectivityList"))
    )
    if points is None or faces is None:
        problem = "is not there as a struct with X and Triangulation (a MATLAB object cannot be read)"
        raise InputError(where, "surface.triRep", problem, "unpack it in MATLAB with openep_updateuserdata, and save it with -v7")
    for name, array in (("X", points), ("Triangulation", faces)):
        if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
            raise InputError(where, f"surface.triRep.{name}", f"has shape {array.shape}, (n, 3) is needed", AGAIN)
    nodes = np.array(faces, np.float64)
    if not np.isfinite(nodes).all() or (nodes != np.rint(nodes)).any() or nodes.min() < 1 or nodes.max() > len(points):
        problem = f"vertex numbers are not whole numbers from 1 to {len(points)}"
        raise InputError(where, "surface.triRep.Triangulation", problem, "MATLAB counts from one: save it again")
    n = len(points)
    data: dict[str, Array] = {}
    for name, columns in (("act_bip", ("lat_ms", "bipolar_mv")), ("uni_imp_frc", ("unipolar_mv", "impedance_ohm", "force_g"))):
        table = _table(fields, f"surface.{name}", len(columns), where, n)
        if table is not None:
            data |= {key: values.copy() for key, values in zip(columns, table.T, strict=True) if np.isfinite(values).any()}
    return checked(Surface(np.array(points, np.float64), index_array(nodes - 1, where), data), where)


def _rate(fields: MatFields, where: Path) -> float:
    if "electric.sampleFrequency" not in fields:
        return RATE_HZ
    given = np.asarray(fields["electric.sampleFrequency"]).ravel()
    rate = float(given[0]) if given.size == 1 and given.dtype.kind in "fiu" else float("nan")
    if not 100.0 <= rate <= 50_000.0:
        raise InputError(where, "electric.sampleFrequency", "is no rate in Hz", AGAIN)
    return rate


class MatRecordings:
    """Electrograms of an OpenEP file, rows of memory maps."""

    def __init__(self, fields: MatFields, n: int, rate_hz: float, reference_ms: Array, map_ms: Array, where: Path) -> None:
        self.fields, self.n, self.rate_hz, self.reference_ms, self.map_ms = fields, n, rate_hz, reference_ms, map_ms
        self.rows: dict[str, NDArray[Any]] = {}
        for name, key in (("bipolar", "egm"), ("unipolar", "egmUni"), ("reference", "egmRef")):
            if f"electric.{key}" in fields:
                array = fields[f"electric.{key}"]
                if array.ndim not in (2, 3) or len(array) != n or array.dtype.kind not in "fi":
                    raise InputError(where, f"electric.{key}", f"has shape {array.shape} for {n} points", AGAIN)
                self.rows[name] = array if array.ndim == 2 else array[:, :, 0]
        if len({array.shape[1] for array in self.rows.values()}) > 1:
            raise InputError(where, "electric", "electrograms of one point have unequal lengths", AGAIN)
        self._add_ecg(where)
        self.where = where

    def _add_ecg(self, where: Path) -> None:
        if "electric.ecg" not in self.fields or "electric.ecgNames" not in self.fields:
            return
        array, names = self.fields["electric.ecg"], [str(name) for name in np.asarray(self.fields["electric.ecgNames"]).ravel()]
        array = array[:, :, None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[0] != self.n or array.shape[2] != len(names) or array.dtype.kind not in "fi":
            raise InputError(where, "electric.ecg", f"has shape {array.shape} for {self.n} points and {len(names)} names", AGAIN)
        if self.rows and array.shape[1] != next(iter(self.rows.values())).shape[1]:
            raise InputError(where, "electric.ecg", "is not as long as the electrograms", AGAIN)
        if len(set(names)) != len(names):
            raise InputError(where, "electric.ecgNames", "names a lead twice", AGAIN)
        for k, name in enumerate(names):
            if name and name not in self.rows:
                self.rows[name[:40]] = array[:, :, k]

    def __len__(self) -> int:
        return self.n

    def read(self, index: int) -> Recording | None:
        """One point's electrograms, None where all its samples are missing. Raises InputError for single missing samples."""
        channels = {name: np.array(array[index], np.float64) for name, array in self.rows.items()}
        channels = {name: values for name, values in channels.items() if len(values) and not np.isnan(values).all()}
        if any(not np.isfinite(values).all() or np.abs(values).max() > MAX_MV for values in channels.values()):
            raise InputError(self.where, f"electric.egm row {index + 1}", "a sample is missing or impossible", AGAIN)
        if not channels:
            return None
        bipolar, unipolar, reference = (name if name in channels else "" for name in ("bipolar", "unipolar", "reference"))
        times = float(self.reference_ms[index]), float(self.map_ms[index])
        return Recording(self.rate_hz, channels, bipolar, unipolar, reference, *times)


def write_openep(path: Path, study: MappingStudy, progress: Progress | None = None) -> None:
    """Write a study as OpenEP `userdata` (v7), atomically; missing values are NaN. Raises InputError if it exceeds what v7 holds."""
    import scipy.io

    if study.surface is None:
        raise InputError(path, "surface", "the map has no shell, which an OpenEP file needs", "write CSV instead")
    electric, rate = _electric(path, study, progress)
    to_samples = rate / 1000.0
    reference, annotated = study.reference_ms, study.map_ms
    reference = np.where(np.isfinite(reference), reference, 0.0)
    annotated = np.where(np.isfinite(study.lat_ms), np.where(np.isfinite(annotated), annotated, reference + study.lat_ms), np.nan)
    electric["annotations"] = {
        "woi": study.window_ms * to_samples,
        "referenceAnnot": _upright(reference * to_samples),
        "mapAnnot": _upright(annotated * to_samples),
    }
    data, n = study.surface.point_data, len(study.surface.points_mm)

    def values(*names: str) -> Array:
        return np.stack([np.asarray(data.get(name, np.full(n, np.nan)), np.float64) for name in names], axis=1)

    surface = {
        "triRep": {"X": study.surface.points_mm, "Triangulation": study.surface.triangles.astype(np.float64) + 1.0},
        "act_bip": values("lat_ms", "bipolar_mv"),
        "uni_imp_frc": values("unipolar_mv", "impedance_ohm", "force_g"),
    }
    buffer: Any = io.BytesIO()
    scipy.io.savemat(buffer, {"userdata": {"surface": surface, "electric": electric}}, do_compression=True, oned_as="column")
    # scipy stamps the time into the free text of the header
    text = f"MATLAB 5.0 MAT-file, vtwin: {UNVERIFIED}"
    write_bytes(path, text.encode("ascii")[:116].ljust(116) + buffer.getvalue()[116:])


def _upright(values: Array) -> Array:
    return values.reshape(-1, 1)


def _electric(path: Path, study: MappingStudy, progress: Progress | None) -> tuple[dict[str, Any], float]:
    """Points, voltages and, where there are any, electrograms as (n, samples)."""
    n = len(study)
    first = next((found for k in range(n) if (found := study.recordings.read(k)) is not None), None)
    rate = first.fs_hz if first is not None else RATE_HZ
    out: dict[str, Any] = {
        "egmX": study.points_mm,
        "egmSurfX": study.surface_mm,
        "names": np.array([f"P{k}" for k in study.point_ids], dtype=object).reshape(-1, 1),
        "sampleFrequency": rate,
        "voltages": {"bipolar": _upright(study.bipolar_mv), "unipolar": _upright(study.unipolar_mv)},
    }
    if first is None:
        return out, rate
    samples = len(next(iter(first.channels.values())))
    leads = [name for name in first.channels if name not in (first.bipolar, first.unipolar, first.reference)]
    if n * samples * 4 * (3 + len(leads)) > MAX_WRITTEN:
        raise InputError(path, "electrograms", "exceed the 2 GB of a MATLAB v7 file", "write CARTO instead, or fewer points")
    kinds = {key: np.full((n, samples), np.nan, np.float32) for key in ("egm", "egmUni", "egmRef")}
    ecg = np.full((n, samples, len(leads)), np.nan, np.float32)
    for index, found in study.electrograms(progress):
        if found.fs_hz != rate or any(len(values) != samples for values in found.channels.values()):
            raise InputError(path, "electrograms", "are of unequal rate or length", "write CARTO instead")
        for key, name in (("egm", found.bipolar), ("egmUni", found.unipolar), ("egmRef", found.reference)):
            if name:
                kinds[key][index] = found.channels[name]
        for k, lead in enumerate(leads):
            ecg[index, :, k] = found.channels.get(lead, np.nan)
    out |= {key: values for key, values in kinds.items() if np.isfinite(values).any()}
    if leads:
        out |= {"ecg": ecg, "ecgNames": np.array(leads, dtype=object).reshape(-1, 1)}
    return out, rate
