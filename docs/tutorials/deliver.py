"""Plays the laboratory for the tutorial: writes a plan's lesions as delivered, and new map points near the heart, into a folder."""

import json
import sys
from pathlib import Path

import numpy as np


def main(plan: Path, room: Path) -> None:
    """Write lesions.csv and points.csv."""
    room.mkdir(parents=True, exist_ok=True)
    value = json.loads((plan / "plan.json").read_text())
    rows = [p for target in value["targets"] for p in target["positions_mm"]]
    lines = ["# vtwin-lesions 1", "# frame: mesh", "x_mm,y_mm,z_mm,time_s"]
    lines += [",".join(f"{x:.2f}" for x in p) + f",{30 * k}" for k, p in enumerate(rows)]
    (room / "lesions.csv").write_text("\n".join(lines) + "\n")
    from planners.guidance.base import Base

    base = Base.load(plan)
    assert base.calibration is not None
    inverse = np.linalg.inv(base.twin.map_to_mesh)
    nodes = base.twin.mesh.surface_nodes("lv_endo")
    picked = np.random.default_rng(0).choice(nodes[np.isfinite(base.calibration.arrival_ms[nodes])], 25, replace=False)
    places = base.twin.mesh.points_mm[picked] @ inverse[:3, :3].T + inverse[:3, 3]
    times = base.calibration.arrival_ms[picked]
    points = [",".join(f"{x:.2f}" for x in (*p, t)) for p, t in zip(places, times)]
    (room / "points.csv").write_text("\n".join(["# vtwin-eam 1", "x_mm,y_mm,z_mm,lat_ms", *points]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
