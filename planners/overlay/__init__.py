"""What leaves the program for other systems: one file per format behind `export`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from planners.overlay import dicom, mapping_systems, slicer, surfaces, tables
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
    "ensite": mapping_systems.write_ensite,
    "carto": mapping_systems.write_carto_style,
    "markups": slicer.write_markups,
}
DEFAULT = ("stl", "vtp", "slicer", "csv")
"""What a plan leaves unasked: formats that need no extra and are small."""

UNVERIFIED = "not verified on any vendor's hardware"

FRAME = {
    "coordinate_system": "LPS (x to the patient's left, y to the back, z to the head)",
    "unit": "mm",
    "origin": "that of the segmentation's image: the patient frame of the images that the case was made from",
    "vendor_acceptance": UNVERIFIED,
}
"""One frame of reference for every file of an overlay."""

SAYS = {
    "stl": "nothing of its frame: STL cannot; LPS mm by this record",
    "ply": "nothing of its frame: LPS mm by this record",
    "obj": "nothing of its frame: LPS mm by this record",
    "vtp": "nothing of its frame: LPS mm by this record",
    "csv": "mm in the names of its columns; LPS by this record",
    "slicer": "LPS and mm in every markup, in the space of heart.seg.nrrd and in the scene",
    "markups": "LPS and mm in every file",
    "dicom": "the standard's patient frame (LPS mm), one FrameOfReferenceUID, unit code mm",
    "ensite": f"nothing of its frame: LPS mm by this record; {UNVERIFIED}",
    "carto": f"nothing of its frame: LPS mm by this record; {UNVERIFIED}",
}
"""What the files of each format say themselves about axes and unit; `vtwin stream` sends RAS mm, as OpenIGTLink listeners expect."""


def export(plan: Plan, mesh: HeartMesh, folder: Path, formats: Sequence[str] = ()) -> list[Path]:
    """Write the asked formats (`DEFAULT` if none is named) below `folder`, each in a folder of its own; returns the files.

    What an earlier export left there in these formats and this plan does not have (circuits of another plan, say) is removed; files of
    others stay. Raises InputError for an unknown format, or one whose packages are not installed.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError("command line", "--format", f"{name!r} is not known", f"choose from {', '.join(FORMATS)}")
    before = _before(folder)
    files: dict[str, list[Path]] = {name: FORMATS[name](plan, mesh, folder / name) for name in formats or DEFAULT}
    now = before | {name: sorted({path.name for path in written}) for name, written in files.items()}
    for name in files:
        for gone in set(before.get(name, ())) - set(now[name]):
            (folder / name / gone).unlink(missing_ok=True)
    record = {**FRAME, "formats": {name: SAYS[name] for name in sorted(FORMATS) if (folder / name).is_dir()}, "files": now}
    write_json(folder / "frame.json", record)
    return [path for written in files.values() for path in written]


def _before(folder: Path) -> dict[str, list[str]]:
    """Names of the files of each format that an earlier export into this folder wrote, by its own record."""
    try:
        said = json.loads((folder / "frame.json").read_text(encoding="utf-8"))["files"]
        return {name: [f for f in said[name] if Path(f).name == f] for name in FORMATS if name in said and (folder / name).is_dir()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
