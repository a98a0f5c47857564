"""Drugs as shifts of the tissue: what they do at a plausible concentration, low, usual and high, to velocity and duration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planners.drugs import CYCLE_MS, DURATIONS, WAVES, apd_factor, velocity_factor
from solvers.ionic.drugs import DRUGS
from twin.calibrate.evidence_priors import Shift
from twin.params import Param
from twin.records.clinical import Drug

_FREE = (
    "largest free concentration in treatment, columns therapeutic and freedrug of AP_simulation/data/newCiPA.csv in github.com/FDA/CiPA; "
    "range chosen here"
)
LEVELS: dict[str, tuple[Param, float]] = {
    "amiodarone": (
        Param(
            0.35,
            "umol/L",
            0.12,
            1.0,
            "chosen here: with the table's blocks the model's action potential lengthens by about an eighth, as QT does in long treatment; "
            "plasma holds 1.5-4 umol/L, nearly all of it bound",
        ),
        200.0,
    ),
    "sotalol": (Param(14.69, "umol/L", 5.0, 30.0, _FREE), 320.0),
    "mexiletine": (Param(4.129, "umol/L", 1.5, 8.0, _FREE), 600.0),
    "quinidine": (Param(3.237, "umol/L", 1.0, 6.0, _FREE), 1200.0),
    "dofetilide": (Param(0.002, "umol/L", 0.0007, 0.004, _FREE), 1.0),
    "ranolazine": (Param(1.948, "umol/L", 0.7, 4.0, _FREE), 1000.0),
    "verapamil": (Param(0.081, "umol/L", 0.03, 0.16, _FREE), 240.0),
    "flecainide": (Param(0.753, "umol/L", 0.3, 1.5, _FREE), 200.0),
    "lidocaine": (Param(4.0, "umol/L", 2.0, 8.0, "free third of 2-5 mg/L in plasma; chosen here"), 2880.0),
}
"""Concentration that acts, and the daily dose in mg that it goes with (usual doses, chosen here); proportional to the dose."""
KNOWN_LEVEL_SPREAD = 1.5
"""A measured level still leaves the concentration at the channel uncertain by this factor each way (chosen here)."""


def drug_shifts(drugs: Sequence[Drug], tell: Callable[[str], None]) -> tuple[list[Shift], list[str]]:
    """Shifts of the drugs that the table knows, and a line for each that it does not."""
    known = [drug for drug in drugs if drug.name in DRUGS and drug.name in LEVELS]
    if known:
        tell(f"cells under {', '.join(drug.name for drug in known)} ...")
    others = [drug.name for drug in drugs if drug not in known]
    notes = [f"Without influence on the tissue here, since no dose-response is shipped: {', '.join(others)}."] if others else []
    return [_shift(drug) for drug in known], notes


def concentration(drug: Drug) -> Param:
    """Concentration at the channel: measured level, else in proportion to the dose, else the usual range."""
    usual, dose = LEVELS[drug.name]
    if drug.level_umol_l is not None:
        level = drug.level_umol_l
        source = "level as given; range chosen here"
        return Param(level, "umol/L", level / KNOWN_LEVEL_SPREAD, level * KNOWN_LEVEL_SPREAD, source)
    share = 1.0 if drug.mg_per_day is None else drug.mg_per_day / dose
    return Param(usual.value * share, "umol/L", usual.low * share, usual.high * share, usual.source)


def _shift(drug: Drug) -> Shift:
    level = concentration(drug)
    levels = (level.low, level.value, level.high)
    factors: dict[str, Param] = {}
    blocks = f"with the dose-response of solvers/ionic/drugs; concentration: {level.source}"
    source = f"{DURATIONS[0]} cell at {CYCLE_MS:g} ms {blocks}"
    for region in ("healthy", "border_zone"):
        at = [apd_factor(drug.name, round(c, 9), region) for c in levels]
        factors[f"{region}/apd_factor"] = Param(at[1], "1", min(at), max(at), source)
        if "I_Na" in DRUGS[drug.name]:
            slow = [velocity_factor(drug.name, round(c, 9), region) for c in levels]
            speed = Param(slow[1], "1", min(slow), max(slow), f"plane waves of {WAVES[0]} cells {blocks}")
            factors |= {f"{region}/cv_longitudinal_m_s": speed, f"{region}/cv_transverse_m_s": speed}
    said = f"{drug.mg_per_day:g} mg a day" if drug.mg_per_day is not None else "dose not given"
    return Shift(f"drug: {drug.name}", f"{said}, {level.value:.2g} ({level.low:.2g}-{level.high:.2g}) umol/L", factors)
