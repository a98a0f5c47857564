"""What `vtwin inspect` says of an electrocardiogram: leads and sampling, beats by kind, intervals, axis, tachycardia, doubts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from planners.app.inspect_registry import Findings
from planners.app.inspect_values import accepting, describe
from twin.io.ecg import read_ecg
from twin.patient import Ecg

MAX_KINDS = 5


def electrocardiogram(path: Path) -> Findings:
    """Facts of any format that `read_ecg` reads. Raises InputError."""
    ecg, doubts = accepting(read_ecg, path)
    found = describe(ecg, doubts)
    return Findings(found.what, {**found.facts, "beats": beats(ecg)}, found.suspicious, found.shown)


def beats(ecg: Ecg) -> dict[str, Any]:
    """Number and rate of the beats, the kinds of them with their intervals and axis, runs of ventricular tachycardia."""
    from twin.signals.delineate import delineate
    from twin.signals.features import features

    found = delineate(ecg)
    seen = features(found)
    facts: dict[str, Any] = {"count": len(found.places_ms)}
    if np.isfinite(seen.rate_bpm):
        facts["rate_bpm"] = round(seen.rate_bpm, 1)
    for k, kind in enumerate(seen.kinds[:MAX_KINDS]):
        values = {"beats": kind.beats, "qrs_ms": kind.qrs_ms, "qt_ms": kind.qt_ms, "axis_degrees": kind.axis_degrees}
        shown: dict[str, Any] = {name: round(value) for name, value in values.items() if np.isfinite(value)}
        facts[f"kind {k + 1}, {kind.label}"] = shown | ({"bundle": kind.bundle} if kind.bundle else {})
    for first, count, cycle in seen.vt:
        facts[f"wide fast run from beat {first + 1}"] = {"beats": count, "cycle_ms": round(cycle)}
    if len(found.cleaned.spikes_ms):
        facts["pacing_spikes"] = len(found.cleaned.spikes_ms)
    if np.isfinite(found.cleaned.mains_hz):
        facts["mains_hz"] = found.cleaned.mains_hz
    return facts
