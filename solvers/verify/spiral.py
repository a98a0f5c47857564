"""A spiral wave on a sheet: a second pulse in the wake of a first one curls up and keeps turning."""

from __future__ import annotations

from typing import Any

import numpy as np

from meshing.box import box_mesh
from solvers.ionic import Cells, ionic_model
from solvers.monodomain.solver import Monodomain, Settings
from twin.check_record import checked
from twin.experiment import Stimulus
from twin.params import Param

SIZE_MM, SPACING_MM, D_MM2_MS = 60.0, 0.6, 0.05
TAU_CLOSE = Param(0.35, "1", 0.2, 0.6, "chosen here: shortens the action potential to 116 ms, so that a turn fits into the sheet")
S2_MS = Param(280.0, "ms", 270.0, 290.0, "chosen here: the tail of the first wave is at 40 mm then")
END_MS = 1500.0
_SOURCE = "Mitchell-Schaeffer, 0.24 m/s; first measured here: 7 turns of 148 ms in the second after the spiral has formed"


def probe_beats_ms() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Activation times of a node away from the core after the second pulse, ms."""
    mesh = box_mesh((SIZE_MM, SIZE_MM, SPACING_MM), SPACING_MM)
    model = ionic_model("mitchell_schaeffer", scale={"tau_close": TAU_CLOSE.value})
    m, x, y = len(mesh.tets), mesh.points_mm[:, 0], mesh.points_mm[:, 1]
    d = np.full(m, D_MM2_MS)
    solver = Monodomain(
        mesh.points_mm, mesh.tets, mesh.fibre, d, d, lambda nodes: Cells([model], np.zeros(len(nodes), np.int32)), Settings()
    )
    wave = Stimulus(np.flatnonzero(x < 1.5).astype(np.int32), (0.0,))
    # the pulse reaches into the refractory tail: it runs up the sheet there and not to the right
    quarter = Stimulus(np.flatnonzero((x < 42.0) & (y < 30.0)).astype(np.int32), (S2_MS.value,))
    beats = solver.run([wave, quarter], END_MS, quiet_ms=60.0).activations
    probe = np.argmin((x - 45.0) ** 2 + (y - 45.0) ** 2)
    times = beats.activation_ms[beats.node == probe]
    return np.asarray(times[times > S2_MS.value], np.float64)


def checks(fast: bool = True) -> list[dict[str, Any]]:
    """Records of `vtwin verify spiral --slow`: turns in the last second, and how long one takes."""
    if fast:
        return []
    times = probe_beats_ms()
    late = times[times >= END_MS - 1000.0]
    cycle = float(np.median(np.diff(late))) if len(late) > 1 else 0.0
    return [
        checked("spiral/turns_in_1_s", float(len(late)), "1", 7.0, 1.0, _SOURCE),
        checked("spiral/cycle_length", cycle, "ms", 148.0, 5.0, _SOURCE),
    ]
