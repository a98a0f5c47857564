"""`vtwin bench plan`: processor seconds of a whole plan of virtual hearts, and its split, against one wave of the reduced model."""

from __future__ import annotations

import time
from typing import Any

from planners.pacing.induce import PacingSettings, model_of, stimulus_sites
from planners.verify_planner import Planned, planned

HEARTS = ("two_isthmuses", "no_vt")
"""One with work in every stage, and one that ends after induction."""

WAVES = 5
STAGES = ("mesh", "tissue", "induction", "lesions", "outcome", "comparison")


def records() -> list[dict[str, Any]]:
    """Seconds per heart and stage; `ratio` is the stage's share of the reference, WAVES first beats through the same heart in the same run.

    Processor time of this process, so that a busy machine tells about as much as a quiet one; threads and load are in every record.
    """
    out = []
    for name in HEARTS:
        record, made = planned(name)
        reference = _wave_s(made)
        spent = {**{stage: record.cpu_s[stage] for stage in STAGES}}
        spent["found, treated, re-tested"] = spent["induction"] + spent["lesions"]
        spent["induction to outcome"] = sum(spent[stage] for stage in STAGES[2:5])
        for stage, seconds in spent.items():
            row = {"name": f"plan/{name}/{stage.replace(', ', '_').replace(' ', '_')}", "value": seconds, "unit": "s (processor)"}
            out.append(
                row | {"reference": reference, "ratio": reference / max(seconds, 1e-9), "threads": record.threads, "load": record.load}
            )
    return out


def _wave_s(made: Planned) -> float:
    """Processor seconds of WAVES first beats from the first site."""
    model = model_of(made.twin, PacingSettings())
    site = next(iter(stimulus_sites(made.twin, made.protocol).values()))
    model.run(model.rest(), [(0.0, site)], 500.0)
    began = time.process_time()
    for _ in range(WAVES):
        model.run(model.rest(), [(0.0, site)], 500.0)
    return time.process_time() - began
