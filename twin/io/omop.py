"""OMOP-style folders of CSV tables, and any one CSV with a mapping file, as facts. Person ids are used for joining and go no further."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from twin.errors import InputError
from twin.io.source import check_keys, did_you_mean, file_size, read_text
from twin.records.codes import Coded, Measured, Taken, facts_row
from twin.records.text.lexicon import CONCEPTS
from twin.records.ucum import ANALYTES, BY_LOINC, converted

MOST_BYTES, MOST_ROWS, LONGEST = 2_000_000_000, 20_000_000, 100_000
GENDER = {"8507": "male", "8532": "female", "m": "male", "f": "female", "male": "male", "female": "female"}
NEEDED = {
    "person": ("person_id",),
    "condition_occurrence": ("person_id",),
    "measurement": ("person_id", "value_as_number"),
    "drug_exposure": ("person_id",),
}
_ISO = re.compile(r"^(\d{4})-(\d{2})-(\d{2})")
_YES, _NO = ("1", "true", "yes", "y"), ("0", "false", "no", "n")


@dataclass
class _Person:
    sex: str | None = None
    born: int | None = None
    last: str = ""
    conditions: list[Coded] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)

    def row(self, number: int, where: Path) -> dict[str, Any]:
        """This person's line of facts."""
        age = int(self.last[:4]) - self.born if self.born is not None and self.last else None
        if age is not None and not 0 <= age <= 120:
            raise InputError(where, "year_of_birth", f"makes a person {age} years old at the last measurement", "check the dates")
        return facts_row(number, age, self.sex, self.conditions, self.measured, self.taken)


def rows_of(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of a CSV with a header, column names in lower case. Raises InputError for what is no such table."""
    file_size(path, MOST_BYTES)
    csv.field_size_limit(LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines)
            header = [name.strip().lower() for name in next(reader, [])]
            if len(set(header)) != len(header):
                raise InputError(path, "header", "names a column twice", "rename one")
            for column in needed:
                if column not in header:
                    raise InputError(path, column, "is not a column of the table", did_you_mean(column, header))
            for number, cells in enumerate(reader, start=2):
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise InputError(path, f"line {number}", f"has {len(cells)} cells, the header {len(header)}", "export the table again")
                if number > MOST_ROWS:
                    raise InputError(path, "file", f"has more than {MOST_ROWS} rows", "split it")
                yield number, dict(zip(header, cells, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, "file", f"is not UTF-8 CSV ({type(error).__name__})", "export the table again") from None


def iso(text: str, where: Path, field_: str) -> str:
    """A date as ISO text, "" where there is none. Raises InputError for anything else, and for dates that no calendar has."""
    if not text.strip():
        return ""
    match = _ISO.match(text.strip())
    try:
        if match is None:
            raise ValueError
        return date(int(match[1]), int(match[2]), int(match[3])).isoformat()
    except ValueError:
        raise InputError(where, field_, "is not a date", "write 2024-05-31") from None


def _number(text: str, where: Path, field_: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(where, field_, f"{text[:20]!r} is not a number", "empty the cell, or write a number with a point") from None


def read_omop(folder: Path) -> Iterator[dict[str, Any]]:
    """One line of facts per person of a folder with person.csv and any of condition_occurrence, measurement, drug_exposure, concept.

    Codes come from concept.csv (concept_id, concept_code, concept_name) where it is there, else from the *_source_value columns.
    """
    files = {path.stem.lower(): path for path in folder.iterdir() if path.suffix.lower() == ".csv"}
    if "person" not in files:
        raise InputError(folder, "person.csv", "is not in the folder", "give the folder of an OMOP export in CSV")
    concepts = _concepts(files["concept"]) if "concept" in files else {}
    people: dict[str, _Person] = {}
    for number, row in rows_of(files["person"], NEEDED["person"]):
        gender = str(row.get("gender_concept_id") or row.get("gender_source_value") or "").strip().lower()
        born = row.get("year_of_birth", "").strip()
        year = int(_number(born, files["person"], f"line {number}: year_of_birth")) if born else None
        people[row["person_id"]] = _Person(GENDER.get(gender), year)
    for table in ("condition_occurrence", "measurement", "drug_exposure"):
        if table not in files:
            continue
        for number, row in rows_of(files[table], NEEDED[table]):
            if row["person_id"] not in people:
                raise InputError(files[table], f"line {number}", "names a person who is not in person.csv", "export both tables together")
            _add(people[row["person_id"]], table, row, concepts, files[table], f"line {number}")
    for k, person in enumerate(people.values(), start=1):
        yield person.row(k, files["person"])


def _concepts(path: Path) -> dict[str, tuple[str, str]]:
    return {
        row["concept_id"]: (row["concept_code"], row.get("concept_name", "")) for _, row in rows_of(path, ("concept_id", "concept_code"))
    }


def _coded(row: Mapping[str, str], what: str, concepts: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """Code and name of a row's concept."""
    source = row.get(f"{what}_source_value", "").strip()
    code, name = concepts.get(row.get(f"{what}_concept_id", ""), ("", ""))
    return code or source, name or source


def _add(person: _Person, table: str, row: Mapping[str, str], concepts: Mapping[str, tuple[str, str]], where: Path, line: str) -> None:
    if table == "condition_occurrence":
        code, name = _coded(row, "condition", concepts)
        end = iso(row.get("condition_end_date", ""), where, f"{line}: condition_end_date")
        person.conditions.append(Coded(code, name, over=bool(end)))
    elif table == "drug_exposure":
        code, name = _coded(row, "drug", concepts)
        end = iso(row.get("drug_exposure_end_date", ""), where, f"{line}: drug_exposure_end_date")
        person.taken.append(Taken(name or code, None, now=not end))
    else:
        code, _ = _coded(row, "measurement", concepts)
        analyte = BY_LOINC.get(code) or (code.lower() if code.lower() in ANALYTES else None)
        if analyte is None or not row["value_as_number"].strip():
            return
        unit = concepts.get(row.get("unit_concept_id", ""), ("", ""))[0] or row.get("unit_source_value", "")
        when = iso(row.get("measurement_date", ""), where, f"{line}: measurement_date")
        value = converted(analyte, _number(row["value_as_number"], where, f"{line}: value_as_number"), unit, where.name, line)
        person.measured.append(Measured(analyte, value, when))
        person.last = max(person.last, when)


MAPPING_KEYS = ("file", "id", "age", "sex", "date", "values", "conditions", "drugs", "male", "female")


def read_mapped(mapping: Path) -> Iterator[dict[str, Any]]:
    """One line of facts per row of a CSV that a TOML file explains.

    file; id, age, sex, date: columns; male, female: what the sex column holds; [values] column = { name = "potassium", unit = "mmol/L" };
    [conditions] column = "diabetes" (cells 1/0, true/false, yes/no, empty unknown); [drugs] column = "amiodarone" (mg a day, or yes/no).
    """
    try:
        table = tomllib.loads(read_text(mapping, 1_000_000))
    except tomllib.TOMLDecodeError as error:
        raise InputError(mapping, "file", f"is not TOML ({error})", "correct the line") from None
    check_keys(table, MAPPING_KEYS, mapping, "")
    values, conditions, drugs = (_part(table, key, mapping) for key in ("values", "conditions", "drugs"))
    for column, entry in values.items():
        if not isinstance(entry, dict) or set(entry) != {"name", "unit"} or entry["name"] not in ANALYTES:
            raise InputError(mapping, f"values.{column}", "needs name and unit", f"known names: {', '.join(ANALYTES)}")
    for column, concept in conditions.items():
        if concept not in CONCEPTS:
            raise InputError(mapping, f"conditions.{column}", f"{concept!r} is not a concept", did_you_mean(str(concept), CONCEPTS))
    singles: dict[str, str] = {key: str(table[key]) for key in ("id", "age", "sex", "date") if key in table}
    if not isinstance(table.get("file"), str):
        raise InputError(mapping, "file", "is not given", 'write file = "patients.csv"')
    source = mapping.parent / table["file"]
    needed = tuple(c.lower() for c in (*singles.values(), *values, *conditions, *drugs))
    for number, row in rows_of(source, needed):
        yield _mapped(number, row, table, singles, (values, conditions, drugs), source)


def _part(table: Mapping[str, Any], key: str, mapping: Path) -> dict[str, Any]:
    part = table.get(key, {})
    if not isinstance(part, dict):
        raise InputError(mapping, key, "is not a section", f"write [{key}]")
    return part


def _mapped(
    number: int,
    row: Mapping[str, str],
    table: Mapping[str, Any],
    singles: Mapping[str, str],
    parts: tuple[dict[str, Any], ...],
    source: Path,
) -> dict[str, Any]:
    values, conditions, drugs = parts
    line = f"line {number}"

    def cell(column: str) -> str:
        return row[column.lower()].strip()

    when = iso(cell(singles["date"]), source, line) if "date" in singles else ""
    age = cell(singles["age"]) if "age" in singles else ""
    sex = {str(table.get("male", "male")): "male", str(table.get("female", "female")): "female"}.get(
        cell(singles["sex"]) if "sex" in singles else ""
    )
    measured = [
        Measured(e["name"], converted(e["name"], _number(cell(c), source, f"{line}: {c}"), e["unit"], source.name, f"{line}: {c}"), when)
        for c, e in values.items()
        if cell(c)
    ]
    known = {c: _truth(cell(c), source, f"{line}: {c}") for c in conditions}
    coded = [(conditions[c], truth) for c, truth in known.items() if truth is not None]
    taken = []
    for column, name in drugs.items():
        text = cell(column).lower()
        if text and text not in _NO:
            taken.append(Taken(str(name), None if text in _YES else _number(text, source, f"{line}: {column}")))
    years = None if not age else int(_number(age, source, f"{line}: {singles['age']}"))
    if years is not None and not 0 <= years <= 120:
        raise InputError(source, f"{line}: {singles['age']}", f"{years} is no age in years", "check the column")
    facts = facts_row(number - 1, years, sex, [], measured, taken)
    facts["entities"] = [{"concept": c, "status": "present" if truth else "absent"} for c, truth in sorted(coded)]
    return facts


def _truth(text: str, where: Path, field_: str) -> bool | None:
    if not text:
        return None
    if text.lower() in (*_YES, *_NO):
        return text.lower() in _YES
    raise InputError(where, field_, f"{text[:20]!r} is neither yes nor no", "write 1, 0, true, false, yes or no, or empty the cell")
