"""Numbered updates below `guidance/` of a plan's folder: written whole, never changed, the last good one always there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planners.guidance.base import Base
from planners.guidance.inputs import Events, write_events
from planners.guidance.update import Guidance
from planners.overlay import export
from twin.atomic import write_json
from twin.run import content_hash

ROOM = "guidance"


def updates(folder: Path) -> list[Path]:
    """Finished updates, oldest first; what a killed update left behind is not among them."""
    room = folder / ROOM
    found = [p for p in room.iterdir() if p.is_dir() and p.name.isdigit()] if room.is_dir() else []
    return sorted(found, key=lambda p: int(p.name))


def last(folder: Path) -> dict[str, Any] | None:
    """State of the last finished update."""
    found = updates(folder)
    return _state(found[-1]) if found else None


def _state(update: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((update / "guide.json").read_text(encoding="utf-8"))
    return value


def key_of(base: Base, inputs: Mapping[str, Path]) -> str:
    """What an update depends on: the plan and the content of its input files."""
    return content_hash(base.plan.run["stages"], {name: content_hash(path) for name, path in sorted(inputs.items())})


def write(base: Base, guidance: Guidance, key: str, events: Events | None = None) -> Path:
    """Write one update: plan.json, overlay/, inputs/ and guide.json in a folder that appears whole under the next number."""
    before = next((state for path in reversed(updates(base.folder)) if (state := _state(path))["key"] != key), None)
    room = base.folder / ROOM
    room.mkdir(exist_ok=True)
    partial = room / f".partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    write_json(partial / "plan.json", guidance.plan.as_dict())
    export(guidance.plan, base.twin.mesh, partial / "overlay", ("markups", "csv"))
    if events is not None:
        write_events(partial / "inputs", events)
    write_json(partial / "guide.json", {**guidance.state, "key": key, "since": _since(before, guidance.state)})
    while True:
        number = int(updates(base.folder)[-1].name) + 1 if updates(base.folder) else 1
        target = room / f"{number:04d}"
        try:
            os.rename(partial, target)
            return target
        except OSError:  # another guide wrote this number in the meantime
            if not target.exists():
                raise


def _since(before: dict[str, Any] | None, now: dict[str, Any]) -> list[str]:
    """What changed since the last update from other inputs, and what should not have: lesions cannot be taken back."""
    if before is None:
        return []
    gained = now["delivered"] - before["delivered"]
    lines = [f"{gained} lesion{'' if gained == 1 else 's'} more"] if gained > 0 else []
    if gained < 0:
        lost = "1 lesion of the last update is" if gained == -1 else f"{-gained} lesions of the last update are"
        lines.append(f"{lost} no longer in the file: was it replaced?")
    done = [{t["id"] for t in state["targets"] if t["status"] == "done"} for state in (before, now)]
    lines += [f"{name} is done" for name in sorted(done[1] - done[0])]
    lines += [f"{name} counted as done before and does not now" for name in sorted(done[0] - done[1])]
    return lines
