"""Nouns and their files: whole or absent, damaged ones named or made anew, and what cannot be refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from meshing.box import box_mesh
from planners.finished import load_mesh, load_plan
from twin.atomic import Damaged, read_npz, replaced, write_bytes, write_json, write_npz
from twin.errors import InputError
from twin.plan import Plan
from twin.run import content_hash
from twin.stages import Stages
from twin.study import MappingStudy


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "below" / "a.txt"
    write_bytes(path, b"first")

    def cut_off():
        with replaced(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        cut_off()
    assert path.read_bytes() == b"first"
    with replaced(path, path.suffix) as temporary:
        assert temporary.suffix == ".txt"
        with replaced(path) as other:
            assert other != temporary, "two writers of one process have names of their own"
            other.write_bytes(b"second")
        temporary.write_bytes(b"third")
    assert path.read_bytes() == b"third"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:60] + b"\xff" * 40 + data[100:]]
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "x.npz"
    write_npz(path, {"x": np.random.default_rng(0).normal(size=100)}, {"n": 1})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Damaged, match="delete it") as caught:
        read_npz(path)
    assert isinstance(caught.value, InputError)
    assert str(path) in str(caught.value)


def test_a_damaged_stage_is_made_anew(tmp_path):
    made, said = [], []

    def run():
        def compute(folder):
            assert not list(folder.glob("*.npz")), "nothing of the damaged one is left"
            made.append(1)
            return np.arange(3.0)

        stages = Stages(tmp_path, said.append)
        return stages.run(
            "s",
            "k",
            compute,
            lambda x, folder: write_npz(folder / "x.npz", {"x": x}),
            lambda folder: read_npz(folder / "x.npz")[0]["x"],
            "S",
        )

    assert run().tolist() == run().tolist() == [0.0, 1.0, 2.0]
    assert len(made) == 1
    (tmp_path / "s-k" / "x.npz").write_bytes(b"PK")
    assert run().tolist() == [0.0, 1.0, 2.0]
    assert len(made) == 2
    assert any("made anew" in line for line in said)


def test_what_is_not_there_has_no_hash(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        content_hash(tmp_path / "gone.csv")
    assert caught.value.filename == str(tmp_path / "gone.csv")
    (tmp_path / "empty").mkdir()
    assert content_hash(tmp_path / "empty") == content_hash(tmp_path / "empty")


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "not JSON"), ("[]", "of this version"), ("{}", "of this version"), ('{"inductions": [{"colour": 1}]}', "of this version")],
)
def test_a_plan_that_is_none_is_one_line(tmp_path, text, says):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError, match=says):
        load_plan(tmp_path)


def test_a_plan_without_its_mesh_is_one_line(tmp_path):
    write_json(tmp_path / "plan.json", Plan({}, {}, {}, [], [], [], [], {}, [], {}).as_dict())
    made = load_plan(tmp_path)
    assert json.loads((tmp_path / "plan.json").read_text())["targets"] == []
    with pytest.raises(InputError, match="is not there"):
        load_mesh(tmp_path, made)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: {"fibre": m.fibre[:, :2]}, "one value per tetrahedron"),
        (lambda m: {"sheet": np.full_like(m.sheet, np.nan)}, "not finite"),
        (lambda m: {"region": m.region[:-1]}, "one value per tetrahedron"),
        (lambda m: {"tets": m.tets[:, :3]}, "shapes"),
        (lambda m: {"tets": m.tets[:, [1, 0, 2, 3]]}, "inverted"),
        (lambda m: {"surfaces": {"epi": np.array([[0, 1, m.n_points]], np.int32)}}, "surface epi"),
        (lambda m: {"coordinates": {"apicobasal": np.zeros(3)}}, "coordinate apicobasal"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(change, says):
    mesh = box_mesh((4.0, 4.0, 4.0), 2.0)
    mesh.check()
    with pytest.raises(InputError, match=says):
        replace(mesh, **change(mesh)).check()


def test_a_map_has_all_its_columns_or_none():
    points, values = np.zeros((3, 3)), np.zeros(3)
    study = MappingStudy("m", "a system", points, values, values, values, np.arange(3))
    assert np.isnan(study.reference_ms).all()
    assert study.recordings.read(2) is None
    with pytest.raises(InputError, match="window_ms: has 2 entries for 3 points"):
        replace(study, window_ms=np.zeros((2, 2)))
