"""Two small 3-D networks that a user can train on their own volumes: a prediction of yes or no, and a missing contrast made from others.

vtwin ships no weights and no plan uses these: what they learn is only as good as the volumes that they were shown, and the card says which.
`Predictor`: volumes (n, c, d, h, w) to the log odds of an outcome. `Generator`: a conditional variational autoencoder; the features of one
examination (cine, CT: wall thickness, motion, intensity) to an image of another (late enhancement), with the spread over its latent draws.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes, write_json
from twin.errors import InputError
from twin.extras import torch_for
from twin.io.source import file_size

Array = NDArray[np.float32]
MOST_BYTES = 500_000_000
MOST_VOXELS = 64**3
KINDS = ("predictor", "generator")


@dataclass(frozen=True)
class Card:
    """What a trained network is: kind, channels and shape of its input, width, what it was trained on, how it did on held-out volumes."""

    kind: str
    channels: tuple[str, ...]
    shape: tuple[int, int, int]
    width: int
    trained_on: int
    held_out: int
    figures: dict[str, float] = field(default_factory=dict)
    intended_use: str = "research on data like that of its training; not for decisions about patients, not used by vtwin plan"


@dataclass(frozen=True)
class Trained:
    """A network with its card; `net` is a torch module in evaluation mode, mean and spread normalise the channels."""

    net: Any
    card: Card
    mean: Array
    spread: Array

    def _input(self, volumes: Array) -> Any:
        torch = _torch()
        _check(volumes, len(self.card.channels), self.card.shape)
        return torch.as_tensor((volumes - self.mean) / self.spread)

    def probability(self, volumes: Array) -> NDArray[np.float64]:
        """Probability of the outcome for volumes (n, c, d, h, w); InputError for a network of the other kind or another shape."""
        self._need("predictor")
        torch = _torch()
        with torch.no_grad():
            return np.asarray(torch.sigmoid(self.net(self._input(volumes))).numpy(), np.float64)

    def image(self, volumes: Array, draws: int = 8, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation over latent draws of the image made for features (n, c, d, h, w), each (n, d, h, w)."""
        self._need("generator")
        torch = _torch()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            features = self._input(volumes)
            made = torch.stack([self.net.sample(features) for _ in range(draws)])
        return np.asarray(made.mean(0).numpy(), np.float64), np.asarray(made.std(0).numpy(), np.float64)

    def _need(self, kind: str) -> None:
        if self.card.kind != kind:
            raise InputError("network", "kind", f"this is a {self.card.kind}", f"load a {kind}")

    def save(self, folder: Path) -> None:
        """Write weights.safetensors and card.json."""
        from safetensors.torch import save

        torch = _torch()
        state = {k: v.contiguous() for k, v in self.net.state_dict().items()}
        state |= {"_mean": torch.as_tensor(self.mean), "_spread": torch.as_tensor(self.spread)}
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / "weights.safetensors", save(state))
        write_json(folder / "card.json", asdict(self.card))


def load(folder: Path) -> Trained:
    """Read what `save` wrote. Raises InputError for files that are missing, damaged or do not belong together."""
    _torch()
    from safetensors import SafetensorError
    from safetensors.torch import load as tensors_of

    weights, described = folder / "weights.safetensors", folder / "card.json"
    file_size(weights, MOST_BYTES)
    file_size(described, 1_000_000)
    try:
        raw = json.loads(described.read_text(encoding="utf-8"))
        card = Card(**{**raw, "channels": tuple(raw["channels"]), "shape": tuple(raw["shape"])})
        net = _build(card)
        state = tensors_of(weights.read_bytes())
        mean, spread = (np.asarray(state.pop(name).numpy(), np.float32) for name in ("_mean", "_spread"))
        net.load_state_dict(state)
    except (ValueError, TypeError, KeyError, RuntimeError, RecursionError, SafetensorError, UnicodeDecodeError) as error:
        raise InputError(
            folder, "network", f"is damaged, or card and weights differ ({type(error).__name__})", "save the network again"
        ) from None
    return Trained(net.eval(), card, mean, spread)


def _torch() -> Any:
    return torch_for("network")


def _check(volumes: Array, channels: int, size: tuple[int, ...]) -> None:
    if volumes.ndim != 5 or volumes.shape[1] != channels or volumes.shape[2:] != tuple(size):
        raise InputError("network", "volumes", f"have the shape {volumes.shape}", f"give (n, {channels}, {', '.join(map(str, size))})")
    if not np.isfinite(volumes).all():
        raise InputError("network", "volumes", "hold values that are not finite", "fill or leave out these voxels")


def _build(card: Card) -> Any:
    if card.kind not in KINDS or int(np.prod(card.shape)) > MOST_VOXELS or not 1 <= card.width <= 256:
        raise InputError("network", "card", "asks for a network that is not built here", f"kinds: {', '.join(KINDS)}; at most 64^3 voxels")
    return (_predictor if card.kind == "predictor" else _generator)(_torch(), len(card.channels), card.width)


def _block(torch: Any, inside: int, outside: int) -> list[Any]:
    return [torch.nn.Conv3d(inside, outside, 3, padding=1), torch.nn.GroupNorm(1, outside), torch.nn.ReLU()]


def _predictor(torch: Any, channels: int, width: int) -> Any:
    """Two convolutions with pooling between, mean over the volume, one logit."""

    class Predictor(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            layers = [*_block(torch, channels, width), torch.nn.MaxPool3d(2), *_block(torch, width, 2 * width)]
            self.body = torch.nn.Sequential(*layers)
            self.head = torch.nn.Linear(4 * width, 1)

        def forward(self, x: Any) -> Any:
            x = self.body(x).flatten(2)
            return self.head(torch.cat([x.mean(2), x.amax(2)], dim=1)).squeeze(-1)

    return Predictor()


def _generator(torch: Any, channels: int, width: int) -> Any:
    """Encoder of image and features to a latent code, decoder of code and features to an image; to sample, the code is drawn."""

    class Generator(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.width = width
            self.encode = torch.nn.Sequential(*_block(torch, channels + 1, width), *_block(torch, width, width))
            self.code = torch.nn.Linear(width, 2 * width)
            self.decode = torch.nn.Sequential(
                *_block(torch, channels + width, 2 * width), *_block(torch, 2 * width, width), torch.nn.Conv3d(width, 1, 3, padding=1)
            )

        def decoded(self, features: Any, code: Any) -> Any:
            spread = code[:, :, None, None, None].expand(-1, -1, *features.shape[2:])
            return self.decode(torch.cat([features, spread], dim=1)).squeeze(1)

        def forward(self, features: Any, image: Any) -> tuple[Any, Any, Any]:
            code = self.code(self.encode(torch.cat([features, image[:, None]], dim=1)).flatten(2).mean(2))
            mean, log_variance = code.chunk(2, dim=1)
            drawn = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            return self.decoded(features, drawn), mean, log_variance

        def sample(self, features: Any) -> Any:
            return self.decoded(features, torch.randn(len(features), self.width))

    return Generator()


def _train(net: Any, loss: Callable[[Any], Any], count: int, steps: int, batch: int, rate: float) -> None:
    torch = _torch()
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(torch.randperm(count)[:batch]).backward()
        optimiser.step()
    net.eval()


def _split(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if count < 10:
        raise InputError("network", "volumes", f"{count} volumes are too few to train and to test on", "give at least 10")
    order = np.random.default_rng(seed).permutation(count)
    return order[count // 5 :], order[: count // 5]


def _prepared(volumes: Array, channels: tuple[str, ...], rows: NDArray[np.int64]) -> tuple[Array, Array]:
    _check(volumes, len(channels), volumes.shape[2:])
    mean = volumes[rows].mean(axis=(0, 2, 3, 4), keepdims=True)[0]
    spread = volumes[rows].std(axis=(0, 2, 3, 4), keepdims=True)[0]
    return mean.astype(np.float32), np.where(spread > 1e-6, spread, 1.0).astype(np.float32)


def train_predictor(
    volumes: Array, outcome: NDArray[Any], channels: tuple[str, ...], steps: int = 200, width: int = 8, batch: int = 16, seed: int = 0
) -> Trained:
    """Train on four fifths of volumes (n, c, d, h, w) and outcomes (n,) 0/1, judge on the rest; equal input, equal weights."""
    torch = _torch()
    train, test = _split(len(volumes), seed)
    y = np.asarray(outcome, np.float32)
    if len(y) != len(volumes) or set(np.unique(y)) != {0.0, 1.0}:
        raise InputError("network", "outcome", "is not one 0 or 1 per volume, both among them", "give the outcome of every volume")
    mean, spread = _prepared(volumes, channels, train)
    x, target = torch.as_tensor((volumes[train] - mean) / spread), torch.as_tensor(y[train])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _predictor(torch, len(channels), width)
        loss_of = torch.nn.functional.binary_cross_entropy_with_logits
        _train(net, lambda rows: loss_of(net(x[rows]), target[rows]), len(train), steps, batch, 0.01)
    size = tuple(int(n) for n in volumes.shape[2:])
    card = Card("predictor", channels, (size[0], size[1], size[2]), width, len(train), len(test))
    made = Trained(net, card, mean, spread)
    p = made.probability(volumes[test])
    figures = {"brier": float(((p - y[test]) ** 2).mean()), "brier_of_the_prior": float(((y[train].mean() - y[test]) ** 2).mean())}
    return Trained(net, Card(**{**asdict(card), "figures": figures}), mean, spread)


def train_generator(
    features: Array, images: Array, channels: tuple[str, ...], steps: int = 300, width: int = 8, batch: int = 16, seed: int = 0
) -> Trained:
    """Train on four fifths of features (n, c, d, h, w) and images (n, d, h, w), judge on the rest by the mean squared error."""
    torch = _torch()
    train, test = _split(len(features), seed)
    if images.shape != (len(features), *features.shape[2:]) or not np.isfinite(images).all():
        raise InputError(
            "network", "images", f"have the shape {images.shape} or values that are not finite", "give one image per volume of features"
        )
    mean, spread = _prepared(features, channels, train)
    x, target = torch.as_tensor((features[train] - mean) / spread), torch.as_tensor(images[train].astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _generator(torch, len(channels), width)

        def loss(rows: Any) -> Any:
            made, code, log_variance = net(x[rows], target[rows])
            divergence = 0.5 * (code**2 + torch.exp(log_variance) - 1 - log_variance).sum(1).mean()
            return ((made - target[rows]) ** 2).mean() + 0.01 * divergence / code.shape[1]

        _train(net, loss, len(train), steps, batch, 0.01)
    size = tuple(int(n) for n in features.shape[2:])
    card = Card("generator", channels, (size[0], size[1], size[2]), width, len(train), len(test))
    image, _ = Trained(net, card, mean, spread).image(features[test])
    figures = {
        "mean_squared_error": float(((image - images[test]) ** 2).mean()),
        "mean_squared_error_of_the_mean_image": float(((images[train].mean(axis=0) - images[test]) ** 2).mean()),
    }
    return Trained(net, Card(**{**asdict(card), "figures": figures}), mean, spread)
