"""Scar that images show: into labels that have none, or beside labels that a person drew (these always win), with what was done said."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
from scipy import ndimage

from twin.errors import InputError
from twin.imaging.aha import voxel_segments
from twin.imaging.lge import BAND, DEFAULT, Enhancement, classify
from twin.imaging.thickness import BESIDE_MM, RIDGE_MM, THINNED_MM, wall_thickness
from twin.params import Param
from twin.patient import Evidence, Patient
from twin.volume import LABELS, LabelVolume

RELATIVE = Param(0.7, "1", 0.5, 0.8, "of the heart's own median wall; below it is thinned; chosen here: small hearts have thin walls")
LEAST_ML = Param(1.0, "mL", 0.3, 3.0, "chosen here: less thinned or enhanced wall than this is noise, not an infarct")


def with_substrate(patient: Patient) -> tuple[Patient, list[str]]:
    """The patient with scar and border zone from late enhancement or, without it, from CT thinning; and the lines for the limits.

    Labels with scar stay as they are and the disagreement is reported. Raises InputError where the image does not show the heart.
    """
    drawn = patient.labels.value.mask("scar", "border_zone", "isthmus").any()
    notes: list[str] = []
    if patient.lge is not None:
        found = classify(patient.lge.value, patient.labels.value)
        if drawn:
            return patient, _beside(found)
        volume, lines = _from_enhancement(found)
        notes += lines
    elif patient.ct is not None:
        volume, lines = _from_thinning(patient.labels.value, bool(drawn))
        notes += lines
    else:
        return patient, notes
    if volume is patient.labels.value:
        return patient, notes
    source = patient.lge if patient.lge is not None else patient.ct
    quality = f"scar from {source.source if source is not None else 'the image'}"
    return replace(patient, labels=Evidence(volume, patient.labels.source, quality, patient.labels.virtual)), notes


def _band(found: Enhancement) -> str:
    return ", ".join(f"{m} {found.mass_g(found.methods[m].core):.1f} + {found.mass_g(found.methods[m].border):.1f} g" for m in BAND)


def _from_enhancement(found: Enhancement) -> tuple[LabelVolume, list[str]]:
    chosen = found.methods[DEFAULT]
    if chosen.enhanced.sum() * found.volume.voxel_mm3 / 1000.0 < float(LEAST_ML):
        return found.volume, ["late enhancement shows no scar (fractions 40/60 of its robust maximum)"]
    return found.labels(DEFAULT), [
        f"scar and border zone come from late enhancement by fractions {DEFAULT} of a robust maximum; nobody drew them",
        f"how much that choice matters (core + border): {_band(found)}; full width at half maximum "
        f"{found.mass_g(found.methods['fwhm'].core):.1f} g, 5 SD {found.mass_g(found.methods['5sd'].core):.1f} g; "
        "the plan was made for the chosen one only",
    ]


def _beside(found: Enhancement) -> list[str]:
    volume = found.volume
    drawn, seen = volume.mask("scar", "border_zone", "isthmus"), found.methods[DEFAULT].enhanced
    dice = 2.0 * float((drawn & seen).sum()) / max(float(drawn.sum() + seen.sum()), 1.0)
    return [
        f"scar is as drawn ({found.mass_g(volume.mask('scar')):.1f} g core, {found.mass_g(volume.mask('border_zone', 'isthmus')):.1f} g "
        f"border); late enhancement by {DEFAULT} overlaps with a Dice of {dice:.2f} (core + border: {_band(found)})"
    ]


def _from_thinning(volume: LabelVolume, drawn: bool) -> tuple[LabelVolume, list[str]]:
    thick = wall_thickness(volume)
    inside = thick.wall & np.isfinite(thick.mm)
    usual = float(np.median(thick.mm[inside]))
    limit = min(float(THINNED_MM), float(RELATIVE) * usual)
    thin = thick.thinned(limit)
    # the true apex is thin in every heart
    with suppress(InputError):
        thin &= voxel_segments(volume) != 17
    numbered, count = ndimage.label(thin, np.ones((3, 3, 3), bool))
    size = np.bincount(numbered.ravel(), minlength=count + 1) * volume.voxel_mm3 / 1000.0
    size[0] = 0.0
    thin = size[numbered] >= float(LEAST_ML)
    ml = float(thin.sum()) * volume.voxel_mm3 / 1000.0
    said = f"CT: wall (median {usual:.1f} mm) is thinner than {limit:.1f} mm in {ml:.1f} mL"
    if drawn:
        return volume, [f"{said}; scar is as drawn"]
    if not thin.any():
        return volume, [f"{said}: no scar is assumed"]
    dense = thin & thick.thinned(min(0.5 * (float(RIDGE_MM) + float(BESIDE_MM)), limit))
    data = volume.data.copy()
    data[thin], data[dense] = LABELS["border_zone"], LABELS["scar"]
    below = 0.5 * (float(RIDGE_MM) + float(BESIDE_MM))
    return replace(volume, data=data), [
        f"{said}; that wall is taken as border zone and, below {below:.1f} mm, as scar: thickness is a stand-in for scar, nobody drew it"
    ]
