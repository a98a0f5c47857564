"""Named masks that may overlap (DICOM SEG, RTSTRUCT) to one label volume, by rules that are the same for every format.

- Scar, border zone and isthmus lie on muscle: isthmus wins over scar, scar over border zone, all over muscle.
- lv_myocardium wins over rv_myocardium (the septum), both over myocardium.
- A blood pool that lies inside muscle (a filled epicardial contour) is carved out of it.
- Anything else that overlaps by more than a rim is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.grid import check_affine, label_name
from twin.volume import LABELS, WALL, LabelVolume

PAINTED = ("myocardium", "rv_myocardium", "lv_myocardium", "border_zone", "scar", "isthmus")
"""Wall labels in the order in which they are painted: later ones win."""

RIM = 0.02
"""Share of the smaller mask that may overlap where two outlines meet."""

INSIDE = 0.95
MAX_MASK_BYTES = 1_000_000_000


def names_of(in_file: Mapping[int, str], asked: Mapping[str, int] | None, where: Path, field: str) -> dict[int, str]:
    """Segment number -> name of vtwin; `asked` (name -> number) wins over the names in the file. Raises InputError for unknown ones."""
    by_number = {int(number): label_name(name, where, "labels") for name, number in (asked or {}).items()}
    missing = sorted(set(by_number) - set(in_file))
    if missing:
        raise InputError(where, field, f"there is no number {missing[0]} (known: {sorted(in_file)})", "correct [segmentation.labels]")
    return by_number | {n: label_name(text, where, field) for n, text in in_file.items() if n not in by_number}


def check_room(count: int, shape: tuple[int, int, int], where: Path) -> None:
    """Raise InputError if `count` masks of this shape do not fit in memory."""
    total = count * int(np.prod(shape, dtype=object))
    if total > MAX_MASK_BYTES:
        raise InputError(where, "segments", f"{count} masks of {'x'.join(map(str, shape))} voxels", "crop to the heart or resample")


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Overlap as a share of the smaller mask."""
    return float((a & b).sum() / max(1, min(a.sum(), b.sum())))


def combine(masks: Mapping[str, NDArray[np.bool_]], affine: NDArray[np.float64], where: Path) -> LabelVolume:
    """One label volume of masks (ni, nj, nk) by name of vtwin, after the rules above. Raises InputError for what they do not settle."""
    pools = {name: masks[name] for name in ("lv_blood", "rv_blood") if name in masks}
    if "lv_blood" not in pools or not pools["lv_blood"].any():
        raise InputError(where, "labels", "missing label lv_blood", "segment the LV blood pool, or name it in [segmentation.labels]")
    if not any(masks[name].any() for name in WALL if name in masks):
        raise InputError(where, "labels", "missing label: no myocardium", "segment the wall, or name it in [segmentation.labels]")
    check_affine(affine, pools["lv_blood"].shape, where, "geometry")
    if len(pools) == 2 and _overlap(*pools.values()) > RIM:
        raise InputError(where, "labels", "lv_blood and rv_blood overlap", "separate the two blood pools")
    data = np.zeros(pools["lv_blood"].shape, np.uint8)
    carved = np.zeros(data.shape, bool)
    for pool_name, pool in pools.items():
        data[pool] = LABELS[pool_name]
        for name in (n for n in PAINTED if n in masks):
            share = float((pool & masks[name]).sum() / max(1, pool.sum()))
            if share >= INSIDE and name.endswith("myocardium"):
                carved |= pool
            elif share > RIM or _overlap(pool, masks[name]) > 5 * RIM:
                remedy = "outline them apart, or the muscle as one filled outline round the cavity"
                raise InputError(where, "labels", f"{pool_name} and {name} overlap in part ({100 * share:.0f} % of the cavity)", remedy)
    for name in (n for n in PAINTED if n in masks):
        data[masks[name] & ~carved] = LABELS[name]
    present = set(np.unique(data).tolist())
    names = {name: value for name, value in LABELS.items() if value and value in present}
    return LabelVolume(data, affine, where.name, names)
