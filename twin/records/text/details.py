"""Drugs with doses, laboratory values, ECG intervals, calcium and CAD-RADS scores, shocks, wall thickness, age and sex, from free text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twin.errors import InputError
from twin.records.text import context
from twin.records.text.lexicon import Mention
from twin.records.ucum import ANALYTES, MG, converted, unit_key

_I = re.IGNORECASE
Note = Callable[..., None]
DRUGS: dict[str, str] = {
    "amiodarone": r"amiodarone|cordarone",
    "sotalol": r"sotalol|betapace",
    "mexiletine": r"mexiletine",
    "flecainide": r"flecainide",
    "quinidine": r"quinidine",
    "lidocaine": r"lidocaine|lignocaine",
    "dofetilide": r"dofetilide",
    "dronedarone": r"dronedarone",
    "propafenone": r"propafenone",
    "ranolazine": r"ranolazine",
    "verapamil": r"verapamil",
    "diltiazem": r"diltiazem",
    "digoxin": r"digoxin",
    "bisoprolol": r"bisoprolol",
    "metoprolol": r"metoprolol",
    "carvedilol": r"carvedilol",
    "atenolol": r"atenolol",
    "propranolol": r"propranolol",
    "nebivolol": r"nebivolol",
    "ramipril": r"ramipril",
    "enalapril": r"enalapril",
    "lisinopril": r"lisinopril",
    "perindopril": r"perindopril",
    "losartan": r"losartan",
    "valsartan": r"(?<!sacubitril/)(?<!sacubitril-)valsartan",
    "candesartan": r"candesartan",
    "sacubitril_valsartan": r"sacubitril(?:[/ -]valsartan)?|entresto",
    "spironolactone": r"spironolactone",
    "eplerenone": r"eplerenone",
    "dapagliflozin": r"dapagliflozin",
    "empagliflozin": r"empagliflozin",
    "furosemide": r"furosemide|frusemide",
    "torasemide": r"tor(?:a|)semide",
    "bumetanide": r"bumetanide",
    "aspirin": r"aspirin|acetylsalicylic acid",
    "clopidogrel": r"clopidogrel",
    "warfarin": r"warfarin",
    "apixaban": r"apixaban",
    "rivaroxaban": r"rivaroxaban",
    "atorvastatin": r"atorvastatin",
    "rosuvastatin": r"rosuvastatin",
    "simvastatin": r"simvastatin",
    "metformin": r"metformin",
    "insulin": r"insulin",
}
_DRUG = re.compile(r"\b(?:" + "|".join(f"(?P<{name}>{pattern})" for name, pattern in DRUGS.items()) + r")\b", _I)
_DOSE = re.compile(
    r"\s*(?:\(|:)?\s*(?:[a-z]+\s)?(?P<dose>\d+(?:[.,]\d+)?)\s*(?P<unit>mg|mcg|µg|ug|g)\b(?:\s*/\s*(?P<per>d(?:ay)?)\b)?"
    r"\s*(?P<often>o\.?d\.?|b\.?i?\.?d\.?|t\.?[id]\.?[ds]\.?|q\.?[id]\.?[ds]\.?|q(?:24|12|8|6)h|nocte|mane|once(?: (?:a|per) day| daily)?"
    r"|twice(?: (?:a|per) day| daily)?|three times (?:a day|daily)|(?:per|a) day|daily|\d-\d-\d(?:-\d)?)?(?!\w)",
    _I,
)
_TIMES = (
    (r"b|twice|q12", 2.0),
    (r"t\.?[id]|three|q8", 3.0),
    (r"q\.?[id]\.?[ds]|q6", 4.0),
)
_PAST = re.compile(r"\b(?:previous(?:ly)?|stopped|discontinued|ceased|withdrawn|off|failed|switched from|was on|until|past)\b", _I)
_ALLERGY = re.compile(r"\b(?:intoleran\w+|allerg\w+|contraindicat\w+)\b", _I)
_STOPPED = re.compile(r"^[^.;,]{0,40}\b(?:was |were |has been |had been )?(?:stopped|discontinued|withdrawn|ceased|not tolerated)\b", _I)

_VALUE = r"\s*(?:level\s*)?(?:is|was|of|at|:|=)?\s*(?P<value>\d+(?:[.,]\d+)?)\s*"
_LAB_NAMES: dict[str, str] = {
    "potassium": r"potassium|K\+|(?-i:\bK\b)",
    "sodium": r"sodium|Na\+|(?-i:\bNa\b)",
    "magnesium": r"magnesium|Mg\+\+|Mg2\+",
    "creatinine": r"creatinine|(?-i:\bCr\b)",
    "haemoglobin": r"ha?emoglobin|\bHb\b|\bHgb\b",
    "nt_probnp": r"NT-?\s?pro-?\s?BNP",
    "bnp": r"(?<!pro)(?<!pro-)(?<!pro )\bBNP",
    "troponin": r"(?:hs-?)?(?:c?Tn[IT]|troponin(?: [IT])?)",
    "egfr": r"e?GFR",
    "tsh": r"\bTSH",
    "hba1c": r"HbA1c",
    "crp": r"\bCRP",
    "cholesterol": r"total cholesterol|cholesterol",
    "uric_acid": r"uric acid|urate",
}
_UNIT = (
    r"(?P<unit>mmol/L|mEq/L|mg/dL|[uµμ]mol/L|g/dL|g/L|pg/mL|ng/L|pmol/L|ng/mL|[uµμ]g/L|mL/min(?:/1\.73\s?m2)?|mI?U/L|uIU/mL"
    r"|mmol/mol|mg/L|%)(?!\w)"
)
_LABS = {name: re.compile(rf"(?:{pattern}){_VALUE}{_UNIT}", _I) for name, pattern in _LAB_NAMES.items()}
_HINT = re.compile(r"\d\s*(?:mmol|mEq|mg/|[uµμ]mol|g/|pg/|ng/|pmol|[uµμ]g/|mL/min|mI?U/|uIU|%)", _I)

_QRS = re.compile(
    r"\bQRS(?:d| duration| width| complex)?\s*(?:is|was|of|:|=|duration)?\s*(?:about |approx\w* )?(\d{2,3})\s*(?:ms|msec)", _I
)
_QTC = re.compile(r"\bQTc(?:\s?[BF]|\s?\(?(?:Bazett|Fridericia)\)?)?\s*(?:interval)?\s*(?:is|was|of|:|=)?\s*(\d{3})\s*(?:ms|msec)?\b", _I)
_CAC = re.compile(
    r"\b(?:Agatston|CAC|(?:coronary (?:artery )?)?calcium)(?:\s*(?:score|CAC))*\s*(?:\(Agatston\))?\s*(?:is|was|of|:|=)?\s*"
    r"(\d{1,4}(?:\.\d)?)(?!\d|\.\d|\s*mm)",
    _I,
)
_CAD_RADS = re.compile(r"\bCAD-?\s?RADS\s*(?:2\.0)?\s*(?:category|score)?\s*(?:is|:|=)?\s*(0|1|2|3|4A|4B|4|5|N)\b", _I)
_SHOCKS = re.compile(
    r"\b(?:(?P<n>\d+|one|two|three|four|five|six|several|multiple|no)\s+)?(?P<kind>(?:in)?appropriate\s+)?(?:ICD\s+|device\s+)?shocks?\b",
    _I,
)
_WORDS = {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_WALL = re.compile(
    r"\b(?:max\w* (?:LV )?wall thickness|wall thickness|septum|IVS|septal thickness|posterior wall)\s*(?:is|was|of|:|=|up to)?\s*"
    r"(\d+(?:\.\d+)?)\s*(mm|cm)",
    _I,
)
_TRANSMURAL = re.compile(
    r"\b(\d{1,3})(?:\s*(?:-|–|to)\s*(\d{1,3}))?\s*%\s*(?:transmural\w*|of (?:the )?wall(?: thickness)?)"
    r"|transmurality\s*(?:of|:|=)?\s*(\d{1,3})\s*%",
    _I,
)
_AGE = re.compile(r"\b(\d{1,3})[- ]?(?:year|yr)s?[- ]old\b|\b(\d{2})\s?(?:yo|y/o)\b|\baged? (\d{2})\b", _I)
_MAN = re.compile(r"\b(?:[Mm]an|[Mm]ale|[Gg]entleman|Mr)\b")
_WOMAN = re.compile(r"\b(?:[Ww]oman|[Ff]emale|[Ll]ady|Mrs|Ms)\b")


def details(text: str, clause_of: Callable[[int], tuple[int, int]], kind: str, note: Note) -> dict[str, Any]:
    """Keys drugs, labs, qrs_ms, qtc_ms, cac, cad_rads, shocks, wall_thickness_mm, transmurality_percent, age_years, sex.

    None or [] where the text does not say; every fact's place goes to `note`. clause_of: clause (start, end) that holds a character.
    """
    return {
        "drugs": _drugs(text, clause_of, kind, note),
        "labs": _labs(text, note),
        "qrs_ms": _single(_QRS, text, "qrs_ms", note),
        "qtc_ms": _single(_QTC, text, "qtc_ms", note),
        "cac": _single(_CAC, text, "cac", note),
        "cad_rads": _last(_CAD_RADS, text, "cad_rads", note),
        "shocks": _shocks(text, clause_of, kind, note),
        "wall_thickness_mm": _wall(text, note),
        "transmurality_percent": _transmurality(text, note),
        "age_years": _age(text),
        "sex": _sex(text),
    }


def _drugs(text: str, clause_of: Callable[[int], tuple[int, int]], kind: str, note: Note) -> list[dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for match in _DRUG.finditer(text):
        name = str(match.lastgroup)
        clause = clause_of(match.start())
        status = context.status(text, Mention("drug", *match.span()), clause, kind)
        list_start = max(text.rfind(mark, 0, match.start()) for mark in ".;,")
        if _ALLERGY.search(text, max(clause[0], list_start), match.start()):
            status = "absent"
        if status == "present" and (
            _PAST.search(text, max(clause[0], list_start), match.start()) or _STOPPED.match(text[match.end() : clause[1]])
        ):
            status = "historical"
        dose = _DOSE.match(text, match.end())
        daily = _daily(dose) if dose else None
        end = dose.end() if dose else match.end()
        note("drug", name, match.start(), end, status=status)
        entry = {"name": name, "mg_per_day": daily, "status": status}
        if name not in out or (out[name]["status"] != "present" and status == "present") or (out[name]["mg_per_day"] is None and daily):
            out[name] = entry
    return list(out.values())


def _daily(dose: re.Match[str]) -> float | None:
    """Milligrams a day; None where a single dose stands without how often."""
    amount = float(dose["dose"].replace(",", ".")) * MG[unit_key(dose["unit"])]
    if dose["per"]:
        return amount
    often = (dose["often"] or "").lower()
    if not often:
        return None
    if re.fullmatch(r"\d(?:-\d)+", often):
        return amount * sum(int(d) for d in often.split("-"))
    return amount * next((times for pattern, times in _TIMES if re.match(pattern, often)), 1.0)


def _labs(text: str, note: Note) -> list[dict[str, Any]]:
    """Values in the units of `twin.records.ucum`; one that no patient has is left out: it was not a laboratory value, or is a slip."""
    if not _HINT.search(text):
        return []
    out = []
    for name, pattern in _LABS.items():
        for match in pattern.finditer(text):
            try:
                value = converted(name, float(match["value"].replace(",", ".")), match["unit"].replace(" ", ""), "text", name)
            except InputError:
                continue
            note("lab", name, *match.span())
            out.append({"name": name, "value": round(value, 4), "unit": ANALYTES[name].unit})
    return out


def _single(pattern: re.Pattern[str], text: str, key: str, note: Note) -> float | None:
    value = _last(pattern, text, key, note)
    return None if value is None else float(value)


def _last(pattern: re.Pattern[str], text: str, key: str, note: Note) -> str | None:
    """The last one that the text gives: reports end with what counts now."""
    found = None
    for match in pattern.finditer(text):
        found = match[1].upper()
        note(key, found, *match.span())
    return found


def _shocks(text: str, clause_of: Callable[[int], tuple[int, int]], kind: str, note: Note) -> list[dict[str, Any]]:
    out = []
    for match in _SHOCKS.finditer(text):
        word = (match["n"] or "").lower()
        if re.match(r"\s*(?:zone|coil|impedance|wave)", text[match.end() :], _I) or re.search(
            r"cardiogenic\s*$", text[: match.start()], _I
        ):
            continue
        status = "absent" if word == "no" else context.status(text, Mention("icd", *match.span()), clause_of(match.start()), kind)
        count = 0 if status == "absent" else int(word) if word.isdigit() else _WORDS.get(word)
        note("shocks", count, *match.span(), status=status)
        out.append({"count": count, "kind": (match["kind"] or "").strip().lower() or None, "status": status})
    return out


def _wall(text: str, note: Note) -> float | None:
    best = None
    for match in _WALL.finditer(text):
        value = float(match[1]) * (10.0 if match[2].lower() == "cm" else 1.0)
        if 1.0 <= value <= 60.0:
            note("wall_thickness_mm", value, *match.span())
            best = value if best is None else max(best, value)
    return best


def _transmurality(text: str, note: Note) -> list[float] | None:
    found: list[float] | None = None
    for match in _TRANSMURAL.finditer(text):
        low = float(match[1] or match[3])
        high = float(match[2]) if match[2] else low
        if 0.0 <= low <= high <= 100.0:
            note("transmurality_percent", [low, high], *match.span())
            found = [low, high] if found is None else [min(low, found[0]), max(high, found[1])]
    return found


def _age(text: str) -> int | None:
    match = _AGE.search(text)
    if match is None or re.search(
        r"\b(?:father|mother|brother|sister|son|daughter)\b", text[max(0, match.start() - 30) : match.start()], _I
    ):
        return None
    age = int(next(g for g in match.groups() if g))
    return age if age <= 120 else None


def _sex(text: str) -> str | None:
    man, woman = _MAN.search(text), _WOMAN.search(text)
    return None if bool(man) == bool(woman) else "male" if man else "female"
