"""The recipe of a virtual patient: a small TOML file from which the whole case is remade byte for byte."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from planners.virtual.anatomy import Anatomy, labels
from planners.virtual.infarct import InfarctSpec, add_infarct, spec_from
from planners.virtual.measure import MeasureSpec
from planners.virtual.statistics import LV_WALL_MM
from twin.errors import InputError
from twin.volume import LabelVolume

KEYS = ("seed", "anatomy", "infarct", "measurement", "recorded_vt", "patient")


@dataclass(frozen=True)
class Recipe:
    """What a case is made from: anatomy, infarct (None: no scar), measurements, the patient's record, the recorded VT (if any),
    and the seed of all noise.
    """

    name: str
    seed: int
    anatomy: Anatomy
    infarct: InfarctSpec | None
    measurement: MeasureSpec
    patient: Mapping[str, Any] = field(default_factory=dict)
    recorded_vt: Mapping[str, Any] | None = None
    """Fields of `planners.virtual.tachycardia.RecordedVtSpec`."""


def read_recipe(path: Path) -> Recipe:
    """Read `recipe.toml`; raises InputError for unreadable TOML and unknown keys."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(path, "recipe", str(error), "give a readable TOML file") from None
    unknown = set(table) - set(KEYS)
    if unknown or not isinstance(table.get("seed"), int):
        raise InputError(
            path, ", ".join(sorted(unknown)) or "seed", "not a key of a recipe or missing", "use seed, anatomy, infarct, patient"
        )
    try:
        infarct = spec_from(table["infarct"]) if "infarct" in table else None
    except TypeError as error:
        raise InputError(path, "infarct", str(error), "use the fields of planners.virtual.infarct.InfarctSpec") from None
    measured = MeasureSpec(**_known(path, "measurement", table.get("measurement", {}), MeasureSpec))
    return Recipe(
        path.parent.name,
        table["seed"],
        _anatomy(path, table.get("anatomy", {})),
        infarct,
        measured,
        table.get("patient", {}),
        table.get("recorded_vt"),
    )


def _known(path: Path, name: str, table: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    unknown = set(table) - {f.name for f in fields(kind)}
    if unknown:
        raise InputError(path, f"{name}.{min(unknown)}", "unknown", f"use the fields of {kind.__module__}.{kind.__name__}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _anatomy(path: Path, table: Mapping[str, Any]) -> Anatomy:
    values = _known(path, "anatomy", table, Anatomy)
    usual = {segment: param.value for segment, param in LV_WALL_MM[values.get("sex", "male")].items()}
    values["wall_mm"] = usual | {int(segment): mm for segment, mm in table.get("wall_mm", {}).items()}
    return Anatomy(**values)


def make_labels(recipe: Recipe) -> tuple[LabelVolume, dict[str, object]]:
    """The label volume as imaging would show it, and the truth about its infarct (empty without one)."""
    volume = labels(recipe.anatomy)
    return (volume, {}) if recipe.infarct is None else add_infarct(volume, recipe.infarct)
