"""The study file: one TOML that names the table and the columns of each block. Every key and every column is known or refused.

name            of the study
[table]         file = "x.csv" (.csv, .csv.gz, .parquet), or sites = { NAME = "x.csv", ... } (rows one below the other);
                join = ["y.csv.gz"] (by id), id = "patient", site = "hospital", sex = "sex", age = "age",
                missing = { chol = [0] } (values that mean empty), exclude = { rows where column = value }
[outcome]       column = "target" or any_of = ["vt", "vf"]; positive = 1 or above = 0; time = "days" (follow-up: survival too)
[blocks.NAME]   numeric, log, categorical = [columns; "first:last" for a run of columns], curve = [...], components = 5,
                stage = 1 (when the test is done; by default the order of the blocks)
[leakage]       after = [columns known only after the outcome], treatment = [columns that may answer the outcome]: refused in a block,
                measured apart
[visits]        file, time, landmark, columns: last value, trend and age of the last of all visits up to the landmark become a block;
                keep = 8 (last visits that the model "recurrent" reads as they are)
[fusion]        emptiness = "use" (the default may learn from which cells and blocks are empty), "cells" (from cells only: what a site does
                not measure at all says where its patients are, not how they are; so by default in a table of several sites) or "report"
                (from neither; it is said what it would gain)
[evaluate]      repeats = 10, folds = 5, seed = 0, models = ["early", ...], drop = "imaging" (block emptied in half of the rows, tested)
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twin.errors import InputError
from twin.fusion.blocks import Block
from twin.io.source import check_keys, did_you_mean, read_text

SECTIONS: dict[str, tuple[str, ...]] = {
    "table": ("file", "sites", "join", "id", "site", "sex", "age", "missing", "exclude"),
    "outcome": ("column", "any_of", "positive", "above", "time"),
    "blocks": (),
    "leakage": ("after", "treatment"),
    "visits": ("file", "time", "landmark", "columns", "keep"),
    "fusion": ("emptiness",),
    "evaluate": ("repeats", "folds", "seed", "models", "drop"),
}
BLOCK_KEYS = ("numeric", "log", "categorical", "curve", "components", "stage")
EMPTINESS_WORDS = ("use", "cells", "report")
LISTS = ("numeric", "log", "categorical", "curve")


@dataclass(frozen=True)
class Study:
    """A study file, checked as far as is possible without its table."""

    path: Path
    name: str
    table: Mapping[str, Any]
    outcome: Mapping[str, Any]
    blocks: Mapping[str, Mapping[str, Any]]
    after: tuple[str, ...] = ()
    treatment: tuple[str, ...] = ()
    visits: Mapping[str, Any] = field(default_factory=dict)
    fusion: Mapping[str, Any] = field(default_factory=dict)
    evaluate: Mapping[str, Any] = field(default_factory=dict)

    def file(self, text: str) -> Path:
        """A path of the study: $NAMES replaced, relative to the study file."""
        found = Path(os.path.expandvars(text))
        if "$" in str(found):
            raise InputError(self.path, "table", f"{text!r} needs an environment variable that is not set", "set it, or write the path")
        return found if found.is_absolute() else self.path.parent / found

    def files(self) -> dict[str, Path]:
        """Every file that the study reads, by what it is."""
        sites = self.table.get("sites", {"table": self.table.get("file")})
        found = {name: self.file(text) for name, text in sites.items()}
        found |= {f"join_{k}": self.file(text) for k, text in enumerate(self.table.get("join", []))}
        return found | ({"visits": self.file(self.visits["file"])} if self.visits else {})


def load_study(path: Path) -> Study:
    """Read a study file. Raises InputError, with the nearest known name, for anything not known or of the wrong kind."""
    try:
        value = tomllib.loads(read_text(path, 5_000_000))
    except tomllib.TOMLDecodeError as error:
        raise InputError(path, "file", f"is not TOML ({error})", "correct this line") from None
    check_keys(value, ("name", *SECTIONS), path, "")
    for section, keys in SECTIONS.items():
        part = value.get(section, {})
        if not isinstance(part, dict):
            raise InputError(path, section, "is not a section", f"write [{section}]")
        if keys:
            check_keys(part, keys, path, section)
    _check_table(path, value)
    _check_outcome(path, value.get("outcome", {}))
    _check_blocks(path, value.get("blocks", {}))
    _check_visits(path, value)
    _check_evaluate(path, value.get("evaluate", {}), value)
    if (said := value.get("fusion", {}).get("emptiness", "use")) not in EMPTINESS_WORDS:
        raise InputError(path, "fusion.emptiness", f"{said!r} is neither use, cells nor report", 'write "use", "cells" or "report"')
    leakage = {key: tuple(_words(path, f"leakage.{key}", value.get("leakage", {}).get(key, []))) for key in ("after", "treatment")}
    name = value.get("name", path.stem)
    if not isinstance(name, str):
        raise InputError(path, "name", f"{name!r} is not text", "write it in quotes")
    return Study(
        path, name, value["table"], value["outcome"], value["blocks"], **leakage, visits=value.get("visits", {}),
        fusion=value.get("fusion", {}), evaluate=value.get("evaluate", {}),
    )  # fmt: skip


def _words(path: Path, field: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InputError(path, field, f"{value!r} is not a list of names", 'write ["a", "b"]')
    return value


def _check_table(path: Path, value: Mapping[str, Any]) -> None:
    table = value.get("table", {})
    if ("file" in table) == ("sites" in table):
        raise InputError(path, "table", "needs exactly one of file and sites", 'write file = "table.csv"')
    sites = table.get("sites", {})
    if not isinstance(sites, dict) or not all(isinstance(text, str) for text in (table.get("file", ""), *sites.values())):
        raise InputError(path, "table", "file names must be text", 'write file = "table.csv"')
    for key in ("id", "site", "sex", "age"):
        if not isinstance(table.get(key, ""), str):
            raise InputError(path, f"table.{key}", f"{table[key]!r} is not a column's name", "write it in quotes")
    if sites and "site" in table:
        raise InputError(path, "table.site", "sites already name the site of each row", "leave one of them out")
    _words(path, "table.join", table.get("join", []))
    if table.get("join") and "id" not in table:
        raise InputError(path, "table.join", "needs the column that identifies a patient", 'write id = "patient"')
    for key in ("missing", "exclude"):
        if not isinstance(table.get(key, {}), dict):
            raise InputError(path, f"table.{key}", "is not a list of columns with values", f"write {key} = {{ column = [0] }}")


def _check_outcome(path: Path, outcome: Mapping[str, Any]) -> None:
    if ("column" in outcome) == ("any_of" in outcome):
        raise InputError(path, "outcome", "needs exactly one of column and any_of", 'write column = "event"')
    if "any_of" in outcome and not _words(path, "outcome.any_of", outcome["any_of"]):
        raise InputError(path, "outcome.any_of", "is empty", "name at least one column")
    if "positive" in outcome and "above" in outcome:
        raise InputError(path, "outcome", "has both positive and above", "leave one out")
    for key in ("column", "time"):
        if not isinstance(outcome.get(key, ""), str):
            raise InputError(path, f"outcome.{key}", f"{outcome[key]!r} is not a column's name", "write it in quotes")


def _check_blocks(path: Path, blocks: Mapping[str, Any]) -> None:
    if not blocks:
        raise InputError(path, "blocks", "there is none", "write [blocks.clinical] with numeric = [...]")
    for name, block in blocks.items():
        if not isinstance(block, dict):
            raise InputError(path, f"blocks.{name}", "is not a section", f"write [blocks.{name}]")
        check_keys(block, BLOCK_KEYS, path, f"blocks.{name}")
        if not any(_words(path, f"blocks.{name}.{key}", block.get(key, [])) for key in LISTS):
            raise InputError(path, f"blocks.{name}", "names no column", "give numeric, log, categorical or curve")
        for key in ("components", "stage"):
            if not isinstance(block.get(key, 1), int) or block.get(key, 1) < 1:
                raise InputError(path, f"blocks.{name}.{key}", f"{block[key]!r} is not a whole number from 1", "write one")


def _check_visits(path: Path, value: Mapping[str, Any]) -> None:
    visits = value.get("visits", {})
    if not visits:
        return
    lacking = [key for key in SECTIONS["visits"] if key not in visits and key != "keep"]
    if lacking:
        raise InputError(path, f"visits.{lacking[0]}", "is not given", "give file, time, landmark and columns")
    if "id" not in value["table"]:
        raise InputError(path, "table.id", "visits need the column that identifies a patient", 'write id = "patient"')
    _words(path, "visits.columns", visits["columns"])
    if isinstance(visits["landmark"], bool) or not isinstance(visits["landmark"], (int, float)):
        raise InputError(path, "visits.landmark", f"{visits['landmark']!r} is not a number", "write the time of prediction")
    if type(visits.get("keep", 1)) is not int or not 1 <= visits.get("keep", 1) <= 100:
        raise InputError(path, "visits.keep", f"{visits['keep']!r} is not a whole number in 1..100", "write how many visits are read")


def _check_evaluate(path: Path, part: Mapping[str, Any], value: Mapping[str, Any]) -> None:
    for key, low, high in (("repeats", 1, 100), ("folds", 2, 50), ("seed", 0, 2**31 - 1)):
        if not isinstance(part.get(key, low), int) or not low <= part.get(key, low) <= high:
            raise InputError(path, f"evaluate.{key}", f"{part[key]!r} is not a whole number in {low}..{high}", "write one")
    names = [*value["blocks"], *(["visits"] if value.get("visits") else [])]
    if "drop" in part and part["drop"] not in names:
        raise InputError(path, "evaluate.drop", f"{part['drop']!r} is not a block", did_you_mean(str(part["drop"]), names))
    _words(path, "evaluate.models", part.get("models", []))


def block_of(name: str, part: Mapping[str, Any], columns: list[str], where: Path) -> Block:
    """The block with its column runs written out. Raises InputError for a column that the table lacks, with the nearest name."""
    found: dict[str, tuple[str, ...]] = {}
    for key in LISTS:
        out: list[str] = []
        for word in part.get(key, []):
            out += _run(word, columns, where, f"blocks.{name}.{key}")
        found[key] = tuple(out)
    return Block(name, found["numeric"], found["log"], found["categorical"], found["curve"], part.get("components", 5))


def _run(word: str, columns: list[str], where: Path, field: str) -> list[str]:
    ends = [word] if word in columns else word.split(":")
    for end in ends:
        if end not in columns:
            raise InputError(where, field, f"{end!r} is not a column of the table", did_you_mean(end, columns))
    first, last = columns.index(ends[0]), columns.index(ends[-1])
    if last < first or len(ends) > 2:
        raise InputError(where, field, f"{word!r} is not a run of columns", "name the first and the last in the order of the table")
    return columns[first : last + 1]
