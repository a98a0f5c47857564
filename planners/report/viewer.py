"""Data of the rotating 3-D view: surfaces, waves, voltages and marks, quantised and deflated, as base64 text inside the one HTML file."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.surfaces import boundary_faces
from planners.report.palette import CIRCUIT, NOT_ACTIVATED, TARGET, TISSUE, tissue_colours
from planners.report.pictures import camera
from planners.report.raster import Shape, sphere, tube
from planners.report.story import Story
from twin.mesh import HeartMesh

Array = NDArray[np.float64]
NOTHING = 65535
"""Value of a node where no wave came or no voltage was measured; the others are 0..65534 of the range."""

VOLTAGE_REACH_MM = 8.0
"""A node farther from every map point than this shows none (chosen here: about the spacing of a dense map's points, and a half)."""

MAX_MV = 10.0
"""Top of the colour scale: bipolar voltages above it are healthy whatever they are."""

VIEWS = {"scar": "scar", "opposite": "opposite side", "base": "base", "apex": "apex"}
WALL_ORDER = ("lv_endo", "rv_endo", "base", "epi")


def _text(values: NDArray[Any], dtype: type) -> str:
    raw = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()
    return base64.b64encode(zlib.compress(raw, 6)).decode("ascii")


def _steps(values: Array, low: float, high: float) -> str:
    """Values as 16-bit steps of a range; not finite: `NOTHING`."""
    share = np.clip((values - low) / max(high - low, 1e-9), 0.0, 1.0)
    return _text(np.where(np.isfinite(values), np.round(np.nan_to_num(share) * (NOTHING - 1)), NOTHING), np.uint16)


def _bytes(colours: Array) -> str:
    return _text(np.round(np.clip(colours, 0.0, 1.0) * 255), np.uint8)


def _mark(name: str, shapes: list[Shape], centre: Array) -> dict[str, str]:
    offset = np.cumsum([0, *(len(s.vertices_mm) for s in shapes)])
    return {
        "name": name,
        "position": _text(np.concatenate([s.vertices_mm - centre for s in shapes]), np.float32),
        "colour": _bytes(np.concatenate([s.colours for s in shapes])),
        "triangles": _text(np.concatenate([s.triangles + o for s, o in zip(shapes, offset)]), np.uint32),
    }


def scar_body(mesh: HeartMesh) -> list[Shape]:
    """The skins of border zone and dense scar inside the wall, coloured by tissue; none without scar."""
    colours, anywhere = tissue_colours(mesh), np.ones(mesh.n_points, bool)
    shapes = []
    for names in (("border_zone", "isthmus"), ("scar",)):
        tets = mesh.tets[mesh.in_region(*names)]
        if len(tets):
            used, index = np.unique(boundary_faces(tets, anywhere), return_inverse=True)
            colour = np.tile(TISSUE[names[0]], (len(used), 1)) if names[0] == "scar" else colours[used]
            shapes.append(Shape(mesh.points_mm[used], index.reshape(-1, 3).astype(np.int32), colour))
    return shapes


def voltage(story: Story) -> Array | None:
    """Bipolar voltage of the map on the surface that it lies on, (n,) mV, NaN beyond reach; None where none was measured."""
    calibration, mesh = story.calibration, story.calibration.twin.mesh
    measured = np.isfinite(calibration.map_bipolar_mv)
    if measured.sum() < 3:
        return None
    points, values = calibration.map_points_mm[measured], calibration.map_bipolar_mv[measured]
    away = {name: cKDTree(mesh.points_mm[mesh.surface_nodes(name)]).query(points)[0] for name in WALL_ORDER if len(mesh.surfaces[name])}
    nodes = mesh.surface_nodes(min(away, key=lambda name: float(np.median(away[name]))))
    distance, index = (np.atleast_2d(a) for a in cKDTree(points).query(mesh.points_mm[nodes], k=3))
    weight = 1.0 / np.maximum(distance, 0.3) ** 2
    out = np.full(mesh.n_points, np.nan)
    out[nodes] = np.where(distance[:, 0] < VOLTAGE_REACH_MM, (weight * values[index]).sum(axis=1) / weight.sum(axis=1), np.nan)
    return out


def _views(story: Story) -> dict[str, list[float]]:
    """Camera turns by name, column-major as WebGL wants them."""
    front = camera(story.mesh).axes()
    right, up, toward = front
    turns = {
        "scar": front,
        "opposite": np.stack([-right, up, -toward]),
        "base": np.stack([right, -toward, up]),
        "apex": np.stack([right, toward, -up]),
    }
    return {name: axes.T.ravel().round(6).tolist() for name, axes in turns.items()}


def _waves(story: Story, used: NDArray[Any]) -> list[dict[str, Any]]:
    waves = []
    for wave in story.waves:
        finite = wave.node_ms[np.isfinite(wave.node_ms)]
        first, last = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        span = max(last - first, 1.0)
        values = _steps(wave.node_ms[used], first, first + span)
        waves.append({"period": wave.period_ms, "span": span, "time": values})
    return waves


def data(story: Story) -> str:
    """JSON for `viewer.js`; only surface nodes are written, coordinates about the heart's centre."""
    mesh = story.mesh
    view = camera(mesh)
    centre = view.centre_mm
    used = np.unique(np.concatenate([tri.ravel() for tri in mesh.surfaces.values()]))
    number = np.zeros(mesh.n_points, np.int64)
    number[used] = np.arange(len(used))
    inside = mesh.points_mm[used] - centre
    reach = float(np.abs(inside).max())
    targets = [sphere(np.asarray(p, float), t.radius_mm * 0.6, TARGET) for t in story.plan.targets for p in t.positions_mm]
    circuits = [tube(np.asarray(c.path_mm, float), 1.0, CIRCUIT) for c in story.plan.circuits if len(c.path_mm) > 2]
    marks, volts = [("targets", targets), ("circuit", circuits), ("scar", scar_body(mesh))], voltage(story)
    return json.dumps(
        {
            "reach": reach,
            "position": _text(np.round((inside / reach * 0.5 + 0.5) * 65535), np.uint16),
            "colour": _bytes(tissue_colours(mesh)[used]),
            "parts": [
                {"name": name, "triangles": _text(number[mesh.surfaces[name]], np.uint32)}
                for name in WALL_ORDER
                if len(mesh.surfaces[name])
            ],
            "waves": _waves(story, used),
            "voltage": None if volts is None else {"most": MAX_MV, "values": _steps(volts[used], 0.0, MAX_MV)},
            "colours": {"scar": TISSUE["scar"], "border": TISSUE["border_zone"], "healthy": TISSUE["healthy"], "none": NOT_ACTIVATED},
            "marks": [_mark(name, shapes, centre) for name, shapes in marks if shapes],
            "labels": [
                {"target": t.id, "text": f"{t.id}.{n}", "at": (np.asarray(p, float) - centre).round(3).tolist()}
                for t in story.plan.targets
                for n, p in enumerate(t.positions_mm, 1)
            ],
            "views": _views(story),
            "radius": 0.5 * view.height_mm,
        }
    )
