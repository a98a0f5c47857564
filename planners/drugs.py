"""What a drug at a concentration does to tissue: factors on velocity and on the duration of the action potential, from cells and waves.

Velocity: plane waves of the cell model that the reduced model's tables come from, with the drug's blocks. Duration: ToR-ORd, since that
cell model hardly sees drugs that block its small rapid potassium current; relative to none, so that the tables keep their own durations.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from solvers.ionic.drugs import combined, drug_effect
from solvers.ionic.model import ionic_model
from solvers.ionic.protocols import PacedCell, measure
from solvers.ionic.restitution import BORDER_ZONE
from solvers.monodomain.wave_fit import speed_per_sqrt_d

WAVES = ("ten_tusscher_panfilov_2006", "epi")
DURATIONS = ("torord_2019", "endo")
CYCLE_MS, BEATS = 600.0, 12
_WAVES_SCALE = {name: p.value for name, p in BORDER_ZONE.items()}
_DURATIONS_SCALE = {name: BORDER_ZONE[of].value for name, of in {"G_Kr": "G_Kr", "G_Ks": "G_Ks", "P_Ca": "G_CaL", "G_Na": "G_Na"}.items()}
"""The remodelling of border zone, in the names of either model."""


@cache
def velocity_factor(name: str, level_umol_l: float, region: str) -> float:
    """Velocity of a plane wave under the drug over that without it, in `healthy` or `border_zone` tissue; 0 where no wave passes.

    Raises InputError for a drug whose dose-response is not shipped.
    """
    remodelled = _WAVES_SCALE if region == "border_zone" else {}
    effect = drug_effect(WAVES[0], name, level_umol_l).scale
    plain, drugged = (speed_per_sqrt_d(ionic_model(*WAVES, scale=dict(scale))) for scale in (remodelled, combined(remodelled, effect)))
    return drugged / plain if drugged > 0 else 0.0


@cache
def apd_factor(name: str, level_umol_l: float, region: str) -> float:
    """Duration of the action potential under the drug over that without it, steady at CYCLE_MS, in `healthy` or `border_zone` cells.

    Raises InputError for a drug whose dose-response is not shipped.
    """
    remodelled = _DURATIONS_SCALE if region == "border_zone" else {}
    return _apd(combined(remodelled, drug_effect(DURATIONS[0], name, level_umol_l).scale)) / _apd(remodelled)


def _apd(scale: Mapping[str, float]) -> float:
    found = _steady(tuple(sorted(scale.items())))
    return found if np.isfinite(found) else CYCLE_MS


@cache
def _steady(scale: tuple[tuple[str, float], ...]) -> float:
    cell = PacedCell(ionic_model(*DURATIONS, dict(scale)))
    return measure(cell.voltage(CYCLE_MS, BEATS)[-1]).apd90_ms
