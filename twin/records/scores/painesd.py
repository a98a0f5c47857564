"""PAINESD: acute haemodynamic decompensation during ablation of ventricular tachycardia."""

from __future__ import annotations

import math

from twin.records.scores.score import Input, Output, Score, Term, exact, flag

_SOURCE = (
    "Santangeli et al., Circ Arrhythm Electrophysiol 2015;8:68; "
    "Muser et al., Arrhythm Electrophysiol Rev 2018;7:282, doi 10.15420/aer.2018.36.3"
)
COPD = exact(5, "points", _SOURCE)
AGE_OVER_60 = exact(3, "points", _SOURCE)
ISCHAEMIC = exact(6, "points", _SOURCE)
NYHA_3_4 = exact(6, "points", _SOURCE)
EF_UNDER_25 = exact(3, "points", _SOURCE)
STORM = exact(5, "points", _SOURCE)
DIABETES = exact(3, "points", _SOURCE)

PAINESD = Score(
    name="painesd",
    title="PAINESD: acute haemodynamic decompensation during VT ablation",
    terms=(
        Term((flag("copd", "chronic obstructive pulmonary disease"),), lambda x: COPD.value * x),
        Term((Input("age_years", "years", 0, 120, "age"),), lambda x: AGE_OVER_60.value * (x > 60)),
        Term((flag("ischaemic_cm", "ischaemic cardiomyopathy"),), lambda x: ISCHAEMIC.value * x),
        Term((Input("nyha", "class", 1, 4, "NYHA class"),), lambda x: NYHA_3_4.value * (x >= 3)),
        Term((Input("lvef_percent", "%", 1, 95, "left ventricular ejection fraction"),), lambda x: EF_UNDER_25.value * (x < 25)),
        Term((flag("electrical_storm", "VT storm"),), lambda x: STORM.value * x),
        Term((flag("diabetes", "diabetes mellitus"),), lambda x: DIABETES.value * x),
    ),
    outputs=(Output("score", "points", lambda s: s, ((8, "low"), (14, "intermediate"), (math.inf, "high"))),),
    source=_SOURCE,
    notes=(
        "derivation terciles: decompensation about 1, 6 and 24 %",
        "disputed: in 1124 patients of 2024 (doi 10.1093/europace/euae145) it was 0.3, 1.8 and 1.1 %; later death was predicted",
    ),
)
