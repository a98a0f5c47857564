"""How the truth of simulated patients is read off a wave: both ways on waves that are known exactly, and where they differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planners.calibration import verify
from planners.calibration.hidden import by_passage, by_slopes
from tests.analytic_hearts import box
from twin.mesh import HeartMesh

ALONG, ACROSS = 0.5, 0.25


@pytest.fixture(scope="module")
def rim() -> tuple[HeartMesh, np.ndarray, np.ndarray]:
    """A block with oblique fibres and border zone inside healthy muscle, exact arrival (n,) from a corner, and the border zone (m,)."""
    fibre = np.array([0.6, 0.64, 0.48])
    mesh = box(9.0, 20)
    mesh = replace(mesh, fibre=np.repeat(fibre[None], len(mesh.tets), 0))
    border = (np.abs(mesh.centroids_mm) < 6.5).all(axis=1)
    mesh = mesh.with_region(border, "border_zone")
    offset = mesh.points_mm - mesh.points_mm.min(axis=0) + 2.0
    along = offset @ fibre
    across2 = np.maximum((offset**2).sum(axis=1) - along**2, 0.0)
    return mesh, np.sqrt((along / ALONG) ** 2 + across2 / ACROSS**2), border


def test_both_read_a_smooth_wave_right(rim: tuple[HeartMesh, np.ndarray, np.ndarray]) -> None:
    mesh, arrival, border = rim
    for found in (by_slopes(mesh, arrival, border), by_passage(mesh, arrival, border, np.array([0.4, 0.3]))):
        assert found == pytest.approx([ALONG, ACROSS], rel=0.04)


def test_of_a_wave_that_halts_and_hurries_the_passage_tells_how_long_it_takes(rim: tuple[HeartMesh, np.ndarray, np.ndarray]) -> None:
    mesh, arrival, border = rim
    period = 14.0
    uneven = arrival + 0.6 * period / (2.0 * np.pi) * np.sin(2.0 * np.pi * arrival / period)
    slopes = by_slopes(mesh, uneven, border)
    assert by_passage(mesh, uneven, border, slopes) == pytest.approx([ALONG, ACROSS], rel=0.08)
    assert (np.abs(slopes / [ALONG, ACROSS] - 1.0) > 0.2).all()


def test_a_patient_is_examined_once_as_long_as_the_code_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"healthy/cv_longitudinal_m_s": (0.5, 0.52, 0.4, 0.6, True), "ecg/healthy/cv_longitudinal_m_s": (0.5, 0.7, 0.6, 0.8, False)}
    found = verify.Found(9000, True, rows, (2.0, 3.5), 4.0, False, {"nodes": 10.0})
    asked = []
    monkeypatch.setenv("VTWIN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(verify, "hidden", lambda seed: seed)
    monkeypatch.setattr(verify, "examined", lambda patient: asked.append(patient) or found)
    assert verify.kept(9000) == found
    assert verify.kept(9000) == found
    assert asked == [9000]
    monkeypatch.setattr(verify, "_sources", lambda: "other code")
    verify.kept(9000)
    assert asked == [9000, 9000]


def test_records_count_what_lies_inside_its_interval() -> None:
    rows = {"healthy/cv_longitudinal_m_s": (0.5, 0.52, 0.4, 0.6, True), "ecg/healthy/cv_longitudinal_m_s": (0.5, 0.7, 0.6, 0.8, False)}
    two_starts = verify.Found(2, False, {}, (2.0, 9.0), None, True, {})
    records = {r["name"]: r for r in verify.summed_up([verify.Found(1, True, rows, (2.0, 9.0), 14.0, True, {}), two_starts])}
    assert records["calibration/velocity/error"]["value"] == pytest.approx(4.0)
    assert records["calibration/velocity/coverage"]["value"] == 100.0
    assert records["calibration/ecg_velocity/coverage"]["value"] == 0.0
    assert not records["calibration/ecg_velocity/coverage"]["passed"]
    assert records["calibration/site/map"]["value"] == pytest.approx(5.5)
    assert records["calibration/site/ecg_called_known"]["value"] == 14.0
    assert records["calibration/site/ecg_known_honest"]["value"] == 50.0
