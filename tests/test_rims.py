"""Rims of a flat base: on the plane, on the wall's edge, no angle spoilt; and the wall keeps its labels' volume."""

from __future__ import annotations

import numpy as np
import pytest

from meshing.coordinates import rim
from meshing.implicit import sample
from meshing.mesh_labels import mesh_heart
from meshing.phantom import Ventricles, rotation
from twin.mesh import HeartMesh

FRAME = rotation((0.3, -0.4, 0.8), 40.0)


@pytest.fixture(scope="module", params=["upright", "oblique"])
def case(request: pytest.FixtureRequest) -> tuple[HeartMesh, np.ndarray]:
    """A mesh, and its nodes in the phantom's own frame."""
    frame = np.eye(3) if request.param == "upright" else FRAME
    mesh = mesh_heart(Ventricles(frame=frame).volume(1.5), 2.2)
    return mesh, mesh.points_mm @ frame


def test_rims_are_round_and_level(case: tuple[HeartMesh, np.ndarray]) -> None:
    mesh, places = case
    nodes = np.unique(rim(mesh.surfaces["lv_endo"]))
    radius, level = np.hypot(places[nodes, 0], places[nodes, 1]), places[nodes, 2]
    # 23 mm at the equator of a spheroid of half length 62 mm, cut 12 mm above it; teeth of the lattice were 1.2 mm deep
    assert radius.mean() == pytest.approx(23.0 * np.sqrt(1.0 - (12.0 / 62.0) ** 2), abs=0.35)
    assert radius.std() < 0.45
    assert np.percentile(np.abs(level - np.median(level)), 80) < 0.05
    assert mesh.quality["rim_moves"] > 50


def test_the_base_is_a_plane_and_angles_stay_good(case: tuple[HeartMesh, np.ndarray]) -> None:
    mesh, places = case
    p = places[mesh.surfaces["base"]]
    normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    upright = normal[:, 2] / np.linalg.norm(normal, axis=1)
    area = np.linalg.norm(normal, axis=1)
    assert np.average(upright > 0.999, weights=area) > 0.85
    assert mesh.quality["dihedral_min_deg"] > 10.7
    assert mesh.quality["dihedral_p1_deg"] > 24.0
    assert mesh.quality["inverted"] == 0
    assert mesh.quality["surface_genus"] == 0


def test_the_wall_keeps_its_volume(case: tuple[HeartMesh, np.ndarray]) -> None:
    assert abs(case[0].quality["volume_error_percent"]) < 0.5


def test_a_rim_without_an_edge_stays_where_it_is() -> None:
    """Thickened wall has surfaces nearly parallel to the base, whose edge is nowhere: NaN, which no kernel may take for a place."""
    mesh = mesh_heart(Ventricles().volume(2.0, scar=True), 3.5)
    assert np.isfinite(mesh.points_mm).all()
    assert mesh.quality["dihedral_min_deg"] > 10.7
    field, out = np.ones((1, 4, 5, 6), np.float32), np.zeros((3, 4))
    points = np.array([[0.0, 1.0, 2.0], [np.nan, 0.0, 0.0], [0.0, np.inf, -np.inf]])
    sample(field, np.ascontiguousarray(np.eye(4)[:3]), points, out)
    np.testing.assert_array_equal(np.isfinite(out[:, 0]), [True, False, False])
