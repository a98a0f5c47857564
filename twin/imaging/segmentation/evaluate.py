"""A network on a folder of images and labels, or one label file against another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from twin.imaging.segmentation.dataset import find_pairs, read_pair, same_grid
from twin.imaging.segmentation.metrics import Agreement, compare
from twin.imaging.segmentation.predict import Model, segment
from twin.io.labels import read_labels


def against(found: Path, truth: Path, numbers: Mapping[str, int] | None) -> dict[str, Agreement]:
    """Agreement of two label files per structure. Raises InputError if they do not lie on the same grid."""
    a, b = (read_labels(path, numbers, flip=True) for path in (found, truth))
    same_grid(found, a, b)
    return compare(a, b)


def of_model(
    folder: Path, model: Path, numbers: Mapping[str, int] | None, seed: int, progress: Callable[[int, int, str], None]
) -> tuple[dict[str, dict[str, Agreement]], str]:
    """Agreement by image and structure, and what the model may be used for. Raises InputError as `find_pairs` and `Model.load` do."""
    pairs, network = find_pairs(folder), Model.load(model)
    rows = {}
    for k, pair in enumerate(pairs):
        image, labels = read_pair(pair, numbers)
        rows[pair.image.name] = compare(segment(image, network, seed).labels, labels)
        progress(k + 1, len(pairs), "images")
    return rows, network.card.use
