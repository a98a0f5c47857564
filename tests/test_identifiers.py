"""Made-up names, numbers and dates in every place of the inputs that could hold one: none of them may get into anything that is written."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from planners.app.cli import run
from planners.app.evidence import gather
from planners.app.identity import IDENTIFIED, Names, hidden
from twin.case import Case, load_case
from twin.io.ecg import convert_ecg
from twin.io.notes import Notes
from twin.io.studies import of_eam, write_study
from twin.io.surfaces import Surface

ROOT = Path(__file__).parents[1]
WORDS = iter(
    f"{a}{b}{c}"
    for a in ("Qua", "Zor", "Vek", "Jub")
    for b in ("ndri", "mbel", "xtor", "phli")
    for c in ("ano", "usk", "eff", "ogg", "imt")
)


class Plants:
    """Hands out made-up identifiers and remembers where each was put."""

    def __init__(self) -> None:
        self.where: dict[str, str] = {}

    def __call__(self, place: str) -> str:
        word = next(WORDS)
        self.where[word] = place
        return word

    def found(self, data: bytes) -> list[str]:
        """Places whose identifier stands in the data, as UTF-8 or UTF-16, in any case."""
        low, flat = data.lower(), data.replace(b"\0", b"").lower()
        return [place for word, place in self.where.items() if word.lower().encode() in low or word.lower().encode() in flat]


def _unpacked(path: Path) -> bytes:
    """Content of a file, of everything inside it where it is an archive."""
    data = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data += b"".join(name.encode() + archive.read(name) for name in archive.namelist())
    return data


def leaks(plants: Plants, folder: Path) -> list[str]:
    """Every file below a folder, its name too, that holds an identifier."""
    out = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        out += [f"name of {name}: {place}" for place in plants.found(name.encode())]
        if path.is_file():
            out += [f"{name}: {place}" for place in plants.found(_unpacked(path))]
    return out


def _dicom(source: Path, target: Path, plants: Plants) -> None:
    """A DICOM segmentation with identifiers in every descriptive tag."""
    import pydicom

    ds = pydicom.dcmread(source)
    ds.PatientName = f"{plants('DICOM PatientName family')}^{plants('DICOM PatientName given')}"
    ds.PatientBirthDate, ds.StudyDate, ds.PatientSex = "19470229"[:6] + "28", "20190314", "O"
    texts = (
        "PatientID AccessionNumber StudyID StudyDescription SeriesDescription ReferringPhysicianName InstitutionName InstitutionAddress "
        "PerformingPhysicianName OperatorsName PatientComments PatientAddress OtherPatientNames PatientMotherBirthName "
        "StationName ProtocolName ImageComments RequestingPhysician InstitutionalDepartmentName DeviceSerialNumber "
        "NameOfPhysiciansReadingStudy ContentCreatorName"
    )
    for tag in texts.split():
        setattr(ds, tag, plants(f"DICOM {tag}")[:15])
    block = ds.private_block(0x0099, "VTWIN TEST", create=True)
    block.add_new(0x01, "LO", plants("DICOM private tag"))
    for number, item in enumerate(ds.SegmentSequence):
        item.SegmentDescription = plants(f"DICOM SegmentDescription {number}")
        item.TrackingID = plants(f"DICOM TrackingID {number}")
        item.TrackingUID = "1.2.3"
    ds.save_as(target)


def _carto(source: Path, target: Path, plants: Plants) -> None:
    """The phantom study under a patient's name: study, maps' comments, file names, further elements."""
    family, given, stranger = plants("CARTO study name"), plants("CARTO study name, second word"), plants("CARTO other file")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            data = old.read(info)
            name = info.filename
            if name == "Study 1.xml":
                text = data.decode("cp1252").replace('<Study name="Phantom 1">', f'<Study name="{family} {given} 2019">')
                extra = f'<Patient Name="{plants("CARTO Patient element")}" ID="{plants("CARTO Patient ID")}"/>'
                extra += f"<Physician>{plants('CARTO Physician')}</Physician><!-- {plants('CARTO comment')} -->"
                data, name = text.replace("</Study>", f"{extra}</Study>").encode("cp1252"), f"{family} {given}.xml"
            elif name.endswith(".mesh"):
                data = data.replace(b"\r\n", f"\r\n; {plants('CARTO mesh comment')}\r\n".encode(), 1)
            new.writestr(name, data)
        new.writestr(f"{stranger}.txt", plants("CARTO other file's content"))


def _ecg(source: Path, folder: Path, plants: Plants) -> Path:
    """The ECG as WFDB with comments about the patient in its header, under a patient's name."""
    stem = plants("WFDB record name").lower()
    convert_ecg(source, folder / f"{stem}.hea")
    header = folder / f"{stem}.hea"
    lines = [f"# {plants('WFDB comment')}", f"# Name: {plants('WFDB name')}", f"# MRN: {plants('WFDB number')}"]
    header.write_text(header.read_text() + "\n".join(lines) + "\n")
    return header


def _record(source: Path, target: Path, plants: Plants) -> None:
    value = json.loads(source.read_text())
    for key in ("name", "mrn", "address", "phone", "email", "patient_id", "birth_date", "first_name", "family_name", "ssn"):
        value[key] = plants(f"record {key}")
    target.write_text(json.dumps(value))


def _shell(points_mm: np.ndarray) -> Surface:
    """The hull of the map, so that the study has a mesh file."""
    hull = ConvexHull(points_mm)
    used, index = np.unique(hull.simplices, return_inverse=True)
    return Surface(points_mm[used], index.reshape(-1, 3).astype(np.int32))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plants]:
    """A case whose every input holds identifiers, the name of its folder too."""
    pytest.importorskip("highdicom")
    pytest.importorskip("wfdb")
    plants = Plants()
    room = tmp_path_factory.mktemp("clean")
    shutil.copytree(ROOT / "cases" / "two_isthmuses", room / "case")
    folder = room / plants("name of the folder")
    folder.mkdir()
    study = of_eam(room / "case" / "map.csv", Notes())
    write_study(room / "case" / "study.zip", replace(study, surface=_shell(study.points_mm)))
    assert run(["convert", str(room / "case" / "labels.nrrd"), str(room / "labels.dcm")]) == 0
    labels = folder / f"{plants('name of the segmentation')}.dcm"
    _dicom(room / "labels.dcm", labels, plants)
    study = folder / f"{plants('name of the study')}.zip"
    _carto(room / "case" / "study.zip", study, plants)
    ecg = _ecg(room / "case" / "ecg.csv", folder, plants)
    record = folder / f"{plants('name of the record')}.json"
    _record(room / "case" / "patient.json", record, plants)
    case = folder / f"{plants('name of the case file')}.toml"
    case.write_text(
        f"""# {plants("comment in the case")}
[patient]
name = "{plants("patient.name")} {plants("patient.name, second word")}"
note = "{plants("patient.note")}"
[segmentation]
file = "{labels.name}"
[eam]
file = "{study.name}"
surface = "lv_endo"
[ecg]
file = "{ecg.name}"
[record]
file = "{record.name}"
[mesh]
edge = "2.5 mm"
[plan]
sites = ["aha04", "aha06", "rv_outflow"]
posterior_samples = 2
"""
    )
    return case, plants


def test_fifty_places_hold_an_identifier(planted) -> None:
    case, plants = planted
    assert len(plants.where) >= 50
    held = leaks(plants, case.parent.parent)
    assert len({line.split(": ", 1)[1] for line in held if "/" in line or "name of" in line}) >= 50


def test_reading_and_checking_say_none_of_them(planted, tmp_path, capsys) -> None:
    case, plants = planted
    loaded = hidden(load_case(case))
    said: list[str] = []
    patient = gather(loaded, tmp_path, said.append)
    texts = [
        loaded.name,
        patient.name,
        *patient.notes,
        *said,
        patient.labels.source,
        patient.eam.source,
        patient.ecg.source,
        patient.record.source,
    ]
    texts += [json.dumps(dict(patient.record.value), default=str), patient.labels.quality]
    assert plants.found("\n".join(texts).encode()) == []
    assert re.fullmatch(r"patient-[0-9a-f]{8}", patient.name)
    assert run(["plan", str(case), "-o", str(tmp_path / "dry"), "--dry-run"]) == 0
    out = capsys.readouterr()
    assert plants.found((out.out + out.err).encode()) == []
    assert leaks(plants, tmp_path) == []


def test_conversions_and_findings_hold_none_of_them(planted, tmp_path, capsys) -> None:
    case, plants = planted
    labels, study = next(case.parent.glob("*.dcm")), next(case.parent.glob("*.zip"))
    for source, target in (
        (labels, "labels.nrrd"),
        (labels, "labels.nii.gz"),
        (labels, "again.dcm"),
        (study, "map.csv"),
        (study, "map.mat"),
    ):
        assert run(["convert", str(source), str(tmp_path / target)]) == 0
    assert run(["convert", str(study), str(tmp_path / "shell.vtp")]) == 0
    assert run(["inspect", str(labels), "-o", str(tmp_path / "labels.png"), "--json"]) == 0
    assert run(["inspect", str(study), "-o", str(tmp_path / "map.png"), "--json"]) == 0
    out = capsys.readouterr()
    text = (out.out + out.err).replace(str(case.parent), "").replace(labels.name, "").replace(study.name, "")
    assert plants.found(text.encode()) == []
    assert leaks(plants, tmp_path) == []


def test_identified_outputs_name_the_case_and_say_so(planted, tmp_path) -> None:
    case, plants = planted
    loaded = hidden(load_case(case), identified=True)
    patient = gather(loaded, tmp_path, lambda line: None, identified=True)
    assert plants.where[patient.name.split()[0]] == "patient.name"
    assert IDENTIFIED in patient.notes
    assert plants.found(patient.labels.source.encode()) == ["name of the segmentation"]
    # what readers drop stays dropped
    assert not [p for p in plants.found("\n".join(patient.notes).encode()) if p.startswith(("DICOM", "CARTO", "WFDB", "record"))]


def test_plain_names_of_files_stay(tmp_path) -> None:
    loaded = load_case(ROOT / "cases" / "two_isthmuses" / "case.toml")
    assert hidden(loaded) is loaded
    patient = gather(loaded, tmp_path, lambda line: None)
    assert (patient.name, patient.labels.source, patient.ecg.source) == ("two_isthmuses", "labels.nrrd", "ecg.csv")


def test_a_short_name_is_hidden_and_words_that_hold_it_stay(tmp_path) -> None:
    names = Names(Case(tmp_path / "tim.toml", "x", tmp_path / "Ann_Tim.nrrd", ecg_path=tmp_path / "王伟.csv"))
    assert names.text("tim.toml: the time of tim_2 (Ann_Tim.nrrd, annotated) by tim") == (
        "case.toml: the time of case_2 (segmentation.nrrd, annotated) by case"
    )
    assert "王" not in names.text("of王伟.csv and 王伟s")


@pytest.mark.slow
@pytest.mark.line
def test_nothing_that_is_written_holds_one(planted, tmp_path, capsys, monkeypatch) -> None:
    """Plan, report, overlays of every format, stages, guidance, calibration, images, conversions, and all that was said."""
    from planners.overlay import FORMATS

    case, plants = planted
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "plan"
    assert run(["plan", str(case), "-o", str(out)]) == 0
    assert run(["export", str(out), *(word for name in FORMATS for word in ("--format", name))]) == 0
    lesions = tmp_path / "lesions.csv"
    places = [p for t in json.loads((out / "plan.json").read_text())["targets"] for p in t["positions_mm"]]
    rows = "".join(",".join(map(str, p)) + "\n" for p in places)
    lesions.write_text("# vtwin-lesions 1\n# frame: mesh\nx_mm,y_mm,z_mm\n" + rows)
    assert run(["guide", str(out), "--lesions", str(lesions), "--eam", str(next(case.parent.glob("*.zip"))), "--accept", "clock"]) == 0
    assert run(["calibrate", str(case), "-o", str(tmp_path / "calibrated")]) == 0
    assert run(["induce", str(case), "-o", str(tmp_path / "induced")]) == 0
    said = capsys.readouterr()
    paths = {str(case), str(case.parent), *(str(p) for p in case.parent.iterdir())}
    text = said.out + said.err
    for path in sorted(paths, key=len, reverse=True):  # the user's own words on the command line
        text = text.replace(path, "")
    assert plants.found(text.encode()) == []
    found = leaks(plants, tmp_path)
    assert found == []
    assert np.isfinite(json.loads((out / "plan.json").read_text())["outcome"]["lesion_volume_ml"])
    named = tmp_path / "identified"
    assert run(["plan", str(case), "-o", str(named), "--identified"]) == 0
    # a WFDB record is called as its file is, and files may be named now
    places_named = {line.split(": ", 1)[1] for line in leaks(plants, named)} - {"WFDB record name"}
    assert "patient.name" in places_named
    assert not [p for p in places_named if p.startswith(("DICOM", "CARTO", "WFDB", "record"))]
    assert IDENTIFIED in (named / "report.html").read_text()
