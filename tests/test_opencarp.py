"""openCARP: every file round trips and refuses damage; experiments go out as a folder and come back as the same experiment."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshing.box import box_mesh
from planners.app.cli import run
from planners.app.console import Console
from planners.app.convert_command import convert
from solvers.exchange import experiment_toml, export_opencarp, import_opencarp
from solvers.exchange.names import MATCHES, from_im_param, im_param, match_of
from solvers.exchange.opencarp_export import pulse_trains
from solvers.experiment import Experiment, load_experiment
from solvers.ionic import cell_names, ionic_model, model_names
from solvers.simulate import run_experiment, set_up
from twin.atomic import read_npz
from twin.errors import InputError
from twin.io import opencarp

SLAB = """
[mesh]
box = { size = "4 x 1 x 1 mm", spacing = "0.5 mm", fibre = [1, 1, 0] }
[[tissue]]
region = "all"
ionic = "ten_tusscher_panfilov_2006"
cell = "epi"
intracellular = { longitudinal = "0.17 S/m", transverse = "0.019 S/m" }
extracellular = { longitudinal = "0.62 S/m", transverse = "0.24 S/m" }
surface_to_volume = "140 /mm"
capacitance = "1 uF/cm^2"
scale = { G_Na = 0.9, G_Kr = 0.7 }
[[stimulus]]
name = "S1"
box = { low = [0, 0, 0], high = [1.0, 1.5, 1.5] }
strength = "50 uA/mm^3"
duration = "2 ms"
cycle = "300 ms"
count = 3
extra = ["250 ms", "240.3 ms"]
[solver]
method = "monodomain"
scheme = "reference"
dt = "0.05 ms"
duration = "12 ms"
[record]
activation = { threshold = "-40 mV" }
probes = [[0, 0, 0], [4, 1, 1]]
probe_every = "0.5 ms"
"""


def experiment(folder: Path, *changes: tuple[str, str], name: str = "slab.toml") -> Experiment:
    text = SLAB
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (folder / name).write_text(text)
    return load_experiment(folder / name)


# --- meshes -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("sheets", [False, True])
def test_a_mesh_comes_back_and_writing_it_again_changes_nothing(tmp_path: Path, binary: bool, sheets: bool) -> None:
    mesh = box_mesh((3.0, 2.0, 1.0), 0.5, (1, 2, 0))
    region = (mesh.centroids_mm[:, 0] > 1).astype(int) + 1
    first = opencarp.write(tmp_path / "a", mesh.points_mm, mesh.tets, region, mesh.fibre, mesh.sheet if sheets else None, binary)
    back = opencarp.read(tmp_path / "a")
    assert np.allclose(back.points_mm, mesh.points_mm, atol=1e-6)
    assert (back.tets == mesh.tets).all()
    assert (back.tag == region).all()
    assert np.allclose(back.fibre, mesh.fibre, atol=1e-7)
    assert (back.sheet is not None) == sheets
    if back.sheet is not None:
        assert np.allclose(back.sheet, mesh.sheet, atol=1e-7)
    second = opencarp.write(tmp_path / "b", back.points_mm, back.tets, back.tag, back.fibre, back.sheet, binary)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


HEXAHEDRA = ("1 0 0", "1 0 0")


def write_mixed(folder: Path, carp_order: bool, binary: bool = False) -> Path:
    """Two hexahedra, a prism on the side of the second, a pyramid on the top of the first, and a triangle: 14 + points of a small house."""
    grid = [(x, y, z) for z in (0, 1000) for y in (0, 1000) for x in (0, 1000, 2000)]
    points = [*grid, (3000, 0, 0), (3000, 0, 1000), (500, 500, 1800)]
    top = (6, 7, 10, 9)
    cube = [(0, 1, 4, 3, *top), (1, 2, 5, 4, 7, 8, 11, 10)]
    prism = (2, 12, 5, 8, 13, 11)
    if carp_order:
        cube = [(a, b, c, d, e, h, g, f) for a, b, c, d, e, f, g, h in cube]
        prism = (2, 12, 5, 8, 11, 13)
    elements = [("Hx", 1, cube[0]), ("Pr", 3, prism), ("Hx", 1, cube[1]), ("Py", 3, (*top, 14)), ("Tr", 6, (0, 1, 3))]
    fibres = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 0, 0)]
    if binary:
        records = [(code, *nodes, 7 + i) for i, (_, code, nodes) in enumerate(elements)]
        code = {"Hx": 1, "Pr": 4, "Py": 3, "Tr": 6}
        records = [(code[e[0]], *r[1:]) for e, r in zip(elements, records)]
        body = np.array([n for r in records for n in r], "<i4").tobytes()
        (folder / "m.bpts").write_bytes(f"{len(points)} 0 1".encode().ljust(1024, b"\0") + np.array(points, "<f4").tobytes())
        (folder / "m.belem").write_bytes(f"{len(elements)} 0 1".encode().ljust(1024, b"\0") + body)
        (folder / "m.blon").write_bytes(f"1 {len(elements)} 0 1".encode().ljust(1024, b"\0") + np.array(fibres, "<f4").tobytes())
    else:
        (folder / "m.pts").write_text(f"{len(points)}\n" + "".join(f"{x} {y} {z}\n" for x, y, z in points))
        rows = "".join(f"{word} {' '.join(map(str, nodes))} {7 + i}\n" for i, (word, _, nodes) in enumerate(elements))
        (folder / "m.elem").write_text(f"{len(elements)}\n{rows}")
        (folder / "m.lon").write_text("1\n" + "".join(f"{a} {b} {c}\n" for a, b, c in fibres))
    return folder / "m"


@pytest.mark.parametrize("carp_order", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_mixed_elements_are_cut_so_that_neighbours_fit(tmp_path: Path, carp_order: bool, binary: bool) -> None:
    from twin.io.volume_mesh import boundary
    from twin.mesh import signed_volumes_mm3

    mesh = opencarp.read(write_mixed(tmp_path, carp_order, binary))
    volume = signed_volumes_mm3(mesh.points_mm, mesh.tets)
    assert (volume > 0).all()
    of_tag = {tag: volume[mesh.tag == tag].sum() for tag in (7, 8, 9, 10)}
    assert of_tag == pytest.approx({7: 1.0, 8: 0.5, 9: 1.0, 10: 0.8 / 3})
    # a fitting cut has the surface of the house: 14 outer faces of quadrilaterals are 28 triangles at most, none of them inside
    triangles, _ = boundary(mesh.tets)
    p = mesh.points_mm[triangles]
    enclosed = np.einsum("ij,ij->i", p[:, 0], np.cross(p[:, 1], p[:, 2])).sum() / 6
    assert enclosed == pytest.approx(2.5 + 0.8 / 3)
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert (mesh.fibre[mesh.tag == 8] == [0, 1, 0]).all()
    assert any("triangles left out" in note for note in mesh.notes)
    assert any("hexahedra cut" in note for note in mesh.notes)


def test_what_has_no_volume_is_refused(tmp_path: Path) -> None:
    prefix = write_mixed(tmp_path, True)
    path = tmp_path / "m.elem"
    good = path.read_text()
    for change, words in (
        ("Hx 0 1 4 3 6 9 10 7 7", "Hx 0 4 1 3 6 9 10 7 7"),
        ("Tr 0 1 3 11", "Oc 0 1 3 4 6 7 11"),
        ("Tr 0 1 3 11", "Tt 0 1 3 4 11"),
        ("Tr 0 1 3 11", "Tt 0 1 3 1.5 11"),
        ("Tr 0 1 3 11", "Tt 0 1 3 -4 11"),
        ("Tr 0 1 3 11", "Xx 0 1 3 11"),
    ):
        assert change in good
        path.write_text(good.replace(change, words))
        with pytest.raises(InputError):
            opencarp.read(prefix)
    path.write_text("1\nTr 0 1 3 11\n")
    (tmp_path / "m.lon").write_text("1\n1 0 0\n")
    with pytest.raises(InputError, match="surface mesh"):
        opencarp.read(prefix)


@pytest.mark.real
def test_a_mesh_that_openCARP_wrote(tmp_path: Path) -> None:
    if "VTWIN_DATA" not in os.environ:
        pytest.skip("set VTWIN_DATA to the shared data")
    source = Path(os.environ["VTWIN_DATA"]) / "pie_infarct_slab" / "mesh_1000um" / "mesh_1000um"
    mesh = opencarp.read(source)
    assert (len(mesh.points_mm), len(mesh.tets)) == (16250, 48794)
    assert {int(t): int((mesh.tag == t).sum()) for t in np.unique(mesh.tag)} == {1: 39436, 2: 9358}
    paths = opencarp.write(tmp_path / "m", mesh.points_mm, mesh.tets, mesh.tag, mesh.fibre, binary=True)
    for path, suffix in zip(paths, opencarp.BINARY):
        # the header's third number is a checksum that nobody reads
        assert path.read_bytes()[1024:] == source.with_name(source.name + suffix).read_bytes()[1024:]


# --- fields -------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30), st.sets(st.integers(0, 500), min_size=1, max_size=30))
def test_values_and_node_lists_come_back(tmp_path_factory: pytest.TempPathFactory, values: list[float], nodes: set[int]) -> None:
    folder = tmp_path_factory.mktemp("fields")
    opencarp.write_dat(folder / "a.dat", np.array(values))
    assert np.allclose(opencarp.read_dat(folder / "a.dat"), values, rtol=1e-8)
    opencarp.write_vtx(folder / "a.vtx", sorted(nodes), "extra")
    back, domain = opencarp.read_vtx(folder / "a.vtx", 501)
    assert (back.tolist(), domain) == (sorted(nodes), "extra")


def test_surfaces_come_back_and_quadrilaterals_are_cut(tmp_path: Path) -> None:
    triangles = np.array([[0, 1, 2], [2, 1, 3]], np.int32)
    opencarp.write_surf(tmp_path / "a.surf", triangles)
    assert (opencarp.read_surf(tmp_path / "a.surf", 4) == triangles).all()
    (tmp_path / "a.surf").write_text("1\nQd 0 1 3 2\n")
    assert opencarp.read_surf(tmp_path / "a.surf").tolist() == [[0, 1, 3], [0, 3, 2]]


TYPES = ["u1", "i1", "i2", "i4", "u4", "i8", "f4", "f8", "c8", "c16"]


@pytest.mark.parametrize("code", TYPES)
@pytest.mark.parametrize("big", [False, True])
def test_igb_grids_in_four_dimensions(tmp_path: Path, code: str, big: bool) -> None:
    data = (np.arange(3 * 2 * 4 * 5).reshape(3, 2, 4, 5) % 120).astype(code)
    header = {"inc_t": 2.5, "org_t": 10.0, "facteur": 0.5, "zero": -80.0, "unites": "mV", "unites_t": "ms", "dim_t": 7.5}
    opencarp.write_igb(tmp_path / "a.igb", opencarp.Igb(data, header, ("made here",)), big)
    back = opencarp.read_igb(tmp_path / "a.igb")
    assert (back.data == data).all()
    assert back.header == header
    assert back.comments == ("made here",)
    assert back.times.tolist() == [10.0, 12.5, 15.0]
    assert (back.values(1) == data[1] * 0.5 - 80.0).all()


def test_igb_as_openCARP_writes_it(tmp_path: Path) -> None:
    header = "x:7 y:1 z:1 t:2 type:float systeme:little_endian org_t:0 dim_t:1 \r\nunites_x:um unites_t:ms unites:mV facteur:1 zero:0 \r\n"
    values = np.arange(14, dtype="<f4")
    (tmp_path / "vm.igb").write_bytes(header.encode().ljust(1023) + b"\x0c" + values.tobytes() + b"\x0c")
    back = opencarp.read_igb(tmp_path / "vm.igb")
    assert back.data.shape == (2, 1, 1, 7)
    assert back.values(1).ravel().tolist() == list(range(7, 14))
    vectors = np.ones((2, 1, 1, 7, 3), "f4")
    opencarp.write_igb(tmp_path / "v.igb", opencarp.Igb(vectors))
    assert opencarp.read_igb(tmp_path / "v.igb").data.shape == (2, 1, 1, 7, 3)
    (tmp_path / "cut.igb").write_bytes((tmp_path / "vm.igb").read_bytes()[:1060])
    with pytest.raises(InputError, match="cut off after 1 slices"):
        opencarp.read_igb(tmp_path / "cut.igb")


# --- damage -------------------------------------------------------------------------------------------------------------------


def seeds(folder: Path) -> dict[str, tuple[bytes, Callable[[Path], object]]]:
    """One good file of each kind, and what reads it."""
    mesh = box_mesh((1.0, 1.0, 1.0), 0.5)
    for binary in (False, True):
        opencarp.write(folder / "good", mesh.points_mm, mesh.tets, mesh.region, mesh.fibre, mesh.sheet, binary)
    opencarp.write_dat(folder / "good.dat", np.arange(20.0))
    opencarp.write_vtx(folder / "good.vtx", range(10))
    opencarp.write_surf(folder / "good.surf", np.array([[0, 1, 2], [2, 1, 3]]))
    opencarp.write_igb(folder / "good.igb", opencarp.Igb(np.ones((3, 1, 2, 4), "f4"), {"inc_t": 1.0}))
    (folder / "good.par").write_text('meshname = "mesh"\ndt = 25\nstim[0].name = "S1" # x\n')
    readers: dict[str, Callable[[Path], object]] = {
        ".dat": opencarp.read_dat,
        ".vtx": opencarp.read_vtx,
        ".surf": opencarp.read_surf,
        ".igb": opencarp.read_igb,
        ".par": opencarp.parse_par,
    }

    def mesh_reader(suffix: str) -> Callable[[Path], object]:
        def read(path: Path) -> object:
            for other in opencarp.BINARY if suffix in opencarp.BINARY else opencarp.TEXT:
                if other != suffix and not path.with_suffix(other).exists():
                    (path.parent / f"{path.stem}{other}").write_bytes((folder / f"good{other}").read_bytes())
            return opencarp.read(path.with_suffix(""), suffix in opencarp.BINARY)

        return read

    readers |= {suffix: mesh_reader(suffix) for suffix in opencarp.TEXT + opencarp.BINARY}
    return {suffix: ((folder / f"good{suffix}").read_bytes(), reader) for suffix, reader in readers.items()}


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flipped, doubled, with other numbers, NaN and huge counts."""
    kind = int(rng.integers(7))
    at = int(rng.integers(len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :]
    if kind == 2:
        return data + data[at:]
    words = [b"nan", b"inf", b"-1", b"999999999999", b"1e400", b"", b"2", b"0", b"\xff\xfe", b"99999999999999999999"]
    word = words[int(rng.integers(len(words)))]
    if kind == 3:
        return data[:at] + word + data[at + 1 :]
    if kind == 4:
        first, _, rest = data.partition(b"\n")
        return word + b"\n" + rest if b"\n" in data[:40] else word.ljust(len(first[:8]), b" ") + data[8:]
    if kind == 5:
        return data.replace(b" ", b"\n", 3)
    return data[:at] + data[at + int(rng.integers(1, 40)) :]


def test_damage_of_every_kind_is_one_line_or_an_answer(tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    lines = []
    for index, (suffix, (data, reader)) in enumerate(seeds(tmp_path / "seeds").items()):
        rng = np.random.default_rng(index)
        for _ in range(120):
            path = tmp_path / f"{index}{suffix}"
            path.unlink(missing_ok=True)
            path.write_bytes(damaged(data, rng))
            try:
                reader(path)
            except InputError as error:
                lines.append(str(error))
    assert len(lines) > 600
    assert not any("\n" in line for line in lines)


def test_huge_counts_cost_nothing(tmp_path: Path) -> None:
    import tracemalloc

    prefix = tmp_path / "good"
    kept = seeds(tmp_path)
    tracemalloc.start()
    for suffix, header in (
        (".pts", b"999999999999"),
        (".elem", b"99999999999"),
        (".bpts", b"2000000000 0 1"),
        (".belem", b"500000000 0 1"),
    ):
        path = tmp_path / f"good{suffix}"
        data = kept[suffix][0]
        path.write_bytes(header.ljust(1024, b"\0") + data[1024:] if suffix in opencarp.BINARY else header + data[data.index(b"\n") :])
        with pytest.raises(InputError):
            opencarp.read(prefix, suffix in opencarp.BINARY)
        path.write_bytes(data)
    (tmp_path / "good.igb").write_bytes(b"x:1000000 y:1000 z:1 t:900 type:double systeme:little_endian ".ljust(1023) + b"\x0c" + b"\0" * 64)
    with pytest.raises(InputError):
        opencarp.read_igb(tmp_path / "good.igb")
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


def test_parameter_files_are_read_as_openCARP_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a.par"
    path.write_text('# a comment\nspacedt 2\nspacedt = 3 # twice: the last counts\nim_param = "flags=ENDO"\n\n')
    assert opencarp.parse_par(path) == {"spacedt": "3", "im_param": "flags=ENDO"}
    for text, words in (("im_param = flags=ENDO", "cuts"), ('a = "x', "balanced"), ('a = "x#y"', "balanced"), ("= 3", "not key")):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            opencarp.parse_par(path)
    with pytest.raises(InputError, match="cannot hold"):
        opencarp.format_par([("", {"name": 'a"b'})])


# --- experiments --------------------------------------------------------------------------------------------------------------


def test_a_slab_out_and_back_is_the_same_experiment(tmp_path: Path) -> None:
    start = experiment(tmp_path)
    export_opencarp(start, tmp_path / "one")
    imported, _ = import_opencarp(tmp_path / "one" / "experiment.par")
    (tmp_path / "back.toml").write_text(experiment_toml(imported, tmp_path))
    back = load_experiment(tmp_path / "back.toml")
    assert replace(back, where=imported.where, mesh=imported.mesh) == imported

    # the mesh, tissue and stimuli are what they were
    before, after = set_up(start), set_up(back)
    assert np.allclose(before.mesh.points_mm, after.mesh.points_mm, atol=1e-9)
    assert (before.mesh.tets == after.mesh.tets).all()
    assert np.allclose(before.mesh.fibre, after.mesh.fibre, atol=1e-7)
    assert [(s.nodes.tolist(), s.start_ms, s.duration_ms, s.strength_uA_mm3) for s in before.stimuli] == [
        (s.nodes.tolist(), s.start_ms, s.duration_ms, s.strength_uA_mm3) for s in after.stimuli
    ]
    one, two = start.tissue[0], back.tissue[0]
    assert (one.ionic, one.cell, dict(one.scale), one.membrane) == (two.ionic, two.cell, dict(two.scale), two.membrane)
    assert (one.d_l_mm2_ms, one.d_t_mm2_ms) == (two.d_l_mm2_ms, two.d_t_mm2_ms)
    for name in ("dt_ms", "duration_ms", "scheme", "threshold_mv", "recovery_mv", "probes_mm", "probe_every_ms"):
        assert getattr(start, name) == getattr(back, name), name

    # and it goes out again byte by byte
    export_opencarp(back, tmp_path / "two")
    for file in sorted((tmp_path / "one").iterdir()):
        if file.name != "README.md":
            assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


@pytest.mark.parametrize("scheme", ["reference", "explicit"])
def test_the_wave_is_the_same_before_and_after_the_round_trip(tmp_path: Path, scheme: str) -> None:
    start = experiment(tmp_path, ('scheme = "reference"', f'scheme = "{scheme}"'))
    export_opencarp(start, tmp_path / "carp")
    imported, notes = import_opencarp(tmp_path / "carp" / "experiment.par")
    assert any("solver.scheme" in note for note in notes)
    run_experiment(start, tmp_path / "before")
    run_experiment(replace(imported, scheme=scheme, correction=start.correction), tmp_path / "after")
    before, after = (read_npz(tmp_path / name / "activation.npz")[0]["first_ms"] for name in ("before", "after"))
    assert np.isfinite(before).sum() > 0.5 * len(before)
    assert (np.isfinite(before) == np.isfinite(after)).all()
    # fibres are written with seven digits
    assert np.nanmax(np.abs(before - after)) < 1e-3


def test_units_of_the_parameters(tmp_path: Path) -> None:
    """The numbers of openCARP's own Niederer example: 35.71 uA/cm^2, 0.14 / um, conductivities in S/m, dt in us."""
    export_opencarp(load_experiment(Path(__file__).parents[1] / "cases" / "niederer" / "experiment.toml"), tmp_path / "n")
    par = opencarp.parse_par(tmp_path / "n" / "experiment.par")
    assert float(par["stim[0].pulse.strength"]) == pytest.approx(35.7142857)
    assert float(par["imp_region[0].cellSurfVolRatio"]) == pytest.approx(0.14)
    assert [par[f"gregion[0].g_{a}"] for a in ("il", "it", "in", "el", "et", "en")] == ["0.17", "0.019", "0.019", "0.62", "0.24", "0.24"]
    assert (par["dt"], par["tend"], par["bidomain"], par["mass_lumping"], par["parab_solve"]) == ("50.0", "60.0", "0", "0", "1")
    assert par["imp_region[0].im"] == "tenTusscherPanfilov"
    assert par["imp_region[0].im_param"] == "flags=EPI"
    nodes, domain = opencarp.read_vtx(tmp_path / "n" / "stimulus_0.vtx")
    points = opencarp.read(tmp_path / "n" / "mesh").points_mm
    assert domain == "intra"
    assert sorted(nodes.tolist()) == np.flatnonzero((points <= 1.5 + 1e-9).all(axis=1)).tolist()
    first = (tmp_path / "n" / "mesh.pts").read_text().splitlines()
    assert first[0] == "4305"
    assert first[2].split()[0] == "500.000000"
    state = (tmp_path / "n" / "tissue_0.sv").read_text().split()
    assert state[0] == "-85.23"
    assert "openCARP +F experiment.par -simID out" in (tmp_path / "n" / "README.md").read_text()


def test_another_capacitance_is_folded_into_the_surface(tmp_path: Path) -> None:
    changes = [('"140 /mm"', '"100 /mm"'), ('"1 uF/cm^2"', '"1.4 uF/cm^2"')]
    start = experiment(tmp_path, *changes)
    made = export_opencarp(start, tmp_path / "c")
    assert any("the same tissue" in note for note in made.notes)
    back, _ = import_opencarp(tmp_path / "c" / "experiment.par")
    assert back.tissue[0].d_l_mm2_ms == pytest.approx(start.tissue[0].d_l_mm2_ms, rel=1e-12)
    assert back.tissue[0].membrane.capacitance_uF_mm3 == pytest.approx(start.tissue[0].membrane.capacitance_uF_mm3, rel=1e-12)
    assert back.stimuli[0].strength_uA_mm3 == pytest.approx(50.0, rel=1e-12)


def test_scar_regions_and_tissues_of_a_heart_mesh(tmp_path: Path) -> None:
    mesh = box_mesh((4.0, 1.0, 1.0), 0.5)
    x = mesh.centroids_mm[:, 0]
    mesh.with_region(x > 3, "scar").with_region((x > 2) & (x < 3), "border_zone").save(tmp_path / "heart.npz")
    border = """[[tissue]]
region = "border_zone"
ionic = "ten_tusscher_panfilov_2006"
cell = "mid"
intracellular = { longitudinal = 0.08, transverse = 0.01 }
extracellular = { longitudinal = 0.62, transverse = 0.24 }
scale = { G_Na = 0.38 }
[[stimulus]]"""
    start = experiment(
        tmp_path,
        ('box = { size = "4 x 1 x 1 mm", spacing = "0.5 mm", fibre = [1, 1, 0] }', 'file = "heart.npz"'),
        ("[[stimulus]]", border),
        ("[4, 1, 1]", "[2, 1, 1]"),
    )
    export_opencarp(start, tmp_path / "c", binary=True)
    par = opencarp.parse_par(tmp_path / "c" / "experiment.par")
    assert par["num_imp_regions"] == "2"
    assert (par["imp_region[0].ID[0]"], par["imp_region[1].ID[0]"]) == ("1", "2")
    assert par["imp_region[1].im_param"] == "GNa*0.38,flags=MCELL"
    assert [par[f"phys_region[0].ID[{i}]"] for i in range(int(par["phys_region[0].num_IDs"]))] == ["1", "2"]
    back, _ = import_opencarp(tmp_path / "c" / "experiment.par")
    before, after = set_up(start), set_up(back)
    assert (before.conducting == after.conducting).all()
    d = [np.array([t.d_l_mm2_ms for t in e.tissue])[s.tissue][s.conducting] for e, s in ((start, before), (back, after))]
    assert (d[0] == d[1]).all()


def test_what_openCARP_cannot_say_is_refused_or_reported(tmp_path: Path) -> None:
    ionic = 'ionic = "ten_tusscher_panfilov_2006"\ncell = "epi"'
    for changes, words in (
        ([(ionic, 'ionic = "mitchell_schaeffer"'), ("scale = { G_Na = 0.9, G_Kr = 0.7 }\n", "")], "corrected form"),
        ([(ionic, 'ionic = "bueno_orovio"'), ("scale = { G_Na = 0.9, G_Kr = 0.7 }\n", "")], "Bueno-Orovio"),
        ([("G_Na = 0.9", "tau_h = 2.0")], "no counterpart in openCARP's tenTusscherPanfilov"),
        ([('transverse = "0.019 S/m"', "transverse = 0")], "takes none that is 0"),
    ):
        with pytest.raises(InputError, match=words):
            export_opencarp(experiment(tmp_path, *changes), tmp_path / "no")
        assert not (tmp_path / "no").exists()
    cell = Path(__file__).parents[1] / "cases" / "single_cell" / "purkinje.toml"
    with pytest.raises(InputError, match="a single cell has no mesh to export"):
        convert(cell, tmp_path / "no", Console(True))
    loud = experiment(
        tmp_path,
        ('scheme = "reference"', 'correction = "planar"'),
        ('dt = "0.05 ms"\n', ""),
        ("probe_every", "frames = { every = 2 }\nprobe_every"),
    )
    text = "\n".join(export_opencarp(loud, tmp_path / "loud").notes)
    for word in ("solver.scheme", "solver.correction", "dt:", "record.probes", "mesh.box"):
        assert word in text
    assert text in (tmp_path / "loud" / "README.md").read_text().replace("\n- ", "\n")
    assert opencarp.parse_par(tmp_path / "loud" / "experiment.par")["spacedt"] == "2.0"
    with pytest.raises(InputError, match="not empty"):
        export_opencarp(loud, tmp_path / "loud")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("bidomain      = 0", "bidomain      = 1", "monodomain"),
        ("mass_lumping  = 0", "mass_lumping  = 1", "full mass"),
        ("mass_lumping  = 0\n", "", "default is another"),
        ('"tenTusscherPanfilov"', '"Courtemanche"', "no model of vtwin"),
        ("GNa*0.9", "Kbufc*0.9", "no counterpart in vtwin"),
        ("GNa*0.9", "GNa*x", "not a change"),
        ("flags=EPI", "flags=ATRIAL", "is unknown"),
        ("gregion[0].g_in    = 0.019", "gregion[0].g_in    = 0.01", "orthotropic"),
        ("stim[0].crct.type      = 0", "stim[0].crct.type      = 2", "transmembrane"),
        ("stim[0].elec.vtx_file", "stim[0].elec.vtx_fil", "geom_type|beyond its count|no counterpart|p1"),
        ("num_stim               = 2", "num_stim               = 1", "beyond its count"),
        ("tend          = 12.0", "tend          = nan", "not a number"),
        ("phys_region[1].num_IDs = 1", "phys_region[1].num_IDs = 0", "bath"),
        ("trace_node[1] = 80", "trace_node[1] = 81", "outside"),
        ("lats[1].threshold = -40.0", "lats[1].threshold = -20.0", "two upward"),
        ("imp_region[0].ID[0]            = 1", "imp_region[0].ID[0]            = 5", "nothing is said"),
        ("dt            = 50.0", "dt            = 50.0\nretagfile = x", "retagfile"),
        ("dt            = 50.0", "dt            = 50.0\nstimulus[0].strength = 3", "use stim"),
    ],
)
def test_a_parameter_file_beyond_the_subset_is_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    export_opencarp(experiment(tmp_path), tmp_path / "c")
    path = tmp_path / "c" / "experiment.par"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=words) as caught:
        import_opencarp(path)
    assert "\n" not in str(caught.value)


def test_a_par_of_another_hand(tmp_path: Path) -> None:
    """Blocks and spheres, lists of times, percentages, one ID without an index, defaults of openCARP."""
    mesh = box_mesh((2.0, 1.0, 1.0), 0.5)
    opencarp.write(tmp_path / "slab", mesh.points_mm, mesh.tets, mesh.region, mesh.fibre)
    (tmp_path / "x.par").write_text(
        """meshname slab
dt = 20
tend = 50
mass_lumping = 0
num_imp_regions = 1
imp_region[0].im = TT2
imp_region[0].im_param = "GKr-25%, GNa=7.419, flags=ENDO"
num_gregions = 1
gregion[0].num_IDs = 1
gregion[0].ID = 1
gregion[0].g_mult = 0.5
num_stim = 2
stim[0].pulse.strength = 100
stim[0].ptcl.duration = 1
stim[0].ptcl.stimlist = "5,+240,400"
stim[0].elec.p1[0] = 500
stim[0].elec.p1[1] = 1000
stim[0].elec.p1[2] = 1000
stim[1].pulse.strength = 50
stim[1].ptcl.duration = 2
stim[1].elec.geom_type = 1
stim[1].elec.radius = 600
stim[1].elec.p0[0] = 2000
"""
    )
    found, notes = import_opencarp(tmp_path / "x.par")
    tissue = found.tissue[0]
    assert (tissue.cell, tissue.scale) == ("endo", {"G_Kr": 0.75, "G_Na": 0.5})
    assert tissue.intracellular_s_m == (0.087, 0.0095)
    assert found.stimuli[0].start_ms == (5.0, 245.0, 400.0)
    assert found.stimuli[0].box == ((0.0, 0.0, 0.0), (0.5, 1.0, 1.0))
    assert found.stimuli[0].strength_uA_mm3 == pytest.approx(140.0)
    assert found.stimuli[1].sphere == ((2.0, 0.0, 0.0), 0.6)
    assert any("its model's own state" in note for note in notes)
    (tmp_path / "x.toml").write_text(experiment_toml(found, tmp_path))
    back = load_experiment(tmp_path / "x.toml")
    assert replace(back, where=found.where, mesh=found.mesh) == found


@pytest.mark.parametrize("match", MATCHES, ids=lambda m: m.ours)
def test_every_name_of_the_table_is_ours_and_comes_back(match: object) -> None:
    entry = match_of(match.ours, "x", "y")  # type: ignore[attr-defined]
    assert entry.ours in model_names()
    cells = cell_names(entry.ours)
    assert set(entry.flags) <= set(cells)
    defaults = {cell: ionic_model(entry.ours, cell).parameters for cell in cells}
    rng = np.random.default_rng(1)
    for cell in entry.flags or cells[:1]:
        assert set(entry.parameters) <= set(defaults[cell])
        scale = {name: round(float(rng.uniform(0.2, 2.0)), 3) for name in entry.parameters}
        text = im_param(entry, cell, scale, ionic_model(entry.ours, cell, scale).parameters, "x", "y")
        back_cell, back = from_im_param(entry, text, defaults, "x", "y")
        assert back_cell == (cell if entry.flags else None)
        assert back == pytest.approx(scale, rel=1e-12)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12))
def test_trains_hold_every_pulse(steps: list[int]) -> None:
    times = np.cumsum(np.array(steps) * 50.0 + 100.0).tolist()
    rebuilt = [start + k * cycle for start, cycle, count in pulse_trains(times) for k in range(count)]
    assert rebuilt == times


def test_the_command_line_does_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment(tmp_path)
    carp = tmp_path / "carp"
    assert run(["convert", str(tmp_path / "slab.toml"), str(carp)]) == 0
    assert "openCARP +F experiment.par -simID out" in capsys.readouterr().out
    assert run(["convert", str(carp / "experiment.par"), str(tmp_path / "back.toml")]) == 0
    assert load_experiment(tmp_path / "back.toml").duration_ms == 12.0
    assert "Read by vtwin from experiment.par" in (tmp_path / "back.toml").read_text()
    assert run(["convert", str(carp / "experiment.par"), str(tmp_path / "back.toml")]) == 2
    assert run(["convert", str(tmp_path / "slab.toml"), str(tmp_path / "x.par")]) == 2
