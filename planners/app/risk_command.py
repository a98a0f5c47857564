"""`vtwin risk`: published scores of one patient, each with what it lacked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from planners.app.console import Console
from twin.errors import InputError
from twin.records.patient_file import inputs, read_facts
from twin.records.scores import SCORES, Answer


def template(console: Console) -> int:
    """Print a patient file to fill in, every key unknown; what the keys mean goes elsewhere, so that `> patient.json` is that file."""
    items = inputs().values()
    keys = [{"key": i.key, "unit": i.unit, "low": i.low, "high": i.high, "meaning": i.meaning} for i in items]
    console.result(keys, [json.dumps({item.key: None for item in items}, indent=2)])
    console.aside(["", "What each key means (null: unknown):", *(f"  {i.key:26s}{i.unit:12s}{i.meaning}" for i in items)])
    return 0


def risk(patient: Path | None, console: Console) -> int:
    """Score one patient; raises InputError for a file that cannot be right."""
    if patient is None:
        raise InputError("command line", "PATIENT", "is missing", "name a JSON file; `vtwin risk --template` prints one to fill in")
    facts = read_facts(patient)
    answers = [score.answer(facts) for score in SCORES]
    lines = [line for answer in answers for line in _lines(answer)]
    console.result(
        [answer.as_dict() for answer in answers],
        [*lines, "Published scores, not this patient's twin. Research software: not a medical device."],
    )
    return 0


def _lines(answer: Answer) -> list[str]:
    """One score as people read it."""
    lines = [f"{answer.title}  [{answer.status.replace('_', ' ')}]"]
    lines += [f"  {_said(result)}" for result in answer.results]
    if answer.missing and answer.results:
        lines.append(f"  not known: {', '.join(answer.missing)}")
    return [*lines, *(f"  note: {note}" for note in answer.notes), f"  source: {answer.source}", ""]


def _said(result: dict[str, Any]) -> str:
    """One result: a value, or the range over what is missing."""
    value = f"{result['low']:.3g}" if result["value"] is not None else f"{result['low']:.3g} to {result['high']:.3g}"
    band = f"  ({' or '.join(result['bands'])})" if result["bands"] else ""
    return f"{result['name']:14s}{value} {result['unit']}{band}"
