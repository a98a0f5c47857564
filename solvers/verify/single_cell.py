"""Single paced cells against reference solutions of the same equations with an adaptive solver."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ionic import apd_ms, ionic_model, pace
from solvers.ionic.pacing import STIMULUS_MV_MS, Cable

SOURCE = (
    "myokit 1.39.2 (CVODES, tolerance 1e-8) on the published equations, steady pacing at 1000 ms, 20 beats from the initial state; "
    "stimulus 1 ms from t = 0 (shared/reference/single_cell)"
)
BCL_MS = 1000.0
BEATS = 20
DT_MS = 0.02

# (model, cell): rest mV, peak mV, APD90 ms, APD50 ms of beat 20, APD90 ms of beat 1
REFERENCE: dict[tuple[str, str], tuple[float, float, float, float, float]] = {
    ("ten_tusscher_panfilov_2006", "epi"): (-85.512, 38.565, 305.27, 277.22, 290.17),
    ("ten_tusscher_panfilov_2006", "endo"): (-85.530, 39.828, 304.49, 276.10, 291.10),
    ("ten_tusscher_panfilov_2006", "mid"): (-85.375, 38.625, 406.08, 374.44, 378.34),
    ("bueno_orovio", "epi"): (-83.913, 41.438, 268.87, 221.20, 272.32),
    ("bueno_orovio", "endo"): (-83.888, 45.074, 262.98, 220.54, 276.90),
    ("bueno_orovio", "mid"): (-83.891, 48.997, 412.69, 319.69, 458.71),
    ("mitchell_schaeffer", "default"): (-80.0, 14.523, 285.36, 258.99, 285.69),
    ("aliev_panfilov", "default"): (-80.0, 18.890, 249.65, 233.22, 336.34),
}
TOLERANCES = {"rest": (0.1, "mV"), "peak": (1.0, "mV"), "apd90": (1.0, "ms"), "apd50": (1.0, "ms"), "apd90_beat1": (1.0, "ms")}

# diastolic and peak intracellular calcium of epi, beat 20, nM; 2 %
CALCIUM_NM = (101.85, 839.72)
CALCIUM_TOLERANCE = 0.02
DRIFT_MS = 0.5
# At rest the decay of this model's V, u/tau_o1 per ms, is less in a step than the last bit of a float32 near -84 mV: V stays up to
# 0.08 mV high, and w_inf = 1 - u/tau_winf magnifies that. Float64 where these cells' duration matters.
DRIFT_LIMITED_MS = {("bueno_orovio", "endo"): 1.0, ("bueno_orovio", "mid"): 4.0}


def checks() -> list[dict[str, Any]]:
    """Records with name, value, unit, reference, tolerance, source, passed; about 10 s."""
    records = []
    for (name, cell), reference in REFERENCE.items():
        model = ionic_model(name, cell)
        traces = {precision: pace(model, BCL_MS, BEATS, DT_MS, precision) for precision in ("float64", "float32")}
        time_ms, beats = traces["float64"]
        for (quantity, (tolerance, unit)), value, expected in zip(TOLERANCES.items(), measured(time_ms, beats), reference, strict=True):
            records.append(_record(f"ionic/{name}/{cell}/{quantity}", value, unit, expected, tolerance, SOURCE))
        single, double = (np.array([apd_ms(time_ms, beat) for beat in traces[p][1]]) for p in ("float32", "float64"))
        drift = float(np.abs(single - double).max())
        source = "float64 run of the same source; largest APD90 difference of 20 beats"
        allowed = DRIFT_LIMITED_MS.get((name, cell), DRIFT_MS)
        records.append(_record(f"ionic/{name}/{cell}/float32_drift", drift, "ms", 0.0, allowed, source))
    for label, value, expected in zip(("diastolic", "peak"), _calcium_nm(), CALCIUM_NM, strict=True):
        name = f"ionic/ten_tusscher_panfilov_2006/epi/calcium_{label}"
        records.append(_record(name, value, "nM", expected, CALCIUM_TOLERANCE * expected, SOURCE))
    return records


def measured(time_ms: NDArray[np.float64], beats: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    """Rest, peak, APD90, APD50 of the last beat and APD90 of the first."""
    last = beats[-1]
    return float(last[0]), float(last.max()), apd_ms(time_ms, last), apd_ms(time_ms, last, 0.5), apd_ms(time_ms, beats[0])


def _calcium_nm() -> tuple[float, float]:
    """Intracellular calcium at the onset of beat 20 and its peak, sampled every ms."""
    model = ionic_model("ten_tusscher_panfilov_2006", "epi")
    cable, strength = Cable(model, 1, "float64"), STIMULUS_MV_MS[model.name]
    per_ms = round(1.0 / DT_MS)
    cable.run(DT_MS, np.tile(np.arange(round(BCL_MS) * per_ms) < per_ms, BEATS - 1), strength, every=per_ms)
    values = []
    for ms in range(200):
        values.append(float(cable.state[0, model.state_names.index("Ca_i"), 0]))
        cable.run(DT_MS, np.full(per_ms, ms == 0), strength, every=per_ms)
    return 1e6 * values[0], 1e6 * max(values)


def _record(name: str, value: float, unit: str, reference: float, tolerance: float, source: str) -> dict[str, Any]:
    passed = bool(abs(value - reference) <= tolerance)
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "tolerance": tolerance,
        "source": source,
        "passed": passed,
    }
