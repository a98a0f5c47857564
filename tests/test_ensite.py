"""EnSite: DIF, contact-mapping CSV of Precision and EnSite X, wave files; the shared synthetic files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from study_fixtures import shell, study

from twin.errors import InputError, Suspicious
from twin.io.ensite import is_ensite, parse_waves, read_dif, read_ensite, write_dif, write_ensite
from twin.io.ensite.dif import dif_text, with_missing
from twin.study import MappingStudy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[MappingStudy, Path]:
    original = study(60, 120, 1200)
    folder = tmp_path_factory.mktemp("ensite") / "export"
    write_ensite(folder, original)
    return original, folder


def test_a_phantom_is_read_back(made: tuple[MappingStudy, Path]) -> None:
    original, folder = made
    assert is_ensite(folder)
    found = read_ensite(folder)
    assert found.name == "1-LV"
    for name in ("points_mm", "lat_ms", "bipolar_mv", "surface_mm"):
        np.testing.assert_allclose(getattr(found, name), getattr(original, name), atol=1e-3)
    assert found.surface is not None
    assert original.surface is not None
    for name in ("lat_ms", "bipolar_mv", "unipolar_mv"):
        np.testing.assert_allclose(found.surface.point_data[name], original.surface.point_data[name], atol=1e-4)
    assert (found.surface.triangles == original.surface.triangles).all()
    one, other = found.recordings.read(7), original.recordings.read(7)
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one.channels["rovtrace"], other.channels["M1-M2"], atol=5e-5)
    np.testing.assert_allclose(one.channels["reftrace"], other.channels["CS1-CS2"], atol=5e-5)
    leads = found.ecg()
    assert leads is not None
    np.testing.assert_allclose(leads.leads["V3"], other.channels["V3"], atol=5e-5)
    assert leads.fs_hz == pytest.approx(1000.0)
    assert set(found.eam().landmarks) == {"lv_apex"}


def test_dif_holds_vertices_polygons_from_one_and_one_quantity(tmp_path: Path) -> None:
    surface = shell(60)
    write_dif(tmp_path / "a.xml", surface, "lat_ms", {"A & <B>": np.array([1.0, 2.0, 3.0])}, "LV <1>")
    found = read_dif(tmp_path / "a.xml")
    assert list(found.volumes) == ["LV <1>"]
    got = with_missing(found.volumes["LV <1>"])
    np.testing.assert_allclose(got.points_mm, surface.points_mm, atol=1e-4)
    assert (got.triangles == surface.triangles).all()
    np.testing.assert_allclose(got.point_data["lat_ms"], surface.point_data["lat_ms"], atol=1e-4)
    np.testing.assert_allclose(found.labels["A & <B>"], [1.0, 2.0, 3.0])
    text = (tmp_path / "a.xml").read_text()
    zero = text.replace("<Polygons", "<?skip?><Polygons")
    first = " ".join(str(v) for v in surface.triangles[0] + 1)
    for old, new, field in (
        (first, "0 1 2", "Polygons"),
        ("SJM_DIF_5.0", "SJM_DIF_4.0", "Version"),
        (f'<Vertices number="{len(surface.points_mm)}"', '<Vertices number="999999999"', "Vertices"),
        ("<Map_data", "<!DOCTYPE a><Map_data", "DIF"),
    ):
        (tmp_path / "b.xml").write_text(zero.replace(old, new, 1))
        with pytest.raises(InputError, match=field):
            read_dif(tmp_path / "b.xml")


def test_a_lone_dif_file_is_a_map_of_its_vertices(tmp_path: Path) -> None:
    write_dif(tmp_path / "a.xml", shell(60), "bipolar_mv")
    found = read_ensite(tmp_path / "a.xml")
    assert len(found) == 60
    assert not np.isfinite(found.lat_ms).any()
    assert np.isfinite(found.bipolar_mv).all()


X_HEAD = """Export File Version : 10.1R
Export Data Element : DxL
Export from Study : PHANTOM
Map name:,LV sinus
Map type:,{quantity}
# mapping pts :,{n}
{more}Data starts in row ,{row}
{names}
"""


def write_x(folder: Path, original: MappingStudy) -> None:
    """EnSite X: LAT and voltage in tables of their own, waves by row, references by freeze group."""
    inside = folder / "Contact_Mapping"
    inside.mkdir(parents=True)
    assert original.surface is not None
    (folder / "Contact_Mapping_Model.xml").write_text(dif_text(original.surface, "lat_ms"))
    n = len(original)
    names = "Rov trace,Electrodes,Freeze Grp #,(Point #),roving x,roving y,roving z,surface x,surface y,surface z,utilized,"
    names += "{},left curtain (ms),right curtain (ms)"
    for quantity, column in (("LAT_bi", original.lat_ms), ("PP_bi", original.bipolar_mv), ("PP_uni", original.unipolar_mv)):
        title = names.format("LAT" if "LAT" in quantity else "P-P")
        rows = []
        for k in range(n):
            places = ",".join(f"{v:.4f}" for v in (*original.points_mm[k], *original.surface_mm[k]))
            value = "" if np.isnan(column[k]) else f"{column[k]:.4f}"
            rows.append(f'"HD, A1",A1 A2,{k // 2},{k + 1},{places},1,{value},-150,200')
        text = X_HEAD.format(quantity=quantity, n=n, more="", row=8, names=title)
        (inside / f"Map_{quantity}.csv").write_text(text + "\n".join(rows) + "\nEOF\n")
    for name, kind, rows in (("Wave_rov", "M1-M2", n), ("Wave_uni_distal", "M1", n), ("Wave_refs", "CS1-CS2", (n + 1) // 2)):
        samples = 200
        title = "Trace,Freeze Grp #," + ",".join(map(str, range(samples)))
        lines = []
        for k in range(rows):
            recording = original.recordings.read(k if k % 11 != 10 else 0)
            assert recording is not None
            lines.append(f"T,{k if name == 'Wave_refs' else k // 2}," + ",".join(f"{v:.4f}" for v in recording.channels[kind][900:1100]))
        more = "Segment data length (sec):,0.1\nSample rate:,2000\n"
        (inside / f"{name}.csv").write_text(
            X_HEAD.format(quantity="", n=n, more=more, row=10, names=title)
            .replace("Map type:,\n", "")
            .replace("Data starts in row ,10", "Data starts in row ,9")
            + "\n".join(lines)
            + "\n"
        )


def test_ensite_x_tables_are_merged(tmp_path: Path) -> None:
    original = study(40, 120, 1200)
    write_x(tmp_path / "x", original)
    found = read_ensite(tmp_path / "x")
    assert (found.name, found.system) == ("LV sinus", "EnSite X")
    for name in ("points_mm", "lat_ms", "bipolar_mv", "unipolar_mv", "surface_mm", "window_ms"):
        np.testing.assert_allclose(getattr(found, name), getattr(original, name), atol=1e-3)
    one, other = found.recordings.read(5), original.recordings.read(5)
    assert one is not None
    assert other is not None
    assert one.fs_hz == 2000.0
    np.testing.assert_allclose(one.channels["rov"], other.channels["M1-M2"][900:1100], atol=1e-4)
    np.testing.assert_allclose(one.channels["uni"], other.channels["M1"][900:1100], atol=1e-4)
    assert len(one.channels["ref"]) == 200


def test_waves_are_named_in_their_header(tmp_path: Path) -> None:
    text = """Export File Version: 5.2
Export Data Element: EP_Catheter_Bipolar_Waveforms_Filtered
Number of waves (columns): ,7
Number of samples (rows): ,3
t_dws,t_secs,t_usecs,t_ref,RV(D-2)_c0,RV(D-2)_c0_ds,RV(D-2)_c0_ps
 11:40:50.960,1,960324,0,0.0215,0,0
 11:40:50.961,1,960824,0.0005,0.0351,0,0
 11:40:50.961,1,961324,0.0010,0.0493,0,0
"""
    found = parse_waves(iter(text.splitlines()), tmp_path)
    assert found.fs_hz == pytest.approx(2000.0)
    np.testing.assert_allclose(found.channels["RV(D-2)_c0"], [0.0215, 0.0351, 0.0493])
    for bad in (text.replace("(rows): ,3", "(rows): ,4"), text.replace("0.0351", "x"), text.replace("0.0005", "0.0050"), text[:-30]):
        with pytest.raises(InputError):
            parse_waves(iter(bad.splitlines()), tmp_path)


def test_several_files_of_a_map_belong_together(tmp_path: Path) -> None:
    original = study(1100, 150, 10, False)
    write_ensite(tmp_path / "e", study_without_waves(original))
    found = read_ensite(tmp_path / "e")
    np.testing.assert_allclose(found.points_mm, original.points_mm, atol=1e-4)
    (tmp_path / "e" / "DxL_2.csv").unlink()
    with pytest.raises(InputError, match="1 of 2 files"):
        read_ensite(tmp_path / "e")


def study_without_waves(original: MappingStudy) -> MappingStudy:
    from dataclasses import replace

    from twin.study import NoRecordings

    return replace(original, recordings=NoRecordings(len(original)))


def test_identifiers_stay_in_the_file(tmp_path: Path, made: tuple[MappingStudy, Path]) -> None:
    folder = tmp_path / "e"
    folder.mkdir()
    for one in made[1].iterdir():
        text = one.read_text().replace("PHANTOM", "Mustermann Erika").replace("Some scar", "Mustermann scar")
        (folder / one.name).write_text(
            text.replace("map,1-LV", "map,Mustermann LV").replace("Export User Comments : ", "Export User Comments : Erika ")
        )
    found = read_ensite(folder)
    assert found.name == "map 1"
    assert list(found.labels) == ["lv_apex"]
    assert "ustermann" not in repr((found.name, found.labels, found.notes, found.system))


DOUBTFUL = {
    "points in cm": ("roving x:", lambda v: 0.1 * v, "eam_off_surface"),
    "x turned": ("roving x:", lambda v: -v, "eam_off_surface"),
    "times turned": ("LAT:", lambda v: -v, "eam_lat_sign"),
    "a gain of a hundred": ("peak2peak:", lambda v: 100 * v, "egm_gain"),
    "microvolts": ("peak2peak:", lambda v: 1000 * v, "egm_gain"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_readable_but_wrong_is_noticed(tmp_path: Path, made: tuple[MappingStudy, Path], name: str) -> None:
    row, change, code = DOUBTFUL[name]
    folder = tmp_path / "e"
    folder.mkdir()
    for one in made[1].iterdir():
        lines = one.read_text().splitlines()
        for k, line in enumerate(lines):
            rows = [row] if name != "points in cm" else ["roving x:", "roving y:", "roving z:"]
            if line.startswith(tuple(rows)):
                head, *cells = line.split(",")
                lines[k] = ",".join([head, *(str(change(float(cell))) if cell else "" for cell in cells)])
        (folder / one.name).write_text("\n".join(lines))
    with pytest.raises(Suspicious) as error:
        read_ensite(folder)
    assert error.value.code == code


@pytest.mark.real
def test_the_shared_synthetic_files() -> None:
    """They follow the description of the formats; no file of a real machine under a permissive licence was found."""
    if "VTWIN_DATA" not in os.environ:
        pytest.skip("VTWIN_DATA is not set")
    folder = Path(os.environ["VTWIN_DATA"]) / "ensite"
    dif = read_dif(folder / "synthetic_DxLandmarkGeo.xml")
    (surface,) = dif.volumes.values()
    assert (len(surface.points_mm), len(surface.triangles)) == (642, 1280)
    radius = np.linalg.norm(surface.points_mm - [10.0, -20.0, 30.0], axis=1)
    np.testing.assert_allclose(radius, 25.0, atol=1e-3)
    low = surface.point_data["bipolar_mv"] < 0.5
    pole = np.linalg.norm(surface.points_mm - [35.0, -20.0, 30.0], axis=1)
    assert (pole[low] <= 12.001).all()
    assert (pole[~low] >= 11.999).all()
    np.testing.assert_allclose(dif.labels["pole"], [35.0, -20.0, 30.0])
    found = read_ensite(folder)
    assert (found.name, len(found)) == ("SYNTH", 5)
    np.testing.assert_allclose(found.lat_ms, [10, 12, 14, 16, 18])
    recording = found.recordings.read(0)
    assert recording is not None
    assert recording.fs_hz == 2000.0
    np.testing.assert_allclose(recording.channels["rovtrace"][:3], [0.0346, 0.0446, 0.0028])
    np.testing.assert_allclose(recording.channels["reftrace"][-1], -0.1617)
