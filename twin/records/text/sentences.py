"""Sentences and clauses of a report, each as a span of the original text."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ABBREVIATION = re.compile(
    r"(?:\b(?:dr|mr|mrs|ms|prof|vs|approx|ca|e\.g|i\.e|st|resp|incl|fig|max|min|est|b\.i\.d|o\.d)|\b[A-Za-z])\.$", re.I
)
_END = re.compile(r"[.!?](?=\s|$)|;|\n\s*\n|\n\s*(?=[-*•]|[A-Z][A-Za-z /]{1,30}:)|\n(?=\s*[A-Z])|(?=\[[ xX✓]?\]|[☐☑☒])|\||\t")
_LONGEST = 1200
"""Characters: the context of a mention is near it, and the time that a text takes must grow with its length only."""
_TURN = re.compile(r"\b(?:but|however|although|though|whereas|while|yet|except(?: for)?|apart from|aside from|other than|despite)\b", re.I)


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each sentence: ends at full stops that are no abbreviations or decimals, semicolons, paragraphs, boxes."""
    start = 0
    for match in _END.finditer(text):
        if match.group().startswith(".") and _ABBREVIATION.search(text[max(start, match.start() - 8) : match.end()]):
            continue
        yield from _trim(text, start, match.start())
        start = match.end()
    yield from _trim(text, start, len(text))


def clauses(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of one sentence between words that turn its meaning ("but", "except", "despite")."""
    at = start
    for match in _TURN.finditer(text, start, end):
        if match.start() > at:
            yield at, match.start()
        at = match.start()
    yield at, end


def _trim(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span without blanks at its ends, if anything is left; cut at a blank where no sentence is that long."""
    while end - start > _LONGEST:
        cut = text.rfind(" ", start + 1, start + _LONGEST)
        cut = cut if cut > start else start + _LONGEST
        yield from _trim(text, start, cut)
        start = cut
    piece = text[start:end]
    if piece.strip():
        yield start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))
