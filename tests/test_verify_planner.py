"""The ten virtual hearts and the record that the planner leaves on them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from planners.app.checks import BENCH, VERIFY
from planners.pacing import load_protocol
from planners.verify_planner import HeartRecord, append_result, assess, exhaustive, read_results, records_of, table
from planners.virtual.anatomy import labels
from planners.virtual.infarct import InfarctSpec, add_infarct
from planners.virtual.ten import HEARTS
from twin.volume import LABELS


@pytest.fixture(scope="module")
def heart():
    from planners.virtual.anatomy import Anatomy

    return labels(Anatomy(), 2.5)


def test_there_are_ten_hearts_of_different_scar_and_the_rooms_are_known():
    assert len(HEARTS) == 10
    assert len({repr(h.infarct) for h in HEARTS.values()}) == 10
    assert sum(h.inducible is False for h in HEARTS.values()) == 1
    assert VERIFY["planner"] == "planners.verify_planner"
    assert BENCH["plan"] == "planners.bench_plan"


def test_intramural_scar_spares_both_surfaces(heart):
    volume, _ = add_infarct(heart, InfarctSpec(transmurality=0.7, spared_endo=0.3, isthmuses=(), rim_mm=0.5))
    scar = volume.mask("scar")
    assert scar.any()
    outside = volume.data == LABELS["lv_blood"]
    touching = np.zeros_like(scar)
    for axis in range(3):
        for step in (-1, 1):
            touching |= scar & np.roll(outside, step, axis)
    assert touching.sum() < 0.02 * scar.sum()


def test_patches_survive_in_the_asked_share(heart):
    whole = add_infarct(heart, InfarctSpec(isthmuses=()))[0].volume_ml("scar")
    part = add_infarct(heart, InfarctSpec(isthmuses=(), patchy=0.35))[0].volume_ml("scar")
    assert part == pytest.approx(0.65 * whole, rel=0.03)


def test_scar_reaches_into_the_rv_as_far_as_asked(heart):
    from scipy.ndimage import distance_transform_edt

    spec = InfarctSpec(theta_deg=-75.0, isthmuses=())
    lv_only = add_infarct(heart, spec)[0]
    both = add_infarct(heart, dataclasses.replace(spec, rv_reach_mm=8.0))[0]
    new = both.mask("scar") & ~lv_only.mask("scar")
    assert new.any()
    assert (heart.data[new] == LABELS["rv_myocardium"]).all()
    assert distance_transform_edt(~lv_only.mask("scar"), sampling=heart.spacing_mm)[new].max() < 8.0


def test_the_exhaustive_protocol_holds_every_interval_of_the_quick_one():
    quick = load_protocol("quick")
    fine = exhaustive(quick)
    assert len(fine.sites) == 19
    assert set(quick.sites) <= set(fine.sites)
    for mine, other in zip(quick.extras, fine.extras, strict=True):
        assert other.step_ms == mine.step_ms / 2
        assert set(mine.intervals_ms(600.0)) <= set(other.intervals_ms(600.0))


def some(name: str, **values) -> HeartRecord:
    from planners.verify_planner import _key

    return HeartRecord(name, HEARTS[name].what, 100, **{"key": _key(name), **values})


def test_results_are_kept_line_by_line_and_torn_or_old_lines_do_not_count(tmp_path):
    path = tmp_path / "kept" / "results.jsonl"
    append_result(path, some("septal", found=["a"]))
    append_result(path, some("no_vt", key="of another mesh"))
    append_result(path, some("septal", found=["a", "b"]))
    with open(path, "a", encoding="utf-8") as handle:
        handle.write('{"heart": "patchy", "wha')
    kept = read_results(path)
    assert list(kept) == ["septal"]
    assert kept["septal"].found == ["a", "b"]
    assert read_results(tmp_path / "none.jsonl") == {}


def test_goals_are_counted_over_the_hearts():
    good = some(
        "septal", found=["a"] * 19, missed=["b"], lesions=3, volume_ml=0.5, homogenisation_ml=2.0, confirmed={"VT1": "sustained, 300 ms"}
    )
    bad = some("no_vt", extra=["c"], left=["d"], lesions=9, volume_ml=1.5, homogenisation_ml=2.0, confirmed={"VT1": "not sustained (died)"})
    by = {r["name"]: r for r in records_of([good])}
    assert by["planner/vts_found"]["value"] == pytest.approx(0.95)
    assert all(r["passed"] for r in by.values())
    by = {r["name"]: r for r in records_of([good, bad])}
    assert not by["planner/vts_not_in_exhaustive"]["passed"]
    assert (by["planner/hearts_left_without_vt"]["value"], by["planner/hearts_left_without_vt"]["passed"]) == (0.5, False)
    assert by["planner/volume_over_homogenisation"]["value"] == pytest.approx(0.75)
    assert by["planner/refuted_by_monodomain"]["value"] == 1.0
    assert not by["planner/no_vt/induced"]["passed"]
    text = table({"septal": good, "no_vt": bad})
    assert "- septal, missed: b" in text
    assert "- no_vt, left: d" in text


@pytest.mark.slow
def test_a_heart_with_two_isthmuses_is_planned_and_searched():
    record = assess("two_isthmuses")
    assert record.found
    assert record.isthmuses_missed == 0
    assert not record.left
    assert record.volume_ml <= 0.5 * record.homogenisation_ml
