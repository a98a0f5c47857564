"""Virtual patients: the asked anatomy comes out, the truth fits the labels, the same recipe gives the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from meshing.mesh_labels import mesh_heart
from planners.virtual.anatomy import Anatomy, labels
from planners.virtual.infarct import InfarctSpec, IsthmusSpec, add_infarct, heart_axes
from planners.virtual.measure import Activated, MeasureSpec, activate, endocardial_map
from planners.virtual.recipe import make_labels, read_recipe
from planners.virtual.statistics import LV_EDV_ML, LV_WALL_MM, RV_BELOW_BASE, RV_EDV_ML, TERRITORIES
from twin.errors import InputError
from twin.io.nrrd import read_nrrd, write_nrrd
from twin.volume import WALL, LabelVolume

CASES = Path(__file__).parents[1] / "cases"
SCARRED = ("demo", "two_isthmuses")


def truth_of(case: str) -> dict:
    return json.loads((CASES / case / "truth.json").read_text())


@pytest.fixture(scope="module")
def hearts() -> dict[str, LabelVolume]:
    return {case: read_nrrd(CASES / case / "labels.nrrd") for case in (*SCARRED, "no_scar")}


@pytest.fixture(scope="module")
def beat(hearts: dict[str, LabelVolume]) -> Activated:
    return activate(hearts["two_isthmuses"], MeasureSpec(edge_mm=2.8))


@pytest.mark.parametrize("seed", [1, 2])
def test_sampled_hearts_have_the_asked_volumes_within_published_ranges(seed: int) -> None:
    sex = "female" if seed == 1 else "male"
    anatomy = Anatomy.sample(np.random.default_rng(seed), sex)
    volume = labels(anatomy, spacing_mm=2.0)
    assert LV_EDV_ML[sex].contains(anatomy.lv_edv_ml)
    assert RV_EDV_ML[sex].contains(anatomy.rv_edv_ml)
    assert volume.volume_ml("lv_blood") == pytest.approx(anatomy.lv_edv_ml, rel=0.02)
    assert volume.volume_ml("rv_blood") == pytest.approx(anatomy.rv_edv_ml * RV_BELOW_BASE.value, rel=0.02)
    assert np.array_equal(volume.data, labels(Anatomy.sample(np.random.default_rng(seed), sex), spacing_mm=2.0).data)


@pytest.mark.parametrize("case", [*SCARRED, "no_scar"])
def test_heart_is_one_piece_and_right_handed(hearts: dict[str, LabelVolume], case: str) -> None:
    volume = hearts[case]
    for names in (WALL, ("lv_blood",), ("rv_blood",)):
        assert ndimage.label(volume.mask(*names))[1] == 1
    assert np.linalg.det(volume.affine[:3, :3]) > 0
    border = volume.data.copy()
    border[1:-1, 1:-1, 1:-1] = 0
    assert not border.any()
    # nowhere do the two cavities, or a cavity and the outside, touch but at the flat base
    assert not (ndimage.binary_dilation(volume.mask("lv_blood")) & volume.mask("rv_blood")).any()
    recipe = read_recipe(CASES / case / "recipe.toml")
    blood, outside = volume.mask("lv_blood", "rv_blood"), ndimage.binary_dilation(volume.data == 0)
    open_mm = volume.to_mm(np.argwhere(blood & outside).astype(float))
    assert recipe.anatomy.to_heart(open_mm)[:, 2].max() < 1.0


@pytest.mark.parametrize("case", ["demo", "no_scar"])
def test_wall_is_as_thick_as_asked_in_every_segment(hearts: dict[str, LabelVolume], case: str) -> None:
    volume, anatomy = hearts[case], read_recipe(CASES / case / "recipe.toml").anatomy
    wall = volume.mask("lv_myocardium", "scar", "border_zone")
    index = np.argwhere(np.ones(volume.data.shape, bool))
    below = (anatomy.to_heart(volume.to_mm(index.astype(float)))[:, 2] > 0).reshape(wall.shape)
    blood = volume.mask("lv_blood")
    to_endo, to_epi = (ndimage.distance_transform_edt(~m)[wall] - 0.5 for m in (blood, ~wall & ~blood & below))
    s, a, h = anatomy.to_heart(volume.to_mm(np.argwhere(wall).astype(float))).T
    middle = np.abs(to_endo - to_epi) <= 1.0
    angle, depth, thick = np.degrees(np.arctan2(a, s))[middle], (h / anatomy.length_mm)[middle], (to_endo + to_epi)[middle]
    centres = {**dict(zip(range(1, 7), (90, 30, -30, -90, -150, 150))), **dict(zip(range(7, 13), (90, 30, -30, -90, -150, 150)))}
    centres |= dict(zip(range(13, 17), (90, 0, -90, 180)))
    for segment, centre in centres.items():
        level = (1 / 6, 1 / 2, 5 / 6)[(segment > 6) + (segment > 12)]
        near = (np.abs((angle - centre + 180) % 360 - 180) < 15) & (np.abs(depth - level) < 0.08)
        assert near.sum() > 20
        assert thick[near].mean() == pytest.approx(anatomy.wall_mm[segment], abs=1.0), segment


def test_usual_thickness_agrees_with_the_mean_that_was_read() -> None:
    mid = {sex: np.mean([LV_WALL_MM[sex][k].value for k in range(7, 13)]) for sex in ("male", "female")}
    assert mid["male"] == pytest.approx(6.3, abs=0.1)
    assert mid["female"] == pytest.approx(5.3, abs=0.1)


@pytest.mark.parametrize("case", SCARRED)
def test_scar_has_the_asked_size_and_territory(hearts: dict[str, LabelVolume], case: str) -> None:
    truth, recipe = truth_of(case), read_recipe(CASES / case / "recipe.toml")
    spec, anatomy = recipe.infarct, recipe.anatomy
    assert spec is not None
    infarct = truth["infarct"]
    assert hearts[case].volume_ml("scar") == pytest.approx(infarct["scar_ml"], abs=1e-6)
    share = {int(k): v for k, v in infarct["scar_share_of_aha_segments"].items()}
    thickness = sum(anatomy.wall_mm[k] * v for k, v in share.items())
    ellipse_ml = np.pi / 4 * spec.circumferential_mm * spec.meridional_mm * thickness / 1000
    total = infarct["scar_ml"] + sum(i["volume_ml"] for i in truth["isthmuses"])
    assert total == pytest.approx(ellipse_ml, rel=0.12)
    assert infarct["territory"] == {"demo": "LCX", "two_isthmuses": "RCA"}[case]
    assert sum(share.get(k, 0.0) for k in TERRITORIES[infarct["territory"]]) > 0.45


@pytest.mark.parametrize("case", SCARRED)
def test_isthmus_is_open_from_end_to_end_at_1_mm(hearts: dict[str, LabelVolume], case: str) -> None:
    volume, truth = hearts[case], truth_of(case)
    assert len(truth["isthmuses"]) == {"demo": 1, "two_isthmuses": 2}[case]
    for isthmus in truth["isthmuses"]:
        line = np.array(isthmus["polyline_mm"])
        assert 5.0 <= isthmus["width_mm"] <= 8.5
        assert 30.0 <= isthmus["length_mm"] <= 55.0
        ijk = np.rint(volume.to_ijk(line)).astype(int)
        assert volume.mask("border_zone")[tuple(ijk.T)].all()
        index = np.argwhere(volume.mask("border_zone"))
        near = index[cKDTree(line).query(volume.to_mm(index.astype(float)))[0] < 6.0]
        corridor = np.zeros(volume.data.shape, bool)
        corridor[tuple(near.T)] = True
        parts, _ = ndimage.label(corridor)
        assert parts[tuple(ijk[0])] == parts[tuple(ijk[-1])] > 0
        # dense scar on both sides, healthy muscle beyond both mouths
        healthy = cKDTree(volume.to_mm(np.argwhere(volume.mask("lv_myocardium")).astype(float)))
        assert healthy.query(line[[0, -1]])[0].max() < 6.0
        assert healthy.query(line[len(line) // 2])[0] > 12.0


@pytest.mark.parametrize(("case", "edge_mm"), [("demo", 2.0), ("two_isthmuses", 2.5)])
def test_isthmus_is_open_on_the_mesh_of_the_plan(hearts: dict[str, LabelVolume], case: str, edge_mm: float) -> None:
    mesh = mesh_heart(hearts[case], edge_mm)
    assert mesh.quality["surface_genus"] == 0
    for isthmus in truth_of(case)["isthmuses"]:
        line = np.array(isthmus["polyline_mm"])
        away = cKDTree(line).query(mesh.centroids_mm)[0]
        tets = mesh.tets[mesh.in_region("border_zone") & (away < 6.0)]
        # through faces, not through single nodes: a wave needs tissue
        faces = np.sort(np.concatenate([tets[:, k] for k in ([0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3])]), axis=1)
        _, number = np.unique(faces, axis=0, return_inverse=True)
        size = len(tets) + int(number.max()) + 1
        graph = sp.coo_array((np.ones(len(faces)), (np.tile(np.arange(len(tets)), 4), len(tets) + number.ravel())), shape=(size, size))
        _, part = connected_components(graph, directed=False)
        _, ends = cKDTree(mesh.points_mm[tets].mean(axis=1)).query(line[[0, -1]])
        assert part[ends[0]] == part[ends[1]]


def test_two_isthmuses_are_apart(hearts: dict[str, LabelVolume]) -> None:
    one, other = (np.array(i["polyline_mm"]) for i in truth_of("two_isthmuses")["isthmuses"])
    assert cKDTree(one).query(other)[0].min() > 10.0


def test_recipe_remakes_the_shipped_labels_byte_for_byte(tmp_path: Path) -> None:
    volume, infarct = make_labels(read_recipe(CASES / "two_isthmuses" / "recipe.toml"))
    write_nrrd(tmp_path / "labels.nrrd", volume)
    assert (tmp_path / "labels.nrrd").read_bytes() == (CASES / "two_isthmuses" / "labels.nrrd").read_bytes()
    assert json.loads(json.dumps(infarct["isthmuses"])) == truth_of("two_isthmuses")["isthmuses"]


def test_infarct_does_not_depend_on_how_the_voxels_are_stored() -> None:
    volume = labels(Anatomy.sample(np.random.default_rng(5), "female"), spacing_mm=1.6)
    spec = InfarctSpec(theta_deg=80.0, depth=0.55, circumferential_mm=44.0, meridional_mm=40.0, isthmuses=(IsthmusSpec(angle_deg=0.0),))
    here, truth = add_infarct(volume, spec)
    affine = volume.affine.copy()
    affine[:3, :3] = affine[:3, [1, 2, 0]]
    turned = replace(volume, data=np.ascontiguousarray(volume.data.transpose(1, 2, 0)), affine=affine)
    there, _ = add_infarct(turned, spec)
    changed = np.mean(there.data.transpose(2, 0, 1)[here.data > 4] != here.data[here.data > 4])
    assert changed < 0.01
    assert truth["territory"] == "LAD"
    assert 3.0 < here.volume_ml("scar") < 15.0
    only = here.data != volume.data
    assert (volume.data[only] == 3).all()


def test_subendocardial_scar_spares_the_epicardium() -> None:
    volume = labels(Anatomy(), spacing_mm=1.6)
    full, _ = add_infarct(volume, InfarctSpec())
    half, _ = add_infarct(volume, InfarctSpec(transmurality=0.5))
    assert 0.3 < half.volume_ml("scar") / full.volume_ml("scar") < 0.65
    touching = ndimage.binary_dilation(volume.data == 0) & half.mask("scar")
    assert touching.sum() == 0


def test_axes_of_a_label_volume_are_those_it_was_made_with(hearts: dict[str, LabelVolume]) -> None:
    anatomy = read_recipe(CASES / "no_scar" / "recipe.toml").anatomy
    found = heart_axes(hearts["no_scar"])
    cosines = np.einsum("ij,ij->i", found.frame, anatomy.axes())
    assert (cosines > np.cos(np.radians(12.0))).all()
    # in a person lying on the back: apex to the left, front and down; RV to the right and front; anterior wall up
    assert found.frame[2] @ [1, -1, -1] > 1.0
    assert found.frame[0] @ [-1, -1, 0] > 0.8
    assert found.frame[1][2] > 0.6


def test_missing_labels_and_wrong_recipes_are_said(tmp_path: Path, hearts: dict[str, LabelVolume]) -> None:
    volume = hearts["no_scar"]
    without = replace(volume, data=np.where(volume.data == 2, 0, volume.data).astype(np.uint8))
    with pytest.raises(InputError, match="rv_blood"):
        add_infarct(without, InfarctSpec())
    (tmp_path / "recipe.toml").write_text("seed = 1\n[anatomy]\nlv_edv = 3\n")
    with pytest.raises(InputError, match="lv_edv"):
        read_recipe(tmp_path / "recipe.toml")


def test_sinus_beat_starts_where_it_should_and_crosses_the_isthmus_late(beat: Activated) -> None:
    mesh = beat.mesh
    for node, delay in beat.sources.values():
        assert 0.0 <= beat.arrival_ms[node] <= delay + 1e-9
    assert len(beat.sources) == 4
    muscle = np.unique(mesh.tets[mesh.conducting()])
    assert np.isfinite(beat.arrival_ms[muscle]).all()
    slow = np.unique(mesh.tets[mesh.in_region("border_zone")])
    assert np.median(beat.arrival_ms[slow]) > np.median(beat.arrival_ms[muscle]) + 20.0


def test_map_is_noisy_displaced_incomplete_and_its_truth_undoes_that(beat: Activated) -> None:
    spec = MeasureSpec(points=800)
    eam, truth = endocardial_map(beat, spec, np.random.default_rng(3))
    again, _ = endocardial_map(beat, spec, np.random.default_rng(3))
    assert np.array_equal(eam.points_mm, again.points_mm)
    back = np.array(truth["map_to_patient"])
    points = eam.points_mm @ back[:3, :3].T + back[:3, 3]
    mesh = beat.mesh
    lv = mesh.surface_nodes("lv_endo")
    surface, near = cKDTree(mesh.points_mm[lv]).query(points)
    assert np.median(surface) < 2.2
    turn = np.degrees(np.arccos((np.trace(back[:3, :3]) - 1) / 2))
    assert turn == pytest.approx(spec.frame_rotation_deg, abs=1e-6)
    shift = np.linalg.norm((points - eam.points_mm).mean(axis=0))
    assert 2.0 < shift < 25.0
    # what was annotated agrees with the beat but for noise, position error and a few outliers
    error = eam.lat_ms + spec.lat_reference_ms - beat.arrival_ms[lv[near]]
    error = error[np.isfinite(error)]
    assert np.median(np.abs(error)) < 5.0
    assert 0.002 < np.mean(np.abs(error) > 22.0) < 0.06
    assert 0.02 < np.mean(np.isnan(eam.lat_ms)) < 0.35
    assert truth["points_with_lat"] == np.isfinite(eam.lat_ms).sum()
    hole = np.linalg.norm(points[:, None] - mesh.points_mm[lv][None], axis=2).min(axis=0)
    assert hole.max() > 8.0


def test_voltage_follows_the_tissue_under_the_catheter(beat: Activated) -> None:
    eam, truth = endocardial_map(beat, MeasureSpec(points=800), np.random.default_rng(4))
    back = np.array(truth["map_to_patient"])
    points = eam.points_mm @ back[:3, :3].T + back[:3, 3]
    centroids = beat.mesh.centroids_mm
    pure = {}
    for name in ("healthy", "scar"):
        other = cKDTree(centroids[~beat.mesh.in_region(name)])
        pure[name] = eam.bipolar_mv[other.query(points)[0] > 5.5]
        assert len(pure[name]) > 5
    assert np.mean(pure["healthy"] > 1.5) > 0.95
    assert np.mean(pure["scar"] < 0.5) > 0.9
