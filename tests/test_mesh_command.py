"""`vtwin mesh` with fibre rules and measured fibres, and `vtwin transfer`, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from meshing.heart_file import read_heart
from meshing.phantom import Ventricles
from planners.app.cli import run
from twin.errors import InputError
from twin.io.eam import read_eam, write_eam
from twin.io.nrrd import write_nrrd
from twin.io.positions import read_positions
from twin.io.table import write_table
from twin.mesh import HeartMesh
from twin.patient import ElectroanatomicalMap


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hearts, the second a fifth smaller and elsewhere, meshed by the command."""
    folder = tmp_path_factory.mktemp("hearts")
    write_nrrd(folder / "one.nrrd", Ventricles(scar_mm=14.0).volume(1.6, scar=True))
    write_nrrd(folder / "two.nrrd", Ventricles(scale=0.8).volume(1.4))
    for name in ("one", "two"):
        assert run(["mesh", str(folder / f"{name}.nrrd"), "-o", str(folder / name), "--edge", "4 mm"]) == 0
    return folder


def numbers(folder: Path) -> dict[str, object]:
    return json.loads((folder / "quality.json").read_text())


def test_the_rule_and_what_was_done_are_said(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert numbers(made / "one")["fibres"] == ["fibres: linear rule after Bayer 2012, helix +60 to -60 degrees"]
    assert run(["mesh", str(made / "one.nrrd"), "-o", str(made / "flat"), "--edge", "4 mm", "--helix", "40,-30"]) == 0
    assert "repairs: " in capsys.readouterr().out
    turned = np.abs(np.einsum("mi,mi->m", read_heart(made / "flat").fibre, read_heart(made / "one").fibre))
    assert 5.0 < np.degrees(np.arccos(np.clip(np.median(turned), 0, 1))) < 25.0


def test_outflow_tracts_from_named_valves(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["mesh", str(made / "one.nrrd"), "--edge", "4 mm", "--fibres", "doste"]
    assert run([*call, "-o", str(made / "inflow")]) == 0
    assert "no aortic and pulmonary valve was found" in capsys.readouterr().out
    valves = ["tricuspid=-50,-15,12", "pulmonary=-45,22,12", "mitral=0,0,12"]
    assert run([*call, "-o", str(made / "doste"), *(word for valve in valves for word in ("--valve", valve))]) == 0
    said = numbers(made / "doste")["fibres"]
    assert "tricuspid" in said[0]  # type: ignore[index]
    assert "pulmonary" in said[0]  # type: ignore[index]
    assert "no aortic valve" in said[1]  # type: ignore[index]
    two, one = (read_heart(made / name) for name in ("doste", "inflow"))
    assert np.allclose(np.linalg.norm(two.fibre, axis=1), 1.0)
    turned = np.degrees(np.arccos(np.clip(np.abs(np.einsum("mi,mi->m", two.fibre, one.fibre)), 0.0, 1.0)))
    near = np.linalg.norm(two.centroids_mm - [-45.0, 22.0, 12.0], axis=1) < 18.0
    # fibres turn towards the outflow tract, and those of the left ventricle's free wall stay as they are
    assert np.percentile(turned[near], 90) > 12.0
    assert np.percentile(turned[two.centroids_mm[:, 0] > 10.0], 90) < 3.0


def test_measured_fibres_are_matched_by_place(made: Path) -> None:
    heart = read_heart(made / "one")
    order = np.random.default_rng(0).permutation(len(heart.tets))
    x, y, z = heart.centroids_mm[order].T
    # all along one direction, which no rule gives, with random signs
    sign = np.random.default_rng(1).choice([-1.0, 1.0], len(order))
    measured = {"x_mm": x, "y_mm": y, "z_mm": z, "fibre_x": 0.6 * sign, "fibre_y": 0.0 * sign, "fibre_z": 0.8 * sign}
    write_table(made / "dti.csv", "fibres", {}, measured, 4)
    assert run(["mesh", str(made / "one.nrrd"), "-o", str(made / "dti"), "--edge", "4 mm", "--fibres", str(made / "dti.csv")]) == 0
    assert np.allclose(np.abs(read_heart(made / "dti").fibre @ [0.6, 0.0, 0.8]), 1.0, atol=1e-4)
    assert "matched by place, over 100 % of the muscle" in numbers(made / "dti")["fibres"][0]  # type: ignore[index]


def test_wrong_options_are_one_line(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for options, words in (
        (["--fibres", "dosti"], "did you mean 'doste'?"),
        (["--fibres", "gone.lon"], "gone"),
        (["--valve", "mitral=0,0,0"], "add --fibres doste"),
        (["--fibres", "doste", "--valve", "mitral=0,0"], "mitral=0,0"),
        (["--fibres", "doste", "--valve", "aorta=0,0,1"], "is no valve"),
        (["--helix", "-60,60"], "fall from endo to epi"),
        (["--helix", "60"], "ENDO,EPI"),
    ):
        assert run(["mesh", str(made / "one.nrrd"), "-o", str(tmp_path / "out"), "--edge", "4 mm", *options]) == 2, options
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vtwin: ")]
        assert len(lines) == 1
        assert words in lines[0], options


def test_a_map_goes_to_another_heart_and_back(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heart, other = read_heart(made / "one"), read_heart(made / "two")
    nodes = heart.surface_nodes("lv_endo")[::4]
    lat = np.linspace(0.0, 90.0, len(nodes))
    mark = {"lv_apex": heart.points_mm[nodes[0]]}
    write_eam(made / "map.csv", ElectroanatomicalMap(heart.points_mm[nodes], lat, np.full(len(nodes), 2.0), landmarks=mark))
    call = ["transfer", str(made / "map.csv"), "--from", str(made / "one"), "--to", str(made / "two")]
    assert run([*call, "-o", str(made / "there.csv"), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    there = read_eam(made / "there.csv")
    assert value["there_and_back_mm"]["p95"] < 2.0
    np.testing.assert_allclose(there.lat_ms, lat, atol=1e-3)
    assert _distance(other, "lv_endo", there.points_mm).max() < 1.0
    # the smaller heart is the same one, scaled about the origin
    assert np.median(np.linalg.norm(there.points_mm - 0.8 * heart.points_mm[nodes], axis=1)) < 2.0
    assert run([*call, "-o", str(made / "there.csv")]) == 2
    assert "exists" in capsys.readouterr().err


def _distance(mesh: HeartMesh, surface: str, places_mm: np.ndarray) -> np.ndarray:
    from scipy.spatial import cKDTree

    nodes = mesh.points_mm[mesh.surfaces[surface]].mean(axis=1)
    both = np.concatenate([nodes, mesh.points_mm[mesh.surface_nodes(surface)]])
    return np.asarray(cKDTree(both).query(places_mm)[0]) - 1.5


def test_targets_and_drawn_lesions_go_to_another_heart(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    heart = read_heart(made / "one")
    places = heart.points_mm[heart.surface_nodes("lv_endo")[[5, 40, 80]]]
    target = {"id": "L1", "surface": "lv_endo", "radius_mm": 4.0, "depth_mm": 6.0, "order": 1, "positions_mm": places.tolist()}
    (tmp_path / "plan.json").write_text(json.dumps({"targets": [target]}))
    (tmp_path / "drawn.csv").write_text("x,y,z\n" + "".join(f"{x},{y},{z}\n" for x, y, z in places))
    hearts = ["--from", str(made / "one"), "--to", str(made / "two" / "heart.npz")]
    for what, out in ((tmp_path, "targets.csv"), (tmp_path / "drawn.csv", "lesions.csv")):
        assert run(["transfer", str(what), *hearts, "-o", str(tmp_path / out)]) == 0
        found = read_positions(tmp_path / out)
        assert found[0]["surface"] == "lv_endo"
        np.testing.assert_allclose(found[0]["positions"], 0.8 * places, atol=4.0)
    assert "L1,4.0,6.0,1" in (tmp_path / "targets.csv").read_text()
    (tmp_path / "far.csv").write_text("x,y,z\n500,0,0\n")
    capsys.readouterr()
    for what, words in (("far.csv", "from the source heart"), ("none.csv", "does not exist")):
        assert run(["transfer", str(tmp_path / what), *hearts, "-o", str(tmp_path / "x.csv")]) == 2
        assert words in capsys.readouterr().err


def test_what_is_no_heart_is_said(made: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 not a zip")
    for path, words in (
        (tmp_path / "bad.npz", "is not a heart mesh"),
        (tmp_path / "none", "does not exist"),
        (tmp_path, "holds no heart mesh"),
    ):
        with pytest.raises(InputError, match=words):
            read_heart(path)
