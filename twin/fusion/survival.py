"""Survival heads: ridge Cox (Efron ties) and discrete hazards; early fusion and the sum of the blocks' risks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from twin.fusion.blocks import Array, Design
from twin.fusion.logistic import RidgeLogistic, expit

PENALTY = 0.03
"""Ridge per patient on standardised columns (chosen here, between the two that BASELINES.md uses)."""


@dataclass
class RidgeCox:
    """Proportional hazards with a penalty of `penalty` x n / 2 x coefficients squared; `beta` (p,), baseline by Breslow."""

    penalty: float = PENALTY
    beta: Array = field(default_factory=lambda: np.zeros(0))
    times: Array = field(default_factory=lambda: np.zeros(0))
    hazard: Array = field(default_factory=lambda: np.zeros(0))

    def fit(self, x: Array, time: Array, event: Array) -> RidgeCox:
        """Fit to x (n, p), times (n,) and events 0/1 (n,) by Newton steps."""
        self.mean = x.mean(axis=0)
        order = np.argsort(-time, kind="stable")
        z, t, d = (x - self.mean)[order], time[order], event[order] > 0
        beta, now = np.zeros(x.shape[1]), np.inf
        for _ in range(50):
            value, gradient, second = _partial(z, t, d, beta)
            value += 0.5 * self.penalty * len(t) * float(beta @ beta)
            gradient += self.penalty * len(t) * beta
            step = np.linalg.solve(second + (self.penalty * len(t) + 1e-9) * np.eye(len(beta)), gradient)
            beta = beta - step * min(1.0, 5.0 / max(float(np.abs(step).max(initial=0.0)), 1e-12))
            if abs(now - value) < 1e-9 * (1 + abs(value)):
                break
            now = value
        self.beta = beta
        risk = np.exp(z @ beta)
        self.times = np.unique(t[d])
        at_risk = np.array([risk[t >= s].sum() for s in self.times])
        deaths = np.array([(d & (t == s)).sum() for s in self.times])
        self.hazard = np.cumsum(deaths / at_risk)
        return self

    def risk(self, x: Array) -> Array:
        """Log hazard ratio of each row against the mean patient."""
        return np.asarray((x - self.mean) @ self.beta)

    def survival(self, x: Array, at: float) -> Array:
        """Probability of no event by `at`, (n,)."""
        k = int(np.searchsorted(self.times, at, side="right"))
        return np.asarray(np.exp(-(self.hazard[k - 1] if k else 0.0) * np.exp(self.risk(x))))


def _partial(z: Array, t: Array, d: NDArray[np.bool_], beta: Array) -> tuple[float, Array, Array]:
    """Negative log partial likelihood with Efron's ties, its gradient and Hessian; rows sorted from the latest time."""
    score = z @ beta
    risk = np.exp(score)
    s0, s1, s2 = (
        np.cumsum(risk),
        np.cumsum(risk[:, None] * z, axis=0),
        np.cumsum(risk[:, None, None] * z[:, :, None] * z[:, None, :], axis=0),
    )
    value, gradient, second = -float(score[d].sum()), -z[d].sum(axis=0), np.zeros((len(beta), len(beta)))
    for s in np.unique(t[d]):
        rows = d & (t == s)
        last = int(np.flatnonzero(t >= s)[-1])
        own = risk[rows]
        tied0, tied1 = own.sum(), own @ z[rows]
        tied2 = np.einsum("i,ij,ik->jk", own, z[rows], z[rows])
        for share in np.arange(len(own)) / len(own):
            a0, a1, a2 = s0[last] - share * tied0, s1[last] - share * tied1, s2[last] - share * tied2
            value += float(np.log(a0))
            gradient = gradient + a1 / a0
            second += a2 / a0 - np.outer(a1, a1) / a0**2
    return value, gradient, second


@dataclass
class DiscreteHazard:
    """Logistic hazard in `intervals` with equally many events each; censored patients count until they leave."""

    intervals: int = 8

    def fit(self, x: Array, time: Array, event: Array) -> DiscreteHazard:
        """Fit to x (n, p), times (n,) and events 0/1 (n,)."""
        self.edges = np.unique(np.quantile(time[event > 0], np.linspace(0, 1, self.intervals + 1)[1:]))
        last = np.minimum(np.searchsorted(self.edges, time, side="left"), len(self.edges) - 1)
        who = np.repeat(np.arange(len(time)), last + 1)
        when = np.concatenate([np.arange(k + 1) for k in last])
        hit = ((when == last[who]) & (event[who] > 0) & (time[who] <= self.edges[-1])).astype(np.float64)
        self.model = RidgeLogistic().fit(self._rows(x[who], when), hit)
        return self

    def _rows(self, x: Array, when: NDArray[np.int64]) -> Array:
        return np.hstack([(when[:, None] == np.arange(len(self.edges))).astype(np.float64), x])

    def survival(self, x: Array, at: float) -> Array:
        """Probability of no event by the last interval that ends by `at`, (n,)."""
        out = np.ones(len(x))
        for k in range(int(np.searchsorted(self.edges, at, side="right"))):
            out *= 1 - expit(self.model.logit(self._rows(x, np.full(len(x), k))))
        return out

    def risk(self, x: Array) -> Array:
        """Log odds of an event per interval, its part that depends on the patient."""
        return np.asarray(x @ self.model.beta[1 + len(self.edges) :])


def concordance(time: Array, event: Array, risk: Array) -> float:
    """Harrell's c: of the pairs of which it is known who had the event first, the share where that one had the higher risk."""
    pairs = (event[:, None] > 0) & ((time[:, None] < time[None, :]) | ((time[:, None] == time[None, :]) & (event[None, :] == 0)))
    right = (risk[:, None] > risk[None, :]) + 0.5 * (risk[:, None] == risk[None, :])
    return float((right * pairs).sum() / max(pairs.sum(), 1))


def heads(train: Design, test: Design, time: Array, event: Array) -> dict[str, Array]:
    """Risk of the test rows by each head: every block alone, early, sum of the blocks, discrete hazard."""
    out = {name: RidgeCox().fit(part, time, event).risk(test.parts[name]) for name, part in train.parts.items()}
    out["late_sum"] = np.sum(list(out.values()), axis=0)
    out["early"] = RidgeCox().fit(train.joined(), time, event).risk(test.joined())
    out["discrete_hazard"] = DiscreteHazard().fit(train.joined(), time, event).risk(test.joined())
    return out
