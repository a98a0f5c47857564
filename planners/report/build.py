"""`report.html`: one file without network, pictures first."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from planners.pacing.entrain import RETURN, STIMULUS_QRS
from planners.report import cards, charts, pictures, summary, viewer
from planners.report.palette import TISSUE
from planners.report.story import Story, Wave
from twin.atomic import dumps, write_text


def _base64(images: Mapping[str, bytes]) -> list[tuple[str, str]]:
    return [(title, base64.b64encode(data).decode("ascii")) for title, data in images.items()]


def _wave_group(story: Story, wave: Wave) -> dict[str, Any]:
    finite = wave.node_ms[np.isfinite(wave.node_ms)]
    first, last = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    text = f"One cycle of {wave.period_ms:.0f} ms." if wave.period_ms else "A single beat."
    share = 100 * float(np.isfinite(wave.node_ms).mean())
    return {
        "title": summary.named(wave.title),
        "text": f"{text} {share:.0f} % of the nodes are reached.",
        "first": 0,
        "last": f"{last - first:.0f}",
        "pictures": _base64(pictures.wave(story, wave, (first, last))),
    }


def _tissue_rows(story: Story) -> list[dict[str, Any]]:
    tissue = story.calibration.twin.tissue
    rows = []
    for column, name in enumerate(tissue.names):
        low, high = tissue.interval(name)
        rows.append(
            {
                "name": name.replace("/cv_", ", ").replace("_m_s", "").replace("_", " "),
                "mode": tissue.samples[0, column],
                "low": low,
                "high": high,
                "prior_low": tissue.prior_low[column],
                "prior_high": tissue.prior_high[column],
                "evidence": tissue.evidence.get(name, ""),
            }
        )
    return rows


def _map_text(fit: Mapping[str, Any]) -> str:
    if not fit.get("map_points_fitted"):
        return ""
    parts = [
        f"{fit['map_points_fitted']} mesh nodes carry a fitted point; on the {fit['map_points_held_out']} that were held out",
        f"the twin is off by {fit['held_out_rms_ms']:.1f} ms RMS ({fit['held_out_median_abs_ms']:.1f} ms median).",
        f"Breakthrough sites that were found: {fit['breakthrough_sites']}.",
        f"Median distance of map points to the surface after registration: {fit['registration_median_mm']:.1f} mm.",
    ]
    parts += [f"{fit[key]}." for key in ("registration_ambiguity", "rv_breakthrough") if fit.get(key)]
    return " ".join(parts)


def _plain(value: Any) -> str:
    """A table cell: one decimal for numbers, words for truth values, nothing for nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(v) for v in value)
    return str(value).replace("_", " ")


FIRST = ("strategy", "role", "lesions", "volume_ml", "minutes", "non_inducible", "tested", "healthy_lost_ml", "risk_ml", "best_in")
"""Columns of the alternatives that come first, in this order."""

TITLES = {
    "volume_ml": "volume, mL",
    "minutes": "minutes of energy",
    "non_inducible": "non-inducible",
    "tested": "re-tested from",
    "healthy_lost_ml": "healthy muscle lost, mL",
    "risk_ml": "the same, weighed by risk, mL",
    "pareto": "not beaten in all",
}
"""What columns of the alternatives are called where their key does not say it."""


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns of a table of alternatives: scalar values that some row has; which one was chosen is marked on its row."""
    scalar = (str, int, float, bool)
    found = dict.fromkeys(key for row in rows for key, value in row.items() if isinstance(value, scalar) and value != "")
    found.pop("chosen", None)
    return [key for key in FIRST if key in found] + [key for key in found if key not in FIRST]


def _contents(story: Story) -> list[tuple[str, str]]:
    """Anchors of the page's parts, in its order."""
    parts = [
        ("view", "3-D view", True),
        ("plan", "Plan", bool(story.plan.targets)),
        ("anatomy", "Anatomy", True),
        ("waves", "Activation", True),
        ("alternatives", "Alternatives", bool(story.plan.alternatives)),
        ("induction", "Induction", True),
        ("uncertainty", "Uncertainty", True),
        ("fit", "Fit", True),
        ("credibility", "Credibility", True),
        ("assumptions", "Assumptions", True),
        ("sources", "Sources", True),
    ]
    return [(key, title) for key, title, there in parts if there]


def _wave_buttons(story: Story) -> list[str]:
    """Short names of the waves: circuits before, the same after, the recorded rhythm."""
    circuits = [w.title.split()[0] for w in story.waves if w.period_ms]
    before = [f"{name} before" if len(circuits) > 1 else "Before" for name in circuits]
    names = iter(before)
    return [next(names) if w.period_ms else "After" if "after" in w.title else "Recorded" for w in story.waves]


def html(story: Story) -> str:
    """The whole report as text."""
    folder = files("planners.report")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"plain": _plain, "named": summary.named, "segment": summary.segment, "listed": summary.listed}
    environment.filters["mm"] = summary.millimetres
    environment.filters["surface"] = lambda name: summary.SURFACES.get(name, name)
    fit = story.calibration.twin.tissue.fit
    ecg = story.calibration.ecg
    layers = [(name, label) for name, label in summary.SURFACES.items() if len(story.mesh.surfaces[name])]
    layers += [("targets", "targets")] if story.plan.targets else []
    layers += [("circuit", "circuit")] if any(len(c.path_mm) > 2 for c in story.plan.circuits) else []
    present = [name for name in TISSUE if story.mesh.in_region(name).any()]
    template = environment.from_string(folder.joinpath("report.html.j2").read_text(encoding="utf-8"))
    run = story.plan.run
    return template.render(
        plan=story.plan.as_dict(),
        virtual=story.virtual,
        style=Markup(folder.joinpath("report.css").read_text(encoding="utf-8")),
        headline=summary.headline(story),
        facts=summary.facts(story),
        todo=summary.todo(story),
        doubts=summary.doubts(story),
        uncertainty=summary.uncertainty(story),
        credibility=summary.credibility(story),
        contents=_contents(story),
        waves=[summary.named(w.title) for w in story.waves],
        wave_buttons=_wave_buttons(story),
        voltage=viewer.voltage(story) is not None,
        scar=bool(story.mesh.in_region("scar", "border_zone", "isthmus").any()),
        views=list(viewer.VIEWS.items()),
        layers=layers,
        legend=[(name.replace("_", " "), "rgb(" + ",".join(str(round(255 * c)) for c in TISSUE[name]) + ")") for name in present],
        anatomy=_base64(pictures.anatomy(story)),
        substrate=base64.b64encode(story.substrate).decode("ascii") if story.substrate else "",
        wave_groups=[_wave_group(story, wave) for wave in story.waves],
        plan_pictures=_base64(pictures.plan(story)) if story.plan.targets else [],
        alternative_keys=_columns(story.plan.alternatives),
        titles=TITLES,
        cards=cards.cards(story),
        isthmus_limits=(float(RETURN), 100 * float(STIMULUS_QRS)),
        velocity_chart=Markup(charts.velocities(story)),
        tissue_rows=_tissue_rows(story),
        map_fit=Markup(charts.map_fit(story)),
        map_text=_map_text(fit),
        sinus_ecg=Markup(charts.sinus_ecg(story)),
        ecg_text=f"Mean correlation of the twelve leads during the QRS: {ecg.mean_correlation:.2f}." if ecg is not None else "",
        run_text=dumps(run),
        mesh_text=dumps(story.plan.mesh),
        viewer_data=Markup(viewer.data(story)),
        viewer_script=Markup(folder.joinpath("viewer.js").read_text(encoding="utf-8")),
    )


def write_report(story: Story, path: Path) -> None:
    """Write `report.html` atomically."""
    write_text(path, html(story))
