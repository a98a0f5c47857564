"""What a reader takes from a delineated ECG: intervals, axis, which beats are ventricular, tachycardia, where a wide beat comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.params import Param
from twin.patient import LEADS
from twin.signals.delineate import Delineation, Template

Array = NDArray[np.float64]

_AXIS = "Surawicz 2009 (AHA/ACCF/HRS recommendations III, Circulation 119:e235): adult frontal QRS axis"
AXIS_LEFT = Param(-30.0, "degrees", -30.0, -30.0, _AXIS + ", left of it is left deviation")
AXIS_RIGHT = Param(90.0, "degrees", 90.0, 90.0, _AXIS + ", beyond it is right deviation")
WIDE_MS = Param(120.0, "ms", 110.0, 130.0, "Surawicz 2009 (Circulation 119:e235): complete block, hence a wide QRS, from 120 ms")
FAST_MS = Param(
    600.0, "ms", 500.0, 600.0, "ventricular tachycardia is three beats or more faster than 100 /min (Al-Khatib 2018, Circulation 138:e272)"
)
RUN = 3
PREMATURE = Param(0.87, "1", 0.8, 0.92, "chosen here: share of the usual interval before a premature beat")
PACED_MS = Param(60.0, "ms", 40.0, 100.0, "chosen here: longest time from a pacing spike to the QRS that it makes")


@dataclass(frozen=True)
class KindFeatures:
    """One kind of beats: label is dominant, ventricular, paced or supraventricular; amplitudes of the QRS by lead in mV, area in mV ms."""

    label: str
    beats: int
    qrs_ms: float
    qt_ms: float
    axis_degrees: float
    axis: str
    bundle: str
    net_mv_ms: Mapping[str, float]
    r_mv: Mapping[str, float]
    s_mv: Mapping[str, float]


@dataclass(frozen=True)
class Features:
    """rate_bpm of the whole recording (NaN below two beats); kinds as the delineation's templates; vt: (first beat, beats, cycle in ms)."""

    rate_bpm: float
    kinds: tuple[KindFeatures, ...]
    vt: tuple[tuple[int, int, float], ...]
    ventricular_beats: tuple[int, ...]


@dataclass(frozen=True)
class ExitRegion:
    """Where a wide beat leaves the scar or begins, by the QRS's polarity alone; certainty 0.5 (cannot be told) to 1 for each word."""

    side: str
    wall: str
    height: str
    lateral: str
    certainty: Mapping[str, float]


def features(found: Delineation) -> Features:
    """Intervals, axis and kind of every template, and runs of ventricular tachycardia."""
    rr = found.rr_ms
    labels = _labels(found)
    kinds = tuple(_kind(template, label) for template, label in zip(found.templates, labels, strict=True))
    wide = np.array([labels[k] in ("ventricular", "dominant") and kinds[k].qrs_ms >= float(WIDE_MS) for k in found.kinds], bool)
    # P waves ahead of wide beats mean a block, unless narrower beats show that these are others: then the T wave before is taken for a P
    other = np.array([labels[k] == "ventricular" for k in found.kinds], bool)
    no_p = np.array([not np.isfinite(w.p_peak_ms) for w in found.waves], bool)
    vt = _runs(found, wide & (no_p | other))
    in_vt = {k for first, count, _ in vt for k in range(first, first + count)}
    ventricular = sorted(in_vt | {i for i, k in enumerate(found.kinds) if labels[k] == "ventricular"})
    return Features(60000.0 / float(np.mean(rr)) if len(rr) else float("nan"), kinds, vt, tuple(ventricular))


def _labels(found: Delineation) -> list[str]:
    """Label of every template: the most frequent is dominant unless a narrower one is there as well, a fifth as often."""
    templates = found.templates
    if not templates:
        return []
    often = [k for k, t in enumerate(templates) if len(t.places_ms) * 5 >= len(templates[0].places_ms) and len(t.places_ms) >= RUN]
    home = min(often, key=lambda k: templates[k].waves.qrs_ms) if often else 0
    usual = float(np.median(found.rr_ms)) if len(found.rr_ms) else float("nan")
    out = []
    for k, template in enumerate(templates):
        if _paced(template, found.cleaned.spikes_ms):
            out.append("paced")
        elif k == home:
            out.append("dominant")
        elif template.waves.qrs_ms >= max(float(WIDE_MS), templates[home].waves.qrs_ms + 20.0):
            out.append("ventricular")
        else:
            early = [found.rr_ms[i - 1] < float(PREMATURE) * usual for i in np.flatnonzero(found.kinds == k) if i > 0]
            out.append("supraventricular" if early and np.mean(early) > 0.5 else "dominant")
    return out


def _paced(template: Template, spikes_ms: Array) -> bool:
    """True if most beats of a kind follow a pacing spike."""
    if not len(spikes_ms):
        return False
    onset = template.places_ms - template.before_ms + template.waves.qrs_onset_ms
    delay = onset[:, None] - spikes_ms[None]
    return bool(((delay > -15.0) & (delay < float(PACED_MS))).any(axis=1).mean() > 0.5)


def _runs(found: Delineation, wide: NDArray[np.bool_]) -> tuple[tuple[int, int, float], ...]:
    out = []
    start = 0
    for i in range(1, len(wide) + 1):
        chained = i < len(wide) and wide[i] and wide[start] and found.rr_ms[i - 1] < float(FAST_MS)
        if chained:
            continue
        if i - start >= RUN and wide[start]:
            out.append((start, i - start, float(np.median(found.rr_ms[start : i - 1]))))
        start = i
    return tuple(out)


def _kind(template: Template, label: str) -> KindFeatures:
    if not np.isfinite(template.waves.qrs_ms):
        none = dict.fromkeys(LEADS, float("nan"))
        return KindFeatures(label, len(template.places_ms), float("nan"), float("nan"), float("nan"), "", "", none, none, none)
    qrs = template.qrs()
    area = dict(zip(LEADS, qrs.sum(axis=1).tolist(), strict=True))
    high, low = (dict(zip(LEADS, f(qrs, axis=1).tolist(), strict=True)) for f in (np.max, np.min))
    degrees = frontal_axis_degrees(area)
    waves = template.waves
    return KindFeatures(
        label, len(template.places_ms), waves.qrs_ms, waves.qt_ms, degrees, axis_name(degrees), _bundle(qrs, waves.qrs_ms), area, high, low
    )


def _bundle(qrs: Array, qrs_ms: float) -> str:
    """Right or left bundle branch block pattern of a wide QRS: the sign of the last third in V1 (Surawicz 2009)."""
    if qrs_ms < float(WIDE_MS):
        return ""
    late = qrs[LEADS.index("V1"), -qrs.shape[1] // 3 :]
    return "right" if late.mean() > 0 else "left"


def frontal_axis_degrees(net: Mapping[str, float]) -> float:
    """Axis of a net QRS (area or amplitude by lead) in Einthoven's triangle: I across, (II + III) / sqrt 3 down; NaN if both vanish."""
    across, down = net["I"], (net["II"] + net["III"]) / np.sqrt(3.0)
    size = max(abs(value) for value in net.values())
    return float(np.degrees(np.arctan2(down, across))) if np.hypot(across, down) > 1e-9 * max(size, 1e-300) else float("nan")


def axis_name(degrees: float) -> str:
    """Class of a frontal axis; "" for NaN."""
    if not np.isfinite(degrees):
        return ""
    if float(AXIS_LEFT) <= degrees <= float(AXIS_RIGHT):
        return "normal"
    if -90.0 <= degrees < float(AXIS_LEFT):
        return "left"
    return "right" if degrees > float(AXIS_RIGHT) else "extreme"


def exit_region(qrs: Array) -> ExitRegion:
    """Region of origin of a wide beat from its QRS (12, t) mV against its onset.

    Rules as published for ventricular tachycardia after infarction (Miller 1988, Circulation 77:759; Segal 2007, JCE 18:161):
    right bundle pattern in V1: LV, else septum or RV; upright II, III, aVF: anterior, else inferior; upright V4: base, else apex;
    negative I and aVL: lateral, else septal. A certainty is how one-sided the area of those leads is.
    """
    share = {}
    for lead, values in zip(LEADS, qrs, strict=True):
        total = float(np.abs(values).sum())
        share[lead] = float(values.sum()) / total if total > 0 else 0.0
    v1, inferior = share["V1"], float(np.mean([share["II"], share["III"], share["aVF"]]))
    height, across = float(np.mean([share["V3"], share["V4"]])), float(np.mean([share["I"], share["aVL"]]))
    words = {
        "side": ("LV" if v1 > 0 else "septum or RV", v1),
        "wall": ("anterior" if inferior > 0 else "inferior", inferior),
        "height": ("base" if height > 0 else "apex", height),
        "lateral": ("septal" if across > 0 else "lateral", across),
    }
    certainty = {name: round(0.5 + 0.5 * abs(value), 3) for name, (_, value) in words.items()}
    return ExitRegion(words["side"][0], words["wall"][0], words["height"][0], words["lateral"][0], certainty)
