"""Numbers and percentages as reports write them: ranges, bounds, fractions, spelled, "mid thirties"; and whether they are of now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_I = re.IGNORECASE
_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_ONES = {word: value for value, word in enumerate((*_UNITS, *_TEENS))}
_TENS = {w: 10 * i for i, w in enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=2)}
_WORD = rf"(?:(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(list(_ONES)[1:10])}))?|(?:{'|'.join(_ONES)}))"
_NUMBER = rf"(?:\d+(?:\.\d+)?|{_WORD})"
_DECADE = rf"(?P<part>low|lower|mid|middle|high|upper)?[- ]?(?:the )?(?P<decade>\d0'?s|{'|'.join(t[:-1] + 'ies' for t in _TENS)})"
PERCENT = re.compile(
    rf"(?P<bound>>=|<=|≥|≤|>|<|greater than|more than|above|over|at least|less than|below|under|up to)?\s*~?\s*"
    rf"(?P<a>{_NUMBER})\s*(?:%|per ?cent)?\s*(?:(?P<pm>\+/?-|±)\s*\d+(?:\.\d+)?|(?:-|–|—|to|and)\s*(?P<b>{_NUMBER}))?\s*(?P<unit>%"
    rf"|per ?cent)?",
    _I,
)
DECADES = re.compile(rf"\b(?:in the |at )?{_DECADE}\b", _I)


@dataclass(frozen=True)
class Span:
    """A range of percent [low, high] with its place in the text."""

    low: float
    high: float
    start: int
    end: int
    has_unit: bool


def number(text: str) -> float:
    """A number in digits or words."""
    text = text.lower().strip()
    if text[0].isdigit():
        return float(text)
    tens, _, ones = text.replace("-", " ").partition(" ")
    return float(_TENS.get(tens, _ONES.get(tens, 0)) + (_ONES[ones] if ones else 0))


def _two_values(text: str, start: int, match: re.Match[str]) -> bool:
    """True if two numbers joined by "and" or "to" are two values rather than the ends of a range."""
    joiner = text[match.end("a") : match.start("b")].lower()
    before = text[start : match.start("a")]
    if re.search(r"\bfrom\s+(?:about |around |approximately |~)?$", before, _I):
        return "to" in joiner
    return "and" in joiner and not re.search(r"\bbetween\s+(?:about )?$", before, _I)


def _span(first: str, second: str, bound: str | None, unit: bool, start: int, end: int) -> Iterator[Span]:
    """One range of percent from two numbers as written, if it is one."""
    low, high = number(first), number(second)
    if low <= 1.0 and high <= 1.0 and not unit:
        low, high = 100 * low, 100 * high
    words = (bound or "").lower()
    if words in (">", ">=", "≥", "greater than", "more than", "above", "over", "at least"):
        high = 100.0
    elif words:
        low = 0.0
    if 0 <= low <= high <= 100:
        yield Span(low, high, start, end, unit)


def percents(text: str, start: int, end: int, fractions: bool = False) -> Iterator[Span]:
    """Percentages in text[start:end]; `fractions`: bare numbers from 0.05 to 0.95 count as fractions, bare 5 to 95 as percent."""
    at = start
    while match := PERCENT.search(text, at, end):
        at = match.end()
        unit = re.search(r"%|per ?cent", match.group(), _I) is not None
        second = match["b"] or match["a"]
        if match["b"] and _two_values(text, start, match):
            # "40 % and 30 %" or "from 25 % to 48 %": two values, not a range; the second is found next
            at, second = match.end("a"), match["a"]
        if match.start("a") > 0 and (text[match.start("a") - 1].isalnum() or text[match.start("a") - 1] in "./'"):
            continue
        if not unit and text[start : match.start("a")].rstrip().endswith("%"):
            # "EF 30 % 3. COPD": the next item of a list
            continue
        if unit or (fractions and match["a"][0].isdigit()):
            yield from _span(match["a"], second, match["bound"], unit, match.start(), at)
    if fractions:
        for match in DECADES.finditer(text, start, end):
            word = match["decade"].lower()
            base = float(word[0]) * 10 if word[0].isdigit() else float(_TENS[word[:-3] + "y"])
            part = (match["part"] or "").lower()
            low, high = {"": (0, 9), "low": (0, 3), "lower": (0, 3), "mid": (4, 6), "middle": (4, 6), "high": (7, 9), "upper": (7, 9)}[part]
            yield Span(base + low, base + high, match.start(), match.end(), True)
