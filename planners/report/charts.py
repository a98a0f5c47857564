"""Charts of a report as SVG text: electrocardiograms, map against model, what the data said about each velocity."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.report.story import Story
from twin.patient import LEADS

Array = NDArray[np.float64]
MEASURED, MODEL = "#000000", "#D55E00"


def svg(draw: Callable[[Any], None], width: float, height: float) -> str:
    """Run `draw(figure)` and return the figure as SVG whose bytes depend on the content alone."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "vtwin", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)


SIMULATED = "arbitrary"
"""Unit of a simulated ECG's amplitude: generic electrodes on an infinite conductor give shapes and no millivolts."""


def _leads(figure: Any, series: list[tuple[Array, Array, str, str]], unit: str) -> None:
    """Twelve small panels in the usual order; each series is (time_ms, (12, t) values, colour, label)."""
    _panels(figure, figure.subplots(3, 4, sharex=True), series, unit)


def leads_in(figure: Any, box: Any, series: list[tuple[Array, Array, str, str]]) -> None:
    """The same panels of simulated leads inside a box of a page, small enough for print."""
    grid = figure.add_gridspec(3, 4, left=box.x0 + 0.04, right=box.x1, bottom=box.y0 + 0.025, top=box.y1 - 0.012, hspace=0.75, wspace=0.35)
    axes = grid.subplots(sharex=True)
    _panels(figure, axes, series, SIMULATED, 6.5)


def _panels(figure: Any, axes: Any, series: list[tuple[Array, Array, str, str]], unit: str, size: float = 9.0) -> None:
    order = np.array(LEADS).reshape(4, 3).T
    for row in range(3):
        for column in range(4):
            ax, lead = axes[row, column], order[row, column]
            for time, values, colour, label in series:
                ax.plot(time, values[LEADS.index(lead)], color=colour, lw=1.2, label=label)
            ax.set_title(lead, fontsize=size, loc="left", pad=2)
            ax.tick_params(labelsize=size)
            ax.spines[["top", "right"]].set_visible(False)
            ax.axhline(0, color="#bbbbbb", lw=0.5, zorder=0)
            if row == 2:
                ax.set_xlabel("ms", fontsize=size)
            if column == 0:
                ax.set_ylabel(unit, fontsize=size)
    if len(series) > 1:
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=8, frameon=False)


def sinus_ecg(story: Story) -> str:
    """Recorded and predicted QRS, twelve leads; empty without an ECG."""
    fit = story.calibration.ecg
    if fit is None:
        return ""
    predicted = fit.predicted * fit.scale
    series = [(fit.time_ms, fit.measured, MEASURED, "recorded"), (fit.time_ms, predicted, MODEL, "twin (scaled)")]
    return svg(lambda figure: _leads(figure, series, "mV"), 9.0, 4.6)


def twelve(series: list[tuple[Array, Array, str, str]]) -> str:
    """Twelve leads of simulated ECGs and what is scaled to them; each is (time_ms (t,), (12, t), colour, label)."""
    return svg(lambda figure: _leads(figure, series, SIMULATED), 9.0, 4.6)


def map_fit(story: Story) -> str:
    """Measured against predicted activation times, and the histogram of what is left; empty without a map."""
    calibration = story.calibration
    both = (
        np.isfinite(calibration.map_lat_ms) & np.isfinite(calibration.map_predicted_ms)
        if len(calibration.map_lat_ms)
        else np.zeros(0, bool)
    )
    if not both.any():
        return ""
    measured, predicted = calibration.map_lat_ms[both], calibration.map_predicted_ms[both]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        left.scatter(measured, predicted, s=4, alpha=0.35, color=MODEL, linewidths=0, rasterized=False)
        ends = [float(min(measured.min(), predicted.min())), float(max(measured.max(), predicted.max()))]
        left.plot(ends, ends, color="black", lw=0.8)
        left.set_xlabel("measured activation, ms")
        left.set_ylabel("twin, ms")
        right.hist(np.clip(measured - predicted, -40, 40), bins=41, color="#0072B2")
        right.set_xlabel("measured - twin, ms (ends collect what lies beyond)")
        right.set_ylabel("map points")
        for ax in (left, right):
            ax.spines[["top", "right"]].set_visible(False)

    return svg(draw, 8.0, 3.2)


def velocities(story: Story) -> str:
    """What was known before (grey) and after (colour) about each velocity, 95 % intervals."""
    tissue = story.calibration.twin.tissue

    def draw(figure: Any) -> None:
        ax = figure.subplots()
        for row, name in enumerate(tissue.names):
            low, high = tissue.interval(name)
            ax.plot([tissue.prior_low[row], tissue.prior_high[row]], [row + 0.16] * 2, color="#aaaaaa", lw=5, solid_capstyle="butt")
            ax.plot([low, high], [row - 0.1] * 2, color="#0072B2", lw=5, solid_capstyle="butt")
            ax.plot(tissue.samples[0, row], row - 0.1, "o", color="white", mec="#0072B2", ms=5)
        ax.set_yticks(range(len(tissue.names)), [n.replace("/cv_", " ").replace("_m_s", "").replace("_", " ") for n in tissue.names])
        ax.invert_yaxis()
        ax.set_xlabel("conduction velocity, m/s (grey: before the data, blue: after)")
        ax.set_xlim(left=0)
        ax.spines[["top", "right"]].set_visible(False)

    return svg(draw, 7.0, 0.7 + 0.42 * len(tissue.names))
