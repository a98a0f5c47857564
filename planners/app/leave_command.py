"""`vtwin export`, `view` and `stream`: a finished plan on its way out of the program."""

from __future__ import annotations

import time
import webbrowser
from collections.abc import Callable
from pathlib import Path

from planners.app.console import Console
from planners.finished import load_mesh, load_plan
from planners.overlay import export as write_overlay
from planners.overlay import openigtlink
from twin.errors import InputError

PERIOD_S = 0.5
"""Between two looks for a new update."""


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


def stream(
    out: Path,
    host: str,
    port: int,
    remote: bool,
    console: Console,
    follow: bool = False,
    until: Callable[[], bool] = lambda: False,
) -> int:
    """Send a finished plan to a listener; with `follow`, the targets of every update of `vtwin guide` too, until interrupted."""
    from planners.guidance.records import updates

    made = load_plan(out)
    with openigtlink.connected(host, port, remote) as link:
        # the newest update is what is left of the plan
        known = updates(out)
        link.send(load_plan(known[-1]) if known else made, load_mesh(out, made))
        while follow and not until():
            for folder in updates(out)[len(known) :]:
                link.send(load_plan(folder))
                console.progress(f"sent the targets of update {folder.name}")
                known = [*known, folder]
            time.sleep(PERIOD_S)
    value = {"sent": link.sent, "host": host, "port": port}
    console.result(value, [f"sent {link.sent} messages to {host}:{port} (RAS mm)"])
    return 0
