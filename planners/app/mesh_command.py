"""`vtwin mesh`: labels to a mesh with fibres and coordinates."""

from __future__ import annotations

from pathlib import Path

from meshing.anatomy import complete
from meshing.mesh_labels import mesh_heart
from meshing.voxelise import read_segmentation
from planners.app.console import Console
from planners.app.output import claim, finish
from twin.atomic import write_json
from twin.errors import InputError
from twin.io.labels import check_heart
from twin.io.vtu import write_vtu
from twin.run import RunRecord, content_hash
from twin.units import quantity


def parse_labels(text: str | None) -> dict[str, int] | None:
    """`lv_blood=1,myocardium=3` as a dictionary; None stays None."""
    if text is None:
        return None
    out: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if not number.strip().isdigit():
            raise InputError("command line", "--labels", f"{part!r} is not NAME=NUMBER", "write for example lv_blood=1,myocardium=3")
        out[name.strip()] = int(number)
    return out


def mesh(segmentation: Path, out: Path, edge: str, labels: str | None, console: Console) -> int:
    """Write heart.vtu, quality.json and run.json."""
    edge_mm = quantity(edge, "mm", "command line", "--edge")
    if not 0.3 <= edge_mm <= 5.0:
        raise InputError("command line", "--edge", f"{edge_mm:g} mm", "choose between 0.3 and 5 mm")
    volume = read_segmentation(segmentation, parse_labels(labels))
    for note in check_heart(volume, segmentation):
        console.progress(note)
    identity = {
        "command": "mesh",
        "inputs": {"segmentation": content_hash(segmentation)},
        "settings": {"edge_mm": edge_mm, "labels": labels},
    }
    claim(out, identity)
    console.progress(f"meshing at {edge_mm:g} mm ...")
    bare = mesh_heart(volume, edge_mm)
    console.progress(f"{bare.n_points} nodes, {len(bare.tets)} tetrahedra; fibres and coordinates ...")
    heart = complete(bare)
    write_vtu(out / "heart.vtu", heart)
    heart.save(out / "heart.npz")
    write_json(out / "quality.json", dict(heart.quality))
    finish(out, identity, RunRecord("mesh", 0, identity["inputs"], identity["settings"]).as_dict())  # type: ignore[arg-type]
    lines = [f"{key}: {value}" for key, value in heart.quality.items()]
    console.result(dict(heart.quality), [*lines, f"wrote {out / 'heart.vtu'}"])
    return 0
