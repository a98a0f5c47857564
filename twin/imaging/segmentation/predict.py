"""Labels from an image by a trained network, with how sure it is: the same image seen eight ways, each with other channels dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.errors import InputError
from twin.image import Image
from twin.imaging.segmentation.model_file import REMEDY, Card, read_model
from twin.imaging.segmentation.network import FOLD, PLACES, multiple, torch_or_remedy, unet
from twin.imaging.segmentation.slices import context, from_pixels, normalised, padded, places, stack_of, to_pixels
from twin.volume import LABELS, WALL, LabelVolume

BATCH = 8
FAR = 1.5
"""An image whose spacing lies further outside the trained range than by this factor is doubtful."""
NEIGHBOURS = np.ones((3, 3, 3), bool)
MAX_VOXELS = 60_000_000
"""Probabilities of all classes are held at once."""


@dataclass(frozen=True)
class Segmented:
    """What a network found, on the image's grid.

    entropy: (ni, nj, nk) float32, 0 = sure, 1 = every class as likely; probability: (ni, nj, nk) float32, of the chosen class;
    confidence: its mean per label; notes: what is doubtful.
    """

    labels: LabelVolume
    entropy: NDArray[np.float32]
    probability: NDArray[np.float32]
    confidence: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """A network that is ready to be asked, and its card."""

    card: Card
    network: Any

    @staticmethod
    def load(path: Path) -> Model:
        """Read a model file. Raises InputError for damage, for weights that do not fit the card, and where torch is missing."""
        card, weights = read_model(path)
        torch = torch_or_remedy()
        network = unet(2 * card.context + 1, len(card.classes), card.widths, card.dropout)
        wanted = {name: tuple(value.shape) for name, value in network.state_dict().items() if "num_batches" not in name}
        found = {name: value.shape for name, value in weights.items()}
        first = "down.0.0.weight"
        if first in found and first in wanted and found[first] != wanted[first]:
            channels = found[first][1] if len(found[first]) == 4 else "?"
            problem = f"the weights take {channels} channels, the card says {(2 * card.context + 1) * FOLD**2 + PLACES}"
            raise InputError(path, "channels", problem, REMEDY)
        if found != wanted:
            name = min(set(found.items()) ^ set(wanted.items()))[0]
            raise InputError(path, name[:40], "does not fit the network that the card describes", REMEDY)
        network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()}, strict=False)
        return Model(card, network.eval())


def segment(image: Image, model: Model, seed: int = 0, passes: int = 8) -> Segmented:
    """Labels of an image; passes: how many of the eight views are asked (1: the image as it is, without dropout).

    Raises InputError for an image that is too large or has no contrast.
    """
    card = model.card
    stack = stack_of(image)
    if int(np.prod(image.data.shape)) * len(card.classes) > 8 * MAX_VOXELS:
        raise InputError(image.source, "sizes", f"{np.prod(image.data.shape) / 1e6:.0f} million voxels", "crop it to the heart")
    values = normalised(stack.turn(image.data))
    if not values.any():
        raise InputError(image.source, "data", "all voxels have the same value", "give the image")
    small = np.asarray(to_pixels(values, stack, card.pixel_mm, order=1), np.float32)
    mean = from_pixels(_mean(context(small, card.context), places(stack), model, seed, passes), stack)
    mean /= np.maximum(mean.sum(axis=0), 1e-6)
    chosen, removed = _whole(np.argmax(mean, axis=0), card.classes)
    entropy = -(mean * np.log(np.maximum(mean, 1e-9))).sum(axis=0) / np.log(len(card.classes))
    probability = np.take_along_axis(mean, chosen[None], axis=0)[0]
    numbers = np.array([LABELS[name] for name in card.classes], np.uint8)
    data = stack.back(numbers[chosen]).astype(np.uint8)
    labels = LabelVolume(data, image.affine.copy(), image.source, {name: LABELS[name] for name in card.classes[1:]})
    confidence = {name: round(float(probability[chosen == k].mean()), 4) for k, name in enumerate(card.classes) if (chosen == k).any()}
    notes = [*_doubts(stack.pixel_mm, stack.slice_mm, card)]
    if removed:
        notes.append(f"{removed * labels.voxel_mm3 / 1000.0:.2f} mL of loose pieces were taken away")
    if not (data == LABELS["lv_blood"]).any():
        notes.append("no LV was found")
    return Segmented(
        labels,
        stack.back(entropy.astype(np.float32)).astype(np.float32),
        stack.back(probability).astype(np.float32),
        confidence,
        tuple(notes),
    )


def _doubts(pixel_mm: tuple[float, float], slice_mm: float, card: Card) -> Iterator[str]:
    for name, value in (("pixel", max(pixel_mm)), ("slice", slice_mm)):
        low, high = card.spacing.get(name, (value, value))
        if not low / FAR <= value <= high * FAR:
            yield f"{name} spacing {value:.1f} mm lies far outside what the model was trained on ({low:g} to {high:g} mm)"


def _mean(batch: NDArray[np.float32], place: NDArray[np.float32], model: Model, seed: int, passes: int) -> NDArray[np.float32]:
    """Mean probabilities over the views, (classes, rows, columns, slices)."""
    torch = torch_or_remedy()
    ready, inside = padded(batch, multiple(model.card.widths))
    total: NDArray[np.float32] | None = None
    before = torch.get_num_threads()
    # as many as it was trained with: another number may change the last digits
    torch.set_num_threads(max(model.card.threads, 1))
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(seed)
            for module in model.network.modules():
                if isinstance(module, torch.nn.Dropout2d):
                    module.train(passes > 1)
            for view in range(passes):
                seen, parts = turned(ready, view), []
                for k in range(0, len(seen), BATCH):
                    x, at = (torch.from_numpy(part[k : k + BATCH].copy()) for part in (seen, place))
                    parts.append(torch.softmax(model.network(x, at), 1))
                back = unturned(torch.cat(parts).numpy(), view)
                total = back if total is None else total + back
    finally:
        torch.set_num_threads(before)
    assert total is not None
    return np.ascontiguousarray(np.moveaxis(total[..., inside[0], inside[1]] / passes, 0, -1))


def turned(batch: NDArray[np.float32], view: int) -> NDArray[np.float32]:
    """One of the eight ways to see (..., rows, columns): quarter turns 0-3, and 4-7 mirrored."""
    out = np.flip(batch, -1) if view >= 4 else batch
    return np.rot90(out, view % 4, axes=(-2, -1))


def unturned(batch: NDArray[np.float32], view: int) -> NDArray[np.float32]:
    """Inverse of `turned`."""
    out = np.rot90(batch, -(view % 4), axes=(-2, -1))
    return np.flip(out, -1) if view >= 4 else out


def _whole(chosen: NDArray[np.int64], classes: tuple[str, ...]) -> tuple[NDArray[np.int64], int]:
    """Only the largest connected heart, in it the largest piece of each pool, and what wall lies at these; and how many voxels became
    background. A thin wall across thick slices is in many pieces: they are not loose if they touch a pool."""
    out = chosen.copy()
    for part in (tuple(classes[1:]), ("lv_blood",), ("rv_blood",)):
        mask = _of(out, classes, part)
        numbered, count = ndimage.label(mask)
        if count > 1:
            largest = 1 + int(np.argmax(np.bincount(numbered.ravel())[1:]))
            out[mask & (numbered != largest)] = 0
    wall, pools = _of(out, classes, WALL), _of(out, classes, ("lv_blood", "rv_blood"))
    numbered, count = ndimage.label(wall, NEIGHBOURS)
    size = np.bincount(numbered.ravel(), minlength=count + 1)
    at_pool = np.unique(numbered[ndimage.binary_dilation(pools, NEIGHBOURS) & wall])
    kept = at_pool if len(at_pool) else np.flatnonzero(size[1:] == size[1:].max(initial=0)) + 1
    out[wall & ~np.isin(numbered, kept)] = 0
    return out, int((out != chosen).sum())


def _of(chosen: NDArray[np.int64], classes: tuple[str, ...], names: tuple[str, ...]) -> NDArray[np.bool_]:
    """Voxels of any of some labels."""
    return np.asarray(np.isin(chosen, [classes.index(name) for name in names if name in classes]))
