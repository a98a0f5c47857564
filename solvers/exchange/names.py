"""Names of cell models and parameters here and in openCARP.

openCARP's names are those of `bench --list-imps` and `bench --imp=NAME --imp-info`, taken from its public documentation and from public
parameter files that use them (docs/opencarp.md says which is which); openCARP itself was not run here. Only what is known to mean the
same is in the tables: everything else is refused or reported, never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twin.errors import InputError


@dataclass(frozen=True)
class Match:
    """One cell model in both programs. flags: cell -> value of `flags=`; parameters: here -> there.

    absolute: write values, not factors (the defaults differ). several: parameters there that share one of ours. fixed: set always.
    states: state there -> state here, for a .sv file of the initial state (empty: openCARP starts from its own). note: what differs.
    """

    ours: str
    theirs: str
    flags: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    absolute: bool = False
    several: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


_CELLS = {"epi": "EPI", "endo": "ENDO", "mid": "MCELL"}
_OWN_START = "openCARP starts from its own initial state: the first beat differs"

MATCHES = (
    Match(
        "ten_tusscher_panfilov_2006",
        "tenTusscherPanfilov",
        _CELLS,
        {
            "G_Na": "GNa",
            "G_CaL": "GCaL",
            "G_to": "Gto",
            "G_Kr": "GKr",
            "G_Ks": "GKs",
            "G_K1": "GK1",
            "G_pK": "GpK",
            "G_bNa": "GbNa",
            "G_bCa": "GbCa",
            "P_NaK": "knak",
            "K_NaCa": "knaca",
            "G_pCa": "GpCa",
            "V_maxup": "Vmaxup",
            "V_rel": "Vrel",
            "V_leak": "Vleak",
            "Na_o": "Nao",
            "K_o": "Ko",
            "Ca_o": "Cao",
        },
        states={
            "CaSR": "Ca_SR",
            "CaSS": "Ca_ss",
            "Cai": "Ca_i",
            "D": "d",
            "F": "f",
            "F2": "f2",
            "FCaSS": "fCass",
            "GCaL": "G_CaL",
            "GKr": "G_Kr",
            "GKs": "G_Ks",
            "Gto": "G_to",
            "H": "h",
            "J": "j",
            "Ki": "K_i",
            "M": "m",
            "Nai": "Na_i",
            "R": "r",
            "R_": "R_bar",
            "S": "s",
            "Xr1": "Xr1",
            "Xr2": "Xr2",
            "Xs": "Xs",
        },
        note="s gate of ENDO: its midpoint is -28 mV in vtwin (ten Tusscher 2004), -20 mV in ports of openCARP's model",
    ),
    Match(
        "aliev_panfilov",
        "AlievPanfilov",
        parameters={"k": "K", "a": "a", "eps0": "epsilon", "mu1": "mu1", "mu2": "mu2"},
        note="the same equations and scaling (100 mV, -80 mV, 12.9 ms); rest is the initial state of both",
    ),
    Match(
        "corrado_niederer",
        "MitchellSchaeffer",
        parameters={"tau_in": "tau_in", "tau_out": "tau_out", "tau_open": "tau_open", "tau_close": "tau_close", "v_gate": "V_gate"},
        absolute=True,
        several={"a_crit": "v_gate"},
        fixed={"V_min": -80.0, "V_max": 20.0},
        note="openCARP's MitchellSchaeffer is the corrected form; V_min and V_max give it vtwin's scale in mV",
    ),
    Match(
        "torord_2019",
        "Tomek",
        {"endo": "ENDO", "epi": "EPI", "mid": "MCELL"},
        {"G_NaL": "GNaL_b", "G_to": "Gto_b", "G_K1": "GK1_b", "P_NaK": "PNaK_b", "G_NaCa": "Gncx_b", "J_up": "Jup_b", "J_rel": "Jrel_b"},
        note=f"{_OWN_START}; vtwin's has a dynamic chloride concentration, whether Tomek's has is not known here",
    ),
    Match("stewart_2009", "Stewart", note=_OWN_START),
)

NO_COUNTERPART = {
    "mitchell_schaeffer": "openCARP's MitchellSchaeffer is the corrected form of 2016: use ionic = 'corrado_niederer'",
    "bueno_orovio": "no Bueno-Orovio model is known among openCARP's: use ten_tusscher_panfilov_2006",
}

OLDER_NAMES = {"TT2": "tenTusscherPanfilov", "mMS": "MitchellSchaeffer"}
"""Names before openCARP 10 (2022) that stand for the same model."""

STATE_GLOBALS = ("Vm", "Lambda", "delLambda", "Tension", "Ke", "Nae", "Cae", "Iion", "tension_component", "illum")
"""First lines of a .sv file, in the order in which openCARP's `bench` writes them; '-' where a model does not use one."""


def match_of(ours: str, where: Any, key: str) -> Match:
    """The entry of one of our models; InputError, with the reason, if openCARP has no counterpart."""
    for match in MATCHES:
        if match.ours == ours:
            return match
    reason = NO_COUNTERPART.get(ours, f"models with a counterpart: {', '.join(m.ours for m in MATCHES)}")
    raise InputError(where, key, f"{ours!r} has no counterpart in openCARP", reason)


def match_from(theirs: str, where: Any, key: str) -> Match:
    """The entry of one of openCARP's models; InputError for a model that vtwin has not."""
    name = OLDER_NAMES.get(theirs, theirs)
    for match in MATCHES:
        if match.theirs == name:
            return match
    raise InputError(where, key, f"{theirs!r} is no model of vtwin", f"known: {', '.join(m.theirs for m in MATCHES)}")


def im_param(match: Match, cell: str, scale: Mapping[str, float], values: Mapping[str, float], where: Any, key: str) -> str:
    """openCARP's `im_param` for a cell and factors; values: our parameters after scaling. InputError for what has no counterpart."""
    words = [f"{name}={value!r}" for name, value in match.fixed.items()]
    if match.absolute:
        words += [f"{there}={float(values[here])!r}" for here, there in match.parameters.items()]
        words += [f"{there}={float(values[here])!r}" for there, here in match.several.items()]
    for here, factor in scale.items():
        if here not in match.parameters:
            remedy = f"leave it out of the export; {match.theirs} knows {', '.join(match.parameters) or 'none of our parameters'}"
            raise InputError(where, f"{key}.scale.{here}", f"has no counterpart in openCARP's {match.theirs}", remedy)
        if not match.absolute:
            words.append(f"{match.parameters[here]}*{float(factor)!r}")
    if match.flags:
        words.append(f"flags={match.flags[cell]}")
    return ",".join(words)


_CHANGE = re.compile(r"\s*([A-Za-z_]\w*)\s*([=*+-])\s*([^\s%]+)\s*(%?)\s*$")


def from_im_param(
    match: Match, text: str, defaults: Mapping[str, Mapping[str, float]], where: Any, key: str
) -> tuple[str | None, dict[str, float]]:
    """Cell and factors from `im_param` (`GNa*0.38,flags=EPI`; also =, +, - and percentages). defaults: cell -> our parameter values.

    Raises InputError for parameters without a counterpart, and for values that our models cannot take.
    """
    back = {there: here for here, there in match.parameters.items()}
    cells = {flag: cell for cell, flag in match.flags.items()}
    cell: str | None = next(iter(match.flags), None)
    changes: list[tuple[str, str, float, bool]] = []
    for word in filter(None, (w.strip() for w in text.split(","))):
        name, _, flag = word.partition("=")
        if name.strip() == "flags":
            if flag.strip() not in cells:
                raise InputError(where, key, f"flags={flag.strip()} is unknown", f"known: {', '.join(cells) or 'none for this model'}")
            cell = cells[flag.strip()]
            continue
        found = _CHANGE.match(word)
        try:
            number = float(found[3]) if found else float("nan")
        except ValueError:
            number = float("nan")
        if found is None or number != number:
            raise InputError(where, key, f"{word[:40]!r} is not a change of a parameter", "write NAME*FACTOR or NAME=VALUE")
        changes.append((found[1], found[2], number, bool(found[4])))
    base = defaults[cell if cell is not None else next(iter(defaults))]
    values = {here: base[here] for here in match.parameters}
    touched: dict[str, float] = {}
    shared: dict[str, float] = {}
    for name, sign, number, percent in changes:
        if name in match.fixed:
            if sign != "=" or number != match.fixed[name]:
                raise InputError(where, key, f"{name}{sign}{number:g}", f"vtwin's scale is fixed: {name}={match.fixed[name]:g}")
        elif name in match.several:
            shared[match.several[name]] = _changed(base[match.several[name]], sign, number, percent)
        elif name in back:
            values[back[name]] = _changed(values[back[name]], sign, number, percent)
            touched[back[name]] = number if sign == "*" else values[back[name]] / base[back[name]]
        else:
            raise InputError(where, key, f"{name} of {match.theirs} has no counterpart in vtwin", f"known: {', '.join(back)}")
    for here, value in shared.items():
        if value != values[here]:
            raise InputError(
                where, key, f"{here} has two values, {values[here]:g} and {value:g}", "vtwin's model has one: give both the same"
            )
    if missing := [name for name in (*match.fixed, *match.several) if name not in {change[0] for change in changes}]:
        raise InputError(where, key, f"{', '.join(missing)} not given", f"vtwin's model is {match.theirs} with them: write NAME=VALUE")
    return cell, {here: factor for here, factor in touched.items() if not (match.absolute and factor == 1.0)}


def _changed(value: float, sign: str, number: float, percent: bool) -> float:
    if sign == "=":
        return number
    if sign == "*":
        return value * number
    amount = value * number / 100.0 if percent else number
    return value + amount if sign == "+" else value - amount


def state_file(match: Match, rest_mv: float, states: Mapping[str, float], parameters: Mapping[str, float]) -> str | None:
    """Text of the .sv file of our initial state, in openCARP's layout and units (Ca_i in uM); None if the states have no counterpart."""
    if not match.states:
        return None
    known = {**parameters, **states}
    if "dNa_i" in states:
        known["Na_i"] = parameters["Na_i"] + states["dNa_i"]
        known["K_i"] = parameters["K_i"] + states["dK_i"]
    lines = [(f"{rest_mv:.9g}", "Vm"), *(("0" if name == "Iion" else "-", name) for name in STATE_GLOBALS[1:])]
    lines += [(match.theirs, "")]
    lines += [(f"{known[here] * (1000.0 if there == 'Cai' else 1.0):.9g}", there) for there, here in match.states.items()]
    return "".join(f"{value:20s}# {name}\n" if name else f"{value}\n" for value, name in lines)
