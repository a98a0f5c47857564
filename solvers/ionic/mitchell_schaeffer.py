"""Mitchell-Schaeffer: two currents, one gate.

Mitchell CC, Schaeffer DG. Bull Math Biol 65:767-793 (2003), doi 10.1016/S0092-8240(03)00041-7; the scale V = 100 u - 80 mV
is this project's.
"""

from __future__ import annotations

from typing import Any

from solvers.kernels.math_plain import relax, select

NAME = "mitchell_schaeffer"
STATES = {"h": 1.0}
REST_MV = -80.0
CELLS: dict[str, dict[str, float]] = {"default": {}}
PARAMETERS = {"tau_in": 0.3, "tau_out": 6.0, "tau_open": 120.0, "tau_close": 150.0, "v_gate": 0.13}
"""Times in ms, v_gate in units of u: the values of the paper."""
CURRENTS = {"I_in": ("1/tau_in",), "I_out": ("1/tau_out",)}


def step(v: Any, dt: Any, s: Any, p: Any) -> tuple[Any, ...]:
    """Advance h exactly for the present V, then the current -dV/dt in mV/ms."""
    u = (v + 80.0) * 0.01
    h = select(u < p.v_gate, s.h + (1.0 - s.h) * relax(dt / p.tau_open), s.h - s.h * relax(dt / p.tau_close))
    du = h * (1.0 - u) * u * u / p.tau_in - u / p.tau_out
    return -100.0 * du, h
