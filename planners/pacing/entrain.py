"""Virtual entrainment and pace-mapping: a tachycardia is started again and paced a little faster; the same places pace the quiet heart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.circuits.likeness import STEP_MS as ECG_STEP_MS
from planners.circuits.likeness import Leads, ecg_of, one_cycle, similarity
from planners.circuits.loop import intervals, typical_cycle_ms
from planners.pacing.site import Reexcitable
from planners.pacing.trace import STIMULUS, captured, join, tail, wave_of
from twin.experiment import Activations
from twin.params import Param

_CLINICAL = "entrainment with concealed fusion: Stevenson et al., Circulation 1993;88:1647 (from memory)"
RETURN = Param(30.0, "ms", 20.0, 30.0, f"the post-pacing interval is within this of the cycle; {_CLINICAL}")
STIMULUS_QRS = Param(0.70, "1", 0.5, 0.7, f"most of the cycle from stimulus to QRS; {_CLINICAL}")
CONCEALED = Param(
    0.95, "1", 0.90, 0.98, "chosen here: correlation of the paced and the spontaneous 12-lead ECG from which fusion is concealed"
)
ONSET = Param(0.01, "1", 0.002, 0.03, "chosen here: the QRS begins when this share of the healthy muscle is excited")
FASTER_MS = (20.0, 30.0, 10.0)
"""The train's cycle is so much shorter than the tachycardia's; the next where the tachycardia was not entrained."""

LAPS = 5
"""Cycles that the tachycardia is given to settle before it is paced: a screen that stops after three like cycles ends before that."""

LOOK, MOST_BEATS = 4, 16
"""Beats between two looks at whether the train has taken over, and the most that are given."""

STEADY_MS = 3.0
FOLLOWS = 0.9
"""The train has taken over when the last interval of this share of the healthy muscle is within STEADY_MS of the train's cycle."""

Nodes = NDArray[np.int32]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Entrainment:
    """What pacing a tachycardia from one place gave.

    what: entrained, not entrained, not captured, or terminated (the tachycardia was gone after the train); faster_ms: how much shorter the
    train's cycle was; return_ms: post-pacing interval minus the tachycardia's cycle; stimulus_qrs_ms: from the last stimulus to the begin
    of the QRS that it makes; share: of the cycle; ecg_correlation: of the paced with the spontaneous 12-lead ECG.
    """

    place: str
    what: str
    faster_ms: float | None = None
    return_ms: float | None = None
    stimulus_qrs_ms: float | None = None
    share: float | None = None
    ecg_correlation: float | None = None

    @property
    def concealed(self) -> bool:
        """The paced ECG is that of the tachycardia."""
        return self.ecg_correlation is not None and self.ecg_correlation >= float(CONCEALED)

    @property
    def in_circuit(self) -> bool:
        """The wave comes back within RETURN of the cycle."""
        return self.return_ms is not None and abs(self.return_ms) <= float(RETURN)

    @property
    def critical(self) -> bool:
        """In the isthmus by the laboratory's criteria: in the circuit, concealed, stimulus to QRS at most 70 % of the cycle."""
        return self.in_circuit and self.concealed and self.share is not None and self.share <= float(STIMULUS_QRS)

    def as_dict(self) -> dict[str, Any]:
        """For plan.json."""
        return {**asdict(self), "concealed": self.concealed, "in_circuit": self.in_circuit, "critical": self.critical}


class Tachycardia:
    """An induced tachycardia under way and settled: its cycle length, and its last cycle as a 12-lead ECG; raises what the model raises."""

    def __init__(
        self,
        model: Reexcitable,
        stimuli_ms: Sequence[float],
        site: Nodes,
        cycle_ms: float,
        field: Leads,
        muscle: NDArray[np.integer],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """stimuli_ms: drive and extrastimuli that induced it from the site; muscle: healthy nodes, by which QRS and steadiness go."""
        self.model, self.field, self.muscle, self.cancelled = model, field, muscle, cancelled
        self.start_ms = stimuli_ms[-1] + LAPS * cycle_ms
        state, _ = model.run(model.rest(), [(t, site) for t in stimuli_ms], self.start_ms - 3.0 * cycle_ms)
        self.state, log = model.run(state, [], self.start_ms)
        self.log: Activations = log.activations
        late = self.log.activation_ms > self.start_ms - cycle_ms
        self.goes_on = bool(np.isin(muscle, self.log.node[late]).mean() > 0.5)
        self.cycle_ms = (typical_cycle_ms(self.log) or cycle_ms) if self.goes_on else cycle_ms
        self.shape = self._shape(self.log, self.start_ms - self.cycle_ms, self.cycle_ms) if self.goes_on else None

    def _shape(self, log: Activations, start_ms: float, cycle_ms: float) -> Array:
        leads = ecg_of(self.field, log, start_ms, start_ms + cycle_ms)
        return one_cycle(leads, 1000.0 / ECG_STEP_MS, min(cycle_ms, leads.shape[1] * ECG_STEP_MS))

    def entrain(self, place: str, nodes: Nodes) -> Entrainment:
        """Pace from one place at one cycle after the other until the tachycardia follows; else what the first gave."""
        tried = []
        for faster in FASTER_MS:
            tried.append(self._train(place, nodes, faster))
            if tried[-1].what == "entrained":
                return tried[-1]
        return tried[0]

    def _train(self, place: str, nodes: Nodes, faster_ms: float) -> Entrainment:
        step = self.cycle_ms - faster_ms
        at = self.log.activation_ms[np.isin(self.log.node, nodes) & (self.log.activation_ms > self.start_ms - self.cycle_ms)]
        # the first stimulus comes just before the tachycardia's next wave, as in the laboratory
        first = (float(np.median(at)) if len(at) else self.start_ms) + step
        first += self.cycle_ms if first < self.start_ms else 0.0
        state, beats = self.state, 0
        times: list[float] = []
        parts = []
        steady = False
        while beats < MOST_BEATS and not steady and not self.cancelled():
            new = [first + (beats + k) * step for k in range(LOOK)]
            state, log = self.model.run(state, [(t, nodes) for t in new], new[-1] + 0.5)
            parts.append((log.activations, log.parent_node))
            times, beats = times + new, beats + LOOK
            steady = self._follows(join(parts[-2:]), step)
        _, log = self.model.run(state, [], times[-1] + 2.2 * self.cycle_ms)
        parts.append((log.activations, log.parent_node))
        whole = tail(join(parts), times[-LOOK] - step)
        if not captured(whole, times[-1]):
            return Entrainment(place, "not captured", faster_ms)
        return self._measured(place, nodes, faster_ms, whole, times[-1], step, steady)

    def _follows(self, log: Activations, step_ms: float) -> bool:
        """True if the healthy muscle goes at the train's cycle."""
        node, time, interval = intervals(log)
        last = np.append(node[1:] != node[:-1], True) & np.isin(node, self.muscle) & (time > log.activation_ms.max() - step_ms)
        return bool(
            last.any() and last.sum() > 0.5 * len(self.muscle) and (np.abs(interval[last] - step_ms) <= STEADY_MS).mean() >= FOLLOWS
        )

    def _measured(
        self, place: str, nodes: Nodes, faster_ms: float, log: Activations, last_ms: float, step_ms: float, steady: bool
    ) -> Entrainment:
        wave = wave_of(log, last_ms)
        back = wave & np.isin(log.node, nodes) & (log.parent != STIMULUS) & (log.activation_ms > last_ms + 50.0)
        if not back.any():
            return Entrainment(place, "terminated", faster_ms)
        if not steady:
            return Entrainment(place, "not entrained", faster_ms)
        # the first return of each node of the electrode; rows are in time order
        _, rows = np.unique(log.node[back], return_index=True)
        interval = float(np.median(log.activation_ms[back][rows])) - last_ms
        qrs = self._qrs_ms(log, wave, last_ms)
        assert self.shape is not None
        alike = similarity(self.shape, self._shape(log, last_ms - step_ms, step_ms))
        return Entrainment(
            place,
            "entrained",
            faster_ms,
            round(interval - self.cycle_ms, 2),
            None if qrs is None else round(qrs, 2),
            None if qrs is None else round(qrs / self.cycle_ms, 3),
            round(alike, 3),
        )

    def _qrs_ms(self, log: Activations, wave: NDArray[np.bool_], stimulus_ms: float) -> float | None:
        """From a stimulus until its wave has excited ONSET of the healthy muscle."""
        times = np.sort(log.activation_ms[wave & np.isin(log.node, self.muscle)])
        count = max(1, round(float(ONSET) * len(self.muscle)))
        return float(times[count - 1]) - stimulus_ms if len(times) >= count else None

    def pace_map(self, place: str, nodes: Nodes) -> dict[str, Any]:
        """Two beats at the tachycardia's cycle from one place of the quiet heart: correlation of their ECG with the tachycardia's.

        The second beat counts, the first where the tissue does not follow that fast. For plan.json.
        """
        cycle = self.cycle_ms
        state, first = self.model.run(self.model.rest(), [(0.0, nodes), (cycle, nodes)], cycle + 0.5)
        _, after = self.model.run(state, [], 2.0 * cycle)
        log = join([(part.activations, part.parent_node) for part in (first, after)])
        beat = cycle if captured(log, cycle) else 0.0
        row: dict[str, Any] = {"place": place, "stimulus_qrs_ms": None, "ecg_correlation": None}
        if not captured(log, beat):
            return row
        qrs = self._qrs_ms(log, wave_of(log, beat), beat)
        assert self.shape is not None
        alike = similarity(self.shape, self._shape(log, beat, cycle))
        return row | {"stimulus_qrs_ms": None if qrs is None else round(qrs, 2), "ecg_correlation": round(alike, 3)}
