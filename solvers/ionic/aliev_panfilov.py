"""Aliev-Panfilov: two variables with a recovery rate that depends on both.

Aliev RR, Panfilov AV. Chaos Solitons Fractals 7:293-301 (1996), doi 10.1016/0960-0779(95)00089-5; V = 100 u - 80 mV and the time
unit of 12.9 ms are the paper's scaling to the heart.
"""

from __future__ import annotations

from typing import Any

from solvers.kernels.math_plain import relax

NAME = "aliev_panfilov"
STATES = {"recovery": 0.0}
REST_MV = -80.0
CELLS: dict[str, dict[str, float]] = {"default": {}}
PARAMETERS = {"k": 8.0, "a": 0.15, "eps0": 0.002, "mu1": 0.2, "mu2": 0.3, "tau_unit": 12.9}
"""tau_unit in ms, the others without unit."""


def step(v: Any, dt: Any, s: Any, p: Any) -> tuple[Any, ...]:
    """Advance the recovery variable, exactly for its present rate and target, then the current -dV/dt in mV/ms."""
    u = (v + 80.0) * 0.01
    rate = p.eps0 + p.mu1 * s.recovery / (u + p.mu2)
    target = p.k * u * (1.0 + p.a - u)
    recovery = s.recovery + (target - s.recovery) * relax(dt * rate / p.tau_unit)
    du = (p.k * u * (u - p.a) * (1.0 - u) - u * recovery) / p.tau_unit
    return -100.0 * du, recovery
