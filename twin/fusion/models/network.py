"""What both torch models share: the import with its remedy, a fixed seed, and full-batch training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twin.extras import torch_for


def torch_or_remedy() -> Any:
    """The torch module. Raises InputError with how to install it."""
    return torch_for("fusion", ", or leave attention and vae out")


def descend(parameters: Iterable[Any], loss: Callable[[], Any], steps: int, rate: float, decay: float) -> None:
    """Adam with decoupled weight decay on the whole batch."""
    torch = torch_or_remedy()
    optimiser = torch.optim.AdamW(list(parameters), lr=rate, weight_decay=decay)
    for _ in range(steps):
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
