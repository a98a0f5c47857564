"""What the untreated heart did with the stimuli of a protocol, kept for the treated heart to start from."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from planners.pacing.trace import Part, join
from planners.pacing.trains import Drive, Nodes, changed_by
from solvers.eikonal.reentrant import ReentrantEikonal, State

LIMIT_BYTES = 400_000_000
"""So much is kept at most; what is not kept is paced again, to the same bits."""

Key = tuple[str, tuple[float, ...], float]


class Memory:
    """Runs of one untreated model by site, stimuli and the time until which they were followed. Safe to use from several threads."""

    def __init__(self, model: ReentrantEikonal) -> None:
        self.model = model
        self._kept: dict[Key, Drive] = {}
        self._room = LIMIT_BYTES
        self._lock = threading.Lock()

    def keep(self, site: str, times_ms: Sequence[float], until_ms: float, state: State, parts: Sequence[Part]) -> None:
        """Keep a run from rest in which no front was blocked or held; parts: its logs, joined here."""
        made = Drive(state, join(parts), True)
        with self._lock:
            key = (site, tuple(times_ms), until_ms)
            if key not in self._kept and made.size <= self._room:
                self._kept[key] = made
                self._room -= made.size

    def state_of(self, treated: ReentrantEikonal, site: str, nodes: Nodes, times_ms: Sequence[float], until_ms: float) -> State | None:
        """The treated heart's state after the same stimuli from the same site; None if it has to be paced."""
        known = self._kept.get((site, tuple(times_ms), until_ms))
        return None if known is None else changed_by(self.model, treated, nodes, times_ms, until_ms, known)
