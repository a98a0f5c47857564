"""Facts from coded sources and from the details of free text: values, units, doses, damage, and the second reader."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planners.app.cli import run
from twin.errors import InputError
from twin.io.fhir import read_bundle
from twin.io.omop import read_mapped, read_omop
from twin.records.text.extract import extract
from twin.records.ucum import ANALYTES, converted


def details(text):
    return extract(text)["details"]


@pytest.mark.parametrize(
    ("text", "name", "daily", "status"),
    [
        ("Takes amiodarone 200 mg od.", "amiodarone", 200, "present"),
        ("Sotalol 80 mg bd, bisoprolol 5 mg.", "sotalol", 160, "present"),
        ("Furosemide 40 mg 1-0-1.", "furosemide", 80, "present"),
        ("Mexiletine 200 mg three times daily", "mexiletine", 600, "present"),
        ("Digoxin 125 mcg once daily", "digoxin", 0.125, "present"),
        ("Amiodarone was stopped because of thyroiditis.", "amiodarone", None, "historical"),
        ("Allergic to aspirin.", "aspirin", None, "absent"),
        ("No amiodarone.", "amiodarone", None, "absent"),
        ("Consider sotalol if VT recurs.", "sotalol", None, None),
    ],
)
def test_drugs_have_daily_doses_and_a_status(text, name, daily, status):
    found = {d["name"]: d for d in details(text)["drugs"]}[name]
    assert found["mg_per_day"] == (None if daily is None else pytest.approx(daily))
    assert status is None or found["status"] == status


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("QRS duration 142 ms", "qrs_ms", 142),
        ("QTc 468 ms (Bazett)", "qtc_ms", 468),
        ("Agatston score of 412.", "cac", 412),
        ("CAD-RADS 4A", "cad_rads", "4A"),
        ("Maximal wall thickness 2.1 cm", "wall_thickness_mm", 21),
        ("50-75% transmural enhancement", "transmurality_percent", [50, 75]),
        ("A 67-year-old woman", "age_years", 67),
        ("A 67-year-old woman", "sex", "female"),
        ("QRS 142 ms. Mr Smith", "sex", "male"),
        ("His father died, aged 50", "age_years", None),
    ],
)
def test_single_values_of_the_text(text, key, value):
    assert details(text)[key] == value


def test_laboratory_values_come_in_one_unit_each():
    labs = {
        one["name"]: one
        for one in details("Creatinine 124 umol/L, potassium 4.1 mEq/L, Hb 132 g/L, HbA1c 53 mmol/mol, K 41 mmol/L")["labs"]
    }
    assert labs["creatinine"] == {"name": "creatinine", "value": pytest.approx(1.4024, abs=1e-3), "unit": "mg/dL"}
    assert labs["haemoglobin"]["value"] == pytest.approx(13.2)
    assert labs["hba1c"]["value"] == pytest.approx(7.0, abs=0.01)
    assert labs["potassium"]["value"] == 4.1  # 41 mmol/L is a slip and no value


def test_shocks_are_counted_with_their_status():
    found = details("Two appropriate ICD shocks in June. No shocks since. Cardiogenic shock in 2019.")["shocks"]
    assert [(s["count"], s["kind"], s["status"]) for s in found] == [(2, "appropriate", found[0]["status"]), (0, None, "absent")]


@given(st.sampled_from(sorted(ANALYTES)), st.floats(allow_nan=True, allow_infinity=True), st.text(max_size=8))
def test_a_converted_value_is_one_that_a_patient_can_have(name, value, unit):
    try:
        number = converted(name, value, unit, "here", "field")
    except InputError:
        return
    assert ANALYTES[name].low <= number <= ANALYTES[name].high


def observation(code, value, unit, date="2024-05-01", **more):
    quantity = {"value": value, "code": unit}
    return {
        "resourceType": "Observation",
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": date,
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "valueQuantity": quantity,
        **more,
    }


def bundle(*resources):
    patient = {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1950-06-01", "name": [{"family": "Secret"}]}
    return {"resourceType": "Bundle", "entry": [{"resource": r} for r in (patient, *resources)]}


def condition(code, **more):
    return {"resourceType": "Condition", "subject": {"reference": "Patient/p1"}, "code": {"coding": [{"code": code}]}, **more}


AMIODARONE = {
    "resourceType": "MedicationRequest",
    "status": "active",
    "subject": {"reference": "Patient/p1"},
    "medicationCodeableConcept": {"text": "Amiodarone hydrochloride 200 MG Oral Tablet"},
    "dosageInstruction": [
        {
            "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}},
            "doseAndRate": [{"doseQuantity": {"value": 200, "code": "mg"}}],
        }
    ],
}


def test_a_bundle_gives_the_keys_of_text_and_no_names(tmp_path):
    path = tmp_path / "bundle.json"
    refuted = condition("13645005", verificationStatus={"coding": [{"code": "refuted"}]})
    resources = (
        condition("44054006"),
        condition("I25.5"),
        refuted,
        observation("2160-0", 124, "umol/L"),
        observation("2160-0", 110, "umol/L", "2023-01-01"),
        observation("10230-1", 32, "%"),
        observation("8636-3", 0.47, "s"),
        AMIODARONE,
    )
    path.write_text(json.dumps(bundle(*resources)))
    (row,) = read_bundle(path)
    text = json.dumps(row)
    assert "Secret" not in text
    assert "p1" not in text
    assert "1950" not in text
    assert {(e["concept"], e["status"]) for e in row["entities"]} == {
        ("diabetes", "present"),
        ("ischaemic_cm", "present"),
        ("copd", "absent"),
    }
    assert row["lvef"] == [32.0, 32.0]
    assert row["details"]["qtc_ms"] == pytest.approx(470)
    assert row["details"]["age_years"] == 73
    assert row["details"]["sex"] == "female"
    assert row["details"]["labs"][0]["value"] == pytest.approx(1.4024, abs=1e-3)
    assert row["details"]["drugs"] == [{"name": "amiodarone", "mg_per_day": 200.0, "status": "present"}]
    assert set(row) == set(extract("")) | {"id"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b | {"resourceType": "Patient"}, "Bundle"),
        (lambda b: b | {"entry": [{"resource": observation("2160-0", 124, "stone")}]}, "unit"),
        (lambda b: b | {"entry": [{"resource": observation("2160-0", 1e9, "umol/L")}]}, "no patient has"),
        (lambda b: b | {"entry": [{"resource": observation("2160-0", "high", "umol/L")}]}, "number"),
        (lambda b: b | {"entry": [{"resource": observation("2160-0", 124, "umol/L", "yesterday")}]}, "ISO 8601"),
        (lambda b: b | {"entry": [7]}, "no resource"),
    ],
)
def test_wrong_bundles_are_one_line_and_leave_nothing(tmp_path, capsys, change, says):
    path, out = tmp_path / "bundle.json", tmp_path / "facts.jsonl"
    path.write_text(json.dumps(change(bundle())))
    assert run(["extract", str(path), "-o", str(out)]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_damaged_bundle_is_refused_or_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fhir") / "bundle.json"
    good = json.dumps(bundle(condition("I50.9"), observation("2160-0", 124, "umol/L"), AMIODARONE)).encode()
    at = data.draw(st.integers(0, len(good) - 1))
    kind = data.draw(st.sampled_from(["cut", "byte"]))
    path.write_bytes(good[:at] if kind == "cut" else good[:at] + data.draw(st.binary(min_size=1, max_size=3)) + good[at + 1 :])
    with contextlib.suppress(InputError):
        list(read_bundle(path))


def omop(folder, **changes):
    tables = {
        "person": "person_id,gender_concept_id,year_of_birth\n11,8507,1950\n12,8532,1960\n",
        "concept": "concept_id,concept_code,concept_name\n1,I50.9,Heart failure\n2,2160-0,Cr\n3,umol/L,\n4,x,amiodarone 200 MG\n",
        "condition_occurrence": "person_id,condition_concept_id,condition_source_value,condition_end_date\n11,1,,\n12,0,J44.9,\n",
        "measurement": "person_id,measurement_concept_id,measurement_date,value_as_number,unit_concept_id\n11,2,2024-05-01,124,3\n",
        "drug_exposure": "person_id,drug_concept_id,drug_exposure_end_date\n11,4,\n12,4,2020-01-01\n",
    } | changes
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_an_omop_folder_is_joined_by_person(tmp_path):
    first, second = read_omop(omop(tmp_path))
    assert first["entities"] == [{"concept": "hf", "status": "present"}]
    assert second["entities"] == [{"concept": "copd", "status": "present"}]
    assert first["details"]["sex"] == "male"
    assert first["details"]["age_years"] == 74
    assert first["details"]["labs"][0]["value"] == pytest.approx(1.4024, abs=1e-3)
    assert [row["details"]["drugs"][0]["status"] for row in (first, second)] == ["present", "historical"]
    assert (first["id"], second["id"]) == (1, 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"person": "id\n1\n"}, "person_id"),
        ({"measurement": "person_id,value_as_number\n99,1\n"}, "not in person.csv"),
        (
            {"measurement": "person_id,measurement_concept_id,measurement_date,value_as_number,unit_concept_id\n11,2,2024-13-01,1,3\n"},
            "not a date",
        ),
        ({"person": "person_id,year_of_birth\n11\n"}, "cells"),
    ],
)
def test_wrong_omop_tables_are_one_line(tmp_path, capsys, changes, says):
    out = tmp_path / "facts.jsonl"
    folder = tmp_path / "omop"
    folder.mkdir()
    assert run(["extract", str(omop(folder, **changes)), "-o", str(out)]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


MAPPING = """file = "p.csv"
id = "pid"
age = "alter"
sex = "sex"
male = "1"
female = "2"
date = "seen"
[values]
crea = { name = "creatinine", unit = "umol/L" }
ef = { name = "lvef", unit = "%" }
[conditions]
dm = "diabetes"
[drugs]
amio = "amiodarone"
"""
ROWS = "pid,alter,sex,seen,crea,ef,dm,amio\nA,71,1,2024-01-02,124,30,1,200\nB,,2,,,,0,\n"


def test_a_table_with_a_mapping(tmp_path):
    (tmp_path / "p.csv").write_text(ROWS)
    (tmp_path / "m.toml").write_text(MAPPING)
    out = tmp_path / "facts.jsonl"
    assert run(["extract", str(tmp_path / "m.toml"), "-o", str(out)]) == 0
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert first["lvef"] == [30, 30]
    assert first["details"]["drugs"][0]["mg_per_day"] == 200
    assert first["details"]["sex"] == "male"
    assert second["entities"] == [{"concept": "diabetes", "status": "absent"}]
    assert second["details"]["labs"] == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "creatinine"', 'name = "kreatinin"', "known names"),
        ('dm = "diabetes"', 'dm = "diabetis"', "diabetes"),
        ('date = "seen"', 'date = "sean"', "seen"),
        ("file =", "fiel =", "file"),
    ],
)
def test_wrong_mappings_name_what_is_near(tmp_path, old, new, says):
    (tmp_path / "p.csv").write_text(ROWS)
    (tmp_path / "m.toml").write_text(MAPPING.replace(old, new))
    with pytest.raises(InputError, match=says):
        list(read_mapped(tmp_path / "m.toml"))


def letters(n):
    """Letters of three findings each, stated or denied in several ways; no two alike."""
    rng = np.random.default_rng(0)
    things = ("type 2 diabetes", "COPD", "hypertension", "atrial fibrillation", "heart failure", "mitral regurgitation")
    ways = ("Known {}.", "He has {}.", "Background of {} as before.", "No {}.", "Denies {}.", "There is no evidence of {} today.")
    out = []
    for k in range(n):
        chosen = rng.permutation(things)[:3]
        said = " ".join(str(rng.choice(ways)).format(thing) for thing in chosen)
        out.append({"id": k, "kind": "clinic", "text": f"Seen on day {k}. {said}"})
    return out


def test_the_second_reader_agrees_more_than_chance_and_hides_no_conflict(tmp_path, capsys):
    pytest.importorskip("torch")
    rows = letters(90)
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    out = tmp_path / "facts.jsonl"
    assert run(["extract", str(tmp_path / "r.jsonl"), "-o", str(out), "--second-reader", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["agreement"]
    facts = [json.loads(line) for line in out.read_text().splitlines()]
    assert said["kappa"] > 0.6
    assert said["judged_concepts"] == 6
    differ = sum(row["rules_only"] + row["reader_only"] for row in said["by_concept"].values())
    assert differ == sum(len(row["conflicts"]) for row in facts)
    assert all(found["entities"] == extract(row["text"], row["kind"])["entities"] for found, row in zip(facts, rows, strict=True))


def test_few_reports_teach_nothing_and_are_refused(tmp_path, capsys):
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row) for row in letters(5)))
    assert run(["extract", str(tmp_path / "r.jsonl"), "-o", str(tmp_path / "f.jsonl"), "--second-reader"]) == 2
    assert "too few" in capsys.readouterr().err
