"""Codes of conditions (ICD-10, SNOMED CT) in the concepts of the text extractor, and one row of facts from coded evidence.

Codes from memory, the commonest of each concept; what is not listed is read as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twin.records.text.details import DRUGS
from twin.records.text.extract import extract
from twin.records.ucum import ANALYTES

ICD10: tuple[tuple[str, str, str], ...] = (
    *((f"E{n}", "diabetes", "present") for n in range(10, 15)),
    ("J44", "copd", "present"),
    *((f"I{n}", "hypertension", "present") for n in range(10, 16)),
    ("I48", "af", "present"),
    ("I21", "mi", "historical"),
    ("I22", "mi", "historical"),
    ("I252", "mi", "historical"),
    ("I255", "ischaemic_cm", "present"),
    ("I251", "cad", "present"),
    ("I420", "nonischaemic_cm", "present"),
    ("I421", "hcm", "present"),
    ("I422", "hcm", "present"),
    ("I50", "hf", "present"),
    ("I472", "vt", "present"),
    ("I490", "vf", "historical"),
    ("I46", "cardiac_arrest", "historical"),
    ("R55", "syncope", "historical"),
    ("D86", "sarcoid", "present"),
    ("I514", "myocarditis", "present"),
    ("I34", "mr", "present"),
    ("I253", "lv_aneurysm", "present"),
    ("Z95810", "icd", "present"),
)
"""Prefix without its point, concept, status. An acute event in a list of diagnoses is over when the twin is made."""
SNOMED = {
    "73211009": ("diabetes", "present"),
    "44054006": ("diabetes", "present"),
    "46635009": ("diabetes", "present"),
    "13645005": ("copd", "present"),
    "38341003": ("hypertension", "present"),
    "49436004": ("af", "present"),
    "22298006": ("mi", "historical"),
    "1755008": ("mi", "historical"),
    "84114007": ("hf", "present"),
    "25569003": ("vt", "present"),
    "71908006": ("vf", "historical"),
    "410429000": ("cardiac_arrest", "historical"),
    "271594007": ("syncope", "historical"),
    "399020009": ("nonischaemic_cm", "present"),
    "233873004": ("hcm", "present"),
    "281170005": ("arvc", "present"),
    "31541009": ("sarcoid", "present"),
    "50920009": ("myocarditis", "present"),
    "53741008": ("cad", "present"),
}


@dataclass(frozen=True)
class Coded:
    """One condition: code without system confusion, what it is called, whether it is over or was denied."""

    code: str
    name: str
    over: bool = False
    denied: bool = False


@dataclass(frozen=True)
class Measured:
    """One value in the unit of `twin.records.ucum`, with its date (ISO, "" unknown)."""

    name: str
    value: float
    date: str = ""


@dataclass(frozen=True)
class Taken:
    """One drug by its name as written, milligrams a day (None unknown), whether it is taken now."""

    name: str
    mg_per_day: float | None = None
    now: bool = True


def concept_of(item: Coded) -> list[tuple[str, str]]:
    """(concept, status) of a condition; by its text where its code is not listed; nothing where neither is known."""
    code = item.code.replace(".", "").upper()
    found = (
        [SNOMED[item.code]]
        if item.code in SNOMED
        else [(concept, status) for prefix, concept, status in ICD10 if code.startswith(prefix)][:1]
    )
    if not found and item.name:
        found = [(e["concept"], e["status"]) for e in extract(item.name[:500])["entities"]]
    if item.denied:
        return [(concept, "absent") for concept, _ in found]
    return [(concept, "historical" if item.over and concept not in ("diabetes", "copd") else status) for concept, status in found]


def drug_of(name: str) -> str | None:
    """Our name of a drug in a text such as "amiodarone hydrochloride 200 MG Oral Tablet"; None if it is not one that matters here."""
    found = extract(name[:200])["details"]["drugs"]
    return str(found[0]["name"]) if found and found[0]["name"] in DRUGS else None


def facts_row(
    identity: str | int, age: int | None, sex: str | None, conditions: Sequence[Coded], measured: Sequence[Measured], taken: Sequence[Taken]
) -> dict[str, Any]:
    """One line in the keys that text gives; of several values the latest counts, and how many there were is kept in `repeats`."""
    pairs = sorted({pair for item in conditions for pair in concept_of(item)})
    latest: dict[str, Measured] = {}
    repeats: dict[str, int] = {}
    for one in sorted(measured, key=lambda m: m.date):
        latest[one.name] = one
        repeats[one.name] = repeats.get(one.name, 0) + 1
    drugs: dict[str, dict[str, Any]] = {}
    for item in taken:
        name = drug_of(item.name)
        if name is not None and (name not in drugs or item.now):
            drugs[name] = {"name": name, "mg_per_day": item.mg_per_day, "status": "present" if item.now else "historical"}
    special = ("lvef", "qrs_ms", "qtc_ms")
    lvef = latest["lvef"].value if "lvef" in latest else None
    return {
        "id": identity,
        "lvef": None if lvef is None else [lvef, lvef],
        "lvef_prior": [],
        "nyha": None,
        "lge_percent": None,
        "scar_segments": [],
        "rwma_segments": [],
        "lvef_derived": False,
        "entities": [{"concept": concept, "status": status} for concept, status in pairs],
        "details": {
            "drugs": list(drugs.values()),
            "labs": [
                {"name": name, "value": round(one.value, 4), "unit": ANALYTES[name].unit, "date": one.date}
                for name, one in sorted(latest.items())
                if name not in special
            ],
            "qrs_ms": latest["qrs_ms"].value if "qrs_ms" in latest else None,
            "qtc_ms": latest["qtc_ms"].value if "qtc_ms" in latest else None,
            "age_years": age,
            "sex": sex,
            "repeats": {name: count for name, count in repeats.items() if count > 1},
        },
        "spans": [],
    }
