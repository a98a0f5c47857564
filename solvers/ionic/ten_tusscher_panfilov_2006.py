"""ten Tusscher-Panfilov 2006: human ventricular cell, epicardial, endocardial and mid-myocardial.

ten Tusscher KHWJ, Panfilov AV. Am J Physiol Heart Circ Physiol 291:H1088-H1100 (2006), doi 10.1152/ajpheart.00109.2006; currents
unchanged since ten Tusscher et al., Am J Physiol Heart Circ Physiol 286:H1573-H1589 (2004). The numbers in the rate functions are
the fits printed there. Initial state: the Niederer benchmark's (Phil Trans R Soc A 369:4331, 2011), for all three cells.

Written for vectors, in parts that the Purkinje cell of Stewart et al. shares: time constants that are products of sigmoids enter as
dt/tau, which saves their divisions; calcium is buffered instantaneously and exactly; sodium and potassium are kept as the difference
from their initial values, because a float32 near 137 mM cannot hold the change of one step.
"""

from __future__ import annotations

from typing import Any

from solvers.kernels.math_plain import exp, log, relax, select, sqrt

NAME = "ten_tusscher_panfilov_2006"
REST_MV = -85.23
STATES = {
    "Xr1": 0.00621,
    "Xr2": 0.4712,
    "Xs": 0.0095,
    "m": 0.00172,
    "h": 0.7444,
    "j": 0.7045,
    "d": 3.373e-5,
    "f": 0.7888,
    "f2": 0.9755,
    "fCass": 0.9953,
    "s": 0.999998,
    "r": 2.42e-8,
    "Ca_i": 0.000126,
    "R_bar": 0.9073,
    "Ca_SR": 3.64,
    "Ca_ss": 0.00036,
    "dNa_i": 0.0,
    "dK_i": 0.0,
}
"""Gates without unit, concentrations in mM; dNa_i and dK_i are Na_i and K_i less the parameters of those names."""

PARAMETERS = {
    # conductances, nS/pF; G_CaL in L/(F ms)
    "G_Na": 14.838,
    "G_CaL": 3.98e-5,
    "G_to": 0.294,
    "G_Kr": 0.153,
    "G_Ks": 0.392,
    "G_K1": 5.405,
    "G_pK": 0.0146,
    "G_bNa": 0.00029,
    "G_bCa": 0.000592,
    # pumps and exchangers, pA/pF
    "P_NaK": 2.724,
    "K_NaCa": 1000.0,
    "G_pCa": 0.1238,
    # sarcoplasmic reticulum: mM/ms and 1/ms
    "V_maxup": 0.006375,
    "V_rel": 0.102,
    "V_leak": 0.00036,
    "V_xfer": 0.0038,
    # concentrations, mM: fixed outside, initial inside
    "Na_o": 140.0,
    "K_o": 5.4,
    "Ca_o": 2.0,
    "Na_i": 8.604,
    "K_i": 136.89,
    # the s gate differs between cells: s_inf midpoint and tau_s = a exp(-(V + v)^2 / w) + b / (1 + exp((V - 20)/5)) + c
    "s_mid": -20.0,
    "s_a": 85.0,
    "s_v": 45.0,
    "s_w": 320.0,
    "s_b": 5.0,
    "s_c": 3.0,
    # factors on the time constants, 1 as published
    "tau_Xr1": 1.0,
    "tau_Xr2": 1.0,
    "tau_Xs": 1.0,
    "tau_m": 1.0,
    "tau_h": 1.0,
    "tau_j": 1.0,
    "tau_d": 1.0,
    "tau_f": 1.0,
    "tau_f2": 1.0,
    "tau_fCass": 1.0,
    "tau_s": 1.0,
    "tau_r": 1.0,
}

CELLS = {
    "epi": {},
    "endo": {"G_to": 0.073, "s_mid": -28.0, "s_a": 1000.0, "s_v": 67.0, "s_w": 1000.0, "s_b": 0.0, "s_c": 8.0},
    "mid": {"G_Ks": 0.098},
}


CURRENTS = {
    "I_Na": ("G_Na",),
    "I_CaL": ("G_CaL",),
    "I_to": ("G_to",),
    "I_Kr": ("G_Kr",),
    "I_Ks": ("G_Ks",),
    "I_K1": ("G_K1",),
    "I_pK": ("G_pK",),
    "I_bNa": ("G_bNa",),
    "I_bCa": ("G_bCa",),
    "I_NaK": ("P_NaK",),
    "I_NaCa": ("K_NaCa",),
    "I_pCa": ("G_pCa",),
}
"""Parameters that each current is proportional to."""


def fast_inactivation(v: Any) -> tuple[Any, ...]:
    """Steady state of h and j, and the rates 1/tau of both, 1/ms."""
    root = 1.0 / (1.0 + exp((v + 71.55) / 7.43))
    h_rate = select(
        v < -40.0,
        0.057 * exp((-80.0 - v) / 6.8) + 2.7 * exp(0.079 * v) + 3.1e5 * exp(0.3485 * v),
        0.77 / (0.13 * (1.0 + exp((-10.66 - v) / 11.1))),
    )
    j_rate = select(
        v < -40.0,
        (-25428.0 * exp(0.2444 * v) - 6.948e-6 * exp(-0.04391 * v)) * (v + 37.78) / (1.0 + exp(0.311 * (v + 79.23)))
        + 0.02424 * exp(-0.01052 * v) / (1.0 + exp(-0.1378 * (v + 40.14))),
        0.6 * exp(0.057 * v) / (1.0 + exp(-0.1 * (v + 32.0))),
    )
    return root * root, h_rate, j_rate


def sodium_gates(v: Any, dt: Any, s: Any, p: Any) -> tuple[Any, ...]:
    """New m, h, j."""
    m_inf = 1.0 / (1.0 + exp((-56.86 - v) / 9.03))
    # tau_m = a_m b_m with a_m = 1/(1+A), b_m = 0.1/(1+B) + 0.1/(1+C)
    m_b = 1.0 + exp((v + 35.0) / 5.0)
    m_c = 1.0 + exp((v - 50.0) / 200.0)
    m = s.m + (m_inf * m_inf - s.m) * relax(10.0 * (dt / p.tau_m) * (1.0 + exp((-60.0 - v) / 5.0)) * m_b * m_c / (m_b + m_c))
    h_inf, h_rate, j_rate = fast_inactivation(v)
    h = s.h + (h_inf - s.h) * relax((dt / p.tau_h) * h_rate)
    j = s.j + (h_inf - s.j) * relax((dt / p.tau_j) * j_rate)
    return m, h, j


def rectifier_gates(v: Any, dt: Any, s: Any, p: Any) -> tuple[Any, ...]:
    """New Xr1, Xr2, Xs."""
    xr1_inf = 1.0 / (1.0 + exp((-26.0 - v) / 7.0))
    xr1_rate = (1.0 + exp((-45.0 - v) / 10.0)) * (1.0 + exp((v + 30.0) / 11.5)) / 2700.0
    Xr1 = s.Xr1 + (xr1_inf - s.Xr1) * relax((dt / p.tau_Xr1) * xr1_rate)
    xr2_inf = 1.0 / (1.0 + exp((v + 88.0) / 24.0))
    xr2_rate = (1.0 + exp((-60.0 - v) / 20.0)) * (1.0 + exp((v - 60.0) / 20.0)) / 3.36
    Xr2 = s.Xr2 + (xr2_inf - s.Xr2) * relax((dt / p.tau_Xr2) * xr2_rate)
    xs_inf = 1.0 / (1.0 + exp((-5.0 - v) / 14.0))
    # tau = 1400 / (sqrt(A) B) + 80 with A = 1 + exp((5 - V)/6), B = 1 + exp((V - 35)/15)
    xs_ab = sqrt(1.0 + exp((5.0 - v) / 6.0)) * (1.0 + exp((v - 35.0) / 15.0))
    Xs = s.Xs + (xs_inf - s.Xs) * relax((dt / p.tau_Xs) * xs_ab / (1400.0 + 80.0 * xs_ab))
    return Xr1, Xr2, Xs


def calcium_gates(v: Any, dt: Any, s: Any, p: Any) -> tuple[Any, ...]:
    """New d, f, f2, fCass."""
    d_inf = 1.0 / (1.0 + exp((-8.0 - v) / 7.5))
    d_tau = (1.4 / (1.0 + exp((-35.0 - v) / 13.0)) + 0.25) * 1.4 / (1.0 + exp((v + 5.0) / 5.0)) + 1.0 / (1.0 + exp((50.0 - v) / 20.0))
    d = s.d + (d_inf - s.d) * relax((dt / p.tau_d) / d_tau)
    f_inf = 1.0 / (1.0 + exp((v + 20.0) / 7.0))
    square = (v + 27.0) * (v + 27.0)
    fall = 1.0 / (1.0 + exp((v + 30.0) / 10.0))
    f_tau = 1102.5 * exp(-square / 225.0) + 200.0 / (1.0 + exp((13.0 - v) / 10.0)) + 180.0 * fall + 20.0
    f = s.f + (f_inf - s.f) * relax((dt / p.tau_f) / f_tau)
    f2_inf = 0.67 / (1.0 + exp((v + 35.0) / 7.0)) + 0.33
    f2_tau = 562.0 * exp(-square / 240.0) + 31.0 / (1.0 + exp((25.0 - v) / 10.0)) + 80.0 * fall
    f2 = s.f2 + (f2_inf - s.f2) * relax((dt / p.tau_f2) / f2_tau)
    near = 1.0 / (1.0 + 400.0 * s.Ca_ss * s.Ca_ss)
    fCass = s.fCass + (0.6 * near + 0.4 - s.fCass) * relax((dt / p.tau_fCass) / (80.0 * near + 2.0))
    return d, f, f2, fCass


def reversal_mv(s: Any, p: Any) -> tuple[Any, ...]:
    """Na_i in mM, then E_Na, E_K, E_Ks, E_Ca: R T / F = 26.7137606597 mV at 310 K, F = 96485.3415 C/mol."""
    Na_i = p.Na_i + s.dNa_i
    K_i = p.K_i + s.dK_i
    E_Na = 26.71376065974 * log(p.Na_o / Na_i)
    E_K = 26.71376065974 * log(p.K_o / K_i)
    E_Ks = 26.71376065974 * log((p.K_o + 0.03 * p.Na_o) / (K_i + 0.03 * Na_i))
    E_Ca = 13.35688032987 * log(p.Ca_o / s.Ca_i)
    return Na_i, E_Na, E_K, E_Ks, E_Ca


def calcium_current(v: Any, s: Any, p: Any, d: Any, f: Any, f2: Any, fCass: Any) -> Any:
    """I_CaL: Goldman-Hodgkin-Katz with x = 2 (V - 15) F/RT; x/(e^x - 1) by its series where that is 0/0."""
    x = 2.0 * (v - 15.0) / 26.71376065974
    x_expm1 = select(x * x < 0.01, 1.0 - x * (0.5 - x * (1.0 / 12.0 - x * x / 720.0)), x / (exp(x) - 1.0))
    # (0.25 Ca_ss e^x - Ca_o) x/(e^x - 1) with e^x x/(e^x - 1) = x + x/(e^x - 1)
    return p.G_CaL * d * f * f2 * fCass * 192970.683 * (0.25 * s.Ca_ss * (x + x_expm1) - p.Ca_o * x_expm1)


def carriers(v: Any, s: Any, p: Any, Na_i: Any) -> tuple[Any, ...]:
    """I_NaK, I_NaCa, I_pCa."""
    phi = v / 26.71376065974
    I_NaK = p.P_NaK * (p.K_o / (p.K_o + 1.0)) * Na_i / ((Na_i + 40.0) * (1.0 + 0.1245 * exp(-0.1 * phi) + 0.0353 * exp(-phi)))
    # gamma 0.35, Km_Nai 87.5, Km_Ca 1.38, k_sat 0.1, alpha 2.5
    back = exp(-0.65 * phi)
    Na_o3 = p.Na_o * p.Na_o * p.Na_o
    gain = p.K_NaCa / ((669921.875 + Na_o3) * (1.38 + p.Ca_o))
    I_NaCa = gain * (exp(0.35 * phi) * Na_i * Na_i * Na_i * p.Ca_o - 2.5 * back * Na_o3 * s.Ca_i) / (1.0 + 0.1 * back)
    I_pCa = p.G_pCa * s.Ca_i / (s.Ca_i + 0.0005)
    return I_NaK, I_NaCa, I_pCa


def calcium_handling(dt: Any, s: Any, p: Any, calcium: Any, I_CaL: Any) -> tuple[Any, ...]:
    """New Ca_i, R_bar, Ca_SR, Ca_ss in mM: Cm 0.185, V_c 0.016404, V_sr 0.001094, V_ss 5.468e-5."""
    casr = 2.5 - 1.5 * s.Ca_SR * s.Ca_SR / (s.Ca_SR * s.Ca_SR + 2.25)
    R_bar = s.R_bar + dt * (0.005 * (1.0 - s.R_bar) - 0.045 * casr * s.Ca_ss * s.R_bar)
    k1_ca2 = 0.15 * s.Ca_ss * s.Ca_ss
    I_rel = p.V_rel * k1_ca2 * R_bar / (0.06 * casr + k1_ca2) * (s.Ca_SR - s.Ca_ss)
    I_leak = p.V_leak * (s.Ca_SR - s.Ca_i)
    I_up = p.V_maxup * s.Ca_i * s.Ca_i / (s.Ca_i * s.Ca_i + 6.25e-8)
    I_xfer = p.V_xfer * (s.Ca_ss - s.Ca_i)

    # A total change T of free and bound calcium (buffer B, affinity K) changes the free part by the root of
    # x^2 + (a + B K/a - T) x - T a = 0 with a = Ca + K, which is the usual quadratic written for the change: nothing cancels.
    i_T = dt * ((I_leak - I_up) * (0.001094 / 0.016404) + I_xfer - 0.5 * 1.16885497444e-4 * calcium)
    i_a = s.Ca_i + 0.001
    i_b = i_a + 0.2 * 0.001 / i_a - i_T
    Ca_i = s.Ca_i + 2.0 * i_T * i_a / (i_b + sqrt(i_b * i_b + 4.0 * i_T * i_a))
    sr_T = dt * (I_up - I_rel - I_leak)
    sr_a = s.Ca_SR + 0.3
    sr_b = sr_a + 10.0 * 0.3 / sr_a - sr_T
    Ca_SR = s.Ca_SR + 2.0 * sr_T * sr_a / (sr_b + sqrt(sr_b * sr_b + 4.0 * sr_T * sr_a))
    ss_T = dt * (I_rel * (0.001094 / 5.468e-5) - I_xfer * (0.016404 / 5.468e-5) - 0.5 * 1.16885497444e-4 * (0.016404 / 5.468e-5) * I_CaL)
    ss_a = s.Ca_ss + 0.00025
    ss_b = ss_a + 0.4 * 0.00025 / ss_a - ss_T
    Ca_ss = s.Ca_ss + 2.0 * ss_T * ss_a / (ss_b + sqrt(ss_b * ss_b + 4.0 * ss_T * ss_a))
    return Ca_i, R_bar, Ca_SR, Ca_ss


def step(v: Any, dt: Any, s: Any, p: Any) -> tuple[Any, ...]:
    """Advance the gates (Rush-Larsen) with V, then the currents, then the concentrations; returns -dV/dt in mV/ms first."""
    m, h, j = sodium_gates(v, dt, s, p)
    Xr1, Xr2, Xs = rectifier_gates(v, dt, s, p)
    d, f, f2, fCass = calcium_gates(v, dt, s, p)
    r_inf = 1.0 / (1.0 + exp((20.0 - v) / 6.0))
    r = s.r + (r_inf - s.r) * relax((dt / p.tau_r) / (9.5 * exp(-(v + 40.0) * (v + 40.0) / 1800.0) + 0.8))
    s_inf = 1.0 / (1.0 + exp((v - p.s_mid) / 5.0))
    s_tau = p.s_a * exp(-(v + p.s_v) * (v + p.s_v) / p.s_w) + p.s_b / (1.0 + exp((v - 20.0) / 5.0)) + p.s_c
    s_gate = s.s + (s_inf - s.s) * relax((dt / p.tau_s) / s_tau)

    Na_i, E_Na, E_K, E_Ks, E_Ca = reversal_mv(s, p)
    v_K = v - E_K
    root_K_o = sqrt(p.K_o / 5.4)
    I_Na = p.G_Na * m * m * m * h * j * (v - E_Na)
    I_CaL = calcium_current(v, s, p, d, f, f2, fCass)
    I_to = p.G_to * r * s_gate * v_K
    I_Kr = p.G_Kr * root_K_o * Xr1 * Xr2 * v_K
    I_Ks = p.G_Ks * Xs * Xs * (v - E_Ks)
    K1_a = 0.1 / (1.0 + exp(0.06 * (v_K - 200.0)))
    K1_b = (3.0 * exp(0.0002 * (v_K + 100.0)) + exp(0.1 * (v_K - 10.0))) / (1.0 + exp(-0.5 * v_K))
    I_K1 = p.G_K1 * root_K_o * K1_a / (K1_a + K1_b) * v_K
    I_pK = p.G_pK * v_K / (1.0 + exp((25.0 - v) / 5.98))
    I_NaK, I_NaCa, I_pCa = carriers(v, s, p, Na_i)
    sodium = I_Na + p.G_bNa * (v - E_Na) + 3.0 * (I_NaK + I_NaCa)
    potassium = I_K1 + I_to + I_Kr + I_Ks + I_pK - 2.0 * I_NaK
    calcium = p.G_bCa * (v - E_Ca) + I_pCa - 2.0 * I_NaCa

    dNa_i = s.dNa_i - dt * 1.16885497444e-4 * sodium
    dK_i = s.dK_i - dt * 1.16885497444e-4 * potassium
    Ca_i, R_bar, Ca_SR, Ca_ss = calcium_handling(dt, s, p, calcium, I_CaL)
    current = sodium + potassium + calcium + I_CaL
    return current, Xr1, Xr2, Xs, m, h, j, d, f, f2, fCass, s_gate, r, Ca_i, R_bar, Ca_SR, Ca_ss, dNa_i, dK_i
