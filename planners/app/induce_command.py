"""`vtwin induce`: programmed stimulation alone, of a case or of the twin that a finished plan or calibration left."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from planners.app.clinical import clinical_twin
from planners.app.console import Console
from planners.app.dry_run import STAGES, about, dry_run
from planners.app.identity import hidden
from planners.app.output import RECORD, check, claim, finish, read_record
from planners.app.pipeline import Line
from planners.app.plan_command import begin, check_pacing, identity_of, line_of
from planners.calibration import Calibration
from planners.pacing.induce import PacingSettings
from solvers.eikonal.restitution import scaled
from twin.atomic import write_json
from twin.case import load_case
from twin.errors import InputError
from twin.plan import PlanRequest
from twin.run import RunRecord
from twin.stages import take_over

MADE_BY = ("plan", "calibrate")
"""Commands whose folders hold a calibrated twin."""


def induce(source: Path, out: Path, console: Console, *, seed: int = 0, fresh: bool = False, dry: bool = False) -> int:
    """Stages up to induction of a case file, or of the twin in a folder of `vtwin plan` or `calibrate`; writes inductions.json."""
    if source.is_dir():
        return _of_folder(source, out, console, seed, fresh, dry)
    case = hidden(load_case(source))
    check_pacing(case)
    identity = identity_of("induce", case, seed)
    if dry:
        check(out, identity, fresh)
        with tempfile.TemporaryDirectory() as folder:
            return dry_run(case, begin(case, Path(folder), console), console, last="induction")
    if claim(out, identity, fresh):
        console.progress(f"{out} holds this run: finished stages are reused")
    patient = begin(case, out / "stages", console)
    line = line_of(out, console, seed)
    informed = clinical_twin(case, patient, console.progress)
    case = informed.case(case)
    calibration = line.calibration(line.mesh(patient, case), patient, case)
    return _pace(line, calibration, case.request, informed.settings(), identity, out)


def _of_folder(source: Path, out: Path, console: Console, seed: int, fresh: bool, dry: bool) -> int:
    """Pace the twin that a finished run left: as its plan asked, or with the defaults where it was calibrated only."""
    if not (source / RECORD).is_file():
        raise InputError(source, "folder", "holds no run of vtwin", "name a case file, or a folder of vtwin plan or calibrate")
    record = read_record(source / RECORD)
    made_by = record.get("command")
    if record.get("status") != "done" or made_by not in MADE_BY:
        problem = "is not finished" if made_by in MADE_BY or made_by is None else f"is of vtwin {made_by}"
        raise InputError(source, RECORD, f"the run {problem}", "name a case file, or a finished folder of vtwin plan or calibrate")
    keys, settings = dict(record["stages"]), record["settings"]
    folder = source / "stages" / f"tissue-{keys['tissue']}"
    if not (folder / "complete.json").is_file():
        raise InputError(
            source, "stages", "the tissue of this run is not there", f"run `vtwin {made_by}` again with the same case and folder"
        )
    request = PlanRequest.of(settings.get("request", {}))
    factors = settings.get("apd_factors")
    identity = {"command": "induce", "seed": seed, "inputs": record["inputs"], "settings": {"tissue": keys["tissue"], **settings}}
    calibration = Calibration.load(folder)
    if dry:
        check(out, identity, fresh)
        nodes = calibration.twin.mesh.n_points
        seconds = nodes * STAGES["induction"]
        lines = [f"the twin is there, {nodes:,d} nodes", f"would run: induction ({request.protocol})", about(seconds)]
        console.result({"nodes": nodes, "seconds": round(seconds), "stages": [f"induction ({request.protocol})"]}, lines)
        return 0
    if claim(out, identity, fresh):
        console.progress(f"{out} holds this run: finished stages are reused")
    line = line_of(out, console, seed)
    line.stages.keys.update({name: keys[name] for name in ("mesh", "tissue")})
    if "induction" in keys:
        # what it has paced is not paced again
        take_over(source / "stages" / f"induction-{keys['induction']}", out / "stages")
    pacing = PacingSettings() if factors is None else PacingSettings(tables=scaled(factors))
    return _pace(line, calibration, request, pacing, identity, out)


def _pace(
    line: Line, calibration: Calibration, request: PlanRequest, settings: PacingSettings, identity: Mapping[str, Any], out: Path
) -> int:
    """Programmed stimulation, its files and what it found."""
    run, found = line.induction(calibration, request, settings)
    value = {"inductions": [asdict(i) for i in run.inductions], "circuits": [asdict(c) for c in found.circuits]}
    write_json(out / "inductions.json", value)
    record = RunRecord("induce", line.seed, identity["inputs"], identity["settings"], line.stages.keys)
    finish(out, identity, record.as_dict())
    lines = [
        f"{i.site}: {'induced, ' + format(i.cycle_length_ms or 0, '.0f') + ' ms' if i.induced else 'no VT'}  {i.note}"
        for i in run.inductions
    ]
    line.console.result(value, [*lines, f"wrote {out / 'inductions.json'}"])
    return 0
