"""Bueno-Orovio, Cherry and Fenton: minimal human ventricular cell, epicardial, endocardial, mid-myocardial, and fitted to
ten Tusscher et al. 2004 (`tnnp`).

Bueno-Orovio A, Cherry EM, Fenton FH. J Theor Biol 253:544-560 (2008), doi 10.1016/j.jtbi.2008.03.029; V = 85.7 u - 84 mV. The names
are the paper's: gates v, w, s here `v_gate`, `w_gate`, `s_gate`; `tau_v1m` is tau_v1 with superscript minus, `tau_vp` with plus.

At rest u decays by less in a step than the last bit of a float32 V near -84 mV, and w_inf = 1 - u/tau_winf magnifies what is left: the
duration of endocardial and mid-myocardial cells would be off by milliseconds. `carry` is what rounding of V lost, in mV, and joins the
next step (Kahan's compensated sum; zero but for rounding, also where the caller adds diffusion to V).
"""

from __future__ import annotations

from typing import Any

from solvers.kernels.math_plain import exp, relax, select

NAME = "bueno_orovio"
STATES = {"v_gate": 1.0, "w_gate": 1.0, "s_gate": 0.0, "carry": 0.0}
REST_MV = -84.0
PARAMETERS = {
    "u_u": 1.55,
    "theta_v": 0.3,
    "theta_w": 0.13,
    "theta_vm": 0.006,
    "theta_o": 0.006,
    "tau_v1m": 60.0,
    "tau_v2m": 1150.0,
    "tau_vp": 1.4506,
    "tau_w1m": 60.0,
    "tau_w2m": 15.0,
    "k_wm": 65.0,
    "u_wm": 0.03,
    "tau_wp": 200.0,
    "tau_fi": 0.11,
    "tau_o1": 400.0,
    "tau_o2": 6.0,
    "tau_so1": 30.0181,
    "tau_so2": 0.9957,
    "k_so": 2.0458,
    "u_so": 0.65,
    "tau_s1": 2.7342,
    "tau_s2": 16.0,
    "k_s": 2.0994,
    "u_s": 0.9087,
    "tau_si": 1.8875,
    "tau_winf": 0.07,
    "w_inf_star": 0.94,
}
"""Times in ms, the others in units of u (u_o = 0 is left out): table 1 of the paper, epicardium."""

_OTHER = {
    # endocardium, mid-myocardium
    "u_u": (1.56, 1.61),
    "theta_vm": (0.2, 0.1),
    "theta_o": (0.006, 0.005),
    "tau_v1m": (75.0, 80.0),
    "tau_v2m": (10.0, 1.4506),
    "tau_w1m": (6.0, 70.0),
    "tau_w2m": (140.0, 8.0),
    "k_wm": (200.0, 200.0),
    "u_wm": (0.016, 0.016),
    "tau_wp": (280.0, 280.0),
    "tau_fi": (0.1, 0.078),
    "tau_o1": (470.0, 410.0),
    "tau_o2": (6.0, 7.0),
    "tau_so1": (40.0, 91.0),
    "tau_so2": (1.2, 0.8),
    "k_so": (2.0, 2.1),
    "u_so": (0.65, 0.6),
    "tau_s2": (2.0, 4.0),
    "tau_si": (2.9013, 3.3849),
    "tau_winf": (0.0273, 0.01),
    "w_inf_star": (0.78, 0.5),
}
_TNNP = {
    "u_u": 1.58,
    "theta_w": 0.015,
    "theta_vm": 0.015,
    "tau_w1m": 70.0,
    "tau_w2m": 20.0,
    "tau_wp": 280.0,
    "tau_o1": 6.0,
    "tau_so1": 43.0,
    "tau_so2": 0.2,
    "k_so": 2.0,
    "tau_s2": 3.0,
    "tau_si": 2.8723,
}
CELLS: dict[str, dict[str, float]] = {
    "epi": {},
    "endo": {name: values[0] for name, values in _OTHER.items()},
    "mid": {name: values[1] for name, values in _OTHER.items()},
    "tnnp": _TNNP,
}
CURRENTS = {"I_fi": ("1/tau_fi",), "I_si": ("1/tau_si",), "I_so": ("1/tau_o1", "1/tau_o2", "1/tau_so1", "1/tau_so2")}


def step(v: Any, dt: Any, s: Any, p: Any) -> tuple[Any, ...]:
    """Advance the gates exactly for the present V, then the current -dV/dt in mV/ms; (1 + tanh x)/2 as 1/(1 + e^-2x)."""
    u = (v + 84.0) / 85.7
    v_rest = select(u < p.theta_vm, s.v_gate + (1.0 - s.v_gate) * relax(dt / p.tau_v1m), s.v_gate - s.v_gate * relax(dt / p.tau_v2m))
    v_gate = select(u < p.theta_v, v_rest, s.v_gate - s.v_gate * relax(dt / p.tau_vp))
    tau_wm = p.tau_w1m + (p.tau_w2m - p.tau_w1m) / (1.0 + exp(-2.0 * p.k_wm * (u - p.u_wm)))
    w_inf = select(u < p.theta_o, 1.0 - u / p.tau_winf, p.w_inf_star)
    w_gate = select(u < p.theta_w, s.w_gate + (w_inf - s.w_gate) * relax(dt / tau_wm), s.w_gate - s.w_gate * relax(dt / p.tau_wp))
    s_inf = 1.0 / (1.0 + exp(-2.0 * p.k_s * (u - p.u_s)))
    s_gate = s.s_gate + (s_inf - s.s_gate) * select(u < p.theta_w, relax(dt / p.tau_s1), relax(dt / p.tau_s2))

    tau_so = p.tau_so1 + (p.tau_so2 - p.tau_so1) / (1.0 + exp(-2.0 * p.k_so * (u - p.u_so)))
    fast = select(u < p.theta_v, 0.0, v_gate * (u - p.theta_v) * (p.u_u - u) / p.tau_fi)
    leak = select(u < p.theta_o, u / p.tau_o1, u / p.tau_o2)
    slow_out = select(u < p.theta_w, leak, 1.0 / tau_so)
    slow_in = select(u < p.theta_w, 0.0, w_gate * s_gate / p.tau_si)
    change = s.carry - dt * 85.7 * (slow_out - fast - slow_in)
    rounded = v + change
    return -change / dt, v_gate, w_gate, s_gate, change - (rounded - v)
