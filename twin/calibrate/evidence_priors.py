"""Priors of the tissue from clinical evidence: published priors, updated by one piece of evidence after the other, each step kept.

Everything is Gaussian in the logarithm. A `Shift` says by what factor a fact changes a quantity: the mean moves and the factor's own
uncertainty is added, so a fact never narrows a prior (how much of the population's spread age or a drug explains is not published). A
`Measurement` of this heart (QTc, enhancement, voltage) is an observation with noise: it moves and narrows, by the rule of Bayes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.calibrate.velocity import priors
from twin.params import Param

Array = NDArray[np.float64]

REGIONS = ("healthy", "border_zone")
APD_FACTOR = Param(
    1.0,
    "1",
    0.80,
    1.25,
    "APD90 of undiseased human ventricle spreads by about a tenth (O'Hara et al., PLoS Comput Biol 7:e1002061, 2011); the shipped "
    "restitution table is its middle, width chosen here",
)
QUANTITIES = ("cv_longitudinal_m_s", "cv_transverse_m_s", "apd_factor")
APD_SHARED = Param(
    0.7, "1", 0.4, 0.9, "chosen here: correlation of a patient's action potential durations in healthy muscle and border zone"
)
UNITS = {"cv_longitudinal_m_s": "m/s", "cv_transverse_m_s": "m/s", "apd_factor": "of the model's"}
MASS_SD = 2.0
"""A Param's range is taken as this many standard deviations each way, as in `twin.calibrate.velocity.priors`."""


def names() -> tuple[str, ...]:
    """Quantities in the order of a belief's mean: "<region>/<quantity>"."""
    return tuple(f"{region}/{quantity}" for region in REGIONS for quantity in QUANTITIES)


@dataclass(frozen=True)
class Shift:
    """A fact that multiplies quantities: `factors` by "<region>/<quantity>"; the factors of one fact are wrong together."""

    evidence: str
    value: str
    factors: Mapping[str, Param]


@dataclass(frozen=True)
class Measurement:
    """sum over `weights` of weight x log quantity was measured as `log_value`, standard deviation `sd`; `why`: source of the relation."""

    evidence: str
    value: str
    weights: Mapping[str, float]
    log_value: float
    sd: float
    why: str


@dataclass(frozen=True)
class Belief:
    """Means (6,) and covariance (6, 6) of the log quantities, in the order of `names()`."""

    mean: Array
    covariance: Array

    def interval(self, name: str) -> tuple[float, float, float]:
        """Median and 95 % interval of one quantity."""
        k = names().index(name)
        sd = float(np.sqrt(self.covariance[k, k]))
        return float(np.exp(self.mean[k])), float(np.exp(self.mean[k] - 1.96 * sd)), float(np.exp(self.mean[k] + 1.96 * sd))

    def range(self, name: str) -> tuple[float, float]:
        """Two standard deviations each way: what `twin.calibrate.velocity.priors` takes."""
        k = names().index(name)
        half = MASS_SD * float(np.sqrt(self.covariance[k, k]))
        return float(np.exp(self.mean[k] - half)), float(np.exp(self.mean[k] + half))


@dataclass(frozen=True)
class Step:
    """One row of the influences table: the evidence, where its size comes from, and every quantity that it moved, before and after."""

    evidence: str
    value: str
    kind: str
    source: str
    before: Mapping[str, tuple[float, float, float]]
    after: Mapping[str, tuple[float, float, float]]

    def as_dict(self) -> dict[str, Any]:
        """For plan.json: median and 95 % interval of every quantity that moved."""
        changes = [
            {
                "quantity": name,
                "before": _rounded(self.before[name]),
                "after": _rounded(self.after[name]),
                "unit": UNITS[name.split("/")[1]],
            }
            for name in self.after
        ]
        return {"evidence": self.evidence, "value": self.value, "kind": self.kind, "source": self.source, "changes": changes}


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(v, 4) for v in values]


@dataclass(frozen=True)
class EvidencePriors:
    """What the evidence made of the published priors: the belief before and after, and the steps between."""

    start: Belief
    final: Belief
    steps: tuple[Step, ...] = field(default_factory=tuple)

    def velocity_ranges(self) -> dict[str, tuple[float, float]]:
        """Ranges of the velocities, in the form of a case's [tissue] tables."""
        return {name: self.final.range(name) for name in names() if name.endswith("_m_s")}

    def apd_factors(self) -> dict[str, float]:
        """Median factor on the duration of the action potential, by region."""
        return {region: self.final.interval(f"{region}/apd_factor")[0] for region in REGIONS}


def published() -> Belief:
    """The literature's priors before anything is known of the patient."""
    velocity_names, mean, sd = priors(REGIONS)
    found = {name: (float(m), float(s)) for name, m, s in zip(velocity_names, mean, sd, strict=True)}
    width = float(np.log(APD_FACTOR.high / APD_FACTOR.low) / (2 * MASS_SD))
    for region in REGIONS:
        found[f"{region}/apd_factor"] = (0.0, width)
    means, widths = (np.array([found[name][k] for name in names()]) for k in (0, 1))
    covariance = np.diag(widths**2)
    healthy, border = (names().index(f"{region}/apd_factor") for region in REGIONS)
    covariance[healthy, border] = covariance[border, healthy] = APD_SHARED.value * width**2
    return Belief(means, covariance)


def update(evidence: Sequence[Shift | Measurement], start: Belief | None = None) -> EvidencePriors:
    """Apply the evidence: facts first, in their order, then measurements, which are of the heart as those facts made it."""
    first = start or published()
    now, steps = first, []
    ordered = [e for e in evidence if isinstance(e, Shift)] + [e for e in evidence if isinstance(e, Measurement)]
    for item in ordered:
        after = _shifted(now, item) if isinstance(item, Shift) else _measured(now, item)
        moved = [n for k, n in enumerate(names()) if abs(after.mean[k] - now.mean[k]) > 1e-9 or _width_changed(now, after, k)]
        before, then = ({n: b.interval(n) for n in moved} for b in (now, after))
        if isinstance(item, Shift):
            source = "; ".join(dict.fromkeys(p.source for p in item.factors.values()))
            steps.append(Step(item.evidence, item.value, "fact", source, before, then))
        else:
            steps.append(Step(item.evidence, item.value, "measurement", item.why, before, then))
        now = after
    return EvidencePriors(first, now, tuple(steps))


def _width_changed(a: Belief, b: Belief, k: int) -> bool:
    return bool(abs(b.covariance[k, k] - a.covariance[k, k]) > 1e-12)


def _shifted(belief: Belief, shift: Shift) -> Belief:
    """Mean plus log factor; the factors' own spread is one unknown that scales all of them, so it joins them in the covariance."""
    move, spread = np.zeros(len(belief.mean)), np.zeros(len(belief.mean))
    for name, factor in shift.factors.items():
        k = names().index(name)
        move[k] = np.log(factor.value)
        spread[k] = np.log(factor.high / factor.low) / (2 * MASS_SD)
    return Belief(belief.mean + move, belief.covariance + np.outer(spread, spread))


def _measured(belief: Belief, seen: Measurement) -> Belief:
    """One scalar observation of a linear combination of the logs (Kalman's update, Joseph's form)."""
    h = np.zeros(len(belief.mean))
    for name, weight in seen.weights.items():
        h[names().index(name)] = weight
    gain = belief.covariance @ h / (float(h @ belief.covariance @ h) + seen.sd**2)
    left = np.eye(len(h)) - np.outer(gain, h)
    covariance = left @ belief.covariance @ left.T + seen.sd**2 * np.outer(gain, gain)
    return Belief(belief.mean + gain * (seen.log_value - float(h @ belief.mean)), covariance)
