"""Clinical evidence to the tissue's priors: Bayes on paper, honest widths, drugs through cells, and a case with and without its block."""

import json
from pathlib import Path

import numpy as np
import pytest

from planners.app.cli import run
from planners.app.clinical import clinical_twin, risks, score_facts, seen_by_images
from planners.app.drug_priors import LEVELS, concentration
from planners.drugs import apd_factor, velocity_factor
from solvers.eikonal.restitution import load_tables
from solvers.ionic.drugs import DRUGS
from twin.calibrate.evidence_effects import fact_shifts, image_evidence, repolarisation
from twin.calibrate.evidence_priors import Measurement, Shift, names, published, update
from twin.case import load_case
from twin.case_evidence import read_patient
from twin.errors import InputError
from twin.params import Param
from twin.records.clinical import Drug, read_clinical

CASES = Path(__file__).parents[1] / "cases" / "clinical_block"
HEALTHY = "healthy/cv_longitudinal_m_s"
FACTOR = Param(0.8, "1", 0.6, 1.0, "made for this test")


def width(belief, name):
    _, low, high = belief.interval(name)
    return np.log(high / low)


def test_without_evidence_the_published_priors_stay():
    found = update([])
    assert found.steps == ()
    assert found.velocity_ranges()[HEALTHY] == pytest.approx((0.3 * 0.6 / np.sqrt(0.3), 0.6 / np.sqrt(0.3)), rel=1e-6)
    assert found.apd_factors() == pytest.approx({"healthy": 1.0, "border_zone": 1.0})


def test_a_fact_moves_and_widens():
    found = update([Shift("fact", "yes", {HEALTHY: FACTOR})])
    assert found.final.interval(HEALTHY)[0] == pytest.approx(0.8 * 0.6)
    assert width(found.final, HEALTHY) == pytest.approx(np.hypot(width(published(), HEALTHY), 2 * 1.96 * np.log(1.0 / 0.6) / 4))
    (step,) = found.steps
    assert step.source == "made for this test"
    assert list(step.after) == [HEALTHY]


def test_a_measurement_is_the_conjugate_update():
    k = names().index(HEALTHY)
    sd = np.sqrt(published().covariance[k, k])
    found = update([Measurement("seen", "0.45", {HEALTHY: 1.0}, np.log(0.45), 0.1, "made for this test")])
    weight = sd**2 / (sd**2 + 0.01)
    assert np.log(found.final.interval(HEALTHY)[0]) == pytest.approx((1 - weight) * np.log(0.6) + weight * np.log(0.45))
    assert width(found.final, HEALTHY) == pytest.approx(2 * 1.96 * np.sqrt(1 / (sd**-2 + 100)))


def test_order_does_not_matter_and_a_ratio_moves_both_ends():
    seen = image_evidence(
        {"border_intensity": 0.75, "healthy_intensity": 0.25, "border_thickness_mm": 3.0, "border_mv": 0.8, "healthy_mv": 3.0}
    )
    facts = fact_shifts({"age_years": 80, "lvef_percent": 25, "aetiology": "dilated", "sex": "female"})
    one, other = update([*facts, *seen]), update([*seen, *facts[::-1]])
    assert one.final.mean == pytest.approx(other.final.mean)
    assert one.final.covariance == pytest.approx(other.final.covariance)
    assert np.linalg.eigvalsh(one.final.covariance).min() > 0
    dark = update(image_evidence({"border_intensity": 0.75, "healthy_intensity": 0.25}))
    assert dark.final.interval("border_zone/cv_longitudinal_m_s")[0] < 0.6 / 1.34  # two quarters of intensity pull towards 0.6 / 1.8
    assert width(dark.final, "border_zone/cv_transverse_m_s") < width(published(), "border_zone/cv_transverse_m_s")


def test_a_long_jt_lengthens_healthy_and_shared_border():
    found = update(repolarisation({"qtc_ms": 480, "qrs_ms": 100}))
    factors = found.apd_factors()
    assert 1.05 < factors["healthy"] < 380 / 320
    assert 1.0 < factors["border_zone"] < factors["healthy"]
    assert width(found.final, "healthy/apd_factor") < width(published(), "healthy/apd_factor")


@pytest.mark.parametrize("name", sorted(LEVELS))
def test_every_level_has_a_dose_response_and_a_plausible_effect(name):
    assert name in DRUGS
    assert LEVELS[name][0].source


def test_amiodarone_and_sotalol_lengthen_more_at_more():
    low, middle, high = (apd_factor("amiodarone", level, "healthy") for level in (0.12, 0.35, 1.0))
    assert 1.0 < low < middle < high < 1.4
    # QT grows by 10-15 % in long treatment: what the acting concentration was chosen for
    assert 1.08 < middle < 1.18
    assert 1.0 < apd_factor("sotalol", 14.7, "border_zone") < apd_factor("sotalol", 14.7, "healthy")


def test_sodium_blockers_slow_waves_and_more_in_border_zone():
    assert velocity_factor("sotalol", 14.7, "healthy") == pytest.approx(1.0, abs=0.01)
    little, more = (velocity_factor("flecainide", level, "healthy") for level in (1.0, 3.0))
    assert 0.95 < little < 1.0
    assert more < little
    assert velocity_factor("flecainide", 3.0, "border_zone") < more


def test_dose_and_level_set_the_concentration():
    usual = concentration(Drug("sotalol"))
    assert concentration(Drug("sotalol", mg_per_day=160.0)).value == pytest.approx(usual.value / 2)
    assert concentration(Drug("sotalol", level_umol_l=9.0)).value == 9.0
    assert concentration(Drug("sotalol", level_umol_l=9.0)).high / 9.0 < usual.high / usual.value


def table(tmp_path, text):
    path = tmp_path / "case.toml"
    path.write_text(f'[segmentation]\nfile = "{CASES.parent / "demo" / "labels.nrrd"}"\n[clinical]\n{text}\n')
    case = load_case(path)
    return read_clinical(case.clinical_facts, case.clinical_files, case.path)


def test_sources_are_ranked_and_conflicts_said(tmp_path):
    record = CASES.parent / "demo" / "patient.json"
    found = table(tmp_path, f'record = "{record}"\nage_years = 70\nqtc_ms = "0.47 s"\ndrugs = {{ sotalol = "160 mg/day" }}')
    assert found.facts["age_years"] == 70
    assert found.facts["qtc_ms"] == pytest.approx(470)
    assert {d.name for d in found.drugs} >= {"sotalol", "amiodarone"}
    assert any("age_years: 70" in line and "63" in line for line in found.conflicts)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("age_years = 700", "age_years"),
        ('qtc_ms = "47 ms"', "250"),
        ('drugs = { sotalol = "160 kg" }', "mg/day"),
        ('drugs = "sotalol"', "neither a list nor a table"),
        ("agee_years = 70", "age_years"),
        ('images = "no"', "true or false"),
        ('facts = "missing.jsonl"', "missing.jsonl"),
    ],
)
def test_wrong_tables_are_one_line(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        table(tmp_path, text)


def test_extracted_facts_of_other_files_are_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": 1}\n[2]\n')
    with pytest.raises(InputError, match="line 2"):
        table(tmp_path, 'facts = "x.jsonl"')


@pytest.fixture(scope="module")
def pair():
    found = {}
    for name in ("without", "with"):
        case = load_case(CASES / f"{name}.toml")
        found[name] = (case, clinical_twin(case, read_patient(case), lambda line: None))
    return found


def test_the_block_changes_velocities_and_repolarisation(pair):
    (_, bare), (case, informed) = pair["without"], pair["with"]
    assert bare.priors is None
    assert bare.settings().tables is None
    low, high = informed.case(case).tissue[HEALTHY]
    assert np.sqrt(low * high) < 0.57 < 0.6  # heart failure, a little age and sodium block
    tables, shipped = informed.settings().tables, load_tables()
    for region in ("healthy", "border_zone"):
        before, after = (found[region].steady_apd_ms(600.0) for found in (shipped, tables))
        assert after > 1.03 * before
        for apd, table in ((before, shipped[region]), (after, tables[region])):
            # the rest that the cycle leaves makes the duration that leaves it
            assert np.interp(600.0 - apd, table.di_ms, table.apd_ms) == pytest.approx(apd, abs=1e-3)
    rows = informed.as_dict({"interval": [0.2, 0.9]})
    assert {row["evidence"] for row in rows["influences"]} >= {"age", "heart failure", "drug: amiodarone", "drug: sotalol", "QTc"}
    assert all(row["source"] for row in rows["influences"])
    assert "demo" not in json.dumps(rows)  # no file names: they may carry a patient's


def test_what_the_case_gives_itself_wins(pair):
    case, informed = pair["with"]
    from dataclasses import replace

    given = replace(case, tissue={HEALTHY: (0.5, 0.5)})
    assert informed.case(given).tissue[HEALTHY] == (0.5, 0.5)


def test_the_letter_gives_the_facts_that_are_shipped(tmp_path):
    assert run(["extract", str(CASES / "letter.jsonl"), "-o", str(tmp_path / "facts.jsonl")]) == 0
    assert (tmp_path / "facts.jsonl").read_text() == (CASES / "facts.jsonl").read_text()


def test_both_risks_are_labelled_and_never_combined():
    rows = risks(score_facts({"age_years": 70, "lvef_percent": 20, "aetiology": "ischaemic", "sex": "male"}), {"interval": [0.4, 0.8]})
    assert [row["kind"] for row in rows] == ["published score", "mechanistic probability"]
    assert rows[0]["low"] == 12
    assert set(rows[0]["missing"]) == {"copd", "nyha", "electrical_storm", "diabetes"}
    assert "not a probability of recurrence" in rows[1]["source"]
    assert len(risks({}, {"interval": [0.4, 0.8]})) == 1


def test_images_are_seen_in_the_demo_heart():
    case = load_case(CASES.parent / "demo" / "case.toml")
    seen = seen_by_images(read_patient(case))
    assert 2.0 < seen["border_thickness_mm"] < 12.0
    assert 0.5 <= seen["border_mv"] < 1.5 <= seen["healthy_mv"]


@pytest.mark.slow
def test_the_pair_of_plans_differs(tmp_path):
    plans = {}
    for name in ("without", "with"):
        assert run(["plan", str(CASES / f"{name}.toml"), "-o", str(tmp_path / name)]) == 0
        plans[name] = json.loads((tmp_path / name / "plan.json").read_text())
    velocity = {n: p["tissue"]["regions"]["healthy"]["cv_longitudinal_m_s"]["mode"] for n, p in plans.items()}
    assert velocity["with"] < 0.95 * velocity["without"]
    cycles = {n: [c["cycle_length_ms"] for c in p["circuits"]] for n, p in plans.items()}
    assert min(cycles["with"]) > min(cycles["without"])  # slower and longer refractory: slower tachycardias
    report = (tmp_path / "with" / "report.html").read_text()
    assert "What the clinical evidence did" in report
    assert "mechanistic probability" in report
    assert "What the clinical evidence did" not in (tmp_path / "without" / "report.html").read_text()
