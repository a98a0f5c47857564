"""Middle fusion by attention: each block is embedded, attention weighs the embeddings that are there, one head gives the logit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from twin.fusion.blocks import Array, Block, Design
from twin.fusion.models.base import FusionModel
from twin.fusion.models.network import descend, torch_or_remedy


class Attention(FusionModel):
    """Embeddings of the blocks under masked attention; blocks are dropped at random in training, so that missing ones are known."""

    complexity: ClassVar[int] = 9
    native: ClassVar[bool] = True

    def __init__(self, blocks: Mapping[str, Block], width: int = 8, steps: int = 150, dropped: float = 0.2, seed: int = 0) -> None:
        super().__init__(blocks)
        self.width = width
        self.steps = steps
        self.dropped = dropped
        self.seed = seed

    def fit_design(self, design: Design, y: Array) -> None:
        """Train on all rows, blocks dropped at random in each step."""
        torch = torch_or_remedy()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            embed = {name: torch.nn.Linear(part.shape[1], self.width) for name, part in design.parts.items()}
            query, head = torch.nn.Linear(self.width, 1), torch.nn.Linear(self.width, 1)
            self.layers_ = torch.nn.ModuleDict({**{f"block_{name}": layer for name, layer in embed.items()}, "query": query, "head": head})
            parts, present = self._tensors(design)
            target = torch.as_tensor(y, dtype=torch.float32)

            def loss() -> Any:
                kept = present & (torch.rand(present.shape) >= self.dropped)
                return torch.nn.functional.binary_cross_entropy_with_logits(self._forward(parts, kept), target)

            descend(self.layers_.parameters(), loss, self.steps, 0.02, 0.05)

    def logit_design(self, design: Design) -> Array:
        """Logit with attention over the blocks that are there."""
        torch = torch_or_remedy()
        with torch.no_grad():
            return np.asarray(self._forward(*self._tensors(design)).numpy(), np.float64)

    def _tensors(self, design: Design) -> tuple[dict[str, Any], Any]:
        torch = torch_or_remedy()
        return {name: torch.as_tensor(part, dtype=torch.float32) for name, part in design.parts.items()}, torch.as_tensor(design.present)

    def _forward(self, parts: Mapping[str, Any], present: Any) -> Any:
        torch = torch_or_remedy()
        tokens = torch.stack([torch.tanh(self.layers_[f"block_{name}"](part)) for name, part in parts.items()], dim=1)
        score = self.layers_["query"](tokens).squeeze(-1).masked_fill(~present, -1e9)
        weight = torch.softmax(score, dim=1) * present
        # evidence adds up: the pooled sum grows with the number of blocks, a mean would not
        pooled = (weight.unsqueeze(-1) * tokens).sum(dim=1) * present.sum(dim=1, keepdim=True)
        return self.layers_["head"](pooled).squeeze(-1)
