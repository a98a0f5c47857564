"""What the torch models share: the import with its remedy, and full-batch training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twin.extras import torch_for

PATIENCE = 40
"""Steps without a better loss of the held-out rows before training ends."""


def torch_or_remedy() -> Any:
    """The torch module. Raises InputError with how to install it."""
    return torch_for("fusion", ", or leave attention, vae and recurrent out")


def descend(parameters: Iterable[Any], loss: Callable[[], Any], steps: int, rate: float, decay: float) -> None:
    """Adam with decoupled weight decay on the whole batch."""
    torch = torch_or_remedy()
    optimiser = torch.optim.AdamW(list(parameters), lr=rate, weight_decay=decay)
    for _ in range(steps):
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()


def descend_held_out(layers: Any, forward: Callable[[], Any], target: Any, held: Any, steps: int, rate: float, decay: float) -> None:
    """The same on the rows that are not `held`; ends where the log loss of those is least, for networks that soon know rows by heart."""
    torch = torch_or_remedy()
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    optimiser = torch.optim.AdamW(layers.parameters(), lr=rate, weight_decay=decay)
    best, since, kept = float("inf"), 0, {name: value.clone() for name, value in layers.state_dict().items()}
    for _ in range(steps):
        optimiser.zero_grad()
        logits = forward()
        now = float(loss(logits[held], target[held]).detach())
        since = 0 if now < best else since + 1
        if now < best:
            best, kept = now, {name: value.clone() for name, value in layers.state_dict().items()}
        if since > PATIENCE:
            break
        loss(logits[~held], target[~held]).backward()
        optimiser.step()
    layers.load_state_dict(kept)
