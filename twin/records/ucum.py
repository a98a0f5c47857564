"""Laboratory values and ECG intervals with units (UCUM and what people write), converted to one unit each, and checked."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from twin.errors import InputError


@dataclass(frozen=True)
class Analyte:
    """One measured quantity: its unit here, what other units are multiplied by, what a living patient can have, its LOINC codes."""

    unit: str
    low: float
    high: float
    factors: dict[str, float] = field(default_factory=dict)
    loinc: tuple[str, ...] = ()


ANALYTES: MappingProxyType[str, Analyte] = MappingProxyType(
    {
        "potassium": Analyte("mmol/L", 1.2, 10.0, {"meq/l": 1.0}, ("2823-3", "6298-4")),
        "sodium": Analyte("mmol/L", 95.0, 190.0, {"meq/l": 1.0}, ("2951-2",)),
        "magnesium": Analyte("mmol/L", 0.2, 5.0, {"mg/dl": 0.4114, "meq/l": 0.5}, ("19123-9", "2601-3")),
        "creatinine": Analyte("mg/dL", 0.1, 25.0, {"umol/l": 1 / 88.42, "mmol/l": 1000 / 88.42}, ("2160-0", "14682-9")),
        "haemoglobin": Analyte("g/dL", 2.0, 26.0, {"g/l": 0.1, "mmol/l": 1.611}, ("718-7",)),
        "nt_probnp": Analyte("pg/mL", 1.0, 300_000.0, {"ng/l": 1.0, "pmol/l": 8.457}, ("33762-6",)),
        "bnp": Analyte("pg/mL", 1.0, 50_000.0, {"ng/l": 1.0, "pmol/l": 3.461}, ("30934-9",)),
        "troponin": Analyte("ng/L", 0.0, 1e6, {"pg/ml": 1.0, "ng/ml": 1000.0, "ug/l": 1000.0}, ("67151-1", "89579-7")),
        "egfr": Analyte("mL/min/1.73m2", 1.0, 200.0, {"ml/min": 1.0, "ml/min/{1.73_m2}": 1.0}, ("33914-3", "62238-1", "98979-8")),
        "tsh": Analyte("mU/L", 0.001, 500.0, {"m[iu]/l": 1.0, "uiu/ml": 1.0, "miu/l": 1.0}, ("3016-3",)),
        "hba1c": Analyte("%", 2.0, 22.0, {}, ("4548-4",)),
        "crp": Analyte("mg/L", 0.0, 1000.0, {"mg/dl": 10.0}, ("1988-5",)),
        "cholesterol": Analyte("mg/dL", 30.0, 1500.0, {"mmol/l": 38.67}, ("2093-3",)),
        "uric_acid": Analyte("mg/dL", 0.2, 40.0, {"umol/l": 1 / 59.48}, ("3084-1",)),
        "lvef": Analyte("%", 3.0, 95.0, {"percent": 1.0}, ("10230-1", "8806-2", "18043-0")),
        "qrs_ms": Analyte("ms", 40.0, 320.0, {"s": 1000.0, "msec": 1.0}, ("8633-0",)),
        "qtc_ms": Analyte("ms", 250.0, 750.0, {"s": 1000.0, "msec": 1.0}, ("8636-3",)),
        "heart_rate_bpm": Analyte("/min", 15.0, 350.0, {"bpm": 1.0, "{beats}/min": 1.0}, ("8867-4",)),
        "weight_kg": Analyte("kg", 0.5, 400.0, {"g": 0.001, "[lb_av]": 0.45359237}, ("29463-7",)),
        "height_cm": Analyte("cm", 20.0, 260.0, {"m": 100.0, "[in_i]": 2.54}, ("8302-2",)),
    }
)
"""Factors from molar masses; LOINC codes from memory, the commonest of each."""
BY_LOINC = MappingProxyType({code: name for name, analyte in ANALYTES.items() for code in analyte.loinc})
MG = MappingProxyType({"mg": 1.0, "g": 1000.0, "ug": 0.001, "mcg": 0.001})
"""Milligrams in the units of a dose."""
_MICRO = str.maketrans({"µ": "u", "μ": "u"})


def unit_key(text: str) -> str:
    """A unit as the tables spell it: lower case, no blanks, micro as u."""
    return re.sub(r"\s+", "", text.translate(_MICRO)).lower()


def converted(name: str, value: Any, unit: str, where: str, field_: str) -> float:
    """A value of an analyte in its unit here. Raises InputError for another unit, no number, or what no patient has."""
    analyte = ANALYTES[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(where, field_, "is not a finite number", f"give {name} as a number")
    key = unit_key(unit)
    if key == unit_key(analyte.unit):
        number = float(value)
    elif name == "hba1c" and key == "mmol/mol":
        # IFCC to NGSP (master equation, Hoelzel 2004)
        number = 0.09148 * float(value) + 2.152
    elif key in analyte.factors:
        number = float(value) * analyte.factors[key]
    else:
        known = ", ".join([analyte.unit, *analyte.factors])
        raise InputError(where, field_, f"{name} has the unit {unit[:20]!r}", f"known units: {known}")
    if not analyte.low <= number <= analyte.high:
        raise InputError(
            where,
            field_,
            f"{name} is {number:g} {analyte.unit}, which no patient has ({analyte.low:g} to {analyte.high:g})",
            "check value and unit",
        )
    return number
