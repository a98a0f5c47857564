"""The clinical-style case as a whole: two VTs, no epicardial access, structures to spare, one VT on record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from planners.app.cli import run
from twin.case import load_case
from twin.io.ecg import read_ecg

CASE = Path(__file__).parents[1] / "cases" / "clinical_style"


def test_the_recorded_vt_is_the_one_of_the_truth():
    from planners.circuit_evidence import recorded_vts
    from twin.io.notes import Notes

    (vt,) = recorded_vts(load_case(CASE / "case.toml").clinical, Notes())
    truth = json.loads((CASE / "truth.json").read_text())
    assert vt["cycle_length_ms"] == pytest.approx(truth["recorded_vt"]["cycle_length_ms"], abs=6.0)
    assert read_ecg(CASE / "vt.csv").rhythm == "vt"
    inner, outer = truth["infarct"]["spec"]["isthmuses"]
    assert inner["depth"] == [0.0, 1.0]
    assert outer["depth"][0] > 0.0
    assert sum(p.stat().st_size for p in CASE.iterdir()) < 400_000


@pytest.mark.slow
def test_the_whole_case_meets_its_expectations(tmp_path, capsys):
    out = tmp_path / "out"
    status = run(["plan", str(CASE / "case.toml"), "-o", str(out)])
    text = capsys.readouterr().out
    assert status == 0, text
    plan = json.loads((out / "plan.json").read_text())
    (vt,) = plan["clinical_vts"]
    assert vt["match"] in [c["id"] for c in plan["circuits"]]
    assert f"recorded VT 'emergency room': like {vt['match']}" in text
    outer = np.asarray(json.loads((CASE / "truth.json").read_text())["isthmuses"][1]["polyline_mm"])
    matched = next(c for c in plan["circuits"] if c["id"] == vt["match"])
    assert np.linalg.norm(outer - np.asarray(matched["centre_mm"]), axis=1).min() < 10.0
    assert {t["surface"] for t in plan["targets"]} == {"lv_endo"}
    assert all(t["nearest"]["coronary_arteries"] >= 5.0 and t["nearest"]["phrenic_nerve"] >= 5.0 for t in plan["targets"])
    assert "circuit-VT1" in (out / "report.html").read_text()
