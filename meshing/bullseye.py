"""The left ventricle as a bull's-eye: 17 segments in rings, apex in the middle, anterior wall on top, septum to the left.

M. D. Cerqueira et al., Circulation 105 (2002) 539, doi 10.1161/hc0402.102975: the polar plot of the American Heart Association.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.segments import SEGMENTS
from twin.errors import InputError
from twin.mesh import HeartMesh

RINGS = ((1, 6, 60.0, 3.0), (7, 6, 60.0, 2.0), (13, 4, 45.0, 1.0))
"""First segment, how many, start of the first in degrees from the right, inner radius; counted counter-clockwise."""


def segment_means(mesh: HeartMesh, values: NDArray[np.float64]) -> dict[int, float]:
    """Mean of nodal values (n,) in each segment 1-17, weighted by the muscle at each node; NaN for a segment without finite values.

    Raises InputError if the mesh has no segments.
    """
    if len(mesh.aha_segment) != mesh.n_points:
        raise InputError("mesh", "aha_segment", "has not been computed", "pass it through meshing.anatomy.complete first")
    muscle = np.bincount(mesh.tets.ravel(), np.repeat(mesh.tet_volumes_mm3, 4), minlength=mesh.n_points)
    out = {}
    for segment in SEGMENTS:
        mine = (mesh.aha_segment == segment) & np.isfinite(values)
        weight = float(muscle[mine].sum())
        out[segment] = float((values[mine] * muscle[mine]).sum() / weight) if weight > 0 else float("nan")
    return out


def draw_bullseye(axes: Any, values: Mapping[int, float], scale: Any, numbers: bool = True) -> None:
    """The polar plot on axes of matplotlib: values per segment 1-17 coloured by a ScalarMappable; a missing or NaN value is grey.

    numbers: the value under the segment's number.
    """
    from matplotlib.patches import Wedge

    def patch(segment: int, radius: float, start: float, end: float, at: tuple[float, float]) -> None:
        value = float(values.get(segment, float("nan")))
        colour = scale.to_rgba(np.array([value]))[0] if np.isfinite(value) else (0.8, 0.8, 0.8, 1.0)
        axes.add_patch(Wedge((0.0, 0.0), radius, start, end, width=min(1.0, radius), facecolor=colour, edgecolor="white", linewidth=1.5))
        dark = np.isfinite(value) and np.dot(colour[:3], (0.3, 0.6, 0.1)) < 0.5
        below = (f"\n{value:.3g}" if np.isfinite(value) else "\n-") if numbers else ""
        axes.text(*at, f"{segment}{below}", ha="center", va="center", fontsize=8, color="white" if dark else "black")

    for first, count, start, inner in RINGS:
        for i in range(count):
            a = start + i * 360.0 / count
            middle = np.radians(a + 180.0 / count)
            place = (inner + 0.5) * np.cos(middle), (inner + 0.5) * np.sin(middle)
            patch(first + i, inner + 1.0, a, a + 360.0 / count, (float(place[0]), float(place[1])))
    patch(17, 1.0, 0.0, 360.0, (0.0, 0.0))
    axes.set(xlim=(-4.1, 4.1), ylim=(-4.1, 4.1), aspect="equal")
    axes.axis("off")


def bullseye_png(values: Mapping[int, float], title: str, unit: str, colours: str = "viridis") -> bytes:
    """The polar plot of values per segment 1-17 as the bytes of a PNG; a missing or NaN value is grey."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    known = [v for v in values.values() if np.isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    scale = ScalarMappable(Normalize(low, high if high > low else low + 1.0), colormaps[colours])
    figure = Figure(figsize=(5.2, 4.6), dpi=120)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw_bullseye(axes, values, scale)
    axes.set_title(title)
    figure.colorbar(scale, ax=axes, shrink=0.7, label=unit)
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
