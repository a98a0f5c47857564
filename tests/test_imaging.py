"""Late enhancement, channels, wall thickness, volumes and their way into a case, on phantoms whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from meshing.phantom import Ventricles, sphere_shell
from planners.app.cli import run
from planners.app.evidence import gather
from planners.app.substrate import with_substrate
from planners.virtual.late_enhancement import ScanSpec, scan, write_scan
from planners.virtual.verify_imaging import thinned
from twin.case import load_case
from twin.errors import InputError
from twin.image import CineSlice, CineStack, Image
from twin.imaging.channels import conducting_channels
from twin.imaging.lge import BAND, DEFAULT, METHODS, Enhancement, classify
from twin.imaging.normalise import on_labels
from twin.imaging.quantify import quantify
from twin.imaging.thickness import wall_thickness
from twin.imaging.volumes import beat_of_cine, beat_of_labels, cavity_ml
from twin.io.nrrd import write_nrrd
from twin.patient import Evidence, Patient
from twin.volume import LABELS, LabelVolume


@cache
def truth() -> LabelVolume:
    return Ventricles(0.8, scar_mm=25.0, isthmus_mm=6.0).volume(1.25, scar=True)


@cache
def scanned(noise: float = 15.0) -> tuple[Image, LabelVolume]:
    return scan(truth(), np.eye(3), ScanSpec(1.25, 1.25, noise=noise))


@cache
def found() -> Enhancement:
    return classify(*scanned())


def undrawn(volume: LabelVolume) -> LabelVolume:
    scar = volume.mask("scar", "border_zone", "isthmus")
    return replace(volume, data=np.where(scar, LABELS["lv_myocardium"], volume.data).astype(np.uint8))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def test_levels_are_those_of_the_scan() -> None:
    levels = found().levels
    assert levels.remote == pytest.approx(61.5, abs=4.0)  # Rician noise of SD 15 lifts 60 to 62
    assert levels.remote_sd == pytest.approx(15.0, rel=0.15)
    assert levels.blood == pytest.approx(260.0, rel=0.04)
    # one voxel's noise does not set the maximum
    assert abs(levels.maximum - 400.0) < 0.5 * abs(levels.plain_maximum - 400.0)
    assert levels.normalised(np.array([levels.remote, levels.blood])) == pytest.approx([0.0, 1.0])


def test_rules_find_the_scar_and_disagree_as_they_are_known_to() -> None:
    labels, one = scanned()[1], found()
    core, both = labels.mask("scar"), labels.mask("scar", "border_zone", "isthmus")
    assert dice(one.methods[DEFAULT].core, core) > 0.95
    assert dice(one.methods[DEFAULT].enhanced, both) > 0.95
    assert dice(one.methods["5sd"].enhanced, both) > 0.95
    size = {name: int(m.enhanced.sum()) for name, m in one.methods.items()}
    assert size["2sd"] > size["3sd"] > size["5sd"] >= size["6sd"] > size["fwhm"]
    assert size["35/65"] >= size["40/60"] >= size["45/55"]
    matrix = one.dice()
    assert matrix["2sd"]["fwhm"] == matrix["fwhm"]["2sd"] < 0.9
    assert all(matrix[name][name] == 1.0 for name in METHODS)


def test_scale_and_grid_of_the_image_do_not_matter() -> None:
    image, labels = scanned()
    again = classify(replace(image, data=3.0 * image.data), labels)
    assert np.array_equal(again.methods[DEFAULT].core, found().methods[DEFAULT].core)
    affine = image.affine.copy()
    affine[:3, 3] = image.affine[:3] @ [image.data.shape[0] - 1.0, 0, 0, 1]
    affine[:3, 0] *= -1.0
    flipped = replace(image, data=image.data[::-1], affine=affine)
    np.testing.assert_allclose(on_labels(flipped, labels), image.data, atol=1e-2)


def test_the_users_remote_wins_and_a_heart_without_scar_has_none() -> None:
    image, labels = scanned()
    mask = labels.mask("lv_myocardium") & (np.arange(labels.data.shape[0])[:, None, None] < labels.data.shape[0] // 2)
    assert classify(image, labels, mask).levels.how == "given by the user"
    healthy, plain = scan(undrawn(truth()), np.eye(3), ScanSpec(1.25, 1.25))
    none = classify(healthy, plain)
    assert not any(none.methods[name].enhanced.any() for name in (*BAND, "fwhm", "gray_zone"))


def test_an_image_elsewhere_is_refused() -> None:
    image, labels = scanned()
    affine = image.affine.copy()
    affine[:3, 3] += 500.0
    with pytest.raises(InputError, match="shows 0 % of the LV wall"):
        classify(replace(image, affine=affine), labels)


def test_probabilities_follow_the_thresholds() -> None:
    core, border = found().probabilities()
    assert ((core >= 0) & (border >= -1e-6) & (core + border <= 1 + 1e-6)).all()
    labels = scanned()[1]
    assert core[labels.mask("scar")].mean() > 0.9
    assert border[labels.mask("border_zone", "isthmus")].mean() > 0.7
    assert (core + border)[labels.mask("lv_myocardium")].mean() < 0.05


def test_the_report_is_json_and_has_transmurality() -> None:
    report = quantify(found())
    json.dumps(report, allow_nan=False)
    assert report["band"]["core_g"][0] <= report["methods"][DEFAULT]["core_g"] <= report["band"]["core_g"][1]
    hit = {s for s, row in report["segments"].items() if row["share"] > 0.5}
    assert hit
    assert hit <= {"5", "6", "11", "12", "16"}, "the scar is lateral"
    assert all(report["segments"][s]["extent_where_enhanced"] > 0.7 for s in hit), "and goes through the wall"
    assert report["entropy_bits"]["border_zone"] > 2.0


def test_the_isthmus_is_found_as_a_channel_with_its_width() -> None:
    for volume in (truth(), found().labels()):
        channels = conducting_channels(volume)
        assert channels[0].typical_mm == pytest.approx(0.8 * 6.0, abs=1.25)
        first, last = channels[0].polyline_mm[0], channels[0].polyline_mm[-1]
        ends = volume.data[tuple(np.rint(volume.to_ijk(np.stack([first, last]))).astype(int).T)]
        assert set(ends) == {LABELS["lv_myocardium"]}
    assert conducting_channels(undrawn(truth())) == []


def test_a_scar_without_isthmus_has_no_channel() -> None:
    volume = truth()
    closed = replace(volume, data=np.where(volume.mask("isthmus"), LABELS["scar"], volume.data).astype(np.uint8))
    assert conducting_channels(closed) == []


def test_thickness_of_a_shell() -> None:
    for inner, outer in ((12.0, 20.0), (12.0, 15.0)):
        thick = wall_thickness(sphere_shell(inner, outer, 1.0))
        mm = thick.mm[thick.wall]
        assert np.isfinite(mm).all()
        assert mm.mean() == pytest.approx(outer - inner, abs=0.1)
        assert np.percentile(np.abs(mm - (outer - inner)), 95) < 0.2
        # depth runs from the cavity outwards
        radius = np.linalg.norm(thick.volume.to_mm(np.argwhere(thick.wall).astype(float)), axis=1)
        assert np.abs(thick.depth[thick.wall] - (radius - inner) / (outer - inner)).max() < 0.2


def test_a_ridge_between_thin_walls_is_followed() -> None:
    thick = wall_thickness(thinned(6.0, 1.0))
    (ridge,) = thick.ridges()
    assert ridge.typical_mm == pytest.approx(6.0, abs=1.25)
    assert ridge.length_mm == pytest.approx(36.0, abs=5.0)
    middle = ridge.polyline_mm[ridge.inside[0] : ridge.inside[1] + 1]
    assert np.median(thick.along(middle)) == pytest.approx(4.4, abs=0.4)


def cylinder(radius_mm: float) -> tuple[np.ndarray, np.ndarray, LabelVolume]:
    """Bright disc in a wall over five slices of 8 mm: intensities, labels."""
    x = 1.5 * (np.arange(64) - 31.5)
    r = np.hypot(x[:, None], x)
    grey = np.clip(radius_mm + 0.75 - r, 0.0, 1.5) / 1.5 * 200.0 + np.where(r < 34.0, 100.0, 60.0)
    labels = np.where(r < radius_mm, LABELS["lv_blood"], np.where(r < 34.0, LABELS["myocardium"], 0)).astype(np.uint8)
    return r, grey, LabelVolume(np.repeat(labels[:, :, None], 5, axis=2), np.diag([1.5, 1.5, 8.0, 1.0]))


def test_ejection_fraction_from_labels_and_from_a_cine_with_unlike_heart_rates() -> None:
    volume = cylinder(24.0)[2]
    slices = []
    for rr in (700.0, 1000.0, 850.0, 920.0, 760.0):
        times = np.arange(20) * rr / 20
        frames = np.stack([cylinder(24.0 - 8.0 * np.sin(np.pi * t / rr))[1] for t in times], axis=-1)
        slices.append(CineSlice(frames, times, rr))
    beat = beat_of_cine(CineStack(tuple(slices), volume.affine, "MR", 8.0), volume)
    assert beat.ejection_fraction == pytest.approx(1.0 - (16.0 / 24.0) ** 2, abs=0.02)
    assert beat.end_diastolic_ml == pytest.approx(np.pi * 24.0**2 * 40.0 / 1000.0, rel=0.02)
    assert beat.phase[np.argmin(beat.volume_ml)] == pytest.approx(0.5, abs=0.05)
    drawn = beat_of_labels([(0.0, volume), (0.4, cylinder(16.0)[2])])
    assert drawn.ejection_fraction == pytest.approx(1.0 - (16.0 / 24.0) ** 2, abs=0.01)


def test_partial_volume_corrects_contours_drawn_too_wide() -> None:
    grey, volume = cylinder(24.0)[1], cylinder(25.2)[2]
    image = Image(np.repeat(grey[:, :, None], 5, axis=2), volume.affine)
    exact = np.pi * 24.0**2 * 40.0 / 1000.0
    assert volume.volume_ml("lv_blood") > 1.08 * exact
    assert cavity_ml(volume, image) == pytest.approx(exact, rel=0.015)


def patient(labels: LabelVolume, **images: Evidence[Image]) -> Patient:
    return Patient("x", Evidence(labels, "labels.nrrd"), **images)  # type: ignore[arg-type]


def test_labels_win_and_the_image_fills_in() -> None:
    image, labels = scanned()
    lge = Evidence(image, "lge.nrrd")
    kept, said = with_substrate(patient(labels, lge=lge))
    assert kept.labels.value is labels
    assert "scar is as drawn" in said[0]
    assert "Dice of 0.9" in said[0]
    filled, said = with_substrate(patient(undrawn(labels), lge=lge))
    assert dice(filled.labels.value.mask("scar"), labels.mask("scar")) > 0.95
    assert "fractions 40/60" in said[0]
    assert "35/65" in said[1]
    assert filled.labels.quality == "scar from lge.nrrd"


def test_thin_wall_in_ct_stands_in_for_scar() -> None:
    volume = thinned(6.0, 1.5)
    ct = Evidence(Image(np.zeros(volume.data.shape, np.float32), volume.affine, "CT"), "ct.nrrd")
    filled, said = with_substrate(patient(volume, ct=ct))
    assert filled.labels.value.mask("scar").any()
    assert filled.labels.value.mask("border_zone").any()
    assert "thickness is a stand-in for scar" in said[0]
    thick, said = with_substrate(patient(sphere_shell(), ct=ct))
    assert not thick.labels.value.mask("scar").any()
    assert "no scar is assumed" in said[0]


def test_the_command_and_the_case_from_end_to_end(tmp_path: Path) -> None:
    image, labels = scanned()
    write_scan(tmp_path / "lge.nrrd", image)
    write_nrrd(tmp_path / "labels.nrrd", undrawn(labels))
    case = tmp_path / "case.toml"
    case.write_text('[segmentation]\nfile = "labels.nrrd"\n[evidence]\nlge = "lge.nrrd"\n')
    assert run(["image", str(case), "-o", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "image.json").read_text())
    assert report["scar_labels"] == "late enhancement, 40/60"
    assert len(report["channels"]) == 1
    assert (tmp_path / "out" / "image.png").read_bytes().startswith(b"\x89PNG")
    gathered = gather(load_case(case), tmp_path / "stages", lambda line: None)
    assert dice(gathered.labels.value.mask("scar"), labels.mask("scar")) > 0.95
    assert any("scar and border zone come from late enhancement" in line for line in gathered.notes)
    assert run(["image", str(tmp_path / "labels.nrrd"), "-o", str(tmp_path / "bad"), "--method", "4sd"]) == 2
