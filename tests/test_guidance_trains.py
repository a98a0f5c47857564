"""Repeated trains: what is saved of the untreated heart's drive changes no bit of the answer, and pacing from rest gives the same one."""

import numpy as np
import pytest
from graph_model import scar_slab, slab_model, slab_sites

from planners.pacing import induce_model, load_protocol, trains
from planners.pacing.trains import Train, behind, drive, extend
from solvers.eikonal.reentrant import ReentrantEikonal
from solvers.eikonal.restitution import load_tables
from twin.errors import Interrupted
from twin.experiment import Activations
from twin.tissue import Velocity

QUICK = load_protocol("quick")


@pytest.fixture(scope="module")
def heart():
    mesh = scar_slab(spacing_mm=2.0)
    velocities = {"healthy": Velocity(0.6, 0.25), "border_zone": Velocity(0.4, 0.2), "isthmus": Velocity(0.3, 0.15)}
    return ReentrantEikonal(mesh, velocities, load_tables())


def ball(mesh, at, radius_mm):
    return np.linalg.norm(mesh.centroids_mm - at, axis=1) < radius_mm


LESIONS = [
    pytest.param((38.0, 30.0, 2.0), 5.0, "left", True, id="across the isthmus"),
    pytest.param((50.0, 33.0, 0.0), 2.5, "corner", True, id="a part of the isthmus"),
    pytest.param((74.0, 58.0, 2.0), 3.0, "corner", True, id="where the wave ends"),
    pytest.param((20.0, 30.0, 2.0), 6.0, "left", False, id="widely changed"),
    pytest.param((4.0, 30.0, 0.0), 2.5, "left", False, id="under the electrode"),
]


@pytest.mark.parametrize(("at", "radius_mm", "site", "saves"), LESIONS)
def test_what_lies_behind_a_lesion_is_what_a_run_from_rest_gives(heart, monkeypatch, at, radius_mm, site, saves):
    monkeypatch.setattr(trains, "MOST_BEHIND", 0.2)  # a plate of 2,400 nodes has no small share
    train = Train(slab_sites(heart.mesh)[site], (0.0, 600.0), (860.0, 1100.0))
    known = drive(heart, train)
    treated = heart.with_blocked(ball(heart.mesh, at, radius_mm))
    whole = drive(treated, train).state
    before = {name: array.copy() for name, array in known.state.snapshot().items()}
    asked = []
    monkeypatch.setattr(trains, "drive", lambda *given: asked.append(given) or drive(*given))
    found = behind(heart, treated, train, known)
    assert bool(asked) is not saves
    for name, array in found.snapshot().items():
        assert np.array_equal(array, getattr(whole, name)), name
        assert np.array_equal(before[name], getattr(known.state, name)), f"{name}: the known drive was changed"
    assert extend(treated, found, train, QUICK.sustained) == extend(treated, whole, train, QUICK.sustained)


def test_a_drive_that_met_block_is_run_from_rest(heart):
    train = Train(slab_sites(heart.mesh)["left"], (0.0, 600.0, 912.0), (1200.0,))
    known = drive(heart, train)
    assert not known.clean
    treated = heart.with_blocked(ball(heart.mesh, (74.0, 58.0, 2.0), 3.0))
    for name, array in behind(heart, treated, train, known).snapshot().items():
        assert np.array_equal(array, getattr(drive(treated, train).state, name)), name


def test_the_train_that_induced_is_answered_as_by_the_protocol():
    mesh = scar_slab()
    model, nodes = slab_model(mesh), slab_sites(mesh)["left"]
    (episode, *_) = induce_model(model, {"left": nodes}, QUICK).episodes
    beats = tuple(k * episode.cycle_ms for k in range(QUICK.drives[0].computed_beats))
    train = Train(nodes, beats, tuple(beats[-1] + np.cumsum(episode.coupling_ms)))
    state, _ = model.run(model.rest(), [(t, nodes) for t in beats], train.extras_ms[0])
    answer = extend(model, state, train, QUICK.sustained)
    assert (answer.captured, answer.inducible) == (True, True)
    assert answer.cycle_length_ms == pytest.approx(episode.cycle_length_ms, abs=0.01)
    closed = slab_model(mesh.with_region(ball(mesh, (38.0, 30.0, 2.0), 6.0), "lesion"))
    assert extend(closed, closed.run(closed.rest(), [(t, nodes) for t in beats], train.extras_ms[0])[0], train, QUICK.sustained) == (
        trains.Answer(True, False)
    )
    with pytest.raises(Interrupted):
        extend(model, state, train, QUICK.sustained, lambda: True)
    dead = slab_model(mesh.with_region(np.ones(len(mesh.tets), bool), "lesion"))
    assert extend(dead, dead.rest(), train, QUICK.sustained) == trains.Answer(False, False)


def test_firings_that_corrected_one_another_are_behind_what_excited_them():
    """Rows 2, 3 and 4 are each other's parents in turn; 5 came from 4, 1 from the root."""
    parent = np.array([-1, 0, 4, 2, 3, 4], np.int32)
    log = Activations(np.arange(6, dtype=np.int32), np.arange(6.0), np.arange(6.0) + 300.0, parent)
    from_two = trains._descended(log, np.eye(6, dtype=bool)[2])
    assert from_two.tolist() == [False, False, True, True, True, True]
    assert trains._descended(log, np.eye(6, dtype=bool)[0]).tolist() == [True, True, False, False, False, False]
