"""ARVC risk calculator: first sustained ventricular arrhythmia in arrhythmogenic right ventricular cardiomyopathy."""

from __future__ import annotations

import math

from twin.params import Param
from twin.records.scores.score import Facts, Input, Output, Score, Term, exact, flag

_SOURCE = (
    "Cadrin-Tourigny et al., Eur Heart J 2019;40:1850, doi 10.1093/eurheartj/ehz103, corrected 2022;43:e1, doi 10.1093/eurheartj/ehac180"
)
_BASELINE = (
    "corrected baseline of 2022 (doi 10.1093/eurheartj/ehac180), full precision from a public implementation of the authors' calculator"
)
MALE = exact(0.4879, "1", _SOURCE)
AGE = exact(-0.0218, "1/years", _SOURCE)
SYNCOPE = exact(0.6573, "1", _SOURCE)
NSVT = exact(0.8112, "1", _SOURCE)
LN_PVC = exact(0.1701, "1", _SOURCE)
TWI = exact(0.1131, "1/lead", _SOURCE)
RVEF = exact(-0.0252, "1/%", _SOURCE)
FREE_1Y = exact(0.93761042413069, "1", _BASELINE)
FREE_2Y = exact(0.900806775419695, "1", _BASELINE)
FREE_5Y = exact(0.83956384494683, "1", _BASELINE)


def _risk(baseline: Param) -> Output:
    """The risk until one time, from the share that stays free of arrhythmia at linear predictor 0."""
    years = {FREE_1Y: 1, FREE_2Y: 2, FREE_5Y: 5}[baseline]
    return Output(f"risk_{years}y", "%", lambda s: 100.0 * (1.0 - baseline.value ** math.exp(s)))


def _excludes(facts: Facts) -> list[str]:
    """The model is for a first sustained arrhythmia."""
    return ["not after a sustained ventricular arrhythmia"] if facts.get("sustained_vt") or facts.get("cardiac_arrest") else []


ARVC = Score(
    name="arvc",
    title="ARVC risk calculator: first sustained ventricular arrhythmia",
    terms=(
        Term((flag("male", "male sex"),), lambda x: MALE.value * x),
        Term((Input("age_years", "years", 0, 120, "age at diagnosis"),), lambda x: AGE.value * x),
        Term((flag("syncope", "syncope of suspected cardiac cause within 6 months"),), lambda x: SYNCOPE.value * x),
        Term((flag("nsvt", "non-sustained VT"),), lambda x: NSVT.value * x),
        Term(
            (Input("pvc_24h", "per 24 h", 0, 150_000, "premature ventricular complexes in 24 h"),),
            # the published logarithm is undefined at 0; the term is 0 there as at 1, said in the notes
            lambda x: LN_PVC.value * math.log(max(x, 1.0)),
        ),
        Term((Input("inverted_t_leads", "leads", 0, 9, "precordial and inferior leads with inverted T waves"),), lambda x: TWI.value * x),
        Term((Input("rvef_percent", "%", 1, 95, "right ventricular ejection fraction"),), lambda x: RVEF.value * x),
    ),
    outputs=(_risk(FREE_1Y), _risk(FREE_2Y), _risk(FREE_5Y)),
    source=_SOURCE,
    notes=(
        "no complexes in 24 h: the logarithm's term is taken as 0 (a choice; the article leaves it open)",
        "external validation: C 0.70 (0.65-0.75), slope 1.01",
    ),
    requires=(("arvc", "The diagnosis is definite ARVC"),),
    excludes=_excludes,
)
