"""`vtwin convert`: between label formats, between surface formats, and from a closed heart surface to labels."""

from __future__ import annotations

from pathlib import Path

from meshing import voxelise
from planners.app.console import Console


def convert(source: Path, target: Path, console: Console) -> int:
    """Convert one file; what was found and assumed on the way is said."""
    lines = voxelise.convert(source, target)
    console.result({"written": str(target), "notes": lines}, [*lines, f"wrote {target}"])
    return 0
