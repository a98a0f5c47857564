"""Nearly closed surfaces: pieces stitched, flaws dropped, small holes closed, large ones refused; the shared hearts end to end."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from meshing.closing import close_surface
from meshing.mesh_case import load_case, run_case
from meshing.surfaces import topology
from meshing.voxelise import read_closed
from twin.errors import InputError
from twin.io.ply import write_ply
from twin.io.surfaces import Surface

CASES = Path(__file__).parents[1] / "cases"
REAL = {"mesh_cobiveco_mean": 144.76, "mesh_cobiveco_patient": 255.46, "mesh_strocchi_01": 208.33}


def ball(radius_mm: float = 20.0, count: int = 800) -> Surface:
    """A closed ball, triangles outward."""
    z = 1.0 - (2.0 * np.arange(count) + 1.0) / count
    turn = np.pi * (1.0 + 5.0**0.5) * np.arange(count)
    points = radius_mm * np.stack([np.sqrt(1 - z * z) * np.cos(turn), np.sqrt(1 - z * z) * np.sin(turn), z], axis=1)
    faces = ConvexHull(points).simplices
    p = points[faces]
    inward = np.einsum("ij,ij->i", np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), p.sum(axis=1)) < 0
    faces[inward] = faces[inward][:, ::-1]
    return Surface(points, faces.astype(np.int32))


def part(surface: Surface, keep: np.ndarray) -> Surface:
    """Some triangles with their own points."""
    nodes, inverse = np.unique(surface.triangles[keep], return_inverse=True)
    return Surface(surface.points_mm[nodes], inverse.reshape(-1, 3).astype(np.int32))


def is_closed(surface: Surface) -> bool:
    shape = topology(surface.triangles)
    return (shape.open_edges, shape.pinched_edges, shape.components, shape.euler) == (0, 0, 1, 2)


def test_a_closed_surface_stays_as_it_is() -> None:
    closed, notes = close_surface([ball()], "ball")
    assert notes == []
    np.testing.assert_array_equal(closed.triangles, ball().triangles)


def test_pieces_with_a_gap_are_stitched_whatever_their_orientation() -> None:
    whole = ball()
    height = whole.points_mm[whole.triangles][:, :, 2]
    top, bottom = part(whole, (height > 5).all(axis=1)), part(whole, (height < 5).all(axis=1))
    turned = replace(bottom, triangles=bottom.triangles[:, ::-1].copy())
    for lower in (bottom, turned):
        closed, notes = close_surface([top, lower], "ball")
        assert is_closed(closed)
        assert closed.volume_ml == pytest.approx(whole.volume_ml, rel=0.01)
        assert len(notes) == 1
        assert "joined" in notes[0]


def test_pieces_that_share_their_rim_are_welded() -> None:
    whole = ball()
    upper = whole.points_mm[whole.triangles][:, :, 2].mean(axis=1) > 0
    closed, notes = close_surface([part(whole, upper), part(whole, ~upper)], "ball")
    assert is_closed(closed)
    assert closed.volume_ml == pytest.approx(whole.volume_ml)
    assert "welded" in notes[0]


def test_flaws_are_dropped_and_small_holes_closed() -> None:
    whole = ball()
    flaws = np.concatenate([whole.triangles[1:], whole.triangles[5:6], [[3, 3, 9]], [[7, 90, 400], [90, 7, 400]]]).astype(np.int32)
    closed, notes = close_surface([replace(whole, triangles=flaws)], "ball")
    assert is_closed(closed)
    assert closed.volume_ml == pytest.approx(whole.volume_ml, rel=1e-3)
    assert any(note.endswith("dropped: 4") for note in notes)
    assert any("perimeter" in note and "closed" in note for note in notes)


def test_a_large_hole_is_refused_with_its_place() -> None:
    whole = ball()
    cut = replace(whole, triangles=whole.triangles[(whole.points_mm[whole.triangles][:, :, 2] < 14).all(axis=1)])
    with pytest.raises(InputError, match=r"hole of \d+ mm perimeter at \[.*1[34]\.\d\] mm"):
        close_surface([cut], "ball.ply")


def test_pieces_are_found_by_pattern_and_by_folder(tmp_path: Path) -> None:
    whole = ball()
    height = whole.points_mm[whole.triangles][:, :, 2]
    write_ply(tmp_path / "x_base.ply", part(whole, (height > 5).all(axis=1)))
    write_ply(tmp_path / "x_epi.ply", part(whole, (height < 5).all(axis=1)))
    for path in (tmp_path, tmp_path / "x_*.ply"):
        closed, notes = read_closed(path)
        assert is_closed(closed)
        assert len(notes) == 1
    with pytest.raises(InputError, match="matches no surface"):
        read_closed(tmp_path / "y_*.ply")


def test_a_mesh_case_says_what_is_wrong_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    for text, words in (("[surface", "readable"), ("[mesh]\n", "surface.file"), ('[surface]\nfile="$NO_SUCH_FOLDER/x.vtp"', "not set")):
        (tmp_path / "mesh.toml").write_text(text)
        with pytest.raises(InputError, match=words):
            load_case(tmp_path / "mesh.toml")
    (tmp_path / "mesh.toml").write_text('[surface]\nfile="x.vtp"\n[expect]\ncolour=3')
    with pytest.raises(InputError, match=r"expect\.colour"):
        load_case(tmp_path / "mesh.toml")


@pytest.mark.real
@pytest.mark.skipif("VTWIN_DATA" not in os.environ, reason="VTWIN_DATA is not set: no real heart to close")
@pytest.mark.parametrize("name", list(REAL))
def test_real_surfaces_close_to_their_volume(name: str) -> None:
    case = load_case(CASES / name / "mesh.toml")
    surface, notes = read_closed(case.surface)
    assert surface.volume_ml == pytest.approx(REAL[name], abs=0.02)
    assert len(notes) == case.expect["repairs"]
    assert topology(surface.triangles).open_edges == 0


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif("VTWIN_DATA" not in os.environ, reason="VTWIN_DATA is not set: no real heart to mesh")
@pytest.mark.parametrize("name", list(REAL))
def test_real_hearts_become_meshes_as_their_cases_expect(name: str) -> None:
    heart, missed = run_case(load_case(CASES / name / "mesh.toml"))
    assert missed == []
    assert set(np.unique(heart.aha_segment)) == set(range(18))
    np.testing.assert_allclose(np.linalg.norm(heart.fibre, axis=1), 1.0, atol=1e-9)
