"""`vtwin plan`: a case file to a plan, its report and its overlays."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numba

from meshing.sites import NAMES as SITES
from planners.app import assemble, expect, waves
from planners.app.clinical import clinical_twin
from planners.app.confirm_stage import confirmation, with_confirmation
from planners.app.console import Console
from planners.app.dry_run import dry_run as said
from planners.app.evidence import gather
from planners.app.identity import hidden
from planners.app.output import check, claim, finish
from planners.app.pipeline import Line
from planners.circuit_evidence import recorded_vts
from planners.confirm.plan import Confirmations
from planners.finished import load_plan
from planners.overlay import export as write_overlay
from planners.pacing.protocol import load_protocol
from planners.report.build import write_report
from planners.report.cards import circuit_lines
from planners.report.pdf import write_pdf
from planners.report.story import Story
from planners.report.summary import headline
from twin.atomic import write_json
from twin.case import Case, load_case
from twin.errors import InputError
from twin.io.notes import Notes
from twin.io.source import did_you_mean
from twin.io.vtu import write_vtu
from twin.patient import Patient
from twin.records.clinical import read_clinical
from twin.run import RunRecord
from twin.site_name import place_of
from twin.stages import Stages


def identity_of(command: str, case: Case, seed: int, identified: bool = False) -> dict[str, Any]:
    """What makes a folder that of one run: command, seed, inputs by their content, settings."""
    settings: dict[str, Any] = {
        **case.mesh_asked,
        "accept": list(case.accept),
        "tissue": dict(case.tissue),
        "request": asdict(case.request),
    }
    if case.clinical:
        settings["clinical_vts"] = [{"name": vt["name"], "cycle_length_ms": vt["cycle_length_ms"]} for vt in case.clinical]
    if identified:
        settings["identified"] = True
    return {"command": command, "seed": seed, "inputs": case.inputs(), "settings": settings}


def line_of(out: Path, console: Console, seed: int) -> Line:
    """The line of stages that keeps its results below a run's folder."""
    return Line(Stages(out / "stages", console.progress), console, seed, numba.get_num_threads())


def _say_if_compiling(console: Console) -> None:
    """Kernels are compiled on first use and kept on disk: the first run says why it is slower."""
    folder = os.environ.get("NUMBA_CACHE_DIR")
    place = Path(folder) if folder else Path(str(files("solvers.kernels"))) / "__pycache__"
    if next(place.rglob("*.nbi"), None) is None:
        console.progress("First run here: kernels are compiled as they are needed (about a minute in all) and kept for later runs")


def begin(case: Case, folder: Path, console: Console, identified: bool = False) -> Patient:
    """Read and check the evidence of a case, and say what was noted of it; `folder` keeps what is made of it. Raises InputError."""
    console.progress(f"Case {case.name}: reading and checking the evidence ...")
    patient = gather(case, folder, lambda line: console.progress(f"  {line}"), identified)
    for note in patient.notes:
        console.progress(f"  {note}")
    return patient


def check_pacing(case: Case) -> None:
    """Raise InputError for a protocol or a site that no heart has, before minutes have gone into one."""
    load_protocol(case.request.protocol)
    for name in case.request.sites:
        if name not in SITES and place_of(name) is None:
            padded = f"aha0{name[-1]}"
            remedy = f"did you mean {padded!r}?" if name.lower() == f"aha{name[-1]}" else did_you_mean(name, SITES)
            raise InputError(case.path, "plan.sites", f"unknown pacing site {name!r}", remedy)


def plan(path: Path, out: Path, console: Console, *, seed: int, fresh: bool, dry_run: bool, identified: bool = False) -> int:
    """Run the whole line of a case file; status 3 if an [expect] of the case was missed."""
    return plan_case(load_case(path), out, console, seed=seed, fresh=fresh, dry_run=dry_run, identified=identified)


def plan_case(
    case: Case, out: Path, console: Console, *, seed: int = 0, fresh: bool = False, dry_run: bool = False, identified: bool = False
) -> int:
    """Run the whole line of a case; status 3 if an [expect] of it was missed. `identified`: outputs may name the case and its files."""
    case = hidden(case, identified)
    check_pacing(case)
    expect.check(case)
    identity = identity_of("plan", case, seed, identified)
    if dry_run:
        check(out, identity, fresh)
        recorded_vts(case.clinical, Notes(case.accept))
        if case.clinical_facts is not None:
            read_clinical(case.clinical_facts, case.clinical_files, case.path)
        with tempfile.TemporaryDirectory() as folder:
            return said(case, begin(case, Path(folder), console, identified), console)
    if claim(out, identity, fresh):
        console.progress(f"{out} holds this run: finished stages are reused")
    _say_if_compiling(console)
    patient = begin(case, out / "stages", console, identified)
    line = line_of(out, console, seed)
    story, record, confirmed = _computed(case, patient, line, identity)
    _write(story, out)
    missed = expect.missed(case, story.plan)
    finish(out, identity, {**record.as_dict(), "expect_missed": missed})
    lines = [
        headline(story),
        *circuit_lines(story.plan),
        *(confirmed.lines() if confirmed else []),
        f"report: {out / 'report.html'}",
        f"plan:   {out / 'plan.json'}",
        *(f"expected, but not met: {m}" for m in missed),
    ]
    console.result({"headline": headline(story), "report": str(out / "report.html"), "expect_missed": missed}, lines)
    return 3 if missed else 0


def _computed(case: Case, patient: Patient, line: Line, identity: Mapping[str, Any]) -> tuple[Story, RunRecord, Confirmations | None]:
    """All stages of a plan, each computed or found: what the report tells, the run's record, and what monodomain said where asked."""
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    console, virtual, recorded = line.console, _virtual(case, patient), recorded_vts(case.clinical, Notes(case.accept))
    informed = clinical_twin(case, patient, console.progress)
    case, settings = informed.case(case), informed.settings()
    calibration = line.calibration(line.mesh(patient, case), patient, case)
    run, found = line.induction(calibration, case.request, settings)
    evidence = line.evidence(calibration, found, recorded, case.request, settings)
    confirmed = confirmation(line, calibration, found, case.request, settings)
    lesions = line.lesions(calibration, run, found.circuits, case.request, settings)
    result = line.outcome(calibration, lesions, run, case.request, settings)
    lesions = line.comparison(calibration, lesions, run, found.circuits, case.request, settings)
    paced = {**identity["settings"], **informed.recorded()}
    record = RunRecord("plan", line.seed, identity["inputs"], paced, line.stages.keys, started=started, wall_s=line.stages.wall_s)
    circuits = evidence.on(lesions.circuits or found.circuits)
    made = assemble.assemble(
        patient, virtual, calibration, run, circuits, lesions, result, case.request, record, evidence.clinical, informed
    )
    console.progress("Report and overlays ...")
    story = Story(
        plan=with_confirmation(made, confirmed),
        mesh=calibration.twin.mesh.with_region(lesions.blocked, "lesion"),
        calibration=calibration,
        waves=waves.waves(calibration, found.episodes, lesions, case.request, settings),
        vt_ecgs=evidence.ecgs,
        recorded=recorded,
        virtual=virtual,
        substrate=line.substrate_picture(),
    )
    return story, record, confirmed


def _write(story: Story, out: Path) -> None:
    """plan.json, the report, its sheets, the mesh with its lesions, and the overlays of the heart without them."""
    write_json(out / "plan.json", story.plan.as_dict())
    write_report(story, out / "report.html")
    write_pdf(story, out / "summary.pdf")
    write_vtu(out / "heart.vtu", story.mesh)
    write_overlay(story.plan, story.calibration.twin.mesh, out / "overlay")


def _virtual(case: Case, patient: Patient) -> list[str]:
    """What in this case does not come from a patient, to be said wherever the plan is shown."""
    items = {"anatomy": patient.labels, "map": patient.eam, "ECG": patient.ecg, "record": patient.record}
    names = [name for name, item in items.items() if item is not None and item.virtual]
    scarred = patient.labels.value.mask("scar", "border_zone").any()
    return names + (["infarct"] if case.virtual_infarct or (patient.labels.virtual and scarred) else [])


def explain(out: Path, key: str, console: Console) -> int:
    """Say where one number of plan.json comes from."""
    value = load_plan(out).as_dict()
    text = assemble.explain(value, key)
    if text is None:
        raise InputError(out / "plan.json", key, "no such key", f"top-level keys are {', '.join(value)}")
    console.result({"key": key, "explanation": text}, [text])
    return 0
