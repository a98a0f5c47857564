"""The [clinical] table of a case: facts of one patient from its own keys, a record and extracted reports, each with where it stood.

A key in the table wins over the record, the record over text; where sources differ, both are said in the notes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twin.errors import InputError
from twin.io.notes import Notes
from twin.io.record import CHOICES, FLAGS, KNOWN, NUMBERS, parse_record, read_record
from twin.io.source import check_keys, file_size
from twin.units import quantity

FILES = ("record", "facts")
EXTRA = {"qtc_ms": (250.0, 700.0), "heart_failure": (0.0, 1.0)}
KEYS = (*FILES, "images", "drugs", *NUMBERS, *FLAGS, *CHOICES, *EXTRA)
MOST_BYTES, MOST_LINES = 50_000_000, 10_000
_FROM_TEXT = {
    "diabetes": "diabetes",
    "copd": "copd",
    "hypertension": "hypertension",
    "af": "atrial_fibrillation",
    "icd": "icd",
    "electrical_storm": "vt_storm",
    "hf": "heart_failure",
    "ischaemic_cm": "ischaemic",
}
_AETIOLOGY = {"ischaemic_cm": "ischaemic", "nonischaemic_cm": "dilated", "hcm": "hypertrophic", "arvc": "arvc", "sarcoid": "sarcoid"}


@dataclass(frozen=True)
class Drug:
    """One drug that is taken: daily dose and blood level where they are known."""

    name: str
    mg_per_day: float | None = None
    level_umol_l: float | None = None


@dataclass(frozen=True)
class Clinical:
    """facts: key -> value (those of `twin.io.record`, qtc_ms, heart_failure); origin: key -> where it stood; drugs; images: read too."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    drugs: tuple[Drug, ...] = ()
    images: bool = True
    conflicts: tuple[str, ...] = ()


def read_clinical(table: Mapping[str, Any], files: Mapping[str, Path], where: Path) -> Clinical:
    """Facts of a [clinical] table whose `record` and `facts` are the given files. Raises InputError for what cannot be right."""
    check_keys(table, KEYS, where, "clinical")
    images = table.get("images", True)
    if not isinstance(images, bool):
        raise InputError(where, "clinical.images", f"{images!r} is not true or false", "write true or false")
    sources: list[tuple[str, dict[str, Any]]] = [("the case", _own(table, where))]
    notes = Notes()
    if "record" in files:
        sources.append(("the record", dict(read_record(files["record"], notes))))
    if "facts" in files:
        sources += [(f"extracted facts, line {n}", facts) for n, facts in read_extracted(files["facts"])]
    facts: dict[str, Any] = {}
    origin: dict[str, str] = {}
    conflicts: list[str] = []
    drugs: dict[str, Drug] = {}
    for source, found in sources:
        for name, drug in _drugs(found.pop("drugs", ()), where).items():
            drugs.setdefault(name, drug)
        if found.get("amiodarone"):
            drugs.setdefault("amiodarone", Drug("amiodarone"))
        for key, value in found.items():
            if key not in facts:
                facts[key], origin[key] = value, source
            elif facts[key] != value:
                conflicts.append(f"{key}: {facts[key]} ({origin[key]}), but {value} ({source}); the first is used")
    return Clinical(facts, origin, tuple(drugs.values()), images, tuple(conflicts))


def _own(table: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The table's own keys, checked."""
    own = {k: v for k, v in table.items() if k in KNOWN and k != "drugs"}
    facts = parse_record(own, where, Notes())
    for key, (low, high) in EXTRA.items():
        if key not in table:
            continue
        value = table[key]
        if key == "heart_failure":
            if not isinstance(value, bool):
                raise InputError(where, f"clinical.{key}", f"{value!r} is not true or false", "write true or false")
            facts[key] = value
            continue
        number = quantity(value, "ms", str(where), f"clinical.{key}")
        if not low <= number <= high:
            raise InputError(where, f"clinical.{key}", f"{number:g} ms is not between {low:g} and {high:g}", "check the value and its unit")
        facts[key] = number
    if "drugs" in table:
        facts["drugs"] = table["drugs"]
    return dict(facts)


def _drugs(given: Any, where: Path) -> dict[str, Drug]:
    """Drugs from a list of names, or a table name -> true, "200 mg/day" or { dose = ..., level = "1.2 umol/L" }."""
    if isinstance(given, (list, tuple)):
        given = {str(name): True for name in given}
    if not isinstance(given, Mapping):
        raise InputError(where, "clinical.drugs", f"{given!r} is neither a list nor a table", 'write { amiodarone = "200 mg/day" }')
    out: dict[str, Drug] = {}
    for raw, value in given.items():
        name, field_ = str(raw).strip().lower(), f"clinical.drugs.{raw}"
        if value is False or value is None:
            continue
        entry = value if isinstance(value, Mapping) else {} if value is True else {"dose": value}
        check_keys(entry, ("dose", "level"), where, field_)
        dose, level = entry.get("dose"), entry.get("level")
        out[name] = Drug(
            name,
            None if dose is None else _positive(dose, "mg/day", where, f"{field_}.dose", 10_000.0),
            None if level is None else _positive(level, "umol/L", where, f"{field_}.level", 1_000.0),
        )
    return out


def _positive(value: Any, unit: str, where: Path, field_: str, most: float) -> float:
    number = quantity(value, unit, str(where), field_)
    if not 0.0 < number <= most:
        raise InputError(where, field_, f"{number:g} {unit} is not above 0 and up to {most:g}", "check the value and its unit")
    return number


def read_extracted(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Facts of each line that `vtwin extract` wrote, in the keys used here, latest line first. Raises InputError for any other file."""
    file_size(path, MOST_BYTES)
    out: list[tuple[int, dict[str, Any]]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "file", f"is not UTF-8 text ({type(error).__name__})", "give what `vtwin extract` wrote") from None
    if len(lines) > MOST_LINES:
        raise InputError(path, "file", f"has more than {MOST_LINES} lines", "give the facts of one patient")
    for number, line in enumerate(lines, start=1):
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(path, f"line {number}", "is not JSON", "give what `vtwin extract` wrote") from None
        if not isinstance(raw, dict) or not isinstance(raw.get("entities", []), list):
            raise InputError(path, f"line {number}", "is not a line of facts", "give what `vtwin extract` wrote")
        out.append((number, _plain(raw, path, number)))
    return out[::-1]


def _plain(raw: Mapping[str, Any], path: Path, number: int) -> dict[str, Any]:
    """One line of extracted facts in the keys of a record: only what the report states as present, or denies."""
    facts: dict[str, Any] = {}
    for key, name in (("lvef", "lvef_percent"), ("nyha", "nyha_class")):
        ends = raw.get(key)
        if isinstance(ends, list) and len(ends) == 2 and all(isinstance(e, (int, float)) for e in ends):
            facts[name] = round(sum(ends) / 2) if key == "nyha" else sum(ends) / 2
    more = raw.get("details") or {}
    if not isinstance(more, dict):
        raise InputError(path, f"line {number}", "has details that are no object", "give what `vtwin extract` wrote")
    for key in ("age_years", "qrs_ms", "qtc_ms", "sex"):
        if more.get(key) is not None:
            facts[key] = more[key]
    for entity in raw.get("entities", []):
        if not isinstance(entity, dict):
            raise InputError(path, f"line {number}", "holds an entity that is no object", "give what `vtwin extract` wrote")
        concept, status = entity.get("concept"), entity.get("status")
        if concept in _FROM_TEXT and status in ("present", "absent"):
            facts[_FROM_TEXT[concept]] = status == "present"
        if concept in _AETIOLOGY and status == "present":
            facts["aetiology"] = _AETIOLOGY[concept]
    drugs = more.get("drugs")
    if isinstance(drugs, list):
        taken = {d["name"]: d.get("mg_per_day") for d in drugs if isinstance(d, dict) and d.get("name") and d.get("status") == "present"}
        facts["drugs"] = {name: True if mg is None else mg for name, mg in taken.items()}
    checked = parse_record({k: v for k, v in facts.items() if k in KNOWN and k != "drugs"}, path, Notes())
    return {**checked, **{k: v for k, v in facts.items() if k in ("drugs", *EXTRA)}}
