"""Time-aware recurrent fusion of visits: a gated unit whose inputs and state fade with time (Che and others, Sci Rep 2018;8:6085)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from twin.errors import InputError
from twin.fusion.blocks import Array, Block, Design
from twin.fusion.logistic import inner_folds
from twin.fusion.models.base import FusionModel
from twin.fusion.models.network import descend_held_out, torch_or_remedy


class Recurrent(FusionModel):
    """Reads the last visits in order, fades its state until the time of prediction, and adds the other blocks' columns in one head.

    A value that was not measured fades from the last one towards the mean of all visits, as does the state between visits; how fast is
    learnt for each. Where a block has visits, its landmark features are not used: this is for comparison with models that have them.
    """

    complexity: ClassVar[int] = 9
    native: ClassVar[bool] = True

    def __init__(self, blocks: Mapping[str, Block], width: int = 8, steps: int = 300, decay: float = 0.1, seed: int = 0) -> None:
        super().__init__(blocks)
        self.width = width
        self.steps = steps
        self.decay = decay
        self.seed = seed

    def fit_design(self, design: Design, y: Array) -> None:
        """Train on all rows. Raises InputError where no block has visits."""
        torch = torch_or_remedy()
        if not design.series:
            raise InputError("fusion", "recurrent", "no block has visits", "give [visits], or leave recurrent out")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            layers: dict[str, Any] = {}
            for name, series in design.series.items():
                v = series.values.shape[2]
                layers[f"cell_{name}"] = torch.nn.GRUCell(2 * v, self.width)
                layers[f"fade_{name}"] = torch.nn.Linear(1, self.width)
                layers[f"forget_{name}"] = torch.nn.Linear(1, v)
                for kind in ("fade", "forget"):
                    # where the exponent starts below zero nothing fades and nothing is learnt
                    torch.nn.init.uniform_(layers[f"{kind}_{name}"].weight, 0.0, 0.5)
                    torch.nn.init.zeros_(layers[f"{kind}_{name}"].bias)
            self.layers_ = torch.nn.ModuleDict(layers)
            inputs = self._tensors(design)
            size = self.width * len(design.series) + inputs[1].shape[1]
            self.layers_["head"] = torch.nn.Linear(size, 1)
            target, held = torch.as_tensor(y, dtype=torch.float32), torch.as_tensor(inner_folds(y) == 0)
            descend_held_out(self.layers_, lambda: self._forward(*inputs), target, held, self.steps, 0.01, self.decay)

    def logit_design(self, design: Design) -> Array:
        """Logit at the time of prediction."""
        torch = torch_or_remedy()
        with torch.no_grad():
            return np.asarray(self._forward(*self._tensors(design)).numpy(), np.float64)

    def _tensors(self, design: Design) -> tuple[dict[str, tuple[Any, Any, Any]], Any]:
        """Series by block (values, seen, age), and the columns of the blocks without visits."""
        torch = torch_or_remedy()
        real = torch.float32
        series = {
            name: (torch.as_tensor(one.values, dtype=real), torch.as_tensor(one.seen), torch.as_tensor(one.age, dtype=real))
            for name, one in design.series.items()
        }
        plain = [part for name, part in design.parts.items() if name not in series]
        columns = np.hstack(plain) if plain else np.zeros((len(design), 0))
        return series, torch.as_tensor(columns, dtype=torch.float32)

    def _forward(self, series: Mapping[str, tuple[Any, Any, Any]], columns: Any) -> Any:
        torch = torch_or_remedy()
        states = [self._state(name, *one) for name, one in series.items()]
        return self.layers_["head"](torch.cat([*states, columns], dim=1)).squeeze(-1)

    def _state(self, name: str, values: Any, seen: Any, age: Any) -> Any:
        """State at the time of prediction, (n, width); a place without a visit changes nothing."""
        torch = torch_or_remedy()
        cell, fade, forget = (self.layers_[f"{kind}_{name}"] for kind in ("cell", "fade", "forget"))
        n, places, v = values.shape
        state, last = torch.zeros(n, self.width), torch.zeros(n, v)
        measured = torch.full((n, v), torch.nan)
        before = torch.full((n,), torch.nan)
        for k in range(places):
            here = torch.isfinite(age[:, k])
            now = torch.nan_to_num(age[:, k])
            since = torch.where(torch.isfinite(measured), measured - now[:, None], torch.zeros_like(measured))
            kept = torch.exp(-torch.relu(since * forget.weight.T + forget.bias))
            inputs = torch.where(seen[:, k], values[:, k], kept * last)
            gap = torch.where(torch.isfinite(before), before - now, torch.zeros_like(before))
            then = cell(torch.cat([inputs, seen[:, k].float()], dim=1), state * self._faded(fade, gap))
            state = torch.where(here[:, None], then, state)
            last = torch.where(seen[:, k], values[:, k], last)
            measured = torch.where(seen[:, k], now[:, None].expand(n, v), measured)
            before = torch.where(here, now, before)
        return state * self._faded(fade, torch.nan_to_num(before))

    @staticmethod
    def _faded(fade: Any, gap: Any) -> Any:
        torch = torch_or_remedy()
        return torch.exp(-torch.relu(fade(gap[:, None])))
