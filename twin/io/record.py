"""The small patient record (JSON): facts that scores and the report use. Identifiers are dropped and never repeated."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from twin.errors import InputError
from twin.io.notes import Notes
from twin.io.source import did_you_mean, read_text

NUMBERS = {
    "age_years": (0, 120),
    "lvef_percent": (5, 85),
    "nyha_class": (1, 4),
    "weight_kg": (2, 350),
    "height_cm": (40, 230),
    "heart_rate_bpm": (20, 300),
    "qrs_ms": (40, 300),
    "infarct_age_years": (0, 80),
    "vt_cycle_length_ms": (150, 800),
    "creatinine_mg_dl": (0.1, 25),
    "previous_ablations": (0, 20),
}
FLAGS = ("diabetes", "copd", "hypertension", "atrial_fibrillation", "amiodarone", "icd", "crt", "vt_storm", "ischaemic", "mechanical_valve")
CHOICES = {
    "sex": ("female", "male", "other"),
    "aetiology": ("ischaemic", "dilated", "hypertrophic", "arvc", "sarcoid", "myocarditis", "chagas", "congenital", "none", "other"),
}
KNOWN = (*NUMBERS, *FLAGS, *CHOICES, "drugs")
ALIASES = {"age": "age_years", "lvef": "lvef_percent", "ef_percent": "lvef_percent", "etiology": "aetiology", "nyha": "nyha_class"}
IDENTIFIER = re.compile(
    r"name|birth|dob$|^id$|_id$|^pid$|mrn|address|phone|mail|ssn|insurance|accession|hospital|physician|doctor|post_?code|zip|passport|date|uid"
)
"""Keys that point at a person. A false match costs one unused fact; a missed one is refused as unknown, without its value."""


def _plain(value: object, key: str, where: Path) -> object:
    """The value of a known key, checked."""
    if key in NUMBERS:
        low, high = NUMBERS[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or not low <= value <= high:
            raise InputError(where, key, "is not a number in its range", f"write a number from {low} to {high}, or leave it out")
    elif key in FLAGS:
        if not isinstance(value, bool):
            raise InputError(where, key, "is not true or false", "write true or false, or leave it out")
    elif key in CHOICES:
        if value not in CHOICES[key]:
            raise InputError(where, key, "is not one of the known values", f"known: {', '.join(CHOICES[key])}")
    elif not isinstance(value, list) or len(value) > 100 or not all(isinstance(item, str) and len(item) < 100 for item in value):
        raise InputError(where, key, "is not a list of names", 'write a list, for example ["amiodarone"]')
    return value


def parse_record(raw: Mapping[str, object], where: Path, notes: Notes) -> dict[str, object]:
    """Known facts of a raw record; identifiers dropped and counted; null means unknown. Raises InputError without repeating values."""
    facts: dict[str, object] = {}
    dropped = 0
    for key, value in raw.items():
        name = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()).strip("_")
        name = ALIASES.get(name, name)
        if name in KNOWN:
            if value is not None:
                facts[name] = _plain(value, name, where)
        elif IDENTIFIER.search(name):
            dropped += 1
        else:
            raise InputError(where, key[:40], "unknown key", did_you_mean(name, KNOWN))
    if dropped:
        notes.add(f"{where.name}: {dropped} identifying fields were dropped")
    return facts


def read_record(path: Path, notes: Notes | None = None) -> dict[str, object]:
    """Read a patient record: one JSON object with the keys of `KNOWN`, all optional."""
    try:
        raw = json.loads(read_text(path, 1_000_000))
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise InputError(path, f"line {line}", "is not JSON", "check commas, quotes and brackets") from None
    if not isinstance(raw, dict):
        raise InputError(path, "record", "is not an object", 'write {"age_years": 60, ...}')
    return parse_record(raw, path, notes or Notes())
