"""The report: what the renderer draws is where geometry says, and the page is one file that asks for nothing."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from analytic_hearts import ventricles
from PIL import Image

from meshing.anatomy import complete
from meshing.sites import pacing_sites
from planners.calibration import Calibration
from planners.overlay import DEFAULT, export
from planners.report.build import html
from planners.report.raster import Camera, Shape, render, sphere, tube
from planners.report.story import Story, Wave
from planners.report.summary import headline
from twin.calibrate.ecg import EcgFit
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.model import Twin
from twin.plan import Circuit, Induction, Plan, Target
from twin.tissue import Tissue

FRONT = Camera(np.array([0.0, 0.0, -1.0]), np.array([0.0, 1.0, 0.0]), np.zeros(3), 100.0)


def _pixels(shapes: list[Shape]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(render(shapes, FRONT, 400, 400, scale_bar_mm=0.0))), float) / 255


def test_a_ball_covers_the_area_of_its_disc() -> None:
    image = _pixels([sphere(np.zeros(3), 20.0, (0.0, 0.0, 0.6))])
    covered = (image[..., 0] < 0.5).sum() * (100.0 / 400) ** 2
    assert covered == pytest.approx(np.pi * 20.0**2, rel=0.03)
    rows, columns = np.nonzero(image[..., 0] < 0.5)
    assert rows.mean() == pytest.approx(200, abs=1.5)
    assert columns.mean() == pytest.approx(200, abs=1.5)


def test_what_is_nearer_hides_what_is_behind_and_glass_does_not() -> None:
    near, far = sphere(np.array([0, 0, 30.0]), 10, (0.8, 0, 0)), sphere(np.zeros(3), 10, (0, 0, 0.8))
    for order in ([near, far], [far, near]):
        middle = _pixels(order)[200, 200]
        assert middle[0] > middle[2]
    glass = Shape(near.vertices_mm, near.triangles, near.colours, 0.2)
    assert _pixels([glass, far])[200, 200][2] > 0.3


def test_right_of_the_picture_is_right_of_the_camera() -> None:
    image = _pixels(
        [sphere(np.array([30.0, 0, 0]), 8, (0, 0, 0)), tube(np.array([[0, -40.0, 0], [0, 0, 0.0], [0, 40, 0]]), 2.0, (0.0, 0.5, 0.0))]
    )
    dark = image.sum(axis=2) < 1.0
    assert dark[:, 300:].sum() > dark[:, :100].sum()


@pytest.fixture(scope="module")
def story() -> Story:
    mesh: HeartMesh = complete(ventricles(4.0))
    names = ("healthy/cv_longitudinal_m_s", "healthy/cv_transverse_m_s")
    samples = np.array([0.6, 0.25]) * np.exp(np.random.default_rng(0).normal(scale=0.05, size=(50, 2)))
    tissue = Tissue(
        names, samples, np.array([0.3, 0.1]), np.array([1.0, 0.5]), dict.fromkeys(names, "map"), np.zeros(1, np.int32), np.zeros(1)
    )
    time = np.arange(60.0)
    leads = np.stack([np.sin(time / 9 + k) for k in range(12)])
    ecg = EcgFit(time, leads, leads, np.ones(12), 0.0, 1.0)
    arrival = np.linalg.norm(mesh.points_mm - mesh.points_mm[0], axis=1) / 0.6
    endo = mesh.points_mm[mesh.surface_nodes("lv_endo")]
    none = np.zeros(0)
    calibration = Calibration(Twin(mesh, tissue, np.eye(4)), arrival, None, ecg, none.reshape(0, 3), none, none, none)
    path = endo[:4].tolist()
    circuit = Circuit("VT1", 340.0, path, path, 6.0, path[0], path[-1], 7, ("aha07",))
    target = Target("T1", endo[:2].tolist(), "lv_endo", 4.0, 6.0, 1, "cuts <VT1>", ("VT1",))
    inductions = [Induction("aha07", "quick", (350.0,), True, True, 340.0, 2000.0, "VT1"), Induction("rv_apex", "quick", (), False, True)]
    outcome = {
        "probability_non_inducible": 0.9,
        "interval": [0.6, 0.99],
        "samples": 8,
        "lesion_volume_ml": 1.2,
        "non_inducible_at_mode": True,
        "residual_circuits": [],
    }
    sites = {k: mesh.points_mm[n].tolist() for k, n in pacing_sites(mesh).items()}
    plan = Plan(
        {"name": "test"},
        {"sites": sites},
        {},
        inductions,
        [circuit],
        [target],
        [{"strategy": "a_b", "volume_ml": 1.2}],
        outcome,
        ["a limit"],
        {},
    )
    waves = [Wave("VT1 before", np.mod(arrival, 340.0), 340.0), Wave("after", np.where(arrival < 50, arrival, np.nan))]
    return Story(plan, mesh, calibration, waves, leads, time, ["anatomy"])


def test_the_page_is_one_file_that_asks_for_nothing(story: Story) -> None:
    page = html(story)
    assert len(page) < 10_000_000
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)[^\"']+", page)
    assert not re.findall(r"url\((?!#)", page)
    assert "connect-src" not in page
    assert "default-src 'none'" in page
    assert page.count("data:image/png;base64,") >= 7
    assert page.count("<svg xmlns") == 3
    assert "cuts &lt;VT1&gt;" in page
    assert html(story) == page


def test_the_headline_says_what_was_found(story: Story) -> None:
    assert headline(story) == (
        "Ventricular tachycardia was induced from 1 of 2 sites, by 1 circuit (cycle length 340 ms). "
        "2 lesions (1.2 mL) are proposed; afterwards nothing is inducible from any site by the same protocol."
    )


def test_overlays_return_the_same_points(story: Story, tmp_path: Path) -> None:
    import json

    import pyvista as pv

    files = export(story.plan, story.mesh, tmp_path)
    assert {f.parent.name for f in files} == set(DEFAULT)
    endo = story.mesh.points_mm[story.mesh.surface_nodes("lv_endo")]
    assert np.abs(np.asarray(pv.read(tmp_path / "vtp" / "lv_endo.vtp").points) - endo).max() < 0.01
    stl = np.asarray(pv.read(tmp_path / "stl" / "lv_endo.stl").points)
    assert np.abs(np.sort(stl[:, 0]) - np.sort(endo[:, 0])).max() < 0.01
    marks = json.loads((tmp_path / "slicer" / "targets.mrk.json").read_text())["markups"][0]
    assert marks["coordinateSystem"] == "LPS"
    found = np.array([p["position"] for p in marks["controlPoints"]])
    assert np.abs(found - np.array(story.plan.targets[0].positions_mm)).max() < 0.01
    with pytest.raises(InputError, match="choose from"):
        export(story.plan, story.mesh, tmp_path, ["dwg"])
