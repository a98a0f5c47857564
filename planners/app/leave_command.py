"""`vtwin export`, `view` and `stream`: a finished plan on its way out of the program."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

from planners.app.console import Console
from planners.overlay import export as write_overlay
from planners.overlay import openigtlink
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


def export(out: Path, formats: list[str], console: Console) -> int:
    """Write overlays of a finished plan again."""
    made = load_plan(out)
    files = write_overlay(made, load_mesh(out, made), out / "overlay", formats)
    console.result([str(f) for f in files], [str(f) for f in files])
    return 0


def view(out: Path, console: Console) -> int:
    """Open the report of a finished plan in the browser; where there is none, say which file to open."""
    page = (out / "report.html").resolve()
    if not page.is_file():
        raise InputError(out, "report.html", "not there", "finish `vtwin plan CASE.toml -o OUT` first")
    opened = webbrowser.open(page.as_uri())
    console.result({"page": str(page), "opened": opened}, [f"{'opened' if opened else 'open this file in a browser:'} {page}"])
    return 0


def stream(out: Path, host: str, port: int, remote: bool, console: Console) -> int:
    """Send a finished plan to a listener."""
    made = load_plan(out)
    sent = openigtlink.stream(made, load_mesh(out, made), host, port, remote)
    console.result({"sent": sent, "host": host, "port": port}, [f"sent {sent} messages to {host}:{port} (RAS mm)"])
    return 0
