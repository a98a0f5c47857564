"""What may be wrong with a study that reads well: axes, units, signs, exchanged columns, gains, lead order; and the choice among maps."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from twin.errors import InputError, Suspicious
from twin.io.ecg import check_ecg
from twin.io.notes import Notes
from twin.io.surfaces import Surface
from twin.patient import Ecg
from twin.study import MappingStudy, Recording

Array = NDArray[np.float64]
NEAR_MM, FAR_MM = 6.0, 15.0
"""Median distance of points to the shell: a beating wall moves by less than the first; beyond the second frames differ."""
ENOUGH = 20
MAX_EXTENT_MM, MAX_TIME_MS, MAX_MV, MAX_ANNOTATION_MS = 1000.0, 20_000.0, 1000.0, 120_000.0
SAMPLED = 8
"""Recordings that are looked at: a file is opened for each."""


def words_of(text: str) -> frozenset[str]:
    """Words of three letters or digits and more, in lower case."""
    return frozenset(word.lower() for word in re.split(r"[^0-9A-Za-z\u00c0-\u024f]+", text) if len(word) > 2)


def public_name(name: str, words: Iterable[str], place: int) -> str:
    """The name of a map as it may be shown: a word of the study's own name in it (a patient's, perhaps) hides it, its place is left."""
    clean = " ".join("".join(c for c in name if c.isprintable()).split())[:60]
    return f"map {place}" if not clean or words_of(name) & frozenset(words) else clean


def choose_map(names: Sequence[str], raw: Sequence[str], counts: Sequence[int], wanted: str | None, where: Path, notes: Notes) -> int:
    """Index of the wanted map ("LV", "#2"), or of the only one with points. Raises InputError when the choice is not clear."""
    listed = ", ".join(f"#{k} {name!r} ({count} points)" for k, (name, count) in enumerate(zip(names, counts, strict=True), start=1))
    if not names:
        raise InputError(where, "maps", "the study has no map", "export a study with a map")
    if wanted is None:
        filled = [k for k, count in enumerate(counts) if count]
        if len(filled) != 1:
            problem = f"the study has {len(filled)} maps with points" if filled else "no map has points"
            raise InputError(where, "map", problem, f'choose one, map = "NAME" or "#2": {listed[:600]}')
        return filled[0]
    if re.fullmatch(r"#\d{1,4}", wanted):
        place = int(wanted[1:]) - 1
        if not 0 <= place < len(names):
            raise InputError(where, "map", f"{wanted} is not in the list", f"maps: {listed[:600]}")
        return place
    for lower in (False, True):
        asked = wanted.lower() if lower else wanted
        found = [k for k, pair in enumerate(zip(names, raw, strict=True)) if asked in ([n.lower() for n in pair] if lower else pair)]
        if len(found) > 1:
            problem = f"{len(found)} maps are called so"
            notes.suspect("eam_map_names", where, "map", problem, 'choose by place, map = "#2"')
            return max(found, key=lambda k: counts[k])
        if found:
            return found[0]
    raise InputError(where, "map", "no map of this name", f"maps: {listed[:600]}")


def check_study(study: MappingStudy, where: Path, notes: Notes) -> None:
    """Contradictions within one map. Raises InputError; Suspicious unless accepted."""
    if not len(study):
        raise InputError(where, "points", "the map has no point", "export a map with points")
    if not np.isfinite(study.points_mm).all():
        raise InputError(where, "points", "a point has no position", "export the map again")
    _check_ranges(study, where)
    repeated = len(study) - len(np.unique(study.point_ids))
    if repeated:
        notes.suspect("eam_point_ids", where, "points", f"{repeated} numbers of points are used twice", "export the map again")
    if study.surface is not None:
        _check_frames(study.points_mm, study.surface, where, notes)
        _check_shell_times(study, study.surface, where, notes)
    _check_window(study, where, notes)
    _check_columns(study, where, notes)


def _check_ranges(study: MappingStudy, where: Path) -> None:
    """Single values that no heart has: a digit or a sign that was damaged."""
    extents = [("points", study.points_mm)] + ([("shell", study.surface.points_mm)] if study.surface is not None else [])
    for name, places in extents:
        if (
            float(np.ptp(places, axis=0).max()) > MAX_EXTENT_MM
            and float(np.ptp(np.percentile(places, [2, 98], axis=0), axis=0).max()) < 400.0
        ):
            raise InputError(where, name, "one of them lies far from all others", "export the map again")
    for name in ("reference_ms", "map_ms", "window_ms"):
        times = getattr(study, name)
        if np.isfinite(times).any() and np.nanmax(np.abs(times)) > MAX_ANNOTATION_MS:
            raise InputError(where, name, "is longer than any recording", "export the map again")
    fields = dict(study.surface.point_data) if study.surface is not None else {}
    for name in ("lat_ms", "bipolar_mv", "unipolar_mv"):
        low, high = (-MAX_TIME_MS, MAX_TIME_MS) if name == "lat_ms" else (0.0, MAX_MV)
        for values in (getattr(study, name), fields.get(name, np.zeros(0))):
            known = values[np.isfinite(values)]
            stray = (known < low) | (known > high)
            # all of them are a matter of units, which other checks name
            if 0 < stray.sum() < 0.1 * len(known):
                raise InputError(where, name, f"{int(stray.sum())} values are not between {low:g} and {high:g}", "export the map again")


def check_complete(has: NDArray[np.bool_], what: str, where: Path, notes: Notes) -> None:
    """What some points have and others lack is a sign of a file that was cut: Suspicious."""
    if has.any() and not has.all():
        problem = f"{int((~has).sum())} of {len(has)} points have none"
        notes.suspect("eam_incomplete", where, what, problem, "copy the whole export again")


def _distance(points: Array, tree: KDTree) -> float:
    return float(np.median(tree.query(points)[0]))


def _check_frames(points: Array, surface: Surface, where: Path, notes: Notes) -> None:
    """Points must lie at the shell; what they would need to do so is said."""
    tree = KDTree(surface.points_mm)
    here = _distance(points, tree)
    if here <= NEAR_MM:
        return
    best, what = here, ""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            there = _distance(points[:, order] * signs, tree)
            if there < best:
                best, what = there, "axes or signs of the points differ from the shell's"
    for scale in (0.001, 0.1, 10.0, 1000.0):
        there = _distance(points * scale, tree)
        if there < best:
            best, what = there, f"units differ by a factor of {1 / scale:g}"
    if here > FAR_MM or best < 0.5 * here:
        problem = f"points lie {here:.0f} mm from the shell (median)"
        problem += f": {what}, which would leave {best:.1f} mm" if best < 0.5 * here else ""
        notes.suspect("eam_off_surface", where, "points", problem, "export points and shell of one map, in mm")


def _check_shell_times(study: MappingStudy, surface: Surface, where: Path, notes: Notes) -> None:
    """Times on the shell are made of the points' times and must run the same way."""
    _, near = KDTree(surface.points_mm).query(study.points_mm)
    for name, code, problem in (
        ("lat_ms", "eam_lat_sign", "times of the points run against those of the shell"),
        ("bipolar_mv", "eam_voltages", "voltages of the points run against those of the shell"),
    ):
        shell = surface.point_data.get(name)
        if shell is None or shell.ndim != 1:
            continue
        both = np.isfinite(shell[near]) & np.isfinite(getattr(study, name))
        if both.sum() < ENOUGH:
            continue
        a, b = shell[near][both], getattr(study, name)[both]
        if np.ptp(a) > 0 and np.ptp(b) > 0 and float(np.corrcoef(a, b)[0, 1]) < -0.3:
            notes.suspect(code, where, name, problem, "export the map again")


def _check_window(study: MappingStudy, where: Path, notes: Notes) -> None:
    """Times lie within the window of interest and agree with the annotations."""
    lat, window = study.lat_ms, study.window_ms
    both = np.isfinite(lat) & np.isfinite(window).all(axis=1)
    if both.sum() >= ENOUGH:
        if (window[both, 0] >= window[both, 1]).any():
            raise InputError(where, "window", "ends before it begins", "export the map again")
        out = (lat[both] < window[both, 0] - 5.0) | (lat[both] > window[both, 1] + 5.0)
        if out.mean() > 0.3:
            problem = f"{100 * out.mean():.0f} % of the times lie outside the window of interest"
            notes.suspect("eam_window", where, "LAT", problem, "check sign and unit of the times")
    said = study.map_ms - study.reference_ms
    both = np.isfinite(lat) & np.isfinite(said)
    if both.sum() >= ENOUGH and (off := float(np.median(np.abs(lat - said)[both]))) > 2.0:
        turned = float(np.median(np.abs(lat + said)[both]))
        code = "eam_lat_sign" if turned < 0.5 * off else "eam_annotations"
        problem = f"times and annotations differ by {off:.0f} ms (median)" + (": the sign is turned" if code == "eam_lat_sign" else "")
        notes.suspect(code, where, "LAT", problem, "export the map again")


def _check_columns(study: MappingStudy, where: Path, notes: Notes) -> None:
    both = np.isfinite(study.bipolar_mv) & np.isfinite(study.unipolar_mv)
    if both.sum() < ENOUGH:
        return
    bipolar, unipolar = float(np.median(study.bipolar_mv[both])), float(np.median(study.unipolar_mv[both]))
    if bipolar > 1.5 * unipolar:
        problem = f"bipolar voltages ({bipolar:.2g} mV) exceed unipolar ones ({unipolar:.2g} mV): exchanged?"
        notes.suspect("eam_voltage_columns", where, "voltages", problem, "export the map again")


def check_recordings(study: MappingStudy, where: Path, notes: Notes) -> None:
    """A few recordings: amplitude against the stated voltage, limb leads against each other. Raises as `check_study`."""
    chosen = np.unique(np.linspace(0, len(study) - 1, SAMPLED).astype(int))
    ratios, seen_ecg = [], False
    for index in chosen.tolist():
        found = study.recordings.read(index)
        if found is None:
            continue
        stated = float(study.bipolar_mv[index])
        if found.bipolar and np.isfinite(stated) and stated > 0.02:
            ratios.append(_amplitude(found, study.window_ms[index]) / stated)
        if not seen_ecg and (ecg := study.leads or found.ecg()) is not None:
            seen_ecg = True
            _check_leads(ecg, where, notes)
    if len(ratios) >= 3 and not 0.1 <= (middle := float(np.median(ratios))) <= 10.0:
        problem = f"bipolar electrograms are {middle:.3g} times the stated voltages"
        notes.suspect("egm_gain", where, "electrograms", problem, "check the gain in the header")


def _check_leads(ecg: Ecg, where: Path, notes: Notes) -> None:
    """Limb leads against each other; an ECG that cannot be used at all spoils no map."""
    try:
        check_ecg(ecg, where, notes)
    except Suspicious:
        raise
    except InputError as error:
        notes.add(f"the surface ECG in the study cannot be used: {error.field}: {error.problem}")


def _amplitude(recording: Recording, window_ms: Array) -> float:
    trace = recording.channels[recording.bipolar]
    if np.isfinite(window_ms).all() and np.isfinite(recording.reference_ms):
        at = np.clip((recording.reference_ms + window_ms) * recording.fs_hz / 1000.0, 0, len(trace)).astype(int)
        trace = trace[at[0] : at[1] + 1] if at[1] > at[0] else trace
    return float(np.ptp(trace)) if len(trace) else float("nan")
