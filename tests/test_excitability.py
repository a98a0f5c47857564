"""Premature waves on coarse lattices: how they are measured, and the sodium conductance with which they run as in the continuum."""

from __future__ import annotations

import math

import numpy as np
import pytest

from meshing.stuffing import LATTICE_PER_EDGE
from planners.confirm.compare import SPEEDS
from planners.confirm.membrane import cells_of
from solvers.eikonal.restitution import load_tables
from solvers.ionic import ionic_model
from solvers.monodomain import lattice as lattices
from solvers.monodomain.excitability import GAINS, SODIUM, THETA, continuum, excitable, paced_speeds, scaled
from solvers.monodomain.lattice import chain_along, wave_speeds
from solvers.monodomain.wave_fit import cells_of as cells_of_one

COARSE = lattices.body_centred(LATTICE_PER_EDGE * 0.8)


def test_models_without_a_sodium_conductance_stay_as_they_are() -> None:
    model = ionic_model("mitchell_schaeffer")
    found = excitable(COARSE, (0.6, 0.25), model, 1.0)
    assert found.model is model
    assert found.gain == 1.0
    assert math.isnan(found.before)


def test_only_the_sodium_conductance_is_scaled() -> None:
    model = ionic_model("ten_tusscher_panfilov_2006", cell="epi")
    more = scaled(model, 1.7)
    assert more.parameters[SODIUM] == pytest.approx(1.7 * model.parameters[SODIUM])
    assert {k: v for k, v in more.parameters.items() if k != SODIUM} == {k: v for k, v in model.parameters.items() if k != SODIUM}
    np.testing.assert_array_equal(more.initial_state, model.initial_state)
    assert scaled(model, 1.0) is model


def test_a_wave_that_comes_late_runs_like_the_first_and_one_that_comes_early_is_slower() -> None:
    model = ionic_model("ten_tusscher_panfilov_2006", cell="epi")
    spacing, speed = 0.4, 0.5
    kuhn = lattices.box((spacing,) * 3, "kuhn")
    wave = chain_along(kuhn, np.array([1.0, 0.0, 0.0])), kuhn.weights(np.array([0.12, 0.01, 0.01, 0.0, 0.0, 0.0]))
    once = wave_speeds(kuhn, [wave], cells_of_one(model), 1.0, 60.0)[0]
    first, late = paced_speeds(kuhn, [wave], [speed], cells_of_one(model), 1.0, 600.0)[0]
    early = paced_speeds(kuhn, [wave], [speed], cells_of_one(model), 1.0, 350.0)[0, 1]
    assert first == pytest.approx(once, rel=0.01)
    assert late == pytest.approx(first, rel=0.03)
    assert 0.5 * first < early < 0.9 * first


@pytest.mark.slow
@pytest.mark.parametrize(("tissue", "least"), [("healthy", 0.85), ("border_zone", 0.6)])
def test_a_coarse_lattice_needs_more_sodium_to_carry_the_earliest_wave_of_the_continuum(tissue: str, least: float) -> None:
    """At the very limit some of eight waves stay blocked whatever the conductance; without more of it all of them are."""
    cell, speed = cells_of((tissue,), load_tables())[tissue], SPEEDS[tissue]
    (rested_ms, slowing), (earliest_ms, slowest) = continuum(cell)
    assert 270.0 < earliest_ms < rested_ms < 500.0
    assert 0.4 < slowest < slowing < 0.9
    found = excitable(COARSE, (speed.longitudinal_m_s, speed.transverse_m_s), cell, THETA)
    assert found.gain in GAINS[1:]
    assert found.before < 0.1
    assert found.after >= least
