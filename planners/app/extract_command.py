"""`vtwin extract`: reports, FHIR bundles, OMOP folders and mapped tables to facts, line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from planners.app.console import Console
from twin.atomic import replaced
from twin.errors import InputError
from twin.records.report_file import read_reports
from twin.records.text.extract import extract as facts_of

SECOND_READER_MOST = 20_000
"""Reports that are held in memory for the second reader."""


def extract(source: Path, out: Path, fresh: bool, console: Console, second_reader: bool = False) -> int:
    """Write one line of facts per report or patient to `out`, whole or not at all."""
    if out.exists() and not fresh:
        raise InputError(out.name, "--out", "exists", "name another file, or say --fresh to replace it")
    kind = kind_of(source)
    if second_reader and kind != "reports":
        raise InputError("command line", "--second-reader", f"there is no text in {kind}", "leave it out")
    agreement: dict[str, Any] | None = None
    lines = _read_twice(source) if second_reader else _lines(source, kind)
    count = found = 0
    with replaced(out) as temporary, open(temporary, "w", encoding="utf-8") as written:
        for facts in lines:
            if "agreement" in facts:
                agreement = facts["agreement"]
                continue
            written.write(json.dumps(facts, ensure_ascii=False) + "\n")
            count += 1
            found += len(facts["spans"]) or len(facts["entities"]) + len(facts["details"]["labs"]) + len(facts["details"]["drugs"])
    if kind == "reports":
        said = [f"{count} reports, {found} facts with their place in the text. English only; rules, not a clinician: check what matters."]
    else:
        said = [f"{count} patients, {found} facts from {kind}; their ids were left out, lines are numbered in the order of the source."]
    if agreement is not None:
        said.append(
            f"Second reader (taught by the rules on the other half): kappa {agreement['kappa']}; conflicts are in the facts, unresolved."
        )
    key = "reports" if kind == "reports" else "patients"
    console.result({key: count, "facts": found, "out": str(out), **({"agreement": agreement} if agreement else {})}, said)
    return 0


def kind_of(source: Path) -> str:
    """What a source is, by its name: reports (.jsonl), FHIR (.json), OMOP (a folder), a mapped table (.toml)."""
    if source.is_dir():
        return "an OMOP folder"
    kinds = {".json": "a FHIR bundle", ".toml": "a mapped table", ".csv": "a table"}
    kind = kinds.get(source.suffix.lower(), "reports")
    if kind == "a table":
        raise InputError(
            source, "file", "is a table without its mapping", "write a .toml that names its columns (docs/fusion.md), and give that"
        )
    return kind


def _lines(source: Path, kind: str) -> Iterator[dict[str, Any]]:
    if kind == "reports":
        for report in read_reports(source):
            yield {"id": report.id, **facts_of(report.text, report.kind)}
    elif kind == "a FHIR bundle":
        from twin.io.fhir import read_bundle

        yield from read_bundle(source)
    elif kind == "an OMOP folder":
        from twin.io.omop import read_omop

        yield from read_omop(source)
    else:
        from twin.io.omop import read_mapped

        yield from read_mapped(source)


def _read_twice(source: Path) -> Iterator[dict[str, Any]]:
    """Facts with what the second reader thinks otherwise; the agreement comes last."""
    from twin.records.text.second_reader import compare

    reports = []
    for report in read_reports(source):
        reports.append(report)
        if len(reports) > SECOND_READER_MOST:
            raise InputError(source, "--second-reader", f"takes at most {SECOND_READER_MOST} reports at once", "split the file")
    facts = [facts_of(report.text, report.kind) for report in reports]
    agreement, conflicts = compare([report.text for report in reports], facts)
    for report, found, differ in zip(reports, facts, conflicts, strict=True):
        yield {"id": report.id, **found, "conflicts": differ}
    yield {"agreement": agreement}
