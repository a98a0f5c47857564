"""Published scores: worked examples, exact ranges over what is missing, refusals."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planners.app.cli import run
from twin.records.patient_file import inputs, parse_facts, read_facts
from twin.records.scores import SCORES

BY_NAME = {score.name: score for score in SCORES}
NOTHING = {"copd": 0, "age_years": 40, "ischaemic_cm": 0, "nyha": 1, "lvef_percent": 50, "electrical_storm": 0, "diabetes": 0}


def result(name, facts, output=0):
    return BY_NAME[name].answer(facts).results[output]


@pytest.mark.parametrize(
    ("changes", "points", "band"),
    [
        ({}, 0, "low"),
        ({"age_years": 61, "ischaemic_cm": 1}, 9, "intermediate"),
        ({"age_years": 60, "lvef_percent": 25, "nyha": 2, "diabetes": 1}, 3, "low"),
        ({"copd": 1, "age_years": 72}, 8, "low"),
        ({"age_years": 67, "ischaemic_cm": 1, "nyha": 3}, 15, "high"),
        ({"age_years": 61, "ischaemic_cm": 1, "nyha": 4, "lvef_percent": 24, "electrical_storm": 1, "diabetes": 1}, 26, "high"),
        ({"copd": 1, "age_years": 61, "ischaemic_cm": 1, "nyha": 4, "lvef_percent": 24, "electrical_storm": 1, "diabetes": 1}, 31, "high"),
    ],
)
def test_painesd_gives_the_published_points(changes, points, band):
    got = result("painesd", NOTHING | changes)
    assert (got["value"], got["band"]) == (points, band)


HCM_KEYS = ("age_years", "max_wall_thickness_mm", "left_atrial_diameter_mm", "lvot_gradient_mmhg", "family_history_scd", "nsvt", "syncope")


@pytest.mark.parametrize(
    ("values", "percent"),
    [
        ((50, 20, 44, 30, 0, 0, 0), 2.1499),
        ((50, 24, 46, 40, 0, 0, 0), 2.6616),
        ((45, 22, 44, 30, 0, 0, 1), 5.0955),
        ((46, 24, 44, 35, 0, 1, 0), 5.9659),
        ((30, 28, 50, 60, 1, 1, 1), 29.9429),
        ((115, 10, 28, 2, 0, 0, 0), 0.1930),
        ((16, 35, 67, 154, 1, 1, 1), 59.4158),
    ],
)
def test_hcm_risk_scd_gives_the_worked_examples(values, percent):
    assert result("hcm_risk_scd", dict(zip(HCM_KEYS, values)))["value"] == pytest.approx(percent, abs=5e-5)


ARVC_KEYS = ("male", "age_years", "syncope", "nsvt", "pvc_24h", "inverted_t_leads", "rvef_percent")


@pytest.mark.parametrize(
    ("values", "one", "two", "five"),
    [
        ((0, 48, 0, 0, 1, 4, 55), 0.886, 1.432, 2.386),
        ((1, 50, 0, 0, 312, 3, 48), 3.849, 6.166, 10.106),
        ((0, 22, 0, 1, 20527, 4, 28), 31.424, 45.758, 64.084),
        ((1, 15, 1, 0, 1800, 5, 66), 15.998, 24.624, 37.700),
        ((1, 35, 0, 1, 2000, 5, 40), 22.720, 34.160, 50.324),
    ],
)
def test_arvc_gives_the_worked_examples_with_the_corrected_baseline(values, one, two, five):
    answer = BY_NAME["arvc"].answer(dict(zip(ARVC_KEYS, values)))
    assert [r["value"] for r in answer.results] == pytest.approx([one, two, five], abs=6e-4)


def test_arvc_without_ventricular_complexes_takes_their_term_as_nothing():
    """risk_scores.md, section 3: male of 15, syncope, TWI 5, RVEF 66; said in the notes, since the article leaves it open."""
    answer = BY_NAME["arvc"].answer(dict(zip(ARVC_KEYS, (1, 15, 1, 0, 0, 5, 66))))
    assert answer.results[-1]["value"] == pytest.approx(12.386, abs=6e-4)
    assert any("no complexes" in note for note in answer.notes)


@pytest.mark.parametrize(
    ("name", "keys", "values", "total"),
    [
        ("hcm_risk_scd", HCM_KEYS, (50, 20, 44, 30, 0, 0, 0), 2.384721),
        ("hcm_risk_scd", HCM_KEYS, (16, 35, 67, 154, 1, 1, 1), 6.110236),
        ("arvc", ARVC_KEYS, (0, 48, 0, 0, 1, 4, 55), -1.9800),
        ("arvc", ARVC_KEYS, (0, 22, 0, 1, 20527, 4, 28), 1.767407),
    ],
)
def test_linear_predictors_are_those_of_the_worked_examples(name, keys, values, total):
    facts = dict(zip(keys, values))
    assert sum(term.bounds(facts)[0] for term in BY_NAME[name].terms) == pytest.approx(total, abs=1e-6)


SEATTLE_CASE = {
    "age_years": 65, "male": 1, "nyha": 3, "lvef_percent": 20, "ischaemic_cm": 1, "systolic_mmhg": 120,
    "diuretic_mg_per_kg_day": 1.0, "sodium_mmol_l": 137,
    "cholesterol_mg_dl": 190, "haemoglobin_g_dl": 13.6, "lymphocytes_percent": 24, "uric_acid_mg_dl": 9,
    **dict.fromkeys(("allopurinol", "statin", "ace_inhibitor", "beta_blocker", "arb", "k_sparing_diuretic", "icd", "crt_d"), 0),
}  # fmt: skip


@pytest.mark.parametrize(
    ("treated", "survival"),
    [
        ((), (76.74, 58.89, 45.19, 26.62)),
        (("ace_inhibitor", "beta_blocker", "statin", "k_sparing_diuretic", "icd"), (95.52, 91.25, 87.17, 79.54)),
    ],
)
def test_seattle_gives_the_worked_examples(treated, survival):
    answer = BY_NAME["seattle"].answer(SEATTLE_CASE | dict.fromkeys(treated, 1))
    assert [r["value"] for r in answer.results] == pytest.approx(survival, abs=6e-3)


def test_the_seattle_sum_is_the_published_one():
    for treated, total in (((), 1.877429), (("ace_inhibitor", "beta_blocker", "statin", "k_sparing_diuretic", "icd"), 0.122698)):
        facts = SEATTLE_CASE | dict.fromkeys(treated, 1)
        assert sum(term.bounds(facts)[0] for term in BY_NAME["seattle"].terms) == pytest.approx(total, abs=1e-6)


@given(st.data())
def test_the_range_over_missing_inputs_holds_every_completion(data):
    score = data.draw(st.sampled_from([s for s in SCORES if s.computable]))
    full = {i.key: float(data.draw(st.integers(0, 1) if i.is_flag else st.floats(i.low, i.high))) for i in score.inputs}
    known = {key: value for key, value in full.items() if data.draw(st.booleans())}
    got, exact = score.answer(known), score.answer(full)
    if exact.status != "complete" or not got.results:
        return
    for wide, narrow in zip(got.results, exact.results):
        assert wide["low"] - 1e-9 <= narrow["value"] <= wide["high"] + 1e-9
    assert set(got.missing) == set(full) - set(known)


def test_the_range_is_attained_at_the_wall_thickness_where_the_quadratic_turns():
    facts = dict(zip(HCM_KEYS, (50, None, 44, 30, 0, 0, 0)))
    known = {k: v for k, v in facts.items() if v is not None}
    best = max(result("hcm_risk_scd", known | {"max_wall_thickness_mm": 10 + 0.01 * k})["value"] for k in range(2501))
    assert result("hcm_risk_scd", known)["high"] == pytest.approx(best, rel=1e-5)


def test_scores_are_not_used_where_they_do_not_hold():
    assert BY_NAME["hcm_risk_scd"].answer({"hcm": 0.0}).status == "not_applicable"
    assert BY_NAME["hcm_risk_scd"].answer({"age_years": 12}).status == "not_applicable"
    assert BY_NAME["hcm_risk_scd"].answer({"sustained_vt": 1.0}).status == "not_applicable"
    assert BY_NAME["arvc"].answer({"cardiac_arrest": 1.0}).status == "not_applicable"
    outside = BY_NAME["hcm_risk_scd"].answer({"max_wall_thickness_mm": 42.0})
    assert outside.status == "out_of_range"
    assert outside.results == ()
    assert BY_NAME["i_vt"].answer({"lvef_percent": 30.0}).status == "not_computable"


def test_a_device_counts_once():
    pairs = [
        BY_NAME["seattle"].answer(SEATTLE_CASE | {"icd": i, "crt_d": c}).results[0]["value"] for i, c in itertools.product((0, 1), (0, 1))
    ]
    assert pairs[1] == pairs[3]
    assert pairs[2] > pairs[1] > pairs[0]


def test_units_synonyms_and_classes_are_read():
    facts = parse_facts({"age": 61, "ef": "24 %", "nyha": "III", "sex": "female", "left_atrial_diameter": "4.4 cm", "copd": None}, "p.json")
    assert facts == {
        "age_years": 61.0,
        "lvef_percent": pytest.approx(24.0),
        "nyha": 3.0,
        "male": 0.0,
        "left_atrial_diameter_mm": pytest.approx(44.0),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not readable JSON"),
        ("[1]", "not a JSON object"),
        ('{"agee": 60}', "did you mean"),
        ('{"age": 60, "age": 61}', "twice"),
        ('{"age": 60, "age_years": 61}', "twice"),
        ('{"lvef": 250}', "not between"),
        ('{"lvef": "30 mm"}', "cannot be read"),
        ('{"nyha": 2.5}', "whole number"),
        ('{"copd": "perhaps"}', "not yes or no"),
        ('{"age": NaN}', "not finite"),
        ('{"sex": "m"}', "male or female"),
    ],
)
def test_a_wrong_patient_file_is_refused_in_one_line(tmp_path, capsys, text, says):
    path = tmp_path / "p.json"
    path.write_text(text)
    assert run(["risk", str(path)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_the_command_prints_json_and_a_template(tmp_path, capsys):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(NOTHING | {"age_years": 67, "ischaemic_cm": True, "nyha": "III"}))
    assert run(["risk", str(path), "--json"]) == 0
    answers = {a["name"]: a for a in json.loads(capsys.readouterr().out)}
    assert answers["painesd"]["results"][0]["value"] == 15
    assert "sodium_mmol_l" in answers["seattle"]["missing"]
    assert run(["risk", "--template"]) == 0
    assert json.loads(capsys.readouterr().out) == dict.fromkeys(inputs()), "`vtwin risk --template > patient.json` makes the file"
    assert run(["risk", "--template", "--json"]) == 0
    assert {i["key"] for i in json.loads(capsys.readouterr().out)} == set(inputs())
    assert run(["risk"]) == 2


def test_the_record_of_a_case_is_a_patient_file():
    facts = read_facts(Path(__file__).parents[1] / "cases" / "demo" / "patient.json")
    assert facts == {
        "age_years": 63,
        "diabetes": 0,
        "icd": 1,
        "ischaemic_cm": 1,
        "lvef_percent": 34,
        "nyha": 2,
        "male": 1,
        "hcm": 0,
        "arvc": 0,
    }
