"""What a lesion set costs: lesions, volume, healthy muscle, time, risk; and which sets no other is better than."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planners.lesions import avoid as spared
from planners.lesions.energy import preset_of
from planners.lesions.geometry import LesionMaker, lesion_count
from twin.params import Param
from twin.plan import PlanRequest, Target

_CHOSEN = "chosen here, to rank sets of one heart against each other; no published value was read"
SURFACE_MINUTES = Param(5.0, "min", 2.0, 15.0, f"changing to a further surface; {_CHOSEN}")
EPICARDIAL_MINUTES = Param(25.0, "min", 15.0, 45.0, f"epicardial access; {_CHOSEN}")
EPICARDIAL_RISK = Param(2.0, "mL", 1.0, 5.0, f"epicardial access counts as so much healthy muscle lost; {_CHOSEN}")
NEAR_RISK = Param(2.0, "mL", 1.0, 10.0, f"each lesion inside a structure's margin counts as so much healthy muscle lost; {_CHOSEN}")
AXES = {"fewest lesions": "lesions", "safest": "risk_ml", "fastest": "minutes", "smallest": "volume_ml"}
"""Name of the best on each axis of the table."""


def scores(maker: LesionMaker, targets: Sequence[Target], request: PlanRequest) -> dict[str, float]:
    """lesions, volume_ml, healthy_lost_ml, minutes, risk_ml (healthy muscle lost, with what epicardial access and nearness count as)."""
    mask = maker.mask(targets)
    count = lesion_count(targets)
    surfaces = {t.surface for t in targets}
    healthy = maker.volume_ml(mask, "healthy")
    minutes = count * float(preset_of(request).seconds) / 60.0
    minutes += sum(float(EPICARDIAL_MINUTES if s == "epi" else SURFACE_MINUTES) for s in surfaces)
    near = sum(
        int((spared.distance_mm(t.positions_mm, lines) < float(spared.MARGIN[name])).sum())
        for t in targets
        for name, lines in request.avoid.items()
    )
    return {
        "lesions": count,
        "volume_ml": round(maker.volume_ml(mask), 4),
        "healthy_lost_ml": round(healthy, 4),
        "minutes": round(minutes, 1),
        "risk_ml": round(healthy + float(EPICARDIAL_RISK) * ("epi" in surfaces) + float(NEAR_RISK) * near, 4),
    }


def with_pareto(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The table with `pareto` (no other sufficient set is at least as good on every axis and better on one) and `best_in`.

    Sets that leave something inducible are on no front.
    """
    good = [r for r in rows if r["non_inducible"]]

    def dominated(r: Mapping[str, Any]) -> bool:
        return any(all(o[k] <= r[k] for k in AXES.values()) and any(o[k] < r[k] for k in AXES.values()) for o in good if o is not r)

    out = []
    for r in rows:
        sufficient = bool(r["non_inducible"])
        best = [name for name, key in AXES.items() if sufficient and r[key] == min(o[key] for o in good)]
        out.append({**r, "pareto": sufficient and not dominated(r), "best_in": ", ".join(best)})
    return out
