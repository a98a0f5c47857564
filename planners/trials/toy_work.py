"""Work without hearts, for trying a trial's machinery: outcomes drawn from a formula, in no time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from planners.trials.job import Row
from twin.errors import InputError
from twin.run import content_hash

COUNTER = "VTWIN_TOY_COUNTER"
"""Names a file to which each job adds its key when it ends: how often a job was really computed."""


def _chance(spec: Row, *more: object) -> np.random.Generator:
    return np.random.default_rng(int(content_hash(dict(spec), list(more)), 16))


def _count(spec: Row) -> None:
    """Say that this ran; also the places where a test may slow it down or end it."""
    time.sleep(float(spec.get("sleep_s", 0.0)))
    if spec.get("kill") and spec.get("candidate") == spec["kill"]:
        os.kill(os.getpid(), 9)
    if spec.get("refuse") and spec.get("candidate") == spec["refuse"]:
        raise InputError("toy", "candidate", "was to be refused", "ask for another")
    if path := os.environ.get(COUNTER):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, f"{content_hash(dict(spec))}\n".encode())
        os.close(handle)


def empty(spec: Row, needs: Sequence[Path], folder: Path) -> Row:
    """Nothing: what is left is the cost of the machinery."""
    _count(spec)
    return {"n": spec["n"]}


def twin(spec: Row, needs: Sequence[Path], folder: Path) -> Row:
    """A candidate with measures that follow from its parameters; no heart is made."""
    from planners.trials.parameters import LARGE_SCAR_PERCENT
    from planners.trials.population import excluded, implausible, person
    from planners.trials.trial import Population

    _count(spec)
    rng = _chance(spec)
    values, population = spec["values"], Population(**spec["population"])
    percent = 0.0032 * values["scar_width_mm"] * values["scar_height_mm"]
    who = person(values, spec["seed"], spec["candidate"])
    measured = {
        "sex": who.sex,
        "territory": who.territory,
        "lv_edv_ml": round(values["lv_edv_ml"] * (1.0 + 0.01 * rng.normal()), 3),
        "rv_edv_ml": round(0.72 * values["rv_edv_ml"] * (1.0 + 0.01 * rng.normal()), 3),
        "wall_mm": round(6.0 * values["wall_scale"], 3),
        "qrs_ms": round(60.0 / values["healthy_along_m_s"] * (values["lv_edv_ml"] / 160.0) ** (1.0 / 3.0), 3),
        "healthy_along_m_s": values["healthy_along_m_s"],
        "healthy_across_m_s": round(values["healthy_along_m_s"] / values["healthy_anisotropy"], 5),
        "border_along_m_s": values["border_along_m_s"],
        "scar_ml": round(values["scar_width_mm"] * values["scar_height_mm"] * values["infarct_wall_mm"] * 7e-4, 3),
        "scar_percent": round(percent, 3),
        "large_scar": percent >= LARGE_SCAR_PERCENT,
        "isthmuses": len(who.infarct.isthmuses),
        "two_isthmuses": len(who.infarct.isthmuses) == 2,
        "inducible": bool(rng.random() < 0.8),
    }
    measured |= {"cycle_length_ms": round(90.0 / values["border_along_m_s"], 3) if measured["inducible"] else None}
    return {"measured": measured, "implausible": implausible(measured, population), "excluded": excluded(measured, population)}


def arm(spec: Row, needs: Sequence[Path], folder: Path) -> Row:
    """Outcomes of one arm: each strategy has a success rate and a size of its own."""
    _count(spec)
    # the same chance for every arm of a twin: what differs is the arm
    luck = np.random.default_rng([spec["seed"], 9, spec["candidate"]]).random(int(spec["samples"])).tolist()
    size = np.random.default_rng([spec["seed"], 10, spec["candidate"]]).normal()
    strategy = spec["arm"]["strategy"]
    rate = {"none": 0.15, "isthmus_transection": 0.8}.get(strategy, 0.85)
    volume = {"none": 0.0, "isthmus_transection": 0.8}.get(strategy, 3.0) * float(np.exp(0.3 * size))
    rows = [
        {
            "non_inducible": bool(u < rate),
            "vt_cycle_length_ms": None if u < rate else round(300.0 + 100.0 * float(u), 3),
            "lesion_volume_ml": round(volume, 4),
            "healthy_lost_ml": round(0.2 * volume, 4),
            "healthy_lost_percent": round(0.15 * volume, 4),
            "lesions": round(volume / 0.2),
            "lesions_near_septal_base": 0,
            "activation_delay_ms": round(2.0 * volume, 3),
            "residual_circuits": int(u >= rate),
        }
        for u in luck
    ]
    return {"samples": rows}
