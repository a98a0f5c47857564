"""One report in, facts out: every fact with the place in the text that says it."""

from __future__ import annotations

import re
from typing import Any

from twin.records.text import context, details, lexicon, segments, values
from twin.records.text.lexicon import Mention
from twin.records.text.sentences import clauses, sentences


def extract(text: str, kind: str = "") -> dict[str, Any]:
    """Facts of one report.

    kind: sort of report ("echo", "cmr", "clinic", "ep", "holter", ...). Returns lvef [low, high] or None, lvef_prior, lvef_derived,
    nyha [low, high] or None, lge_percent, scar_segments, rwma_segments (AHA numbers), entities (concept, status), details (what
    `twin.records.text.details` finds), and spans (key, value, start, end, text).
    """
    places = list(sentences(text))
    spans: list[dict[str, Any]] = []

    def note(key: str, value: Any, start: int, end: int, **more: Any) -> None:
        spans.append({"key": key, "value": value, "start": start, "end": end, "text": text[start:end], **more})

    readings = values.ejection_fractions(text, places)
    current, earlier = values.lvef(readings)
    for reading in readings:
        note("lvef", [reading.low, reading.high], reading.start, reading.end, time=reading.time)
    derived = values.derived_lvef(text) if current is None else None
    if derived is not None:
        current = [round(derived[0], 1)] * 2
        note("lvef", current, derived[1], derived[2], time="current", derived=True)
    functional, place = values.nyha(text, places)
    if place:
        note("nyha", functional, *place)
    percent, place = values.scar_percent(text, places)
    if place:
        note("lge_percent", percent, *place)
    entities = _entities(text, places, kind, note)
    walls = _segments(text, places, kind, note)
    return {
        "lvef": current,
        "lvef_prior": earlier,
        "nyha": functional,
        "lge_percent": percent,
        "scar_segments": walls["scar"],
        "rwma_segments": walls["motion"],
        "lvef_derived": derived is not None,
        "entities": entities,
        "details": details.details(text, lambda at: _clause(text, places, at), kind, note),
        "spans": sorted(spans, key=lambda s: (s["start"], s["end"], s["key"])),
    }


def _clause(text: str, places: list[tuple[int, int]], at: int) -> tuple[int, int]:
    """The clause that holds the character `at`."""
    for start, end in places:
        if start <= at < end:
            return next(((a, b) for a, b in clauses(text, start, end) if a <= at < b), (start, end))
    return 0, len(text)


def _entities(text: str, places: list[tuple[int, int]], kind: str, note: Any) -> list[dict[str, str]]:
    """Concepts with their status, each pair once, in a fixed order."""
    pairs = set()
    for mention in lexicon.mentions(text):
        status = context.status(text, mention, _clause(text, places, mention.start), kind)
        pairs.add((mention.concept, status))
        note("entity", mention.concept, mention.start, mention.end, status=status)
    for concept, pattern in lexicon.ABSENT:
        for match in pattern.finditer(text):
            pairs.add((concept, "absent"))
            note("entity", concept, *match.span(), status="absent")
    return [{"concept": concept, "status": status} for concept, status in sorted(pairs)]


def _segments(text: str, places: list[tuple[int, int]], kind: str, note: Any) -> dict[str, list[int]]:
    """Segments of scar and of abnormal motion, only where the report states them as a fact of now."""
    found: dict[str, set[int]] = {"scar": set(), "motion": set()}
    for topic, group, word in segments.find(text, places):
        status = context.status(text, Mention("scar" if topic == "scar" else "rwma", *word), _clause(text, places, word[0]), kind)
        hedged = re.search(
            r"\b(?:possibl|probabl|question|equivocal|suspect|may |might )", text[max(0, group.start - 30) : group.start], re.I
        )
        if status != "present" or hedged or not group.numbers:
            continue
        found[topic] |= group.numbers
        note("scar_segments" if topic == "scar" else "rwma_segments", sorted(group.numbers), group.start, group.end)
    return {topic: sorted(numbers) for topic, numbers in found.items()}
