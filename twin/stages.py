"""Stages of a run on disk: each written whole, keyed by the hash of what went into it, reused when the key is the same."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from twin.atomic import Damaged, write_json

T = TypeVar("T")


MARKER = "complete.json"


def take_over(stage: Path, stages: Path) -> None:
    """Copy a finished stage's folder of another run below `stages`, whole or not at all; an unfinished one, or one that is there, stays."""
    if not (stage / MARKER).is_file() or (stages / stage.name).exists():
        return
    stages.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=stages) as folder:
        os.replace(shutil.copytree(stage, Path(folder) / stage.name), stages / stage.name)


@dataclass
class Stages:
    """The `stages/` folder of one run. `report` is called with one line per stage for a person to read."""

    folder: Path
    report: Callable[[str], None] = print
    keys: dict[str, str] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)

    def path(self, name: str, key: str) -> Path:
        """Folder of one stage's files."""
        return self.folder / f"{name}-{key}"

    def run(
        self,
        name: str,
        key: str,
        compute: Callable[[Path], T],
        save: Callable[[T, Path], None],
        load: Callable[[Path], T],
        doing: str,
    ) -> T:
        """Load the stage if it is complete under this key (and not damaged), else compute, save and mark it complete.

        `compute` gets the stage's folder and may keep finished parts there, which a run that was cut off finds again.
        """
        folder = self.path(name, key)
        self.keys[name] = key
        marker = folder / MARKER
        if marker.exists():
            try:
                value = load(folder)
                self.report(f"{doing}: reused from {folder.name}")
                return value
            except Damaged as error:
                self.report(f"{doing}: {Path(error.where).name} {error.problem}, made anew")
                shutil.rmtree(folder)
        self.report(f"{doing} ...")
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        value = compute(folder)
        save(value, folder)
        seconds = time.perf_counter() - start
        write_json(marker, {"stage": name, "key": key})
        self.wall_s[name] = round(seconds, 3)
        self.report(f"{doing}: {seconds:.1f} s")
        return value
