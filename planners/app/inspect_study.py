"""What `vtwin inspect` says of a mapping system's export: each map with points, its counts, ranges, shell and recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from planners.app.inspect_registry import Findings
from planners.app.inspect_values import accepting, of_map, ranges
from twin.io.carto import is_carto, list_maps
from twin.io.ensite import is_ensite
from twin.io.studies import read_study
from twin.study import UNVERIFIED, MappingStudy


def is_study(path: Path, start: bytes) -> bool:
    """True for a CARTO or EnSite export, as folder, archive or file."""
    return is_carto(path) or is_ensite(path)


def read_study_file(path: Path) -> Any:
    """Findings for each map with points. Raises InputError."""
    if not is_carto(path):
        return _findings(path, None)
    maps = list_maps(path)
    filled = [k for k, (_, count) in enumerate(maps, start=1) if count]
    if len(filled) < 2:
        return _findings(path, None)
    return tuple(_findings(path, f"#{k}") for k in filled)


def _findings(path: Path, name: str | None) -> Findings:
    study, doubts = accepting(lambda where, notes: read_study(where, name, notes), path)
    found = of_map(study.eam())
    facts = {"system": study.system, "map": study.name, **found.facts}
    # of an export neither is known
    facts.pop("surface"), facts.pop("rhythm")
    facts["values"] = ranges({key: getattr(study, key) for key in ("lat_ms", "bipolar_mv", "unipolar_mv")})
    return Findings("map of a mapping system", facts | _more(study), (*doubts, *found.suspicious), found.shown)


def _more(study: MappingStudy) -> dict[str, Any]:
    first = study.recordings.read(0) if len(study) else None
    facts: dict[str, Any] = {"labels": sorted(study.labels), "with_time": int(np.isfinite(study.lat_ms).sum())}
    if study.surface is not None:
        shell = study.surface
        facts["shell"] = {"points": len(shell.points_mm), "triangles": len(shell.triangles), "fields": sorted(shell.point_data)}
    if first is not None:
        samples = len(next(iter(first.channels.values())))
        facts["recordings"] = {"channels": len(first.channels), "samples": samples, "fs_hz": first.fs_hz}
    facts["surface_ecg"] = study.ecg() is not None
    facts["reader"] = UNVERIFIED
    return facts
