"""`vtwin export`, `view` and `stream`: a finished plan on its way out of the program."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from planners.app.console import Console
from planners.finished import load_mesh, load_plan
from planners.overlay import export as write_overlay
from planners.overlay import openigtlink
from twin.errors import InputError


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
