"""A picture of what was inspected: three middle slices of a volume, three views of a surface or mesh, points of a map, leads of an ECG."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.report import palette
from planners.report.raster import Camera, Shape, png, render, sphere
from twin.image import Image
from twin.io.surfaces import Surface
from twin.io.volume_mesh import VolumeMesh, boundary
from twin.patient import Ecg, ElectroanatomicalMap
from twin.volume import LABELS, LabelVolume

Array = NDArray[np.float64]
PANEL = 320
GAP = 8
MAX_BALLS = 600
VIEWS = (((0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), ((-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)), ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0)))
"""Directions of sight and up in LPS: from the front, from the left, from above (front up)."""

LABEL_COLOURS = {
    "lv_blood": (0.80, 0.25, 0.25),
    "rv_blood": (0.35, 0.55, 0.85),
    "lv_myocardium": (0.90, 0.80, 0.74),
    "rv_myocardium": (0.80, 0.70, 0.80),
    "myocardium": (0.90, 0.80, 0.74),
    "scar": palette.TISSUE["scar"],
    "border_zone": palette.TISSUE["border_zone"],
    "isthmus": palette.TISSUE["isthmus"],
    "ignore": (0.45, 0.45, 0.45),
}


def picture(shown: Any) -> bytes | None:
    """PNG bytes, or None if there is nothing to draw."""
    if isinstance(shown, LabelVolume):
        colours = np.ones((256, 3))
        for name, number in LABELS.items():
            colours[number] = LABEL_COLOURS.get(name, (1.0, 1.0, 1.0))
        data, spacing = _towards_lps(shown.data, shown.affine)
        filled = np.argwhere(data > 0)
        centre = filled.mean(axis=0).round().astype(int) if len(filled) else np.array(data.shape) // 2
        return _slices(colours[data], spacing, centre)
    if isinstance(shown, Image):
        data, spacing = _towards_lps(shown.data, shown.affine)
        low, high = np.percentile(data, [1, 99])
        grey = np.clip((data.astype(np.float64) - low) / max(float(high - low), 1e-9), 0.0, 1.0)
        return _slices(grey[..., None], spacing, np.array(grey.shape) // 2)
    if isinstance(shown, VolumeMesh):
        triangles, owner = boundary(shown.tets)
        return _views(shown.points_mm, triangles, _region_colours(shown, triangles, owner))
    if isinstance(shown, Surface):
        return _views(shown.points_mm, shown.triangles, np.tile((0.90, 0.80, 0.74), (len(shown.points_mm), 1)))
    if isinstance(shown, ElectroanatomicalMap):
        return _map(shown)
    return _leads(shown) if isinstance(shown, Ecg) else None


def _towards_lps(data: NDArray[Any], affine: Array) -> tuple[NDArray[Any], Array]:
    """The same voxels with index axes that point most to the left, the back and the head, and their spacing."""
    axes = affine[:3, :3]
    order = np.zeros(3, int)
    left = [0, 1, 2]
    for world in np.argsort(-np.abs(axes).max(axis=1)):
        order[world] = max(left, key=lambda a: abs(axes[world, a]))
        left.remove(order[world])
    moved = data.transpose(order)
    for world in range(3):
        if axes[world, order[world]] < 0:
            moved = np.flip(moved, world)
    return moved, np.linalg.norm(axes, axis=0)[order]


def _slices(colour: Array, spacing_mm: Array, centre: NDArray[np.int_]) -> bytes:
    """Axial, coronal and sagittal slice through `centre` of colours (ni, nj, nk, 1 or 3) along L, P, S, in true proportions."""
    panels = []
    for axis in (2, 1, 0):
        plane = np.take(colour, int(np.clip(centre[axis], 0, colour.shape[axis] - 1)), axis)
        across, down = (a for a in range(3) if a != axis)
        size = np.array([plane.shape[0] * spacing_mm[across], plane.shape[1] * spacing_mm[down]])
        width, height = np.maximum(1, (PANEL * size / size.max()).round()).astype(int)
        i = np.minimum((np.arange(width) + 0.5) / width * plane.shape[0], plane.shape[0] - 1).astype(int)
        j = np.minimum((np.arange(height) + 0.5) / height * plane.shape[1], plane.shape[1] - 1).astype(int)
        # the head is up in the two upright planes; in the axial one the back is down
        rows = j if axis == 2 else j[::-1]
        panels.append(_padded(plane[np.ix_(i, rows)].transpose(1, 0, 2)))
    return png(_beside(panels))


def _padded(image: Array) -> Array:
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    out = np.full((PANEL, PANEL, 3), 0.12)
    top, left = (PANEL - image.shape[0]) // 2, (PANEL - image.shape[1]) // 2
    out[top : top + image.shape[0], left : left + image.shape[1]] = image
    return out


def _beside(panels: list[Array]) -> Array:
    gap = np.ones((PANEL, GAP, 3))
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def _region_colours(mesh: VolumeMesh, triangles: NDArray[np.int32], owner: NDArray[np.int64]) -> Array:
    """Colour of each node by the region of a triangle at it: vtwin's colours for its names, well separated ones for numbers."""
    from matplotlib import colormaps

    cycle = np.asarray(colormaps["tab20"].colors)  # type: ignore[attr-defined]
    colours = np.tile((0.8, 0.8, 0.8), (len(mesh.points_mm), 1))
    for index, number in enumerate(np.unique(mesh.region).tolist()):
        here = triangles[mesh.region[owner] == number]
        colours[here.ravel()] = palette.TISSUE.get(mesh.name_of(number), tuple(cycle[index % len(cycle)]))
    return colours


def _views(points: Array, triangles: NDArray[np.int32], colours: Array) -> bytes:
    """From three sides, beside each other, with a scale bar."""
    return _from_three_sides([Shape(np.asarray(points, float), triangles, np.asarray(colours, float))], points[np.unique(triangles)])


def _from_three_sides(shapes: list[Shape], points: Array) -> bytes:
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    height = 1.15 * float(np.ptp(points, axis=0).max())
    bar = 10.0 ** np.floor(np.log10(max(height / 4, 1e-6)))
    images = []
    for view, up in VIEWS:
        data = render(shapes, Camera(np.array(view), np.array(up), centre, height), PANEL, PANEL, bar)
        images.append(_decoded(data))
    return png(_beside(images))


def _decoded(data: bytes) -> Array:
    import io

    from PIL import Image as Pillow

    return np.asarray(Pillow.open(io.BytesIO(data)), np.float64) / 255.0


def _map(eam: ElectroanatomicalMap) -> bytes:
    """Points as balls, coloured by activation."""
    step = max(1, len(eam.points_mm) // MAX_BALLS)
    points, lat = eam.points_mm[::step], eam.lat_ms[::step]
    low, high = (float(np.nanpercentile(lat, q)) for q in (2, 98)) if np.isfinite(lat).any() else (0.0, 1.0)
    colours = palette.activation_colours(lat, low, high)
    ball = sphere(np.zeros(3), 0.012 * float(np.linalg.norm(np.ptp(points, axis=0))), (0.0, 0.0, 0.0))
    k = len(ball.vertices_mm)
    balls = Shape(
        (points[:, None] + ball.vertices_mm).reshape(-1, 3),
        (ball.triangles + k * np.arange(len(points))[:, None, None]).reshape(-1, 3).astype(np.int32),
        np.repeat(colours, k, axis=0),
    )
    return _from_three_sides([balls], points)


def _leads(ecg: Ecg) -> bytes:
    """Every lead as a trace below the one before, the first ten seconds."""
    width = 2 * PANEL + GAP
    height = PANEL
    image = np.ones((height, width, 3))
    n = min(len(ecg.time_ms), int(10 * ecg.fs_hz))
    band = height / max(1, len(ecg.leads))
    span = max((float(np.nanmax(v[:n]) - np.nanmin(v[:n])) for v in ecg.leads.values()), default=1.0) or 1.0
    columns = np.minimum((np.arange(width) / width * n).astype(int), n - 1)
    for row, values in enumerate(ecg.leads.values()):
        y = (row + 0.5) * band - (values[columns] - np.nanmean(values[:n])) / span * 0.9 * band
        y = np.nan_to_num(np.clip(y, 0, height - 1)).astype(int)
        for x in range(1, width):
            low, high = sorted((y[x - 1], y[x]))
            image[low : high + 1, x] = (0.1, 0.1, 0.3)
    return png(image)
