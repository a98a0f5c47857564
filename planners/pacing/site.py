"""Programmed stimulation from one site: the drive once, then extrastimuli stepped down to loss of capture, one added to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from planners.circuits.episode import Episode
from planners.circuits.loop import typical_cycle_ms
from planners.pacing.protocol import Drive
from planners.pacing.protocol import Protocol as Stimulation
from planners.pacing.trace import FIRST_MS, Part, captured, follow, join, kind_of, last_cycles, reentered
from solvers.eikonal.reentrant import ReentrantEikonal
from twin.errors import Interrupted
from twin.experiment import Activations
from twin.plan import Induction

if TYPE_CHECKING:
    from planners.pacing.memory import Memory


class Reexcitable(Protocol):
    """A solver whose runs can be branched: `run` leaves the state that it was given untouched and returns the next one.

    Times are absolute. The log has `activations` in time order, their parents being rows of the same log (-1 a stimulus, -2 a firing of
    an earlier run), and `parent_node` (k,), the node that each firing came from (-1: a stimulus); `blocked` and `waited`, at how many nodes
    a front met tissue that had not recovered (1 where that is not counted), and `quiet`, whether nothing is left to happen.
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
class _Branch:
    """Where a train has got to: coupling intervals so far, all stimuli, the state at `until_ms` and the logs that led there from rest.

    clean: no front has been blocked or held since rest; the logs are kept only while it is so.
    """

    coupling_ms: tuple[float, ...]
    times_ms: tuple[float, ...]
    until_ms: float
    state: Any
    parts: tuple[Part, ...] = ()
    clean: bool = False


@dataclass
class _Attempt:
    """One extrastimulus, followed for its first wave. clean: that wave ended without having met tissue that had not recovered."""

    at_ms: float
    until_ms: float
    captured: bool
    clean: bool
    state: Any = None
    part: Part | None = None


@dataclass(frozen=True)
class _Answer:
    sustained: bool
    turns: int
    lasted_ms: float = 0.0
    cycle_ms: float | None = None
    last: Activations | None = None
    """The last cycles of a sustained one."""
    note: str = ""
    kind: str = ""


class Site:
    """Paces one site of one model. `cancelled` is asked between runs and ends the work with Interrupted.

    memory: for the untreated model (the memory's own) where runs are kept; for a treated one, where they are taken from.
    """

    def __init__(
        self,
        model: Reexcitable,
        nodes: NDArray[np.int32],
        protocol: Stimulation,
        name: str,
        cancelled: Callable[[], bool] = lambda: False,
        memory: Memory | None = None,
    ) -> None:
        self.model, self.nodes, self.protocol, self.name, self.cancelled = model, nodes, protocol, name, cancelled
        self.memory = memory
        self.keeps = memory is not None and memory.model is model
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

    def _run(self, state: Any, stimuli: list[tuple[float, NDArray[np.int32]]], until_ms: float) -> tuple[Any, Part, Any]:
        """The next state, what happened, and the whole log of it."""
        if self.cancelled():
            raise Interrupted(f"pacing from {self.name} was stopped")
        state, log = self.model.run(state, stimuli, until_ms)
        return state, (log.activations, log.parent_node), log

    def _remembered(self, times_ms: tuple[float, ...], until_ms: float) -> Any:
        """State after these stimuli from what the untreated heart did with them, None where it has to be paced."""
        if self.memory is None or self.keeps or not isinstance(self.model, ReentrantEikonal):
            return None
        return self.memory.state_of(self.model, self.name, self.nodes, times_ms, until_ms)

    def _grown(self, branch: _Branch | None, stimuli_ms: tuple[float, ...], coupling_ms: tuple[float, ...], until_ms: float) -> _Branch:
        """A branch (None: rest) with further stimuli; the log of the run is its last part."""
        times = (*branch.times_ms, *stimuli_ms) if branch else stimuli_ms
        if (state := self._remembered(times, until_ms)) is not None:
            return _Branch(coupling_ms, times, until_ms, state)
        start = branch.state if branch else self.model.rest()
        state, part, log = self._run(start, [(t, self.nodes) for t in stimuli_ms], until_ms)
        parts = (*branch.parts, part) if branch else (part,)
        clean = (branch is None or branch.clean) and not log.blocked and not log.waited
        if self.keeps and self.memory is not None and clean:
            self.memory.keep(self.name, times, until_ms, state, parts)
        return _Branch(coupling_ms, times, until_ms, state, parts if clean or branch is None else (), clean)

    def _drive(self, drive: Drive) -> None:
        beats = tuple(k * drive.cycle_ms for k in range(drive.computed_beats))
        branch = self._grown(None, beats, (), beats[-1] + self.protocol.extras[0].floor_ms)
        # what is remembered captured (planners.pacing.trains)
        log = join(branch.parts) if branch.parts else None
        lost = [k + 1 for k, t in enumerate(beats) if log is not None and not captured(log, t)]
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
        self._extras(branch, drive, notes)
        if len(self.result.inductions) == before:
            self.result.inductions.append(Induction(self.name, self.protocol.name, (), False, True, note="; ".join(notes)))

    def _burst(self, drive: Drive) -> bool:
        """A train without extrastimuli: what follows its last beat is looked at. False if it is not followed one to one."""
        beats = [k * drive.cycle_ms for k in range(drive.computed_beats)]
        state, part, _ = self._run(self.model.rest(), [(t, self.nodes) for t in beats[:-1]], beats[-1] - 1e-3)
        log = join([part])
        attempt = self._attempt(_Branch((), tuple(beats[:-1]), beats[-1] - 1e-3, state), beats[-1])
        answer = self._followed(attempt)
        followed = attempt.captured and all(captured(log, t) for t in beats[:-1])
        self.result.drives_captured.append(followed)
        if answer.turns:
            self._record(drive, (), answer)
        else:
            note = f"burst of {drive.beats} beats at {drive.cycle_ms:g} ms" + ("" if followed else ": not followed one to one")
            self.result.inductions.append(Induction(self.name, self.protocol.name, (), False, followed, note=note))
        return followed

    def _extras(self, branch: _Branch, drive: Drive, notes: list[str]) -> None:
        """Step the next extrastimulus down to loss of capture; hold it above its refractory interval and go on to the one after it.

        A wave that meets only recovered tissue starts no reentry, and after a longer interval all tissue has recovered the more: such
        intervals are not computed one by one. Which they are is found from the shortest that captures, by bisection.
        """
        level = len(branch.coupling_ms)
        extra, last_ms = self.protocol.extras[level], branch.times_ms[-1]
        intervals = extra.intervals_ms(drive.cycle_ms)
        known: dict[int, _Attempt] = {}

        def attempt(k: int) -> _Attempt:
            if k not in known:
                known[k] = self._attempt(branch, last_ms + intervals[k])
            return known[k]

        shortest = next((k for k in reversed(range(len(intervals))) if attempt(k).captured), -1)
        good: list[float] = list(intervals[: (first := _first_not_clean(attempt, shortest))])
        for k in range(first, shortest + 1):
            answer = self._followed(attempt(k))
            del known[k]
            if answer.turns:
                self._record(drive, (*branch.coupling_ms, intervals[k]), answer)
            if not answer.sustained:
                good.append(intervals[k])
            elif len(self.result.episodes) >= self.protocol.stop_after:
                return
        refractory = intervals[shortest + 1] if shortest + 1 < len(intervals) else None
        notes.append(f"S{level + 2} {extra.start_ms:g}-{refractory or extra.floor_ms:g} ms" + (" (loss of capture)" if refractory else ""))
        held = [c for c in good if refractory is None or c >= refractory + self.protocol.margin_ms]
        if not held or level + 1 == len(self.protocol.extras):
            return
        at = last_ms + held[-1]
        self._extras(
            self._grown(branch, (at,), (*branch.coupling_ms, held[-1]), at + self.protocol.extras[level + 1].floor_ms), drive, notes
        )

    def _attempt(self, branch: _Branch, at_ms: float) -> _Attempt:
        """One extrastimulus and its first wave."""
        self.result.attempts += 1
        times, until = (*branch.times_ms, at_ms), at_ms + FIRST_MS
        remembered = self._remembered(times, until)
        if remembered is not None and not np.isfinite(remembered.trial_ms).any():
            return _Attempt(at_ms, until, True, True)
        state, part, log = self._run(branch.state, [(at_ms, self.nodes)], until)
        took = captured(join([part]), at_ms)
        clean = took and log.quiet and not log.blocked and not log.waited
        if clean and self.keeps and branch.clean and self.memory is not None:
            self.memory.keep(self.name, times, until, state, (*branch.parts, part))
        return _Attempt(at_ms, until, took, clean, state, part)

    def _followed(self, attempt: _Attempt) -> _Answer:
        """What became of an extrastimulus once it is quiet, steady or sustained for long enough."""
        if not attempt.captured or attempt.clean or attempt.part is None:
            return _Answer(False, 0)
        at_ms = attempt.at_ms
        log, _, note = follow(
            lambda state, until: self._run(state, [], until)[:2],
            attempt.state,
            attempt.part,
            at_ms,
            attempt.until_ms,
            self.protocol.sustained,
        )
        turns = reentered(log, at_ms)
        if not turns:
            return _Answer(False, 0)
        lasted = float(log.activation_ms.max() - at_ms)
        if not note:
            return _Answer(False, turns, lasted, typical_cycle_ms(log), kind=kind_of(log, at_ms, False))
        last, cycle = last_cycles(log)
        return _Answer(True, turns, lasted, cycle, last, note, kind_of(log, at_ms, True))

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
            assert answer.last is not None
            self.result.episodes.append(Episode(self.name, drive.cycle_ms, coupling_ms, round(answer.cycle_ms, 3), answer.last))


def _first_not_clean(attempt: Callable[[int], _Attempt], shortest: int) -> int:
    """The longest interval (its number; intervals fall) whose wave is not clean; shortest + 1 if all are."""
    if shortest < 0 or attempt(shortest).clean:
        return shortest + 1
    low, high = -1, shortest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if attempt(middle).clean else (low, middle)
    return high
