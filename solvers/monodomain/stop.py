"""Conditions that end a run by name: re-entry that lasts, tissue that is quiet."""

from __future__ import annotations

import numpy as np

from solvers.monodomain.solver import Monodomain, Stop


class ReentryCycles:
    """Ends a run once a node has fired `cycles` + 1 times since the last pulse: the first is the pulse's own wave, each other one lap.

    An automatic focus would count as well; the ventricular models here have none.
    """

    def __init__(self, cycles: int) -> None:
        self.cycles = cycles

    def __call__(self, solver: Monodomain) -> Stop | None:
        """The reason, or None."""
        log = solver.log
        if solver.time_ms <= log.since_ms or int(log.laps.max()) <= self.cycles:
            return None
        row = int(np.argmax(log.laps))
        cycle = float((log.latest_ms[row] - log.lap_ms[row]) / (log.laps[row] - 1))
        node = int(solver.nodes[row])
        message = f"re-entry: {log.laps[row] - 1} laps of {cycle:.1f} ms at node {node} after the last pulse"
        return Stop(message, "reentry", {"node": node, "cycle_length_ms": cycle, "laps": int(log.laps[row] - 1)})
