"""What a trial says: the protocol's parser and freeze, enrolment, analysis against direct computation, report, verification."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from planners.app.cli import run
from planners.trials import protocol_file
from planners.trials.analysis import _at_looks, analyse, looks_of
from planners.trials.design import Enrolment, enrolled
from planners.trials.executors import Execution, InProcess
from planners.trials.job import Job, Row
from planners.trials.parameters import MEASURES
from planners.trials.read_trial import read_trial
from planners.trials.results import write_results
from planners.trials.scheduler import Progress, Scheduler
from planners.trials.store import Store
from planners.trials.table import open_table
from planners.trials.trial import Trial, from_dict

SHIPPED = Path(__file__).parents[1] / "cases" / "trial" / "trial.toml"
TRIAL = """
name = "toy"
title = "A toy"
seed = 3
fidelity = "toy"

[population]
virtual = 20
include = { inducible = true }
plausible = { qrs_ms = [60, 115] }

[pacing]
posterior_samples = 3

[[arm]]
name = "none"

[[arm]]
name = "transection"
strategy = "isthmus_transection"

[[arm]]
name = "homogenisation"
strategy = "border_homogenisation"
max_volume = "30 mL"

[primary]
outcome = "non_inducible"
compare = ["transection", "none"]

[[secondary]]
outcome = "non_inducible"
compare = ["transection", "homogenisation"]
test = "non_inferiority"
margin = 0.15

[[secondary]]
outcome = "lesion_volume_ml"
compare = ["transection", "homogenisation"]

[[secondary]]
outcome = "healthy_lost_ml"
compare = ["transection", "homogenisation"]

[analysis]
looks = [0.5, 1.0]
bootstrap = 400
"""


def _write(folder: Path, text: str = TRIAL) -> Path:
    path = folder / "trial.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    assert run(["cohort", str(_write(folder)), "-o", str(folder / "out"), "--executor", "in_process"]) == 0
    return folder / "out"


WRONG = {
    "unknown table": (("[pacing]", "[pacnig]"), "pacing"),
    "unknown key": (("virtual = 20", "virtul = 20"), "virtual"),
    "unknown strategy": (('"isthmus_transection"', '"isthmus_transecton"'), "isthmus_transection"),
    "unknown arm": (('["transection", "none"]', '["transecton", "none"]'), "transection"),
    "unknown outcome": (('outcome = "non_inducible"', 'outcome = "non_inducable"'), "non_inducible"),
    "unknown measure": (("{ inducible = true }", "{ induceable = true }"), "inducible"),
    "range upside down": (("{ inducible = true }", "{ qrs_ms = [120, 80] }"), "upside down"),
    "no margin": (("margin = 0.15", ""), "margin"),
    "looks do not end": (("[0.5, 1.0]", "[0.5, 0.9]"), "looks"),
    "two arms alike": (('name = "homogenisation"', 'name = "none"'), "different names"),
    "impossible lesion": (('max_volume = "30 mL"', 'lesion_radius = "30 mm"'), "lesion_radius"),
    "unit of another kind": (('max_volume = "30 mL"', 'max_volume = "30 mm"'), "max_volume"),
    "one twin": (("virtual = 20", "virtual = 1"), "virtual"),
    "folder and virtual": (("virtual = 20", 'virtual = 20\nfolder = "x"'), "not both"),
    "unknown site": (("posterior_samples = 3", 'sites = ["aha44"]'), "did you mean"),
    "unknown protocol": (("posterior_samples = 3", 'protocol = "quik"'), "quick"),
    "energy beside sizes": (('max_volume = "30 mL"', 'energy = { source = "pfa" }\nlesion_depth = "5 mm"'), "energy"),
    "unknown energy": (('max_volume = "30 mL"', 'energy = { source = "laser" }'), "rf, pfa, cryo"),
    "energy that is impossible": (('max_volume = "30 mL"', 'energy = { source = "rf", power_w = 500 }'), "power_w"),
    "unknown drug": (('max_volume = "30 mL"', 'drug = { name = "amiodaron", concentration = "1 umol/L" }'), "amiodarone"),
    "drug without concentration": (('max_volume = "30 mL"', 'drug = { name = "sotalol" }'), "concentration"),
    "search on a scar that is not there": (('max_volume = "30 mL"', 'search = true\nscar_shift = "1 mm"'), "search"),
    "not TOML": (("seed = 3", "seed = "), "TOML"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_protocol_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (before, after), said = WRONG[name]
    assert before in TRIAL
    assert run(["cohort", str(_write(tmp_path, TRIAL.replace(before, after, 1))), "-o", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


def test_the_shipped_trial_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    trial, _ = read_trial(SHIPPED)
    assert (trial.population.virtual, len(trial.arms), trial.fidelity) == (24, 3, "quick")
    assert from_dict(json.loads(json.dumps(trial.as_dict()))) == trial
    assert run(["cohort", str(SHIPPED), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] < 30 * 60


def test_a_begun_trial_is_frozen(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    changed = _write(tmp_path, TRIAL.replace("margin = 0.15", "margin = 0.2"))
    assert run(["cohort", str(changed), "-o", str(out)]) == 2
    line = capsys.readouterr().err
    assert "margin: 0.15 -> 0.2" in line
    assert "--amend" in line
    assert run(["cohort", str(changed), "-o", str(out), "--executor", "in_process", "--amend", "the steering committee asked for it"]) == 0
    record = protocol_file.read(out)
    assert [a["why"] for a in record["amendments"]] == ["the steering committee asked for it"]
    assert record["amendments"][0]["changes"] == [{"key": "secondary[0].margin", "before": 0.15, "after": 0.2}]
    assert "steering committee" in (out / "report.html").read_text()
    assert (out / "results.parquet").read_bytes() == (finished / "results.parquet").read_bytes(), "a margin changes no result"
    assert run(["cohort", str(changed), "-o", str(out), "--amend", "again"]) == 2

    text = (out / "trial.json").read_text()
    (out / "trial.json").write_text(text.replace('"margin": 0.2', '"margin": 0.4'))
    assert run(["cohort", str(out), "--resume"]) == 2
    assert "changed after the start" in capsys.readouterr().err


def test_other_folders_are_left_alone(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert run(["cohort", str(_write(tmp_path)), "-o", str(tmp_path / "mine")]) == 2
    assert "not of a trial" in capsys.readouterr().err
    other = _write(tmp_path, TRIAL.replace('name = "toy"', 'name = "other"', 1))
    assert run(["cohort", str(other), "-o", str(finished)]) == 2
    assert "another trial" in capsys.readouterr().err
    assert run(["cohort", str(tmp_path), "--status"]) == 2


def _enrol(trial: Trial, results: dict[int, Row], seed: int) -> list[int]:
    """Candidates that take part when results arrive in some order."""
    design, rng = Enrolment(trial, Path()), random.Random(seed)
    waiting = list(design.first())
    taken = []
    while True:
        while waiting:
            job = waiting.pop(rng.randrange(len(waiting)))
            if job.kind == "toy_twin":
                row = results[job.ordinal]
                waiting.extend(design.after(job, row))
                taken += [job.ordinal] if enrolled(row) else []
        more = design.idle()
        if not more:
            return sorted(taken)
        waiting.extend(more)


def test_enrolment_does_not_depend_on_the_order_of_results(tmp_path: Path) -> None:
    trial, _ = read_trial(_write(tmp_path))
    for case in range(5):
        chance = np.random.default_rng(case)
        results: dict[int, Row] = {k: {"implausible": [], "excluded": ["x"] if chance.random() < 0.4 else []} for k in range(400)}
        first = [k for k in range(400) if enrolled(results[k])][:20]
        assert all(_enrol(trial, results, seed) == first for seed in range(3))


def test_endpoints_against_statsmodels_and_pandas(finished: Path) -> None:
    found = json.loads((finished / "analysis.json").read_text())
    table = pd.read_parquet(finished / "results.parquet")
    mode = table[table["sample"] == 0].pivot(index="twin", columns="arm", values="non_inducible")
    counts = pd.crosstab(mode["transection"], mode["none"]).reindex(index=[True, False], columns=[True, False], fill_value=0)
    primary = found["primary"]
    assert primary["p"] == pytest.approx(mcnemar(counts.to_numpy(), exact=True).pvalue)
    assert primary["difference"] == pytest.approx(mode["transection"].mean() - mode["none"].mean())
    arm = primary["arms"][0]
    assert arm["interval"] == pytest.approx(proportion_confint(arm["successes"], arm["n"], method="wilson"))
    mean = table.groupby(["twin", "arm"])["non_inducible"].mean().unstack()
    assert primary["posterior"]["value"] == pytest.approx((mean["transection"] - mean["none"]).mean())
    assert 0 < primary["posterior"]["share_of_variance"] < 1

    volume = table[table["sample"] == 0].pivot(index="twin", columns="arm", values="lesion_volume_ml")
    second = found["secondary"][1]
    assert second["difference"] == pytest.approx((volume["transection"] - volume["homogenisation"]).mean())
    assert second["interval"][0] < second["difference"] < second["interval"][1]
    raw = [e["p"] for e in found["secondary"] if e["p"] is not None]
    assert sorted(e["p_holm"] for e in found["secondary"] if "p_holm" in e)[0] == pytest.approx(2 * min(raw)), "Holm over the two that test"
    assert found["secondary"][0]["p"] is None, "non-inferiority is decided by its interval"
    assert found["harms"][0]["arms"]["homogenisation"]["mean"] == pytest.approx(volume["homogenisation"].mean())


def test_with_looks_an_endpoint_is_met_at_a_boundary_and_not_at_alpha(tmp_path: Path) -> None:
    trial, _ = read_trial(_write(tmp_path))
    one, _ = read_trial(_write(tmp_path, TRIAL.replace("looks = [0.5, 1.0]\n", "")))
    primary = {"met": True, "p": 0.04}
    assert _at_looks(primary, [{"crossed": False, "z": 2.05}], trial) == {"met": False}
    assert _at_looks(primary, [{"crossed": True, "z": 3.1}], trial) == {"met": True}
    assert _at_looks(primary, [{"crossed": True, "z": -3.1}], trial) == {"met": False}, "that is the wrong way"
    assert _at_looks(primary, [{"crossed": False, "z": 2.05}], one) == {}


def test_looks_use_the_first_twins_alone(finished: Path) -> None:
    found = json.loads((finished / "analysis.json").read_text())
    table = pd.read_parquet(finished / "results.parquet")
    mode = table[table["sample"] == 0].pivot(index="candidate", columns="arm", values="non_inducible").sort_index()
    for look in found["looks"]:
        part = mode.head(look["twins"])
        b, c = (part["transection"] & ~part["none"]).sum(), (~part["transection"] & part["none"]).sum()
        assert look["z"] == pytest.approx((b - c) / np.sqrt(b + c))
    assert found["looks"][0]["boundary"] == pytest.approx(2.963, abs=2e-3), "O'Brien-Fleming at one half, alpha 0.05 (Lan and DeMets 1983)"
    assert found["looks"][1]["boundary"] == pytest.approx(1.969, abs=2e-3)


def test_a_trial_that_may_stop_stops_at_its_look(tmp_path: Path) -> None:
    text = TRIAL.replace("[0.5, 1.0]", "[0.75, 1.0]\nstop = true")
    assert run(["cohort", str(_write(tmp_path, text)), "-o", str(tmp_path / "out"), "--executor", "in_process"]) == 0
    twins = pd.read_parquet(tmp_path / "out" / "twins.parquet")
    found = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert found["looks"][0]["crossed"]
    assert len(found["looks"]) == 1
    assert (twins["state"] == "enrolled").sum() == 15


def test_flow_counts_every_candidate(finished: Path) -> None:
    flow = json.loads((finished / "analysis.json").read_text())["flow"]
    twins = pd.read_parquet(finished / "twins.parquet")
    assert flow["assessed"] == len(twins) == sum(flow[s] for s in ("enrolled", "implausible", "excluded", "failed"))
    assert flow["enrolled"] == 20
    assert flow["implausible"] > 0
    assert flow["excluded"] == (~twins.loc[twins["state"] == "excluded", "inducible"].astype(bool)).sum()
    assert set(flow["reasons"]["implausible"]) <= set(MEASURES)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.outside: list[str] = []
        self.drawings = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids |= {found["id"] or ""} if "id" in found else set()
        self.links += [found["href"] or ""] if tag == "a" else []
        self.outside += [v or "" for k, v in attributes if k in ("src", "href") and (v or "").startswith(("http", "//"))]
        self.drawings += tag == "svg"


def test_the_report_is_one_file_with_every_part(finished: Path) -> None:
    text = (finished / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.outside == []
    assert {link[1:] for link in page.links} <= page.ids, "every link leads somewhere in the file"
    assert {"flow", "baseline", "primary", "secondary", "subgroups", "harms", "twins", "protocol", "reproduce"} <= page.ids
    assert page.drawings >= 8
    assert "no heart was made" in text, "a toy says that it is one"
    assert protocol_file.read(finished)["hash"] in text
    twins = pd.read_parquet(finished / "twins.parquet")
    assert set(twins.loc[twins["state"] == "enrolled", "twin"]) <= page.ids


def test_a_moved_trial_verifies_and_a_changed_one_does_not(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = Path(shutil.copytree(finished, tmp_path / "elsewhere"))
    assert run(["cohort", "--verify", str(moved), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    twins, arms = len(pd.read_parquet(moved / "twins.parquet")), 20 * 3
    assert value == {"checked": -(-(twins + arms) // 20), "differing": []}
    db = sqlite3.connect(moved / "jobs.sqlite")
    db.execute("UPDATE job SET row = replace(row, '\"non_inducible\":false', '\"non_inducible\":true') WHERE kind = 'toy_arm'")
    db.commit()
    db.close()
    assert run(["cohort", "--verify", str(moved), "--share", "1", "--json"]) == 1
    differing = json.loads(capsys.readouterr().out)["differing"]
    assert any("results.parquet" in line for line in differing)
    assert any("another result" in line for line in differing)


def test_results_can_be_read_while_the_trial_runs(tmp_path: Path) -> None:
    trial, _ = read_trial(_write(tmp_path))
    table, _ = open_table(tmp_path / "jobs.sqlite")
    path = tmp_path / "results.parquet"
    seen: list[int] = []

    def look(progress: Progress) -> None:
        write_results(table, trial, path)
        seen.append(duckdb.sql(f"SELECT COUNT(*) FROM '{path}'").fetchall()[0][0])

    class Committing(Scheduler):
        def _commit(self, now: bool = False) -> None:
            super()._commit(now=True)

    executor = InProcess(Execution(), tmp_path / "store", print)
    Committing(table, Store(tmp_path / "store", "main"), executor, Enrolment(trial, Path()), Execution(), look).run()
    assert seen == sorted(seen)
    assert len(set(seen)) > 20
    assert seen[-1] == 20 * 3 * 3
    assert analyse(table, trial)["primary"]["n"] == 20


def test_a_missing_result_is_counted_and_left_out(tmp_path: Path) -> None:
    trial, _ = read_trial(_write(tmp_path))
    table, _ = open_table(tmp_path / "jobs.sqlite")

    class Failing(InProcess):
        def submit(self, job: Job) -> None:
            if job.kind == "toy_arm" and job.ordinal % 3 == 1 and job.ordinal < 20:
                job = Job(job.key, job.kind, job.ordinal, {**job.spec, "samples": "none"}, job.needs)
            super().submit(job)

    executor = Failing(Execution(), tmp_path / "store", print)
    Scheduler(table, Store(tmp_path / "store", "main"), executor, Enrolment(trial, Path()), Execution()).run()
    found = analyse(table, trial)
    hit = sum(e.state == "failed" for e in table.entries("toy_arm"))
    assert hit >= 1
    assert found["primary"]["missing"] == hit
    assert found["primary"]["n"] == 20 - hit
    assert len(found["failures"]) == hit
    assert "ValueError" in found["failures"][0]["problem"]


def _keys(jobs: Sequence[Job]) -> list[str]:
    return [job.key for job in jobs]


def test_keys_depend_on_what_decides_a_result_and_on_nothing_else(tmp_path: Path) -> None:
    trial, _ = read_trial(_write(tmp_path))
    base = Enrolment(trial, Path())
    twin = base.candidate(3)
    renamed, _ = read_trial(_write(tmp_path, TRIAL.replace('title = "A toy"', 'title = "B"').replace("margin = 0.15", "margin = 0.3")))
    assert _keys(Enrolment(renamed, Path()).arms(twin)) == _keys(base.arms(twin))
    deeper, _ = read_trial(_write(tmp_path, TRIAL.replace('max_volume = "30 mL"', 'max_volume = "20 mL"')))
    before, after = _keys(base.arms(twin)), _keys(Enrolment(deeper, Path()).arms(twin))
    assert before[:2] == after[:2]
    assert before[2] != after[2]
    assert Enrolment(read_trial(_write(tmp_path, TRIAL.replace("seed = 3", "seed = 4")))[0], Path()).candidate(3).key != twin.key


def test_no_looks_before_their_twins_are_there(finished: Path) -> None:
    from planners.trials.outcomes import outcomes_of
    from planners.trials.table import Table

    trial = protocol_file.frozen_trial(finished)
    table = Table(finished / "jobs.sqlite", read_only=True)
    data = outcomes_of(table, trial)
    table.close()
    assert [k["twins"] for k in looks_of(data.head(12), trial)] == [10]
    assert looks_of(data.head(4), trial) == []
