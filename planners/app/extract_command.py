"""`vtwin extract`: reports to facts, line by line."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from planners.app.console import Console
from twin.errors import InputError
from twin.records.report_file import read_reports
from twin.records.text.extract import extract as facts_of


def extract(reports: Path, out: Path, fresh: bool, console: Console) -> int:
    """Write one line of facts per report to `out`, whole or not at all."""
    if out.exists() and not fresh:
        raise InputError(out.name, "--out", "exists", "name another file, or say --fresh to replace it")
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    count = found = 0
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as lines:
            for report in read_reports(reports):
                facts = facts_of(report.text, report.kind)
                lines.write(json.dumps({"id": report.id, **facts}, ensure_ascii=False) + "\n")
                count += 1
                found += len(facts["spans"])
            lines.flush()
            os.fsync(lines.fileno())
        os.replace(temporary, out)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    said = f"{count} reports, {found} facts with their place in the text. English only; rules, not a clinician: check what matters."
    console.result({"reports": count, "facts": found, "out": str(out)}, [said])
    return 0
