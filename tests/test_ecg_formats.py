"""ECG formats: what is written is read back, other programs agree, damage is an InputError, wrong leads and units are noticed."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from io_fixtures import ecg
from test_io_fuzz import damaged
from typer.testing import CliRunner

from planners.app.cli import app
from twin.errors import InputError, Suspicious
from twin.io.aecg import read_aecg
from twin.io.dicom_ecg import read_dicom_ecg
from twin.io.ecg import DOUBTS, check_ecg, read_ecg, write_ecg
from twin.io.ecg_leads import doubts, lead_name, twelve
from twin.io.notes import Notes
from twin.io.wfdb_record import read_wfdb, write_wfdb
from twin.patient import LEADS, Ecg

ROUNDS = 200


def rhythm(beats: int = 4, fs_hz: float = 500.0) -> Ecg:
    """A sinus rhythm with P, QRS and T whose leads obey Einthoven and whose chest leads progress."""
    t = np.arange(0.0, beats * 0.8, 1.0 / fs_hz)
    phase = np.mod(t, 0.8) - 0.35

    def wave(at: float, width: float, size: np.ndarray) -> np.ndarray:
        return size[:, None] * np.exp(-(((phase - at) / width) ** 2))

    # electrodes RA, LA, LL, V1-V6 in mV
    x = wave(-0.16, 0.025, np.array([-0.07, 0.0, 0.06, 0.05, 0.06, 0.06, 0.05, 0.05, 0.05]))
    x += wave(0.0, 0.015, np.array([-0.6, 0.1, 0.5, -0.6, -0.4, 0.2, 1.0, 1.1, 0.9]))
    x += wave(0.03, 0.012, np.array([0.2, -0.1, -0.1, -0.8, -1.2, -0.9, -0.4, -0.1, 0.0]))
    x += wave(0.28, 0.05, np.array([-0.15, 0.02, 0.13, 0.0, 0.3, 0.35, 0.35, 0.3, 0.2]))
    ra, la, ll = x[:3]
    limb = {"I": la - ra, "II": ll - ra, "III": ll - la, "aVR": ra - (la + ll) / 2, "aVL": la - (ra + ll) / 2, "aVF": ll - (ra + la) / 2}
    return Ecg(limb | {f"V{k + 1}": x[k + 3] - (ra + la + ll) / 3 for k in range(6)}, fs_hz)


def write_dicom(path: Path, given: Ecg, name: str = "Nobody^Known", unit: str = "uV", scale: float = 1.0) -> None:
    """A 12-lead ECG object as a cart writes it."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    group = Dataset()
    counts = np.rint(given.array().T * 1000 / scale).astype("<i2")
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples, group.SamplingFrequency = 12, len(counts), given.fs_hz
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation, group.WaveformOriginality = 16, "SS", "ORIGINAL"
    channels = []
    codes = [1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8]
    for lead, code in zip(LEADS, codes, strict=True):
        channel, source, units = Dataset(), Dataset(), Dataset()
        source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = f"2:{code}", "MDC", f"Lead {lead}"
        units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = unit, "UCUM", unit
        channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [units]
        channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = scale, 1, 0
        channel.WaveformBitsStored = 16
        channels.append(channel)
    group.ChannelDefinitionSequence, group.WaveformData = channels, counts.tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = "1.2.840.10008.5.1.4.1.1.9.1.1", ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = Dataset()
    data.file_meta, data.SOPClassUID, data.SOPInstanceUID = meta, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.PatientBirthDate, data.Modality = name, "ID0815", "19300101", "ECG"
    data.WaveformSequence = [group]
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def write_aecg(path: Path, given: Ecg, name: str = "Nobody Known") -> None:
    """An annotated ECG with I, II and the chest leads, 2.5 uV per digit, and a derived series that is not to be read."""
    step = 1.0 / given.fs_hz
    parts = [
        f'<component><sequence><code code="TIME_ABSOLUTE"/><value><head value="20020102"/><increment value="{step}" unit="s"/></value>'
        "</sequence></component>"
    ]
    for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"):
        digits = " ".join(str(int(d)) for d in np.rint(given.leads[lead] * 400))
        value = f'<value><origin value="0" unit="uV"/><scale value="2.5" unit="uV"/><digits>{digits}</digits></value>'
        parts.append(f'<component><sequence><code code="MDC_ECG_LEAD_{lead}"/>{value}</sequence></component>')
    series = f"<component><series><component><sequenceSet>{''.join(parts)}</sequenceSet></component></series></component>"
    subject = f"<componentOf><subject><name>{name}</name><id>ID0815</id></subject></componentOf>"
    path.write_text(f'<?xml version="1.0" encoding="UTF-8"?><AnnotatedECG xmlns="urn:hl7-org:v3">{subject}{series}</AnnotatedECG>')


FORMATS: dict[str, tuple[Callable[[Path], object], float]] = {
    "e.csv": (lambda p: write_ecg(p, rhythm(2)), 1e-4),
    "e.hea": (lambda p: write_wfdb(p, rhythm(2)), 6e-4),
    "e.dcm": (lambda p: write_dicom(p, rhythm(2)), 6e-4),
    "e.xml": (lambda p: write_aecg(p, rhythm(2)), 1.3e-3),
}


SMALL: dict[str, Callable[[Path], object]] = {
    "e.csv": lambda p: write_ecg(p, rhythm(1, 200.0)),
    "e.hea": lambda p: write_wfdb(p, rhythm(1, 200.0)),
    "e.dcm": lambda p: write_dicom(p, rhythm(1, 200.0)),
    "e.xml": lambda p: write_aecg(p, rhythm(1, 200.0)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_leads(tmp_path: Path, name: str) -> None:
    write, tolerance = FORMATS[name]
    write(tmp_path / name)
    found, truth = read_ecg(tmp_path / name), rhythm(2)
    assert found.fs_hz == truth.fs_hz
    for lead in LEADS:
        np.testing.assert_allclose(found.leads[lead], truth.leads[lead], atol=2 * tolerance)


def damage(folder: Path, name: str, rounds: int) -> None:
    """Damage one file in many ways: an answer or an InputError in one line, without what the file says of the patient."""
    head = "e.hea" if name == "e.dat" else name
    SMALL[head](folder / head)
    path = folder / name
    good = path.read_bytes()
    rng = np.random.default_rng(3)
    lines = []
    for _ in range(rounds):
        path.write_bytes(damaged(good, rng))
        try:
            read_ecg(folder / head, Notes(DOUBTS))
        except InputError as error:
            lines.append(error.line())
    # single flips in samples cannot be seen, except by WFDB's checksums
    assert len(lines) > rounds // (2 if name in ("e.dat", "e.hea") else 6)
    assert all("\n" not in line and len(line) < 1000 and "Nobody" not in line and "0815" not in line for line in lines)


@pytest.mark.parametrize("name", [*FORMATS, "e.dat"])
def test_damage_is_an_input_error_or_an_answer(tmp_path: Path, name: str) -> None:
    damage(tmp_path, name, 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FORMATS, "e.dat"])
def test_two_hundred_damaged_files_in_bounded_memory(tmp_path: Path, name: str) -> None:
    damage(tmp_path, name, 20)
    start = time.process_time()
    tracemalloc.start()
    damage(tmp_path, name, ROUNDS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6
    assert time.process_time() - start < 120


def packed(counts: np.ndarray, form: str) -> bytes:
    """Samples in time order as WFDB's formats hold them (signal(5))."""
    flat = counts.ravel()
    if form in ("16", "61", "32"):
        return flat.astype({"16": "<i2", "61": ">i2", "32": "<i4"}[form]).tobytes()
    if form == "80":
        return (flat + 128).astype(np.uint8).tobytes()
    if form == "24":
        return flat.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    pairs = np.append(flat, np.zeros(len(flat) % 2, np.int64)).reshape(-1, 2) & 0xFFF
    three = np.stack([pairs[:, 0] & 0xFF, (pairs[:, 0] >> 8) | (pairs[:, 1] >> 8 << 4), pairs[:, 1] & 0xFF], axis=1).astype(np.uint8)
    return three.tobytes()


@pytest.mark.parametrize("form", ["16", "61", "24", "32", "212", "80"])
def test_wfdb_formats_agree_with_the_wfdb_package(tmp_path: Path, form: str) -> None:
    wfdb = pytest.importorskip("wfdb")
    gain = 30 if form == "80" else 400
    counts = np.rint(rhythm(1).array().T[:399] * gain).astype(np.int64)
    (tmp_path / "r.dat").write_bytes(packed(counts, form))
    lines = [f"r.dat {form} {gain}(7)/mV 16 0 {c[0]} {int(c.sum() & 0xFFFF)} 0 {lead}" for lead, c in zip(LEADS, counts.T, strict=True)]
    (tmp_path / "r.hea").write_text("\n".join([f"r 12 500 {len(counts)}", *lines]) + "\n")
    found = read_wfdb(tmp_path / "r.hea").array().T
    np.testing.assert_allclose(found, (counts - 7) / gain, atol=1e-12)
    np.testing.assert_allclose(found, wfdb.rdrecord(str(tmp_path / "r")).p_signal, atol=1e-9)


def test_our_wfdb_files_are_read_by_the_wfdb_package(tmp_path: Path) -> None:
    wfdb = pytest.importorskip("wfdb")
    write_wfdb(tmp_path / "own.hea", rhythm(2))
    assert (read_ecg(tmp_path / "own.dat").array() == read_ecg(tmp_path / "own.hea").array()).all(), "either file names the record"
    theirs = wfdb.rdrecord(str(tmp_path / "own"))
    assert theirs.sig_name == list(LEADS)
    np.testing.assert_allclose(theirs.p_signal, rhythm(2).array().T, atol=6e-4)


def test_wfdb_names_units_and_missing_samples(tmp_path: Path) -> None:
    write_wfdb(tmp_path / "e.hea", rhythm(2))
    text = (tmp_path / "e.hea").read_text()
    (tmp_path / "e.hea").write_text(text.replace("1000(0)/mV", "1(0)/uV").replace(" aVR", " avr") + "# age: 81\n# Nobody Known\n")
    np.testing.assert_allclose(read_ecg(tmp_path / "e.hea").array(), rhythm(2).array(), atol=6e-4)
    data = np.fromfile(tmp_path / "e.dat", "<i2").reshape(-1, 12)
    data[:100, 3] = -32768
    data.tofile(tmp_path / "e.dat")
    (tmp_path / "e.hea").write_text(with_sums(text, data))
    notes = Notes()
    found = read_ecg(tmp_path / "e.hea", notes)
    assert len(found.time_ms) == len(data) - 100
    assert "all are recorded" in notes.lines[0]


def with_sums(text: str, data: np.ndarray) -> str:
    """A header with the initial values and checksums of other data."""
    lines = text.splitlines()
    for k in range(12):
        words = lines[k + 1].split()
        words[5], words[6] = str(data[0, k]), str(int(data[:, k].sum(dtype=np.int64) & 0xFFFF))
        lines[k + 1] = " ".join(words)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.replace("e.dat", "../e.dat"), "not in the header's folder"),
        (lambda t: t.replace("e.dat", "/etc/passwd"), "not in the header's folder"),
        (lambda t: t.replace("12 500 800", "12 500 4000000000"), "bytes"),
        (lambda t: t.replace("12 500 800", "12 500 801"), "bytes"),
        (lambda t: t.replace("12 500 800", "12 5000 800"), "sampled at"),
        (lambda t: t.replace("12 500 800", "12 50 800"), "sampled at"),
        (lambda t: t.replace("e 12", "e/3 12"), "segments"),
        (lambda t: t.replace(" 16 1000", " 310 1000"), "format is not read"),
        (lambda t: t.replace("/mV", "/mmHg"), "no voltage"),
        (lambda t: t.replace(" V6", " V5"), "one name"),
        (lambda t: t.replace(" V6", " V9"), "missing V6"),
        (lambda t: t.replace("1000(0)", "nan(0)"), "gain"),
    ],
)
def test_wfdb_headers_that_lie(tmp_path: Path, change: Callable[[str], str], problem: str) -> None:
    write_wfdb(tmp_path / "e.hea", rhythm(2))
    text = (tmp_path / "e.hea").read_text()
    (tmp_path / "e.hea").write_text(change(text))
    assert change(text) != text
    with pytest.raises(InputError, match=problem):
        read_ecg(tmp_path / "e.hea")


def test_xml_entities_are_refused(tmp_path: Path) -> None:
    write_aecg(tmp_path / "e.xml", rhythm(2))
    text = (tmp_path / "e.xml").read_text()
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    (tmp_path / "e.xml").write_text(text.replace("<AnnotatedECG", bomb + "<AnnotatedECG", 1))
    with pytest.raises(InputError, match="entities"):
        read_ecg(tmp_path / "e.xml")
    (tmp_path / "e.xml").write_text("<AnnotatedECG>" + "<a>" * 100_000)
    with pytest.raises(InputError, match="deep"):
        read_aecg(tmp_path / "e.xml")


def test_identifiers_stay_in_the_file(tmp_path: Path) -> None:
    write_dicom(tmp_path / "e.dcm", rhythm(2))
    write_aecg(tmp_path / "e.xml", rhythm(2))
    for name in ("e.dcm", "e.xml"):
        notes = Notes()
        found = read_ecg(tmp_path / name, notes)
        assert not any(word in repr((vars(found), notes.lines)) for word in ("Nobody", "Known", "0815", "1930"))
        target = tmp_path / f"{name}.csv"
        done = CliRunner().invoke(app, ["convert", str(tmp_path / name), str(target)])
        assert done.exit_code == 0, done.output
        assert "Nobody" not in target.read_text()


def test_inspect_and_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (write, _) in FORMATS.items():
        write(tmp_path / name)
        done = CliRunner().invoke(app, ["inspect", name, "--json"])
        assert done.exit_code == 0, done.output
        answer = json.loads(done.stdout)
        assert "electrocardiogram" in answer["kind"]
        assert answer["found"][0]["facts"]["beats"]["count"] == 2
    done = CliRunner().invoke(app, ["convert", "e.dcm", "out.hea"])
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(read_ecg(tmp_path / "out.hea").array(), rhythm(2).array(), atol=1.2e-3)
    refused = CliRunner().invoke(app, ["convert", "e.dcm", "out.vtu"]).exception
    assert isinstance(refused, InputError)
    assert "no ECG that is written" in refused.problem


def exchanged(given: Ecg, *pairs: tuple[str, str]) -> Ecg:
    leads = dict(given.leads)
    for a, b in pairs:
        leads[a], leads[b] = given.leads[b], given.leads[a]
    return replace(given, leads=leads)


def arms(given: Ecg) -> Ecg:
    """Left and right arm electrodes exchanged."""
    turned = exchanged(given, ("II", "III"), ("aVR", "aVL"))
    return replace(turned, leads={**turned.leads, "I": -given.leads["I"]})


def scaled(given: Ecg, factor: float) -> Ecg:
    return replace(given, leads={name: factor * values for name, values in given.leads.items()})


WRONG: dict[str, tuple[Callable[[Ecg], Ecg], str]] = {
    "arms exchanged": (arms, "arm electrodes exchanged"),
    "II and III exchanged": (lambda e: exchanged(e, ("II", "III")), "limb leads swapped"),
    "aVR and aVF exchanged": (lambda e: exchanged(e, ("aVR", "aVF")), "limb leads swapped"),
    "V1 and V4 exchanged": (lambda e: exchanged(e, ("V1", "V4")), "chest leads"),
    "V2 and V5 exchanged": (lambda e: exchanged(e, ("V2", "V5")), "chest leads"),
    "V3 and V6 exchanged": (lambda e: exchanged(e, ("V3", "V6")), "chest leads"),
    "microvolts": (lambda e: scaled(e, 1000.0), "microvolts"),
    "volts": (lambda e: scaled(e, 0.001), "volts"),
    "a tenth": (lambda e: scaled(e, 0.06), "mV peak to peak"),
    "tenfold": (lambda e: scaled(e, 10.0), "mV peak to peak"),
    "a lead off": (lambda e: replace(e, leads={**e.leads, "V3": 0.0 * e.leads["V3"]}), "flat lead"),
}


@pytest.mark.parametrize("name", WRONG)
def test_readable_but_wrong_is_noticed(name: str) -> None:
    change, problem = WRONG[name]
    check_ecg(rhythm(), Path("right"), Notes())
    with pytest.raises(InputError, match=problem):
        check_ecg(change(rhythm()), Path("wrong"), Notes())


def test_a_beat_of_ventricular_tachycardia_is_not_called_reversed() -> None:
    assert not doubts(ecg())
    turned = replace(arms(rhythm()), rhythm="vt")
    check_ecg(turned, Path("vt"), Notes())


def test_lead_names() -> None:
    spoken = {"MDC_ECG_LEAD_AVR": "aVR", "Lead III": "III", "d2": "II", "v4": "V4", "C6": "V6", "ECG aVL": "aVL", "Lead I (Einthoven)": "I"}
    assert {text: lead_name(text)[0] for text in spoken} == spoken
    assert lead_name("-aVR") == ("aVR", -1.0)
    assert lead_name("vx")[0] == lead_name("V7")[0] == lead_name("RESP")[0] == ""
    given = rhythm(2)
    notes = Notes()
    few = {lead: given.leads[lead] for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")}
    found = twelve(few, 500.0, Path("few"), notes)
    np.testing.assert_allclose(found.array(), given.array(), atol=1e-12)
    assert "computed from I and II" in notes.lines[0]
    with pytest.raises(InputError, match="two leads"):
        twelve({**few, "Lead I": given.leads["I"]}, 500.0, Path("few"), Notes())


def test_dicom_codes_and_units(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mv.dcm", rhythm(2), unit="mV", scale=1.0)
    with pytest.raises(InputError, match="microvolts"):
        read_ecg(tmp_path / "mv.dcm")
    write_dicom(tmp_path / "bad.dcm", rhythm(2), unit="mm")
    with pytest.raises(InputError, match="no voltage"):
        read_dicom_ecg(tmp_path / "bad.dcm")


@pytest.mark.real
def test_shared_recordings() -> None:
    data = os.environ.get("VTWIN_DATA")
    if not data:
        pytest.skip("VTWIN_DATA is not set")
    folder = Path(data) / "ecg"
    notes = Notes()
    ptb = read_ecg(folder / "ptb_s0010_re" / "s0010_re.hea", notes)
    assert (ptb.fs_hz, len(ptb.time_ms)) == (1000.0, 38400)
    assert notes.lines == ["s0010_re.hea: 3 channels that are none of the twelve leads were left out"]
    assert np.abs(ptb.leads["I"] + ptb.leads["III"] - ptb.leads["II"]).max() <= 0.0011
    xl = read_ecg(folder / "ptbxl_00001" / "00001_lr.hea")
    assert (xl.fs_hz, len(xl.time_ms)) == (100.0, 1000)
    for given in (ptb, xl):
        assert "ecg_limb_reversal" in [code for code, _, _ in doubts(arms(given))]
        with pytest.raises(Suspicious):
            check_ecg(exchanged(given, ("V2", "V5")), Path("x"), Notes())
