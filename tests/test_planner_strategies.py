"""Every strategy, energy setting and structure to spare on a slab whose channel is known; channels from geometry; the table of scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
from graph_model import scar_slab, slab_model, slab_sites
from scipy.sparse.csgraph import connected_components

from planners.circuits import Reentry, collect
from planners.circuits.channels import find_channels, potential_channels
from planners.circuits.sections import face_pairs
from planners.lesions.avoid import distance_mm, nearest, statements
from planners.lesions.energy import PRESETS, RF_TAU_S, check_request, transmural_probability, with_energy
from planners.lesions.geometry import LesionMaker, lesion_count
from planners.lesions.scores import scores, with_pareto
from planners.lesions.strategy import REGISTRY, strategy
from planners.pacing import induce_model, load_protocol
from twin.errors import InputError
from twin.model import Twin
from twin.plan import PlanRequest, Target
from twin.tissue import Tissue, Velocity

ENDO = PlanRequest(access=("lv_endo",))
VELOCITIES = {"healthy": Velocity(0.6, 0.3), "isthmus": Velocity(0.2, 0.1)}


def twin_of(mesh) -> Twin:
    names = tuple(f"{r}/cv_{d}_m_s" for r in VELOCITIES for d in ("longitudinal", "transverse"))
    values = np.array([[0.6, 0.3, 0.2, 0.1]])
    left = np.flatnonzero(mesh.points_mm[:, 0] < 0.1).astype(np.int32)
    return Twin(mesh, Tissue(names, values, values[0], values[0], {}, left, np.zeros(len(left))), np.eye(4))


@pytest.fixture(scope="module")
def slab():
    mesh = scar_slab()
    run = induce_model(slab_model(mesh), slab_sites(mesh), load_protocol("quick"))
    return twin_of(mesh), collect(Reentry.of(mesh), run.inductions, run.episodes).circuits


def proposed(name: str, slab, request=ENDO):
    twin, circuits = slab
    maker = LesionMaker(twin.mesh, request.avoid)
    assert strategy(name).available(twin, request) == ""
    targets = strategy(name).propose(twin, circuits, request, maker, [])
    return maker, targets, maker.mask(targets)


def test_the_channel_is_found_without_any_run(slab):
    twin, circuits = slab
    (channel,) = find_channels(twin.mesh, VELOCITIES)
    assert channel.open
    # from the middle of one mouth to that of the other: elements of 2 mm, so up to two of them shorter than the channel
    assert channel.length_mm == pytest.approx(32.0, abs=5.0)
    assert channel.width_mm == pytest.approx(8.0, rel=0.2)
    assert channel.transit_ms == pytest.approx(channel.length_mm / 0.2)
    assert twin.mesh.in_region("isthmus")[channel.tets].all()
    (row,) = potential_channels(twin.mesh, VELOCITIES, circuits)
    assert row["used_by"] == ["VT1", "VT2"]
    assert potential_channels(twin.mesh, VELOCITIES, [])[0]["used_by"] == []


def test_a_blind_alley_is_no_channel():
    mesh = scar_slab()
    plug = mesh.in_region("isthmus") & (mesh.centroids_mm[:, 0] > 46)
    (channel,) = find_channels(mesh.with_region(plug, "scar"), VELOCITIES)
    assert not channel.open
    assert find_channels(scar_slab(isthmus=False), VELOCITIES) == []


def test_dechannelling_closes_both_mouths(slab):
    maker, targets, mask = proposed("dechannelling", slab)
    x = maker.centres_mm[mask & maker.mesh.in_region("isthmus")][:, 0]
    assert x.min() < 26
    assert x.max() > 50
    assert not ((x > 34) & (x < 42)).any()
    assert {c for t in targets for c in t.circuits} == {"VT1", "VT2"}


def test_core_isolation_leaves_no_way_out_of_the_core(slab):
    maker, _, mask = proposed("core_isolation", slab)
    sealed = maker.mesh.with_region(mask, "lesion")
    inside = sealed.conducting() & (np.abs(maker.centres_mm[:, 0] - 38) < 6) & (np.abs(maker.centres_mm[:, 1] - 30) < 3)
    pairs = face_pairs(sealed.tets)
    pairs = pairs[sealed.conducting()[pairs].all(axis=1)]
    n = len(sealed.tets)
    _, label = connected_components(sp.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n)), directed=False)
    outside = sealed.conducting() & (maker.centres_mm[:, 0] < 6)
    assert not set(label[inside]) & set(label[outside])


def test_exit_site_covers_the_exits_and_late_potentials_the_far_half(slab):
    maker, _, mask = proposed("exit_site", slab)
    for circuit in slab[1]:
        near = np.linalg.norm(maker.centres_mm - np.array(circuit.exit_mm), axis=1) < 4
        assert maker.volume_ml(mask & near) > 0.8 * maker.volume_ml(near & maker.mesh.conducting())
    # the wave starts at the left edge: 76 mm of healthy muscle take 127 ms, the isthmus is left after 37 + 160 ms without the detour
    maker, targets, mask = proposed("late_potential", slab)
    assert "after the QRS" in targets[0].why
    assert maker.centres_mm[mask & maker.mesh.in_region("isthmus")][:, 0].mean() > 38


def slower(slab):
    """Isochrones crowd in an isthmus of 0.06 m/s."""
    return dataclasses.replace(slab[0], tissue=dataclasses.replace(slab[0].tissue, samples=np.array([[0.6, 0.3, 0.06, 0.06]]))), slab[1]


def test_deceleration_zone_lies_in_the_slow_tissue(slab):
    maker, targets, mask = proposed("deceleration_zone", slower(slab))
    assert targets
    assert maker.mesh.in_region("isthmus")[mask].mean() > 0.5
    same = dataclasses.replace(slab[0].tissue, samples=np.array([[0.6, 0.3, 0.6, 0.6]]))
    even = dataclasses.replace(slab[0], tissue=same)
    assert "nowhere" in strategy("deceleration_zone").available(even, ENDO)


def test_drawn_lesions_are_made_as_drawn(slab):
    drawn = PlanRequest(access=("lv_endo",), drawn=({"surface": "lv_endo", "positions": [[38.0, 30.0, 0.5]]},))
    _, targets, mask = proposed("user_drawn", slab, drawn)
    assert targets[0].positions_mm == [[38.0, 30.0, 0.5]]
    assert mask.any()
    far = dataclasses.replace(drawn, drawn=({"surface": "lv_endo", "positions": [[38.0, 30.0, 90.0]]},))
    with pytest.raises(InputError, match="90 mm from lv_endo"):
        proposed("user_drawn", slab, far)


def test_no_lesion_is_placed_in_a_margin(slab):
    nerve = [[[36.0, 0.0, 0.0], [36.0, 60.0, 0.0]]]
    request = dataclasses.replace(ENDO, avoid={"phrenic_nerve": nerve})
    for name in sorted(set(REGISTRY) - {"user_drawn"}):
        _, targets, _ = proposed(name, slower(slab), request)
        for target in targets:
            assert distance_mm(target.positions_mm, nerve).min() >= 5.0, name
    cut = proposed("isthmus_transection", slab, request)[1][0]
    said = statements(request.avoid, [dataclasses.replace(cut, nearest=nearest(cut, request.avoid))])
    assert said[0].startswith("Lesions keep 5 mm from the phrenic nerve; the nearest lesion is")
    assert "coronary arteries" in said[1]
    near = statements(request.avoid, [dataclasses.replace(cut, nearest={"phrenic_nerve": 4.63})])
    assert near[0] == "TOO NEAR: a lesion is 4.6 mm from the phrenic nerve; 5 mm should be kept."


def test_distance_to_polylines():
    assert distance_mm([[0, 3, 0], [20, 0, 4]], [[[0, 0, 0], [10, 0, 0]]]) == pytest.approx([3, np.hypot(10, 4)])
    assert distance_mm([[0, 0, 2]], [[[0, 0, 0]]]) == pytest.approx([2])


def test_energy_gives_radius_and_depth():
    usual = with_energy(PlanRequest(energy={"source": "rf"}))
    assert (usual.lesion_radius_mm, usual.lesion_depth_mm) == (4.0, 6.0)
    weak, strong = (with_energy(PlanRequest(energy={"source": "rf", "ablation_index": i})) for i in (450, 600))
    assert weak.lesion_depth_mm < 6.0 < strong.lesion_depth_mm
    short = with_energy(PlanRequest(energy={"power_w": 40, "duration_s": 20}))
    tau = RF_TAU_S.value
    assert short.lesion_depth_mm == pytest.approx(6 * (1 - np.exp(-20 / tau)) / (1 - np.exp(-60 / tau)), abs=0.01)
    for source, preset in PRESETS.items():
        made = with_energy(PlanRequest(energy={"source": source}))
        assert (made.lesion_radius_mm, made.lesion_depth_mm) == (preset.radius.value, preset.depth.value)
        check_request(made)
    assert with_energy(PlanRequest(lesion_depth_mm=5.0)).lesion_depth_mm == 5.0
    for energy, problem in (
        ({"source": "laser"}, "unknown energy"),
        ({"source": "pfa", "ablation_index": 500}, "not known"),
        ({"ablation_index": 5000}, "outside"),
        ({"ablation_index": 500, "power_w": 30}, "beside"),
        ({"ablation_index": "much"}, "not a number"),
    ):
        with pytest.raises(InputError, match=problem):
            with_energy(PlanRequest(energy=energy))


def test_transmurality_is_a_probability():
    sure, even, hardly = transmural_probability(np.array([3.0, 6.0, 9.0]), 6.0, 1.0)
    assert sure == pytest.approx(0.99865, abs=1e-4)
    assert even == 0.5
    assert hardly == pytest.approx(1 - sure)
    mesh = scar_slab(size=(76.0, 60.0, 8.0))
    at = Target("", [[10.0, 10.0, 0.0]], "lv_endo", 4, 6, 0, "")
    assert LesionMaker(mesh).thickness_mm(at) == pytest.approx([8.0], abs=0.1)


def test_the_table_names_the_best_sets(slab):
    maker, targets, mask = proposed("isthmus_transection", slab)
    row = scores(maker, targets, ENDO)
    assert row["lesions"] == lesion_count(targets)
    assert row["volume_ml"] == pytest.approx(maker.volume_ml(mask), abs=1e-3)
    assert row["minutes"] == pytest.approx(row["lesions"] * PRESETS["rf"].seconds.value / 60 + 5, abs=0.1)
    base = {"lesions": 2, "risk_ml": 1.0, "minutes": 5.0, "volume_ml": 1.0, "non_inducible": True}
    table = with_pareto(
        [base, {**base, "lesions": 3, "minutes": 4.0}, {**base, "lesions": 4}, {**base, "lesions": 1, "non_inducible": False}]
    )
    assert [r["pareto"] for r in table] == [True, True, False, False]
    assert table[0]["best_in"] == "fewest lesions, safest, smallest"
    assert table[1]["best_in"] == "safest, fastest, smallest"
    assert table[3]["best_in"] == ""
