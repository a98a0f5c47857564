"""`vtwin convert`: between label formats, between surface formats, and from a closed heart surface to labels."""

from __future__ import annotations

from pathlib import Path

from meshing.voxelise import surface_file_to_labels
from planners.app.console import Console
from twin.io.convert import convert_labels, convert_surface, kind_of


def convert(source: Path, target: Path, console: Console) -> int:
    """Convert one file; what was found and assumed on the way is said."""
    kinds = kind_of(source), kind_of(target)
    if kinds == ("labels", "labels"):
        lines = convert_labels(source, target)
    elif kinds == ("surface", "labels"):
        lines = surface_file_to_labels(source, target)
    else:
        lines = convert_surface(source, target)
    console.result({"written": str(target), "notes": lines}, [*lines, f"wrote {target}"])
    return 0
