"""Quantities written by people, turned into the units used inside: mm, ms, mV, uA, mS, uF."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from twin.errors import InputError


@cache
def _registry() -> Any:
    # pint takes a quarter of a second to import: only files with units pay for it
    import pint

    return pint.UnitRegistry()


def quantity(value: object, unit: str, where: str, field: str) -> float:
    """Return `value` in `unit`: a bare number (or text that is one) is taken to be in it already, text is parsed ("0.17 S/m", "140 /mm").

    Raises InputError for text that is not a quantity, a unit of another dimension, or a number that is not finite.
    """
    remedy = f'write a number in {unit} or text with a unit, for example "1 {unit}"'
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(where, field, f"{value!r} is not a quantity", remedy)
    if isinstance(value, str) and not _bare(value):
        number, _, rest = value.strip().partition(" ")
        text = f"{number} * {rest}" if rest and not rest.startswith("/") else f"{number} {rest}"
        try:
            result = float(_registry().Quantity(text).to(unit).magnitude)
        except Exception as error:  # pint raises many kinds; all of them mean the same to the user
            raise InputError(where, field, f"{value!r} cannot be read as {unit} ({error})", remedy) from None
    else:
        result = float(value)
    if not math.isfinite(result):
        raise InputError(where, field, f"{value!r} is not finite", remedy)
    return result


def _bare(text: str) -> bool:
    """True for a number without a unit."""
    try:
        float(text)
    except ValueError:
        return False
    return True
