"""Maps annotated anew from electrograms: recovery of known T waves, phantom studies whose times are known, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_fixtures import study

from planners.app.cli import run
from twin.errors import InputError
from twin.io.eam import read_eam, read_map
from twin.io.notes import Notes
from twin.io.studies import write_study
from twin.signals.electrograms import annotate
from twin.signals.reannotate import reannotate
from twin.study import NoRecordings

TIME = np.arange(900.0)


def unipolar(at: float, recovery: float, t_wave: float, second: float = 0.0) -> np.ndarray:
    """A fall at `at` and a T wave whose steepest rise is at `recovery`: t_wave < 0 an inverted bump before it, > 0 a bump after it."""
    fall = -6.0 / (1 + np.exp(-(TIME - at) / 3.0)) * np.exp(-np.maximum(TIME - at, 0) / 30.0)
    width = 25.0
    bump = t_wave * np.exp(-0.5 * ((TIME - recovery - np.sign(t_wave) * width) / width) ** 2)
    return fall + bump + second * np.exp(-0.5 * ((TIME - recovery - 130.0) / width) ** 2)


def intervals(*signals: np.ndarray, noise: float = 0.01) -> np.ndarray:
    rows = np.stack(signals) + noise * np.random.default_rng(0).normal(size=(len(signals), len(TIME)))
    return annotate(None, rows, 1000.0, (50.0, 400.0)).ari_ms


@pytest.mark.parametrize("t_wave", [-2.0, 2.0, -0.3, 0.3])
def test_recovery_is_the_steepest_rise_of_any_t_wave(t_wave: float) -> None:
    found = intervals(*(unipolar(at, at + duration, t_wave) for at, duration in ((150.0, 260.0), (200.0, 300.0), (250.0, 340.0))))
    assert found == pytest.approx([260.0, 300.0, 340.0], abs=5.0 if abs(t_wave) > 1 else 10.0)


def test_no_recovery_is_named_where_none_can_be_told() -> None:
    flat, humps = unipolar(150.0, 430.0, 1e-9), unipolar(150.0, 430.0, 1.0, second=1.0)
    again = unipolar(150.0, 430.0, 1e-9) + np.roll(unipolar(150.0, 430.0, 1e-9), 330)
    silent = 0.0 * TIME
    assert np.isnan(intervals(flat, humps, again, silent)).all()


def test_a_study_is_annotated_as_its_electrograms_say() -> None:
    old = study()
    found = reannotate(old)
    recorded = np.array([k % 11 != 10 for k in range(len(old))])
    assert found.points.tolist() == np.flatnonzero(recorded).tolist()
    truth = np.nan_to_num(old.lat_ms[recorded])
    # beyond the window of interest nothing may be found
    inside = np.abs(truth) < 130.0
    assert np.abs(found.found.lat_ms - truth)[inside].max() < 3.0
    new = found.study(old)
    assert np.isnan(new.lat_ms[~recorded]).all()
    assert new.eam().points_mm is old.points_mm
    assert found.summary()["with_time"] >= inside.sum()
    # without annotations of its own the reference channel's largest deflection is taken
    bare = replace(old, reference_ms=np.full(len(old), np.nan), recordings=_WithoutReference(old.recordings))
    assert reannotate(bare).found.lat_ms == pytest.approx(found.found.lat_ms, abs=1.0, nan_ok=True)


class _WithoutReference:
    def __init__(self, recordings):
        self.recordings = recordings

    def __len__(self) -> int:
        return len(self.recordings)

    def read(self, index: int):
        found = self.recordings.read(index)
        return None if found is None else replace(found, reference_ms=float("nan"), map_ms=float("nan"))


def test_a_study_without_electrograms_is_one_line() -> None:
    old = study()
    with pytest.raises(InputError, match="no point has an electrogram"):
        reannotate(replace(old, recordings=NoRecordings(len(old))))


def test_the_command_and_the_case_option_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = tmp_path / "export.zip"
    write_study(export, study())
    assert run(["annotate", str(export), "-o", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["with_time"] > 80
    assert abs(said["median_difference_ms"]) < 2.0
    assert (tmp_path / "out" / "annotate.png").read_bytes().startswith(b"\x89PNG")
    header = (tmp_path / "out" / "points.csv").read_text().splitlines()[2]
    assert header.startswith("point,x_mm,y_mm,z_mm,system_lat_ms,lat_unipolar_ms")
    notes = Notes()
    again = read_map(export, notes, annotate=True)
    written = read_eam(tmp_path / "out" / "map.csv")
    assert written.lat_ms == pytest.approx(again.lat_ms, abs=1e-3, nan_ok=True)
    assert written.unipolar_mv == pytest.approx(again.unipolar_mv, abs=1e-3, nan_ok=True)
    assert any("annotated again" in line for line in notes.lines)
    with pytest.raises(InputError, match="holds no electrograms"):
        read_map(tmp_path / "out" / "map.csv", Notes(), annotate=True)
    assert run(["annotate", str(tmp_path / "out" / "map.csv"), "-o", str(tmp_path / "no")]) == 2
    assert run(["annotate", str(export), "-o", str(tmp_path / "no"), "--surface", "lv_end"]) == 2
    assert "did you mean 'lv_endo'" in capsys.readouterr().err
