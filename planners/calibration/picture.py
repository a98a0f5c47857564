"""One picture of a calibration: measured against predicted activation, residuals in space, leads, prior and posterior widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from planners.calibration.noun import Calibration
from twin.atomic import write_bytes
from twin.patient import LEADS


def write_picture(found: Calibration, path: Path) -> None:
    """Write a PNG, atomically."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    _map(axes[0, 0], found)
    _residuals(axes[0, 1], found)
    _leads(axes[1, 0], found)
    _widths(axes[1, 1], found)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _map(axes: Any, found: Calibration) -> None:
    axes.set(xlabel="measured, ms", ylabel="predicted, ms", title="Activation at the map's points")
    if not len(found.map_lat_ms):
        axes.text(0.5, 0.5, "no map", ha="center", transform=axes.transAxes)
        return
    axes.plot(found.map_lat_ms, found.map_predicted_ms, ".", ms=3, alpha=0.5)
    ends = [float(np.nanmin(found.map_lat_ms)), float(np.nanmax(found.map_lat_ms))]
    axes.plot(ends, ends, "k-", lw=0.8)


def _residuals(axes: Any, found: Calibration) -> None:
    axes.set(title="Measured - predicted, ms, seen along the second principal axis")
    good = np.isfinite(found.map_lat_ms)
    if not good.any():
        axes.set_axis_off()
        return
    points = found.map_points_mm[good]
    frame = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2]
    flat = (points - points.mean(axis=0)) @ frame[[1, 0]].T
    shown = axes.scatter(*flat.T, c=(found.map_lat_ms - found.map_predicted_ms)[good], s=6, cmap="coolwarm", vmin=-20, vmax=20)
    axes.set_aspect("equal")
    axes.figure.colorbar(shown, ax=axes)


def _leads(axes: Any, found: Calibration) -> None:
    axes.set(title="Leads: measured (black), predicted (blue)", xlabel="ms", yticks=[])
    if found.ecg is None:
        axes.text(0.5, 0.5, "no ECG", ha="center", transform=axes.transAxes)
        return
    ecg, step = found.ecg, 2.2 * float(np.abs(found.ecg.measured).max())
    for k, lead in enumerate(LEADS):
        axes.plot(ecg.time_ms, ecg.measured[k] - k * step, "k-", lw=0.8)
        axes.plot(ecg.time_ms, ecg.scale * ecg.predicted[k] - k * step, "b-", lw=0.8)
        axes.text(ecg.time_ms[0], -k * step, f"{lead} {ecg.correlation[k]:.2f}", fontsize=7)


def _widths(axes: Any, found: Calibration) -> None:
    rows = [(name, row) for name, row in found.unknowns.items() if "interval_95" in row]
    for k, (_, row) in enumerate(rows):
        middle = 0.5 * (row["prior_95"][0] + row["prior_95"][1])
        axes.plot(np.array(row["prior_95"]) / middle, [k + 0.15] * 2, color="0.7", lw=4)
        axes.plot(np.array(row["interval_95"]) / middle, [k - 0.15] * 2, color="C0" if row["identified"] else "C3", lw=4)
    axes.set(title="95 % before (grey) and after (blue; red: not identified), of the prior's middle")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7)
