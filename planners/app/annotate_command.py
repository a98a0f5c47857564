"""`vtwin annotate`: a mapping study's points annotated anew from their electrograms, as a map, a table of features and a picture."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from planners.app.console import Console
from planners.app.output import claim, finish
from twin.atomic import write_bytes, write_json
from twin.errors import InputError
from twin.io.eam import SURFACES, write_eam
from twin.io.notes import Notes
from twin.io.source import did_you_mean
from twin.io.studies import read_study
from twin.io.table import write_table
from twin.run import RunRecord, content_hash
from twin.signals.ilam import Isochrones, ilam
from twin.signals.reannotate import Reannotated, reannotate
from twin.study import MappingStudy

NEAR_MM = 7.0
"""A vertex of the shell takes the time of the nearest point within this distance."""

FEATURES = ("lat_unipolar_ms", "lat_bipolar_ms", "bipolar_mv", "unipolar_mv", "ari_ms", "duration_ms", "late_ms", "quality")


def annotate(source: Path, out: Path, console: Console, map_name: str | None, surface: str, fresh: bool) -> int:
    """Write map.csv (for [eam] of a case), points.csv, annotate.json, annotate.png and run.json."""
    if surface not in SURFACES:
        raise InputError("command line", "--surface", f"{surface!r} is not known", did_you_mean(surface, SURFACES))
    notes = Notes()
    study = read_study(source, map_name, notes)
    inputs, settings = {"study": content_hash(source)}, {"map": study.name, "surface": surface}
    identity = {"command": "annotate", "inputs": inputs, "settings": settings}
    claim(out, identity, fresh)
    found = reannotate(study, source, lambda what, done, total: console.bar(done, total, what))
    again = found.study(study)
    write_eam(out / "map.csv", again.eam(surface))
    _write_points(out / "points.csv", study, found)
    crowded = _isochrones(again)
    value: dict[str, Any] = {"system": study.system, "points": len(study), **found.summary(), "deceleration_zones": _zones(crowded)}
    write_json(out / "annotate.json", value | {"notes": notes.lines})
    write_bytes(out / "annotate.png", _picture(study, found))
    finish(out, identity, asdict(RunRecord("annotate", 0, inputs, settings, {})))
    console.result(value | {"out": str(out)}, [*_lines(value), *notes.lines, f"map:    {out / 'map.csv'}", f"points: {out / 'points.csv'}"])
    return 0


def _write_points(path: Path, study: MappingStudy, found: Reannotated) -> None:
    at = found.points
    x, y, z = study.points_mm[at].T
    columns = {"point": study.point_ids[at].astype(np.float64), "x_mm": x, "y_mm": y, "z_mm": z, "system_lat_ms": study.lat_ms[at]}
    columns |= {name: getattr(found.found, name) for name in FEATURES}
    columns |= {name: getattr(found.found, name).astype(np.float64) for name in ("deflections", "isolated", "fractionated")}
    write_table(path, "points", {"units": "mm, ms, mV; times after the reference"}, columns, 3)


def _isochrones(study: MappingStudy) -> Isochrones | None:
    """Isochrones of the new times on the system's shell; None without a shell or enough times."""
    timed = np.isfinite(study.lat_ms)
    if study.surface is None or timed.sum() < 10:
        return None
    away, near = cKDTree(study.points_mm[timed]).query(study.surface.points_mm)
    return ilam(study.surface.points_mm, study.surface.triangles, np.where(away <= NEAR_MM, study.lat_ms[timed][near], np.nan))


def _zones(crowded: Isochrones | None) -> list[dict[str, Any]] | None:
    if crowded is None:
        return None
    return [
        {"centre_mm": np.round(zone.centre_mm, 1).tolist(), "isochrones_within_1_cm": zone.crowding, "isochrones": list(zone.isochrones)}
        for zone in crowded.zones
    ]


def _lines(value: dict[str, Any]) -> list[str]:
    late = value["late_potentials"]
    moved = value["median_difference_ms"]
    zones = value["deceleration_zones"]
    recorded, total = value["points_with_electrogram"], value["points"]
    lines = [f"{value['system']}: {recorded} of {total} points have an electrogram, {value['with_time']} a time"]
    if moved is not None:
        lines.append(
            f"new times are {moved:+g} ms from the system's (median); {value['differ_by_more_than_20_ms']} differ by more than 20 ms"
        )
    lines.append(
        f"{'late potentials not told (no 12-lead ECG)' if late is None else f'{late} late'}, {value['isolated_potentials']} isolated, "
        f"{value['fractionated']} fractionated; {value['low_quality']} of low quality"
    )
    if value["median_ari_ms"] is not None:
        lines.append(f"activation-recovery interval {value['median_ari_ms']:g} ms (median of {value['with_recovery']})")
    if zones is not None:
        lines.append(f"{len(zones)} deceleration zones")
    return lines


def _picture(study: MappingStudy, found: Reannotated) -> bytes:
    """New times in space with late and fractionated points marked, and new against the system's times, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=120, layout="constrained")
    space = figure.add_subplot(1, 2, 1, projection="3d")
    points, times = study.points_mm[found.points], found.found.lat_ms
    known = np.isfinite(times)
    seen = space.scatter(*points[known].T, c=times[known], cmap="cividis", s=14, depthshade=False)
    for name, mask, colour in (("late", found.found.late_ms > 0, "#d55e00"), ("fractionated", found.found.fractionated, "#009e73")):
        mask = mask & known
        if mask.any():
            space.scatter(*points[mask].T, facecolors="none", edgecolors=colour, s=46, label=name, depthshade=False)
            space.legend(loc="upper left", fontsize=8)
    space.set_xlabel("x, mm")
    space.set_ylabel("y, mm")
    space.set_title("activation time after the reference, ms", fontsize=10)
    figure.colorbar(seen, ax=space, shrink=0.7)
    plane = figure.add_subplot(1, 2, 2)
    system = study.lat_ms[found.points]
    plane.plot(system, times, ".", color="#0072b2", markersize=4)
    both = np.isfinite(system) & known
    if both.any():
        ends = [float(min(system[both].min(), times[both].min())), float(max(system[both].max(), times[both].max()))]
        plane.plot(ends, ends, color="#999999", linewidth=1)
    plane.set_xlabel("the system's time, ms")
    plane.set_ylabel("new time, ms")
    plane.set_title("new against the system's annotation", fontsize=10)
    held = io.BytesIO()
    figure.savefig(held, format="png", metadata={"Software": None})
    return held.getvalue()
