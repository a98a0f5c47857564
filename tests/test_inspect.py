"""`vtwin inspect`: each kind of file is told, described and drawn; doubts are found; identifiers never come out."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from io_fixtures import eam, ecg, heart
from PIL import Image as Pillow

from meshing.box import box_mesh
from planners.app.cli import run
from planners.app.inspect_picture import PANEL, picture
from planners.app.inspect_registry import KINDS
from planners.app.inspect_values import describe, orientation
from twin.io import opencarp
from twin.io.eam import write_eam
from twin.io.ecg import write_ecg
from twin.io.nifti import write_nifti
from twin.io.nrrd import write_nrrd
from twin.io.surfaces import Surface, write_surface
from twin.io.volume_mesh import of_heart, write_volume_mesh
from twin.volume import LabelVolume

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty, with the data in a folder beside it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "data"


def ask(path: Path, capsys: Capture, status: int = 0, *more: str) -> Any:
    """The command's answer as JSON."""
    assert run(["inspect", str(path), "--json", *more]) == status
    return json.loads(capsys.readouterr().out)


def test_labels_are_described_and_drawn_in_the_current_folder(here: Path, capsys: Capture) -> None:
    volume = heart(3.0)
    write_nrrd(here / "a.nrrd", volume)
    answer = ask(here / "a.nrrd", capsys)
    (found,) = answer["found"]
    assert found["what"] == "label volume"
    assert found["facts"]["spacing_mm"] == [3.0, 3.0, 3.0]
    assert found["facts"]["axes_point"] == "LPS"
    for name, ml in found["facts"]["labels_ml"].items():
        assert ml == pytest.approx(volume.volume_ml(name), abs=0.01)
    assert found["suspicious"] == []
    image = np.asarray(Pillow.open(Path("a.nrrd.preview.png")))
    assert image.shape == (PANEL, 3 * PANEL + 16, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) >= 6  # ground, frame, and the labels
    # the same on a terminal, and the picture where it is asked for
    assert run(["inspect", str(here / "a.nrrd"), "-o", str(here / "p.png")]) == 0
    text = capsys.readouterr().out
    assert "lv_blood" in text
    assert (here / "p.png").exists()


def test_the_picture_does_not_depend_on_how_voxels_are_stored() -> None:
    volume = heart(4.0)
    want = picture(volume)
    flipped = volume.affine.copy()
    n = volume.data.shape
    # axes (j, k, i), the second reversed
    flipped[:, :3] = volume.affine[:, [1, 2, 0]]
    flipped[:3, 1] *= -1
    flipped[:3, 3] += volume.affine[:3, 2] * (n[2] - 1)
    data = np.ascontiguousarray(volume.data.transpose(1, 2, 0)[:, ::-1])
    assert picture(LabelVolume(data, flipped)) == want


def test_left_handed_and_cut_labels_are_told(here: Path, capsys: Capture) -> None:
    volume = heart(3.0)
    mirrored = volume.affine @ np.diag([-1.0, 1, 1, 1])
    write_nifti(here / "left.nii.gz", LabelVolume(volume.data, mirrored))
    assert any("left-handed" in s for s in ask(here / "left.nii.gz", capsys)["found"][0]["suspicious"])
    write_nrrd(here / "cut.nrrd", LabelVolume(volume.data[:, :, 10:], volume.affine))
    assert any("touch the edge" in s for s in ask(here / "cut.nrrd", capsys)["found"][0]["suspicious"])


def test_geometry_that_cannot_be_right_is_said_with_status_2(here: Path, capsys: Capture) -> None:
    volume = heart(3.0)
    write_nrrd(here / "metres.nrrd", LabelVolume(volume.data, np.diag([0.003, 0.003, 0.003, 1.0])))
    answer = ask(here / "metres.nrrd", capsys, 2)
    assert answer["readable"] is False
    assert "metres" in answer["problem"]
    sheared = np.diag([3.0, 3.0, 3.0, 1.0])
    sheared[0, 1] = 1.0
    write_nrrd(here / "sheared.nrrd", LabelVolume(volume.data, sheared))
    assert "not perpendicular" in ask(here / "sheared.nrrd", capsys, 2)["problem"]


def test_orientation_letters() -> None:
    assert orientation(np.diag([1.0, 1, 1, 1])) == "LPS"
    assert orientation(np.diag([-2.0, -1, 3, 1])) == "RAS"
    tilted = np.eye(4)
    a = np.radians(20.0)
    tilted[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    assert orientation(tilted) == "LPS, oblique by up to 20 degrees"


def test_surfaces_and_meshes(here: Path, capsys: Capture) -> None:
    mesh = box_mesh((60.0, 50.0, 40.0), 10.0)
    volume = of_heart(mesh.with_region(mesh.centroids_mm[:, 0] > 40, "scar"))
    write_volume_mesh(here / "a.vtu", volume)
    found = ask(here / "a.vtu", capsys)["found"][0]
    assert found["facts"]["regions"]["scar"]["volume_ml"] == pytest.approx(40.0)
    assert found["facts"]["mean_edge_mm"] == pytest.approx(13.0, abs=1.0)
    assert found["facts"]["dihedral_min_deg"] == pytest.approx(45.0, abs=0.1)
    assert found["facts"]["fibres"] is True
    assert found["suspicious"] == []
    assert Path("a.vtu.preview.png").exists()
    write_volume_mesh(here / "b.bpts", volume)
    carp = ask(here / "b.blon", capsys)["found"][0]
    assert carp["facts"]["regions"]["region_3"]["volume_ml"] == pytest.approx(40.0)
    triangles = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2]], np.int32)
    write_surface(here / "open.ply", Surface(np.eye(4, 3) * 50, triangles))
    surface = ask(here / "open.ply", capsys)["found"][0]
    assert surface["facts"]["closed"] is False
    assert surface["facts"]["open_edges"] == 3
    write_surface(here / "tiny.ply", Surface(np.eye(4, 3) * 5, triangles))
    assert any("not the size of a heart" in s for s in ask(here / "tiny.ply", capsys)["found"][0]["suspicious"])


def test_maps_and_ecgs(here: Path, capsys: Capture) -> None:
    write_eam(here / "map.csv", eam())
    found = ask(here / "map.csv", capsys)["found"][0]
    assert found["facts"]["points"] == 300
    assert found["facts"]["values"]["lat_ms"]["not_finite"] == 18
    write_ecg(here / "ecg.csv", ecg())
    leads = ask(here / "ecg.csv", capsys)["found"][0]["facts"]
    assert leads["fs_hz"] == 1000.0
    assert len(leads["leads"]) == 12
    assert Path("map.csv.preview.png").exists()
    assert Path("ecg.csv.preview.png").exists()


def test_openCARP_files(here: Path, capsys: Capture) -> None:
    data = np.full((3, 1, 1, 8), -80.0, "f4")
    data[1, 0, 0, 2] = np.nan
    opencarp.write_igb(here / "vm.igb", opencarp.Igb(data, {"inc_t": 2.0, "unites": "mV", "aut_name": "Somebody"}))
    found = ask(here / "vm.igb", capsys)["found"][0]
    assert found["facts"]["times"] == [0.0, 4.0]
    assert found["facts"]["range"] == [-80.0, -80.0]
    assert any("diverge" in s for s in found["suspicious"])
    assert "Somebody" not in json.dumps(found)
    opencarp.write_dat(here / "lat.dat", np.array([-1.0, 3.0, 4.0]))
    assert any("never activated" in s for s in ask(here / "lat.dat", capsys)["found"][0]["suspicious"])
    opencarp.write_vtx(here / "s.vtx", [3, 5])
    assert ask(here / "s.vtx", capsys)["found"][0]["facts"]["range"] == [3, 5]
    (here / "x.par").write_text("dt = 20\nbidomain = 1\n")
    facts = ask(here / "x.par", capsys)["found"][0]
    assert facts["facts"]["vtwin_can_simulate_it"] is False
    assert any("two" in s for s in facts["suspicious"])


def test_folders_and_settings(here: Path, capsys: Capture) -> None:
    cases = Path(__file__).parents[1] / "cases"
    assert ask(cases / "niederer" / "experiment.toml", capsys)["found"][0]["facts"]["method"] == "monodomain"
    assert ask(cases / "two_isthmuses" / "case.toml", capsys)["found"][0]["what"] == "case"
    kinds = ask(cases / "two_isthmuses", capsys)["found"][0]["facts"]["files_by_kind"]
    assert kinds["activation map (CSV)"] == 1
    (here / "run.json").write_text('{"command": "mesh"}')
    box_mesh((60.0, 50.0, 40.0), 10.0).save(here / "heart.npz")
    assert ask(here, capsys)["found"][0]["facts"]["command"] == "mesh"
    assert Path(f"{here.name}.preview.png").exists()


def test_identifiers_do_not_come_out(here: Path, capsys: Capture) -> None:
    write_nrrd(here / "a.nrrd", heart(4.0))
    head, _, rest = (here / "a.nrrd").read_bytes().partition(b"\n")
    (here / "a.nrrd").write_bytes(head + b"\nPatientName:=Doe^Jane\n" + rest)
    (here / "p.json").write_text('{"name": "Jane Doe", "born": "1950-01-01", "age_years": 61}')
    for file in ("a.nrrd", "p.json"):
        for more in ([], ["--json"]):
            assert run(["inspect", str(here / file), *more]) == 0
            captured = capsys.readouterr()
            assert "Doe" not in captured.out + captured.err
            assert "1950" not in captured.out + captured.err


def test_what_nothing_reads_is_refused(here: Path, capsys: Capture) -> None:
    (here / "x.doc").write_bytes(b"\xd0\xcf\x11\xe0")
    for path, words in ((here / "x.doc", "nothing that vtwin reads"), (here / "none", "does not exist"), (here / "void", "is empty")):
        (here / "void").write_bytes(b"")
        assert run(["inspect", str(path)]) == 2
        assert words in capsys.readouterr().err
    (here / "bad.vtu").write_bytes(b"<VTKFile")
    assert ask(here / "bad.vtu", capsys, 2)["field"] == "file"


def test_readers_hook_in_by_one_line() -> None:
    """Each line of the registry names a function that exists; a type that nothing describes is an error of the registry."""
    for kind in KINDS:
        assert callable(kind.reader()), kind.name
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    with pytest.raises(TypeError, match="nothing describes"):
        describe(object())
    assert picture(object()) is None


def test_damaged_files_of_every_kind_end_with_an_answer(here: Path, capsys: Capture) -> None:
    write_nrrd(here / "a.nrrd", heart(6.0))
    write_eam(here / "a.csv", eam())
    write_volume_mesh(here / "a.vtu", of_heart(box_mesh((60.0, 50.0, 40.0), 20.0)))
    opencarp.write_igb(here / "a.igb", opencarp.Igb(np.ones((3, 1, 1, 8), "f4")))
    rng = np.random.default_rng(0)
    for file in ("a.nrrd", "a.csv", "a.vtu", "a.igb"):
        data = (here / file).read_bytes()
        for index in range(6):
            at = int(rng.integers(1, len(data)))
            path = here / f"{index}-{file}"
            path.write_bytes(data[:at] if index % 2 else data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :])
            assert run(["inspect", str(path), "-o", str(here / "p.png")]) in (0, 2)
            assert "Traceback" not in capsys.readouterr().err


@pytest.mark.real
def test_the_shared_data(here: Path, capsys: Capture) -> None:
    if "VTWIN_DATA" not in os.environ:
        pytest.skip("set VTWIN_DATA to the shared data")
    data = Path(os.environ["VTWIN_DATA"])
    cine = ask(data / "bivme_patient1_cine", capsys)["found"]
    assert cine[0]["facts"]["spacing_mm"][2] == pytest.approx(17.7, abs=0.05)
    assert cine[0]["facts"]["slice_thickness_mm"] == 6.0
    sheet = ask(data / "pie_infarct_slab" / "mesh_1000um" / "mesh_1000um.bpts", capsys)["found"][0]["facts"]
    assert sheet["regions"]["region_1"] == {"number": 1, "tetrahedra": 39436, "volume_ml": 4.974}
    surface = ask(data / "strocchi_01_surface" / "strocchi_01.npz", capsys)["found"][0]
    assert surface["facts"]["pinched_edges"] == 39
    assert Pillow.open(io.BytesIO(Path("strocchi_01.npz.preview.png").read_bytes())).width == 3 * PANEL + 16
