"""Voltages that part scar, border zone and healthy muscle in this map: the published cut-offs as prior, the map's own mixture as data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.params import Param

Array = NDArray[np.float64]

SCAR_MV = Param(0.5, "mV", 0.3, 0.8, "bipolar voltage of dense scar, Marchlinski 2000 (Circulation 101:1288); range chosen here")
HEALTHY_MV = Param(1.5, "mV", 1.0, 2.2, "bipolar voltage of normal endocardium, Marchlinski 2000; range chosen here")
UNIPOLAR_MV = Param(
    8.3, "mV", 7.0, 9.5, "LV unipolar voltage of normal muscle, Hutchinson 2011 (Circ Arrhythm Electrophysiol 4:49); range ours"
)
SHAPE_ERROR = Param(
    0.25, "1", 0.1, 0.4, "relative error of a cut-off because electrodes see mixtures of tissues, which three log-normals are not (ours)"
)
CENTRES_MV = (0.22, 0.9, 3.8)
SPREAD = 0.5
"""Start of the mixture: medians of scar, border zone and healthy points, and their spread in log voltage (chosen here)."""
LEAST_SHARE = 0.03
LEAST_POINTS = 100
DRAWS = 40


@dataclass(frozen=True)
class Threshold:
    """One cut-off: value, 95 % interval, prior interval (mV), whether the map shows it, and what set it."""

    value: float
    interval: tuple[float, float]
    prior: tuple[float, float]
    identified: bool
    set_by: str


def mixture(log_mv: Array, rounds: int = 60) -> tuple[Array, Array, Array]:
    """Shares, means and spreads (3,) of a mixture of three log-normals, by expectation-maximisation with weak priors."""
    share, mean, spread = np.full(3, 1 / 3), np.log(CENTRES_MV), np.full(3, SPREAD)
    for _ in range(rounds):
        density = share / spread * np.exp(-0.5 * ((log_mv[:, None] - mean) / spread) ** 2)
        weight = density / np.maximum(density.sum(axis=1, keepdims=True), 1e-300)
        count = weight.sum(axis=0)
        # priors worth ten points: they keep a class that the map does not show at its published place
        share = (count + 1.0) / (count.sum() + 3.0)
        mean = (weight.T @ log_mv + 10.0 * np.log(CENTRES_MV)) / (count + 10.0)
        off2 = ((log_mv[:, None] - mean) ** 2 * weight).sum(axis=0)
        spread = np.clip(np.sqrt((off2 + 10.0 * SPREAD**2) / (count + 10.0)), 0.15, 1.0)
    return share, mean, spread


def crossing(share: Array, mean: Array, spread: Array, low: int) -> float:
    """Voltage at which a point is as likely of class `low` as of the next."""
    grid = np.linspace(mean[low], mean[low + 1], 400)
    log = [np.log(share[k] / spread[k]) - 0.5 * ((grid - mean[k]) / spread[k]) ** 2 for k in (low, low + 1)]
    return float(np.exp(grid[int(np.argmin(np.abs(log[0] - log[1])))]))


def voltage_thresholds(bipolar_mv: Array, seed: int = 0) -> dict[str, Threshold]:
    """The two bipolar cut-offs; published ones, said to be so, where the map has too few points or lacks one of the classes."""
    good = bipolar_mv[np.isfinite(bipolar_mv) & (bipolar_mv > 0)]
    names = ("threshold/scar_bipolar_mv", "threshold/healthy_bipolar_mv")
    params = (SCAR_MV, HEALTHY_MV)
    if len(good) < LEAST_POINTS:
        text = "published cut-off: no voltages" if not len(good) else f"published cut-off: only {len(good)} voltages"
        return {n: Threshold(p.value, (p.low, p.high), (p.low, p.high), False, text) for n, p in zip(names, params, strict=True)}
    logs, rng = np.log(good), np.random.default_rng([seed, 83])
    fitted = mixture(logs)
    drawn = [mixture(logs[rng.integers(0, len(logs), len(logs))]) for _ in range(DRAWS)]
    out = {}
    for low, (name, param) in enumerate(zip(names, params, strict=True)):
        shown = bool(min(fitted[0][low], fitted[0][low + 1]) > LEAST_SHARE)
        values = np.array([crossing(*d, low) for d in drawn])
        prior_sd = (param.high - param.low) / 4.0
        data_sd = float(np.hypot(values.std(), float(SHAPE_ERROR) * crossing(*fitted, low)))
        weight = prior_sd**2 / (prior_sd**2 + data_sd**2) if shown else 0.0
        mode = weight * crossing(*fitted, low) + (1.0 - weight) * param.value
        sd = prior_sd * np.sqrt(1.0 - weight)
        text = (
            f"mixture of {len(good)} voltages and the published cut-off" if shown else "published cut-off: the map lacks one of the classes"
        )
        identified = shown and sd < 0.7 * prior_sd
        out[name] = Threshold(mode, (mode - 1.96 * sd, mode + 1.96 * sd), (param.low, param.high), bool(identified), text)
    return out
