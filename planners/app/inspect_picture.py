"""A picture of what was inspected: three middle slices of a volume, two views of a surface or mesh, points of a map, leads of an ECG."""

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
        centre = np.argwhere(shown.data > 0).mean(axis=0).round().astype(int)
        return _slices(colours[shown.data], shown.spacing_mm, centre)
    if isinstance(shown, Image):
        low, high = np.percentile(shown.data, [1, 99])
        grey = np.clip((shown.data.astype(np.float64) - low) / max(float(high - low), 1e-9), 0.0, 1.0)
        return _slices(np.repeat(grey[..., None], 3, axis=3), shown.spacing_mm, np.array(grey.shape) // 2)
    if isinstance(shown, VolumeMesh):
        triangles, owner = boundary(shown.tets)
        return _views(shown.points_mm, triangles, _region_colours(shown, triangles, owner))
    if isinstance(shown, Surface):
        return _views(shown.points_mm, shown.triangles, np.tile((0.90, 0.80, 0.74), (len(shown.points_mm), 1)))
    if isinstance(shown, ElectroanatomicalMap):
        return _map(shown)
    return _leads(shown) if isinstance(shown, Ecg) else None


def _slices(colour: Array, spacing_mm: Array, centre: NDArray[np.int_]) -> bytes:
    """Slices across k, j and i through `centre`, (ni, nj, nk, 3) colours, each drawn in its true proportions."""
    panels = []
    for axis in (2, 1, 0):
        plane = np.take(colour, int(np.clip(centre[axis], 0, colour.shape[axis] - 1)), axis)
        across, down = (a for a in range(3) if a != axis)
        size = np.array([plane.shape[0] * spacing_mm[across], plane.shape[1] * spacing_mm[down]])
        width, height = np.maximum(1, (PANEL * size / size.max()).round()).astype(int)
        i = np.minimum((np.arange(width) + 0.5) / width * plane.shape[0], plane.shape[0] - 1).astype(int)
        j = np.minimum((np.arange(height) + 0.5) / height * plane.shape[1], plane.shape[1] - 1).astype(int)
        # S is up in the two upright planes; in the axial one the index runs down, towards the back
        rows = j if axis == 2 else j[::-1]
        panels.append(_padded(plane[np.ix_(i, rows)].transpose(1, 0, 2)))
    return png(_beside(panels))


def _padded(image: Array) -> Array:
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
    """From the front (anterior) and from the left, side by side, with a scale bar."""
    return _from_two_sides([Shape(np.asarray(points, float), triangles, np.asarray(colours, float))], points[np.unique(triangles)])


def _from_two_sides(shapes: list[Shape], points: Array) -> bytes:
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    height = 1.1 * float(np.linalg.norm(np.ptp(points, axis=0)))
    bar = 10.0 ** np.floor(np.log10(max(height / 4, 1e-6)))
    images = []
    # LPS: y grows towards the back, x to the left
    for view in (np.array([0.0, 1.0, 0.0]), np.array([-1.0, 0.0, 0.0])):
        data = render(shapes, Camera(view, np.array([0.0, 0.0, 1.0]), centre, height), PANEL, PANEL, bar)
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
    radius = 0.012 * float(np.linalg.norm(np.ptp(points, axis=0)))
    return _from_two_sides([sphere(p, radius, c.tolist()) for p, c in zip(points, colours)], points)


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
