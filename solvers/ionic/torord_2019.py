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

from solvers.ionic.torord_parts import (
    activity,
    buffered,
    calcium_drive,
    calcium_gates,
    exchanger,
    inward_rectifier,
    mode_gate,
    potassium_gates,
    rapid_rectifier,
    release,
    sodium_gates,
    sodium_pump,
    transient_outward_gates,
)
from solvers.kernels.math_plain import exp, log, select, sqrt

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
