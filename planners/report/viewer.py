"""Data of the rotating 3-D view: surfaces, waves and marks as base64 text inside the one HTML file."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.report.palette import CIRCUIT, TARGET, tissue_colours
from planners.report.pictures import camera
from planners.report.raster import Shape, sphere, tube
from planners.report.story import Story

NOT_ACTIVATED_MS = -1e9


def _text(values: NDArray[Any], dtype: type) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()).decode("ascii")


def _mark(name: str, shapes: list[Shape], centre: NDArray[np.float64]) -> dict[str, str]:
    offset = np.cumsum([0, *(len(s.vertices_mm) for s in shapes)])
    return {
        "name": name,
        "position": _text(np.concatenate([s.vertices_mm - centre for s in shapes]), np.float32),
        "colour": _text(np.concatenate([s.colours for s in shapes]), np.float32),
        "triangles": _text(np.concatenate([s.triangles + o for s, o in zip(shapes, offset)]), np.uint32),
    }


def data(story: Story) -> str:
    """JSON for `viewer.js`; only surface nodes are written, coordinates about the heart's centre."""
    mesh = story.mesh
    view = camera(mesh)
    used = np.unique(np.concatenate([tri.ravel() for tri in mesh.surfaces.values()]))
    number = np.zeros(mesh.n_points, np.int64)
    number[used] = np.arange(len(used))
    waves = []
    for wave in story.waves:
        finite = wave.node_ms[np.isfinite(wave.node_ms)]
        first, last = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        times = np.where(np.isfinite(wave.node_ms[used]), wave.node_ms[used], NOT_ACTIVATED_MS)
        waves.append(
            {"title": wave.title, "period": wave.period_ms, "first": first, "span": last - first, "time": _text(times, np.float32)}
        )
    targets = [sphere(np.asarray(p, float), t.radius_mm * 0.6, TARGET) for t in story.plan.targets for p in t.positions_mm]
    circuits = [tube(np.asarray(c.path_mm, float), 1.0, CIRCUIT) for c in story.plan.circuits if len(c.path_mm) > 2]
    marks = [_mark(name, shapes, view.centre_mm) for name, shapes in (("targets", targets), ("circuit", circuits)) if shapes]
    return json.dumps(
        {
            "position": _text(mesh.points_mm[used] - view.centre_mm, np.float32),
            "colour": _text(tissue_colours(mesh)[used], np.float32),
            "parts": [
                {"name": name, "opacity": 1.0, "triangles": _text(number[mesh.surfaces[name]], np.uint32)}
                for name in ("lv_endo", "rv_endo", "base", "epi")
                if len(mesh.surfaces[name])
            ],
            "waves": waves,
            "marks": marks,
            # column-major, as WebGL wants it: rows of the camera's axes become columns of its transpose
            "view": view.axes().T.ravel().tolist(),
            "radius": 0.5 * view.height_mm,
        }
    )
