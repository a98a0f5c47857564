"""What leaves the program: every format read back by somebody else's reader, and the commands that write it."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from overlay_fixtures import WITHIN_MM, Listener, same_cloud, small_heart, small_plan

from meshing.tet_grid import mesh_labels, tet_grid
from planners.app.cli import run
from planners.overlay import FORMATS, export
from planners.overlay.dicom import read_encapsulated_stl
from planners.overlay.surfaces import lesion_balls
from planners.overlay.tables import COLUMNS
from twin.atomic import write_json
from twin.mesh import REGIONS, SURFACES
from twin.volume import LABELS


@pytest.fixture(scope="module")
def mesh():
    return small_heart()


@pytest.fixture(scope="module")
def plan(mesh):
    return small_plan(mesh)


@pytest.fixture(scope="module")
def written(mesh, plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("overlay")
    export(plan, mesh, folder, list(FORMATS))
    return folder


def by_meshio(path):
    import meshio

    return np.asarray(meshio.read(path).points, float)


def by_pyvista(path):
    import pyvista as pv

    return np.asarray(pv.read(path).points, float)


def by_json(path):
    markup = json.loads(path.read_text())["markups"][0]
    assert (markup["coordinateSystem"], markup["coordinateUnits"]) == ("LPS", "mm")
    return np.array([c["position"] for c in markup["controlPoints"]])


def by_csv(path):
    import csv

    with path.open(newline="") as table:
        return np.array([[float(row[f"{x}_mm"]) for x in "xyz"] for row in csv.DictReader(table)])


def by_pydicom(path):
    import pydicom

    document = pydicom.dcmread(path).EncapsulatedDocument
    count = int.from_bytes(document[80:84], "little")
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    return np.frombuffer(document, record, count, 84)["corners"].reshape(-1, 3).astype(float)


def by_elementtree(path):
    """EnSite DIF: no reader on PyPI that is kept; the standard library's parser and the published layout."""
    import xml.etree.ElementTree as ElementTree

    return np.array(ElementTree.parse(path).findtext(".//Vertices").split(), float).reshape(-1, 3)


def by_hand_carto(path):
    """CARTO: no reader on PyPI that is kept; the rows of [VerticesSection] as OpenEP documents them."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".mesh"))
        text = archive.read(name).decode("cp1252")
    section = text.split("[VerticesSection]")[1].split("[TrianglesSection]")[0]
    rows = [line.split("=")[1].split() for line in section.splitlines() if "=" in line and not line.startswith(";")]
    return np.array([[float(x) for x in row[:3]] for row in rows])


READERS = {
    "stl": (".stl", by_meshio),
    "ply": (".ply", by_meshio),
    "obj": (".obj", by_meshio),
    "vtp": (".vtp", by_pyvista),
    "slicer": (".vtp", by_pyvista),
    "dicom": (".stl.dcm", by_pydicom),
    "ensite": (".xml", by_elementtree),
    "carto": (".zip", by_hand_carto),
}


POINT_FILES = {"csv": ("targets.csv", by_csv), "markups": ("targets.mrk.json", by_json), "slicer": ("targets.mrk.json", by_json)}


def test_every_format_has_a_round_trip():
    assert set(READERS) | set(POINT_FILES) == set(FORMATS)


@pytest.mark.parametrize("name", READERS)
def test_surfaces_come_back_by_other_readers(written, mesh, plan, name):
    suffix, read = READERS[name]
    for surface in [s for s in SURFACES if name not in ("ensite", "carto") or s != "base"]:
        points = read(written / name / f"{surface}{suffix}")
        assert same_cloud(points, mesh.points_mm[mesh.surface_nodes(surface)]) < WITHIN_MM
    if name != "carto":  # a study per surface: the lesions are its points
        balls = read(written / name / f"lesions{suffix}")
        assert same_cloud(balls, lesion_balls(plan).points_mm) < WITHIN_MM


@pytest.mark.parametrize("name", POINT_FILES)
def test_targets_come_back_by_other_readers(written, plan, name):
    file, read = POINT_FILES[name]
    expected = [p for t in plan.targets for p in t.positions_mm]
    assert np.abs(read(written / name / file) - expected).max() < WITHIN_MM
    for kind in ("circuit", "isthmus") if name != "csv" else ():
        path = getattr(plan.circuits[0], "path_mm" if kind == "circuit" else "isthmus_mm")
        assert np.abs(read(written / name / f"{kind}_VT1.mrk.json") - path).max() < WITHIN_MM


def test_tables_and_vtk_lines_hold_names_and_circuits(written, plan):
    import csv

    assert np.abs(by_pyvista(written / "vtp" / "circuit_VT1.vtp") - plan.circuits[0].path_mm).max() < WITHIN_MM
    with (written / "csv" / "targets.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["why"] == 'cuts, "VT1"'


def test_mapping_systems_get_the_lesions_as_labels_and_points(written, plan):
    import xml.etree.ElementTree as ElementTree

    from twin.io.carto import read_carto
    from twin.io.ensite import read_dif

    wanted = {f"{t.id}.{n}": np.array(p) for t in plan.targets if t.surface == "lv_endo" for n, p in enumerate(t.positions_mm, 1)}
    root = ElementTree.parse(written / "ensite" / "lv_endo.xml").getroot()
    by_name = {label.get("name"): np.array(label.text.split(), float) for label in root.iter("Label")}
    study = read_carto(written / "carto" / "lv_endo.zip")
    ours = read_dif(written / "ensite" / "lv_endo.xml").labels
    for found in (by_name, ours, study.labels):
        assert set(found) == set(wanted)
        assert max(np.abs(found[key] - place).max() for key, place in wanted.items()) < WITHIN_MM
    assert same_cloud(study.points_mm, np.array(list(wanted.values()))) < WITHIN_MM


def test_the_slicer_segmentation_lies_where_the_heart_is(written, mesh):
    import SimpleITK as sitk

    image = sitk.ReadImage(str(written / "slicer" / "heart.seg.nrrd"))
    voxels = sitk.GetArrayFromImage(image)  # z, y, x
    expected = mesh_labels(mesh, 1.0)
    assert np.array_equal(voxels, expected.data.transpose(2, 1, 0))
    corner = np.array(image.TransformIndexToPhysicalPoint([3, 5, 7]))  # ITK is LPS, as the file says
    assert np.abs(corner - (expected.affine @ [3, 5, 7, 1])[:3]).max() < WITHIN_MM
    assert image.GetMetaData("Segment0_Name") == "lv_myocardium"


def test_the_scene_names_files_that_are_there(written):
    import xml.etree.ElementTree as ElementTree

    folder = written / "slicer"
    root = ElementTree.parse(folder / "scene.mrml").getroot()
    identities = {node.get("id") for node in root}
    files = [node.get("fileName") for node in root if node.get("fileName")]
    assert {"heart.seg.nrrd", "targets.mrk.json", "lv_endo.vtp", "lesions.vtp"} <= set(files)
    assert set(files) == {p.name for p in folder.iterdir()} - {"scene.mrml"}
    for node in root:
        assert node.get("id").startswith(f"vtkMRML{node.tag}Node")
        for reference in filter(None, (node.get("references") or "").split(";")):
            assert reference.split(":")[1] in identities
        if node.tag in ("ModelStorage", "MarkupsJsonStorage"):
            assert node.get("coordinateSystem") == "LPS"


def test_one_record_says_the_frame_of_every_format(written):
    frame = json.loads((written / "frame.json").read_text())
    assert frame["coordinate_system"].startswith("LPS")
    assert frame["unit"] == "mm"
    assert "not verified" in frame["vendor_acceptance"]
    assert set(frame["formats"]) == set(FORMATS)
    for name in ("ensite", "carto"):
        assert "not verified" in frame["formats"][name]
    assert "not verified" in (written / "ensite" / "lv_endo.xml").read_text()[:500]


def test_dicom_surfaces_come_back_in_the_frame_of_the_segmentation(written, mesh):
    import pydicom

    seg = pydicom.dcmread(written / "dicom" / "heart.seg.dcm")
    for surface in SURFACES:
        path = written / "dicom" / f"{surface}.stl.dcm"
        corners = read_encapsulated_stl(path.read_bytes()).reshape(-1, 3)
        assert same_cloud(corners, mesh.points_mm[mesh.surface_nodes(surface)]) < WITHIN_MM
        ds = pydicom.dcmread(path)
        assert (ds.FrameOfReferenceUID, ds.StudyInstanceUID) == (seg.FrameOfReferenceUID, seg.StudyInstanceUID)
        assert ds.MeasurementUnitsCodeSequence[0].CodeValue == "mm"
        assert str(ds.PatientName) == ds.PatientID == ""


def test_the_dicom_segmentation_holds_the_wall_and_its_scar(written, mesh):
    import highdicom as hd

    seg = hd.seg.segread(written / "dicom" / "heart.seg.dcm")
    names = {seg.get_segment_description(n).segment_label: n for n in seg.segment_numbers}
    frame = seg.pixel_array.astype(bool).sum(axis=(1, 2))
    owner = np.array([f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in seg.PerFrameFunctionalGroupsSequence])
    volume = {name: frame[owner == n].sum() * 1.0 for name, n in names.items()}  # voxels of 1 mm^3
    scar = mesh.region == REGIONS["scar"]
    assert volume["scar"] == pytest.approx(mesh.tet_volumes_mm3[scar].sum(), rel=0.02)
    assert sum(volume.values()) == pytest.approx(mesh.tet_volumes_mm3.sum(), rel=0.01)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(written):
    for path in sorted((written / "dicom").glob("*.dcm")):
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        errors = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
        assert errors == [], path.name


def test_equal_plans_give_equal_bytes(written, mesh, plan, tmp_path):
    export(plan, mesh, tmp_path, list(FORMATS))
    for path in sorted(written.rglob("*")):
        if path.is_file() and not path.name.startswith(("circuit", "isthmus")):  # VTK's own writer
            assert (tmp_path / path.relative_to(written)).read_bytes() == path.read_bytes(), path.name


def test_voxels_hold_the_tetrahedron_of_their_centre(mesh):
    grid, affine = tet_grid(mesh, 2.5)
    index = np.argwhere(grid >= 0)[::37]
    centres = index * 2.5 + affine[:3, 3]
    corners = mesh.points_mm[mesh.tets[grid[tuple(index.T)]]]
    edges = np.moveaxis(corners[:, 1:] - corners[:, :1], 1, 2)
    weights = np.linalg.solve(edges, (centres - corners[:, 0])[..., None])[..., 0]
    assert weights.min() > -1e-6
    assert weights.sum(axis=1).max() < 1 + 1e-6
    labels = mesh_labels(mesh, 2.5)
    assert set(np.unique(labels.data)) == {LABELS[n] for n in ("background", "lv_myocardium", "rv_myocardium", "scar")}


def test_an_export_leaves_nothing_of_another_plan(mesh, plan, tmp_path):
    export(plan, mesh, tmp_path, ["slicer", "vtp", "csv"])
    circuit = plan.circuits[0].id
    assert (tmp_path / "slicer" / f"circuit_{circuit}.mrk.json").is_file()
    (tmp_path / "slicer" / "notes.txt").write_text("of somebody else")
    frame = json.loads((tmp_path / "frame.json").read_text())
    assert f"circuit_{circuit}.vtp" in frame["files"]["vtp"]
    none = replace(plan, circuits=[], targets=[])
    export(none, mesh, tmp_path, ["slicer"])
    left = {p.name for p in (tmp_path / "slicer").iterdir()}
    assert not any(circuit in name for name in left)
    assert "lesions.vtp" not in left
    assert "notes.txt" in left
    assert (tmp_path / "vtp" / f"circuit_{circuit}.vtp").is_file(), "a format that was not asked for stays as it was"
    assert set(json.loads((tmp_path / "frame.json").read_text())["formats"]) == {"slicer", "vtp", "csv"}


@pytest.fixture
def finished(mesh, plan, tmp_path):
    """The folder of a finished plan, as far as what leaves it needs."""
    out = tmp_path / "out"
    (out / "stages" / "mesh-abc").mkdir(parents=True)
    mesh.save(out / "stages" / "mesh-abc" / "mesh.npz")
    write_json(out / "plan.json", replace(plan, run={"stages": {"mesh": "abc"}}).as_dict())
    (out / "report.html").write_text("<html></html>")
    return out


def test_commands_export_stream_and_view(finished, capsys, monkeypatch):
    assert run(["export", str(finished), "--format", "dicom", "--format", "ply", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)
    assert all(Path(f).is_file() for f in files)
    assert {Path(f).parent.name for f in files} == {"dicom", "ply"}
    listener = Listener()
    listener.start()
    assert run(["stream", str(finished), "--port", str(listener.port), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sent"] == 5
    seen = []
    monkeypatch.setattr("webbrowser.open", lambda uri: seen.append(uri) or True)
    assert run(["view", str(finished)]) == 0
    assert seen == [(finished / "report.html").resolve().as_uri()]


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["export", "{out}", "--format", "dwg"], 2, "choose from"),
        (["view", "{out}/nowhere"], 2, "vtwin plan"),
        (["stream", "{out}/nowhere"], 2, "vtwin plan"),
        (["stream", "{out}", "--host", "192.0.2.1"], 2, "--remote"),
    ],
)
def test_wrong_calls_are_one_line(finished, capsys, args, status, says):
    assert run([a.format(out=finished) for a in args]) == status
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_plan_whose_mesh_is_gone_says_so(finished, capsys):
    shutil.rmtree(finished / "stages")
    assert run(["export", str(finished)]) == 2
    assert "mesh of this plan" in capsys.readouterr().err
