"""A 2-D U-Net (Ronneberger 2015) whose input channels are a slice and its neighbours; torch is imported when it is asked for.

Each square of FOLD x FOLD pixels is one place of the network, its pixels channels (Shi 2016, arXiv:1609.05158, at both ends): pixels as
fine as the image's at the cost of coarser ones.
"""

from __future__ import annotations

import itertools
from typing import Any

from twin.extras import torch_for

WIDTHS = (24, 48, 96, 128)
"""Channels per level: 0.8 million parameters, enough for shapes of one organ and trainable in a minute on two cores."""
DROPOUT = 0.1
FOLD = 2
PLACES = 2
"""Numbers that say where a slice lies: `slices.places`."""


def torch_or_remedy() -> Any:
    """The torch module. Raises InputError with how to install it."""
    return torch_for("segment")


def multiple(widths: tuple[int, ...]) -> int:
    """What rows and columns must be multiples of."""
    return int(FOLD * 2 ** (len(widths) - 1))


def unet(channels: int, classes: int, widths: tuple[int, ...] = WIDTHS, dropout: float = DROPOUT) -> Any:
    """A torch module, slices (batch, channels, rows, columns) and places (batch, PLACES) -> scores (batch, classes, rows, columns).

    Rows and columns are multiples of `multiple(widths)`. Dropout takes whole channels of the two coarsest levels.
    """
    nn = torch_or_remedy().nn

    def block(before: int, after: int, dropped: float) -> Any:
        layers: list[Any] = []
        for n in (before, after):
            layers += [nn.Conv2d(n, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.Dropout2d(dropped))

    coarse = len(widths) - 2
    down = [
        block(a, b, dropout if k >= coarse else 0.0) for k, (a, b) in enumerate(zip((channels * FOLD**2 + PLACES, *widths[:-1]), widths))
    ]
    narrow = widths[::-1]
    rise = [nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in itertools.pairwise(narrow)]
    up = [block(2 * b, b, dropout if k == 0 else 0.0) for k, b in enumerate(narrow[1:])]
    return _assembled(nn.ModuleList(down), nn.ModuleList(rise), nn.ModuleList(up), nn.Conv2d(widths[0], classes * FOLD**2, 1))


def _assembled(down: Any, rise: Any, up: Any, head: Any) -> Any:
    """The module of its parts: the class exists only where torch does."""
    torch = torch_or_remedy()

    class UNet(torch.nn.Module):  # type: ignore[misc, name-defined]
        """Encoder and decoder with skips."""

        def __init__(self) -> None:
            super().__init__()
            self.down, self.rise, self.up, self.head = down, rise, up, head

        def forward(self, x: Any, place: Any) -> Any:
            """Scores of every class at every pixel."""
            x = torch.nn.functional.pixel_unshuffle(x, FOLD)
            x = torch.cat([x, place[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)
            x, skips = x.contiguous(memory_format=torch.channels_last), []
            for level, part in enumerate(self.down):
                x = part(x if level == 0 else torch.nn.functional.max_pool2d(x, 2))
                skips.append(x)
            for part, rising, skip in zip(self.up, self.rise, skips[-2::-1]):
                x = part(torch.cat([rising(x), skip], dim=1))
            return torch.nn.functional.pixel_shuffle(self.head(x), FOLD)

    return UNet().to(memory_format=torch.channels_last)
