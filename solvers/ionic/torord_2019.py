"""ToR-ORd with dynamic chloride: human ventricular cell, endocardial, epicardial and mid-myocardial.

Tomek J et al. eLife 8:e48890 (2019), doi 10.7554/eLife.48890 (equations and parameters in its appendix), with the chloride balance of
Tomek J, Bueno-Orovio A, Rodriguez B. bioRxiv 2020.06.01.127043. It builds on O'Hara et al., PLoS Comput Biol 7:e1002061 (2011), Grandi
et al., J Mol Cell Cardiol 48:112 (2010), and Lu et al., J Physiol 537:843 (2001) for I_Kr. Initial state: the published steady states.

Written for vectors and for float32. Sodium, potassium and chloride are kept as differences from the parameters of those names. The
chain of I_Kr (C0, C1, C2, O, I) takes one implicit Euler step, which is positive and stable for any dt; C0 is 1 less the others,
because a float32 near 1 cannot hold its changes. Calcium buffers conserve calcium to second order: to first order each beat would lose
some, and the mid-myocardial cell drifts. x/(e^x - 1) stands for all Goldman-Hodgkin-Katz terms.
"""

from __future__ import annotations

from typing import Any

from solvers.ionic.ten_tusscher_panfilov_2006 import fast_inactivation
from solvers.kernels.math_plain import exp, log, relax, select, sqrt

NAME = "torord_2019"

_INITIAL: dict[str, tuple[float, float, float]] = {
    # endocardium, epicardium, mid-myocardium
    "m": (0.0006517154, 0.0005253231, 0.0004619565),
    "h": (0.8473267, 0.8645148, 0.8739077),
    "j": (0.8471657, 0.8644571, 0.8737841),
    "hp": (0.7018454, 0.7313656, 0.7478972),
    "jp": (0.8469014, 0.8643527, 0.8735375),
    "mL": (0.0001351203, 0.0001117969, 9.987709e-05),
    "hL": (0.5566017, 0.5916536, 0.5986118),
    "hLp": (0.3115491, 0.3476812, 0.3339899),
    "a": (0.0008899259, 0.0008320408, 0.0007994042),
    "iF": (0.9996716, 0.9997242, 0.9997514),
    "iS": (0.5988908, 0.9997235, 0.5702538),
    "ap": (0.0004534165, 0.0004239121, 0.0004072777),
    "iFp": (0.9996716, 0.9997242, 0.9997514),
    "iSp": (0.6620692, 0.9997241, 0.6351927),
    "d": (0.0, 0.0, 0.0),
    "ff": (1.0, 1.0, 1.0),
    "fs": (0.9401791, 0.9510602, 0.9183587),
    "fcaf": (1.0, 1.0, 1.0),
    "fcas": (0.9999014, 0.9999377, 0.999754),
    "jca": (0.9999846, 0.9999886, 0.9999743),
    "nca": (0.0004899378, 0.0003049523, 0.000533652),
    "nca_i": (0.0008326009, 0.0005272668, 0.001257861),
    "ffp": (1.0, 1.0, 1.0),
    "fcafp": (1.0, 1.0, 1.0),
    "C1": (0.000793602, 0.0007393045, 0.000708646),
    "C2": (0.0006532143, 0.0006029079, 0.0005910047),
    "O": (0.0002922449, 0.0001787783, 0.0003445733),
    "I": (9.804083e-06, 5.678255e-06, 1.06423e-05),
    "xs1": (0.243959, 0.2233584, 0.2642293),
    "xs2": (0.0001586167, 0.0001418247, 0.0001327348),
    "Jrel": (0.0, 0.0, 0.0),
    "Jrelp": (0.0, 0.0, 0.0),
    "CaMKt": (0.01095026, 0.01273541, 0.0201882),
    "dNa_i": (0.0, 0.0, 0.0),
    "dNa_ss": (0.000339333, 0.0003166376, 0.0005471219),
    "dK_i": (0.0, 0.0, 0.0),
    "dK_ss": (-4.063914e-05, -4.571874e-05, -5.408211e-05),
    "dCl_i": (0.0, 0.0, 0.0),
    "dCl_ss": (-2.326241e-05, -2.203833e-05, 7.577787e-06),
    "Ca_i": (7.453481e-05, 6.621816e-05, 8.297576e-05),
    "Ca_ss": (6.497341e-05, 5.749921e-05, 6.642187e-05),
    "Ca_nsr": (1.528001, 1.806794, 2.012225),
    "Ca_jsr": (1.525693, 1.805047, 2.016415),
}
"""Gates and channel states without unit, Jrel in mM/ms, concentrations in mM; p: phosphorylated by CaMK, ss: subspace."""

REST_MV = -89.7480828
STATES = {name: values[0] for name, values in _INITIAL.items()}
INITIAL = {
    "epi": {"V": -90.7456332, **{name: values[1] for name, values in _INITIAL.items()}},
    "mid": {"V": -91.3391804, **{name: values[2] for name, values in _INITIAL.items()}},
}

PARAMETERS = {
    # conductances, mS/uF; permeabilities, L/(F ms)
    "G_Na": 11.7802,
    "G_NaL": 0.0279,
    "G_to": 0.16,
    "G_Kr": 0.0321,
    "G_Ks": 0.0011,
    "G_K1": 0.6992,
    "G_Kb": 0.0189,
    "G_ClCa": 0.2843,
    "G_Clb": 0.00198,
    "P_Ca": 8.3757e-5,
    "P_Nab": 1.9239e-9,
    "P_Cab": 5.9194e-8,
    # pumps and exchanger, uA/uF
    "G_NaCa": 0.0034,
    "P_NaK": 15.4509,
    "G_pCa": 0.0005,
    # sarcoplasmic reticulum: 1, mM/ms, 1/ms; rel_gain differs in the mid-myocardium
    "J_rel": 1.5378,
    "J_up": 0.005425,
    "J_leak": 0.0003255,
    "rel_gain": 1.0,
    # calmodulin, mM, and the share by which epicardial I_to inactivates faster at rest
    "cmdn": 0.05,
    "to_fast": 0.0,
    # concentrations, mM: fixed outside, initial inside
    "Na_o": 140.0,
    "K_o": 5.0,
    "Ca_o": 1.8,
    "Cl_o": 150.0,
    "Na_i": 12.397356,
    "K_i": 147.711474,
    "Cl_i": 29.206979,
}
_EPI = {"G_NaL": 0.6, "G_to": 2.0, "P_Ca": 1.2, "G_Kr": 1.3, "G_Ks": 1.4, "G_K1": 1.2, "G_NaCa": 1.1, "P_NaK": 0.9, "G_Kb": 0.6}
_EPI |= {"J_up": 1.3, "cmdn": 1.3}
_MID = {"G_to": 2.0, "P_Ca": 2.0, "G_Kr": 0.8, "G_K1": 1.3, "G_NaCa": 1.4, "P_NaK": 0.7, "rel_gain": 1.7}
CELLS: dict[str, dict[str, float]] = {
    "endo": {},
    "epi": {n: PARAMETERS[n] * f for n, f in _EPI.items()} | {"to_fast": 0.95, "Na_i": 13.40062, "K_i": 152.36389, "Cl_i": 34.31721},
    "mid": {n: PARAMETERS[n] * f for n, f in _MID.items()} | {"Na_i": 15.948673, "K_i": 156.713067, "Cl_i": 48.912768},
}
CURRENTS = {
    "I_Na": ("G_Na",),
    "I_NaL": ("G_NaL",),
    "I_to": ("G_to",),
    "I_CaL": ("P_Ca",),
    "I_Kr": ("G_Kr",),
    "I_Ks": ("G_Ks",),
    "I_K1": ("G_K1",),
    "I_Kb": ("G_Kb",),
    "I_NaCa": ("G_NaCa",),
    "I_NaK": ("P_NaK",),
    "I_bNa": ("P_Nab",),
    "I_bCa": ("P_Cab",),
    "I_pCa": ("G_pCa",),
    "I_ClCa": ("G_ClCa",),
    "I_Clb": ("G_Clb",),
}


def sodium_gates(v: Any, dt: Any, s: Any) -> tuple[Any, ...]:
    """New m, h, j, hp, jp of I_Na and mL, hL, hLp of I_NaL."""
    left = (v + 45.79) / 15.54
    right = (v - 4.823) / 51.12
    m_relax = relax(dt / (0.1292 * exp(-left * left) + 0.06487 * exp(-right * right)))
    m_root = 1.0 / (1.0 + exp((-56.86 - v) / 9.03))
    m = s.m + (m_root * m_root - s.m) * m_relax
    mL = s.mL + (1.0 / (1.0 + exp((-42.85 - v) / 5.264)) - s.mL) * m_relax
    h_inf, h_rate, j_rate = fast_inactivation(v)
    h_relax = relax(dt * h_rate)
    hp_root = 1.0 / (1.0 + exp((v + 77.55) / 7.43))
    h = s.h + (h_inf - s.h) * h_relax
    hp = s.hp + (hp_root * hp_root - s.hp) * h_relax
    j = s.j + (h_inf - s.j) * relax(dt * j_rate)
    jp = s.jp + (h_inf - s.jp) * relax(dt * j_rate / 1.46)
    hL = s.hL + (1.0 / (1.0 + exp((v + 87.61) / 7.488)) - s.hL) * relax(dt / 200.0)
    hLp = s.hLp + (1.0 / (1.0 + exp((v + 93.81) / 7.488)) - s.hLp) * relax(dt / 600.0)
    return m, h, j, hp, jp, mL, hL, hLp


def transient_outward_gates(v: Any, dt: Any, s: Any, p: Any) -> tuple[Any, ...]:
    """New a, iF, iS, ap, iFp, iSp, and the share AiF of the fast ones."""
    a_fast = 1.2089 * (1.0 + exp((18.4099 - v) / 29.3814))
    a_relax = relax(dt * (1.0 / a_fast + 3.5 / (1.0 + exp((v + 100.0) / 29.3814))) / 1.0515)
    a = s.a + (1.0 / (1.0 + exp((14.34 - v) / 14.82)) - s.a) * a_relax
    ap = s.ap + (1.0 / (1.0 + exp((24.34 - v) / 14.82)) - s.ap) * a_relax
    i_inf = 1.0 / (1.0 + exp((v + 43.94) / 5.711))
    shorter = 1.0 - p.to_fast / (1.0 + exp((v + 70.0) / 5.0))
    tau_f = shorter * (4.562 + 1.0 / (0.3933 * exp((-100.0 - v) / 100.0) + 0.08004 * exp((v + 50.0) / 16.59)))
    tau_s = shorter * (23.62 + 1.0 / (0.001416 * exp((-96.52 - v) / 59.05) + 1.78e-8 * exp((v + 114.1) / 8.079)))
    develop = 1.354 + 1.0e-4 / (exp((v - 167.4) / 15.89) + exp((12.23 - v) / 0.2154))
    slower = develop * (1.0 - 0.5 / (1.0 + exp((v + 70.0) / 20.0)))
    f_rate = dt / tau_f
    s_rate = dt / tau_s
    iF = s.iF + (i_inf - s.iF) * relax(f_rate)
    iS = s.iS + (i_inf - s.iS) * relax(s_rate)
    iFp = s.iFp + (i_inf - s.iFp) * relax(f_rate / slower)
    iSp = s.iSp + (i_inf - s.iSp) * relax(s_rate / slower)
    return a, iF, iS, ap, iFp, iSp, 1.0 / (1.0 + exp((v - 213.6) / 151.2))


def calcium_gates(v: Any, dt: Any, s: Any) -> tuple[Any, ...]:
    """New d, ff, fs, fcaf, fcas, jca, ffp, fcafp; each pair of exponentials of a time constant from powers of one."""
    d_inf = select(v > 31.4978, 1.0, 1.0763 * exp(-1.007 * exp(-0.0829 * v)))
    d_slow = exp(-0.05 * (v + 6.0)) + exp(0.09 * (v + 14.0))
    d = s.d + (d_inf - s.d) * relax(dt * d_slow / (0.6 * d_slow + 1.0))
    f_inf = 1.0 / (1.0 + exp((v + 19.58) / 3.696))
    e = exp((v + 20.0) / 10.0)
    ff_rate = dt * 0.0045 * (1.0 + e * e) / (0.0315 * (1.0 + e * e) + e)
    ff = s.ff + (f_inf - s.ff) * relax(ff_rate)
    ffp = s.ffp + (f_inf - s.ffp) * relax(0.4 * ff_rate)
    e12 = exp((v + 5.0) / 12.0)
    e12_3 = e12 * e12 * e12
    fs_slow = 3.5e-5 * (1.0 + e12_3 * e12 * e12)
    fs = s.fs + (f_inf - s.fs) * relax(dt * fs_slow / (1000.0 * fs_slow + e12_3))
    e7 = exp((v - 4.0) / 7.0)
    fcaf_rate = dt * 0.04 * (1.0 + e7 * e7) / (0.28 * (1.0 + e7 * e7) + e7)
    fcaf = s.fcaf + (f_inf - s.fcaf) * relax(fcaf_rate)
    fcafp = s.fcafp + (f_inf - s.fcafp) * relax(0.4 * fcaf_rate)
    e21 = exp(v / 21.0)
    e21_2 = e21 * e21
    e21_5 = e21_2 * e21_2 * e21
    fcas_slow = 1.2e-4 * (1.0 + e21_5 * e21_5)
    fcas = s.fcas + (f_inf - s.fcas) * relax(dt * fcas_slow / (100.0 * fcas_slow + e21_5 * e21_2))
    jca = s.jca + (1.0 / (1.0 + exp((v + 18.08) / 2.7916)) - s.jca) * relax(dt / 72.5)
    return d, ff, fs, fcaf, fcas, jca, ffp, fcafp


def rapid_rectifier(phi: Any, dt: Any, s: Any) -> tuple[Any, ...]:
    """New C1, C2, O, I after one implicit Euler step of C0 <-> C1 <-> C2 <-> O <-> I, C2 <-> I; C0 eliminated by the sum of 1."""
    up0 = dt * 0.1161 * exp(0.299 * phi)
    down0 = dt * 0.2442 * exp(-1.604 * phi)
    up1 = dt * 1.25 * 0.1235
    down1 = dt * 0.1911
    up2 = 0.0578 * exp(0.971 * phi)
    down2 = 0.349e-3 * exp(-1.062 * phi)
    shut = 0.2533 * exp(0.5953 * phi)
    open_again = 1.25 * 0.0522 * exp(-0.8209 * phi)
    skip = 0.52e-4 * exp(1.525 * phi)
    back = dt * down2 * open_again * skip / (up2 * shut)
    # Eliminate from both ends: O = (o0 + o2 C2 + oI I)/o, I = i0 + i2 C2, and C1 = c0 + c2 C2 by the sum.
    o = 1.0 + dt * (down2 + shut)
    o0 = s.O / o
    o2 = dt * up2 / o
    oI = dt * open_again / o
    i = 1.0 + back + dt * open_again - dt * shut * oI
    i0 = (s.I + dt * shut * o0) / i
    i2 = (dt * skip + dt * shut * o2) / i
    q0 = o0 + oI * i0
    q2 = o2 + oI * i2
    # (1 + down0 + up1) C1 = C1_old + up0 (1 - C1 - C2 - O - I) + down1 C2
    c = 1.0 + down0 + up1 + up0
    c0 = (s.C1 + up0 * (1.0 - q0 - i0)) / c
    c2 = (down1 - up0 * (1.0 + q2 + i2)) / c
    new2 = (s.C2 + up1 * c0 + dt * down2 * q0 + back * i0) / (1.0 + down1 + dt * (up2 + skip) - up1 * c2 - dt * down2 * q2 - back * i2)
    return c0 + c2 * new2, new2, q0 + q2 * new2, i0 + i2 * new2


def activity(strength: Any) -> Any:
    """Activity coefficient of a monovalent ion at an ionic strength in mol/L: Davies, in water at 310 K (dielectric constant 74)."""
    root = sqrt(strength)
    return exp(-1.82e6 / (22940.0 * sqrt(22940.0)) * (root / (1.0 + root) - 0.3 * strength))


def calcium_drive(phi: Any, p: Any, ghk: Any, ghk2: Any, g_o: Any, Na: Any, K: Any, Cl: Any, Ca: Any) -> tuple[Any, ...]:
    """Driving forces of calcium, sodium and potassium through I_CaL, C/L, and the activity coefficient of calcium inside.

    ghk = x/(e^x - 1) at phi, ghk2 the same at 2 phi; g_o the activity coefficient of a monovalent ion outside.
    """
    strength = 0.0005 * (Na + K + Cl + 4.0 * Ca)
    g_i = activity(strength)
    g2_i = g_i * g_i * g_i * g_i
    g2_o = g_o * g_o * g_o * g_o
    to_Ca = 2.0 * 96485.0 * (g2_i * Ca * (2.0 * phi + ghk2) - g2_o * p.Ca_o * ghk2)
    to_Na = 96485.0 * (g_i * Na * (phi + ghk) - g_o * p.Na_o * ghk)
    to_K = 96485.0 * (g_i * K * (phi + ghk) - g_o * p.K_o * ghk)
    return to_Ca, to_Na, to_K, g2_i


def exchanger(p: Any, Na: Any, Ca: Any, hna: Any, hca: Any) -> Any:
    """Turnover of the sodium-calcium exchanger times its allosteric activation, 1/ms: four states in steady state."""
    h7 = 1.0 + p.Na_o / 88.12 * (1.0 + 1.0 / hna)
    h8 = p.Na_o / (88.12 * hna * h7)
    h10 = 13.5 + p.Na_o / 15.0 * (1.0 + p.Na_o / 5.0)
    k1 = 1.5e6 * p.Ca_o / h10
    k3_na = 5.0e3 * h8
    k3 = 6.0e4 / h7 + k3_na
    k8 = 6.0e4 * h8 * p.Na_o * p.Na_o / (75.0 * h10)
    h3 = 1.0 / (1.0 + Na / 88.12 * (1.0 + hna))
    h2 = Na * hna * h3 / 88.12
    h6 = 1.0 / (1.0 + Na / 15.0 * (1.0 + Na / 5.0))
    k4_na = 5.0e3 * h2
    k4 = 6.0e4 * h3 / hca + k4_na
    k6 = 1.5e6 * h6 * Ca
    k7 = 6.0e4 * h2 * h6 * Na * Na / 75.0
    x1 = 5.0e3 * (k4 * (k7 + k6) + k7 * (5.0e3 + k3))
    x2 = k1 * k7 * (k4 + 5.0e3) + k4 * k6 * (k1 + k8)
    x3 = k1 * k3 * (k7 + k6) + k8 * k6 * (5.0e3 + k3)
    x4 = 5.0e3 * (k8 * (k4 + 5.0e3) + k3 * (k1 + k8))
    flux = 3.0 * (x4 * k7 - x1 * k8) + x3 * k4_na - x2 * k3_na + 2.0 * (5.0e3 * x2 - k1 * x1)
    return flux * Ca * Ca / ((x1 + x2 + x3 + x4) * (Ca * Ca + 2.25e-8))


def sodium_pump(phi: Any, p: Any, Na_i: Any, K_i: Any) -> Any:
    """I_NaK: four states in steady state."""
    na = Na_i / 9.073 * exp(0.155 / 3.0 * phi)
    na_o = p.Na_o / 27.78 * exp(-1.155 / 3.0 * phi)
    k = K_i / 0.5
    k_o = p.K_o / 0.3582
    inside = (1.0 + na) * (1.0 + na) * (1.0 + na) + (1.0 + k) * (1.0 + k) - 1.0
    outside = (1.0 + na_o) * (1.0 + na_o) * (1.0 + na_o) + (1.0 + k_o) * (1.0 + k_o) - 1.0
    phosphate = 4.2 / (1.0 + 1.0 / 1.698 + Na_i / 224.0 + K_i / 292.0)
    a1 = 949.5 * na * na * na / inside
    b1 = 9.12
    a2 = 687.2
    b2 = 39.4 * na_o * na_o * na_o / outside
    a3 = 1899.0 * k_o * k_o / outside
    # MgATP 9.8 mM over its affinity 1.698e-7 mM
    b3 = 0.00793 * phosphate / (1.0 + 9.8 / 1.698e-7)
    a4 = 639.0
    b4 = 40.0 * k * k / inside
    x1 = a4 * a1 * a2 + b2 * b4 * b3 + a2 * b4 * b3 + b3 * a1 * a2
    x2 = b2 * b1 * b4 + a1 * a2 * a3 + a3 * b1 * b4 + a2 * a3 * b4
    x3 = a2 * a3 * a4 + b3 * b2 * b1 + b2 * b1 * a4 + a3 * a4 * b1
    x4 = b4 * b3 * b2 + a3 * a4 * a1 + b2 * a4 * a1 + b3 * b2 * a1
    return p.P_NaK * (3.0 * (x1 * a3 - x2 * b3) + 2.0 * (x4 * b1 - x3 * a1)) / (x1 + x2 + x3 + x4)


def potassium_gates(v: Any, dt: Any, s: Any) -> tuple[Any, ...]:
    """New xs1, xs2."""
    inf = 1.0 / (1.0 + exp((-11.6 - v) / 8.932))
    slow = 2.326e-4 * exp((v + 48.28) / 17.8) + 0.001292 * exp((-210.0 - v) / 230.0)
    xs1 = s.xs1 + (inf - s.xs1) * relax(dt * slow / (817.3 * slow + 1.0))
    xs2 = s.xs2 + (inf - s.xs2) * relax(dt * (0.01 * exp((v - 50.0) / 20.0) + 0.0193 * exp((-66.54 - v) / 31.0)))
    return xs1, xs2


def inward_rectifier(v_K: Any) -> Any:
    """Share of I_K1 channels that conduct at V - E_K."""
    a = 4.094 / (1.0 + exp(0.1217 * (v_K - 49.934)))
    b = (15.72 * exp(0.0674 * (v_K - 3.257)) + exp(0.0618 * (v_K - 594.31))) / (1.0 + exp(-0.1629 * (v_K + 14.207)))
    return a / (a + b)


def mode_gate(dt: Any, nca: Any, jca: Any, Ca: Any) -> Any:
    """New share of I_CaL channels in calcium-dependent mode: rate jca, target 1/(1 + jca (1 + Kmn/Ca)^4 / k2n)."""
    bound = (1.0 + 0.002 / Ca) * (1.0 + 0.002 / Ca)
    return nca + (1.0 / (1.0 + jca * bound * bound / 500.0) - nca) * relax(dt * jca)


def release(dt: Any, s: Any, p: Any, ph: Any, J_tr: Any, I_CaL_ss: Any) -> tuple[Any, ...]:
    """New Jrel, Jrelp and Ca_jsr, and the flux J_rel out of the junctional reticulum."""
    # the time constant is at least 0.001 ms as published, also for an empty store
    held = select(s.Ca_jsr > 1.0e-6, s.Ca_jsr, 1.0e-6)
    rate = (1.0 + 0.0123 / held) / 4.75
    r2 = 2.89 / (held * held)
    target = -0.5 * 4.75 * p.rel_gain * I_CaL_ss / (1.0 + r2 * r2 * r2 * r2)
    Jrel = s.Jrel + (target - s.Jrel) * relax(dt * select(rate < 1000.0, rate, 1000.0))
    Jrelp = s.Jrelp + (1.25 * target - s.Jrelp) * relax(dt * select(0.8 * rate < 1000.0, 0.8 * rate, 1000.0))
    # No more leaves than is there. The mid-myocardial store empties in a beat; taken below zero it would release for ever.
    # The change x of free calcium by a total change T, buffer 10 mM of affinity 0.8: x^2 + (a + 8/a - T) x - T a = 0, a = Ca + 0.8.
    near = s.Ca_jsr + 0.8
    wanted = p.J_rel * ((1.0 - ph) * Jrel + ph * Jrelp)
    most = J_tr + s.Ca_jsr * (1.0 + 10.0 / near) / dt
    J_rel = select(wanted < most, wanted, most)
    total = dt * (J_tr - J_rel)
    half = near + 8.0 / near - total
    Ca_jsr = s.Ca_jsr + 2.0 * total * near / (half + sqrt(half * half + 4.0 * total * near))
    return Jrel, Jrelp, Ca_jsr, J_rel


def buffered(Ca: Any, total: Any, b1: Any, k1: Any, b2: Any, k2: Any) -> Any:
    """Free calcium after a total change: two buffers b of affinity k in instant equilibrium.

    They take up b k x / ((k + Ca) (k + Ca + x)) of a free change x; x on the right is that of a linear step, which conserves
    calcium to second order in dt. The slope at Ca alone loses some in every beat.
    """
    n1 = k1 + Ca
    n2 = k2 + Ca
    c1 = b1 * k1 / n1
    c2 = b2 * k2 / n2
    first = total / (1.0 + c1 / n1 + c2 / n2)
    return Ca + total / (1.0 + c1 / (n1 + first) + c2 / (n2 + first))


def step(v: Any, dt: Any, s: Any, p: Any) -> tuple[Any, ...]:
    """Advance the gates (Rush-Larsen) with V, then the currents, then the concentrations; returns -dV/dt in mV/ms first."""
    # R T / F at 310 K with the constants of the paper
    phi = v / 26.71233870551
    m, h, j, hp, jp, mL, hL, hLp = sodium_gates(v, dt, s)
    a, iF, iS, ap, iFp, iSp, fast_to = transient_outward_gates(v, dt, s, p)
    d, ff, fs, fcaf, fcas, jca, ffp, fcafp = calcium_gates(v, dt, s)
    C1, C2, Kr_o, Kr_i = rapid_rectifier(phi, dt, s)
    xs1, xs2 = potassium_gates(v, dt, s)
    Ca_i_old = s.Ca_i
    Ca_ss_old = s.Ca_ss
    nca_old = s.nca
    nca_i_old = s.nca_i
    nca = mode_gate(dt, nca_old, jca, Ca_ss_old)
    nca_i = mode_gate(dt, nca_i_old, jca, Ca_i_old)
    bound = 0.05 * (1.0 - s.CaMKt) * Ca_ss_old / (Ca_ss_old + 0.0015)
    CaMKt = s.CaMKt + dt * (0.05 * bound * (bound + s.CaMKt) - 0.00068 * s.CaMKt)
    ph = (bound + s.CaMKt) / (bound + s.CaMKt + 0.15)

    Na_i = p.Na_i + s.dNa_i
    Na_ss = p.Na_i + s.dNa_ss
    K_i = p.K_i + s.dK_i
    K_ss = p.K_i + s.dK_ss
    Cl_i = p.Cl_i + s.dCl_i
    Cl_ss = p.Cl_i + s.dCl_ss
    v_Na = v - 26.71233870551 * log(p.Na_o / Na_i)
    v_K = v - 26.71233870551 * log(p.K_o / K_i)
    v_Ks = v - 26.71233870551 * log((p.K_o + 0.01833 * p.Na_o) / (K_i + 0.01833 * Na_i))
    root_K_o = sqrt(p.K_o / 5.0)

    I_Na = v_Na * p.G_Na * m * m * m * ((1.0 - ph) * h * j + ph * hp * jp)
    I_NaL = v_Na * p.G_NaL * mL * ((1.0 - ph) * hL + ph * hLp)
    I_to = v_K * p.G_to * ((1.0 - ph) * a * (iS + fast_to * (iF - iS)) + ph * ap * (iSp + fast_to * (iFp - iSp)))
    I_Kr = v_K * p.G_Kr * root_K_o * Kr_o
    I_Ks = v_Ks * p.G_Ks * (1.0 + 0.6 / (1.0 + exp(1.4 * log(3.8e-5 / Ca_i_old)))) * xs1 * xs2
    K1_open = inward_rectifier(v_K)
    I_K1 = v_K * p.G_K1 * root_K_o * K1_open
    I_Kb = v_K * p.G_Kb / (1.0 + exp((10.8968 - v) / 23.9871))

    grown = exp(phi)
    ghk = select(phi * phi < 0.0025, 1.0 - phi * (0.5 - phi * (1.0 / 12.0 - phi * phi / 720.0)), phi / (grown - 1.0))
    ghk2 = 2.0 * ghk / (grown + 1.0)
    strength_o = 0.0005 * (p.Na_o + p.K_o + p.Cl_o + 4.0 * p.Ca_o)
    g_o = activity(strength_o)
    ss_Ca, ss_Na, ss_K, _ = calcium_drive(phi, p, ghk, ghk2, g_o, Na_ss, K_ss, Cl_ss, Ca_ss_old)
    i_Ca, i_Na, i_K, g2_i = calcium_drive(phi, p, ghk, ghk2, g_o, Na_i, K_i, Cl_i, Ca_i_old)
    fca_fast = 0.3 + 0.6 / (1.0 + exp((v - 10.0) / 10.0))
    f = fs + 0.6 * (ff - fs)
    fp = fs + 0.6 * (ffp - fs)
    fca = jca * (fcas + fca_fast * (fcaf - fcas))
    fcap = jca * (fcas + fca_fast * (fcafp - fcas))
    free = p.P_Ca * d * ((1.0 - ph) * f + 1.1 * ph * fp)
    mode = p.P_Ca * d * ((1.0 - ph) * fca + 1.1 * ph * fcap)
    open_ss = 0.8 * (free + nca * (mode - free))
    open_i = 0.2 * (free + nca_i * (mode - free))
    I_CaL_ss = open_ss * ss_Ca
    I_CaL_i = open_i * i_Ca
    I_CaNa_ss = 0.00125 * open_ss * ss_Na
    I_CaNa_i = 0.00125 * open_i * i_Na
    I_CaK_ss = 3.574e-4 * open_ss * ss_K
    I_CaK_i = 3.574e-4 * open_i * i_K
    I_bNa = p.P_Nab * 96485.0 * (Na_i * (phi + ghk) - p.Na_o * ghk)
    g2_o = g_o * g_o * g_o * g_o
    I_bCa = p.P_Cab * 2.0 * 96485.0 * (g2_i * Ca_i_old * (2.0 * phi + ghk2) - g2_o * p.Ca_o * ghk2)
    hna = exp(0.5224 * phi)
    hca = exp(0.167 * phi)
    turn_ss = exchanger(p, Na_ss, Ca_ss_old, hna, hca)
    turn_i = exchanger(p, Na_i, Ca_i_old, hna, hca)
    I_NaCa_ss = 0.35 * p.G_NaCa * turn_ss
    I_NaCa_i = 0.65 * p.G_NaCa * turn_i
    I_NaK = sodium_pump(phi, p, Na_i, K_i)
    I_pCa = p.G_pCa * Ca_i_old / (0.0005 + Ca_i_old)
    I_ClCa = p.G_ClCa * Ca_ss_old / (Ca_ss_old + 0.1) * (v - 26.71233870551 * log(Cl_ss / p.Cl_o))
    I_Clb = p.G_Clb * (v - 26.71233870551 * log(Cl_i / p.Cl_o))

    J_up = p.J_up * Ca_i_old * ((1.0 - ph) / (Ca_i_old + 0.00092) + 2.75 * ph / (Ca_i_old + 0.00075)) - p.J_leak * s.Ca_nsr
    J_tr = (s.Ca_nsr - s.Ca_jsr) / 60.0
    Jrel, Jrelp, Ca_jsr, J_rel = release(dt, s, p, ph, J_tr, I_CaL_ss)
    J_Ca = (Ca_ss_old - Ca_i_old) / 0.2
    # membrane 1.533576e-4 cm^2 and volumes in uL: myoplasm 2.583592e-5, subspace 7.5988e-7, network 2.0972688e-6, junctional 1.823712e-7
    to_i = 1.533576e-4 / (96485.0 * 2.583592e-5)
    to_ss = 1.533576e-4 / (96485.0 * 7.5988e-7)
    sodium = I_Na + I_NaL + I_CaNa_i + 3.0 * (I_NaCa_i + I_NaK) + I_bNa
    potassium = I_to + I_Kr + I_Ks + I_K1 + I_Kb + I_CaK_i - 2.0 * I_NaK
    J_Na = 0.5 * (s.dNa_ss - s.dNa_i)
    J_K = 0.5 * (s.dK_ss - s.dK_i)
    J_Cl = 0.5 * (s.dCl_ss - s.dCl_i)
    dNa_i = s.dNa_i + dt * (J_Na * (7.5988e-7 / 2.583592e-5) - to_i * sodium)
    dNa_ss = s.dNa_ss - dt * (J_Na + to_ss * (I_CaNa_ss + 3.0 * I_NaCa_ss))
    dK_i = s.dK_i + dt * (J_K * (7.5988e-7 / 2.583592e-5) - to_i * potassium)
    dK_ss = s.dK_ss - dt * (J_K + to_ss * I_CaK_ss)
    dCl_i = s.dCl_i + dt * (J_Cl * (7.5988e-7 / 2.583592e-5) + to_i * I_Clb)
    dCl_ss = s.dCl_ss - dt * (J_Cl - to_ss * I_ClCa)
    flux_i = (
        J_Ca * (7.5988e-7 / 2.583592e-5) - J_up * (2.0972688e-6 / 2.583592e-5) - 0.5 * to_i * (I_CaL_i + I_pCa + I_bCa - 2.0 * I_NaCa_i)
    )
    flux_ss = J_rel * (1.823712e-7 / 7.5988e-7) - J_Ca - 0.5 * to_ss * (I_CaL_ss - 2.0 * I_NaCa_ss)
    # calmodulin and troponin; binding sites of the reticulum's and the cell's membrane
    k_cmdn = 0.00238
    trpn = 0.07
    k_trpn = 0.0005
    b_sr = 0.047
    k_sr = 0.00087
    b_sl = 1.124
    k_sl = 0.0087
    total_i = dt * flux_i
    total_ss = dt * flux_ss
    cmdn = p.cmdn
    Ca_i = buffered(Ca_i_old, total_i, cmdn, k_cmdn, trpn, k_trpn)
    Ca_ss = buffered(Ca_ss_old, total_ss, b_sr, k_sr, b_sl, k_sl)
    Ca_nsr = s.Ca_nsr + dt * (J_up - J_tr * (1.823712e-7 / 2.0972688e-6))

    through_CaL = I_CaL_ss + I_CaL_i + I_CaNa_ss + I_CaK_ss
    current = sodium + potassium + through_CaL + I_NaCa_ss - 2.0 * I_NaCa_i + I_bCa + I_pCa + I_ClCa + I_Clb
    # fmt: off
    return (
        current,
        m, h, j, hp, jp, mL, hL, hLp, a, iF, iS, ap, iFp, iSp,
        d, ff, fs, fcaf, fcas, jca, nca, nca_i, ffp, fcafp, C1, C2, Kr_o, Kr_i,
        xs1, xs2, Jrel, Jrelp, CaMKt, dNa_i, dNa_ss, dK_i, dK_ss, dCl_i, dCl_ss, Ca_i, Ca_ss, Ca_nsr,
        Ca_jsr,
    )
    # fmt: on
