"""The report of `vtwin fuse`: one HTML file, what to know first on top."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from planners.report.charts import svg
from planners.report.palette import CIRCUIT, TARGET
from twin.atomic import write_text


def write_fusion_report(name: str, result: Mapping[str, Any], path: Path) -> None:
    """Write the page for the figures of `twin.fusion.evaluate`."""
    import jinja2

    source = files("planners.report").joinpath("fusion.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    sites = result.get("sites")
    half = result["missing"].get("half")
    r = {**result, "sites": sites, "survival": result.get("survival"), "missing": {**result["missing"], "half": half}}
    write_text(path, page.render(name=name, r=r, figures=_figures(result)))


def _figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what it shows, SVG in base 64): AUC of every model, calibration of the default, its net benefit."""
    parts = (("AUC of every model", _forest), ("calibration of the default", _calibration), ("net benefit of the default", _benefit))
    return [(alt, base64.b64encode(svg(partial(_drawn, draw, result), 4.2, 3.6).encode()).decode()) for alt, draw in parts]


def _drawn(draw: Callable[[Any, Mapping[str, Any]], None], result: Mapping[str, Any], figure: Any) -> None:
    draw(figure.subplots(), result)


def _forest(axes: Any, result: Mapping[str, Any]) -> None:
    names = list(result["models"])[::-1]
    for row, name in enumerate(names):
        low, high = result["models"][name]["auc_interval"]
        colour = TARGET if name == "default" else CIRCUIT if name.startswith("only ") else "#666666"
        axes.plot([low, high], [row, row], color=colour, lw=2)
        axes.plot(result["models"][name]["auc"], row, "o", color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="AUC, 95 % interval", title="models")


def _calibration(axes: Any, result: Mapping[str, Any]) -> None:
    bins = result["calibration_curve"]
    most = min(1.0, 1.05 * max(max(b["high"], b["predicted"]) for b in bins))
    axes.plot([0, most], [0, most], color="#999999", lw=1)
    for b in bins:
        axes.plot([b["predicted"]] * 2, [b["low"], b["high"]], color=TARGET, lw=1)
    axes.plot([b["predicted"] for b in bins], [b["observed"] for b in bins], "o", color=TARGET)
    axes.set(xlabel="predicted", ylabel="observed, 95 % interval", title="calibration of the default")


def _benefit(axes: Any, result: Mapping[str, Any]) -> None:
    steps = result["decision_curve"]
    axes.plot([s["threshold"] for s in steps], [s["default"] for s in steps], color=TARGET, label="default")
    axes.plot([s["threshold"] for s in steps], [s["everybody"] for s in steps], color=CIRCUIT, ls="--", label="everybody")
    axes.axhline(0, color="#999999", lw=1)
    top = max(0.02, 1.1 * max(s["default"] for s in steps))
    axes.set(xlabel="probability above which one acts", title="net benefit", ylim=(-0.2 * top, top))
    axes.legend(frameon=False)
