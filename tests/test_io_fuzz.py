"""Random damage to every kind of file: an InputError or an answer, never another exception, never long."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from io_fixtures import eam, ecg, heart

from twin.case import load_case
from twin.case_evidence import read_patient
from twin.errors import InputError
from twin.io.bundle import read_bundle
from twin.io.eam import read_eam, write_eam
from twin.io.ecg import read_ecg, write_ecg
from twin.io.labels import read_labels
from twin.io.nifti import write_nifti
from twin.io.nrrd import write_nrrd
from twin.io.record import read_record
from twin.io.surfaces import Surface, read_surface, write_surface
from twin.volume import LabelVolume

ROUNDS = 250


def small() -> LabelVolume:
    return heart(6.0)


def tetrahedra() -> Surface:
    points = np.array([[0.0, 0, 0], [40, 0, 0], [0, 40, 0], [0, 0, 40], [40, 40, 40]])
    triangles = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 4], [2, 3, 4], [3, 1, 4]], np.int32)
    return Surface(points, triangles, {"class": np.arange(5, dtype=np.uint8)}, {"lat": np.arange(6.0)})


def zlib_vtp(path: Path) -> None:
    """VTK's own zlib and appended layout, as it writes it by default."""
    vtk = pytest.importorskip("vtk")
    write_surface(path.with_name("plain.vtp"), tetrahedra())
    reader = vtk.vtkXMLPolyDataReader()
    reader.SetFileName(str(path.with_name("plain.vtp")))
    reader.Update()
    writer = vtk.vtkXMLPolyDataWriter()
    writer.SetInputData(reader.GetOutput())
    writer.SetFileName(str(path))
    writer.Write()


def obj(path: Path) -> None:
    lines = [f"v {x} {y} {z}" for x, y, z in tetrahedra().points_mm] + [
        f"f {a + 1}//1 {b + 1} {c + 1}" for a, b, c in tetrahedra().triangles
    ]
    path.write_text("\n".join(lines))


def ascii_stl(path: Path) -> None:
    s = tetrahedra()
    faces = ["outer loop\n" + "\n".join(f"vertex {x} {y} {z}" for x, y, z in s.points_mm[t]) + "\nendloop" for t in s.triangles]
    path.write_text("solid a\n" + "\n".join(f"facet normal 0 0 0\n{face}\nendfacet" for face in faces) + "\nendsolid a\n")


def record(path: Path) -> None:
    path.write_text(json.dumps({"age_years": 61, "sex": "male", "lvef_percent": 31.5, "drugs": ["amiodarone"], "icd": True, "name": "N"}))


def bundle(path: Path) -> None:
    np.savez(path, vertices_mm=tetrahedra().points_mm, faces=tetrahedra().triangles, lat_ms=np.arange(5.0))


def case(path: Path) -> None:
    write_nrrd(path.with_name("labels.nrrd"), small())
    lines = ['accept = ["thin_rv_wall"]', "[patient]", 'name = "x"', "[segmentation]", 'file = "labels.nrrd"', "[mesh]", 'edge = "2 mm"']
    path.write_text("\n".join([*lines, "[tissue.healthy]", 'cv_longitudinal = "0.6 m/s"', ""]))


FORMATS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "a.nrrd": (lambda p: write_nrrd(p, small()), read_labels),
    "a.nii": (lambda p: write_nifti(p, small()), read_labels),
    "a.nii.gz": (lambda p: write_nifti(p, small()), read_labels),
    "map.csv": (lambda p: write_eam(p, eam(n=40)), read_eam),
    "ecg.csv": (lambda p: write_ecg(p, ecg()), read_ecg),
    "r.json": (record, read_record),
    "b.npz": (bundle, read_bundle),
    "s.npz": (bundle, read_surface),
    "a.vtp": (lambda p: write_surface(p, tetrahedra()), read_surface),
    "z.vtp": (zlib_vtp, read_surface),
    "a.ply": (lambda p: write_surface(p, tetrahedra()), read_surface),
    "a.stl": (lambda p: write_surface(p, tetrahedra()), read_surface),
    "t.stl": (ascii_stl, read_surface),
    "a.obj": (obj, read_surface),
    "case.toml": (case, load_case),
}


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, cut, doubled or overwritten; half of the time near the start, where the header is."""
    out = bytearray(data)
    reach = len(out) if rng.random() < 0.5 else min(len(out), 600)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, reach)) if reach else 0
        kind = rng.integers(0, 5)
        if kind == 0 and out:
            out[place % len(out)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and out:
            out[place % len(out)] = int(rng.integers(0, 256))
        elif kind == 2:
            del out[place:]
        elif kind == 3:
            out[place:place] = out[place : place + int(rng.integers(1, 30))]
        else:
            out[place : place + 1] = rng.choice([b"-", b"9", b"999999999", b"nan", b"1e999", b"\xff\xff\xff\x7f", b'"', b" "])
    return bytes(out)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_an_input_error_or_an_answer(tmp_path: Path, name: str) -> None:
    write, read = FORMATS[name]
    path = tmp_path / name
    write(path)
    good = path.read_bytes()
    read(path)
    rng = np.random.default_rng(20)
    lines: list[str] = []
    start = time.perf_counter()
    for _ in range(ROUNDS):
        path.write_bytes(damaged(good, rng))
        try:
            read(path)
        except InputError as error:
            lines.append(error.line())
    # flips of values in uncompressed data cannot be seen; most other damage must be
    assert len(lines) > ROUNDS // 5
    assert all("\n" not in line and len(line) < 1000 for line in lines)
    assert time.perf_counter() - start < 60


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(6):
            archive.writestr(f"a{n}.npy", b"\0" * 100_000_000, compresslevel=1)
    with pytest.raises(InputError, match="500 MB"):
        read_bundle(tmp_path / "x.npz")


def test_the_case_of_the_fuzz_is_a_good_one(tmp_path: Path) -> None:
    case(tmp_path / "case.toml")
    write_nrrd(tmp_path / "labels.nrrd", heart())
    assert read_patient(load_case(tmp_path / "case.toml")).labels.value.volume_ml("lv_blood") > 20
