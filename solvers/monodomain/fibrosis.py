"""Fibrosis: passive cells instead of myocytes, and fibroblasts that hang on myocytes by gap junctions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.monodomain.solver import CellState
from twin.params import Param

_MACCANNELL = "MacCannell et al., Biophys J 92:4121 (2007), active fibroblast"
FIBROBLAST_PF = Param(6.3, "pF", 4.5, 50.0, _MACCANNELL)
GAP_NS = Param(3.0, "nS", 0.3, 8.0, f"{_MACCANNELL}: gap junction of one fibroblast and one myocyte")
MYOCYTE_PF = Param(185.0, "pF", 100.0, 220.0, "ten Tusscher et al., Am J Physiol 286:H1573 (2004): capacitance of the cell model, 0.185 nF")
G_KV = Param(0.25, "nS/pF", 0.15, 0.25, _MACCANNELL)
G_K1 = Param(0.4822, "nS/pF", 0.4, 0.6, _MACCANNELL)
I_NAK = Param(2.002, "pA/pF", 1.5, 2.5, _MACCANNELL)
G_NAB = Param(0.0095, "nS/pF", 0.005, 0.015, _MACCANNELL)
E_K = Param(-87.0, "mV", -92.0, -80.0, _MACCANNELL)
E_NA = Param(72.69, "mV", 65.0, 75.0, f"{_MACCANNELL}: 130 mM outside, 8.5547 mM inside, held")
PUMP = Param(0.3428, "1", 0.3, 0.4, f"{_MACCANNELL}: Ko/(Ko + 1.0) Nai^1.5/(Nai^1.5 + 11^1.5) at Ko 5.3581 and Nai 8.5547 mM")
FIBROBLAST_REST = Param(-49.6, "mV", -60.0, -20.0, _MACCANNELL)
PASSIVE_REST = Param(-50.0, "mV", -85.0, -10.0, "chosen here: middle of the resting potentials reported for fibroblasts")
PASSIVE_TAU = Param(67.0, "ms", 10.0, 100.0, "chosen here: 6.3 pF at 10.7 GOhm, the passive fibroblast of MacCannell et al. (2007)")


@dataclass(frozen=True)
class PassiveCell:
    """An ohmic cell, dV/dt = -(V - rest) / tau, in place of a myocyte."""

    rest_mv: float = PASSIVE_REST.value
    tau_ms: float = PASSIVE_TAU.value


@dataclass(frozen=True)
class Fibroblasts:
    """`per_myocyte` fibroblasts, each coupled to its myocyte by gap_nS, at every node of a region."""

    per_myocyte: float
    gap_nS: float = GAP_NS.value


class FibroticCells:
    """CellState of a mesh with fibrosis: `cells` are the myocytes of all nodes.

    tissue (n,): kind of each node; passive, fibroblasts: by kind. Nodes of a passive kind ignore their myocyte. For who advances them
    elsewhere: rows passive (p,) with rest and rate (p,), rows coupled (k,) with number, gap (k,) and fibroblast (3, k): V, r, s.
    """

    def __init__(
        self,
        cells: CellState,
        tissue: NDArray[np.integer],
        passive: Mapping[int, PassiveCell],
        fibroblasts: Mapping[int, Fibroblasts],
    ) -> None:
        self.cells = cells
        self.passive = np.flatnonzero(np.isin(tissue, list(passive)))
        cells_there = [passive[int(k)] for k in tissue[self.passive]]
        self.rest, self.rate = np.array([c.rest_mv for c in cells_there]), np.array([1.0 / c.tau_ms for c in cells_there])
        self.coupled = np.flatnonzero(np.isin(tissue, list(fibroblasts)))
        kinds = [fibroblasts[int(k)] for k in tissue[self.coupled]]
        self.number, self.gap = np.array([f.per_myocyte for f in kinds]), np.array([f.gap_nS for f in kinds])
        # V, r and s of the fibroblasts of each coupled node
        self.fibroblast = np.zeros((3, len(self.coupled)))
        self.fibroblast[0], self.fibroblast[2] = FIBROBLAST_REST.value, 1.0

    @property
    def fingerprint(self) -> tuple[str, ...]:
        """What a state must agree with."""
        return (*getattr(self.cells, "fingerprint", ()), f"{len(self.passive)} passive", f"{len(self.coupled)} with fibroblasts")

    def initial_v(self) -> NDArray[Any]:
        """Resting voltages, those of passive cells their own."""
        v = self.cells.initial_v()
        v[self.passive] = self.rest
        return v

    def advance(self, v: NDArray[Any], dt_ms: float, current: NDArray[Any]) -> None:
        """Myocytes, then what fibrosis changes."""
        self.cells.advance(v, dt_ms, current)
        current[self.passive] = self.rate * (v[self.passive] - self.rest)
        if len(self.coupled):
            _couple(v, current, self.coupled, self.number, self.gap, self.fibroblast, dt_ms)

    def fibroblast_v_mv(self) -> NDArray[np.float64]:
        """Voltage of the fibroblasts at coupled nodes, (k,) mV."""
        return self.fibroblast[0].copy()

    def snapshot(self) -> dict[str, Any]:
        """A copy of myocytes and fibroblasts."""
        return {"myocytes": self.cells.snapshot(), "fibroblasts": self.fibroblast.copy()}

    def restore(self, state: Any) -> None:
        """Go back to a copy."""
        self.cells.restore(state["myocytes"])
        self.fibroblast[:] = state["fibroblasts"]


_C_F, _C_M, _G_KV, _G_K1, _I_NAK, _G_NAB = (p.value for p in (FIBROBLAST_PF, MYOCYTE_PF, G_KV, G_K1, I_NAK, G_NAB))
_E_K, _E_NA, _PUMP = E_K.value, E_NA.value, PUMP.value


@njit(cache=True, nogil=True)
def fibroblast_current(v, r, s):  # type: ignore[no-untyped-def]
    """Membrane current of the active fibroblast, pA/pF: time-dependent and inward rectifier potassium, pump, background sodium."""
    alpha = 0.1 / (1.0 + math.exp(0.06 * (v - _E_K - 200.0)))
    beta = (3.0 * math.exp(0.0002 * (v - _E_K + 100.0)) + math.exp(0.1 * (v - _E_K - 10.0))) / (1.0 + math.exp(-0.5 * (v - _E_K)))
    potassium = (_G_KV * r * s + _G_K1 * alpha / (alpha + beta)) * (v - _E_K)
    return potassium + _I_NAK * _PUMP * (v + 150.0) / (v + 200.0) + _G_NAB * (v - _E_NA)


@njit(cache=True, nogil=True)
def couple_one(v, vf, r, s, number, gap, dt):  # type: ignore[no-untyped-def]
    """One step of fibroblasts (vf, r, s) beside a myocyte at v: what they take from it, mV/ms, and their new vf, r, s."""
    r_end, s_end = 1.0 / (1.0 + math.exp(-(vf + 20.0) / 11.0)), 1.0 / (1.0 + math.exp((vf + 23.0) / 7.0))
    r_tau = 20.3 + 138.0 * math.exp(-(((vf + 20.0) / 25.9) ** 2))
    s_tau = 1574.0 + 5268.0 * math.exp(-(((vf + 23.0) / 22.7) ** 2))
    r_new = r_end + (r - r_end) * math.exp(-dt / r_tau)
    s_new = s_end + (s - s_end) * math.exp(-dt / s_tau)
    # the junction is stiff (6.3 pF at 3 nS: 2 ms): implicit in the fibroblast, so that any step of the tissue is stable
    ratio = dt * gap / _C_F
    new = (vf - dt * fibroblast_current(vf, r_new, s_new) + ratio * v) / (1.0 + ratio)
    # the charge that leaves the myocyte is the charge that the fibroblast gets
    return number * gap / _C_M * (v - new), new, r_new, s_new


@njit(cache=True, nogil=True)
def _couple(v, current, rows, number, gap, fibroblast, dt):  # type: ignore[no-untyped-def]
    """Advance the fibroblasts of each coupled row and add what they take to its current, mV/ms."""
    for k in range(rows.size):
        taken, vf, r, s = couple_one(v[rows[k]], fibroblast[0, k], fibroblast[1, k], fibroblast[2, k], number[k], gap[k], dt)
        fibroblast[0, k], fibroblast[1, k], fibroblast[2, k] = vf, r, s
        current[rows[k]] += taken
