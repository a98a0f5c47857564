"""The [plan] table of a case file: what the physician allows and asks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twin.case_values import names_in, of_kind, positive, resolve
from twin.errors import InputError
from twin.io.positions import drawn_of
from twin.io.source import check_keys
from twin.mesh import WALLS
from twin.plan import PlanRequest
from twin.site_name import own_site


def _confirmation(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Whether monodomain is asked about the circuits, and about how many trains that induced nothing."""
    given: dict[str, Any] = {}
    if "confirm" in table:
        given["confirm"] = of_kind(table["confirm"], bool, path, "plan.confirm")
    if "confirm_negatives" in table:
        number = of_kind(table["confirm_negatives"], int, path, "plan.confirm_negatives")
        if not 0 <= number <= 1000:
            raise InputError(path, "plan.confirm_negatives", f"{number} is out of range", "write 0 to 1000")
        if number and not given.get("confirm"):
            raise InputError(path, "plan.confirm_negatives", "is given, but nothing is confirmed", "add confirm = true")
        given["confirm_negatives"] = number
    return given


def _sites(value: object, path: Path) -> tuple[str, ...]:
    """Names of sites; one of the user's own, { name = "lead", at = [x, y, z] }, becomes name@x,y,z."""
    out = []
    for item in of_kind(value, list, path, "plan.sites"):
        if isinstance(item, dict):
            check_keys(item, ("name", "at"), path, "plan.sites")
            name, at = item.get("name"), item.get("at")
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name):
                raise InputError(path, "plan.sites.name", f"{name!r} is no name", "write letters, digits and _ that begin with a letter")
            if not isinstance(at, list) or len(at) != 3 or not all(isinstance(v, int | float) and abs(v) < 1e4 for v in at):
                raise InputError(path, "plan.sites.at", f"{at!r} is no place", "write [x, y, z] in LPS mm")
            out.append(own_site(name, at))
        else:
            out += names_in([item], path, "plan.sites")
    if len(set(out)) != len(out):
        raise InputError(path, "plan.sites", "names one site twice", "name each once")
    return tuple(out)


def plan_request(table: Mapping[str, Any], path: Path) -> PlanRequest:
    """The [plan] table as a PlanRequest; names of protocols, sites and strategies are checked by who owns them."""
    given: dict[str, Any] = {}
    if "protocol" in table:
        given["protocol"] = of_kind(table["protocol"], str, path, "plan.protocol")
    for key in ("strategies", "compare"):
        if key in table:
            given[key] = names_in(table[key], path, f"plan.{key}")
    if "sites" in table:
        given["sites"] = _sites(table["sites"], path)
    if "access" in table:
        given["access"] = names_in(table["access"], path, "plan.access", WALLS)
    for key, inside, unit, high in (
        ("max_volume", "max_volume_ml", "mL", 100.0),
        ("lesion_radius", "lesion_radius_mm", "mm", 20.0),
        ("lesion_depth", "lesion_depth_mm", "mm", 20.0),
    ):
        if key in table:
            given[inside] = positive(table[key], unit, path, f"plan.{key}", high)
    for key, most in (("max_rounds", 20), ("posterior_samples", 1000)):
        if key in table:
            number = of_kind(table[key], int, path, f"plan.{key}")
            if not 1 <= number <= most:
                raise InputError(path, f"plan.{key}", f"{number} is out of range", f"write 1 to {most}")
            given[key] = number
    given |= _confirmation(table, path)
    if "vote" in table:
        given["vote"] = of_kind(table["vote"], bool, path, "plan.vote")
    if "energy" in table:
        given["energy"] = of_kind(table["energy"], dict, path, "plan.energy")
        if both := {"lesion_radius", "lesion_depth"} & set(table):
            raise InputError(path, f"plan.{min(both)}", "is given beside plan.energy", "keep one of them")
    if "drawn" in table:
        rows = [of_kind(row, dict, path, "plan.drawn") for row in of_kind(table["drawn"], list, path, "plan.drawn")]
        find = partial(resolve, path=path, key="plan.drawn.file")
        given["drawn"] = tuple(lesion for row in rows for lesion in drawn_of(row, path, find))
    return PlanRequest(**given)
