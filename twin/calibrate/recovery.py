"""Action-potential duration and its gradients from the T wave, or from measured recovery times: few numbers, flagged where not told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twin.params import Param
from twin.patient import LEADS, Ecg

Array = NDArray[np.float64]

APD_MEAN = Param(
    290.0, "ms", 220.0, 360.0, "ventricular action potential at 50 % to 90 % repolarisation near 60-75 / min; range chosen here"
)
APD_TRANSMURAL = Param(
    -15.0,
    "ms",
    -55.0,
    25.0,
    "epicardium minus endocardium: -20 to 0 ms in whole human hearts (Taggart 2001, Opthof 2017, from memory); range chosen here",
)
APD_APICOBASAL = Param(
    10.0, "ms", -30.0, 50.0, "base minus apex: reports disagree even in sign (Ramanathan 2006, Janse 2012, from memory); range chosen here"
)
NAMES = ("apd/mean_ms", "apd/transmural_ms", "apd/apicobasal_ms")
PARAMS = (APD_MEAN, APD_TRANSMURAL, APD_APICOBASAL)
CORRELATED_MS = Param(80.0, "ms", 40.0, 150.0, "errors of a modelled T wave go together for half of it (ours)")
SIGNALS = Param(3.0, "1", 2.0, 8.0, "independent signals among twelve leads of one smooth wave: about those of a dipole (ours)")
LEAST_ERROR = Param(0.25, "1", 0.15, 0.5, "of a lead's T wave: what electrodes and the shape of repolarisation are wrong by (ours)")
ROBUST_ROUNDS = 8
RECOVERY_NOISE = Param(12.0, "ms", 6.0, 20.0, "activation-recovery intervals against APD, Haws and Lux 1990 (from memory) and annotation")
IDENTIFIED = 0.7
STEP_MS = 4.0
ROUNDS = 6


class RecoveryModel(Protocol):
    """What the T wave is computed with: `solvers.ecg.LeadField`."""

    def qrst(self, arrival_ms: Array, apd_ms: Array, time_ms: Array) -> Array:
        """Leads (12, t) mV."""
        ...


@dataclass(frozen=True)
class Recovery:
    """mean, sd (3,) of NAMES after the data, prior_sd (3,); correlation: of the T wave's leads (NaN without an ECG); set_by: for people."""

    mean: Array
    sd: Array
    prior_sd: Array
    correlation: float
    set_by: str

    def apd_ms(self, transmural: Array, apicobasal: Array) -> Array:
        """Duration at the nodes (n,) ms."""
        return np.asarray(self.mean[0] + self.mean[1] * (transmural - 0.5) + self.mean[2] * (apicobasal - 0.5), np.float64)

    def rows(self) -> dict[str, dict[str, object]]:
        """For posterior.json, one row for each of NAMES."""
        out: dict[str, dict[str, object]] = {}
        for k, (name, param) in enumerate(zip(NAMES, PARAMS, strict=True)):
            low, high = self.mean[k] - 1.96 * self.sd[k], self.mean[k] + 1.96 * self.sd[k]
            share = self.sd[k] / self.prior_sd[k]
            out[name] = {
                "unit": "ms",
                "mode": round(float(self.mean[k]), 1),
                "interval_95": [round(float(low), 1), round(float(high), 1)],
                "prior_95": [round(param.value - 1.96 * self.prior_sd[k], 1), round(param.value + 1.96 * self.prior_sd[k], 1)],
                "width_over_prior": round(float(share), 3),
                "identified": bool(share < IDENTIFIED),
                "set_by": self.set_by,
            }
        return out


def prior() -> tuple[Array, Array]:
    """Mean and standard deviation (3,) of NAMES; a Param's range is two standard deviations each way."""
    return np.array([p.value for p in PARAMS]), np.array([(p.high - p.low) / 4.0 for p in PARAMS])


def from_t_wave(
    model: RecoveryModel, arrival_ms: Array, coordinates: Mapping[str, Array], ecg: Ecg, shift_ms: float, scale: float
) -> Recovery | None:
    """Duration and gradients that the T wave asks for, activation as given; None where the recording ends before a T wave can.

    shift_ms: of the recording against model time (`EcgFit.shift_ms`), scale: of its amplitude against the model's, from the QRS.
    Gauss-Newton with differences, independent Gaussian priors, errors correlated over CORRELATED_MS.
    """
    mean, sd = prior()
    last = float(arrival_ms[np.isfinite(arrival_ms)].max())
    # a QRS of the next beat must not be taken for a T wave
    time = np.arange(last + 40.0, last + 40.0 + 420.0, STEP_MS)
    available = float(ecg.time_ms[-1]) - shift_ms
    time = time[time < available]
    if len(time) * STEP_MS < 200.0:
        return None
    measured = _recorded(ecg, time + shift_ms)
    x, y = coordinates["transmural"] - 0.5, coordinates["apicobasal"] - 0.5

    def predicted(p: Array) -> Array:
        return np.asarray(scale * model.qrst(arrival_ms, p[0] + p[1] * x + p[2] * y, time), np.float64)

    at = _start(predicted, measured, mean, sd)
    size = np.sqrt((measured**2).mean(axis=1))
    precision = np.diag(1.0 / sd**2)
    covariance = np.diag(sd**2)
    for _ in range(ROUNDS):
        base = predicted(at)
        columns = np.stack([((predicted(at + step) - base) / 2.0).ravel() for step in 2.0 * np.eye(3)], axis=1)
        residual = measured - base
        error = np.maximum(np.sqrt((residual**2).mean(axis=1)), float(LEAST_ERROR) * np.maximum(size, 0.2 * size.max()))
        weight = np.repeat(float(SIGNALS) / 12.0 * STEP_MS / float(CORRELATED_MS) / error**2, len(time))
        covariance = np.asarray(np.linalg.inv(columns.T @ (weight[:, None] * columns) + precision), np.float64)
        move = covariance @ (columns.T @ (weight * residual.ravel()) + precision @ (mean - at))
        at = at + np.clip(move, -25.0, 25.0)
    likeness = _likeness(predicted(at), measured)
    if likeness < 0.3:
        # a T wave that the model cannot make says nothing about its parameters
        return Recovery(mean, sd, sd, likeness, "prior: the model does not make this T wave")
    return Recovery(at, np.sqrt(np.diag(covariance)), sd, likeness, "T wave; the shape of repolarisation is assumed")


def _start(predicted: Callable[[Array], Array], measured: Array, mean: Array, sd: Array) -> Array:
    """Best of a coarse grid: the T wave's sign and place have more than one optimum."""
    best, at = -np.inf, mean
    for a in (-1.5, -0.5, 0.5, 1.5):
        for b in (-1.0, 0.0, 1.0):
            for c in (-1.0, 0.0, 1.0):
                p = mean + sd * np.array([a, b, c])
                found = _likeness(predicted(p), measured)
                if found > best:
                    best, at = found, p
    return at


def _likeness(a: Array, b: Array) -> float:
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / max(norm, 1e-12))


def _recorded(ecg: Ecg, time_ms: Array) -> Array:
    """The leads (12, t) at times of the recording, freed of their median."""
    return np.stack([np.interp(time_ms, ecg.time_ms, ecg.leads[name]) - np.median(ecg.leads[name]) for name in LEADS])


def from_intervals(points: Mapping[str, Array], interval_ms: Array) -> Recovery:
    """Duration and gradients from activation-recovery intervals (k,) ms at points with coordinates transmural and apicobasal (k,)."""
    mean, sd = prior()
    good = np.isfinite(interval_ms)
    design = np.stack([np.ones(good.sum()), points["transmural"][good] - 0.5, points["apicobasal"][good] - 0.5], axis=1)
    precision = np.diag(1.0 / sd**2)
    # neighbours err together: as many independent points as a ventricle has regions of 15 mm, at most
    noise2 = float(RECOVERY_NOISE) ** 2 * max(1.0, good.sum() / 40.0)
    at, covariance = mean, np.diag(sd**2)
    for _ in range(ROBUST_ROUNDS):
        # the wrong flank of a T wave is tens of ms off: such points count less (Student's t with 4 degrees of freedom)
        off = (interval_ms[good] - design @ at) / float(RECOVERY_NOISE)
        weight = 5.0 / (4.0 + off**2)
        weighted = design * weight[:, None]
        covariance = np.linalg.inv(weighted.T @ design / noise2 + precision)
        at = mean + covariance @ (weighted.T @ (interval_ms[good] - design @ mean)) / noise2
    return Recovery(at, np.sqrt(np.diag(covariance)), sd, float("nan"), f"{int(good.sum())} measured activation-recovery intervals")
