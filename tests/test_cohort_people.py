"""Who takes part in a trial: what is published of people, and real cases that nobody can name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from planners.trials.design import Enrolment, located, places
from planners.trials.parameters import MEASURES, PARAMETERS
from planners.trials.population import implausible, parameters_of, person, unit_cube
from planners.trials.read_trial import read_trial
from planners.trials.trial import Population
from twin.errors import InputError

TRIAL = """
name = "of a folder"
[population]
folder = "$HERE"
[[arm]]
name = "transection"
strategy = "isthmus_transection"
[[arm]]
name = "none"
[primary]
outcome = "non_inducible"
compare = ["transection", "none"]
"""


def test_candidates_are_within_what_is_published(tmp_path: Path) -> None:
    population = Population(virtual=10, max_candidates=10, ranges={"isthmus_width_mm": (7.0, 7.5)})
    drawn = [parameters_of(population, 5, k) for k in range(300)]
    assert drawn[7] == parameters_of(population, 5, 7)
    for p in PARAMETERS:
        values = np.array([d[p.name] for d in drawn])
        low, high = population.ranges.get(p.name, (p.param.low, p.param.high))
        if p.name not in ("lv_edv_ml", "rv_edv_ml"):
            assert low - 1e-4 <= values.min() < values.max() <= high + 1e-4
            assert np.ptp(values) > 0.7 * (high - low)
    women = [d for d in drawn if d["female"] >= 0.5]
    assert 83.0 <= min(d["lv_edv_ml"] for d in women) < max(d["lv_edv_ml"] for d in women) <= 230.0
    both = np.array([[d["lv_edv_ml"], d["rv_edv_ml"]] for d in women])
    assert np.corrcoef(both.T)[0, 1] > 0.6, "large left ventricles go with large right ones"
    cube = np.array([list(unit_cube(5, k).values()) for k in range(300)])
    assert np.abs(np.corrcoef(cube.T) - np.eye(len(PARAMETERS))).max() < 0.25


def test_limits_of_plausibility() -> None:
    population = Population(virtual=2)
    measured = {"sex": "female", "lv_edv_ml": 240.0, "qrs_ms": 120.0, "wall_mm": 5.5, "inducible": True}
    assert implausible(measured, population) == ["lv_edv_ml"], "230 mL is the published end for women, 260 for men"
    assert implausible(measured | {"sex": "male"}, population) == []
    assert implausible(measured | {"sex": "male"}, Population(virtual=2, plausible={"qrs_ms": (60.0, 110.0)})) == ["qrs_ms"]
    who = person(parameters_of(population, 1, 0), 1, 0)
    assert who.velocities["healthy/cv_transverse_m_s"] <= who.velocities["healthy/cv_longitudinal_m_s"]


def test_limits_of_somebody_whose_sex_is_not_known_are_those_of_either() -> None:
    volume = MEASURES["lv_edv_ml"]
    women, men, either = (volume.limit(sex) for sex in ("female", "male", None))
    assert women is not None
    assert men is not None
    assert either is not None
    assert women.high < men.high
    assert (either.low, either.high) == (min(women.low, men.low), max(women.high, men.high))
    assert volume.limit("other") == either
    assert implausible({"lv_edv_ml": 240.0, "sex": "female"}, Population()) == ["lv_edv_ml"]
    assert implausible({"lv_edv_ml": 240.0, "sex": None}, Population()) == []


def _case_file(folder: Path, virtual: bool, labels: str) -> None:
    folder.mkdir(parents=True)
    (folder / "labels.nrrd").write_text(labels)
    (folder / "case.toml").write_text(f'[patient]\nvirtual = {str(virtual).lower()}\n[segmentation]\nfile = "labels.nrrd"\n')


def test_a_trial_over_a_folder_names_no_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _case_file(tmp_path / "cases" / "Doe_Jane_1951", False, "a")
    _case_file(tmp_path / "cases" / "virtual_one", True, "b")
    monkeypatch.setenv("HERE", str(tmp_path / "cases"))
    (tmp_path / "trial.toml").write_text(TRIAL)
    trial, _ = read_trial(tmp_path / "trial.toml")
    assert len(trial.population.cases) == 2
    assert "Doe" not in json.dumps(trial.as_dict())
    name = next(n for n in trial.population.cases if n.startswith("patient-"))
    design = Enrolment(trial, tmp_path / "cases")
    job = next(j for j in (design.candidate(k) for k in range(2)) if j.spec["case"] == name)
    assert located(job, tmp_path / "cases").spec["place"] == str(tmp_path / "cases" / "Doe_Jane_1951" / "case.toml")
    assert "Doe" not in json.dumps(dict(job.spec))
    with pytest.raises(InputError, match="put the cases"):
        located(job, tmp_path)
    places.cache_clear()
    _case_file(tmp_path / "cases" / "again", False, "a")
    with pytest.raises(InputError, match="is that of"):
        places(tmp_path / "cases")
    places.cache_clear()
