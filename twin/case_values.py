"""Values of a case file, checked one by one. Each raises InputError that names file, key, problem and remedy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twin.errors import InputError
from twin.io.source import did_you_mean, file_size
from twin.units import quantity


def of_kind(value: object, kind: type, path: Path, key: str) -> Any:
    """`value` if it is of the asked kind (an int also passes as float)."""
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, (kind, int) if kind is float else kind):
        names = {str: "text", bool: "true or false", int: "a whole number", float: "a number", dict: "a table", list: "a list"}
        raise InputError(path, key, f"{value!r} is not {names[kind]}", f"write {names[kind]}")
    return value


def names_in(value: object, path: Path, key: str, known: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """A list of names, each one of the known ones if these are given."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(path, key, f"{value!r} is not a list of names", 'write a list, for example ["lv_endo"]')
    for item in value:
        if known is not None and item not in known:
            raise InputError(path, key, f"unknown name {item!r}", did_you_mean(item, known))
    return tuple(value)


def resolve(text: object, path: Path, key: str, folder: bool = False) -> Path:
    """Path of an evidence file (or `folder`), relative to the case, environment variables expanded. Raises InputError if it is absent."""
    given = str(of_kind(text, str, path, key))
    expanded = os.path.expandvars(given)
    if "$" in expanded:
        variable = expanded[expanded.index("$") :].split("/")[0]
        raise InputError(
            path, key, f"{variable} is not set (in {given!r})", f"set {variable.strip('${}')} to the folder that holds the data"
        )
    full = path.parent / expanded
    if folder and full.is_dir():
        return full
    try:
        file_size(full)
    except InputError as error:
        raise InputError(path, key, f"{given}: {error.problem}", error.remedy) from None
    return full


def positive(value: object, unit: str, path: Path, key: str, high: float, low: float = 0.0) -> float:
    """A quantity above zero, at least `low` and at most `high`, in `unit`."""
    number = quantity(value, unit, str(path), key)
    if not (0 < number <= high and number >= low):
        problem = "is negative" if number < 0 else "is outside its range"
        raise InputError(
            path, key, f"{value!r} {problem}", f"write a value {f'from {low:g}' if low else 'above 0 and up'} to {high:g} {unit}"
        )
    return number
