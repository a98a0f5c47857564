"""Gates, channels, carriers and buffers of the ToR-ORd cell (`torord_2019`, where the papers are named), each a part of its step."""

from __future__ import annotations

from typing import Any

from solvers.ionic.ten_tusscher_panfilov_2006 import fast_inactivation
from solvers.kernels.math_plain import exp, relax, select, sqrt


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
