"""Labels of a case whose [segmentation] names a network: what a person drew always wins, and phantoms never speak for patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from twin.case import Case
from twin.errors import InputError
from twin.imaging.segmentation.model_file import read_card
from twin.imaging.segmentation.predict import Model, Segmented, segment
from twin.io.image import read_image
from twin.io.nrrd import said_in, write_nrrd
from twin.run import content_hash

MADE_BY = "vtwin_segmented_by"
"""Key in the header of labels that a network made; the value is the card's one line of what it may be used for."""
HAND = "drawn by hand or given"


def write_segmented(path: Path, found: Segmented, use: str) -> None:
    """Write a network's labels as NRRD that says so."""
    write_nrrd(path, found.labels, {MADE_BY: use})


def maker_of(path: Path) -> str:
    """What made a label file: the line that `write_segmented` left, or HAND."""
    return said_in(path).get(MADE_BY, HAND) if path.is_file() else HAND


def case_labels(case: Case, folder: Path, progress: Callable[[str], None]) -> tuple[Case, list[str]]:
    """The case with labels to read, and what the report should say of them.

    Labels in the case are used and the network is not asked. Without them the network's are made once, in `folder`. Raises InputError for a
    model that has seen phantoms only where the case is not virtual, whether it is named or made the labels; and what `segment` raises.
    """
    model, image = case.model_path, case.model_image_path
    if model is None or case.labels_path != image:
        used = maker_of(case.labels_path)
        if used != HAND and "not used for patients" in used:
            _refuse(case, "segmentation.file", f"{case.labels_path.name} was made by a network that saw {used}")
        notes = [] if used == HAND else [f"the labels {case.labels_path.name} were made by a network ({used})"]
        if model is not None:
            notes.append(f"the case has labels ({case.labels_path.name}): the network {model.name} was not asked")
        return case, notes
    card = read_card(model)
    if not card.for_patients:
        _refuse(case, "segmentation.model", f"{model.name} was trained on {card.use}")
    out = folder / f"segmented-{content_hash(model, image)}" / "labels.nrrd"
    notes = [f"nobody drew the labels: a network made them from {image.name} ({card.use})"]
    if not out.exists():
        progress("segmenting the image ...")
        found = segment(read_image(image), Model.load(model))
        write_segmented(out, found, card.use)
        notes += [f"segmentation: {line}" for line in found.notes]
    return replace(case, labels_path=out, labels=None), notes


def _refuse(case: Case, field: str, problem: str) -> None:
    if not case.virtual:
        raise InputError(case.path, field, problem, "draw the labels, or train a model on your own images (docs/segmentation.md)")
