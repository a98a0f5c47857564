"""Names of the twelve leads in other formats, units of their samples, and what two leads say about the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.notes import Notes
from twin.params import Param
from twin.patient import LEADS, Ecg

Array = NDArray[np.float64]

FS_HZ = (100.0, 2000.0)
MAX_VALUES = 60_000_000
"""Samples times channels that one recording may hold: 12 leads at 1 kHz for more than an hour, 480 MB."""

_SPOKEN = {"D1": "I", "DI": "I", "D2": "II", "DII": "II", "D3": "III", "DIII": "III", "1": "I", "2": "II", "3": "III"}
_MILLIVOLTS = {
    "mv": 1.0,
    "millivolt": 1.0,
    "uv": 1e-3,
    "\u00b5v": 1e-3,
    "\u03bcv": 1e-3,
    "microvolt": 1e-3,
    "v": 1e3,
    "volt": 1e3,
    "nv": 1e-6,
}
P_WAVE_MV = Param(0.02, "mV", 0.01, 0.04, "chosen here: a P wave below it has no sure direction")
DETOUR = Param(1.35, "1", 1.2, 2.0, "chosen here: the chest leads in another order change this much more smoothly")


def lead_name(text: str) -> tuple[str, float]:
    """Lead and sign that a name means ("-aVR" is aVR upside down), ("", 1.0) if it is none of the twelve."""
    plain = re.sub(r"MDC_ECG_LEAD_|\(.*\)|LEAD|ECG|EKG|[\s_.:]", "", text.upper())
    sign = -1.0 if plain.startswith("-") else 1.0
    plain = plain.lstrip("-+")
    plain = _SPOKEN.get(plain, re.sub(r"^C(?=[1-6]$)", "V", plain))
    return next(((lead, sign) for lead in LEADS if lead.upper() == plain), ("", 1.0))


def millivolts(unit: str, where: Path, field: str) -> float:
    """mV per unit of a voltage unit. Raises InputError for any other unit."""
    factor = _MILLIVOLTS.get(unit.strip().lower())
    if factor is None:
        raise InputError(where, field, f"unit {unit.strip()[:20]!r} is no voltage", "give mV, uV or V")
    return factor


def check_rate(fs_hz: float, where: Path, field: str) -> float:
    """The sampling rate if it is one of an ECG. Raises InputError."""
    if not (np.isfinite(fs_hz) and FS_HZ[0] <= fs_hz <= FS_HZ[1]):
        raise InputError(where, field, f"{fs_hz:.6g} Hz", f"an ECG is sampled at {FS_HZ[0]:g} to {FS_HZ[1]:g} Hz: correct it or resample")
    return float(fs_hz)


def twelve(channels: Mapping[str, Array], fs_hz: float, where: Path, notes: Notes, rhythm: str = "sinus") -> Ecg:
    """The twelve leads among named channels (n,) mV; limb leads that follow from I and II are computed, other channels left out.

    Keeps the longest stretch in which all leads are finite. Raises InputError for doubled and missing leads.
    """
    check_rate(fs_hz, where, "sampling rate")
    found: dict[str, Array] = {}
    others = 0
    for name, values in channels.items():
        lead, sign = lead_name(name)
        if not lead:
            others += 1
            continue
        if lead in found:
            raise InputError(where, lead, "there are two leads of this name", "export one recording")
        found[lead] = sign * values
    if len({len(values) for values in found.values()}) > 1:
        raise InputError(where, "leads", "are not equally long", "export it again")
    _derive(found, where, notes)
    missing = [lead for lead in LEADS if lead not in found]
    if missing:
        raise InputError(where, "leads", f"missing {', '.join(missing)}", "give a 12-lead recording")
    if others:
        notes.add(f"{where.name}: {others} channels that are none of the twelve leads were left out")
    start, end = _recorded(np.all([np.isfinite(found[lead]) for lead in LEADS], axis=0), where)
    if end - start < len(found["I"]):
        notes.add(f"{where.name}: leads are missing at times; {(end - start) / fs_hz:.2f} s in which all are recorded were kept")
    return Ecg({lead: np.ascontiguousarray(found[lead][start:end], np.float64) for lead in LEADS}, fs_hz, rhythm)


def _derive(found: dict[str, Array], where: Path, notes: Notes) -> None:
    if "I" not in found or "II" not in found:
        return
    i, ii = found["I"], found["II"]
    rules = {"III": lambda: ii - i, "aVR": lambda: -(i + ii) / 2, "aVL": lambda: i - ii / 2, "aVF": lambda: ii - i / 2}
    made = [lead for lead in rules if lead not in found]
    for lead in made:
        found[lead] = rules[lead]()
    if made:
        notes.add(f"{where.name}: {', '.join(made)} were computed from I and II")


def _recorded(good: NDArray[np.bool_], where: Path) -> tuple[int, int]:
    """The longest run of True, [start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(np.int8)))
    if not len(edges):
        raise InputError(where, "leads", "are never all recorded at one time", "give a stretch in which all leads are recorded")
    starts, ends = edges[::2], edges[1::2]
    best = int(np.argmax(ends - starts))
    return int(starts[best]), int(ends[best])


def doubts(ecg: Ecg) -> list[tuple[str, str, str]]:
    """What is improbable about the order of leads of a sinus rhythm: (code, problem, remedy).

    Exchanged limb electrodes keep Einthoven's rules, but turn the P wave of I or II over while that of V6 stays upright (Batchvarov
    2007, Europace 9:1081). Chest leads in another order change less smoothly from one to the next than in a better order.
    """
    out = [("ecg_limb_reversal", problem, "record it again, or exchange the leads back")] if (problem := _limb_reversal(ecg)) else []
    leads = ecg.array()
    leads = leads - np.median(leads, axis=1, keepdims=True)
    # the QRS alone: the fastest tenth of the samples
    speed = np.sqrt((np.gradient(leads, axis=1) ** 2).sum(axis=0))
    wide = np.convolve(speed, np.ones(max(3, round(0.06 * ecg.fs_hz))), "same")
    qrs = dict(zip(LEADS, leads[:, wide >= np.quantile(wide, 0.9)], strict=True))
    chest = np.stack([qrs[f"V{k}"] for k in range(1, 7)])
    unit = chest / np.maximum(np.linalg.norm(chest, axis=1, keepdims=True), 1e-12)
    step = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    paths = {order: sum(step[a, b] for a, b in pairwise(order)) for order in permutations(range(6)) if order[0] < order[-1]}
    best = min(paths, key=lambda order: paths[order])
    if paths[0, 1, 2, 3, 4, 5] > float(DETOUR) * paths[best] + 0.1:
        smooth = " ".join(f"V{k + 1}" for k in best)
        out.append(
            ("ecg_lead_order", f"the chest leads would change more smoothly in the order {smooth}", "put the leads under their names")
        )
    return out


def _limb_reversal(ecg: Ecg) -> str:
    """What is wrong with the P waves of the limb leads; "" without two beats or a P wave."""
    from twin.signals.delineate import delineate

    found = delineate(ecg) if len(ecg.time_ms) > ecg.fs_hz else None
    if found is None or len(found.places_ms) < 2 or not np.isfinite(found.templates[0].waves.p_peak_ms):
        return ""
    template = found.templates[0]
    peak, onset = int(template.waves.p_peak_ms), int(template.waves.qrs_onset_ms)
    heights = template.mean[:, max(0, peak - 10) : peak + 11].mean(axis=1) - template.mean[:, max(0, onset - 10) : onset].mean(axis=1)
    p_wave = dict(zip(LEADS, heights.tolist(), strict=True))
    size = float(P_WAVE_MV) if not ecg.normalised else 0.2 * float(np.abs(heights).max())
    for lead, what in (("I", "arm electrodes"), ("II", "right arm and leg electrodes")):
        if p_wave[lead] < -size and p_wave["V6"] > 0.5 * size:
            return f"the P wave is upside down in {lead} and upright in V6: {what} exchanged?"
    return ""
