"""Maps, ECGs and records: round trips, and every unit, order and gap that must be refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from io_fixtures import eam, ecg, heart

from twin.errors import InputError, Suspicious
from twin.io.bundle import bundle_eam, bundle_ecg
from twin.io.eam import near_blood, read_eam, write_eam
from twin.io.ecg import read_ecg, write_ecg
from twin.io.notes import Notes
from twin.io.record import read_record
from twin.patient import LEADS, Ecg, ElectroanatomicalMap


def test_a_map_comes_back_as_it_was(tmp_path: Path) -> None:
    write_eam(tmp_path / "m.csv", eam())
    back = read_eam(tmp_path / "m.csv")
    want = eam()
    for name in ("points_mm", "lat_ms", "bipolar_mv"):
        assert np.array_equal(getattr(back, name), getattr(want, name), equal_nan=True)
    assert (back.surface, back.rhythm) == ("lv_endo", "sinus")
    assert {k: v.tolist() for k, v in back.landmarks.items()} == {k: v.tolist() for k, v in want.landmarks.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: replace(m, points_mm=m.points_mm / 100_000), "metres; multiply coordinates by 1000"),
        (lambda m: replace(m, points_mm=m.points_mm * 1000), "micrometres"),
        (lambda m: replace(m, lat_ms=m.lat_ms / 1000), "seconds; multiply lat_ms by 1000"),
        (lambda m: replace(m, lat_ms=m.lat_ms * 1000), "microseconds"),
        (lambda m: replace(m, lat_ms=m.lat_ms * 0 + 5), "equal"),
        (lambda m: replace(m, lat_ms=np.where(np.arange(300) < 290, np.nan, m.lat_ms)), "only"),
        (lambda m: replace(m, lat_ms=np.where(np.arange(300) == 5, -10000.0, m.lat_ms)), "CARTO"),
        (lambda m: replace(m, bipolar_mv=m.bipolar_mv * 1000), "microvolts"),
        (lambda m: replace(m, bipolar_mv=m.bipolar_mv / 200), "volts"),
        (lambda m: replace(m, bipolar_mv=m.bipolar_mv - 3), "negative"),
        (lambda m: replace(m, points_mm=np.where(np.arange(300)[:, None] == 3, np.nan, m.points_mm)), "not finite"),
        (lambda m: replace(m, surface="lv_endoo"), "did you mean 'lv_endo'"),
    ],
)
def test_maps_that_cannot_be_used(tmp_path: Path, change: Callable[[ElectroanatomicalMap], ElectroanatomicalMap], words: str) -> None:
    write_eam(tmp_path / "m.csv", change(eam()))
    with pytest.raises(InputError, match=words) as caught:
        read_eam(tmp_path / "m.csv")
    assert not isinstance(caught.value, Suspicious)
    assert "m.csv" in caught.value.line()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("# vtwin-eam 1", "x", "first line"),
        ("lat_ms", "latt_ms", "did you mean 'lat_ms'"),
        ("bipolar_mv\n", "lat_ms\n", "twice"),
        ("# surface:", "# surfase:", "unknown header key"),
        ("mm, ms, mV", "m, s, V", "units"),
        ("landmark.lv_apex: 45.000", "landmark.lv_apex: here", "not a position"),
    ],
)
def test_map_files_with_a_wrong_header(tmp_path: Path, old: str, new: str, words: str) -> None:
    write_eam(tmp_path / "m.csv", eam())
    text = (tmp_path / "m.csv").read_text()
    assert old in text
    (tmp_path / "m.csv").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=words):
        read_eam(tmp_path / "m.csv")


def test_rows_are_named_by_their_line(tmp_path: Path) -> None:
    write_eam(tmp_path / "m.csv", eam())
    lines = (tmp_path / "m.csv").read_text().splitlines()
    bad = {"1,2": "has 2 values", "1,2,x,4,5": "z_mm: 'x'", "1,2,inf,4,5": "z_mm is not finite"}
    for row, words in bad.items():
        (tmp_path / "m.csv").write_text("\n".join([*lines[:9], row, *lines[10:]]))
        with pytest.raises(InputError, match=f"line 10: {words}"):
            read_eam(tmp_path / "m.csv")


def test_repeated_points_are_left_out_and_many_are_suspicious(tmp_path: Path) -> None:
    one = eam()

    def again(n: int) -> ElectroanatomicalMap:
        return replace(one, **{k: np.concatenate([getattr(one, k), getattr(one, k)[:n]]) for k in ("points_mm", "lat_ms", "bipolar_mv")})

    notes = Notes()
    write_eam(tmp_path / "m.csv", again(7))
    assert len(read_eam(tmp_path / "m.csv", notes).points_mm) == 300
    assert notes.lines == ["m.csv: 7 repeated points were left out"]
    write_eam(tmp_path / "m.csv", again(200))
    with pytest.raises(Suspicious, match="eam_duplicates"):
        read_eam(tmp_path / "m.csv")


def test_an_ecg_comes_back_as_it_was(tmp_path: Path) -> None:
    write_ecg(tmp_path / "e.csv", ecg())
    back = read_ecg(tmp_path / "e.csv")
    assert back.fs_hz == 1000.0
    assert not back.normalised
    assert np.array_equal(back.array(), ecg().array())


def swapped(e: Ecg) -> Ecg:
    return replace(e, leads=dict(e.leads) | {"I": e.leads["II"], "II": e.leads["I"]})


@pytest.mark.parametrize(
    ("change", "words", "code"),
    [
        (lambda e: replace(e, leads=dict(e.leads) | {"V3": np.full(200, 0.2)}), "V3: is a flat lead", None),
        (lambda e: replace(e, leads=dict(e.leads) | {"V3": np.full(200, np.nan)}), "V3: has missing", None),
        (lambda e: replace(e, leads={k: v * 1000 for k, v in e.leads.items()}), "microvolts; divide the leads by 1000", None),
        (lambda e: replace(e, leads={k: v / 200 for k, v in e.leads.items()}), "volts; multiply", None),
        (lambda e: replace(e, fs_hz=1e6), "seconds; multiply time_ms by 1000", None),
        (lambda e: replace(e, fs_hz=20.0), "too coarse", None),
        (swapped, "limb leads swapped", "ecg_lead_order"),
        (lambda e: replace(e, leads={k: v * 10 for k, v in e.leads.items()}), "peak to peak", "ecg_amplitude"),
    ],
)
def test_ecgs_that_cannot_be_used(tmp_path: Path, change: Callable[[Ecg], Ecg], words: str, code: str | None) -> None:
    write_ecg(tmp_path / "e.csv", change(ecg()))
    with pytest.raises(InputError, match=words) as caught:
        read_ecg(tmp_path / "e.csv")
    assert getattr(caught.value, "code", None) == code
    if code:
        notes = Notes([code])
        read_ecg(tmp_path / "e.csv", notes)
        assert notes.lines[0].startswith(f"accepted ({code})")


def test_ecg_time_and_leads(tmp_path: Path) -> None:
    write_ecg(tmp_path / "e.csv", ecg())
    lines = (tmp_path / "e.csv").read_text().splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("time_ms"))
    (tmp_path / "e.csv").write_text("\n".join(lines[: head + 30] + lines[head + 90 :]))
    with pytest.raises(InputError, match="not uniform"):
        read_ecg(tmp_path / "e.csv")
    (tmp_path / "e.csv").write_text("\n".join([*lines, lines[head + 5]]))
    with pytest.raises(InputError, match="does not increase"):
        read_ecg(tmp_path / "e.csv")
    (tmp_path / "e.csv").write_text("\n".join([*lines[:head], *(line.rsplit(",", 1)[0] for line in lines[head:])]))
    with pytest.raises(InputError, match="missing V6"):
        read_ecg(tmp_path / "e.csv")


def test_a_record_keeps_facts_and_drops_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    secret = {"PatientName": "Zebra", "birth_date": "1960-01-01", "mrn": 77123, "PatientID": "q9", "phoneNumber": "555", "doctor": "Yak"}
    path.write_text(json.dumps(secret | {"age": 61, "sex": "male", "LVEF": None, "drugs": ["amiodarone"], "icd": True}))
    notes = Notes()
    facts = read_record(path, notes)
    assert facts == {"age_years": 61, "sex": "male", "drugs": ["amiodarone"], "icd": True}
    assert notes.lines == ["r.json: 6 identifying fields were dropped"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        ('{"lvef_precent": 30}', "did you mean 'lvef_percent'"),
        ('{"lvef_percent": 0.3}', "not a number in its range"),
        ('{"age_years": NaN}', "not a number in its range"),
        ('{"icd": "yes Zebra"}', "true or false"),
        ('{"sex": "Zebra"}', "known: female"),
        ('{"drugs": "Zebra"}', "list"),
    ],
)
def test_records_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_record(tmp_path / "r.json")
    # a value may be a name that slipped into the wrong field
    assert "Zebra" not in caught.value.line()


def test_a_whole_heart_map_is_cut_to_the_chamber(tmp_path: Path) -> None:
    volume = heart()
    lv, rv = np.array([[45.0 - 22, 45, 20], [45, 45, 69]]), np.array([[45.0 + 50, 45, 20]])
    far = np.array([[-500.0, 0, 0]])
    assert near_blood(volume, np.concatenate([lv, rv, far]), "lv_endo", 2.5).tolist() == [True, True, False, False]
    assert near_blood(volume, np.concatenate([lv, rv, far]), "rv_endo", 2.5).tolist() == [False, False, True, False]
    one = eam()
    points = np.concatenate([one.points_mm, one.points_mm + np.array([48.0, 0, 0])])
    lat = np.tile(np.nan_to_num(one.lat_ms), 2)
    np.savez(tmp_path / "b.npz", vertices_mm=points.astype("f4"), lat_ms=lat, ecg=ecg().array(), ecg_leads=np.array(LEADS), ecg_fs_hz=500)
    notes = Notes()
    cut = bundle_eam(tmp_path / "b.npz", "lv_endo", volume, notes)
    assert 290 <= len(cut.points_mm) <= 330
    assert np.isnan(cut.bipolar_mv).all()
    trace = bundle_ecg(tmp_path / "b.npz", notes, 1000.0, normalised=True)
    assert trace.fs_hz == 1000.0
    assert trace.normalised
    assert any("the file states 500 Hz" in line for line in notes.lines)
    away = volume.affine.copy()
    away[0, 3] = 900.0
    with pytest.raises(InputError, match="no vertex lies on lv_endo"):
        bundle_eam(tmp_path / "b.npz", "lv_endo", replace(volume, affine=away), notes)
