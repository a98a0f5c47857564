"""Drugs: the share of each current that a concentration blocks (Hill), as factors on the parameters of a cell model.

`CURRENTS` in the file of a model names the parameters that each of its currents is proportional to ("1/tau_in": inversely). A
model that lacks a current which a drug blocks does not see that part of the drug: `Effect.left_out` says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from solvers.ionic.model import currents
from twin.errors import InputError
from twin.params import Param


@dataclass(frozen=True)
class Dose:
    """Half-blocking concentration (umol/L) and Hill exponent of one drug on one current."""

    ic50: Param
    hill: Param


_CIPA = (
    "FDA CiPA project, AP_simulation/data/newCiPA.csv in github.com/FDA/CiPA (manual patch clamp; method in Crumb et al., "
    "J Pharmacol Toxicol Methods 81:251, 2016, and Li et al., Circ Arrhythm Electrophysiol 10:e004628, 2017)"
)
_KRAMER = "Kramer et al., Sci Rep 3:2100 (2013), values from memory, the table not read for this; Hill exponent chosen here"
_LIDOCAINE = "order of magnitude chosen here: blocks late more than peak sodium current at therapeutic concentration"


def _dose(ic50_umol_l: float, hill: float, source: str) -> Dose:
    """Laboratories differ about threefold in the concentration: chosen here as the plausible range."""
    return Dose(
        Param(ic50_umol_l, "umol/L", ic50_umol_l / 3.0, ic50_umol_l * 3.0, source),
        Param(hill, "1", 0.5 * hill, 2.0 * hill, source),
    )


DRUGS: dict[str, dict[str, Dose]] = {
    "amiodarone": {
        "I_Kr": _dose(0.86, 1.0, _KRAMER),
        "I_CaL": _dose(1.9, 1.0, _KRAMER),
        "I_Na": _dose(15.9, 1.0, _KRAMER),
    },
    "sotalol": {
        "I_Kr": _dose(86.37, 0.935, _CIPA),
        "I_Ks": _dose(4221.9, 1.167, _CIPA),
        "I_CaL": _dose(7061.5, 0.865, _CIPA),
    },
    "dofetilide": {
        "I_Kr": _dose(0.001462, 0.634, _CIPA),
        "I_to": _dose(0.01882, 0.77, _CIPA),
        "I_K1": _dose(0.39426, 0.77, _CIPA),
        "I_CaL": _dose(0.26032, 1.16, _CIPA),
        "I_Na": _dose(0.3805, 0.89, _CIPA),
    },
    "flecainide": {
        "I_Na": _dose(6.677, 1.894, _CIPA),
        "I_NaL": _dose(9.581, 0.768, _CIPA),
        "I_Kr": _dose(0.6921, 0.837, _CIPA),
        "I_CaL": _dose(25.6, 1.382, _CIPA),
    },
    "lidocaine": {
        "I_NaL": _dose(10.0, 1.0, _LIDOCAINE),
        "I_Na": _dose(200.0, 1.0, _LIDOCAINE),
    },
    "mexiletine": {
        "I_NaL": _dose(8.957, 1.41, _CIPA),
        "I_Kr": _dose(24.37, 2.59, _CIPA),
        "I_CaL": _dose(38.24, 1.031, _CIPA),
    },
    "quinidine": {
        "I_Kr": _dose(0.3434, 1.025, _CIPA),
        "I_Ks": _dose(4.899, 1.363, _CIPA),
        "I_to": _dose(3.487, 1.28, _CIPA),
        "I_NaL": _dose(9.417, 1.34, _CIPA),
        "I_Na": _dose(12.33, 1.494, _CIPA),
        "I_CaL": _dose(51.59, 0.589, _CIPA),
    },
    "ranolazine": {
        "I_NaL": _dose(7.884, 0.94, _CIPA),
        "I_Kr": _dose(6.49, 0.836, _CIPA),
        "I_Na": _dose(68.77, 1.425, _CIPA),
    },
    "verapamil": {
        "I_CaL": _dose(0.2018, 1.097, _CIPA),
        "I_Kr": _dose(0.4986, 1.096, _CIPA),
        "I_NaL": _dose(7.028, 1.03, _CIPA),
        "I_to": _dose(13.43, 0.82, _CIPA),
    },
}
"""What is not listed was not blocked at concentrations that occur."""


@dataclass(frozen=True)
class Effect:
    """What drugs do to one model: factors on its parameters (numbers, or arrays for concentrations per node), and currents it lacks."""

    scale: Mapping[str, Any]
    left_out: tuple[str, ...] = ()


def unblocked(concentration: Any, ic50: float, hill: float = 1.0) -> Any:
    """Share of a current that is left, 1 / (1 + (c/IC50)^h); concentration in the unit of ic50, a number or an array.

    Raises InputError for a negative or non-finite concentration, IC50 or exponent that is not positive.
    """
    c = np.asarray(concentration, float)
    if not (np.isfinite(c).all() and (c >= 0).all()):
        raise InputError("drug", "concentration", "is negative or not finite", "write a concentration of 0 or more")
    for name, value in (("ic50", ic50), ("hill", hill)):
        if not (np.isfinite(value) and value > 0):
            raise InputError("drug", name, f"{value} is not positive", "write a number above 0")
    left = 1.0 / (1.0 + (c / ic50) ** hill)
    return float(left) if left.ndim == 0 else left


def drug_effect(model: str, name: str, concentration_umol_l: Any) -> Effect:
    """Effect of a drug of the table. Raises InputError for an unknown drug, or a model that has none of its currents."""
    if name not in DRUGS:
        close = difflib.get_close_matches(str(name).lower(), DRUGS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError("drug", "name", f"{name!r} is not known", f"{hint}known: {', '.join(DRUGS)}; or give block = {{ ... }} yourself")
    shares = {c: unblocked(concentration_umol_l, d.ic50.value, d.hill.value) for c, d in DRUGS[name].items()}
    known = currents(model)
    seen = {c: share for c, share in shares.items() if c in known}
    if not seen:
        remedy = f"give block for one of {', '.join(known)}" if known else "use a model with currents"
        raise InputError("drug", "name", f"{model} has none of the currents that {name} blocks ({', '.join(shares)})", remedy)
    return Effect(_factors(model, seen), tuple(c for c in shares if c not in seen))


def block_effect(model: str, block: Mapping[str, Mapping[str, Any]]) -> Effect:
    """Effect of the user's own entries: current -> ic50, concentration (one unit for both) and hill (1 if left out).

    Raises InputError for a current that the model lacks, or an entry that is not complete.
    """
    shares = {}
    for current, entry in block.items():
        if current not in currents(model):
            raise InputError("drug", f"block.{current}", f"{model} has no such current", f"known: {', '.join(currents(model))}")
        if not {"ic50", "concentration"} <= set(entry) <= {"ic50", "concentration", "hill"}:
            raise InputError("drug", f"block.{current}", "needs ic50 and concentration", "hill may be given too")
        shares[current] = unblocked(entry["concentration"], entry["ic50"], entry.get("hill", 1.0))
    return Effect(_factors(model, shares))


def combined(*scales: Mapping[str, Any]) -> dict[str, Any]:
    """Product of factors by parameter."""
    out: dict[str, Any] = {}
    for scale in scales:
        for name, factor in scale.items():
            out[name] = out[name] * factor if name in out else factor
    return out


def _factors(model: str, shares: Mapping[str, Any]) -> dict[str, Any]:
    """Shares of currents as factors of parameters."""
    table = currents(model)
    return combined(
        *({name.removeprefix("1/"): 1.0 / share if name.startswith("1/") else share} for c, share in shares.items() for name in table[c])
    )
