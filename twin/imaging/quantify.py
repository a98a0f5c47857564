"""What late enhancement amounts to: masses by every rule, their disagreement, entropy and transmurality per segment."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.imaging.aha import heart_axes
from twin.imaging.lge import BAND, DEFAULT, Enhancement, Mask
from twin.volume import LabelVolume

CHORDS = 120
"""Rays round the long axis along which transmurality is measured, 3 degrees each."""
TRANSMURAL_FROM = 0.5
"""Part of the wall from which a chord is called transmural (the usual cut-off of viability: Kim 2000, N Engl J Med 343:1445)."""


def quantify(found: Enhancement, method: str = DEFAULT) -> dict[str, Any]:
    """Everything that is reported of one image, numbers and text only: JSON as it stands.

    Keys: levels; methods (thresholds, masses in g, share of the LV wall); dice (matrix of agreement); band (35/65 .. 45/55); entropy_bits
    of border zone and wall; segments (per AHA segment, where the heart's axes can be found); chosen (the rule the labels come from).
    """
    wall_g = found.mass_g(found.wall)
    methods = {
        name: {
            "border_from": round(one.border_from, 2),
            "core_from": round(one.core_from, 2),
            "core_g": round(found.mass_g(one.core), 3),
            "border_g": round(found.mass_g(one.border), 3),
            "share_of_wall": round(found.mass_g(one.enhanced) / max(wall_g, 1e-9), 4),
        }
        for name, one in found.methods.items()
    }
    chosen = found.methods[method]
    out: dict[str, Any] = {
        "chosen": method,
        "lv_wall_g": round(wall_g, 2),
        "unseen_share": round(float((found.wall & ~np.isfinite(found.values)).sum() / max(int(found.wall.sum()), 1)), 4),
        "levels": {key: value if isinstance(value, str) else round(value, 3) for key, value in asdict(found.levels).items()},
        "methods": methods,
        "dice": {a: {b: round(v, 3) for b, v in row.items()} for a, row in found.dice().items()},
        "band": {
            key: [min(methods[name][key] for name in BAND), max(methods[name][key] for name in BAND)] for key in ("core_g", "border_g")
        },
        "entropy_bits": {
            "border_zone": round(found.entropy_bits(chosen.border), 3),
            "wall": round(found.entropy_bits(found.wall), 3),
        },
    }
    try:
        out["segments"] = transmurality(found.volume, found.wall, chosen.enhanced)
    except InputError as error:
        out["segments"] = {}
        out["segments_missing"] = f"{error.field}: {error.problem}"
    return out


def transmurality(volume: LabelVolume, wall: Mask, enhanced: Mask) -> dict[str, dict[str, float]]:
    """By AHA segment: share of its wall that enhances, mean transmural extent of the chords that do, share of chords above 50 %.

    wall, enhanced: (ni, nj, nk) bool. A chord is the wall within 3 degrees of a ray from the long axis in one layer of 4 mm (or a slice).
    Raises InputError where the heart's axes cannot be found.
    """
    axes = heart_axes(volume, ("lv_myocardium", "myocardium", "scar", "border_zone"))
    points = volume.to_mm(np.argwhere(wall).astype(np.float64))
    theta, h, _ = axes.polar(points)
    segment = axes.segments(points)
    layer = np.floor(h / max(4.0, float(volume.spacing_mm.max()))).astype(int)
    chord = np.clip(((theta + np.pi) / (2.0 * np.pi) * CHORDS).astype(int), 0, CHORDS - 1)
    hot = enhanced[wall]
    out = {}
    for s in range(1, 18):
        here = segment == s
        if not here.any():
            continue
        extent = _extent(layer[here] * CHORDS + chord[here], hot[here])
        touched = extent[extent > 0]
        out[str(s)] = {
            "share": round(float(hot[here].mean()), 3),
            "extent_where_enhanced": round(float(touched.mean()), 3) if len(touched) else 0.0,
            "transmural_share": round(float((extent > TRANSMURAL_FROM).mean()), 3),
        }
    return out


def _extent(chord: NDArray[np.int_], hot: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Enhanced share of every chord that holds at least two voxels."""
    _, which = np.unique(chord, return_inverse=True)
    count = np.bincount(which)
    return np.asarray(np.bincount(which, hot)[count >= 2] / count[count >= 2], np.float64)
