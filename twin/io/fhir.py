"""FHIR R4 bundles (JSON): conditions, observations and medications of each patient, in coded form. Names and identifiers are never read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from twin.errors import InputError
from twin.io.source import file_size
from twin.records.codes import Coded, Measured, Taken, facts_row
from twin.records.ucum import BY_LOINC, MG, converted

MOST_BYTES, MOST_ENTRIES = 200_000_000, 500_000
DATE = re.compile(r"^\d{4}(?:-\d{2}(?:-\d{2}(?:T.*)?)?)?$")
SEX = {"male": "male", "female": "female"}
OVER = ("inactive", "remission", "resolved")
TAKING = ("active", "on-hold", "intended", "unknown")
_PER_DAY = {"s": 86400.0, "min": 1440.0, "h": 24.0, "d": 1.0, "wk": 1 / 7.0}


def read_bundle(path: Path) -> Iterator[dict[str, Any]]:
    """One line of facts per patient of a bundle, numbered; ids of the file do not go out.

    Raises InputError for a file that is no FHIR bundle, too large, or holds dates, numbers or units that cannot be right.
    """
    file_size(path, MOST_BYTES)
    try:
        bundle = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(path, "file", f"is not UTF-8 JSON ({type(error).__name__})", "export the bundle again") from None
    entries = bundle.get("entry") if isinstance(bundle, dict) and bundle.get("resourceType") == "Bundle" else None
    if not isinstance(entries, list):
        raise InputError(path, "resourceType", "is not a FHIR Bundle with entries", 'give {"resourceType": "Bundle", "entry": [...]}')
    if len(entries) > MOST_ENTRIES:
        raise InputError(path, "entry", f"holds more than {MOST_ENTRIES} resources", "split the bundle")
    people: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for k, entry in enumerate(entries):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
            raise InputError(path, f"entry[{k}]", "holds no resource", "export the bundle again")
        people.setdefault(_whose(resource, entry), []).append((f"entry[{k}]", resource))
    if len(people) > 1 and "" in people:
        raise InputError(
            path, "subject", f"{len(people.pop(''))} resources name no patient among several", "give every resource its subject"
        )
    for number, resources in enumerate(people.values(), start=1):
        yield _patient(path, number, resources)


def _whose(resource: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """What ties a resource to its patient: the last part of the reference."""
    if resource["resourceType"] == "Patient":
        return str(resource.get("id") or str(entry.get("fullUrl", "")).rpartition("/")[2].rpartition(":")[2])
    subject = resource.get("subject") or resource.get("patient") or {}
    reference = subject.get("reference", "") if isinstance(subject, dict) else ""
    return str(reference).rpartition("/")[2].rpartition(":")[2]


def _patient(path: Path, number: int, resources: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    sex, born, last = None, "", ""
    conditions: list[Coded] = []
    measured: list[Measured] = []
    taken: list[Taken] = []
    for where, resource in resources:
        kind = resource["resourceType"]
        if resource.get("status") == "entered-in-error" or _status(resource, "verificationStatus") == "entered-in-error":
            continue
        if kind == "Patient":
            sex, born = SEX.get(str(resource.get("gender"))), _date(path, where, resource.get("birthDate", ""))
        elif kind == "Condition":
            code, name = _code(resource.get("code"))
            over = _status(resource, "clinicalStatus") in OVER
            conditions.append(Coded(code, name, over, _status(resource, "verificationStatus") == "refuted"))
        elif kind == "Observation":
            found = _observation(path, where, resource)
            measured += found
            last = max([last, *(one.date for one in found)])
        elif kind in ("MedicationStatement", "MedicationRequest"):
            taken.append(_medication(resource))
    age = _age(path, born, last)
    return facts_row(number, age, sex, conditions, measured, taken)


def _age(path: Path, born: str, last: str) -> int | None:
    """Years from birth to the last observation; None where either is unknown."""
    if len(born) < 4 or len(last) < 4:
        return None
    years = int(last[:4]) - int(born[:4]) - (last[4:10] < born[4:10] if len(born) >= 10 and len(last) >= 10 else 0)
    if not 0 <= years <= 120:
        raise InputError(path, "birthDate", f"makes the patient {years} years old at the last observation", "check the dates")
    return years


def _date(path: Path, where: str, value: Any) -> str:
    if not value:
        return ""
    if not isinstance(value, str) or not DATE.match(value):
        raise InputError(path, where, "holds a date that is not ISO 8601", "write 2024-05-31")
    return value[:10]


def _status(resource: Mapping[str, Any], key: str) -> str:
    return _code(resource.get(key))[0].lower()


def _code(value: Any) -> tuple[str, str]:
    """First code and its text of a CodeableConcept; empty where there is none."""
    if not isinstance(value, dict):
        return "", ""
    coding = value.get("coding")
    first = coding[0] if isinstance(coding, list) and coding and isinstance(coding[0], dict) else {}
    return str(first.get("code", "")), str(value.get("text") or first.get("display") or "")


def _loinc(value: Any) -> str | None:
    coding = value.get("coding") if isinstance(value, dict) else None
    codes = [str(c.get("code", "")) for c in coding if isinstance(c, dict)] if isinstance(coding, list) else []
    return next((BY_LOINC[code] for code in codes if code in BY_LOINC), None)


def _observation(path: Path, where: str, resource: Mapping[str, Any]) -> list[Measured]:
    """The values of an observation and of its components that are known here; others are left out."""
    date = _date(path, where, resource.get("effectiveDateTime") or resource.get("issued") or "")
    parts = (
        [resource, *(c for c in resource.get("component", []) if isinstance(c, dict))]
        if isinstance(resource.get("component", []), list)
        else [resource]
    )
    out = []
    for part in parts:
        name, quantity = _loinc(part.get("code")), part.get("valueQuantity")
        if name is None or not isinstance(quantity, dict):
            continue
        unit = quantity.get("code") or quantity.get("unit")
        if not isinstance(unit, str):
            raise InputError(path, where, f"{name} has no unit", "give valueQuantity its UCUM code")
        if quantity.get("comparator"):
            continue  # "< 5" is a bound and no value
        out.append(Measured(name, converted(name, quantity.get("value"), unit, path.name, where), date))
    return out


def _medication(resource: Mapping[str, Any]) -> Taken:
    code, name = _code(resource.get("medicationCodeableConcept"))
    dosage = resource.get("dosage") or resource.get("dosageInstruction") or []
    first = dosage[0] if isinstance(dosage, list) and dosage and isinstance(dosage[0], dict) else {}
    return Taken(name or code, _per_day(first), str(resource.get("status", "active")) in TAKING)


def _per_day(dosage: Mapping[str, Any]) -> float | None:
    """Milligrams a day of a structured dosage; None where dose or timing is not there."""
    rates = dosage.get("doseAndRate")
    dose = rates[0].get("doseQuantity") if isinstance(rates, list) and rates and isinstance(rates[0], dict) else None
    timing = dosage.get("timing")
    repeat = timing.get("repeat") if isinstance(timing, dict) else None
    if not isinstance(dose, dict) or not isinstance(repeat, dict):
        return None
    amount, unit = dose.get("value"), str(dose.get("code") or dose.get("unit") or "").lower()
    frequency, period, per = repeat.get("frequency", 1), repeat.get("period", 1), str(repeat.get("periodUnit", ""))
    if unit not in MG or per not in _PER_DAY or not (_positive(amount) and _positive(frequency) and _positive(period)):
        return None
    return float(amount) * MG[unit] * float(frequency) / float(period) * _PER_DAY[per]


def _positive(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
