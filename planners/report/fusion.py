"""The report of `vtwin fuse`: one HTML file, what to know first on top."""

from __future__ import annotations

import base64
from collections.abc import Mapping
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
    picture = svg(lambda figure: _draw(figure, result), 11.0, 3.6)
    write_text(path, page.render(name=name, r=r, figure=base64.b64encode(picture.encode()).decode()))


def _draw(figure: Any, result: Mapping[str, Any]) -> None:
    """AUC by model with intervals, calibration curve and decision curve of the default."""
    forest, curve, decision = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    names = list(result["models"])[::-1]
    for row, name in enumerate(names):
        low, high = result["models"][name]["auc_interval"]
        colour = TARGET if name == "default" else CIRCUIT if name.startswith("only ") else "#666666"
        forest.plot([low, high], [row, row], color=colour, lw=2)
        forest.plot(result["models"][name]["auc"], row, "o", color=colour)
    forest.set_yticks(range(len(names)), names)
    forest.set_xlabel("AUC, 95 % interval")
    bins = result["calibration_curve"]
    curve.plot([0, 1], [0, 1], color="#999999", lw=1)
    curve.plot([b["predicted"] for b in bins], [b["observed"] for b in bins], "o-", color=TARGET)
    curve.set(xlabel="predicted", ylabel="observed", title="calibration of the default")
    steps = result["decision_curve"]
    decision.plot([s["threshold"] for s in steps], [s["default"] for s in steps], color=TARGET, label="default")
    decision.plot([s["threshold"] for s in steps], [s["everybody"] for s in steps], color=CIRCUIT, ls="--", label="everybody")
    decision.axhline(0, color="#999999", lw=1)
    decision.set(xlabel="threshold", title="net benefit", ylim=(-0.1, None))
    decision.legend(frameon=False)
