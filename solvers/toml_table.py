"""Tables of a TOML file, read key by key: every number in its unit, every problem one line that names file and field."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twin.errors import InputError
from twin.io.source import check_keys, did_you_mean, read_text
from twin.units import quantity


def read_table(path: Path) -> Table:
    """The whole of a TOML file. Raises InputError if it is not TOML."""
    try:
        return Table(path, "", tomllib.loads(read_text(path, 10_000_000)))
    except tomllib.TOMLDecodeError as error:
        raise InputError(path, "file", f"is not TOML ({error})", "correct that line") from None


@dataclass(frozen=True)
class Table:
    """One TOML table and its name, for messages that say where."""

    where: Path
    field: str
    values: dict[str, Any]

    def error(self, key: str, problem: str, remedy: str) -> InputError:
        """An error about one key of this table."""
        return InputError(self.where, self.name(key), problem, remedy)

    def name(self, key: str) -> str:
        """Full name of a key."""
        return ".".join(part for part in (self.field, key) if part)

    def known(self, *names: str) -> None:
        """Refuse keys other than these, with the nearest name."""
        check_keys(self.values, names, self.where, self.field)

    def table(self, key: str) -> Table:
        """A table of this table, empty if it is not there."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "is not a table", f"write [{self.name(key)}] or {key} = {{ ... }}")
        return Table(self.where, self.name(key), value)

    def tables(self, key: str) -> list[Table]:
        """An array of tables, at least one."""
        rows = self.values.get(key)
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise self.error(key, "at least one is needed", f"write [[{self.name(key)}]]")
        return [Table(self.where, f"{self.name(key)}[{i}]", row) for i, row in enumerate(rows)]

    def items(self, key: str) -> list[Any]:
        """A list, empty if it is not there."""
        value = self.values.get(key, [])
        if not isinstance(value, list):
            raise self.error(key, "is not a list", f"write {key} = [ ... ]")
        return value

    def text(self, key: str) -> str:
        """A text that must be there."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value:
            raise self.error(key, "is missing" if value is None else f"{value!r} is not text", f'write {key} = "..."')
        return value

    def choice(self, key: str, known: Sequence[str], default: str) -> str:
        """One of some words."""
        value = self.values.get(key, default)
        if value not in known:
            raise self.error(key, f"{value!r} is unknown", did_you_mean(str(value), known))
        return str(value)

    def number(self, key: str, unit: str, default: float | None, low: float | None = None, high: float | None = None) -> float:
        """A quantity in `unit` within low and high; it must be there unless it has a default."""
        value = self.values.get(key, default)
        if value is None:
            raise self.error(key, "is missing", f"give it in {unit}" if unit else "give a number")
        result = quantity(value, unit or "dimensionless", str(self.where), self.name(key))
        if low is not None and result < low:
            raise self.error(key, f"{value!r} is {'negative' if low == 0 else 'too low'}", f"give {low:g} {unit} or more")
        if high is not None and result > high:
            raise self.error(key, f"{value!r} is too high", f"give {high:g} {unit} or less")
        return result

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number within low and high."""
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            said = "is missing" if value is None else f"{value!r} is not a count"
            raise self.error(key, said, f"give a whole number from {low} to {high}")
        return value

    def flag(self, key: str) -> bool:
        """Yes or no; no if it is not there."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, f"{value!r} is neither true nor false", f"write {key} = true or leave it out")
        return value

    def positive(self, key: str, unit: str, default: float | None = None) -> float:
        """A quantity above zero."""
        result = self.number(key, unit, default)
        if result <= 0:
            raise self.error(key, f"{self.values[key]!r} is not positive", f"give a value in {unit} above 0")
        return result

    def place(self, key: str, value: object = None, any_length: bool = False) -> tuple[float, float, float]:
        """Three coordinates in mm, or without unit for a direction."""
        value = self.values.get(key) if value is None else value
        if not isinstance(value, list) or len(value) != 3:
            raise self.error(key, f"{value!r} is not three numbers", "give [x, y, z]" + ("" if any_length else " in mm"))
        unit = "dimensionless" if any_length else "mm"
        x, y, z = (quantity(v, unit, str(self.where), self.name(key)) for v in value)
        return x, y, z

    def size(self, key: str) -> tuple[float, float, float]:
        """Three lengths written as one text, "20 x 7 x 3 mm", or as a list."""
        value = self.values.get(key)
        if isinstance(value, str):
            *numbers, last = (part.strip() for part in value.split("x"))
            number, _, unit = last.partition(" ")
            value = [f"{part} {unit}".strip() if unit else part for part in (*numbers, number)]
            if unit == "":
                value = [float(part) if part.replace(".", "", 1).isdigit() else part for part in value]
        x, y, z = self.place(key, value if value is not None else [])
        if min(x, y, z) <= 0:
            raise self.error(key, f"{self.values[key]!r} is not positive", 'give, for example, "20 x 7 x 3 mm"')
        return x, y, z
