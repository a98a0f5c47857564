"""What a paced wave brings into a part of a heart through the border where it was cut, as the reduced model has it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planners.confirm.bench import stimulus
from planners.confirm.part import Part
from planners.pacing.site import Reexcitable
from planners.pacing.trace import wave_of
from solvers.ionic.restitution import S1_MS
from twin.experiment import Stimulus
from twin.params import Param

BIN_MS = 1.0
DRIVE_MS = S1_MS.value
WINDOW_MS = Param(
    250.0,
    "ms",
    150.0,
    300.0,
    "chosen here: a paced wave has crossed a heart by then; what comes later may have turned round and is left out",
)


def brought_in(model: Reexcitable, part: Part, site: NDArray[np.int32], times_ms: Sequence[float]) -> dict[float, list[Stimulus]]:
    """Stimuli at the cut border for every stimulus of a train: where and when its wave passed there, first pass only.

    model: the reduced model of the whole heart; site: its nodes; times ascending from 0. What reentry would bring in later is left out:
    the part has to sustain it by itself. The reduced model gets DRIVE_MS before the train: its tissue comes from rest, the cells of the
    part from a drive.
    """
    nodes, beside = part.cut_nodes()
    out: dict[float, list[Stimulus]] = {t: [] for t in times_ms}
    if not len(nodes):
        return out
    _, log = model.run(model.rest(), [(t, site) for t in (-DRIVE_MS, *times_ms)], times_ms[-1] + WINDOW_MS.value)
    activations = log.activations
    for t in times_ms:
        rows = wave_of(activations, t) & (activations.activation_ms <= t + WINDOW_MS.value)
        first = np.full(part.coarse.n_points, np.inf)
        np.minimum.at(first, activations.node[rows], activations.activation_ms[rows])
        at = BIN_MS * np.ceil(first[beside] / BIN_MS)
        out[t] = [stimulus(nodes[at == when], float(when)) for when in np.unique(at[np.isfinite(at)])]
    return out
