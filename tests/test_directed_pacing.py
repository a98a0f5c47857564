"""What a treated heart takes over from the untreated one, what is not computed one by one, and where directed pacing asks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_model import scar_slab, slab_sites
from test_lesions import slab_model, twin_of

from planners.circuits import Reentry, collect
from planners.pacing import induce_model, load_protocol
from planners.pacing.directed import BEYOND, induced, unanswered
from planners.pacing.engine import InductionRun
from planners.pacing.memory import Memory
from planners.pacing.site import Site
from twin.site_name import place_of

QUICK = load_protocol("quick")


def plain(run: InductionRun) -> list[object]:
    logs = [tuple(getattr(e.log, f).tobytes() for f in ("node", "activation_ms", "recovery_ms", "parent")) for e in run.episodes]
    return [*run.inductions, *logs]


@pytest.fixture(scope="module")
def slab():
    mesh = scar_slab()
    model, sites = slab_model(mesh), slab_sites(mesh)
    memory = Memory(model)
    return mesh, model, sites, memory, induce_model(model, sites, QUICK, memory=memory)


class EveryOne:
    """The same model, of which nobody knows whether a front met unrecovered tissue: every interval has to be computed."""

    def __init__(self, model):
        self.model, self.runs = model, 0

    def rest(self):
        return self.model.rest()

    def run(self, state, stimuli, until_ms):
        self.runs += 1
        state, log = self.model.run(state, stimuli, until_ms)
        return state, replace(log, blocked=log.blocked + 1)


def test_intervals_that_are_not_computed_change_nothing(slab):
    _, model, sites, _, run = slab
    every = EveryOne(model)
    slow = induce_model(every, sites, QUICK)
    assert plain(slow) == plain(run)
    assert slow.attempts > run.attempts


def test_a_treated_heart_that_starts_from_the_untreated_one_gives_the_same_bytes(slab, monkeypatch):
    mesh, model, sites, memory, _ = slab
    monkeypatch.setattr("planners.pacing.trains.MOST_BEHIND", 0.3)  # a plate has no small share
    taken = []
    ask = Memory.state_of
    monkeypatch.setattr(Memory, "state_of", lambda *given: taken.append(ask(*given) is not None) or ask(*given))
    for at, radius in (((38.0, 30.0, 2.0), 5.0), ((60.0, 12.0, 2.0), 3.0)):
        treated = model.with_blocked(np.linalg.norm(mesh.centroids_mm - at, axis=1) < radius)
        assert plain(induce_model(treated, sites, QUICK, memory=memory, require_capture=False)) == plain(
            induce_model(treated, sites, QUICK, require_capture=False)
        )
    assert sum(taken) >= 4


def test_what_does_not_fit_is_not_kept(slab, monkeypatch):
    _, model, sites, _, _ = slab
    monkeypatch.setattr("planners.pacing.memory.LIMIT_BYTES", 10)
    memory = Memory(model)
    result = Site(model, sites["corner"], QUICK, "corner", memory=memory).pace()
    assert result.drives_captured == [True]
    assert memory.state_of(model, "corner", sites["corner"], (0.0, 600.0), 800.0) is None


def test_the_end_by_which_nothing_left_is_asked_for(slab):
    mesh, _, _, _, run = slab
    found = collect(Reentry.of(mesh), run.inductions, run.episodes)
    left = [c for c in found.circuits if c.exit_mm[0] < 38]
    assert left
    twin = twin_of(mesh)
    (site,) = unanswered(twin, left)
    place = place_of(site)
    assert 54 <= place[0] <= 54 + 2 * float(BEYOND)
    assert abs(place[1] - 30) < 6
    assert len(unanswered(twin, [])) == 2  # a channel that no run used, from both of its ends
    assert unanswered(twin, [left[0], replace(left[0], exit_mm=(56.0, 30.0, 2.0))]) == ()
    assert unanswered(twin_of(scar_slab(isthmus=False)), []) == ()


def test_directed_pacing_finds_the_other_direction(slab):
    mesh, model, sites, _, _ = slab
    twin = twin_of(mesh)

    class Heart:
        """A heart paced from one site alone."""

        def __init__(self, protocol):
            self.twin, self.protocol, self.sites, self.nodes = twin, protocol, (), {"left": sites["left"]}

        def with_sites(self, names):
            self.nodes |= {n: np.flatnonzero(np.linalg.norm(mesh.points_mm - place_of(n), axis=1) < 4.5).astype(np.int32) for n in names}
            return list(names)

        def without_sites(self, names):
            for name in names:
                del self.nodes[name]

        def induce(self, names=(), **_):
            return induce_model(model, {n: self.nodes[n] for n in names or self.nodes}, self.protocol)

    heart = Heart(QUICK)
    run, found = induced(heart, heart.induce())
    assert len(found.circuits) == 2
    assert [s.split("@")[0] for s in heart.nodes] == ["left", "end1"]
    assert [i.circuit for i in run.inductions if i.induced] == ["VT1", "VT2"]
    heart = Heart(replace(QUICK, directed=False))
    assert len(induced(heart, heart.induce())[1].circuits) == 1
