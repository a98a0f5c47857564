"""What a named drug does to a twin in the reduced model: a factor on conduction and a longer or shorter action potential."""

from __future__ import annotations

from functools import lru_cache

from solvers.ionic.drugs import drug_effect
from solvers.ionic.model import ionic_model
from solvers.ionic.protocols import PacedCell, measure
from solvers.monodomain.wave_fit import speed_per_sqrt_d
from twin.errors import InputError

MODEL, CELL = "ten_tusscher_panfilov_2006", "epi"
"""The cell model that the reduced model's tables were computed with."""
BCL_MS = 600.0
BEATS = 50
"""The first drive of the protocols; after 50 beats durations are steady to a millisecond."""


@lru_cache(maxsize=32)
def drug_factors(name: str, concentration_umol_l: float) -> tuple[float, float]:
    """Velocity with the drug over velocity without, and change of APD90 in ms, from single cells and plane waves of the cell model.

    Raises InputError for an unknown drug, or a concentration at which the cell is not excitable any more.
    """
    effect = drug_effect(MODEL, name, concentration_umol_l)
    plain, drugged = ionic_model(MODEL, CELL), ionic_model(MODEL, CELL, scale=effect.scale)
    before, after = (measure(PacedCell(m, precision="float32").voltage(BCL_MS, BEATS)[-1]).apd90_ms for m in (plain, drugged))
    speed = speed_per_sqrt_d(drugged) / speed_per_sqrt_d(plain)
    if not (speed > 0 and after == after):
        raise InputError("arm", "drug.concentration", f"at {concentration_umol_l:g} umol/L of {name} no wave passes", "write a lower one")
    return round(float(speed), 4), round(float(after - before), 2)
