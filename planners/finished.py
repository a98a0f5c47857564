"""The folder of a finished plan, read back."""

from __future__ import annotations

import json
from pathlib import Path

from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.plan import Circuit, Induction, Plan, Target


def load_plan(out: Path) -> Plan:
    """Read plan.json of a finished run. Raises InputError where there is none, or none that this version of vtwin wrote."""
    path = out / "plan.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        value["inductions"] = [Induction(**i) for i in value["inductions"]]
        value["circuits"] = [Circuit(**c) for c in value["circuits"]]
        value["targets"] = [Target(**t) for t in value["targets"]]
        return Plan(**value)
    except FileNotFoundError:
        raise InputError(out, "plan.json", "not there", "finish `vtwin plan CASE.toml -o OUT` first") from None
    except ValueError:
        raise InputError(path, "file", "not JSON", "run `vtwin plan` again") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(path, "file", f"is not a plan of this version ({error})", "run `vtwin plan` again, into a new folder") from None


def load_mesh(out: Path, made: Plan) -> HeartMesh:
    """The mesh that a finished plan was made on. Raises InputError if its stage is gone or damaged."""
    path = out / "stages" / f"mesh-{made.run.get('stages', {}).get('mesh')}" / "mesh.npz"
    if not path.is_file():
        raise InputError(out, "stages", "the mesh of this plan is not there", "run `vtwin plan` again with the same case and folder")
    return HeartMesh.load(path)
