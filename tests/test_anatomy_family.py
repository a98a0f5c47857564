"""The family of parametric hearts: plausible, varied, reproducible, and built as asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from meshing.mesh_labels import mesh_heart
from planners.virtual.anatomy import Anatomy, labels
from planners.virtual.family import GROUPS, draw_anatomy, implausible, lv_mass_g
from planners.virtual.statistics import LV_EDV_ML, LV_MASS_G, MUSCLE_G_PER_ML, RV_BELOW_BASE, RV_EDV_ML
from twin.errors import RunFailed


def test_draws_are_plausible_varied_and_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(11)
    hearts = [draw_anatomy(rng) for _ in range(80)]
    assert all(not implausible(heart) for heart in hearts)
    for sex in ("male", "female"):
        mine = [heart for heart in hearts if heart.sex == sex]
        assert len(mine) > 25
        assert np.mean([h.lv_edv_ml for h in mine]) == pytest.approx(LV_EDV_ML[sex].value, rel=0.08)
        assert np.mean([h.rv_edv_ml for h in mine]) == pytest.approx(RV_EDV_ML[sex].value, rel=0.08)
        assert 0.08 < np.std([h.lv_edv_ml for h in mine]) / LV_EDV_ML[sex].value < 0.25
    # large left ventricles come with large right ones
    assert np.corrcoef([h.lv_edv_ml for h in hearts], [h.rv_edv_ml for h in hearts])[0, 1] > 0.4
    again = np.random.default_rng(11)
    assert [draw_anatomy(again) for _ in range(3)] == hearts[:3]


def test_groups_differ_as_they_should() -> None:
    drawn = {g: [draw_anatomy(np.random.default_rng(100 + i), "male", g) for i in range(24)] for g in GROUPS}
    mean = {
        g: np.mean([[h.lv_edv_ml, h.sphericity, h.wall_mm[8] / h.wall_mm[11], lv_mass_g(h)] for h in hs], axis=0) for g, hs in drawn.items()
    }
    assert mean["dilated"][0] > 1.25 * mean["healthy"][0]
    assert mean["dilated"][1] > 1.15 * mean["healthy"][1]
    assert mean["hypertrophic"][2] > 1.08 * mean["healthy"][2]
    assert mean["hypertrophic"][3] > 1.1 * mean["healthy"][3]
    assert LV_MASS_G["male"].contains(mean["healthy"][3])
    with pytest.raises(KeyError):
        draw_anatomy(np.random.default_rng(0), "male", "unknown")


def test_implausible_hearts_are_named() -> None:
    assert implausible(Anatomy()) == []
    assert "LV volume" in implausible(replace(Anatomy(), lv_edv_ml=400.0))[0]
    assert "RV over LV" in implausible(replace(Anatomy(), lv_edv_ml=105.0, rv_edv_ml=250.0))[0]
    assert "segment 17" in implausible(replace(Anatomy(), wall_mm={**Anatomy().wall_mm, 17: 0.5}))[0]
    thin = {k: 0.6 * v for k, v in Anatomy().wall_mm.items()}
    assert "LV mass" in implausible(replace(Anatomy(), wall_mm=thin, lv_edv_ml=103.0, rv_edv_ml=130.0))[0]


def test_ranges_that_contradict_each_other_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planners.virtual.family.implausible", lambda anatomy: ["never"])
    with pytest.raises(RunFailed, match="200 draws"):
        draw_anatomy(np.random.default_rng(0), "male")


@pytest.mark.parametrize("group", ["dilated", *(pytest.param(g, marks=pytest.mark.slow) for g in GROUPS if g != "dilated")])
def test_drawn_hearts_are_built_as_asked_and_mesh(group: str) -> None:
    anatomy = draw_anatomy(np.random.default_rng(7), "female", group)
    volume = labels(anatomy, spacing_mm=2.0)
    assert volume.volume_ml("lv_blood") == pytest.approx(anatomy.lv_edv_ml, rel=0.02)
    assert volume.volume_ml("rv_blood") == pytest.approx(anatomy.rv_edv_ml * RV_BELOW_BASE.value, rel=0.03)
    assert volume.volume_ml("lv_myocardium") * MUSCLE_G_PER_ML.value == pytest.approx(lv_mass_g(anatomy), rel=0.08)
    if group != "dilated":
        return
    mesh = mesh_heart(volume, 2.8)
    assert (mesh.quality["surface_genus"], mesh.quality["surface_components"]) == (0, 1)
    assert mesh.quality["dihedral_min_deg"] > 15.0


@pytest.mark.slow
def test_the_rv_reaches_and_wraps_as_asked() -> None:
    def extent(anatomy: Anatomy) -> tuple[float, float]:
        volume = labels(anatomy, spacing_mm=3.0)
        heart = anatomy.to_heart(volume.to_mm(np.argwhere(volume.mask("rv_blood")).astype(float)))
        top = heart[heart[:, 2] < 15.0]
        return float(heart[:, 2].max() / anatomy.length_mm), float(np.ptp(np.degrees(np.arctan2(top[:, 1], top[:, 0]))))

    short, long = extent(replace(Anatomy(), rv_reach=0.82)), extent(replace(Anatomy(), rv_reach=0.98))
    assert short[0] < 0.82
    assert long[0] - short[0] > 0.08
    assert extent(replace(Anatomy(), rv_span_deg=172.0))[1] > extent(replace(Anatomy(), rv_span_deg=143.0))[1] + 15.0
