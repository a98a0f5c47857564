"""Restitution of ventricular tissue, measured on a cable of cells: `python -m solvers.ionic.restitution` makes the shipped tables.

Protocol: one cell paced to steady state at the S1 cycle gives every cell of the cable its state; the cable is paced further at the same
cycle, then one S2 follows at each coupling interval. At a point of the cable: diastolic interval (DI) from the S1 beat's 90 %
repolarisation to the S2 beat's activation, duration of the S2 beat (APD90, the same level), and velocity of the S2 wave round the
point relative to the S1 wave. The smallest DI is the smallest that a wave which ran the whole cable had at the point: a still earlier S2
lingers at the stimulated end, comes late, and is cut short by that end's weak action potential, so it tells nothing of the tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.eikonal.restitution import RestitutionTable, load_tables
from solvers.ionic.model import IonicModel, ionic_model
from solvers.ionic.pacing import Cable
from twin.atomic import write_json
from twin.errors import InputError, RunFailed
from twin.params import Param

FILE = Path(__file__).with_name("data") / "restitution.json"

_REMODELLING = (
    "reduction in the peri-infarct zone used by Arevalo et al., Nat Commun 7:11437 (2016); the percentages as restated in reviews "
    "of published twins, the paper itself not read for this"
)
BORDER_ZONE = {
    "G_Na": Param(0.38, "1", 0.3, 1.0, _REMODELLING + " (62 %)"),
    "G_CaL": Param(0.31, "1", 0.25, 1.0, _REMODELLING + " (69 %)"),
    "G_Kr": Param(0.30, "1", 0.25, 1.0, _REMODELLING + " (70 %)"),
    "G_Ks": Param(0.20, "1", 0.15, 1.0, _REMODELLING + " (80 %)"),
}
_NIEDERER = "Niederer et al., Phil Trans R Soc A 369:4331 (2011), harmonic mean of intra- and extracellular, along the fibres"
CONDUCTIVITY = Param(0.133418, "S/m", 0.05, 0.3, _NIEDERER)
SURFACE_TO_VOLUME = Param(140.0, "1/mm", 100.0, 200.0, _NIEDERER)
CAPACITANCE = Param(0.01, "uF/mm^2", 0.005, 0.015, _NIEDERER)
S1_MS = Param(600.0, "ms", 400.0, 600.0, "drive train of a clinical electrophysiology study")

SCALES: dict[str, dict[str, float]] = {"healthy": {}, "border_zone": {name: p.value for name, p in BORDER_ZONE.items()}}

SPACING_MM = 0.1
LENGTH_MM = 20.0
# near the stimulus, where the S2 wave still runs close behind the S1 wave, and yet beyond what the stimulus itself excites
POINT_MM = 4.0
SPAN_MM = (3.0, 5.0)
STIMULUS_MM = 1.0
STIMULUS_MS = 2.0
STIMULUS_MV_MS = 50.0
DT_MS = 0.02
SAMPLE_STEPS = 5
CELL_BEATS = 100
CABLE_BEATS = 5
AFTER_MS = 700.0
ACTIVATION_MV = -40.0
RESOLUTION_MS = 0.5
# intervals beyond the earliest S2 that conducts: dense where the curves bend
STEPS_MS = (0, 1, 2, 3, 5, 7, 10, 14, 19, 25, 32, 40, 50, 65, 85, 110, 140, 180, 230, 300, 400, 550, 700)


@dataclass(frozen=True)
class Response:
    """What one S2 gave at the point: DI, APD90 of the S2 beat, velocities of the S2 and the S1 wave, APD90 of the S1 beat."""

    di_ms: float
    apd_ms: float
    cv_m_s: float
    s1_cv_m_s: float
    s1_apd_ms: float


def tables(kind: str) -> RestitutionTable:
    """The shipped table of "healthy" or "border_zone" tissue. Raises InputError for another kind."""
    known = load_tables()
    if kind not in known:
        raise InputError("restitution", "kind", f"{kind!r} is not known", f"write one of {', '.join(known)}")
    return known[kind]


def model_of(kind: str) -> IonicModel:
    """The cell model that a kind of tissue is measured with."""
    return ionic_model("ten_tusscher_panfilov_2006", "epi", SCALES[kind])


class PacedCable:
    """A cable at the onset of its last S1, steady; every `respond` starts from there."""

    def __init__(self, model: IonicModel) -> None:
        period = round(S1_MS.value / DT_MS)
        train = np.arange(period) < round(STIMULUS_MS / DT_MS)
        cell = Cable(model)
        cell.run(DT_MS, np.tile(train, CELL_BEATS), STIMULUS_MV_MS, every=period)
        diffusion = CONDUCTIVITY.value / (SURFACE_TO_VOLUME.value * CAPACITANCE.value)
        self.cable = Cable(model, round(LENGTH_MM / SPACING_MM), ratio=diffusion * DT_MS / SPACING_MM**2)
        self.cable.state[:, :-2] = cell.state[:, :-2, :1]
        self.cable.v[:] = cell.v
        self.sites = round(STIMULUS_MM / SPACING_MM)
        self.cable.run(DT_MS, np.tile(train, CABLE_BEATS), STIMULUS_MV_MS, self.sites, every=period)
        self.start = self.cable.snapshot()

    def respond(self, coupling_ms: float) -> Response | None:
        """S1, then S2 after `coupling_ms`: what was measured, None where S2 does not run the whole cable."""
        self.cable.restore(self.start)
        steps = np.arange(round((coupling_ms + AFTER_MS) / DT_MS)) * DT_MS
        on = (steps < STIMULUS_MS) | ((steps >= coupling_ms) & (steps < coupling_ms + STIMULUS_MS))
        v = self.cable.run(DT_MS, on, STIMULUS_MV_MS, self.sites, SAMPLE_STEPS)
        return _measure(v, SAMPLE_STEPS * DT_MS, coupling_ms)


def measure(paced: PacedCable) -> list[Response]:
    """Responses in order of growing DI, from the smallest one that conducts."""
    blocked, conducted = 0.0, S1_MS.value
    if paced.respond(conducted) is None:
        raise RunFailed(f"the cable does not conduct at a cycle of {conducted:g} ms")
    while conducted - blocked > RESOLUTION_MS:
        middle = 0.5 * (blocked + conducted)
        blocked, conducted = (middle, conducted) if paced.respond(middle) is None else (blocked, middle)
    responses = [response for step in STEPS_MS if (response := paced.respond(conducted + step)) is not None]
    return responses[int(np.argmin([r.di_ms for r in responses])) :]


def _measure(v: NDArray[np.floating], pitch_ms: float, coupling_ms: float) -> Response | None:
    """Read activations and repolarisations off the samples v (n, k)."""
    nodes = [round(x / SPACING_MM) for x in (*SPAN_MM, LENGTH_MM - 2.0, POINT_MM)]
    ups = [_crossings(v[node], ACTIVATION_MV, pitch_ms, rising=True) for node in nodes]
    if any(len(times) != 2 or times[1] < coupling_ms for times in ups):
        return None
    trace = v[nodes[-1]]
    rest, peak = float(trace[0]), float(trace[: round(coupling_ms / pitch_ms)].max())
    downs = _crossings(trace, peak - 0.9 * (peak - rest), pitch_ms, rising=False)
    activated = ups[-1]
    if len(downs) != 2 or not activated[0] < downs[0] < activated[1] < downs[1]:
        return None
    s1_cv, s2_cv = ((SPAN_MM[1] - SPAN_MM[0]) / float(ups[1][beat] - ups[0][beat]) for beat in (0, 1))
    return Response(float(activated[1] - downs[0]), float(downs[1] - activated[1]), s2_cv, s1_cv, float(downs[0] - activated[0]))


def _crossings(trace: NDArray[np.floating], level: float, pitch_ms: float, rising: bool) -> NDArray[np.float64]:
    """Times in ms at which the trace passes `level`, linear between samples."""
    above = trace >= level
    i = np.flatnonzero(~above[:-1] & above[1:] if rising else above[:-1] & ~above[1:])
    return np.asarray(pitch_ms * (i + (level - trace[i]) / (trace[i + 1] - trace[i])), np.float64)


@cache
def _entry(kind: str) -> dict[str, object]:
    """One table in the form of the file."""
    paced = PacedCable(model_of(kind))
    responses = measure(paced)
    first = responses[0]
    model = model_of(kind)
    scale = ", ".join(f"{name} x{factor:g}" for name, factor in SCALES[kind].items())
    return {
        "di_ms": [round(r.di_ms, 3) for r in responses],
        "apd_ms": [round(r.apd_ms, 3) for r in responses],
        "cv_factor": [round(r.cv_m_s / r.s1_cv_m_s, 5) for r in responses],
        "s1_apd_ms": round(first.s1_apd_ms, 3),
        "s1_cv_m_s": round(first.s1_cv_m_s, 5),
        "source": f"own cable of {model.name} {model.cell}{', ' + scale if scale else ''}: S1 {S1_MS.value:g} ms, S2 scanned, "
        f"at {POINT_MM:g} mm of {LENGTH_MM:g} mm",
    }


def made_with() -> dict[str, object]:
    """Settings that the tables depend on, for the file."""
    return {
        "command": "python -m solvers.ionic.restitution",
        "spacing_mm": SPACING_MM,
        "dt_ms": DT_MS,
        "scheme": "second differences, explicit; gates first, unsplit; float32",
        "conductivity_S_m": CONDUCTIVITY.value,
        "surface_to_volume_1_mm": SURFACE_TO_VOLUME.value,
        "capacitance_uF_mm2": CAPACITANCE.value,
        "s1_ms": S1_MS.value,
        "s1_beats": CELL_BEATS + CABLE_BEATS,
        "stimulus": f"{STIMULUS_MV_MS:g} mV/ms for {STIMULUS_MS:g} ms in {STIMULUS_MM:g} mm",
        "border_zone": {name: [p.value, p.source] for name, p in BORDER_ZONE.items()},
    }


def main() -> None:
    """Measure both kinds of tissue and write the file that ships with the package."""
    write_json(FILE, {"made": made_with(), **{kind: _entry(kind) for kind in SCALES}})


if __name__ == "__main__":
    main()
