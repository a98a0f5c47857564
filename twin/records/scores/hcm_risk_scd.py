"""HCM Risk-SCD: sudden cardiac death within five years in hypertrophic cardiomyopathy (ESC 2014)."""

from __future__ import annotations

import math

from twin.records.scores.score import Facts, Input, Output, Score, Term, exact, flag

_SOURCE = "O'Mahony et al., Eur Heart J 2014;35:2010, doi 10.1093/eurheartj/eht439; ESC guideline doi 10.1093/eurheartj/ehu284"
WALL = exact(0.15939858, "1/mm", _SOURCE)
WALL_SQUARED = exact(-0.00294271, "1/mm^2", _SOURCE)
ATRIUM = exact(0.0259082, "1/mm", _SOURCE)
GRADIENT = exact(0.00446131, "1/mmHg", _SOURCE)
FAMILY = exact(0.4583082, "1", _SOURCE)
NSVT = exact(0.82639195, "1", _SOURCE)
SYNCOPE = exact(0.71650361, "1", _SOURCE)
AGE = exact(-0.01799934, "1/years", _SOURCE)
SURVIVAL_5Y = exact(0.998, "1", _SOURCE)


def _excludes(facts: Facts) -> list[str]:
    """Who the model was not made for."""
    reasons = []
    if facts.get("age_years", 99) < 16:
        reasons.append("not for age under 16")
    for key, what in (
        ("cardiac_arrest", "cardiac arrest"),
        ("sustained_vt", "sustained VT"),
        ("athlete", "athletes"),
        ("metabolic_disease", "metabolic disease"),
    ):
        if facts.get(key):
            reasons.append(f"not for {what}" if key in ("athlete", "metabolic_disease") else f"not after {what}")
    return reasons


HCM_RISK_SCD = Score(
    name="hcm_risk_scd",
    title="HCM Risk-SCD: sudden cardiac death within 5 years in hypertrophic cardiomyopathy",
    terms=(
        Term(
            (Input("max_wall_thickness_mm", "mm", 10, 35, "maximal wall thickness"),),
            lambda x: WALL.value * x + WALL_SQUARED.value * x * x,
            turns=(-WALL.value / (2 * WALL_SQUARED.value),),
        ),
        Term((Input("left_atrial_diameter_mm", "mm", 28, 67, "left atrial diameter, parasternal"),), lambda x: ATRIUM.value * x),
        Term((Input("lvot_gradient_mmhg", "mmHg", 2, 154, "largest outflow gradient, at rest or Valsalva"),), lambda x: GRADIENT.value * x),
        Term((flag("family_history_scd", "sudden cardiac death in a relative"),), lambda x: FAMILY.value * x),
        Term((flag("nsvt", "non-sustained VT: 3 beats or more at 120/min or more, under 30 s"),), lambda x: NSVT.value * x),
        Term((flag("syncope", "unexplained syncope"),), lambda x: SYNCOPE.value * x),
        Term((Input("age_years", "years", 16, 115, "age"),), lambda x: AGE.value * x),
    ),
    outputs=(
        Output(
            "risk_5y",
            "%",
            lambda s: 100.0 * (1.0 - SURVIVAL_5Y.value ** math.exp(s)),
            ((4.0, "ICD generally not indicated"), (6.0, "ICD may be considered"), (math.inf, "ICD should be considered")),
            closed=False,
        ),
    ),
    source=_SOURCE,
    notes=("the published quadratic falls for walls above 27.08 mm",),
    requires=(("hcm", "The diagnosis is hypertrophic cardiomyopathy"),),
    excludes=_excludes,
)
