"""Training of the segmentation network: random views of slices, cross-entropy and overlap, a fixed number of steps, one seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twin.errors import InputError, RunFailed
from twin.imaging.segmentation.dataset import Pair, Sample, as_classes, classes_of, find_pairs, held_out, read_pair, sample
from twin.imaging.segmentation.metrics import Agreement, compare, summary
from twin.imaging.segmentation.model_file import Card, write_model
from twin.imaging.segmentation.network import DROPOUT, WIDTHS, multiple, torch_or_remedy, unet
from twin.imaging.segmentation.predict import Model, segment, turned
from twin.imaging.segmentation.slices import context, places
from twin.run import content_hash, versions

MAX_SLICES = 200_000
WARM_UP = 20
"""Steps in which the rate rises."""
MEMORY = 0.99
"""The weights that are kept are a running mean over some 1 / (1 - MEMORY) steps: single steps are noisy."""
ENDS = 3.0
"""How much oftener the slices at the base and the apex are seen than one in between: most errors are there."""
WARPED = 0.3
"""Share of the views that are turned by any angle and scaled; the others keep the sharpness of the image."""


@dataclass(frozen=True)
class Settings:
    """How to train. steps: batches seen; crop_mm: side of the square that is cut from each slice; rate: of AdamW, falling to 0 as a cosine;
    share: of subjects held out; context: neighbours on each side; threads: of torch, which a repeated training must share."""

    steps: int = 1500
    seed: int = 0
    share: float = 0.2
    pixel_mm: float | None = None
    context: int = 1
    crop_mm: float = 128.0
    batch: int = 8
    rate: float = 3e-3
    threads: int = 2


def train(
    folder: Path,
    out: Path,
    settings: Settings = Settings(),
    numbers: Mapping[str, int] | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    date: str = "",
) -> Card:
    """Train on a folder of pairs, test on held-out subjects, write the model and its card; the same folder, seed and threads give the same
    weights on one machine. numbers: label name -> value in the files. Raises InputError, RunFailed if the loss is not finite."""
    torch = torch_or_remedy()
    pairs = find_pairs(folder)
    taught, kept = held_out(pairs, settings.share, settings.seed)
    loaded = [read_pair(pair, numbers) for pair in taught]
    classes = classes_of([labels for _, labels in loaded])
    spacing = np.array([sorted(image.spacing_mm) for image, _ in loaded])
    pixel_mm = settings.pixel_mm or round(float(np.clip(np.median(spacing[:, 0]), 0.5, 4.0)), 2)
    samples = [sample(image, labels, classes, pixel_mm) for image, labels in loaded]
    slices = sum(one.values.shape[2] for one in samples)
    if slices > MAX_SLICES:
        raise InputError(folder, "images", f"{slices} slices, the limit is {MAX_SLICES}", "train on fewer")
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = unet(2 * settings.context + 1, len(classes))
            crop_px = multiple(WIDTHS) * max(2, round(settings.crop_mm / pixel_mm / multiple(WIDTHS)))
            _descend(network, samples, len(classes), crop_px, settings, progress)
            card = Card(
                classes=classes,
                context=settings.context,
                pixel_mm=pixel_mm,
                widths=WIDTHS,
                dropout=DROPOUT,
                trained=_counts(taught, samples),
                held_out={},
                spacing={
                    "pixel": _range([max(one.stack.pixel_mm) for one in samples]),
                    "slice": _range([one.stack.slice_mm for one in samples]),
                },
                steps=settings.steps,
                seed=settings.seed,
                threads=settings.threads,
                precision="bfloat16" if _has_bfloat16() else "float32",
                date=date,
                data_hash=content_hash(*(path for pair in pairs for path in (pair.image, pair.labels))),
                versions={**versions(), "torch": str(torch.__version__)},
            )
            card = _tested(card, network.eval(), kept, numbers, progress)
            weights = {name: value.numpy() for name, value in network.state_dict().items() if "num_batches" not in name}
    finally:
        torch.set_num_threads(before)
    write_model(out, weights, card)
    return card


def _range(values: Sequence[float]) -> tuple[float, float]:
    return round(min(values), 3), round(max(values), 3)


def _counts(pairs: Sequence[Pair], samples: Sequence[Sample] = ()) -> dict[str, int]:
    phantoms = sum(pair.phantom for pair in pairs)
    out = {"phantoms": phantoms, "own_images": len(pairs) - phantoms, "subjects": len({pair.subject for pair in pairs})}
    return {**out, "slices": sum(one.values.shape[2] for one in samples)} if samples else out


def _tested(
    card: Card, network: Any, kept: Sequence[Pair], numbers: Mapping[str, int] | None, progress: Callable[[int, int, str], None]
) -> Card:
    """The card with the scores of what was held out."""
    rows: list[dict[str, Agreement]] = []
    for k, pair in enumerate(kept):
        image, labels = read_pair(pair, numbers)
        as_classes(labels, card.classes)
        rows.append(compare(segment(image, Model(card, network), card.seed).labels, labels))
        progress(k + 1, len(kept), "held-out images")
    own = [row for row, pair in zip(rows, kept) if not pair.phantom]
    return replace(card, held_out=_counts(kept), scores=summary(rows), scores_own=summary(own) if 0 < len(own) < len(rows) else {})


def _descend(
    network: Any, samples: Sequence[Sample], n_classes: int, crop_px: int, settings: Settings, progress: Callable[[int, int, str], None]
) -> None:
    """AdamW on random crops; at the end the network has the running mean of its weights."""
    torch = torch_or_remedy()
    rng = np.random.default_rng(settings.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=1e-4)
    stacks = [context(one.values, settings.context) for one in samples]
    where = [places(one.stack) for one in samples]
    mean, short = {name: value.clone() for name, value in network.state_dict().items()}, _has_bfloat16()
    every = [(s, k) for s, one in enumerate(samples) for k in range(one.values.shape[2])]
    often = np.concatenate([_often(one.classes) for one in samples])
    share = often / often.sum()
    network.train()
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * min(0.5 + 0.5 * math.cos(math.pi * step / settings.steps), (step + 1) / WARM_UP)
        chosen = [every[int(i)] for i in rng.choice(len(every), settings.batch, p=share)]
        seen = [_view(stacks[s][k], samples[s].classes[:, :, k], crop_px, rng) for s, k in chosen]
        x = torch.from_numpy(np.stack([one for one, _ in seen]))
        y = torch.from_numpy(np.stack([one for _, one in seen]))
        at = torch.from_numpy(np.stack([where[s][k] for s, k in chosen]))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=short):
            scores = network(x, at)
        loss = _loss(scores.float(), y, n_classes)
        if not torch.isfinite(loss):
            raise RunFailed(f"training diverged at step {step}: the loss is not finite")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        _remember(mean, network, min(MEMORY, (step + 1) / (step + 10)))
        progress(step + 1, settings.steps, f"steps, loss {float(loss.detach()):.3f}")
    network.load_state_dict(mean)


def _remember(mean: dict[str, Any], network: Any, share: float) -> None:
    """The running mean of weights, in place: `share` of what it was."""
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            mean[name].lerp_(value, 1.0 - share)
        else:
            mean[name].copy_(value)


def _has_bfloat16() -> bool:
    """True if this processor multiplies in bfloat16: half the time of a step. Elsewhere it is emulated, and slower."""
    return bool(torch_or_remedy().ops.mkldnn._is_mkldnn_bf16_supported())


def _often(classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """How often each slice (rows, columns, slices) is drawn: the last two with the heart at either end, and two beyond, oftener."""
    heart = np.flatnonzero((classes > 0).any(axis=(0, 1)))
    out = np.ones(classes.shape[2])
    if len(heart):
        k = np.arange(len(out))
        near = np.minimum(k - heart[0], heart[-1] - k)
        out[(near >= -2) & (near <= 1)] = ENDS
    return out


def _loss(scores: Any, truth: Any, n_classes: int) -> Any:
    """Cross-entropy plus one minus the soft overlap (Dice) of the labels other than background."""
    torch = torch_or_remedy()
    chance = torch.softmax(scores, 1)
    hot = torch.nn.functional.one_hot(truth, n_classes).permute(0, 3, 1, 2)
    both, total = (chance * hot).sum((0, 2, 3)), chance.sum((0, 2, 3)) + hot.sum((0, 2, 3))
    return torch.nn.functional.cross_entropy(scores, truth) + 1.0 - ((2.0 * both + 1.0) / (total + 1.0))[1:].mean()


def _view(
    channels: NDArray[np.float32], classes: NDArray[np.int64], crop_px: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """One slice as a scanner might have shown it: cut out, scaled, turned or mirrored, brighter, noisier."""
    rows, columns = classes.shape
    inside = np.argwhere(classes > 0)
    # where there is no heart, any place of the image; else so that most of the heart is seen
    middle = inside.mean(axis=0) if len(inside) else rng.uniform(0.0, 1.0, 2) * (rows, columns)
    corner = middle + rng.uniform(-0.25, 0.25, 2) * crop_px
    if rng.random() < WARPED:
        scale, angle = float(np.exp(rng.uniform(-0.15, 0.15))), float(rng.uniform(-np.pi / 4, np.pi / 4))
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        offset, shape = corner - turn @ np.full(2, 0.5 * (crop_px - 1)), (crop_px, crop_px)
        x = np.stack([ndimage.affine_transform(one, turn, offset, shape, order=1, mode="nearest") for one in channels])
        y = ndimage.affine_transform(classes.astype(np.int16), turn, offset, shape, order=0, mode="constant")
    else:
        i, j = (np.arange(crop_px) + int(start) for start in np.round(corner - 0.5 * (crop_px - 1)))
        seen = np.ix_(np.clip(i, 0, rows - 1), np.clip(j, 0, columns - 1))
        outside = ((i < 0) | (i >= rows))[:, None] | ((j < 0) | (j >= columns))
        x, y = channels[:, seen[0], seen[1]], np.where(outside, 0, classes[seen])
    view = int(rng.integers(8))
    x, y = turned(x, view), np.asarray(turned(y, view))  # type: ignore[arg-type]
    x = x * np.float32(rng.uniform(0.8, 1.2)) + np.float32(rng.uniform(-0.1, 0.1)) + rng.normal(0.0, rng.uniform(0.0, 0.06), x.shape)
    return np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.int64)
