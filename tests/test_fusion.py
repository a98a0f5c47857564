"""Fusion: conventions, tables with known truth, what is missing or leaks, and the shared baselines."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from planners.app.cli import run
from twin.errors import InputError, Suspicious
from twin.fusion import metrics
from twin.fusion.blocks import Block
from twin.fusion.evaluate import conformal, evaluate, site_shift
from twin.fusion.logistic import recalibration
from twin.fusion.models.registry import MODELS, NETWORKS, default, model
from twin.fusion.protocol import Settings
from twin.fusion.study import load_study
from twin.fusion.survival import RidgeCox
from twin.fusion.table import Table, load_table

BLOCKS = {
    "clinical": Block("clinical", numeric=("a", "b")),
    "imaging": Block("imaging", numeric=("c",)),
    "noise": Block("noise", numeric=("d",)),
}
CASES = Path(__file__).parents[1] / "cases" / "fusion"
REAL = pytest.mark.skipif("VTWIN_DATA" not in os.environ, reason="set VTWIN_DATA to the shared data")


def drawn(n=240, seed=0):
    """Rows whose outcome depends on a, b and c, and not on d."""
    rng = np.random.default_rng(seed)
    frame = pandas.DataFrame(rng.normal(size=(n, 4)), columns=list("abcd"))
    y = (rng.random(n) < 1 / (1 + np.exp(-(1.2 * frame.a - 0.8 * frame.b + 1.5 * frame.c)))).astype(float).to_numpy()
    return frame, y


@pytest.mark.parametrize("name", [n for n in MODELS if n not in NETWORKS])
def test_models_follow_the_conventions_and_learn(name):
    frame, y = drawn()
    made = clone(model(name, BLOCKS))
    pipeline = make_pipeline(made).fit(frame[:160], y[:160])
    p = pipeline.predict_proba(frame[160:])
    assert p.shape == (80, 2)
    assert np.allclose(p.sum(axis=1), 1)
    assert metrics.auc(y[160:], p[:, 1]) > 0.75
    hidden = frame[160:].assign(c=np.nan)
    q = pipeline.predict_proba(hidden)[:, 1]
    assert np.isfinite(q).all()
    assert metrics.auc(y[160:], q) < metrics.auc(y[160:], p[:, 1])
    assert np.array_equal(clone(made).fit(frame[:160], y[:160]).predict_proba(frame[160:]), p)


@pytest.mark.parametrize("name", ["attention", "vae"])
def test_networks_learn(name):
    pytest.importorskip("torch")
    frame, y = drawn()
    p = model(name, BLOCKS).fit(frame[:160], y[:160]).predict_proba(frame[160:])[:, 1]
    assert metrics.auc(y[160:], p) > 0.7


def test_a_missing_block_is_never_worse_than_a_model_without_it():
    frame, y = drawn(600)
    fitted = default(BLOCKS).fit(frame[:400], y[:400])
    without = default({n: b for n, b in BLOCKS.items() if n != "imaging"}).fit(frame[:400], y[:400])
    hidden = frame[400:].assign(c=np.nan)
    loss = [np.mean((m.predict_proba(hidden)[:, 1] - y[400:]) ** 2) for m in (fitted, without)]
    assert loss[0] <= loss[1] + 0.005


def test_a_block_that_the_dying_lack_counts_only_where_emptiness_may_be_used():
    """Blocks missing at random change nothing; a block that most of those with the outcome lack is told by the model that sees it."""
    frame, y = drawn(700, seed=2)
    rng = np.random.default_rng(3)
    at_random, by_outcome = rng.random(700) < 0.2, rng.random(700) < np.where(y == 1, 0.4, 0.02)
    loss = {}
    for name, lack in (("random", at_random), ("outcome", by_outcome)):
        held = frame.assign(c=np.where(lack, np.nan, frame.c))
        for emptiness in ("use", "cells", "report"):
            p = default(BLOCKS, emptiness).fit(held[:500], y[:500]).predict_proba(held[500:])[:, 1]
            loss[name, emptiness] = np.mean((p - y[500:])[lack[500:]] ** 2)
    assert loss["random", "use"] == pytest.approx(loss["random", "report"], abs=0.01)
    assert loss["outcome", "use"] < 0.7 * loss["outcome", "cells"]


def test_emptiness_is_used_unless_the_study_or_its_sites_speak_against_it(tmp_path):
    frame, y = drawn(60)
    frame.assign(y=y.astype(int), where=np.arange(60) % 2).to_csv(tmp_path / "t.csv", index=False)
    with_sites = STUDY.replace('"t.csv"', '"t.csv"\nsite = "where"')
    for text, used in ((STUDY, "use"), (with_sites, "cells"), (with_sites + '[fusion]\nemptiness = "report"', "report")):
        (tmp_path / "s.toml").write_text(text)
        assert load_table(load_study(tmp_path / "s.toml")).emptiness == used


def table_of(frame, y, **more):
    return Table(frame, y, BLOCKS, {n: k + 1 for k, n in enumerate(BLOCKS)}, group=np.arange(len(y)), **more)


@pytest.fixture(scope="module")
def evaluated():
    frame, y = drawn(300, seed=1)
    frame = frame.assign(leak=y + 0.01 * frame.d)
    sex = (np.arange(len(y)) % 2).astype(float)
    settings = Settings(repeats=2, models=("early", "late_mean", "late_stack"), drop="imaging")
    return evaluate(table_of(frame, y, sex=sex, age=frame.a.to_numpy() * 10 + 60, suspects=("leak",)), settings, lambda line: None)


def test_noise_gains_nothing_and_signal_does(evaluated):
    assert evaluated["best_single"] != "only noise"
    low, high = evaluated["models"]["only noise"]["auc_interval"]
    assert low < 0.5 < high or abs(evaluated["models"]["only noise"]["auc"] - 0.5) < 0.06
    assert evaluated["gains_over_best_single"]["default"]["interval"][0] > 0
    assert abs(evaluated["attribution"]["noise"]) < 0.02
    assert evaluated["attribution"]["imaging"] > 0.05


def test_an_error_of_a_worker_is_the_error_of_the_command():
    error = pickle.loads(pickle.dumps(Suspicious("odd", "a.toml", "x", "is odd", "look")))
    assert (error.code, error.field, str(error)) == ("odd", "x", str(Suspicious("odd", "a.toml", "x", "is odd", "look")))


def test_the_planted_leak_is_named_and_kept_out(evaluated):
    assert evaluated["leakage"]["suspects"]["leak"] > 0.99
    assert evaluated["leakage"]["auc_with_suspects"] > evaluated["leakage"]["auc_without_suspects"] + 0.05
    assert any(line.startswith("leak was kept out") for line in evaluated["findings"])
    assert any("it does not count" in line for line in evaluated["findings"])


def test_missing_blocks_cost_what_they_carry(evaluated):
    whole, missing = evaluated["models"]["default"]["auc"], evaluated["missing"]
    assert missing["everywhere"]["imaging"]["auc"] < whole - 0.03
    assert missing["everywhere"]["noise"]["auc"] > whole - 0.03
    assert missing["everywhere"]["imaging"]["auc"] < missing["half"]["auc"] < whole


def test_stages_tell_what_the_next_test_was_worth(evaluated):
    stages = evaluated["stages"]
    assert [s["blocks"] for s in stages] == [["clinical"], ["clinical", "imaging"], ["clinical", "imaging", "noise"]]
    assert stages[1]["gained_bits"] > 0.05
    assert abs(stages[2]["gained_bits"]) < 0.05


def test_the_next_test_is_worth_what_it_carries(evaluated):
    first = {row["next"]: row for row in evaluated["next_test"] if row["known"] == ["clinical"]}
    assert first["imaging"]["interval"][0] > 0
    assert first["imaging"]["net_benefit_per_1000"] > 10
    low, high = first["noise"]["interval"]
    assert low < 0.01
    assert high < first["imaging"]["bits"]


@pytest.fixture(scope="module")
def trapped():
    """One table with every trap: emptiness that predicts, a drug that answers the outcome, blocks that add up, a sex that is missed."""
    rng = np.random.default_rng(5)
    n = 400
    sex = (np.arange(n) % 2).astype(float)
    z = rng.normal(size=(n, 3))
    y = (rng.random(n) < 1 / (1 + np.exp(-(1.6 * z.sum(axis=1) + 1.8 * sex - 1.6)))).astype(float)
    cell = np.where(rng.random(n) < 0.1 + 0.6 * y, np.nan, rng.normal(size=n))
    frame = pandas.DataFrame(
        {"a": z[:, 0], "b": z[:, 1], "c": z[:, 2], "d": cell, "sex": sex, "drug": (y + (rng.random(n) < 0.1) > 0.5) * 1.0}
    )
    blocks = {"one": Block("one", numeric=("a", "sex")), "two": Block("two", numeric=("b", "d")), "three": Block("three", numeric=("c",))}
    table = Table(frame, y, blocks, {"one": 1, "two": 2, "three": 3}, sex=sex, group=np.arange(n), suspects=("drug",))
    return evaluate(table, Settings(repeats=1, folds=4, models=("late_mean",)), lambda line: None)["findings"]


@pytest.mark.parametrize(
    "says",
    [
        "Which cells are empty predicts the outcome by itself",
        "told of every empty cell",
        "without it ([fusion] emptiness",
        "drug was kept out",
        "late_mean ranks as well but its probabilities are wrong",
        "Sensitivity differs by sex",
    ],
)
def test_every_trap_is_named(trapped, says):
    assert any(says in line for line in trapped), trapped


def test_a_site_without_a_block_gets_the_model_without_it():
    frame, y = drawn(300)
    site = np.repeat(["a", "c"], [200, 100])
    frame = frame.assign(c=np.where(site == "c", np.nan, frame.c))
    found = site_shift(table_of(frame, y, site=site), map)["c"]
    assert found["lacks"] == ["imaging"]
    assert found["all"]["brier"] == pytest.approx(found["without_lacking_blocks"]["brier"])


def test_overconfident_logits_are_recalibrated():
    rng = np.random.default_rng(3)
    z = rng.normal(size=600)
    y = (rng.random(600) < 1 / (1 + np.exp(-z))).astype(float)
    assert recalibration(3 * z, y)[1] == pytest.approx(1 / 3, abs=0.1)
    assert recalibration(z[:20], y[:20])[1] == pytest.approx(1.0, abs=0.35)


def test_sets_cover_what_they_promise(evaluated):
    assert 0.87 <= evaluated["conformal"]["coverage"] <= 0.93
    rng = np.random.default_rng(0)
    p = rng.random(4000)
    y = (rng.random(4000) < p).astype(float)
    assert conformal(y, p[None], Settings())["coverage"] == pytest.approx(0.9, abs=0.015)


def test_cox_finds_the_hazard_ratio():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 1))
    time = rng.exponential(1 / np.exp(0.7 * x[:, 0]))
    censored = rng.exponential(2.0, 800)
    fitted = RidgeCox(0.01).fit(x, np.minimum(time, censored), (time <= censored).astype(float))
    assert fitted.beta[0] == pytest.approx(0.7, abs=0.12)


STUDY = """
[table]
file = "t.csv"
[outcome]
column = "y"
[blocks.clinical]
numeric = ["a", "b"]
[blocks.imaging]
numeric = ["c"]
[evaluate]
repeats = 1
folds = 3
models = ["early", "late_stack"]
"""


def test_the_command_needs_one_file_and_leaves_a_report(tmp_path, capsys):
    frame, y = drawn(120)
    frame.assign(y=y.astype(int)).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "s.toml").write_text(STUDY)
    assert run(["fuse", str(tmp_path / "s.toml"), "-o", str(tmp_path / "out"), "--json", "--dry-run"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["patients"] > said["events"] > 0
    assert not (tmp_path / "out").exists()
    assert run(["fuse", str(tmp_path / "s.toml"), "-o", str(tmp_path / "out"), "--json", "--workers", "1"]) == 0
    found = json.loads((tmp_path / "out" / "fusion.json").read_text())
    assert {"only clinical", "only imaging", "early", "late_stack", "default"} == set(found["models"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not a medical device" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert json.loads((tmp_path / "out" / "model_card.json").read_text())["not_for"]
    before = (tmp_path / "out" / "fusion.json").read_bytes()
    assert run(["fuse", str(tmp_path / "s.toml"), "-o", str(tmp_path / "out2"), "--json", "--workers", "2"]) == 0
    assert (tmp_path / "out2" / "fusion.json").read_bytes() == before


def test_a_folder_of_studies_is_one_command(tmp_path, capsys):
    frame, y = drawn(90)
    frame.assign(y=y.astype(int)).to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "out"
    assert run(["fuse", str(tmp_path), "-o", str(out), "--workers", "1"]) == 2
    assert "holds no study" in capsys.readouterr().err
    quick = STUDY.replace('["early", "late_stack"]', '["early"]')
    for name, text in (("one", quick), ("two", quick.replace('["a", "b"]', '["b"]'))):
        (tmp_path / f"{name}.toml").write_text(text)
    assert run(["fuse", str(tmp_path), "-o", str(out), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["one", "two"]
    found = json.loads((out / "summary.json").read_text())
    assert set(found) == {"one", "two"}
    assert found["one"]["models"]["default"]["auc"] > found["two"]["models"]["default"]["auc"]
    assert all((out / name / "report.html").exists() for name in found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('"a", "b"', '"a", "bb"'), "'bb' is not a column"),
        (('column = "y"', 'column = "yy"'), "yy"),
        (("[evaluate]", "[evalute]"), "evalu"),
        (('"early", "late_stack"', '"erly"'), "unknown model"),
        (('file = "t.csv"', 'file = "u.csv"'), "u.csv"),
        (('"c"', '"y"'), "y"),
        (("repeats = 1", "repeats = 0"), "repeats"),
        (("folds = 3", 'folds = 3\ndrop = "echo"'), "echo"),
        (("[evaluate]", '[fusion]\nemptiness = "perhaps"\n[evaluate]'), "neither use, cells nor report"),
    ],
)
def test_wrong_studies_are_one_line(tmp_path, capsys, change, says):
    frame, y = drawn(60)
    frame.assign(y=y.astype(int)).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "s.toml").write_text(STUDY.replace(*change))
    assert run(["fuse", str(tmp_path / "s.toml"), "-o", str(tmp_path / "out"), "--workers", "1"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len([line for line in error.splitlines() if line.startswith("vtwin:")]) == 1


@pytest.mark.real
@REAL
@pytest.mark.parametrize("path", sorted(CASES.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_studies_are_read(path):
    table = load_table(load_study(path))
    assert len(table) > 200
    with pytest.raises(InputError, match="not a block"):
        evaluate(table, Settings(drop="nothing"), lambda line: None)


@pytest.mark.real
@pytest.mark.slow
@REAL
def test_cleveland_meets_its_baseline():
    """BASELINES.md, sections 1 and 2: what early fusion, stacking and pattern submodels reach."""
    found = evaluate(load_table(load_study(CASES / "cleveland.toml")), Settings(repeats=10, drop="imaging"), lambda line: None)
    main = found["models"]["default"]
    assert main["auc"] >= 0.907
    assert 0.8 <= main["calibration_slope"] <= 1.25
    assert main["ece"] <= 0.05
    assert found["gains_over_best_single"]["default"]["interval"][0] > 0
    assert 0.885 <= found["missing"]["half"]["auc"] <= 0.90
    assert found["missing"]["half"]["brier"] <= 0.134
    assert any("late_mean" in line for line in found["findings"])
    assert any("by sex" in line for line in found["findings"])


@pytest.mark.real
@pytest.mark.slow
@REAL
@pytest.mark.parametrize(
    ("study", "least_auc", "gains"), [("hf299", 0.766, True), ("cardiotoxicity", 0.685, False), ("mi_vt", 0.749, False)]
)
def test_other_tables_meet_their_baselines(study, least_auc, gains):
    """BASELINES.md, sections 4 to 6: early fusion there, by the one default."""
    found = evaluate(load_table(load_study(CASES / f"{study}.toml")), Settings(repeats=10), lambda line: None)
    main = found["models"]["default"]
    assert main["auc"] >= least_auc
    assert 0.8 <= main["calibration_slope"] <= 1.25
    assert 0.87 <= found["conformal"]["coverage"] <= 0.93
    assert found["gains_over_best_single"]["default"]["value"] > -0.01
    assert not gains or found["gains_over_best_single"]["default"]["interval"][0] > 0
