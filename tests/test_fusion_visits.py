"""Visits at irregular times: what is read from them at a landmark, and a recurrent model that knows how old a value is."""

import json

import numpy as np
import pandas
import pytest

from planners.app.cli import run
from twin.fusion import metrics
from twin.fusion.blocks import Block, Encoder
from twin.fusion.longitudinal import landmark, last_visits
from twin.fusion.models.registry import model

FADES_DAYS = 60.0


def visited(n, seed=0):
    """Visits (who, day up to 0, x) and outcomes that depend on all values of x, each fading with its age; a fifth was not measured."""
    rng = np.random.default_rng(seed)
    rows, y, truth = [], np.zeros(n), np.zeros(n)
    for who in range(n):
        day = np.sort(rng.uniform(-120, 0, rng.integers(2, 8)))
        x = rng.normal(size=len(day))
        truth[who] = 3 * (x * np.exp(day / FADES_DAYS)).sum()
        y[who] = rng.random() < 1 / (1 + np.exp(-truth[who]))
        rows += [(who, t, value if rng.random() > 0.2 else np.nan) for t, value in zip(day, x)]
    return pandas.DataFrame(rows, columns=["who", "day", "x"]), y, truth


def test_nothing_after_the_landmark_is_used():
    visits = pandas.DataFrame({"who": [1, 1, 1, 2], "day": [0.0, 10.0, 30.0, 25.0], "x": [1.0, 3.0, 99.0, 5.0]})
    found = landmark(visits, "who", "day", 20.0, ["x"])
    assert found.index.tolist() == [1]
    assert found.loc[1].tolist() == [3.0, pytest.approx(0.2), 10.0]
    flat, places = last_visits(visits, "who", "day", 20.0, ["x"], 3)
    assert places[-1] == ("age__visit2", "x__visit2")
    assert flat.loc[1, ["age__visit1", "x__visit1", "age__visit2", "x__visit2"]].tolist() == [20.0, 1.0, 10.0, 3.0]
    assert flat.loc[1, list(places[0])].isna().all()


def test_a_series_is_scaled_over_all_visits_and_keeps_what_was_seen():
    visits = pandas.DataFrame({"who": [1, 1, 2], "day": [0.0, 10.0, 15.0], "x": [1.0, np.nan, 3.0]})
    flat, places = last_visits(visits, "who", "day", 20.0, ["x"], 2)
    block = Block("visits", numeric=("x__visit1",), visits=places)
    series = Encoder({"visits": block}).fit(flat).transform(flat).series["visits"]
    assert series.values[:, :, 0].tolist() == [[-1.0, 0.0], [0.0, 1.0]]
    assert series.seen[:, :, 0].tolist() == [[True, False], [False, True]]
    # typical gap 10 days; the second patient has no visit in the first place
    assert series.age[0].tolist() == [2.0, 1.0]
    assert np.isnan(series.age[1, 0])


def test_the_recurrent_model_reads_time():
    pytest.importorskip("torch")
    visits, y, truth = visited(600)
    features, (last, places) = landmark(visits, "who", "day", 0.0, ["x"]), last_visits(visits, "who", "day", 0.0, ["x"], 8)
    frame = features.join(last).reindex(range(len(y)))
    train, test = np.arange(400), np.arange(400, 600)
    blocks = {
        "last": Block("visits", numeric=("x__last",)),
        "landmark": Block("visits", numeric=tuple(features.columns)),
        "recurrent": Block("visits", numeric=tuple(features.columns), visits=places),
    }

    fitted = {
        name: model("recurrent" if name == "recurrent" else "early", {"visits": block}).fit(frame.iloc[train], y[train])
        for name, block in blocks.items()
    }
    p = {name: one.predict_proba(frame.iloc[test])[:, 1] for name, one in fitted.items()}
    found = {name: metrics.auc(y[test], p[name]) for name in blocks}
    assert found["recurrent"] > found["last"] + 0.04
    assert found["recurrent"] > found["landmark"] + 0.03
    assert found["recurrent"] < metrics.auc(y[test], truth[test]) + 0.02
    # the same values long ago say less: what is said is nearer to what is said of anybody
    ages = [names[0] for names in places]
    old = fitted["recurrent"].predict_proba(frame.iloc[test].assign(**{name: frame[name].iloc[test] + 300.0 for name in ages}))[:, 1]
    assert np.std(old) < 0.9 * np.std(p["recurrent"])


STUDY = """
[table]
file = "t.csv"
id = "who"
[outcome]
column = "y"
[blocks.clinical]
numeric = ["a"]
[visits]
file = "v.csv"
time = "day"
landmark = 0
columns = ["x"]
[evaluate]
repeats = 1
folds = 3
models = ["recurrent"]
"""


def test_visits_are_a_block_of_a_study(tmp_path, capsys):
    pytest.importorskip("torch")
    visits, y, _ = visited(150)
    visits.to_csv(tmp_path / "v.csv", index=False)
    a = np.random.default_rng(1).normal(size=150)
    pandas.DataFrame({"who": np.arange(150), "y": y.astype(int), "a": a}).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "s.toml").write_text(STUDY)
    assert run(["fuse", str(tmp_path / "s.toml"), "-o", str(tmp_path / "out"), "--workers", "1"]) == 0
    models = json.loads((tmp_path / "out" / "fusion.json").read_text())["models"]
    assert models["only visits"]["auc"] > models["only clinical"]["auc"] + 0.1
    assert models["recurrent"]["auc"] > 0.6
    capsys.readouterr()
    for text, says in (
        (STUDY.replace("landmark = 0", "landmark = 0\nkeep = 0"), "visits.keep"),
        (STUDY.split("[visits]")[0] + STUDY.split('columns = ["x"]')[1], "no block has visits"),
    ):
        (tmp_path / "s.toml").write_text(text)
        assert run(["fuse", str(tmp_path / "s.toml"), "-o", str(tmp_path / "other"), "--workers", "1"]) == 2
        assert says in capsys.readouterr().err
