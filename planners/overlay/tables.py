"""Targets as a plain table (CSV, LPS mm) for anything that reads one."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from twin.atomic import write_text
from twin.mesh import HeartMesh
from twin.plan import Plan

COLUMNS = ("target", "number", "order", "surface", "x_mm", "y_mm", "z_mm", "radius_mm", "depth_mm", "circuits", "why")


def write(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """Write `targets.csv`, one row per lesion position."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for t in plan.targets:
        for number, (x, y, z) in enumerate(t.positions_mm, 1):
            place = (f"{v:.4f}" for v in (x, y, z))
            table.writerow([t.id, number, t.order, t.surface, *place, t.radius_mm, t.depth_mm, " ".join(t.circuits), t.why])
    path = folder / "targets.csv"
    write_text(path, text.getvalue())
    return [path]
