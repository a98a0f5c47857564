"""What leaves the program for other systems: one file per format behind `export`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from planners.overlay import dicom, slicer, surfaces, tables
from twin.atomic import write_json
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.plan import Plan

Writer = Callable[[Plan, HeartMesh, Path], list[Path]]

FORMATS: dict[str, Writer] = {
    "stl": surfaces.write_stl,
    "vtp": surfaces.write_vtp,
    "slicer": slicer.write,
    "csv": tables.write,
    "ply": surfaces.write_ply,
    "obj": surfaces.write_obj,
    "dicom": dicom.write,
}
DEFAULT = ("stl", "vtp", "slicer", "csv")
"""What a plan leaves unasked: formats that need no extra and are small."""

FRAME = {
    "coordinate_system": "LPS (x to the patient's left, y to the back, z to the head)",
    "unit": "mm",
    "origin": "that of the segmentation's image",
    "vendor_acceptance": "not verified on any vendor's hardware",
}
"""One frame of reference for every file of an overlay."""


def export(plan: Plan, mesh: HeartMesh, folder: Path, formats: Sequence[str] = ()) -> list[Path]:
    """Write the asked formats (`DEFAULT` if none is named) below `folder`, each in a folder of its own; returns the files."""
    for name in formats:
        if name not in FORMATS:
            raise InputError("command line", "--format", f"{name!r} is not known", f"choose from {', '.join(FORMATS)}")
    files = []
    for name in formats or DEFAULT:
        files += FORMATS[name](plan, mesh, folder / name)
    write_json(folder / "frame.json", FRAME)
    return files
