"""All files of a virtual patient: what a hospital would hand over, and the truth apart from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from planners.virtual.measure import Activated, activate, endocardial_map, measurement_truth, sinus_ecg
from planners.virtual.recipe import Recipe, make_labels, read_recipe
from twin.atomic import write_json
from twin.io.eam import write_eam
from twin.io.ecg import write_ecg
from twin.io.nrrd import write_nrrd


def make_case(folder: Path, progress: Callable[[str], None]) -> None:
    """Make `labels.nrrd`, `map.csv`, `ecg.csv`, `patient.json` and `truth.json` from `recipe.toml` in the same folder.

    Equal recipes give equal bytes on one machine. The plan may read all but the truth, which [expect] alone uses.
    Raises InputError for a recipe that cannot be read.
    """
    recipe = read_recipe(folder / "recipe.toml")
    progress(f"{folder}: drawing the heart")
    volume, infarct = make_labels(recipe)
    write_nrrd(folder / "labels.nrrd", volume)
    progress(f"{folder}: meshing at {recipe.measurement.edge_mm} mm and activating")
    beat = activate(volume, recipe.measurement)
    progress(f"{folder}: mapping and recording")
    # one stream of chance for each measurement: changing one leaves the other as it was
    eam, map_truth = endocardial_map(beat, recipe.measurement, np.random.default_rng([recipe.seed, 1]))
    write_eam(folder / "map.csv", eam)
    write_ecg(folder / "ecg.csv", sinus_ecg(beat, recipe.measurement, np.random.default_rng([recipe.seed, 2])))
    write_json(folder / "patient.json", {"sex": recipe.anatomy.sex, **recipe.patient})
    write_json(folder / "truth.json", _truth(recipe, infarct, beat, map_truth))


def _truth(recipe: Recipe, infarct: dict[str, Any], beat: Activated, map_truth: dict[str, Any]) -> dict[str, Any]:
    return {
        "virtual": True,
        "isthmuses": infarct.get("isthmuses", []),
        "infarct": {key: value for key, value in infarct.items() if key not in ("isthmuses", "virtual")},
        "map": map_truth,
        **measurement_truth(beat, recipe.measurement),
    }
