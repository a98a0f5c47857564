"""Cell models by name, with their parameters scaled."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ionic import (
    aliev_panfilov,
    bueno_orovio,
    corrado_niederer,
    mitchell_schaeffer,
    stewart_2009,
    ten_tusscher_panfilov_2006,
    torord_2019,
)
from twin.errors import InputError

_MODULES: dict[str, ModuleType] = {
    m.NAME: m
    for m in (
        ten_tusscher_panfilov_2006,
        torord_2019,
        stewart_2009,
        bueno_orovio,
        mitchell_schaeffer,
        corrado_niederer,
        aliev_panfilov,
    )
}


@dataclass(frozen=True)
class IonicModel:
    """One cell model with one set of parameters.

    state_names (K,) without V; initial_state (K,) float64 read-only; rest_mv: V at the start; parameters: name -> value, the units
    are those of the model's file.
    """

    name: str
    cell: str
    state_names: tuple[str, ...]
    parameters: Mapping[str, float]
    initial_state: NDArray[np.float64] = field(compare=False)
    rest_mv: float

    def row(self) -> NDArray[np.float64]:
        """Parameter values in the order of their names, (P,): what kernels take."""
        return np.array(list(self.parameters.values()))

    def step(self) -> Any:
        """The scalar function `step(v, dt, s, p)` that the kernels are generated from."""
        return _MODULES[self.name].step


def model_names() -> tuple[str, ...]:
    """Names that `ionic_model` knows."""
    return tuple(_MODULES)


def cell_names(name: str) -> tuple[str, ...]:
    """Cell types of one model, the default first."""
    return tuple(_MODULES[_known(name, _MODULES, "model")].CELLS)


def currents(name: str) -> Mapping[str, tuple[str, ...]]:
    """Currents of one model -> the parameters they are proportional to ("1/x": inversely); empty where they cannot be told apart."""
    table: Mapping[str, tuple[str, ...]] = getattr(_MODULES[_known(name, _MODULES, "model")], "CURRENTS", {})
    return table


def ionic_model(name: str, cell: str | None = None, scale: Mapping[str, float] | None = None) -> IonicModel:
    """Return a model: `cell` of its cell types (None: the first), `scale` multiplies parameters by name.

    Raises InputError for an unknown model, cell or parameter, or a factor that is not finite.
    """
    module = _MODULES[_known(name, _MODULES, "model")]
    cell = next(iter(module.CELLS)) if cell is None else _known(cell, module.CELLS, f"cell of {name}")
    parameters: dict[str, float] = {**module.PARAMETERS, **module.CELLS[cell]}
    for parameter, factor in (scale or {}).items():
        _known(parameter, parameters, f"parameter of {name}")
        if not math.isfinite(factor):
            raise InputError("ionic model", f"scale.{parameter}", f"{factor} is not finite", "write a factor, for example 0.38")
        parameters[parameter] *= float(factor)
    own: Mapping[str, float] = getattr(module, "INITIAL", {}).get(cell, {})
    initial = np.array([own.get(state, value) for state, value in module.STATES.items()])
    initial.setflags(write=False)
    return IonicModel(name, cell, tuple(module.STATES), MappingProxyType(parameters), initial, own.get("V", module.REST_MV))


def _known(name: str, names: Iterable[str], what: str) -> str:
    """Return `name` if it is one of `names`, else raise with the nearest one."""
    names = list(names)
    if name in names:
        return name
    close = difflib.get_close_matches(str(name).lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    hint = next((n for n in names if close and n.lower() == close[0]), None)
    remedy = f"did you mean {hint!r}? known: {', '.join(names)}" if hint else f"known: {', '.join(names)}"
    raise InputError("ionic model", what, f"{name!r} is not known", remedy)
