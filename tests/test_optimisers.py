"""Optimisers of others: what comes back is checked and measured, nothing is lost, and without them one line says how to get them."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshing.mesh_labels import mesh_heart
from meshing.optimisers import OPTIMISERS, Body, Optimiser, optimiser_named
from meshing.phantom import Ventricles
from meshing.quality import tet_volumes
from planners.app.cli import run
from twin.errors import InputError, RunFailed
from twin.io.nrrd import write_nrrd
from twin.mesh import REGIONS, HeartMesh

EDGE_MM = 2.5


@pytest.fixture(scope="module")
def heart() -> HeartMesh:
    return mesh_heart(Ventricles().volume(2.0, scar=True), EDGE_MM)


def of(change: Any, name: str = "theirs") -> Optimiser:
    """An optimiser that is a function of the body; the package is one that is always there."""
    return Optimiser(name, "numpy", "a licence", lambda body, edge_mm: change(body))


def shaken(body: Body, by_mm: float) -> Body:
    """Nodes inside moved at random."""
    points = body.points.copy()
    inside = np.setdiff1d(np.arange(len(points)), body.triangles)
    points[inside] += np.random.default_rng(0).normal(0.0, by_mm, (len(inside), 3))
    return replace(body, points=points)


def with_optimiser(change: Any) -> HeartMesh:
    return mesh_heart(Ventricles().volume(2.0, scar=True), EDGE_MM, of(change))


def test_what_comes_back_is_measured_and_regions_and_surfaces_are_there(heart: HeartMesh) -> None:
    found = with_optimiser(lambda body: shaken(body, 0.02))
    said = found.quality["optimiser"]
    assert said["used"]
    assert said["licence"] == "a licence"
    assert said["package"].startswith("numpy ")
    assert said["mesh_before"]["dihedral_min_deg"] == heart.quality["dihedral_min_deg"]
    assert found.quality["dihedral_p1_deg"] != heart.quality["dihedral_p1_deg"]
    for name, triangles in heart.surfaces.items():
        np.testing.assert_array_equal(found.surfaces[name], triangles)
    for region in ("healthy", "border_zone", "scar"):
        a, b = (float(m.tet_volumes_mm3[m.region == REGIONS[region]].sum()) for m in (found, heart))
        assert a == pytest.approx(b, rel=0.02)


def test_a_mesh_that_misses_a_gate_is_not_taken(heart: HeartMesh) -> None:
    found = with_optimiser(lambda body: shaken(body, 0.2))
    np.testing.assert_array_equal(found.points_mm, heart.points_mm)
    np.testing.assert_array_equal(found.region, heart.region)
    assert not found.quality["optimiser"]["used"]
    assert found.quality["optimiser"]["its_mesh"]["dihedral_min_deg"] < 10.7 < found.quality["dihedral_min_deg"]
    assert any(line.startswith("theirs was not used: its mesh misses dihedral_min_deg") for line in found.quality["warnings"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: replace(b, tets=b.tets[:, [0, 2, 1, 3]]), "inverted"),
        (lambda b: replace(b, tets=b.tets[:-1]), "is not that of its tetrahedra"),
        (lambda b: replace(b, name=np.zeros_like(b.name)), "lost the surface"),
        (lambda b: replace(b, points=b.points * np.nan), "gave no mesh"),
    ],
)
def test_a_broken_mesh_is_refused(heart: HeartMesh, change: Any, words: str) -> None:
    with pytest.raises(RunFailed, match=words):
        of(change)(Body.of(heart.points_mm, heart.tets, heart.surfaces), EDGE_MM)


def test_what_goes_wrong_in_the_other_process_is_one_line(heart: HeartMesh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    body = Body.of(heart.points_mm, heart.tets, heart.surfaces)
    for text, words in (
        ("raise OSError('no such\\nlibrary')", "mmg failed: library"),
        ("import os; os.abort()", "mmg failed: it ended with status -6"),
    ):
        (tmp_path / "mmgpy.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(RunFailed, match=words):
            OPTIMISERS["mmg"].improve(body, EDGE_MM)


def test_what_is_missing_is_one_line_with_its_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nrrd(tmp_path / "labels.nrrd", Ventricles().volume(3.0))
    for name, licence in (("mmg", "LGPL-3.0"), ("tetgen", "AGPL-3.0"), ("gmsh", "GPL-2.0")):
        # None stands for a package that cannot be imported, whether or not it is installed here
        monkeypatch.setitem(sys.modules, OPTIMISERS[name].package, None)
        assert run(["mesh", str(tmp_path / "labels.nrrd"), "-o", str(tmp_path / "out"), "--optimise", name]) == 2
        error = capsys.readouterr().err
        assert f"{name} is not installed; pip install {OPTIMISERS[name].package}" in error
        assert licence in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="'mmgs' is not known"):
        optimiser_named("mmgs")


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_installed_optimisers(name: str, heart: HeartMesh, tmp_path: Path) -> None:
    if importlib.util.find_spec(OPTIMISERS[name].package) is None:
        pytest.skip(f"{OPTIMISERS[name].package} is not installed ({OPTIMISERS[name].licence}): nothing of vtwin needs it")
    found = OPTIMISERS[name](Body.of(heart.points_mm, heart.tets, heart.surfaces), EDGE_MM)
    assert tet_volumes(found.points, found.tets).sum() == pytest.approx(heart.tet_volumes_mm3.sum(), rel=2e-3)
    again = OPTIMISERS[name](Body.of(heart.points_mm, heart.tets, heart.surfaces), EDGE_MM)
    np.testing.assert_array_equal(again.points, found.points)
    np.testing.assert_array_equal(again.tets, found.tets)
    for one, triangles in found.surfaces().items():
        a, b = (_area(points, t) for points, t in ((found.points, triangles), (heart.points_mm, heart.surfaces[one])))
        assert a == pytest.approx(b, rel=0.02)
    write_nrrd(tmp_path / "labels.nrrd", Ventricles().volume(2.0, scar=True))
    assert run(["mesh", str(tmp_path / "labels.nrrd"), "-o", str(tmp_path / "out"), "--edge", "2.5 mm", "--optimise", name]) == 0
    quality = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert quality["optimiser"]["licence"] == OPTIMISERS[name].licence
    assert {one["gate"] for one in quality["misses"]} <= {one["gate"] for one in heart.quality["misses"]}
    # Delaunay refinement promises no angle: TetGen's mesh is measured and, here, not taken
    assert quality["optimiser"]["used"] is (name != "tetgen")
    if quality["optimiser"]["used"]:
        assert quality["dihedral_p1_deg"] > quality["optimiser"]["mesh_before"]["dihedral_p1_deg"] + 1.0
    said = json.loads((tmp_path / "out" / "run.json").read_text())
    assert said["settings"]["optimiser"]["name"] == name


def _area(points: np.ndarray, triangles: np.ndarray) -> float:
    p = points[triangles]
    return float(0.5 * np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1).sum())
