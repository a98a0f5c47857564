"""Words for each concept, and the longer terms inside which a word does not count.

A concept's mention is a match of its pattern that does not lie inside a match of `INSIDE` ("VT" in "VT ablation", "AF" in "AF ablation").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_I = re.IGNORECASE
_ISCHAEMIC = r"isch(?:a)?emic"
_CM = r"(?:cardiomyopathy|cardiomyopathies|\bCM\b)"

# (?-i:...) keeps abbreviations case-sensitive where the small word means something else
_PATTERNS: dict[str, str] = {
    "nsvt": r"\bNSVTs?\b|\bnon-?\s?sustained\s+(?=(?:or|and|nor)\s+sustained\b)|\bnon-?\s?sustained\s+(?:(?:monomorphic"
    r"|polymorphic)\s+)?(?:VT\b|ventricular tachycardias?)",
    "electrical_storm": r"\b(?:electrical|VT|VF|arrhythmi[ac]c?|ventricular tachycardia|ventricular)\s+storms?\b",
    "vt": r"(?-i:\bs?m?p?VTs?\b)|\bventricular tachycardias?\b|(?<!non-)(?<!non )\bsustained\s+(?=(?:or|and|nor)\s+non-?\s?sustained\b)",
    "vf": r"(?-i:\bVF\b)|\bventricular fibrillation\b|\bv-?fib\b",
    "syncope": r"(?<!near-)(?<!near )(?<!pre-)(?<!pre )\bsyncop(?:e|es|al)\b|\bblack-?outs?\b|(?-i:\bT?LOC\b)"
    r"|\b(?:transient )?loss of consciousness\b"
    r"|\bfainted\b",
    "cardiac_arrest": r"\bcardiac arrests?\b|\bOHCA\b|\baborted (?:sudden (?:cardiac )?death|SCD)\b|\bVF[- ]arrests?\b"
    r"|\bresuscitated\b|(?-i:\bROSC\b)|\bbystander CPR\b",
    "scd": r"\bsudden (?:unexplained |unexpected )?(?:cardiac )?deaths?\b|(?-i:\bSCD\b)|\bdied suddenly\b"
    r"|\bdropped dead\b|\bsudden arrhythmic death\b",
    "af": r"(?-i:\bP?AF\b)|\ba-?fib\b|\batrial fibrillation\b",
    "mi": r"(?-i:\b[AN]?MIs?\b)|\b(?:N?STEMI)\b|\bmyocardial infarct(?:ion|ions|s)?\b|\bheart attacks?\b|\binfarct(?:ion"
    r"|ions|s)?\b|\bpost-?\s?MI\b",
    "cad": r"(?-i:\bCAD\b)|(?-i:\bIHD\b)|(?-i:\bCHD\b)|\bcoronary (?:artery |heart )?disease\b|\bisch(?:a)?emic heart disease\b"
    r"|\b(?:single|two|three|triple|double|multi)-?\s?vessel (?:coronary )?disease\b",
    "scar": r"\bscar(?:s|red|ring)?\b|(?-i:\bLGE\b)|\b(?:late|delayed)\s+(?:gadolinium\s+)?(?:hyper-?)?enhancement\b"
    r"|\bfibrosis\b|\bhyper-?enhancement\b"
    r"|\blate-?enhancing\b|(?<!contrast )\benhancement\b",
    "lv_thrombus": r"\bthromb(?:us|i)\b|(?<!LAA )(?<!LA )(?<!appendage )(?<!atrial )(?<!blood )\bclots?\b",
    "lv_aneurysm": r"\b(?<!pseudo)aneurysms?\b|\baneurysmal\b",
    "pericardial_effusion": r"\bpericardial (?:effusions?|fluid)\b|(?<!pleural )\beffusion\b",
    "icd": r"(?-i:\b[SE]?V?-?ICDs?\b)|\bCRT-?D\b|\bdefibrillators?\b|\bcardioverter[- ]defibrillators?\b",
    "ablation": r"\bablat(?:ion|ions|ed)\b",
    "hf": r"\bheart failure\b|\bHF(?:r|p|mr|imp)?EF\b|(?-i:\b[AC]D?HF\b)|(?-i:\bCCF\b)|(?-i:\bHF\b)|\bcardiac failure\b",
    "diabetes": r"\bdiabet(?:es|ic)\b|\b(?:T[12])DM\b|\bDM\s?[12I]+\b|(?-i:\bI?DDM\b)|(?-i:\bN?IDDM\b)|(?-i:\bDM\b)",
    "copd": r"\bCOPD\b|\bchronic obstructive (?:pulmonary|airways?|lung) disease\b",
    "hypertension": r"\bhypertension\b|\bhypertensive\b|\bHTN\b|\bhigh blood pressure\b",
    "nonischaemic_cm": rf"\bnon-?\s?{_ISCHAEMIC}\s+(?:dilated\s+)?{_CM}|(?-i:\bNICM\b)|(?-i:\bI?DCM\b)|\bdilated\s+{_CM}",
    "ischaemic_cm": rf"(?<!non-)(?<!non )(?<!non)\b{_ISCHAEMIC}\s+(?:dilated\s+)?{_CM}|(?-i:\bICM\b)",
    "hcm": rf"\bhypertrophic\s+(?:obstructive\s+)?{_CM}|(?-i:\bHO?CM\b)",
    "arvc": r"(?-i:\bARVC(?:/D)?\b)|(?-i:\bARVD\b)|(?-i:\bACM\b)|\barrhythmogenic\s+(?:right\s+ventricular\s+)?(?:cardiomyopathy"
    r"|dysplasia)",
    "sarcoid": r"\bsarcoid(?:osis)?\b",
    "myocarditis": r"\bmyocarditis\b",
    "mr": r"\bmitral\s+(?:valve\s+)?(?:regurgitation|insufficiency|incompetence)\b|(?-i:\bMR\b)",
}
CONCEPTS: dict[str, re.Pattern[str]] = {name: re.compile(pattern, _I) for name, pattern in _PATTERNS.items()}

# longer terms that swallow the concept's word; the value is the set of concepts that do not count inside (empty: all)
_INSIDE: tuple[tuple[str, frozenset[str]], ...] = (
    (r"\b(?:VT|ventricular tachycardia|VF|PVC|VPC|PVE)s?[- ](?:substrate )?ablat\w+", frozenset({"vt", "vf"})),
    (
        r"\bablat\w+ (?:of|for) (?:the )?(?:clinical |recurrent |scar-related |sustained )?(?:VT|ventricular tachycardia)s?\b",
        frozenset({"vt"}),
    ),
    (r"\b(?:VT|ventricular tachycardia|VF) storms?", frozenset({"vt", "vf"})),
    (r"\b(?:VT|VF|fast VT|FVT)[- ](?:zones?|detection|therap\w+ zones?|monitor\w*)", frozenset({"vt", "vf"})),
    (
        r"\b(?:AF|atrial fibrillation|atrial flutter|flutter|PVI|pulmonary vein|AV[- ]?node|AVN|alcohol septal"
        r"|septal|cavotricuspid isthmus|CTI|left atrial|SVT|"
        r"AVNRT|accessory pathway|WPW)[- ](?:isolation |catheter |radiofrequency )*ablat\w+",
        frozenset({"ablation", "af"}),
    ),
    (
        r"\bablat\w+ (?:of|for) (?:paroxysmal |persistent )?(?:AF|atrial fibrillation|atrial flutter|AVNRT|SVT)\b",
        frozenset({"ablation", "af"}),
    ),
    (r"\bsupraventricular tachycardias?|\bSVTs?\b", frozenset({"vt"})),
    (r"\b(?:pulmonary|portal|intracranial|ocular|pulmonary arterial) hypertension", frozenset({"hypertension"})),
    (r"\b(?:pulmonary|cystic|hepatic|liver|lung|retroperitoneal) fibrosis", frozenset({"scar"})),
    (
        r"\b(?:remaining|other|rest of the)\b[^.;]{0,40}\b(?:without|no|free of) (?:\w+ )?(?:LGE|enhancement|scar\w*|fibrosis)\b",
        frozenset({"scar"}),
    ),
    (r"\b(?:surgical|sternotomy|wound|thoracotomy|abdominal|skin|keloid) scar\w*", frozenset({"scar"})),
    (
        r"\b(?:LGE|late (?:gadolinium )?enhancement)[- ](?:imaging|images?|protocol|sequences?|CMR|MRI|acquisitions?"
        r"|study)\b",
        frozenset({"scar"}),
    ),
    (
        r"\b(?:left atrial|LA|LAA|left atrial appendage|appendage|atrial|RV|right ventricular|right atrial|RA"
        r"|venous|deep vein|coronary|stent|catheter|lead)"
        r"(?: or LAA| appendage)? thromb\w+",
        frozenset({"lv_thrombus"}),
    ),
    (r"\bthromb(?:us|i) (?:in|of|within) the (?:left atri\w+|LAA?|appendage|right \w+)", frozenset({"lv_thrombus"})),
    (
        r"\b(?:aortic|aort\w+ root|abdominal|thoracic|cerebral|intracranial|atrial septal|interatrial septal"
        r"|coronary(?: artery)?|iliac|popliteal|sinus of valsalva)"
        r"(?: aortic)? aneurysm\w*",
        frozenset({"lv_aneurysm"}),
    ),
    (r"\b(?:pleural|joint|knee) effusions?", frozenset({"pericardial_effusion"})),
    (r"\bICD-?(?:9|10|11)\b|\bICD codes?", frozenset({"icd"})),
    (
        r"\bheart failure (?:clinic|nurses?|team|service|therapy|medication|treatment|unit|specialist|programme"
        r"|program)\b",
        frozenset({"hf"}),
    ),
    (r"\bHF (?:clinic|nurses?|team|service|therapy|medication|treatment)\b", frozenset({"hf"})),
    (r"\bHCM Risk[- ]SCD\b|\bRisk-SCD\b|\bSCD risk (?:score|calculator|model)\b", frozenset({"scd", "hcm"})),
    (r"\b(?:aborted) (?:sudden (?:cardiac )?death|SCD)\b", frozenset({"scd"})),
    (r"\b(?:cerebral|brain|lacunar|pulmonary|renal|splenic|bowel) infarct\w*", frozenset({"mi"})),
    (r"\bMR (?:imaging|scan\w*|angiogra\w+|study|examination)|\b(?:cardiac|CMR|cardiovascular) MR\b", frozenset({"mr"})),
    (r"\bCAD-?RADS\b", frozenset({"cad"})),
    (r"\bdiabetes insipidus", frozenset({"diabetes"})),
    (r"\b(?:VT|VF|SVT)[- ](?:inducibility|induction|stimulation|study)\b", frozenset({"vt", "vf"})),
    (
        r"\binfarct[- ](?:size|zone|border|related)\b|\b(?:peri|post)-?\s?infarct(?:ion)?\s+(?:border|zone|cardiomyopathy"
        r"|scar)\w*",
        frozenset({"mi"}),
    ),
)
INSIDE = tuple((re.compile(pattern, _I), concepts) for pattern, concepts in _INSIDE)

# whole phrases that say a concept is absent without naming it
_ABSENT: tuple[tuple[str, str], ...] = (
    (
        "cad",
        r"\b(?:unobstructed|normal|smooth|clean) (?:epicardial )?coronar(?:y arteries|ies|y angiogra\w+)\b|\bcoronar(?:y arteries"
        r"|ies) (?:are|were) (?:normal|unobstructed)\b",
    ),
)
ABSENT = tuple((concept, re.compile(pattern, _I)) for concept, pattern in _ABSENT)


@dataclass(frozen=True)
class Mention:
    """One mention of one concept in the text: characters [start, end)."""

    concept: str
    start: int
    end: int


def mentions(text: str) -> Iterator[Mention]:
    """Every mention that counts, concept by concept; a longer concept hides a shorter one inside it ("NSVT" holds no "VT")."""
    inside = [(m.span(), concepts) for pattern, concepts in INSIDE for m in pattern.finditer(text)]
    taken: list[tuple[int, int]] = []
    for concept, pattern in CONCEPTS.items():
        for match in pattern.finditer(text):
            span = match.span()
            hidden = any(a <= span[0] and span[1] <= b and concept in concepts for (a, b), concepts in inside)
            hidden = hidden or any(a <= span[0] and span[1] <= b and (a, b) != span for a, b in taken)
            if not hidden:
                yield Mention(concept, *span)
            if concept in ("nsvt", "nonischaemic_cm", "cardiac_arrest"):
                taken.append(span)
