"""Fusion of the substrate: likelihoods at published cut-offs, missing sources, places where sources contradict one another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from meshing.anatomy import complete
from planners.calibration import substrate as gathered
from tests.analytic_hearts import ventricles
from twin.calibrate.substrate import CLASSES, WEIGHT, Fused, from_enhancement, from_labels, from_voltage, fuse, likelihood, slowing
from twin.mesh import HeartMesh


@pytest.fixture(scope="module")
def heart() -> HeartMesh:
    """Both ventricles at 3.5 mm with scar in the lateral wall and a border zone round it."""
    mesh = complete(ventricles(3.5))
    lv = mesh.surface_nodes("lv_endo")
    middle = mesh.points_mm[
        lv[np.argmin(np.abs(mesh.coordinates["rotational"][lv] - 3.0) + np.abs(mesh.coordinates["apicobasal"][lv] - 0.5))]
    ]
    away = np.linalg.norm(mesh.centroids_mm - middle, axis=1)
    left = mesh.coordinates["transventricular"][mesh.tets].mean(axis=1) < 0.5
    return mesh.with_region((away < 22.0) & left, "border_zone").with_region((away < 15.0) & left, "scar")


def _map(mesh: HeartMesh, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    lv = mesh.surface_nodes("lv_endo")
    centre = mesh.centroids_mm
    from scipy.spatial import cKDTree

    near = cKDTree(centre).query(mesh.points_mm[lv])[1]
    group = np.select([mesh.in_region("scar"), mesh.in_region("border_zone")], [2, 1], 0)[near]
    return mesh.points_mm[lv], np.exp(np.log([3.8, 0.9, 0.22])[group] + 0.3 * rng.standard_normal(len(lv)))


def test_cut_offs_part_the_tissues() -> None:
    rows = likelihood("bipolar", np.array([0.05, 0.5, 0.87, 1.5, 9.0]))
    assert rows.sum(axis=1) == pytest.approx(1.0)
    assert rows.argmax(axis=1)[[0, 2, 4]].tolist() == [2, 1, 0]
    assert rows[1, 1] == pytest.approx(rows[1, 2], rel=1e-6)
    assert rows[3, 0] == pytest.approx(rows[3, 1], rel=1e-6)
    unipolar = likelihood("unipolar", np.array([3.0, 15.0]))
    assert (unipolar[0].argmax(), unipolar[1].argmax()) == (2, 0)
    wall = likelihood("thickness", np.array([2.0, 4.2, 9.5]), 9.0)
    assert wall.argmax(axis=1).tolist() == [2, 1, 0]
    bright = from_enhancement(np.array([100.0, 450.0, 900.0]), (100.0, 20.0, 1000.0))
    assert bright.argmax(axis=1).tolist() == [0, 1, 2]
    assert from_enhancement(np.array([130.0]), (100.0, 20.0, 150.0)).argmax() == 0, "nothing enhances: no scar"


def test_a_missing_source_changes_nothing(heart: HeartMesh) -> None:
    labels = {"labels": from_labels(heart)}
    alone = fuse(heart, labels)
    none = np.full((len(heart.tets), 3), np.nan)
    both = fuse(heart, labels | {"bipolar": none})
    assert both.probability == pytest.approx(alone.probability)
    assert np.isnan(both.disagreement()).all()
    nothing = fuse(heart, {})
    assert (nothing.regions(heart).region == heart.region).all()


def test_fusion_beats_every_source_alone(heart: HeartMesh) -> None:
    rng = np.random.default_rng(3)
    truth = np.select([heart.in_region("scar"), heart.in_region("border_zone")], [2, 1], 0)
    points, mv = _map(heart, rng)
    drawn = heart
    # a reader who missed a third of the scar
    missed = (heart.region != 1) & (heart.centroids_mm[:, 2] > np.quantile(heart.centroids_mm[heart.in_region("scar"), 2], 0.66))
    drawn = drawn.with_region(missed, "healthy")
    image = np.array([100.0, 450.0, 850.0])[truth] + 120.0 * rng.standard_normal(len(truth))
    sources = {
        "labels": from_labels(drawn),
        "bipolar": from_voltage(drawn, "bipolar", points, mv),
        "enhancement": from_enhancement(image, (100.0, 120.0, 950.0)),
    }
    fused = fuse(drawn, sources)
    wall, volume = fused.wall, heart.tet_volumes_mm3

    def score(p: np.ndarray) -> float:
        seen = wall & np.isfinite(p[:, 0])
        chosen = np.log(np.maximum(p[seen, truth[seen]], 1e-6))
        return float(np.average(chosen, weights=volume[seen]))

    assert all(score(fused.probability) > score(p) for p in sources.values())
    there = missed & wall & (truth == 2)
    assert np.nanmean(fused.disagreement()[there]) > 0.5
    assert np.nanmean(fused.disagreement()[wall & (truth == 0) & ~missed]) < 0.35
    mended = fused.regions(drawn)
    assert (mended.in_region("scar", "border_zone") & there).sum() > 0.6 * there.sum()
    rows = fused.by_segment(heart)
    assert set(rows["1"]) == {*sources, "fused", "disagreement"}
    assert set(WEIGHT) >= set(sources)
    assert len(CLASSES) == 3


def test_the_right_ventricle_keeps_what_was_drawn(heart: HeartMesh) -> None:
    points, mv = _map(heart, np.random.default_rng(1))
    fused = fuse(heart, {"bipolar": from_voltage(heart, "bipolar", points, np.full_like(mv, 0.1))})
    right = heart.coordinates["transventricular"][heart.tets].mean(axis=1) >= 0.5
    assert (fused.classes()[right] == 0).all()


def test_fused_substrate_is_the_same_after_saving(heart: HeartMesh, tmp_path: Path) -> None:
    points, mv = _map(heart, np.random.default_rng(1))
    fused = fuse(heart, {"labels": from_labels(heart), "bipolar": from_voltage(heart, "bipolar", points, mv)})
    gathered.save(fused, heart, tmp_path)
    back = gathered.load(tmp_path)
    assert isinstance(back, Fused)
    # a resumed plan names the sources in the same order
    assert list(back.sources) == list(fused.sources)
    assert back.probability == pytest.approx(fused.probability)
    assert (tmp_path / "substrate.png").read_bytes().startswith(b"\x89PNG")
    said = gathered.summary(fused, heart, used=False)
    assert said["sources"]["fused"]["scar_ml"] > 0.5
    assert gathered.statements(replace_used(said))[0].startswith("Regions are fused")


def replace_used(said: dict[str, object]) -> dict[str, object]:
    """The summary of a plan that used the fused regions."""
    return said | {"used_for_regions": True}


def test_conduction_slows_with_enhancement() -> None:
    value, low, high = slowing(0.5)
    assert value == pytest.approx(1.34**-2)
    assert low < value < high
    assert slowing(0.0) == (1.0, 1.0, 1.0)


def test_drawn_isthmus_survives_where_the_sources_see_scar(heart: HeartMesh) -> None:
    corridor = heart.in_region("scar") & (np.abs(heart.centroids_mm[:, 0] - heart.centroids_mm[heart.in_region("scar"), 0].mean()) < 4.0)
    with_isthmus = replace(heart.with_region(corridor, "isthmus"))
    points, mv = _map(heart, np.random.default_rng(2))
    fused = fuse(with_isthmus, {"bipolar": from_voltage(heart, "bipolar", points, mv)})
    kept = fused.regions(with_isthmus).in_region("isthmus")
    assert kept[corridor & (fused.classes() > 0)].all()
