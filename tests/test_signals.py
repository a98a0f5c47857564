"""Beats, their waves and what is read from them: recordings of known make, the shared recordings beside a peer, the study's own ECG."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from io_fixtures import heart
from numpy.typing import NDArray
from study_fixtures import study

from solvers.ecg import lead_matrix
from twin.case import load_case
from twin.case_evidence import read_patient
from twin.errors import InputError
from twin.io.ecg import read_ecg
from twin.io.nrrd import write_nrrd
from twin.io.studies import write_study
from twin.patient import LEADS, Ecg
from twin.signals.delineate import delineate
from twin.signals.features import axis_name, exit_region, features
from twin.signals.pacemap import match, spread_nodes

Array = NDArray[np.float64]
SOURCES = np.random.default_rng(7).normal(size=(9, 3))


def beat(width_ms: float, direction: Array, t_wave: float = 0.25) -> tuple[Array, float, float]:
    """Leads (12, 700) of a QRS that is not zero for `width_ms` from sample 150 on, and a T wave; its true onset and end."""
    t = np.arange(700.0)
    u = (t - 150.0) / width_ms
    inside = (u > 0) & (u < 1)
    shape = np.where(inside, np.sin(np.pi * u) ** 2, 0.0)
    turning = np.stack([shape, np.where(inside, np.sin(2 * np.pi * u) * np.sin(np.pi * u), 0.0)])
    middle, spread = 150.0 + width_ms + 200.0, 45.0
    wave = t_wave * np.exp(-(((t - middle) / spread) ** 2))
    loop = np.outer(direction, shape + wave) + np.outer(np.roll(direction, 1), 0.4 * turning[1])
    return np.asarray(lead_matrix() @ (SOURCES @ loop)), 150.0, 150.0 + width_ms


def strip(beats: list[tuple[float, Array]], length: int, noise_mv: float = 0.01, seed: int = 0) -> Ecg:
    """Beats (time of their first sample, leads) put into one recording."""
    rng = np.random.default_rng(seed)
    out = np.asarray(lead_matrix() @ (noise_mv * rng.standard_normal((9, length))))
    for at, leads in beats:
        a = int(at)
        stop = min(length, a + leads.shape[1])
        out[:, a:stop] += leads[:, : stop - a]
    return Ecg(dict(zip(LEADS, out, strict=True)), 1000.0)


@pytest.mark.parametrize("noise_mv", [0.002, 0.01, 0.03])
@pytest.mark.parametrize("width", [90.0, 140.0, 190.0])
def test_onset_and_end_of_known_beats(width: float, noise_mv: float) -> None:
    leads, onset, end = beat(width, np.array([1.0, 0.5, -0.3]))
    cycle = 820
    found = delineate(strip([(k * cycle, leads) for k in range(8)], 8 * cycle + 200, noise_mv))
    assert len(found.places_ms) == 8
    assert np.std(found.rr_ms) < 3.0
    starts = np.array([w.qrs_onset_ms for w in found.waves]) - np.arange(8) * cycle
    ends = np.array([w.qrs_end_ms for w in found.waves]) - np.arange(8) * cycle
    # the edges of a squared sine are flat: its first and last 4 % hold 1 % of its height
    assert np.abs(starts - onset).max() < 0.04 * width + 10.0
    assert np.abs(ends - end).max() < 0.04 * width + 10.0
    t_peak = np.array([w.t_peak_ms for w in found.waves]) - np.arange(8) * cycle
    assert np.abs(t_peak - (end + 200.0)).max() < 15.0


def test_premature_wide_beats_are_ventricular_and_runs_are_tachycardia() -> None:
    usual, wide = beat(90.0, np.array([1.0, 0.4, 0.2]))[0], beat(170.0, np.array([-1.0, 0.6, 0.5]), -0.3)[0]
    rhythm = [(k * 800.0, usual) for k in range(10)]
    single = [(at, leads) for at, leads in rhythm if at != 4000.0] + [(3750.0, wide)]
    found = features(delineate(strip(single, 8600)))
    assert len(found.ventricular_beats) == 1
    assert found.vt == ()
    assert [k.label for k in found.kinds] == ["dominant", "ventricular"]
    run = [(at, leads) for at, leads in rhythm[:4]] + [(3000.0 + 380.0 * k, wide) for k in range(9)]
    found = features(delineate(strip(run, 7200)))
    assert len(found.vt) == 1
    first, count, cycle = found.vt[0]
    assert (first, count) == (4, 9)
    assert cycle == pytest.approx(380.0, abs=3.0)


def test_a_recording_without_beats_gives_none() -> None:
    silent = Ecg({lead: np.zeros(3000) for lead in LEADS}, 1000.0)
    assert len(delineate(silent).places_ms) == 0
    assert np.isnan(features(delineate(silent)).rate_bpm)


def test_lower_rates_and_gain_do_not_change_the_count() -> None:
    leads, onset, end = beat(100.0, np.array([1.0, 0.5, -0.3]))
    full = strip([(k * 700.0, leads) for k in range(12)], 8600, 0.01)
    for step in (2, 4, 10):
        slow = Ecg({lead: v[::step] for lead, v in full.leads.items()}, 1000.0 / step)
        found = delineate(slow)
        assert len(found.places_ms) == 12
        assert found.templates[0].waves.qrs_ms == pytest.approx(end - onset, abs=16.0)
    tiny = Ecg({lead: 0.001 * v for lead, v in full.leads.items()}, 1000.0)
    assert len(delineate(tiny).places_ms) == 12


def test_words_for_where_a_wide_beat_comes_from() -> None:
    qrs = np.zeros((12, 100))
    wave = np.sin(np.linspace(0, np.pi, 100))
    for lead, sign in (("V1", 1.0), ("II", 1.0), ("III", 1.0), ("aVF", 1.0), ("V3", 1.0), ("V4", 1.0), ("I", -1.0), ("aVL", -1.0)):
        qrs[LEADS.index(lead)] = sign * wave
    found = exit_region(qrs)
    assert (found.side, found.wall, found.height, found.lateral) == ("LV", "anterior", "base", "lateral")
    assert all(value == pytest.approx(1.0) for value in found.certainty.values())
    opposite = exit_region(-qrs)
    assert (opposite.side, opposite.wall, opposite.height, opposite.lateral) == ("septum or RV", "inferior", "apex", "septal")
    assert axis_name(0.0) == "normal"
    assert axis_name(-60.0) == "left"
    assert axis_name(120.0) == "right"
    assert axis_name(-120.0) == "extreme"


def test_a_beat_is_matched_at_its_delay() -> None:
    leads, *_ = beat(120.0, np.array([1.0, 0.5, -0.3]))
    recorded = leads[:, 150:270]
    each, delay = match(recorded, leads[:, 100:400])
    assert delay == 50
    assert each[np.ptp(recorded, axis=1) > 1e-6] == pytest.approx(1.0)


def test_spread_nodes_leave_nothing_uncovered() -> None:
    points = np.random.default_rng(0).uniform(0, 50, (400, 3))
    chosen = spread_nodes(points, np.arange(400, dtype=np.int32), 12.0)
    away = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(axis=1)
    assert away.max() <= 12.0
    assert len(chosen) < 200


CASE = """
accept = ["scar_extent", "ecg_amplitude", "eam_off_surface"]
[patient]
name = "one"
virtual = true
[segmentation]
file = "labels.nrrd"
[ecg]
file = "DOE_JANE.zip"
"""


def test_the_ecg_of_a_mapping_study_is_read(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "labels.nrrd", heart())
    write_study(tmp_path / "DOE_JANE.zip", study(points=24))
    (tmp_path / "case.toml").write_text(CASE)
    patient = read_patient(load_case(tmp_path / "case.toml"))
    assert patient.ecg is not None
    assert set(patient.ecg.value.leads) == set(LEADS)
    assert patient.ecg.value.fs_hz == 1000.0
    assert patient.ecg.source == "export of a mapping system"
    assert not any("DOE" in note for note in patient.notes)
    write_study(tmp_path / "DOE_JANE.zip", study(points=24, with_ecg=False))
    with pytest.raises(InputError, match="holds no twelve leads"):
        read_patient(load_case(tmp_path / "case.toml"))


@pytest.mark.real
def test_beats_of_the_shared_recordings_beside_a_peer() -> None:
    data = os.environ.get("VTWIN_DATA")
    if not data:
        pytest.skip("VTWIN_DATA is not set")
    processing = pytest.importorskip("wfdb.processing")
    for name, beats, cycle in (("ptb_s0010_re/s0010_re.hea", 52, 733.8), ("ptbxl_00001/00001_lr.hea", 11, 938.0)):
        given = read_ecg(Path(data) / "ecg" / name)
        found = delineate(given)
        assert len(found.places_ms) == beats
        assert float(np.mean(found.rr_ms)) == pytest.approx(cycle, abs=2.0)
        # the peer is made for 250 Hz and more
        lead = np.interp(np.arange(0.0, given.time_ms[-1], 4.0), given.time_ms, given.leads["II"])
        peer = processing.xqrs_detect(lead, 250.0, verbose=False) * 4.0
        assert len(peer) >= beats - 2
        # the peer marks R in one lead, vtwin the fastest part in all: each of the peer's beats is one of ours
        away = np.abs(peer[:, None] - found.places_ms[None]).min(axis=1)
        assert away.max() < 120.0
        assert away.std() < 8.0
        assert 75.0 < found.templates[0].waves.qrs_ms < 140.0
        assert 340.0 < found.templates[0].waves.qt_ms < 460.0
