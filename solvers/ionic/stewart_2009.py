"""Stewart et al. 2009: human Purkinje fibre cell, with a pacemaker current.

Stewart P, Aslanidi OV, Noble D, Noble PJ, Boyett MR, Zhang H. Phil Trans R Soc A 367:2225-2255 (2009), doi 10.1098/rsta.2008.0283.
It is the ten Tusscher-Panfilov cell with a funny current I_f of sodium and potassium, a sustained potassium current I_sus, and other
I_K1, I_to and conductances; all else is shared with that model's file. Initial state: the published one. Without a stimulus it beats.
"""

from __future__ import annotations

from typing import Any

from solvers.ionic import ten_tusscher_panfilov_2006 as ventricle
from solvers.ionic.ten_tusscher_panfilov_2006 import (
    calcium_current,
    calcium_gates,
    calcium_handling,
    carriers,
    rectifier_gates,
    reversal_mv,
    sodium_gates,
)
from solvers.kernels.math_plain import exp, relax, sqrt

NAME = "stewart_2009"
REST_MV = -74.7890522727
STATES = {
    "y": 0.0184308075,
    "Xr1": 0.4663168269,
    "Xr2": 0.3657472179,
    "Xs": 0.0486609588,
    "m": 0.0145766758,
    "h": 0.2979720207,
    "j": 0.0692509548,
    "d": 0.0001356656,
    "f": 0.5943228461,
    "f2": 0.8265709174,
    "fCass": 0.9767040566,
    "s": 0.9717098312,
    "r": 0.0006830833,
    "Ca_i": 0.0001720623,
    "R_bar": 0.8199969443,
    "Ca_SR": 3.2830723338,
    "Ca_ss": 0.0006146554,
    "dNa_i": 0.0,
    "dK_i": 0.0,
}
"""As in the ten Tusscher-Panfilov cell; y is the gate of I_f."""

_OWN = {
    "G_Na": 130.5744,
    "G_to": 0.08184,
    "G_Kr": 0.0918,
    "G_Ks": 0.2352,
    "G_K1": 0.065,
    "G_sus": 0.0227,
    "G_fNa": 0.0145654,
    "G_fK": 0.0234346,
    "Na_i": 8.5447311020,
    "K_i": 136.9896086978,
    "tau_y": 1.0,
}
_VENTRICULAR_ONLY = ("s_mid", "s_a", "s_v", "s_w", "s_b", "s_c")
PARAMETERS = {name: value for name, value in ventricle.PARAMETERS.items() if name not in _VENTRICULAR_ONLY} | _OWN
"""Units as in the ten Tusscher-Panfilov cell."""
CELLS: dict[str, dict[str, float]] = {"purkinje": {}}
CURRENTS = {**ventricle.CURRENTS, "I_sus": ("G_sus",), "I_f": ("G_fNa", "G_fK")}


def step(v: Any, dt: Any, s: Any, p: Any) -> tuple[Any, ...]:
    """Advance the gates (Rush-Larsen) with V, then the currents, then the concentrations; returns -dV/dt in mV/ms first."""
    m, h, j = sodium_gates(v, dt, s, p)
    Xr1, Xr2, Xs = rectifier_gates(v, dt, s, p)
    d, f, f2, fCass = calcium_gates(v, dt, s, p)
    r_inf = 1.0 / (1.0 + exp((20.0 - v) / 13.0))
    r = s.r + (r_inf - s.r) * relax((dt / p.tau_r) / (10.45 * exp(-(v + 40.0) * (v + 40.0) / 1800.0) + 7.3))
    s_inf = 1.0 / (1.0 + exp((v + 27.0) / 13.0))
    s_tau = 85.0 * exp(-(v + 25.0) * (v + 25.0) / 320.0) + 5.0 / (1.0 + exp((v - 40.0) / 5.0)) + 42.0
    s_gate = s.s + (s_inf - s.s) * relax((dt / p.tau_s) / s_tau)
    y_inf = 1.0 / (1.0 + exp((v + 80.6) / 6.8))
    y_rate = (exp(-2.9 - 0.04 * v) + exp(3.6 + 0.11 * v)) / 4000.0
    y = s.y + (y_inf - s.y) * relax((dt / p.tau_y) * y_rate)

    Na_i, E_Na, E_K, E_Ks, E_Ca = reversal_mv(s, p)
    v_K = v - E_K
    I_CaL = calcium_current(v, s, p, d, f, f2, fCass)
    I_to = p.G_to * r * s_gate * v_K
    I_sus = p.G_sus * v_K / (1.0 + exp((5.0 - v) / 17.0))
    I_Kr = p.G_Kr * sqrt(p.K_o / 5.4) * Xr1 * Xr2 * v_K
    I_Ks = p.G_Ks * Xs * Xs * (v - E_Ks)
    I_K1 = p.G_K1 * (v_K - 8.0) / (1.0 + exp(0.1 * (v + 75.44)))
    I_pK = p.G_pK * v_K / (1.0 + exp((25.0 - v) / 5.98))
    I_NaK, I_NaCa, I_pCa = carriers(v, s, p, Na_i)
    sodium = (p.G_Na * m * m * m * h * j + p.G_bNa + p.G_fNa * y) * (v - E_Na) + 3.0 * (I_NaK + I_NaCa)
    potassium = I_K1 + I_to + I_sus + I_Kr + I_Ks + I_pK + p.G_fK * y * v_K - 2.0 * I_NaK
    calcium = p.G_bCa * (v - E_Ca) + I_pCa - 2.0 * I_NaCa

    dNa_i = s.dNa_i - dt * 1.16885497444e-4 * sodium
    dK_i = s.dK_i - dt * 1.16885497444e-4 * potassium
    Ca_i, R_bar, Ca_SR, Ca_ss = calcium_handling(dt, s, p, calcium, I_CaL)
    current = sodium + potassium + calcium + I_CaL
    return current, y, Xr1, Xr2, Xs, m, h, j, d, f, f2, fCass, s_gate, r, Ca_i, R_bar, Ca_SR, Ca_ss, dNa_i, dK_i
