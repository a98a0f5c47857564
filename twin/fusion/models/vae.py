"""Generative imputation: a variational autoencoder whose posterior is a product of one expert per block (Wu and Goodman 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from twin.fusion.blocks import Array, Block, Design
from twin.fusion.logistic import RidgeLogistic
from twin.fusion.models.base import FusionModel
from twin.fusion.models.network import descend, torch_or_remedy


class ProductVae(FusionModel):
    """Fills what is missing with the decoded mean of the posterior given the blocks that are there; then one ridge regression.

    The regression is fitted on rows whose blocks were hidden at random as well as on whole rows, so that it knows filled values.
    """

    complexity: ClassVar[int] = 10
    native: ClassVar[bool] = True

    def __init__(self, blocks: Mapping[str, Block], latent: int = 4, steps: int = 200, seed: int = 0) -> None:
        super().__init__(blocks)
        self.latent = latent
        self.steps = steps
        self.seed = seed

    def fit_design(self, design: Design, y: Array) -> None:
        """Train without the outcome, then fit the regression on filled rows."""
        torch = torch_or_remedy()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            layers: dict[str, Any] = {}
            for name, part in design.parts.items():
                layers[f"in_{name}"] = torch.nn.Linear(part.shape[1], 2 * self.latent)
                layers[f"out_{name}"] = torch.nn.Linear(self.latent, part.shape[1])
            self.layers_ = torch.nn.ModuleDict(layers)
            parts, seen, present = self._tensors(design)
            descend(self.layers_.parameters(), lambda: self._loss(parts, seen, present), self.steps, 0.02, 1e-3)
        hidden = np.random.default_rng(self.seed).random(design.present.shape) < 0.25
        partly = Design(design.parts, design.seen, design.present & ~hidden)
        self.model_ = RidgeLogistic().fit(np.vstack([self.complete(design), self.complete(partly)]), np.r_[y, y])

    def complete(self, design: Design) -> Array:
        """All columns, the empty cells decoded from what is there, (n, p)."""
        torch = torch_or_remedy()
        parts, _, present = self._tensors(design)
        with torch.no_grad():
            mean, _ = self._posterior(parts, present)
            decoded = [self.layers_[f"out_{name}"](mean).numpy() for name in parts]
        out = [
            np.where(design.seen[name] & design.present[:, [k]], part, decoded[k]) for k, (name, part) in enumerate(design.parts.items())
        ]
        return np.hstack(out).astype(np.float64)

    def logit_design(self, design: Design) -> Array:
        """Logit of the completed rows."""
        return self.model_.logit(self.complete(design))

    def _tensors(self, design: Design) -> tuple[dict[str, Any], dict[str, Any], Any]:
        torch = torch_or_remedy()
        parts = {name: torch.as_tensor(part, dtype=torch.float32) for name, part in design.parts.items()}
        return parts, {name: torch.as_tensor(mask) for name, mask in design.seen.items()}, torch.as_tensor(design.present)

    def _posterior(self, parts: Mapping[str, Any], present: Any) -> tuple[Any, Any]:
        """Mean and variance of the product of a standard normal prior and the experts that are there."""
        torch = torch_or_remedy()
        n = len(present)
        precision, weighted = torch.ones(n, self.latent), torch.zeros(n, self.latent)
        for k, (name, part) in enumerate(parts.items()):
            mean, log_precision = self.layers_[f"in_{name}"](part).chunk(2, dim=1)
            own = torch.exp(log_precision.clamp(-6, 6)) * present[:, [k]]
            precision, weighted = precision + own, weighted + own * mean
        return weighted / precision, 1 / precision

    def _loss(self, parts: Mapping[str, Any], seen: Mapping[str, Any], present: Any) -> Any:
        """Negative evidence bound, blocks hidden at random, what is hidden still to be decoded."""
        torch = torch_or_remedy()
        mean, variance = self._posterior(parts, present & (torch.rand(present.shape) >= 0.3))
        z = mean + variance.sqrt() * torch.randn(mean.shape)
        error = sum((((self.layers_[f"out_{name}"](z) - part) ** 2) * seen[name]).sum() for name, part in parts.items())
        divergence = 0.5 * (variance + mean**2 - 1 - variance.log()).sum()
        return (0.5 * error + divergence) / len(present)
