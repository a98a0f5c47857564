"""The shipped trial's line on two small virtual patients: real meshes, real pacing, every arm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from planners.app.cli import run
from planners.trials.job import Job
from planners.trials.read_trial import read_trial
from planners.trials.results import state_of
from planners.trials.table import Table

pytestmark = pytest.mark.line
CASES = Path(__file__).parents[1] / "cases"

TRIAL = """
name = "small"
seed = 20
fidelity = "quick"
[population]
virtual = 2
ranges = { lv_edv_ml = [100, 110], rv_edv_ml = [90, 100], border_along_m_s = [0.24, 0.3], border_anisotropy = [2.2, 2.4] }
[pacing]
edge = "3 mm"
sites = ["aha04", "aha10"]
[[arm]]
name = "none"
[[arm]]
name = "transection"
strategy = "isthmus_transection"
[[arm]]
name = "large"
strategy = "isthmus_transection"
energy = { source = "rf", ablation_index = 700 }
[[arm]]
name = "misjudged"
strategy = "isthmus_transection"
scar_shift = "2 mm"
[[arm]]
name = "drug"
drug = { velocity = 0.9, apd_ms = 20 }
[primary]
outcome = "non_inducible"
compare = ["transection", "none"]
[analysis]
bootstrap = 200
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    (folder / "trial.toml").write_text(TRIAL)
    assert run(["cohort", str(folder / "trial.toml"), "-o", str(folder / "out"), "--executor", "in_process"]) == 0
    return folder / "out"


def test_every_twin_gets_every_arm(out: Path) -> None:
    results, twins = pd.read_parquet(out / "results.parquet"), pd.read_parquet(out / "twins.parquet")
    enrolled = twins[twins["state"] == "enrolled"].set_index("twin")
    assert len(enrolled) == 2
    assert sorted(results.groupby("twin")["arm"].apply(list).iloc[0]) == ["drug", "large", "misjudged", "none", "transection"]
    none = results[results["arm"] == "none"].set_index("twin")
    assert (none["non_inducible"] == ~enrolled.loc[none.index, "inducible"].astype(bool)).all(), "without lesions nothing changes"
    assert (none[["lesion_volume_ml", "healthy_lost_ml", "activation_delay_ms"]] == 0).all(axis=None)
    induced = enrolled.index[enrolled["inducible"].astype(bool)]
    assert len(induced), "of these two at least one is induced"
    cut = results[(results["arm"] == "transection") & results["twin"].isin(induced)]
    cut = cut[cut["lesions"] > 0]
    assert len(cut), "where no cut is possible none is made"
    assert (cut["lesion_volume_ml"] > 0).all()
    treated = results["twin"].isin(cut["twin"])
    large = results[(results["arm"] == "large") & treated]
    per_lesion = [(a["lesion_volume_ml"] / a["lesions"]).to_numpy() for a in (cut, large)]
    assert (per_lesion[1] > per_lesion[0]).all(), "a higher index makes larger lesions"
    misjudged = results[(results["arm"] == "misjudged") & treated]
    assert (misjudged["lesion_volume_ml"].to_numpy() != cut["lesion_volume_ml"].to_numpy()).any(), (
        "another scar is seen, another cut is made"
    )
    drug = results[results["arm"] == "drug"]
    assert (drug["activation_delay_ms"] > 5).all(), "a tenth slower: the last muscle is later by about a tenth"
    assert (drug["lesions"] == 0).all()


def test_fields_are_those_of_the_twins(out: Path) -> None:
    results = pd.read_parquet(out / "results.parquet").set_index(["twin", "arm"])
    root = zarr.open_group(out / "fields.zarr", mode="r")
    for name in results.index.get_level_values(0).unique():
        group = root[name]
        points, tets = np.asarray(group["points_mm"], float), np.asarray(group["tets"])
        p = points[tets]
        volumes = np.einsum("ij,ij->i", p[:, 1] - p[:, 0], np.cross(p[:, 2] - p[:, 0], p[:, 3] - p[:, 0])) / 6000.0
        taken = volumes[np.asarray(group["lesion_transection"])].sum()
        assert taken == pytest.approx(results.loc[(name, "transection"), "lesion_volume_ml"], abs=2e-3)
        assert not np.asarray(group["lesion_none"]).any()
        assert 60.0 < np.asarray(group["arrival_ms"]).max() < 250.0


def test_it_verifies(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(out / "jobs.sqlite", read_only=True)
    twins = list(table.entries("twin"))
    table.close()
    assert {state_of(t) for t in twins} <= {"enrolled", "implausible", "excluded"}
    assert all(Job.of("twin", t.job.ordinal, t.job.spec, t.job.needs).key == t.job.key for t in twins)
    assert run(["cohort", "--verify", str(out), "--share", "0.1", "--seed", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differing"] == []


@pytest.mark.slow
def test_a_folder_of_cases_is_a_population(tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    for name in ("demo", "no_scar"):
        shutil.copytree(CASES / name, folder / name)
    population = 'folder = "cases"\ninclude = { scar_ml = [0, 100] }'
    text = TRIAL[: TRIAL.index("virtual = 2")] + population + TRIAL[TRIAL.index("\n[pacing]") :]
    (tmp_path / "trial.toml").write_text(text)
    assert run(["cohort", str(tmp_path / "trial.toml"), "-o", str(tmp_path / "out"), "--executor", "in_process"]) == 0
    twins = pd.read_parquet(tmp_path / "out" / "twins.parquet").set_index("twin")
    assert set(twins.index) == {"demo", "no_scar"}
    assert (twins["state"] == "enrolled").all()
    assert twins.loc["no_scar", "scar_ml"] == 0
    assert not twins.loc["no_scar", "inducible"]
    results = pd.read_parquet(tmp_path / "out" / "results.parquet").set_index(["twin", "arm"])
    assert len(results) == 10
    assert (results.loc["no_scar", "non_inducible"]).all()
    # the folder may move: nothing in it is computed again
    shutil.move(folder, tmp_path / "elsewhere")
    (tmp_path / "trial.toml").write_text(text.replace('"cases"', '"elsewhere"'))
    assert run(["cohort", "--verify", str(tmp_path / "out"), "--share", "0.2"]) == 0


def test_a_named_drug_does_what_its_currents_do(tmp_path: Path) -> None:
    path = tmp_path / "trial.toml"
    path.write_text(TRIAL.replace("{ velocity = 0.9, apd_ms = 20 }", '{ name = "sotalol", concentration = "14.7 umol/L" }'))
    trial, _ = read_trial(path)
    arm = next(a for a in trial.arms if a.name == "drug")
    assert arm.drug == "sotalol 14.7 umol/L"
    assert arm.velocity == 1.0
    assert 10.0 < arm.apd_ms < 120.0, "I_Kr is blocked"
