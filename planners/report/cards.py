"""One card per circuit: where it runs, its ECG, what pacing it gave, and the recorded VT that it is like."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from planners.circuits.likeness import STEP_MS, lined_up
from planners.report import charts, pictures
from planners.report.story import Story
from planners.report.summary import listed, named, segment
from twin.plan import Circuit, Plan


def cards(story: Story) -> list[dict[str, Any]]:
    """For the template: id, lines of text, picture, ECG as SVG, rows of entrainment and pace-maps."""
    return [_card(story, circuit) for circuit in story.plan.circuits]


def circuit_lines(plan: Plan) -> list[str]:
    """For the console: one line per circuit that was paced, one per recorded VT."""
    paced = [f"{c.id}, virtual entrainment: {entrained(c)}" for c in plan.circuits if c.evidence]
    return [*paced, *(f"recorded VT {vt['name']!r}: {vt['verdict']}" for vt in plan.clinical_vts)]


def entrained(circuit: Circuit) -> str:
    """What entrainment says about the isthmus, in one sentence."""
    rows = list(circuit.evidence.get("entrainment", ()))
    if not rows:
        return str(circuit.evidence.get("note", "")) or "it was not paced"
    if rows[0]["what"] != "entrained":
        return f"in the twin its isthmus could not be tested ({'; '.join(_train(row) for row in rows)})"
    critical = rows[0]["critical"]
    said = f"in the twin its isthmus {'meets' if critical else 'does not meet'} the criteria of the laboratory"
    return f"{said} ({'; '.join(_train(row) for row in rows)})"


def _train(row: Mapping[str, Any]) -> str:
    place = named(str(row["place"])).replace("_", " ")
    if row["what"] != "entrained":
        return f"{place}: {row['what']}"
    fusion = "concealed" if row["concealed"] else "manifest fusion"
    share = "" if row["share"] is None else f", stimulus-QRS {100 * row['share']:.0f} % of the cycle"
    return f"{place}: return {row['return_ms']:+.0f} ms{share}, {fusion}"


def _card(story: Story, circuit: Circuit) -> dict[str, Any]:
    evidence = circuit.evidence
    settled = evidence.get("settled_cycle_ms")
    width = f"{circuit.isthmus_width_mm:.1f} mm wide, {circuit.isthmus_length_mm:.0f} mm long, {circuit.depth}"
    lines = [
        f"Cycle {circuit.cycle_length_ms:.0f} ms when it was induced"
        + ("" if settled is None else f", {settled:.0f} ms once settled")
        + ".",
        f"Isthmus {width}, passed at {circuit.isthmus_velocity_m_s:.2f} m/s; exit in AHA segment {segment(circuit.segment)}.",
        f"{'Figure of eight' if circuit.figure_of_eight else 'Single loop'}; induced from {named(listed(circuit.sites))}.",
        f"Virtual entrainment: {entrained(circuit)}." if evidence else "It appeared only after lesions, and was not paced.",
    ]
    if "monodomain" in evidence:
        lines.append(_by_monodomain(evidence["monodomain"]))
    like = [vt for vt in story.plan.clinical_vts if vt["match"] == circuit.id]
    lines += [f"Recorded VT {vt['name']!r}: {vt['verdict']}." for vt in like]
    return {
        "id": circuit.id,
        "lines": lines,
        "picture": base64.b64encode(pictures.circuit(story, circuit)).decode("ascii"),
        "ecg": Markup(_ecg(story, circuit, [str(vt["name"]) for vt in like])),
        "entrainment": evidence.get("entrainment", ()),
        "pace_map": evidence.get("pace_map", ()),
    }


def _by_monodomain(found: Mapping[str, Any]) -> str:
    """What the monodomain run of a circuit gave, in one sentence."""
    difference = found["cycle_difference"]
    beside = "" if difference is None else f"; its cycle differs by {difference:+.0%} from the reduced model's"
    return f"By monodomain: {found['verdict']}; {found['why']}{beside}."


def _ecg(story: Story, circuit: Circuit, like: list[str]) -> str:
    """Two simulated cycles, and over them the first recorded VT that it is like, lined up and scaled to the same size."""
    if circuit.id not in story.vt_ecgs:
        return ""
    leads = np.asarray(story.vt_ecgs[circuit.id], np.float64)
    time = STEP_MS * np.arange(leads.shape[1], dtype=np.float64)
    series: list[tuple[NDArray[np.float64], NDArray[np.float64], str, str]] = [(time, leads, charts.MODEL, "twin")]
    for vt in story.recorded:
        if vt["name"] in like[:1] and vt["cycle"] is not None:
            series.insert(0, (time, lined_up(vt["cycle"], leads), charts.MEASURED, f"recorded ({vt['name']}, scaled)"))
    return charts.twelve(series)
