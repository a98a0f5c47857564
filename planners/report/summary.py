"""What a physician reads in a minute, as plain sentences and numbers: shared by the page and the PDF."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from meshing.segments import SEGMENTS
from planners.lesions.geometry import lesion_count
from planners.report.story import Story

MOST_DOUBTS = 6
SURFACES = {"lv_endo": "LV endocardium", "rv_endo": "RV endocardium", "epi": "epicardium", "base": "base"}


def named(text: str) -> str:
    """Text in which pacing sites have the names of the laboratory: "RV outflow tract", "mid inferior wall"; own ones without place."""

    def place(found: re.Match[str]) -> str:
        if found.group("own"):
            return found.group("own")
        name, number = found.group(), int(found.group("segment") or 0)
        wall = "LV apex" if number == 17 else f"{SEGMENTS[number]} wall" if number in SEGMENTS else _PLACES.get(name, name)
        return f"{wall} (epicardial)" if found.group("epi") else wall

    return _SITE.sub(place, text)


_PLACES = {"rv_apex": "RV apex", "rv_outflow": "RV outflow tract"}
_SITE = re.compile(r"\b(?:rv_apex|rv_outflow|(?P<epi>epi_)?aha(?P<segment>\d\d)|(?P<own>[A-Za-z]\w*)@[-+.\d]+,[-+.\d]+,[-+.\d]*\d)\b")


def segment(number: int) -> str:
    """An AHA segment by number and name; 0 is the right ventricle."""
    return f"{number}, {SEGMENTS[number]}" if number in SEGMENTS else "none (RV)"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural but for one: "1 lesion", "0 circuits"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def millimetres(value: float) -> str:
    """A length to a tenth of a millimetre, whole ones without: "4", "4.3"; finer is below what catheter and map can tell."""
    return f"{round(value, 1):g}"


def listed(words: Sequence[str]) -> str:
    """Words as a sentence has them: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def headline(story: Story) -> str:
    """The plan in two sentences."""
    plan, outcome = story.plan, story.plan.outcome
    tested = sorted({i.site for i in plan.inductions})
    induced = sorted({i.site for i in plan.inductions if i.induced})
    if not induced:
        return f"In this twin no ventricular tachycardia could be induced from any of {len(tested)} sites; no lesion is proposed."
    lengths = listed([f"{c.cycle_length_ms:.0f}" for c in plan.circuits])
    many = "s" if len(plan.circuits) != 1 else ""
    circuits = counted(len(plan.circuits), "circuit") + (f" (cycle length{many} {lengths} ms)" if lengths else "")
    first = f"Ventricular tachycardia was induced from {len(induced)} of {len(tested)} sites, by {circuits}."
    if not plan.targets:
        return f"{first} No lesion set within the allowed volume and access leaves it non-inducible."
    number = lesion_count(plan.targets)
    proposed = f"{counted(number, 'lesion')} ({outcome['lesion_volume_ml']:.1f} mL) {'is' if number == 1 else 'are'} proposed"
    free = "nothing is inducible from any of these sites by the same protocol"
    after = free if outcome["non_inducible_at_mode"] else "VT is still inducible by the same protocol"
    return f"{first} {proposed}; afterwards, with the likeliest tissue, {after}."


def facts(story: Story) -> list[dict[str, str]]:
    """Numbers for the top: value, label, and the key of plan.json that says where it comes from."""
    plan, outcome = story.plan, story.plan.outcome
    tested, induced = {i.site for i in plan.inductions}, {i.site for i in plan.inductions if i.induced}
    found = [
        {"value": f"{len(induced)} / {len(tested)}", "label": "sites that induce", "key": "inductions"},
        {"value": str(len(plan.circuits)), "label": "circuit" if len(plan.circuits) == 1 else "circuits", "key": "circuits"},
    ]
    if plan.targets:
        number = lesion_count(plan.targets)
        low, high = outcome["interval"]
        samples = counted(outcome["samples"], "tissue sample")
        share = f"non-inducible after ({100 * low:.0f}-{100 * high:.0f} %, {samples})"
        found += [
            {"value": str(number), "label": f"lesion{'' if number == 1 else 's'} proposed", "key": "targets"},
            {"value": f"{outcome['lesion_volume_ml']:.1f} mL", "label": "lesion volume", "key": "outcome.lesion_volume_ml"},
            {"value": f"{100 * outcome['probability_non_inducible']:.0f} %", "label": share, "key": "outcome.probability_non_inducible"},
        ]
    return found


def todo(story: Story) -> list[str]:
    """One line per target, in order."""
    lines = []
    for t in sorted(story.plan.targets, key=lambda t: t.order):
        size = f"{millimetres(t.radius_mm)} mm radius, {millimetres(t.depth_mm)} mm deep"
        lines.append(f"{t.id}: {counted(len(t.positions_mm), 'lesion')} on the {SURFACES.get(t.surface, t.surface)} ({size}): {t.why}.")
    return lines


def doubts(story: Story) -> list[str]:
    """What is doubtful about this plan in particular, the gravest first, at most `MOST_DOUBTS` lines; `uncertainty` has the others."""
    found = _doubts(story)
    if len(found) <= MOST_DOUBTS:
        return found
    shown = found[: MOST_DOUBTS - 2]
    return [*shown, f"{counted(len(found) - len(shown) - 1, 'doubt')} more: see what is uncertain.", found[-1]]


def _doubts(story: Story) -> list[str]:
    """All of them; the last holds for every plan."""
    plan, outcome = story.plan, story.plan.outcome
    lines = [f"Virtual: {', '.join(story.virtual)}. This is not a patient."] if story.virtual else []
    if left := outcome.get("residual_circuits"):
        lines.append(
            f"{counted(len(left), 'circuit')} {'remains' if len(left) == 1 else 'remain'} in some tissue samples after the lesions."
        )
    if plan.targets and outcome.get("samples"):
        low = 100 * outcome["interval"][0]
        shown = f"non-inducible with a probability of at least {low:.0f} % (lower end of the 95 % interval)"
        lines.append(f"{counted(outcome['samples'], 'tissue sample')} cannot show more than this: {shown}.")
    shallow = {t.id: 100 * p for t in plan.targets if (p := t.transmural_probability) is not None and p < 0.5}
    if shallow:
        low, high = min(shallow.values()), max(shallow.values())
        share = f"{low:.0f} %" if round(low) == round(high) else f"{low:.0f}-{high:.0f} %"
        lines.append(f"{listed(list(shallow))}: the wall is thicker than the lesion is deep; probability that a lesion crosses it {share}.")
    lines += story.calibration.doubts
    fit: Mapping[str, Any] = story.calibration.twin.tissue.fit
    if not fit.get("map_points_fitted"):
        lines.append("No activation map: conduction velocities are the literature's.")
    likeness = fit.get("ecg", {}).get("mean_lead_correlation")
    if likeness is not None and likeness < 0.5:
        lines.append(f"The twin does not reproduce the ECG (mean lead correlation {likeness:.2f}).")
    if fit.get("registration_ambiguity"):
        lines.append(f"Registration: {fit['registration_ambiguity']}.")
    lines += [f"Mesh: {w}" for w in story.mesh.quality.get("warnings", [])]
    lines.append("The VT model is a reduced one; no plan of it has been compared with what happened to a patient.")
    return lines


def uncertainty(story: Story) -> list[str]:
    """What the intervals of the plan are made of, and the doubts that had no room at the top."""
    plan, outcome = story.plan, story.plan.outcome
    lines = []
    for name, when in (("before", "before the lesions"), ("after", "after the lesions")):
        share = outcome.get(name)
        if share:
            text = f"{share['successes']} of {share['samples']} samples of tissue and lesion depth were non-inducible {when}"
            lines.append(f"{text} ({100 * share['low']:.0f}-{100 * share['high']:.0f} %).")
    for t in plan.targets:
        if t.transmural_probability is not None:
            lines.append(f"Probability that {t.id} crosses the wall: {100 * t.transmural_probability:.0f} %.")
    for c in plan.circuits:
        if c.cycle_variation_ms:
            lines.append(f"{c.id}: cycles differ by {c.cycle_variation_ms:.0f} ms around {c.cycle_length_ms:.0f} ms.")
    top = doubts(story)
    return [*lines, *(line for line in _doubts(story) if line not in top)]


def _mesh(quality: Mapping[str, Any]) -> str:
    """Edges, by place where the mesh is graded, smallest angle, and how regions are carried."""
    sizes = quality.get("grading", [])
    if len(sizes) > 1:
        fine, coarse, share = sizes[0]["edge_mm"], sizes[-1]["edge_mm"], 100.0 * sizes[0]["share_of_volume"]
        said = f"graded: mean edge {fine:.1f} mm near scar ({share:.0f} % of the muscle), {coarse:.1f} mm far from it"
    else:
        said = f"mean edge {quality['mean_edge_mm']:.1f} mm"
    if worst := quality.get("dihedral_min_deg"):
        said += f", smallest angle {worst:.0f} degrees"
    if quality.get("regions", {}).get("carried_by", "").startswith("faces"):
        said += "; boundaries of scar, border zone and isthmus are faces of the mesh"
    return said


def credibility(story: Story) -> list[tuple[str, str]]:
    """Rows of the credibility table: what, and what is known about it in this run."""
    plan = story.plan
    fit: Mapping[str, Any] = story.calibration.twin.tissue.fit
    quality: Mapping[str, Any] = story.mesh.quality
    versions = plan.run.get("versions", {})
    rows = [
        ("Question", "Which smallest lesion set leaves this heart without inducible VT under the protocol and access of the case?"),
        ("Context of use", "Research only. Nothing here may decide about a patient; a wrong target costs time and healthy muscle."),
        ("Code", "vtwin verify compares solvers with analytic and published results; it is run for every change of the code."),
    ]
    if quality.get("mean_edge_mm"):
        rows.append(("Mesh", _mesh(quality)))
    if fit.get("registration_median_mm") is not None:
        rows.append(("Registration", f"map points lie {fit['registration_median_mm']:.1f} mm (median) from the surface"))
    if fit.get("map_points_held_out"):
        held = f"{fit['held_out_rms_ms']:.1f} ms RMS on {fit['map_points_held_out']} points that the fit did not see"
        rows.append(("Activation", held))
    if fit.get("ecg", {}).get("mean_lead_correlation") is not None:
        rows.append(("ECG", f"mean correlation of the twelve leads {fit['ecg']['mean_lead_correlation']:.2f} (shape, not amplitude)"))
    rows += [
        (
            "VT model",
            "fitted to monodomain sheets with one isthmus, not to whole hearts, and not to a recorded VT of this patient",
        ),
        ("Validation", "none against outcomes of patients"),
        ("Overlays", "LPS, mm, frame of the segmentation (overlay/frame.json); not verified on any vendor's hardware"),
        ("Reproduces", f"seed {plan.run.get('seed', '')}, vtwin {versions.get('vtwin', '')}: the same inputs give the same bytes"),
    ]
    return [row for row in rows if row[1]]
