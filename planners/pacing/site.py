"""Programmed stimulation from one site: the drive once, then extrastimuli stepped down to loss of capture, one added to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from planners.circuits.episode import Episode
from planners.circuits.loop import typical_cycle_ms
from planners.pacing.protocol import Drive
from planners.pacing.protocol import Protocol as Stimulation
from planners.pacing.trace import FIRST_MS, captured, follow, join, kind_of, reentered, tail
from twin.errors import Interrupted
from twin.experiment import Activations
from twin.plan import Induction

KEPT_CYCLES = 3.2


class Reexcitable(Protocol):
    """A solver whose runs can be branched: `run` leaves the state that it was given untouched and returns the next one.

    Times are absolute. The log has `activations` in time order, their parents being rows of the same log (-1 a stimulus, -2 a firing of
    an earlier run), and `parent_node` (k,), the node that each firing came from (-1: a stimulus).
    """

    def rest(self) -> Any:
        """The state before the first stimulus."""
        ...

    def run(self, state: Any, stimuli: Sequence[tuple[float, NDArray[np.int32]]], until_ms: float) -> tuple[Any, Any]:
        """Go on until a time, or until nothing is left to happen."""
        ...


@dataclass
class SiteResult:
    """What pacing from one site gave; attempts counts the extrastimuli that were computed."""

    site: str
    drives_captured: list[bool] = field(default_factory=list)
    inductions: list[Induction] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)
    attempts: int = 0


@dataclass(frozen=True)
class _Answer:
    captured: bool
    sustained: bool
    turns: int
    lasted_ms: float
    cycle_ms: float | None
    log: Activations
    note: str
    kind: str = ""


class Site:
    """Paces one site of one model. `cancelled` is asked between runs and ends the work with Interrupted."""

    def __init__(
        self, model: Reexcitable, nodes: NDArray[np.int32], protocol: Stimulation, name: str, cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        self.model, self.nodes, self.protocol, self.name, self.cancelled = model, nodes, protocol, name, cancelled
        self.result = SiteResult(name)

    def pace(self, cycles_ms: Sequence[float] | None = None) -> SiteResult:
        """Run every drive (or those of the given cycles) with its extrastimuli."""
        for drive in self.protocol.drives:
            if cycles_ms is not None and drive.cycle_ms not in cycles_ms:
                continue
            if len(self.result.episodes) >= self.protocol.stop_after:
                break
            if self.protocol.extras:
                self._drive(drive)
            elif not self._burst(drive):
                # shorter bursts capture still less
                break
        return self.result

    def _run(self, state: Any, stimuli: list[tuple[float, NDArray[np.int32]]], until_ms: float) -> tuple[Any, tuple[Activations, NDArray]]:
        if self.cancelled():
            raise Interrupted(f"pacing from {self.name} was stopped")
        state, log = self.model.run(state, stimuli, until_ms)
        return state, (log.activations, log.parent_node)

    def _drive(self, drive: Drive) -> None:
        first_floor = self.protocol.extras[0].floor_ms if self.protocol.extras else drive.cycle_ms
        beats = [k * drive.cycle_ms for k in range(drive.computed_beats)]
        state, part = self._run(self.model.rest(), [(t, self.nodes) for t in beats], beats[-1] + first_floor)
        log = join([part])
        lost = [k + 1 for k, t in enumerate(beats) if not captured(log, t)]
        self.result.drives_captured.append(not lost)
        if lost:
            which = "no beat" if len(lost) == len(beats) else f"beat {lost[0]} not"
            note = (
                f"drive of {drive.cycle_ms:g} ms: {which} captured: stimulus in tissue that does not conduct, or a cycle too short for it"
            )
            self.result.inductions.append(Induction(self.name, self.protocol.name, (), False, False, note=note))
            return
        before = len(self.result.inductions)
        notes: list[str] = []
        self._extras(state, beats[-1], drive, (), notes)
        if len(self.result.inductions) == before:
            self.result.inductions.append(Induction(self.name, self.protocol.name, (), False, True, note="; ".join(notes)))

    def _burst(self, drive: Drive) -> bool:
        """A train without extrastimuli: what follows its last beat is looked at. False if it is not followed one to one."""
        beats = [k * drive.cycle_ms for k in range(drive.computed_beats)]
        state, part = self._run(self.model.rest(), [(t, self.nodes) for t in beats[:-1]], beats[-1] - 1e-3)
        log = join([part])
        answer = self._attempt(state, beats[-1])
        self.result.attempts += 1
        followed = answer.captured and all(captured(log, t) for t in beats[:-1])
        self.result.drives_captured.append(followed)
        if answer.turns:
            self._record(drive, (), answer)
        else:
            note = f"burst of {drive.beats} beats at {drive.cycle_ms:g} ms" + ("" if followed else ": not followed one to one")
            self.result.inductions.append(Induction(self.name, self.protocol.name, (), False, followed, note=note))
        return followed

    def _extras(self, state: Any, last_ms: float, drive: Drive, prefix: tuple[float, ...], notes: list[str]) -> None:
        """Step extrastimulus number len(prefix) + 1 down; hold it above its refractory interval and go on to the next."""
        level = len(prefix)
        if level == len(self.protocol.extras):
            return
        extra = self.protocol.extras[level]
        good: list[float] = []
        refractory: float | None = None
        for coupling in extra.intervals_ms(drive.cycle_ms):
            answer = self._attempt(state, last_ms + coupling)
            self.result.attempts += 1
            if not answer.captured:
                refractory = coupling
                break
            if answer.turns:
                self._record(drive, (*prefix, coupling), answer)
            if answer.sustained:
                if len(self.result.episodes) >= self.protocol.stop_after:
                    return
            else:
                good.append(coupling)
        notes.append(f"S{level + 2} {extra.start_ms:g}-{refractory or extra.floor_ms:g} ms" + (" (loss of capture)" if refractory else ""))
        held = [c for c in good if refractory is None or c >= refractory + self.protocol.margin_ms]
        if not held or level + 1 == len(self.protocol.extras):
            return
        at = last_ms + held[-1]
        branch, _ = self._run(state, [(at, self.nodes)], at + self.protocol.extras[level + 1].floor_ms)
        self._extras(branch, at, drive, (*prefix, held[-1]), notes)

    def _attempt(self, state: Any, at_ms: float) -> _Answer:
        """One extrastimulus, followed until it is quiet, steady or sustained for long enough."""
        until = at_ms + FIRST_MS
        state, part = self._run(state, [(at_ms, self.nodes)], until)
        if not captured(log := join([part]), at_ms):
            return _Answer(False, False, 0, 0.0, None, log, "")
        log, cycle, note = follow(lambda state, until: self._run(state, [], until), state, part, at_ms, until, self.protocol.sustained)
        turns = reentered(log, at_ms)
        lasted = float(log.activation_ms.max() - at_ms)
        if turns:
            cycle = cycle or typical_cycle_ms(log)
        sustained = bool(note) and turns > 0
        kind = kind_of(log, at_ms, sustained) if turns else ""
        return _Answer(True, sustained, turns, lasted, cycle, log, note, kind)

    def _record(self, drive: Drive, coupling_ms: tuple[float, ...], answer: _Answer) -> None:
        note = (
            f"S1 {drive.cycle_ms:g} ms; {answer.note}"
            if answer.sustained
            else f"S1 {drive.cycle_ms:g} ms; non-sustained, {answer.turns} beats"
        )
        self.result.inductions.append(
            Induction(
                site=self.name,
                protocol=self.protocol.name,
                coupling_ms=coupling_ms,
                induced=answer.sustained,
                captured=True,
                cycle_length_ms=None if answer.cycle_ms is None else round(answer.cycle_ms, 3),
                sustained_ms=round(answer.lasted_ms, 3),
                note=note,
                kind=answer.kind,
            )
        )
        if answer.sustained:
            assert answer.cycle_ms is not None
            log = tail(answer.log, float(answer.log.activation_ms.max()) - KEPT_CYCLES * answer.cycle_ms)
            self.result.episodes.append(Episode(self.name, drive.cycle_ms, coupling_ms, round(answer.cycle_ms, 3), log))
