"""OpenEP files of MATLAB's v5, v7 and v7.3, surfaces with values as maps, and maps of every kind in a case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from io_fixtures import heart
from study_fixtures import shell, study

from twin.case import load_case
from twin.case_evidence import read_patient
from twin.errors import InputError, Suspicious
from twin.io.carto import write_carto
from twin.io.ensite import write_ensite
from twin.io.mat import MatFields, load
from twin.io.notes import Notes
from twin.io.nrrd import write_nrrd
from twin.io.openep import WANTED, read_openep, study_of, write_openep
from twin.io.studies import read_study, write_study
from twin.io.surfaces import Surface, write_surface
from twin.study import MappingStudy

FIELDS = ("points_mm", "lat_ms", "bipolar_mv", "unipolar_mv", "surface_mm", "reference_ms", "map_ms", "window_ms")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[MappingStudy, Path]:
    original = study(60, 120, 1200)
    path = tmp_path_factory.mktemp("openep") / "s.mat"
    write_openep(path, original)
    return original, path


def same(found: MappingStudy, original: MappingStudy) -> None:
    for name in FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(original, name), atol=1e-9)
    assert found.surface is not None
    assert original.surface is not None
    for name in ("lat_ms", "bipolar_mv", "unipolar_mv"):
        np.testing.assert_allclose(found.surface.point_data[name], original.surface.point_data[name])
    one, other = found.recordings.read(7), original.recordings.read(7)
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one.channels["bipolar"], other.channels["M1-M2"], atol=1e-6)
    np.testing.assert_allclose(one.channels["V4"], other.channels["V4"], atol=1e-6)
    assert found.recordings.read(10) is None


def test_v7_is_read_back_and_scipy_agrees(made: tuple[MappingStudy, Path]) -> None:
    original, path = made
    same(read_openep(path), original)
    peer = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)["userdata"]
    assert original.surface is not None
    np.testing.assert_allclose(peer.surface.triRep.X, original.surface.points_mm)
    assert (peer.surface.triRep.Triangulation == original.surface.triangles + 1).all()
    np.testing.assert_allclose(peer.electric.annotations.mapAnnot - peer.electric.annotations.referenceAnnot, original.lat_ms)
    assert peer.electric.names[0] == "P3"
    again = path.with_name("again.mat")
    write_openep(again, original)
    assert again.read_bytes() == path.read_bytes()


def to_hdf5(source: Path, target: Path) -> None:
    """The same struct as MATLAB lays it out in v7.3: transposed datasets, cells of references to texts."""
    userdata = scipy.io.loadmat(source, struct_as_record=False)["userdata"]

    def put(group: h5py.Group, name: str, value: Any) -> None:
        while isinstance(value, np.ndarray) and value.dtype == object and value.size == 1 and hasattr(value.flat[0], "_fieldnames"):
            value = value.flat[0]
        if hasattr(value, "_fieldnames"):
            inside = group.create_group(name)
            for key in value._fieldnames:
                put(inside, key, getattr(value, key))
        elif value.dtype == object:
            rows = np.empty(value.shape[::-1], h5py.ref_dtype)
            for k, text in enumerate(value.ravel()):
                made = group.file.create_dataset(f"#refs#/{name}{k}", data=np.array([[ord(c)] for c in str(text[0])], np.uint16))
                made.attrs["MATLAB_class"] = np.bytes_(b"char")
                rows.flat[k] = made.ref
            group.create_dataset(name, data=rows, dtype=h5py.ref_dtype)
        else:
            group.create_dataset(name, data=value.T, chunks=True, compression="gzip")

    with h5py.File(target, "w", userblock_size=512) as file:
        put(file, "userdata", userdata)
    data = bytearray(target.read_bytes())
    data[:116] = b"MATLAB 7.3 MAT-file".ljust(116)
    target.write_bytes(bytes(data))


def test_v73_is_read_too(tmp_path: Path, made: tuple[MappingStudy, Path]) -> None:
    to_hdf5(made[1], tmp_path / "s.mat")
    same(read_openep(tmp_path / "s.mat"), made[0])


def save(path: Path, change: Callable[[Any], None], source: Path) -> Path:
    """The file with its struct changed, saved without compression (v6 and older)."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype == object and value.size == 1 and hasattr(value.flat[0], "_fieldnames"):
            value = value.flat[0]
        return {key: plain(getattr(value, key)) for key in value._fieldnames} if hasattr(value, "_fieldnames") else value

    userdata = plain(scipy.io.loadmat(source, struct_as_record=False)["userdata"])
    change(userdata)
    scipy.io.savemat(path, {"userdata": userdata})
    return path


def _points(u: Any) -> None:
    triangles = u["surface"]["triRep"].pop("Triangulation")
    u["surface"]["triRep"] = {"Points": u["surface"]["triRep"]["X"], "ConnectivityList": triangles}


def test_struct_variants(tmp_path: Path, made: tuple[MappingStudy, Path]) -> None:
    same(read_openep(save(tmp_path / "a.mat", _points, made[1])), made[0])
    alone = read_openep(save(tmp_path / "b.mat", lambda u: u.pop("electric"), made[1]))
    assert len(alone) == 120

    def packed(u: Any) -> None:
        u["surface"]["triRep"] = np.zeros((1, 6), np.uint32)

    with pytest.raises(InputError, match="openep_updateuserdata"):
        read_openep(save(tmp_path / "c.mat", packed, made[1]))


def scaled(path: str, factor: float) -> Callable[[Any], None]:
    def change(u: Any) -> None:
        *folders, name = path.split(".")
        for folder in folders:
            u = u[folder]
        u[name] = u[name] * factor

    return change


def _exchange(u: Any) -> None:
    notes = u["electric"]["annotations"]
    notes["mapAnnot"], notes["referenceAnnot"] = notes["referenceAnnot"], notes["mapAnnot"]


def _volts(u: Any) -> None:
    volts = u["electric"]["voltages"]
    volts["bipolar"], volts["unipolar"] = volts["unipolar"], volts["bipolar"]


def _zero_based(u: Any) -> None:
    u["surface"]["triRep"]["Triangulation"] -= 1


def _leads(u: Any) -> None:
    names = u["electric"]["ecgNames"]
    a, b = (next(k for k in range(len(names)) if names[k, 0][0] == lead) for lead in ("I", "II"))
    names[[a, b]] = names[[b, a]]


DOUBTFUL: Mapping[str, tuple[Callable[[Any], None], str]] = {
    "points in cm": (scaled("electric.egmX", 0.1), "eam_off_surface"),
    "shell in m": (scaled("surface.triRep.X", 0.001), ""),
    "shell in cm": (scaled("surface.triRep.X", 0.1), "eam_off_surface"),
    "annotations exchanged": (_exchange, "eam_lat_sign"),
    "microvolts": (scaled("electric.voltages.bipolar", 1000.0), "eam_voltage_columns"),
    "voltages exchanged": (_volts, "eam_voltage_columns"),
    "counts for millivolts": (scaled("electric.egm", 333.0), "egm_gain"),
    "triangles from zero": (_zero_based, ""),
    "limb leads exchanged": (_leads, "ecg_lead_order"),
    "window in seconds": (scaled("electric.annotations.woi", 0.001), "eam_window"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_readable_but_wrong_is_noticed(tmp_path: Path, made: tuple[MappingStudy, Path], name: str) -> None:
    change, code = DOUBTFUL[name]
    path = save(tmp_path / "s.mat", change, made[1])
    fields = MatFields({key: np.asarray(value) for key, value in load(path, "userdata", WANTED)})
    with pytest.raises(InputError) as error:
        study_of(fields, path, Notes())
    assert (error.value.code if isinstance(error.value, Suspicious) else "") == code, str(error.value)


def legacy(path: Path, surface: Surface, layout: str) -> None:
    """Legacy polydata as text or binary, with counts before nodes or with offsets."""
    n, m = len(surface.points_mm), len(surface.triangles)
    binary = layout == "binary"

    def block(values: Any, dtype: str) -> bytes:
        return np.ascontiguousarray(values, dtype).tobytes() if binary else " ".join(str(v) for v in np.ravel(values).tolist()).encode()

    out = b"# vtk DataFile Version 5.1\nmap\n" + (b"BINARY" if binary else b"ASCII") + b"\nDATASET POLYDATA\n"
    out += f"POINTS {n} double\n".encode() + block(surface.points_mm, ">f8") + b"\n"
    if layout == "offsets":
        out += f"POLYGONS {m + 1} {3 * m}\nOFFSETS vtktypeint64\n".encode() + block(3 * np.arange(m + 1), ">i8")
        out += b"\nCONNECTIVITY vtktypeint64\n" + block(surface.triangles, ">i8") + b"\n"
    else:
        out += f"POLYGONS {m} {4 * m}\n".encode() + block(np.insert(surface.triangles, 0, 3, axis=1), ">i4") + b"\n"
    out += f"POINT_DATA {n}\nFIELD FieldData 1\nLAT 1 {n} double\n".encode() + block(surface.point_data["lat_ms"], ">f8") + b"\n"
    out += b"SCALARS bipolar float 1\nLOOKUP_TABLE default\n" + block(surface.point_data["bipolar_mv"], ">f4") + b"\n"
    path.write_bytes(out)


@pytest.mark.parametrize("layout", ["text", "binary", "offsets"])
def test_surfaces_with_values_are_maps(tmp_path: Path, layout: str) -> None:
    surface = shell(100)
    legacy(tmp_path / "a.vtk", surface, layout)
    write_surface(tmp_path / "a.vtp", surface)
    for name in ("a.vtk", "a.vtp"):
        found = read_study(tmp_path / name)
        np.testing.assert_allclose(found.points_mm, surface.points_mm, atol=1e-4)
        np.testing.assert_allclose(found.lat_ms, surface.point_data["lat_ms"], atol=1e-4)
        np.testing.assert_allclose(found.bipolar_mv, surface.point_data["bipolar_mv"], atol=1e-6)
    write_surface(tmp_path / "b.vtp", replace(surface, point_data={"phase": surface.point_data["lat_ms"]}))
    with pytest.raises(InputError, match=r"lat_ms.*phase"):
        read_study(tmp_path / "b.vtp")


def test_vtu_triangles_and_the_skin_of_a_mesh(tmp_path: Path) -> None:
    pyvista = pytest.importorskip("pyvista")
    surface = shell(100)
    faces = np.insert(surface.triangles, 0, 3, axis=1).ravel()
    grid = pyvista.PolyData(surface.points_mm, faces).cast_to_unstructured_grid()
    grid.point_data["LAT"] = surface.point_data["lat_ms"]
    grid.save(tmp_path / "a.vtu")
    found = read_study(tmp_path / "a.vtu")
    np.testing.assert_allclose(found.lat_ms, surface.point_data["lat_ms"])
    assert found.surface is not None
    assert (found.surface.triangles == surface.triangles).all()


def case_with(folder: Path, lines: str) -> Path:
    write_nrrd(folder / "labels.nrrd", heart(3.0))
    path = folder / "case.toml"
    path.write_text(f'[segmentation]\nfile = "labels.nrrd"\n{lines}\n')
    return path


def test_every_kind_is_the_map_of_a_case(tmp_path: Path) -> None:
    """The same map, from every format, named either way; nothing of the file's name reaches the patient."""
    original = study(80, 120, 1200)
    write_carto(tmp_path / "Mustermann 1947.zip", original)
    write_ensite(tmp_path / "ensite", original)
    for name in ("a.mat", "a.csv"):
        write_study(tmp_path / name, original)
    tables = {
        '[evidence]\neam = { file = "Mustermann 1947.zip", map = "1-LV", surface = "lv_endo" }': 1e-9,
        '[eam]\nfile = "Mustermann 1947.zip"': 1e-9,
        '[eam]\nfile = "ensite"\nmap = "1-LV"': 1e-3,
        '[eam]\nfile = "a.mat"': 1e-9,
        '[eam]\nfile = "a.csv"': 1e-3,
    }
    for lines, tolerance in tables.items():
        case = load_case(case_with(tmp_path, lines))
        assert set(case.inputs()) == {"case", "segmentation", "eam"}
        patient = read_patient(case)
        assert patient.eam is not None
        np.testing.assert_allclose(patient.eam.value.lat_ms, original.lat_ms, atol=max(tolerance, 5e-3))
        np.testing.assert_allclose(patient.eam.value.points_mm, original.points_mm, atol=tolerance)
        assert patient.eam.value.surface == "lv_endo"
        assert "Mustermann" not in repr((patient.notes, patient.eam.source))
    for lines, said in (
        ('[eam]\nfile = "a.csv"\nmap = "LV"', "a CSV holds one map"),
        ('[eam]\nfile = "Mustermann 1947.zip"\nmap = "RV"', "no map of this name"),
        ('[eam]\nfile = "a.csv"\n[evidence]\neam = { file = "a.mat" }', "beside"),
        ('[evidence]\neam = { folder = "a.mat" }', "unknown key"),
    ):
        with pytest.raises(InputError, match=said):
            read_patient(load_case(case_with(tmp_path, lines)))
