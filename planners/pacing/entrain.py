"""Virtual entrainment: a tachycardia is started again, paced a little faster from a place, and the return is measured there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.circuits.episode import Episode
from planners.pacing.protocol import Protocol
from planners.pacing.site import Reexcitable
from planners.pacing.trace import STIMULUS, join
from twin.experiment import Activations
from twin.params import Param

_CLINICAL = "entrainment from a critical isthmus, shared/design/clinical.md"
RETURN = Param(30.0, "ms", 30.0, 30.0, f"the post-pacing interval is within this of the cycle; {_CLINICAL}")
STIMULUS_QRS = Param(0.70, "1", 0.7, 0.7, f"most of the cycle from stimulus to QRS; {_CLINICAL}")
FASTER = Param(20.0, "ms", 10.0, 40.0, "chosen here: the train's cycle is so much shorter than the tachycardia's")
ALIKE = Param(0.9, "1", 0.8, 0.98, "chosen here: correlation of activation times of healthy muscle above which fusion is called concealed")
BEATS, LAPS = 8, 4
"""Beats of the train (each comes 20 ms earlier in the tachycardia's cycle, so one of the first finds an excitable gap), and cycles of the
tachycardia before it.
"""

Nodes = NDArray[np.int32]


@dataclass(frozen=True)
class Entrainment:
    """What pacing from one place gave. return_ms: post-pacing interval minus cycle; stimulus_qrs_ms: last stimulus to the exit;
    likeness: correlation of healthy muscle's activation with that of the tachycardia; what: entrained, terminated, not captured.
    """

    place: str
    what: str
    return_ms: float | None = None
    stimulus_qrs_ms: float | None = None
    share: float | None = None
    likeness: float | None = None

    @property
    def in_circuit(self) -> bool:
        """The return is within RETURN of the cycle."""
        return self.return_ms is not None and abs(self.return_ms) <= float(RETURN)

    @property
    def critical(self) -> bool:
        """A place in the isthmus by the laboratory's criteria: in the circuit, concealed, stimulus to QRS at most 70 % of the cycle."""
        concealed = self.likeness is not None and self.likeness >= float(ALIKE)
        return self.in_circuit and concealed and self.share is not None and self.share <= float(STIMULUS_QRS)

    def as_dict(self) -> dict[str, Any]:
        """For plan.json."""
        return {**asdict(self), "in_circuit": self.in_circuit, "critical": self.critical}


class Tachycardia:
    """An induced tachycardia under way: the state some cycles after its last extrastimulus, and its last cycle."""

    def __init__(self, model: Reexcitable, protocol: Protocol, episode: Episode, site: Nodes, exit_node: int, healthy: NDArray) -> None:
        """site: nodes of the induction's electrode; exit_node: where healthy muscle is reached; healthy: nodes that are compared."""
        self.model, self.cycle_ms, self.exit_node, self.healthy = model, episode.cycle_length_ms, exit_node, healthy
        drive = next(d for d in protocol.drives if d.cycle_ms == episode.cycle_ms)
        times = [k * drive.cycle_ms for k in range(drive.computed_beats)]
        for coupling in episode.coupling_ms:
            times.append(times[-1] + coupling)
        self.start_ms = times[-1] + LAPS * self.cycle_ms
        self.state, log = model.run(model.rest(), [(t, site) for t in times], self.start_ms)
        self.log: Activations = log.activations
        self.goes_on = bool((self.log.activation_ms > self.start_ms - self.cycle_ms).any())

    def pattern(self, log: Activations, since_ms: float) -> NDArray[np.float64]:
        """First activation of the compared nodes after the exit's first one from a time on, within a cycle, (h,) ms, NaN where none."""
        at = log.activation_ms[(log.node == self.exit_node) & (log.activation_ms >= since_ms)]
        if not len(at):
            return np.full(len(self.healthy), np.nan)
        rows = (log.activation_ms >= at[0] - 1e-9) & (log.activation_ms < at[0] + self.cycle_ms)
        first = np.full(int(max(self.healthy.max(), log.node.max())) + 1, np.inf)
        np.minimum.at(first, log.node[rows], log.activation_ms[rows] - at[0])
        return np.where(np.isfinite(first[self.healthy]), first[self.healthy], np.nan)

    def pace(self, place: str, nodes: Nodes) -> Entrainment:
        """Entrain from one place."""
        if not len(nodes):
            return Entrainment(place, "not captured")
        step = self.cycle_ms - float(FASTER)
        times = [self.start_ms + (k + 0.5) * step for k in range(BEATS)]
        state, paced = self.model.run(self.state, [(t, nodes) for t in times], times[-1] + 0.5)
        _, after = self.model.run(state, [], times[-1] + 2.2 * self.cycle_ms)
        log = join([(part.activations, part.parent_node) for part in (paced, after)])
        mine = np.isin(log.node, nodes)
        late = [((log.parent == STIMULUS) & mine & (np.abs(log.activation_ms - t) < 25.0)).any() for t in times[-3:]]
        if not all(late):
            return Entrainment(place, "not captured")
        back = log.activation_ms[mine & (log.parent != STIMULUS) & (log.activation_ms > times[-1] + 50.0)]
        if not len(back):
            return Entrainment(place, "terminated")
        first = np.array([b.min() for n in nodes if len(b := log.activation_ms[(log.node == n) & (log.activation_ms > times[-1] + 50.0)])])
        out = log.activation_ms[(log.node == self.exit_node) & (log.activation_ms > times[-1])]
        # the exit may be reached by the last stimulus before or after the beat before it has gone: a cycle at most
        qrs = float(out[0] - times[-1]) if len(out) else None
        known, new = self.pattern(self.log, self.start_ms - 2.0 * self.cycle_ms), self.pattern(log, times[-1])
        both = np.isfinite(known) & np.isfinite(new)
        alike = float(np.corrcoef(known[both], new[both])[0, 1]) if both.sum() > 10 else None
        return Entrainment(
            place,
            "entrained",
            round(float(np.median(first)) - times[-1] - self.cycle_ms, 2),
            None if qrs is None else round(qrs, 2),
            None if qrs is None else round(qrs / self.cycle_ms, 3),
            None if alike is None else round(alike, 3),
        )


def entrain(tachycardia: Tachycardia, places: Mapping[str, Nodes]) -> list[Entrainment]:
    """Entrain from every place; empty if the tachycardia did not go on after it was started again."""
    return [tachycardia.pace(name, nodes) for name, nodes in places.items()] if tachycardia.goes_on else []
