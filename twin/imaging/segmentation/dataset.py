"""A folder of images and labels: which file belongs to which, what is in them, and which subjects are held out.

Pairs are found by name, in one of two layouts (NAME is anything, the ending one of .nrrd, .nii, .nii.gz, .mha):

- `images/NAME` beside `labels/NAME` (also imagesTr and labelsTr, where the image may be called NAME_0000);
- one folder with `NAME` and `NAME_labels` (also _label, _seg, _gt, or .seg.nrrd as 3D Slicer saves).

A file without its partner is an error, never left out in silence. What stands before _frame, _phase, _time, _ED or _ES names the subject,
and one subject is either trained on or held out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.image import Image
from twin.imaging.segmentation.slices import Stack, normalised, stack_of, to_pixels
from twin.io.image import read_image
from twin.io.labels import read_labels
from twin.io.nrrd import said_in
from twin.volume import LABELS, LabelVolume

ENDINGS = (".nii.gz", ".nrrd", ".nii", ".mha")
SUFFIXES = ("_labels", "_label", "_seg", "_gt", ".seg")
PAIRS_OF_FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
SCARRED = ("scar", "border_zone", "isthmus")
PHANTOM = "vtwin_phantom"
"""Key in the header of an image that `vtwin segment phantoms` made."""
SAME_MM = 0.01


@dataclass(frozen=True)
class Pair:
    """One image with its labels; `subject` is what held-out sets are drawn by, `phantom` if vtwin made the image."""

    image: Path
    labels: Path
    subject: str
    phantom: bool


def stem_of(path: Path) -> str | None:
    """Name without the ending, None for a file of another kind."""
    ending = next((e for e in ENDINGS if path.name.endswith(e)), None)
    return None if ending is None else path.name.removesuffix(ending)


def find_pairs(folder: Path) -> list[Pair]:
    """All pairs in a folder, by name. Raises InputError for a missing folder, no pair, or a file without its partner."""
    if not folder.is_dir():
        raise InputError(
            folder, "folder", "does not exist" if not folder.exists() else "is not a folder", "name a folder of images and labels"
        )
    two = next((pair for pair in PAIRS_OF_FOLDERS if (folder / pair[0]).is_dir()), None)
    if two is not None:
        images, labels = _by_stem(folder / two[0]), _by_stem(folder / two[1])
        images = {stem.removesuffix("_0000"): path for stem, path in images.items()}
    else:
        images, labels = {}, {}
        for stem, path in _by_stem(folder).items():
            suffix = next((s for s in SUFFIXES if stem.lower().endswith(s)), None)
            (images if suffix is None else labels)[stem if suffix is None else stem[: -len(suffix)]] = path
    if alone := sorted(set(images) ^ set(labels)):
        kind = "image has no labels" if alone[0] in images else "labels have no image"
        place = (images | labels)[alone[0]]
        remedy = f"call them NAME and NAME_labels, or put them under images/ and labels/ ({len(alone)} files are alone)"
        raise InputError(place, "name", f"the {kind}", remedy)
    if not images:
        raise InputError(folder, "folder", "holds no image with labels", f"give pairs of {', '.join(ENDINGS)}")
    return [Pair(images[stem], labels[stem], _subject(stem), is_phantom(images[stem])) for stem in sorted(images)]


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(folder, "folder", "does not exist", "put the labels there")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        stem = stem_of(path)
        if stem is None or path.name.startswith("."):
            continue
        if stem in found:
            raise InputError(path, "name", f"{found[stem].name} has the same name", "keep one of them")
        found[stem] = path
    return found


def _subject(stem: str) -> str:
    return re.split(r"[_-](?:frame|phase|time|ed|es)(?=\d|[_-]|$)", stem, maxsplit=1, flags=re.IGNORECASE)[0]


def is_phantom(path: Path) -> bool:
    """True if the image says that vtwin made it."""
    return PHANTOM in said_in(path)


def held_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs held out: whole subjects, drawn by seed, at least one each. Raises InputError for a single subject."""
    subjects = sorted({pair.subject for pair in pairs})
    if len(subjects) < 2:
        raise InputError(pairs[0].image.parent, "subjects", "there is only one", "give two or more: one is held out to test on")
    count = min(max(1, round(share * len(subjects))), len(subjects) - 1)
    chosen = set(np.random.default_rng(seed).permutation(subjects)[:count].tolist())
    return [pair for pair in pairs if pair.subject not in chosen], [pair for pair in pairs if pair.subject in chosen]


def read_pair(pair: Pair, numbers: Mapping[str, int] | None) -> tuple[Image, LabelVolume]:
    """The image and its labels on the same grid. Raises InputError if their grids differ."""
    image, labels = read_image(pair.image), read_labels(pair.labels, numbers, flip=True)
    same_grid(pair.labels, labels, image)
    return image, labels


def same_grid(where: Path, labels: LabelVolume, other: Image | LabelVolume) -> None:
    """Raise InputError unless the voxels of `labels` are those of the other volume."""
    if other.data.shape != labels.data.shape:
        problem = f"{'x'.join(map(str, labels.data.shape))} voxels, not {'x'.join(map(str, other.data.shape))}"
        raise InputError(where, "sizes", problem, "export both on the same grid")
    corners = np.array(np.meshgrid(*[(0.0, n - 1.0) for n in labels.data.shape])).reshape(3, -1).T
    apart = float(np.abs(other.to_mm(corners) - labels.to_mm(corners)).max())
    if apart > SAME_MM:
        raise InputError(where, "position", f"{apart:.2f} mm away from the other volume", "export both on the same grid")


def classes_of(volumes: Sequence[LabelVolume]) -> tuple[str, ...]:
    """Names that the network tells apart, background first: what the labels hold, scar being part of its wall."""
    present = {name for volume in volumes for name, value in LABELS.items() if (volume.data == value).any()}
    wall = _wall_of(present)
    kept = (present - set(SCARRED)) | ({wall} if present & set(SCARRED) else set())
    return tuple(name for name in LABELS if name in kept | {"background"} and name != "ignore")


def _wall_of(present: set[str]) -> str:
    """The label that scar counts as."""
    return "lv_myocardium" if "lv_myocardium" in present else "myocardium"


def as_classes(volume: LabelVolume, classes: Sequence[str]) -> NDArray[np.int64]:
    """Index into `classes` of every voxel. Raises InputError for a label that is none of them."""
    table = np.full(max(LABELS.values()) + 1, -1)
    table[LABELS["ignore"]] = 0
    for index, name in enumerate(classes):
        table[LABELS[name]] = index
    for name in SCARRED:
        table[LABELS[name]] = table[LABELS[_wall_of(set(classes))]]
    out = table[volume.data]
    if (out < 0).any():
        strange = sorted(name for name, value in LABELS.items() if (volume.data[out < 0] == value).any())
        raise InputError(volume.source, "labels", f"{strange[0]} is not what the others hold ({', '.join(classes[1:])})", "label all alike")
    return np.asarray(out, np.int64)


@dataclass(frozen=True)
class Sample:
    """A pair at the network's pixel size: intensities (rows, columns, slices) float32 and classes of the same shape."""

    values: NDArray[np.float32]
    classes: NDArray[np.int64]
    stack: Stack


def sample(image: Image, labels: LabelVolume, classes: Sequence[str], pixel_mm: float) -> Sample:
    """One pair made ready for training."""
    stack = stack_of(image)
    values = to_pixels(normalised(stack.turn(image.data)), stack, pixel_mm, order=1)
    truth = to_pixels(stack.turn(as_classes(labels, classes)), stack, pixel_mm, order=0)
    return Sample(np.asarray(values, np.float32), np.asarray(truth, np.int64), stack)
