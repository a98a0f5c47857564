"""What clinical facts and measurements say about the tissue: the sizes, with where each comes from, as `Shift` and `Measurement`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from twin.calibrate.evidence_priors import Measurement, Shift
from twin.calibrate.substrate import SLOWER_PER_QUARTER
from twin.params import Param

AGE_MIDDLE_YEARS = 60.0
"""The published priors are of adults around this age (chosen here)."""
_SPACH = (
    "side-to-side coupling falls with age (Spach and Dolber, Circ Res 58:356, 1986, human atrial bundles); size in ventricles chosen here"
)
AGE_ALONG = Param(0.99, "1/decade", 0.96, 1.01, _SPACH)
AGE_ACROSS = Param(0.97, "1/decade", 0.92, 1.00, _SPACH)
AGE_APD = Param(1.005, "1/decade", 0.99, 1.02, "QTc lengthens slightly with age in adults; size chosen here")
FEMALE_APD = Param(
    1.03, "1", 0.99, 1.07, "QTc limits are 10 ms higher in women (Rautaharju et al., Circulation 119:e241, 2009), as a share of JT"
)
FAILING_PERCENT = Param(35.0, "%", 30.0, 40.0, "ejection fraction at or below which remodelling of heart failure is assumed; chosen here")
FAILING_APD = Param(
    1.10,
    "1",
    0.97,
    1.25,
    "action potentials of failing human myocytes are longer (Beuckelmann et al., Circ Res 73:379, 1993); size at 600 ms chosen here",
)
FAILING_CV = Param(
    0.93,
    "1",
    0.80,
    1.03,
    "connexin43 is down in failing human hearts (Dupont et al., J Mol Cell Cardiol 33:359, 2001); size of the slowing chosen here",
)
_ANDERSON = (
    "conduction in dilated hearts falls with fibrosis, across fibres more than along (Anderson et al., J Clin Invest 92:122, 1993); "
    "size chosen here"
)
FIBROTIC_ALONG = Param(0.95, "1", 0.80, 1.05, _ANDERSON)
FIBROTIC_ACROSS = Param(0.85, "1", 0.65, 1.02, _ANDERSON)
OTHER_SCAR = Param(
    1.0, "1", 0.6, 1.67, "the priors of border zone come from infarcts; in other scars they are less certain: width chosen here"
)
DIFFUSE = ("dilated", "hypertrophic", "sarcoid", "myocarditis", "chagas")

LGE_SD = Param(0.35, "1", 0.2, 0.6, "chosen here: spread of log velocity at one intensity")
THIN_MM = Param(5.0, "mm", 4.0, 6.0, "wall thinning below 5 mm marks scar in CT (design/clinical.md)")
THIN_POWER = Param(0.5, "1", 0.0, 1.0, "chosen here: a wall of half that thickness conducts 0.7 times as fast, or no slower at all")
VOLTAGE_POWER = Param(0.5, "1", 0.2, 1.0, "chosen here: bipolar voltage and velocity both fall with uncoupling")
VOLTAGE_SD = Param(0.45, "1", 0.3, 0.7, "chosen here: spread of log velocity at one voltage; electrode size and angle change the voltage")
JT_MIDDLE_MS = Param(320.0, "ms", 300.0, 345.0, "JT of a man: QTc about 410 ms less a QRS of about 90 ms; chosen here")
JT_SD = Param(0.08, "1", 0.05, 0.12, "chosen here: rate correction, end of T and regional differences")
QRS_ASSUMED_MS = Param(95.0, "ms", 80.0, 110.0, "where the QRS was not given; normal width, chosen here")


def fact_shifts(facts: Mapping[str, Any]) -> list[Shift]:
    """Shifts by age, sex, heart failure and aetiology, of what is known."""
    return [shift for make in (_age, _sex, _failing, _aetiology) if (shift := make(facts)) is not None]


def _both(quantity: str, factor: Param) -> dict[str, Param]:
    return {f"{region}/{quantity}": factor for region in ("healthy", "border_zone")}


def power(factor: Param, exponent: float, unit: str = "1") -> Param:
    """A factor raised to an exponent, its range with it."""
    ends = sorted((factor.low**exponent, factor.high**exponent))
    return Param(factor.value**exponent, unit, ends[0], ends[1], factor.source)


def _age(facts: Mapping[str, Any]) -> Shift | None:
    if "age_years" not in facts:
        return None
    decades = (float(facts["age_years"]) - AGE_MIDDLE_YEARS) / 10.0
    factors = _both("cv_longitudinal_m_s", power(AGE_ALONG, decades)) | _both("cv_transverse_m_s", power(AGE_ACROSS, decades))
    return Shift("age", f"{facts['age_years']:g} years", factors | _both("apd_factor", power(AGE_APD, decades)))


def _sex(facts: Mapping[str, Any]) -> Shift | None:
    return Shift("sex", "female", _both("apd_factor", FEMALE_APD)) if facts.get("sex") == "female" else None


def _failing(facts: Mapping[str, Any]) -> Shift | None:
    low = "lvef_percent" in facts and float(facts["lvef_percent"]) <= FAILING_PERCENT.value
    if not low and not facts.get("heart_failure"):
        return None
    said = f"LVEF {facts['lvef_percent']:g} %" if low else "stated"
    factors = _both("cv_longitudinal_m_s", FAILING_CV) | _both("cv_transverse_m_s", FAILING_CV) | _both("apd_factor", FAILING_APD)
    return Shift("heart failure", said, factors)


def _aetiology(facts: Mapping[str, Any]) -> Shift | None:
    kind = facts.get("aetiology")
    if kind not in DIFFUSE:
        return None
    factors = {"healthy/cv_longitudinal_m_s": FIBROTIC_ALONG, "healthy/cv_transverse_m_s": FIBROTIC_ACROSS}
    factors |= {"border_zone/cv_longitudinal_m_s": OTHER_SCAR, "border_zone/cv_transverse_m_s": OTHER_SCAR}
    return Shift("aetiology", str(kind), factors)


def image_evidence(seen: Mapping[str, float]) -> list[Shift | Measurement]:
    """What images and map say of the border zone.

    seen: any of border_intensity with healthy_intensity (share of the robust maximum), border_thickness_mm, border_mv with healthy_mv.
    """
    out: list[Shift | Measurement] = []
    if "border_thickness_mm" in seen and seen["border_thickness_mm"] < THIN_MM.value:
        thin = seen["border_thickness_mm"] / THIN_MM.value
        ends = (thin**THIN_POWER.high, thin**THIN_POWER.low)
        factor = Param(thin**THIN_POWER.value, "1", ends[0], ends[1], f"{THIN_MM.source}; {THIN_POWER.source}")
        both = {"border_zone/cv_longitudinal_m_s": factor, "border_zone/cv_transverse_m_s": factor}
        out.append(Shift("wall thickness of the border zone", f"{seen['border_thickness_mm']:.1f} mm", both))
    if {"border_intensity", "healthy_intensity"} <= set(seen):
        rise = seen["border_intensity"] - seen["healthy_intensity"]
        out += _ratio(
            "late enhancement of the border zone",
            f"{100 * rise:.0f} % above remote muscle",
            -np.log(SLOWER_PER_QUARTER.value) * rise / 0.25,
            LGE_SD,
        )
    if {"border_mv", "healthy_mv"} <= set(seen) and seen["healthy_mv"] > 0:
        ratio = seen["border_mv"] / seen["healthy_mv"]
        value = f"{seen['border_mv']:.2f} against {seen['healthy_mv']:.2f} mV"
        why = f"{VOLTAGE_POWER.source}; {VOLTAGE_SD.source}"
        out += _ratio("bipolar voltage of the border zone", value, VOLTAGE_POWER.value * np.log(ratio), VOLTAGE_SD, why)
    return out


def _ratio(evidence: str, value: str, log_ratio: float, sd: Param, why: str | None = None) -> list[Shift | Measurement]:
    """Border-zone over healthy velocity was seen, along and across the fibres."""
    because = why or f"{SLOWER_PER_QUARTER.source}; {sd.source}"
    # one look at the ratio serves both directions: each gets the information of half an observation
    return [
        Measurement(
            evidence,
            f"{value} ({direction} fibres)",
            {f"border_zone/cv_{name}_m_s": 1.0, f"healthy/cv_{name}_m_s": -1.0},
            float(log_ratio),
            float(sd.value * np.sqrt(2.0)),
            because,
        )
        for direction, name in (("along", "longitudinal"), ("across", "transverse"))
    ]


def repolarisation(facts: Mapping[str, Any]) -> list[Measurement]:
    """The ECG's JT interval as a measurement of how long healthy muscle's action potential lasts."""
    if "qtc_ms" not in facts:
        return []
    qrs = float(facts.get("qrs_ms", QRS_ASSUMED_MS.value))
    jt = float(facts["qtc_ms"]) - qrs
    said = f"QTc {facts['qtc_ms']:g} ms, QRS {qrs:g} ms{'' if 'qrs_ms' in facts else ' (assumed)'}"
    why = f"JT against that of a man, {JT_MIDDLE_MS.value:g} ms: {JT_MIDDLE_MS.source}; {JT_SD.source}"
    return [Measurement("QTc", said, {"healthy/apd_factor": 1.0}, float(np.log(jt / JT_MIDDLE_MS.value)), JT_SD.value, why)]
