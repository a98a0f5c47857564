"""The PATIENT.json of `vtwin risk`: facts by name, each with a unit where one is needed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twin.errors import InputError
from twin.io.notes import Notes
from twin.io.record import KNOWN, parse_record
from twin.records.scores import SCORES, Input
from twin.units import quantity

DIAGNOSES = {
    "hcm": "hypertrophic cardiomyopathy",
    "arvc": "definite arrhythmogenic right ventricular cardiomyopathy",
    "hf": "heart failure",
    "cardiac_arrest": "survived cardiac arrest",
    "sustained_vt": "sustained VT in the past",
    "athlete": "competitive athlete",
    "metabolic_disease": "metabolic or syndromic disease",
    "crt_p": "resynchronisation without defibrillator",
}
SYNONYMS = {
    "age": "age_years",
    "lvef": "lvef_percent",
    "ef": "lvef_percent",
    "rvef": "rvef_percent",
    "ischemic_cm": "ischaemic_cm",
    "ischaemic": "ischaemic_cm",
    "vt_storm": "electrical_storm",
    "mwt_mm": "max_wall_thickness_mm",
    "max_wall_thickness": "max_wall_thickness_mm",
    "left_atrial_diameter": "left_atrial_diameter_mm",
    "lvot_gradient": "lvot_gradient_mmhg",
    "hemoglobin_g_dl": "haemoglobin_g_dl",
}
OF_RECORD = {
    "age_years": "age_years",
    "lvef_percent": "lvef_percent",
    "nyha_class": "nyha",
    "diabetes": "diabetes",
    "copd": "copd",
    "ischaemic": "ischaemic_cm",
    "vt_storm": "electrical_storm",
    "heart_failure": "hf",
    "icd": "icd",
}
"""Facts of a case's [record] that scores ask for under another name."""
_UNITS = {"years": "year", "class": "1", "per 24 h": "1", "leads": "1", "%": "percent", "mmol/L": "mmol/L"}
_MOST_BYTES = 1_000_000


def inputs() -> dict[str, Input]:
    """Every key that some score asks for, each once with the widest range that a score allows."""
    merged: dict[str, Input] = {}
    for score in SCORES:
        for item in score.inputs:
            old = merged.get(item.key)
            merged[item.key] = (
                item if old is None else Input(old.key, old.unit, min(old.low, item.low), max(old.high, item.high), old.meaning)
            )
    for key, meaning in DIAGNOSES.items():
        merged.setdefault(key, Input(key, "yes/no", 0.0, 1.0, meaning))
    return merged


def read_facts(path: Path) -> dict[str, float]:
    """Read facts: key -> number, flags as 0 or 1; `null` and absent keys are unknown; `sex` stands for `male`.

    The record of a case is such a file too: what no score asks for in it is left aside.

    Raises InputError for a file that is not a JSON object, an unknown key (with the nearest known one), a value of the wrong kind, a key
    given twice, or a number that no patient has.
    """
    where = path.name
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(where, "file", "larger than 1 MB", "give one patient's facts, as `vtwin risk --template` prints them")
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: _once(pairs, where))
    except FileNotFoundError:
        raise InputError(where, "file", "does not exist", "name a JSON file with the patient's facts") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(where, "file", f"is not readable JSON ({error})", "`vtwin risk --template` prints a file to fill in") from None
    if not isinstance(data, dict):
        raise InputError(where, "file", "is not a JSON object", "`vtwin risk --template` prints a file to fill in")
    return parse_facts(data, where)


def parse_facts(data: Mapping[str, Any], where: str) -> dict[str, float]:
    """Facts from a mapping as JSON gives it; see `read_facts`."""
    known = inputs()
    facts: dict[str, float] = {}
    record: dict[str, Any] = {}
    for raw, value in data.items():
        key = SYNONYMS.get(raw, raw)
        if value is None or (key == "sex" and value == "other"):
            continue
        if key in KNOWN and key not in known and key != "sex":
            record[raw] = value
            continue
        if key == "sex":
            if value not in ("male", "female"):
                raise InputError(where, "sex", f"{value!r} is not male or female", 'write "male" or "female", or leave it out')
            key, value = "male", value == "male"
        if key not in known:
            close = difflib.get_close_matches(raw, [*known, *SYNONYMS, "sex"], n=1)
            raise InputError(
                where, raw, "is not a known fact", f"did you mean {close[0]!r}?" if close else "`vtwin risk --template` lists them"
            )
        if key in facts:
            raise InputError(where, raw, f"{key} is given twice", "give it once")
        facts[key] = _value(known[key], value, where, raw)
    return score_facts(parse_record(record, Path(where), Notes())) | facts


def score_facts(facts: Mapping[str, Any]) -> dict[str, float]:
    """Facts of a record in the keys of the published scores."""
    out = {score: float(facts[key]) for key, score in OF_RECORD.items() if key in facts}
    if facts.get("sex") in ("male", "female"):
        out["male"] = float(facts["sex"] == "male")
    kind = facts.get("aetiology")
    if kind is not None:
        out |= {"hcm": float(kind == "hypertrophic"), "arvc": float(kind == "arvc")}
        out.setdefault("ischaemic_cm", float(kind == "ischaemic"))
    return out


def _value(item: Input, value: Any, where: str, field: str) -> float:
    """One fact as a number inside the range that a patient can have."""
    if item.is_flag:
        if value in (True, False, 0, 1):
            return float(value)
        raise InputError(where, field, f"{value!r} is not yes or no", "write true, false or null (unknown)")
    if item.unit == "class" and value in ("I", "II", "III", "IV"):
        return float(("I", "II", "III", "IV").index(value) + 1)
    number = quantity(value, _UNITS.get(item.unit, item.unit), where, field)
    if item.unit in ("class", "leads") and number != int(number):
        raise InputError(where, field, f"{number:g} is not a whole number", f"write a whole number from {item.low:g} to {item.high:g}")
    # what no patient has is refused here; what a score was not made for is that score's to say
    ceiling = item.high if item.unit in ("class", "leads") else 100.0 if item.unit == "%" else 2.0 * item.high
    floor = item.low if item.unit == "class" else 0.0
    if not floor <= number <= ceiling:
        raise InputError(
            where, field, f"{number:g} {item.unit} is not between {floor:g} and {ceiling:g}", f"check the value and its unit ({item.unit})"
        )
    return number


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """A JSON object whose keys stand once each."""
    names = [key for key, _ in pairs]
    twice = next((key for key in names if names.count(key) > 1), None)
    if twice is not None:
        raise InputError(where, twice, "is given twice", "give it once")
    return dict(pairs)
