"""Ejection fraction, NYHA class and extent of scar, each as of now and, where stated, as it was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from twin.records.text.numbers import Span, percents

_I = re.IGNORECASE
_EF = re.compile(
    r"\b(?:LV[- ]?EF|EF|(?:(?:left|LV|global|systolic)\s+)?(?:ventricular\s+)?ejection fraction|(?:LV|left ventricular"
    r"|systolic|pump) function)\b",
    _I,
)
_OTHER_EF = re.compile(
    r"(?:\b(?:RV|right ventric\w+|right|LA|left atri\w+|atrial|RA)[- ]*(?:ejection fraction|EF)\b|\bRV[- ]?EF\b"
    r"|\bLAEF\b)\s*(?:is|was|of|at|:|=)?\s*(?:[~<>]|about|around)?\s*\d*\.?\d*\s*%?(?:\s*(?:-|–)\s*\d+\s*%)?"
    r"|\b(?:RV|right ventricular) (?:systolic )?function\b[^.;,]*",
    _I,
)
_PRIOR = re.compile(
    r"\b(?:previous(?:ly)?|prior|formerly|before|baseline|earlier|initial(?:ly)?|at (?:diagnosis|presentation"
    r"|discharge|the time)|last (?:year|time)|historic(?:al|ally)?|outside(?: hospital)?|"
    r"had been|compared (?:to|with)|versus|vs\.?|(?:down|up|improved|fallen|fell|dropped|decreased|declined"
    r"|increased|recovered|reduced|risen|rose|deteriorated) from|from|"
    r"(?:\d+|one|two|three|four|five|six|several) (?:years?|months?|weeks?) (?:ago|earlier|before)|pre-?(?:treatment"
    r"|chemo\w*|implant|op\w*|CRT))\b",
    _I,
)
_YEAR = re.compile(
    r"\blast (?:week|month)\b|\b(?:in|on|of)?\s*(?:(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\w*\.?\s+)?(?:19|20)\d\d\b(?!\s*ms)",
    _I,
)
_NOW = re.compile(
    r"\b(?:now|today|current(?:ly)?|at present|presently|this (?:study|scan|time|echo)|most recent(?:ly)?"
    r"|latest|new|improved to|to|recovered to|repeat)\b",
    _I,
)
_HYPOTHETICAL = re.compile(
    r"\b(?:if|should|unless|when(?=[^.]*(?:falls|drops|remains|is below))|would|threshold|target|goal|criterion"
    r"|criteria|until|normal (?:range|value)|reference|cut-?off)\b",
    _I,
)
_NOT_MET = re.compile(r"\s*(?:is|was|has been|were)? ?not (?:reached|met|achieved|attained)\b", _I)
_FAMILY = re.compile(r"\b(?:father|mother|brother|sister|son|daughter|uncle|aunt|cousin|sibling)\b", _I)
_NOT_EF = re.compile(
    r"^\s*(?:%|per ?cent)?\s*(?:mm|cm|ml|mL|ms|msec|g\b|kg|years?|yrs?|bpm|/min|mmHg|m/s|Hz|beats|segments"
    r"|transmural|of (?:the )?(?:LV |left ventricular |myocardial |ventricular |total |beats|pacing)|stenosis"
    r"|scar|paced|pacing|D\b|chance|risk|wall thickness)"
)
_REGURGITANT = re.compile(
    r"(?:scar|LGE|enhancement|burden|fibrosis|stenosis|strain|GLS|shortening|fractional shortening|FS|saturation"
    r"|regurgitant fraction|extent|paced|pacing|haematocrit|hba1c|transmurality)\W*(?:\w+\W+){0,2}$",
    _I,
)
_EDV = re.compile(r"\b(?:LV)?(?:EDV|end-?\s?diastolic volume)(?:i)?\s*(?:is|was|of|:|=)?\s*(\d+(?:\.\d+)?)\s*m?l", _I)
_ESV = re.compile(r"\b(?:LV)?(?:ESV|end-?\s?systolic volume)(?:i)?\s*(?:is|was|of|:|=)?\s*(\d+(?:\.\d+)?)\s*m?l", _I)
_SV = re.compile(r"\b(?:LV)?(?:SV|stroke volume)\s*(?:is|was|of|:|=)?\s*(\d+(?:\.\d+)?)\s*m?l", _I)
_RV_VOLUME = re.compile(r"\bRV\s?(?:EDV|ESV|SV)\b[^.;]*|\bright ventricular (?:end|stroke)[^.;]*", _I)


@dataclass(frozen=True)
class Reading:
    """One number read from the text: [low, high], its place, and its time: current, prior or hypothetical."""

    low: float
    high: float
    start: int
    end: int
    time: str


def ejection_fractions(text: str, spans: Sequence[tuple[int, int]]) -> list[Reading]:
    """Every left ventricular ejection fraction (percent) with its time, in the order of the text."""
    found: list[Reading] = []
    carried = False  # a sentence that starts with "Today:" or "Now" goes on about the ejection fraction of the sentence before
    for start, end in spans:
        masked = _mask(text, start, end)
        heads = list(_EF.finditer(masked))
        head = heads[0].start() if heads else None
        if (
            head is None
            and carried
            and re.match(
                r"\s*(?:today|now|current(?:ly)?|it|this|previous(?:ly)?|prior|repeat|follow-?up|last|after|at follow|following|since)\b",
                masked,
                _I,
            )
        ):
            head = 0
        if head is not None and not _FAMILY.search(masked[:head]):
            weak = bool(heads) and not re.search(r"EF|ejection", heads[0].group(), _I) and len(heads) == 1
            found += _readings(text, masked, start, head, weak)
        carried = head is not None
    return found


def _readings(text: str, masked: str, offset: int, head: int, weak: bool) -> list[Reading]:
    """Ejection fractions of one sentence; `weak`: only "function" names it, so a number needs its unit."""
    spans = [s for s in percents(masked, 0, len(masked), fractions=True) if _is_ef(masked, s, head, weak)]
    readings = []
    for index, span in enumerate(spans):
        before = masked[spans[index - 1].end if index else 0 : span.start]
        after = masked[span.end : spans[index + 1].start if index + 1 < len(spans) else len(masked)]
        readings.append(Reading(span.low, span.high, offset + span.start, offset + span.end, _time(masked, before, after, span, index)))
    return readings


def _is_ef(masked: str, span: Span, head: int, weak: bool) -> bool:
    """True if a number in a sentence about the ejection fraction is one."""
    if (span.low < 3 and span.high <= 5) or (not span.has_unit and (weak or span.high > 95)):
        return False
    if _NOT_EF.match(masked[span.end :]) or _REGURGITANT.search(masked[: span.start]):
        return False
    if not span.has_unit and re.match(r"\)\s", masked[span.end :]) and masked.rfind("(", 0, span.start) <= masked.rfind(")", 0, span.start):
        return False  # the number of an item in a list
    gap = masked[head : span.start] if span.start >= head else masked[span.end : head]
    if span.start < head:  # "a 35 % ejection fraction", "35 % (EF)"
        return len(gap) < 25 and span.has_unit and not re.search(r"[.;,]", gap)
    if not span.has_unit and (
        len(gap) > 45
        or re.match(r"\s*(?:\.\d|/|-?ch(?:amber)?s?\b|-?year|th\b|st\b|nd\b|rd\b|x\b)", masked[span.end :])
        or re.search(r"\b(?:grade|class|NYHA|E/e'|segments?|age|aged|day|visit)\W*$", masked[: span.start], _I)
    ):
        return False
    return not re.search(r"\b(?:E/e'|GLS|TAPSE|LAVI|PASP|RVSP|EDV|ESV)\b", gap)


def _time(masked: str, before: str, after: str, span: Span, index: int) -> str:
    """Current, prior or hypothetical for one ejection fraction, from the words around it."""
    near = re.split(r"[,;(]|\band\b", before)[-1] if index else before
    tail = re.split(r"[,;(]|\b(?:and|now|today|currently|compared|to|versus|vs)\b", after)[0]
    if _NOT_MET.match(after):
        return "hypothetical"
    if _HYPOTHETICAL.search(near) and not re.search(r"\bnow\b", near, _I):
        return "hypothetical"
    if re.search(r"\bto\s*(?:about|around|approximately|~)?\s*$", near, _I) or re.search(
        r"\b(?:now|today|currently|current|improved to|fell to)\b", near, _I
    ):
        return "current"
    if _PRIOR.search(near) or _PRIOR.search(tail):
        return "prior"
    if _YEAR.search(near) or _YEAR.search(tail):
        # a single dated value is the value of that study; beside others the dated one is the older
        return "dated"
    if re.search(r"\bwas\b", near, _I) and _NOW.search(after):
        return "prior"
    return "current"


def lvef(readings: Sequence[Reading]) -> tuple[list[float] | None, list[float]]:
    """Current [low, high] over all methods, and the earlier values in the order of the text."""
    current = [r for r in readings if r.time == "current"]
    dated = [r for r in readings if r.time == "dated"]
    prior = [r for r in readings if r.time == "prior"] + (dated if current else dated[:-1])
    current = current or dated[-1:]
    earlier = [value for r in sorted(prior, key=lambda r: r.start) for value in ([r.low] if r.low == r.high else [r.low, r.high])]
    if not current:
        return None, earlier
    return [min(r.low for r in current), max(r.high for r in current)], earlier


def derived_lvef(text: str) -> tuple[float, int, int] | None:
    """Ejection fraction (percent) from volumes that the text gives, with the place of both; None without them."""
    masked = _RV_VOLUME.sub(lambda m: " " * len(m.group()), text)
    diastolic, systolic, stroke = _EDV.search(masked), _ESV.search(masked), _SV.search(masked)
    if diastolic is None or (systolic is None and stroke is None):
        return None
    other = systolic or stroke
    assert other is not None
    full, part = float(diastolic[1]), float(other[1])
    ejected = full - part if systolic else part
    if not 0 < ejected < full:
        return None
    return 100 * ejected / full, min(diastolic.start(), other.start()), max(diastolic.end(), other.end())


_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "1": 1, "2": 2, "3": 3, "4": 4, "ONE": 1, "TWO": 2, "THREE": 3, "FOUR": 4}
_CLASS = r"(?:IV|III|II|I|[1-4]|one\b|two\b|three\b|four\b)"
_NYHA = re.compile(
    rf"\b(?:NYHA|New York Heart Association)\W*(?:functional\s+)?(?:class|stage|FC)?\W*(?:was|is|of|now|currently"
    rf"|:)?\s*({_CLASS})[ab]?(?:\s*(?:-|–|/|to|or)\s*({_CLASS})[ab]?)?(?![\w%.]*\d)"
    rf"|\b(?:functional\s+)?class\s+({_CLASS})[ab]?(?:\s*(?:-|–|/|to|or)\s*({_CLASS})[ab]?)?\s*\(?(?:NYHA"
    rf"|heart failure|symptoms|dyspn|\(NYHA)"
    rf"|\bfunctional class\W*({_CLASS})\b(?:\s*(?:-|–|/|to|or)\s*({_CLASS})\b)?"
    # a class in Roman numerals without a name is NYHA's unless something else has classes there
    r"|(?-i:\bFC (IV|III|II|I)(?:\s?[-–/]\s?(IV|III|II|I))?\b)"
    r"|(?<!CCS )(?<!illip )(?<!ildren )(?<!ugh )(?<!WHO )(?<!anadian )(?-i:\b[Cc]lass (IV|III|II|I)(?:\s?[-–/]\s?(IV|III|II|I))?\b)"
    r"(?!\s*(?:anti|drug|agent|indication|recommend|evidence|effect|obesity|angina|[ABC]\b|\())",
    re.I,
)
_LATER_CLASS = re.compile(
    rf"\b(?:now|currently|today|to|improved to|worsened to)\s+(?:(?:NYHA|class|functional class|in)\s+)*({_CLASS})[ab]?(?:\s*(?:-"
    rf"|–|/)\s*({_CLASS}))?\b"
)


def nyha(text: str, spans: Sequence[tuple[int, int]]) -> tuple[list[int] | None, tuple[int, int] | None]:
    """Current NYHA class [low, high] and its place; None if none is stated for now."""
    current: list[tuple[list[int], tuple[int, int]]] = []
    dated: list[tuple[list[int], tuple[int, int]]] = []
    for start, end in spans:
        for match in _NYHA.finditer(text, start, end):
            first, second = next((match[i], match[i + 1]) for i in (1, 3, 5, 7, 9) if match[i])
            low = _ROMAN[first.upper()]
            high = _ROMAN[second.upper()] if second else low
            near = re.split(r"[,;]", text[start : match.start()])[-1]
            tail = text[match.end() : min(end, match.end() + 60)]
            if _HYPOTHETICAL.search(near) or _FAMILY.search(near) or re.match(r"\s+not\b", tail):
                continue
            later = _LATER_CLASS.search(text, match.end(), end)
            moved = second and re.search(r"\bfrom\b[^,;]{0,25}$", text[start : match.start()], _I) and re.search(r"\bto\b", match.group())
            if moved:  # "improved from NYHA III to II"
                current.append(([high, high], match.span()))
            elif later and (
                _PRIOR.search(near)
                or _PRIOR.search(tail)
                or re.search(r"\b(?:was|were)\b|→|->", near + tail)
                or re.match(r"\s*(?:to|→|->)", tail)
            ):
                low = _ROMAN[later[1].upper()]
                current.append(([low, _ROMAN[later[2].upper()] if later[2] else low], later.span()))
            elif _PRIOR.search(near) or re.match(r"[^,;.]{0,30}\b(?:previously|before|ago|at (?:diagnosis|presentation))\b", tail, _I):
                continue
            elif _YEAR.search(near) or _YEAR.match(tail.lstrip(" (")):
                dated.append(([low, high], match.span()))
            else:
                current.append(([low, high], match.span()))
    chosen = current or dated[-1:]
    return (sorted(chosen[-1][0]), chosen[-1][1]) if chosen else (None, None)


_SCAR_WORD = re.compile(r"\b(?:scar\w*|LGE|enhancement|hyper-?enhancement|fibrosis|enhancing|infarct\w*|burden)\b", _I)
_OF_MASS = re.compile(
    r"^\s*(?:\(?[^().;]{0,12}\)?\s*)?(?:of|by)?\s*(?:the\s+)?(?:total\s+|whole\s+)?(?:LV|left[- ]ventric\w+"
    r"|myocard\w+|ventricular)(?:\s+(?:myocardial|muscle|wall|myocardium))?\s*(?:mass|volume|myocardium)?"
    r"|^\s*(?:of|by)\s+(?:mass|volume|the (?:LV|left ventricle|myocardium))",
    _I,
)
_EXTENT = re.compile(
    r"\b(?:scar|LGE|enhancement|hyper-?enhancement|fibrosis|burden|extent|infarct(?: size)?|scar (?:mass|volume|size)|mass)\b[^%;]{0,40}$",
    _I,
)
_OTHER_BURDEN = re.compile(
    r"\b(?:AF|AT|VT|VE|PVCs?|PACs?|atrial|fibrillation|flutter|tachycardia|arrhythmi[ac]\w*|ectop\w+|pac(?:ing|ed)|plaque|shunt)\s+burden"
    r"\b[^;]*$",
    _I,
)
"""A burden in percent of time, of beats or of something else than muscle."""
_NOT_EXTENT = re.compile(
    r"^\s*(?:transmural\w*|of (?:the )?wall|wall thickness|thickness|thick|stenosis|of (?:maxim|the maxim"
    r"|max|peak|signal))|^\s*(?:\w+\s+){0,1}transmural",
    _I,
)


def scar_percent(text: str, spans: Sequence[tuple[int, int]]) -> tuple[float | None, tuple[int, int] | None]:
    """Extent of scar as percent of ventricular mass or volume (middle of a range), and its place."""
    best: tuple[int, float, tuple[int, int]] | None = None
    for start, end in spans:
        if not _SCAR_WORD.search(text, start, end):
            continue
        for span in percents(text, start, end):
            before, after = text[start : span.start], text[span.end : end]
            if _NOT_EXTENT.match(after) or re.search(
                r"\b(?:EF|ejection fraction|transmurality|threshold|SD)\W*(?:\w+\W+){0,2}$|(?:mural|endocardial|epicardial)\W{0,3}$",
                before,
                _I,
            ):
                continue
            if (
                _PRIOR.search(re.split(r"[,;]", before)[-1])
                or _HYPOTHETICAL.search(before)
                or _OTHER_BURDEN.search(before)
                or re.search(r"\b(?:grey|gray|border) ?zone\b[^,;]*$", before, _I)
            ):
                continue
            rank = 2 if _OF_MASS.match(after) else 1 if _EXTENT.search(before) else 0
            if rank and (best is None or rank > best[0]):
                best = (rank, (span.low + span.high) / 2, (span.start, span.end))
    return (best[1], best[2]) if best else (None, None)


def _mask(text: str, start: int, end: int) -> str:
    """The sentence with other chambers' ejection fractions blanked out, at the same places."""
    return _OTHER_EF.sub(lambda m: " " * len(m.group()), text[start:end])
