"""The sodium conductance with which a coarse lattice carries a premature wave as the tissue does.

Where edges are longer than a front, a wave hops from plane to plane, and hops fail where the tissue between would still conduct: the less
excitable it is, the sooner. Measured: border zone (G_Na x 0.38, 0.285 / 0.163 m/s) on a lattice of 0.8 mm blocks a wave that the continuum
carries at 0.78 of its speed, and so circuits had to be longer than they are. Healthy tissue carries that one within 1 %, but not the
earliest that the continuum carries, and an electrode on it captured 20 ms too late. Tensors cannot mend that: they make the first wave
right. So the sodium conductance is raised for the lattice until the earliest wave of the continuum is not blocked and a later one not
slowed more than there, and the tensors are fitted for that cell. They come nearer to the tissue's own by that, and so do fronts that curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from solvers.ionic import IonicModel
from solvers.ionic.pacing import Cable
from solvers.monodomain import lattice as lattices
from solvers.monodomain import operators, wave_fit
from solvers.monodomain.lattice import Chain, Lattice, MakeCells, chain_along
from solvers.monodomain.log import BeatLog
from solvers.monodomain.schemes import Explicit
from solvers.monodomain.solver import DT_MS, STABLE_SHARE, few_threads
from twin.params import Param

REST_MS = Param(75.0, "ms", 40.0, 120.0, "chosen here: rest after repolarisation to -70 mV that a circuit at its shortest leaves")
EARLY_MS = Param(
    15.0, "ms", 0.0, 20.0, "measured: no tissue of ours carries a wave so soon after repolarisation to -70 mV (healthy: 25 ms)"
)
EARLIEST_WITHIN_MS = 3.0
"""How well the earliest coupling interval that conducts is told."""

THETA = 1.0
"""Mass blend of runs with this conductance. With the 2.2 of `wave_fit` plane waves are right within a few per cent across every fibre
direction, but the factors on the conductivities slow fronts that curve and block premature waves; with 0.3 the factors are least, but
plane waves 10 to 18 % off in one of ten directions. It is curves and premature waves that decide a cycle length (docs/reentry.md)."""

ENOUGH = Param(0.97, "1", 0.9, 1.0, "chosen here: mean slowing over the waves, relative to the continuum's, that is good enough")
GAINS = (1.0, 1.3, 1.7, 2.2, 2.9)
"""Factors on the sodium conductance that are tried, in this order."""

SODIUM = "G_Na"
FIBRES = np.array([[0.924, 0.383, 0.0], [0.892, 0.401, 0.207]])
FIBRES /= np.linalg.norm(FIBRES, axis=1)[:, None]
"""Two fibre directions off the lattice's axes; of each the wave along and three across are asked."""

WAVES = (0, 1, 3, 5)
RECOVERED_MV = -70.0
PUSH_MS_OF_WAY, FROM_MS, TO_MS, END_MS = 8.0, 25.0, 50.0, 75.0
"""Of a chain, in times of the asked speed: what is stimulated, where speeds are read, where it ends."""

Speeds = NDArray[np.float64]


@dataclass(frozen=True)
class Excitable:
    """model: with the sodium conductance for the lattice; gain: the factor on it; before, after: speed of a premature wave over that of the
    first, relative to the continuum's, without and with it (0 for a blocked one, mean over waves): the worse of a wave REST_MS after
    repolarisation and of the earliest that the continuum carries."""

    model: IonicModel
    gain: float
    before: float
    after: float


def excitable(lattice: Lattice, speeds_m_s: tuple[float, float], model: IonicModel, theta: float) -> Excitable:
    """The least of GAINS with which premature waves run as asked for by ENOUGH, or the best of them.

    speeds_m_s: along and across the fibres; theta: mass blend of the run. Half a minute at first, none once it is in the cache. Models
    without a sodium conductance stay as they are.
    """
    if SODIUM not in model.parameters:
        return Excitable(model, 1.0, math.nan, math.nan)
    d_l, d_t = ((v / wave_fit.speed_per_sqrt_d(model)) ** 2 for v in speeds_m_s)
    # lengths and conductivities enter as h / sqrt(D) alone
    size = np.round([lattice.edge_mm / math.sqrt(d_t), d_l / d_t], 2)
    name = wave_fit.key_of(model, size, np.round(lattice.reach / lattice.edge_mm, 6), theta, EARLY_MS.value, EARLIEST_WITHIN_MS)
    tried = wave_fit.cached("excitability", name, lambda: {"tried": _tried(lattice, speeds_m_s, model, theta)})["tried"]
    gain, after = max(tried.tolist(), key=lambda row: min(row[1], ENOUGH.value))
    return Excitable(scaled(model, gain), gain, float(tried[0, 1]), after)


def _tried(lattice: Lattice, speeds_m_s: tuple[float, float], model: IonicModel, theta: float) -> NDArray[np.float64]:
    """Gain and relative premature speed, row by row, up to the first that is good enough."""
    goals = continuum(model)
    rows: list[tuple[float, float]] = []
    for gain in GAINS:
        found = on_lattice(lattice, speeds_m_s, scaled(model, gain), theta, [coupling for coupling, _ in goals])
        rows.append((gain, min(speed / goal if goal > 0.0 else 1.0 for speed, (_, goal) in zip(found, goals, strict=True))))
        if rows[-1][1] >= ENOUGH.value:
            break
    return np.array(rows)


def scaled(model: IonicModel, gain: float) -> IonicModel:
    """The model with another sodium conductance; its initial state stays."""
    return replace(model, parameters={**model.parameters, SODIUM: model.parameters[SODIUM] * gain}) if gain != 1.0 else model


def continuum(model: IonicModel) -> list[tuple[float, float]]:
    """Coupling intervals (ms), and the speed of a wave so soon after the first, relative to the first's: the interval that leaves about
    REST_MS, and the earliest that conducts."""
    name = wave_fit.key_of(model, REST_MS.value, EARLY_MS.value, EARLIEST_WITHIN_MS)
    kept = wave_fit.cached("excitability", name, lambda: {"found": np.array(_continuum(model))})
    return [(float(coupling), float(speed)) for coupling, speed in kept["found"]]


def _continuum(model: IonicModel) -> list[tuple[float, float]]:
    h, speed = wave_fit.FINE_SPACING.value, wave_fit.speed_per_sqrt_d(model)
    fine = lattices.box((h, h, h), "kuhn")
    # a plane wave does not feel the other axes; a low value keeps them from limiting the step
    wave = chain_along(fine, np.array([1.0, 0.0, 0.0])), fine.weights(np.array([1.0, 0.1, 0.1, 0.0, 0.0, 0.0]))

    def relative(coupling_ms: float) -> float:
        first, second = paced_speeds(fine, [wave], [speed], wave_fit.cells_of(model), 0.5, coupling_ms)[0]
        return float(second / first)

    ends_ms = float(round(_duration_ms(model)))
    rested = ends_ms + REST_MS.value, relative(ends_ms + REST_MS.value)
    blocked, earliest = ends_ms + EARLY_MS.value, rested
    while earliest[0] - blocked > EARLIEST_WITHIN_MS:
        middle = 0.5 * (blocked + earliest[0])
        found = relative(middle)
        blocked, earliest = (blocked, (middle, found)) if found > 0.0 else (middle, earliest)
    return [rested, earliest]


def on_lattice(
    lattice: Lattice, speeds_m_s: tuple[float, float], model: IonicModel, theta: float, coupling_ms: Sequence[float]
) -> list[float]:
    """Speed of premature waves over that of the first, per interval, mean over fibre directions and waves; a blocked one counts as 0."""
    per_root = wave_fit.speed_per_sqrt_d(model)
    d_l, d_t = ((v / per_root) ** 2 for v in speeds_m_s)
    table = wave_fit.measure(lattice, FIBRES, d_l, d_t, model, theta)
    waves, asked = [], []
    for f, strain, bend in zip(FIBRES, table.strain, table.bend):
        root = math.sqrt(d_t) * np.eye(3) + (math.sqrt(d_l) - math.sqrt(d_t)) * np.outer(f, f)
        weights = lattice.weights(wave_fit.components(root @ wave_fit.exponential(strain) @ root), d_t * bend)
        for d in wave_fit.directions(f)[list(WAVES)]:
            waves.append((chain_along(lattice, d), weights))
            asked.append(per_root * float(np.linalg.norm(root @ d)))
    out = []
    for coupling in coupling_ms:
        first, second = paced_speeds(lattice, waves, asked, wave_fit.cells_of(model), theta, coupling).T
        out.append(float(np.mean(np.divide(second, first, out=np.zeros_like(second), where=first > 0.0))))
    return out


def _duration_ms(model: IonicModel) -> float:
    """Of one beat of one cell, from its stimulus to RECOVERED_MV."""
    dt_ms = 0.02
    v = Cable(model).run(dt_ms, np.arange(round(700.0 / dt_ms)) < round(lattices.PUSH_MS / dt_ms), lattices.PUSH_MV_MS, every=5)[0]
    return float(np.flatnonzero(np.asarray(v) > RECOVERED_MV)[-1] * 5 * dt_ms)


def paced_speeds(
    lattice: Lattice,
    waves: Sequence[tuple[Chain, NDArray[np.float64]]],
    asked_m_s: Sequence[float],
    cells: MakeCells,
    theta: float,
    coupling_ms: float,
) -> Speeds:
    """Speeds of a plane wave and of one started so long after it, (w, 2) m/s; 0 where blocked. Arguments as of `lattice.wave_speeds`."""
    start, column, stiffness, mass, lumped, at, wave = lattices.rows(lattice, waves, END_MS * max(asked_m_s))
    per_row = np.repeat(lumped, np.diff(start))
    ops = operators.Operators(np.arange(len(at), dtype=np.int32), start, column, stiffness / per_row, mass / per_row, lumped)
    products = operators.products_needed(theta)
    dt_ms = min(DT_MS.value, STABLE_SHARE.value * operators.stability_limit_ms(ops, theta, products))
    state, way = cells(ops.nodes), np.asarray(asked_m_s)[wave]
    v = np.ascontiguousarray(state.initial_v()).copy()
    current, rate = np.zeros_like(v), v.dtype.type(lattices.PUSH_MV_MS)
    log, scheme = BeatLog(len(v), lattices.THRESHOLD_MV, RECOVERED_MV), Explicit(ops, theta, products, dt_ms, v.dtype)
    pushed = at <= PUSH_MS_OF_WAY * way
    with few_threads(len(v)):
        for step in range(round((coupling_ms + 2.0 * END_MS) / dt_ms)):
            now = step * dt_ms
            state.advance(v, dt_ms, current)
            if now % coupling_ms < lattices.PUSH_MS:
                current[pushed] -= rate
            scheme.advance(v, current, now, log)
            log.collect()
    beats, out = log.activations(ops.nodes), np.zeros((len(waves), 2))
    late = beats.activation_ms >= coupling_ms
    for k, mine in enumerate((~late, late)):
        times = np.full(len(at), np.nan)
        times[beats.node[mine]] = beats.activation_ms[mine]
        for w in range(len(waves)):
            read = (wave == w) & (at >= FROM_MS * way) & (at <= TO_MS * way)
            if np.isfinite(times[read]).all():
                out[w, k] = 1.0 / np.polyfit(at[read], times[read], 1)[0]
    return out
