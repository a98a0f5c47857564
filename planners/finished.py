"""The folder of a finished plan, read back."""

from __future__ import annotations

import json
from pathlib import Path

from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.plan import Circuit, Induction, Plan, Target


def load_plan(out: Path) -> Plan:
    """Read plan.json of a finished run."""
    path = out / "plan.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(out, "plan.json", "not there", "finish `vtwin plan CASE.toml -o OUT` first") from None
    except ValueError:
        raise InputError(path, "file", "not JSON", "run `vtwin plan` again") from None
    value["inductions"] = [Induction(**i) for i in value["inductions"]]
    value["circuits"] = [Circuit(**c) for c in value["circuits"]]
    value["targets"] = [Target(**t) for t in value["targets"]]
    return Plan(**value)


def load_mesh(out: Path, made: Plan) -> HeartMesh:
    """The mesh that a finished plan was made on. Raises InputError if its stage is gone."""
    path = out / "stages" / f"mesh-{made.run['stages']['mesh']}" / "mesh.npz"
    if not path.is_file():
        raise InputError(out, "stages", "the mesh of this plan is not there", "run `vtwin plan` again with the same case and folder")
    return HeartMesh.load(path)
