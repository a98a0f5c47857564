"""All files of a virtual patient: what a hospital would hand over, and the truth apart from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from planners.virtual.measure import Activated, activate, endocardial_map, measurement_truth, sinus_ecg
from planners.virtual.recipe import Recipe, make_labels, read_recipe
from twin.atomic import write_json
from twin.io.eam import write_eam
from twin.io.ecg import write_ecg
from twin.io.nrrd import write_nrrd
from twin.patient import Ecg, ElectroanatomicalMap
from twin.study import UNVERIFIED


def make_case(folder: Path, progress: Callable[[str], None], studies: Sequence[str] = ()) -> None:
    """Make `labels.nrrd`, `map.csv`, `ecg.csv`, `patient.json`, `truth.json` and, with a recorded VT, `vt.csv` from `recipe.toml` there.

    studies: formats of mapping systems ("carto", "ensite", "openep") in which the map is written too, as `study.zip`, `study_ensite`,
    `study.mat`; voltages there are those of the simulated electrograms.
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
    ecg = sinus_ecg(beat, recipe.measurement, np.random.default_rng([recipe.seed, 2]))
    write_ecg(folder / "ecg.csv", ecg)
    write_json(folder / "patient.json", {"sex": recipe.anatomy.sex, **recipe.patient})
    truth = _truth(recipe, infarct, beat, map_truth)
    if recipe.recorded_vt is not None:
        from planners.virtual.tachycardia import RecordedVtSpec, recorded_vt

        progress(f"{folder}: inducing the VT that was recorded")
        spec, rng = RecordedVtSpec(**recipe.recorded_vt), np.random.default_rng([recipe.seed, 4])
        vt, truth["recorded_vt"] = recorded_vt(volume, truth["isthmuses"], recipe.measurement, spec, rng)
        write_ecg(folder / "vt.csv", vt)
    write_json(folder / "truth.json", truth)
    if studies:
        _write_studies(folder, recipe, beat, eam, map_truth, ecg, studies, progress)


def _write_studies(
    folder: Path,
    recipe: Recipe,
    beat: Activated,
    eam: ElectroanatomicalMap,
    map_truth: dict[str, Any],
    ecg: Ecg,
    formats: Sequence[str],
    progress: Callable[[str], None],
) -> None:
    from planners.virtual.study import phantom_study, write_format

    progress(f"{folder}: electrograms of {len(eam.points_mm)} points")
    frame = np.array(map_truth["map_to_patient"])
    study = phantom_study(beat, recipe.measurement, eam, frame, ecg, recipe.seed)
    for kind in formats:
        progress(f"{write_format(folder, study, kind)}: {UNVERIFIED}")


def _truth(recipe: Recipe, infarct: dict[str, Any], beat: Activated, map_truth: dict[str, Any]) -> dict[str, Any]:
    return {
        "virtual": True,
        "isthmuses": infarct.get("isthmuses", []),
        "infarct": {key: value for key, value in infarct.items() if key not in ("isthmuses", "virtual")},
        "map": map_truth,
        **measurement_truth(beat, recipe.measurement),
    }
