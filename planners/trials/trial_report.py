"""report.html of a trial: one file, in the order in which a trial is reported."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from planners.trials import figures, protocol_file
from planners.trials.outcomes import Outcomes, outcomes_of
from planners.trials.parameters import MEASURES, PARAMETERS
from planners.trials.table import Table
from planners.trials.trial import OUTCOMES, Endpoint, Trial
from twin.atomic import dumps, write_text
from twin.run import versions

FIDELITY = {
    "toy": "Toy: no heart was made. Every outcome comes from a formula, to try the machinery of a trial.",
    "quick": "Quick: 2.5 mm meshes, few pacing sites, few posterior samples, the reduced (re-excitable eikonal) model.",
    "standard": "Standard: 2 mm meshes, the reduced (re-excitable eikonal) model.",
}
ALWAYS = (
    "Research software: virtual patients and a reduced model. Nothing here has been shown in people.",
    "Every arm is tested in the same twins by the same stimulation; a twin does not bleed, tamponade or recover.",
    "Inducibility is what the reduced model shows from the listed sites; it is no clinical recurrence.",
    "Coronary arteries, the phrenic nerve and the conduction system are not in the twins: lesions near the septal base are counted.",
    "Posterior samples of virtual patients stand for a map that leaves about 10 % on each velocity; they are not a fit to data.",
    "A drug arm changes conduction by a factor and the action potential by a shift, everywhere alike; those of a named drug come from "
    "one cell model (ten Tusscher-Panfilov 2006) at 600 ms and from plane waves, and miss what that model misses.",
)


def write_report(out: Path, trial: Trial, found: Mapping[str, Any], table: Table) -> None:
    """Write report.html atomically."""
    write_text(out / "report.html", html(out, trial, found, table))


def html(out: Path, trial: Trial, found: Mapping[str, Any], table: Table) -> str:
    """The whole report as text."""
    data = outcomes_of(table, trial)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": _number,
        "percent": lambda v: f"{100 * v:.0f} %",
        "p": _p,
        "words": lambda v: str(v).replace("_", " "),
    }
    template = environment.from_string(files("planners.trials").joinpath("trial_report.html.j2").read_text(encoding="utf-8"))
    record = protocol_file.read(out)
    ends = [found["primary"], *found["secondary"]]
    plans = [trial.primary, *trial.secondary]
    return template.render(
        trial=trial,
        found=found,
        record=record,
        fidelity=FIDELITY[trial.fidelity],
        limits=ALWAYS,
        flow=Markup(figures.flow(found["flow"])),
        endpoints=[{"found": e, "chart": Markup(_chart(data, plan, e))} for plan, e in zip(plans, ends)],
        forest=Markup(figures.forest(found["primary"], found["subgroups"])) if "difference" in found["primary"] else "",
        looks=Markup(figures.looks(found["looks"])) if len(trial.analysis.looks) > 1 else "",
        distributions=[Markup(figures.distribution(data, row)) for row in found["baseline"] if row["published"] and row["kind"] == "float"],
        sensitivity=[{"found": s, "chart": Markup(figures.sensitivity(s)) if "inputs" in s else ""} for s in found["sensitivity"]],
        patients=_patients(data, trial),
        turned_away=[t for t in data.all_twins if t["state"] != "enrolled"],
        measures=MEASURES,
        parameters=_parameters(trial),
        outcomes=OUTCOMES,
        protocol_text=dumps(record["protocol"]),
        versions=record.get("versions", versions()),
    )


def _chart(data: Outcomes, plan: Endpoint, found: Mapping[str, Any]) -> str:
    if "difference" not in found:
        return ""
    if found["kind"] == "bool":
        return figures.proportions(found)
    first, second = data.pair(plan.outcome, plan.first, plan.second)
    return figures.paired(found, first[:, 0], second[:, 0], [t["twin"] for t in data.twins])


def _parameters(trial: Trial) -> list[dict[str, Any]]:
    """The population's parameters with their ranges and sources, the trial's own ranges marked."""
    if not trial.population.virtual:
        return []
    rows = []
    for p in PARAMETERS:
        given = trial.population.ranges.get(p.name)
        low, high = given or (p.param.low, p.param.high)
        source = "given in the protocol" if given else p.param.source
        how = "uniform" if given else p.how.replace("_", "-")
        rows.append({"name": p.name, "low": low, "high": high, "unit": p.param.unit, "how": how, "source": source})
    return rows


def _patients(data: Outcomes, trial: Trial) -> list[dict[str, Any]]:
    """One row per enrolled twin: what it is, and what each arm did."""
    rows = []
    for k, t in enumerate(data.twins):
        arms = []
        for arm in trial.arms:
            success, volume = data.values[arm.name, "non_inducible"][k], data.values[arm.name, "lesion_volume_ml"][k, 0]
            known = np.isfinite(success)
            mode = None if not known[0] else bool(success[0] > 0.5)
            share = f"{int(success[known].sum())}/{int(known.sum())}" if trial.samples > 1 and known.any() else ""
            arms.append({"mode": mode, "share": share, "volume": None if not np.isfinite(volume) or volume == 0 else float(volume)})
        rows.append({**t, "arms": arms})
    return rows


def _number(value: Any, digits: int = 3) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"
