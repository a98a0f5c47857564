"""`[expect]`: wrong expectations are refused before anything runs, and what is missed is said in the case's own words."""

import json
from pathlib import Path

import numpy as np
import pytest

from planners.app import expect
from planners.app.console import Console
from planners.app.plan_command import plan_case
from twin.case import Case
from twin.errors import InputError
from twin.plan import Circuit, Induction, Plan

FIT = {"held_out_rms_ms": 6.1, "ecg": {"mean_lead_correlation": 0.4}, "ecg_pose": {"mean_lead_correlation": 0.7}, "doubts": ["One."]}


def case(folder: Path, truth: object = None, **wanted: object) -> Case:
    path = None
    if truth is not None:
        path = folder / "truth.json"
        path.write_text(truth if isinstance(truth, str) else json.dumps(truth))
    return Case(folder / "case.toml", "x", folder / "labels.nrrd", virtual=True, expect=wanted, truth_path=path)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"inducible": True}, "did you mean|known"),
        ({"induced": 1}, "true or false"),
        ({"targets_at_most": 2.5}, "whole number"),
        ({"targets_at_most": True}, "whole number"),
        ({"lesion_volume_ml_at_most": "3 mL"}, "a number"),
        ({"isthmus_within_mm": 5.0}, "name the truth file"),
    ],
)
def test_a_wrong_expectation_stops_before_anything_runs(tmp_path, wanted, says):
    with pytest.raises(InputError, match=says):
        expect.check(case(tmp_path, **wanted))
    with pytest.raises(InputError, match=says):
        plan_case(case(tmp_path, **wanted), tmp_path / "out", Console(True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("truth", ["{", "[]", {"velocities": {}}])
def test_a_truth_that_does_not_hold_it_is_refused(tmp_path, truth):
    with pytest.raises(InputError, match="isthmuses"):
        expect.check(case(tmp_path, truth, isthmus_within_mm=5.0))


def test_calibration_alone_meets_or_misses_its_part(tmp_path):
    both = case(
        tmp_path,
        held_out_rms_ms_at_most=7,
        ecg_correlation_at_least=0.3,
        doubts_at_most=1,
        ecg_posed_correlation_at_least=0.7,
        induced=True,
    )
    expect.check(both)
    assert expect.missed_by_fit(both, FIT) == []
    hard = case(tmp_path, held_out_rms_ms_at_most=6, ecg_correlation_at_least=0.5, doubts_at_most=0, ecg_posed_correlation_at_least=0.8)
    assert len(expect.missed_by_fit(hard, FIT)) == 4
    assert len(expect.missed_by_fit(hard, {})) == 3, "what was not computed is missed; doubts that nobody has are none"


def plan_of(path_mm: np.ndarray) -> Plan:
    line = path_mm.tolist()
    circuit = Circuit("VT1", 400.0, line, line, 6.0, line[0], line[-1], 7)
    velocity = {"cv_longitudinal_m_s": {"interval": [0.55, 0.65], "mode": 0.6}}
    outcome = {"non_inducible_at_mode": True, "lesion_volume_ml": 0.4}
    induced = [Induction("aha07", "quick", (350.0,), True, True, 400.0, 2000.0, "VT1")]
    return Plan({}, {}, {"regions": {"healthy": velocity}, "fit": FIT}, induced, [circuit], [], [], outcome, [], {})


def test_a_found_isthmus_is_measured_against_the_nearest_true_one(tmp_path):
    true = np.stack([np.linspace(0, 20, 21), np.zeros(21), np.zeros(21)], axis=1)
    truth = {
        "isthmuses": [{"polyline_mm": true.tolist()}, {"polyline_mm": (true + np.array([0, 40, 0])).tolist()}],
        "velocities": {"healthy": {"cv_longitudinal_m_s": 0.6}},
    }
    wanted = case(tmp_path, truth, isthmus_within_mm=4.0, healthy_velocity_within=0.1, induced=True, non_inducible_after=True)
    expect.check(wanted)
    assert expect.missed(wanted, plan_of(true + np.array([0, 3, 0]))) == []
    (line,) = expect.missed(wanted, plan_of(true + np.array([0, 5, 0])))
    assert "VT1 is 5.0 mm from a true one" in line
    off = case(tmp_path, truth | {"velocities": {"healthy": {"cv_longitudinal_m_s": 0.7}}}, healthy_velocity_within=0.1)
    assert "outside" in expect.missed(off, plan_of(true))[0]
