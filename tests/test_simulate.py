"""The experiment file, its meshes, and what a run leaves behind."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from meshing.box import box_mesh
from solvers.experiment import load_experiment
from solvers.monodomain import excitability
from solvers.monodomain.excitability import Excitable, scaled
from solvers.scene import set_up
from solvers.sim_monodomain import _decided
from solvers.simulate import load_mesh, run_experiment
from twin.atomic import read_npz
from twin.errors import InputError, RunFailed
from twin.io import opencarp

SLAB = """
[mesh]
box = { size = "6 x 1 x 1 mm", spacing = "0.5 mm", fibre = [1, 0, 0] }

[[tissue]]
region = "all"
ionic = "ten_tusscher_panfilov_2006"
cell = "epi"
intracellular = { longitudinal = "0.17 S/m", transverse = "0.019 S/m" }
extracellular = { longitudinal = "0.62 S/m", transverse = "0.24 S/m" }
surface_to_volume = "140 /mm"
capacitance = "1 uF/cm^2"
scale = { G_Na = 1.0 }

[[stimulus]]
box = { low = [0, 0, 0], high = [1.5, 1.5, 1.5] }
strength = "50 uA/mm^3"
duration = "2 ms"
start = "0 ms"

[solver]
method = "monodomain"
dt = "0.05 ms"
duration = "30 ms"
correction = "none"

[record]
activation = { threshold = "-40 mV" }
probes = [[0, 0, 0], [6, 1, 1]]
probe_every = "0.5 ms"

[expect]
activation_ms = [{ at = [6, 1, 1], value = 11.0, within = 3.0 }]
"""


BOX = 'box = { size = "6 x 1 x 1 mm", spacing = "0.5 mm", fibre = [1, 0, 0] }'


def write(folder: Path, *changes: tuple[str, str], text: str = SLAB) -> Path:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "experiment.toml"
    path.write_text(text)
    return path


def test_units_arrive_as_promised(tmp_path):
    e = load_experiment(write(tmp_path))
    assert e.tissue[0].d_l_mm2_ms == pytest.approx(0.133418 / 1.4, rel=1e-5)
    assert e.tissue[0].d_t_mm2_ms == pytest.approx(0.017606 / 1.4, rel=1e-4)
    assert e.tissue[0].membrane.capacitance_uF_mm3 == pytest.approx(1.4)
    assert e.mesh.size_mm == (6.0, 1.0, 1.0)
    other = write(
        tmp_path, ('"0.17 S/m"', '"1.7 mS/cm"'), ('"50 uA/mm^3"', '"50000 uA/cm^3"'), ('"140 /mm"', '"1400 /cm"'), ('"30 ms"', '"0.03 s"')
    )
    f = load_experiment(other)
    assert f.tissue[0].d_l_mm2_ms == pytest.approx(e.tissue[0].d_l_mm2_ms)
    assert f.stimuli[0].strength_uA_mm3 == pytest.approx(50.0)
    assert f.duration_ms == pytest.approx(30.0)


def test_trains_become_pulse_times(tmp_path):
    e = load_experiment(write(tmp_path, ('start = "0 ms"', 'start = 5\ncycle = "600 ms"\ncount = 3\nextra = ["330 ms", 280]')))
    assert e.stimuli[0].start_ms == (5.0, 605.0, 1205.0, 1535.0, 1815.0)


@pytest.mark.parametrize(
    ("old", "new", "field", "says"),
    [
        ("method =", "metod =", "solver.metod", "did you mean 'method'"),
        ("[record]", "[recrod]", "recrod", "did you mean 'record'"),
        ('"monodomain"', '"monodomian"', "solver.method", "did you mean 'monodomain'"),
        ('"0.17 S/m"', '"-0.17 S/m"', "tissue[0].intracellular.longitudinal", "negative"),
        ('"0.17 S/m"', '"0.17 mm"', "tissue[0].intracellular.longitudinal", "cannot be read as S/m"),
        (', transverse = "0.24 S/m"', "", "tissue[0].extracellular.transverse", "is missing"),
        ('"140 /mm"', '"0 /mm"', "tissue[0].surface_to_volume", "not positive"),
        ("{ G_Na = 1.0 }", "{ G_Na = -1.0 }", "tissue[0].scale.G_Na", "negative"),
        ('"6 x 1 x 1 mm"', '"6 x 1 mm"', "mesh.box.size", "not three numbers"),
        ('"6 x 1 x 1 mm"', '"6 x 0 x 1 mm"', "mesh.box.size", "not positive"),
        ("fibre = [1, 0, 0]", "fibre = [0, 0, 0]", "mesh.box.fibre", "no direction"),
        ("box = { size", 'file = "x.npz"\nbox = { size', "mesh", "exactly one"),
        ("high = [1.5, 1.5, 1.5]", "high = [-1, 1, 1]", "stimulus[0].box.high", "below low"),
        ('start = "0 ms"', "count = 0", "stimulus[0].count", "not a count"),
        ('start = "0 ms"', "count = 2", "stimulus[0].cycle", "is missing"),
        ('start = "0 ms"', "nodes = [1]", "stimulus[0]", "exactly one"),
        ('duration = "30 ms"', 'duration = "nan ms"', "solver.duration", "not finite"),
        ('dt = "0.05 ms"', "dt = true", "solver.dt", "not a quantity"),
        ("probes = [[0, 0, 0],", 'probes = [[0, 0, "x"],', "record.probes[0]", "cannot be read"),
        ("value = 11.0,", "", "expect.activation_ms[0].value", "is missing"),
        ('"-40 mV" }', '"-40 mV", recovery = "-30 mV" }', "record.activation.recovery", "above the threshold"),
        ("[solver]", "[solver", "file", "not TOML"),
    ],
)
def test_bad_files_are_one_line(tmp_path, old, new, field, says):
    with pytest.raises(InputError) as caught:
        load_experiment(write(tmp_path, (old, new)))
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.field == field
    assert says in line
    assert "experiment.toml" in line


@pytest.mark.parametrize(
    ("old", "new", "field", "says"),
    [
        ('region = "all"', 'region = "scra"', "tissue[0].region", "did you mean 'scar'"),
        ('region = "all"', "region = 7", "tissue[0].region", "holds no tetrahedra"),
        ("low = [0, 0, 0], high = [1.5, 1.5, 1.5]", "low = [9, 0, 0], high = [9.5, 1, 1]", "stimulus[0]", "no node"),
        ("box = { low = [0, 0, 0], high = [1.5, 1.5, 1.5] }", "nodes = [100000]", "stimulus[0].nodes", "is not a node"),
        ('dt = "0.05 ms"', 'dt = "1 ms"', "solver.dt", "stability limit"),
        ('"ten_tusscher_panfilov_2006"', '"ten_tuscher_panfilov_2006"', None, "ten_tusscher_panfilov_2006"),
        ('cell = "epi"', 'cell = "epee"', None, "epi"),
        ("{ G_Na = 1.0 }", "{ G_Nah = 1.0 }", None, "G_Na"),
        ('box = { size = "6 x 1 x 1 mm", spacing = "0.5 mm", fibre = [1, 0, 0] }', 'file = "none.vtu"', "file", "does not exist"),
        ('box = { size = "6 x 1 x 1 mm", spacing = "0.5 mm", fibre = [1, 0, 0] }', 'file = "none"', "mesh.file", "openCARP"),
    ],
)
def test_what_only_the_mesh_can_tell_is_one_line_too(tmp_path, old, new, field, says):
    experiment = load_experiment(write(tmp_path, (old, new)))
    with pytest.raises(InputError) as caught:
        run_experiment(experiment, tmp_path / "out")
    line = str(caught.value)
    assert "\n" not in line
    assert field is None or caught.value.field == field
    assert says in line
    assert not (tmp_path / "out").exists()


def test_a_run_leaves_what_the_interface_promises(tmp_path):
    told = []
    summary = run_experiment(load_experiment(write(tmp_path)), tmp_path / "out", lambda what, fraction: told.append((what, fraction)))
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert summary["status"] == "done"
    assert summary["expect_met"] is True
    assert summary["solver"]["captured"] == [True]
    arrays, _ = read_npz(tmp_path / "out" / "activation.npz")
    assert set(arrays) == {"points_mm", "first_ms", "node", "activation_ms", "recovery_ms"}
    n = len(arrays["points_mm"])
    assert n == 13 * 3 * 3
    assert np.isfinite(arrays["first_ms"]).all()
    assert (np.diff(arrays["activation_ms"]) >= 0).all()
    rows = list(csv.reader((tmp_path / "out" / "probes.csv").open()))
    assert rows[0] == ["time_ms", "probe_0", "probe_1"]
    assert len(rows) == 62
    assert float(rows[1][1]) == pytest.approx(-85.23, abs=0.01)
    assert max(float(r[2]) for r in rows[1:]) > 10
    assert told[-1] == ("monodomain", 1.0)


def test_a_missed_expectation_is_said(tmp_path):
    summary = run_experiment(load_experiment(write(tmp_path, ("value = 11.0", "value = 25.0"))), tmp_path / "out")
    assert summary["expect_met"] is False
    assert summary["expect"][0]["found"] < 20


def test_weak_stimulus_is_no_capture(tmp_path):
    path = write(tmp_path, ('"50 uA/mm^3"', '"2 uA/mm^3"'), ("value = 11.0", "value = 25.0"))
    summary = run_experiment(load_experiment(path), tmp_path / "out")
    assert summary["status"] == "no_capture"
    assert summary["activated_nodes"] == 0
    assert summary["expect"][0]["found"] is None


def test_divergence_fails_with_advice_after_writing(tmp_path):
    strong = write(tmp_path, ('"50 uA/mm^3"', '"1e6 uA/mm^3"'))
    with pytest.raises(RunFailed, match="diverged at node"):
        run_experiment(load_experiment(strong), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["status"] == "diverged"


def test_eikonal_experiment_arrives_at_distance_over_speed(tmp_path):
    changes = [
        ('method = "monodomain"', 'method = "eikonal"'),
        ('probes = [[0, 0, 0], [6, 1, 1]]\nprobe_every = "0.5 ms"\n', ""),
        ("scale = { G_Na = 1.0 }", 'speed = { longitudinal = "0.6 m/s", transverse = "22 cm/s" }'),
        ("value = 11.0, within = 3.0", "value = 7.5, within = 0.01"),
    ]
    summary = run_experiment(load_experiment(write(tmp_path, *changes)), tmp_path / "out")
    assert summary["expect_met"] is True
    assert summary["status"] == "done"
    assert not (tmp_path / "out" / "probes.csv").exists()
    train = load_experiment(write(tmp_path, *changes, ('start = "0 ms"', "cycle = 300\ncount = 2")))
    with pytest.raises(InputError, match="not a train"):
        run_experiment(train, tmp_path / "out")


def test_planar_correction_gives_a_coarse_box_the_speed_of_the_continuum(tmp_path):
    """0.6126 m/s along the fibres, on 0.5 mm cubes that are 14 % too slow without."""
    changes = [
        ("6 x 1 x 1 mm", "14 x 1 x 1 mm"),
        ("[[0, 0, 0], [6, 1, 1]]", "[[0, 0, 0], [14, 1, 1]]"),
        ("high = [1.5", "high = [1.0"),
        ("[{ at = [6, 1, 1], value = 11.0, within = 3.0 }]", "[{ at = [14, 1, 1], value = 0, within = 0 }]"),
        ('correction = "none"', 'correction = "planar"'),
    ]
    summary = run_experiment(load_experiment(write(tmp_path, *changes)), tmp_path / "out")
    (correction,) = summary["solver"]["correction"]["tissues"]
    assert correction["error_along_before"][1] < -0.1
    assert correction["kappa_l"][1] > 1.1
    assert np.abs(correction["error_along"]).max() < 0.05
    assert np.abs(correction["error_across"]).max() < 0.1
    assert summary["solver"]["theta"] > 1.0
    arrays, _ = read_npz(tmp_path / "out" / "activation.npz")
    x, first = arrays["points_mm"][:, 0], arrays["first_ms"]
    part = (x > 4) & (x < 11)
    assert 1 / np.polyfit(x[part], first[part], 1)[0] == pytest.approx(0.6126, rel=0.04)
    with pytest.raises(InputError, match="explicit monodomain"):
        load_experiment(write(tmp_path, ('correction = "none"', 'correction = "planar"\nscheme = "reference"')))


def test_a_slab_at_half_a_millimetre_is_on_time_with_nothing_said(tmp_path):
    """The slab of Niederer et al. 2011 (far corner after 42 to 43 ms when converged), cubes of 0.5 mm, the interface's example."""
    changes = [
        ("6 x 1 x 1 mm", "20 x 7 x 3 mm"),
        ("[6, 1, 1]]", "[20, 7, 3]]"),
        ('dt = "0.05 ms"\nduration = "30 ms"\ncorrection = "none"', 'dt = "0.02 ms"\nduration = "60 ms"'),
        ("at = [6, 1, 1], value = 11.0, within = 3.0", "at = [20, 7, 3], value = 42.0, within = 2.0"),
    ]
    summary = run_experiment(load_experiment(write(tmp_path, *changes)), tmp_path / "out")
    assert summary["expect_met"] is True


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ((('correction = "none"', ""),), ""),
        ((('correction = "none"', 'scheme = "svi"'),), "explicit"),
        ((('correction = "none"', "theta = 1.0"),), "none was asked for"),
        ((('correction = "none"', ""), ("0.5 mm", "0.25 mm")), "fine enough"),
    ],
)
def test_a_coarse_mesh_is_corrected_where_the_file_says_nothing(tmp_path, changes, why):
    """Planar on a coarse lattice; none, and why, on a fine one, for other schemes and where a mass blend is given."""
    experiment = load_experiment(write(tmp_path, *changes))
    decided, said = _decided(experiment, set_up(experiment))
    assert decided.correction == ("none" if why else "planar")
    assert why in said


def test_a_correction_for_premature_waves_keeps_the_speed_and_says_which_cell_it_takes(tmp_path, monkeypatch):
    """In a box two cubes thick, with a mass blend whose plane waves are less exact than that of `planar`."""
    monkeypatch.setattr(excitability, "excitable", lambda lattice, speeds, model, theta: Excitable(scaled(model, 1.7), 1.7, 0.6, 1.0))
    changes = [
        ("6 x 1 x 1 mm", "14 x 1 x 1 mm"),
        ("[[0, 0, 0], [6, 1, 1]]", "[[0, 0, 0], [14, 1, 1]]"),
        ("high = [1.5", "high = [1.0"),
        ("[{ at = [6, 1, 1], value = 11.0, within = 3.0 }]", "[{ at = [14, 1, 1], value = 0, within = 0 }]"),
        ('correction = "none"', 'correction = "premature"'),
    ]
    summary = run_experiment(load_experiment(write(tmp_path, *changes)), tmp_path / "out")
    assert summary["solver"]["correction"]["sodium_gain"] == [1.7]
    assert summary["solver"]["theta"] == excitability.THETA
    arrays, _ = read_npz(tmp_path / "out" / "activation.npz")
    x, first = arrays["points_mm"][:, 0], arrays["first_ms"]
    part = (x > 4) & (x < 11)
    assert 1 / np.polyfit(x[part], first[part], 1)[0] == pytest.approx(0.6126, rel=0.08)


def test_tissue_asked_for_by_its_speed_runs_at_it(tmp_path):
    conductivities = ['intracellular = { longitudinal = "0.17 S/m", transverse = "0.019 S/m" }']
    conductivities += [line for line in SLAB.splitlines() if line.startswith("extracellular")]
    changes = [
        ("6 x 1 x 1 mm", "14 x 1 x 1 mm"),
        ("[[0, 0, 0], [6, 1, 1]]", "[[0, 0, 0], [14, 1, 1]]"),
        ("high = [1.5", "high = [1.0"),
        ("[{ at = [6, 1, 1], value = 11.0, within = 3.0 }]", "[{ at = [14, 1, 1], value = 0, within = 0 }]"),
        ('correction = "none"', 'correction = "planar"'),
    ]
    speed = 'speed = { longitudinal = "0.5 m/s", transverse = "0.2 m/s" }'
    run_experiment(load_experiment(write(tmp_path, *changes, (conductivities[0], speed), (conductivities[1], ""))), tmp_path / "out")
    arrays, _ = read_npz(tmp_path / "out" / "activation.npz")
    x, first = arrays["points_mm"][:, 0], arrays["first_ms"]
    part = (x > 4) & (x < 11)
    assert 1 / np.polyfit(x[part], first[part], 1)[0] == pytest.approx(0.5, rel=0.05)
    with pytest.raises(InputError, match="say the same thing"):
        load_experiment(write(tmp_path, (conductivities[0], speed)))


def carp_text(folder: Path, mesh) -> Path:
    prefix = folder / "slab"
    tags = (mesh.centroids_mm[:, 0] > 3).astype(int) + 1
    points = "\n".join(" ".join(f"{c * 1000:.3f}" for c in p) for p in mesh.points_mm)
    (folder / "slab.pts").write_text(f"{len(mesh.points_mm)}\n{points}\n")
    (folder / "slab.elem").write_text(
        f"{len(tags)}\n" + "\n".join(f"Tt {a} {b} {c} {d} {t}" for (a, b, c, d), t in zip(mesh.tets, tags)) + "\n"
    )
    (folder / "slab.lon").write_text("1\n" + "\n".join(" ".join(f"{c:.6f}" for c in f) for f in mesh.fibre) + "\n")
    return prefix


def carp_binary(prefix: Path, mesh) -> None:
    tags = (mesh.centroids_mm[:, 0] > 3).astype(np.int32) + 1
    elements = np.column_stack([np.zeros(len(tags), np.int32), mesh.tets, tags]).astype("<i4")
    bodies = {
        ".bpts": (f"{len(mesh.points_mm)} 0 666", (mesh.points_mm * 1000).astype("<f4")),
        ".belem": (f"{len(tags)} 0 666", elements),
        ".blon": (f"1 {len(tags)} 0 666", mesh.fibre.astype("<f4")),
    }
    for suffix, (header, body) in bodies.items():
        prefix.with_name(prefix.name + suffix).write_bytes(header.encode().ljust(1024, b"\0") + body.tobytes())


def test_opencarp_text_and_binary_give_the_same_mesh(tmp_path):
    mesh = box_mesh((6.0, 1.0, 1.0), 0.5, (1, 1, 0), "alternating")
    text = opencarp.read(carp_text(tmp_path, mesh))
    carp_binary(tmp_path / "binary", mesh)
    binary = opencarp.read(tmp_path / "binary")
    for got in (text, binary):
        assert np.allclose(got.points_mm, mesh.points_mm, atol=1e-6)
        assert np.array_equal(got.tets, mesh.tets)
        assert np.allclose(got.fibre, mesh.fibre, atol=1e-6)
        assert set(got.tag.tolist()) == {1, 2}


@pytest.mark.parametrize(
    ("suffix", "spoil", "says"),
    [
        (".bpts", lambda b: b[:-5], "bytes where"),
        (".bpts", lambda b: b"\0" * 1024 + b[1024:], "header"),
        (".bpts", lambda b: b"99999999999999 0 666".ljust(1024, b"\0") + b[1024:], "bytes where"),
        (".belem", lambda b: b[:1024] + np.int32(3).tobytes() + b[1028:], "has no kind"),
        (".belem", lambda b: b[:1028] + np.int32(2**30).tobytes() + b[1032:], "outside 0.."),
        (".belem", lambda b: b"", "empty"),
        (".blon", lambda b: b"3" + b[1:], "1 (fibres) or 2"),
        (".blon", lambda b: b[:1024] + np.float32(np.nan).tobytes() + b[1028:], "not finite"),
        (".pts", lambda b: b[:-60], "first line says"),
        (".pts", lambda b: b.replace(b"500.000", b"5o0.000"), "not a table"),
        (".elem", lambda b: b.replace(b"Tt", b"Hx", 1), "is none of"),
        (".elem", lambda b: b.replace(b"Tt 0", b"Tt 99999999999", 1), "outside 0.."),
        (".lon", lambda b: b.split(b"\n", 1)[0], "holds no rows"),
    ],
)
def test_spoiled_opencarp_files_are_one_line(tmp_path, suffix, spoil, says):
    mesh = box_mesh((1.0, 1.0, 1.0), 0.5)
    prefix = carp_text(tmp_path, mesh)
    if suffix.startswith(".b"):
        prefix = tmp_path / "binary"
        carp_binary(prefix, mesh)
    path = prefix.with_name(prefix.name + suffix)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        opencarp.read(prefix)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_opencarp_regions_get_their_own_tissue(tmp_path):
    carp_text(tmp_path, box_mesh((6.0, 1.0, 1.0), 0.5))
    second = '\n[[tissue]]\nregion = 2\nionic = "ten_tusscher_panfilov_2006"\ncell = "epi"\n'
    second += "intracellular = { longitudinal = 0, transverse = 0 }\nextracellular = { longitudinal = 0.6, transverse = 0.2 }\n"
    path = write(
        tmp_path,
        ('box = { size = "6 x 1 x 1 mm", spacing = "0.5 mm", fibre = [1, 0, 0] }', 'file = "slab"'),
        ("\n[[stimulus]]", second + "\n[[stimulus]]"),
    )
    summary = run_experiment(load_experiment(path), tmp_path / "out")
    first = read_npz(tmp_path / "out" / "activation.npz")[0]["first_ms"]
    x = load_mesh(tmp_path / "slab").points_mm[:, 0]
    assert np.isfinite(first[x <= 3]).all()
    assert np.isnan(first[x > 3.01]).all()
    assert summary["expect"][0]["distance_mm"] == pytest.approx(3.0)


def test_a_heart_mesh_file_runs_like_the_box_it_was_saved_from(tmp_path):
    mesh = box_mesh((6.0, 1.0, 1.0), 0.5)
    mesh.save(tmp_path / "heart.npz")
    summary = run_experiment(load_experiment(write(tmp_path)), tmp_path / "box")
    change = ('box = { size = "6 x 1 x 1 mm", spacing = "0.5 mm", fibre = [1, 0, 0] }', 'file = "heart.npz"')
    again = run_experiment(load_experiment(write(tmp_path, change)), tmp_path / "file")
    assert again == summary
    assert (tmp_path / "file" / "activation.npz").read_bytes() == (tmp_path / "box" / "activation.npz").read_bytes()


def test_vtu_with_region_and_fibre_is_read(tmp_path):
    import meshio

    mesh = box_mesh((2.0, 1.0, 1.0), 0.5)
    data = {"region": [mesh.region], "fibre": [mesh.fibre]}
    meshio.Mesh(mesh.points_mm, [("tetra", mesh.tets)], cell_data=data).write(tmp_path / "heart.vtu")
    read = load_mesh(tmp_path / "heart.vtu")
    assert np.array_equal(read.tets, mesh.tets)
    assert np.allclose(read.fibre, mesh.fibre)
    (tmp_path / "bad.vtu").write_text("<VTKFile>")
    with pytest.raises(InputError, match="is not XML"):
        load_mesh(tmp_path / "bad.vtu")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_damaged_heart_mesh_is_one_line(tmp_path, part):
    box_mesh((2.0, 1.0, 1.0), 0.5).save(tmp_path / "heart.npz")
    data = (tmp_path / "heart.npz").read_bytes()
    (tmp_path / "heart.npz").write_bytes(data[: int(part * len(data))])
    with pytest.raises(InputError, match="is not a mesh saved by vtwin"):
        load_mesh(tmp_path / "heart.npz")


@pytest.mark.real
@pytest.mark.skipif("VTWIN_DATA" not in os.environ, reason="needs $VTWIN_DATA")
def test_the_published_infarct_slab_is_read():
    mesh = load_mesh(Path(os.environ["VTWIN_DATA"]) / "pie_infarct_slab" / "mesh_1000um" / "mesh_1000um")
    assert (len(mesh.points_mm), len(mesh.tets)) == (16250, 48794)
    assert np.bincount(mesh.region).tolist() == [0, 39436, 9358]
    p = mesh.points_mm[mesh.tets]
    volume = np.einsum("ij,ij->i", p[:, 1] - p[:, 0], np.cross(p[:, 2] - p[:, 0], p[:, 3] - p[:, 0])) / 6
    assert volume[mesh.region == 1].sum() == pytest.approx(4974, rel=1e-3)
    assert np.allclose(mesh.fibre, [0, 1, 0])
