"""Electroanatomical maps: vtwin's CSV (`# vtwin-eam 1`), any mapping system's export as one, and the checks that any map must pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.notes import Notes
from twin.io.source import did_you_mean
from twin.io.table import read_table, write_table
from twin.mesh import WALLS
from twin.patient import ElectroanatomicalMap
from twin.volume import LabelVolume

SURFACES = (*WALLS, "all")
"""What a map may lie on; "all" is the whole heart at once (a non-contact map, or another model's)."""
COLUMNS = ("x_mm", "y_mm", "z_mm", "lat_ms")
OPTIONAL = ("bipolar_mv", "unipolar_mv", "ari_ms")
MIN_POINTS = 20
MAGIC = b"# vtwin-eam"
CARTO_NO_VALUE = -10000.0


def _landmarks(meta: dict[str, str], where: Path) -> dict[str, NDArray[np.float64]]:
    found: dict[str, NDArray[np.float64]] = {}
    for key, text in meta.items():
        if not key.startswith("landmark."):
            continue
        try:
            point = np.array([float(word) for word in text.split()])
        except ValueError:
            point = np.zeros(0)
        if point.shape != (3,) or not np.isfinite(point).all():
            raise InputError(where, key, f"{text[:40]!r} is not a position", "write three numbers in mm: x y z")
        found[key.removeprefix("landmark.")] = point
    return found


def _given(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A column, or nothing where it was absent: it was read as missing everywhere."""
    return values if np.isfinite(values).any() else np.zeros(0)


def read_eam(path: Path, notes: Notes | None = None) -> ElectroanatomicalMap:
    """Read and check a map. Raises InputError (Suspicious for what the case may accept) for what cannot be used as it is."""
    meta, table = read_table(path, "eam", COLUMNS, OPTIONAL)
    for key in meta:
        if key not in ("surface", "rhythm", "units") and not key.startswith("landmark."):
            raise InputError(path, key, "unknown header key", did_you_mean(key, ("surface", "rhythm", "units", "landmark.<name>")))
    units = meta.get("units", "mm, ms, mV")
    if [word.strip() for word in units.split(",")] != ["mm", "ms", "mV"]:
        raise InputError(path, "units", f"{units[:40]!r}", "convert to mm, ms, mV")
    points = np.stack([table["x_mm"], table["y_mm"], table["z_mm"]], axis=1)
    eam = ElectroanatomicalMap(
        points,
        table["lat_ms"],
        table["bipolar_mv"],
        meta.get("surface", "lv_endo"),
        meta.get("rhythm", "sinus"),
        _landmarks(meta, path),
        _given(table["unipolar_mv"]),
        _given(table["ari_ms"]),
    )
    return check_eam(eam, path, notes or Notes())


def read_map(
    path: Path, notes: Notes, map_name: str | None = None, surface: str = "lv_endo", rhythm: str = "sinus", annotate: bool = False
) -> ElectroanatomicalMap:
    """The map in vtwin's CSV, or one map of a mapping system's export (CARTO, EnSite, OpenEP) or of a surface with values, checked.

    map_name: which map of a study with several; surface and rhythm: what an export does not say (a CSV says it itself); annotate: times,
    voltages and recovery from the export's electrograms (`twin.signals.reannotate`) in place of the system's own.
    Raises InputError, Suspicious.
    """
    from twin.io.studies import read_study

    if path.is_file() and path.suffix.lower() == ".csv":
        with open(path, "rb") as handle:
            start = handle.read(2000).lower()
        if b"export data element" not in start:
            if map_name is not None:
                raise InputError(path, "map", f"{map_name[:40]!r} is asked, but a CSV holds one map", "leave map out of [eam]")
            if annotate:
                raise InputError(path, "annotate", "is asked, but a CSV holds no electrograms", "leave annotate out of [eam]")
            return read_eam(path, notes)
    study = read_study(path, map_name, notes)
    timed, shell = int(np.isfinite(study.lat_ms).sum()), "with" if study.surface is not None else "without"
    notes.add(f"{study.system}: map {study.name!r} of {len(study)} points, {timed} with a time, {shell} shell")
    if annotate:
        from twin.signals.reannotate import reannotate

        again = reannotate(study, path)
        study, said = again.study(study), again.summary()
        moved = "" if said["median_difference_ms"] is None else f", {said['median_difference_ms']:g} ms later than the system's (median)"
        notes.add(f"annotated again from electrograms: {said['with_time']} times{moved}, {said['with_recovery']} recovery intervals")
    own = Notes(notes.accept)
    eam = check_eam(study.eam(surface, rhythm), path, own)
    for line in own.lines:
        notes.add(line.replace(path.name, f"{study.system} export"))
    return eam


def check_eam(eam: ElectroanatomicalMap, where: Path, notes: Notes) -> ElectroanatomicalMap:
    """Return the map without repeated points, after checks of counts, finiteness and units."""
    if eam.surface not in SURFACES:
        raise InputError(where, "surface", f"{eam.surface[:30]!r}", did_you_mean(eam.surface, SURFACES))
    if not np.isfinite(eam.points_mm).all():
        raise InputError(where, "x_mm", "a coordinate is missing or not finite", "remove the points that have no position")
    if (eam.lat_ms == CARTO_NO_VALUE).any() or (eam.bipolar_mv == CARTO_NO_VALUE).any():
        raise InputError(where, "lat_ms", "-10000 is CARTO's mark for no value", "leave the field empty where there is no value")
    rows = np.column_stack([eam.points_mm, np.nan_to_num(eam.lat_ms, nan=-1e9), np.nan_to_num(eam.bipolar_mv, nan=-1e9)])
    _, first = np.unique(rows, axis=0, return_index=True)
    keep = np.sort(first)
    repeated = len(rows) - len(keep)
    if repeated > 0.2 * len(rows):
        notes.suspect("eam_duplicates", where, "points", f"{repeated} of {len(rows)} points are repeated", "export each point once")
    elif repeated:
        notes.add(f"{where.name}: {repeated} repeated points were left out")
    further = {name: getattr(eam, name) for name in OPTIONAL[1:]}
    further = {name: values[keep] if len(values) == len(eam.points_mm) else np.zeros(0) for name, values in further.items()}
    eam = replace(eam, points_mm=eam.points_mm[keep], lat_ms=eam.lat_ms[keep], bipolar_mv=eam.bipolar_mv[keep], **further)
    annotated = int(np.isfinite(eam.lat_ms).sum())
    if annotated < MIN_POINTS:
        raise InputError(
            where, "lat_ms", f"only {annotated} points carry a time", f"at least {MIN_POINTS} are needed; leave the map out otherwise"
        )
    _check_extent(eam, where, notes)
    _check_times(eam, where, notes)
    _check_voltage(eam, where)
    return eam


def _check_extent(eam: ElectroanatomicalMap, where: Path, notes: Notes) -> None:
    extent = float(np.ptp(eam.points_mm, axis=0).max())
    if extent < 1.0:
        raise InputError(where, "x_mm", f"the map is {extent:.2g} mm wide: it looks like metres", "multiply coordinates by 1000")
    if extent > 400.0:
        raise InputError(
            where, "x_mm", f"the map is {extent:.0f} mm wide: it looks like micrometres or a stray point", "write coordinates in mm"
        )
    if extent < 20.0 or extent > 200.0:
        notes.suspect(
            "eam_extent", where, "x_mm", f"the map is {extent:.0f} mm wide, a ventricle has 40 to 150 mm", "write coordinates in mm"
        )


def _check_times(eam: ElectroanatomicalMap, where: Path, notes: Notes) -> None:
    lat = eam.lat_ms[np.isfinite(eam.lat_ms)]
    span = float(np.ptp(lat))
    if span == 0.0:
        raise InputError(where, "lat_ms", "all times are equal", "export the annotated activation times")
    if span < 1.0:
        raise InputError(where, "lat_ms", f"times span {span:.3g} ms: they look like seconds", "multiply lat_ms by 1000")
    if span > 5000.0:
        raise InputError(where, "lat_ms", f"times span {span:.0f} ms: they look like microseconds", "divide lat_ms by 1000")
    if span < 15.0 or span > 600.0:
        notes.suspect(
            "eam_lat_span", where, "lat_ms", f"times span {span:.0f} ms, one beat takes 40 to 400", "check the window of interest"
        )


def _check_voltage(eam: ElectroanatomicalMap, where: Path) -> None:
    volts = eam.bipolar_mv[np.isfinite(eam.bipolar_mv)]
    if not volts.size:
        return
    if volts.min() < 0:
        raise InputError(where, "bipolar_mv", "a peak-to-peak amplitude is negative", "give peak-to-peak amplitudes in mV")
    high = float(np.percentile(volts, 95))
    if high > 100.0:
        raise InputError(where, "bipolar_mv", f"95th percentile {high:.0f} mV: it looks like microvolts", "divide bipolar_mv by 1000")
    if 0.0 < high < 0.05:
        raise InputError(where, "bipolar_mv", f"95th percentile {high:.2g} mV: it looks like volts", "multiply bipolar_mv by 1000")


def near_blood(volume: LabelVolume, points_mm: NDArray[np.float64], surface: str, within_mm: float) -> NDArray[np.bool_]:
    """Which points (n, 3) LPS mm lie within `within_mm` of the blood pool that an endocardial surface bounds, (n,) bool.

    For maps of a whole heart's surface, of which a catheter can reach one chamber.
    """
    from scipy.ndimage import distance_transform_edt

    blood = volume.mask("lv_blood" if surface == "lv_endo" else "rv_blood")
    distance = distance_transform_edt(~blood, sampling=volume.spacing_mm)
    index = np.rint(volume.to_ijk(points_mm)).astype(np.int64)
    inside = ((index >= 0) & (index < np.array(blood.shape))).all(axis=1)
    out = np.zeros(len(points_mm), bool)
    out[inside] = distance[tuple(index[inside].T)] <= within_mm
    return out


def write_eam(path: Path, eam: ElectroanatomicalMap) -> None:
    """Write a map as CSV: micrometres, microseconds and microvolts are kept; columns that it does not have are left out."""
    meta = {"surface": eam.surface, "rhythm": eam.rhythm, "units": "mm, ms, mV"}
    meta |= {f"landmark.{name}": " ".join(f"{x:.3f}" for x in point) for name, point in sorted(eam.landmarks.items())}
    x, y, z = eam.points_mm.T
    columns = {"x_mm": x, "y_mm": y, "z_mm": z, "lat_ms": eam.lat_ms, "bipolar_mv": eam.bipolar_mv}
    columns |= {name: values for name in OPTIONAL[1:] if len(values := getattr(eam, name)) == len(eam.points_mm)}
    write_table(path, "eam", meta, columns, 3)
