"""Numbered updates below `guidance/` of a plan's folder: written whole, never changed, the last good one always there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planners.guidance.base import Base
from planners.guidance.update import Guidance
from planners.overlay import export
from twin.atomic import write_json
from twin.run import content_hash

ROOM = "guidance"


def updates(folder: Path) -> list[Path]:
    """Finished updates, oldest first; what a killed update left behind is not among them."""
    room = folder / ROOM
    return sorted(p for p in room.iterdir() if p.is_dir() and p.name.isdigit()) if room.is_dir() else []


def last(folder: Path) -> dict[str, Any] | None:
    """State of the last finished update."""
    found = updates(folder)
    if not found:
        return None
    value: dict[str, Any] = json.loads((found[-1] / "guide.json").read_text(encoding="utf-8"))
    return value


def key_of(base: Base, inputs: Mapping[str, Path]) -> str:
    """What an update depends on: the plan and the content of its input files."""
    return content_hash(base.plan.run["stages"], {name: content_hash(path) for name, path in sorted(inputs.items())})


def write(base: Base, guidance: Guidance, key: str) -> Path:
    """Write one update: plan.json, overlay/ and guide.json in a folder that appears whole under the next number."""
    room = base.folder / ROOM
    room.mkdir(exist_ok=True)
    partial = room / f".partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    write_json(partial / "plan.json", guidance.plan.as_dict())
    export(guidance.plan, base.twin.mesh, partial / "overlay", ("markups", "csv"))
    write_json(partial / "guide.json", {**guidance.state, "key": key})
    while True:
        number = int(updates(base.folder)[-1].name) + 1 if updates(base.folder) else 1
        target = room / f"{number:04d}"
        try:
            os.rename(partial, target)
            return target
        except OSError:  # another guide wrote this number in the meantime
            if not target.exists():
                raise
