"""The monodomain equation on a tetrahedral heart: V_t = div(D grad V) - I_ion + I_stim."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from meshing.quality import tet_volumes
from solvers.monodomain import operators
from solvers.monodomain.device import Device, device_for
from solvers.monodomain.interpolated import InterpolatedCurrent
from solvers.monodomain.log import BeatLog
from solvers.monodomain.pulses import Pulse, judge, pulses_of, still_open
from solvers.monodomain.record import Observer, Traces
from solvers.monodomain.schemes import CrankNicolson, Explicit, Scheme
from solvers.monodomain.state import Snapshot
from solvers.monodomain.store import BeatStore
from twin.experiment import Result, Status, Stimulus
from twin.params import Param
from twin.run import content_hash

DT_MS = Param(0.05, "ms", 0.005, 0.1, "measured: velocity within 1 % of dt 0.005 (gates first, unsplit), design/monodomain.md")
STABLE_SHARE = Param(0.8, "1", 0.5, 0.95, "share of the linear stability limit that is used, design/monodomain.md")
THETA = Param(0.3, "1", 0.0, 1.0, "mass blend whose velocity error over orientations can be tuned out, design/monodomain.md")
EDGE_WARN_MM = Param(
    0.6, "mm", 0.5, 0.8, "mean edge above which velocities are off by more than the correction can mend, design/monodomain.md"
)
EDGE_LIMIT_MM = Param(0.8, "mm", 0.6, 1.0, "mean edge above which a velocity is no prediction: up to 47 % off, design/monodomain.md")
NODES_PER_THREAD = 4096
"""Fewer nodes are stepped faster than two threads can be brought together."""


@contextmanager
def few_threads(nodes: int) -> Iterator[None]:
    """Within, compiled loops use no more threads than so many nodes are worth: waiting for one another would cost more than it gives."""
    threads = numba.get_num_threads()
    numba.set_num_threads(max(1, min(threads, nodes // NODES_PER_THREAD)))
    try:
        yield
    finally:
        numba.set_num_threads(threads)


class CellState(Protocol):
    """What the solver asks of `solvers.ionic.Cells`."""

    def initial_v(self) -> NDArray[Any]:
        """Resting voltage of every cell, (n,) mV, float32 or float64."""

    def advance(self, v: NDArray[Any], dt_ms: float, current: NDArray[Any]) -> None:
        """Advance the gates with v, then write the ionic current (n,) mV/ms (dV/dt = -current)."""

    def snapshot(self) -> Any:
        """A copy of the state."""

    def restore(self, state: Any) -> None:
        """Go back to a copy."""


@dataclass(frozen=True)
class Settings:
    """How to solve. dt_ms None: the smaller of DT_MS and a safe share of the stability limit.

    theta: share of lumped mass in the diffusion; products: mass products per explicit step (None: enough for 90 % of the correction,
    2 at the default theta, 4 at 0); scheme: "explicit", "reference" (Crank-Nicolson, conjugate gradients)
    or "svi" (that with full mass, whatever theta, and state-variable interpolation: `interpolated`); capacitance_uF_mm3: chi Cm,
    turns stimulus strengths into mV/ms; device: "cpu", "cuda" (the explicit scheme on an NVIDIA GPU) or "auto" (there if there is one).

    Every cell is advanced in every step. Skipping blocks of 64 cells at rest (V below -75 mV and within 0.1 mV of where it was, advanced
    by four steps at once) was measured: activation times moved by at most 0.0014 ms and durations by 0.05 ms, but of the whole step of a
    slab that rests for half of the time only 9 to 11 % were saved; with eight steps at once durations moved by
    8 ms. So it is not done.
    """

    dt_ms: float | None = None
    theta: float = THETA.value
    products: int | None = None
    scheme: str = "explicit"
    threshold_mv: float = -40.0
    recovery_mv: float = -70.0
    capacitance_uF_mm3: float = 1.4
    device: str = "cpu"


@dataclass(frozen=True)
class Stop:
    """Why a run is to end: `reason` in a word, `message` for people, numbers for the summary."""

    message: str
    reason: str = "asked"
    numbers: Mapping[str, Any] = field(default_factory=dict)


class _Watch:
    """Shows an observer of the caller's the voltage of every mesh node."""

    def __init__(self, watch: Callable[[float, NDArray[np.float64]], None], solver: Monodomain, every_ms: float) -> None:
        self.watch, self.solver, self.every_ms = watch, solver, every_ms

    def see(self, time_ms: float, v: NDArray[Any]) -> None:
        """Pass it on."""
        self.watch(time_ms, self.solver.v_mv())


class Monodomain:
    """Solver on the conducting part of a mesh.

    points_mm (n, 3), tets (m, 4), fibre (m, 3), d_l, d_t (m,) mm^2/ms, conducting (m,) bool (None: all), kappa_l, kappa_t (m,) factors on
    d_l and d_t (None: 1), tensor (m, 6) in place of all these (what `correction.correct` returns). `cells` is called once with the
    mesh nodes (k,) int32 in the solver's order and returns their Cells, for example `lambda nodes: Cells(models,
    region_of_node[nodes])`. beats: folder to which the log of beats is streamed (None: it stays in memory and grows).
    """

    def __init__(
        self,
        points_mm: NDArray[np.float64],
        tets: NDArray[np.int32],
        fibre: NDArray[np.float64],
        d_l: NDArray[np.float64],
        d_t: NDArray[np.float64],
        cells: Callable[[NDArray[np.int32]], CellState],
        settings: Settings | None = None,
        *,
        conducting: NDArray[np.bool_] | None = None,
        kappa_l: NDArray[np.float64] | None = None,
        kappa_t: NDArray[np.float64] | None = None,
        tensor: NDArray[np.float64] | None = None,
        beats: Path | None = None,
    ) -> None:
        settings = settings or Settings()
        d_l = d_l if kappa_l is None else d_l * kappa_l
        d_t = d_t if kappa_t is None else d_t * kappa_t
        self.points_mm = points_mm
        self.ops = operators.build(points_mm, tets, fibre, d_l, d_t, conducting, tensor)
        products = operators.products_needed(settings.theta) if settings.products is None else settings.products
        self.limit_ms = operators.stability_limit_ms(self.ops, settings.theta, products)
        explicit = settings.scheme == "explicit"
        bound = STABLE_SHARE.value * self.limit_ms if explicit else math.inf
        self.dt_ms = settings.dt_ms if settings.dt_ms is not None else min(DT_MS.value, bound)
        theta = 0.0 if settings.scheme == "svi" else settings.theta
        self.settings = replace(settings, dt_ms=self.dt_ms, products=products, theta=theta)
        self.nodes = self.ops.nodes
        x = points_mm[self.nodes]
        rows = np.repeat(np.arange(len(x)), np.diff(self.ops.start))
        self.mean_edge_mm = float(np.linalg.norm(x[rows] - x[self.ops.column], axis=1).mean())
        self._row = np.full(len(points_mm), -1, np.int32)
        self._row[self.nodes] = np.arange(len(self.nodes), dtype=np.int32)
        self._cells = cells(self.nodes)
        self._v = np.ascontiguousarray(self._cells.initial_v()).copy()
        self._current = np.zeros_like(self._v)
        self.log = BeatLog(self.nodes, settings.threshold_mv, settings.recovery_mv, BeatStore(beats) if beats else None)
        self._scheme: Scheme
        if explicit:
            self._scheme = Explicit(self.ops, settings.theta, products, self.dt_ms, self._v.dtype)
        elif settings.scheme == "svi":
            inside = tets if conducting is None else tets[conducting]
            between = InterpolatedCurrent(self._row[inside], tet_volumes(points_mm, inside), self._cells)
            self._scheme = CrankNicolson(self.ops, 0.0, self.dt_ms, between=between)
        else:
            self._scheme = CrankNicolson(self.ops, settings.theta, self.dt_ms)
        self._step = 0
        self._quiet_since = 0
        self.device: Device | None = device_for(self.settings, self.ops, self._cells, self.log, self._v)

    @property
    def cells(self) -> CellState:
        """The cells, for reading or changing."""
        if self.device is not None:
            self.device.release()
        return self._cells

    @property
    def time_ms(self) -> float:
        """Time since rest."""
        return self._step * self.dt_ms

    def limits(self) -> list[str]:
        """What this mesh cannot be asked for, as sentences; empty if it is fine enough."""
        said = f"mean edge {self.mean_edge_mm:.2f} mm"
        if self.mean_edge_mm > EDGE_LIMIT_MM.value:
            return [f"{said}: conduction velocities are not predictive above {EDGE_LIMIT_MM.value:g} mm; refine the mesh"]
        if self.mean_edge_mm > EDGE_WARN_MM.value:
            return [f"{said}: velocities are doubtful above {EDGE_WARN_MM.value:g} mm, most of all across the fibres; refine the mesh"]
        return []

    def v_mv(self) -> NDArray[np.float64]:
        """Voltage of every mesh node, (n,) mV, NaN where nothing conducts."""
        if self.device is not None:
            self.device.pull_v()
        out = np.full(len(self._row), np.nan)
        out[self.nodes] = self._v
        return out

    def set_v_mv(self, v: NDArray[np.float64]) -> None:
        """Impose a voltage, (n,) mV at mesh nodes; the cells keep their gates."""
        if self.device is not None:
            self.device.release()
        self._v[:] = v[self.nodes]

    def fits(self) -> dict[str, Any]:
        """What a state must agree with to be this solver's."""
        cells = {"models": list(getattr(self.cells, "fingerprint", ()))}
        return {
            "nodes": content_hash(self.nodes),
            "dt_ms": self.dt_ms,
            "precision": str(self._v.dtype),
            "scheme": self.settings.scheme,
            "levels_mv": self.log.levels_mv.tolist(),
            **cells,
        }

    def snapshot(self) -> Snapshot:
        """Copy the complete state."""
        cells = self.cells.snapshot()
        kept = (self._v.copy(), cells, self.log.snapshot(), self._scheme.snapshot())
        return Snapshot(self._step, *kept, self._quiet_since, self.fits())

    def restore(self, state: Snapshot) -> None:
        """Go back to a copied state; what follows is bit for bit what followed then."""
        self._step, self._quiet_since = state.step, state.quiet_since
        self.cells.restore(state.cells)
        self._v[:] = state.v
        self.log.restore(state.log)
        self._scheme.restore(state.scheme)

    def run(
        self,
        stimuli: Sequence[Stimulus],
        until_ms: float,
        *,
        probes: NDArray[np.integer] | None = None,
        probe_every_ms: float = 1.0,
        observers: Sequence[Observer] = (),
        stop: Callable[[Monodomain], Stop | str | None] | None = None,
        quiet_ms: float | None = None,
        watch: Callable[[float, NDArray[np.float64]], None] | None = None,
        every_ms: float = 1.0,
        progress: Callable[[float], None] | None = None,
    ) -> Result:
        """Advance to `until_ms` (counted from rest, not from now) and say how it went.

        probes: mesh nodes sampled every `probe_every_ms` (NaN where nothing conducts); observers see the voltage at their own pace. Every
        `every_ms`: `stop` may return a reason to end, `watch` receives time and v_mv(), `progress` the fraction done. quiet_ms: end once
        no node was above the threshold for so long and no pulse is left. The activations returned are those since rest, so a branch
        includes the train it came from. Small hearts run on fewer threads than are set: waiting for one another would cost more than it
        gives. Ends as DONE, STOPPED, NO_CAPTURE (pulses were given and none was followed by an upstroke beside its electrode) or
        DIVERGED; the summary's `stop` says more about the last three.
        """
        traces = Traces(self._row[np.asarray(probes if probes is not None else [], dtype=np.int64)], probe_every_ms)
        seen = [*observers, traces]
        if watch is not None:
            seen.append(_Watch(watch, self, every_ms))
        with few_threads(len(self.nodes)):
            pulses, status, message, stopped = self._loop(stimuli, until_ms, seen, stop, quiet_ms, every_ms, progress)
        times, sampled = traces.arrays()
        summary = self._summary([bool(p.captured) for p in pulses]) | {"stop": stopped}
        return Result(status, message, self.log.activations(), times, sampled, summary)

    def _loop(
        self,
        stimuli: Sequence[Stimulus],
        until_ms: float,
        observers: Sequence[Observer],
        stop: Callable[[Monodomain], Stop | str | None] | None,
        quiet_ms: float | None,
        every_ms: float,
        progress: Callable[[float], None] | None,
    ) -> tuple[list[Pulse], Status, str, dict[str, Any]]:
        """Step until something ends it: the pulses of this run, how and why it ended, and more about that."""
        given = [p for s in stimuli for p in self._pulses(s) if p.start_ms < until_ms - 1e-9]
        pulses = still_open(given, self.log, self.time_ms)
        self.log.count_laps_from(max((start for s in stimuli for start in s.start_ms), default=self.log.since_ms))
        first_step, last_step = self._step, round(until_ms / self.dt_ms)
        last_pulse_ms = max((p.end_ms for p in pulses), default=self.time_ms)
        every_steps = max(1, round(every_ms / self.dt_ms))
        paces = [max(1, round(o.every_ms / self.dt_ms)) for o in observers]
        status, message, more = Status.DONE, f"reached {until_ms:g} ms", {}
        while True:
            for observer, pace in zip(observers, paces):
                if self._step % pace == 0:
                    observer.see(self.time_ms, self._v if self.device is None else self.device.look(observer))
            if self._step % every_steps == 0:
                if progress is not None:
                    progress((self._step - first_step) / max(1, last_step - first_step))
                judge(pulses, self.log, self.time_ms)
                reason = stop(self) if stop is not None else None
                if reason is not None:
                    found = reason if isinstance(reason, Stop) else Stop(reason)
                    status, message, more = Status.STOPPED, found.message, {"reason": found.reason, **found.numbers}
                    break
            if self._step >= last_step:
                break
            if self.device is None:
                above, wrong = self._advance(pulses)
                self._quiet_since = self._step if above else self._quiet_since
            else:
                # on a device, up to where somebody looks: the next condition, a frame, or when it could have been quiet for long enough
                quiet_step = math.inf if quiet_ms is None else (max(self._quiet_since * self.dt_ms, last_pulse_ms) + quiet_ms) / self.dt_ms
                until = int(min(last_step, self._step - self._step % every_steps + every_steps, max(quiet_step, self._step + 1)))
                burst = self.device.advance(self._step, until, self._quiet_since, pulses, observers, paces)
                self._step, self._quiet_since, wrong = burst.step, burst.excited, burst.wrong
            if wrong >= 0:
                message, more = self._divergence(wrong)
                status = Status.DIVERGED
                break
            if quiet_ms is not None and self.time_ms - max(self._quiet_since * self.dt_ms, last_pulse_ms) >= quiet_ms:
                status, message = Status.STOPPED, f"quiet: no node above {self.settings.threshold_mv:g} mV for {quiet_ms:g} ms"
                more = {"reason": "quiet", "quiet_since_ms": self._quiet_since * self.dt_ms}
                break
        judge(pulses, self.log, self.time_ms)
        over = [p.captured for p in pulses if p.judged(self.time_ms)]
        if over and not any(p.captured for p in pulses) and status in (Status.DONE, Status.STOPPED):
            status, more = Status.NO_CAPTURE, {"reason": "no_capture", "pulses": len(over)}
            message = "no pulse was followed by an upstroke beside its electrode; raise strength, duration or area"
        return pulses, status, message, more

    def _advance(self, pulses: Sequence[Pulse]) -> tuple[int, int]:
        """One step: gates and ionic current from V_n, stimulus, diffusion. Returns nodes above the threshold and a bad row or -1."""
        now = self.time_ms
        self._cells.advance(self._v, self.dt_ms, self._current)
        for p in pulses:
            share = (min(p.end_ms, now + self.dt_ms) - max(p.start_ms, now)) / self.dt_ms
            if share > 1e-9:
                self._current[p.rows] -= self._v.dtype.type(min(share, 1.0) * p.rate_mv_ms)
        self._scheme.advance(self._v, self._current, now, self.log)
        self._step += 1
        return self.log.collect()

    def _pulses(self, s: Stimulus) -> list[Pulse]:
        return pulses_of(s, self._row, self.ops, self.settings.capacitance_uF_mm3)

    def _divergence(self, row: int) -> tuple[str, dict[str, Any]]:
        node = int(self.nodes[row])
        x, y, z = self.points_mm[node]
        safe = STABLE_SHARE.value * self.limit_ms
        message = (
            f"diverged at node {node} ({x:.2f}, {y:.2f}, {z:.2f} mm), {self.time_ms:.3f} ms: dt is {self.dt_ms:g} ms and the stability"
            f" limit of this mesh {self.limit_ms:.4g} ms; use dt below {safe:.3g} ms"
        )
        numbers = {"node": node, "at_mm": [float(x), float(y), float(z)], "time_ms": self.time_ms, "dt_safe_ms": safe}
        return message, {"reason": "diverged", **numbers}

    def _summary(self, captured: list[bool]) -> dict[str, Any]:
        return {
            "nodes": len(self.nodes),
            "nodes_excluded": len(self._row) - len(self.nodes),
            "mean_edge_mm": self.mean_edge_mm,
            "limits": self.limits(),
            "dt_ms": self.dt_ms,
            "dt_limit_ms": self.limit_ms,
            "steps": self._step,
            "end_ms": self.time_ms,
            "scheme": self.settings.scheme,
            "device": "cpu" if self.device is None else "cuda",
            "theta": self.settings.theta,
            "mass_products": self.settings.products,
            "captured": captured,
            "beats": self.log.size,
        }
