"""CARTO 3 studies: phantoms read back, containers, choice of the map, encodings, versions, identifiers, doubtful files."""

from __future__ import annotations

import re
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_fixtures import study

from twin.errors import InputError, Suspicious
from twin.io.archive import open_study
from twin.io.carto import is_carto, list_maps, read_carto, write_carto
from twin.io.carto.mesh import parse_mesh
from twin.io.carto.signals import parse_ecg
from twin.io.notes import Notes
from twin.study import MappingStudy

Members = dict[str, bytes]
FIELDS = ("points_mm", "lat_ms", "bipolar_mv", "unipolar_mv", "reference_ms", "map_ms", "window_ms")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[MappingStudy, Members]:
    original = study(60, 120, 1500)
    path = tmp_path_factory.mktemp("carto") / "s.zip"
    write_carto(path, original)
    return original, members(path)


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, files: Members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def changed(files: Members, suffix: str, change: Callable[[bytes], bytes]) -> Members:
    """The members whose names end so (in any case), changed."""
    out = {name: change(data) if name.lower().endswith(suffix.lower()) else data for name, data in files.items()}
    assert out != files
    return out


def same(a: MappingStudy, b: MappingStudy) -> None:
    for name in FIELDS:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-9)
    assert (a.point_ids == b.point_ids).all()
    one, other = a.recordings.read(3), b.recordings.read(3)
    assert one is not None
    assert other is not None
    assert (one.bipolar, one.unipolar, one.reference) == ("M1-M2", "M1", "CS1-CS2")
    # half a count of 0.003 mV
    assert max(float(np.abs(one.channels[c] - other.channels[c]).max()) for c in other.channels) <= 0.0015 + 1e-9


def test_a_phantom_is_read_back(tmp_path: Path, made: tuple[MappingStudy, Members]) -> None:
    original, files = made
    path = pack(tmp_path / "s.zip", files)
    assert is_carto(path)
    assert list_maps(path) == [("1-LV", 60)]
    found = read_carto(path)
    same(found, original)
    assert found.surface is not None
    assert original.surface is not None
    np.testing.assert_allclose(found.surface.points_mm, original.surface.points_mm)
    assert (found.surface.triangles == original.surface.triangles).all()
    np.testing.assert_allclose(found.surface.point_data["lat_ms"], original.surface.point_data["lat_ms"], atol=1e-3)
    assert set(found.eam().landmarks) == {"lv_apex"}
    assert set(found.labels) == {"lv_apex", "Some scar"}
    assert found.recordings.read(10) is None
    assert found.ecg() is not None
    assert [index for index, _ in found.electrograms()][:12] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12]


def test_equal_studies_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_carto(tmp_path / name, study(25, 60, 100, False))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("version", [4, 5, 6])
def test_versions_of_the_table_differ_in_columns(tmp_path: Path, version: int) -> None:
    original = study(30, 80, 1200, False)
    write_carto(tmp_path / "s.zip", original, version)
    same_fields = read_carto(tmp_path / "s.zip")
    np.testing.assert_allclose(same_fields.lat_ms, original.lat_ms, atol=1e-9)
    row = members(tmp_path / "s.zip")["1-LV_car.txt"].decode().splitlines()[1]
    assert len(row.split("\t")) == {4: 21, 5: 20, 6: 23}[version]


def test_the_table_alone_and_the_points_alone(tmp_path: Path, made: tuple[MappingStudy, Members]) -> None:
    original, files = made
    table = {name: data for name, data in files.items() if "_P" not in name}
    found = read_carto(pack(tmp_path / "table.zip", table))
    np.testing.assert_allclose(found.lat_ms, original.lat_ms, atol=1e-9)
    np.testing.assert_allclose(found.unipolar_mv, original.unipolar_mv)
    points = {name: data for name, data in files.items() if not name.endswith("_car.txt")}
    found = read_carto(pack(tmp_path / "points.zip", points))
    np.testing.assert_allclose(found.lat_ms, original.lat_ms, atol=1e-9)
    assert any("no car.txt" in line for line in found.notes)


def test_containers(tmp_path: Path, made: tuple[MappingStudy, Members]) -> None:
    original, files = made
    path = pack(tmp_path / "s.zip", files)
    folder = tmp_path / "folder" / "Export"
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    nested = pack(tmp_path / "nested.zip", {"Patient/Export.zip": path.read_bytes()})
    for one in (folder, folder.parent, nested):
        assert is_carto(one)
        same(read_carto(one), original)


def test_seven_zip_under_either_name(tmp_path: Path, made: tuple[MappingStudy, Members]) -> None:
    py7zr = pytest.importorskip("py7zr")
    original, files = made
    path = tmp_path / "s.zip"
    with py7zr.SevenZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(data, name)
    assert is_carto(path)
    same(read_carto(path), original)
    locked = tmp_path / "locked.7z"
    with py7zr.SevenZipFile(locked, "w", password="secret") as archive:
        archive.writestr(b"x" * 100, "a.mesh")
    with pytest.raises(InputError, match=r"encrypted.*password"):
        read_carto(locked)


def test_an_encrypted_zip_is_said_to_be_one(tmp_path: Path, made: tuple[MappingStudy, Members]) -> None:
    data = bytearray(pack(tmp_path / "s.zip", made[1]).read_bytes())
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = data.find(signature)
        data[place + at] |= 1
    (tmp_path / "s.zip").write_bytes(bytes(data))
    with pytest.raises(InputError, match="encrypted"):
        read_carto(tmp_path / "s.zip")


def two_maps(files: Members, second: str = "2-RV") -> Members:
    """The study with a second map, of the same points under another name."""
    xml = files["Study 1.xml"].decode()
    block = re.search(r"  <Map ID.*?</Map>", xml, re.DOTALL)
    assert block is not None
    more = block[0].replace('Name="1-LV"', f'Name="{second}"').replace('ID="1"', 'ID="2"').replace("1-LV.mesh", "2-RV.mesh")
    out = {name.replace("1-LV", "2-RV"): data for name, data in files.items() if name.startswith("1-LV") and "ECG" not in name}
    return files | out | {"Study 1.xml": xml.replace(block[0], block[0] + "\r\n" + more).encode()}


def test_the_map_is_chosen_by_name(tmp_path: Path, made: tuple[MappingStudy, Members]) -> None:
    path = pack(tmp_path / "s.zip", two_maps(made[1]))
    assert list_maps(path) == [("1-LV", 60), ("2-RV", 60)]
    with pytest.raises(InputError, match=r"2 maps with points.*#1 '1-LV' \(60 points\)"):
        read_carto(path)
    for name, found in (("2-RV", "2-RV"), ("2-rv", "2-RV"), ("#1", "1-LV")):
        assert read_carto(path, name).name == found
    for name in ("LA", "#3", ""):
        with pytest.raises(InputError, match="map"):
            read_carto(path, name)


def test_cp1252_names_and_declared_utf8(tmp_path: Path, made: tuple[MappingStudy, Members]) -> None:
    """Names in cp1252 in files that say nothing of it, or claim UTF-8."""
    old, new = b"1-LV", "1-Höhle µ".encode("cp1252")
    files = {name.replace("1-LV", "1-Höhle µ"): data.replace(old, new) for name, data in made[1].items()}
    found = read_carto(pack(tmp_path / "s.zip", files))
    assert found.name == "1-Höhle µ"
    same(found, made[0])
    files = changed(files, "Study 1.xml", lambda data: data.replace(b'<?xml version="1.0"?>', b'<?xml version="1.0" encoding="utf-8"?>'))
    same(read_carto(pack(tmp_path / "t.zip", files)), made[0])


def test_version_4_names_the_channels_in_the_recording(tmp_path: Path) -> None:
    head = (
        "ECG_Export_4.0\nRaw ECG to MV (gain) = 0.003000\nUnipolar Mapping Channel=M1 Bipolar Mapping Channel=M1-M2 Reference Channel=CS1\n"
    )
    recording = parse_ecg((head + "M1(1) M1-M2(101) CS1(11)\n1 2 3\n-4 5 6\n").encode(), tmp_path)
    assert (recording.bipolar, recording.unipolar, recording.reference) == ("M1-M2", "M1", "CS1")
    np.testing.assert_allclose(recording.channels["M1"], [0.003, -0.012])


def test_colours_are_told_by_name_and_fill_is_left_out(tmp_path: Path) -> None:
    text = """#TriangulatedMeshVersion2.0
[GeneralAttributes]
NumVertex = 4
NumTriangle = 2
ColorsNames = A2 LAT Bipolar
[VerticesSection]
0 = 0 0 0 0 0 1 0
1 = 10 0 0 0 0 1 0
2 = 5 10 0 0 0 1 0
3 = 5 5 5 0 0 1 -1000000
[TrianglesSection]
0 = 0 1 2 0 0 1 0
1 = 0 1 3 0 0 1 0
[VerticesColorsSection]
0 = -10000 -5.5 1.25
1 = -10000 7 -10000
2 = -10000 -10000 0.5
3 = -10000 9 9
"""
    surface = parse_mesh(text.encode(), tmp_path)
    assert surface.points_mm.shape == (3, 3)
    assert surface.triangles.tolist() == [[0, 1, 2]]
    np.testing.assert_array_equal(surface.point_data["lat_ms"], [-5.5, 7.0, np.nan])
    np.testing.assert_array_equal(surface.point_data["bipolar_mv"], [1.25, np.nan, 0.5])
    assert set(surface.point_data) == {"lat_ms", "bipolar_mv"}


def test_no_value_and_location_only(tmp_path: Path, made: tuple[MappingStudy, Members]) -> None:
    """-10000 is no value, and a point marked as location only carries no time though its annotations have defaults."""
    files = dict(made[1])
    xml = files["Study 1.xml"].replace(b'<Point Id="5" ', b'<Point Id="5" X="1" ')
    xml = re.sub(rb'(<Point Id="6" [^>]*>)(</Point>)', rb'\1<Tags Count="1">11</Tags>\2', xml)
    files["Study 1.xml"] = xml
    found = read_carto(pack(tmp_path / "s.zip", files))
    where = int(np.flatnonzero(found.point_ids == 6)[0])
    assert np.isnan(found.lat_ms[where])
    assert np.isfinite(made[0].lat_ms[where])
    assert not (found.lat_ms == -10000).any()
    assert np.isnan(found.lat_ms[0])


def test_voltage_columns_follow_the_points(tmp_path: Path, made: tuple[MappingStudy, Members]) -> None:
    """Published notes disagree on which voltage comes first: the point files decide."""

    def exchange(data: bytes) -> bytes:
        lines = data.decode().split("\r\n")
        rows = [line.split("\t") for line in lines[1:]]
        return "\r\n".join([lines[0], *("\t".join([*r[:10], r[11], r[10], *r[12:]]) if len(r) > 12 else "" for r in rows)]).encode()

    found = read_carto(pack(tmp_path / "s.zip", changed(made[1], "_car.txt", exchange)))
    np.testing.assert_allclose(found.bipolar_mv, made[0].bipolar_mv)
    assert any("bipolar before unipolar" in line for line in found.notes)


PLANTED = ("Mustermann", "19470311", "MRN0815", "Erika")


def test_identifiers_go_nowhere(tmp_path: Path, made: tuple[MappingStudy, Members], capsys: pytest.CaptureFixture[str]) -> None:
    """Names, birth dates and numbers planted wherever an export has them reach no output, note, error or repr."""
    from planners.app.console import Console
    from planners.app.convert_command import convert
    from planners.app.inspect_command import inspect

    files = {
        name.replace("1-LV", "1-LV Mustermann").replace("Study 1", "Mustermann Erika 19470311"): data for name, data in made[1].items()
    }
    files = {name: data.replace(b"1-LV", b"1-LV Mustermann") for name, data in files.items()}
    study_name = next(name for name in files if name.startswith("Mustermann"))
    patient = b'<Study name="Mustermann Erika 19470311"><Patient Name="Mustermann" BirthDate="19470311" ID="MRN0815"/>'
    files[study_name] = files[study_name].replace(b'<Study name="Phantom 1">', patient).replace(b'"Some scar"', b'"Mustermann scar"')
    files = changed(files, "Point_Export.xml", lambda data: data.replace(b"<Point ID", b'<Point Operator="Erika" ID', 1))
    path = pack(tmp_path / "in.zip", files)
    found = read_carto(path)
    texts = [found.name, repr(found.labels), *found.notes, repr(list_maps(path))]
    for target in ("out.csv", "out.vtp", "out.mat", "out.xml", "out.zip"):
        convert(path, tmp_path / target, Console(False))
        data = (tmp_path / target).read_bytes()
        texts.append(data.decode("latin-1"))
        if target == "out.zip":
            texts += [name + content.decode("latin-1") for name, content in members(tmp_path / target).items()]
    inspect(path, tmp_path / "p.png", Console(False))
    spoilt = pack(tmp_path / "bad.zip", changed(files, ".mesh", lambda data: data[: len(data) // 2]))
    for call in (
        lambda: read_carto(spoilt),
        lambda: read_carto(path, "LA"),
        lambda: read_carto(pack(tmp_path / "x.zip", two_maps_of(files))),
    ):
        with pytest.raises(InputError) as error:
            call()
        texts.append(str(error.value))
    spoken = capsys.readouterr()
    texts += [spoken.out, spoken.err]
    for word in PLANTED:
        assert not any(word.lower() in text.lower() for text in texts), word


def two_maps_of(files: Members) -> Members:
    name = next(n for n in files if n.endswith("19470311.xml"))
    block = re.search(rb"  <Map ID.*?</Map>", files[name], re.DOTALL)
    assert block is not None
    return files | {name: files[name].replace(block[0], block[0] + block[0])}


def car(change: Callable[[list[str]], list[str]]) -> Callable[[bytes], bytes]:
    """A change of every row of the table."""

    def all_rows(data: bytes) -> bytes:
        head, *rows = data.decode().split("\r\n")
        return "\r\n".join([head, *("\t".join(change(row.split("\t"))) if row else "" for row in rows)]).encode()

    return all_rows


def places(
    scale: float = 1.0, order: tuple[int, int, int] = (0, 1, 2), sign: tuple[float, float, float] = (1, 1, 1)
) -> Callable[[Members], Members]:
    """The same change of the points' positions in study XML and table; the shell stays."""

    def move(words: list[str]) -> list[str]:
        xyz = [float(word) for word in words]
        return [f"{scale * sign[k] * xyz[order[k]]:.6f}" for k in range(3)]

    def everywhere(files: Members) -> Members:
        def in_xml(data: bytes) -> bytes:
            return re.sub(rb'Position3D="([^"]*)"', lambda m: f'Position3D="{" ".join(move(m[1].decode().split()))}"'.encode(), data)

        files = changed(files, "Study 1.xml", in_xml)
        return changed(files, "_car.txt", car(lambda row: [*row[:4], *move(row[4:7]), *row[7:]]))

    return everywhere


def attribute(name: str, change: Callable[[float], float]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        return re.sub(rf'{name}="([^"]*)"'.encode(), lambda m: f'{name}="{change(float(m[1])):.3f}"'.encode() if m[1] else m[0], data)

    return apply


def real(change: Callable[[float], float]) -> Callable[[float], float]:
    return lambda value: value if value == -10000 else change(value)


def swap_leads(data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    lines[2] = lines[2].replace(b"I(5)", b"?(5)", 1).replace(b"II(6)", b"I(6) ", 1).replace(b"?(5)", b"II(5)", 1)
    return b"\r\n".join(lines)


DOUBTFUL: dict[str, tuple[Callable[[Members], Members], str]] = {
    "points in cm": (places(0.1), "eam_off_surface"),
    "points in m": (places(0.001), "eam_off_surface"),
    "points in um": (places(1000.0), "eam_off_surface"),
    "x and z exchanged": (places(order=(2, 1, 0)), "eam_off_surface"),
    "x and y exchanged": (places(order=(1, 0, 2)), "eam_off_surface"),
    "x and y turned (LPS for RAS)": (places(sign=(-1, -1, 1)), "eam_off_surface"),
    "z turned": (places(sign=(1, 1, -1)), "eam_off_surface"),
    "table in cm alone": (lambda f: changed(f, "_car.txt", car(lambda r: [*r[:4], *(str(float(w) / 10) for w in r[4:7]), *r[7:]])), ""),
    "sign of the times in the table": (
        lambda f: changed(f, "_car.txt", car(lambda r: [*r[:12], str(real(lambda v: -v)(float(r[12]))), *r[13:]])),
        "eam_lat_sign",
    ),
    "times in the table from another beat": (
        lambda f: changed(f, "_car.txt", car(lambda r: [*r[:12], str(real(lambda v: v + 50)(float(r[12]))), *r[13:]])),
        "eam_annotations",
    ),
    "annotations exchanged": (
        lambda f: changed(
            {n: d for n, d in f.items() if not n.endswith("_car.txt")},
            "Point_Export.xml",
            lambda d: (
                d.replace(b"Reference_Annotation", b"?")
                .replace(b"Map_Annotation", b"Reference_Annotation")
                .replace(b"?", b"Map_Annotation")
                .replace(b"<Map_Annotationxml", b"<?xml")
                .replace(b"Map_Annotation>", b"?>", 1)
            ),
        ),
        "eam_lat_sign",
    ),
    "window in seconds": (
        lambda f: changed(f, "Point_Export.xml", lambda d: attribute("To", lambda v: v / 1000)(attribute("From", lambda v: v / 1000)(d))),
        "eam_window",
    ),
    "microvolts in the points": (
        lambda f: changed(
            f,
            "Point_Export.xml",
            lambda d: attribute("Bipolar", real(lambda v: 1000 * v))(attribute("Unipolar", real(lambda v: 1000 * v))(d)),
        ),
        "eam_voltages",
    ),
    "bipolar and unipolar exchanged": (
        lambda f: changed(
            {n: d for n, d in f.items() if not n.endswith("_car.txt")},
            "Point_Export.xml",
            lambda d: d.replace(b" Unipolar=", b" ?=").replace(b" Bipolar=", b" Unipolar=").replace(b" ?=", b" Bipolar="),
        ),
        "eam_voltage_columns",
    ),
    "gain off by a hundred": (lambda f: {n: d.replace(b"= 0.003000", b"= 0.300000") for n, d in f.items()}, "egm_gain"),
    "gain of volts": (lambda f: {n: d.replace(b"= 0.003000", b"= 0.000003") for n, d in f.items()}, "egm_gain"),
    "limb leads exchanged": (lambda f: {n: swap_leads(d) if "_ECG_Export_" in n else d for n, d in f.items()}, "ecg_lead_order"),
    "two maps of one name": (lambda f: two_maps(f, "1-LV"), "eam_map_names"),
    "numbers of points used twice": (
        lambda f: changed(
            {n: d for n, d in f.items() if not n.endswith("_car.txt")}, "Study 1.xml", lambda d: d.replace(b'Id="4"', b'Id="3"')
        ),
        "eam_point_ids",
    ),
    "times of the shell turned": (
        lambda f: changed(
            f,
            ".mesh",
            lambda d: re.sub(
                rb"(\d+ = -?[\d.]+ -?[\d.]+) (-?[\d.]+)\r\n(?=\d|$)", lambda m: m[1] + f" {real(lambda v: -v)(float(m[2]))}\r\n".encode(), d
            ),
        ),
        "eam_lat_sign",
    ),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_readable_but_wrong_is_noticed(tmp_path: Path, made: tuple[MappingStudy, Members], name: str) -> None:
    change, code = DOUBTFUL[name]
    path = pack(tmp_path / "s.zip", change(dict(made[1])))
    with pytest.raises(InputError) as error:
        # points without a time lose their reference when annotations are exchanged, which is noticed first
        read_carto(path, "1-LV", Notes(("eam_incomplete",)))
    assert (error.value.code if isinstance(error.value, Suspicious) else "") == code, str(error.value)
    if code:
        # one error may show in several ways: all are accepted here
        accepted = Notes({"eam_incomplete", *(code for _, code in DOUBTFUL.values())})
        found = read_carto(path, "1-LV", accepted)
        assert len(found) == 60
        assert any(code in line for line in accepted.lines)


@pytest.mark.slow
def test_fifty_thousand_points_stream(tmp_path: Path) -> None:
    """A study of 50,000 points that share 500 windows: bounded memory, told progress. The child's peak is measured."""
    import subprocess
    import sys

    template = study(400, 2000, 2500)
    rng = np.random.default_rng(0)
    pick = rng.integers(0, 400, 50_000)
    big = replace(
        template,
        **{key: getattr(template, key)[pick] for key in (*FIELDS, "surface_mm")},
        point_ids=np.arange(1, 50_001),
        recordings=type(
            "Some",
            (),
            {"__len__": lambda self: 50_000, "read": lambda self, k: template.recordings.read(k % 400) if k % 100 == 0 else None},
        )(),
    )
    path = tmp_path / "big.zip"
    write_carto(path, big)
    code = f"""
import re, time
from pathlib import Path
from twin.io.carto import read_carto
def peak_kb():
    # the peak that resource reports is inherited from the parent
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
base = peak_kb()
seen = []
begin = time.process_time()
study = read_carto(Path({str(path)!r}), progress=lambda what, done, total: seen.append((what, done, total)))
count = sum(1 for _ in study.electrograms(lambda what, done, total: seen.append((what, done, total))))
peak = peak_kb()
print(len(study), count, (peak - base) // 1024, len(seen), seen[-1][1], round(time.process_time() - begin, 1))
"""
    begin = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    print("50,000 points: points, recordings, MB above imports, progress calls, last, CPU s:", out, round(time.monotonic() - begin, 1))
    assert out[0] == "50000"
    assert int(out[1]) == 500
    assert int(out[2]) < 500
    assert int(out[3]) > 500
    assert out[4] == "50000"


def test_archives_that_lie(tmp_path: Path) -> None:
    for name in ("../evil.mesh", "/etc/x.mesh", "a/../../b.mesh", "C:\\x.mesh", "..\\y.mesh"):
        with pytest.raises(InputError, match="leads out"):
            open_study(pack(tmp_path / "s.zip", {name: b"x"}))
    bomb = pack(tmp_path / "bomb.zip", {"1.mesh": bytes(2_000_000)})
    data = bytearray(bomb.read_bytes())
    at = data.find(b"PK\1\2")
    data[at + 24 : at + 28] = (3_900_000_000).to_bytes(4, "little")
    bomb.write_bytes(bytes(data))
    begin = time.process_time()
    with pytest.raises(InputError, match="a member claims 3900 MB"):
        read_carto(bomb)
    assert time.process_time() - begin < 2.0
