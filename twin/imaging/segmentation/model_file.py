"""A trained network in one .safetensors file: weights, and the card that says what it was trained on and how well it did.

The file's own layout (8 bytes of length, a JSON header, numbers) is checked before torch is asked for, so that a case's model can be judged
on a machine without it. Format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import dumps, write_bytes, write_text
from twin.errors import InputError
from twin.io.source import read_bytes
from twin.volume import LABELS

FORMAT = "vtwin-segmentation 2"
MAX_BYTES = 200_000_000
MAX_HEADER = 1_000_000
PHANTOMS_ONLY = "phantoms only: not used for patients"
REMEDY = "train it again, or copy it again (vtwin segment train FOLDER -o MODEL)"


@dataclass(frozen=True)
class Card:
    """What a model is.

    classes: names from `twin.volume.LABELS`, background first; context: neighbours on each side; pixel_mm: in-plane size that the network
    sees; trained, held_out: counts of images and slices, from phantoms and from the user's own images; spacing: ranges
    (low, high) of the training images in mm; scores: `metrics.summary` on what was held out; precision: of the products in training (the
    weights are float32).
    """

    classes: tuple[str, ...]
    context: int
    pixel_mm: float
    widths: tuple[int, ...]
    dropout: float
    trained: Mapping[str, int]
    held_out: Mapping[str, int]
    spacing: Mapping[str, tuple[float, float]]
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scores_own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    steps: int = 0
    seed: int = 0
    threads: int = 1
    precision: str = "float32"
    date: str = ""
    data_hash: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def for_patients(self) -> bool:
        """True if the user's own images were both trained on and held out: nothing else says how it does on patients."""
        return self.trained.get("own_images", 0) > 0 and self.held_out.get("own_images", 0) > 0

    @property
    def use(self) -> str:
        """One line: what the model may be used for."""
        if not self.for_patients:
            return PHANTOMS_ONLY
        count, held = self.trained["own_images"], self.held_out["own_images"]
        return f"trained on {count} images of the user's own, tested on {held}: look at every result, research only"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return {**asdict(self), "classes": list(self.classes), "widths": list(self.widths), "use": self.use}


def write_model(path: Path, weights: Mapping[str, NDArray[np.float32]], card: Card) -> None:
    """Write weights and card to `path` and the card as Markdown beside it; equal content gives equal bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "card": json.dumps(json.loads(dumps(card.as_dict())), sort_keys=True)}}
    at, body = 0, []
    for name in sorted(weights):
        raw = np.ascontiguousarray(weights[name], "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(weights[name].shape), "data_offsets": [at, at + len(raw)]}
        body.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * ((-len(text)) % 8)
    write_bytes(path, struct.pack("<Q", len(text)) + text + b"".join(body))
    write_text(path.with_suffix(".md"), card_text(card))


def read_card(path: Path) -> Card:
    """The card of a model file, without its weights and without torch. Raises InputError for what is no whole model of vtwin's."""
    return _split(path)[0]


def read_model(path: Path) -> tuple[Card, dict[str, NDArray[np.float32]]]:
    """Card and weights by name. Raises InputError for a damaged file or numbers that are not finite."""
    card, header, body = _split(path)
    weights = {}
    for name, entry in header.items():
        low, high = entry["data_offsets"]
        weights[name] = np.frombuffer(body[low:high], "<f4").reshape(entry["shape"])
        if not np.isfinite(weights[name]).all():
            raise InputError(path, name, "holds NaN or infinite numbers", REMEDY)
    return card, weights


def _split(path: Path) -> tuple[Card, dict[str, Any], bytes]:
    data = read_bytes(path, MAX_BYTES)
    length = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else MAX_HEADER + 1
    if length > min(MAX_HEADER, len(data) - 8):
        raise InputError(path, "header", "is no .safetensors file, or it was cut off", REMEDY)
    try:
        header = json.loads(data[8 : 8 + length])
        meta = header.pop("__metadata__")
        known, text = meta["format"], meta["card"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(path, "header", "is not that of a segmentation model of vtwin", REMEDY) from None
    if known != FORMAT:
        raise InputError(path, "format", f"{str(known)[:30]!r} is not {FORMAT!r}", "train it with this version")
    card, body = _card(path, text), data[8 + length :]
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(item[1], path)):
        low, high = _offsets(entry, path)
        if entry.get("dtype") != "F32" or low != end or high - low != 4 * int(np.prod(entry["shape"], dtype=object)):
            raise InputError(path, str(name)[:40], "its place in the file does not fit its size", REMEDY)
        end = high
    if end != len(body):
        raise InputError(path, "data", f"{len(body)} bytes of numbers, {end} are announced", REMEDY)
    return card, header, body


def _offsets(entry: Any, path: Path) -> tuple[int, int]:
    try:
        (low, high), shape = entry["data_offsets"], entry["shape"]
        if all(isinstance(n, int) and 0 <= n <= MAX_BYTES for n in (low, high, *shape)) and len(shape) <= 4:
            return low, high
    except (TypeError, KeyError, ValueError):
        pass
    raise InputError(path, "header", "a tensor has no proper shape or place", REMEDY)


def _card(path: Path, text: Any) -> Card:
    """The card from its JSON, every field checked that the network is built from."""
    try:
        raw = dict(json.loads(text))
        raw.pop("use", None)
        spacing = {str(name): (float(low), float(high)) for name, (low, high) in raw["spacing"].items()}
        card = Card(**{**raw, "classes": tuple(raw["classes"]), "widths": tuple(raw["widths"]), "spacing": spacing})
        good = (
            len(card.classes) >= 2
            and card.classes[0] == "background"
            and len(set(card.classes)) == len(card.classes)
            and set(card.classes) <= set(LABELS)
            and isinstance(card.context, int)
            and 0 <= card.context <= 4
            and 0.3 <= card.pixel_mm <= 5.0
            and 2 <= len(card.widths) <= 6
            and all(isinstance(w, int) and 1 <= w <= 1024 for w in card.widths)
            and 0.0 <= card.dropout < 1.0
            and all(isinstance(part.get("own_images", 0), int) for part in (card.trained, card.held_out))
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        good = False
    if not good:
        raise InputError(path, "card", "does not describe a network of vtwin's", REMEDY)
    return card


def card_text(card: Card) -> str:
    """The card as Markdown, for people."""
    lines = [
        "# Segmentation model",
        "",
        f"**{card.use}.** Research software.",
        "",
        f"- labels: {', '.join(card.classes[1:])}",
        f"- network: 2-D U-Net, widths {'-'.join(map(str, card.widths))}, {2 * card.context + 1} slices as channels, "
        f"pixels of {card.pixel_mm:g} mm, dropout {card.dropout:g}",
        f"- trained on: {_counts(card.trained)}; held out: {_counts(card.held_out)}",
        "- images trained on: " + ", ".join(f"{name} {low:g} to {high:g} mm" for name, (low, high) in sorted(card.spacing.items())),
        f"- {card.steps} steps, seed {card.seed}, {card.threads} threads, {card.precision}, {card.date}; hash of the data {card.data_hash}",
        "- versions: " + ", ".join(f"{name} {version}" for name, version in sorted(card.versions.items())),
    ]
    for title, scores in (("all that was held out", card.scores), ("the user's own images among them", card.scores_own)):
        if scores:
            lines += ["", f"## On {title}", "", *_table(scores)]
    return "\n".join(lines) + "\n"


def _counts(part: Mapping[str, int]) -> str:
    return ", ".join(f"{part[key]} {key.replace('_', ' ')}" for key in sorted(part))


def _table(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = ["| structure | n | Dice, mean (least) | Hausdorff 95 %, mm, mean (most) | volume bias, mL (SD) |", "|---|---|---|---|---|"]
    for name, one in scores.items():
        rows.append(
            f"| {name} | {one['n']} | {one['dice']} ({one['dice_least']}) | {one['hausdorff95_mm']} ({one['hausdorff95_mm_most']}) | "
            f"{one['volume_bias_ml']} ({one['volume_bias_sd_ml']}) |"
        )
    return rows
