"""The case file: what it may say, what is refused with advice, and a patient read from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from io_fixtures import eam, ecg, heart

from twin.case import load_case
from twin.case_evidence import read_patient
from twin.errors import InputError
from twin.io.eam import write_eam
from twin.io.ecg import write_ecg
from twin.io.nrrd import write_nrrd
from twin.patient import ELECTRODES

GOOD = """
accept = ["scar_extent"]
[patient]
name = "one"
virtual = true
[segmentation]
file = "labels.nrrd"
virtual_infarct = { segment = 7, radius_mm = 15.0 }
[eam]
file = "map.csv"
[ecg]
file = "$EVIDENCE/ecg.csv"
virtual = false
[record]
file = "record.json"
[mesh]
edge = "0.25 cm"
[tissue.healthy]
cv_longitudinal = "60 cm/s"
cv_transverse = [0.2, "0.4 m/s"]
[plan]
sites = ["rv_apex"]
access = ["lv_endo", "epi"]
max_volume = "5000 mm^3"
lesion_radius = "4 mm"
posterior_samples = 4
[expect]
truth = "truth.json"
induced = true
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_nrrd(tmp_path / "labels.nrrd", heart())
    write_eam(tmp_path / "map.csv", eam())
    write_ecg(tmp_path / "ecg.csv", ecg())
    (tmp_path / "record.json").write_text('{"age_years": 61}')
    (tmp_path / "truth.json").write_text("{}")
    (tmp_path / "case.toml").write_text(GOOD)
    monkeypatch.setenv("EVIDENCE", str(tmp_path))
    return tmp_path


def refused(folder: Path, old: str, new: str) -> str:
    """The line with which a changed case is refused."""
    assert old in GOOD
    (folder / "case.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        read_patient(load_case(folder / "case.toml"))
    assert caught.value.exit_status == 2
    line = caught.value.line()
    assert line.startswith(str(folder / "case.toml"))
    return line


def test_a_site_of_ones_own_has_its_place_in_its_name(folder: Path) -> None:
    own = 'sites = ["rv_apex", "epi_aha10", { name = "lead", at = [1, -2.5, 30.25] }]'
    (folder / "case.toml").write_text(GOOD.replace('sites = ["rv_apex"]', own))
    assert load_case(folder / "case.toml").request.sites == ("rv_apex", "epi_aha10", "lead@1.00,-2.50,30.25")


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ('["rv_apex", "rv_apex"]', "names one site twice"),
        ('[{ name = "a b", at = [1, 2, 3] }]', "plan.sites.name"),
        ('[{ name = "lead", at = [1, 2] }]', "plan.sites.at"),
        ('[{ name = "lead", at = [1, 2, nan] }]', "plan.sites.at"),
        ('[{ name = "lead", place = [1, 2, 3] }]', "place"),
        ('["rv_apex", 3]', "is not a list of names"),
    ],
)
def test_wrong_sites_are_refused(folder: Path, sites: str, said: str) -> None:
    assert said in refused(folder, 'sites = ["rv_apex"]', f"sites = {sites}")


def test_everything_is_read(folder: Path) -> None:
    case = load_case(folder / "case.toml")
    assert (case.name, case.virtual, case.edge_mm) == ("one", True, 2.5)
    assert case.tissue["healthy/cv_longitudinal_m_s"] == pytest.approx((0.6, 0.6))
    assert case.tissue["healthy/cv_transverse_m_s"] == pytest.approx((0.2, 0.4))
    assert case.request.max_volume_ml == pytest.approx(5.0)
    assert (case.request.sites, case.request.access, case.request.posterior_samples) == (("rv_apex",), ("lv_endo", "epi"), 4)
    assert case.virtual_infarct == {"segment": 7, "radius_mm": 15.0}
    assert case.truth_path == folder / "truth.json"
    assert set(case.inputs()) == {"case", "segmentation", "eam", "ecg", "record"}
    patient = read_patient(case)
    assert patient.labels.value.volume_ml("scar") == heart().volume_ml("scar")
    assert patient.labels.virtual
    assert patient.eam is not None
    assert patient.eam.virtual
    assert patient.ecg is not None
    assert not patient.ecg.virtual
    assert patient.record is not None
    assert patient.record.value == {"age_years": 61}
    assert patient.notes == ()


def test_an_ecg_may_be_turned_over_and_have_its_electrodes_placed(folder: Path) -> None:
    places = ", ".join(f"{name} = [{k}, -10, 2.5]" for k, name in enumerate(ELECTRODES))
    (folder / "case.toml").write_text(GOOD.replace("virtual = false", f"inverted = true\nelectrodes = {{ {places} }}"))
    patient = read_patient(load_case(folder / "case.toml"))
    assert patient.ecg is not None
    np.testing.assert_allclose(patient.ecg.value.array(), -ecg().array(), atol=1e-3)
    assert patient.ecg.value.electrodes_mm["V6"].tolist() == [8.0, -10.0, 2.5]
    assert patient.notes == ("the ECG is taken upside down, as the case says",)


def test_evidence_may_be_absent(folder: Path) -> None:
    (folder / "small.toml").write_text('[segmentation]\nfile = "labels.nrrd"\n')
    case = load_case(folder / "small.toml")
    assert case.name == folder.name
    patient = read_patient(case)
    assert patient.eam is patient.ecg is patient.record is None
    assert patient.notes == ("no electroanatomical map is given", "no 12-lead ECG is given", "no patient record is given")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[mesh]\nedge", "[mesh]\nedeg", "mesh.edeg: unknown key; did you mean 'edge'?"),
        ("[segmentation]", "[segmentatoin]", "did you mean 'segmentation'?"),
        ("[tissue.healthy]", "[tissue.helthy]", "did you mean 'healthy'?"),
        ("cv_longitudinal", "cv_longitudnal", "did you mean 'cv_longitudinal'?"),
        ("posterior_samples", "posterior_sampels", "did you mean 'posterior_samples'?"),
        ('"60 cm/s"', '"-60 cm/s"', "is negative"),
        ('cv_longitudinal = "60 cm/s"', 'conductivity_longitudinal = "-0.17 S/m"', "'-0.17 S/m' is negative"),
        ('"60 cm/s"', '"600 m/s"', "up to 5 m/s"),
        ('"60 cm/s"', '"60 mV"', "cannot be read as m/s"),
        ('[0.2, "0.4 m/s"]', "[0.4, 0.2]", "upside down"),
        ('"0.25 cm"', '"nan mm"', "not finite"),
        ('"0.25 cm"', "true", "not a quantity"),
        ("posterior_samples = 4", "posterior_samples = 4.5", "not a whole number"),
        ("posterior_samples = 4", "posterior_samples = 0", "out of range"),
        ('["lv_endo", "epi"]', '["lv_endoo"]', "did you mean 'lv_endo'?"),
        ('sites = ["rv_apex"]', 'sites = "rv_apex"', "not a list"),
        ("virtual = true", 'virtual = "yes"', "not true or false"),
        ('file = "map.csv"', 'file = "mop.csv"', "eam.file: mop.csv: does not exist"),
        ('file = "map.csv"', "", "eam.file: is missing"),
        ("$EVIDENCE", "$NO_SUCH_FOLDER", "set NO_SUCH_FOLDER to the folder that holds the data"),
        ('file = "map.csv"', 'file = "map.csv"\nsurface = "rv_endo"', "correct one of them"),
        ("virtual = false", "fs_hz = 500", "sampled at 1000 Hz"),
        ("virtual = false", "electrodes = { V1 = [1, 2, 3] }", "ecg.electrodes.RA: is missing"),
        ("virtual = false", "electrodes = { V7 = [1, 2, 3] }", "ecg.electrodes.V7: unknown key"),
        ("virtual = false", "electrodes = { RA = [1, 2] }", "is not a position"),
        ("virtual = false", "electrodes = { RA = [1, 2, nan] }", "is not within 3 m"),
        ("virtual = false", "electrodes = { RA = [1, 2, 'a'] }", "is not a number"),
        ("virtual = false", "inverted = 1", "not true or false"),
        ("[mesh]", "[mesh", "is not TOML"),
        ('file = "labels.nrrd"', 'file = "labels.nrrd"\nlabels = { lv_blod = 1 }', "did you mean 'lv_blood'?"),
        ('file = "labels.nrrd"', 'file = "labels.nrrd"\nlabels = { lv_blood = 1, scar = 1 }', "same value"),
        ('truth = "truth.json"', 'truth = "lies.json"', "expect.truth: lies.json: does not exist"),
    ],
)
def test_wrong_cases_are_one_line_with_advice(folder: Path, old: str, new: str, words: str) -> None:
    assert words in refused(folder, old, new)


def test_suspicious_evidence_needs_to_be_accepted(folder: Path) -> None:
    swapped = dict(ecg().leads)
    swapped["I"], swapped["II"] = swapped["II"], swapped["I"]
    write_ecg(folder / "ecg.csv", type(ecg())(swapped, 1000.0))
    with pytest.raises(InputError, match=r"accept = \['ecg_lead_order'\]"):
        read_patient(load_case(folder / "case.toml"))
    (folder / "case.toml").write_text(GOOD.replace('"scar_extent"', '"ecg_lead_order"'))
    assert read_patient(load_case(folder / "case.toml")).notes[0].startswith("accepted (ecg_lead_order): ecg.csv")


def test_the_shipped_cases_are_good() -> None:
    cases = sorted((Path(__file__).parent.parent / "cases").glob("*/case.toml"))
    assert cases
    for path in cases:
        if "$VTWIN_DATA" not in path.read_text():
            load_case(path)
