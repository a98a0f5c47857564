"""Seattle Heart Failure Model: survival in heart failure."""

from __future__ import annotations

import math
from collections.abc import Callable

from twin.records.scores.score import Facts, Input, Output, Score, Term, exact, flag

_SOURCE = "Levy et al., Circulation 2006;113:1424, doi 10.1161/CIRCULATIONAHA.105.584102"


def _ratio(value: float, per: str) -> float:
    """Logarithm of a published hazard ratio."""
    return math.log(exact(value, per, _SOURCE).value)


AGE = _ratio(1.090, "per 10 years")
MALE = _ratio(1.089, "1")
NYHA = _ratio(1.600, "per class")
EF = _ratio(1.030, "per 100/%")
ISCHAEMIC = _ratio(1.354, "1")
PRESSURE = _ratio(0.877, "per 10 mmHg up to 160")
DIURETIC = _ratio(1.178, "per mg/kg/day of furosemide equivalent")
ALLOPURINOL = _ratio(1.571, "1")
STATIN = _ratio(0.63, "1")
SODIUM = _ratio(1.050, "per mmol/L under 138")
CHOLESTEROL = _ratio(2.206, "per 100/(mg/dL)")
HB_LOW = _ratio(1.124, "per g/dL under 16")
HB_HIGH = _ratio(1.336, "per g/dL over 16")
LYMPHOCYTES = _ratio(0.897, "per 5 % up to 47 %")
URIC_ACID = _ratio(1.064, "per mg/dL over 3.4")
TREATMENTS = {
    "ace_inhibitor": _ratio(0.77, "1"),
    "beta_blocker": _ratio(0.66, "1"),
    "arb": _ratio(0.85, "1"),
    "k_sparing_diuretic": _ratio(0.74, "1"),
}
ICD = _ratio(0.73, "1")
CRT_D = _ratio(0.79, "1")
BASELINE_HAZARD = exact(
    0.0405, "1/years", "found in one public implementation only; 92.2 % at 2 years for score 0 against 92.8 % observed in the paper"
)


def _haemoglobin(x: float) -> float:
    return (16 - x) * HB_LOW if x < 16 else (x - 16) * HB_HIGH


def _device(icd: float, crt_d: float) -> float:
    # at most one device term: a CRT-D contains an ICD
    return CRT_D if crt_d else ICD * icd


def _survival(years: int) -> Output:
    of: Callable[[float], float] = lambda s: 100.0 * math.exp(-BASELINE_HAZARD.value * years) ** math.exp(s)  # noqa: E731
    return Output(f"survival_{years}y", "%", of)


def _excludes(facts: Facts) -> list[str]:
    return ["CRT without defibrillator: its published term could not be verified, so it is not scored"] if facts.get("crt_p") else []


def _number(
    key: str, unit: str, low: float, high: float, meaning: str, value: Callable[[float], float], turns: tuple[float, ...] = ()
) -> Term:
    return Term((Input(key, unit, low, high, meaning),), value, turns)


SEATTLE = Score(
    name="seattle",
    title="Seattle Heart Failure Model: survival of all causes",
    terms=(
        _number("age_years", "years", 18, 110, "age", lambda x: x / 10 * AGE),
        Term((flag("male", "male sex"),), lambda x: MALE * x),
        _number("nyha", "class", 1, 4, "NYHA class", lambda x: NYHA * x),
        _number("lvef_percent", "%", 5, 90, "left ventricular ejection fraction", lambda x: 100 / x * EF),
        Term((flag("ischaemic_cm", "ischaemic cardiomyopathy"),), lambda x: ISCHAEMIC * x),
        _number("systolic_mmhg", "mmHg", 60, 260, "systolic blood pressure", lambda x: min(x, 160) / 10 * PRESSURE),
        _number("diuretic_mg_per_kg_day", "mg/kg/day", 0, 20, "diuretic dose as furosemide", lambda x: x * DIURETIC),
        Term((flag("allopurinol", "allopurinol"),), lambda x: ALLOPURINOL * x),
        Term((flag("statin", "statin"),), lambda x: STATIN * x),
        _number("sodium_mmol_l", "mmol/L", 110, 160, "serum sodium", lambda x: max(138 - x, 0) * SODIUM),
        _number("cholesterol_mg_dl", "mg/dL", 50, 600, "total cholesterol", lambda x: 100 / x * CHOLESTEROL),
        _number("haemoglobin_g_dl", "g/dL", 4, 24, "haemoglobin", _haemoglobin, turns=(16.0,)),
        _number("lymphocytes_percent", "%", 1, 90, "lymphocytes of all leucocytes", lambda x: min(x, 47) / 5 * LYMPHOCYTES),
        _number("uric_acid_mg_dl", "mg/dL", 1, 25, "uric acid", lambda x: max(x, 3.4) * URIC_ACID),
        *(Term((flag(key, key.replace("_", " ")),), lambda x, c=c: c * x) for key, c in TREATMENTS.items()),
        Term((flag("icd", "implanted defibrillator"), flag("crt_d", "resynchronisation with defibrillator")), _device),
    ),
    outputs=(_survival(1), _survival(2), _survival(3), _survival(5)),
    source=_SOURCE,
    notes=(
        "pressure above 160 mmHg and uric acid under 3.4 mg/dL are clamped (one reference site scores them 0)",
        f"baseline hazard: {BASELINE_HAZARD.source}",
    ),
    requires=(("hf", "Heart failure is present"),),
    excludes=_excludes,
)
