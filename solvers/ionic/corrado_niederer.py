"""Corrado-Niederer: Mitchell-Schaeffer corrected so that no choice of parameters turns the cell into a pacemaker.

Corrado C, Niederer SA. Math Biosci 281:46-54 (2016), doi 10.1016/j.mbs.2016.08.010: the inward current is u (u - u_gate) (1 - u)
instead of u^2 (1 - u), so that it is outward below the gate, and the outward current flows where the gate h is closed. Default
values: those of Mitchell and Schaeffer (2003), chosen here; V = 100 u - 80 mV as for the uncorrected model.
"""

from __future__ import annotations

from typing import Any

from solvers.kernels.math_plain import relax, select

NAME = "corrado_niederer"
STATES = {"h": 1.0}
REST_MV = -80.0
CELLS: dict[str, dict[str, float]] = {"default": {}}
PARAMETERS = {"tau_in": 0.3, "tau_out": 6.0, "tau_open": 120.0, "tau_close": 150.0, "v_gate": 0.13}
"""Times in ms, v_gate in units of u."""
CURRENTS = {"I_in": ("1/tau_in",), "I_out": ("1/tau_out",)}


def step(v: Any, dt: Any, s: Any, p: Any) -> tuple[Any, ...]:
    """Advance h exactly for the present V, then the current -dV/dt in mV/ms."""
    u = (v + 80.0) * 0.01
    h = select(u < p.v_gate, s.h + (1.0 - s.h) * relax(dt / p.tau_open), s.h - s.h * relax(dt / p.tau_close))
    du = h * u * (u - p.v_gate) * (1.0 - u) / p.tau_in - (1.0 - h) * u / p.tau_out
    return -100.0 * du, h
