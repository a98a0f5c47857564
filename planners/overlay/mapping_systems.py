"""EnSite DIF and CARTO-style meshes and points of a plan, through the writers that the readers of such exports are tested with.

Written from the published descriptions of both formats; not verified on either vendor's hardware, and the files say so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planners.overlay.surfaces import named, shapes
from twin.io.carto import write_carto
from twin.io.ensite import write_dif
from twin.io.surfaces import Surface
from twin.mesh import WALLS, HeartMesh
from twin.plan import Plan
from twin.study import MappingStudy


def _places(plan: Plan, surface: str) -> dict[str, NDArray[np.float64]]:
    """Label and place of every lesion on a surface."""
    return {
        f"{target.id}.{number}": np.asarray(place, float)
        for target in plan.targets
        if target.surface == surface
        for number, place in enumerate(target.positions_mm, 1)
    }


def _bare(surface: Surface) -> Surface:
    return Surface(surface.points_mm, surface.triangles)


def write_ensite(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """One DIF per surface, the lesions on it as its labels, and one with the lesions as balls."""
    files = []
    for name, surface in shapes(plan, mesh).items():
        if name not in (*WALLS, "lesions"):
            continue
        path = folder / f"{name}.xml"
        write_dif(path, _bare(surface), labels=_places(plan, name), name=f"vtwin {name}")
        files.append(path)
    return files


def write_carto_style(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """One CARTO-style study per surface: `.mesh` of the surface, a point for each lesion on it, tagged with its label."""
    files = []
    for name, surface in named(mesh).items():
        if name not in WALLS:
            continue
        places = _places(plan, name)
        points = np.array(list(places.values())).reshape(-1, 3)
        missing = np.full(len(points), np.nan)
        numbers = np.arange(1, len(points) + 1, dtype=np.int64)
        study = MappingStudy(f"vtwin {name}", "vtwin", points, missing, missing, missing, numbers, _bare(surface), labels=places)
        path = folder / f"{name}.zip"
        write_carto(path, study)
        files.append(path)
    return files
