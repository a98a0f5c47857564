"""Stands in for PBS's qsub and qdel, which no registry has: refuses directives that qsub refuses, and runs a job as pbs_mom does.

`install(folder)` leaves both commands in folder/bin. A job starts in $HOME with PBS's own variables and nothing else of the submitter's
environment (qsub without -V), in a session of its own; it ends at its walltime or by qdel. folder/jobs holds each job's script and pid.
Written from the PBS Professional user's guide (qsub: options, resources, identifiers).
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

NAME = re.compile(r"^[A-Za-z0-9_.+-]{1,230}$")
SELECT = re.compile(r"^select=\d+:ncpus=\d+:mem=\d+(b|kb|mb|gb|tb)$", re.IGNORECASE)
WALLTIME = re.compile(r"^walltime=(\d+):([0-5]\d):([0-5]\d)$")


def install(folder: Path) -> Path:
    """Write the two commands; returns the folder for PATH."""
    places = folder / "bin"
    places.mkdir(parents=True)
    (folder / "jobs").mkdir()
    for name in ("qsub", "qdel"):
        (places / name).write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} {name} {folder} "$@"\n')
        (places / name).chmod(0o755)
    return places


def jobs(folder: Path) -> dict[str, int]:
    """Identifier -> session of every job that still runs."""
    found = {}
    for path in (folder / "jobs").glob("*.pid"):
        pid = int(path.read_text())
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state != "Z":
            found[path.stem] = pid
    return found


def _limits(script: str) -> int:
    """Walltime in seconds; raises ValueError with what qsub would refuse."""
    seconds = 0
    for line in script.splitlines():
        if not line.startswith("#PBS"):
            continue
        option, _, value = line[4:].strip().partition(" ")
        if option == "-l" and (found := WALLTIME.match(value)):
            hours, minutes, rest = map(int, found.groups())
            seconds = 3600 * hours + 60 * minutes + rest
        elif option == "-l" and not SELECT.match(value):
            raise ValueError(f"Illegal resource list: {value}")
        elif option == "-N" and not NAME.match(value):
            raise ValueError(f"illegal -N value: {value}")
        elif option not in ("-l", "-N", "-q", "-A", "-e", "-o"):
            raise ValueError(f"invalid option: {option}")
    return seconds


def _claimed(room: Path, text: str) -> str:
    """Keep a script under the next free identifier, which no other qsub of the same moment gets."""
    for number in itertools.count():
        try:
            with (room / f"{number}.standin.sh").open("x") as file:
                file.write(text)
        except FileExistsError:
            continue
        return f"{number}.standin"
    raise AssertionError("numbers do not end")


def _qsub(folder: Path, script: Path) -> int:
    text = script.read_text()
    try:
        seconds = _limits(text)
    except ValueError as error:
        print(f"qsub: {error}", file=sys.stderr)
        return 2
    identifier = _claimed(folder / "jobs", text)
    kept = folder / "jobs" / f"{identifier}.sh"
    environment = {"HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin", "PBS_JOBID": identifier, "PBS_ENVIRONMENT": "PBS_BATCH"}
    with (folder / "jobs" / f"{identifier}.out").open("wb") as said:
        started = subprocess.Popen(
            ["timeout", str(seconds or 86400), "/bin/bash", str(kept)],
            env=environment,
            cwd=environment["HOME"],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    kept.with_suffix(".pid").write_text(str(started.pid))
    print(identifier)
    return 0


def _qdel(folder: Path, identifiers: list[str]) -> int:
    running = jobs(folder)
    for identifier in identifiers:
        if identifier not in running:
            print(f"qdel: Unknown Job Id {identifier}", file=sys.stderr)
            return 170
        os.killpg(running[identifier], signal.SIGTERM)
    return 0


if __name__ == "__main__":
    command, room, *words = sys.argv[1:]
    sys.exit(_qsub(Path(room), Path(words[-1])) if command == "qsub" else _qdel(Path(room), words))
