"""`[substrate] fuse = true` through the command: a twin whose scar comes from labels and voltages together, and says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planners.app.cli import run
from planners.calibration import Calibration
from planners.calibration.finer import FinerForward
from twin.io.labels import read_labels
from twin.io.nrrd import write_nrrd
from twin.mesh import HeartMesh
from twin.volume import LABELS

CASE = Path(__file__).parents[1] / "cases" / "two_isthmuses"


def _case(folder: Path) -> Path:
    """The small case on edges of 4.5 mm without its ECG; whoever drew its labels missed all of the scar above its middle."""
    volume = read_labels(CASE / "labels.nrrd")
    data = volume.data.copy()
    sick = volume.mask("scar", "border_zone", "isthmus")
    height = np.indices(data.shape)[2]
    data[sick & (height > np.median(height[sick]))] = LABELS["lv_myocardium"]
    write_nrrd(folder / "labels.nrrd", replace(volume, data=data))
    path = folder / "case.toml"
    lines = ["[patient]", 'name = "half_drawn"', "virtual = true", "[segmentation]", 'file = "labels.nrrd"', "[eam]"]
    lines += [f'file = "{CASE / "map.csv"}"', 'surface = "lv_endo"', "[mesh]", 'edge = "4.5 mm"']
    path.write_text("\n".join([*lines, "[substrate]", "fuse = true"]) + "\n")
    return path


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Calibration, HeartMesh]:
    """posterior.json, the calibration that a plan would go on with, and the mesh as drawn."""
    folder = tmp_path_factory.mktemp("fused")
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        # what a mesh is late by is tested elsewhere, and costs more than all the rest here
        patch.setattr(FinerForward, "worth_it", staticmethod(lambda mesh: False))
        assert run(["calibrate", str(_case(folder)), "-o", str(out)]) == 0
    (tissue,), (mesh,) = ((out / "stages").glob(f"{name}-*") for name in ("tissue", "mesh"))
    return json.loads((out / "posterior.json").read_text()), Calibration.load(tissue), HeartMesh.load(mesh / "mesh.npz")


def test_voltages_bring_back_scar_that_nobody_drew(fused: tuple[dict[str, Any], Calibration, HeartMesh]) -> None:
    _, found, drawn = fused
    heart = found.twin.mesh
    assert (heart.tets == drawn.tets).all()
    lv = heart.surface_nodes("lv_endo")
    true = read_labels(CASE / "labels.nrrd")
    scarred = _labels_at(true.data, true.affine, heart.centroids_mm)
    missed = scarred & ~drawn.in_region("scar", "border_zone", "isthmus") & np.isin(heart.tets, lv).any(axis=1)
    assert missed.sum() > 20
    assert heart.in_region("scar", "border_zone")[missed].mean() > 0.5
    healthy = ~scarred & ~drawn.in_region("scar", "border_zone", "isthmus")
    assert heart.in_region("scar", "border_zone")[healthy].mean() < 0.1


def _labels_at(data: np.ndarray, affine: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
    """Whether each point (m, 3) lies in a voxel of dense scar."""
    at = np.rint((points_mm - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    return np.asarray(data[tuple(np.clip(at, 0, np.array(data.shape) - 1).T)] == LABELS["scar"])


def test_the_posterior_says_where_its_regions_are_from(fused: tuple[dict[str, Any], Calibration, HeartMesh]) -> None:
    posterior, found, _ = fused
    said = posterior["fit"]["substrate"]
    assert said["used_for_regions"]
    assert {"labels", "bipolar", "fused"} <= set(said["sources"])
    assert any("nobody drew them as they are" in line for line in posterior["doubts"])
    low, high = posterior["unknowns"]["healthy/cv_longitudinal_m_s"]["interval_95"]
    assert low < found.twin.tissue.samples[0, 0] < high
    assert posterior["fit"]["held_out_rms_ms"] < 12.0
